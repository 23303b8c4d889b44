//! p2pfs: peer-to-peer file storage in one executable.

pub mod crypto;
pub mod id;
pub mod sys;
#[cfg(feature = "daemon")]
pub mod transport;
pub mod wire;
