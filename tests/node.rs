//! Whole nodes in one process, over loopback with real TLS, real disks and real time: how they let
//! each other in, and what they keep for each other. What a node shows to a person is tested
//! through the real program in `cli`, time and chance in `sim`.

#![allow(clippy::unwrap_used, reason = "a helper that fails has to end its test")]

#[path = "harness/badfs.rs"]
mod badfs;
#[path = "node/balance.rs"]
mod balance;
#[path = "node/door.rs"]
mod door;
#[path = "node/edits.rs"]
mod edits;
#[path = "node/files.rs"]
mod files;
#[path = "node/fixture.rs"]
mod fixture;
#[path = "node/limits.rs"]
mod limits;
#[path = "harness/member.rs"]
mod member;
#[path = "node/news.rs"]
mod news;
#[path = "node/scrub.rs"]
mod scrub;
#[path = "harness/segments.rs"]
mod segments;
#[path = "node/shares.rs"]
mod shares;
#[path = "harness/slow_net.rs"]
mod slow_net;
#[path = "node/thin.rs"]
mod thin;
#[path = "node/withdrawn.rs"]
mod withdrawn;
#[path = "node/work.rs"]
mod work;
