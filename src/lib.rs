//! p2pfs: peer-to-peer file storage in one executable.

pub mod crypto;
pub mod id;
#[cfg(feature = "daemon")]
pub mod store;
pub mod sys;
pub mod wire;
