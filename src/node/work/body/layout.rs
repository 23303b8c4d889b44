//! Where the bytes of a content are, and how much room they count for. Owns what programs that look
//! for data and holes are told.

use super::{CHUNK, Content};
use crate::chunk::{chunk_count, chunk_len};
use crate::node::work::holes::Holes;
use std::collections::BTreeMap;

/// Where the bytes of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::work) enum At {
    Draft,
    Base,
    Hole,
}

pub(super) fn place(staged: &BTreeMap<u64, u64>, holes: &Holes, base_len: u64, index: u64) -> At {
    if staged.contains_key(&index) {
        At::Draft
    } else if index.saturating_mul(CHUNK) < base_len && !holes.contains(index) {
        At::Base
    } else {
        At::Hole
    }
}

impl Content {
    /// Where the bytes of a chunk are.
    pub(in crate::node::work) fn at(&self, index: u64) -> At {
        place(&self.staged, &self.holes, self.base_len, index)
    }

    /// The bytes that count as used, as far as that is known without opening anything.
    pub(in crate::node::work) fn used(&self) -> u64 {
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
    pub(in crate::node::work) fn drafted(&self) -> u64 {
        (self.staged.len() as u64 * CHUNK).min(self.size)
    }

    /// The next offset from `at` on with data, or with a hole; none: there is no more data.
    pub(in crate::node::work) fn seek(&self, at: u64, data: bool) -> Option<u64> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::MAX_FILE_LEN;
    use crate::core::catalogue::FileVersion;
    use crate::crypto::NodeKey;
    use crate::id::{ClaimId, FileHash, InodeId};
    use crate::node::work::body::Body;
    use crate::node::work::draft::Place;
    use crate::sys::Time;
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
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[4; 32]));
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
}
