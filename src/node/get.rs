//! Reading a file: find its record, open and prove its manifest, then bring the chunks of a range
//! into a sink, many at once, each proved before it is written. What was fetched from others stays
//! here as an evictable copy. Constant memory: every chunk in flight holds a slot of `Memory`.

use super::Shared;
use super::fetch::{Sharers, Unavailable};
use super::from::{NotFrom, Sources, Whom};
use super::memory::{Slot, User};
use super::put::OnProgress;
use super::records::FoundRecord;
use crate::chunk::{self, CHUNK_LEN, Disproved, Manifest, PAGE_ROWS, Page, Row};
use crate::core::catalogue::{Content, FileRecord};
use crate::crypto::{EpochKeys, OpenError, Opener, chunk_id, open_page};
use crate::id::{ChunkId, FileHash, NodeId};
use crate::store::ReadError;
use crate::sys::Sink;
use crate::wire::message::{FetchShare, Part};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Chunks that one get has in flight: enough to keep several holders and both cores busy.
const WINDOW: usize = 8;

/// The same for a get whose reader takes the bytes in order, at its own pace.
const PIPE_WINDOW: usize = 2;

/// Why a get failed. What the sink has got so far is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Nobody knows the file.
    #[error("not found")]
    NotFound {
        /// Members that were asked.
        asked: usize,
        /// Members that could not be.
        unreachable: usize,
    },
    /// Parts of it are not to be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The one peer that was to be asked does not give it.
    #[error(transparent)]
    NotFrom(#[from] NotFrom),
    /// Every record of the file promises something that does not hash to it.
    #[error("the content does not match its hash: {0}")]
    Corrupt(OpenError),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// The own disk failed.
    #[error("cannot read from this node's store: {0}")]
    Store(#[from] io::Error),
    /// The node is not in a swarm, or has not read its catalogue yet.
    #[error(transparent)]
    NotReady(#[from] super::NotReady),
}

impl From<Disproved> for GetError {
    fn from(why: Disproved) -> Self {
        Self::Corrupt(why.into())
    }
}

/// A file whose manifest is proved.
pub(super) struct OpenFile {
    pub(super) record: FileRecord,
    pub(super) manifest: Manifest,
    /// Where what of it is not here comes from.
    pub(super) sources: Sources,
    page: Mutex<Option<(u64, Arc<Page>)>>,
}

impl OpenFile {
    /// A file that this node has just made itself.
    pub(super) const fn made(record: FileRecord, manifest: Manifest) -> Self {
        let sources = Sources { whom: Whom::Anybody, sharers: Vec::new() };
        Self { record, manifest, sources, page: Mutex::new(None) }
    }
}

/// What is to be read of a file, and how far it has come.
pub(super) struct Reading {
    /// The bytes that are wanted.
    pub(super) range: Range<u64>,
    /// How many of them, from the front, are in the sink.
    done: u64,
    /// Where they came from.
    pub(super) origins: Origins,
}

impl Reading {
    pub(super) fn of(range: Range<u64>) -> Self {
        Self { range, done: 0, origins: Origins::default() }
    }
}

/// Where bytes came from.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) remote_bytes: u64,
    pub(super) from: BTreeSet<NodeId>,
}

impl Shared {
    /// Opens the file: the first of its records whose manifest proves it. Those that come after it
    /// are left.
    pub(super) async fn open_file(
        self: &Arc<Self>,
        hash: FileHash,
        records: &mut Vec<FoundRecord>,
    ) -> Result<OpenFile, GetError> {
        self.open_file_of(hash, records, Whom::Anybody).await
    }

    /// The same, and nobody else is ever asked for parts of it.
    pub(super) async fn open_file_of(
        self: &Arc<Self>,
        hash: FileHash,
        records: &mut Vec<FoundRecord>,
        whom: Whom,
    ) -> Result<OpenFile, GetError> {
        let mut failed = None;
        while !records.is_empty() {
            let found = records.remove(0);
            let sources = Sources { whom, sharers: sharers_of(&found, records) };
            let FoundRecord { record, keys, .. } = found;
            match self.open_manifest(&hash, &record, &keys, &sources).await {
                Ok(manifest) => {
                    return Ok(OpenFile { record, manifest, sources, page: Mutex::new(None) });
                }
                Err(err) => failed = Some(err),
            }
        }
        Err(failed.unwrap_or(GetError::NotFound { asked: 0, unreachable: 0 }))
    }

    async fn open_manifest(
        self: &Arc<Self>,
        hash: &FileHash,
        record: &FileRecord,
        keys: &EpochKeys,
        sources: &Sources,
    ) -> Result<Manifest, GetError> {
        let sealed = match &record.content {
            Content::Inline(sealed) => Bytes::copy_from_slice(sealed),
            Content::Stored { manifest, .. } => {
                self.small_chunk(sources, Part::Manifest, *manifest).await?.0
            }
        };
        keys.open_manifest(hash, &sealed).map_err(GetError::Corrupt)
    }

    /// The sealed bytes of a manifest or page, from here or from whoever has it, and from whom.
    async fn small_chunk(
        self: &Arc<Self>,
        sources: &Sources,
        part: Part,
        cid: ChunkId,
    ) -> Result<(Bytes, Option<NodeId>), GetError> {
        if let Some(bytes) = self.read_here(cid, &mut |len| BytesMut::zeroed(len))
            && chunk_id(&bytes) == cid
        {
            return Ok((bytes, None));
        }
        let (bytes, from) = self.fetch_of(sources, part, cid).await?;
        if from == self.me {
            return Ok((bytes, None));
        }
        self.store.cache(cid, bytes.clone());
        Ok((bytes, Some(from)))
    }

    /// A sealed part of a file from those who may be asked, and from whom.
    async fn fetch_of(
        self: &Arc<Self>,
        sources: &Sources,
        part: Part,
        cid: ChunkId,
    ) -> Result<(Bytes, NodeId), GetError> {
        match sources.whom {
            Whom::Anybody => Ok(self.fetch_part(&sources.sharers, part, cid).await?),
            Whom::Only(peer) => {
                let claim = sources.sharers.iter().find(|(id, _)| *id == peer);
                let in_place = claim.map(|(_, claim)| FetchShare { claim: *claim, part, cid });
                Ok((self.fetch_from(peer, cid, in_place).await?, peer))
            }
        }
    }

    /// A chunk of the own store. One that is damaged, or that the disk cannot read, is missing:
    /// others may have it.
    fn read_here(
        self: &Arc<Self>,
        cid: ChunkId,
        buf: &mut dyn FnMut(usize) -> BytesMut,
    ) -> Option<Bytes> {
        match self.store.read(cid, buf) {
            Ok(bytes) => bytes,
            Err(ReadError::Damaged) => {
                self.repair_when_noted(cid);
                None
            }
            Err(ReadError::Io(err)) => {
                tracing::warn!(cid = %cid.short(), %err, "a chunk here cannot be read");
                None
            }
        }
    }

    /// Writes the bytes that are wanted and not there yet into `sink`, the first byte of the range
    /// at offset 0. After an error it may go on with another manifest of the same file.
    pub(super) async fn read_range(
        self: &Arc<Self>,
        file: &OpenFile,
        reading: &mut Reading,
        sink: &Arc<dyn Sink>,
        progress: &OnProgress,
    ) -> Result<(), GetError> {
        let Reading { range, done, origins } = reading;
        // One to read while another is written; a slow reader must not hold the memory of all.
        let window = if sink.seekable() { WINDOW } else { PIPE_WINDOW };
        let mut flying: VecDeque<Flight> = VecDeque::with_capacity(window);
        let total = Some(range.end - range.start);
        let rest = range.start + *done..range.end;
        for index in chunk::chunks_of(file.manifest.length, rest.clone()) {
            if flying.len() == window {
                *done += self.land(&mut flying, origins, sink).await?;
                progress(*done, total);
            }
            let row = self.row(file, index, origins).await?;
            let piece = Piece::new(file.manifest.length, index, row, &rest, range.start);
            let user = if sink.seekable() { User::Work } else { User::Pipe };
            let slot = loop {
                match self.memory.try_take(user) {
                    Some(slot) => break slot,
                    None if flying.is_empty() => break self.memory.take(user).await,
                    // Who waits for memory must hold none: others may be waiting for it.
                    None => *done += self.land(&mut flying, origins, sink).await?,
                }
            };
            flying.push_back(self.fly(file.sources.clone(), piece, slot, sink.clone()));
        }
        while !flying.is_empty() {
            *done += self.land(&mut flying, origins, sink).await?;
            progress(*done, total);
        }
        Ok(())
    }

    /// The row of a chunk, wherever its page has to come from.
    pub(super) async fn row_of(
        self: &Arc<Self>,
        file: &OpenFile,
        index: u64,
    ) -> Result<Row, GetError> {
        self.row(file, index, &mut Origins::default()).await
    }

    /// The row of a chunk; pages are fetched and proved as they are needed.
    async fn row(
        self: &Arc<Self>,
        file: &OpenFile,
        index: u64,
        origins: &mut Origins,
    ) -> Result<Row, GetError> {
        if !file.manifest.is_paged() {
            return nth(&file.manifest.rows, index);
        }
        let number = index / PAGE_ROWS as u64;
        let at = index % PAGE_ROWS as u64;
        let cached = file.page.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, page)) = cached.filter(|(cached, _)| *cached == number) {
            return nth(&page.rows, at);
        }
        let root = &nth(&file.manifest.rows, number)?;
        let part = Part::Page(u32::try_from(number).unwrap_or(u32::MAX));
        let (sealed, from) = self.small_chunk(&file.sources, part, root.cid).await?;
        if let Some(from) = from {
            origins.remote_bytes += sealed.len() as u64;
            origins.from.insert(from);
        }
        let page = open_page(root, file.manifest.length, number, BytesMut::from(&sealed[..]))
            .map_err(GetError::Corrupt)?;
        let row = nth(&page.rows, at)?;
        *file.page.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, Arc::new(page)));
        Ok(row)
    }

    /// Starts on one chunk.
    fn fly(
        self: &Arc<Self>,
        sources: Sources,
        piece: Piece,
        slot: Slot,
        sink: Arc<dyn Sink>,
    ) -> Flight {
        let (landed, landing) = oneshot::channel();
        let shared = self.clone();
        let (bytes, at) = (piece.within.len() as u64, piece.at);
        let work = tokio::spawn(async move {
            let result = shared.bring(&sources, piece, slot, sink).await;
            // Whoever waited may have given up: then the result is of no use to anybody.
            drop(landed.send(result));
        });
        Flight { landing, bytes, at, work: work.abort_handle() }
    }

    /// Waits for the first chunk, and writes it if the sink wants its bytes in order.
    async fn land(
        self: &Arc<Self>,
        flying: &mut VecDeque<Flight>,
        origins: &mut Origins,
        sink: &Arc<dyn Sink>,
    ) -> Result<u64, GetError> {
        let Some(mut first) = flying.pop_front() else { return Ok(0) };
        let given_up = |_| GetError::Write(io::ErrorKind::Interrupted.into());
        let landed = (&mut first.landing).await.map_err(given_up)??;
        if let Some((from, bytes)) = landed.from {
            origins.remote_bytes += bytes;
            origins.from.insert(from);
        }
        if let Some(plain) = landed.in_order {
            let (sink, at, mut slot) = (sink.clone(), first.at, landed.slot);
            self.job(move || {
                let written = sink.write(at, &plain).map_err(GetError::Write);
                slot.put_back(plain);
                written
            })
            .await??;
        }
        Ok(first.bytes)
    }

    /// Brings a chunk from the own store or from another node, proves it, and writes it.
    async fn bring(
        self: &Arc<Self>,
        sources: &Sources,
        piece: Piece,
        slot: Slot,
        sink: Arc<dyn Sink>,
    ) -> Result<Landed, GetError> {
        if piece.row.is_zero() {
            return self.job(move || piece.zeros(slot, &*sink)).await?;
        }
        let (shared, to) = (self.clone(), sink.clone());
        let here = self.job(move || shared.bring_from_here(piece, slot, &*to)).await??;
        let (piece, mut slot) = match here {
            Here::Landed(landed) => return Ok(landed),
            Here::Missing(piece, slot) => (piece, slot),
        };
        let part = Part::Chunk(piece.index);
        let (sealed, from) = self.fetch_of(sources, part, piece.row.cid).await?;
        let origin = (from != self.me).then_some((from, sealed.len() as u64));
        if origin.is_some() {
            self.store.cache(piece.row.cid, sealed.clone());
        }
        let shared = self.clone();
        self.job(move || {
            let mut buf = sized(slot.buffer(), sealed.len());
            buf.copy_from_slice(&sealed);
            let plain = shared.open(&piece, buf)?;
            piece.finish(plain, slot, origin, &*sink)
        })
        .await?
    }

    /// A whole chunk in the clear, proved; its memory counts until the last handle is gone.
    pub(super) async fn clear_chunk(
        self: &Arc<Self>,
        file: &OpenFile,
        index: u64,
    ) -> Result<Bytes, GetError> {
        let row = self.row_of(file, index).await?;
        let start = index * CHUNK_LEN as u64;
        let piece = Piece::new(file.manifest.length, index, row, &(start..u64::MAX), start);
        let slot = self.memory.take(User::Work).await;
        let landed = self.bring(&file.sources, piece, slot, Arc::new(Held)).await?;
        Ok(landed.in_order.map_or_else(Bytes::new, |plain| landed.slot.hold(plain)))
    }

    fn bring_from_here(
        self: &Arc<Self>,
        piece: Piece,
        mut slot: Slot,
        sink: &dyn Sink,
    ) -> Result<Here, GetError> {
        let sealed = self.read_here(piece.row.cid, &mut |len| sized(slot.buffer(), len));
        let Some(sealed) = sealed else { return Ok(Here::Missing(piece, slot)) };
        let sealed = sealed.try_into_mut().unwrap_or_else(|bytes| BytesMut::from(&bytes[..]));
        match self.open(&piece, sealed) {
            Ok(plain) => piece.finish(plain, slot, None, sink).map(Here::Landed),
            // The own copy may have rotted: another holder's may be good. If it is the author's
            // fault, that one will not open either.
            Err(err) => {
                tracing::warn!(cid = %piece.row.cid.short(), %err, "a chunk here does not open");
                self.check_again(piece.row.cid);
                Ok(Here::Missing(piece, slot))
            }
        }
    }

    fn open(&self, piece: &Piece, sealed: BytesMut) -> Result<Bytes, GetError> {
        let mut opener = self.openers.take();
        let plain = opener.open(&piece.row, piece.length, piece.index, sealed);
        self.openers.put_back(opener);
        plain.map_err(GetError::Corrupt)
    }
}

/// Who serves a file in place, when the record says so: its author, and those of others that name
/// the very same parts.
fn sharers_of(found: &FoundRecord, others: &[FoundRecord]) -> Sharers {
    let same = |other: &&FoundRecord| {
        other.record.is_shared() && other.record.content == found.record.content
    };
    if !found.record.is_shared() {
        return Vec::new();
    }
    let all = std::iter::once(found).chain(others.iter().filter(same));
    all.map(|found| (found.author, found.record.claim)).collect()
}

/// A row of a list that a peer has made.
fn nth(rows: &[Row], index: u64) -> Result<Row, GetError> {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    rows.get(index).cloned().ok_or_else(|| Disproved::RowCount.into())
}

/// Where a chunk goes that is kept in memory: nothing is written.
struct Held;

impl Sink for Held {
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn seekable(&self) -> bool {
        false
    }
}

/// What the own store made of a chunk.
enum Here {
    Landed(Landed),
    Missing(Piece, Slot),
}

/// What is wanted of one chunk.
struct Piece {
    row: Row,
    length: u64,
    index: u64,
    /// The wanted bytes within the chunk.
    within: Range<usize>,
    /// Where the first of them goes in the output.
    at: u64,
}

impl Piece {
    fn new(length: u64, index: u64, row: Row, range: &Range<u64>, base: u64) -> Self {
        let start = index * CHUNK_LEN as u64;
        let end = start + chunk::chunk_len(length, index) as u64;
        let from = range.start.max(start);
        let to = range.end.min(end);
        let within = (from - start) as usize..(to - start) as usize;
        Self { row, length, index, within, at: from - base }
    }

    fn finish(
        self,
        plain: Bytes,
        mut slot: Slot,
        from: Option<(NodeId, u64)>,
        sink: &dyn Sink,
    ) -> Result<Landed, GetError> {
        if !sink.seekable() {
            return Ok(Landed { slot, in_order: Some(plain.slice(self.within)), from });
        }
        sink.write(self.at, &plain[self.within]).map_err(GetError::Write)?;
        slot.put_back(plain);
        Ok(Landed { slot, in_order: None, from })
    }

    fn zeros(self, mut slot: Slot, sink: &dyn Sink) -> Result<Landed, GetError> {
        chunk::verify_zero(&self.row.value, self.length, self.index)?;
        if sink.seekable() {
            // The hole is there already: the output is empty, and its length is set at the end.
            return Ok(Landed { slot, in_order: None, from: None });
        }
        let mut buf = sized(slot.buffer(), chunk::chunk_len(self.length, self.index));
        buf.fill(0);
        self.finish(buf.freeze(), slot, None, sink)
    }
}

/// A chunk that is written, or waits for its turn.
struct Landed {
    slot: Slot,
    in_order: Option<Bytes>,
    from: Option<(NodeId, u64)>,
}

/// One chunk on its way; dropping it gives up.
struct Flight {
    landing: oneshot::Receiver<Result<Landed, GetError>>,
    bytes: u64,
    at: u64,
    work: tokio::task::AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// A used buffer with exactly `len` bytes.
fn sized(mut buf: BytesMut, len: usize) -> BytesMut {
    buf.resize(len, 0);
    buf
}

/// Openers that are not in use: each keeps a decompressor.
#[derive(Default)]
pub(super) struct Openers(Mutex<Vec<Opener>>);

impl Openers {
    fn take(&self) -> Opener {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn trim(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn put_back(&self, opener: Opener) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < WINDOW {
            free.push(opener);
        }
    }
}
