//! Swarms of real daemons on loopback: what a person with several machines relies on. `survive` is
//! about nodes that die and disks that rot, `tree`, `remove` and `search` about names, `history`
//! about former versions and news, `pins` about full copies, `moves` about copies that change
//! places, `entry` about who gets in and finds the others again, `links` about files as one word,
//! `content` about files of all shapes, `request` about files from one named peer, `shares` about
//! files that are served in place. The merge of a partition, lost packets and slow links are
//! simulated (`tests/sim.rs`), since they need a network that obeys.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "swarm/content.rs"]
mod content;
#[path = "harness/daemon.rs"]
mod daemon;
#[path = "harness/damage.rs"]
mod damage;
#[path = "swarm/directories.rs"]
mod directories;
#[path = "swarm/entry.rs"]
mod entry;
#[path = "swarm/history.rs"]
mod history;
#[path = "swarm/links.rs"]
mod links;
#[path = "swarm/moves.rs"]
mod moves;
#[path = "swarm/pins.rs"]
mod pins;
#[path = "swarm/remove.rs"]
mod remove;
#[path = "swarm/request.rs"]
mod request;
#[path = "harness/room.rs"]
mod room;
#[path = "harness/said.rs"]
mod said;
#[path = "swarm/search.rs"]
mod search;
#[path = "harness/segments.rs"]
mod segments;
#[path = "swarm/shares.rs"]
mod shares;
#[path = "swarm/survive.rs"]
mod survive;
#[path = "swarm/tree.rs"]
mod tree;
