//! The encoding of a chunk before it is sealed: a codec byte, the payload, and padding. Owns the
//! choice of codec and the bounds of decoding; keys are `seal`'s.
//!
//! # Format
//!
//! `e = 0 ‖ plain ‖ zeros` (raw), or `e = 1 ‖ u32 LE length of the frame ‖ zstd frame ‖ zeros`.
//! A raw chunk of full length has no padding, every other one is padded to Padmé's length
//! ([`chunk::padme`]). Codec numbers are never reused.
//!
//! Invariant: decoding never makes more bytes than the caller expects, whatever the frame says.

use crate::chunk;
use zstd::bulk::{Compressor, Decompressor};

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// zstd 1 beats LZ4 in size at nearly its speed; higher levels cost more than the disk saves.
const LEVEL: i32 = 1;

/// Below this nothing can be saved that padding would not eat again.
const MIN_COMPRESSED_LEN: usize = 128;

/// The probe compresses three pieces of this length, from the front, the middle and the end.
const PROBE_LEN: usize = 4096;

/// A chunk up to this length is its own probe.
const UNPROBED_LEN: usize = 4 * PROBE_LEN;

/// Head of a compressed chunk: the codec and the length of the frame.
const ZSTD_HEAD: usize = 5;

/// Why encoded bytes are not a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// A codec that this version does not know.
    #[error("a chunk of the unknown codec {0}")]
    Codec(u8),
    /// The payload does not give exactly the expected bytes, or the padding is not zero.
    #[error("a chunk whose encoding is not canonical")]
    Payload,
}

/// Encodes chunks. Keeps the zstd context, which costs more to make than a small chunk.
#[derive(Default)]
pub(super) struct Encoder {
    context: Option<Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Encoder {
    /// Encodes the chunk of `len` bytes that stands at `room[1..]` in place, and returns the
    /// encoded length. `room` has at least [`chunk::raw_encoded_len`] bytes.
    pub(super) fn encode(&mut self, room: &mut [u8], len: usize, compress: bool) -> usize {
        let (used, total) = match self.compressed(&room[1..=len], compress) {
            Some(frame) => {
                room[0] = ZSTD;
                room[1..ZSTD_HEAD].copy_from_slice(&(frame.len() as u32).to_le_bytes());
                let used = ZSTD_HEAD + frame.len();
                room[ZSTD_HEAD..used].copy_from_slice(frame);
                (used, chunk::padme(used))
            }
            None => {
                room[0] = RAW;
                (1 + len, chunk::raw_encoded_len(len))
            }
        };
        room[used..total].fill(0);
        total
    }

    /// The zstd frame of `plain`, when compressing is wanted and pays.
    fn compressed(&mut self, plain: &[u8], wanted: bool) -> Option<&[u8]> {
        if !wanted || plain.len() < MIN_COMPRESSED_LEN {
            return None;
        }
        if self.context.is_none() {
            // Without memory for a context the chunk is simply kept raw.
            self.context = Some(Compressor::new(LEVEL).ok()?);
        }
        let context = self.context.as_mut()?;
        let raw = chunk::raw_encoded_len(plain.len());
        if self.scratch.len() < raw {
            self.scratch.resize(raw, 0);
        }
        if plain.len() > UNPROBED_LEN && !probe(context, plain, &mut self.scratch) {
            return None;
        }
        // A frame that does not fit into 95 % of the raw length is refused by zstd itself.
        let limit = raw * 95 / 100 - ZSTD_HEAD;
        let len = context.compress_to_buffer(plain, &mut self.scratch[..limit]).ok()?;
        (chunk::padme(ZSTD_HEAD + len) * 100 < raw * 95).then(|| &self.scratch[..len])
    }
}

/// Whether three samples become smaller than 95 %.
fn probe(context: &mut Compressor<'static>, plain: &[u8], scratch: &mut [u8]) -> bool {
    let last = plain.len() - PROBE_LEN;
    let mut saved = 0;
    for start in [0, last / 2, last] {
        let sample = &plain[start..start + PROBE_LEN];
        saved += match context.compress_to_buffer(sample, &mut scratch[..PROBE_LEN]) {
            Ok(len) => PROBE_LEN - len,
            Err(_) => 0,
        };
    }
    saved * 20 > 3 * PROBE_LEN
}

/// Decodes chunks, with a reused zstd context.
#[derive(Default)]
pub(super) struct Decoder {
    context: Option<Decompressor<'static>>,
}

/// What encoded bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// The plain bytes stand in the encoded ones, behind the codec byte.
    InPlace,
    /// The plain bytes.
    Inflated(Vec<u8>),
}

impl Decoder {
    /// Decodes a chunk that must have `len` plain bytes.
    pub(super) fn decode(&mut self, encoded: &[u8], len: usize) -> Result<Decoded, EncodingError> {
        match encoded.first() {
            Some(&RAW) => {
                let canonical = encoded.len() == chunk::raw_encoded_len(len)
                    && chunk::is_zero(&encoded[1 + len..]);
                if canonical { Ok(Decoded::InPlace) } else { Err(EncodingError::Payload) }
            }
            Some(&ZSTD) => self.inflate(encoded, len).map(Decoded::Inflated),
            Some(&codec) => Err(EncodingError::Codec(codec)),
            None => Err(EncodingError::Payload),
        }
    }

    fn inflate(&mut self, encoded: &[u8], len: usize) -> Result<Vec<u8>, EncodingError> {
        let head = encoded.get(1..ZSTD_HEAD).and_then(|bytes| bytes.try_into().ok());
        let frame_len = u32::from_le_bytes(head.ok_or(EncodingError::Payload)?) as usize;
        let rest = &encoded[ZSTD_HEAD..];
        if frame_len > rest.len() || encoded.len() != chunk::padme(ZSTD_HEAD + frame_len) {
            return Err(EncodingError::Payload);
        }
        let (frame, padding) = rest.split_at(frame_len);
        if !chunk::is_zero(padding) {
            return Err(EncodingError::Payload);
        }
        let context = match &mut self.context {
            Some(context) => context,
            empty => empty.insert(Decompressor::new().map_err(|_| EncodingError::Payload)?),
        };
        // One call into a buffer of the expected length: zstd allocates nothing for its window and
        // stops with an error where the frame would give more.
        let mut plain = Vec::with_capacity(len);
        let made = context.decompress_to_buffer(frame, &mut plain);
        if made.is_ok_and(|made| made == len) { Ok(plain) } else { Err(EncodingError::Payload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(plain: &[u8]) -> Vec<u8> {
        let mut room = vec![0xee; chunk::raw_encoded_len(plain.len())];
        room[1..=plain.len()].copy_from_slice(plain);
        let len = Encoder::default().encode(&mut room, plain.len(), true);
        room.truncate(len);
        room
    }

    #[test]
    fn a_frame_that_would_give_more_than_expected_is_refused() {
        let bomb = encoded(&vec![b'a'; chunk::CHUNK_LEN]);
        assert!(bomb[0] == ZSTD && bomb.len() < 200, "{} bytes", bomb.len());
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&bomb, 1000), Err(EncodingError::Payload));
        assert_eq!(decoder.decode(&bomb, chunk::CHUNK_LEN - 1), Err(EncodingError::Payload));
        let whole = decoder.decode(&bomb, chunk::CHUNK_LEN);
        assert_eq!(whole, Ok(Decoded::Inflated(vec![b'a'; chunk::CHUNK_LEN])));
    }

    #[test]
    fn only_the_canonical_encoding_is_decoded() {
        let mut decoder = Decoder::default();
        let raw = encoded(&[9; 100]);
        assert_eq!((raw[0], raw.len()), (RAW, 104));
        assert_eq!(decoder.decode(&raw, 100), Ok(Decoded::InPlace));
        assert_eq!(decoder.decode(&raw, 99), Err(EncodingError::Payload));
        let mut dirty = raw;
        dirty[103] = 1;
        assert_eq!(decoder.decode(&dirty, 100), Err(EncodingError::Payload));
        let text = encoded("one two three four ".repeat(50).as_bytes());
        for cut in 0..text.len() {
            assert_eq!(decoder.decode(&text[..cut], 950), Err(EncodingError::Payload), "{cut}");
        }
        assert_eq!(decoder.decode(&[7, 1, 2], 2), Err(EncodingError::Codec(7)));
    }

    #[test]
    fn the_probe_finds_text_and_leaves_noise_alone() {
        let text = "the same few words over and over, ".repeat(4000);
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(encoded(text.as_bytes())[0], ZSTD);
        assert_eq!(encoded(&noise)[0], RAW);
    }
}
