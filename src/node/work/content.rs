//! Bytes of files in and out: from a draft, from this node's store or from other nodes, with what
//! comes next read ahead. Owns the few chunks that are kept in the clear; what is where is
//! `body`'s.

use super::body::{At, Body, Content};
use super::file::Cut;
use super::{State, WorkError};
use crate::chunk::{CHUNK_LEN, Disproved, MAX_FILE_LEN, Place, chunk_count, chunk_len};
use crate::core::catalogue::{FileVersion, file_record};
use crate::core::work::What;
use crate::id::ChunkValue;
use crate::node::get::{GetError, OpenFile};
use crate::node::records::{FoundRecord, records_of};
use crate::node::{Shared, lock};
use crate::sys::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::OnceCell;

const CHUNK: u64 = CHUNK_LEN as u64;
/// Chunks that are kept in the clear.
const CLEAR_MAX: usize = 4;
/// They are given up when they are not used for so long.
const REST: Duration = Duration::from_secs(10);
/// Chunks that are read ahead of a program that reads in order.
const AHEAD: u64 = 2;

/// What the bytes of a chunk were proved against: their value, where they stand and how many they
/// are. The name of the sealed chunk is no part of it: a forged row pairs any name with any value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Proved {
    value: ChunkValue,
    place: Place,
    len: usize,
}

/// Chunks in the clear, those used last at the end, and those on their way.
#[derive(Default)]
pub(in crate::node) struct Clear {
    kept: Mutex<VecDeque<(Proved, Time, Bytes)>>,
    flying: Mutex<BTreeMap<Proved, Weak<OnceCell<Bytes>>>>,
}

impl Clear {
    fn get(&self, what: &Proved, now: Time) -> Option<Bytes> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().position(|(known, ..)| known == what)?;
        let (what, _, bytes) = kept.remove(at)?;
        kept.push_back((what, now, bytes.clone()));
        Some(bytes)
    }

    fn keep(&self, what: Proved, bytes: Bytes, now: Time, short: bool) {
        let mut kept = lock(&self.kept);
        while kept.len() >= if short { 1 } else { CLEAR_MAX } {
            kept.pop_front();
        }
        kept.push_back((what, now, bytes));
    }

    fn flight(&self, what: Proved) -> Arc<OnceCell<Bytes>> {
        let mut flying = lock(&self.flying);
        flying.retain(|_, cell| cell.strong_count() > 0);
        if let Some(cell) = flying.get(&what).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::default();
        flying.insert(what, Arc::downgrade(&cell));
        cell
    }

    /// Gives the memory of what was not used for a while back.
    pub(super) fn rest(&self, now: Time) {
        lock(&self.kept).retain(|(_, used, _)| now.since(*used) < REST);
    }
}

/// What came of an attempt to write.
pub(super) enum Tried {
    /// It was done, at this offset.
    Written(u64),
    /// This chunk has to be brought first.
    Misses(u64),
}

impl Shared {
    /// The version that a content was made from, opened; none: a new file's.
    pub(super) async fn base_of(
        self: &Arc<Self>,
        body: &Body,
    ) -> Result<Option<Arc<OpenFile>>, WorkError> {
        let version = {
            let content = body.lock();
            let Some(base) = content.base() else { return Ok(None) };
            if let Some(file) = content.opened() {
                return Ok(Some(file.clone()));
            }
            base.clone()
        };
        let keyring = self.catalogue.keyring();
        let mut records = self.read_records(|view| {
            let mut records = records_of(view, &keyring, &version.hash)?;
            // The record that the version names may be of a claim that was released since.
            if records.is_empty()
                && let Some(id) = version.record
                && let (Some(record), Some(keys)) = (file_record(view, &id)?, keyring.newest())
                && !record.is_shared()
            {
                let (author, keys) = (self.me, Arc::new(keys.clone()));
                records.push(FoundRecord { author, record, keys });
            }
            Ok(records)
        })?;
        let file = Arc::new(self.open_base(&version, &mut records).await?);
        body.lock().set_opened(&version, &file);
        Ok(Some(file))
    }

    /// Opens the version of a content. The values of a manifest prove nothing of its length: one
    /// that has another than the version does not lead to its bytes.
    async fn open_base(
        self: &Arc<Self>,
        version: &FileVersion,
        records: &mut Vec<FoundRecord>,
    ) -> Result<OpenFile, GetError> {
        loop {
            let file = self.open_file(version.hash, records).await?;
            if file.manifest.length == version.size {
                return Ok(file);
            }
            if records.is_empty() {
                return Err(Disproved::RowCount.into());
            }
        }
    }

    /// A chunk of an opened file in the clear.
    pub(super) async fn plain_chunk(
        self: &Arc<Self>,
        file: &OpenFile,
        index: u64,
    ) -> Result<Bytes, GetError> {
        let row = self.row_of(file, index).await?;
        if row.is_zero() {
            return self.clear_chunk(file, index).await;
        }
        let now = self.sys.clock.now();
        let length = file.manifest.length;
        let place = Place::of(index, chunk_count(length));
        let what = Proved { value: row.value, place, len: chunk_len(length, index) };
        if let Some(bytes) = self.work.clear.get(&what, now) {
            return Ok(bytes);
        }
        let cell = self.work.clear.flight(what);
        let bytes = cell.get_or_try_init(|| self.clear_chunk(file, index)).await?.clone();
        if self.work.clear.get(&what, now).is_none() {
            self.work.clear.keep(what, bytes.clone(), now, self.memory_is_short());
        }
        Ok(bytes)
    }

    /// Bytes of a file, as far as there are any.
    pub(super) async fn read_body(
        self: &Arc<Self>,
        body: &Arc<Body>,
        at: u64,
        len: usize,
    ) -> Result<Vec<u8>, WorkError> {
        let mut out = Vec::new();
        let (mut pos, mut left) = (at, len as u64);
        while left > 0 {
            let index = pos / CHUNK;
            let within = (pos % CHUNK) as usize;
            let (place, size, draft) = {
                let content = body.lock();
                (content.at(index), content.size(), content.reader())
            };
            let step = left.min(chunk_len(size, index).saturating_sub(within) as u64);
            if step == 0 {
                break;
            }
            let from = out.len();
            out.resize(from + step as usize, 0);
            match (place, draft) {
                (At::Draft, Some(draft)) => draft.read(&mut out[from..], pos)?,
                (At::Base, _) => {
                    let Some(file) = self.base_of(body).await? else { break };
                    let plain = self.plain_chunk(&file, index).await?;
                    let end = (within + step as usize).min(plain.len());
                    if within < end {
                        out[from..from + end - within].copy_from_slice(&plain[within..end]);
                    }
                    self.read_ahead(body, &file, index);
                }
                _ => {}
            }
            pos += step;
            left -= step;
        }
        Ok(out)
    }

    /// Begins to bring what a program that reads in order will want next.
    fn read_ahead(self: &Arc<Self>, body: &Arc<Body>, file: &Arc<OpenFile>, index: u64) {
        let before = std::mem::replace(&mut body.lock().read, index);
        if before == index || before.wrapping_add(1) != index {
            return;
        }
        let end = chunk_count(file.manifest.length).min(index + 1 + AHEAD);
        for next in index + 1..end {
            if body.lock().at(next) != At::Base || self.memory_is_short() {
                return;
            }
            let (shared, file) = (self.clone(), file.clone());
            tokio::spawn(async move {
                // Whoever reads it will see the error again.
                shared.plain_chunk(&file, next).await.ok();
            });
        }
    }

    /// Makes sure that what is seen of a file is what its edits begin with.
    pub(super) fn begin_edit(&self, body: &Body) -> Result<(), WorkError> {
        if body.lock().is_touched() {
            return Ok(());
        }
        let State { work, .. } = &mut *lock(&self.work.state);
        let version = self.tree(|tree| {
            work.keep(tree, &body.id)?;
            work.touch(tree, &body.id)?;
            Ok(work.inode(tree, &body.id)?)
        })?;
        let mut content = body.lock();
        if let Some(What::File(Some(version))) = version.map(|inode| inode.what) {
            content.rebase(&version);
        }
        content.touch();
        Ok(())
    }

    /// The same, and what is edited then. A version may have been made meanwhile, with which what
    /// was seen before is forgotten.
    fn edit_begun<'a>(&self, body: &'a Body) -> Result<MutexGuard<'a, Content>, WorkError> {
        loop {
            self.begin_edit(body)?;
            let content = body.lock();
            if content.is_touched() {
                return Ok(content);
            }
        }
    }

    /// Writes bytes if nothing has to be brought for that; without an offset at the end.
    pub(super) fn try_write(
        &self,
        body: &Body,
        at: Option<u64>,
        bytes: &[u8],
    ) -> Result<Tried, WorkError> {
        self.room_for(bytes.len() as u64)?;
        let mut content = self.edit_begun(body)?;
        let now = self.sys.clock.now();
        let at = at.unwrap_or_else(|| content.size());
        if at.saturating_add(bytes.len() as u64) > MAX_FILE_LEN {
            return Err(WorkError::TooLarge);
        }
        if let Some(index) = content.missing_to_write(at, bytes.len() as u64) {
            return Ok(Tried::Misses(index));
        }
        let left = content.write(self.drafts(), &body.id, at, bytes, now)?;
        content.modified_ns = Some(self.now_ns());
        match &content.ahead {
            Some(ahead) if left => ahead.more(),
            None if left && content.wants_ahead() => self.work.changed.notify_one(),
            _ => {}
        }
        Ok(Tried::Written(at))
    }

    /// Writes bytes, without an offset at the end; where that was.
    pub(super) async fn write_body(
        self: &Arc<Self>,
        body: &Arc<Body>,
        at: Option<u64>,
        bytes: &[u8],
    ) -> Result<u64, WorkError> {
        loop {
            match self.try_write(body, at, bytes)? {
                Tried::Written(at) => return Ok(at),
                Tried::Misses(index) => {
                    self.room_for(CHUNK_LEN as u64)?;
                    self.stage_chunk(body, index).await?;
                }
            }
        }
    }

    /// Brings a chunk of the base into the draft.
    async fn stage_chunk(self: &Arc<Self>, body: &Arc<Body>, index: u64) -> Result<(), WorkError> {
        let Some(file) = self.base_of(body).await? else { return Ok(()) };
        let plain = self.plain_chunk(&file, index).await?;
        let mut content = body.lock();
        let same = content.opened().is_some_and(|now| Arc::ptr_eq(now, &file));
        // What nobody edits any more may get another base, and a staged chunk would not be of that.
        if same && content.is_touched() {
            content.stage(self.drafts(), &body.id, index, &plain)?;
        }
        Ok(())
    }

    /// Gives a file another length; whether it had another one.
    pub(super) async fn resize_body(
        self: &Arc<Self>,
        body: &Arc<Body>,
        to: u64,
    ) -> Result<bool, WorkError> {
        if to > MAX_FILE_LEN {
            return Err(WorkError::TooLarge);
        }
        loop {
            if body.lock().size() == to {
                return Ok(false);
            }
            let (missing, synced) = {
                let mut content = self.edit_begun(body)?;
                if content.size() == to {
                    continue;
                }
                let now = self.sys.clock.now();
                let missing = content.missing_to_resize(to);
                let said = body.has_heads() || content.may_be_said();
                let synced = to < content.size() && said;
                if missing.is_none() && !synced {
                    content.resize(to, now)?;
                    content.modified_ns = Some(self.now_ns());
                }
                (missing, synced)
            };
            match missing {
                Some(index) => self.stage_chunk(body, index).await?,
                None if !synced || self.resize_synced(body, to).await? => return Ok(true),
                None => {}
            }
        }
    }

    /// Makes bytes of a file zero, as far as it goes, and gives their room back.
    pub(super) async fn punch_body(
        self: &Arc<Self>,
        body: &Arc<Body>,
        at: u64,
        len: u64,
    ) -> Result<(), WorkError> {
        loop {
            let missing = {
                let content = self.edit_begun(body)?;
                let end = at.saturating_add(len).min(content.size());
                if at >= end {
                    return Ok(());
                }
                content.missing_to_punch(at, end)
            };
            if let Some(index) = missing {
                self.stage_chunk(body, index).await?;
                continue;
            }
            let (shared, body) = (self.clone(), body.clone());
            if self.job(move || shared.punch_staged(&body, at, len)).await?? {
                return Ok(());
            }
        }
    }

    /// The same if nothing has to be staged for that; whether it was so. A large draft takes a
    /// file system a while.
    fn punch_staged(&self, body: &Body, at: u64, len: u64) -> Result<bool, WorkError> {
        {
            let mut content = body.lock();
            let end = at.saturating_add(len).min(content.size());
            if at < end {
                if content.missing_to_punch(at, end).is_some() || !content.is_touched() {
                    return Ok(false);
                }
                content.punch(at, end, self.sys.clock.now())?;
                content.modified_ns = Some(self.now_ns());
            }
        }
        // Some at a time, each with the lock anew.
        while body.lock().give_back()? {}
        Ok(true)
    }

    /// Makes a file shorter of which something was synced, or has it written down before; whether
    /// it is shorter.
    async fn resize_synced(self: &Arc<Self>, body: &Arc<Body>, to: u64) -> Result<bool, WorkError> {
        let (shared, cut) = (self.clone(), body.clone());
        match self.job(move || shared.cut_synced(&cut, to)).await?? {
            Cut::Done => return Ok(true),
            Cut::NotReady => return Ok(false),
            Cut::Unlisted => {}
        }
        body.lock().urgent = true;
        self.round(false).await?.map_or(Ok(false), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_only_given_for_what_they_were_proved_against() {
        let clear = Clear::default();
        let proved = Proved { value: ChunkValue([1; 32]), place: Place::At(1), len: 5 };
        clear.keep(proved, Bytes::from_static(b"bytes"), Time::ZERO, false);
        assert!(clear.get(&proved, Time::ZERO).is_some());
        for other in [
            Proved { value: ChunkValue([2; 32]), ..proved },
            Proved { place: Place::At(2), ..proved },
            Proved { place: Place::Whole, ..proved },
            Proved { len: 6, ..proved },
        ] {
            assert!(clear.get(&other, Time::ZERO).is_none());
            let (one, two) = (clear.flight(proved), clear.flight(other));
            assert!(!Arc::ptr_eq(&one, &two), "nobody waits for another one's bytes");
        }
    }
}
