//! The writer: the only one who changes segments, cache files and tables. A step takes what has
//! queued, plans it, writes it, syncs it, commits the tables and answers.
//!
//! What a failure leads to:
//!
//! * No room: the batch is taken back; chunks are refused, the rest is tried once more with the
//!   ballast given up.
//! * A write or sync failed: the kernel may have dropped the bytes and call the pages clean, so
//!   the segment is never trusted again behind its last good end. The batch goes to a new segment,
//!   once. If that fails too, the store is read-only until it is opened again.
//! * The tables failed: they are rebuilt from the segments.
//!
//! Invariant: `done` says yes only after a sync that succeeded covers the records.

use super::batch::{Plan, Planner};
use super::cached::CacheFiles;
use super::files::Files;
use super::format::{Class, Entry, FileHead};
use super::index::Index;
use super::recover::{Recovered, Recovery};
use super::rows::{Counts, Position};
use super::segment::Segment;
use super::shared::{Damage, Job, Shared, TableDone, take_counts};
use super::switch::Switching;
use super::{
    Done, Follow, Op, OpenError, Opened, Options, Outcome, TableChange, Usage, WriteError,
};
use crate::sys::{OpenMode, Step, Time, Work};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A batch takes submissions up to this many bytes, or one.
const BATCH: usize = 4 << 20;
/// Changes of tables alone that are made in one step.
const CHANGES: usize = 64;
/// The tables are made durable after so many bytes of segments …
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// … or so many entries: what a start after a crash reads again.
const CHECKPOINT_ENTRIES: u64 = 32_768;
/// Without work for so long, reserved space is given back.
const IDLE: Duration = Duration::from_secs(60);
/// Enough for thousands of claims and drops on a disk that others have filled.
pub(super) const BALLAST: u64 = 2 << 20;
/// Evictable copies written in one step.
const CACHED_STEP: usize = 2 << 20;
/// Every so many steps evictable copies come first, so that steady work does not starve them.
const CACHED_TURN: u32 = 4;
/// The longest segment: offsets have four bytes, and the last batch may reach over the end.
const MAX_SEGMENT: u64 = 1 << 30;

/// Changes that wait for their answer.
struct Submission {
    ops: Vec<Op>,
    done: Done,
    cost: usize,
}

impl Submission {
    fn has_chunks(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Replica { .. }))
    }
}

/// A change of tables alone, with whom to answer.
type Alone = (TableChange, TableDone);

type Answers = Vec<Result<Vec<Outcome>, WriteError>>;

/// Why a batch was not written.
pub(super) enum Fault {
    /// No room; nothing counts of what was written.
    Full,
    /// The segment failed.
    Segment(io::Error),
    /// The tables failed, before anything was durable.
    Tables(io::Error),
}

/// The writer's state.
pub(super) struct Writer {
    /// What the handles see.
    pub(super) shared: Arc<Shared>,
    /// Who follows catalogue records.
    pub(super) follow: Arc<dyn Follow>,
    /// How the store was opened.
    pub(super) options: Options,
    counts: Counts,
    /// The one that is written.
    pub(super) segment: Option<Segment>,
    /// The newest segment and how much of it is known to be durable, also when it may not be
    /// written on.
    pub(super) end: Position,
    /// The number of the next segment.
    pub(super) next: u32,
    /// Evictable copies.
    pub(super) cache: CacheFiles,
    /// A compacted segment that is taking the place of its original.
    pub(super) switching: Option<Switching>,
    /// A removed segment may come back after a crash: what it held may need its ends.
    pub(super) removal_failed: bool,
    ballast: bool,
    bytes_since: u64,
    entries_since: u64,
    turn: u32,
    last_work: Time,
    trimmed: bool,
}

impl Writer {
    /// Opens the data directory.
    pub(super) fn open(
        mut options: Options,
        follow: Arc<dyn Follow>,
    ) -> Result<(Self, Arc<Shared>, Opened), OpenError> {
        let start = options.clock.now();
        options.segment_len = options.segment_len.min(MAX_SEGMENT);
        let files = Files::new(options.fs.clone(), options.dir.clone());
        let check = files.checker(options.node, &*options.rng)?;
        files.make_folders()?;
        let recovery =
            Recovery { files: &files, node: options.node, check: &check, follow: &*follow };
        let recovered = match recovery.run() {
            // Bringing the tables up to date takes a little room, which was kept for such a day.
            Err(OpenError::Io(err))
                if is_full(&err) && files.fs.remove_file(&files.ballast_path()).is_ok() =>
            {
                recovery.run()
            }
            other => other,
        };
        let Recovered { tables, counts, mut opened, end, writable } = recovered?;
        let segment = if writable && end.number > 0 {
            Some(Segment::resume(&files, end.number, end.offset, options.segment_len)?)
        } else {
            None
        };
        let cache = CacheFiles::open(&files, &options)?;
        let numbers = files.list(Class::Segment)?.into_iter().map(|file| file.number);
        let next = numbers.max().unwrap_or_default().max(end.number) + 1;
        let usage = usage(&files, &options, &counts, &cache)?;
        let shared = Arc::new(Shared::new(files, check, tables, usage));
        let last_work = options.clock.now();
        opened.took = last_work.since(start);
        let mut writer = Self {
            shared: shared.clone(),
            follow,
            options,
            counts,
            segment,
            end,
            next,
            cache,
            switching: None,
            removal_failed: false,
            ballast: false,
            bytes_since: 0,
            entries_since: 0,
            turn: 0,
            last_work,
            trimmed: false,
        };
        writer.lay_ballast();
        Ok((writer, shared, opened))
    }

    /// Reserves the ballast when there is ample room; a disk without it still works.
    fn lay_ballast(&mut self) {
        let fs = &self.options.fs;
        let path = self.shared.files.ballast_path();
        let lay = || {
            let room = fs.space(&self.options.dir)?.available;
            if room >= self.options.free_floor.saturating_add(2 * BALLAST) {
                fs.open(&path, OpenMode::Create)?.allocate(0, BALLAST)?;
            }
            Ok::<_, io::Error>(fs.open(&path, OpenMode::Read).is_ok())
        };
        self.ballast = lay().unwrap_or(false);
    }

    /// Gives up the ballast; true when there was one.
    pub(super) fn drop_ballast(&mut self) -> bool {
        let held = std::mem::take(&mut self.ballast);
        held && self.options.fs.remove_file(&self.shared.files.ballast_path()).is_ok()
    }

    /// Why nothing is written any more.
    pub(super) fn is_read_only(&self) -> Option<String> {
        self.shared.usage().read_only
    }

    fn set_read_only(&self, reason: String) {
        tracing::error!(reason, "the store is read-only from now on");
        self.shared.set_usage(|usage| {
            usage.read_only.get_or_insert(reason);
        });
    }

    /// Runs one batch of submissions and answers them.
    fn submissions(&mut self, batch: Vec<Submission>) {
        let answers = match self.is_read_only() {
            Some(reason) => refuse(&batch, &WriteError::ReadOnly(reason)),
            None => self.write_batch(&batch),
        };
        self.publish();
        for (submission, answer) in batch.into_iter().zip(answers) {
            (submission.done)(answer);
        }
        if self.bytes_since >= CHECKPOINT_BYTES || self.entries_since >= CHECKPOINT_ENTRIES {
            self.checkpoint();
        }
    }

    fn publish(&self) {
        let (counts, cached) = (self.counts, self.cache.bytes());
        self.shared.set_usage(|usage| {
            take_counts(usage, &counts);
            usage.cached_bytes = cached;
        });
    }

    fn write_batch(&mut self, batch: &[Submission]) -> Answers {
        let mut chunks = true;
        let (mut segments, mut rebuilds) = (0, 0);
        loop {
            let failed = match self.attempt(batch, chunks) {
                Ok(answers) => return answers,
                Err(Fault::Full) if chunks && batch.iter().any(Submission::has_chunks) => {
                    chunks = false;
                    continue;
                }
                Err(Fault::Full) if self.drop_ballast() => continue,
                Err(Fault::Full) => return refuse(batch, &WriteError::DiskFull),
                Err(Fault::Segment(err)) => {
                    self.abandon();
                    segments += 1;
                    if segments < 2 {
                        tracing::warn!(%err, "a segment failed; going on in a new one");
                        continue;
                    }
                    format!("writing failed twice: {err}")
                }
                Err(Fault::Tables(err)) => {
                    rebuilds += 1;
                    if rebuilds < 2 && self.rebuild(&err.to_string()) {
                        continue;
                    }
                    format!("the tables failed: {err}")
                }
            };
            self.set_read_only(failed.clone());
            return refuse(batch, &WriteError::ReadOnly(failed));
        }
    }

    /// Plans, writes, syncs, commits. After an error nothing of it counts.
    fn attempt(&mut self, batch: &[Submission], chunks: bool) -> Result<Answers, Fault> {
        let room = self.room(batch, chunks);
        let bytes: usize = batch.iter().map(|submission| submission.cost).sum();
        self.ready_segment(bytes as u64)?;
        let shared = self.shared.clone();
        let tables = shared.tables().map_err(Fault::Tables)?;
        let Some(segment) = &mut self.segment else { return Err(Fault::Full) };
        let mut change = tables.begin().map_err(Fault::Tables)?;
        let mut plan = Plan::new(segment.number, segment.at);
        if !segment.marked {
            plan.push(&Entry::Mark, None, &shared.check);
        }
        let mut counts = self.counts;
        let answers = change
            .edit(|tables| {
                let index = Index::new(tables, &mut counts, &*self.follow, shared.reader());
                let mut planner = Planner { plan: &mut plan, index, shared: &shared };
                let answers = plan_all(&mut planner, batch, room)?;
                let end = match planner.plan.entries {
                    0 => self.end,
                    _ => Position { number: segment.number, offset: planner.plan.end() },
                };
                planner.index.finish(end)?;
                Ok(answers)
            })
            .map_err(Fault::Tables)?;
        if plan.entries > 0 {
            let start = segment.at;
            let written = segment.write(&plan.slices());
            #[cfg(not(p2pfs_planted = "ack-before-fsync"))]
            let written = written.and_then(|()| segment.sync());
            if let Err(err) = written {
                drop(change);
                return Err(self.after_write_error(err));
            }
            segment.at = plan.end();
            segment.marked = false;
            self.end.offset = plan.end();
            self.counts = counts;
            self.bytes_since += plan.end() - start;
            self.entries_since += plan.entries;
            shared.set_usage(|usage| usage.stored_bytes += plan.end() - start);
        }
        if let Err(err) = change.commit() {
            // The batch is durable; only the tables do not know it.
            self.rebuild(&err.to_string());
        }
        Ok(answers)
    }

    /// Distinguishes a full disk, where the segment is still good, from a failed one.
    fn after_write_error(&mut self, err: io::Error) -> Fault {
        if is_full(&err)
            && let Some(segment) = &mut self.segment
            && segment.take_back().is_ok()
        {
            return Fault::Full;
        }
        Fault::Segment(err)
    }

    /// Why submissions with chunks are refused, if they are.
    fn room(&mut self, batch: &[Submission], chunks: bool) -> Option<Room> {
        let bytes: usize =
            batch.iter().filter(|sub| sub.has_chunks()).map(|submission| submission.cost).sum();
        if bytes == 0 {
            return None;
        }
        if !chunks {
            return Some(Room { capacity: u64::MAX, disk: 0 });
        }
        let wanted = self.options.free_floor.saturating_add(bytes as u64);
        let mut available = self.available();
        while available < wanted {
            // Copies that nobody counts on go first.
            if !matches!(self.cache.evict(&self.shared, &*self.follow), Ok(true)) {
                break;
            }
            available = self.available();
        }
        if !self.ballast && available >= wanted {
            self.lay_ballast();
        }
        let stored = self.shared.usage().stored_bytes;
        Some(Room {
            capacity: self.options.capacity.saturating_sub(stored),
            disk: available.saturating_sub(self.options.free_floor),
        })
    }

    /// Free bytes of the file system; when it does not say, writing will show.
    pub(super) fn available(&self) -> u64 {
        self.options.fs.space(&self.options.dir).map_or(u64::MAX, |space| space.available)
    }

    /// Opens a new segment when there is none or it is full.
    pub(super) fn ready_segment(&mut self, bytes: u64) -> Result<(), Fault> {
        if let Some(segment) = &mut self.segment
            && segment.is_full(bytes)
        {
            segment.take_back().map_err(Fault::Segment)?;
            self.end.offset = segment.at;
            self.segment = None;
        }
        if self.segment.is_some() {
            return Ok(());
        }
        let (shared, number) = (&self.shared, self.next);
        self.next += 1;
        let head = FileHead {
            class: Class::Segment,
            number,
            order: number,
            previous: self.end.number,
            previous_end: self.end.offset,
            node: self.options.node,
        };
        let len = self.options.segment_len;
        match Segment::create(&shared.files, &shared.check, &head, len) {
            Ok(segment) => {
                self.end = Position { number, offset: segment.at };
                shared.set_usage(|usage| usage.stored_bytes += segment.at);
                self.segment = Some(segment);
                Ok(())
            }
            Err(err) => {
                // What is left of it has no record and is ignored.
                let _ = shared.files.remove(Class::Segment, number);
                Err(if is_full(&err) { Fault::Full } else { Fault::Segment(err) })
            }
        }
    }

    /// Never writes to the newest segment again. The next one says how much of it counts.
    pub(super) fn abandon(&mut self) {
        if let Some(mut segment) = self.segment.take() {
            // A courtesy to the disk; nothing depends on it.
            let _ = segment.trim();
        }
    }

    /// Builds the tables anew; false when that failed and the store is read-only.
    pub(super) fn rebuild(&mut self, reason: &str) -> bool {
        tracing::warn!(reason, "rebuilding the tables from the segments");
        self.shared.set_tables(None);
        let (shared, follow) = (self.shared.clone(), self.follow.clone());
        let recovery = Recovery {
            files: &shared.files,
            node: self.options.node,
            check: &shared.check,
            follow: &*follow,
        };
        self.cache.reset();
        let mut rebuilt = recovery.anew(reason.to_owned(), Some(self.end));
        if matches!(&rebuilt, Err(OpenError::Io(err)) if is_full(err)) && self.drop_ballast() {
            rebuilt = recovery.anew(reason.to_owned(), Some(self.end));
        }
        match rebuilt {
            Ok(Recovered { tables, counts, .. }) => {
                self.counts = counts;
                self.entries_since = 0;
                self.bytes_since = 0;
                if let Some(switching) = &mut self.switching {
                    // They follow the complete copy.
                    switching.moving.at = switching.moving.end;
                }
                self.shared.set_tables(Some(tables));
                self.publish();
                true
            }
            Err(err) => {
                self.set_read_only(format!("the tables cannot be rebuilt: {err}"));
                false
            }
        }
    }

    fn checkpoint(&mut self) {
        let Ok(tables) = self.shared.tables() else { return };
        if let Err(err) = tables.checkpoint() {
            self.rebuild(&err.to_string());
        }
        self.entries_since = 0;
        self.bytes_since = 0;
    }

    /// Says in the segment that everything so far is durable.
    fn mark(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        if segment.marked || self.shared.usage().read_only.is_some() {
            return;
        }
        let mut plan = Plan::new(segment.number, segment.at);
        plan.push(&Entry::Mark, None, &self.shared.check);
        let start = segment.at;
        match segment.write(&plan.slices()) {
            Ok(()) => {
                segment.at = plan.end();
                segment.marked = true;
                self.shared.set_usage(|usage| usage.stored_bytes += plan.end() - start);
            }
            Err(_) => self.abandon(),
        }
    }

    /// Runs a change of the tables alone and makes it durable when asked.
    pub(super) fn change_tables(
        &mut self,
        durable: bool,
        work: impl FnOnce(&mut Index<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let tables = self.shared.tables()?;
        let mut change = tables.begin()?;
        let mut counts = self.counts;
        change.edit(|tables| {
            let reader = self.shared.reader();
            let mut index = Index::new(tables, &mut counts, &*self.follow, reader);
            work(&mut index)?;
            index.finish(self.end)
        })?;
        change.commit()?;
        if durable {
            tables.checkpoint()?;
        }
        self.counts = counts;
        self.publish();
        Ok(())
    }

    /// Makes changes of tables alone in one step: if one of them fails none was made.
    fn table_changes(&mut self, changes: Vec<Alone>) {
        if changes.is_empty() {
            return;
        }
        let (changes, told): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let result = self.change_tables(false, |index| {
            changes.into_iter().try_for_each(|change| index.change(change))
        });
        for done in told {
            done(match &result {
                Ok(()) => Ok(()),
                Err(err) => Err(io::Error::new(err.kind(), err.to_string())),
            });
        }
    }

    fn other_job(&mut self, job: Job) {
        match job {
            Job::Submit { ops, done, cost } => {
                self.submissions(vec![Submission { ops, done, cost }]);
            }
            Job::Tables { change, done } => self.table_changes(vec![(change, done)]),
            Job::Rebuild { reason, done } => {
                self.rebuild(reason);
                done();
            }
            Job::Begin { least_dead, done } => {
                let begun = self.begin(least_dead);
                done(begun);
            }
            Job::Switch { from, order, len, segment, done } => {
                self.start_switch((from, order, len), segment, done);
            }
            Job::Damage(damage) => {
                let result = self.change_tables(false, |index| match damage {
                    Damage::Replica(cid, place) => index.mark_damaged(cid, place),
                    Damage::Cached(cid) => index.forget_cached(cid),
                    Damage::Record(id, place) => index.mark_record_damaged(id, place),
                });
                if let Err(err) = result {
                    tracing::warn!(%err, "a damaged copy could not be noted");
                }
            }
        }
    }

    /// Writes evictable copies; true when there were any.
    fn cached_step(&mut self) -> bool {
        let mut copies = Vec::new();
        {
            let mut queue = self.shared.queue();
            let mut bytes = 0;
            while bytes < CACHED_STEP {
                let Some((cid, sealed)) = queue.take_cached() else { break };
                bytes += sealed.len();
                copies.push((cid, sealed));
            }
        }
        if copies.is_empty() {
            return false;
        }
        if self.is_read_only().is_none()
            && let Err(err) = self.cache.add(&self.shared, &*self.follow, &copies)
        {
            tracing::debug!(%err, "evictable copies were not kept");
        }
        self.publish();
        true
    }

    /// The submissions of the next batch and the changes of tables among them, or another job.
    /// These changes come after the batch, so that each does not make a batch of its own of what is
    /// on either side of it: whoever needs an order waits for an answer.
    fn take(&mut self) -> (Vec<Submission>, Vec<Alone>, Option<Job>) {
        let mut queue = self.shared.queue();
        let (mut batch, mut changes) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some(job) = queue.take_if(|job| match job {
            Job::Submit { cost, .. } => batch.is_empty() || bytes + cost <= BATCH,
            Job::Tables { .. } => changes.len() < CHANGES,
            _ => batch.is_empty() && changes.is_empty(),
        }) {
            match job {
                Job::Submit { ops, done, cost } => {
                    bytes += cost;
                    batch.push(Submission { ops, done, cost });
                }
                Job::Tables { change, done } => changes.push((change, done)),
                other => return (batch, changes, Some(other)),
            }
        }
        (batch, changes, None)
    }

    fn idle(&mut self) -> Step {
        self.mark();
        if self.shared.queue().closing {
            self.close();
            return Step::Done;
        }
        let quiet = self.options.clock.now().since(self.last_work) >= IDLE;
        if quiet && !self.trimmed {
            self.trimmed = true;
            if let Some(segment) = &mut self.segment
                && segment.trim().is_err()
            {
                self.abandon();
            }
            self.checkpoint();
            if !self.ballast {
                self.lay_ballast();
            }
        }
        Step::Idle
    }

    fn close(&mut self) {
        // The mark is worth a sync: the next start then reads nothing twice.
        if let Some(segment) = &mut self.segment
            && segment.take_back().is_ok()
        {
            self.end.offset = segment.at;
        }
        if self.is_read_only().is_none()
            && let Err(err) = self.change_tables(true, |_| Ok(()))
        {
            tracing::warn!(%err, "the tables were not closed well; the next start rebuilds them");
        }
        self.shared.set_closed();
    }
}

impl Work for Writer {
    fn step(&mut self) -> Step {
        if self.shared.tables().is_ok_and(|tables| tables.is_broken()) {
            self.rebuild("a table page could not be read");
        }
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(CACHED_TURN) && self.cached_step() {
            return Step::More;
        }
        let (batch, changes, other) = self.take();
        let mut worked = !batch.is_empty();
        if worked {
            self.submissions(batch);
        }
        let more = other.is_some() || !changes.is_empty();
        self.table_changes(changes);
        if let Some(job) = other {
            self.other_job(job);
        }
        worked |= self.switch_step();
        if worked || self.cached_step() {
            self.last_work = self.options.clock.now();
            self.trimmed = false;
            return Step::More;
        }
        // A change of tables alone reserves no space that had to be given back.
        if more { Step::More } else { self.idle() }
    }

    fn wait(&mut self) {
        self.shared.wait(IDLE);
    }
}

/// What chunks may still take.
struct Room {
    capacity: u64,
    disk: u64,
}

impl Room {
    fn take(&mut self, cost: u64) -> Result<(), WriteError> {
        if cost > self.disk {
            return Err(WriteError::DiskFull);
        }
        if cost > self.capacity {
            return Err(WriteError::NoCapacity);
        }
        self.disk -= cost;
        self.capacity -= cost;
        Ok(())
    }
}

fn plan_all(
    planner: &mut Planner<'_>,
    batch: &[Submission],
    mut room: Option<Room>,
) -> io::Result<Answers> {
    let mut answers = Vec::with_capacity(batch.len());
    for submission in batch {
        let granted = match &mut room {
            Some(room) => planner.new_bytes(&submission.ops).map(|cost| match cost {
                0 => Ok(()),
                cost => room.take(cost),
            })?,
            None => Ok(()),
        };
        answers.push(match granted {
            Ok(()) => {
                Ok(submission.ops.iter().map(|op| planner.op(op)).collect::<io::Result<_>>()?)
            }
            Err(refusal) => Err(refusal),
        });
    }
    Ok(answers)
}

fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn refuse(batch: &[Submission], error: &WriteError) -> Answers {
    batch.iter().map(|_| Err(error.clone())).collect()
}

fn usage(
    files: &Files,
    options: &Options,
    counts: &Counts,
    cache: &CacheFiles,
) -> io::Result<Usage> {
    let stored = files.list(Class::Segment)?.iter().map(|file| file.len).sum();
    let mut usage = Usage {
        stored_bytes: stored,
        capacity: options.capacity,
        cached_bytes: cache.bytes(),
        ..Usage::default()
    };
    take_counts(&mut usage, counts);
    Ok(usage)
}
