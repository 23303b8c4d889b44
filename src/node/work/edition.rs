//! Making a version of an edited file: its changed chunks are sealed and brought to their homes,
//! the others keep their rows, and the file hash follows from the values of all rows. Owns the
//! order of that; writing the version down is `commit`'s.
//!
//! Invariant: nothing that names a chunk leaves before the chunk is on enough disks.

use super::WorkError;
use super::body::{At, Body, Snapshot};
use super::sealing::{Sealing, Staged};
use crate::chunk::{
    self, CHUNK_LEN, Manifest, PAGE_ROWS, Page, Place, Row, TreeHasher, chunk_count, chunk_len,
    page_count, page_rows,
};
use crate::core::catalogue::{Content as RecordContent, FileRecord};
use crate::crypto::{EpochKeys, chunk_id, seal_page};
use crate::id::{ChunkId, FileHash};
use crate::node::Shared;
use crate::node::attempt::Attempt;
use crate::node::get::{GetError, OpenFile};
use crate::node::replicate::Tally;
use crate::store::Claim;
use std::sync::Arc;

const CHUNK: u64 = CHUNK_LEN as u64;

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
    /// Chunks that are kept for it and not part of it.
    pub(super) unneeded: Vec<ChunkId>,
}

/// A version in the making.
struct Edition {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    base: Option<Arc<OpenFile>>,
    sealing: Sealing,
}

impl Shared {
    /// Stores what a file is now.
    pub(super) async fn edition(
        self: &Arc<Self>,
        body: Arc<Body>,
        keys: Arc<EpochKeys>,
    ) -> Result<Made, WorkError> {
        let ahead = body.lock().ahead.take();
        let ahead = match ahead {
            Some(ahead) => ahead.finish().await,
            None => None,
        };
        let snapshot = {
            let mut content = body.lock();
            content.snapshot(self.tick())
        };
        let base = match snapshot.base_len {
            0 => None,
            _ => self.base_of(&body).await?,
        };
        let sealing = match ahead.filter(|ahead| ahead.is_for(&snapshot)) {
            Some(sealing) => sealing,
            None => self.sealing(&body.id, snapshot.base.as_ref(), base.as_deref(), keys).await?,
        };
        let mut edition = Edition { shared: self.clone(), snapshot, base, sealing };
        edition.seal_all().await?;
        let (manifest, hash) = edition.manifest().await?;
        edition.sealing.keep_promise().await?;
        let record = edition.record(&hash, &manifest);
        if let RecordContent::Stored { .. } = record.content {
            edition.sealing.keep_promise().await?;
        }
        let Edition { snapshot, mut sealing, .. } = edition;
        let unneeded = sealing.unneeded();
        let Sealing { claim, tally, attempt, .. } = sealing;
        Ok(Made { body, snapshot, hash, record, manifest, claim, tally, attempt, unneeded })
    }
}

impl Edition {
    /// Seals the changed chunks that are not sealed yet, and brings them on their way.
    async fn seal_all(&mut self) -> Result<(), WorkError> {
        let Snapshot { size, staged, draft, .. } = &self.snapshot;
        let count = chunk_count(*size);
        for (index, edit) in staged.range(..count).map(|(index, edit)| (*index, *edit)) {
            if !self.sealing.has(index, edit) {
                let (place, len) = (Place::of(index, count), chunk_len(*size, index));
                let draft = draft.clone();
                self.sealing.seal(Staged { index, edit, place, len, draft }).await?;
            }
        }
        self.sealing.settle().await?;
        self.sealing.spare_all_but(&self.snapshot.staged);
        Ok(())
    }

    /// The row of a chunk as it is in this version.
    async fn row(&mut self, index: u64) -> Result<Row, WorkError> {
        let row = self.row_at(index).await?;
        self.sealing.needs(&row);
        Ok(row)
    }

    async fn row_at(&mut self, index: u64) -> Result<Row, WorkError> {
        let size = self.snapshot.size;
        let count = chunk_count(size);
        let place = Place::of(index, count);
        // What was cut off meanwhile may have been sealed ahead.
        if self.snapshot.at(index) == At::Draft
            && let Some(row) = self.sealing.take(index)
        {
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
        let sealed = seal_page(&self.sealing.keys, &Page { rows: list });
        self.sealing.deliver(sealed.row.cid, sealed.bytes);
        Ok(sealed.row)
    }

    fn same_page(&self, page: u64, first: u64, rows: u64) -> Option<Row> {
        let Snapshot { size, base_len, .. } = &self.snapshot;
        let base = self.base.as_ref().filter(|base| base.manifest.is_paged())?;
        let length = base.manifest.length;
        let last = first + rows - 1;
        let same = page_rows(length, page) as u64 == rows
            && chunk_len(length, last) == chunk_len(*size, last)
            && *base_len >= (*size).min((last + 1) * CHUNK)
            && self.snapshot.is_base(first, last);
        base.manifest.rows.get(page as usize).filter(|_| same).cloned()
    }

    /// What is said of the version; its manifest is on its way.
    fn record(&self, hash: &FileHash, manifest: &Manifest) -> FileRecord {
        let sealed = self.sealing.keys.seal_manifest(hash, manifest);
        let content = if manifest.rows.len() <= 1 {
            RecordContent::Inline(sealed)
        } else {
            let (manifest, sealed_len) = (chunk_id(&sealed), sealed.len() as u32);
            self.sealing.deliver(manifest, sealed.into());
            RecordContent::Stored { manifest, sealed_len }
        };
        let (claim, replicas) = (self.sealing.claim.id, self.sealing.claim.replicas);
        FileRecord { claim, lookup: self.sealing.keys.lookup(hash), content, replicas, flags: 0 }
    }
}
