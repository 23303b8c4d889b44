//! Signing keys: the node key, whose public half is the node's id, and the swarm key, which signs
//! grants and epochs. Every signature is over a domain text and the message, so that a signature
//! made for one purpose can never be shown for another.

use crate::id::{NodeId, SwarmId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// A node's ed25519 key.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// The key that a 32-byte seed stands for (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed: the secret itself.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for the purpose `domain`.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&framed(domain, message)).to_bytes()
    }

    /// The X25519 secret that belongs to this key, for opening what is sealed to the node.
    pub(crate) fn x25519(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({})", self.id().short())
    }
}

/// The swarm's ed25519 key: who has it is admin.
#[derive(Clone)]
pub struct SwarmKey(SigningKey);

impl SwarmKey {
    /// The key that a 32-byte seed stands for (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed: the secret itself.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half, which every member knows.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The swarm that this key rules.
    pub fn swarm(&self) -> SwarmId {
        Self::swarm_of(&self.public())
    }

    /// The swarm that the key with this public half rules.
    pub fn swarm_of(public: &[u8; 32]) -> SwarmId {
        SwarmId(blake3::hash(public).into())
    }

    /// Signs `message` for the purpose `domain`.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&framed(domain, message)).to_bytes()
    }
}

impl std::fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SwarmKey({})", self.swarm().short())
    }
}

/// Whether `signature` over `message` for the purpose `domain` was made by the owner of `public`
/// (a [`NodeId`]'s bytes or a swarm's public key). Strict: weak keys and malleable signatures fail.
pub fn verify(
    public: &[u8; 32],
    domain: &str,
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    VerifyingKey::from_bytes(public).is_ok_and(|key| {
        key.verify_strict(&framed(domain, message), &Signature::from_bytes(signature)).is_ok()
    })
}

/// The domain cannot run into the message: its length stands before it.
fn framed(domain: &str, message: &[u8]) -> Vec<u8> {
    let len = u8::try_from(domain.len()).expect("domains are short constants of this crate");
    let mut out = Vec::with_capacity(1 + domain.len() + message.len());
    out.push(len);
    out.extend_from_slice(domain.as_bytes());
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_only_for_its_key_purpose_and_message() {
        let key = NodeKey::from_seed(&[7; 32]);
        let other = NodeKey::from_seed(&[8; 32]);
        let signature = key.sign("p2pfs test", b"message");
        assert!(verify(&key.id().0, "p2pfs test", b"message", &signature));
        assert!(!verify(&other.id().0, "p2pfs test", b"message", &signature));
        assert!(!verify(&key.id().0, "p2pfs tes", b"tmessage", &signature));
        assert!(!verify(&key.id().0, "p2pfs test", b"massage", &signature));
    }
}
