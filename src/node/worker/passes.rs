//! The passes of scrub in tables, so that a restart goes on where it was: where the pass is, what
//! it and the last whole one found, and what was found damaged and is not good again. Owns the
//! rows; what is read, and when, is the worker's.
//!
//! Invariant: of a pass, `damaged` is `repaired`, `unneeded`, `gone` and the open rows together.

use crate::id::{ChunkId, RecordId};
use crate::sys::{Table, TableRead, TableWrite};
use std::io;

/// The pass: one row, its name → [`Pass`].
const PASS: Table = Table("scrub.pass");
/// What was found damaged and is not good again: [`Spot`] → nothing.
const OPEN: Table = Table("scrub.open");
/// The key of the one row.
const NAME: &[u8] = b"pass";

/// The version of the row in `scrub.pass`: one that is not known begins a new pass.
const VERSION: u8 = 1;
/// Bytes of a [`Spot`].
const SPOT: usize = 33;

/// Something that is read; chunks come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// A chunk.
    Chunk(ChunkId),
    /// A catalogue record.
    Record(RecordId),
}

impl Spot {
    /// Where a pass begins.
    pub(super) const FIRST: Self = Self::Chunk(ChunkId([0; 32]));

    /// How far through the chunks, or the records, it is: 0 to 1.
    pub(super) fn share(&self) -> f64 {
        let (Self::Chunk(ChunkId(id)) | Self::Record(RecordId(id))) = self;
        f64::from(u32::from_be_bytes([id[0], id[1], id[2], id[3]])) / (f64::from(u32::MAX) + 1.0)
    }

    fn encode(&self) -> [u8; SPOT] {
        let (kind, id) = match self {
            Self::Chunk(cid) => (0, cid.0),
            Self::Record(id) => (1, id.0),
        };
        let mut out = [kind; SPOT];
        out[1..].copy_from_slice(&id);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, id) = bytes.split_first()?;
        match (kind, id.try_into().ok()?) {
            (0, id) => Some(Self::Chunk(ChunkId(id))),
            (1, id) => Some(Self::Record(RecordId(id))),
            _ => None,
        }
    }
}

/// What a pass has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::node) struct Found {
    /// Chunks read.
    pub(super) chunks: u64,
    /// Records read.
    pub(super) records: u64,
    /// Bytes of both.
    pub(super) bytes: u64,
    /// How many of them are, or were, damaged.
    pub(super) damaged: u64,
    /// Those that are good again.
    pub(super) repaired: u64,
    /// Those that nothing needs any more.
    pub(super) unneeded: u64,
    /// Those that were given up, because no other node has them.
    pub(super) gone: u64,
}

impl Found {
    const LEN: usize = 56;

    fn encode(&self) -> [u8; Self::LEN] {
        let Self { chunks, records, bytes, damaged, repaired, unneeded, gone } = *self;
        let all = [chunks, records, bytes, damaged, repaired, unneeded, gone];
        let mut out = [0; Self::LEN];
        for (slot, number) in out.chunks_exact_mut(8).zip(all) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let mut all = bytes.chunks_exact(8).map(|eight| {
            u64::from_le_bytes(eight.try_into().expect("eight bytes are eight bytes"))
        });
        let mut next = || all.next().unwrap_or_default();
        let (chunks, records, bytes) = (next(), next(), next());
        let (damaged, repaired, unneeded, gone) = (next(), next(), next(), next());
        Self { chunks, records, bytes, damaged, repaired, unneeded, gone }
    }
}

/// A pass through everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pass {
    /// What is read next; none: the pass has ended.
    pub(super) next: Option<Spot>,
    /// When it began, in milliseconds since 1970.
    pub(super) began_ms: u64,
    /// What it has found.
    pub(super) found: Found,
    /// When the last whole pass ended, and what it found; none: there was none.
    pub(super) last: Option<(u64, Found)>,
}

impl Pass {
    /// A new pass after this one; what is still `open` belongs to it.
    pub(super) fn after(&self, now_ms: u64, open: u64) -> Self {
        let found = Found { damaged: open, ..Found::default() };
        Self { next: Some(Spot::FIRST), began_ms: now_ms, found, last: self.last }
    }

    /// Everything was read.
    pub(super) fn end(&mut self, now_ms: u64) {
        self.next = None;
        self.last = Some((now_ms, self.found));
    }

    /// Counts what became of what was found, by the last pass too if that was it.
    pub(super) fn settle(&mut self, change: impl Fn(&mut Found)) {
        change(&mut self.found);
        if self.next.is_none()
            && let Some((_, found)) = &mut self.last
        {
            *found = self.found;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.next.is_some())];
        out.extend_from_slice(&self.next.unwrap_or(Spot::FIRST).encode());
        out.extend_from_slice(&self.began_ms.to_le_bytes());
        out.extend_from_slice(&self.found.encode());
        if let Some((ended_ms, found)) = &self.last {
            out.extend_from_slice(&ended_ms.to_le_bytes());
            out.extend_from_slice(&found.encode());
        }
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (&[VERSION, runs], rest) = row.split_first_chunk()? else { return None };
        let (spot, rest) = rest.split_first_chunk::<SPOT>()?;
        let (began_ms, rest) = rest.split_first_chunk()?;
        let (found, rest) = rest.split_first_chunk()?;
        let last = rest.split_first_chunk().and_then(|(ended_ms, found)| {
            Some((u64::from_le_bytes(*ended_ms), Found::decode(found.try_into().ok()?)))
        });
        Some(Self {
            next: if runs == 1 { Some(Spot::decode(spot)?) } else { None },
            began_ms: u64::from_le_bytes(*began_ms),
            found: Found::decode(found),
            last,
        })
    }
}

/// The pass; none before the first one.
pub(super) fn pass(tables: &dyn TableRead) -> io::Result<Option<Pass>> {
    Ok(tables.get(PASS, NAME)?.as_deref().and_then(Pass::decode))
}

/// Writes the pass down.
pub(super) fn set_pass(tables: &mut dyn TableWrite, pass: &Pass) -> io::Result<()> {
    tables.insert(PASS, NAME, &pass.encode())
}

/// Notes what was found damaged; whether it was not noted yet.
pub(super) fn open(tables: &mut dyn TableWrite, spot: Spot) -> io::Result<bool> {
    let new = tables.get(OPEN, &spot.encode())?.is_none();
    tables.insert(OPEN, &spot.encode(), &[]).map(|()| new)
}

/// Forgets what is damaged no longer.
pub(super) fn close(tables: &mut dyn TableWrite, spot: Spot) -> io::Result<()> {
    tables.remove(OPEN, &spot.encode()).map(drop)
}

/// Some of what is noted, from `from` on.
pub(super) fn opened(tables: &dyn TableRead, from: Spot, most: usize) -> io::Result<Vec<Spot>> {
    let mut found = Vec::new();
    tables.range(OPEN, &from.encode(), None, &mut |key, _| {
        found.extend(Spot::decode(key));
        found.len() < most
    })?;
    Ok(found)
}

/// How much is noted.
pub(super) fn count_open(tables: &dyn TableRead) -> io::Result<u64> {
    let mut count = 0;
    tables.range(OPEN, &[], None, &mut |_, _| {
        count += 1;
        true
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_read_as_it_was_written() {
        let mut pass = Pass::default().after(77, 2);
        assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        pass.next = Some(Spot::Record(RecordId([9; 32])));
        pass.found.bytes = u64::MAX;
        assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        pass.end(99);
        pass.settle(|found| found.repaired += 1);
        assert_eq!(pass.last.map(|(at, found)| (at, found.repaired)), Some((99, 1)));
        assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        let next = pass.after(111, 1);
        assert_eq!((next.found.damaged, next.last), (1, pass.last));
        let mut newer = pass.encode();
        newer[0] = 2;
        assert_eq!(Pass::decode(&newer), None);
        assert_eq!(Pass::decode(&pass.encode()[..50]), None);
    }

    #[test]
    fn the_share_follows_the_order() {
        let chunk = |first| Spot::Chunk(ChunkId([first; 32]));
        assert!(chunk(0x80).share() > 0.5 && chunk(0x80).share() < 0.51);
        assert!(chunk(0xff).share() < 1.0 && Spot::FIRST.share() == 0.0);
        assert!(chunk(0xff) < Spot::Record(RecordId([0; 32])));
    }
}
