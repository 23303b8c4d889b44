//! Walks the records of a segment file and finds the next good one behind damaged bytes. It
//! judges nothing: whether damage is a torn tail or bit rot, `recover` knows. Invariant: a scan
//! always ends, and reports every byte of its range as part of a record or of a damaged range.

use super::format::{Checker, FILE_HEAD, Found, MAX_BODY, RECORD_HEAD, RECORD_MAGIC};
use super::format::{announced, get_record};
use crate::sys::File;
use std::io;

/// Read at once where records are large, so that payloads are skipped, not read.
const SMALL_WINDOW: usize = 512;
/// Read at once where records are small, and while looking for the next good one.
const LARGE_WINDOW: usize = 64 << 10;
/// The unit in which unreadable bytes are passed over.
const SECTOR: usize = 4096;

/// One thing that a scan met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A record.
    Record {
        /// Where it starts.
        offset: u64,
        /// What it says.
        found: Found,
    },
    /// Bytes that are no record.
    Damaged {
        /// Where they start.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// A walk through one file.
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    check: &'a Checker,
    number: u32,
    at: u64,
    end: u64,
    /// Below this, bytes that the disk cannot read are damage; above it they are an error.
    durable: u64,
    window: Vec<u8>,
    window_at: u64,
    window_len: usize,
}

impl<'a> Scan<'a> {
    /// Over the bytes from `from` (a record's start) to `end` of file `number`.
    pub(super) fn new(
        file: &'a dyn File,
        check: &'a Checker,
        number: u32,
        from: u64,
        end: u64,
        durable: u64,
    ) -> Self {
        let at = from.max(FILE_HEAD as u64);
        let (window, window_len) = (Vec::new(), SMALL_WINDOW);
        Self { file, check, number, at, end, durable, window, window_at: 0, window_len }
    }

    /// The next thing; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let offset = self.at;
        if let Some(found) = self.record_at(offset)? {
            let len = (found.head + found.payload) as u64;
            self.at += len;
            self.window_len = if len > SECTOR as u64 { SMALL_WINDOW } else { LARGE_WINDOW };
            return Ok(Some(Item::Record { offset, found }));
        }
        self.window_len = LARGE_WINDOW;
        self.at = self.next_good(offset + 1)?;
        Ok(Some(Item::Damaged { offset, len: self.at - offset }))
    }

    fn record_at(&mut self, at: u64) -> io::Result<Option<Found>> {
        let Some((head, payload)) = announced(self.bytes(at, RECORD_HEAD)?) else {
            return Ok(None);
        };
        if at + (head + payload) as u64 > self.end {
            return Ok(None);
        }
        let (number, check) = (self.number, self.check);
        Ok(get_record(self.bytes(at, head)?, number, at, check))
    }

    /// The first place from `at` on where a good record starts; the end when there is none.
    fn next_good(&mut self, mut at: u64) -> io::Result<u64> {
        loop {
            let bytes = self.bytes(at, LARGE_WINDOW)?;
            if bytes.len() < RECORD_HEAD {
                return Ok(self.end);
            }
            match bytes.windows(4).position(|four| four == RECORD_MAGIC) {
                None => at += bytes.len() as u64 - 3,
                Some(skip) => {
                    at += skip as u64;
                    if self.record_at(at)?.is_some() {
                        return Ok(at);
                    }
                    at += 1;
                }
            }
        }
    }

    /// `len` bytes at `at`, fewer at the end.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        debug_assert!(len <= LARGE_WINDOW.max(RECORD_HEAD + MAX_BODY));
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = len.min(left);
        let inside =
            at >= self.window_at && at + want as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let mut window = std::mem::take(&mut self.window);
            window.resize(self.window_len.max(want).min(left), 0);
            self.fill(&mut window, at)?;
            self.window = window;
            self.window_at = at;
        }
        let skip = usize::try_from(at - self.window_at).expect("the window covers the place");
        Ok(&self.window[skip..skip + want])
    }

    /// Reads a window; what a file lacks or a disk cannot read is zeros, which are no record.
    fn fill(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let whole = match self.file.read_at(out, at) {
            Ok(n) => {
                out[n..].fill(0);
                return Ok(());
            }
            Err(err) => err,
        };
        if at + out.len() as u64 > self.durable {
            return Err(whole);
        }
        for (sector, piece) in (0u64..).zip(out.chunks_mut(SECTOR)) {
            let n = self.file.read_at(piece, at + sector * SECTOR as u64).unwrap_or(0);
            piece[n..].fill(0);
        }
        Ok(())
    }
}
