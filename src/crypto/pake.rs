//! Pairing by a short code: a password-authenticated key exchange (SPAKE2 over edwards25519, crate
//! `spake2`) between an admin, to whom a person typed the code, and the joiner, who drew it. Owns
//! the code and the keys of one run; how many runs there may be is `core::access`'s matter.
//!
//! # Protocol
//!
//! ```text
//! admin  → joiner   X                                       33 bytes
//! joiner → admin    Y, keyed_hash(K_joiner, what it asks for)
//! admin  → joiner   keyed_hash(K_admin, grant), XChaCha20-Poly1305(K_seal, nonce 0, grant)
//! ```
//!
//! The three keys are BLAKE3 `derive_key`s of the SPAKE2 key, which covers the code, both node ids,
//! X and Y. Nonce 0 is safe because `K_seal` belongs to one run and [`Paired::seal`] consumes it.
//!
//! Invariant: who sits in the middle, or plays one side, can test one code per run, while the run
//! is going on, and learns nothing that would let it test another one afterwards.

use super::SealError;
use crate::id::NodeId;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::{CryptoRng, RngCore};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of both messages of the exchange.
pub const PAKE_MESSAGE_LEN: usize = 33;

/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_LEN: usize = 8;

/// Why a text is not a pairing code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It has too few or too many characters.
    #[error("a code has 8 letters and digits, this one has {0}")]
    Length(usize),
    /// A character that no code has.
    #[error("`{}` is in no code", .0.escape_default())]
    Character(char),
}

/// A code of 8 base32 characters, 40 bits. Drawn by the joiner, never sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairingCode([u8; 5]);

impl PairingCode {
    /// The code that 5 random bytes stand for.
    pub const fn from_random(bytes: [u8; 5]) -> Self {
        Self(bytes)
    }
}

impl std::str::FromStr for PairingCode {
    type Err = CodeError;

    /// Either case; spaces and dashes are skipped; O reads as 0, I and L as 1.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut bits = 0u64;
        let mut len = 0;
        for found in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let upper = match found.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|known| char::from(*known) == upper);
            let digit = digit.ok_or(CodeError::Character(found))?;
            bits = bits << 5 | digit as u64;
            len += 1;
        }
        if len != CODE_LEN {
            return Err(CodeError::Length(len));
        }
        let [_, _, _, bytes @ ..] = bits.to_be_bytes();
        Ok(Self(bytes))
    }
}

/// Two groups of four, `K7QM-2XWD`.
impl std::fmt::Display for PairingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e] = self.0;
        let bits = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        for place in (0..CODE_LEN).rev() {
            write!(f, "{}", char::from(ALPHABET[(bits >> (place * 5)) as usize & 31]))?;
            if place == 4 {
                f.write_str("-")?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingCode(..)")
    }
}

/// The run failed: the other side has another code or another idea of who takes part, or somebody
/// changed a message. The run is over; nothing was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the code does not match")]
pub struct PakeError;

/// The admin's side of one run.
pub struct PairingAdmin(Spake2<Ed25519Group>);

impl PairingAdmin {
    /// Begins a run with fresh random bytes. Gives the message for the joiner.
    pub fn start(
        code: &PairingCode,
        admin: &NodeId,
        joiner: &NodeId,
        seed: &[u8; 32],
    ) -> (Self, [u8; PAKE_MESSAGE_LEN]) {
        let (password, admin_id, joiner_id) = parts(code, admin, joiner);
        let rng = SeedRng::new("p2pfs 2026-11 pairing admin v1", seed, admin, joiner);
        let (state, message) = Spake2::start_a_with_rng(&password, &admin_id, &joiner_id, rng);
        (Self(state), fixed(&message))
    }

    /// The keys of the run, from the joiner's message. They are good only once the joiner's
    /// confirmation was checked ([`Paired::joiner_confirms`]).
    pub fn finish(self, message: &[u8; PAKE_MESSAGE_LEN]) -> Result<Paired, PakeError> {
        self.0.finish(message).map(Paired::new).map_err(|_| PakeError)
    }
}

/// The joiner's side of one run, which is one step.
pub struct PairingJoiner;

impl PairingJoiner {
    /// Answers the admin's message with fresh random bytes. Gives the message for the admin and the
    /// keys, which are good only once the admin's confirmation was checked ([`Paired::open`]).
    pub fn answer(
        code: &PairingCode,
        admin: &NodeId,
        joiner: &NodeId,
        seed: &[u8; 32],
        message: &[u8; PAKE_MESSAGE_LEN],
    ) -> Result<([u8; PAKE_MESSAGE_LEN], Paired), PakeError> {
        let (password, admin_id, joiner_id) = parts(code, admin, joiner);
        let rng = SeedRng::new("p2pfs 2026-11 pairing joiner v1", seed, admin, joiner);
        let (state, mine) =
            Spake2::<Ed25519Group>::start_b_with_rng(&password, &admin_id, &joiner_id, rng);
        let paired = state.finish(message).map(Paired::new).map_err(|_| PakeError)?;
        Ok((fixed(&mine), paired))
    }
}

/// The keys of one run.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Paired {
    joiner: [u8; 32],
    admin: [u8; 32],
    seal: [u8; 32],
}

impl Paired {
    fn new(mut key: Vec<u8>) -> Self {
        let paired = Self {
            joiner: blake3::derive_key("p2pfs 2026-11 pairing joiner confirmation v1", &key),
            admin: blake3::derive_key("p2pfs 2026-11 pairing admin confirmation v1", &key),
            seal: blake3::derive_key("p2pfs 2026-11 pairing payload v1", &key),
        };
        key.zeroize();
        paired
    }

    /// The joiner's proof that it has the key, over what it asks for.
    pub fn joiner_confirmation(&self, request: &[u8]) -> [u8; 32] {
        blake3::keyed_hash(&self.joiner, request).into()
    }

    /// Whether the other side is the joiner with this code, and asks for exactly `request`.
    pub fn joiner_confirms(&self, request: &[u8], confirmation: &[u8; 32]) -> bool {
        // Comparing `blake3::Hash` takes the same time wherever the difference is.
        blake3::keyed_hash(&self.joiner, request) == blake3::Hash::from_bytes(*confirmation)
    }

    /// The admin's proof and the payload sealed for the joiner: the last message of the run.
    pub fn seal(self, payload: &[u8]) -> ([u8; 32], Vec<u8>) {
        let sealed = self
            .cipher()
            .encrypt(&XNonce::default(), payload)
            .expect("a grant is far below the cipher's length limit");
        (blake3::keyed_hash(&self.admin, payload).into(), sealed)
    }

    /// Opens the admin's payload and checks its proof.
    pub fn open(
        self,
        confirmation: &[u8; 32],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let payload = self.cipher().decrypt(&XNonce::default(), sealed).map(Zeroizing::new);
        let payload = payload.map_err(|_| SealError)?;
        let proof = blake3::keyed_hash(&self.admin, &payload);
        if proof == blake3::Hash::from_bytes(*confirmation) { Ok(payload) } else { Err(SealError) }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.seal.into())
    }
}

fn parts(code: &PairingCode, admin: &NodeId, joiner: &NodeId) -> (Password, Identity, Identity) {
    (Password::new(code.to_string()), Identity::new(&admin.0), Identity::new(&joiner.0))
}

fn fixed(message: &[u8]) -> [u8; PAKE_MESSAGE_LEN] {
    message.try_into().expect("a message of this group has 33 bytes")
}

/// Random bytes from a seed, in the shape that `spake2` asks for. Both ids and the side go into it,
/// so that one seed may serve several runs.
struct SeedRng(blake3::OutputReader);

impl SeedRng {
    fn new(context: &str, seed: &[u8; 32], admin: &NodeId, joiner: &NodeId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(seed).update(&admin.0).update(&joiner.0);
        Self(hasher.finalize_xof())
    }
}

impl RngCore for SeedRng {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for SeedRng {}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: NodeId = NodeId([1; 32]);
    const JOINER: NodeId = NodeId([2; 32]);

    fn code(text: &str) -> PairingCode {
        text.parse().unwrap()
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let drawn = PairingCode::from_random([0x00, 0x44, 0x32, 0x14, 0xc7]);
        assert_eq!(drawn.to_string(), "0123-4567");
        for text in ["01234567", "0123-4567", " o1 23 - 45 67", "Oi234567", "0L23-4567"] {
            assert_eq!(text.parse(), Ok(drawn), "{text}");
        }
        assert_eq!(code("zzzz-zzzz").to_string(), "ZZZZ-ZZZZ");
        assert_eq!("0123-456".parse::<PairingCode>(), Err(CodeError::Length(7)));
        assert_eq!("0123-4567-8".parse::<PairingCode>(), Err(CodeError::Length(9)));
        assert_eq!("0123-456U".parse::<PairingCode>(), Err(CodeError::Character('U')));
        assert_eq!("0123-456é".parse::<PairingCode>(), Err(CodeError::Character('é')));
    }

    #[test]
    fn equal_codes_give_a_channel_for_one_payload() {
        let (admin, x) = PairingAdmin::start(&code("K7QM2XWD"), &ADMIN, &JOINER, &[3; 32]);
        let (y, joiner) =
            PairingJoiner::answer(&code("k7qm-2xwd"), &ADMIN, &JOINER, &[4; 32], &x).unwrap();
        let admin = admin.finish(&y).unwrap();
        let confirmation = joiner.joiner_confirmation(b"request");
        assert!(admin.joiner_confirms(b"request", &confirmation));
        assert!(!admin.joiner_confirms(b"another request", &confirmation));
        let (proof, sealed) = admin.seal(b"grant");
        assert_eq!(joiner.open(&proof, &sealed).unwrap().as_slice(), b"grant");
    }

    #[test]
    fn another_code_or_another_id_gives_other_keys() {
        let cases = [
            ("K7QM2XWE", ADMIN, JOINER),
            ("K7QM2XWD", NodeId([9; 32]), JOINER),
            ("K7QM2XWD", ADMIN, NodeId([9; 32])),
        ];
        for (text, admin_id, joiner_id) in cases {
            let (admin, x) = PairingAdmin::start(&code("K7QM2XWD"), &ADMIN, &JOINER, &[3; 32]);
            let (y, joiner) =
                PairingJoiner::answer(&code(text), &admin_id, &joiner_id, &[4; 32], &x).unwrap();
            let admin = admin.finish(&y).unwrap();
            assert!(!admin.joiner_confirms(b"", &joiner.joiner_confirmation(b"")));
            let (proof, sealed) = admin.seal(b"grant");
            assert_eq!(joiner.open(&proof, &sealed), Err(SealError));
        }
    }

    #[test]
    fn a_message_sent_back_or_broken_is_refused() {
        let (admin, x) = PairingAdmin::start(&code("K7QM2XWD"), &ADMIN, &JOINER, &[3; 32]);
        assert!(admin.finish(&x).is_err());
        let mut broken = x;
        broken[0] = b'B';
        let answer = PairingJoiner::answer(&code("K7QM2XWD"), &ADMIN, &JOINER, &[4; 32], &broken);
        assert!(answer.is_err());
    }
}
