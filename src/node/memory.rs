//! Chunk buffers: for work that starts here (put, get, repair), and of a second budget for what
//! peers fetch or have proved. Owns the byte budgets and the buffers themselves, which are used
//! again and again, because fresh pages for every chunk would cost more than hashing it.
//!
//! Invariant: whoever waits for work's memory waits for other work of this node only, never for a
//! peer's, and never for a person who reads or writes a pipe slowly: pipes have a share of their
//! own.

use super::lock;
use crate::chunk::CHUNK_LEN;
use crate::core::limits;
use crate::id::NodeId;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

// The store is below the room where all bounds stand, and has these by itself.
const _: () = assert!(
    crate::store::TABLE_CACHE_BYTES == limits::TABLE_CACHE_BYTES
        && crate::store::RECENT_ROWS_BYTES == limits::RECENT_ROWS_BYTES
);

/// The part of a budget that work on pipes may hold, or one peer.
const SHARE: usize = 3;
/// Bytes that a permit stands for: what a small file needs.
const UNIT: usize = 64 << 10;
/// Permits that a whole chunk needs.
const UNITS: u32 = (CHUNK_LEN / UNIT) as u32;
/// A file that is shorter than this is small: its bytes, sealed and not, fit a unit.
pub(super) const SMALL: usize = 24 << 10;

/// For whom memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// Work that goes on as fast as disks and peers let it.
    Work,
    /// Work on a pipe or terminal, which somebody may leave lying for hours.
    Pipe,
    /// A peer that fetches, or asks for proofs.
    Peer(NodeId),
}

/// A budget.
#[derive(Clone)]
pub(super) struct Memory {
    slots: usize,
    /// Each is for a [`UNIT`].
    permits: Arc<Semaphore>,
    /// The share of all pipes together.
    piped: Arc<Semaphore>,
    /// The share of each peer, as long as it holds some.
    peers: Arc<Mutex<BTreeMap<NodeId, Weak<Semaphore>>>>,
    free: Arc<Mutex<Vec<BytesMut>>>,
    /// Grows with each use.
    uses: Arc<AtomicU64>,
}

/// The right to hold one chunk, with a buffer for it.
pub(super) struct Slot {
    buf: BytesMut,
    free: Arc<Mutex<Vec<BytesMut>>>,
    /// Given back last: the budget never counts a buffer that is still in use as free.
    _permit: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// A budget of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let slots = bytes / CHUNK_LEN;
        Self {
            slots,
            permits: Arc::new(Semaphore::new(slots * UNITS as usize)),
            piped: Arc::new(Semaphore::new((slots / SHARE).max(2))),
            peers: Arc::default(),
            free: Arc::default(),
            uses: Arc::default(),
        }
    }

    /// Waits for room for one chunk. Whoever waits must hold no other slot: all might.
    pub(super) async fn take(&self, user: User) -> Slot {
        let open = "the semaphores are never closed";
        let share = match self.share_of(user) {
            Some(share) => Some(share.acquire_owned().await.expect(open)),
            None => None,
        };
        let permit = self.permits.clone().acquire_many_owned(UNITS).await.expect(open);
        self.slot(permit, share)
    }

    /// Waits for room for one chunk of less than [`SMALL`] bytes, for work. As with
    /// [`Self::take`], whoever waits holds no other. Small ones must not wait for each other as if
    /// they were large: a sync of the disk is for as many as there is room for.
    pub(super) async fn take_small(&self) -> Slot {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphores are never closed");
        self.uses.fetch_add(1, Ordering::Relaxed);
        Slot { buf: BytesMut::new(), free: self.free.clone(), _permit: permit, _share: None }
    }

    /// Room for one chunk, if there is any now.
    pub(super) fn try_take(&self, user: User) -> Option<Slot> {
        let share = match self.share_of(user) {
            Some(share) => Some(share.try_acquire_owned().ok()?),
            None => None,
        };
        let permit = self.permits.clone().try_acquire_many_owned(UNITS).ok()?;
        Some(self.slot(permit, share))
    }

    /// What its kind may hold, where that is less than all.
    fn share_of(&self, user: User) -> Option<Arc<Semaphore>> {
        let peer = match user {
            User::Work => return None,
            User::Pipe => return Some(self.piped.clone()),
            User::Peer(peer) => peer,
        };
        let mut peers = lock(&self.peers);
        peers.retain(|_, share| share.strong_count() > 0);
        let share = peers.get(&peer).and_then(Weak::upgrade);
        Some(share.unwrap_or_else(|| {
            let share = Arc::new(Semaphore::new((self.slots / SHARE).max(1)));
            peers.insert(peer, Arc::downgrade(&share));
            share
        }))
    }

    fn slot(&self, permit: OwnedSemaphorePermit, share: Option<OwnedSemaphorePermit>) -> Slot {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let buf = lock(&self.free).pop().unwrap_or_default();
        Slot { buf, free: self.free.clone(), _permit: permit, _share: share }
    }

    /// Whether somebody may be waiting for room.
    pub(super) fn is_short(&self) -> bool {
        self.permits.available_permits() < UNITS as usize
    }

    /// Grows while the memory is in use.
    pub(super) fn uses(&self) -> u64 {
        let held = self.slots * UNITS as usize - self.permits.available_permits();
        self.uses.fetch_add(u64::from(held > 0), Ordering::Relaxed)
    }

    /// Gives the buffers that are not in use back to the system.
    pub(super) fn trim(&self) {
        lock(&self.free).clear();
    }
}

impl Slot {
    /// Takes the buffer out, to be filled and put back or held.
    pub(super) fn buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.buf)
    }

    /// Puts a buffer back, for whoever takes this slot's memory next.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        // A buffer that somebody else still looks at cannot be used again; it is simply freed.
        if let Ok(buf) = bytes.try_into_mut() {
            self.buf = buf;
        }
    }

    /// Bytes that count against the budget until the last handle on them is gone.
    pub(super) fn hold(mut self, bytes: Bytes) -> Bytes {
        match bytes.try_into_mut() {
            Ok(buf) => {
                self.buf = buf;
                Bytes::from_owner(self)
            }
            Err(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let buf = std::mem::take(&mut self.buf);
        // A buffer that grew for one small chunk only is not worth keeping.
        if buf.capacity() >= CHUNK_LEN {
            // Its length stays, so that nobody has to fill it with zeros again.
            lock(&self.free).push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn pipes_and_peers_leave_room_for_others() {
        let memory = Memory::new(6 * CHUNK_LEN);
        let (ann, bob) = (NodeId([1; 32]), NodeId([2; 32]));
        let take = |user| memory.try_take(user);
        let _stuck = [(); 2].map(|()| take(User::Pipe).unwrap());
        assert!(take(User::Pipe).is_none());
        let _sent = [(); 2].map(|()| take(User::Peer(ann)).unwrap());
        assert!(take(User::Peer(ann)).is_none());
        let sent = take(User::Peer(bob)).unwrap();
        assert!(take(User::Work).is_some() && !memory.is_short());
        let held = sent.hold(Bytes::from(vec![1; 10]));
        let _last = take(User::Work).unwrap();
        assert!(take(User::Work).is_none() && memory.is_short());
        drop(held);
        assert!(!memory.is_short());
        assert!(take(User::Peer(bob)).is_some());
    }
    #[tokio::test]
    async fn small_ones_share_the_room_of_a_large_one() {
        let memory = Memory::new(CHUNK_LEN);
        let small = memory.take_small().await;
        assert!(memory.try_take(User::Work).is_none() && memory.is_short());
        let mut others = Vec::new();
        for _ in 1..UNITS {
            others.push(memory.take_small().await);
        }
        drop((small, others));
        assert!(memory.try_take(User::Work).is_some());
    }
}
