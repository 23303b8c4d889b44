//! Ordered tables in one redb file: the only module that knows redb. All tables share one redb
//! table whose keys begin with the table's name, so that opening a table costs nothing. Commits
//! are not durable; a checkpoint is. Invariant: an error of this module never loses data, it means
//! that the tables are to be rebuilt from the segments ([`Tables::is_broken`]).

use super::format::Checker;
use super::pages::{CheckedPages, Health};
use crate::sys::{Fs, OpenMode, Table, TableRead, TableWrite};
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use std::io;
use std::path::Path;

/// Memory that redb may use for pages; it is all that the tables use, whatever they hold.
const CACHE: usize = 8 << 20;

const ALL: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("all");

type Bytes = &'static [u8];

/// The open table file.
pub(super) struct Tables {
    db: Database,
    health: Health,
}

impl Tables {
    /// Opens the table file, creating it when it is missing.
    pub(super) fn open(fs: &dyn Fs, path: &Path, check: &Checker) -> io::Result<Self> {
        let health = Health::default();
        let file = fs.open(path, OpenMode::Create)?;
        let pages = CheckedPages::new(file, check.clone(), health.clone());
        let db =
            Builder::new().set_cache_size(CACHE).create_with_backend(pages).map_err(redb_error)?;
        let tables = Self { db, health };
        let fresh = tables.db.begin_read().map_err(redb_error)?.open_table(ALL).is_err();
        if fresh {
            let change = tables.begin()?;
            change.txn.open_table(ALL).map_err(redb_error)?;
            change.commit()?;
        }
        Ok(tables)
    }

    /// Whether the file failed; nothing works any more then.
    pub(super) fn is_broken(&self) -> bool {
        self.health.is_broken()
    }

    /// What was committed, as of now. A reader kept for long makes the file grow.
    pub(super) fn read(&self) -> io::Result<Snapshot> {
        let open = || {
            let txn = self.db.begin_read().map_err(redb_error)?;
            txn.open_table(ALL).map_err(redb_error)
        };
        Ok(Snapshot { table: self.note(open())?, health: self.health.clone() })
    }

    /// Begins a change; there can be one at a time, by the writer.
    pub(super) fn begin(&self) -> io::Result<Change<'_>> {
        let mut txn = self.note(self.db.begin_write().map_err(redb_error))?;
        self.note(txn.set_durability(Durability::None).map_err(io::Error::other))?;
        Ok(Change { txn, tables: self })
    }

    /// Makes everything committed so far durable, such that the next open need not repair.
    pub(super) fn checkpoint(&self) -> io::Result<()> {
        let run = || {
            let mut txn = self.db.begin_write().map_err(redb_error)?;
            txn.set_durability(Durability::Immediate).map_err(io::Error::other)?;
            txn.set_quick_repair(true);
            txn.commit().map_err(redb_error)
        };
        self.note(run())
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.health.break_down();
        }
        result
    }
}

fn redb_error(err: impl Into<redb::Error>) -> io::Error {
    match err.into() {
        redb::Error::Io(err) => err,
        other => io::Error::other(other),
    }
}

/// A change under way; dropped without a commit it never was.
pub(super) struct Change<'t> {
    txn: WriteTransaction,
    tables: &'t Tables,
}

impl Change<'_> {
    /// Runs `work` on the tables of this change.
    pub(super) fn edit<T>(
        &self,
        work: impl FnOnce(&mut dyn TableWrite) -> io::Result<T>,
    ) -> io::Result<T> {
        let table = self.tables.note(self.txn.open_table(ALL).map_err(redb_error))?;
        work(&mut Editor { table, health: &self.tables.health })
    }

    /// Makes the change visible; not durable before the next checkpoint.
    pub(super) fn commit(self) -> io::Result<()> {
        let Self { txn, tables } = self;
        tables.note(txn.commit().map_err(redb_error))
    }
}

/// Tables as they were at one moment.
pub(super) struct Snapshot {
    table: ReadOnlyTable<Bytes, Bytes>,
    health: Health,
}

/// The tables of a change.
struct Editor<'a> {
    table: redb::Table<'a, Bytes, Bytes>,
    health: &'a Health,
}

/// `table`'s part of the shared key space: length of the name, name, key.
fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + table.0.len() + key.len());
    out.push(u8::try_from(table.0.len()).expect("a table's name is short"));
    out.extend_from_slice(table.0.as_bytes());
    out.extend_from_slice(key);
    out
}

/// The bounds of a range in the shared key space.
fn bounds(table: Table, from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let end = match to {
        Some(to) => full_key(table, to),
        None => {
            let mut end = full_key(table, &[]);
            let last = end.last_mut().expect("a name is not empty");
            *last += 1;
            end
        }
    };
    (full_key(table, from), end)
}

fn get(
    all: &impl ReadableTable<Bytes, Bytes>,
    table: Table,
    key: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let value = all.get(full_key(table, key).as_slice()).map_err(redb_error)?;
    Ok(value.map(|value| value.value().to_vec()))
}

fn range(
    all: &impl ReadableTable<Bytes, Bytes>,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> io::Result<()> {
    let (from, to) = bounds(table, from, to);
    if from >= to {
        return Ok(());
    }
    for entry in all.range(from.as_slice()..to.as_slice()).map_err(redb_error)? {
        let (key, value) = entry.map_err(redb_error)?;
        if !visit(&key.value()[1 + table.0.len()..], value.value()) {
            break;
        }
    }
    Ok(())
}

fn last(
    all: &impl ReadableTable<Bytes, Bytes>,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let (from, to) = bounds(table, from, to);
    if from >= to {
        return Ok(None);
    }
    let entry = all.range(from.as_slice()..to.as_slice()).map_err(redb_error)?.next_back();
    entry
        .map(|entry| {
            let (key, value) = entry.map_err(redb_error)?;
            Ok((key.value()[1 + table.0.len()..].to_vec(), value.value().to_vec()))
        })
        .transpose()
}

macro_rules! readable {
    ($type:ty) => {
        impl TableRead for $type {
            fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
                get(&self.table, table, key).inspect_err(|_| self.health.break_down())
            }

            fn range(
                &self,
                table: Table,
                from: &[u8],
                to: Option<&[u8]>,
                visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
            ) -> io::Result<()> {
                range(&self.table, table, from, to, visit).inspect_err(|_| self.health.break_down())
            }

            fn last(
                &self,
                table: Table,
                from: &[u8],
                to: Option<&[u8]>,
            ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
                last(&self.table, table, from, to).inspect_err(|_| self.health.break_down())
            }
        }
    };
}

readable!(Snapshot);
readable!(Editor<'_>);

impl TableWrite for Editor<'_> {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let key = full_key(table, key);
        match self.table.insert(key.as_slice(), value) {
            Ok(_) => Ok(()),
            Err(err) => {
                self.health.break_down();
                Err(redb_error(err))
            }
        }
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        let key = full_key(table, key);
        match self.table.remove(key.as_slice()) {
            Ok(old) => Ok(old.is_some()),
            Err(err) => {
                self.health.break_down();
                Err(redb_error(err))
            }
        }
    }
}
