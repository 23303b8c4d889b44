//! Bytes between nodes and to the local command.

pub mod codec;
pub mod control;
pub mod sync;
