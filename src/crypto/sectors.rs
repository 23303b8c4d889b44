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
use aes::cipher::{Array, Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

/// Bytes of a sector.
pub const SECTOR: usize = 4096;
const BLOCK: usize = 16;
const NOTHING: [u8; BLOCK] = [0; BLOCK];

/// What opens the sectors of one file.
pub struct SectorKey {
    blocks: Aes256,
    tweaks: Aes256,
}

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
        Self { blocks: cipher(0), tweaks: cipher(1) }
    }

    /// Seals whole sectors, of which the first has this number.
    pub fn seal(&self, first: u64, sectors: &mut [u8]) {
        for (number, sector) in (first..).zip(sectors.chunks_exact_mut(SECTOR)) {
            self.tweaked(number, sector, |blocks| self.blocks.encrypt_blocks(blocks));
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
                self.tweaked(number, sector, |blocks| self.blocks.decrypt_blocks(blocks));
            }
            for at in unwritten {
                sector[at * BLOCK..][..BLOCK].fill(0);
            }
        }
    }

    /// All blocks of a sector at once, each with its tweak before and after: several times as fast
    /// as one after the other.
    fn tweaked(&self, number: u64, sector: &mut [u8], cipher: impl Fn(&mut [Block<Aes256>])) {
        let mut first = Block::<Aes256>::default();
        first[..8].copy_from_slice(&number.to_le_bytes());
        self.tweaks.encrypt_block(&mut first);
        let mix = |sector: &mut [u8]| {
            let mut tweak = u128::from_le_bytes(first.0);
            for block in sector.as_chunks_mut::<BLOCK>().0 {
                *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
                tweak = doubled(tweak);
            }
        };
        mix(sector);
        cipher(Array::slice_as_chunks_mut(sector).0);
        mix(sector);
    }
}

/// The blocks that were never written.
fn unwritten(sector: &[u8]) -> Vec<usize> {
    let blocks = sector.chunks_exact(BLOCK).enumerate();
    blocks.filter(|(_, block)| **block == NOTHING).map(|(at, _)| at).collect()
}

/// Twice an element of the field with 2^128 elements (IEEE 1619-2018, 5.2).
const fn doubled(element: u128) -> u128 {
    (element << 1) ^ ((element >> 127) * 0x87)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xts_mode::{Xts128, get_tweak_default};

    fn key(name: &[u8]) -> SectorKey {
        SectorKey::new(&NodeKey::from_seed(&[7; 32]), name)
    }

    proptest! {
        #[test]
        fn it_is_the_standards_cipher(
            key: [[u8; 16]; 4],
            first: u64,
            byte: u8,
            count in 1..4_usize,
        ) {
            let half = |at: usize| Array(key[at..at + 2].concat().try_into().unwrap());
            let [one, other] = [0, 2].map(|at| Aes256::new(&half(at)));
            let ours = SectorKey { blocks: one.clone(), tweaks: other.clone() };
            let first = first >> 1;
            let text = |at: usize| byte.wrapping_add((at / 7) as u8);
            let plain: Vec<u8> = (0..count * SECTOR).map(text).collect();
            let (mut expected, mut sealed) = (plain.clone(), plain.clone());
            let standard = Xts128::new(one, other);
            standard.encrypt_area(&mut expected, SECTOR, first.into(), get_tweak_default);
            ours.seal(first, &mut sealed);
            prop_assert!(sealed == expected);
            ours.open(first, &mut sealed);
            prop_assert!(sealed == plain);
        }
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
