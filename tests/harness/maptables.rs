//! Tables and records in memory: `sys::TableWrite` and `core::catalogue::View` over ordered maps,
//! for tests of everything that sees tables. No transactions: a test that fails is over.

use p2pfs::core::catalogue::View;
use p2pfs::id::RecordId;
use p2pfs::sys::{Table, TableRead, TableWrite};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ordered tables, and the bytes of records.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct MapTables {
    /// Rows by table; a table without rows is not there.
    pub(crate) tables: BTreeMap<Table, Rows>,
    /// What the store's segments would hold.
    pub(crate) records: BTreeMap<RecordId, Vec<u8>>,
}

impl MapTables {
    fn between(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Option<Range<'_>> {
        let end = match to {
            Some(to) if to <= from => return None,
            Some(to) => Bound::Excluded(to),
            None => Bound::Unbounded,
        };
        Some(self.tables.get(&table)?.range::<[u8], _>((Bound::Included(from), end)))
    }
}

type Range<'a> = std::collections::btree_map::Range<'a, Vec<u8>, Vec<u8>>;

impl TableRead for MapTables {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        let mut rows = self.between(table, from, to).into_iter().flatten();
        rows.all(|(key, value)| visit(key, value));
        Ok(())
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let row = self.between(table, from, to).and_then(|mut rows| rows.next_back());
        Ok(row.map(|(key, value)| (key.clone(), value.clone())))
    }
}

impl TableWrite for MapTables {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.tables.entry(table).or_default().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        let Some(rows) = self.tables.get_mut(&table) else { return Ok(false) };
        let was_there = rows.remove(key).is_some();
        if rows.is_empty() {
            self.tables.remove(&table);
        }
        Ok(was_there)
    }
}

impl View for MapTables {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        Ok(self.records.get(id).cloned())
    }
}
