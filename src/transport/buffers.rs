//! Memory for what arrives: a budget of bytes, one peer's share of it, and buffers of the size of a
//! full chunk that are used again, so that their pages are not paid for per chunk. It owns memory
//! only; who waits for it, and what waits behind them, is the reader's matter.
//!
//! Invariant: the bytes handed out never exceed the budget, and a frame of the largest size always
//! fits an empty budget, so every wait ends when earlier buffers are dropped.

use crate::id::NodeId;
use crate::wire::frame::{BODY_MAX, HEAD_MAX};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A large buffer: the largest head and body together.
const LARGE: usize = HEAD_MAX + BODY_MAX;
/// What is longer gets a large buffer; what is shorter is allocated for itself, because a large
/// buffer for it would eat the budget of several.
const LARGE_FROM: usize = 256 << 10;

/// A budget of bytes for incoming frames. Clones share it.
#[derive(Clone)]
pub struct Buffers(Arc<Pool>);

struct Pool {
    all: Arc<Semaphore>,
    share: usize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    large: Vec<Vec<u8>>,
    shares: BTreeMap<NodeId, Weak<Semaphore>>,
}

/// Bytes from a budget; dropped, they return to it.
pub struct PooledBuf {
    bytes: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
}

impl Buffers {
    /// A budget of `bytes`, raised to one full frame when it is less. One peer may hold a quarter
    /// of it, or one full frame when that is more.
    pub fn new(bytes: usize) -> Self {
        let budget = bytes.clamp(LARGE, u32::MAX as usize);
        Self(Arc::new(Pool {
            all: Arc::new(Semaphore::new(budget)),
            share: (budget / 4).max(LARGE),
            free: Mutex::default(),
        }))
    }

    /// Waits for `len` bytes, at most one full frame, on behalf of `peer`. First come, first
    /// served; a peer at its share does not stand in the way of others. Their content is arbitrary.
    pub async fn take(&self, peer: NodeId, len: usize) -> PooledBuf {
        assert!(len <= LARGE, "the frame limits are checked before memory is asked for");
        let cost = if len > LARGE_FROM { LARGE } else { len } as u32;
        let share = self.0.share_of(peer);
        let open = "the budget's semaphores are never closed";
        let share = share.acquire_many_owned(cost).await.expect(open);
        let all = Arc::clone(&self.0.all).acquire_many_owned(cost).await.expect(open);
        let bytes = match len {
            0..=LARGE_FROM => vec![0; len],
            _ => self.0.free().large.pop().unwrap_or_else(|| vec![0; LARGE]),
        };
        PooledBuf { bytes, len, pool: Arc::clone(&self.0), _all: all, _share: share }
    }

    /// Gives the memory of unused buffers back to the system.
    pub fn trim(&self) {
        let mut free = self.0.free();
        free.large = Vec::new();
        free.shares.retain(|_, share| share.strong_count() > 0);
    }

    /// Bytes of the budget that are free.
    pub fn available(&self) -> usize {
        self.0.all.available_permits()
    }
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share_of(&self, peer: NodeId) -> Arc<Semaphore> {
        let mut free = self.free();
        if let Some(share) = free.shares.get(&peer).and_then(Weak::upgrade) {
            return share;
        }
        // Shares nobody holds are forgotten here, so that the map is as long as there are holders.
        free.shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        free.shares.insert(peer, Arc::downgrade(&share));
        share
    }
}

impl PooledBuf {
    /// The bytes as a shared handle; they return to the budget when the last handle is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        if self.bytes.len() == LARGE {
            self.pool.free().large.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    const ANN: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);

    /// Whether `take` is answered without waiting.
    fn now(buffers: &Buffers, peer: NodeId, len: usize) -> Option<PooledBuf> {
        let waiting = std::pin::pin!(buffers.take(peer, len));
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(buf) => Some(buf),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_peer_gets_a_quarter_and_leaves_the_rest_to_others() {
        let buffers = Buffers::new(8 * LARGE);
        let held = [now(&buffers, ANN, LARGE), now(&buffers, ANN, LARGE)].map(Option::unwrap);
        assert!(now(&buffers, ANN, 1).is_none());
        assert!(now(&buffers, BOB, LARGE).is_some());
        drop(held);
        assert_eq!(buffers.available(), 8 * LARGE);
        assert!(now(&buffers, ANN, LARGE).is_some());
    }

    #[test]
    fn the_smallest_budget_still_takes_one_full_frame() {
        let buffers = Buffers::new(0);
        let held = now(&buffers, ANN, LARGE).unwrap();
        assert!(now(&buffers, BOB, 1).is_none());
        drop(held.freeze());
        assert!(now(&buffers, BOB, 1).is_some());
    }

    #[test]
    fn large_buffers_are_used_again_until_trimmed() {
        let buffers = Buffers::new(4 * LARGE);
        let place = now(&buffers, ANN, LARGE - 1).unwrap().as_ptr();
        assert_eq!(now(&buffers, BOB, LARGE_FROM + 1).unwrap().as_ptr(), place);
        assert_eq!(buffers.0.free().large.len(), 1);
        buffers.trim();
        assert!(buffers.0.free().large.is_empty());
        assert_eq!(now(&buffers, ANN, 100).unwrap().len(), 100);
    }
}
