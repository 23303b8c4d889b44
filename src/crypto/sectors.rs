//! Sealing of files that only this node reads, and changes at any place: the cipher of `xts` with
//! sectors of 4 KiB. It hides what is in them and proves nothing: who can change files of this node
//! can do worse. What a file means is its owner's.
//!
//! Each block of 16 bytes is sealed by itself, so a change leaves all others on the disk as they
//! were: a write that a crash has torn hurts nothing beside it. A block of zeros was never written,
//! and is zero.

use super::NodeKey;
use super::xts::{BLOCK, Xts};
use zeroize::Zeroizing;

/// Bytes of a sector.
pub const SECTOR: usize = 4096;
const NOTHING: [u8; BLOCK] = [0; BLOCK];

/// What opens the sectors of one file.
pub struct SectorKey(Xts);

impl SectorKey {
    /// That of the file of a node that has this name.
    pub fn new(node: &NodeKey, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 own sectors v1");
        let mut key = Zeroizing::new([0; 64]);
        hasher.update(&node.seed()[..]).update(name).finalize_xof().fill(&mut key[..]);
        Self(Xts::new(&key))
    }

    /// Seals whole sectors, of which the first has this number.
    pub fn seal(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR)) {
            self.0.seal(place(number), sector);
        }
    }

    /// Opens whole sectors.
    pub fn open(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR)) {
            // Where nothing was written, whatever comes out is zero: seldom, so it is looked for
            // before anything is remembered.
            let unwritten: Vec<usize> = match sector.as_chunks().0.contains(&NOTHING) {
                false => Vec::new(),
                true => unwritten(sector),
            };
            if unwritten.len() * BLOCK < SECTOR {
                self.0.open(place(number), sector);
            }
            for at in unwritten {
                sector[at * BLOCK..][..BLOCK].fill(0);
            }
        }
    }
}

/// What tells a sector from the others.
fn place(number: u64) -> [u8; BLOCK] {
    u128::from(number).to_le_bytes()
}

/// The blocks that were never written.
fn unwritten(sector: &[u8]) -> Vec<usize> {
    let blocks = sector.chunks_exact(BLOCK).enumerate();
    blocks.filter(|(_, block)| **block == NOTHING).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &[u8]) -> SectorKey {
        SectorKey::new(&NodeKey::from_seed(&[7; 32]), name)
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_name_and_number_only() {
        let plain: Vec<u8> = (0..3 * SECTOR).map(|at| (at / 7) as u8).collect();
        let mut sealed = plain.clone();
        key(b"a").seal(5, &mut sealed);
        assert!(sealed.chunks(BLOCK).zip(plain.chunks(BLOCK)).all(|(one, other)| one != other));
        let opened = |name: &[u8], first| {
            let mut sectors = sealed.clone();
            key(name).open(first, &mut sectors);
            sectors
        };
        assert!(opened(b"a", 5) == plain);
        assert!(opened(b"a", 6) != plain);
        assert!(opened(b"b", 5) != plain);
    }

    #[test]
    fn what_was_never_written_is_zero_and_a_change_leaves_its_neighbours() {
        let mut sectors = vec![0; 2 * SECTOR];
        key(b"a").open(0, &mut sectors);
        assert!(sectors.iter().all(|byte| *byte == 0));
        let mut before = vec![1; SECTOR];
        let mut after = before.clone();
        after[100] = 2;
        key(b"a").seal(0, &mut before);
        key(b"a").seal(0, &mut after);
        let differ = (0..SECTOR).filter(|at| before[*at] != after[*at]);
        assert!(differ.clone().all(|at| (96..112).contains(&at)) && differ.count() > 8);
        // Torn: the first half is the new one, the rest was never written.
        after[SECTOR / 2..].fill(0);
        key(b"a").open(0, &mut after);
        assert!(after[..100] == [1; 100] && after[100] == 2);
        assert!(after[SECTOR / 2..].iter().all(|byte| *byte == 0));
    }
}
