//! How fast bytes may go: limits for all peers together and for single ones, each way, changed
//! while the transport runs. It owns who waits and for how long; what goes over which connection,
//! and that control messages never wait, is the caller's matter.
//!
//! Whoever wants to move a piece of bytes takes it from the bucket at once and then waits until all
//! that was taken before is paid for: first come, first served, and all connections share a limit
//! in turns of one piece. Pieces are the shorter the lower the limit is, so that no connection of
//! many stands still for a second.
//!
//! Invariant: without a limit nothing is locked, counted or waited for.

use crate::id::NodeId;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The least limit in bytes per second: a lower one would look like a connection that is dead.
pub const LEAST_RATE: u64 = 64 << 10;
/// Most peers with limits of their own.
pub const PACED_MAX: usize = 64;

/// What may go at once after a rest: so much, …
const BURST_LEAST: u64 = 64 << 10;
/// … or what goes in this time, when that is more.
const BURST: Duration = Duration::from_millis(100);
/// Longest time for which messages that do not wait keep all others waiting.
const DEBT_MAX: Duration = Duration::from_millis(500);
/// Shorter waits are not worth a timer: they add up until they are.
const WAIT_LEAST: Duration = Duration::from_millis(2);
/// Longest and shortest piece; between them, what goes in a 64th of a second.
const PIECE_MAX: u64 = 16 << 10;
const PIECE_MIN: u64 = 2 << 10;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Limits in bytes per second; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Of what is sent.
    pub up: Option<u64>,
    /// Of what is received.
    pub down: Option<u64>,
}

/// Limits for [`PACED_MAX`] peers are set already; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{PACED_MAX} peers have limits of their own already")]
pub struct TooManyPaced;

/// Bytes per second, and when all that was taken is paid for.
#[derive(Debug)]
struct Bucket {
    rate: Option<u64>,
    due: Instant,
}

impl Bucket {
    const fn new(now: Instant, rate: Option<u64>) -> Self {
        Self { rate, due: now }
    }

    /// Another rate from now on; what was taken at the old one is forgiven.
    fn set(&mut self, now: Instant, rate: Option<u64>) {
        if self.rate != rate {
            *self = Self::new(now, rate);
        }
    }

    /// Takes `bytes`; how long whoever moves them has to wait before that, if at all.
    fn take(&mut self, now: Instant, bytes: u64) -> Option<Duration> {
        let rate = self.rate?;
        let burst = span(BURST_LEAST, rate).max(BURST);
        self.due = self.due.max(now.checked_sub(burst).unwrap_or(now));
        let wait = self.due.saturating_duration_since(now);
        self.due += span(bytes, rate);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts `bytes` that were moved without waiting. Those who wait pay for them, up to a bound.
    fn charge(&mut self, now: Instant, bytes: u64) {
        let most = self.due.max(now + DEBT_MAX);
        let _others_wait = self.take(now, bytes);
        self.due = self.due.min(most);
    }
}

/// How long `bytes` take.
fn span(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The buckets of both ways.
#[derive(Debug)]
struct Pair {
    up: Bucket,
    down: Bucket,
}

impl Pair {
    const fn new(now: Instant) -> Self {
        Self { up: Bucket::new(now, None), down: Bucket::new(now, None) }
    }

    const fn way(&mut self, way: Way) -> &mut Bucket {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    const fn rates(&self) -> Rates {
        Rates { up: self.up.rate, down: self.down.rate }
    }

    fn set(&mut self, now: Instant, rates: Rates) {
        self.up.set(now, rates.up);
        self.down.set(now, rates.down);
    }
}

/// The limits in force.
pub struct Pace {
    limited: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    all: Pair,
    peers: BTreeMap<NodeId, Pair>,
}

impl State {
    fn is_limited(&self) -> bool {
        self.all.rates() != Rates::default() || !self.peers.is_empty()
    }

    /// The lower of the limits that a peer is under.
    fn rate(&mut self, peer: NodeId, way: Way) -> Option<u64> {
        let own = self.peers.get_mut(&peer).and_then(|pair| pair.way(way).rate);
        [own, self.all.way(way).rate].into_iter().flatten().min()
    }
}

impl Pace {
    /// No limits.
    pub(super) fn new() -> Self {
        let state = State { all: Pair::new(Instant::now()), peers: BTreeMap::new() };
        Self { limited: AtomicBool::new(false), state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits for all peers together, or those that one has beside them.
    pub fn rates(&self, peer: Option<NodeId>) -> Rates {
        let state = self.state();
        match peer {
            None => state.all.rates(),
            Some(peer) => state.peers.get(&peer).map(Pair::rates).unwrap_or_default(),
        }
    }

    /// The peers that have limits of their own.
    pub fn paced(&self) -> Vec<NodeId> {
        self.state().peers.keys().copied().collect()
    }

    /// Sets the limits for all peers together, or those of one. They count at once, also for what
    /// waits already.
    pub fn set(&self, peer: Option<NodeId>, rates: Rates) -> Result<(), TooManyPaced> {
        let now = Instant::now();
        let mut state = self.state();
        match peer {
            None => state.all.set(now, rates),
            Some(peer) if rates == Rates::default() => drop(state.peers.remove(&peer)),
            Some(peer) => {
                if state.peers.len() >= PACED_MAX && !state.peers.contains_key(&peer) {
                    return Err(TooManyPaced);
                }
                state.peers.entry(peer).or_insert_with(|| Pair::new(now)).set(now, rates);
            }
        }
        self.limited.store(state.is_limited(), Relaxed);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Bytes that are moved at once to or from a peer; none: all of them, it is under no limit.
    pub(super) fn piece(&self, peer: NodeId, way: Way) -> Option<usize> {
        if !self.limited.load(Relaxed) {
            return None;
        }
        let rate = self.state().rate(peer, way)?;
        usize::try_from((rate / 64).clamp(PIECE_MIN, PIECE_MAX)).ok()
    }

    /// Waits until a piece may be moved; whether it had to wait.
    pub(super) async fn wait(&self, peer: NodeId, way: Way, bytes: usize) -> bool {
        let mut changed = pin!(self.changed.notified());
        // From here on, so that no change is missed between the look and the wait.
        changed.as_mut().enable();
        let Some(wait) = self.take(peer, way, bytes).filter(|wait| *wait >= WAIT_LEAST) else {
            return false;
        };
        tokio::select! {
            biased;
            () = changed => {}
            () = sleep(wait) => {}
        }
        true
    }

    fn take(&self, peer: NodeId, way: Way, bytes: usize) -> Option<Duration> {
        let (now, bytes) = (Instant::now(), bytes as u64);
        let mut state = self.state();
        let all = state.all.way(way).take(now, bytes);
        let own = state.peers.get_mut(&peer).and_then(|pair| pair.way(way).take(now, bytes));
        all.max(own)
    }

    /// Counts bytes that do not wait.
    pub(super) fn charge(&self, peer: NodeId, way: Way, bytes: usize) {
        if !self.limited.load(Relaxed) {
            return;
        }
        let (now, bytes) = (Instant::now(), bytes as u64);
        let mut state = self.state();
        state.all.way(way).charge(now, bytes);
        if let Some(pair) = state.peers.get_mut(&peer) {
            pair.way(way).charge(now, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);
    const MIB: u64 = 1 << 20;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_exactly_its_rate() {
        let begun = Instant::now();
        let mut now = begun;
        let mut bucket = Bucket::new(now, Some(MIB));
        // After a rest of any length: a tenth of a second's worth, not more.
        now += ms(60_000);
        let (mut taken, rested) = (0, now);
        while taken < 10 * MIB {
            if let Some(wait) = bucket.take(now, 16 << 10) {
                now += wait;
            }
            taken += 16 << 10;
        }
        let took = now - rested;
        assert!(took >= ms(9_850) && took <= ms(9_900), "{took:?}");
        assert_eq!(Bucket::new(begun, None).take(begun, u64::MAX), None);
    }

    #[test]
    fn what_does_not_wait_is_paid_for_by_the_others_up_to_a_bound() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now, Some(MIB));
        bucket.charge(now, MIB / 4);
        let waits = bucket.take(now, 1).unwrap();
        assert!(waits >= ms(140) && waits <= ms(260), "{waits:?}");
        bucket.charge(now, 100 * MIB);
        assert_eq!(bucket.take(now, 1), Some(DEBT_MAX));
    }

    #[test]
    fn limits_of_peers_are_bounded_and_go_with_the_last_one() {
        let pace = Pace::new();
        assert_eq!(pace.piece(ANN, Way::Up), None);
        let slow = Rates { up: Some(LEAST_RATE), down: None };
        for n in 0..PACED_MAX {
            pace.set(Some(NodeId([n as u8; 32])), slow).unwrap();
        }
        assert_eq!(pace.set(Some(NodeId([255; 32])), slow), Err(TooManyPaced));
        pace.set(Some(ANN), Rates { up: Some(MIB), down: Some(MIB) }).unwrap();
        assert_eq!(pace.piece(ANN, Way::Up), Some(16 << 10));
        assert_eq!(pace.piece(BOB, Way::Up), Some(2 << 10));
        assert_eq!(pace.piece(BOB, Way::Down), None);
        for peer in pace.paced() {
            pace.set(Some(peer), Rates::default()).unwrap();
        }
        assert!(!pace.limited.load(Relaxed));
        pace.set(None, Rates { up: None, down: Some(4 * MIB) }).unwrap();
        assert_eq!(pace.piece(BOB, Way::Down), Some(16 << 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_lower_limit_counts_and_a_change_frees_those_who_wait() {
        let pace = Pace::new();
        pace.set(None, Rates { up: Some(100 * MIB), down: None }).unwrap();
        pace.set(Some(ANN), Rates { up: Some(LEAST_RATE), down: None }).unwrap();
        let begun = Instant::now();
        assert!(!pace.wait(ANN, Way::Up, 128 << 10).await);
        assert!(pace.wait(ANN, Way::Up, 64 << 10).await);
        assert_eq!(begun.elapsed().as_millis(), 2_000);
        assert!(!pace.wait(BOB, Way::Up, 64 << 10).await);
        assert!(!pace.wait(ANN, Way::Down, 1 << 30).await);
        let free = async {
            sleep(ms(300)).await;
            pace.set(Some(ANN), Rates::default()).unwrap();
        };
        let (waited, ()) = tokio::join!(pace.wait(ANN, Way::Up, 1), free);
        assert!(waited);
        assert_eq!(begun.elapsed().as_millis(), 2_300);
    }
}
