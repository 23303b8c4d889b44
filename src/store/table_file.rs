//! The table file: one redb file, whose keys begin with the table's name, so that opening a table
//! costs nothing. The only module that knows redb. Owns what is settled; rows newer than that are
//! `tables`'. Invariant: an error of this module never loses data, it means that the tables are to
//! be rebuilt from the segments ([`Health`]).

use super::format::Checker;
use super::pages::{CheckedPages, Health};
use crate::sys::{Fs, OpenMode};
use redb::{
    AccessGuard, Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition,
};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Memory that the table library may use for pages.
pub const TABLE_CACHE_BYTES: usize = 6 << 20;

/// Rows that are settled in one transaction. The pages that they change, at most about as many,
/// find room in the cache: redb reads the others once more when it commits.
const STEP: usize = 1024;

const ALL: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("all");

type Bytes = &'static [u8];

/// A row of the file: its key in the shared key space and its value, where the page has them.
pub(super) struct Row {
    key: AccessGuard<'static, Bytes>,
    value: AccessGuard<'static, Bytes>,
}

impl Row {
    /// Its key in the shared key space.
    pub(super) fn key(&self) -> &[u8] {
        self.key.value()
    }

    /// Its value.
    pub(super) fn value(&self) -> &[u8] {
        self.value.value()
    }
}

/// The open table file.
pub(super) struct TableFile {
    db: Database,
    health: Health,
}

impl TableFile {
    /// Opens the file, creating it when it is missing.
    pub(super) fn open(fs: &dyn Fs, path: &Path, check: &Checker) -> io::Result<Self> {
        let health = Health::default();
        let file = fs.open(path, OpenMode::Create)?;
        let pages = CheckedPages::new(file, check.clone(), health.clone());
        let db = Builder::new()
            .set_cache_size(TABLE_CACHE_BYTES)
            .create_with_backend(pages)
            .map_err(redb_error)?;
        let fresh = db.begin_read().map_err(redb_error)?.open_table(ALL).is_err();
        let file = Self { db, health };
        if fresh {
            file.settle(std::iter::empty())?;
        }
        Ok(file)
    }

    /// Whether the file failed; nothing works any more then.
    pub(super) fn is_broken(&self) -> bool {
        self.health.is_broken()
    }

    /// What is settled, as of now. A reader kept for long makes the file grow.
    pub(super) fn read(&self) -> io::Result<Settled> {
        let open = || {
            let txn = self.db.begin_read().map_err(redb_error)?;
            txn.open_table(ALL).map_err(redb_error)
        };
        let table = Arc::new(noted(&self.health, open())?);
        Ok(Settled { table, health: self.health.clone() })
    }

    /// Settles rows, in the order of their keys: a value, or none where a row is to go. They are
    /// durable then, such that the next open need not repair.
    pub(super) fn settle<'a>(
        &self,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> io::Result<()> {
        let mut rows = rows.peekable();
        loop {
            let step = rows.by_ref().take(STEP);
            noted(&self.health, self.step(step))?;
            if rows.peek().is_none() {
                return noted(&self.health, self.make_durable());
            }
        }
    }

    fn step<'a>(
        &self,
        mut rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> io::Result<()> {
        let mut txn = self.db.begin_write().map_err(redb_error)?;
        txn.set_durability(Durability::None).map_err(io::Error::other)?;
        let mut table = txn.open_table(ALL).map_err(redb_error)?;
        rows.try_for_each(|(key, value)| {
            match value {
                Some(value) => table.insert(key, value).map(drop),
                None => table.remove(key).map(drop),
            }
            .map_err(redb_error)
        })?;
        drop(table);
        txn.commit().map_err(redb_error)
    }

    /// Until now a crash undoes all steps since the last time.
    fn make_durable(&self) -> io::Result<()> {
        let mut txn = self.db.begin_write().map_err(redb_error)?;
        txn.set_durability(Durability::Immediate).map_err(io::Error::other)?;
        txn.set_quick_repair(true);
        txn.commit().map_err(redb_error)
    }
}

fn redb_error(err: impl Into<redb::Error>) -> io::Error {
    match err.into() {
        redb::Error::Io(err) => err,
        other => io::Error::other(other),
    }
}

fn noted<T>(health: &Health, result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|_| health.break_down())
}

/// The settled rows as they were at one moment.
#[derive(Clone)]
pub(super) struct Settled {
    table: Arc<ReadOnlyTable<Bytes, Bytes>>,
    health: Health,
}

impl Settled {
    /// The value under a key.
    pub(super) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = noted(&self.health, self.table.get(key).map_err(redb_error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// The rows with `from <= key < to`, from either end.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> io::Result<impl DoubleEndedIterator<Item = io::Result<Row>> + use<>> {
        let rows = noted(&self.health, self.table.range(from..to).map_err(redb_error))?;
        let health = self.health.clone();
        Ok(rows.map(move |row| {
            let (key, value) = noted(&health, row.map_err(redb_error))?;
            Ok(Row { key, value })
        }))
    }
}
