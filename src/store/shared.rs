//! What the handles of a store and its writer share: the queue, the open tables, the usage, and
//! reading from a known place. Invariant: every queue here is bounded, and no lock is held while a
//! file is read or a caller's function runs.

use super::compact::Begun;
use super::files::Files;
use super::format::{Checker, MAX_PAYLOAD};
use super::read::Reader;
use super::rows::{Counts, Place};
use super::segment::Segment;
use super::switch::Switched;
use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use super::tables::Tables;
use super::{
    Claim, Done, MAX_OPS, MAX_QUEUED, MAX_QUEUED_BYTES, MAX_SUBMISSION, Op, SubmitError,
    TableChange, Usage,
};
use crate::id::{ChunkId, RecordId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of evictable copies that may wait; more are not kept.
const MAX_QUEUED_CACHED: usize = 8 << 20;
/// What an operation costs in a batch besides its payload: head, body, and room for a claim.
const OP_COST: usize = 160;

/// Whom a change of tables alone is answered.
pub(super) type TableDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Work for the writer.
pub(super) enum Job {
    /// A submission.
    Submit {
        /// Its changes.
        ops: Vec<Op>,
        /// Whom to answer.
        done: Done,
        /// Bytes that it takes in the queue and, about, in a segment.
        cost: usize,
    },
    /// A change of tables alone.
    Tables {
        /// The change.
        change: TableChange,
        /// Whom to answer.
        done: TableDone,
    },
    /// The tables are to be built anew.
    Rebuild {
        /// Why.
        reason: &'static str,
        /// Whom to tell when it is done.
        done: Box<dyn FnOnce() + Send>,
    },
    /// A segment is to be chosen for compaction.
    Begin {
        /// Percent of it that must be dead at least.
        least_dead: u8,
        /// Whom to tell.
        done: Box<dyn FnOnce(io::Result<Option<Begun>>) + Send>,
    },
    /// A compacted copy is to take the place of its original.
    Switch {
        /// Number of the original.
        from: u32,
        /// Its order.
        order: u32,
        /// Its length.
        len: u64,
        /// The copy, synced, without its last record.
        segment: Segment,
        /// Whom to tell.
        done: Switched,
    },
    /// A reader met damage.
    Damage(Damage),
}

/// What a reader found damaged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    /// A replica at its place.
    Replica(ChunkId, Place),
    /// A cached copy.
    Cached(ChunkId),
    /// A catalogue record at its place.
    Record(RecordId, Place),
}

/// The cost of a submission; `None` when it is too large.
pub(super) fn cost(ops: &[Op]) -> Option<usize> {
    let mut cost = 0;
    for op in ops {
        let payload = match op {
            Op::Replica { sealed, .. } => sealed.len(),
            Op::Record { bytes, .. } => bytes.len(),
            _ => 0,
        };
        if payload > MAX_PAYLOAD {
            return None;
        }
        let listed = match op {
            Op::Claim { cids, .. } | Op::ReleaseRows { cids, .. } => cids.len() * ChunkId::LEN,
            Op::Drop { claims, .. } => claims.len() * size_of::<Claim>(),
            _ => 0,
        };
        cost += payload + OP_COST + listed;
    }
    (ops.len() <= MAX_OPS && cost <= MAX_SUBMISSION).then_some(cost)
}

/// Whether the payload of a change hashes to its id.
pub(super) fn is_verified(op: &Op) -> bool {
    match op {
        Op::Replica { cid, sealed, .. } => blake3::hash(sealed) == cid.0,
        Op::Record { id, bytes } => blake3::hash(bytes) == id.0,
        _ => true,
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    /// In order of arrival.
    pub(super) jobs: VecDeque<Job>,
    /// Evictable copies, which may wait for everything else.
    pub(super) cached: VecDeque<(ChunkId, Bytes)>,
    bytes: usize,
    cached_bytes: usize,
    /// No more is accepted; the writer ends when it is empty.
    pub(super) closing: bool,
    closed: bool,
}

impl Queue {
    /// Takes the next job if `fits` its cost.
    pub(super) fn take_if(&mut self, fits: impl FnOnce(&Job) -> bool) -> Option<Job> {
        if !fits(self.jobs.front()?) {
            return None;
        }
        let job = self.jobs.pop_front()?;
        if let Job::Submit { cost, .. } = &job {
            self.bytes -= cost;
        }
        Some(job)
    }

    /// Takes the next evictable copy.
    pub(super) fn take_cached(&mut self) -> Option<(ChunkId, Bytes)> {
        let (cid, bytes) = self.cached.pop_front()?;
        self.cached_bytes -= bytes.len();
        Some((cid, bytes))
    }
}

/// Shared by the handles and the writer.
pub(super) struct Shared {
    /// The data directory.
    pub(super) files: Files,
    /// Tests what is read.
    pub(super) check: Checker,
    queue: Mutex<Queue>,
    changed: Condvar,
    tables: RwLock<Option<Arc<Tables>>>,
    usage: Mutex<Usage>,
    compacting: AtomicBool,
}

impl Shared {
    /// With tables that are open.
    pub(super) fn new(files: Files, check: Checker, tables: Tables, usage: Usage) -> Self {
        Self {
            files,
            check,
            queue: Mutex::default(),
            changed: Condvar::new(),
            tables: RwLock::new(Some(Arc::new(tables))),
            usage: Mutex::new(usage),
            compacting: AtomicBool::new(false),
        }
    }

    /// The queue.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job.
    pub(super) fn push(&self, job: Job) -> Result<(), SubmitError> {
        self.offer(job).map_err(|(why, _)| why)
    }

    /// Queues a job; one that is not accepted is given back.
    pub(super) fn offer(&self, job: Job) -> Result<(), (SubmitError, Job)> {
        let mut queue = self.queue();
        if queue.closing {
            return Err((SubmitError::Closed, job));
        }
        let cost = if let Job::Submit { cost, .. } = &job { *cost } else { 0 };
        if queue.jobs.len() >= MAX_QUEUED || queue.bytes + cost > MAX_QUEUED_BYTES {
            return Err((SubmitError::Busy, job));
        }
        queue.bytes += cost;
        queue.jobs.push_back(job);
        drop(queue);
        self.notify();
        Ok(())
    }

    /// Queues an evictable copy when there is room.
    pub(super) fn push_cached(&self, cid: ChunkId, sealed: Bytes) {
        let mut queue = self.queue();
        let fits = queue.cached_bytes + sealed.len() <= MAX_QUEUED_CACHED;
        if queue.closing || !fits || sealed.len() > MAX_PAYLOAD {
            return;
        }
        queue.cached_bytes += sealed.len();
        queue.cached.push_back((cid, sealed));
        drop(queue);
        self.notify();
    }

    /// Wakes the writer's thread.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits until there is something to do, or for `at_most`.
    pub(super) fn wait(&self, at_most: Duration) {
        let queue = self.queue();
        let idle = queue.jobs.is_empty() && queue.cached.is_empty() && !queue.closing;
        if idle && !self.tables().is_ok_and(|tables| tables.is_broken()) {
            drop(self.changed.wait_timeout(queue, at_most));
        }
    }

    /// Accepts no more.
    pub(super) fn begin_close(&self) {
        self.queue().closing = true;
        self.notify();
    }

    /// Says that the writer has ended.
    pub(super) fn set_closed(&self) {
        self.set_tables(None);
        self.queue().closed = true;
        self.notify();
    }

    /// Whether the writer has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// Takes the one place for a compaction; false when it is taken.
    pub(super) fn begin_compaction(&self) -> bool {
        !self.compacting.swap(true, Ordering::AcqRel)
    }

    /// Gives it back.
    pub(super) fn end_compaction(&self) {
        self.compacting.store(false, Ordering::Release);
    }

    /// Waits until the writer has ended.
    pub(super) fn wait_closed(&self) {
        let mut queue = self.queue();
        while !queue.closed {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The open tables.
    pub(super) fn tables(&self) -> io::Result<Arc<Tables>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.clone().ok_or_else(|| io::Error::other("the tables are not open"))
    }

    /// Puts other tables in their place.
    pub(super) fn set_tables(&self, tables: Option<Tables>) {
        let old = {
            let mut slot = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, tables.map(Arc::new))
        };
        // The last one to hold them closes the file: not under the lock.
        drop(old);
    }

    /// The usage.
    pub(super) fn usage(&self) -> Usage {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the usage.
    pub(super) fn set_usage(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reads records of the files.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { files: &self.files, check: &self.check, fresh: false }
    }

    /// Reads them from the disk itself, and keeps none of it in the page cache.
    pub(super) fn fresh_reader(&self) -> Reader<'_> {
        Reader { fresh: true, ..self.reader() }
    }
}

/// Copies the counts of the tables into the usage.
pub(super) fn take_counts(usage: &mut Usage, counts: &Counts) {
    usage.replicas = counts.replicas;
    usage.replica_bytes = counts.replica_bytes;
    usage.damaged = counts.damaged;
    usage.records = counts.records;
    usage.record_bytes = counts.record_bytes;
    usage.dead_bytes = counts.dead_bytes;
    usage.condemned = counts.condemned;
    usage.condemned_bytes = counts.condemned_bytes;
}
