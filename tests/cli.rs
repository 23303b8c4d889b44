//! The real executable, from outside. `offline` needs no daemon; `door` and `files` put a small
//! service behind the real socket, so that the language, the descriptors and the screens are
//! tested without a node.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

#[path = "cli/door.rs"]
mod door;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/offline.rs"]
mod offline;
#[path = "harness/said.rs"]
mod said;
