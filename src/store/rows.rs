//! The rows of the store's own tables: their layout, and reading them. Changing them is `index`'s.
//! Invariant: a row that makes no sense is an error, never a guess.
//!
//! | table | key | value |
//! |---|---|---|
//! | `chunk/place` | chunk id | place 14, flags 1 (bit 0 damaged, bit 1 hint), replicas 1, [hint 32] |
//! | `chunk/claim` | chunk id, claim id | replicas 1, renewed 8, maker 8 |
//! | `@by_claim` | claim id, chunk id | |
//! | `@pending` | claim id that has claims here and is not committed | |
//! | `@done` | claim id that is committed | maker 8 |
//! | `@released` | claim id whose claims have ended for good | maker 8 |
//! | `@condemned` | chunk id of a replica without a claim | round 8, or empty: not seen yet |
//! | `record/place` | record id | place 14, flags 1 (bit 0 damaged) |
//! | `@cached` | chunk id | place 14 |
//! | `@rot` | segment number 4 (big-endian), offset 8 (big-endian) | length 8 |
//! | `@segment` | segment number 4 (big-endian) | end 8, total 8, live 8, ends 8 (see `ledger`) |
//! | `@meta` | `state` | versions 4 (these tables), 4 (the follower's), position 4 + 8, counts 8 × 8 |
//!
//! A place is segment number 4, offset 4, length of head and body 2, of the payload 4. A maker is
//! segment number 4, offset 4: where the entry stands that the row is made from.

use super::Claim;
use crate::id::{ChunkId, ClaimId, NodeId, RecordId};
use crate::sys::{Table, TableRead};
use std::io;

pub(super) const CHUNK: Table = Table("chunk/place");
pub(super) const CLAIM: Table = Table("chunk/claim");
pub(super) const BY_CLAIM: Table = Table("@by_claim");
pub(super) const PENDING: Table = Table("@pending");
pub(super) const DONE: Table = Table("@done");
pub(super) const RELEASED: Table = Table("@released");
pub(super) const CONDEMNED: Table = Table("@condemned");
pub(super) const RECORD: Table = Table("record/place");
pub(super) const CACHED: Table = Table("@cached");
pub(super) const ROT: Table = Table("@rot");
pub(super) const SEGMENT: Table = Table("@segment");
pub(super) const META: Table = Table("@meta");

/// The version of these tables. Those of another version are made anew.
const VERSION: u32 = 2;

/// Rows that are taken from a table at a time.
const PAGE: usize = 1024;
/// In the flags of a place: its bytes are damaged.
pub(super) const DAMAGED: u8 = 1;
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

    /// The entry that lies there, for rows that it makes.
    pub(super) const fn maker(&self) -> Maker {
        Maker { number: self.number, offset: self.offset }
    }

    /// The bytes in a row.
    pub(super) fn encode(&self) -> [u8; 14] {
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

/// Where the entry stands that a row is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maker {
    /// Number of the file.
    pub(super) number: u32,
    /// Where its record starts.
    pub(super) offset: u32,
}

impl Maker {
    /// The bytes in a row.
    pub(super) fn encode(&self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.number.to_le_bytes());
        out[4..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (number, offset) = row.split_first_chunk()?;
        let offset = u32::from_le_bytes(offset.try_into().ok()?);
        Some(Self { number: u32::from_le_bytes(*number), offset })
    }
}

/// A row of `chunk/place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRow {
    /// Where the replica lies.
    pub(super) place: Place,
    /// The copy did not verify, or is lost; it counts as not held until it is written again.
    pub(super) damaged: bool,
    /// The largest R of its claims; 0 without a claim.
    pub(super) replicas: u8,
    /// The node it is kept for.
    pub(super) hint: Option<NodeId>,
}

impl ChunkRow {
    /// The bytes of the row.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.place.encode().to_vec();
        let hinted = if self.hint.is_some() { HINTED } else { 0 };
        out.push(hinted | if self.damaged { DAMAGED } else { 0 });
        out.push(self.replicas);
        if let Some(hint) = self.hint {
            out.extend_from_slice(&hint.0);
        }
        out
    }

    /// Whether it has no claim: every claim asks for a copy at least.
    pub(super) const fn is_condemned(&self) -> bool {
        self.replicas == 0
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
    /// Replicas without a claim, damaged ones too.
    pub(super) condemned: u64,
    /// Their sealed bytes.
    pub(super) condemned_bytes: u64,
}

impl Counts {
    /// Counts a replica.
    pub(super) fn add(&mut self, row: &ChunkRow) {
        let bytes = u64::from(row.place.payload);
        if row.damaged {
            self.damaged += 1;
        } else {
            self.replicas += 1;
            self.replica_bytes += bytes;
        }
        if row.is_condemned() {
            self.condemned += 1;
            self.condemned_bytes += bytes;
        }
    }

    /// Takes a replica out again.
    pub(super) fn take(&mut self, row: &ChunkRow) {
        let bytes = u64::from(row.place.payload);
        let less = |count: &mut u64, by: u64| *count = count.saturating_sub(by);
        if row.damaged {
            less(&mut self.damaged, 1);
        } else {
            less(&mut self.replicas, 1);
            less(&mut self.replica_bytes, bytes);
        }
        if row.is_condemned() {
            less(&mut self.condemned, 1);
            less(&mut self.condemned_bytes, bytes);
        }
    }

    /// The row of `@meta`.
    pub(super) fn encode(&self, followed: u32, position: Position) -> Vec<u8> {
        let mut row = VERSION.to_le_bytes().to_vec();
        row.extend_from_slice(&followed.to_le_bytes());
        row.extend_from_slice(&position.number.to_le_bytes());
        for value in [
            position.offset,
            self.replicas,
            self.replica_bytes,
            self.records,
            self.record_bytes,
            self.dead_bytes,
            self.damaged,
            self.condemned,
            self.condemned_bytes,
        ] {
            row.extend_from_slice(&value.to_le_bytes());
        }
        row
    }
}

/// A position in the log: everything before it is in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Number of the segment; 0 before the first.
    pub(super) number: u32,
    /// Offset in it.
    pub(super) offset: u64,
}

/// The error for a row that makes no sense.
pub(super) fn bad_row(table: Table) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a row of {} makes no sense", table.0))
}

/// The position and counts as committed last; `None` in a new table file, and in one of another
/// version. `followed` is the version of the follower's tables.
pub(super) fn state(
    tables: &dyn TableRead,
    followed: u32,
) -> io::Result<Option<(Position, Counts)>> {
    let Some(row) = tables.get(META, b"state")? else { return Ok(None) };
    let versions = [VERSION.to_le_bytes(), followed.to_le_bytes()].concat();
    let Some(row) = row.strip_prefix(versions.as_slice()) else { return Ok(None) };
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
            condemned: next()?,
            condemned_bytes: next()?,
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
    record_row(&row).map(Some)
}

fn record_row(row: &[u8]) -> io::Result<(Place, bool)> {
    match Place::decode(row) {
        Some((place, &[flags])) => Ok((place, flags & DAMAGED != 0)),
        _ => Err(bad_row(RECORD)),
    }
}

/// Some records from `from` on: id, place, whether its bytes there are damaged.
pub(super) fn records(
    tables: &dyn TableRead,
    from: &[u8],
    most: usize,
) -> io::Result<Vec<(RecordId, Place)>> {
    let mut found = Vec::new();
    tables.range(RECORD, from, None, &mut |key, row| {
        found.push((key.try_into().map(RecordId), record_row(row)));
        found.len() < most
    })?;
    let found = found.into_iter().map(|(id, row)| Ok((id.map_err(|_| bad_row(RECORD))?, row?.0)));
    found.collect()
}

/// A row of `chunk/claim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimRow {
    /// The claim, merged from all entries that set it.
    pub(super) claim: Claim,
    /// The last of them, which says as much.
    pub(super) maker: Maker,
}

impl ClaimRow {
    /// The bytes of the row.
    pub(super) fn encode(&self) -> [u8; 17] {
        let mut out = [0; 17];
        out[0] = self.claim.replicas;
        out[1..9].copy_from_slice(&self.claim.renewed_ms.to_le_bytes());
        out[9..].copy_from_slice(&self.maker.encode());
        out
    }

    /// Reads the row of the claim with this id.
    pub(super) fn decode(id: &[u8], row: &[u8]) -> io::Result<Self> {
        let read = || {
            let id = ClaimId(id.try_into().ok()?);
            let (&[replicas], rest) = row.split_first_chunk()?;
            let (renewed, rest) = rest.split_first_chunk()?;
            let renewed_ms = u64::from_le_bytes(*renewed);
            let claim = Claim { id, replicas, renewed_ms };
            Some(Self { claim, maker: Maker::decode(rest)? })
        };
        read().ok_or_else(|| bad_row(CLAIM))
    }
}

/// The key in `chunk/claim`.
pub(super) fn claim_key(cid: ChunkId, id: ClaimId) -> [u8; 48] {
    let mut key = [0; 48];
    key[..32].copy_from_slice(&cid.0);
    key[32..].copy_from_slice(&id.0);
    key
}

/// The key in `@by_claim`.
pub(super) fn by_claim_key(id: ClaimId, cid: ChunkId) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(&id.0);
    key[16..].copy_from_slice(&cid.0);
    key
}

/// A claim on a chunk.
pub(super) fn claim(
    tables: &dyn TableRead,
    cid: ChunkId,
    id: ClaimId,
) -> io::Result<Option<ClaimRow>> {
    let row = tables.get(CLAIM, &claim_key(cid, id))?;
    row.map(|row| ClaimRow::decode(&id.0, &row)).transpose()
}

/// The claims on a chunk.
pub(super) fn claim_rows(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Vec<ClaimRow>> {
    let mut claims = Vec::new();
    let end = after(&cid.0);
    tables.range(CLAIM, &cid.0, end.as_deref(), &mut |key, row| {
        claims.push(ClaimRow::decode(&key[ChunkId::LEN..], row));
        true
    })?;
    claims.into_iter().collect()
}

/// The claims on a chunk, each with whether it is committed.
pub(super) fn claims(tables: &dyn TableRead, cid: ChunkId) -> io::Result<Vec<(Claim, bool)>> {
    let rows = claim_rows(tables, cid)?;
    rows.into_iter().map(|row| Ok((row.claim, is_committed(tables, row.claim.id)?))).collect()
}

/// Up to `most` chunks that a claim is on, from `from` on.
pub(super) fn claimed(
    tables: &dyn TableRead,
    id: ClaimId,
    from: &[u8],
    most: usize,
) -> io::Result<Vec<ChunkId>> {
    let (mut cids, mut good) = (Vec::new(), true);
    let start = [&id.0, from].concat();
    let end = after(&id.0);
    tables.range(BY_CLAIM, &start, end.as_deref(), &mut |key, _| {
        match key[ClaimId::LEN..].try_into() {
            Ok(cid) => cids.push(ChunkId(cid)),
            Err(_) => good = false,
        }
        good && cids.len() < most
    })?;
    if good { Ok(cids) } else { Err(bad_row(BY_CLAIM)) }
}

/// How many claims of this id there are, and the latest time of renewal of any; `None` when there
/// is none.
pub(super) fn renewed(tables: &dyn TableRead, id: ClaimId) -> io::Result<Option<(u64, u64)>> {
    let (mut count, mut latest) = (0, 0);
    let mut from = Vec::new();
    loop {
        let page = claimed(tables, id, &from, PAGE)?;
        for cid in &page {
            let row = claim(tables, *cid, id)?.ok_or_else(|| bad_row(BY_CLAIM))?;
            latest = latest.max(row.claim.renewed_ms);
            count += 1;
        }
        match page.last() {
            Some(cid) if page.len() == PAGE => from = behind(&cid.0),
            _ => return Ok((count > 0).then_some((count, latest))),
        }
    }
}

/// The claim ids from `from` on that have claims here and are not committed, at most `most`.
pub(super) fn pending(
    tables: &dyn TableRead,
    from: &[u8],
    most: usize,
) -> io::Result<Vec<ClaimId>> {
    let mut found = Vec::new();
    tables.range(PENDING, from, None, &mut |key, _| {
        found.push(key.try_into().map(ClaimId).map_err(|_| bad_row(PENDING)));
        found.len() < most
    })?;
    found.into_iter().collect()
}

/// Whether this claim id has claims here and is not committed.
pub(super) fn is_pending(tables: &dyn TableRead, id: ClaimId) -> io::Result<bool> {
    Ok(tables.get(PENDING, &id.0)?.is_some())
}

/// Up to `most` condemned chunks from `from` on, with the round in which each was seen first.
pub(super) fn condemned(
    tables: &dyn TableRead,
    from: &[u8],
    most: usize,
) -> io::Result<Vec<(ChunkId, Option<u64>)>> {
    let mut found = Vec::new();
    tables.range(CONDEMNED, from, None, &mut |key, row| {
        let read = || Some((ChunkId(key.try_into().ok()?), round(row)?));
        found.push(read().ok_or_else(|| bad_row(CONDEMNED)));
        found.len() < most
    })?;
    found.into_iter().collect()
}

fn round(row: &[u8]) -> Option<Option<u64>> {
    if row.is_empty() {
        return Some(None);
    }
    Some(Some(u64::from_le_bytes(row.try_into().ok()?)))
}

/// The round in which a condemned chunk was seen first; the outer `None`: it is not condemned.
pub(super) fn condemned_in(
    tables: &dyn TableRead,
    cid: ChunkId,
) -> io::Result<Option<Option<u64>>> {
    let Some(row) = tables.get(CONDEMNED, &cid.0)? else { return Ok(None) };
    round(&row).map(Some).ok_or_else(|| bad_row(CONDEMNED))
}

/// The shortest key behind this one.
pub(super) fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The key behind all that start with `key`; `None` behind the last.
fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
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

/// The key in `@rot`.
pub(super) fn rot_key(number: u32, offset: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
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

/// What the row of this claim is to become; `None` when it says as much already.
pub(super) fn merged(
    tables: &dyn TableRead,
    cid: ChunkId,
    new: &Claim,
) -> io::Result<Option<Claim>> {
    // A claim that asks for no copy would be none.
    let replicas = new.replicas.max(1);
    let Some(ClaimRow { claim: old, .. }) = claim(tables, cid, new.id)? else {
        return Ok(Some(Claim { replicas, ..*new }));
    };
    let merged = Claim {
        id: old.id,
        replicas: old.replicas.max(replicas),
        renewed_ms: old.renewed_ms.max(new.renewed_ms),
    };
    Ok((merged != old).then_some(merged))
}

/// A row, with where the entry stands that it is made from.
type Made = (Vec<u8>, Vec<u8>, u32);

/// Those of the next `most` rows of a table from `from` on that are made from segment `number`:
/// key, row, offset of the entry. Then the key to go on from, if there may be more.
pub(super) fn made_from(
    tables: &dyn TableRead,
    table: Table,
    number: u32,
    from: &[u8],
    most: usize,
) -> io::Result<(Vec<Made>, Option<Vec<u8>>)> {
    // Every row begins with its place or maker, only in a claim's they stand behind nine bytes.
    let skip = if table == CLAIM { 9 } else { 0 };
    let (mut found, mut seen, mut next) = (Vec::new(), 0, None);
    tables.range(table, from, None, &mut |key, row| {
        let maker = row.get(skip..skip + 8).and_then(Maker::decode);
        if let Some(maker) = maker.filter(|maker| maker.number == number) {
            found.push((key.to_vec(), row.to_vec(), maker.offset));
        }
        seen += 1;
        next = (seen == most).then(|| behind(key));
        next.is_none()
    })?;
    Ok((found, next))
}

/// Whether claims of this id are known to be committed.
pub(super) fn is_committed(tables: &dyn TableRead, id: ClaimId) -> io::Result<bool> {
    Ok(tables.get(DONE, &id.0)?.is_some())
}

/// Whether claims of this id have ended for good.
pub(super) fn is_released(tables: &dyn TableRead, id: ClaimId) -> io::Result<bool> {
    Ok(tables.get(RELEASED, &id.0)?.is_some())
}

/// The entry that says so in `@done` or `@released`.
pub(super) fn said_by(
    tables: &dyn TableRead,
    table: Table,
    id: ClaimId,
) -> io::Result<Option<Maker>> {
    let Some(row) = tables.get(table, &id.0)? else { return Ok(None) };
    Maker::decode(&row).map(Some).ok_or_else(|| bad_row(table))
}
