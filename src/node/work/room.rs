//! Room for what programs write. Drafts grow as long as the own disk keeps its reserve and
//! `--capacity` has room for them beside what is stored; a node that is full of others' chunks may
//! still edit a little. A version that no node has room for is *refused*: its draft stays, what was
//! synced is durable here all the same, and it is tried again from time to time. Owns when a
//! program is told of that, which is at its next write and at its close.
//!
//! `fsync` promises that bytes are on this disk (DESIGN 8), so it succeeds as long as they are.

use super::WorkError;
use super::file::OpenedFile;
use crate::node::{PublishError, PutError, Shared, lock};
use crate::store::WriteError;
use crate::sys::Time;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long it is believed how much drafts may grow.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Drafts may take this part of the capacity when chunks have the rest, and more.
const PART: u64 = 8;
/// The longest time that a program which closes a file waits to hear whether there is room.
const CLOSE: Duration = Duration::from_secs(10);
/// The pauses between attempts to make a refused version: each twice the one before, to the last.
const RETRY: Duration = Duration::from_secs(2);
const DOUBLED_MAX: u32 = 3;

/// What is known of the room.
#[derive(Default)]
pub(in crate::node) struct Room {
    drafts: Mutex<Growth>,
    /// Files of which a version was refused, when that was counted last.
    refused: AtomicU64,
}

/// By how much drafts may grow until that is looked at again.
#[derive(Default)]
struct Growth {
    left: u64,
    until: Time,
}

/// Files that wait for room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::node) struct Refused {
    /// How many there are.
    pub(in crate::node) files: u64,
    /// The bytes of their drafts.
    pub(in crate::node) bytes: u64,
}

/// When a version that was refused then, and tried so often, is tried again.
pub(super) fn again_at(refused: Time, tried: u32) -> Time {
    refused + RETRY * (1 << tried.min(DOUBLED_MAX))
}

impl WorkError {
    /// Whether there was no room for it.
    pub(super) fn is_no_room(&self) -> bool {
        let full = |err: &WriteError| matches!(err, WriteError::NoCapacity | WriteError::DiskFull);
        match self {
            Self::NoSpace => true,
            Self::Put(PutError::NoSpace(err)) => full(err),
            Self::Publish(PublishError::Write(err)) => full(err),
            _ => false,
        }
    }
}

impl Shared {
    /// Whether drafts may take so much more.
    pub(super) fn room_for(&self, bytes: u64) -> Result<(), WorkError> {
        let space = self.sys.fs.space(&self.config.data_dir)?;
        if space.available.saturating_sub(bytes) < self.config.free_floor {
            return Err(WorkError::NoSpace);
        }
        let now = self.sys.clock.now();
        {
            let mut known = lock(&self.work.room.drafts);
            if now < known.until && bytes <= known.left {
                known.left -= bytes;
                return Ok(());
            }
        }
        let left = self.left_for_drafts();
        let more = left.checked_sub(bytes);
        let known = Growth { left: more.unwrap_or(left), until: now + KNOWN_FOR };
        *lock(&self.work.room.drafts) = known;
        more.map(drop).ok_or(WorkError::NoSpace)
    }

    fn left_for_drafts(&self) -> u64 {
        let usage = self.store.usage();
        let most = usage.capacity.saturating_sub(usage.stored_bytes).max(usage.capacity / PART);
        let state = lock(&self.work.state);
        let drafts = state.bodies.values().map(|body| body.lock().drafted());
        most.saturating_sub(drafts.fold(0, u64::saturating_add))
    }

    /// Whether new content finds no room in the swarm, as far as that is known.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.work.room.refused.load(Ordering::Relaxed) > 0 || self.view().with_room() == 0
    }

    /// Files that wait for room.
    pub(in crate::node) fn waiting_for_room(&self) -> Refused {
        let state = lock(&self.work.state);
        let contents = state.unsaved().map(|body| body.lock());
        let waiting = contents.filter(|content| content.refused().is_some());
        waiting.fold(Refused::default(), |sum, content| Refused {
            files: sum.files + 1,
            bytes: sum.bytes + content.drafted(),
        })
    }

    pub(super) fn count_refused(&self) {
        self.work.room.refused.store(self.waiting_for_room().files, Ordering::Relaxed);
    }
}

impl OpenedFile {
    /// Whether there is room for so many bytes that are about to be written.
    pub fn room_for(&self, bytes: u64) -> Result<(), WorkError> {
        self.work.shared.room_for(bytes)
    }

    /// Whether there may be no room for a version of what was written.
    pub fn may_be_refused(&self) -> bool {
        let edited = self.writes && self.body.lock().is_edited();
        edited && self.work.shared.is_short_of_room()
    }

    /// What a program is told that closes a file of which that is so: an error if there is no room
    /// indeed, which is tried first. Elsewhere versions are made later, and nobody waits for them.
    pub async fn close(&self) -> Result<(), WorkError> {
        if !self.is_refused() {
            // What comes of it says the content itself.
            drop(tokio::time::timeout(CLOSE, self.publish()).await);
        }
        if self.is_refused() { Err(WorkError::NoSpace) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_a_lack_of_room_is_one() {
        let put = |err| WorkError::Put(PutError::NoSpace(Arc::new(err)));
        assert!(put(WriteError::NoCapacity).is_no_room() && put(WriteError::DiskFull).is_no_room());
        assert!(
            !put(WriteError::ReadOnly(String::new())).is_no_room()
                && !WorkError::TimedOut.is_no_room()
        );
    }

    #[test]
    fn the_pauses_get_longer_up_to_a_quarter_of_a_minute() {
        let pauses = [1, 2, 3, 4, 99].map(|tried| again_at(Time::ZERO, tried).since(Time::ZERO));
        assert_eq!(pauses.map(|pause| pause.as_secs()), [4, 8, 16, 16, 16]);
    }
}
