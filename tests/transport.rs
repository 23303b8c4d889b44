//! The transport against real sockets, hostile peers and the simulated network.

#![allow(clippy::unwrap_used, reason = "a helper that fails has to end its test")]

#[path = "transport/fixture.rs"]
mod fixture;
#[path = "transport/hostile.rs"]
mod hostile;
#[path = "transport/identity.rs"]
mod identity;
#[path = "transport/pace.rs"]
mod pace;
#[path = "transport/simulated.rs"]
mod simulated;
#[path = "transport/traffic.rs"]
mod traffic;
#[path = "harness/turmoil_net.rs"]
mod turmoil_net;
