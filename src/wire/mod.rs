//! Bytes between nodes and to the local command.

pub mod approve;
pub mod codec;
pub mod control;
<<<<<<< HEAD
pub mod message;
=======
pub mod frame;
pub mod hello;
>>>>>>> transport
