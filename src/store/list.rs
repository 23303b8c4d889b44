//! Going through what the store holds: replicas, records, condemned chunks, pending claims. Each
//! list is taken in pages, each from a snapshot of its own, because a snapshot that is kept for
//! long holds old pages of the tables. Invariant: no list takes memory that grows with what is
//! stored.

use super::{Store, SubmitError, ends, rows};
use crate::id::{ChunkId, ClaimId, NodeId, RecordId};
use std::io;

/// Rows that are taken from one snapshot.
const PAGE: usize = 1024;
/// Claim ids that are: each has many rows.
const PENDING_PAGE: usize = 16;

/// A replica as [`Store::replicas`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// The chunk.
    pub cid: ChunkId,
    /// Sealed bytes.
    pub len: u32,
    /// The largest R of its claims; 0 without a claim.
    pub replicas: u8,
    /// The home node that it is kept for.
    pub hint: Option<NodeId>,
    /// Whether its bytes here are damaged, so that it has to be fetched again.
    pub damaged: bool,
}

/// A catalogue record as [`Store::records`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHere {
    /// The record.
    pub id: RecordId,
    /// Its bytes.
    pub len: u32,
}

/// A replica without a claim as [`Store::condemned`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// The chunk.
    pub cid: ChunkId,
    /// The round in which it was seen first; `None`: no round has seen it.
    pub round: Option<u64>,
}

/// A claim id as [`Store::pending`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The claim.
    pub claim: ClaimId,
    /// When it was renewed last, in milliseconds since 1970.
    pub renewed_ms: u64,
    /// Chunks that are claimed here.
    pub chunks: u64,
}

impl Store {
    /// Calls `visit` for each replica from `from` on, damaged ones too, by name, until it returns
    /// false. A change made meanwhile may be seen or not.
    pub fn replicas(
        &self,
        from: ChunkId,
        visit: &mut dyn FnMut(Replica) -> bool,
    ) -> io::Result<()> {
        let mut next = from.0.to_vec();
        loop {
            let mut page = Vec::with_capacity(PAGE);
            self.read_tables(|tables| {
                rows::replicas(tables, &next, &mut |cid, row| {
                    page.push((cid, row));
                    page.len() < PAGE
                })
            })?;
            for (cid, row) in &page {
                let replica = Replica {
                    cid: *cid,
                    len: row.place.payload,
                    replicas: row.replicas,
                    hint: row.hint,
                    damaged: row.damaged,
                };
                if !visit(replica) {
                    return Ok(());
                }
            }
            match page.last() {
                Some((cid, _)) if page.len() == PAGE => {
                    next = cid.0.to_vec();
                    // The shortest key behind this one.
                    next.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Calls `visit` for each catalogue record from `from` on, damaged ones too, by name, until it
    /// returns false. A change made meanwhile may be seen or not.
    pub fn records(
        &self,
        from: RecordId,
        visit: &mut dyn FnMut(RecordHere) -> bool,
    ) -> io::Result<()> {
        let mut next = from.0.to_vec();
        loop {
            let page = self.read_tables(|tables| rows::records(tables, &next, PAGE))?;
            for &(id, place) in &page {
                if !visit(RecordHere { id, len: place.payload }) {
                    return Ok(());
                }
            }
            match page.last() {
                Some((id, ..)) if page.len() == PAGE => next = rows::behind(&id.0),
                _ => return Ok(()),
            }
        }
    }

    /// Calls `visit` for each replica without a claim from `from` on, damaged ones too, by name,
    /// until it returns false. A change made meanwhile may be seen or not.
    pub fn condemned(
        &self,
        from: ChunkId,
        visit: &mut dyn FnMut(Condemned) -> bool,
    ) -> io::Result<()> {
        let mut next = from.0.to_vec();
        loop {
            let page = self.read_tables(|tables| rows::condemned(tables, &next, PAGE))?;
            for &(cid, round) in &page {
                if !visit(Condemned { cid, round }) {
                    return Ok(());
                }
            }
            match page.last() {
                Some((cid, _)) if page.len() == PAGE => next = rows::behind(&cid.0),
                _ => return Ok(()),
            }
        }
    }

    /// Calls `visit` for each claim id from `from` on that has claims here and is not committed,
    /// until it returns false. A change made meanwhile may be seen or not.
    pub fn pending(&self, from: ClaimId, visit: &mut dyn FnMut(Pending) -> bool) -> io::Result<()> {
        let mut next = from.0.to_vec();
        loop {
            let mut found = Vec::new();
            let page = self.read_tables(|tables| {
                let page = rows::pending(tables, &next, PENDING_PAGE)?;
                for &claim in &page {
                    if let Some((chunks, renewed_ms)) = rows::renewed(tables, claim)? {
                        found.push(Pending { claim, renewed_ms, chunks });
                    }
                }
                Ok(page)
            })?;
            if !found.into_iter().all(&mut *visit) {
                return Ok(());
            }
            match page.last() {
                Some(claim) if page.len() == PENDING_PAGE => next = rows::behind(&claim.0),
                _ => return Ok(()),
            }
        }
    }

    /// Up to `most` chunks that are claimed here under this id; none when [`Store::pending`] does
    /// not list it.
    pub fn pending_chunks(&self, claim: ClaimId, most: usize) -> io::Result<Vec<ChunkId>> {
        self.read_tables(|tables| match rows::is_pending(tables, claim)? {
            true => rows::claimed(tables, claim, &[], most),
            false => Ok(Vec::new()),
        })
    }

    /// Whether a claim is on one chunk here and no other.
    pub fn is_of_one_chunk(&self, claim: ClaimId) -> io::Result<bool> {
        Ok(self.read_tables(|tables| rows::claimed(tables, claim, &[], 2))?.len() == 1)
    }

    /// Notes that these condemned chunks were seen in this round, where no earlier one is noted.
    /// What was not durable is forgotten in a crash, all of it in a rebuild, and with each claim:
    /// then the grace starts anew.
    pub fn stamp(
        &self,
        cids: Vec<ChunkId>,
        round: u64,
        done: Box<dyn FnOnce(io::Result<()>) + Send>,
    ) -> Result<(), SubmitError> {
        self.update_tables(Box::new(move |tables| ends::stamp(tables, &cids, round)), done)
    }
}
