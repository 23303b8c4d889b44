//! What a node keeps on its disk: chunks, the claims on them, catalogue records. Everything that
//! must survive is a record in an append-only segment file (`format`); every table (`index`,
//! `tables`) is a cache of them that is rebuilt when it is missing or wrong. Owns `segments/`,
//! `cache/`, `tables/`, `ballast` and `store.format` in the data directory; keys, lock and socket
//! are not its own. It verifies no chunk on the way in and out: who hands one in has verified it,
//! who reads one verifies it.
//!
//! One writer (`writer`) does all changes: what queued while the last sync ran is the next batch.
//! It plans a batch in a table transaction, writes it, syncs it, commits the transaction, and only
//! then answers. So what a reader sees, and what an answer says, is on the disk.
//!
//! Invariant: what was answered is found again after any crash, and nothing that was answered is
//! lost because a sync failed, a disk was full, or a table file is gone.

mod batch;
mod cached;
mod compact;
mod ends;
mod files;
mod following;
mod format;
mod index;
mod key_space;
mod ledger;
mod list;
mod moves;
mod pages;
mod read;
mod recover;
mod rows;
mod scan;
mod segment;
mod shared;
mod switch;
mod sync;
mod table_file;
mod tables;
mod writer;

use crate::id::{ChunkId, ClaimId, NodeId, RecordId};
use crate::sys::{Clock, Fs, Rng, Spawn, TableRead, TableWrite};
use bytes::{Bytes, BytesMut};
pub use compact::{CompactError, Compacted, Compaction, Progress};
pub use format::{MAX_PAYLOAD, VERSION};
pub use list::{Condemned, Pending, RecordHere, Replica};
use shared::{Damage, Job, Shared};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
pub use table_file::TABLE_CACHE_BYTES;
pub use tables::RECENT_ROWS_BYTES;

/// The most operations in one submission.
pub const MAX_OPS: usize = 4096;
/// The most bytes (payloads, claimed ids, a little for each operation) in one submission.
pub const MAX_SUBMISSION: usize = 8 << 20;
/// The most bytes that may wait for the writer; callers hold a budget far below it.
pub const MAX_QUEUED_BYTES: usize = 32 << 20;
/// The most submissions that may wait for the writer.
pub const MAX_QUEUED: usize = 16_384;
/// How a store is opened.
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// Whose it is.
    pub node: NodeId,
    /// Bytes of segments above which chunks are refused.
    pub capacity: u64,
    /// Bytes of evictable copies; 0: none are kept.
    pub cached_max: u64,
    /// Bytes of the file system that chunks must leave free.
    pub free_floor: u64,
    /// Length of a segment in bytes, at most 1 GiB.
    pub segment_len: u64,
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Clocks: says when the writer is idle.
    pub clock: Arc<dyn Clock>,
    /// Makes the salt of a new directory.
    pub rng: Arc<dyn Rng>,
    /// Starts the writer.
    pub spawn: Arc<dyn Spawn>,
}

impl Options {
    /// Length of a segment in production.
    pub const SEGMENT_LEN: u64 = 256 << 20;
    /// What production leaves free on the file system.
    pub const FREE_FLOOR: u64 = 1 << 30;
}

/// Follows catalogue records into tables of its own.
///
/// It must be a pure function of the record and the tables, so that a rebuild, which calls it for
/// every record in the order of the segments, gives the same tables; that order is not the one in
/// which they came. Its table names do not start with `@`. An error it returns is taken for a
/// failure of the tables, which are then rebuilt: it passes up errors of `tables` and makes none of
/// its own.
pub trait Follow: Send + Sync + 'static {
    /// The version of what it writes into the tables. Those that another version wrote are made
    /// anew.
    fn version(&self) -> u32;

    /// Called once for each new record, in the transaction that makes it visible.
    fn apply(&self, id: RecordId, record: &[u8], tables: &mut dyn FollowTables) -> io::Result<()>;

    /// Called when records were read back from the segments, each time in a transaction of its own,
    /// until it returns false: does some of what had to wait for a later record.
    fn settle(&self, tables: &mut dyn FollowTables) -> io::Result<bool>;
}

/// Tables that are being changed, with the records that they are made from.
pub trait FollowTables: TableWrite {
    /// A record that was kept before, or earlier in the same batch; `None` when there is none or
    /// its copy here is damaged.
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>>;
}

/// Why a holder keeps a chunk. Two claims of one id merge: each field by maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// `P`.
    pub id: ClaimId,
    /// R: the copies that it asks for.
    pub replicas: u8,
    /// When it was renewed last, in milliseconds since 1970.
    pub renewed_ms: u64,
}

/// A change. The changes of one submission are planned in order, each seeing those before it.
#[derive(Debug, Clone)]
pub enum Op {
    /// Keeps a replica. When it is here already, only the claim is added. A cached or damaged copy
    /// is replaced. A claim that was released is left out.
    Replica {
        /// The chunk.
        cid: ChunkId,
        /// Its bytes, verified by the caller.
        sealed: Bytes,
        /// Why it is kept.
        claim: Option<Claim>,
        /// The home node that it is kept for.
        hint: Option<NodeId>,
    },
    /// Claims those of these chunks that are held; a good cached copy becomes a replica. A claim
    /// that was released is not taken: then the answer says what is held because of others.
    Claim {
        /// The chunks.
        cids: Vec<ChunkId>,
        /// The claim.
        claim: Claim,
    },
    /// Keeps a catalogue record, once.
    Record {
        /// Its id.
        id: RecordId,
        /// Its bytes, verified by the caller.
        bytes: Bytes,
    },
    /// Marks the claims of this id as committed, here already or still to come.
    Commit {
        /// The claim.
        claim: ClaimId,
    },
    /// Gives up the copy of a chunk, replica or cached, and the claims on it, if these are the ones
    /// that the caller knows of: one that was added or renewed since then stays, with the chunk.
    Drop {
        /// The chunk.
        cid: ChunkId,
        /// The claims, as [`Store::claims`] lists them.
        claims: Vec<Claim>,
    },
    /// Ends all claims of this id for good: one that comes later is not taken.
    Release {
        /// The claim.
        claim: ClaimId,
    },
    /// Ends the claims of this id on these chunks that were not renewed after `renewed_ms`; later
    /// ones are taken.
    ReleaseRows {
        /// The claim.
        claim: ClaimId,
        /// The chunks.
        cids: Vec<ChunkId>,
        /// Milliseconds since 1970.
        renewed_ms: u64,
    },
    /// Ends all claims of this id if it is not committed and none of them was renewed after
    /// `renewed_ms`; later ones are taken.
    Lapse {
        /// The claim.
        claim: ClaimId,
        /// Milliseconds since 1970.
        renewed_ms: u64,
    },
    /// Gives up a replica that has been condemned, without a break, since this round or before
    /// (see [`Store::stamp`]).
    Free {
        /// The chunk.
        cid: ChunkId,
        /// The round.
        round: u64,
    },
}

/// What became of an [`Op`]; it is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The chunk is a replica here; `new`: its bytes were written now.
    Replica {
        /// Whether bytes were written.
        new: bool,
    },
    /// For each chunk asked for: whether it is a replica here and claimed.
    Claim {
        /// In the order of the operation.
        held: Vec<bool>,
    },
    /// The record is here; `new`: it was not before.
    Record {
        /// Whether it was new.
        new: bool,
    },
    /// The claim is committed.
    Committed,
    /// Whether nothing of the chunk is held now; otherwise there are other claims on it.
    Dropped {
        /// Whether it was given up.
        dropped: bool,
    },
    /// The claims in question have ended.
    Ended {
        /// How many there were.
        claims: u64,
    },
    /// Whether the replica was given up; otherwise it has a claim again, or has not been condemned
    /// for so long.
    Freed {
        /// Whether it was.
        freed: bool,
    },
}

/// Why a submission was not accepted; `done` will not be called and nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too much is waiting for the disk: try again when something has been answered.
    #[error("the disk is busy")]
    Busy,
    /// More than [`MAX_OPS`] or [`MAX_SUBMISSION`], or a payload over
    /// [`MAX_PAYLOAD`].
    #[error("too large for one submission")]
    TooLarge,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a submission failed. Nothing of it is visible; after `ReadOnly` some of it may be there
/// after the next start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Chunks would exceed the capacity; records, claims and drops are still taken.
    #[error("the capacity of this node is used up")]
    NoCapacity,
    /// The file system has no room above the floor; claims and drops are still tried.
    #[error("the disk is full")]
    DiskFull,
    /// The disk failed; reads go on, nothing is written before a restart.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
}

/// Why a chunk or record was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What lies at its place is not it. A replica counts as not held from now on.
    #[error("the copy on this disk is damaged")]
    Damaged,
    /// The disk or the tables failed; it may work later.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a store was not opened; the directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory was written by a newer program.
    #[error("the data directory has format {found}, this program knows {known}")]
    Newer {
        /// Its version.
        found: u16,
        /// The newest that is known here.
        known: u16,
    },
    /// There are segments but no marker: the directory is not whole.
    #[error("the data directory has lost its marker file")]
    MarkerLost,
    /// The marker makes no sense.
    #[error("the marker file of the data directory is damaged")]
    MarkerDamaged,
    /// The directory belongs to another node.
    #[error("the data directory belongs to node {found}")]
    OtherNode {
        /// That node.
        found: NodeId,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Why the tables were built anew from all segments; `None` when they were not.
    pub rebuilt: Option<String>,
    /// Segment entries that were read into the tables.
    pub replayed: u64,
    /// How long opening took.
    pub took: Duration,
    /// Bytes of a torn, never answered tail that were cut off.
    pub truncated: u64,
    /// Damaged ranges of segments that are known. They stay as they are; what they held is to be
    /// fetched from other nodes.
    pub rot: Vec<Rot>,
}

/// A damaged range of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rot {
    /// Number of the segment.
    pub segment: u32,
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// How a chunk is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// A replica, or else an evictable copy.
    pub replica: bool,
    /// Sealed bytes.
    pub len: u32,
    /// The home node that it is kept for.
    pub hint: Option<NodeId>,
}

/// What reading a chunk or record again showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its bytes hash to its name.
    Good,
    /// They do not, or were found not to before: it does not count as held.
    Damaged,
    /// The disk cannot read it, which may be the place or the disk: nothing was changed.
    Unreadable,
    /// It is not here, or is a damaged chunk that nobody needs.
    Missing,
}

/// What the store holds; O(1) to ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Replicas.
    pub replicas: u64,
    /// Their sealed bytes.
    pub replica_bytes: u64,
    /// Replicas that are to be fetched again because their copy here is damaged.
    pub damaged: u64,
    /// Replicas without a claim, damaged ones too; they are in `replicas` and `damaged` as well.
    pub condemned: u64,
    /// Their sealed bytes.
    pub condemned_bytes: u64,
    /// Bytes of files of evictable copies.
    pub cached_bytes: u64,
    /// Catalogue records.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Bytes in segments that nothing refers to any more.
    pub dead_bytes: u64,
    /// Bytes of all segments: what counts against the capacity.
    pub stored_bytes: u64,
    /// The capacity.
    pub capacity: u64,
    /// Why nothing is written any more.
    pub read_only: Option<String>,
}

impl Usage {
    /// Replicas that something claims. While some are damaged it may count a few too many: of those
    /// without a claim it is not known which are.
    pub const fn claimed(&self) -> u64 {
        self.replicas.saturating_sub(self.condemned.saturating_sub(self.damaged))
    }
}

/// Called with what became of a submission, in the order of submissions, by the writer: it must
/// not wait.
pub type Done = Box<dyn FnOnce(Result<Vec<Outcome>, WriteError>) + Send>;

/// A change of the tables alone.
pub type TableChange = Box<dyn FnOnce(&mut dyn FollowTables) -> io::Result<()> + Send>;

/// The store; clones are handles to the same one. When the last one goes, it closes.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.begin_close();
        (self.wake)();
    }
}

impl Store {
    /// Opens the data directory, making a new one when there is none, and starts the writer.
    pub fn open(options: Options, follow: Arc<dyn Follow>) -> Result<(Self, Opened), OpenError> {
        let spawn = options.spawn.clone();
        let (work, shared, opened) = writer::Writer::open(options, follow)?;
        let wake = spawn.start("p2pfs-store", Box::new(work));
        Ok((Self { inner: Arc::new(Inner { shared, wake }) }, opened))
    }

    /// Hands changes to the writer. `done` is called when all of them are on the disk, or none is
    /// visible. Fails with [`SubmitError::Busy`] instead of waiting; then the changes are given
    /// back, to be handed in again.
    pub fn submit(&self, ops: Vec<Op>, done: Done) -> Result<(), (SubmitError, Vec<Op>)> {
        let Some(cost) = shared::cost(&ops) else { return Err((SubmitError::TooLarge, ops)) };
        debug_assert!(ops.iter().all(shared::is_verified), "the caller has verified the bytes");
        match self.inner.shared.offer(Job::Submit { ops, done, cost }) {
            Ok(()) => (self.inner.wake)(),
            Err((why, Job::Submit { ops, .. })) => return Err((why, ops)),
            Err((why, _)) => return Err((why, Vec::new())),
        }
        Ok(())
    }

    /// Keeps an evictable copy, if that is convenient.
    pub fn cache(&self, cid: ChunkId, sealed: Bytes) {
        self.inner.shared.push_cached(cid, sealed);
        (self.inner.wake)();
    }

    /// Changes tables alone. A crash or a rebuild may undo it: then the tables are what [`Follow`]
    /// makes of the records. `done` gets the error of `change`, of one that was made in the same
    /// step, or of the tables; then nothing was changed.
    pub fn update_tables(
        &self,
        change: TableChange,
        done: Box<dyn FnOnce(io::Result<()>) + Send>,
    ) -> Result<(), SubmitError> {
        self.inner.shared.push(Job::Tables { change, done })?;
        (self.inner.wake)();
        Ok(())
    }

    /// Builds the tables anew from what can be read of the segments: damaged catalogue records are
    /// not there any more, and [`Follow`] sees all others again. Reads fail until `done` is called.
    pub fn rebuild(
        &self,
        reason: &'static str,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), SubmitError> {
        self.inner.shared.push(Job::Rebuild { reason, done })?;
        (self.inner.wake)();
        Ok(())
    }

    /// Whether and how a chunk is held.
    pub fn held(&self, cid: ChunkId) -> io::Result<Option<Held>> {
        self.read_tables(|tables| {
            if let Some(row) = rows::chunk(tables, cid)?
                && !row.damaged
            {
                return Ok(Some(Held { replica: true, len: row.place.payload, hint: row.hint }));
            }
            let cached = rows::cached(tables, cid)?;
            Ok(cached.map(|place| Held { replica: false, len: place.payload, hint: None }))
        })
    }

    /// Reads a chunk into a buffer of the caller's; `None` when it is not held. What lies on the
    /// disk names this chunk and length; whether the bytes hash to it, the caller checks.
    pub fn read(
        &self,
        cid: ChunkId,
        buf: &mut dyn FnMut(usize) -> BytesMut,
    ) -> Result<Option<Bytes>, ReadError> {
        let mut missed = None;
        loop {
            let (row, cached) = self.read_tables(|tables| {
                Ok((rows::chunk(tables, cid)?, rows::cached(tables, cid)?))
            })?;
            if let Some(row) = row.filter(|row| !row.damaged) {
                let reader = self.inner.shared.reader();
                match reader.chunk(format::Class::Segment, row.place, cid, buf) {
                    // It may have moved meanwhile; what lies at the same place twice has not.
                    Err(ReadError::Damaged) if missed != Some(row.place) => {
                        missed = Some(row.place);
                        continue;
                    }
                    Err(ReadError::Damaged) => self.report(Damage::Replica(cid, row.place)),
                    read => return read.map(Some),
                }
                return Err(ReadError::Damaged);
            }
            let Some(place) = cached else { return Ok(None) };
            return match self.inner.shared.reader().chunk(format::Class::Cache, place, cid, buf) {
                Ok(bytes) => Ok(Some(bytes)),
                // Evicted meanwhile, or lost in a crash: nobody counted on it.
                Err(_) => {
                    self.report(Damage::Cached(cid));
                    Ok(None)
                }
            };
        }
    }

    /// Reads a replica again, from the disk and not from the page cache, and hashes it.
    pub fn verify(&self, cid: ChunkId) -> io::Result<Verdict> {
        let mut missed = None;
        loop {
            let row = self.read_tables(|tables| rows::chunk(tables, cid))?;
            let place = match row {
                Some(row) if !row.damaged => row.place,
                Some(row) if row.replicas > 0 => return Ok(Verdict::Damaged),
                Some(_) | None => return Ok(Verdict::Missing),
            };
            let mut buf = |len| BytesMut::zeroed(len);
            let reader = self.inner.shared.fresh_reader();
            match reader.chunk(format::Class::Segment, place, cid, &mut buf) {
                Ok(bytes) if blake3::hash(&bytes) == cid.0 => return Ok(Verdict::Good),
                Err(ReadError::Io(err)) if !is_bad_place(&err) => return Err(err),
                Err(ReadError::Io(_)) if missed == Some(place) => return Ok(Verdict::Unreadable),
                // It may have moved meanwhile.
                _ if missed != Some(place) => missed = Some(place),
                _ => {
                    self.report(Damage::Replica(cid, place));
                    return Ok(Verdict::Damaged);
                }
            }
        }
    }

    /// A catalogue record, verified against its id; `None` when it is not held.
    pub fn record(&self, id: RecordId) -> Result<Option<Vec<u8>>, ReadError> {
        let mut missed = None;
        loop {
            let row = self.read_tables(|tables| rows::record(tables, id))?;
            let place = match row {
                None => return Ok(None),
                Some((_, true)) => return Err(ReadError::Damaged),
                Some((place, false)) => place,
            };
            match self.inner.shared.reader().record(place, id) {
                // It may have moved meanwhile.
                Err(ReadError::Damaged) if missed != Some(place) => missed = Some(place),
                Err(ReadError::Damaged) => {
                    self.report(Damage::Record(id, place));
                    return Err(ReadError::Damaged);
                }
                read => return read.map(Some),
            }
        }
    }

    /// Counts a replica as damaged where it lies now, so that the next [`Op::Replica`] replaces it:
    /// for one whose place the disk cannot read, once its bytes are at hand.
    pub fn give_up(&self, cid: ChunkId) -> io::Result<()> {
        let row = self.read_tables(|tables| rows::chunk(tables, cid))?;
        if let Some(row) = row.filter(|row| !row.damaged) {
            self.report(Damage::Replica(cid, row.place));
        }
        Ok(())
    }

    /// Reads a catalogue record again, from the disk and not from the page cache, and hashes it.
    /// One that the disk cannot read counts as damaged: every member has a copy.
    pub fn verify_record(&self, id: RecordId) -> io::Result<Verdict> {
        let mut missed = None;
        loop {
            let row = self.read_tables(|tables| rows::record(tables, id))?;
            let place = match row {
                Some((place, false)) => place,
                Some((_, true)) => return Ok(Verdict::Damaged),
                None => return Ok(Verdict::Missing),
            };
            match self.inner.shared.fresh_reader().record(place, id) {
                Ok(_) => return Ok(Verdict::Good),
                Err(ReadError::Io(err)) if !is_bad_place(&err) => return Err(err),
                // It may have moved meanwhile.
                Err(_) if missed != Some(place) => missed = Some(place),
                Err(_) => {
                    self.report(Damage::Record(id, place));
                    return Ok(Verdict::Damaged);
                }
            }
        }
    }

    /// The claims on a chunk, each with whether it is committed.
    pub fn claims(&self, cid: ChunkId) -> io::Result<Vec<(Claim, bool)>> {
        self.read_tables(|tables| claims_in(tables, cid))
    }

    /// Runs `work` on the tables as they are now.
    pub fn read_tables<T>(
        &self,
        work: impl FnOnce(&dyn TableRead) -> io::Result<T>,
    ) -> io::Result<T> {
        let tables = self.inner.shared.tables()?;
        let result = tables.read().and_then(|snapshot| work(&snapshot));
        if tables.is_broken() {
            // The writer rebuilds them as soon as it looks.
            (self.inner.wake)();
            self.inner.shared.notify();
        }
        result
    }

    /// What is held.
    pub fn usage(&self) -> Usage {
        self.inner.shared.usage()
    }

    /// Writes what is queued, makes the tables durable and ends the writer; waits for it. Must
    /// not be called by a `done`.
    pub fn close(&self) {
        self.inner.shared.begin_close();
        (self.inner.wake)();
        self.inner.shared.wait_closed();
    }

    fn report(&self, damage: Damage) {
        // A full queue drops the report; the next reader makes it again.
        if self.inner.shared.push(Job::Damage(damage)).is_ok() {
            (self.inner.wake)();
        }
    }
}

/// The claims on a chunk in the order of their ids, each with whether it is committed.
pub fn claims_in(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Vec<(Claim, bool)>> {
    rows::claims(tables, cid)
}

/// Whether the disk could not read a place: the next one may be good.
fn is_bad_place(err: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(err) == Some(rustix::io::Errno::IO)
}
