//! How claims and replicas end: planning the entries that say so, and applying them. Whether
//! something may end is decided when it is planned, and the entry then ends whatever stands before
//! it in the log, so that a replay decides nothing anew. Invariant: a chunk without a claim is in
//! `@condemned`, and only such a chunk is freed.

use super::Outcome;
use super::batch::Planner;
use super::format::{Entry, MAX_CLAIMED};
use super::index::Index;
use super::ledger;
use super::rows::{self, ChunkRow, Maker};
use crate::id::{ChunkId, ClaimId};
use crate::sys::TableWrite;
use std::io;

/// Claims of one id that are looked up at a time.
const PAGE: usize = 1024;

impl Planner<'_> {
    /// Ends all claims of this id for good.
    pub(super) fn release(&mut self, id: ClaimId) -> io::Result<Outcome> {
        if rows::is_released(self.index.tables, id)? {
            return Ok(Outcome::Ended { claims: 0 });
        }
        let claims = rows::renewed(self.index.tables, id)?.map_or(0, |(claims, _)| claims);
        self.add(&Entry::Released { claim: id }, None)?;
        Ok(Outcome::Ended { claims })
    }

    /// Ends the claims of this id on these chunks that were not renewed after `renewed_ms`.
    pub(super) fn release_rows(
        &mut self,
        id: ClaimId,
        cids: &[ChunkId],
        renewed_ms: u64,
    ) -> io::Result<Outcome> {
        let mut ending = Vec::new();
        for &cid in cids {
            let claimed = rows::claim(self.index.tables, cid, id)?;
            if claimed.is_some_and(|row| row.claim.renewed_ms <= renewed_ms) {
                ending.push(cid);
            }
        }
        ending.sort_unstable();
        ending.dedup();
        for cids in ending.chunks(MAX_CLAIMED) {
            self.add(&Entry::ReleasedRows { claim: id, cids: cids.to_vec() }, None)?;
        }
        Ok(Outcome::Ended { claims: ending.len() as u64 })
    }

    /// Ends the claims of this id if it is pending and was not renewed after `renewed_ms`.
    pub(super) fn lapse(&mut self, id: ClaimId, renewed_ms: u64) -> io::Result<Outcome> {
        let tables = &*self.index.tables;
        let ended =
            match rows::renewed(tables, id)? {
                Some((claims, latest)) if latest <= renewed_ms => {
                    if rows::is_committed(tables, id)? { 0 } else { claims }
                }
                _ => 0,
            };
        if ended > 0 {
            self.add(&Entry::Lapsed { claim: id }, None)?;
        }
        Ok(Outcome::Ended { claims: ended })
    }

    /// Gives up a replica that has had no claim since `round` or before.
    pub(super) fn free(&mut self, cid: ChunkId, round: u64) -> io::Result<Outcome> {
        let seen = rows::condemned_in(self.index.tables, cid)?.flatten();
        let freed = seen.is_some_and(|seen| seen <= round);
        let freed = freed || cfg!(p2pfs_planted = "free-without-claim-check");
        if freed {
            self.add(&Entry::Drop { cid }, None)?;
        }
        Ok(Outcome::Freed { freed })
    }
}

impl Index<'_> {
    /// Ends all claims of this id for good.
    pub(super) fn release(&mut self, id: ClaimId, maker: Maker) -> io::Result<()> {
        if rows::is_released(self.tables, id)? {
            return Ok(());
        }
        self.end_all(id)?;
        if let Some(said) = rows::said_by(self.tables, rows::DONE, id)? {
            self.ledger.debit(said.number, ledger::OF_ID);
            self.tables.remove(rows::DONE, &id.0)?;
        }
        self.ledger.credit(maker.number, ledger::OF_ID);
        self.tables.insert(rows::RELEASED, &id.0, &maker.encode())
    }

    /// Ends all claims of this id.
    pub(super) fn end_all(&mut self, id: ClaimId) -> io::Result<()> {
        loop {
            let page = rows::claimed(self.tables, id, &[], PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            self.end_on(id, &page)?;
        }
    }

    /// Ends the claims of this id on these chunks.
    pub(super) fn end_on(&mut self, id: ClaimId, cids: &[ChunkId]) -> io::Result<()> {
        for &cid in cids {
            self.forget_claim(cid, id)?;
            let Some(held) = rows::chunk(self.tables, cid)? else { continue };
            let replicas = self.asked_for(cid)?;
            if replicas != held.replicas {
                self.set_chunk(cid, Some(held), Some(ChunkRow { replicas, ..held }))?;
            }
        }
        self.settle(id)
    }

    /// Gives up a chunk and the claims on it.
    pub(super) fn drop_chunk(&mut self, cid: ChunkId) -> io::Result<()> {
        let old = rows::chunk(self.tables, cid)?;
        self.set_chunk(cid, old, None)?;
        for row in rows::claim_rows(self.tables, cid)? {
            self.forget_claim(cid, row.claim.id)?;
            self.settle(row.claim.id)?;
        }
        self.forget_cached(cid)
    }

    fn forget_claim(&mut self, cid: ChunkId, id: ClaimId) -> io::Result<()> {
        if let Some(row) = rows::claim(self.tables, cid, id)? {
            self.ledger.debit(row.maker.number, ledger::CLAIM);
            self.tables.remove(rows::CLAIM, &rows::claim_key(cid, id))?;
            self.tables.remove(rows::BY_CLAIM, &rows::by_claim_key(id, cid))?;
        }
        Ok(())
    }

    /// An id without claims is not pending any more.
    fn settle(&mut self, id: ClaimId) -> io::Result<()> {
        if rows::claimed(self.tables, id, &[], 1)?.is_empty() {
            self.tables.remove(rows::PENDING, &id.0)?;
        }
        Ok(())
    }
}

/// Notes in which round these condemned chunks were seen first, where that is not known yet.
pub(super) fn stamp(tables: &mut dyn TableWrite, cids: &[ChunkId], round: u64) -> io::Result<()> {
    for cid in cids {
        if rows::condemned_in(tables, *cid)? == Some(None) {
            tables.insert(rows::CONDEMNED, &cid.0, &round.to_le_bytes())?;
        }
    }
    Ok(())
}
