//! What a follower of catalogue records sees: the tables of the transaction, and the records that
//! were kept before. Owns nothing. Invariant: a record of the same batch is found although it is
//! not on the disk yet.

use super::read::Reader;
use super::{FollowTables, ReadError, rows};
use crate::id::RecordId;
use crate::sys::{Table, TableRead, TableWrite};
use std::collections::BTreeMap;
use std::io;

/// What a follower sees.
pub(super) struct Following<'a> {
    /// The tables.
    pub(super) tables: &'a mut dyn TableWrite,
    /// Reads records that were kept before.
    pub(super) reader: Reader<'a>,
    /// Records of this transaction.
    pub(super) fresh: &'a BTreeMap<RecordId, Vec<u8>>,
}

impl TableRead for Following<'_> {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.tables.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.tables.range(table, from, to, visit)
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.tables.last(table, from, to)
    }
}

impl TableWrite for Following<'_> {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.tables.insert(table, key, value)
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        self.tables.remove(table, key)
    }
}

impl FollowTables for Following<'_> {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.fresh.get(id) {
            return Ok(Some(bytes.clone()));
        }
        let Some((place, false)) = rows::record(self.tables, *id)? else { return Ok(None) };
        match self.reader.record(place, *id) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Damaged) => Ok(None),
            Err(ReadError::Io(err)) => Err(err),
        }
    }
}
