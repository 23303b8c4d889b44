//! Keys and sealing: who signs, what is derived from what, and how bytes are made unreadable.
//! Everything here is a function of its arguments; random bytes are always passed in.

mod identity;
mod secret;

pub use identity::{NodeKey, SIGNATURE_LEN, SwarmKey, verify};
pub use secret::{ContentSecret, EpochKeys, SealError};
