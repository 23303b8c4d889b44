//! Changing the store's own tables: where each chunk and catalogue record lies, the claims, the
//! counts; `ends` takes claims away, `moves` changes places. Invariant: the tables are a pure
//! function of the entries of the segments in the order of the log; writing and rebuilding both go
//! through [`Index::apply`], so a rebuilt table equals the lost one. Only the rounds of condemned
//! chunks and what was found damaged are not in the log.

use super::following::Following;
use super::format::{Entry, Found};
use super::ledger::{self, Ledger};
use super::read::Reader;
use super::rows::{self, ChunkRow, ClaimRow, Counts, Maker, Place, Position};
use super::{Claim, Follow, FollowTables};
use crate::id::{ChunkId, ClaimId, NodeId, RecordId};
use crate::sys::TableWrite;
use std::collections::BTreeMap;
use std::io;

/// Changes the tables inside one transaction.
pub(super) struct Index<'a> {
    /// The tables.
    pub(super) tables: &'a mut dyn TableWrite,
    /// The counts that go with them.
    pub(super) counts: &'a mut Counts,
    /// What becomes of each segment's bytes.
    pub(super) ledger: Ledger,
    follow: &'a dyn Follow,
    reader: Reader<'a>,
    /// Records of this transaction, which may not be on the disk yet.
    fresh: BTreeMap<RecordId, Vec<u8>>,
}

impl<'a> Index<'a> {
    /// Changes these tables.
    pub(super) fn new(
        tables: &'a mut dyn TableWrite,
        counts: &'a mut Counts,
        follow: &'a dyn Follow,
        reader: Reader<'a>,
    ) -> Self {
        let (ledger, fresh) = (Ledger::default(), BTreeMap::new());
        Self { tables, counts, ledger, follow, reader, fresh }
    }

    /// Runs a change of tables that are not the store's own.
    pub(super) fn change(
        &mut self,
        work: impl FnOnce(&mut dyn FollowTables) -> io::Result<()>,
    ) -> io::Result<()> {
        let (tables, reader) = (&mut *self.tables, self.reader);
        work(&mut Following { tables, reader, fresh: &self.fresh })
    }
}

impl Index<'_> {
    /// Applies one entry of a segment; `payload` is a catalogue record's bytes.
    pub(super) fn apply(&mut self, entry: &Entry, place: Place, payload: &[u8]) -> io::Result<()> {
        self.ledger.note(entry, place);
        let maker = place.maker();
        match entry {
            Entry::Replica { cid, claim, hint } => {
                self.replica(*cid, place, *hint, false)?;
                claim.iter().try_for_each(|claim| self.claim(*cid, claim, maker))
            }
            Entry::Lost { cid, len, hint } => {
                self.replica(*cid, Place { payload: *len, ..place }, *hint, true)
            }
            Entry::Claims { claim, cids } => {
                cids.iter().try_for_each(|cid| self.claim(*cid, claim, maker))
            }
            Entry::Record { id } => self.record(*id, place, payload),
            Entry::Committed { claim } => self.commit(*claim, maker),
            Entry::Drop { cid } => self.drop_chunk(*cid),
            Entry::Released { claim } => self.release(*claim, maker),
            Entry::ReleasedRows { claim, cids } => self.end_on(*claim, cids),
            Entry::Lapsed { claim } => self.end_all(*claim),
            Entry::Mark | Entry::Cached { .. } | Entry::Complete { .. } => Ok(()),
        }
    }

    /// Applies a record that recovery found at `offset` of segment `number`.
    pub(super) fn replay(
        &mut self,
        found: &Found,
        number: u32,
        offset: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        let place = Place::of(number, offset, found.head, found.payload);
        self.apply(&found.entry, place, payload)
    }

    fn replica(
        &mut self,
        cid: ChunkId,
        place: Place,
        hint: Option<NodeId>,
        damaged: bool,
    ) -> io::Result<()> {
        let old = rows::chunk(self.tables, cid)?;
        let replicas = match &old {
            Some(old) => old.replicas,
            // Claims may be older than this copy: its record may have been damaged, say.
            None => self.asked_for(cid)?,
        };
        self.tables.remove(rows::CACHED, &cid.0)?;
        self.set_chunk(cid, old, Some(ChunkRow { place, damaged, replicas, hint }))
    }

    /// The largest R of the claims on a chunk; 0 without a claim.
    pub(super) fn asked_for(&self, cid: ChunkId) -> io::Result<u8> {
        let claims = rows::claim_rows(self.tables, cid)?;
        Ok(claims.iter().map(|row| row.claim.replicas).max().unwrap_or(0))
    }

    /// Changes the row of a chunk and everything that is counted with it.
    pub(super) fn set_chunk(
        &mut self,
        cid: ChunkId,
        old: Option<ChunkRow>,
        new: Option<ChunkRow>,
    ) -> io::Result<()> {
        if let Some(old) = &old {
            self.ledger.debit(old.place.number, ledger::weight(old));
            self.counts.take(old);
        }
        match &new {
            Some(new) => {
                self.ledger.credit(new.place.number, ledger::weight(new));
                self.counts.add(new);
                self.tables.insert(rows::CHUNK, &cid.0, &new.encode())?;
            }
            None => drop(self.tables.remove(rows::CHUNK, &cid.0)?),
        }
        let condemned = |row: Option<ChunkRow>| row.is_some_and(|row| row.is_condemned());
        match (condemned(old), condemned(new)) {
            (false, true) => self.tables.insert(rows::CONDEMNED, &cid.0, &[]),
            (true, false) => self.tables.remove(rows::CONDEMNED, &cid.0).map(drop),
            _ => Ok(()),
        }
    }

    fn claim(&mut self, cid: ChunkId, claim: &Claim, maker: Maker) -> io::Result<()> {
        if rows::is_released(self.tables, claim.id)? {
            return Ok(());
        }
        let Some(new) = rows::merged(self.tables, cid, claim)? else { return Ok(()) };
        match rows::claim(self.tables, cid, claim.id)? {
            Some(old) => self.ledger.debit(old.maker.number, ledger::CLAIM),
            None => {
                self.tables.insert(rows::BY_CLAIM, &rows::by_claim_key(new.id, cid), &[])?;
                let known = self.tables.get(rows::PENDING, &new.id.0)?.is_some();
                if !known && !rows::is_committed(self.tables, new.id)? {
                    self.tables.insert(rows::PENDING, &new.id.0, &[])?;
                }
            }
        }
        self.ledger.credit(maker.number, ledger::CLAIM);
        let row = ClaimRow { claim: new, maker };
        self.tables.insert(rows::CLAIM, &rows::claim_key(cid, new.id), &row.encode())?;
        match rows::chunk(self.tables, cid)? {
            Some(held) if held.replicas < new.replicas => {
                let row = ChunkRow { replicas: new.replicas, ..held };
                self.set_chunk(cid, Some(held), Some(row))
            }
            _ => Ok(()),
        }
    }

    fn commit(&mut self, id: ClaimId, maker: Maker) -> io::Result<()> {
        if rows::is_released(self.tables, id)? || rows::is_committed(self.tables, id)? {
            return Ok(());
        }
        self.ledger.credit(maker.number, ledger::OF_ID);
        self.tables.remove(rows::PENDING, &id.0)?;
        self.tables.insert(rows::DONE, &id.0, &maker.encode())
    }

    fn record(&mut self, id: RecordId, place: Place, bytes: &[u8]) -> io::Result<()> {
        match rows::record(self.tables, id)? {
            Some((_, false)) => return Ok(()),
            // Whoever follows has seen it already; only its bytes were lost.
            Some((_, true)) => {
                self.ledger.credit(place.number, place.len());
                return self.put_record_row(id, place, false);
            }
            None => self.put_record_row(id, place, false)?,
        }
        self.ledger.credit(place.number, place.len());
        self.counts.records += 1;
        self.counts.record_bytes += bytes.len() as u64;
        let follow = self.follow;
        let mut applied = Ok(());
        self.change(|tables| {
            applied = follow.apply(id, bytes, tables);
            Ok(())
        })?;
        self.fresh.insert(id, bytes.to_vec());
        applied
    }

    /// Writes the row of a catalogue record.
    pub(super) fn put_record_row(
        &mut self,
        id: RecordId,
        place: Place,
        damaged: bool,
    ) -> io::Result<()> {
        let mut row = place.encode().to_vec();
        row.push(if damaged { rows::DAMAGED } else { 0 });
        self.tables.insert(rows::RECORD, &id.0, &row)
    }

    /// Marks the bytes of a catalogue record as damaged, so that it is stored again when it comes.
    pub(super) fn mark_record_damaged(&mut self, id: RecordId, place: Place) -> io::Result<()> {
        match rows::record(self.tables, id)? {
            Some((at, false)) if at == place => {
                self.ledger.debit(place.number, place.len());
                self.put_record_row(id, place, true)
            }
            _ => Ok(()),
        }
    }

    /// Marks the replica at `place` as damaged, unless another one has replaced it.
    pub(super) fn mark_damaged(&mut self, cid: ChunkId, place: Place) -> io::Result<()> {
        match rows::chunk(self.tables, cid)? {
            Some(row) if row.place == place && !row.damaged => {
                self.set_chunk(cid, Some(row), Some(ChunkRow { damaged: true, ..row }))
            }
            _ => Ok(()),
        }
    }

    /// Notes a cached copy.
    pub(super) fn note_cached(&mut self, cid: ChunkId, place: Place) -> io::Result<()> {
        self.tables.insert(rows::CACHED, &cid.0, &place.encode())
    }

    /// Forgets a cached copy.
    pub(super) fn forget_cached(&mut self, cid: ChunkId) -> io::Result<()> {
        self.tables.remove(rows::CACHED, &cid.0).map(drop)
    }

    /// Notes a damaged range of a segment, which stays as it is.
    pub(super) fn note_rot(&mut self, number: u32, offset: u64, len: u64) -> io::Result<()> {
        self.ledger.note_rot(number, offset, len);
        self.tables.insert(rows::ROT, &rows::rot_key(number, offset), &len.to_le_bytes())
    }

    /// Writes the ledger, the position and the counts, the last act of every transaction.
    pub(super) fn finish(self, position: Position) -> io::Result<()> {
        let Self { tables, counts, ledger, follow, .. } = self;
        ledger.write(tables, counts)?;
        let state = counts.encode(follow.version(), position);
        tables.insert(rows::META, b"state", &state)
    }
}
