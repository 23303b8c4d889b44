//! The content of an open or edited file: which of its chunks were changed and lie in its draft,
//! and which are as in the version that it was made from. Owns that bookkeeping; bringing chunks
//! from there is `content`'s, making a version of it `edition`'s.
//!
//! Invariants: a chunk that is not staged is the base's, whole and of the same length, or a hole:
//! behind the end of the base, or made one by a program. In the draft, what is behind the bytes of
//! a staged chunk is zero, and so is all of a hole. So a change to a part of a chunk, or of its
//! length, stages it first, and the draft of a node that was killed, in which anything may lie, is
//! made so.

use super::NO_DOOR;
use super::ahead::{Ahead, Run};
use super::draft::{Draft, Head, Place};
use super::holes::Holes;
use super::sealing::Staged;
use crate::chunk::{self, CHUNK_LEN, chunk_count, chunk_len, chunks_of};
use crate::core::catalogue::{Attributes, FileVersion};
use crate::id::InodeId;
use crate::node::get::OpenFile;
use crate::sys::{Fs, Time};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

const CHUNK: u64 = CHUNK_LEN as u64;
/// Doors of which it is remembered what they have seen of a content.
const DOORS_MAX: usize = 16;

/// A file's content.
pub(super) struct Body {
    pub(super) id: InodeId,
    content: Mutex<Content>,
}

/// Where the bytes of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Draft,
    Base,
    Hole,
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

/// What a version is made of.
pub(super) struct Snapshot {
    pub(super) base: Option<FileVersion>,
    pub(super) base_len: u64,
    pub(super) size: u64,
    pub(super) staged: BTreeMap<u64, u64>,
    pub(super) holes: Holes,
    pub(super) draft: Option<Draft>,
    pub(super) edits: u64,
    pub(super) modified_ns: Option<i64>,
    /// When that was: what was said of the draft before is part of it.
    pub(super) clock: u64,
}

impl Snapshot {
    /// Where the bytes of a chunk were.
    pub(super) fn at(&self, index: u64) -> At {
        place(&self.staged, &self.holes, self.base_len, index)
    }

    /// Whether all these chunks are the base's, as far as it counts.
    pub(super) fn is_base(&self, first: u64, last: u64) -> bool {
        self.staged.range(first..=last).next().is_none()
            && self.holes.next(first).is_none_or(|hole| hole > last)
    }
}

fn place(staged: &BTreeMap<u64, u64>, holes: &Holes, base_len: u64, index: u64) -> At {
    if staged.contains_key(&index) {
        At::Draft
    } else if index.saturating_mul(CHUNK) < base_len && !holes.contains(index) {
        At::Base
    } else {
        At::Hole
    }
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
            tried: 0,
            refused: None,
            fresh: Vec::new(),
            read: u64::MAX,
            run: Run::default(),
            ahead: None,
        };
        Self { id, content: Mutex::new(content) }
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

    /// Where the bytes of a chunk are.
    pub(super) fn at(&self, index: u64) -> At {
        place(&self.staged, &self.holes, self.base_len, index)
    }

    /// The bytes that count as used, as far as that is known without opening anything.
    pub(super) fn used(&self) -> u64 {
        let staged: u64 = self.staged.keys().map(|at| chunk_len(self.size, *at) as u64).sum();
        let base = match &self.opened {
            Some(file) if !file.manifest.is_paged() => {
                let rows = file.manifest.rows.iter().zip(0..);
                let kept =
                    rows.filter(|(row, index)| !row.is_zero() && self.at(*index) == At::Base);
                kept.map(|(_, index)| chunk_len(self.base_len, index) as u64).sum()
            }
            _ => {
                let count = chunk_count(self.base_len);
                let staged = self.staged.range(..count).count() as u64;
                let covered = staged + self.holes.count(count);
                self.base_len.saturating_sub(covered * CHUNK)
            }
        };
        staged + base
    }

    /// How much the draft takes at most.
    pub(super) fn drafted(&self) -> u64 {
        (self.staged.len() as u64 * CHUNK).min(self.size)
    }

    /// When a version was refused for want of room, if that is so.
    pub(super) const fn refused(&self) -> Option<Time> {
        self.refused
    }

    /// No version could be made. If that was for want of room, it is not tried again before others
    /// have had their turn.
    pub(super) fn failed(&mut self, no_room: bool, now: Time) {
        self.refused = no_room.then_some(now);
        self.urgent &= !no_room;
    }

    /// Before when no version of it is worth a try.
    pub(super) fn not_before(&self) -> Option<Time> {
        let refused = self.refused.filter(|_| !self.urgent)?;
        Some(super::room::again_at(refused, self.tried))
    }

    /// The next offset from `at` on with data, or with a hole; none: there is no more data.
    pub(super) fn seek(&self, at: u64, data: bool) -> Option<u64> {
        if at >= self.size {
            return None;
        }
        let (mut index, count) = (at / CHUNK, chunk_count(self.size));
        while index < count {
            let (has_data, next) = self.run(index);
            if has_data == data {
                return Some(at.max(index * CHUNK));
            }
            index = next;
        }
        (!data).then_some(self.size)
    }

    /// Whether any byte of a chunk is anything but a hole, and the next chunk of which that has to
    /// be asked: there are as many as the file has staged chunks and rows, however long it is.
    fn run(&self, index: u64) -> (bool, u64) {
        let staged = || self.staged.range(index..).next().map_or(u64::MAX, |(next, _)| *next);
        let hole = || self.holes.next(index).unwrap_or(u64::MAX);
        match (self.at(index), &self.opened) {
            (At::Draft, _) => (true, index + 1),
            (At::Hole, _) => (false, self.holes.end_of(index).unwrap_or_else(staged)),
            (At::Base, Some(file)) if !file.manifest.is_paged() => {
                let row = file.manifest.rows.get(index as usize);
                (row.is_none_or(|row| !row.is_zero()), index + 1)
            }
            (At::Base, _) => (true, staged().min(hole()).min(chunk_count(self.base_len))),
        }
    }

    /// The draft, if there is one.
    pub(super) fn reader(&self) -> Option<Draft> {
        self.draft.clone()
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

    /// The chunk that has to be staged before these bytes can be written.
    pub(super) fn missing_to_write(&self, at: u64, len: u64) -> Option<u64> {
        let end = at + len;
        if let Some(index) = self.missing_to_grow(end)
            && at > index * CHUNK
        {
            return Some(index);
        }
        chunks_of(u64::MAX, at..end)
            .find(|index| self.at(*index) == At::Base && !self.is_covered(*index, at, end))
    }

    fn is_covered(&self, index: u64, at: u64, end: u64) -> bool {
        at <= index * CHUNK && end >= self.size.min((index + 1) * CHUNK)
    }

    /// The chunk that has to be staged before these bytes, which are not behind the end, can be
    /// made a hole: only those at the ends of it are not covered.
    pub(super) fn missing_to_punch(&self, at: u64, end: u64) -> Option<u64> {
        [at / CHUNK, end.saturating_sub(1) / CHUNK]
            .into_iter()
            .find(|index| self.at(*index) == At::Base && !self.is_covered(*index, at, end))
    }

    /// Makes bytes that are not behind the end zero, all that is missing being staged, and gives
    /// the room of them in the draft back.
    pub(super) fn punch(&mut self, at: u64, end: u64, now: Time) -> io::Result<()> {
        self.edit(now);
        self.refused = None;
        if let Some(draft) = &self.draft {
            draft.punch(at, end - at)?;
        }
        let last = if end == self.size { chunk_count(end) } else { end / CHUNK };
        let whole = at.div_ceil(CHUNK)..last;
        if whole.start < whole.end {
            let mut cut = self.staged.split_off(&whole.start);
            self.staged.append(&mut cut.split_off(&whole.end));
            self.holes.add(whole);
        }
        for index in [at / CHUNK, (end - 1) / CHUNK] {
            if let Some(edit) = self.staged.get_mut(&index) {
                *edit = self.edits;
            }
        }
        Ok(())
    }

    /// The chunk that has to be staged before the file can get longer.
    fn missing_to_grow(&self, to: u64) -> Option<u64> {
        let index = self.size / CHUNK;
        let partial = !self.size.is_multiple_of(CHUNK);
        (to > self.size && partial && self.at(index) == At::Base).then_some(index)
    }

    /// The chunk that has to be staged before the file can get this length.
    pub(super) fn missing_to_resize(&self, to: u64) -> Option<u64> {
        let index = to / CHUNK;
        let cut = to < self.size && !to.is_multiple_of(CHUNK) && self.at(index) == At::Base;
        if cut { Some(index) } else { self.missing_to_grow(to) }
    }

    /// Puts a chunk of the base into the draft.
    pub(super) fn stage(
        &mut self,
        place: Place<'_>,
        id: &InodeId,
        index: u64,
        plain: &[u8],
    ) -> io::Result<()> {
        if self.at(index) != At::Base {
            return Ok(());
        }
        let len = chunk_len(self.base_len.min(self.size), index).min(plain.len());
        self.clean(index..index + 1)?;
        self.draft(place, id)?.write(&plain[..len], index * CHUNK)?;
        self.staged.insert(index, self.edits);
        Ok(())
    }

    fn draft(&mut self, place: Place<'_>, id: &InodeId) -> io::Result<&Draft> {
        if self.draft.is_none() {
            self.draft = Some(Draft::create(place, id)?);
        }
        self.draft.as_ref().ok_or_else(|| io::Error::other("it was just made"))
    }

    /// Writes bytes, all that is missing being staged. Whether a chunk was left behind with it.
    pub(super) fn write(
        &mut self,
        place: Place<'_>,
        id: &InodeId,
        at: u64,
        bytes: &[u8],
        now: Time,
    ) -> io::Result<bool> {
        let end = at + bytes.len() as u64;
        self.clean(at / CHUNK..end.div_ceil(CHUNK))?;
        self.draft(place, id)?.write(bytes, at)?;
        self.edit(now);
        for index in chunks_of(u64::MAX, at..end) {
            self.staged.insert(index, self.edits);
        }
        self.holes.remove(at / CHUNK..end.div_ceil(CHUNK));
        if end > self.size {
            self.grown();
            self.size = end;
        }
        Ok(self.run.note(at, end))
    }

    /// Whether chunks can be sealed ahead of the next version: while one is being made that would
    /// be under another claim.
    pub(super) fn wants_ahead(&self) -> bool {
        self.ahead.is_none() && self.tried == 0 && self.behind(0).is_some()
    }

    /// A staged chunk from a number on that its writer has left behind.
    pub(super) fn behind(&self, from: u64) -> Option<Staged> {
        let Range { start, end } = self.run.behind();
        // The last one of the file may be cut or get longer.
        let end = end.min((self.size / CHUNK).saturating_sub(1));
        let start = start.max(from);
        let (index, edit) = self.staged.range(start..end.max(start)).next()?;
        let (index, edit, draft) = (*index, *edit, self.reader());
        Some(Staged { index, edit, place: chunk::Place::At(index), len: CHUNK_LEN, draft })
    }

    /// Empties chunks that are about to be staged, where something else may lie in the draft.
    fn clean(&self, chunks: Range<u64>) -> io::Result<()> {
        let Some(draft) = self.draft.as_ref().filter(|_| self.unclean > 0) else { return Ok(()) };
        let chunks = chunks.start..chunks.end.min(self.unclean.div_ceil(CHUNK));
        for index in chunks.filter(|index| self.at(*index) != At::Draft) {
            draft.punch(index * CHUNK, CHUNK)?;
        }
        Ok(())
    }

    /// The last chunk is about to get longer.
    fn grown(&mut self) {
        self.hole_changed(self.size);
        if let Some(edit) = self.staged.get_mut(&(self.size / CHUNK)) {
            *edit = self.edits;
        }
    }

    /// Gives the file another length, all that is missing being staged.
    pub(super) fn resize(&mut self, to: u64, now: Time) -> io::Result<()> {
        if to == self.size {
            return Ok(());
        }
        self.edit(now);
        if to > self.size {
            self.grown();
        } else {
            self.refused = None;
            if let Some(draft) = &self.draft {
                draft.cut(to)?;
            }
            self.staged.split_off(&chunk_count(to));
            self.holes.remove(chunk_count(to)..u64::MAX);
            if let Some(edit) = self.staged.get_mut(&(to / CHUNK)) {
                *edit = self.edits;
            }
            self.hole_changed(to);
            self.base_len = self.base_len.min(to);
            self.low = self.low.min(to);
        }
        self.size = to;
        Ok(())
    }

    /// A hole that the file ends in at this length gets another length: if a version is being made,
    /// its row is of the former one.
    fn hole_changed(&mut self, end: u64) {
        let index = end / CHUNK;
        if !end.is_multiple_of(CHUNK) && self.at(index) == At::Hole {
            self.low = self.low.min(index * CHUNK);
        }
    }

    fn edit(&mut self, now: Time) {
        if !self.edited {
            self.since = now;
        }
        self.edits += 1;
        (self.edited, self.last) = (true, now);
    }

    /// Begins a version of what it is now, by the clock.
    pub(super) fn snapshot(&mut self, clock: u64) -> Snapshot {
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
    pub(super) fn made(
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
        let said = self.is_said();
        self.urgent = false;
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

    /// Removes the draft.
    pub(super) fn drop_draft(&mut self, fs: &dyn Fs) -> io::Result<()> {
        self.staged.clear();
        self.holes.clear();
        (self.ahead, self.refused) = (None, None);
        self.unclean = 0;
        self.draft.take().map_or(Ok(()), |draft| draft.remove(fs))
    }

    /// Whether a head of the draft was written.
    pub(super) fn is_said(&self) -> bool {
        self.draft.as_ref().is_some_and(Draft::is_said)
    }

    /// What its draft is a draft of, as far as the content goes, once it has a length of at most
    /// `size`.
    pub(super) fn head(&self, id: InodeId, size: u64) -> Head {
        let size = self.size.min(size);
        let base_len = self.base_len.min(size);
        Head {
            id,
            size,
            base_len,
            base: self.base.clone(),
            seen: Vec::new(),
            attributes: Attributes::default(),
            names: Vec::new(),
            list: 0,
            runs: self.runs(chunk_count(size)),
            holes: self.holes.runs(chunk_count(base_len)).collect(),
            modified_ns: self.modified_ns,
        }
    }

    /// Whether nothing at all says its names after a crash: it is a new file, or was a conflict
    /// copy, and was not synced.
    pub(super) fn is_unnamed(&self) -> bool {
        !self.is_said() && (self.copied || self.base.is_none())
    }

    /// The chunks in the draft as runs.
    fn runs(&self, count: u64) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for index in self.staged.range(..count).map(|(index, _)| index) {
            match out.last_mut() {
                Some((first, count)) if *first + *count == *index => *count += 1,
                _ => out.push((*index, 1)),
            }
        }
        out
    }

    pub(super) const fn edits(&self) -> u64 {
        self.edits
    }

    /// The draft, made if there is none.
    pub(super) fn draft_for_sync(&mut self, place: Place<'_>, id: &InodeId) -> io::Result<Draft> {
        self.draft(place, id).cloned()
    }

    /// Nobody shall find the draft after a crash.
    pub(super) fn unname_draft(&self, fs: &dyn Fs) -> io::Result<()> {
        self.draft.as_ref().map_or(Ok(()), |draft| draft.remove(fs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{MAX_FILE_LEN, Manifest};
    use crate::core::catalogue::{Content as Where, FileRecord};
    use crate::id::{ClaimId, FileHash, LookupId};
    use crate::sys::os::OsFs;

    #[test]
    fn data_and_holes_of_the_longest_file_are_found_at_once() {
        let version = FileVersion {
            hash: FileHash([1; 32]),
            size: MAX_FILE_LEN,
            claim: ClaimId([2; 16]),
            record: None,
        };
        let body = Body::new(InodeId([3; 16]), Some(version));
        let mut content = body.lock();
        assert_eq!(content.run(1), (true, chunk_count(MAX_FILE_LEN)));
        assert_eq!(content.seek(5, true), Some(5));
        assert_eq!(content.seek(5, false), Some(MAX_FILE_LEN), "it ends with one");
        // Of the base there are three chunks left, and a later one was written again.
        content.resize(3 * CHUNK, Time::ZERO).unwrap();
        content.resize(MAX_FILE_LEN, Time::ZERO).unwrap();
        let (dir, key) =
            (tempfile::tempdir().unwrap(), crate::crypto::NodeKey::from_seed(&[4; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let at = 1_000_000 * CHUNK;
        content.write(place, &body.id, at + 7, b"x", Time::ZERO).unwrap();
        assert_eq!(content.seek(5, false), Some(3 * CHUNK));
        assert_eq!(content.run(3), (false, 1_000_000));
        assert_eq!(content.seek(3 * CHUNK, true), Some(at));
        assert_eq!(content.seek(at, false), Some(at + CHUNK));
        assert_eq!(content.seek(at + CHUNK, true), None);
        assert_eq!(content.run(1_000_001), (false, u64::MAX));
    }

    #[test]
    fn a_hole_takes_the_place_of_what_was_staged_and_of_the_base() {
        let (hash, claim) = (FileHash([1; 32]), ClaimId([2; 16]));
        let version = FileVersion { hash, size: 9 * CHUNK, claim, record: None };
        let body = Body::new(InodeId([3; 16]), Some(version.clone()));
        let mut content = body.lock();
        let (dir, key) =
            (tempfile::tempdir().unwrap(), crate::crypto::NodeKey::from_seed(&[4; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        content.write(place, &body.id, 2 * CHUNK, &[9; 2 * CHUNK_LEN], Time::ZERO).unwrap();
        assert_eq!(content.missing_to_punch(3 * CHUNK + 1, 9 * CHUNK), None, "it is staged");
        assert_eq!(content.missing_to_punch(3 * CHUNK, 5 * CHUNK + 1), Some(5));
        content.punch(3 * CHUNK + 1, 6 * CHUNK, Time::ZERO).unwrap();
        let all = |content: &Content| (0..9).map(|at| content.at(at)).collect::<Vec<_>>();
        let (base, draft, hole) = (At::Base, At::Draft, At::Hole);
        assert_eq!(all(&content), [base, base, draft, draft, hole, hole, base, base, base]);
        assert_eq!((content.used(), content.seek(2 * CHUNK, false)), (7 * CHUNK, Some(4 * CHUNK)));
        assert_eq!(content.seek(4 * CHUNK, true), Some(6 * CHUNK));
        let head = content.head(body.id, u64::MAX);
        assert_eq!((head.runs, head.holes), (vec![(2, 2)], vec![(4, 2)]));
        // A version is made of that; meanwhile there is another hole, and one is written to.
        let snapshot = content.snapshot(1);
        assert!(!snapshot.is_base(3, 8) && !snapshot.is_base(5, 8) && snapshot.is_base(6, 8));
        content.punch(7 * CHUNK, 9 * CHUNK, Time::ZERO).unwrap();
        content.punch(3 * CHUNK, 4 * CHUNK, Time::ZERO).unwrap();
        content.write(place, &body.id, 4 * CHUNK, b"x", Time::ZERO).unwrap();
        let mut byte = [1; 2];
        content.reader().unwrap().read(&mut byte, 3 * CHUNK).unwrap();
        assert_eq!(byte, [0; 2]);
        let (lookup, at) = (LookupId([5; 32]), Where::Inline(Vec::new()));
        let record = FileRecord { claim, lookup, content: at, replicas: 1, flags: 0 };
        let manifest = Manifest { length: 9 * CHUNK, rows: Vec::new() };
        let file = Arc::new(OpenFile::made(record, manifest));
        content.made(&OsFs, &snapshot, version, file, Time::ZERO).unwrap();
        assert_eq!(all(&content), [base, base, base, hole, draft, base, base, hole, hole]);
    }

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
