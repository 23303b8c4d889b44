//! Sums over ranges of the record set, kept up to date with each record, so that two members find
//! where their sets differ without reading them. Owns the tree of ranges and `cat_sum`; how members
//! talk about it is `sync`'s business.
//!
//! The ranges are a tree over the clock: level 0 is everything, a node of level `l` is the records
//! whose clock has the same upper bits down to bit [`shift`], and each level cuts 4 bits more, so a
//! node has at most 16 children (the root: one per 49 days). Level 8 is 16 ms; below it records are
//! listed. Only every second level is stored, the others are added up from at most 16 rows each.
//!
//! A sum is (number of records, sum of their ids modulo 2^256); it does not depend on the order.
//! Source: Meyer, "Range-Based Set Reconciliation", 2023; tree and fan-out: measured in the design.

use super::table::{CLOCK, Parts, SUM, TOTAL, TOTAL_SET, value};
use crate::id::RecordId;
use crate::sys::{TableRead, TableWrite};
use crate::wire::codec::{Decode, Encode, Malformed, Reader};
use crate::wire::sync::{LEAF_LEVEL, Range, RangeSum, Summary};
use std::io;

/// Levels whose sums are stored.
const STORED: [u8; 4] = [2, 4, 6, 8];

/// The lowest bit of the clock that a node of `level` shares; the root shares none.
const fn shift(level: u8) -> u32 {
    debug_assert!(level >= 1 && level <= LEAF_LEVEL, "the root has no prefix");
    52 - 4 * level as u32
}

/// The clock readings of a node: the first, and the last.
pub(super) const fn clocks_of(range: Range) -> (u64, u64) {
    if range.level == 0 {
        return (0, u64::MAX);
    }
    let first = range.prefix << shift(range.level);
    (first, first | ((1 << shift(range.level)) - 1))
}

/// A number of records and the sum of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    count: u64,
    /// Little-endian limbs.
    ids: [u64; 4],
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        let mut carry = false;
        for (limb, more) in self.ids.iter_mut().zip(other.ids) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    fn of(id: &RecordId) -> Self {
        let mut ids = [0; 4];
        for (limb, bytes) in ids.iter_mut().zip(id.0.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Self { count: 1, ids }
    }

    fn summary(&self) -> Summary {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&blake3::hash(&self.to_bytes()).as_bytes()[..16]);
        Summary { count: self.count, fingerprint }
    }
}

impl Encode for Sum {
    fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        for limb in self.ids {
            limb.encode(out);
        }
    }
}

impl Decode for Sum {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut sum = Self { count: u64::decode(from)?, ids: [0; 4] };
        for limb in &mut sum.ids {
            *limb = u64::decode(from)?;
        }
        Ok(sum)
    }
}

fn sum_key(level: u8, prefix: u64) -> [u8; 9] {
    let mut key = [level; 9];
    key[1..].copy_from_slice(&prefix.to_be_bytes());
    key
}

/// Counts a record in.
pub(super) fn add<T: TableWrite + ?Sized>(
    tables: &mut T,
    clock: u64,
    id: &RecordId,
) -> io::Result<()> {
    let one = Sum::of(id);
    for level in STORED {
        add_at(tables, SUM, &sum_key(level, clock >> shift(level)), &one)?;
    }
    add_at(tables, TOTAL, TOTAL_SET, &one)
}

fn add_at<T: TableWrite + ?Sized>(
    tables: &mut T,
    table: crate::sys::Table,
    key: &[u8],
    one: &Sum,
) -> io::Result<()> {
    let mut sum = tables.get(table, key)?.map_or(Ok(Sum::default()), |bytes| value(&bytes))?;
    sum.add(one);
    tables.insert(table, key, &sum.to_bytes())
}

/// The summary of the whole set: equal summaries are taken for equal sets.
pub fn summary(tables: &(impl TableRead + ?Sized)) -> io::Result<Summary> {
    let sum: Sum =
        tables.get(TOTAL, TOTAL_SET)?.map_or(Ok(Sum::default()), |bytes| value(&bytes))?;
    Ok(sum.summary())
}

/// The sums of the children of a node that are not empty, ascending.
pub(super) fn children(
    tables: &(impl TableRead + ?Sized),
    range: Range,
) -> io::Result<Vec<RangeSum>> {
    let level = range.level + 1;
    let stored = if STORED.contains(&level) { level } else { level + 1 };
    let (first, last) = clocks_of(range);
    let from = sum_key(stored, first >> shift(stored));
    let mut sums: Vec<(u64, Sum)> = Vec::new();
    let mut fault = None;
    let to = sum_key(stored, last >> shift(stored));
    let mut visit = |key: &[u8], bytes: &[u8]| {
        if key > to.as_slice() {
            return false;
        }
        match row(key, bytes) {
            Ok((prefix, sum)) => {
                let prefix = prefix >> (4 * u32::from(stored - level));
                match sums.last_mut() {
                    Some((last, total)) if *last == prefix => total.add(&sum),
                    _ => sums.push((prefix, sum)),
                }
            }
            Err(err) => fault = Some(err),
        }
        fault.is_none()
    };
    tables.range(SUM, &from, None, &mut visit)?;
    match fault {
        Some(err) => Err(err),
        None => Ok(sums
            .into_iter()
            .map(|(prefix, sum)| RangeSum {
                range: Range { level, prefix },
                summary: sum.summary(),
            })
            .collect()),
    }
}

fn row(key: &[u8], bytes: &[u8]) -> io::Result<(u64, Sum)> {
    let mut parts = Parts(key);
    parts.take::<1>()?;
    Ok((u64::from_be_bytes(parts.take()?), value(bytes)?))
}

/// A record's place in the order of the set.
pub(super) type Position = (u64, RecordId);

pub(super) fn position_key((clock, id): &Position) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&clock.to_be_bytes());
    key[8..].copy_from_slice(&id.0);
    key
}

/// At most `limit` records with `from <= position <= to`, ascending.
pub(super) fn records(
    tables: &(impl TableRead + ?Sized),
    from: &Position,
    to: &Position,
    limit: usize,
) -> io::Result<Vec<Position>> {
    let last = position_key(to);
    let mut out = Vec::new();
    let mut fault = None;
    tables.range(CLOCK, &position_key(from), None, &mut |key, _| {
        if key > last.as_slice() || out.len() == limit {
            return false;
        }
        let mut parts = Parts(key);
        match (parts.take(), parts.take()) {
            (Ok(clock), Ok(id)) => out.push((u64::from_be_bytes(clock), RecordId(id))),
            (Err(err), _) | (_, Err(err)) => fault = Some(err),
        }
        fault.is_none()
    })?;
    fault.map_or(Ok(out), Err)
}
