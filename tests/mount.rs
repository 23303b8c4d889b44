//! Mounts of real daemons on `/dev/fuse`: what programs expect of a disk and what a shared one
//! adds. `probe` has what applications rely on, one by one; `programs` whole programs; `shared`
//! several nodes; `removed` what several remove and make at once; `edited` files to which something
//! happens meanwhile; `renamed` names and the end of the daemon; `ends` how mounts come and go;
//! `copies` conflict copies; `full` what happens without room; `holes` the room that holes give
//! back; `listed` directories of many names; `write` changes without a mount; `fsx` random
//! operations.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "mount/copies.rs"]
mod copies;
#[path = "harness/daemon.rs"]
mod daemon;
#[path = "mount/edited.rs"]
mod edited;
#[path = "mount/ends.rs"]
mod ends;
#[path = "mount/fsx.rs"]
mod fsx;
#[path = "mount/full.rs"]
mod full;
#[path = "mount/holes.rs"]
mod holes;
#[path = "mount/listed.rs"]
mod listed;
#[path = "mount/mounted.rs"]
mod mounted;
#[path = "mount/probe.rs"]
mod probe;
#[path = "mount/programs.rs"]
mod programs;
#[path = "mount/removed.rs"]
mod removed;
#[path = "mount/renamed.rs"]
mod renamed;
#[path = "harness/said.rs"]
mod said;
#[path = "mount/shared.rs"]
mod shared;
#[path = "mount/write.rs"]
mod write;
