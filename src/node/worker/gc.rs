//! Gives space back: frees chunks that nothing claims, lets the claims of puts lapse that were never
//! finished, and has the store compact its segments. Owns the rounds in which that is done; what may
//! be freed is decided by the store when it is asked, under its own lock.
//!
//! Time is counted in rounds of uptime and never by the wall clock alone, so that a clock that jumps
//! frees nothing: a chunk is freed when it had no claim in [`ROUNDS`] rounds one after the other,
//! a quarter of the grace each.

use crate::id::{ChunkId, ClaimId};
use crate::node::Shared;
use crate::store::{CompactError, Compaction, Op, Progress};
use crate::sys::Table;
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
/// A segment is compacted when so many percent of it are dead.
const LEAST_DEAD: u8 = 25;
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

/// Runs for as long as the node does.
pub(in crate::node) async fn run(shared: Arc<Shared>) {
    let every = (shared.config.gc_grace / ROUNDS).max(ROUND_MIN);
    loop {
        tokio::time::sleep(every).await;
        if let Err(err) = shared.collect_garbage(every).await {
            tracing::warn!(%err, "space is not given back yet");
        }
    }
}

impl Shared {
    async fn collect_garbage(self: &Arc<Self>, every: Duration) -> Result<(), GcError> {
        let round = self.next_round().await?;
        // Before the claims of this round end: what is stamped now is freed ROUNDS later.
        self.stamp(round).await?;
        let (chunks, bytes) = self.free(round).await?;
        if chunks > 0 {
            tracing::info!(chunks, bytes, "freed chunks that nobody needs any more");
        }
        self.lapse(round, every).await?;
        self.compact().await
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
            from = last.filter(|_| page.len() == PAGE).and_then(super::repair::successor);
            if !page.is_empty() {
                let (done, written) = tokio::sync::oneshot::channel();
                let report = Box::new(move |result| drop(done.send(result)));
                self.store.stamp(page, round, report).map_err(io::Error::other)?;
                written.await.map_err(io::Error::other)??;
            }
        }
        Ok(())
    }

    /// Frees what has had no claim for the whole grace; how many chunks, and their bytes.
    async fn free(&self, round: u64) -> Result<(u64, u64), GcError> {
        let Some(until) = round.checked_sub(u64::from(ROUNDS)) else { return Ok((0, 0)) };
        let before = self.store.usage();
        let mut from = Some(ChunkId([0; 32]));
        while let Some(next) = from {
            let mut ops = Vec::new();
            let mut last = None;
            self.store.condemned(next, &mut |condemned| {
                if condemned.round.is_some_and(|round| round <= until) {
                    ops.push(Op::Free { cid: condemned.cid, round: until });
                }
                last = Some(condemned.cid);
                ops.len() < PAGE
            })?;
            from = last.filter(|_| ops.len() == PAGE).and_then(super::repair::successor);
            if !ops.is_empty() {
                self.write(ops).await?;
            }
        }
        let after = self.store.usage();
        let freed = before.condemned.saturating_sub(after.condemned);
        Ok((freed, before.condemned_bytes.saturating_sub(after.condemned_bytes)))
    }

    /// Ends claims that were not renewed for long enough, by the clock and by the uptime of this
    /// node, while it has heard from its neighbours what files there are.
    async fn lapse(self: &Arc<Self>, round: u64, every: Duration) -> Result<(), GcError> {
        let after = self.config.lapse_after;
        let rounds = after.as_secs_f64() / every.as_secs_f64();
        let old_round = round.saturating_sub(rounds.ceil() as u64);
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let old_ms = self.sys.clock.wall_ms().saturating_sub(after_ms);
        let told = self.has_reconciled_lately();
        let mut from = Some(ClaimId([0; 16]));
        while let Some(next) = from {
            let mut page = Vec::new();
            self.store.pending(next, &mut |pending| {
                page.push(pending);
                page.len() < PAGE
            })?;
            from = page.last().filter(|_| page.len() == PAGE).map(|last| {
                ClaimId(u128::from_be_bytes(last.claim.0).saturating_add(1).to_be_bytes())
            });
            let seen = page.iter().map(|pending| (pending.claim, pending.renewed_ms)).collect();
            let first = self.note_pending(seen, round).await?;
            let lapsed = page.iter().zip(first).filter(|(pending, first)| {
                told && pending.renewed_ms <= old_ms && *first <= old_round
            });
            let ops: Vec<Op> = lapsed
                .map(|(pending, _)| Op::Lapse { claim: pending.claim, renewed_ms: old_ms })
                .collect();
            if !ops.is_empty() {
                tracing::info!(puts = ops.len(), "gave up what unfinished puts had left");
                self.write(ops).await?;
            }
        }
        self.forget_settled().await
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
    async fn forget_settled(&self) -> Result<(), GcError> {
        let mut noted: Vec<Vec<u8>> = Vec::new();
        self.store.read_tables(|tables| {
            tables.range(PENDING, &[], None, &mut |key, _| {
                noted.push(key.to_vec());
                noted.len() < PAGE * PAGE
            })
        })?;
        let mut pending = std::collections::BTreeSet::new();
        self.store.pending(ClaimId([0; 16]), &mut |one| pending.insert(one.claim.0.to_vec()))?;
        noted.retain(|key| !pending.contains(key));
        if !noted.is_empty() {
            let forget = self.change_tables(move |tables| {
                noted.iter().try_for_each(|key| tables.remove(PENDING, key).map(drop))
            });
            forget.await?;
        }
        Ok(())
    }

    /// Compacts segments for as long as enough of one is dead, at a pace.
    async fn compact(self: &Arc<Self>) -> Result<(), GcError> {
        while self.store.usage().read_only.is_none() {
            let store = self.store.clone();
            let began = self.job(move || store.compact(LEAST_DEAD)).await?;
            let Some(mut compaction) = began? else { return Ok(()) };
            loop {
                let (back, progress) = self.job(move || step(compaction)).await?;
                compaction = back;
                match progress? {
                    Progress::More => {
                        let pause = Duration::from_secs_f64(STEP as f64 / RATE as f64);
                        tokio::time::sleep(pause).await;
                    }
                    Progress::Done(compacted) => {
                        let (before, after) = (compacted.before, compacted.after);
                        tracing::debug!(before, after, "compacted a segment");
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn step(mut compaction: Compaction) -> (Compaction, Result<Progress, CompactError>) {
    let progress = compaction.step(STEP);
    (compaction, progress)
}

fn pending_row(row: &[u8]) -> Option<(u64, u64)> {
    let (first, renewed) = row.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), u64::from_le_bytes(renewed.try_into().ok()?)))
}
