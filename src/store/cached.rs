//! Evictable copies: files of the segment format that are never synced, and are given back whole,
//! oldest first. Nobody counts on a copy here: after a crash a row of `@cached` may point at
//! nothing, and the reader then finds that it is not held. Invariant: together the files take at
//! most the bytes that were granted, or one file.

use super::batch::Plan;
use super::files::Files;
use super::format::{Class, Entry, FILE_HEAD, FileHead};
use super::index::Index;
use super::rows::{self, Counts};
use super::scan::{Item, Scan};
use super::shared::Shared;
use super::{Follow, Options};
use crate::id::{ChunkId, NodeId};
use crate::sys::{File, OpenMode};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Reclaiming gives back whole files: eight of them make that smooth …
const FILES: u64 = 8;
/// … but a file is at least so long …
const MIN_FILE: u64 = 4 << 20;
/// … and at most so.
const MAX_FILE: u64 = 64 << 20;

/// The cache files.
pub(super) struct CacheFiles {
    node: NodeId,
    max: u64,
    file_len: u64,
    /// Oldest first, with lengths; the last one may be the one that is written.
    files: VecDeque<(u32, u64)>,
    active: Option<Arc<dyn File>>,
    next: u32,
}

impl CacheFiles {
    /// Over what is there. A file of an earlier start is not written to again.
    pub(super) fn open(files: &Files, options: &Options) -> io::Result<Self> {
        let found: VecDeque<_> =
            files.list(Class::Cache)?.iter().map(|file| (file.number, file.len)).collect();
        let next = found.back().map_or(0, |(number, _)| *number) + 1;
        Ok(Self {
            node: options.node,
            max: options.cached_max,
            file_len: (options.cached_max / FILES).clamp(MIN_FILE, MAX_FILE),
            files: found,
            active: None,
            next,
        })
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, len)| len).sum()
    }

    /// Forgets all files: a rebuild of the tables removes them.
    pub(super) fn reset(&mut self) {
        self.active = None;
        self.files.clear();
    }

    /// Keeps copies of these chunks. After an error none of them is kept.
    pub(super) fn add(
        &mut self,
        shared: &Shared,
        follow: &dyn Follow,
        copies: &[(ChunkId, Bytes)],
    ) -> io::Result<()> {
        let bytes: u64 = copies.iter().map(|(_, sealed)| sealed.len() as u64).sum();
        if self.max == 0 {
            return Ok(());
        }
        let full = self.files.back().is_none_or(|(_, len)| len + bytes > self.file_len);
        if self.active.is_none() || full {
            self.start_file(shared)?;
        }
        let tables = shared.tables()?;
        let mut change = tables.begin()?;
        let len = change.edit(|tables| {
            let mut counts = Counts::default();
            let mut index = Index::new(tables, &mut counts, follow, shared.reader());
            self.write(shared, &mut index, copies)
        });
        match len {
            Ok(len) => {
                if let Some(last) = self.files.back_mut() {
                    last.1 = len;
                }
                change.commit()?;
            }
            Err(err) => {
                // What lies in the file now is unknown: the next copy begins another one.
                self.active = None;
                return Err(err);
            }
        }
        while self.bytes() > self.max && self.files.len() > 1 {
            self.evict(shared, follow)?;
        }
        Ok(())
    }

    fn write(
        &self,
        shared: &Shared,
        index: &mut Index<'_>,
        copies: &[(ChunkId, Bytes)],
    ) -> io::Result<u64> {
        let (Some((number, start)), Some(file)) = (self.files.back(), &self.active) else {
            return Err(io::Error::other("no cache file is open"));
        };
        let mut plan = Plan::new(*number, *start);
        for (cid, sealed) in copies {
            let held = rows::chunk(index.tables, *cid)?.is_some()
                || rows::cached(index.tables, *cid)?.is_some();
            if !held {
                let entry = Entry::Cached { cid: *cid };
                let place = plan.push(&entry, Some(sealed.clone()), &shared.check);
                index.note_cached(*cid, place)?;
            }
        }
        file.write_at(&plan.slices(), *start)?;
        Ok(plan.end())
    }

    fn start_file(&mut self, shared: &Shared) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let path = shared.files.path(Class::Cache, number);
        let file = shared.files.fs.open(&path, OpenMode::CreateNew)?;
        let head = FileHead {
            class: Class::Cache,
            number,
            order: number,
            previous: 0,
            previous_end: 0,
            node: self.node,
        };
        file.write_at(&[&head.encode(&shared.check)], 0)?;
        self.files.push_back((number, FILE_HEAD as u64));
        self.active = Some(file);
        Ok(())
    }

    /// Gives back the oldest file; false when there is none.
    pub(super) fn evict(&mut self, shared: &Shared, follow: &dyn Follow) -> io::Result<bool> {
        let Some((number, len)) = self.files.pop_front() else { return Ok(false) };
        if self.files.is_empty() {
            self.active = None;
        }
        let cids = cids(shared, number, len);
        let tables = shared.tables()?;
        let mut change = tables.begin()?;
        change.edit(|tables| {
            let mut counts = Counts::default();
            let mut index = Index::new(tables, &mut counts, follow, shared.reader());
            for cid in cids {
                if rows::cached(index.tables, cid)?.is_some_and(|at| at.number == number) {
                    index.forget_cached(cid)?;
                }
            }
            Ok(())
        })?;
        change.commit()?;
        shared.files.remove(Class::Cache, number)?;
        Ok(true)
    }
}

/// The chunks of a cache file, as far as it can be read; rows that this misses point at a file
/// that is gone, which a reader takes for "not held".
fn cids(shared: &Shared, number: u32, len: u64) -> Vec<ChunkId> {
    let mut cids = Vec::new();
    let Ok(file) = shared.files.reader(Class::Cache, number) else { return cids };
    let mut scan = Scan::new(&*file, &shared.check, number, 0, len, len);
    while let Ok(Some(item)) = scan.next() {
        if let Item::Record { found, .. } = item
            && let Entry::Cached { cid } = found.entry
        {
            cids.push(cid);
        }
    }
    cids
}
