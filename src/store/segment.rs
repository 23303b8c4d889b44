//! The segment that is written: appending, reserving space ahead, ending. It decides nothing
//! about failures. Invariant: what lies behind `at` was never answered, and a file is never
//! appended to after one of its writes or syncs failed.

use super::files::Files;
use super::format::{Checker, Class, FILE_HEAD, FileHead};
use crate::sys::{File, OpenMode};
use std::io;
use std::sync::Arc;

/// Space is reserved in steps: a file that grows in each sync costs a journal commit more.
const STEP: u64 = 16 << 20;
/// Written at once before the disk is asked to begin: it works while the next part is copied.
const PART: usize = 1 << 20;

/// The newest segment.
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u32,
    /// How much of it counts: where the next batch begins.
    pub(super) at: u64,
    /// A mark lies right before `at`, or the header does.
    pub(super) marked: bool,
    file: Arc<dyn File>,
    reserved: u64,
    /// Large ranges written since the last sync: then they leave the page cache, where they would
    /// only drive out what is read.
    large: Vec<(u64, u64)>,
    len: u64,
}

impl Segment {
    /// Makes the segment with this header; it is durable when this returns. It is to become about
    /// `len` bytes long.
    pub(super) fn create(
        files: &Files,
        check: &Checker,
        head: &FileHead,
        len: u64,
    ) -> io::Result<Self> {
        let number = head.number;
        let path = files.path(Class::Segment, number);
        let file = files.fs.open(&path, OpenMode::CreateNew)?;
        let at = FILE_HEAD as u64;
        let mut segment =
            Self { number, at, marked: true, file, reserved: 0, large: Vec::new(), len };
        segment.reserve(at)?;
        segment.file.write_at(&[&head.encode(check)], 0)?;
        segment.file.sync_data()?;
        if !cfg!(p2pfs_planted = "skip-dir-fsync") {
            files.fs.sync_dir(&files.folder(Class::Segment))?;
        }
        Ok(segment)
    }

    /// Goes on with a segment of an earlier start, of which `at` bytes count.
    pub(super) fn resume(files: &Files, number: u32, at: u64, len: u64) -> io::Result<Self> {
        let file = files.fs.open(&files.path(Class::Segment, number), OpenMode::Write)?;
        Ok(Self { number, at, marked: false, file, reserved: at, large: Vec::new(), len })
    }

    /// Whether a batch of about `bytes` would make it longer than a segment is to be.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        self.at > FILE_HEAD as u64 && self.at + bytes > self.len
    }

    /// Writes behind what counts, without moving `at`.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.reserve(self.at + total)?;
        let mut at = self.at;
        let mut rest = parts;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest.iter().take_while(|part| {
                let more = bytes < PART;
                bytes += if more { part.len() } else { 0 };
                more
            });
            let (now, later) = rest.split_at(count.count());
            self.file.write_at(now, at)?;
            if bytes >= PART {
                self.file.write_out(at, bytes as u64)?;
                self.large.push((at, bytes as u64));
            }
            at += bytes as u64;
            rest = later;
        }
        Ok(())
    }

    fn reserve(&mut self, end: u64) -> io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let steps = end.next_multiple_of(STEP).min(self.len.max(end));
        self.reserved = match self.file.allocate(self.reserved, steps - self.reserved) {
            // A disk that is nearly full may still have room for what is needed now.
            Err(err) if err.kind() == io::ErrorKind::StorageFull && steps > end => {
                self.file.allocate(self.reserved, end - self.reserved)?;
                end
            }
            other => other.map(|()| steps)?,
        };
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let synced = self.file.sync_data();
        #[cfg(p2pfs_planted = "retry-after-fsync-error")]
        let synced = synced.or_else(|_| self.file.sync_data());
        synced?;
        for (at, len) in std::mem::take(&mut self.large) {
            self.file.let_go(at, len)?;
        }
        Ok(())
    }

    /// Takes back what was written behind `at`, durably.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        self.trim()?;
        self.sync()
    }

    /// Gives back the space behind `at`.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        self.file.set_len(self.at)?;
        self.reserved = self.at;
        Ok(())
    }
}
