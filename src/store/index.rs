//! The store's own tables: where each chunk and catalogue record lies, the claims, the counts.
//! Invariant: they are a pure function of the entries of the segments in order; writing and
//! rebuilding both go through [`Index::apply`], so a rebuilt table equals the lost one.
//!
//! | table | key | value |
//! |---|---|---|
//! | `@chunk` | chunk id | place 14, flags 1 (bit 0 damaged, bit 1 hint), replicas 1, [hint 32] |
//! | `@claim` | chunk id, claim id | replicas 1, renewed 8 |
//! | `@done` | claim id | |
//! | `@record` | record id | place 14, flags 1 (bit 0 damaged) |
//! | `@cached` | chunk id | place 14 |
//! | `@rot` | segment number 4 (big-endian), offset 8 (big-endian) | length 8 |
//! | `@meta` | `state` | position 4 + 8, counts 6 × 8 |
//!
//! A place is segment number 4, offset 4, length of head and body 2, of the payload 4.

use super::format::{Entry, Found};
use super::read::Reader;
use super::{Claim, Follow, FollowTables, ReadError};
use crate::id::{ChunkId, ClaimId, NodeId, RecordId};
use crate::sys::{Table, TableRead, TableWrite};
use std::collections::BTreeMap;
use std::io;

const CHUNK: Table = Table("@chunk");
const CLAIM: Table = Table("@claim");
const DONE: Table = Table("@done");
const RECORD: Table = Table("@record");
const CACHED: Table = Table("@cached");
const ROT: Table = Table("@rot");
const META: Table = Table("@meta");

const DAMAGED: u8 = 1;
const HINTED: u8 = 2;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Number of the file.
    pub(super) number: u32,
    /// Where the record starts.
    pub(super) offset: u32,
    /// Length of its head and body.
    pub(super) head: u16,
    /// Length of its payload.
    pub(super) payload: u32,
}

impl Place {
    /// The place of a record that was found or written at `offset`.
    pub(super) fn of(number: u32, offset: u64, head: usize, payload: usize) -> Self {
        Self {
            number,
            offset: u32::try_from(offset).expect("a segment is shorter than 4 GiB"),
            head: u16::try_from(head).expect("head and body are at most 33 KiB"),
            payload: u32::try_from(payload).expect("a payload is at most MAX_PAYLOAD"),
        }
    }

    /// Length of the whole record.
    pub(super) const fn len(&self) -> u64 {
        self.head as u64 + self.payload as u64
    }

    fn encode(&self) -> [u8; 14] {
        let mut out = [0; 14];
        out[..4].copy_from_slice(&self.number.to_le_bytes());
        out[4..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..10].copy_from_slice(&self.head.to_le_bytes());
        out[10..].copy_from_slice(&self.payload.to_le_bytes());
        out
    }

    fn decode(row: &[u8]) -> Option<(Self, &[u8])> {
        let (number, rest) = row.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (head, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_first_chunk()?;
        let place = Self {
            number: u32::from_le_bytes(*number),
            offset: u32::from_le_bytes(*offset),
            head: u16::from_le_bytes(*head),
            payload: u32::from_le_bytes(*payload),
        };
        Some((place, rest))
    }
}

/// A row of `@chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRow {
    /// Where the replica lies.
    pub(super) place: Place,
    /// The copy did not verify; it counts as not held until it is written again.
    pub(super) damaged: bool,
    /// The largest R of its claims; 0 without a claim.
    pub(super) replicas: u8,
    /// The node it is kept for.
    pub(super) hint: Option<NodeId>,
}

impl ChunkRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.place.encode().to_vec();
        let hinted = if self.hint.is_some() { HINTED } else { 0 };
        out.push(hinted | if self.damaged { DAMAGED } else { 0 });
        out.push(self.replicas);
        if let Some(hint) = self.hint {
            out.extend_from_slice(&hint.0);
        }
        out
    }

    /// Reads a row.
    pub(super) fn decode(row: &[u8]) -> io::Result<Self> {
        let read = || {
            let (place, rest) = Place::decode(row)?;
            let (&[flags, replicas], rest) = rest.split_first_chunk()?;
            let hint = match flags & HINTED {
                0 => None,
                _ => Some(NodeId(*rest.first_chunk()?)),
            };
            Some(Self { place, damaged: flags & DAMAGED != 0, replicas, hint })
        };
        read().ok_or_else(|| bad_row(CHUNK))
    }
}

/// Numbers that follow from the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Replicas that are held and not damaged.
    pub(super) replicas: u64,
    /// Their sealed bytes.
    pub(super) replica_bytes: u64,
    /// Catalogue records.
    pub(super) records: u64,
    /// Their bytes.
    pub(super) record_bytes: u64,
    /// Bytes of segments that nothing refers to any more.
    pub(super) dead_bytes: u64,
    /// Replicas whose copy here is damaged.
    pub(super) damaged: u64,
}

/// A position in the segments: everything before it is in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Number of the segment; 0 before the first.
    pub(super) number: u32,
    /// Offset in it.
    pub(super) offset: u64,
}

fn bad_row(table: Table) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a row of {} makes no sense", table.0))
}

/// The position and counts as committed last; `None` in a new table file.
pub(super) fn state(tables: &dyn TableRead) -> io::Result<Option<(Position, Counts)>> {
    let Some(row) = tables.get(META, b"state")? else { return Ok(None) };
    let read = || {
        let (number, mut rest) = row.split_first_chunk()?;
        let mut next = || {
            let (value, tail) = rest.split_first_chunk()?;
            rest = tail;
            Some(u64::from_le_bytes(*value))
        };
        let position = Position { number: u32::from_le_bytes(*number), offset: next()? };
        let counts = Counts {
            replicas: next()?,
            replica_bytes: next()?,
            records: next()?,
            record_bytes: next()?,
            dead_bytes: next()?,
            damaged: next()?,
        };
        Some((position, counts))
    };
    read().map(Some).ok_or_else(|| bad_row(META))
}

/// The replica of a chunk, damaged or not.
pub(super) fn chunk(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Option<ChunkRow>> {
    tables.get(CHUNK, &cid.0)?.map(|row| ChunkRow::decode(&row)).transpose()
}

/// The cached copy of a chunk.
pub(super) fn cached(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Option<Place>> {
    let Some(row) = tables.get(CACHED, &cid.0)? else { return Ok(None) };
    Place::decode(&row).map(|(place, _)| Some(place)).ok_or_else(|| bad_row(CACHED))
}

/// Where a catalogue record lies, and whether its bytes there are damaged.
pub(super) fn record(tables: &dyn TableRead, id: RecordId) -> io::Result<Option<(Place, bool)>> {
    let Some(row) = tables.get(RECORD, &id.0)? else { return Ok(None) };
    match Place::decode(&row) {
        Some((place, &[flags])) => Ok(Some((place, flags & DAMAGED != 0))),
        _ => Err(bad_row(RECORD)),
    }
}

/// The claims on a chunk, each with whether it is committed.
pub(super) fn claims(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Vec<(Claim, bool)>> {
    let mut claims = Vec::new();
    let mut good = true;
    let end = after(cid);
    tables.range(CLAIM, &cid.0, end.as_ref().map(|end| &end[..]), &mut |key, row| {
        match claim_row(&key[ChunkId::LEN..], row) {
            Some(claim) => claims.push((claim, false)),
            None => good = false,
        }
        good
    })?;
    if !good {
        return Err(bad_row(CLAIM));
    }
    for (claim, committed) in &mut claims {
        *committed = tables.get(DONE, &claim.id.0)?.is_some();
    }
    Ok(claims)
}

fn claim_row(id: &[u8], row: &[u8]) -> Option<Claim> {
    let (&replicas, renewed) = row.split_first()?;
    Some(Claim {
        id: ClaimId(id.try_into().ok()?),
        replicas,
        renewed_ms: u64::from_le_bytes(renewed.try_into().ok()?),
    })
}

/// The chunk id after `cid`; `None` after the last.
fn after(cid: ChunkId) -> Option<[u8; 32]> {
    let mut next = cid.0;
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// Calls `visit` for the replicas from `from` on and below `to`, until it returns false.
pub(super) fn replicas(
    tables: &dyn TableRead,
    from: &[u8],
    visit: &mut dyn FnMut(ChunkId, ChunkRow) -> bool,
) -> io::Result<()> {
    let mut bad = None;
    tables.range(CHUNK, from, None, &mut |key, row| match (
        key.try_into().map(ChunkId),
        ChunkRow::decode(row),
    ) {
        (Ok(cid), Ok(row)) => visit(cid, row),
        _ => {
            bad = Some(bad_row(CHUNK));
            false
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// The damaged ranges that recovery met: segment number, offset, length.
pub(super) fn rot(tables: &dyn TableRead) -> io::Result<Vec<(u32, u64, u64)>> {
    let mut found = Vec::new();
    tables.range(ROT, &[], None, &mut |key, row| {
        let read = || {
            let (number, offset) = key.split_first_chunk()?;
            let offset = u64::from_be_bytes(offset.try_into().ok()?);
            Some((u32::from_be_bytes(*number), offset, u64::from_le_bytes(row.try_into().ok()?)))
        };
        found.extend(read());
        true
    })?;
    Ok(found)
}

/// Whether the claim would change what the table says.
pub(super) fn adds(tables: &dyn TableRead, cid: ChunkId, claim: &Claim) -> io::Result<bool> {
    Ok(merged(tables, cid, claim)?.is_some())
}

/// What the row of this claim is to become; `None` when it is that already.
fn merged(tables: &dyn TableRead, cid: ChunkId, claim: &Claim) -> io::Result<Option<Claim>> {
    let Some(row) = tables.get(CLAIM, &claim_key(cid, claim.id))? else { return Ok(Some(*claim)) };
    let old = claim_row(&claim.id.0, &row).ok_or_else(|| bad_row(CLAIM))?;
    let new = Claim {
        id: claim.id,
        replicas: old.replicas.max(claim.replicas),
        renewed_ms: old.renewed_ms.max(claim.renewed_ms),
    };
    Ok((new != old).then_some(new))
}

fn claim_key(cid: ChunkId, id: ClaimId) -> [u8; 48] {
    let mut key = [0; 48];
    key[..32].copy_from_slice(&cid.0);
    key[32..].copy_from_slice(&id.0);
    key
}

/// Whether claims of this id are known to be committed.
pub(super) fn is_committed(tables: &dyn TableRead, id: ClaimId) -> io::Result<bool> {
    Ok(tables.get(DONE, &id.0)?.is_some())
}

/// Changes the tables inside one transaction.
pub(super) struct Index<'a> {
    /// The tables.
    pub(super) tables: &'a mut dyn TableWrite,
    /// The counts that go with them.
    pub(super) counts: &'a mut Counts,
    /// Who follows catalogue records.
    pub(super) follow: &'a dyn Follow,
    /// Reads records that were kept before.
    pub(super) reader: Reader<'a>,
    /// Records of this transaction, which may not be on the disk yet.
    fresh: BTreeMap<RecordId, Vec<u8>>,
}

/// What a follower sees.
struct Following<'a> {
    tables: &'a mut dyn TableWrite,
    reader: Reader<'a>,
    fresh: &'a BTreeMap<RecordId, Vec<u8>>,
}

impl TableRead for Following<'_> {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.tables.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.tables.range(table, from, to, visit)
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.tables.last(table, from, to)
    }
}

impl TableWrite for Following<'_> {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.tables.insert(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        self.tables.remove(table, key)
    }
}

impl FollowTables for Following<'_> {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.fresh.get(id) {
            return Ok(Some(bytes.clone()));
        }
        let Some((place, false)) = record(self.tables, *id)? else { return Ok(None) };
        match self.reader.record(place, *id) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Damaged) => Ok(None),
            Err(ReadError::Io(err)) => Err(err),
        }
    }
}

impl<'a> Index<'a> {
    /// Changes these tables.
    pub(super) fn new(
        tables: &'a mut dyn TableWrite,
        counts: &'a mut Counts,
        follow: &'a dyn Follow,
        reader: Reader<'a>,
    ) -> Self {
        Self { tables, counts, follow, reader, fresh: BTreeMap::new() }
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
        match entry {
            Entry::Replica { cid, claim, hint } => {
                self.replica(*cid, place, *hint)?;
                if let Some(claim) = claim {
                    self.claim(*cid, claim)?;
                }
                Ok(())
            }
            Entry::Claims { claim, cids } => {
                cids.iter().try_for_each(|cid| self.claim(*cid, claim))
            }
            Entry::Record { id } => self.record(*id, place, payload),
            Entry::Committed { claim } => self.tables.insert(DONE, &claim.0, &[]),
            Entry::Drop { cid } => self.drop_chunk(*cid),
            Entry::Mark | Entry::Cached { .. } => Ok(()),
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

    fn replica(&mut self, cid: ChunkId, place: Place, hint: Option<NodeId>) -> io::Result<()> {
        let replicas = match chunk(self.tables, cid)? {
            Some(old) => {
                self.uncount(&old);
                old.replicas
            }
            // Claims may be older than this copy: its record may have been damaged, say.
            None => claims(self.tables, cid)?.iter().map(|(c, _)| c.replicas).max().unwrap_or(0),
        };
        self.tables.remove(CACHED, &cid.0)?;
        let row = ChunkRow { place, damaged: false, replicas, hint };
        self.tables.insert(CHUNK, &cid.0, &row.encode())?;
        self.counts.replicas += 1;
        self.counts.replica_bytes += u64::from(place.payload);
        Ok(())
    }

    /// Takes a row that goes out of the counts; its record is dead.
    fn uncount(&mut self, old: &ChunkRow) {
        let counts = &mut *self.counts;
        counts.dead_bytes += old.place.len();
        if old.damaged {
            counts.damaged = counts.damaged.saturating_sub(1);
        } else {
            counts.replicas = counts.replicas.saturating_sub(1);
            counts.replica_bytes =
                counts.replica_bytes.saturating_sub(u64::from(old.place.payload));
        }
    }

    fn claim(&mut self, cid: ChunkId, claim: &Claim) -> io::Result<()> {
        let Some(new) = merged(self.tables, cid, claim)? else { return Ok(()) };
        let mut row = [0; 9];
        row[0] = new.replicas;
        row[1..].copy_from_slice(&new.renewed_ms.to_le_bytes());
        self.tables.insert(CLAIM, &claim_key(cid, new.id), &row)?;
        if let Some(mut held) = chunk(self.tables, cid)?
            && held.replicas < new.replicas
        {
            held.replicas = new.replicas;
            self.tables.insert(CHUNK, &cid.0, &held.encode())?;
        }
        Ok(())
    }

    fn record(&mut self, id: RecordId, place: Place, bytes: &[u8]) -> io::Result<()> {
        match record(self.tables, id)? {
            Some((_, false)) => {
                self.counts.dead_bytes += place.len();
                return Ok(());
            }
            // Whoever follows has seen it already; only its bytes were lost.
            Some((old, true)) => {
                self.counts.dead_bytes += old.len();
                return self.put_record_row(id, place, false);
            }
            None => self.put_record_row(id, place, false)?,
        }
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

    fn put_record_row(&mut self, id: RecordId, place: Place, damaged: bool) -> io::Result<()> {
        let mut row = place.encode().to_vec();
        row.push(u8::from(damaged));
        self.tables.insert(RECORD, &id.0, &row)
    }

    /// Marks the bytes of a catalogue record as damaged, so that it is stored again when it comes.
    pub(super) fn mark_record_damaged(&mut self, id: RecordId, place: Place) -> io::Result<()> {
        match record(self.tables, id)? {
            Some((at, false)) if at == place => self.put_record_row(id, place, true),
            _ => Ok(()),
        }
    }

    fn drop_chunk(&mut self, cid: ChunkId) -> io::Result<()> {
        if let Some(old) = chunk(self.tables, cid)? {
            self.uncount(&old);
            self.tables.remove(CHUNK, &cid.0)?;
        }
        for (claim, _) in claims(self.tables, cid)? {
            self.tables.remove(CLAIM, &claim_key(cid, claim.id))?;
        }
        self.forget_cached(cid)
    }

    /// Marks the replica at `place` as damaged, unless another one has replaced it.
    pub(super) fn mark_damaged(&mut self, cid: ChunkId, place: Place) -> io::Result<()> {
        let Some(mut row) = chunk(self.tables, cid)? else { return Ok(()) };
        if row.place != place || row.damaged {
            return Ok(());
        }
        row.damaged = true;
        self.tables.insert(CHUNK, &cid.0, &row.encode())?;
        self.counts.replicas = self.counts.replicas.saturating_sub(1);
        self.counts.replica_bytes =
            self.counts.replica_bytes.saturating_sub(u64::from(place.payload));
        self.counts.damaged += 1;
        Ok(())
    }

    /// Notes a cached copy.
    pub(super) fn note_cached(&mut self, cid: ChunkId, place: Place) -> io::Result<()> {
        self.tables.insert(CACHED, &cid.0, &place.encode())
    }

    /// Forgets a cached copy.
    pub(super) fn forget_cached(&mut self, cid: ChunkId) -> io::Result<()> {
        self.tables.remove(CACHED, &cid.0).map(drop)
    }

    /// Notes a damaged range of a segment, which stays as it is.
    pub(super) fn note_rot(&mut self, number: u32, offset: u64, len: u64) -> io::Result<()> {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key[4..].copy_from_slice(&offset.to_be_bytes());
        self.tables.insert(ROT, &key, &len.to_le_bytes())
    }

    /// Writes position and counts, the last act of every transaction.
    pub(super) fn finish(self, position: Position) -> io::Result<()> {
        let mut row = position.number.to_le_bytes().to_vec();
        let counts = *self.counts;
        for value in [
            position.offset,
            counts.replicas,
            counts.replica_bytes,
            counts.records,
            counts.record_bytes,
            counts.dead_bytes,
            counts.damaged,
        ] {
            row.extend_from_slice(&value.to_le_bytes());
        }
        self.tables.insert(META, b"state", &row)
    }
}
