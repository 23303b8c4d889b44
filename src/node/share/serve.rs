//! What peers get of files that are served in place. A part is read from where the file lies, into
//! memory of this node, proved there, and only then sealed; whatever differs from what the records
//! say is refused, and looked at again soon.

use super::rows::RowFile;
use super::{RowKey, Shared};
use crate::chunk::{self, CHUNK_LEN, Manifest, Page, Row};
use crate::crypto::{ChunkBuf, chunk_id, reseal, seal_page};
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::memory::{Slot, User};
use crate::node::serve::refusal;
use crate::transport::Message as Frame;
use crate::wire::frame::Refusal;
use crate::wire::message::{FetchShare, Part, kind};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// Why a part is not served.
enum Refused {
    /// Nothing of the kind is shared here.
    NotHeld,
    /// The file is not what it was.
    Changed,
    /// It cannot be read now.
    Unreadable(io::Error),
}

impl From<io::Error> for Refused {
    fn from(err: io::Error) -> Self {
        Self::Unreadable(err)
    }
}

impl Shared {
    /// Answers a peer that wants a part.
    pub(in crate::node) async fn answer_fetch_share(
        self: &Arc<Self>,
        peer: NodeId,
        ask: FetchShare,
    ) -> Result<Frame, Refusal> {
        // The disk may hang: whoever waits for it here holds no memory that others need.
        let open = "the semaphore is never closed";
        let reading = self.shared_here.reads.acquire().await.expect(open);
        let slot = self.fetched.take(User::Peer(peer)).await;
        let body = self.shared_part(ask, slot).await;
        drop(reading);
        Ok(Frame { kind: kind::FETCH_SHARE, head: Bytes::new(), body: body? })
    }

    /// A part of a file of this node, sealed.
    pub(in crate::node) async fn shared_part(
        self: &Arc<Self>,
        ask: FetchShare,
        slot: Slot,
    ) -> Result<Bytes, Refusal> {
        let shared = self.clone();
        let part = self.job(move || shared.read_part(&ask, slot)).await;
        let no = |code, text: &str| Refusal { code, text: text.to_owned() };
        match part.map_err(|_| no(refusal::DISK, "this node is stopping"))? {
            Ok(sealed) => Ok(sealed),
            Err(Refused::NotHeld) => Err(no(refusal::NOT_HELD, "not shared here")),
            Err(Refused::Changed) => {
                self.doubt(RowKey::of(&ask.claim));
                self.shared_here.asked.notify_one();
                Err(no(refusal::CHANGED, "the file has changed since it was shared"))
            }
            Err(Refused::Unreadable(err)) => {
                tracing::debug!(%err, "a shared file cannot be read");
                self.shared_here.asked.notify_one();
                let text = match err.kind() {
                    io::ErrorKind::NotFound => return Err(no(refusal::CHANGED, "it is gone")),
                    _ => "the shared file cannot be read now",
                };
                Err(no(refusal::DISK, text))
            }
        }
    }

    fn read_part(&self, ask: &FetchShare, slot: Slot) -> Result<Bytes, Refused> {
        let rows = self.rows_of_claim(&ask.claim)?.ok_or(Refused::NotHeld)?;
        match ask.part {
            Part::Manifest => self.manifest_part(&rows, &ask.cid),
            Part::Page(page) => self.page_part(&rows, page, &ask.cid),
            Part::Chunk(index) => self.chunk_part(&rows, index, &ask.cid, slot),
        }
    }

    /// The row file that a claim leads to.
    pub(super) fn rows_of_claim(&self, claim: &ClaimId) -> io::Result<Option<RowFile>> {
        let Some(rows) = self.open_rows(RowKey::of(claim))? else { return Ok(None) };
        let is_it = rows.ends()?.0 == *claim;
        Ok(Some(rows).filter(|_| is_it))
    }

    /// The sealed manifest of a file.
    pub(super) fn sealed_manifest(&self, rows: &RowFile) -> io::Result<Option<(Vec<u8>, usize)>> {
        let keyring = self.catalogue.keyring();
        let Some(keys) = keyring.get(&rows.head.epoch) else { return Ok(None) };
        let (_, hash) = rows.ends()?;
        let manifest = Manifest { length: rows.head.stamp.len, rows: rows.manifest_rows()? };
        Ok(Some((keys.seal_manifest(&hash, &manifest), manifest.rows.len())))
    }

    fn manifest_part(&self, rows: &RowFile, cid: &ChunkId) -> Result<Bytes, Refused> {
        let (sealed, _) = self.sealed_manifest(rows)?.ok_or(Refused::NotHeld)?;
        if chunk_id(&sealed) == *cid { Ok(sealed.into()) } else { Err(Refused::NotHeld) }
    }

    fn page_part(&self, rows: &RowFile, page: u32, cid: &ChunkId) -> Result<Bytes, Refused> {
        if u64::from(page) >= chunk::page_count(rows.head.stamp.len) {
            return Err(Refused::NotHeld);
        }
        let keyring = self.catalogue.keyring();
        let keys = keyring.get(&rows.head.epoch).ok_or(Refused::NotHeld)?;
        let sealed = seal_page(keys, &Page { rows: rows.page(page)? });
        if sealed.row.cid == *cid { Ok(sealed.bytes) } else { Err(Refused::NotHeld) }
    }

    fn chunk_part(
        &self,
        rows: &RowFile,
        index: u64,
        cid: &ChunkId,
        mut slot: Slot,
    ) -> Result<Bytes, Refused> {
        let length = rows.head.stamp.len;
        if index >= chunk::chunk_count(length) {
            return Err(Refused::NotHeld);
        }
        let row: Row = rows.row(index)?;
        let entry = self.shared_here.list.get(&rows.head.share).ok_or(Refused::NotHeld)?;
        let path = entry.spec.place_of(&rows.head.path).ok_or(Refused::NotHeld)?;
        if row.cid != *cid {
            return Err(Refused::NotHeld);
        }
        let wanted = chunk::chunk_len(length, index);
        let mut chunk = ChunkBuf::recycle(slot.buffer(), wanted);
        let file = self.sys.fs.open_as_it_is(&path)?;
        let read = file.read_at(&mut chunk.space()[..wanted], index * CHUNK_LEN as u64)?;
        chunk.set_len(read);
        let sealed = reseal(&row, length, index, chunk).ok_or(Refused::Changed)?;
        Ok(slot.hold(sealed))
    }
}
