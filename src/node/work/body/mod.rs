//! The content of an open or edited file: which of its chunks were changed and lie in its draft,
//! and which are as in the version that it was made from. Owns that bookkeeping; bringing chunks
//! from there is `content`'s, making a version of it `edition`'s. `layout` has where its bytes are,
//! `edit` what programs do to it, `version` what a version is made of, and `head` what is said of
//! its draft.
//!
//! Invariants: a chunk that is not staged is the base's, whole and of the same length, or a hole:
//! behind the end of the base, or made one by a program. In the draft, what is behind the bytes of
//! a staged chunk is zero, and so is all of a hole, once the bytes that were there have been
//! dropped (`stale`) and before it is staged. So a change to a part of a chunk, or of its length,
//! stages it first, and the draft of a node that was killed, in which anything may lie, is made so.
//!
//! Who reads or writes waits for nobody who syncs: the lock of a content is not held meanwhile.

mod edit;
mod head;
mod layout;
mod version;

pub(super) use layout::At;
pub(super) use version::Snapshot;

use super::NO_DOOR;
use super::ahead::{Ahead, Run};
use super::draft::{Draft, Head};
use super::holes::Holes;
use crate::chunk::CHUNK_LEN;
use crate::core::catalogue::FileVersion;
use crate::id::InodeId;
use crate::node::get::OpenFile;
use crate::sys::{Fs, Time};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const CHUNK: u64 = CHUNK_LEN as u64;
/// Doors of which it is remembered what they have seen of a content.
const DOORS_MAX: usize = 16;

/// A file's content.
pub(super) struct Body {
    pub(super) id: InodeId,
    /// Held by who writes a head of the draft, from before it is known what that says.
    heads: Mutex<()>,
    content: Mutex<Content>,
}

/// What is known of the content.
pub(super) struct Content {
    /// The version that it was made from.
    base: Option<FileVersion>,
    opened: Option<Arc<OpenFile>>,
    /// How much of the base still counts.
    base_len: u64,
    size: u64,
    /// The chunks in the draft, with the number of their last edit.
    staged: BTreeMap<u64, u64>,
    /// Chunks that are zero whatever the base has there.
    holes: Holes,
    /// Chunks of which the draft still has bytes that do not count any more.
    stale: Holes,
    draft: Option<Draft>,
    /// Below this, chunks of the draft that are not staged may hold what was never synced.
    unclean: u64,
    edits: u64,
    /// Whether it is something else than the base.
    edited: bool,
    /// Whether that is about to be so: what was seen of the inode is remembered from then on.
    touched: bool,
    /// Whether it is that of another file, and no version was made of it since.
    copied: bool,
    /// The least size since a version was begun.
    low: u64,
    /// When a program wrote last, unless another time was said since.
    pub(super) modified_ns: Option<i64>,
    /// Since when it is edited, and when that happened last.
    pub(super) since: Time,
    pub(super) last: Time,
    /// Open files, and those of them that may write.
    pub(super) users: u32,
    pub(super) writers: u32,
    /// Whether a version is made as soon as possible.
    pub(super) urgent: bool,
    /// How many of the edits the last version has that was made here.
    written: Option<u64>,
    /// Versions that were begun and are not known.
    pub(super) tried: u32,
    /// When a version was refused for want of room; what is less since then may find some.
    refused: Option<Time>,
    /// The doors through which it was opened, and not changed by others since.
    fresh: Vec<u64>,
    /// The chunk that was read last.
    pub(super) read: u64,
    /// What was written in order until now, and what of it is sealed ahead of the version.
    run: Run,
    pub(super) ahead: Option<Ahead>,
}

impl Body {
    /// The content of a version; none: of a new file.
    pub(super) fn new(id: InodeId, base: Option<FileVersion>) -> Self {
        let size = base.as_ref().map_or(0, |base| base.size);
        let edited = base.is_none();
        let content = Content {
            base,
            opened: None,
            base_len: size,
            size,
            staged: BTreeMap::new(),
            holes: Holes::default(),
            stale: Holes::default(),
            draft: None,
            unclean: 0,
            edits: 0,
            edited,
            touched: false,
            copied: false,
            low: size,
            modified_ns: None,
            since: Time::ZERO,
            last: Time::ZERO,
            users: 0,
            writers: 0,
            urgent: false,
            written: None,
            tried: 0,
            refused: None,
            fresh: Vec::new(),
            read: u64::MAX,
            run: Run::default(),
            ahead: None,
        };
        Self { id, heads: Mutex::default(), content: Mutex::new(content) }
    }

    /// The content of a new file that is what a version of another one was.
    pub(super) fn copied(id: InodeId, version: FileVersion, now: Time) -> Self {
        let body = Self::new(id, Some(version));
        {
            let mut content = body.lock();
            content.edit(now);
            content.copied = true;
        }
        body
    }

    /// What a draft is.
    pub(super) fn restored(draft: Draft, head: &Head) -> io::Result<Self> {
        let body = Self::new(head.id, head.base.clone());
        draft.cut(head.size)?;
        {
            let mut content = body.lock();
            content.base_len = head.base_len;
            (content.size, content.low, content.unclean) = (head.size, head.size, head.size);
            let chunks = head.runs.iter().flat_map(|(first, count)| *first..first + count);
            content.staged = chunks.map(|index| (index, 0)).collect();
            head.holes.iter().for_each(|(first, count)| content.holes.add(*first..first + count));
            (content.draft, content.edited) = (Some(draft), true);
            content.modified_ns = head.modified_ns;
        }
        Ok(body)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        crate::node::lock(&self.content)
    }

    /// The right to write heads of the draft, which one has at a time; taken before all locks.
    pub(super) fn heads(&self) -> MutexGuard<'_, ()> {
        crate::node::lock(&self.heads)
    }

    /// Whether a head of the draft may just be written. Who has the content's lock knows that none
    /// is begun.
    pub(super) fn has_heads(&self) -> bool {
        self.heads.try_lock().is_err()
    }
}

impl Content {
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn is_edited(&self) -> bool {
        self.edited
    }

    /// Whether what was seen of the inode has to be remembered.
    pub(super) const fn is_touched(&self) -> bool {
        self.edited || self.touched
    }

    pub(super) const fn touch(&mut self) {
        self.touched = true;
    }

    pub(super) const fn base(&self) -> Option<&FileVersion> {
        self.base.as_ref()
    }

    /// How much of the base still counts.
    pub(super) const fn base_len(&self) -> u64 {
        self.base_len
    }

    pub(super) const fn opened(&self) -> Option<&Arc<OpenFile>> {
        self.opened.as_ref()
    }

    /// Notes that the base is open, if it is still the one.
    pub(super) fn set_opened(&mut self, version: &FileVersion, file: &Arc<OpenFile>) {
        if self.base.as_ref() == Some(version) {
            self.opened = Some(file.clone());
        }
    }

    /// Forgets the list of the base's chunks, as long as nobody needs it.
    pub(super) fn close(&mut self) {
        if self.users == 0 && !self.edited {
            self.opened = None;
        }
    }

    /// Nobody uses it any more: what was about to be edited will not be. Whether it was.
    pub(super) fn rest(&mut self, fs: &dyn Fs) -> io::Result<bool> {
        if self.edited {
            return Ok(false);
        }
        let touched = std::mem::replace(&mut self.touched, false);
        self.drop_draft(fs).map(|()| touched)
    }

    /// Notes that it is opened through a door; whether it is as it was when it was opened there
    /// last, its own changes aside.
    pub(super) fn opened_by(&mut self, door: u64) -> bool {
        let same = self.fresh.contains(&door);
        if !same && door != NO_DOOR {
            if self.fresh.len() == DOORS_MAX {
                self.fresh.remove(0);
            }
            self.fresh.push(door);
        }
        same
    }

    /// Notes that it was changed through a door.
    pub(super) fn changed_by(&mut self, door: u64) {
        self.fresh.retain(|fresh| *fresh == door);
    }

    /// Takes another version as the base, when nothing was edited.
    pub(super) fn rebase(&mut self, version: &FileVersion) {
        if self.is_touched() || self.base.as_ref() == Some(version) {
            return;
        }
        let same = self.base.as_ref().is_some_and(|base| base.hash == version.hash);
        if !same {
            self.opened = None;
            self.fresh.clear();
        }
        self.base = Some(version.clone());
        (self.base_len, self.size, self.low) = (version.size, version.size, version.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_it_again_has_seen_what_it_is_unless_another_door_changed_it() {
        let body = Body::new(InodeId([3; 16]), None);
        let mut content = body.lock();
        assert!(!content.opened_by(1) && content.opened_by(1) && !content.opened_by(2));
        content.changed_by(1);
        assert!(content.opened_by(1), "its own changes it knows");
        assert!(!content.opened_by(2));
        content.changed_by(NO_DOOR);
        assert!(!content.opened_by(1) && !content.opened_by(2));
        (3..100).for_each(|door| _ = content.opened_by(door));
        assert_eq!(content.fresh.len(), DOORS_MAX);
        assert!(!content.opened_by(NO_DOOR) && !content.opened_by(NO_DOOR));
    }
}
