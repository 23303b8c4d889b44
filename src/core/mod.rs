//! The brain: every decision, sans-IO. Each part takes what happened and the time, changes its own
//! state and returns what should be done; it never touches a socket, a file, a clock or a source of
//! random bytes.

pub mod catalogue;
pub mod hlc;
pub mod tree;
