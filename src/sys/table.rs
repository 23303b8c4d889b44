//! Ordered tables of bytes: the shape in which `core` sees everything that is too large for memory
//! (catalogue, tree, claims). The store implements them over its table library, the tests over a
//! map. Tables are caches: they can be rebuilt from the segments at any time.

use std::io;

/// A table's name; it is part of the table file's format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Table(pub &'static str);

/// Reads ordered tables. Keys are ordered bytewise.
pub trait TableRead {
    /// The value under `key`.
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Calls `visit` for each entry with `from <= key < to` in ascending order, until it returns
    /// false. `to = None` means up to the end of the table.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()>;

    /// The last entry with `from <= key < to`.
    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>>;
}

/// Changes ordered tables. All changes of one transaction become visible together.
pub trait TableWrite: TableRead {
    /// Sets the value under `key`.
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()>;

    /// Removes `key`; true when it was there.
    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool>;
}
