//! Making a version of an edited file: its changed chunks are sealed and brought to their homes,
//! the others keep their rows, and the file hash follows from the values of all rows. Owns the
//! order of that; writing the version down is `commit`'s.
//!
//! Invariant: nothing that names a chunk leaves before the chunk is on enough disks.

use super::WorkError;
use super::body::{At, Body, Snapshot};
use crate::chunk::{
    self, CHUNK_LEN, Manifest, PAGE_ROWS, Page, Place, Row, TreeHasher, chunk_count, chunk_len,
    page_count, page_rows,
};
use crate::core::catalogue::{Content as RecordContent, FileRecord, file_record, is_released};
use crate::core::hlc;
use crate::crypto::{ChunkBuf, EpochKeys, Sealed, chunk_id, seal_page};
use crate::id::{ChunkId, FileHash};
use crate::node::attempt::Attempt;
use crate::node::get::{GetError, OpenFile};
use crate::node::memory::{Slot, User};
use crate::node::replicate::{Delivery, Promise, Tally};
use crate::node::{PutError, Shared};
use crate::store::Claim;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

const CHUNK: u64 = CHUNK_LEN as u64;
/// Chunks that are sealed at once.
const SEALERS: usize = 3;

/// A version that is stored and that nobody knows of.
pub(super) struct Made {
    pub(super) body: Arc<Body>,
    pub(super) snapshot: Snapshot,
    pub(super) hash: FileHash,
    pub(super) record: FileRecord,
    pub(super) manifest: Manifest,
    pub(super) claim: Claim,
    pub(super) tally: Arc<Tally>,
    /// Of a new file: withdrawn when it is dropped before anybody can know of the version.
    pub(super) attempt: Option<Attempt>,
}

/// A version in the making.
struct Edition {
    shared: Arc<Shared>,
    keys: Arc<EpochKeys>,
    snapshot: Snapshot,
    base: Option<Arc<OpenFile>>,
    claim: Claim,
    promise: Promise,
    tally: Arc<Tally>,
    rows: BTreeMap<u64, Row>,
}

/// A chunk that is being sealed.
struct Sealing {
    index: u64,
    sealed: oneshot::Receiver<io::Result<(Sealed, Slot)>>,
}

impl Shared {
    /// Stores what a file is now.
    pub(super) async fn edition(
        self: &Arc<Self>,
        body: Arc<Body>,
        keys: Arc<EpochKeys>,
    ) -> Result<Made, WorkError> {
        let snapshot = body.lock().snapshot();
        let base = match snapshot.base_len {
            0 => None,
            _ => self.base_of(&body).await?,
        };
        let (claim, attempt) = self.claim_of_edition(&snapshot, base.as_deref()).await?;
        let tally = attempt.as_ref().map_or_else(Arc::default, |attempt| attempt.tally().clone());
        let promise = Promise::now(&self.view(), claim.replicas);
        let shared = self.clone();
        let rows = BTreeMap::new();
        let mut edition = Edition { shared, keys, snapshot, base, claim, promise, tally, rows };
        edition.seal_all().await?;
        let (manifest, hash) = edition.manifest().await?;
        edition.keep_promise().await?;
        let record = edition.record(&hash, &manifest);
        if let RecordContent::Stored { .. } = record.content {
            edition.keep_promise().await?;
        }
        let Edition { snapshot, tally, .. } = edition;
        Ok(Made { body, snapshot, hash, record, manifest, claim, tally, attempt })
    }

    /// Under what the chunks of a version are kept: the claim of its file, or of a new file a new
    /// one.
    async fn claim_of_edition(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        base: Option<&OpenFile>,
    ) -> Result<(Claim, Option<Attempt>), WorkError> {
        let mut replicas = self.config.replicas;
        if let Some(version) = &snapshot.base {
            let (released, record) = self.read_records(|view| {
                let record = version.record.map_or(Ok(None), |id| file_record(view, &id));
                Ok((is_released(view, &version.claim)?, record?))
            })?;
            replicas = record.map_or(replicas, |record| record.replicas);
            if !released {
                let renewed_ms = hlc::ms_of(self.tick());
                return Ok((Claim { id: version.claim, replicas, renewed_ms }, None));
            }
        }
        let attempt = Attempt::new(self, replicas);
        let claim = attempt.claim();
        if let Some(base) = base {
            // Somebody has let it go meanwhile: what is still there is kept for a new claim.
            let offer = attempt.offer();
            if !self.claim_parts(base, offer).await {
                let needed = Promise::now(&self.view(), replicas).nodes;
                return Err(PutError::TooFewCopies { copies: 0, needed }.into());
            }
        }
        Ok((claim, Some(attempt)))
    }
}

impl Edition {
    /// Seals the changed chunks and brings them on their way.
    async fn seal_all(&mut self) -> Result<(), WorkError> {
        let count = chunk_count(self.snapshot.size);
        let staged: Vec<u64> = self.snapshot.staged.range(..count).map(|(at, _)| *at).collect();
        let mut sealing = VecDeque::with_capacity(SEALERS);
        for index in staged {
            let slot = match self.shared.memory.try_take(User::Work) {
                Some(slot) => slot,
                None => {
                    // Who waits for memory must hold none: others may be waiting for it.
                    while !sealing.is_empty() {
                        self.deliver_first(&mut sealing).await?;
                    }
                    self.shared.memory.take(User::Work).await
                }
            };
            sealing.push_back(self.seal(index, slot));
            if sealing.len() == SEALERS {
                self.deliver_first(&mut sealing).await?;
            }
        }
        while !sealing.is_empty() {
            self.deliver_first(&mut sealing).await?;
        }
        Ok(())
    }

    fn seal(&self, index: u64, mut slot: Slot) -> Sealing {
        let (done, sealed) = oneshot::channel();
        let (shared, keys) = (self.shared.clone(), self.keys.clone());
        let (size, draft) = (self.snapshot.size, self.snapshot.draft.clone());
        let place = Place::of(index, chunk_count(size));
        self.shared.sys.spawn.run(Box::new(move || {
            let read = || {
                let mut chunk = ChunkBuf::recycle(slot.buffer(), CHUNK_LEN);
                let len = chunk_len(size, index);
                let draft = draft.ok_or(io::ErrorKind::NotFound)?;
                draft.read(&mut chunk.space()[..len], index * CHUNK)?;
                chunk.set_len(len);
                Ok(chunk)
            };
            let out = { read }().map(|chunk| shared.sealers.seal(&keys, place, true, chunk));
            // It may have been given up meanwhile: then nobody waits.
            drop(done.send(out.map(|out| (out, slot))));
        }));
        Sealing { index, sealed }
    }

    async fn deliver_first(&mut self, sealing: &mut VecDeque<Sealing>) -> Result<(), WorkError> {
        let Some(first) = sealing.pop_front() else { return Ok(()) };
        let gone = |_| io::Error::from(io::ErrorKind::Interrupted);
        let (sealed, mut slot) = first.sealed.await.map_err(gone)??;
        if sealed.row.is_zero() {
            slot.put_back(sealed.bytes);
        } else {
            self.deliver(sealed.row.cid, slot.hold(sealed.bytes));
        }
        self.rows.insert(first.index, sealed.row);
        Ok(())
    }

    fn deliver(&self, cid: ChunkId, sealed: Bytes) {
        let delivery = Delivery { cid, sealed, claim: self.claim, promise: self.promise };
        self.shared.deliver(delivery, &self.tally);
    }

    /// The row of a chunk as it is in this version.
    async fn row(&mut self, index: u64) -> Result<Row, WorkError> {
        let size = self.snapshot.size;
        let count = chunk_count(size);
        let place = Place::of(index, count);
        if let Some(row) = self.rows.remove(&index) {
            return Ok(row);
        }
        let base = self.base.as_ref().filter(|_| self.snapshot.at(index) == At::Base);
        let Some(base) = base else {
            let len = chunk_len(size, index);
            let value = self.shared.job(move || chunk::zero_value_of(place, len)).await?;
            return Ok(Row::zero(value));
        };
        let mut row = self.shared.row_of(base, index).await?;
        if Place::of(index, chunk_count(base.manifest.length)) != place {
            // The only chunk of a file has another value than the first of several.
            let plain = self.shared.plain_chunk(base, index).await?;
            row.value = chunk::value_of(place, &plain);
        }
        Ok(row)
    }

    /// The rows of all chunks or, of a large file, those of its pages; and the file hash.
    async fn manifest(&mut self) -> Result<(Manifest, FileHash), WorkError> {
        let size = self.snapshot.size;
        let mut rows = Vec::new();
        if page_count(size) == 0 {
            for index in 0..chunk_count(size) {
                rows.push(self.row(index).await?);
            }
        } else {
            for page in 0..page_count(size) {
                rows.push(self.page(page).await?);
            }
        }
        let hash = match rows.as_slice() {
            [] => chunk::empty_hash(),
            [only] => FileHash(only.value.0),
            rows => {
                let tree: TreeHasher = rows.iter().map(|row| row.value).collect();
                tree.root().ok_or(GetError::from(chunk::Disproved::Merge))?
            }
        };
        Ok((Manifest { length: size, rows }, hash))
    }

    /// The row of a page; one in which nothing changed is the base's.
    async fn page(&mut self, page: u64) -> Result<Row, WorkError> {
        let first = page * PAGE_ROWS as u64;
        let rows = page_rows(self.snapshot.size, page) as u64;
        if let Some(row) = self.same_page(page, first, rows) {
            return Ok(row);
        }
        let mut list = Vec::with_capacity(rows as usize);
        for index in first..first + rows {
            list.push(self.row(index).await?);
        }
        let sealed = seal_page(&self.keys, &Page { rows: list });
        self.deliver(sealed.row.cid, sealed.bytes);
        Ok(sealed.row)
    }

    fn same_page(&self, page: u64, first: u64, rows: u64) -> Option<Row> {
        let Snapshot { size, base_len, staged, .. } = &self.snapshot;
        let base = self.base.as_ref().filter(|base| base.manifest.is_paged())?;
        let length = base.manifest.length;
        let last = first + rows - 1;
        let same = page_rows(length, page) as u64 == rows
            && chunk_len(length, last) == chunk_len(*size, last)
            && *base_len >= (*size).min((last + 1) * CHUNK)
            && staged.range(first..=last).next().is_none();
        base.manifest.rows.get(page as usize).filter(|_| same).cloned()
    }

    /// What is said of the version; its manifest is on its way.
    fn record(&self, hash: &FileHash, manifest: &Manifest) -> FileRecord {
        let sealed = self.keys.seal_manifest(hash, manifest);
        let content = if manifest.rows.len() <= 1 {
            RecordContent::Inline(sealed)
        } else {
            let (manifest, sealed_len) = (chunk_id(&sealed), sealed.len() as u32);
            self.deliver(manifest, sealed.into());
            RecordContent::Stored { manifest, sealed_len }
        };
        let (claim, replicas) = (self.claim.id, self.claim.replicas);
        FileRecord { claim, lookup: self.keys.lookup(hash), content, replicas, flags: 0 }
    }

    /// Waits until everything that is on its way is on enough disks.
    async fn keep_promise(&self) -> Result<(), WorkError> {
        let Err(failed) = self.tally.promised().await else { return Ok(()) };
        let copies = self.tally.count().copies;
        Err(match failed {
            Some(err) if copies == 0 => PutError::NoSpace(err).into(),
            _ => PutError::TooFewCopies { copies, needed: self.promise.nodes }.into(),
        })
    }
}
