//! Ordered tables: rows that are settled in the table file, and above them those that changed
//! since, in memory. A change adds to the rows in memory and costs no page of the file. When there
//! are many of them, or at a checkpoint, they are settled all at once and in the order of their
//! keys, so that each page of the file that they come to is written once and not for every row:
//! most keys are random, and a large file has far more pages than its cache. Invariant: an error
//! of this module never loses data, it means that the tables are to be rebuilt from the segments
//! ([`Tables::is_broken`]); so does a process that dies before rows were settled mean that the
//! segments behind them are read again.

use super::format::Checker;
use super::key_space::Keys;
use super::sync::{Mutex, PoisonError};
use super::table_file::{Row, Settled, TableFile};
use crate::sys::{Fs, Table, TableRead, TableWrite};
use imbl::OrdMap;
use std::cmp::Ordering;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// Rows in memory may take so many bytes before they are settled.
pub const RECENT_ROWS_BYTES: usize = 6 << 20;
/// What a row in memory takes besides its key and its value: two allocations and its place.
const ROW_COST: usize = 112;

/// A row's value; none: there is no such row, whatever the file says.
type Value = Option<Arc<[u8]>>;

/// The open tables.
pub(super) struct Tables {
    file: TableFile,
    now: Mutex<Snapshot>,
}

impl Tables {
    /// Opens the table file, creating it when it is missing.
    pub(super) fn open(fs: &dyn Fs, path: &Path, check: &Checker) -> io::Result<Self> {
        let file = TableFile::open(fs, path, check)?;
        let now = Mutex::new(Snapshot::of(file.read()?));
        Ok(Self { file, now })
    }

    /// Whether the file failed; nothing works any more then.
    pub(super) fn is_broken(&self) -> bool {
        self.file.is_broken()
    }

    /// What was committed, as of now. A reader kept for long makes the file grow.
    pub(super) fn read(&self) -> io::Result<Snapshot> {
        if self.is_broken() {
            return Err(io::Error::other("the table file failed"));
        }
        Ok(self.now.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Begins a change; there can be one at a time, by the writer.
    pub(super) fn begin(&self) -> io::Result<Change<'_>> {
        Ok(Change { rows: self.read()?, tables: self })
    }

    /// Makes everything committed so far durable, such that the next open need not repair. By the
    /// writer, and not during a change.
    pub(super) fn checkpoint(&self) -> io::Result<()> {
        let Snapshot { recent, .. } = self.read()?;
        self.file.settle(recent.iter().map(|(key, value)| (&**key, value.as_deref())))?;
        self.show(Snapshot::of(self.file.read()?));
        Ok(())
    }

    fn show(&self, rows: Snapshot) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *now, rows);
        drop(now);
        // The last one to hold many rows frees them: not under the lock.
        drop(old);
    }
}

/// A change under way; dropped without a commit it never was.
pub(super) struct Change<'t> {
    rows: Snapshot,
    tables: &'t Tables,
}

impl Change<'_> {
    /// Runs `work` on the tables of this change.
    pub(super) fn edit<T>(
        &mut self,
        work: impl FnOnce(&mut dyn TableWrite) -> io::Result<T>,
    ) -> io::Result<T> {
        work(&mut self.rows)
    }

    /// Makes the change visible; not durable before the next checkpoint, which may be this one.
    pub(super) fn commit(self) -> io::Result<()> {
        let Self { rows, tables } = self;
        let full = rows.bytes >= RECENT_ROWS_BYTES;
        tables.show(rows);
        if full { tables.checkpoint() } else { Ok(()) }
    }
}

/// Bytes of a value.
fn cost(value: &Value) -> usize {
    value.as_ref().map_or(0, |value| value.len())
}

/// Tables as they were at one moment.
#[derive(Clone)]
pub(super) struct Snapshot {
    recent: OrdMap<Arc<[u8]>, Value>,
    /// What the recent rows take.
    bytes: usize,
    settled: Settled,
}

impl Snapshot {
    fn of(settled: Settled) -> Self {
        Self { recent: OrdMap::new(), bytes: 0, settled }
    }

    fn value(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.recent.get(key) {
            Some(value) => Ok(value.as_ref().map(|value| value.to_vec())),
            None => self.settled.get(key),
        }
    }

    fn set(&mut self, key: Vec<u8>, value: Value) {
        let new = ROW_COST + key.len() + cost(&value);
        let old = ROW_COST + key.len();
        let replaced = self.recent.insert(key.into(), value);
        self.bytes = self.bytes + new - replaced.map_or(0, |value| old + cost(&value));
    }

    /// Makes it so that the file says what there is under a key.
    fn forget(&mut self, key: &[u8]) {
        let forgotten = self.recent.remove(key);
        let value = forgotten.map_or(0, |value| ROW_COST + key.len() + cost(&value));
        self.bytes -= value;
    }

    /// The recent rows of a range.
    fn recent(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Arc<[u8]>, &Value)> {
        self.recent.range::<_, [u8]>((Bound::Included(from), Bound::Excluded(to)))
    }
}

/// Calls `visit` with the rows of two sequences that `order` says the order of, until it returns
/// false. Of a key that both have the recent row counts.
fn merge<'a>(
    recent: impl Iterator<Item = (&'a Arc<[u8]>, &'a Value)>,
    settled: impl Iterator<Item = io::Result<Row>>,
    order: impl Fn(&[u8], &[u8]) -> Ordering,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> io::Result<()> {
    let mut recent = recent.peekable();
    for row in settled {
        let row = row?;
        let (key, value) = (row.key(), row.value());
        let mut hidden = false;
        while let Some((young, change)) =
            recent.next_if(|(young, _)| order(young, key) != Ordering::Greater)
        {
            hidden = **young == *key;
            if change.as_ref().is_some_and(|value| !visit(young, value)) {
                return Ok(());
            }
        }
        if !hidden && !visit(key, value) {
            return Ok(());
        }
    }
    recent.all(|(key, change)| change.as_ref().is_none_or(|value| visit(key, value)));
    Ok(())
}

impl TableRead for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.value(&Keys::of(table).full(key))
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        let keys = Keys::of(table);
        let (from, to) = keys.bounds(from, to);
        if from >= to {
            return Ok(());
        }
        let mut own = Vec::new();
        let visit =
            |key: &[u8], value: &[u8]| keys.own(key, &mut own).is_none_or(|key| visit(key, value));
        merge(self.recent(&from, &to), self.settled.range(&from, &to)?, <[u8]>::cmp, visit)
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let keys = Keys::of(table);
        let (from, to) = keys.bounds(from, to);
        if from >= to {
            return Ok(None);
        }
        let (mut own, mut found) = (Vec::new(), None);
        let visit = |key: &[u8], value: &[u8]| {
            found = keys.own(key, &mut own).map(|key| (key.to_vec(), value.to_vec()));
            found.is_none()
        };
        let settled = self.settled.range(&from, &to)?.rev();
        merge(self.recent(&from, &to).rev(), settled, |a, b| b.cmp(a), visit)?;
        Ok(found)
    }
}

impl TableWrite for Snapshot {
    fn insert(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.set(Keys::of(table).full(key), Some(value.into()));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> io::Result<bool> {
        let key = Keys::of(table).full(key);
        let recent = self.recent.get(&*key).map(Option::is_some);
        let settled = recent != Some(false) && self.settled.get(&key)?.is_some();
        if settled {
            self.set(key, None);
        } else if recent == Some(true) {
            // Nothing is to be removed from the file: most rows that go are young.
            self.forget(&key);
        }
        Ok(recent.unwrap_or(settled))
    }
}
