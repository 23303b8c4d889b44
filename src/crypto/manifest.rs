//! Sealing of a manifest (or root) under its file's hash: who knows `H` and reads in the epoch
//! opens it, and so can prove it. Owns the key and nonce derivation; the manifest's form is
//! `chunk`'s.
//!
//! # Format
//!
//! ```text
//! key = BLAKE3 derive_key("p2pfs 2026-11 manifest one v1", K_man ‖ H)
//! n   = first 24 bytes of keyed_hash(derive_key("p2pfs 2026-11 manifest nonce v1", K_man),
//! manifest) M   = n ‖ XChaCha20-Poly1305(key, n, manifest, aad = L)
//! ```
//!
//! Invariant: one `H` may have several manifests (another epoch's chunks, other options), so the
//! nonce is a function of the manifest's bytes: equal nonces under one key mean equal bytes.

use super::seal::OpenError;
use super::{EpochKeys, SealError};
use crate::chunk::Manifest;
use crate::id::FileHash;
use crate::wire::codec::{Decode, Encode};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

const KEY_CONTEXT: &str = "p2pfs 2026-11 manifest one v1";
const NONCE_CONTEXT: &str = "p2pfs 2026-11 manifest nonce v1";
const NONCE_LEN: usize = 24;

impl EpochKeys {
    /// Seals the manifest of the file `hash`. The result is stored as a chunk, named by
    /// [`super::chunk_id`], or inline in the file record when it has one row.
    pub fn seal_manifest(&self, hash: &FileHash, manifest: &Manifest) -> Vec<u8> {
        let plain = manifest.to_bytes();
        let nonce_key = blake3::derive_key(NONCE_CONTEXT, self.manifest());
        let nonce = blake3::keyed_hash(&nonce_key, &plain);
        let nonce = &nonce.as_bytes()[..NONCE_LEN];
        let payload = Payload { msg: &plain, aad: &self.lookup(hash).0 };
        let sealed = self
            .manifest_cipher(hash)
            .encrypt(XNonce::from_slice(nonce), payload)
            .expect("a manifest is far below the cipher's length limit");
        [nonce, &sealed].concat()
    }

    /// Opens what [`EpochKeys::seal_manifest`] sealed for the file `hash`, and proves it.
    pub fn open_manifest(&self, hash: &FileHash, sealed: &[u8]) -> Result<Manifest, OpenError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(OpenError::Length)?;
        let payload = Payload { msg: sealed, aad: &self.lookup(hash).0 };
        let plain = self
            .manifest_cipher(hash)
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| SealError)?;
        let manifest = Manifest::from_bytes(&plain)?;
        manifest.prove(hash)?;
        Ok(manifest)
    }

    fn manifest_cipher(&self, hash: &FileHash) -> XChaCha20Poly1305 {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        hasher.update(self.manifest()).update(&hash.0);
        XChaCha20Poly1305::new(&<[u8; 32]>::from(hasher.finalize()).into())
    }
}
