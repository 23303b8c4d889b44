//! Everything that can wake the membership loop, in one closed list.

use crate::core::membership::SelfState;
use crate::id::NodeId;
use crate::transport::LinkEvent;
use crate::wire::gossip::GossipMessage;
use std::net::SocketAddr;
use tokio::sync::oneshot;

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A control connection came up or went down.
    Link(LinkEvent),
    /// A peer gossips.
    Gossip(NodeId, GossipMessage),
    /// A dial that the membership asked for failed.
    DialFailed(SocketAddr, Option<NodeId>),
    /// A bootstrap name resolved to this address.
    Bootstrap(SocketAddr),
    /// What this node says of itself has changed.
    SetSelf(Box<SelfState>),
    /// The node leaves; answered when everybody linked has been told.
    Leave(oneshot::Sender<()>),
}
