//! How much of what peers ask is answered at once. A question takes a multiple of its length while
//! it is decoded, looked up and written down, and a member may ask as many long ones as its
//! connections hold; so they take turns. Owns the budget; what a question means is not its matter.
//!
//! Invariant: a peer holds a share of the budget only, and short questions hardly wait for others'
//! long ones.

use super::lock;
use crate::id::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a byte of a question may take: a claim's id is an operation and a row of a table.
const TIMES: usize = 8;
/// Bytes that the shortest question takes.
const LEAST: usize = 2048;
/// The part of the budget that one peer may hold.
const SHARE: usize = 3;

/// A budget for questions.
pub(super) struct Asked {
    bytes: usize,
    all: Arc<Semaphore>,
    /// The share of each peer, as long as it holds some.
    peers: Mutex<BTreeMap<NodeId, Weak<Semaphore>>>,
}

/// The right to answer one question.
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
}

impl Asked {
    /// A budget of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, all: Arc::new(Semaphore::new(bytes)), peers: Mutex::default() }
    }

    /// Waits until a question of this length from this peer may be answered.
    pub(super) async fn turn(&self, peer: NodeId, len: usize) -> Turn {
        let open = "the semaphores are never closed";
        let most = self.bytes / SHARE;
        let takes = (len * TIMES).max(LEAST).min(most);
        let takes = u32::try_from(takes).expect("the budget is far below 4 GiB");
        let share = self.share_of(peer, most);
        let share = share.acquire_many_owned(takes).await.expect(open);
        let all = self.all.clone().acquire_many_owned(takes).await.expect(open);
        Turn { _all: all, _share: share }
    }

    fn share_of(&self, peer: NodeId, most: usize) -> Arc<Semaphore> {
        let mut peers = lock(&self.peers);
        peers.retain(|_, share| share.strong_count() > 0);
        let share = peers.get(&peer).and_then(Weak::upgrade);
        share.unwrap_or_else(|| {
            let share = Arc::new(Semaphore::new(most));
            peers.insert(peer, Arc::downgrade(&share));
            share
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// Whether a turn can be had at once.
    fn turn(asked: &Asked, peer: u8, len: usize) -> Option<Turn> {
        let mut waiting = Box::pin(asked.turn(NodeId([peer; 32]), len));
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn long_questions_of_one_peer_take_turns_and_leave_room_for_others() {
        let asked = Asked::new(24 * 10_000);
        let first = turn(&asked, 1, 9_000).unwrap();
        assert!(turn(&asked, 1, 2_000).is_none());
        assert!(turn(&asked, 1, 1_000).is_some());
        // Longer than its share: alone, and not never.
        let second = turn(&asked, 2, 1 << 20).unwrap();
        let third = turn(&asked, 3, 10_000).unwrap();
        assert!(turn(&asked, 4, 2_000).is_none());
        drop((first, second, third));
        assert!(turn(&asked, 1, 10_000).is_some());
        // However short they are.
        let many: Vec<Turn> = (0..39).map(|_| turn(&asked, 1, 0).unwrap()).collect();
        assert!(turn(&asked, 1, 0).is_none());
        drop(many);
    }
}
