//! Whole nodes in one process, over loopback with real TLS, real disks and real time: how they let
//! each other in, and what they keep for each other. What a node shows to a person is tested
//! through the real program in `cli`, time and chance in `sim`.

#![allow(clippy::unwrap_used, reason = "a helper that fails has to end its test")]

#[path = "node/door.rs"]
mod door;
#[path = "node/fixture.rs"]
mod fixture;
