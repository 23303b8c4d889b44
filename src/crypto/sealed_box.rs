//! Boxes that only one key opens: epoch secrets to a node, private files to an owner. Owns the
//! owner key and the box format; who may get a box is `core::access`'s matter.
//!
//! # Format
//!
//! ```text
//! e    = BLAKE3 derive_key("p2pfs 2026-11 box ephemeral v1", seed ‖ recipient ‖ u32 LE length of
//! context ‖ context ‖ plain) k    = BLAKE3 derive_key("p2pfs 2026-11 box key v1", X25519(e,
//! recipient) ‖ X25519(e, base) ‖ recipient) box  = X25519(e, base) ‖ XChaCha20-Poly1305(k, nonce
//! 0, plain, aad = context)
//! ```
//!
//! `recipient` is an X25519 public key; a node's is the Montgomery form of its ed25519 key.
//!
//! Invariant: nonce 0 is safe because `e`, and so `k`, is a function of what is sealed: a random
//! seed that came twice gives the same box twice at worst, never two plain texts under one key.

use super::{NodeKey, SealError};
use crate::id::NodeId;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::VerifyingKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// What a box adds to the plain bytes: the ephemeral key and the tag.
pub const BOX_OVERHEAD: usize = 32 + 16;

const EPHEMERAL_CONTEXT: &str = "p2pfs 2026-11 box ephemeral v1";
const KEY_CONTEXT: &str = "p2pfs 2026-11 box key v1";

/// A user's X25519 key, kept in the configuration directory: with it and any surviving member the
/// user's data can be read again.
#[derive(Clone)]
pub struct OwnerKey(StaticSecret);

impl OwnerKey {
    /// The key that 32 random bytes stand for.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*seed))
    }

    /// The seed: the secret itself.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half, to which others seal.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// Opens a box that was sealed to this key for the purpose `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        open(&self.0, context, sealed)
    }
}

impl std::fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnerKey(..)")
    }
}

impl NodeKey {
    /// Opens a box that was sealed to this node for the purpose `context`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        open(&StaticSecret::from(*self.x25519()), context, sealed)
    }
}

/// Seals `plain` to a node, with a fresh random `seed`. Fails when the id is no usable key.
pub fn seal_to_node(
    node: &NodeId,
    seed: &[u8; 32],
    context: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let key = VerifyingKey::from_bytes(&node.0).map_err(|_| SealError)?;
    seal_to_owner(&key.to_montgomery().to_bytes(), seed, context, plain)
}

/// Seals `plain` to the X25519 key `owner`, with a fresh random `seed`. Fails when the key is one
/// of the few that give every sender the same secret.
pub fn seal_to_owner(
    owner: &[u8; 32],
    seed: &[u8; 32],
    context: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut hasher = blake3::Hasher::new_derive_key(EPHEMERAL_CONTEXT);
    hasher.update(seed).update(owner).update(&(context.len() as u32).to_le_bytes());
    hasher.update(context).update(plain);
    let ephemeral = StaticSecret::from(<[u8; 32]>::from(hasher.finalize()));
    let sender = PublicKey::from(&ephemeral);
    let cipher = cipher(&ephemeral, &PublicKey::from(*owner), &sender, owner)?;
    let sealed = cipher
        .encrypt(&XNonce::default(), Payload { msg: plain, aad: context })
        .map_err(|_| SealError)?;
    Ok([&sender.to_bytes(), sealed.as_slice()].concat())
}

fn open(
    secret: &StaticSecret,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (sender, sealed) = sealed.split_first_chunk::<32>().ok_or(SealError)?;
    let sender = PublicKey::from(*sender);
    let cipher = cipher(secret, &sender, &sender, &PublicKey::from(secret).to_bytes())?;
    cipher
        .decrypt(&XNonce::default(), Payload { msg: sealed, aad: context })
        .map(Zeroizing::new)
        .map_err(|_| SealError)
}

fn cipher(
    mine: &StaticSecret,
    theirs: &PublicKey,
    sender: &PublicKey,
    recipient: &[u8; 32],
) -> Result<XChaCha20Poly1305, SealError> {
    let shared = mine.diffie_hellman(theirs);
    if !shared.was_contributory() {
        return Err(SealError);
    }
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(shared.as_bytes()).update(sender.as_bytes()).update(recipient);
    Ok(XChaCha20Poly1305::new(&<[u8; 32]>::from(hasher.finalize()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_opens_for_its_key_and_purpose_only() {
        let node = NodeKey::from_seed(&[1; 32]);
        let owner = OwnerKey::from_seed(&[2; 32]);
        let to_node = seal_to_node(&node.id(), &[9; 32], b"epoch", b"secret").unwrap();
        let to_owner = seal_to_owner(&owner.public(), &[9; 32], b"epoch", b"secret").unwrap();
        assert_eq!(node.open(b"epoch", &to_node).unwrap().as_slice(), b"secret");
        assert_eq!(owner.open(b"epoch", &to_owner).unwrap().as_slice(), b"secret");
        assert_eq!(to_node.len(), 6 + BOX_OVERHEAD);
        assert_eq!(node.open(b"share", &to_node), Err(SealError));
        assert_eq!(owner.open(b"epoch", &to_node), Err(SealError));
        assert_eq!(NodeKey::from_seed(&[3; 32]).open(b"epoch", &to_node), Err(SealError));
        for at in 0..to_node.len() {
            let mut changed = to_node.clone();
            changed[at] ^= 1;
            assert_eq!(node.open(b"epoch", &changed), Err(SealError), "byte {at}");
            assert_eq!(node.open(b"epoch", &to_node[..at]), Err(SealError), "cut at {at}");
        }
    }

    #[test]
    fn a_seed_that_comes_twice_gives_no_second_text_under_one_key() {
        let owner = OwnerKey::from_seed(&[2; 32]).public();
        let seal = |plain: &[u8]| seal_to_owner(&owner, &[9; 32], b"", plain).unwrap();
        assert_ne!(seal(b"a")[..32], seal(b"b")[..32]);
    }

    #[test]
    fn a_key_that_would_make_the_secret_known_is_refused() {
        assert_eq!(seal_to_owner(&[0; 32], &[9; 32], b"", b"x"), Err(SealError));
        // The neutral element as an ed25519 key.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(seal_to_node(&NodeId(neutral), &[9; 32], b"", b"x"), Err(SealError));
    }
}
