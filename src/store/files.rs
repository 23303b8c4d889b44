//! The store's part of the data directory: names, the marker file, and open segment files for
//! readers. Invariant: a directory whose marker is missing, newer or another node's is never
//! written to.
//!
//! The marker is `store.format`, a text of four lines: `p2pfs store 1`, `node HEX`, `salt HEX`
//! and `check HEX` (BLAKE3 of the lines above).

use super::OpenError;
use super::format::{Checker, Class, Salt, VERSION};
use super::rows::Place;
use super::sync::{Mutex, MutexGuard, PoisonError};
use crate::id::{NodeId, from_hex, to_hex};
use crate::sys::{File, Fs, OpenMode, Rng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// How many segment files are kept open for readers.
const MAX_OPEN: usize = 64;
/// From this length on a record's pages are not kept in the cache for their own sake.
pub(super) const LARGE: u32 = 256 << 10;
/// How many reads of large records are remembered.
const MAX_RECENT: usize = 4096;
/// A marker is four short lines; what is longer is none.
const MAX_MARKER: usize = 512;

/// A file as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// Its place in the log: the number of the segment that it was first.
    pub(super) order: u32,
    /// Its number.
    pub(super) number: u32,
    /// Its length in bytes.
    pub(super) len: u64,
}

impl Named {
    /// Whether it is the outcome of a compaction.
    pub(super) const fn is_compacted(&self) -> bool {
        self.number != self.order
    }
}

/// Opens files of the data directory and keeps a few open.
pub(super) struct Files {
    /// The directory tree.
    pub(super) fs: Arc<dyn Fs>,
    dir: PathBuf,
    open: Mutex<OpenFiles>,
    recent: Mutex<Recent>,
    /// The orders of compacted segments, by number: they are part of the name.
    orders: Mutex<BTreeMap<u32, u32>>,
}

/// Places that were read lately, oldest first.
#[derive(Default)]
struct Recent {
    known: BTreeSet<(Class, u32, u32)>,
    order: VecDeque<(Class, u32, u32)>,
}

#[derive(Default)]
struct OpenFiles {
    /// Least recently used first.
    files: Vec<((Class, u32), Arc<dyn File>)>,
    /// How many files were removed so far.
    removed: u64,
}

impl Files {
    /// For the data directory `dir`.
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf) -> Self {
        let (open, recent, orders) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { fs, dir, open, recent, orders }
    }

    /// The folder of a class of files.
    pub(super) fn folder(&self, class: Class) -> PathBuf {
        self.dir.join(match class {
            Class::Segment => "segments",
            Class::Cache => "cache",
        })
    }

    /// The path of a file.
    pub(super) fn path(&self, class: Class, number: u32) -> PathBuf {
        let name = match (class, self.orders().get(&number)) {
            (Class::Segment, Some(order)) => format!("{number:08}-{order:08}.seg"),
            _ => format!("{number:08}.seg"),
        };
        self.folder(class).join(name)
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<u32, u32>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that segment `number` has, or is to have, another order than its number.
    pub(super) fn set_order(&self, number: u32, order: u32) {
        self.orders().insert(number, order);
    }

    /// The table file.
    pub(super) fn table_path(&self) -> PathBuf {
        self.dir.join("tables").join("index.redb")
    }

    /// Exists while the table file is being opened: found at a start, the last attempt died in it.
    pub(super) fn opening_path(&self) -> PathBuf {
        self.dir.join("tables").join("opening")
    }

    /// Space kept so that claims and drops can be written on a full disk.
    pub(super) fn ballast_path(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Makes the folders, and makes all names durable: a process that was killed may have left a
    /// segment whose name is not, and the next batch goes into it.
    pub(super) fn make_folders(&self) -> io::Result<()> {
        for folder in [self.folder(Class::Segment), self.folder(Class::Cache)] {
            self.fs.create_dir_all(&folder)?;
        }
        self.fs.create_dir_all(&self.dir.join("tables"))?;
        self.fs.sync_dir(&self.folder(Class::Segment))?;
        self.fs.sync_dir(&self.dir)
    }

    /// The files of a class by order, then number; other names are not ours.
    pub(super) fn list(&self, class: Class) -> io::Result<Vec<Named>> {
        let mut found = Vec::new();
        for entry in self.fs.read_dir(&self.folder(class))? {
            let stem = entry.name.to_str().and_then(|name| name.strip_suffix(".seg"));
            let Some(stem) = stem else { continue };
            let (number, order) = stem.split_once('-').unwrap_or((stem, stem));
            if let (Ok(number), Ok(order)) = (number.parse(), order.parse()) {
                found.push(Named { order, number, len: entry.len });
                if number != order {
                    self.set_order(number, order);
                }
            }
        }
        found.sort_unstable_by_key(|file| (file.order, file.number));
        Ok(found)
    }

    /// A file for reading.
    pub(super) fn reader(&self, class: Class, number: u32) -> io::Result<Arc<dyn File>> {
        let key = (class, number);
        let removed = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = open.files.iter().rposition(|(have, _)| *have == key) {
                let hit = open.files.remove(at);
                let file = hit.1.clone();
                open.files.push(hit);
                return Ok(file);
            }
            open.removed
        };
        let file = self.fs.open(&self.path(class, number), OpenMode::Read)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that was removed meanwhile would keep its space as long as it is open.
        if open.removed == removed {
            if open.files.len() >= MAX_OPEN {
                open.files.remove(0);
            }
            open.files.push((key, file.clone()));
        }
        Ok(file)
    }

    /// Whether a large record is read for the first time in a while. Most files are read from end
    /// to end once, and their pages would only drive out what others need; what is asked for again
    /// stays in the cache.
    pub(super) fn reads_once(&self, class: Class, place: Place) -> bool {
        if place.payload < LARGE {
            return false;
        }
        let key = (class, place.number, place.offset);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.known.insert(key) {
            return false;
        }
        recent.order.push_back(key);
        if recent.order.len() > MAX_RECENT
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.known.remove(&oldest);
        }
        true
    }

    /// Removes a file that is no longer needed. The name may come back after a crash.
    pub(super) fn remove(&self, class: Class, number: u32) -> io::Result<()> {
        self.fs.remove_file(&self.path(class, number))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.removed += 1;
        open.files.retain(|(key, _)| *key != (class, number));
        drop(open);
        if class == Class::Segment {
            self.orders().remove(&number);
        }
        Ok(())
    }

    /// Cuts a segment off where it ends, if it is there and longer: nobody will say any more how
    /// much of it counts.
    pub(super) fn cut(&self, number: u32, end: u64) -> io::Result<()> {
        let path = self.folder(Class::Segment).join(format!("{number:08}.seg"));
        let file = match self.fs.open(&path, OpenMode::Write) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if file.len()? > end {
            file.set_len(end)?;
            file.sync_data()?;
        }
        Ok(())
    }

    fn marker_path(&self) -> PathBuf {
        self.dir.join("store.format")
    }

    /// Reads the marker, or writes one into a directory that has no segments yet.
    pub(super) fn salt(&self, node: NodeId, rng: &dyn Rng) -> Result<Salt, OpenError> {
        let file = match self.fs.open(&self.marker_path(), OpenMode::Read) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return self.first_marker(node, rng);
            }
            Err(err) => return Err(err.into()),
        };
        let mut bytes = vec![0; MAX_MARKER];
        let len = file.read_at(&mut bytes, 0)?;
        let text = std::str::from_utf8(&bytes[..len]).unwrap_or_default();
        read_marker(text, node)
    }

    fn first_marker(&self, node: NodeId, rng: &dyn Rng) -> Result<Salt, OpenError> {
        let has_segments = match self.list(Class::Segment) {
            Ok(found) => !found.is_empty(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => false,
            Err(err) => return Err(err.into()),
        };
        if has_segments {
            return Err(OpenError::MarkerLost);
        }
        self.fs.create_dir_all(&self.dir)?;
        if let Some(parent) = self.dir.parent() {
            match self.fs.sync_dir(parent) {
                // Not every owner of a directory may open the one above.
                Err(err) if err.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(err.into());
                }
                _ => {}
            }
        }
        let salt: Salt = rng.bytes();
        let text = marker(node, &salt);
        let new = self.dir.join("store.format.new");
        let file = self.fs.open(&new, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_at(&[text.as_bytes()], 0)?;
        file.sync_data()?;
        self.fs.rename(&new, &self.marker_path())?;
        self.fs.sync_dir(&self.dir)?;
        Ok(salt)
    }

    /// The checker for this directory.
    pub(super) fn checker(&self, node: NodeId, rng: &dyn Rng) -> Result<Checker, OpenError> {
        self.salt(node, rng).map(Checker::new)
    }
}

fn marker(node: NodeId, salt: &Salt) -> String {
    let text = format!("p2pfs store {VERSION}\nnode {node}\nsalt {}\n", to_hex(salt));
    let check = blake3::hash(text.as_bytes()).to_hex();
    format!("{text}check {check}\n")
}

fn read_marker(text: &str, node: NodeId) -> Result<Salt, OpenError> {
    let field = |line: usize, name: &str| {
        let rest = text.lines().nth(line)?.strip_prefix(name)?;
        rest.strip_prefix(' ')
    };
    let version = field(0, "p2pfs store").and_then(|text| text.parse::<u16>().ok());
    match version {
        None => return Err(OpenError::MarkerDamaged),
        Some(found) if found > VERSION => {
            return Err(OpenError::Newer { found, known: VERSION });
        }
        Some(_) => {}
    }
    let found: NodeId =
        field(1, "node").and_then(|hex| hex.parse().ok()).ok_or(OpenError::MarkerDamaged)?;
    let salt: Salt =
        field(2, "salt").and_then(|hex| from_hex(hex).ok()).ok_or(OpenError::MarkerDamaged)?;
    if marker(found, &salt) != text {
        return Err(OpenError::MarkerDamaged);
    }
    if found != node {
        return Err(OpenError::OtherNode { found });
    }
    Ok(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_and_every_change_is_noticed() {
        let (node, salt) = (NodeId([3; 32]), [9; 16]);
        let text = marker(node, &salt);
        assert_eq!(read_marker(&text, node).unwrap(), salt);
        let read = |text: &str| read_marker(text, node).unwrap_err();
        assert!(matches!(read(&text.replace("store 1", "store 2")), OpenError::Newer { .. }));
        assert!(matches!(read(&text.replace("salt 0909", "salt 0908")), OpenError::MarkerDamaged));
        assert!(matches!(read(""), OpenError::MarkerDamaged));
        let other = marker(NodeId([4; 32]), &salt);
        assert!(matches!(read(&other), OpenError::OtherNode { .. }));
    }
}
