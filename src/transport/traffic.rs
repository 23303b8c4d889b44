//! How many bytes went to and came from each peer, over all its connections since the start, and
//! how fast they go now. Owns the counters; who is worth remembering is said by the transport's
//! owner.
//!
//! Invariant: strangers are not remembered, so that there are as many counters as members at most,
//! once [`Book::retain`] was called.

use super::pace::{Pace, Way};
use crate::id::NodeId;
use crate::wire::hello::Lane;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of frames, and bytes per second of the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sent since the start.
    pub sent: u64,
    /// Received since the start.
    pub received: u64,
    /// Sent per second.
    pub sending: u64,
    /// Received per second.
    pub receiving: u64,
}

#[derive(Default)]
struct Counter {
    all: AtomicU64,
    /// What it was at the last look, and how fast it grew up to then.
    before: AtomicU64,
    rate: AtomicU64,
}

impl Counter {
    fn look(&self, since: Duration) {
        let all = self.all.load(Relaxed);
        let grown = all - self.before.swap(all, Relaxed);
        let millis = since.as_millis().max(1);
        let rate = u64::try_from(u128::from(grown) * 1_000 / millis).unwrap_or(u64::MAX);
        self.rate.store(rate, Relaxed);
    }
}

/// The counters of one peer, or of all.
#[derive(Default)]
struct Traffic {
    sent: Counter,
    received: Counter,
}

impl Traffic {
    const fn way(&self, way: Way) -> &Counter {
        match way {
            Way::Up => &self.sent,
            Way::Down => &self.received,
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            sent: self.sent.all.load(Relaxed),
            received: self.received.all.load(Relaxed),
            sending: self.sent.rate.load(Relaxed),
            receiving: self.received.rate.load(Relaxed),
        }
    }

    fn look(&self, since: Duration) {
        self.sent.look(since);
        self.received.look(since);
    }
}

/// All counters.
pub(super) struct Book {
    all: Arc<Traffic>,
    peers: Mutex<BTreeMap<NodeId, Arc<Traffic>>>,
    pace: Arc<Pace>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self { all: Arc::default(), peers: Mutex::default(), pace: Arc::new(Pace::new()) }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Traffic>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What a connection to a peer counts with.
    pub(super) fn meter(&self, peer: NodeId, lane: Lane, stranger: bool) -> Meter {
        let own = match stranger {
            true => Arc::default(),
            false => self.peers().entry(peer).or_default().clone(),
        };
        Meter { peer, lane, own, all: self.all.clone(), pace: self.pace.clone() }
    }

    pub(super) fn all(&self) -> Totals {
        self.all.totals()
    }

    pub(super) fn totals(&self) -> BTreeMap<NodeId, Totals> {
        self.peers().iter().map(|(peer, traffic)| (*peer, traffic.totals())).collect()
    }

    /// Measures how fast it goes; `since` is the time since the last look.
    pub(super) fn look(&self, since: Duration) {
        self.all.look(since);
        self.peers().values().for_each(|traffic| traffic.look(since));
    }

    /// Forgets all peers that are neither wanted nor connected.
    pub(super) fn retain(&self, wanted: impl Fn(&NodeId) -> bool) {
        self.peers().retain(|peer, traffic| wanted(peer) || Arc::strong_count(traffic) > 1);
    }
}

/// The counters and the limits of one connection.
pub(super) struct Meter {
    peer: NodeId,
    lane: Lane,
    own: Arc<Traffic>,
    all: Arc<Traffic>,
    pace: Arc<Pace>,
}

impl Meter {
    /// Counts bytes that went. Those of control messages are paid for by the others, which wait.
    pub(super) fn count(&self, way: Way, bytes: usize) {
        self.own.way(way).all.fetch_add(bytes as u64, Relaxed);
        self.all.way(way).all.fetch_add(bytes as u64, Relaxed);
        if self.lane == Lane::Control {
            self.pace.charge(self.peer, way, bytes);
        }
    }

    /// How many bytes may go at once before [`Meter::wait`]; none: all, without it.
    pub(super) fn piece(&self, way: Way) -> Option<usize> {
        match self.lane {
            Lane::Control => None,
            Lane::Bulk => self.pace.piece(self.peer, way),
        }
    }

    /// Waits until a piece may go; whether it had to wait.
    pub(super) async fn wait(&self, way: Way, bytes: usize) -> bool {
        self.pace.wait(self.peer, way, bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_by_peer_and_in_all_and_strangers_are_not_remembered() {
        let book = Book::new();
        let (ann, eve) = (NodeId([1; 32]), NodeId([2; 32]));
        let meter = book.meter(ann, Lane::Bulk, false);
        book.meter(ann, Lane::Control, false).count(Way::Up, 5);
        meter.count(Way::Up, 1_000);
        book.meter(eve, Lane::Control, true).count(Way::Down, 7);
        book.look(Duration::from_millis(500));
        let said = Totals { sent: 1_005, sending: 2_010, ..Totals::default() };
        assert_eq!(book.totals(), [(ann, said)].into());
        assert_eq!(book.all(), Totals { received: 7, receiving: 14, ..said });
        book.look(Duration::from_secs(1));
        assert_eq!(book.all().sending, 0);
        book.retain(|_| false);
        assert_eq!(book.totals().len(), 1, "it is connected");
        drop(meter);
        book.retain(|_| false);
        assert!(book.totals().is_empty());
    }
}
