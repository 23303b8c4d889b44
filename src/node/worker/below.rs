//! What is below its copies, in tables, so that memory does not grow with it. Owns the rows and
//! their counts; what is in them is the repair worker's finding.
//!
//! Invariant: the counts follow each change of the rows, and are counted anew after every look at
//! all chunks, because a rebuild of the tables loses the rows.

use crate::id::{ChunkId, ClaimId};
use crate::sys::{Table, TableRead, TableWrite};
use std::io;

/// Chunks below their copies that this node is responsible for: cid → [`Row`], beside what the
/// store has of the chunk.
const BELOW: Table = Table("chunk/below");
/// Those of them for which a copy can be made now, the fewest copies first: copies 1, cid →
/// nothing.
const QUEUE: Table = Table("repair.queue");
/// Claims by the fewest copies of any of their chunks seen: claim → round, copies.
const COPIES: Table = Table("repair.copies");

/// Rows forgotten in one change.
const FORGOTTEN_AT_ONCE: usize = 1024;
/// More than the copies of a chunk that can be missing.
const MISSING_MAX: usize = 9;

/// A chunk below its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Copies missing; 0 where a copy is only to be handed over.
    pub(super) missing: u8,
    /// Those of them for which no live member with room is left.
    pub(super) homeless: u8,
    /// Live copies.
    pub(super) copies: u8,
    /// Whether somebody can take a copy now; otherwise it waits for a delay or for nodes.
    pub(super) open: bool,
    /// Length of the chunk in bytes.
    pub(super) len: u32,
    /// The look at all chunks in which it was found.
    pub(super) round: u32,
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.missing, self.homeless, self.copies, u8::from(self.open)];
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.round.to_le_bytes());
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (&[missing, homeless, copies, open], rest) = row.split_first_chunk()?;
        let (len, round) = rest.split_first_chunk()?;
        let round = u32::from_le_bytes(round.try_into().ok()?);
        let (open, len) = (open == 1, u32::from_le_bytes(*len));
        Some(Self { missing, homeless, copies, open, len, round })
    }
}

/// The rows, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Bytes that have to be copied.
    bytes: i64,
    /// Rows by how many homeless copies they have.
    by_homeless: [i64; MISSING_MAX],
    /// Rows for which a copy can be made now.
    open: i64,
}

impl Counts {
    fn count(&mut self, row: &Row, sign: i64) {
        self.open += sign * i64::from(row.open);
        self.bytes += sign * i64::from(row.missing) * i64::from(row.len);
        if row.missing > 0 {
            self.by_homeless[usize::from(row.homeless).min(MISSING_MAX - 1)] += sign;
        }
    }

    /// Takes a change of the rows into account.
    pub(super) fn add(&mut self, change: &Self) {
        self.bytes += change.bytes;
        self.open += change.open;
        for (count, change) in self.by_homeless.iter_mut().zip(&change.by_homeless) {
            *count += change;
        }
    }

    /// Whether copies can be made now.
    pub(super) fn queued(&self) -> bool {
        self.open > 0
    }

    /// Chunks below their copies.
    pub(super) fn below(&self) -> u64 {
        unsigned(self.by_homeless.iter().sum())
    }

    /// Bytes that have to be copied for them.
    pub(super) fn bytes(&self) -> u64 {
        unsigned(self.bytes)
    }

    /// Chunks for which no live member with room is left.
    pub(super) fn homeless(&self) -> u64 {
        unsigned(self.by_homeless[1..].iter().sum())
    }

    /// The most copies that any of those lacks.
    pub(super) fn nodes_missing(&self) -> u8 {
        let most = self.by_homeless.iter().rposition(|count| *count > 0);
        most.and_then(|most| u8::try_from(most).ok()).unwrap_or(0)
    }
}

/// Between a rebuild of the tables and the next count the sum of the changes may be below zero.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Writes down what was found of a chunk: below its copies, or not; notes how that changes the
/// counts.
pub(super) fn note(
    tables: &mut dyn TableWrite,
    cid: ChunkId,
    found: Option<Row>,
    change: &mut Counts,
) -> io::Result<()> {
    if let Some(before) = tables.get(BELOW, &cid.0)?.as_deref().and_then(Row::decode) {
        change.count(&before, -1);
        tables.remove(QUEUE, &queue_key(before.copies, &cid))?;
    }
    match found {
        None => tables.remove(BELOW, &cid.0).map(drop),
        Some(row) => {
            change.count(&row, 1);
            if row.open {
                tables.insert(QUEUE, &queue_key(row.copies, &cid), &[])?;
            }
            tables.insert(BELOW, &cid.0, &row.encode())
        }
    }
}

fn queue_key(copies: u8, cid: &ChunkId) -> Vec<u8> {
    [&[copies][..], &cid.0].concat()
}

/// The chunks that can be copied now, those with the fewest copies first, at most `most` of them,
/// each with how many copies it has.
pub(super) fn queue(tables: &dyn TableRead, most: usize) -> io::Result<Vec<(ChunkId, u8)>> {
    let mut out = Vec::new();
    tables.range(QUEUE, &[], None, &mut |key, _| {
        let row = key
            .split_first()
            .and_then(|(copies, cid)| Some((ChunkId(cid.try_into().ok()?), *copies)));
        out.extend(row);
        out.len() < most
    })?;
    Ok(out)
}

/// Whether the chunk is written down as below its copies.
pub(super) fn is_noted(tables: &dyn TableRead, cid: &ChunkId) -> io::Result<bool> {
    Ok(tables.get(BELOW, &cid.0)?.is_some())
}

/// Counts all rows.
pub(super) fn count(tables: &dyn TableRead) -> io::Result<Counts> {
    let mut counts = Counts::default();
    tables.range(BELOW, &[], None, &mut |_, row| {
        Row::decode(row).iter().for_each(|row| counts.count(row, 1));
        true
    })?;
    Ok(counts)
}

/// Forgets some rows that are not from this round: their chunks are not here any more. Returns
/// whether there may be more of them.
pub(super) fn forget_older(tables: &mut dyn TableWrite, round: u32) -> io::Result<bool> {
    let mut old = Vec::new();
    tables.range(BELOW, &[], None, &mut |key, row| {
        let row = Row::decode(row);
        if row.is_none_or(|row| row.round != round) {
            old.push((key.to_vec(), row.map_or(0, |row| row.copies)));
        }
        old.len() < FORGOTTEN_AT_ONCE
    })?;
    for (key, copies) in &old {
        tables.remove(BELOW, key)?;
        if let Ok(cid) = <[u8; 32]>::try_from(&key[..]) {
            tables.remove(QUEUE, &queue_key(*copies, &ChunkId(cid)))?;
        }
    }
    Ok(old.len() == FORGOTTEN_AT_ONCE)
}

/// The fewest copies of any chunk under a claim, as last seen here.
pub(super) fn copies(tables: &dyn TableRead, claim: &ClaimId) -> io::Result<Option<u8>> {
    let row = tables.get(COPIES, &claim.0)?;
    Ok(row.as_deref().and_then(copies_row).map(|(_, copies)| copies))
}

/// Writes down how many copies everything under a claim has.
pub(super) fn set_copies(
    tables: &mut dyn TableWrite,
    claim: &ClaimId,
    round: u32,
    copies: u8,
) -> io::Result<()> {
    let mut row = round.to_le_bytes().to_vec();
    row.push(copies);
    tables.insert(COPIES, &claim.0, &row)
}

/// Writes down how many copies a chunk under a claim has. Within one round the fewest count; a new
/// round starts afresh.
pub(super) fn note_copies(
    tables: &mut dyn TableWrite,
    claim: &ClaimId,
    round: u32,
    copies: u8,
) -> io::Result<()> {
    let before = tables.get(COPIES, &claim.0)?.as_deref().and_then(copies_row);
    let fewest = match before {
        Some((seen, fewest)) if seen == round => fewest.min(copies),
        _ => copies,
    };
    set_copies(tables, claim, round, fewest)
}

fn copies_row(row: &[u8]) -> Option<(u32, u8)> {
    let (round, copies) = row.split_first_chunk()?;
    Some((u32::from_le_bytes(*round), *copies.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Map(BTreeMap<(&'static str, Vec<u8>), Vec<u8>>);

    impl TableRead for Map {
        fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.get(&(table.0, key.to_vec())).cloned())
        }

        fn range(
            &self,
            table: Table,
            from: &[u8],
            _: Option<&[u8]>,
            visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> io::Result<()> {
            let rows = self.0.range((table.0, from.to_vec())..);
            for ((_, key), row) in rows.take_while(|((name, _), _)| *name == table.0) {
                if !visit(key, row) {
                    break;
                }
            }
            Ok(())
        }

        fn last(
            &self,
            _: Table,
            _: &[u8],
            _: Option<&[u8]>,
        ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
            Ok(None)
        }
    }

    impl TableWrite for Map {
        fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
            self.0.insert((table.0, key.to_vec()), value.to_vec());
            Ok(())
        }

        fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
            Ok(self.0.remove(&(table.0, key.to_vec())).is_some())
        }
    }

    #[test]
    fn the_counts_follow_the_rows() {
        let (mut tables, mut counts) = (Map::default(), Counts::default());
        let row = |missing, homeless| {
            Some(Row { missing, homeless, copies: 1, open: true, len: 10, round: 7 })
        };
        let steps = [(1, row(2, 1)), (2, row(1, 0)), (1, row(1, 0)), (3, row(3, 3)), (2, None)];
        for (n, found) in steps {
            let mut change = Counts::default();
            note(&mut tables, ChunkId([n; 32]), found, &mut change).unwrap();
            counts.add(&change);
            assert_eq!(counts, count(&tables).unwrap());
        }
        assert_eq!((counts.below(), counts.bytes()), (2, 40));
        assert_eq!((counts.homeless(), counts.nodes_missing()), (1, 3));
        assert!(!forget_older(&mut tables, 7).unwrap());
        assert_eq!(counts, count(&tables).unwrap());
        forget_older(&mut tables, 8).unwrap();
        assert_eq!(count(&tables).unwrap(), Counts::default());
    }

    #[test]
    fn within_a_round_the_fewest_copies_count() {
        let (mut tables, claim) = (Map::default(), ClaimId([1; 16]));
        let seen = |tables: &Map| copies(tables, &claim).unwrap();
        for (round, found, shown) in [(1, 3, 3), (1, 2, 2), (1, 3, 2), (2, 3, 3)] {
            note_copies(&mut tables, &claim, round, found).unwrap();
            assert_eq!(seen(&tables), Some(shown));
        }
    }
}
