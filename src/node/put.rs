//! Storing a file: read, seal, deliver, then write down what it is made of.
//!
//! Order is what makes it safe. The chunks come first; when each is on enough disks (`Promise`) the
//! pages and the manifest, then the records that name them. A put that dies on the way leaves
//! chunks under a claim that nobody commits, and nothing that anybody can see. Memory is constant:
//! every chunk in flight holds a slot of `Memory`, and rows leave in pages.

use super::attempt::Attempt;
use super::memory::{SMALL, Slot, User};
use super::replicate::{Count, Delivery, Promise, Tally};
use super::{Shared, lock};
use crate::chunk::{Builder, CHUNK_LEN, Manifest, Page, Place, Row, TooLarge};
use crate::core::limits;
use crate::crypto::{ChunkBuf, EpochKeys, Sealed, Sealer, chunk_id, seal_page};
use crate::id::{ChunkId, FileHash};
use crate::store::{Claim, WriteError};
use crate::sys::{Source, SourceChanged};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Chunks that are sealed at once: one per core of a small machine keeps both busy.
const SEALERS: usize = 3;
/// The same of all puts together.
const SEALERS_MAX: usize = limits::WORK_BYTES / CHUNK_LEN;

/// Why a put failed. Unless it says otherwise nothing of the file is visible, and what was
/// delivered goes.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The bytes could not be read.
    #[error("cannot read the file: {0}")]
    Read(io::Error),
    /// The file changed while it was read.
    #[error(transparent)]
    Changed(#[from] SourceChanged),
    /// The file is longer than a file can be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// This node, or all nodes together, have no room.
    #[error("no space: {0}")]
    NoSpace(Arc<WriteError>),
    /// Members are known but did not take the chunks in time; some have fewer copies than promised.
    #[error("only {copies} of {needed} copies could be made")]
    TooFewCopies {
        /// The fewest copies that any chunk has.
        copies: usize,
        /// How many were promised.
        needed: usize,
    },
    /// The file's records could not be kept or published.
    #[error(transparent)]
    Publish(#[from] super::publish::PublishError),
    /// The node is not in a swarm, or has not read its catalogue yet.
    #[error(transparent)]
    NotReady(#[from] super::NotReady),
}

/// What a put has made of the content, before it is written down.
pub(super) struct Content {
    /// The file hash.
    pub hash: FileHash,
    /// Length in bytes.
    pub length: u64,
    /// Under which its chunks are kept.
    pub claim: Claim,
    /// The sealed manifest, inline or as the chunk that it is stored as.
    pub manifest: Whereabouts,
    /// The acknowledgements.
    pub tally: Arc<Tally>,
}

/// Where the sealed manifest is.
pub(super) enum Whereabouts {
    /// In the file record itself.
    Inline(Vec<u8>),
    /// Stored as a chunk.
    Stored {
        /// Its name.
        cid: ChunkId,
        /// Its length in bytes.
        len: u32,
    },
}

/// Called with the bytes that are done and with those that there will be in all, where that is
/// known, as often as it likes. A put tells the latter when everything is stored and only copies
/// that other nodes have yet to make are waited for.
pub type OnProgress = Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

/// One put.
pub(super) struct Upload {
    shared: Arc<Shared>,
    keys: Arc<EpochKeys>,
    claim: Claim,
    promise: Promise,
    compress: bool,
    tally: Arc<Tally>,
    rows: Builder,
    progress: OnProgress,
}

/// A chunk that was read and is being sealed, in the order of the file.
struct Sealing {
    len: usize,
    sealed: oneshot::Receiver<(Sealed, Slot)>,
}

impl Upload {
    pub(super) fn new(
        shared: &Arc<Shared>,
        keys: Arc<EpochKeys>,
        attempt: &Attempt,
        compress: bool,
        progress: OnProgress,
    ) -> Self {
        let (claim, tally) = (attempt.claim(), attempt.tally().clone());
        let promise = Promise::now(&shared.view(), claim.replicas);
        let rows = Builder::default();
        Self { shared: shared.clone(), keys, claim, promise, compress, tally, rows, progress }
    }

    /// Stores all bytes of `source` and returns when they are on enough disks. `len`: how many
    /// there are, where that is known. If a small file is longer than that it was changed.
    pub(super) async fn run(
        mut self,
        source: Box<dyn Source>,
        len: Option<u64>,
    ) -> Result<Content, PutError> {
        let mut reader = Reader::new(&self.shared, source);
        if reader.user == User::Work && len.is_some_and(|len| len < SMALL as u64) {
            self.store_small(&mut reader).await?;
        } else {
            self.store_chunks(&mut reader).await?;
        }
        reader.finish().await?;
        self.write_manifest().await
    }

    /// Stores a file that is one small chunk at most.
    async fn store_small(&mut self, reader: &mut Reader) -> Result<(), PutError> {
        let mut slot = self.shared.memory.take_small().await;
        let buf = slot.buffer();
        let (shared, keys, compress) = (self.shared.clone(), self.keys.clone(), self.compress);
        let read = reader.with(move |source| {
            let mut chunk = ChunkBuf::recycle(buf, SMALL);
            let len = source.read(chunk.space())?;
            chunk.set_len(len);
            let fits = 0 < len && len < SMALL;
            Ok((len, fits.then(|| shared.sealers.seal(&keys, Place::Whole, compress, chunk))))
        });
        match read.await? {
            (0, _) => Ok(()),
            (_, None) => Err(SourceChanged.into()),
            (len, Some(sealed)) => self.deliver_row(sealed, slot, len),
        }
    }

    async fn store_chunks(&mut self, reader: &mut Reader) -> Result<(), PutError> {
        let mut sealing = VecDeque::with_capacity(SEALERS);
        let mut index = 0;
        while !reader.ended {
            let memory = &self.shared.memory;
            let slot = match memory.try_take(reader.user) {
                Some(slot) => slot,
                None => {
                    // Who waits for memory must hold none: others may be waiting for it.
                    while !sealing.is_empty() {
                        self.deliver_first(&mut sealing).await?;
                    }
                    self.shared.memory.take(reader.user).await
                }
            };
            let Some((slot, buf)) = reader.next(slot).await? else { break };
            let only = index == 0 && !reader.has_more().await?;
            let place = if only { Place::Whole } else { Place::At(index) };
            sealing.push_back(self.seal(place, slot, buf));
            index += 1;
            if sealing.len() == SEALERS {
                self.deliver_first(&mut sealing).await?;
            }
        }
        while !sealing.is_empty() {
            self.deliver_first(&mut sealing).await?;
        }
        Ok(())
    }

    /// Seals a chunk beside the tasks.
    fn seal(&self, place: Place, slot: Slot, buf: ChunkBuf) -> Sealing {
        let (done, sealed) = oneshot::channel();
        let len = buf.plain().len();
        let (shared, keys, compress) = (self.shared.clone(), self.keys.clone(), self.compress);
        self.shared.sys.spawn.run(Box::new(move || {
            let out = shared.sealers.seal(&keys, place, compress, buf);
            // The put may have been cancelled meanwhile: then nobody waits.
            drop(done.send((out, slot)));
        }));
        Sealing { len, sealed }
    }

    async fn deliver_first(&mut self, sealing: &mut VecDeque<Sealing>) -> Result<(), PutError> {
        let Some(first) = sealing.pop_front() else { return Ok(()) };
        let (sealed, slot) = first.sealed.await.map_err(|_| PutError::Read(cancelled()))?;
        self.deliver_row(sealed, slot, first.len)
    }

    /// Delivers the next chunk of the file, which has so many bytes.
    fn deliver_row(&mut self, sealed: Sealed, mut slot: Slot, len: usize) -> Result<(), PutError> {
        if sealed.row.is_zero() {
            slot.put_back(sealed.bytes);
        } else {
            self.deliver(sealed.row.cid, slot.hold(sealed.bytes));
        }
        self.push_row(sealed.row, len)?;
        (self.progress)(self.rows.length(), None);
        Ok(())
    }

    fn push_row(&mut self, row: Row, len: usize) -> Result<(), PutError> {
        let mut full = None;
        let keys = self.keys.clone();
        self.rows.push(row, len, |page: Page| {
            let sealed = seal_page(&keys, &page);
            full = Some((sealed.row.cid, sealed.bytes));
            Ok::<_, TooLarge>(sealed.row)
        })?;
        if let Some((cid, bytes)) = full {
            self.deliver(cid, bytes);
        }
        Ok(())
    }

    fn deliver(&self, cid: ChunkId, sealed: Bytes) {
        let delivery = Delivery { cid, sealed, claim: self.claim, promise: self.promise };
        self.shared.deliver(delivery, &self.tally);
    }

    async fn write_manifest(mut self) -> Result<Content, PutError> {
        let (keys, mut last) = (self.keys.clone(), None);
        let rows = std::mem::take(&mut self.rows);
        let (manifest, hash) = rows.finish(|page: Page| {
            let sealed = seal_page(&keys, &page);
            last = Some((sealed.row.cid, sealed.bytes));
            Ok::<_, TooLarge>(sealed.row)
        })?;
        if let Some((cid, bytes)) = last {
            self.deliver(cid, bytes);
        }
        if !cfg!(p2pfs_planted = "manifest-before-chunks") {
            self.keep_promise().await?;
        }
        let length = manifest.length;
        let manifest = self.seal_manifest(&hash, &manifest);
        if let Whereabouts::Stored { .. } = manifest {
            self.keep_promise().await?;
        }
        Ok(Content { hash, length, claim: self.claim, manifest, tally: self.tally })
    }

    fn seal_manifest(&self, hash: &FileHash, manifest: &Manifest) -> Whereabouts {
        let sealed = self.keys.seal_manifest(hash, manifest);
        if manifest.rows.len() <= 1 {
            return Whereabouts::Inline(sealed);
        }
        let (cid, len) = (chunk_id(&sealed), sealed.len() as u32);
        self.deliver(cid, sealed.into());
        Whereabouts::Stored { cid, len }
    }

    /// Waits until everything delivered so far is on enough disks.
    async fn keep_promise(&self) -> Result<(), PutError> {
        let Err(failed) = self.tally.promised().await else { return Ok(()) };
        let Count { copies, .. } = self.tally.count();
        Err(match failed {
            Some(err) if copies == 0 => PutError::NoSpace(err),
            _ => PutError::TooFewCopies { copies, needed: self.promise.nodes },
        })
    }
}

/// Reads chunk after chunk, beside the tasks.
struct Reader {
    shared: Arc<Shared>,
    source: Option<Box<dyn Source>>,
    /// Who the memory is for: a pipe's bytes come when somebody likes.
    user: User,
    /// A byte that was read to see whether there is one.
    peeked: Option<u8>,
    ended: bool,
}

impl Reader {
    fn new(shared: &Arc<Shared>, mut source: Box<dyn Source>) -> Self {
        let user = if source.rewind() { User::Work } else { User::Pipe };
        let (shared, source) = (shared.clone(), Some(source));
        Self { shared, source, user, peeked: None, ended: false }
    }

    /// The next chunk; none at the end.
    async fn next(&mut self, mut slot: Slot) -> Result<Option<(Slot, ChunkBuf)>, PutError> {
        let buf = slot.buffer();
        let peeked = self.peeked.take();
        let read = self.with(move |source| {
            let mut chunk = ChunkBuf::recycle(buf, CHUNK_LEN);
            let space = chunk.space();
            let from = peeked.map_or(0, |byte| {
                space[0] = byte;
                1
            });
            let len = from + source.read(&mut space[from..])?;
            chunk.set_len(len);
            Ok(chunk)
        });
        let chunk: ChunkBuf = read.await?;
        let len = chunk.plain().len();
        self.ended = len < CHUNK_LEN;
        if len == 0 {
            return Ok(None);
        }
        Ok(Some((slot, chunk)))
    }

    /// Whether there are bytes after those read so far.
    async fn has_more(&mut self) -> Result<bool, PutError> {
        if !self.ended && self.peeked.is_none() {
            self.peeked = self
                .with(|source| {
                    let mut byte = [0];
                    Ok((source.read(&mut byte)? == 1).then_some(byte[0]))
                })
                .await?;
            self.ended = self.peeked.is_none();
        }
        Ok(!self.ended)
    }

    async fn finish(&mut self) -> Result<(), PutError> {
        match self.source.as_mut() {
            Some(source) => Ok(source.finish()?),
            None => Err(PutError::Read(cancelled())),
        }
    }

    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Source) -> io::Result<T> + Send + 'static,
    ) -> Result<T, PutError> {
        let mut source = self.source.take().ok_or_else(|| PutError::Read(cancelled()))?;
        let (done, result) = oneshot::channel();
        self.shared.sys.spawn.run(Box::new(move || {
            let out = work(&mut *source);
            drop(done.send((source, out)));
        }));
        let (source, out) = result.await.map_err(|_| PutError::Read(cancelled()))?;
        self.source = Some(source);
        out.map_err(PutError::Read)
    }
}

fn cancelled() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

/// Sealers, each of which keeps a compressor: so there are never more than chunks in work.
#[derive(Default)]
pub(super) struct Sealers {
    state: Mutex<SealersState>,
    back: Condvar,
}

#[derive(Default)]
struct SealersState {
    free: Vec<Sealer>,
    in_use: usize,
}

impl Sealers {
    /// Seals a chunk, as [`Sealer::seal`] does, once there is a sealer for it.
    pub(super) fn seal(
        &self,
        keys: &EpochKeys,
        place: Place,
        compress: bool,
        chunk: ChunkBuf,
    ) -> Sealed {
        let mut sealer = self.take();
        let sealed = sealer.seal(keys, place, compress, chunk);
        self.put_back(sealer);
        sealed
    }

    fn take(&self) -> Sealer {
        let mut state = lock(&self.state);
        while state.in_use == SEALERS_MAX {
            state = self.back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.in_use += 1;
        state.free.pop().unwrap_or_default()
    }

    fn put_back(&self, sealer: Sealer) {
        let mut state = lock(&self.state);
        state.in_use -= 1;
        if state.free.len() < SEALERS {
            state.free.push(sealer);
        }
        self.back.notify_one();
    }

    pub(super) fn trim(&self) {
        lock(&self.state).free.clear();
    }
}
