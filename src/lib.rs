//! p2pfs: peer-to-peer file storage in one executable.

pub mod core;
pub mod crypto;
pub mod id;
pub mod sys;
pub mod wire;
