//! Sealing of files that only this node reads, and changes at any place. Owns the cipher: AES-256
//! in XTS mode (IEEE 1619-2018) with sectors of 4 KiB. It hides what is in them and proves nothing:
//! who can change files of this node can do worse. What a file means is its owner's.
//!
//! Each block of 16 bytes is sealed by itself, so a change leaves all others on the disk as they
//! were: a write that a crash has torn hurts nothing beside it. A block of zeros was never written,
//! and is zero.

use super::NodeKey;
use aes::Aes256;
use aes::cipher::consts::U32;
use aes::cipher::{Array, KeyInit};
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

/// Bytes of a sector.
pub const SECTOR: usize = 4096;
const BLOCK: usize = 16;
const NOTHING: [u8; BLOCK] = [0; BLOCK];

/// What opens the sectors of one file.
pub struct SectorKey(Xts128<Aes256>);

impl SectorKey {
    /// That of the file of a node that has this name.
    pub fn new(node: &NodeKey, name: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 own sectors v1");
        let mut key = Zeroizing::new([0; 64]);
        hasher.update(&node.seed()[..]).update(name).finalize_xof().fill(&mut key[..]);
        let cipher = |half: usize| {
            let mut part = Array::<u8, U32>::default();
            part.copy_from_slice(&key[half * 32..][..32]);
            let cipher = Aes256::new(&part);
            part.fill(0);
            cipher
        };
        Self(Xts128::new(cipher(0), cipher(1)))
    }

    /// Seals whole sectors, of which the first has this number.
    pub fn seal(&self, first: u64, sectors: &mut [u8]) {
        self.0.encrypt_area(sectors, SECTOR, first.into(), get_tweak_default);
    }

    /// Opens whole sectors.
    pub fn open(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (u128::from(first)..).zip(sectors.chunks_exact_mut(SECTOR)) {
            let blocks = sector.chunks_exact(BLOCK).enumerate();
            let unwritten: Vec<usize> =
                blocks.filter(|(_, block)| **block == NOTHING).map(|(at, _)| at).collect();
            if unwritten.len() * BLOCK < SECTOR {
                self.0.decrypt_sector(sector, get_tweak_default(number));
            }
            for at in unwritten {
                sector[at * BLOCK..][..BLOCK].fill(0);
            }
        }
    }
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
