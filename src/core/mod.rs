//! The brain: every decision, sans-IO. Each part takes what happened and the time, changes its own
//! state and returns what should be done; it never touches a socket, a file, a clock or a source of
//! random bytes, and never iterates a map whose order is not part of the seed. The shell (`node`)
//! acts. `cargo check --lib --no-default-features` builds this band without tokio, which proves it.

pub mod access;
pub mod catalogue;
pub mod hlc;
pub mod limits;
pub mod membership;
pub mod placement;
pub mod repair;
pub mod search;
pub mod transfer;
pub mod tree;
pub mod work;
