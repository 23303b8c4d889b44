//! The table file under redb: pages of 4,096 bytes, each with a check of its own. redb trusts what
//! it reads back (it sums its pages only when it repairs), and may panic on pages that it did not
//! write; here a damaged, truncated or foreign page is an error before redb sees it, and the store
//! builds its tables anew. Owns the layout of that file. Invariant: redb reads only what it wrote.
//!
//! The file is a row of groups: one block of 512 checks, then the 512 pages that these are of. A
//! check is 8 bytes over the number of a page and its bytes (see `format` for how it is made). So
//! pages lie as the system's own do, and writing one touches no other. redb keeps pages that a
//! checkpoint needs until the next one is durable, so a page and its check need not become durable
//! together. Page 0 alone is overwritten in place; redb uses less than 504 bytes of it, and its
//! check follows at its byte 504, in the same disk sector, which a disk writes as a whole. Behind
//! it, at byte 512, is the length that the file was given last (u64, then a check): redb concludes
//! from the length what is in the file, and one that was cut short would lead it astray.

use super::format::Checker;
use crate::sys::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;
const CHECK: usize = 8;
/// Pages whose checks are one block.
const GROUP: u64 = (PAGE / CHECK) as u64;
/// One disk sector: what page 0 really uses.
const SECTOR: usize = 512;
const FIRST_USED: usize = SECTOR - CHECK;
/// In the place of a page's number in the check of the length.
const LENGTH: u64 = u64::MAX;
const LENGTH_AT: u64 = page_at(0) + SECTOR as u64;

/// Says for all handles of one table file whether it can still be used.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    /// Whether something failed; then the tables are to be rebuilt.
    pub(super) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Notes a failure.
    pub(super) fn break_down(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The table file as redb uses it.
pub(super) struct CheckedPages {
    file: Arc<dyn File>,
    check: Checker,
    health: Health,
}

impl CheckedPages {
    /// Over an open file.
    pub(super) fn new(file: Arc<dyn File>, check: Checker, health: Health) -> Self {
        Self { file, check, health }
    }

    /// Passes a result on and remembers a failure.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.health.break_down();
        }
        result
    }

    fn read_pages(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset == 0 && out.len() <= FIRST_USED {
            let mut sector = [0; SECTOR];
            self.read_exact(&mut sector, page_at(0))?;
            if self.check.page(0, &sector[..FIRST_USED]) != sector[FIRST_USED..] {
                return Err(damaged(0));
            }
            out.copy_from_slice(&sector[..out.len()]);
            return Ok(());
        }
        let mut rest = out;
        for (first, count) in runs(page_number(offset, rest.len())?, rest.len()) {
            let (run, behind) = rest.split_at_mut(count * PAGE);
            let mut checks = vec![0; count * CHECK];
            self.read_exact(run, page_at(first))?;
            self.read_exact(&mut checks, check_at(first))?;
            let pages = run.chunks_exact(PAGE).zip(checks.chunks_exact(CHECK));
            for (number, (page, check)) in (first..).zip(pages) {
                if self.check.page(number, page) != check {
                    return Err(damaged(number));
                }
            }
            rest = behind;
        }
        Ok(())
    }

    fn write_pages(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() <= FIRST_USED {
            let mut sector = [0; SECTOR];
            sector[..data.len()].copy_from_slice(data);
            let sum = self.check.page(0, &sector[..FIRST_USED]);
            sector[FIRST_USED..].copy_from_slice(&sum);
            return self.file.write_at(&[&sector], page_at(0));
        }
        let mut rest = data;
        for (first, count) in runs(page_number(offset, data.len())?, data.len()) {
            let (run, behind) = rest.split_at(count * PAGE);
            let pages = (first..).zip(run.chunks_exact(PAGE));
            let checks: Vec<u8> =
                pages.flat_map(|(number, page)| self.check.page(number, page)).collect();
            self.file.write_at(&[run], page_at(first))?;
            self.file.write_at(&[&checks], check_at(first))?;
            rest = behind;
        }
        Ok(())
    }

    /// Bytes of the pages, when the file is as long as it was made.
    fn pages_len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        if len > 0 {
            let mut note = [0; 8 + CHECK];
            self.read_exact(&mut note, LENGTH_AT)?;
            let (made, check) = note.split_at(8);
            if self.check.page(LENGTH, made) != check || len.to_le_bytes() != made {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the table file has another length than it was given",
                ));
            }
        }
        let blocks = len / PAGE as u64;
        let (groups, more) = (blocks / (GROUP + 1), blocks % (GROUP + 1));
        Ok((groups * GROUP + more.saturating_sub(1)) * PAGE as u64)
    }

    /// When a process dies in between, the next one finds another length, and makes a new file.
    fn set_pages_len(&self, len: u64) -> io::Result<()> {
        let last = len.div_ceil(PAGE as u64).checked_sub(1);
        let len = last.map_or(0, |last| page_at(last) + PAGE as u64);
        self.file.set_len(len)?;
        let made = len.to_le_bytes();
        self.file.write_at(&[&made, &self.check.page(LENGTH, &made)], LENGTH_AT)
    }

    fn read_exact(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.file.read_at(out, offset)? == out.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl std::fmt::Debug for CheckedPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedPages").finish_non_exhaustive()
    }
}

fn damaged(page: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("page {page} of the table file is damaged"))
}

/// Where a page lies.
const fn page_at(number: u64) -> u64 {
    (number / GROUP * (GROUP + 1) + 1 + number % GROUP) * PAGE as u64
}

/// Where its check lies.
const fn check_at(number: u64) -> u64 {
    number / GROUP * (GROUP + 1) * PAGE as u64 + number % GROUP * CHECK as u64
}

/// The pages of `len` bytes from `first` on, in runs that lie together: the first and how many.
fn runs(mut first: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let end = first + (len / PAGE) as u64;
    std::iter::from_fn(move || {
        let run = (first, end.min((first / GROUP + 1) * GROUP).checked_sub(first)?);
        first += run.1;
        (run.1 > 0).then_some((run.0, usize::try_from(run.1).ok()?))
    })
}

/// The number of the page at `offset`; redb reads and writes whole pages other than page 0.
fn page_number(offset: u64, len: usize) -> io::Result<u64> {
    let page = PAGE as u64;
    if offset == 0 || !offset.is_multiple_of(page) || !len.is_multiple_of(PAGE) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole pages"));
    }
    Ok(offset / page)
}

impl redb::StorageBackend for CheckedPages {
    fn len(&self) -> io::Result<u64> {
        self.note(self.pages_len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.read_pages(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.set_pages_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.write_pages(offset, data))
    }
}
