//! What each segment's bytes are worth. An entry counts in units, a replica and each single claim
//! being one, and a unit is *live* as long as a row is made from it. Entries that end something
//! are counted apart: whether one is still needed depends on the segments before it. Marks,
//! headers and the heads of claims entries are worth nothing either way.
//! Invariant: a segment whose total is live holds nothing that was ended: no end is needed for it.

use super::format::{Entry, RECORD_HEAD};
use super::rows::{self, ChunkRow, Counts, Place};
use crate::id::ClaimId;
use crate::sys::{TableRead, TableWrite};
use std::collections::BTreeMap;
use std::io;

/// What a claim on one chunk is worth, whichever entry made it.
pub(super) const CLAIM: u64 = 32;
/// What an entry about a claim id alone is worth: its length.
pub(super) const OF_ID: u64 = (RECORD_HEAD + ClaimId::LEN) as u64;
/// What a replica is worth of which only the name is left.
const LOST: u64 = 64;

/// What the replica of this row is worth.
pub(super) const fn weight(row: &ChunkRow) -> u64 {
    if row.damaged { LOST } else { row.place.len() }
}

/// A row of `@segment`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Where its last entry ends.
    pub(super) end: u64,
    /// All units.
    pub(super) total: u64,
    /// The live ones.
    pub(super) live: u64,
    /// Bytes of entries that end something.
    pub(super) ends: u64,
}

impl Account {
    /// Units that no row is made from.
    pub(super) const fn dead(&self) -> u64 {
        self.total.saturating_sub(self.live)
    }

    fn encode(&self) -> [u8; 32] {
        let mut out = [0; 32];
        for (slot, value) in
            out.chunks_exact_mut(8).zip([self.end, self.total, self.live, self.ends])
        {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    fn decode(row: &[u8]) -> io::Result<Self> {
        let read = || {
            let (values, rest) = row.as_chunks::<8>();
            let [end, total, live, ends] = *values else { return None };
            let [end, total, live, ends] = [end, total, live, ends].map(u64::from_le_bytes);
            rest.is_empty().then_some(Self { end, total, live, ends })
        };
        read().ok_or_else(|| rows::bad_row(rows::SEGMENT))
    }
}

/// The account of a segment.
pub(super) fn account(tables: &dyn TableRead, number: u32) -> io::Result<Option<Account>> {
    let row = tables.get(rows::SEGMENT, &number.to_be_bytes())?;
    row.map(|row| Account::decode(&row)).transpose()
}

/// What a transaction changes in one account.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    more: Account,
    debit: u64,
    /// Whether something was written there; else there may be no account any more.
    written: bool,
}

/// What a transaction changes in the accounts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    changes: BTreeMap<u32, Change>,
}

impl Ledger {
    /// Takes note of an entry.
    pub(super) fn note(&mut self, entry: &Entry, place: Place) {
        if matches!(entry, Entry::Mark | Entry::Cached { .. } | Entry::Complete { .. }) {
            return;
        }
        let change = self.changes.entry(place.number).or_default();
        let account = &mut change.more;
        change.written = true;
        account.end = account.end.max(u64::from(place.offset) + place.len());
        match entry {
            Entry::Replica { claim, .. } => {
                account.total += place.len() + claim.map_or(0, |_| CLAIM);
            }
            Entry::Lost { .. } => account.total += LOST,
            Entry::Claims { cids, .. } => account.total += cids.len() as u64 * CLAIM,
            Entry::Record { .. } | Entry::Committed { .. } | Entry::Released { .. } => {
                account.total += place.len();
            }
            Entry::Drop { .. } | Entry::ReleasedRows { .. } | Entry::Lapsed { .. } => {
                account.ends += place.len();
            }
            _ => {}
        }
    }

    /// Takes note of a damaged range: nobody knows what it held.
    pub(super) fn note_rot(&mut self, number: u32, offset: u64, len: u64) {
        let change = self.changes.entry(number).or_default();
        change.written = true;
        change.more.total += len;
        change.more.end = change.more.end.max(offset + len);
    }

    /// A row is made from a unit of this segment.
    pub(super) fn credit(&mut self, number: u32, bytes: u64) {
        self.changes.entry(number).or_default().more.live += bytes;
    }

    /// No row is made from it any more.
    pub(super) fn debit(&mut self, number: u32, bytes: u64) {
        self.changes.entry(number).or_default().debit += bytes;
    }

    /// Writes the accounts and counts what is dead.
    pub(super) fn write(self, tables: &mut dyn TableWrite, counts: &mut Counts) -> io::Result<()> {
        for (number, Change { more, debit, written }) in self.changes {
            let old = match account(tables, number)? {
                Some(old) => old,
                None if written => Account::default(),
                None => continue,
            };
            let new = Account {
                end: old.end.max(more.end),
                total: old.total + more.total,
                live: (old.live + more.live).saturating_sub(debit),
                ends: old.ends + more.ends,
            };
            counts.dead_bytes = (counts.dead_bytes + new.dead()).saturating_sub(old.dead());
            tables.insert(rows::SEGMENT, &number.to_be_bytes(), &new.encode())?;
        }
        Ok(())
    }
}
