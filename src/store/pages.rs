//! The table file under redb: pages of 4,096 bytes, each with a check of its own. redb trusts what
//! it reads back (it sums its pages only when it repairs), and may panic on pages that it did not
//! write; here a damaged, truncated or foreign page is an error before redb sees it, and the store
//! builds its tables anew. Owns the layout of that file. Invariant: redb reads only what it wrote.
//!
//! Page `p` lies at `p × 4,104`: its bytes, then 8 bytes of check over its number and bytes (see
//! `format` for how a check is made). redb keeps pages that a checkpoint needs until the next one
//! is durable, so a page and its check need not become durable together. Page 0 alone is
//! overwritten in place; redb uses less than 504 bytes of it, and the check follows at byte 504,
//! in the same disk sector, which a disk writes as a whole. Behind it, at byte 512, is the length
//! that the file was given last (u64, then a check): redb concludes from the length what is in the
//! file, and one that was cut short would lead it astray.

use super::format::Checker;
use crate::sys::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;
const SLOT: usize = PAGE + CHECK;
const CHECK: usize = 8;
/// One disk sector: what page 0 really uses.
const SECTOR: usize = 512;
const FIRST_USED: usize = SECTOR - CHECK;
/// In the place of a page's number in the check of the length.
const LENGTH: u64 = u64::MAX;

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
            self.read_exact(&mut sector, 0)?;
            if self.check.page(0, &sector[..FIRST_USED]) != sector[FIRST_USED..] {
                return Err(damaged(0));
            }
            out.copy_from_slice(&sector[..out.len()]);
            return Ok(());
        }
        let first = page_number(offset, out.len())?;
        let mut slots = vec![0; out.len() / PAGE * SLOT];
        self.read_exact(&mut slots, first * SLOT as u64)?;
        for (number, (slot, page)) in
            (first..).zip(slots.chunks_exact(SLOT).zip(out.chunks_exact_mut(PAGE)))
        {
            if self.check.page(number, &slot[..PAGE]) != slot[PAGE..] {
                return Err(damaged(number));
            }
            page.copy_from_slice(&slot[..PAGE]);
        }
        Ok(())
    }

    fn write_pages(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() <= FIRST_USED {
            let mut sector = [0; SECTOR];
            sector[..data.len()].copy_from_slice(data);
            let sum = self.check.page(0, &sector[..FIRST_USED]);
            sector[FIRST_USED..].copy_from_slice(&sum);
            return self.file.write_at(&[&sector], 0);
        }
        let first = page_number(offset, data.len())?;
        let sums: Vec<[u8; CHECK]> = (first..)
            .zip(data.chunks_exact(PAGE))
            .map(|(number, page)| self.check.page(number, page))
            .collect();
        let parts: Vec<&[u8]> = data
            .chunks_exact(PAGE)
            .zip(&sums)
            .flat_map(|(page, sum)| [page, sum.as_slice()])
            .collect();
        self.file.write_at(&parts, first * SLOT as u64)
    }

    /// Bytes of the pages, when the file is as long as it was made.
    fn pages_len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        if len > 0 {
            let mut note = [0; 8 + CHECK];
            self.read_exact(&mut note, SECTOR as u64)?;
            let (made, check) = note.split_at(8);
            if self.check.page(LENGTH, made) != check || len.to_le_bytes() != made {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the table file has another length than it was given",
                ));
            }
        }
        Ok(len / SLOT as u64 * PAGE as u64)
    }

    /// When a process dies in between, the next one finds another length, and makes a new file.
    fn set_pages_len(&self, len: u64) -> io::Result<()> {
        let len = len.div_ceil(PAGE as u64) * SLOT as u64;
        self.file.set_len(len)?;
        let made = len.to_le_bytes();
        self.file.write_at(&[&made, &self.check.page(LENGTH, &made)], SECTOR as u64)
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
