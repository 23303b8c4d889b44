//! Which peer to ask, when to ask another as well, and whom not to ask first for now.
//!
//! Owns what is known of each peer's speed: a smoothed response time (RFC 6298's gain of 1/8), the
//! recent ones for a 95th percentile, and the requests under way; and how full it was when it last
//! took something, with what is on its way to it. It knows nothing of chunks and
//! sends nothing. Invariant: a peer that let a request hang is never asked first again before it
//! has answered something.

use super::limits::{HEDGE_MAX, HEDGE_MIN};
use super::placement::millionths;
use crate::id::NodeId;
use crate::sys::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Response times kept per peer: enough that the 95th percentile is not the maximum.
const RECENT: usize = 32;
/// Response time assumed of a peer that was never asked, so that newcomers are tried.
const UNKNOWN_US: u64 = 1_000;
/// The part of a response time that is forgotten with each answer of another peer: slow enough
/// that a peer which is twenty times as slow as others is asked about once in a hundred times.
const FADES: u64 = 64;
/// Bad chunks after which a holder is asked last.
const STRIKES_MAX: u32 = 3;
/// How long what a peer said of its room is better than what gossip says: as long as that may be
/// late.
const ROOM_LASTS: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Peer {
    smoothed_us: u64,
    recent_us: VecDeque<u64>,
    in_flight: u32,
    hung: bool,
    strikes: u32,
    room: Option<Room>,
    /// Bytes that are on their way to it.
    coming: u64,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    at: Time,
    used: u64,
    capacity: u64,
}

/// What is known of the peers' speed.
#[derive(Debug, Default)]
pub struct Chooser {
    peers: BTreeMap<NodeId, Peer>,
}

impl Chooser {
    /// The holders, best first: by smoothed response time times the queue that is already there,
    /// so that a big file is striped over all of them; then those with strikes, then hung ones.
    /// Equals stay in the order given, which is the order of placement.
    pub fn order(&self, holders: &[NodeId]) -> Vec<NodeId> {
        let mut out = holders.to_vec();
        out.sort_by_key(|id| {
            let expected = self.peers.get(id).map_or(UNKNOWN_US, |peer| {
                let smoothed = if peer.smoothed_us == 0 { UNKNOWN_US } else { peer.smoothed_us };
                smoothed.saturating_mul(u64::from(peer.in_flight) + 1)
            });
            (self.is_last(id), expected)
        });
        out
    }

    /// Whether a holder is asked only after all others: it hangs, or sent bad chunks. Of two such
    /// the greater comes later.
    pub fn is_last(&self, id: &NodeId) -> (bool, bool) {
        self.peers.get(id).map_or((false, false), |peer| (peer.hung, peer.strikes >= STRIKES_MAX))
    }

    /// The smoothed response time in microseconds, 0 when it was never measured, and the requests
    /// under way.
    pub fn speed(&self, id: &NodeId) -> (u32, u32) {
        self.peers.get(id).map_or((0, 0), |peer| {
            (u32::try_from(peer.smoothed_us).unwrap_or(u32::MAX), peer.in_flight)
        })
    }

    /// Whether the peer let a request hang and has not answered since.
    pub fn hung(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.hung)
    }

    /// The peer has just said how full it is.
    pub fn has_room(&mut self, id: NodeId, at: Time, used: u64, capacity: u64) {
        self.peers.entry(id).or_default().room = Some(Room { at, used, capacity });
    }

    /// Bytes that are to be stored set out for the peer.
    pub fn sets_out(&mut self, id: NodeId, bytes: u64) {
        let peer = self.peers.entry(id).or_default();
        peer.coming = peer.coming.saturating_add(bytes);
    }

    /// They are there, or will not come.
    pub fn arrived(&mut self, id: NodeId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.coming = peer.coming.saturating_sub(bytes);
        }
    }

    /// How full the peer is, in millionths, with what is on its way to it; `said` is what it says
    /// to everybody, of so many bytes.
    pub fn used(&self, id: &NodeId, now: Time, said: u32, capacity: u64) -> u32 {
        let Some(peer) = self.peers.get(id) else { return said };
        let (used, capacity) = match peer.room.filter(|room| now.since(room.at) < ROOM_LASTS) {
            Some(Room { used, capacity, .. }) => (millionths(used, capacity), capacity),
            None => (said, capacity),
        };
        used.saturating_add(millionths(peer.coming, capacity))
    }

    /// A request to the peer begins.
    pub fn started(&mut self, id: NodeId) {
        self.peers.entry(id).or_default().in_flight += 1;
    }

    /// A request ended with an answer after `took`. What is known of peers that are not asked fades
    /// by it: one that was slow for a moment is tried again.
    pub fn answered(&mut self, id: NodeId, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        for (_, other) in self.peers.iter_mut().filter(|(other, _)| **other != id) {
            if other.in_flight == 0 && other.smoothed_us > UNKNOWN_US {
                other.smoothed_us -= other.smoothed_us / FADES;
            }
        }
        let peer = self.peers.entry(id).or_default();
        peer.in_flight = peer.in_flight.saturating_sub(1);
        peer.hung = false;
        peer.smoothed_us = match peer.smoothed_us {
            0 => micros,
            old => old - old / 8 + micros / 8,
        };
        if peer.recent_us.len() == RECENT {
            peer.recent_us.pop_front();
        }
        peer.recent_us.push_back(micros);
    }

    /// A request ended without an answer: failed, or given up because another was faster.
    pub fn ended(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
    }

    /// A request was not answered within [`Chooser::hedge_after`].
    pub fn overdue(&mut self, id: NodeId) {
        self.peers.entry(id).or_default().hung = true;
    }

    /// The peer shows life.
    pub fn alive(&mut self, id: NodeId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.hung = false;
        }
    }

    /// A chunk from the peer failed its check. Returns its strikes.
    pub fn strike(&mut self, id: NodeId) -> u32 {
        let peer = self.peers.entry(id).or_default();
        peer.strikes = peer.strikes.saturating_add(1);
        peer.strikes
    }

    /// Chunks from the peer that failed their check.
    pub fn strikes(&self, id: &NodeId) -> u32 {
        self.peers.get(id).map_or(0, |peer| peer.strikes)
    }

    /// The smoothed response time, once there is one.
    pub fn smoothed(&self, id: &NodeId) -> Option<Duration> {
        let micros = self.peers.get(id)?.smoothed_us;
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// How long to wait for the peer before another is asked as well: twice its 95th percentile,
    /// within 250 ms and 1 s. A hung one is not waited for longer than the least.
    pub fn hedge_after(&self, id: &NodeId) -> Duration {
        let Some(peer) = self.peers.get(id).filter(|peer| !peer.hung) else { return HEDGE_MIN };
        let mut recent: Vec<u64> = peer.recent_us.iter().copied().collect();
        recent.sort_unstable();
        let p95 = recent.get(recent.len() * 95 / 100).copied().unwrap_or(0);
        Duration::from_micros(p95.saturating_mul(2)).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    /// Forgets all peers that are not `wanted`, so that the table never outgrows the membership.
    pub fn retain(&mut self, wanted: impl Fn(&NodeId) -> bool) {
        self.peers.retain(|id, _| wanted(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn asked(chooser: &mut Chooser, id: NodeId, ms: u64) {
        chooser.started(id);
        chooser.answered(id, Duration::from_millis(ms));
    }

    #[test]
    fn the_fastest_is_asked_first_and_a_queue_makes_it_slower() {
        let mut chooser = Chooser::default();
        asked(&mut chooser, A, 10);
        asked(&mut chooser, B, 4);
        assert_eq!(chooser.order(&[A, B]), [B, A]);
        for _ in 0..3 {
            chooser.started(B);
        }
        assert_eq!(chooser.order(&[A, B]), [A, B], "4 ms × 4 in flight is slower than 10 ms");
    }

    #[test]
    fn one_that_was_slow_once_is_tried_again_and_one_that_stays_slow_seldom() {
        let mut chooser = Chooser::default();
        asked(&mut chooser, A, 200);
        asked(&mut chooser, B, 100);
        let mut to_a = 0;
        for _ in 0..1_000 {
            let first = chooser.order(&[A, B])[0];
            to_a += u32::from(first == A);
            asked(&mut chooser, first, if first == A { 5 } else { 100 });
        }
        assert!(to_a > 900, "{to_a} of 1,000 to the one that is fast now");
    }

    #[test]
    fn a_hung_peer_is_asked_last_until_it_answers() {
        let mut chooser = Chooser::default();
        asked(&mut chooser, A, 1);
        chooser.overdue(A);
        assert_eq!(chooser.order(&[A, B]), [B, A]);
        assert_eq!(chooser.hedge_after(&A), HEDGE_MIN);
        chooser.alive(A);
        assert_eq!(chooser.order(&[A, B]), [A, B]);
    }

    #[test]
    fn hedging_follows_the_slow_but_never_waits_over_a_second() {
        let mut chooser = Chooser::default();
        (0..20).for_each(|_| asked(&mut chooser, A, 300));
        assert_eq!(chooser.hedge_after(&A), Duration::from_millis(600));
        (0..40).for_each(|_| asked(&mut chooser, A, 5000));
        assert_eq!(chooser.hedge_after(&A), HEDGE_MAX);
    }

    #[test]
    fn what_a_peer_said_of_its_room_counts_for_a_minute_and_what_comes_to_it_always() {
        let mut chooser = Chooser::default();
        let (said, gib) = (500_000, 1 << 30);
        assert_eq!(chooser.used(&A, Time(0), said, gib), said);
        chooser.sets_out(A, gib / 4);
        assert_eq!(chooser.used(&A, Time(0), said, gib), 750_000);
        chooser.has_room(A, Time(0), gib / 2, 2 * gib);
        assert_eq!(chooser.used(&A, Time(0), said, gib), 375_000);
        chooser.arrived(A, gib / 4);
        let late = Time(0) + ROOM_LASTS;
        assert_eq!(chooser.used(&A, Time(0), said, gib), 250_000);
        assert_eq!(chooser.used(&A, late, said, gib), said);
        chooser.has_room(A, late, u64::MAX, 0);
        assert_eq!(chooser.used(&A, late, said, gib), 1_000_000);
    }

    #[test]
    fn three_bad_chunks_send_a_holder_to_the_end() {
        let mut chooser = Chooser::default();
        asked(&mut chooser, A, 1);
        asked(&mut chooser, B, 50);
        assert_eq!((0..3).map(|_| chooser.strike(A)).last(), Some(3));
        assert_eq!(chooser.order(&[A, B]), [B, A]);
    }
}
