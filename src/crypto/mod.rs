//! Keys and sealing: who signs, what is derived from what, and how bytes are made unreadable.
//! Everything here is a function of its arguments; random bytes are always passed in.
//!
//! A private file is sealed like any other, with [`EpochKeys::new`] of its own random secret in
//! place of the swarm's: its keys and its lookup id then derive from that secret alone.

mod encoding;
mod identity;
mod manifest;
mod names;
mod pake;
mod seal;
mod sealed_box;
mod secret;
mod sectors;
mod xts;

pub use encoding::EncodingError;
pub use identity::{NodeKey, SIGNATURE_LEN, SwarmKey, verify};
pub use names::NameKey;
pub use pake::{
    CodeError, PAKE_MESSAGE_LEN, Paired, PairingAdmin, PairingCode, PairingJoiner, PakeError,
};
pub use seal::{
    ChunkBuf, MAX_SEALED, OpenError, Opener, Sealed, Sealer, TAG_LEN, chunk_id, open_page, reseal,
    seal_page,
};
pub use sealed_box::{BOX_OVERHEAD, OwnerKey, seal_to_node, seal_to_owner};
pub use secret::{ContentSecret, EpochKeys, SealError, claim_of};
pub use sectors::{SECTOR, SectorKey};
