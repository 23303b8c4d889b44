//! What machines do to real daemons: processes that are killed at a system call, disks that lose
//! what was not synced, refuse or are full, networks that are cut, peers that hang or flood. Each
//! test makes what it needs, a file system on a loop device, network namespaces, a tracer, and says
//! why when it cannot; they run one after the other, because some of them measure.
//!
//! ```text
//! cargo test --test torture                                              # some of each, minutes
//! P2PFS_TORTURE=full cargo test --release --test torture -- --nocapture  # all, more than an hour
//! ```
//!
//! `P2PFS_TORTURE_SEED` repeats a run's decisions, not their timing. What came out is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and reports")]

#[path = "harness/daemon.rs"]
mod daemon;
#[path = "torture/disk.rs"]
mod disk;
#[path = "torture/drafts.rs"]
mod drafts;
#[path = "torture/errors.rs"]
mod errors;
#[path = "torture/flood.rs"]
mod flood;
#[path = "torture/full_disk.rs"]
mod full_disk;
#[path = "torture/kill_at.rs"]
mod kill_at;
#[path = "torture/lan.rs"]
mod lan;
#[path = "torture/machine.rs"]
mod machine;
#[path = "harness/member.rs"]
mod member;
#[path = "torture/net.rs"]
mod net;
#[path = "torture/partitions.rs"]
mod partitions;
#[path = "torture/power.rs"]
mod power;
#[path = "torture/program.rs"]
mod program;
#[path = "torture/purge.rs"]
mod purge;
#[path = "torture/restart.rs"]
mod restart;
#[path = "harness/room.rs"]
mod room;
#[path = "harness/said.rs"]
mod said;
#[path = "torture/stopped.rs"]
mod stopped;
#[path = "torture/trace.rs"]
mod trace;
#[path = "torture/wiped.rs"]
mod wiped;
