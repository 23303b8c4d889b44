//! How a file is cut and how its hash is proved. Owns the fixed grid of 1 MiB chunks, the value
//! `v_i` of a chunk (its BLAKE3 subtree chaining value at its offset), the merging of values to
//! the file hash `H`, and the manifest. It knows nothing of keys: sealing is `crypto`'s.
//!
//! Invariant: `H` is always BLAKE3 of the whole plain content, exactly what `b3sum` prints. A chunk
//! is 1,024 BLAKE3 chunks and starts at a multiple of its own length, so it is a whole subtree of
//! BLAKE3's tree (a power of two of leaves at an aligned place; the last one may be short) and its
//! chaining value is part of the proof of `H`. The only chunk of a file is the whole tree instead:
//! its value is `H` itself ([`Place::Whole`]).

mod build;
mod manifest;
mod tree;

pub use build::Builder;
pub use manifest::{ChunkKey, Manifest, Page, Row};
pub use tree::TreeHasher;

use crate::id::{ChunkValue, FileHash};
use blake3::hazmat::HasherExt;
use std::ops::Range;

/// Plain bytes of a chunk: 1 MiB. The last chunk of a file may be shorter.
pub const CHUNK_LEN: usize = 1 << 20;

/// Rows of one page, and the most rows of a manifest without pages: an aligned 1 GiB subtree.
pub const PAGE_ROWS: usize = 1024;

/// Pages of the largest file: their rows still fit into one chunk.
pub const MAX_PAGES: usize = 8192;

/// The largest file in bytes: 8 TiB.
pub const MAX_FILE_LEN: u64 = (MAX_PAGES * PAGE_ROWS * CHUNK_LEN) as u64;

/// The longest encoded chunk: the codec byte and a full raw chunk.
pub const MAX_ENCODED: usize = 1 + CHUNK_LEN;

/// Why content, or the list of it, is not what the file hash promises. Nothing was changed: the
/// bytes are to be dropped and the next source tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disproved {
    /// The number of rows does not fit the length of the file.
    #[error("the number of rows does not fit the length of the file")]
    RowCount,
    /// A row announces an encoded length that its chunk or page cannot have.
    #[error("a row announces an impossible length")]
    RowLength,
    /// The values of the rows do not merge to what they must.
    #[error("the values of the rows do not merge to the expected hash")]
    Merge,
    /// A chunk's bytes are not of the length that its place demands.
    #[error("a chunk has the wrong length")]
    ChunkLength,
    /// A chunk's bytes do not have the value of its row.
    #[error("a chunk does not have the value of its row")]
    ChunkValue,
}

/// The file is longer than [`MAX_FILE_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file can have at most 8 TiB")]
pub struct TooLarge;

/// Where a chunk stands in its file, as far as its value depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The only chunk: its value is the file hash.
    Whole,
    /// Chunk number `i` (from 0) of several: its value is a chaining value at its offset.
    At(u64),
}

impl Place {
    /// The place of chunk `index` in a file of `chunks` chunks.
    pub const fn of(index: u64, chunks: u64) -> Self {
        if chunks == 1 { Self::Whole } else { Self::At(index) }
    }
}

/// How many chunks a file of `length` bytes has. None for an empty file.
pub const fn chunk_count(length: u64) -> u64 {
    length.div_ceil(CHUNK_LEN as u64)
}

/// How many pages a file of `length` bytes has: none up to [`PAGE_ROWS`] chunks, where the manifest
/// holds the rows itself.
pub const fn page_count(length: u64) -> u64 {
    let chunks = chunk_count(length);
    if chunks <= PAGE_ROWS as u64 { 0 } else { chunks.div_ceil(PAGE_ROWS as u64) }
}

/// The length in bytes of chunk `index` of a file of `length` bytes; 0 behind its end.
pub fn chunk_len(length: u64, index: u64) -> usize {
    let start = index.saturating_mul(CHUNK_LEN as u64);
    length.saturating_sub(start).min(CHUNK_LEN as u64) as usize
}

/// How many rows page `page` of a file of `length` bytes has; 0 behind its end.
pub fn page_rows(length: u64, page: u64) -> usize {
    let first = page.saturating_mul(PAGE_ROWS as u64);
    chunk_count(length).saturating_sub(first).min(PAGE_ROWS as u64) as usize
}

/// The chunks that hold any byte of `range` in a file of `length` bytes.
pub fn chunks_of(length: u64, range: Range<u64>) -> Range<u64> {
    let end = range.end.min(length);
    if range.start >= end {
        return 0..0;
    }
    range.start / CHUNK_LEN as u64..chunk_count(end)
}

/// The value `v_i` of a chunk of 1 to [`CHUNK_LEN`] bytes: one pass of BLAKE3.
pub fn value_of(place: Place, plain: &[u8]) -> ChunkValue {
    match place {
        Place::Whole => ChunkValue(blake3::hash(plain).into()),
        Place::At(index) => ChunkValue(hasher_at(index).update(plain).finalize_non_root()),
    }
}

/// The value of a chunk of `len` zero bytes. It depends on the offset, hence one pass of BLAKE3,
/// but the zeros come from the processor's cache and not from the file.
pub fn zero_value_of(place: Place, len: usize) -> ChunkValue {
    let mut hasher = match place {
        Place::Whole => blake3::Hasher::new(),
        Place::At(index) => hasher_at(index),
    };
    let mut left = len;
    while left > 0 {
        let step = left.min(ZEROS.len());
        hasher.update(&ZEROS[..step]);
        left -= step;
    }
    match place {
        Place::Whole => ChunkValue(hasher.finalize().into()),
        Place::At(_) => ChunkValue(hasher.finalize_non_root()),
    }
}

/// Proves a chunk: `plain` has exactly the length and the value that its place in a file of
/// `length` bytes demands.
pub fn verify(value: &ChunkValue, length: u64, index: u64, plain: &[u8]) -> Result<(), Disproved> {
    if plain.is_empty() || plain.len() != chunk_len(length, index) {
        return Err(Disproved::ChunkLength);
    }
    if value_of(Place::of(index, chunk_count(length)), plain) == *value {
        Ok(())
    } else {
        Err(Disproved::ChunkValue)
    }
}

/// Proves a chunk that its row says is all zero, without its bytes.
pub fn verify_zero(value: &ChunkValue, length: u64, index: u64) -> Result<(), Disproved> {
    let len = chunk_len(length, index);
    if len == 0 {
        return Err(Disproved::ChunkLength);
    }
    if zero_value_of(Place::of(index, chunk_count(length)), len) == *value {
        Ok(())
    } else {
        Err(Disproved::ChunkValue)
    }
}

/// Whether every byte is zero. Stops at the first piece that has another.
pub fn is_zero(plain: &[u8]) -> bool {
    // Most chunks differ within the first bytes; `memcmp` is the fastest loop for those that do
    // not.
    let (head, rest) = plain.split_at(plain.len().min(64));
    head == &ZEROS[..head.len()] && rest.chunks(4096).all(|piece| piece == &ZEROS[..piece.len()])
}

/// The length to which an encoded chunk of `len` bytes is padded: Padmé (Nikitin et al., PETS 2019,
/// "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", algorithm 1). At
/// most 12 % more, and only O(log log len) bits of the length remain visible.
pub const fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    // `exponent` is at least 1 here, so its own logarithm exists.
    let kept = exponent.ilog2() + 1;
    let mask = (1 << (exponent - kept)) - 1;
    (len + mask) & !mask
}

/// The encoded length of a chunk of `len` plain bytes that is not compressed: the codec byte, the
/// bytes, and padding unless the chunk is a full one, whose length tells nothing.
pub const fn raw_encoded_len(len: usize) -> usize {
    if len == CHUNK_LEN { MAX_ENCODED } else { padme(1 + len) }
}

/// The hash of the empty file.
pub fn empty_hash() -> FileHash {
    FileHash(blake3::hash(b"").into())
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

fn hasher_at(index: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * CHUNK_LEN as u64);
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_follows_its_paper_and_stays_under_twelve_percent() {
        for (len, padded) in [(0, 0), (1, 1), (2, 2), (9, 10), (100, 104), (1025, 1088)] {
            assert_eq!(padme(len), padded, "{len}");
        }
        for len in (1..3000).chain((1 << 19..1 << 20).step_by(997)) {
            let padded = padme(len);
            assert!(padded >= len && padded * 100 <= len * 112, "{len} became {padded}");
            assert!(padme(len + 1) >= padded && padme(padded) == padded);
        }
        assert_eq!(raw_encoded_len(CHUNK_LEN - 1), CHUNK_LEN);
        assert_eq!(raw_encoded_len(CHUNK_LEN), CHUNK_LEN + 1);
    }

    #[test]
    fn ranges_name_the_chunks_they_touch() {
        let mib = CHUNK_LEN as u64;
        let length = 3 * mib + 5;
        assert_eq!(chunks_of(length, 0..1), 0..1);
        assert_eq!(chunks_of(length, mib - 1..mib + 1), 0..2);
        assert_eq!(chunks_of(length, mib..2 * mib), 1..2);
        assert_eq!(chunks_of(length, 3 * mib..u64::MAX), 3..4);
        assert_eq!(chunks_of(length, length..u64::MAX), 0..0);
        assert_eq!(chunks_of(0, 0..10), 0..0);
        assert_eq!((chunk_len(length, 3), chunk_len(length, 4)), (5, 0));
    }

    #[test]
    fn pages_begin_above_one_gib() {
        let gib = 1u64 << 30;
        assert_eq!((page_count(gib), page_count(gib + 1)), (0, 2));
        assert_eq!((page_rows(gib + 1, 0), page_rows(gib + 1, 1)), (1024, 1));
        assert_eq!(page_count(MAX_FILE_LEN), MAX_PAGES as u64);
    }

    #[test]
    fn zero_chunks_are_recognised_and_valued_like_their_bytes() {
        let mut plain = vec![0; CHUNK_LEN];
        for (place, len) in [(Place::Whole, 7), (Place::At(0), CHUNK_LEN), (Place::At(9), 70_000)] {
            assert!(is_zero(&plain[..len]));
            assert_eq!(zero_value_of(place, len), value_of(place, &plain[..len]));
        }
        assert_ne!(zero_value_of(Place::At(1), 5), zero_value_of(Place::At(2), 5));
        for at in [0, 63, 64, 4159, CHUNK_LEN - 1] {
            plain[at] = 1;
            assert!(!is_zero(&plain), "{at}");
            plain[at] = 0;
        }
    }

    #[test]
    fn a_chunk_is_refused_for_its_length_its_place_and_its_bytes() {
        let plain = vec![7; CHUNK_LEN];
        let length = 2 * CHUNK_LEN as u64;
        let value = value_of(Place::At(1), &plain);
        assert_eq!(verify(&value, length, 1, &plain), Ok(()));
        assert_eq!(verify(&value, length, 0, &plain), Err(Disproved::ChunkValue));
        assert_eq!(verify(&value, length, 1, &plain[1..]), Err(Disproved::ChunkLength));
        assert_eq!(verify(&value, length, 2, &plain), Err(Disproved::ChunkLength));
        assert_eq!(verify_zero(&value, length, 1), Err(Disproved::ChunkValue));
        assert_eq!(verify_zero(&zero_value_of(Place::At(1), CHUNK_LEN), length, 1), Ok(()));
    }
}
