//! One batch being planned: which records the changes come to, and where they will lie. Each is
//! applied to the tables of an open transaction at once, so that the next change sees it. Nothing
//! here touches a segment; a plan that is dropped never was.

use super::format::{Checker, Class, Entry, MAX_CLAIMED, put_record};
use super::index::Index;
use super::rows::{self, Place};
use super::shared::Shared;
use super::{Claim, Op, Outcome};
use crate::id::{ChunkId, NodeId, RecordId};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Bytes of cached copies that one batch turns into replicas; the rest is "not held", and comes
/// from the peer.
const MAX_PROMOTED: usize = 4 << 20;

/// Head and body of a replica's record are at most so long.
const MAX_REPLICA_HEAD: usize = 110;

/// A piece of what is written.
enum Piece {
    /// Heads and bodies, by their place in `heads`.
    Head(Range<usize>),
    /// A payload, as the caller handed it in.
    Payload(Bytes),
}

/// What a batch writes, in order.
pub(super) struct Plan {
    number: u32,
    start: u64,
    len: u64,
    heads: Vec<u8>,
    pieces: Vec<Piece>,
    promoted: usize,
    /// Entries, marks not counted.
    pub(super) entries: u64,
}

impl Plan {
    /// A batch that will lie at `start` of segment `number`.
    pub(super) fn new(number: u32, start: u64) -> Self {
        let (heads, pieces) = (Vec::with_capacity(4096), Vec::new());
        Self { number, start, len: 0, heads, pieces, promoted: 0, entries: 0 }
    }

    /// Where the batch ends.
    pub(super) const fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Appends a record and says where it will lie.
    pub(super) fn push(&mut self, entry: &Entry, payload: Option<Bytes>, check: &Checker) -> Place {
        let offset = self.end();
        let from = self.heads.len();
        let payload_len = payload.as_ref().map_or(0, Bytes::len);
        let head = put_record(entry, payload_len, self.number, offset, check, &mut self.heads);
        match self.pieces.last_mut() {
            Some(Piece::Head(range)) => range.end = self.heads.len(),
            _ => self.pieces.push(Piece::Head(from..self.heads.len())),
        }
        self.pieces.extend(payload.map(Piece::Payload));
        self.len += (head + payload_len) as u64;
        self.entries += u64::from(*entry != Entry::Mark);
        Place::of(self.number, offset, head, payload_len)
    }

    /// What is to be written, in order.
    pub(super) fn slices(&self) -> Vec<&[u8]> {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Head(range) => &self.heads[range.clone()],
                Piece::Payload(bytes) => &bytes[..],
            })
            .collect()
    }
}

/// Plans changes into a plan and the tables of a transaction.
pub(super) struct Planner<'a> {
    /// What is written.
    pub(super) plan: &'a mut Plan,
    /// The tables.
    pub(super) index: Index<'a>,
    /// Reads cached copies, makes checks.
    pub(super) shared: &'a Shared,
}

impl Planner<'_> {
    /// Plans one change.
    pub(super) fn op(&mut self, op: &Op) -> io::Result<Outcome> {
        match op {
            Op::Replica { cid, sealed, claim, hint } => {
                self.replica(*cid, sealed, *claim, *hint).map(|new| Outcome::Replica { new })
            }
            Op::Claim { cids, claim } => {
                self.claim(cids, claim).map(|held| Outcome::Claim { held })
            }
            Op::Record { id, bytes } => self.record(*id, bytes).map(|new| Outcome::Record { new }),
            Op::Commit { claim } => {
                let tables = &*self.index.tables;
                if !rows::is_committed(tables, *claim)? && !rows::is_released(tables, *claim)? {
                    self.add(&Entry::Committed { claim: *claim }, None)?;
                }
                Ok(Outcome::Committed)
            }
            Op::Drop { cid, claims } => self.drop_chunk(*cid, claims),
            Op::Release { claim } => self.release(*claim),
            Op::ReleaseRows { claim, cids, renewed_ms } => {
                self.release_rows(*claim, cids, *renewed_ms)
            }
            Op::Lapse { claim, renewed_ms } => self.lapse(*claim, *renewed_ms),
            Op::Free { cid, round } => self.free(*cid, *round),
        }
    }

    /// About how many bytes the chunks among these changes would add.
    pub(super) fn new_bytes(&self, ops: &[Op]) -> io::Result<u64> {
        let mut bytes = 0;
        for op in ops {
            if let Op::Replica { cid, sealed, .. } = op
                && !self.is_held(*cid)?
            {
                bytes += (sealed.len() + MAX_REPLICA_HEAD) as u64;
            }
        }
        Ok(bytes)
    }

    /// Adds an entry to the batch and applies it.
    pub(super) fn add(&mut self, entry: &Entry, payload: Option<&Bytes>) -> io::Result<()> {
        let place = self.plan.push(entry, payload.cloned(), &self.shared.check);
        self.index.apply(entry, place, payload.map_or(&[], |bytes| &bytes[..]))
    }

    fn is_held(&self, cid: ChunkId) -> io::Result<bool> {
        Ok(rows::chunk(self.index.tables, cid)?.is_some_and(|row| !row.damaged))
    }

    fn replica(
        &mut self,
        cid: ChunkId,
        sealed: &Bytes,
        claim: Option<Claim>,
        hint: Option<NodeId>,
    ) -> io::Result<bool> {
        let claim = match claim {
            Some(claim) => self.merged(cid, &claim)?,
            None => None,
        };
        if !self.is_held(cid)? {
            self.add(&Entry::Replica { cid, claim, hint }, Some(sealed))?;
            return Ok(true);
        }
        if let Some(claim) = claim {
            self.add(&Entry::Claims { claim, cids: vec![cid] }, None)?;
        }
        Ok(false)
    }

    /// What an entry has to say of this claim, so that it says all that is known; `None` when
    /// there is nothing to say.
    fn merged(&self, cid: ChunkId, claim: &Claim) -> io::Result<Option<Claim>> {
        if rows::is_released(self.index.tables, claim.id)? {
            return Ok(None);
        }
        rows::merged(self.index.tables, cid, claim)
    }

    fn claim(&mut self, cids: &[ChunkId], claim: &Claim) -> io::Result<Vec<bool>> {
        if rows::is_released(self.index.tables, claim.id)? {
            return cids.iter().map(|cid| self.is_claimed(*cid)).collect();
        }
        let mut held = Vec::with_capacity(cids.len());
        let mut adding: BTreeMap<(u8, u64), Vec<ChunkId>> = BTreeMap::new();
        for &cid in cids {
            if self.is_held(cid)? {
                if let Some(new) = rows::merged(self.index.tables, cid, claim)? {
                    adding.entry((new.replicas, new.renewed_ms)).or_default().push(cid);
                }
                held.push(true);
                continue;
            }
            let promoted = self.cached_copy(cid)?;
            if let Some(sealed) = &promoted {
                let claim = rows::merged(self.index.tables, cid, claim)?;
                self.add(&Entry::Replica { cid, claim, hint: None }, Some(sealed))?;
            }
            held.push(promoted.is_some());
        }
        for ((replicas, renewed_ms), cids) in adding {
            let claim = Claim { id: claim.id, replicas, renewed_ms };
            for cids in cids.chunks(MAX_CLAIMED) {
                self.add(&Entry::Claims { claim, cids: cids.to_vec() }, None)?;
            }
        }
        Ok(held)
    }

    /// Whether it is held because of some claim.
    fn is_claimed(&self, cid: ChunkId) -> io::Result<bool> {
        let row = rows::chunk(self.index.tables, cid)?;
        Ok(row.is_some_and(|row| !row.damaged && !row.is_condemned()))
    }

    /// A cached copy that is good enough to be kept, when this batch has room for it.
    fn cached_copy(&mut self, cid: ChunkId) -> io::Result<Option<Bytes>> {
        let Some(place) = rows::cached(self.index.tables, cid)? else { return Ok(None) };
        let room = MAX_PROMOTED.saturating_sub(self.plan.promoted);
        if place.payload as usize > room {
            return Ok(None);
        }
        let mut buf = |len| BytesMut::zeroed(len);
        match self.shared.reader().chunk(Class::Cache, place, cid, &mut buf) {
            Ok(sealed) if blake3::hash(&sealed) == cid.0 => {
                self.plan.promoted += sealed.len();
                Ok(Some(sealed))
            }
            // Nobody counted on a cached copy.
            _ => {
                self.index.forget_cached(cid)?;
                Ok(None)
            }
        }
    }

    fn record(&mut self, id: RecordId, bytes: &Bytes) -> io::Result<bool> {
        let new = !matches!(rows::record(self.index.tables, id)?, Some((_, false)));
        if new {
            self.add(&Entry::Record { id }, Some(bytes))?;
        }
        Ok(new)
    }

    fn drop_chunk(&mut self, cid: ChunkId, known: &[Claim]) -> io::Result<Outcome> {
        let claims = rows::claim_rows(self.index.tables, cid)?;
        if !claims.iter().map(|row| &row.claim).eq(known) {
            return Ok(Outcome::Dropped { dropped: false });
        }
        if !claims.is_empty() || rows::chunk(self.index.tables, cid)?.is_some() {
            self.add(&Entry::Drop { cid }, None)?;
        } else {
            self.index.forget_cached(cid)?;
        }
        Ok(Outcome::Dropped { dropped: true })
    }
}
