//! The manifest: a file's list of chunks, with what is needed to fetch, open and prove each one.
//! Owns its binary form and its proofs; it is sealed by `crypto`, which this module does not know.
//!
//! # Format, version 1
//!
//! Integers are little-endian (`wire::codec`). A *row* is 101 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 32 | value: `v_i` of the chunk; of the only chunk of a file the file hash `H` itself; in a root the merged value of a page |
//! | 32 | key: the chunk key `k_i` |
//! | 32 | cid: BLAKE3 of the sealed bytes |
//! | 4 | encoded: length of the encoded bytes `e_i` before the seal adds its 16 |
//! | 1 | flags: bit 0 = all zero, nothing is stored; the other bits are 0 |
//!
//! A row of zeros has key, cid and encoded 0. A row of a page never has the flag.
//!
//! *Manifest*: version `1`, kind `1`, layout `1` (a fixed grid of 1 MiB), length of the file (8),
//! then the rows, as many as the length demands: one per chunk up to 1,024 chunks, above that one
//! per page (then it is a *root*). *Page*: version `1`, kind `2`, layout `1`, number of rows (2),
//! rows: 1,024 chunks, the last page 1 to 1,024. The numbers of versions, kinds, layouts and flags
//! are never reused.

use super::{
    Disproved, MAX_ENCODED, MAX_FILE_LEN, PAGE_ROWS, TreeHasher, chunk_count, chunk_len,
    empty_hash, page_count, page_rows, raw_encoded_len,
};
use crate::id::{ChunkId, ChunkValue, FileHash};
use crate::wire::codec::{Decode, Encode, Malformed, Reader};
use zeroize::{Zeroize, ZeroizeOnDrop};

const VERSION: u8 = 1;
const KIND_MANIFEST: u8 = 1;
const KIND_PAGE: u8 = 2;
const LAYOUT_GRID: u8 = 1;
const FLAG_ZERO: u8 = 1;

/// The key of one chunk. Who has it and the sealed bytes reads the chunk.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkKey(pub [u8; 32]);

impl std::fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

/// One row of a manifest or page: one chunk; in a root: one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What proves the plain bytes: see [`super::value_of`].
    pub value: ChunkValue,
    /// What opens the sealed bytes.
    pub key: ChunkKey,
    /// What names the sealed bytes.
    pub cid: ChunkId,
    /// Length of the encoded bytes, without the seal's tag; 0 for a chunk of zeros.
    pub encoded: u32,
}

impl Row {
    /// Bytes of an encoded row.
    pub const LEN: usize = 101;

    /// The row of an all-zero chunk, which is stored nowhere.
    pub const fn zero(value: ChunkValue) -> Self {
        Self { value, key: ChunkKey([0; 32]), cid: ChunkId([0; 32]), encoded: 0 }
    }

    /// Whether the chunk is all zero and stored nowhere.
    pub const fn is_zero(&self) -> bool {
        self.encoded == 0
    }
}

impl Encode for Row {
    fn encode(&self, out: &mut Vec<u8>) {
        self.value.encode(out);
        out.extend_from_slice(&self.key.0);
        self.cid.encode(out);
        self.encoded.encode(out);
        out.push(if self.is_zero() { FLAG_ZERO } else { 0 });
    }
}

impl Decode for Row {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let row = Self {
            value: ChunkValue::decode(from)?,
            key: ChunkKey(from.array()?),
            cid: ChunkId::decode(from)?,
            encoded: u32::decode(from)?,
        };
        let canonical = match u8::decode(from)? {
            0 => row.encoded >= 2 && row.encoded as usize <= MAX_ENCODED,
            FLAG_ZERO => row == Self::zero(row.value),
            _ => false,
        };
        if canonical { Ok(row) } else { Err(Malformed::Invalid("manifest row")) }
    }
}

/// A file's list of chunks, or of pages when it has more than [`PAGE_ROWS`] chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Length of the file in bytes. Its author's word until the last chunk has been proved.
    pub length: u64,
    /// One row per chunk, or per page when [`Manifest::is_paged`].
    pub rows: Vec<Row>,
}

impl Manifest {
    /// Whether the rows are those of pages.
    pub const fn is_paged(&self) -> bool {
        page_count(self.length) > 0
    }

    /// Proves the rows against the file hash: their number fits the length, and their values merge
    /// to `hash`. What this does not prove is the chunks themselves ([`super::verify`]), the rows
    /// of pages ([`Page::prove`]), and with them the length.
    pub fn prove(&self, hash: &FileHash) -> Result<(), Disproved> {
        if self.rows.len() as u64 != rows_for(self.length) {
            return Err(Disproved::RowCount);
        }
        let fits = |(row, index): (&Row, u64)| {
            if self.is_paged() {
                row.encoded as usize == Page::encoded_len(page_rows(self.length, index))
            } else {
                row.encoded as usize <= raw_encoded_len(chunk_len(self.length, index))
            }
        };
        if !self.rows.iter().zip(0..).all(fits) {
            return Err(Disproved::RowLength);
        }
        let merged = match self.rows.as_slice() {
            [] => empty_hash(),
            [only] => FileHash(only.value.0),
            rows => {
                let tree: TreeHasher = rows.iter().map(|row| row.value).collect();
                tree.root().ok_or(Disproved::Merge)?
            }
        };
        if merged == *hash { Ok(()) } else { Err(Disproved::Merge) }
    }
}

impl Encode for Manifest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(11 + self.rows.len() * Row::LEN);
        out.extend_from_slice(&[VERSION, KIND_MANIFEST, LAYOUT_GRID]);
        self.length.encode(out);
        self.rows.iter().for_each(|row| row.encode(out));
    }
}

impl Decode for Manifest {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        head(from, KIND_MANIFEST)?;
        let length = u64::decode(from)?;
        if length > MAX_FILE_LEN {
            return Err(Malformed::Invalid("file length"));
        }
        let manifest = Self { length, rows: rows(from, rows_for(length) as usize)? };
        if manifest.is_paged() && manifest.rows.iter().any(Row::is_zero) {
            return Err(Malformed::Invalid("manifest row"));
        }
        Ok(manifest)
    }
}

/// Up to [`PAGE_ROWS`] rows of chunks of a large file: an aligned subtree of 1 GiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// One row per chunk.
    pub rows: Vec<Row>,
}

impl Page {
    const HEAD_LEN: usize = 5;

    /// The encoded length, as a root row announces it, of a page of `rows` rows: the codec byte
    /// and the page.
    pub const fn encoded_len(rows: usize) -> usize {
        1 + Self::HEAD_LEN + rows * Row::LEN
    }

    /// The merged value of the rows, which the root lists. None for a page without rows.
    pub fn value(&self) -> Option<ChunkValue> {
        self.rows.iter().map(|row| row.value).collect::<TreeHasher>().subtree()
    }

    /// Proves that this is page number `page` of a file of `length` bytes whose root has the row
    /// `root` for it.
    pub fn prove(&self, root: &Row, length: u64, page: u64) -> Result<(), Disproved> {
        if self.rows.len() != page_rows(length, page) {
            return Err(Disproved::RowCount);
        }
        let first = page * PAGE_ROWS as u64;
        let fits = |(row, index): (&Row, u64)| {
            row.encoded as usize <= raw_encoded_len(chunk_len(length, index))
        };
        if !self.rows.iter().zip(first..).all(fits) {
            return Err(Disproved::RowLength);
        }
        if self.value() == Some(root.value) { Ok(()) } else { Err(Disproved::Merge) }
    }
}

impl Encode for Page {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(Self::HEAD_LEN + self.rows.len() * Row::LEN);
        out.extend_from_slice(&[VERSION, KIND_PAGE, LAYOUT_GRID]);
        (self.rows.len() as u16).encode(out);
        self.rows.iter().for_each(|row| row.encode(out));
    }
}

impl Decode for Page {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        head(from, KIND_PAGE)?;
        let len = usize::from(u16::decode(from)?);
        if len == 0 {
            return Err(Malformed::Invalid("page"));
        }
        if len > PAGE_ROWS {
            return Err(Malformed::TooLong { len, max: PAGE_ROWS });
        }
        Ok(Self { rows: rows(from, len)? })
    }
}

fn rows_for(length: u64) -> u64 {
    match page_count(length) {
        0 => chunk_count(length),
        pages => pages,
    }
}

fn head(from: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    match from.array()? {
        [VERSION, found, LAYOUT_GRID] if found == kind => Ok(()),
        [VERSION, found, _] if found == kind => Err(Malformed::Invalid("manifest layout")),
        [VERSION, ..] => Err(Malformed::Invalid("manifest kind")),
        _ => Err(Malformed::Invalid("manifest version")),
    }
}

/// Exactly `len` rows; `len` is bounded by the caller, and by the bytes that are there.
fn rows(from: &mut Reader<'_>, len: usize) -> Result<Vec<Row>, Malformed> {
    if from.remaining() < len * Row::LEN {
        return Err(Malformed::Short);
    }
    (0..len).map(|_| Row::decode(from)).collect()
}
