//! What a version of a content is made of, what of it can be sealed before, and what the content is
//! when the version was made or could not be.

use super::layout::{At, place};
use super::{CHUNK, Content};
use crate::chunk::{self, CHUNK_LEN};
use crate::core::catalogue::FileVersion;
use crate::node::get::OpenFile;
use crate::node::work::draft::Draft;
use crate::node::work::holes::Holes;
use crate::node::work::room;
use crate::node::work::sealing::Staged;
use crate::sys::{Fs, Time};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// What a version is made of.
pub(in crate::node::work) struct Snapshot {
    pub(in crate::node::work) base: Option<FileVersion>,
    pub(in crate::node::work) base_len: u64,
    pub(in crate::node::work) size: u64,
    pub(in crate::node::work) staged: BTreeMap<u64, u64>,
    pub(in crate::node::work) holes: Holes,
    pub(in crate::node::work) draft: Option<Draft>,
    pub(in crate::node::work) edits: u64,
    pub(in crate::node::work) modified_ns: Option<i64>,
    /// When that was: what was said of the draft before is part of it.
    pub(in crate::node::work) clock: u64,
}

impl Snapshot {
    /// Where the bytes of a chunk were.
    pub(in crate::node::work) fn at(&self, index: u64) -> At {
        place(&self.staged, &self.holes, self.base_len, index)
    }

    /// Whether all these chunks are the base's, as far as it counts.
    pub(in crate::node::work) fn is_base(&self, first: u64, last: u64) -> bool {
        self.staged.range(first..=last).next().is_none()
            && self.holes.next(first).is_none_or(|hole| hole > last)
    }
}

impl Content {
    /// When a version was refused for want of room, if that is so.
    pub(in crate::node::work) const fn refused(&self) -> Option<Time> {
        self.refused
    }

    /// No version could be made. If that was for want of room, it is not tried again before others
    /// have had their turn.
    pub(in crate::node::work) fn failed(&mut self, no_room: bool, now: Time) {
        self.refused = no_room.then_some(now);
        self.urgent &= !no_room;
    }

    /// Before when no version of it is worth a try.
    pub(in crate::node::work) fn not_before(&self) -> Option<Time> {
        let refused = self.refused.filter(|_| !self.urgent)?;
        Some(room::again_at(refused, self.tried))
    }

    /// Whether chunks can be sealed ahead of the next version: while one is being made that would
    /// be under another claim.
    pub(in crate::node::work) fn wants_ahead(&self) -> bool {
        self.ahead.is_none() && self.tried == 0 && self.behind(0).is_some()
    }

    /// A staged chunk from a number on that its writer has left behind.
    pub(in crate::node::work) fn behind(&self, from: u64) -> Option<Staged> {
        let Range { start, end } = self.run.behind();
        // The last one of the file may be cut or get longer.
        let end = end.min((self.size / CHUNK).saturating_sub(1));
        let start = start.max(from);
        let (index, edit) = self.staged.range(start..end.max(start)).next()?;
        let (index, edit, draft) = (*index, *edit, self.reader());
        Some(Staged { index, edit, place: chunk::Place::At(index), len: CHUNK_LEN, draft })
    }

    /// Begins a version of what it is now, by the clock.
    pub(in crate::node::work) fn snapshot(&mut self, clock: u64) -> Snapshot {
        self.low = self.size;
        self.tried = self.tried.saturating_add(1);
        Snapshot {
            base: self.base.clone(),
            base_len: self.base_len,
            size: self.size,
            staged: self.staged.clone(),
            holes: self.holes.clone(),
            draft: self.reader(),
            edits: self.edits,
            modified_ns: self.modified_ns,
            clock,
        }
    }

    /// A version was made of a snapshot and is known: it is the base now. Whether a draft that was
    /// synced is gone with that.
    pub(in crate::node::work) fn made(
        &mut self,
        fs: &dyn Fs,
        snapshot: &Snapshot,
        version: FileVersion,
        file: Arc<OpenFile>,
        now: Time,
    ) -> io::Result<bool> {
        for (index, edit) in &snapshot.staged {
            if self.staged.get(index) == Some(edit) {
                self.staged.remove(index);
            }
        }
        // They are the base's from now on, which has zeros there.
        for (first, number) in snapshot.holes.runs(u64::MAX) {
            self.holes.remove(first..first + number);
        }
        (self.tried, self.refused, self.copied) = (0, None, false);
        self.base_len = version.size.min(self.low);
        (self.base, self.opened) = (Some(version), Some(file));
        self.since = now;
        let said = self.may_be_said();
        (self.urgent, self.written) = (false, Some(snapshot.edits));
        if self.edits == snapshot.edits {
            (self.edited, self.touched) = (false, false);
            if self.modified_ns == snapshot.modified_ns {
                self.modified_ns = None;
            }
            self.drop_draft(fs)?;
            return Ok(said);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InodeId;
    use crate::node::work::body::Body;

    #[test]
    fn a_hole_that_became_longer_or_shorter_while_a_version_was_made_is_none_of_it() {
        let now = Time::ZERO;
        let resized = |sizes: [u64; 3]| {
            let body = Body::new(InodeId([1; 16]), None);
            let mut content = body.lock();
            content.resize(sizes[0], now).unwrap();
            let made = content.snapshot(1).size;
            content.resize(sizes[1], now).unwrap();
            content.resize(sizes[2], now).unwrap();
            made.min(content.low)
        };
        let part = CHUNK + 500;
        assert_eq!(resized([part, 3 * CHUNK, 3 * CHUNK]), CHUNK);
        assert_eq!(resized([3 * CHUNK, part, part]), CHUNK);
        assert_eq!(resized([part, part, part]), part);
        assert_eq!(resized([2 * CHUNK, 3 * CHUNK, 3 * CHUNK]), 2 * CHUNK);
        assert_eq!(resized([3 * CHUNK, part, 3 * CHUNK]), CHUNK);
    }
}
