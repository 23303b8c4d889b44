//! The local network as a place where nodes that nobody has told about each other can meet: each
//! announces itself, and hears of the others. Production uses multicast DNS (RFC 6762, 6763), in
//! `lan_os`; what is heard is a rumour that anybody on the network may have made up.

use super::BoxFuture;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Its name for this time: another one at each start, so that nobody is followed by it.
    pub instance: String,
    /// What the nodes of one swarm know each other by; others learn nothing from it.
    pub tag: String,
    /// The only addresses that it listens on; none: it listens on all of its machine's.
    pub ips: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
}

/// A node that announces itself, as far as one believes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its name for this time.
    pub instance: String,
    /// The tag of its swarm.
    pub tag: String,
    /// Where it says that it can be dialled, at most [`Heard::ADDRS_MAX`].
    pub addrs: Vec<SocketAddr>,
}

impl Heard {
    /// Addresses of one node.
    pub const ADDRS_MAX: usize = 8;
}

/// Announces and listens.
pub trait Lan: Send + Sync + 'static {
    /// Announces a node for as long as the result lives, and listens meanwhile.
    fn join(&self, own: &Announcement) -> io::Result<Box<dyn LanNews>>;
}

/// What is heard.
pub trait LanNews: Send {
    /// The next one that is heard of, or heard of again; none: there will be no more, because too
    /// much was said. Nothing is lost when the future is dropped.
    fn next(&mut self) -> BoxFuture<'_, Option<Heard>>;
}
