//! The content secret of an epoch and what is derived from it: the keys for convergence, lookup,
//! manifests, catalogue bodies and register tags. Who has the secret reads listed files; who has
//! not stores, verifies and repairs them all the same. And the claim that a put's own secret stands
//! for.

use super::NameKey;
use crate::id::{ClaimId, EpochId, FileHash, LookupId, Tag};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The sealed bytes are not what the key, nonce and associated data promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not open")]
pub struct SealError;

/// The claim of a put with this secret: whoever shows the secret may withdraw it. The first two
/// bytes of the secret, which say when it was made (`id::made_at`), then the first bytes of BLAKE3
/// `derive_key`.
pub fn claim_of(secret: &[u8; 16]) -> ClaimId {
    let hash = blake3::derive_key("p2pfs 2026-11 claim of a put v1", secret);
    let mut id = ClaimId([0; 16]);
    id.0[..2].copy_from_slice(&secret[..2]);
    id.0[2..].copy_from_slice(&hash[..14]);
    id
}

/// 32 random bytes: the secret of one epoch.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ContentSecret(pub [u8; 32]);

impl ContentSecret {
    /// The epoch that this secret makes: its BLAKE3 hash, which tells nothing about it.
    pub fn epoch(&self) -> EpochId {
        EpochId(blake3::hash(&self.0).into())
    }
}

impl std::fmt::Debug for ContentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentSecret({})", self.epoch().short())
    }
}

/// The keys that one content secret stands for.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochKeys {
    #[zeroize(skip)]
    epoch: EpochId,
    convergence: [u8; 32],
    lookup: [u8; 32],
    manifest: [u8; 32],
    catalogue: [u8; 32],
    tag: [u8; 32],
    prefix: [u8; 32],
    names: [u8; 32],
}

impl EpochKeys {
    /// Derives the keys of `secret` (BLAKE3 `derive_key`, one context text per key).
    pub fn new(secret: &ContentSecret) -> Self {
        let derive = |context: &str| blake3::derive_key(context, &secret.0);
        Self {
            epoch: secret.epoch(),
            convergence: derive("p2pfs 2026-11 convergence v1"),
            lookup: derive("p2pfs 2026-11 manifest lookup v1"),
            manifest: derive("p2pfs 2026-11 manifest key v1"),
            catalogue: derive("p2pfs 2026-11 catalogue v1"),
            tag: derive("p2pfs 2026-11 register tag v1"),
            prefix: derive("p2pfs 2026-11 hash prefix v1"),
            names: derive("p2pfs 2026-11 rows of names v1"),
        }
    }

    /// The epoch that these keys are of.
    pub const fn epoch(&self) -> EpochId {
        self.epoch
    }

    /// `K_conv`: chunk keys derive from it and the encoded bytes.
    pub(crate) const fn convergence(&self) -> &[u8; 32] {
        &self.convergence
    }

    /// `K_man`: manifest keys derive from it and the file hash.
    pub(crate) const fn manifest(&self) -> &[u8; 32] {
        &self.manifest
    }

    /// What a file record is found by: the 8 bytes of [`Self::prefix`], then the first 24 of
    /// `keyed_hash(K_look, H)`. What is found by a prefix so lies beside it in the tables.
    pub fn lookup(&self, file: &FileHash) -> LookupId {
        #[cfg(p2pfs_planted = "lookup-in-the-clear")]
        return LookupId(file.0);
        #[cfg(not(p2pfs_planted = "lookup-in-the-clear"))]
        {
            let mut id: [u8; 32] = blake3::keyed_hash(&self.lookup, &file.0).into();
            id.copy_within(..24, 8);
            let first = [file.0[0], file.0[1], file.0[2], file.0[3]];
            id[..8].copy_from_slice(&self.prefix(&first));
            LookupId(id)
        }
    }

    /// The register tag of an inode, or of a parent inode and a name: two bytes that say where its
    /// rows lie, so that what is made together lies together, then the first 14 bytes of
    /// `keyed_hash(K_tag, what)`. The caller frames `what` so that no two registers share it.
    pub fn tag(&self, place: [u8; 2], what: &[u8]) -> Tag {
        let mut tag = [0; 16];
        tag[..2].copy_from_slice(&place);
        tag[2..].copy_from_slice(&blake3::keyed_hash(&self.tag, what).as_bytes()[..14]);
        Tag(tag)
    }

    /// A keyed look-up for the first 4 bytes of a file hash, so that a prefix finds a file although
    /// no hash lies in the clear on disk.
    pub fn prefix(&self, first: &[u8; 4]) -> [u8; 8] {
        let mut out = [0; 8];
        out.copy_from_slice(&blake3::keyed_hash(&self.prefix, first).as_bytes()[..8]);
        out
    }

    /// What seals the names that a node keeps at hand for searches.
    pub fn names(&self) -> NameKey {
        NameKey::new(&self.names)
    }

    /// Seals the body of a catalogue record: XChaCha20-Poly1305 with a random nonce.
    pub fn seal_body(&self, nonce: &[u8; 24], associated: &[u8], body: &[u8]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new(&self.catalogue.into());
        let payload = Payload { msg: body, aad: associated };
        cipher
            .encrypt(XNonce::from_slice(nonce), payload)
            .expect("a record is far below the cipher's length limit")
    }

    /// Opens what [`EpochKeys::seal_body`] sealed.
    pub fn open_body(
        &self,
        nonce: &[u8; 24],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let cipher = XChaCha20Poly1305::new(&self.catalogue.into());
        let payload = Payload { msg: sealed, aad: associated };
        cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError)
    }
}

impl std::fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EpochKeys({})", self.epoch.short())
    }
}
