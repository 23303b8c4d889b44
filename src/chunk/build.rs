//! Making of a manifest from rows that come in order, in constant memory: full pages leave as soon
//! as it is sure that the file needs pages. Owns the running hash; sealing a page is the caller's.
//!
//! Invariant: what [`Builder::finish`] returns proves against the hash it returns with it.

use super::{
    CHUNK_LEN, MAX_PAGES, Manifest, PAGE_ROWS, Page, Row, TooLarge, TreeHasher, empty_hash,
};
use crate::id::FileHash;

/// Collects the rows of a file whose length need not be known.
#[derive(Debug, Default)]
pub struct Builder {
    length: u64,
    rows: Vec<Row>,
    pages: Vec<Row>,
}

impl Builder {
    /// Adds the next chunk: its row and its plain length, which is [`CHUNK_LEN`] for all but the
    /// last. When a page has become full, `seal_page` turns it into its row of the root.
    pub fn push<E: From<TooLarge>>(
        &mut self,
        row: Row,
        len: usize,
        seal_page: impl FnOnce(Page) -> Result<Row, E>,
    ) -> Result<(), E> {
        debug_assert!(self.length.is_multiple_of(CHUNK_LEN as u64), "only the last chunk is short");
        if self.rows.len() == PAGE_ROWS {
            // The page just completed and the one that this row begins must both fit.
            if self.pages.len() + 2 > MAX_PAGES {
                return Err(TooLarge.into());
            }
            self.pages.push(seal_page(Page { rows: std::mem::take(&mut self.rows) })?);
        }
        self.rows.push(row);
        self.length += len as u64;
        Ok(())
    }

    /// The bytes of the file so far.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The manifest and the file hash. A file with pages has one more to seal.
    pub fn finish<E>(
        mut self,
        seal_page: impl FnOnce(Page) -> Result<Row, E>,
    ) -> Result<(Manifest, FileHash), E> {
        if !self.pages.is_empty() {
            let last = seal_page(Page { rows: std::mem::take(&mut self.rows) })?;
            self.pages.push(last);
            self.rows = self.pages;
        }
        let hash = match self.rows.as_slice() {
            [] => empty_hash(),
            [only] => FileHash(only.value.0),
            rows => rows
                .iter()
                .map(|row| row.value)
                .collect::<TreeHasher>()
                .root()
                .expect("two rows or more have a root"),
        };
        Ok((Manifest { length: self.length, rows: self.rows }, hash))
    }
}
