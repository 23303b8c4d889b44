//! Scrub: reads everything that is stored here again, from the disk itself, so that rot is found
//! while another node still has a good copy. Owns what is read when; what a damaged copy means is
//! the store's, and what is damaged is fetched by `repair` and `mend`, except what the disk cannot
//! read at all: that keeps counting as held until a good copy is at hand, and is replaced here.
//!
//! A pass goes through all chunks and records in the order of their names. One begins in each half
//! of the period and ends within that half, so nothing waits longer than the period. It goes
//! faster than it has to, as long as that costs next to nothing, and as fast as the disk lets it
//! when somebody asks (`scrub --now`); then it gives way to puts and gets. After each start a
//! random hundredth is read first, because what stops a machine may have hurt its disk.

use super::board::Report;
use super::passes::{self, Found, Pass, Spot};
use super::shape::{Next, Worked, Worker};
use crate::core::limits;
use crate::id::{ChunkId, RecordId};
use crate::node::{NotReady, Shared, lock};
use crate::store::{Op, RecordHere, Replica, Store, Usage, Verdict};
use crate::sys::Time;
use crate::wire::control::{ScrubFound, ScrubInfo};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What reading something small costs, in bytes that could be read instead: a seek.
const SEEK: u64 = 16 << 10;
/// Bytes of one piece, seeks included …
const PIECE: u64 = 1 << 20;
/// … and of one where somebody waits.
const PIECE_AT_ONCE: u64 = 16 << 20;
/// Bytes per second that a pass takes although it would be in time without: a small store is
/// through in hours.
const RATE_MIN: u64 = 256 << 10;
/// Bytes per second that one takes at most to be in time, and when a node starts.
const RATE_MAX: u64 = 32 << 20;
/// Which part of what is stored is read at each start: one in so many.
const SAMPLE: u64 = 100;
/// How long after the start that begins, more or less.
const SAMPLE_AFTER: Duration = Duration::from_secs(20);
/// How often it is written down how far a pass is.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked at what became of damage, and so where somebody waits.
const SETTLE_EVERY: Duration = Duration::from_secs(5);
const SETTLE_AT_ONCE: Duration = Duration::from_millis(100);
/// How much of it is looked at together, and how many unreadable chunks are replaced then.
const SETTLED_TOGETHER: usize = 256;
const REPLACED_TOGETHER: usize = 4;
/// Lost ones remembered: more are not worth memory.
const LOST_MAX: usize = 4096;
/// For so long somebody who waits goes on waiting although no more damage is repaired.
const STUCK: Duration = Duration::from_secs(60);

/// Where others ask for a pass and see how far it is.
#[derive(Default)]
pub(in crate::node) struct Desk {
    /// How many passes at once were asked for.
    asked: watch::Sender<u64>,
    told: watch::Sender<Told>,
}

/// What scrub has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Told {
    pass: Pass,
    lost: u64,
    /// The pass at once that runs, by its number.
    serving: Option<u64>,
    served: Served,
}

/// The last pass at once that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Served {
    number: u64,
    found: Found,
    lost: u64,
}

/// The worker.
pub(in crate::node) struct Scrub {
    shared: Arc<Shared>,
    asked: watch::Receiver<u64>,
    pass: Pass,
    loaded: bool,
    /// The pass at once that runs, by its number, and the last one that has ended.
    serving: Option<u64>,
    served: Served,
    /// What is left to read of the random part.
    sample: Option<(ChunkId, ChunkId)>,
    /// When the next piece is read, at the earliest.
    piece_at: Time,
    save_at: Time,
    /// How many damaged ones are not settled, where looking at them goes on, and when.
    open: u64,
    settle_from: Spot,
    settle_at: Time,
    /// Those of them that no other node has, while somebody waits; and since when none was settled.
    lost: BTreeSet<Spot>,
    settled_at: Time,
    /// Bytes read since the start.
    read: u64,
}

/// What became of something damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Repaired,
    Unneeded,
    Gone,
    /// Still damaged; whether nobody has it.
    Open {
        lost: bool,
    },
    /// A chunk that the disk cannot read.
    Unreadable,
}

impl Worker for Scrub {
    const NAME: &'static str = "scrub";

    async fn work(&mut self) -> Worked {
        if !self.loaded {
            self.load()?;
        }
        // A clock that was set back must not keep the next pass waiting for years.
        self.pass.began_ms = self.pass.began_ms.min(self.shared.sys.clock.wall_ms());
        self.take_request();
        let now = self.shared.sys.clock.now();
        if self.open > 0 && now >= self.settle_at {
            self.settle().await?;
        }
        if now >= self.piece_at {
            match (self.sample, self.pass.next) {
                (Some((from, to)), _) => self.sample(from, to).await?,
                (None, Some(from)) => self.read_on(from).await?,
                (None, None) if self.due_in() == Duration::ZERO => {
                    self.pass = self.pass.after(self.shared.sys.clock.wall_ms(), self.open);
                }
                (None, None) => {}
            }
        }
        self.answer();
        self.tell();
        Ok(self.next())
    }

    async fn wait(&mut self) {
        // The sender lives in `shared`.
        drop(self.asked.changed().await);
    }

    fn report(&self) -> Report {
        let usage = self.shared.store.usage();
        let running = self.pass.next.is_some();
        let doing = match self.open {
            0 => String::new(),
            1 => "1 damaged".into(),
            more => format!("{more} damaged"),
        };
        Report {
            progress: running.then(|| (self.pass.found.bytes, total(&usage, &self.pass.found))),
            unit: "bytes",
            doing,
            moved: self.read,
            moved_unit: "bytes",
        }
    }
}

impl Scrub {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let now = shared.sys.clock.now();
        let first = ChunkId(shared.sys.rng.bytes());
        Self {
            asked: shared.scrub.asked.subscribe(),
            pass: Pass::default(),
            loaded: false,
            serving: None,
            served: Served::default(),
            sample: Some((first, sample_end(&first))),
            piece_at: now + jitter(&shared, SAMPLE_AFTER.min(shared.config.scrub_within / 1000)),
            save_at: now,
            open: 0,
            settle_from: Spot::FIRST,
            settle_at: now,
            lost: BTreeSet::new(),
            settled_at: now,
            read: 0,
            shared,
        }
    }

    /// Goes on where the last life was.
    fn load(&mut self) -> io::Result<()> {
        let (pass, open) = self
            .shared
            .store
            .read_tables(|tables| Ok((passes::pass(tables)?, passes::count_open(tables)?)))?;
        let begin = || Pass::default().after(self.shared.sys.clock.wall_ms(), open);
        (self.pass, self.open) = (pass.unwrap_or_else(begin), open);
        self.loaded = true;
        Ok(())
    }

    /// Begins with a pass that was asked for.
    fn take_request(&mut self) {
        let asked = *self.asked.borrow_and_update();
        if self.serving.is_some() || asked <= self.served.number {
            return;
        }
        self.serving = Some(asked);
        self.sample = None;
        self.pass = self.pass.after(self.shared.sys.clock.wall_ms(), self.open);
        let now = self.shared.sys.clock.now();
        self.piece_at = now;
    }

    /// Reads a piece of the random part.
    async fn sample(&mut self, from: ChunkId, to: ChunkId) -> io::Result<()> {
        let checked = self.check(Spot::Chunk(from), Some(to), PIECE).await?;
        self.sample = match checked.next {
            Some(Spot::Chunk(next)) if next < to => Some((next, to)),
            _ => None,
        };
        self.piece_at = self.shared.sys.clock.now() + takes(checked.cost, RATE_MAX);
        self.note(checked.damaged).await
    }

    /// Reads a piece of the pass.
    async fn read_on(&mut self, from: Spot) -> io::Result<()> {
        let began = self.shared.sys.clock.now();
        let uses = self.uses();
        let most = if self.serving.is_some() { PIECE_AT_ONCE } else { PIECE };
        let checked = self.check(from, None, most).await?;
        let now = self.shared.sys.clock.now();
        self.pass.next = checked.next;
        self.pass.found.chunks += checked.chunks;
        self.pass.found.records += checked.records;
        self.pass.found.bytes += checked.bytes;
        if checked.next.is_none() {
            self.pass.end(self.shared.sys.clock.wall_ms());
            (self.settled_at, self.settle_at) = (now, now);
            // From now on it counts who has nothing good for what is damaged.
            self.lost.clear();
        }
        let others = self.uses() != uses;
        self.piece_at = match self.serving {
            None => now + self.pause(checked.cost),
            Some(_) if others => now + now.since(began),
            Some(_) => now,
        };
        if !checked.damaged.is_empty() || checked.next.is_none() || now >= self.save_at {
            self.save_at = now + SAVE_EVERY;
            self.note(checked.damaged).await?;
        }
        Ok(())
    }

    /// How often puts, gets and repairs have taken memory.
    fn uses(&self) -> u64 {
        self.shared.memory.uses() + self.shared.fetched.uses()
    }

    /// Half of the period.
    fn half(&self) -> Duration {
        self.shared.config.scrub_within / 2
    }

    /// How long it is until the next pass begins.
    fn due_in(&self) -> Duration {
        let since = self.shared.sys.clock.wall_ms().saturating_sub(self.pass.began_ms);
        self.half().saturating_sub(Duration::from_millis(since))
    }

    /// How long to wait after a piece that cost so many bytes, so that the pass is in time.
    fn pause(&self, cost: u64) -> Duration {
        let Some(next) = self.pass.next else { return Duration::ZERO };
        let share = self.half().mul_f64(done(&self.shared.store.usage(), &next));
        let passed = self.half() - self.due_in();
        let in_time = share.saturating_sub(passed);
        let pause = in_time.min(takes(cost, RATE_MIN)).max(takes(cost, RATE_MAX));
        jitter(&self.shared, pause)
    }

    /// Reads on from `from`, beside the tasks.
    async fn check(&mut self, from: Spot, to: Option<ChunkId>, most: u64) -> io::Result<Checked> {
        let store = self.shared.store.clone();
        let checked = self.shared.job(move || check(&store, from, to, most)).await??;
        self.read += checked.bytes;
        Ok(checked)
    }

    /// Writes down what was found and how far the pass is, and hands over what is damaged.
    async fn note(&mut self, damaged: Vec<Spot>) -> io::Result<()> {
        let (pass, spots) = (self.pass, damaged.clone());
        let written = self.shared.change_tables(move |tables| {
            let mut pass = pass;
            let mut new = 0;
            for spot in spots {
                new += u64::from(passes::open(tables, spot)?);
            }
            pass.settle(|found| found.damaged += new);
            passes::set_pass(tables, &pass)?;
            Ok((pass, new))
        });
        let (pass, new) = written.await?;
        (self.pass, self.open) = (pass, self.open + new);
        // The store has noted by now that they are damaged: that was in its queue before.
        for spot in damaged {
            match spot {
                Spot::Chunk(cid) => {
                    // Who did not have it, or did not answer, is asked again.
                    lock(&self.shared.lost).remove(&cid);
                    self.shared.wants_repair(cid);
                }
                Spot::Record(id) => self.shared.damaged.note(id),
            }
        }
        Ok(())
    }

    /// Looks at what became of some of what is damaged.
    async fn settle(&mut self) -> io::Result<()> {
        let (shared, from) = (self.shared.clone(), self.settle_from);
        let job = move || -> io::Result<Vec<(Spot, Fate)>> {
            let spots = shared
                .store
                .read_tables(|tables| passes::opened(tables, from, SETTLED_TOGETHER))?;
            spots.into_iter().map(|spot| Ok((spot, shared.fate(spot)?))).collect()
        };
        let mut fates = self.shared.job(job).await??;
        if fates.is_empty() && self.settle_from == Spot::FIRST {
            // The tables were built anew, without those rows; the next pass finds what is left.
            self.open = 0;
        }
        self.settle_from = match fates.last() {
            Some((last, _)) if fates.len() == SETTLED_TOGETHER => *last,
            _ => Spot::FIRST,
        };
        let unreadable = fates.iter_mut().filter(|(_, fate)| *fate == Fate::Unreadable);
        for (spot, fate) in unreadable.take(REPLACED_TOGETHER) {
            if let Spot::Chunk(cid) = *spot {
                *fate = self.shared.replace(cid).await;
            }
        }
        let waited_for = self.serving.is_some() && self.pass.next.is_none();
        let records = fates.iter().any(|(spot, fate)| {
            matches!((spot, fate), (Spot::Record(_), Fate::Open { .. }))
                && !self.lost.contains(spot)
        });
        if waited_for && records {
            // What is not good after this is to be had from nobody who answers.
            self.shared.mend_records(limits::ASK).await;
        }
        self.close(fates, waited_for && records).await?;
        let every = if waited_for { SETTLE_AT_ONCE } else { SETTLE_EVERY };
        self.settle_at = self.shared.sys.clock.now() + every;
        Ok(())
    }

    /// Counts what became of them and forgets those that are settled; `mended`: members were asked
    /// for the records after their fate was looked up.
    async fn close(&mut self, fates: Vec<(Spot, Fate)>, mended: bool) -> io::Result<()> {
        let mut settled = Vec::new();
        for (spot, fate) in fates {
            match (spot, fate) {
                (Spot::Record(id), Fate::Open { .. }) if mended => {
                    self.set_lost(spot, self.shared.damaged.contains(&id));
                }
                (_, Fate::Open { lost }) => self.set_lost(spot, lost),
                (_, Fate::Unreadable) => {}
                (_, fate) => settled.push((spot, fate)),
            }
        }
        if settled.is_empty() {
            return Ok(());
        }
        let count = |fate| settled.iter().filter(|(_, one)| *one == fate).count() as u64;
        let (repaired, unneeded, gone) =
            (count(Fate::Repaired), count(Fate::Unneeded), count(Fate::Gone));
        self.pass.settle(|found| {
            found.repaired += repaired;
            found.unneeded += unneeded;
            found.gone += gone;
        });
        self.open = self.open.saturating_sub(settled.len() as u64);
        self.settled_at = self.shared.sys.clock.now();
        settled.iter().for_each(|(spot, _)| _ = self.lost.remove(spot));
        let pass = self.pass;
        self.shared
            .change_tables(move |tables| {
                settled.iter().try_for_each(|(spot, _)| passes::close(tables, *spot))?;
                passes::set_pass(tables, &pass)
            })
            .await
    }

    fn set_lost(&mut self, spot: Spot, lost: bool) {
        if lost && self.lost.len() < LOST_MAX {
            self.lost.insert(spot);
        } else if !lost {
            self.lost.remove(&spot);
        }
    }

    /// Tells who waits that the pass has ended: all is read, and nothing more can be repaired.
    fn answer(&mut self) {
        let (Some(serving), None) = (self.serving, self.pass.next) else { return };
        let stuck = self.shared.sys.clock.now().since(self.settled_at) >= STUCK;
        if self.open <= self.lost.len() as u64 || stuck {
            self.served = Served { number: serving, found: self.pass.found, lost: self.lost() };
            self.serving = None;
        }
    }

    /// How many damaged ones of this pass no other node has.
    fn lost(&self) -> u64 {
        self.pass.found.gone + self.lost.len() as u64
    }

    fn tell(&self) {
        let lost = self.lost();
        let (pass, serving, served) = (self.pass, self.serving, self.served);
        let told = Told { pass, lost, serving, served };
        self.shared.scrub.told.send_if_modified(|old| std::mem::replace(old, told) != told);
    }

    fn next(&self) -> Next {
        let now = self.shared.sys.clock.now();
        let reads = self.sample.is_some() || self.pass.next.is_some();
        let piece_at = if reads { self.piece_at } else { now + self.due_in() };
        let next = if self.open > 0 { piece_at.min(self.settle_at) } else { piece_at };
        if next <= now || *self.asked.borrow() > self.served.number && self.serving.is_none() {
            Next::More
        } else if reads || self.serving.is_some() {
            Next::Pause(next)
        } else {
            Next::Idle(next)
        }
    }
}

impl Shared {
    /// What became of something that was found damaged.
    fn fate(&self, spot: Spot) -> io::Result<Fate> {
        match spot {
            Spot::Chunk(cid) => Ok(match self.store.verify(cid)? {
                Verdict::Good => Fate::Repaired,
                Verdict::Unreadable => Fate::Unreadable,
                Verdict::Missing => Fate::Unneeded,
                Verdict::Damaged => Fate::Open { lost: lock(&self.lost).contains(&cid) },
            }),
            Spot::Record(id) => {
                if self.store.verify_record(id)? == Verdict::Good {
                    return Ok(Fate::Repaired);
                }
                let here = self.store.record(id);
                if here.is_err() {
                    self.damaged.note(id);
                }
                // One that nobody had may have been given up.
                Ok(if matches!(here, Ok(None)) { Fate::Gone } else { Fate::Open { lost: false } })
            }
        }
    }

    /// Replaces a chunk that the disk cannot read where it lies, once its bytes are at hand.
    async fn replace(self: &Arc<Self>, cid: ChunkId) -> Fate {
        let Ok((sealed, _)) = self.fetch(cid).await else { return Fate::Open { lost: true } };
        let replica = Op::Replica { cid, sealed, claim: None, hint: None };
        let replaced = match self.store.give_up(cid) {
            Ok(()) => self.write(vec![replica]).await.map_err(io::Error::other),
            Err(err) => Err(err),
        };
        if let Err(err) = replaced {
            tracing::warn!(%err, "a chunk that cannot be read was not replaced");
            self.worker_failed(Scrub::NAME, &err);
        }
        // Whether it is good now is seen when it is read the next time.
        Fate::Open { lost: false }
    }

    /// How far scrub is; none before this node has been a member.
    pub(in crate::node) fn scrub_info(&self) -> Option<ScrubInfo> {
        let told = *self.scrub.told.borrow();
        let running = told.pass.next.is_some() || told.serving.is_some();
        let wall_ms = self.sys.clock.wall_ms();
        let within = self.config.scrub_within;
        let half = u64::try_from(within.as_millis() / 2).unwrap_or(u64::MAX);
        let due_ms = told.pass.began_ms.saturating_add(half);
        let last = told.pass.last;
        (told.pass.began_ms > 0).then(|| ScrubInfo {
            running,
            at_once: told.serving.is_some(),
            done: told.pass.found.bytes,
            total: total(&self.store.usage(), &told.pass.found),
            found: told.pass.found.told(told.lost),
            last: last.map(|(_, found)| found.told(if running { found.gone } else { told.lost })),
            last_ms: last.map(|(ended_ms, _)| wall_ms.saturating_sub(ended_ms)),
            next_ms: (!running).then(|| due_ms.saturating_sub(wall_ms)),
            within_s: within.as_secs(),
        })
    }

    /// Has everything read now; returns what was found once all of it was read and what is damaged
    /// is good again, as far as other nodes have it. Whoever stops waiting stops nothing else.
    pub(in crate::node) async fn scrub_now(
        &self,
        progress: impl Fn(u64, u64),
    ) -> Result<ScrubInfo, NotReady> {
        self.ready()?;
        let mut told = self.scrub.told.subscribe();
        let mut number = 0;
        self.scrub.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        loop {
            let now = *told.borrow_and_update();
            if now.served.number >= number {
                let mut info = self.scrub_info().ok_or(NotReady::Waiting)?;
                (info.found, info.last) = {
                    let found = now.served.found.told(now.served.lost);
                    (found, Some(found))
                };
                return Ok(info);
            }
            let began = now.serving.is_some_and(|serving| serving >= number);
            let done = if began { now.pass.found.bytes } else { 0 };
            progress(done, total(&self.store.usage(), &now.pass.found));
            // The sender lives in `self`.
            drop(told.changed().await);
        }
    }
}

impl Found {
    fn told(&self, lost: u64) -> ScrubFound {
        let Self { chunks, records, bytes, damaged, repaired, unneeded, .. } = *self;
        ScrubFound { chunks, records, bytes, damaged, repaired, lost, unneeded }
    }
}

/// What a piece came to.
#[derive(Default)]
struct Checked {
    /// Where the next one begins; none behind the last record.
    next: Option<Spot>,
    chunks: u64,
    records: u64,
    bytes: u64,
    /// Bytes that could have been read instead.
    cost: u64,
    /// What is to be fetched again.
    damaged: Vec<Spot>,
}

impl Checked {
    fn chunk(&mut self, store: &Store, chunk: &Replica) -> io::Result<()> {
        let verdict = store.verify(chunk.cid)?;
        if verdict != Verdict::Missing {
            self.chunks += 1;
            self.count(Spot::Chunk(chunk.cid), verdict, chunk.len);
        }
        Ok(())
    }

    fn record(&mut self, store: &Store, record: &RecordHere) -> io::Result<()> {
        let verdict = store.verify_record(record.id)?;
        if verdict != Verdict::Missing {
            self.records += 1;
            self.count(Spot::Record(record.id), verdict, record.len);
        }
        Ok(())
    }

    fn count(&mut self, spot: Spot, verdict: Verdict, len: u32) {
        self.bytes += u64::from(len);
        self.cost += u64::from(len).max(SEEK);
        if verdict != Verdict::Good {
            self.damaged.push(spot);
        }
    }
}

/// Reads on from `from` until that has cost `most`, or up to chunk `to`.
fn check(store: &Store, from: Spot, to: Option<ChunkId>, most: u64) -> io::Result<Checked> {
    let mut checked = Checked::default();
    let mut failed = Ok(());
    let mut first = RecordId([0; 32]);
    match from {
        Spot::Record(id) => first = id,
        Spot::Chunk(cid) => {
            store.replicas(cid, &mut |chunk| {
                if checked.cost >= most || to.is_some_and(|to| chunk.cid >= to) {
                    checked.next = Some(Spot::Chunk(chunk.cid));
                    return false;
                }
                failed = checked.chunk(store, &chunk);
                failed.is_ok()
            })?;
            std::mem::replace(&mut failed, Ok(()))?;
            if checked.next.is_some() || to.is_some() {
                return Ok(checked);
            }
        }
    }
    store.records(first, &mut |record| {
        if checked.cost >= most {
            checked.next = Some(Spot::Record(record.id));
            return false;
        }
        failed = checked.record(store, &record);
        failed.is_ok()
    })?;
    failed.map(|()| checked)
}

/// Which part of the whole lies before this: 0 to 1.
fn done(usage: &Usage, next: &Spot) -> f64 {
    let cost = |bytes: u64, number: u64| bytes.max(number * SEEK) as f64;
    let chunks = cost(usage.replica_bytes, usage.replicas);
    let records = cost(usage.record_bytes, usage.records);
    let before = match next {
        Spot::Chunk(_) => next.share() * chunks,
        Spot::Record(_) => chunks + next.share() * records,
    };
    before / (chunks + records).max(1.0)
}

/// Bytes that a pass reads; what went meanwhile was read all the same.
fn total(usage: &Usage, found: &Found) -> u64 {
    (usage.replica_bytes + usage.record_bytes).max(found.bytes)
}

/// How long that many bytes take at this rate.
fn takes(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate as f64)
}

/// A span, up to half shorter or longer, so that nodes that started together do not read together.
fn jitter(shared: &Shared, span: Duration) -> Duration {
    span.mul_f64(0.5 + shared.sys.rng.u64() as f64 / u64::MAX as f64)
}

/// Where the random part ends that begins there.
fn sample_end(first: &ChunkId) -> ChunkId {
    let mut end = [0xff; 32];
    let (prefix, _) = first.0.split_first_chunk().expect("an id has more than 8 bytes");
    if let Some(last) = u64::from_be_bytes(*prefix).checked_add(u64::MAX / SAMPLE) {
        end[..8].copy_from_slice(&last.to_be_bytes());
    }
    ChunkId(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_part_is_a_hundredth() {
        let prefix = |id: &ChunkId| u64::from_be_bytes(id.0[..8].try_into().unwrap());
        let first = ChunkId([7; 32]);
        assert_eq!(prefix(&sample_end(&first)) - prefix(&first), u64::MAX / 100);
        assert_eq!(sample_end(&ChunkId([0xff; 32])), ChunkId([0xff; 32]));
    }

    #[test]
    fn the_whole_is_chunks_and_then_records() {
        let usage = Usage {
            replicas: 3,
            replica_bytes: 3 << 20,
            records: 64,
            record_bytes: 9_999,
            ..Usage::default()
        };
        let at = |spot| (done(&usage, &spot) * 100.0).round();
        assert_eq!(at(Spot::FIRST), 0.0);
        assert_eq!(at(Spot::Chunk(ChunkId([0x80; 32]))), 38.0);
        assert_eq!(at(Spot::Record(RecordId([0; 32]))), 75.0);
        assert_eq!(at(Spot::Record(RecordId([0xff; 32]))), 100.0);
        assert_eq!(done(&Usage::default(), &Spot::FIRST), 0.0);
    }
}
