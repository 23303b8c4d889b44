//! Changing places: the rows that were made from a segment are made from its compacted copy. The
//! copy holds what was needed when it was made, and nothing in the old file becomes needed later:
//! so whatever still points at the old file is found in the copy. Invariant: moving what has moved
//! already changes nothing, so that a crash in between is made good by moving all of it again.

use super::format::{Checker, Entry, Found};
use super::index::Index;
use super::ledger;
use super::rows::{self, ChunkRow, ClaimRow, Maker, Place};
use super::scan::{Item, Scan};
use crate::id::{ChunkId, ClaimId};
use crate::sys::{File, Table};
use std::io;

/// Rows that one transaction moves, about: the writer has other work as well.
const PAGE: usize = 1024;

/// A compacted segment being read from its start to its end.
pub(super) struct Moving {
    /// The old file.
    pub(super) from: u32,
    /// The new one.
    pub(super) to: u32,
    /// How much of the new one has moved …
    pub(super) at: u64,
    /// … of how much.
    pub(super) end: u64,
}

impl Moving {
    /// The next entries to move; none: all have moved.
    pub(super) fn page(&mut self, file: &dyn File, check: &Checker) -> io::Result<Page> {
        let (mut page, mut rows) = (Vec::new(), 0);
        let mut scan = Scan::new(file, check, self.to, self.at, self.end, self.end);
        while rows < PAGE {
            let Some(item) = scan.next()? else { break };
            match item {
                Item::Record { offset, found } => {
                    self.at = offset + (found.head + found.payload) as u64;
                    rows += match &found.entry {
                        Entry::Claims { cids, .. } => cids.len(),
                        _ => 1,
                    };
                    page.push((offset, found));
                }
                // What it held will be found missing when it is looked for.
                Item::Damaged { offset, len } => self.at = offset + len,
            }
        }
        Ok(page)
    }
}

/// Entries of a compacted segment, with where they lie.
pub(super) type Page = Vec<(u64, Found)>;

impl Index<'_> {
    /// Moves the rows that these entries make.
    pub(super) fn move_page(&mut self, moving: &Moving, page: &Page) -> io::Result<()> {
        for (offset, found) in page {
            let place = Place::of(moving.to, *offset, found.head, found.payload);
            self.move_entry(&found.entry, place, moving.from)?;
        }
        Ok(())
    }

    fn move_entry(&mut self, entry: &Entry, place: Place, from: u32) -> io::Result<()> {
        self.ledger.note(entry, place);
        let to = place.maker();
        match entry {
            Entry::Replica { cid, claim, .. } => {
                self.move_chunk(*cid, place, false, from)?;
                claim.iter().try_for_each(|claim| self.move_claim(*cid, claim.id, to, from))
            }
            Entry::Lost { cid, len, .. } => {
                self.move_chunk(*cid, Place { payload: *len, ..place }, true, from)
            }
            Entry::Claims { claim, cids } => {
                cids.iter().try_for_each(|cid| self.move_claim(*cid, claim.id, to, from))
            }
            Entry::Record { id } => match rows::record(self.tables, *id)? {
                Some((at, false)) if at.number == from => {
                    self.ledger.debit(from, at.len());
                    self.ledger.credit(place.number, place.len());
                    self.put_record_row(*id, place, false)
                }
                Some((at, false)) if at == place => {
                    self.ledger.credit(place.number, place.len());
                    Ok(())
                }
                _ => Ok(()),
            },
            Entry::Committed { claim } => self.move_id(rows::DONE, *claim, to, from),
            Entry::Released { claim } => self.move_id(rows::RELEASED, *claim, to, from),
            _ => Ok(()),
        }
    }

    fn move_chunk(
        &mut self,
        cid: ChunkId,
        place: Place,
        damaged: bool,
        from: u32,
    ) -> io::Result<()> {
        match rows::chunk(self.tables, cid)? {
            Some(row) if row.place.number == from => {
                self.set_chunk(cid, Some(row), Some(ChunkRow { place, damaged, ..row }))
            }
            Some(row) if row.place == place => {
                self.ledger.credit(place.number, ledger::weight(&row));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn move_claim(&mut self, cid: ChunkId, id: ClaimId, to: Maker, from: u32) -> io::Result<()> {
        let Some(row) = rows::claim(self.tables, cid, id)? else { return Ok(()) };
        if row.maker.number == from {
            self.ledger.debit(from, ledger::CLAIM);
            let row = ClaimRow { maker: to, ..row };
            self.tables.insert(rows::CLAIM, &rows::claim_key(cid, id), &row.encode())?;
        } else if row.maker != to {
            return Ok(());
        }
        self.ledger.credit(to.number, ledger::CLAIM);
        Ok(())
    }

    fn move_id(&mut self, table: Table, id: ClaimId, to: Maker, from: u32) -> io::Result<()> {
        let Some(maker) = rows::said_by(self.tables, table, id)? else { return Ok(()) };
        if maker.number == from {
            self.ledger.debit(from, ledger::OF_ID);
            self.tables.insert(table, &id.0, &to.encode())?;
        } else if maker != to {
            return Ok(());
        }
        self.ledger.credit(to.number, ledger::OF_ID);
        Ok(())
    }

    /// Forgets what is known of a segment as a file, in a transaction that does nothing else with
    /// it.
    pub(super) fn forget_segment(&mut self, number: u32) -> io::Result<()> {
        if let Some(account) = ledger::account(self.tables, number)? {
            self.counts.dead_bytes = self.counts.dead_bytes.saturating_sub(account.dead());
            self.tables.remove(rows::SEGMENT, &number.to_be_bytes())?;
        }
        let mut rotten = Vec::new();
        let (from, to) = (rows::rot_key(number, 0), rows::rot_key(number, u64::MAX));
        self.tables.range(rows::ROT, &from, Some(&to), &mut |key, _| {
            rotten.push(key.to_vec());
            true
        })?;
        rotten.iter().try_for_each(|key| self.tables.remove(rows::ROT, key).map(drop))
    }
}
