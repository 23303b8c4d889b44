//! Sealing and opening of chunks and pages, in place and in bulk. Owns the chunk key derivation and
//! the cipher; the encoding before it is `encoding`'s, the proof of the content `chunk`'s.
//!
//! # Format
//!
//! ```text
//! k   = BLAKE3 derive_key("p2pfs 2026-11 chunk key v1", K_conv ‖ BLAKE3(e))
//! c   = ChaCha20-Poly1305(k, nonce 0, e, aad = "p2pfs chunk v1" ‖ u32 LE length of e)
//! cid = BLAKE3(c)
//! ```
//!
//! The same plain bytes, encoded alike, give the same `c` everywhere in a swarm (convergent) and
//! another one in every other swarm. A page is sealed in the same way, with codec 0 and no padding.
//!
//! Invariant: nonce 0 is safe because a key is a function of the exact encoded bytes: one key never
//! sees two messages. Deriving it from the plain bytes instead would break this as soon as two
//! versions of a compressor differ.

use super::encoding::{Decoded, Decoder, Encoder, EncodingError};
use super::{EpochKeys, SealError};
use crate::chunk::{self, CHUNK_LEN, ChunkKey, Disproved, Page, Place, Row};
use crate::id::ChunkId;
use crate::wire::codec::{Decode, Encode, Malformed};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};

/// What a seal adds to the encoded bytes.
pub const TAG_LEN: usize = 16;

/// The longest sealed chunk.
pub const MAX_SEALED: usize = chunk::MAX_ENCODED + TAG_LEN;

const KEY_CONTEXT: &str = "p2pfs 2026-11 chunk key v1";
const AAD: &[u8; 14] = b"p2pfs chunk v1";

/// Why sealed bytes whose name is right are not what their row promises. The author of the row is
/// wrong, not the holder: the file record is condemned. Nothing of the bytes is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sealed bytes are not as long as the row says.
    #[error("sealed bytes of another length than their row says")]
    Length,
    /// The key does not open them.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// They open to something that is not an encoded chunk.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// They open to something that is not a page or manifest.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The plain content is not the one that the file hash promises.
    #[error(transparent)]
    Disproved(#[from] Disproved),
}

/// The name of sealed bytes.
pub fn chunk_id(sealed: &[u8]) -> ChunkId {
    ChunkId(blake3::hash(sealed).into())
}

/// A buffer that holds one plain chunk with room before it for the codec and behind it for padding
/// and tag, so that it is encoded and sealed where it lies.
#[derive(Debug)]
pub struct ChunkBuf {
    buf: BytesMut,
    capacity: usize,
    len: usize,
}

impl ChunkBuf {
    /// Room for a chunk of up to `capacity` bytes, at most [`CHUNK_LEN`].
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(CHUNK_LEN);
        Self { buf: BytesMut::zeroed(room(capacity)), capacity, len: 0 }
    }

    /// The same in the allocation of earlier sealed bytes (`Bytes::try_into_mut`), which are lost.
    pub fn recycle(mut buf: BytesMut, capacity: usize) -> Self {
        let capacity = capacity.min(CHUNK_LEN);
        buf.resize(room(capacity), 0);
        Self { buf, capacity, len: 0 }
    }

    /// A copy of `plain`, which has at most [`CHUNK_LEN`] bytes.
    pub fn copy_of(plain: &[u8]) -> Self {
        let mut chunk = Self::new(plain.len());
        chunk.space().copy_from_slice(plain);
        chunk.set_len(plain.len());
        chunk
    }

    /// The place for the plain bytes, as long as the capacity. What is in it before it was written
    /// is left over from earlier use.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buf[1..=self.capacity]
    }

    /// Says that the first `len` bytes of [`ChunkBuf::space`] are the chunk.
    ///
    /// # Panics
    ///
    /// When `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "{len} bytes in a buffer for {}", self.capacity);
        self.len = len;
    }

    /// The plain bytes.
    pub fn plain(&self) -> &[u8] {
        &self.buf[1..=self.len]
    }
}

fn room(capacity: usize) -> usize {
    chunk::raw_encoded_len(capacity) + TAG_LEN
}

/// A sealed chunk or page, ready to be stored and sent.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What the manifest says of it.
    pub row: Row,
    /// The sealed bytes; empty for a chunk of zeros.
    pub bytes: Bytes,
}

/// Seals chunks. One per worker: it keeps a compressor (about 1 MiB once text was seen).
#[derive(Default)]
pub struct Sealer {
    encoder: Encoder,
}

impl Sealer {
    /// Seals a chunk that stands at `place` in its file; `compress` allows zstd where it pays.
    /// Private files are sealed with keys from their own secret and never compressed.
    ///
    /// # Panics
    ///
    /// When the chunk is empty: an empty file has no chunks.
    pub fn seal(
        &mut self,
        keys: &EpochKeys,
        place: Place,
        compress: bool,
        mut chunk: ChunkBuf,
    ) -> Sealed {
        assert!(chunk.len > 0, "a chunk has at least one byte");
        if chunk::is_zero(chunk.plain()) {
            let row = Row::zero(chunk::zero_value_of(place, chunk.len));
            return Sealed { row, bytes: Bytes::new() };
        }
        let value = chunk::value_of(place, chunk.plain());
        let encoded = self.encoder.encode(&mut chunk.buf, chunk.len, compress);
        let (key, cid) = seal_encoded(keys, &mut chunk.buf, encoded);
        let row = Row { value, key, cid, encoded: encoded as u32 };
        Sealed { row, bytes: chunk.buf.freeze() }
    }
}

/// Seals a chunk of a file again that was sealed before without compression, once its plain bytes
/// are proved to be those of `row`. None: they are not, and nothing was sealed. The proof comes
/// first, because the key of the row must never see another message.
pub fn reseal(row: &Row, length: u64, index: u64, mut chunk: ChunkBuf) -> Option<Bytes> {
    let encoded = row.encoded as usize;
    if row.is_zero() || encoded != chunk::raw_encoded_len(chunk.len) {
        return None;
    }
    chunk::verify(&row.value, length, index, chunk.plain()).ok()?;
    Encoder::default().encode(&mut chunk.buf, chunk.len, false);
    seal_with(&row.key, &mut chunk.buf, encoded);
    (chunk_id(&chunk.buf) == row.cid).then(|| chunk.buf.freeze())
}

/// Seals a page of a large file's manifest; the row is the root's.
///
/// # Panics
///
/// When the page has no rows.
pub fn seal_page(keys: &EpochKeys, page: &Page) -> Sealed {
    let value = page.value().expect("a page has rows");
    let encoded = Page::encoded_len(page.rows.len());
    let mut buf = BytesMut::zeroed(encoded + TAG_LEN);
    buf[1..encoded].copy_from_slice(&page.to_bytes());
    let (key, cid) = seal_encoded(keys, &mut buf, encoded);
    Sealed { row: Row { value, key, cid, encoded: encoded as u32 }, bytes: buf.freeze() }
}

/// Seals the first `encoded` bytes of `buf` in place and leaves exactly the sealed ones.
fn seal_encoded(keys: &EpochKeys, buf: &mut BytesMut, encoded: usize) -> (ChunkKey, ChunkId) {
    let key = chunk_key(keys, &buf[..encoded]);
    seal_with(&key, buf, encoded);
    (key, chunk_id(buf))
}

fn seal_with(key: &ChunkKey, buf: &mut BytesMut, encoded: usize) {
    buf.truncate(encoded + TAG_LEN);
    let (bytes, tag) = buf.split_at_mut(encoded);
    let made = engine(key)
        .seal_in_place_separate_tag(nonce(), aad(encoded), bytes)
        .expect("a chunk is far below the cipher's length limit");
    tag.copy_from_slice(made.as_ref());
}

fn chunk_key(keys: &EpochKeys, encoded: &[u8]) -> ChunkKey {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(keys.convergence()).update(blake3::hash(encoded).as_bytes());
    ChunkKey(hasher.finalize().into())
}

fn engine(key: &ChunkKey) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key.0).expect("the cipher has 32-byte keys");
    LessSafeKey::new(key)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn aad(encoded: usize) -> Aad<[u8; 18]> {
    let mut out = [0; 18];
    out[..AAD.len()].copy_from_slice(AAD);
    out[AAD.len()..].copy_from_slice(&(encoded as u32).to_le_bytes());
    Aad::from(out)
}

/// Opens chunks. One per worker: it keeps a decompressor.
#[derive(Default)]
pub struct Opener {
    decoder: Decoder,
}

impl Opener {
    /// Opens and proves chunk `index` of a file of `length` bytes, in place where it was not
    /// compressed. Whether `sealed` has the name `row.cid` is checked where the bytes arrive
    /// ([`chunk_id`]): a wrong name is the holder's fault, an error here the author's. A row of
    /// zeros has no bytes: see [`chunk::verify_zero`].
    pub fn open(
        &mut self,
        row: &Row,
        length: u64,
        index: u64,
        mut sealed: BytesMut,
    ) -> Result<Bytes, OpenError> {
        let len = chunk::chunk_len(length, index);
        let encoded = open_in_place(row, &mut sealed)?;
        let plain = match self.decoder.decode(encoded, len)? {
            Decoded::InPlace => sealed.freeze().slice(1..=len),
            Decoded::Inflated(plain) => plain.into(),
        };
        chunk::verify(&row.value, length, index, &plain)?;
        Ok(plain)
    }
}

/// Opens and proves page `page` of a file of `length` bytes; `root` is its row of the root.
pub fn open_page(
    root: &Row,
    length: u64,
    page: u64,
    mut sealed: BytesMut,
) -> Result<Page, OpenError> {
    let encoded = open_in_place(root, &mut sealed)?;
    let bytes = match encoded.split_first() {
        Some((0, bytes)) => bytes,
        other => return Err(EncodingError::Codec(other.map_or(0, |(codec, _)| *codec)).into()),
    };
    let opened = Page::from_bytes(bytes)?;
    opened.prove(root, length, page)?;
    Ok(opened)
}

/// Opens what `row` names where it lies; the encoded bytes stand at its front.
fn open_in_place<'a>(row: &Row, sealed: &'a mut BytesMut) -> Result<&'a [u8], OpenError> {
    let encoded = row.encoded as usize;
    if row.is_zero() || sealed.len() != encoded + TAG_LEN {
        return Err(OpenError::Length);
    }
    match engine(&row.key).open_in_place(nonce(), aad(encoded), sealed) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(SealError.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ContentSecret;
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use chacha20poly1305::{ChaCha20Poly1305, Nonce as ReferenceNonce};

    #[test]
    fn the_fast_engine_writes_the_same_bytes_as_the_reference() {
        let keys = EpochKeys::new(&ContentSecret([3; 32]));
        for len in [1, 15, 16, 17, 64, 1000, 65_537, CHUNK_LEN] {
            let mut plain = vec![0; len];
            blake3::Hasher::new().update(b"x").finalize_xof().fill(&mut plain);
            let chunk = ChunkBuf::copy_of(&plain);
            let sealed = Sealer::default().seal(&keys, Place::Whole, false, chunk);

            let mut encoded = vec![0];
            encoded.extend_from_slice(&plain);
            encoded.resize(chunk::raw_encoded_len(len), 0);
            let material = [*keys.convergence(), blake3::hash(&encoded).into()].concat();
            let key = blake3::derive_key("p2pfs 2026-11 chunk key v1", &material);
            let aad = [&AAD[..], &(encoded.len() as u32).to_le_bytes()].concat();
            let reference = ChaCha20Poly1305::new(&key.into())
                .encrypt(&ReferenceNonce::default(), Payload { msg: &encoded, aad: &aad })
                .unwrap();
            assert!(sealed.bytes == reference, "{len}");
            assert_eq!(sealed.row.key.0, key);
        }
    }

    #[test]
    fn only_the_same_bytes_are_sealed_again() {
        let keys = EpochKeys::new(&ContentSecret([3; 32]));
        for len in [1, 300, CHUNK_LEN - 1, CHUNK_LEN] {
            let mut plain = vec![0; len];
            blake3::Hasher::new().update(b"y").finalize_xof().fill(&mut plain);
            let length = len as u64;
            let chunk = ChunkBuf::copy_of(&plain);
            let sealed = Sealer::default().seal(&keys, Place::Whole, false, chunk);
            let again = reseal(&sealed.row, length, 0, ChunkBuf::copy_of(&plain));
            assert_eq!(again, Some(sealed.bytes), "{len}");
            plain[len / 2] ^= 1;
            assert_eq!(reseal(&sealed.row, length, 0, ChunkBuf::copy_of(&plain)), None);
            assert_eq!(reseal(&sealed.row, length, 0, ChunkBuf::copy_of(&plain[1..])), None);
        }
    }

    #[test]
    fn a_buffer_is_used_again_without_its_past_showing() {
        let keys = EpochKeys::new(&ContentSecret([3; 32]));
        let mut sealer = Sealer::default();
        let first = sealer.seal(&keys, Place::At(0), false, ChunkBuf::copy_of(&[0xaa; 5000]));
        let mut again = ChunkBuf::recycle(first.bytes.try_into_mut().unwrap(), 4000);
        again.space()[..300].fill(7);
        again.set_len(300);
        let again = sealer.seal(&keys, Place::At(1), false, again);
        let fresh = sealer.seal(&keys, Place::At(1), false, ChunkBuf::copy_of(&[7; 300]));
        assert_eq!((again.row, again.bytes), (fresh.row, fresh.bytes));
    }
}
