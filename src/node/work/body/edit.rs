//! What programs do to a content: write, give it another length, make holes. Owns which chunk of
//! the base has to be staged before that.

use super::layout::At;
use super::{CHUNK, Content};
use crate::chunk::{chunk_count, chunk_len, chunks_of};
use crate::id::InodeId;
use crate::node::work::draft::Place;
use crate::sys::Time;
use std::io;
use std::ops::Range;

/// Chunks of which the room is given back at a time.
const AT_A_TIME: u64 = 16;

impl Content {
    /// The chunk that has to be staged before these bytes can be written.
    pub(in crate::node::work) fn missing_to_write(&self, at: u64, len: u64) -> Option<u64> {
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
    pub(in crate::node::work) fn missing_to_punch(&self, at: u64, end: u64) -> Option<u64> {
        [at / CHUNK, end.saturating_sub(1) / CHUNK]
            .into_iter()
            .find(|index| self.at(*index) == At::Base && !self.is_covered(*index, at, end))
    }

    /// Makes bytes that are not behind the end zero, all that is missing being staged. The room of
    /// whole chunks in the draft is given back by [`Self::give_back`].
    pub(in crate::node::work) fn punch(&mut self, at: u64, end: u64, now: Time) -> io::Result<()> {
        self.edit(now);
        self.refused = None;
        let last = if end == self.size { chunk_count(end) } else { end / CHUNK };
        let whole = at.div_ceil(CHUNK)..last;
        let (before, behind) = match whole.is_empty() {
            true => (end, end),
            false => (whole.start * CHUNK, whole.end * CHUNK),
        };
        if let Some(draft) = &self.draft {
            for part in [at..before, behind..end].into_iter().filter(|part| !part.is_empty()) {
                draft.punch(part.start, part.end - part.start)?;
            }
        }
        if !whole.is_empty() {
            let mut cut = self.staged.split_off(&whole.start);
            self.staged.append(&mut cut.split_off(&whole.end));
            self.stale.add(whole.clone());
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
    pub(in crate::node::work) fn missing_to_resize(&self, to: u64) -> Option<u64> {
        let index = to / CHUNK;
        let cut = to < self.size && !to.is_multiple_of(CHUNK) && self.at(index) == At::Base;
        if cut { Some(index) } else { self.missing_to_grow(to) }
    }

    /// Puts a chunk of the base into the draft.
    pub(in crate::node::work) fn stage(
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

    /// Writes bytes, all that is missing being staged. Whether a chunk was left behind with it.
    pub(in crate::node::work) fn write(
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

    /// Gives the room of some chunks back that have become holes; whether there may be more. Where
    /// a file system cannot do that, and zeros are written, others get their turn in between.
    pub(in crate::node::work) fn give_back(&mut self) -> io::Result<bool> {
        let Some((first, number)) = self.stale.runs(u64::MAX).next() else { return Ok(false) };
        let number = number.min(AT_A_TIME);
        if let Some(draft) = &self.draft {
            draft.punch(first * CHUNK, number * CHUNK)?;
        }
        self.stale.remove(first..first + number);
        Ok(true)
    }

    /// Empties chunks that are about to be staged, where something else may lie in the draft.
    fn clean(&mut self, chunks: Range<u64>) -> io::Result<()> {
        let Some(draft) = self.reader() else { return Ok(()) };
        if self.unclean == 0 && self.stale.is_empty() {
            return Ok(());
        }
        let unclean = self.unclean.div_ceil(CHUNK);
        for index in chunks {
            let is_dirty = index < unclean || self.stale.contains(index);
            if is_dirty && self.at(index) != At::Draft {
                draft.punch(index * CHUNK, CHUNK)?;
                self.stale.remove(index..index + 1);
            }
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
    pub(in crate::node::work) fn resize(&mut self, to: u64, now: Time) -> io::Result<()> {
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
            self.stale.remove(chunk_count(to)..u64::MAX);
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

    pub(super) fn edit(&mut self, now: Time) {
        if !self.edited {
            self.since = now;
        }
        self.edits += 1;
        (self.edited, self.last) = (true, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{CHUNK_LEN, Manifest};
    use crate::core::catalogue::{Content as Where, FileRecord, FileVersion};
    use crate::crypto::NodeKey;
    use crate::id::{ClaimId, FileHash, LookupId};
    use crate::node::get::OpenFile;
    use crate::node::work::body::Body;
    use crate::sys::os::OsFs;
    use std::sync::Arc;

    #[test]
    fn what_is_written_into_a_hole_is_not_mixed_with_what_was_there() {
        let body = Body::new(InodeId([3; 16]), None);
        let mut content = body.lock();
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[4; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let many = 2 * AT_A_TIME + 3;
        content.write(place, &body.id, 0, &vec![9; (many * CHUNK) as usize], Time::ZERO).unwrap();
        content.punch(0, many * CHUNK, Time::ZERO).unwrap();
        // Their room is not given back yet.
        for (index, at) in [(1, 5), (many - 1, 7)] {
            content.write(place, &body.id, index * CHUNK + at, b"x", Time::ZERO).unwrap();
        }
        let given_back = std::iter::from_fn(|| content.give_back().unwrap().then_some(()));
        assert_eq!(given_back.count(), 3, "some at a time, around what is used");
        let draft = content.reader().unwrap();
        for (index, at) in [(1, 5), (many - 1, 7)] {
            let mut bytes = vec![1; CHUNK_LEN];
            draft.read(&mut bytes, index * CHUNK).unwrap();
            assert!(
                bytes.iter().enumerate().all(|(n, byte)| *byte == if n == at { b'x' } else { 0 })
            );
        }
    }

    #[test]
    fn a_hole_takes_the_place_of_what_was_staged_and_of_the_base() {
        let (hash, claim) = (FileHash([1; 32]), ClaimId([2; 16]));
        let version = FileVersion { hash, size: 9 * CHUNK, claim, record: None };
        let body = Body::new(InodeId([3; 16]), Some(version.clone()));
        let mut content = body.lock();
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[4; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        content.write(place, &body.id, 2 * CHUNK, &[9; 2 * CHUNK_LEN], Time::ZERO).unwrap();
        assert_eq!(content.missing_to_punch(3 * CHUNK + 1, 9 * CHUNK), None, "it is staged");
        assert_eq!(content.missing_to_punch(3 * CHUNK, 5 * CHUNK + 1), Some(5));
        content.punch(3 * CHUNK + 1, 6 * CHUNK, Time::ZERO).unwrap();
        assert!(content.give_back().unwrap() && !content.give_back().unwrap());
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
        assert!(content.give_back().unwrap());
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
}
