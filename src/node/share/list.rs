//! What is shared here: the list of paths, each under a name, in the file `shares/list`. Owns its
//! format and its bounds; what lies below a path is `walk`'s.
//!
//! Format: version u8 (1), count u32 (<= 256), then per share: id 16, path (length u32 1..=4096,
//! bytes), name (length u32 1..=255, bytes), whether it is a directory u8, replicas (0 | 1, u8),
//! device u64 and inode u64 of the path when it was shared.

use super::rows::ShareId;
use crate::core::catalogue::{Name, SHARED_PATH_MAX};
use crate::node::files;
use crate::node::lock;
use crate::sys::Fs;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedMutexGuard, TryLockError};

/// Most shares of a node.
const SHARES_MAX: usize = 256;
/// Bytes of the list.
const LIST_MAX: usize = 60 * 1024;

/// One path that is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Spec {
    pub(in crate::node) id: ShareId,
    /// Where it lies.
    pub(in crate::node) path: PathBuf,
    /// What others call it.
    pub(in crate::node) name: Name,
    pub(in crate::node) is_dir: bool,
    /// As many copies are stored beside it.
    pub(in crate::node) replicas: Option<u8>,
    /// What stood there then: device and inode.
    pub(in crate::node) root: (u64, u64),
}

impl Spec {
    /// What a file in it is called; `below` is its path from the share's own, empty or with a `/`
    /// before each name.
    pub(super) fn called(&self, below: &[u8]) -> Vec<u8> {
        [b"/", self.name.as_bytes(), below].concat()
    }

    /// Where a file lies that is called so; none: it is not of this share.
    pub(super) fn place_of(&self, called: &[u8]) -> Option<PathBuf> {
        let below = called.strip_prefix(b"/")?.strip_prefix(self.name.as_bytes())?;
        match below.strip_prefix(b"/") {
            None if below.is_empty() => Some(self.path.clone()),
            Some(below) if self.is_dir => Some(self.path.join(OsStr::from_bytes(below))),
            _ => None,
        }
    }
}

impl Encode for Spec {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        put_blob(out, self.path.as_os_str().as_bytes());
        put_blob(out, self.name.as_bytes());
        self.is_dir.encode(out);
        self.replicas.encode(out);
        self.root.encode(out);
    }
}

impl Decode for Spec {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = from.array()?;
        let path = PathBuf::from(OsStr::from_bytes(from.blob(SHARED_PATH_MAX)?));
        let name = Name::decode(from)?;
        if !path.is_absolute() {
            return Err(Malformed::Invalid("path of a share"));
        }
        let (is_dir, replicas) = (bool::decode(from)?, Option::decode(from)?);
        let root = <(u64, u64)>::decode(from)?;
        Ok(Self { id, path, name, is_dir, replicas, root })
    }
}

/// A share, and what is known of it now.
#[derive(Clone)]
pub(in crate::node) struct Entry {
    pub(in crate::node) spec: Spec,
    /// Held by who goes through its files.
    pub(super) busy: Arc<tokio::sync::Mutex<()>>,
    /// Whether its path does not lead to it now.
    pub(super) away: Arc<AtomicBool>,
}

impl Entry {
    /// The right to go through its files, unless somebody does.
    pub(in crate::node) fn turn(&self) -> Result<OwnedMutexGuard<()>, TryLockError> {
        self.busy.clone().try_lock_owned()
    }

    /// Waits for that right.
    pub(in crate::node) async fn wait_for_turn(&self) -> OwnedMutexGuard<()> {
        self.busy.clone().lock_owned().await
    }

    /// Whether a file that is called so is of this share.
    pub(in crate::node) fn holds(&self, called: &[u8]) -> bool {
        self.spec.place_of(called).is_some()
    }

    /// Whether its path does not lead to it now.
    pub(in crate::node) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

/// All shares of this node.
pub(super) struct List(Mutex<Vec<Entry>>);

/// Why a path is not shared. Nothing was changed.
pub(super) enum NotAdded<E> {
    /// The name is that of another path.
    NameTaken(PathBuf),
    /// There are too many.
    TooMany,
    /// The list could not be kept.
    File(E),
}

impl List {
    pub(super) fn new(specs: Vec<Spec>) -> Self {
        Self(Mutex::new(specs.into_iter().map(entry).collect()))
    }

    pub(super) fn all(&self) -> Vec<Entry> {
        lock(&self.0).clone()
    }

    pub(super) fn get(&self, id: &ShareId) -> Option<Entry> {
        lock(&self.0).iter().find(|entry| entry.spec.id == *id).cloned()
    }

    /// Adds a share once `save` has made the new list durable. One of the same path stays, with the
    /// number of copies that is asked for now.
    pub(super) fn add<E>(
        &self,
        new: Spec,
        save: impl FnOnce(Vec<u8>) -> Result<(), E>,
    ) -> Result<Entry, NotAdded<E>> {
        let mut list = lock(&self.0);
        let mut next = list.clone();
        let at = match next.iter().position(|entry| entry.spec.path == new.path) {
            Some(at) => {
                let spec = &mut next[at].spec;
                spec.replicas = new.replicas.or(spec.replicas);
                (spec.is_dir, spec.root) = (new.is_dir, new.root);
                at
            }
            None => {
                if let Some(other) = next.iter().find(|entry| entry.spec.name == new.name) {
                    return Err(NotAdded::NameTaken(other.spec.path.clone()));
                }
                next.push(entry(new));
                next.len() - 1
            }
        };
        let bytes = encode(&next);
        if next.len() > SHARES_MAX || bytes.len() > LIST_MAX {
            return Err(NotAdded::TooMany);
        }
        save(bytes).map_err(NotAdded::File)?;
        let added = next[at].clone();
        *list = next;
        Ok(added)
    }

    /// Takes a share off the list, once that is durable.
    pub(super) fn remove<E>(
        &self,
        id: &ShareId,
        save: impl FnOnce(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut list = lock(&self.0);
        let mut next = list.clone();
        next.retain(|entry| entry.spec.id != *id);
        save(encode(&next))?;
        *list = next;
        Ok(())
    }
}

fn entry(spec: Spec) -> Entry {
    Entry { spec, busy: Arc::default(), away: Arc::default() }
}

fn encode(list: &[Entry]) -> Vec<u8> {
    let mut out = vec![1];
    let specs: Vec<Spec> = list.iter().map(|entry| entry.spec.clone()).collect();
    put_list(&mut out, &specs);
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Spec>, Malformed> {
    let mut reader = Reader::new(bytes);
    if u8::decode(&mut reader)? != 1 {
        return Err(Malformed::Invalid("version"));
    }
    let specs = reader.list(SHARES_MAX)?;
    reader.finish()?;
    Ok(specs)
}

/// The file of the list.
pub(super) fn place(data_dir: &Path) -> PathBuf {
    data_dir.join("shares").join("list")
}

/// What was shared before this node started.
pub(in crate::node) fn read(fs: &dyn Fs, data_dir: &Path) -> Result<Vec<Spec>, files::FileError> {
    let path = place(data_dir);
    let bytes = files::read(fs, &path)?;
    let specs = bytes.map_or(Ok(Vec::new()), |bytes| decode(&bytes));
    specs.map_err(|why| files::FileError::Malformed { path, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(n: u8) -> Spec {
        let name = Name::new(format!("n{n}").as_bytes()).unwrap();
        let path = PathBuf::from(format!("/somewhere/{n}"));
        Spec { id: [n; 16], path, name, is_dir: true, replicas: None, root: (1, 2) }
    }

    #[test]
    fn the_list_is_read_as_it_was_written_and_has_its_bounds() {
        let list = List::new(Vec::new());
        let kept = std::cell::RefCell::new(Vec::new());
        let save = |bytes| {
            *kept.borrow_mut() = bytes;
            Ok(())
        };
        let add = |spec| list.add::<()>(spec, save).map(drop);
        assert!(add(spec(1)).is_ok() && add(spec(2)).is_ok());
        let same_name = Spec { path: "/elsewhere".into(), ..spec(2) };
        assert!(matches!(add(same_name), Err(NotAdded::NameTaken(path)) if path == spec(2).path));
        assert!(add(Spec { replicas: Some(3), id: [9; 16], ..spec(1) }).is_ok());
        let read = decode(&kept.borrow()).unwrap();
        assert_eq!(read, [Spec { replicas: Some(3), ..spec(1) }, spec(2)]);
        for n in 3..=255 {
            assert!(add(spec(n)).is_ok());
        }
        let more = |n: u8| Spec { path: format!("/more/{n}").into(), ..spec(n) };
        let named = |n: u8| Spec { name: Name::new(&[b'm', n]).unwrap(), ..more(n) };
        assert!(add(named(1)).is_ok());
        assert!(matches!(add(named(2)), Err(NotAdded::TooMany)));
        assert!(matches!(list.remove(&[1; 16], |_| Err("full")), Err("full")));
        assert!(list.get(&[1; 16]).is_some());
    }

    #[test]
    fn names_and_places_follow_from_each_other() {
        let dir = spec(1);
        assert_eq!(dir.called(b"/a/b"), b"/n1/a/b");
        assert_eq!(dir.place_of(b"/n1/a/b"), Some("/somewhere/1/a/b".into()));
        assert_eq!(dir.place_of(b"/n12/a"), None);
        let file = Spec { is_dir: false, ..spec(1) };
        assert_eq!(file.place_of(b"/n1"), Some("/somewhere/1".into()));
        assert_eq!(file.place_of(b"/n1/a"), None);
    }
}
