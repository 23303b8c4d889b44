//! Everything that can wake the membership loop: one closed list of events in a bounded queue, and
//! the links that came and went, of which none may be lost or told out of order.

use super::lock;
use crate::core::membership::SelfState;
use crate::id::NodeId;
use crate::transport::LinkEvent;
use crate::wire::gossip::GossipMessage;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A peer gossips; the permit is for the message's memory.
    Gossip(NodeId, GossipMessage, OwnedSemaphorePermit),
    /// A dial that the membership asked for failed.
    DialFailed(SocketAddr, Option<NodeId>),
    /// A bootstrap name resolved to this address.
    Bootstrap(SocketAddr),
    /// What this node says of itself has changed.
    SetSelf(Box<SelfState>),
    /// The node leaves; answered when everybody linked has been told.
    Leave(oneshot::Sender<()>),
}

/// What happened to control connections and is not told to the loop yet. Of each peer the last
/// event stands for all of them: a link that came up again replaces the one that was there, one
/// that is gone was perhaps never seen. So this is as long as there are peers, and never loses one.
#[derive(Default)]
pub(super) struct LinkNews {
    last: Mutex<BTreeMap<NodeId, LinkEvent>>,
    came: Notify,
}

impl LinkNews {
    /// Notes an event. Never waits.
    pub(super) fn tell(&self, peer: NodeId, event: LinkEvent) {
        lock(&self.last).insert(peer, event);
        self.came.notify_one();
    }

    /// Waits for events; the last of each peer.
    pub(super) async fn next(&self) -> BTreeMap<NodeId, LinkEvent> {
        loop {
            let news = std::mem::take(&mut *lock(&self.last));
            if !news.is_empty() {
                return news;
            }
            self.came.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Ended;

    #[tokio::test]
    async fn of_each_peer_the_last_event_is_told() {
        let news = LinkNews::default();
        let peer = NodeId([1; 32]);
        let addr = "127.0.0.1:4000".parse().unwrap();
        let up = LinkEvent::Up { peer, dialled: true, addr, observed: None, stranger: false };
        news.tell(peer, up.clone());
        news.tell(peer, LinkEvent::Down { peer, how: Ended::Closed });
        news.tell(peer, up.clone());
        assert_eq!(news.next().await.into_values().collect::<Vec<_>>(), [up]);
        let none = tokio::time::timeout(std::time::Duration::from_millis(10), news.next());
        assert!(none.await.is_err());
    }
}
