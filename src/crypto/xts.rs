//! AES-256 in XTS mode (IEEE 1619-2018) over whole blocks: for bytes that change in place and that
//! only their owner reads. Owns the cipher; whose keys these are, and what tells one place from
//! another, is the callers'. It hides what is in the blocks and proves nothing.

use aes::Aes256;
use aes::cipher::consts::U32;
use aes::cipher::{Array, Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Bytes of a block.
pub(super) const BLOCK: usize = 16;

/// The two keys of the mode.
pub(super) struct Xts {
    blocks: Aes256,
    tweaks: Aes256,
}

impl Xts {
    /// With the key of the blocks, then that of the tweaks.
    pub(super) fn new(key: &[u8; 64]) -> Self {
        let cipher = |half: usize| {
            let mut part = Array::<u8, U32>::default();
            part.copy_from_slice(&key[half * 32..][..32]);
            let cipher = Aes256::new(&part);
            part.fill(0);
            cipher
        };
        Self { blocks: cipher(0), tweaks: cipher(1) }
    }

    /// Seals whole blocks that belong to this place.
    pub(super) fn seal(&self, place: [u8; BLOCK], data: &mut [u8]) {
        self.tweaked(place, data, |blocks| self.blocks.encrypt_blocks(blocks));
    }

    /// Opens them.
    pub(super) fn open(&self, place: [u8; BLOCK], data: &mut [u8]) {
        self.tweaked(place, data, |blocks| self.blocks.decrypt_blocks(blocks));
    }

    /// All blocks of a place at once, each with its tweak before and after: several times as fast
    /// as one after the other.
    fn tweaked(&self, place: [u8; BLOCK], data: &mut [u8], cipher: impl Fn(&mut [Block<Aes256>])) {
        let mut first: Block<Aes256> = place.into();
        self.tweaks.encrypt_block(&mut first);
        let mix = |data: &mut [u8]| {
            let mut tweak = u128::from_le_bytes(first.0);
            for block in data.as_chunks_mut::<BLOCK>().0 {
                *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
                tweak = doubled(tweak);
            }
        };
        mix(data);
        cipher(Array::slice_as_chunks_mut(data).0);
        mix(data);
    }
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

    proptest! {
        #[test]
        fn it_is_the_standards_cipher(
            key: [[u8; 16]; 4],
            number: u64,
            byte: u8,
            count in 1..300_usize,
        ) {
            let whole: [u8; 64] = key.concat().try_into().unwrap();
            let part = |at: usize| Array(key[at..at + 2].concat().try_into().unwrap());
            let half = |at: usize| Aes256::new(&part(at));
            let standard = Xts128::new(half(0), half(2));
            let place = u128::from(number).to_le_bytes();
            let text = |at: usize| byte.wrapping_add((at / 7) as u8);
            let plain: Vec<u8> = (0..count * BLOCK).map(text).collect();
            let (mut expected, mut sealed) = (plain.clone(), plain.clone());
            let len = expected.len();
            standard.encrypt_area(&mut expected, len, number.into(), get_tweak_default);
            let ours = Xts::new(&whole);
            ours.seal(place, &mut sealed);
            prop_assert!(sealed == expected);
            ours.open(place, &mut sealed);
            prop_assert!(sealed == plain);
        }
    }
}
