//! Bytes between nodes and to the local command: every format that leaves the process. Owns what is
//! said and how it is encoded; sockets and meaning belong to the bands above.

pub mod approve;
pub mod codec;
pub mod control;
pub mod frame;
pub mod gossip;
pub mod hello;
pub mod link;
pub mod message;
pub mod sync;
