//! Chunk buffers for work that starts here: put, get, repair. Owns the byte budget of
//! `limits::WORK_BYTES` and the buffers themselves, which are used again and again, because fresh
//! pages for every chunk would cost more than hashing it. Whoever waits here waits for other work
//! of this node only, never for a peer's.

use crate::chunk::CHUNK_LEN;
use crate::core::limits::WORK_BYTES;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Chunks that may be in memory at once.
const SLOTS: usize = WORK_BYTES / CHUNK_LEN;

/// The budget.
#[derive(Clone)]
pub(super) struct Memory {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Vec<BytesMut>>>,
}

/// The right to hold one chunk, with a buffer for it.
pub(super) struct Slot {
    buf: BytesMut,
    free: Arc<Mutex<Vec<BytesMut>>>,
    /// Given back last: the budget never counts a buffer that is still in use as free.
    _permit: OwnedSemaphorePermit,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(SLOTS)), free: Arc::default() }
    }

    /// Waits for room for one chunk.
    pub(super) async fn take(&self) -> Slot {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let buf = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Slot { buf: buf.unwrap_or_default(), free: self.free.clone(), _permit: permit }
    }

    /// Whether somebody may be waiting for room.
    pub(super) fn is_short(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Gives the buffers that are not in use back to the system.
    pub(super) fn trim(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buf);
        }
    }
}
