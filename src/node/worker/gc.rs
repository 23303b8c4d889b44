//! Gives space back: frees chunks that nothing claims, lets the claims of puts lapse that were
//! never finished, and has the store compact its segments. Owns the rounds in which that is done;
//! what may be freed is decided by the store when it is asked, under its own lock.
//!
//! Time is counted in rounds of uptime and never by the wall clock alone, so that a clock that
//! jumps frees nothing: a chunk is freed when it had no claim in [`ROUNDS`] rounds one after the
//! other, a quarter of the grace each.

use super::board::Report;
use super::repair::successor;
use super::shape::{Next, Worked, Worker};
use crate::core::hlc;
use crate::id::{ChunkId, ClaimId};
use crate::node::Shared;
use crate::node::view::{Member, View};
use crate::store::{Claim, CompactError, Compaction, Op, Pending, Progress};
use crate::sys::{Table, TableRead, Time};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The round that was the last, at key 0.
const ROUND: Table = Table("gc.round");
/// Pending claims: claim → the round that saw it first as it is, and its renewal in ms.
const PENDING: Table = Table("gc.pending");

/// Rounds that make the grace.
const ROUNDS: u32 = 4;
/// The shortest round.
const ROUND_MIN: Duration = Duration::from_millis(250);
/// Chunks or claims that are handled in one go.
const PAGE: usize = 512;
/// A segment is compacted when so many percent of it are dead …
const LEAST_DEAD: u8 = 25;
/// … or so many, when room is short: then what is dead keeps new data out, and the node from being
/// seen to have given something up.
const LEAST_DEAD_SHORT: u8 = 5;
/// Room is short when so many percent of the capacity are taken.
const SHORT: u64 = 80;
/// Bytes that a compaction copies in one step …
const STEP: u64 = 4 << 20;
/// … and in a second, so that reads and writes keep most of the disk.
const RATE: u64 = 64 << 20;

/// Why a round was not finished; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Write(#[from] crate::store::WriteError),
    #[error(transparent)]
    Compact(#[from] CompactError),
}

/// What the worker does next.
enum Phase {
    /// The next round begins when its time has come.
    Rest,
    /// Chunks from this one on are freed.
    Free(ChunkId),
    /// Claims lapse.
    Lapse,
    /// Segments are compacted; one may be under way.
    Compact(Option<Box<Compaction>>),
}

/// The worker.
pub(in crate::node) struct Gc {
    shared: Arc<Shared>,
    /// Between two rounds.
    every: Duration,
    /// When the next one begins.
    due: Time,
    round: u64,
    phase: Phase,
    /// Chunks freed since the start.
    freed: u64,
}

impl Gc {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let every = (shared.config.gc_grace / ROUNDS).max(ROUND_MIN);
        let due = shared.sys.clock.now() + every;
        Self { shared, every, due, round: 0, phase: Phase::Rest, freed: 0 }
    }

    async fn begin(&mut self) -> Result<Next, GcError> {
        let now = self.shared.sys.clock.now();
        if now < self.due {
            return Ok(Next::Idle(self.due));
        }
        self.due = now + self.every;
        self.round = self.shared.next_round().await?;
        // Before the claims of this round end: what is stamped now is freed ROUNDS later.
        self.shared.stamp(self.round).await?;
        self.phase = Phase::Free(ChunkId([0; 32]));
        Ok(Next::More)
    }

    async fn free(&mut self, from: ChunkId) -> Result<Next, GcError> {
        let before = self.shared.store.usage();
        let next = self.shared.free(from, self.round).await?;
        let after = self.shared.store.usage();
        let chunks = before.condemned.saturating_sub(after.condemned);
        if chunks > 0 {
            let bytes = before.condemned_bytes.saturating_sub(after.condemned_bytes);
            tracing::info!(chunks, bytes, "freed chunks that nobody needs any more");
            self.freed += chunks;
        }
        self.phase = next.map_or(Phase::Lapse, Phase::Free);
        Ok(Next::More)
    }

    /// Compacts a part of a segment, at a pace.
    async fn compact(&mut self, under_way: Option<Box<Compaction>>) -> Result<Next, GcError> {
        let Some(mut compaction) = under_way else {
            let shared = self.shared.clone();
            let began =
                self.shared.job(move || shared.store.compact(shared.least_dead())).await??;
            if let Some(compaction) = began {
                self.phase = Phase::Compact(Some(Box::new(compaction)));
                return Ok(Next::More);
            }
            return Ok(Next::Idle(self.due));
        };
        let work = move || {
            let progress = compaction.step(STEP);
            (compaction, progress)
        };
        let (compaction, progress) = self.shared.job(work).await?;
        match progress? {
            Progress::More => {
                self.phase = Phase::Compact(Some(compaction));
                let pause = Duration::from_secs_f64(STEP as f64 / RATE as f64);
                Ok(Next::Pause(self.shared.sys.clock.now() + pause))
            }
            Progress::Done(compacted) => {
                let (before, after) = (compacted.before, compacted.after);
                tracing::debug!(before, after, "compacted a segment");
                compacted.damaged.into_iter().for_each(|cid| self.shared.repair_when_noted(cid));
                // What is to be freed does not wait until all segments are compacted.
                let late = self.shared.sys.clock.now() >= self.due;
                self.phase = if late { Phase::Rest } else { Phase::Compact(None) };
                Ok(Next::More)
            }
        }
    }
}

impl Worker for Gc {
    const NAME: &'static str = "gc";

    async fn work(&mut self) -> Worked {
        // After an error the next round begins with everything again.
        Ok(match std::mem::replace(&mut self.phase, Phase::Rest) {
            Phase::Rest => self.begin().await?,
            Phase::Free(from) => self.free(from).await?,
            Phase::Lapse => {
                self.shared.lapse(self.round, self.every).await?;
                self.phase = Phase::Compact(None);
                Next::More
            }
            Phase::Compact(_) if self.shared.store.usage().read_only.is_some() => {
                Next::Idle(self.due)
            }
            Phase::Compact(under_way) => self.compact(under_way).await?,
        })
    }

    fn report(&self) -> Report {
        let doing = match &self.phase {
            Phase::Rest => match self.shared.store.usage().condemned {
                0 => String::new(),
                chunks => format!("{chunks} chunks wait for their grace to pass"),
            },
            Phase::Free(_) => "freeing chunks".into(),
            Phase::Lapse => "looking for unfinished puts".into(),
            Phase::Compact(None) => "looking for segments to compact".into(),
            Phase::Compact(Some(of)) => format!("compacting segment {}", of.segment()),
        };
        Report { doing, moved: self.freed, moved_unit: "chunks", ..Report::default() }
    }
}

impl Shared {
    /// How many percent of a segment have to be dead for it to be compacted.
    fn least_dead(&self) -> u8 {
        let usage = self.store.usage();
        let is_full = |view: &View| view.members.get(&self.me).is_some_and(Member::is_over_full);
        let short = usage.stored_bytes >= usage.capacity / 100 * SHORT || is_full(&self.view());
        if short { LEAST_DEAD_SHORT } else { LEAST_DEAD }
    }

    async fn next_round(&self) -> io::Result<u64> {
        self.change_tables(|tables| {
            let last = tables.get(ROUND, &[0])?.and_then(|row| row.try_into().ok());
            let round = last.map_or(0, u64::from_le_bytes) + 1;
            tables.insert(ROUND, &[0], &round.to_le_bytes())?;
            Ok(round)
        })
        .await
    }

    /// Has the store remember since which round chunks have been without a claim.
    async fn stamp(&self, round: u64) -> io::Result<()> {
        let mut from = Some(ChunkId([0; 32]));
        while let Some(next) = from {
            let mut page = Vec::new();
            let mut last = None;
            self.store.condemned(next, &mut |condemned| {
                if condemned.round.is_none() {
                    page.push(condemned.cid);
                }
                last = Some(condemned.cid);
                page.len() < PAGE
            })?;
            from = last.filter(|_| page.len() == PAGE).and_then(successor);
            if !page.is_empty() {
                let (done, written) = tokio::sync::oneshot::channel();
                let report = Box::new(move |result| drop(done.send(result)));
                self.store.stamp(page, round, report).map_err(io::Error::other)?;
                written.await.map_err(io::Error::other)??;
            }
        }
        Ok(())
    }

    /// Frees some of what has had no claim for the whole grace; where to go on.
    async fn free(&self, from: ChunkId, round: u64) -> Result<Option<ChunkId>, GcError> {
        let Some(until) = round.checked_sub(u64::from(ROUNDS)) else { return Ok(None) };
        let (mut ops, mut last) = (Vec::new(), None);
        self.store.condemned(from, &mut |condemned| {
            if condemned.round.is_some_and(|round| round <= until) {
                ops.push(Op::Free { cid: condemned.cid, round: until });
            }
            last = Some(condemned.cid);
            ops.len() < PAGE
        })?;
        let next = last.filter(|_| ops.len() == PAGE).and_then(successor);
        if !ops.is_empty() {
            self.write(ops).await?;
        }
        Ok(next)
    }

    /// Whether no put that is under way can have renewed its claim last then, by the clock: that is
    /// too long ago, or a time that nobody's clock should show.
    pub(super) fn is_left_behind(&self, renewed_ms: u64) -> bool {
        let after = u64::try_from(self.config.lapse_after.as_millis()).unwrap_or(u64::MAX);
        let now = self.sys.clock.wall_ms();
        !(now.saturating_sub(after)..=now.saturating_add(hlc::MAX_AHEAD_MS)).contains(&renewed_ms)
    }

    /// Ends claims that were not renewed for long enough, by the clock and by the uptime of this
    /// node, while it has heard from its neighbours what files there are.
    async fn lapse(self: &Arc<Self>, round: u64, every: Duration) -> Result<(), GcError> {
        let rounds = self.config.lapse_after.as_secs_f64() / every.as_secs_f64();
        let old_round = round.saturating_sub(rounds.ceil() as u64);
        let told = self.has_reconciled_lately();
        let mut from = Some(ClaimId([0; 16]));
        while let Some(next) = from {
            let mut page = Vec::new();
            self.store.pending(next, &mut |pending| {
                page.push(pending);
                page.len() < PAGE
            })?;
            from = page.last().filter(|_| page.len() == PAGE).map(|last| behind(last.claim));
            let seen = page.iter().map(|pending| (pending.claim, pending.renewed_ms)).collect();
            let first = self.note_pending(seen, round).await?;
            let lapsed = page.iter().zip(first).filter(|(pending, first)| {
                told && self.is_left_behind(pending.renewed_ms) && *first <= old_round
            });
            let ops: Vec<Op> = lapsed
                .map(|(pending, _)| {
                    let Pending { claim, renewed_ms, .. } = *pending;
                    Op::Lapse { claim, renewed_ms }
                })
                .collect();
            if !ops.is_empty() {
                tracing::info!(puts = ops.len(), "gave up what unfinished puts had left");
                self.write(ops).await?;
            }
        }
        Ok(self.forget_settled().await?)
    }

    /// In which round each of these claims was seen first with this renewal.
    async fn note_pending(&self, seen: Vec<(ClaimId, u64)>, round: u64) -> io::Result<Vec<u64>> {
        self.change_tables(move |tables| {
            let mut out = Vec::with_capacity(seen.len());
            for (claim, renewed_ms) in &seen {
                let known = tables.get(PENDING, &claim.0)?.as_deref().and_then(pending_row);
                let first = match known {
                    Some((first, renewed)) if renewed == *renewed_ms => first,
                    _ => {
                        let row = [round.to_le_bytes(), renewed_ms.to_le_bytes()].concat();
                        tables.insert(PENDING, &claim.0, &row)?;
                        round
                    }
                };
                out.push(first);
            }
            Ok(out)
        })
        .await
    }

    /// Forgets claims that are pending no more.
    async fn forget_settled(&self) -> io::Result<()> {
        let mut from = Some(ClaimId([0; 16]));
        while let Some(next) = from {
            let mut page: Vec<ClaimId> = Vec::with_capacity(PAGE);
            self.store.read_tables(|tables| {
                tables.range(PENDING, &next.0, None, &mut |key, _| {
                    page.extend(key.try_into().map(ClaimId));
                    page.len() < PAGE
                })
            })?;
            from = page.last().filter(|_| page.len() == PAGE).map(|last| behind(*last));
            let mut settled = Vec::new();
            for claim in page {
                if self.store.pending_chunks(claim, 1)?.is_empty() {
                    settled.push(claim);
                }
            }
            if !settled.is_empty() {
                let forget = self.change_tables(move |tables| {
                    settled.iter().try_for_each(|claim| tables.remove(PENDING, &claim.0).map(drop))
                });
                forget.await?;
            }
        }
        Ok(())
    }
}

/// When a claim that nobody has committed was renewed last, as far as is known. A put renews it on
/// one chunk at each node: the last round has noted the newest of all.
pub(super) fn newest(tables: &dyn TableRead, claim: &Claim) -> io::Result<u64> {
    let noted = tables.get(PENDING, &claim.id.0)?.as_deref().and_then(pending_row);
    Ok(noted.map_or(0, |(_, renewed_ms)| renewed_ms).max(claim.renewed_ms))
}

/// The next claim id; behind the last one itself.
fn behind(claim: ClaimId) -> ClaimId {
    ClaimId(u128::from_be_bytes(claim.0).saturating_add(1).to_be_bytes())
}

fn pending_row(row: &[u8]) -> Option<(u64, u64)> {
    let (first, renewed) = row.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), u64::from_le_bytes(renewed.try_into().ok()?)))
}
