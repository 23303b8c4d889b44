//! Files that this node serves from where they lie. Nothing of them is copied: a row file says what
//! the chunks of a file are (`rows`), records with no replicas say to everybody that they are here
//! (`announce`), and a chunk that is asked for is read, proved and sealed again (`serve`).
//!
//! | room | what happens there |
//! |---|---|
//! | `list` | which paths are shared |
//! | `rows` | what is known of a file |
//! | `index` | hashing a file |
//! | `walk` | going through what is shared: what is new, changed or gone |
//! | `announce` | the records |
//! | `serve` | what peers get |
//!
//! Invariant: bytes leave only after they were proved to be those that the record promises, so a
//! file that changes can be late, and never wrong.

mod announce;
mod index;
mod list;
mod rows;
mod serve;
mod source;
mod walk;

pub(super) use list::{Entry, Spec, read as read_list};

use super::files::{self, FileError};
use super::memory::Memory;
use super::{Shared, lock};
use crate::chunk::CHUNK_LEN;
use crate::core::catalogue::Name;
use crate::crypto::SectorKey;
use crate::id::{ClaimId, to_hex};
use crate::sys::StampKind;
use list::{List, NotAdded};
use rows::{RowFile, ShareId};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Notify, Semaphore};

/// Files that are read for peers at once: the disk that they lie on may hang.
const READS: usize = 4;

/// Files of which it is remembered that they have to be hashed again, whatever their times say.
const DOUBTED_MAX: usize = 1024;
/// Bytes of chunk buffers for what this node reads of its own shares.
const OWN_BYTES: usize = 2 * CHUNK_LEN;

/// Why something is not shared, or not shared no more. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The daemon does not see there what the command sees.
    #[error("the daemon does not see the same there")]
    NotSeen,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// A link, pipe, socket or device.
    #[error("neither a file nor a directory")]
    WrongKind,
    /// It belongs to this node.
    #[error("a directory of this node")]
    Own,
    /// Its name cannot be that of a share.
    #[error("no name for a share")]
    BadName,
    /// Another path is shared under the name.
    #[error("{} is shared under that name", .0.display())]
    NameTaken(PathBuf),
    /// The list is full.
    #[error("too many shares")]
    TooMany,
    /// It is served in place: it has no name in the tree.
    #[error("served in place")]
    InPlace,
    /// Nothing is shared under that name or path.
    #[error("not shared")]
    NotShared,
}

/// What of this node's shares all parts of it use.
pub(super) struct Desk {
    list: List,
    /// Files that are being read for peers.
    reads: Semaphore,
    /// For what this node reads of its own shares: it must not wait for what peers take.
    pub(super) own: Memory,
    /// Somebody wants the shares looked at now.
    pub(super) asked: Notify,
    /// Files that were found to have changed although nothing else tells so.
    doubted: Mutex<BTreeSet<RowKey>>,
    /// Files hashed since the start.
    pub(super) hashed: AtomicU64,
}

impl Desk {
    pub(super) fn new(specs: Vec<Spec>) -> Self {
        Self {
            list: List::new(specs),
            reads: Semaphore::new(READS),
            own: Memory::new(OWN_BYTES),
            asked: Notify::new(),
            doubted: Mutex::default(),
            hashed: AtomicU64::default(),
        }
    }
}

/// Names the row file of a shared file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey([u8; 8]);

impl RowKey {
    /// That of the file whose claim it is.
    fn of(claim: &ClaimId) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(&claim.0[2..10]);
        Self(key)
    }

    /// A new claim for the file. It leads to its row file, and tells others nothing but the time.
    fn claim(self, wall_ms: u64, mut random: [u8; 16]) -> ClaimId {
        random[2..10].copy_from_slice(&self.0);
        ClaimId(crate::id::made_at(wall_ms, random))
    }
}

impl Shared {
    /// The row file of what is called so in a share.
    fn row_key(&self, share: &ShareId, called: &[u8]) -> RowKey {
        let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 name of a row file v1");
        hasher.update(&self.key.seed()[..]).update(share).update(called);
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        RowKey(key)
    }

    fn rows_dir(&self, first: u8) -> PathBuf {
        self.config.data_dir.join("shares").join(to_hex(&[first]))
    }

    fn row_path(&self, key: RowKey) -> PathBuf {
        self.rows_dir(key.0[0]).join(to_hex(&key.0[1..]))
    }

    fn row_sectors(&self, key: RowKey) -> SectorKey {
        SectorKey::new(&self.key, &[&b"shares/"[..], &key.0].concat())
    }

    /// A row file; none: it is not there, or is no such file.
    fn open_rows(&self, key: RowKey) -> io::Result<Option<RowFile>> {
        let path = self.row_path(key);
        match RowFile::open(&*self.sys.fs, &path, self.row_sectors(key)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened,
        }
    }

    /// Has a file hashed again at the next look, whatever its times say.
    fn doubt(&self, key: RowKey) {
        let mut doubted = lock(&self.shared_here.doubted);
        // Of more than these, one is found again when it is asked for again.
        if doubted.len() < DOUBTED_MAX {
            doubted.insert(key);
        }
    }

    fn remove_rows(&self, key: RowKey) {
        match self.sys.fs.remove_file(&self.row_path(key)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%err, "a row file of a share stays");
            }
            _ => {}
        }
    }

    /// All shares.
    pub(super) fn shares(&self) -> Vec<Entry> {
        self.shared_here.list.all()
    }

    fn save_shares(&self, bytes: &[u8]) -> Result<(), FileError> {
        let path = list::place(&self.config.data_dir);
        let dir = path.parent().unwrap_or(&path);
        let io = |source| FileError::Io { path: dir.into(), source };
        self.sys.fs.create_dir_all(dir).map_err(io)?;
        files::write(&*self.sys.fs, &path, bytes)
    }

    /// Puts a path on the list of shares. `seen`: the device and inode that who asks sees there.
    pub(super) fn add_share(
        &self,
        path: &Path,
        name: Option<&[u8]>,
        replicas: Option<u8>,
        seen: Option<(u64, u64)>,
    ) -> Result<Entry, super::Error> {
        use std::os::unix::ffi::OsStrExt;
        let stamp = self.sys.fs.stamp(path).map_err(|err| match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ShareError::NotSeen,
            _ => ShareError::Unreadable(err),
        })?;
        let root = (stamp.dev, stamp.ino);
        if !path.is_absolute() || seen.is_some_and(|seen| seen != root) {
            return Err(ShareError::NotSeen.into());
        }
        let is_dir = match stamp.kind {
            StampKind::Dir => {
                self.sys.fs.read_dir(path).map(drop).map_err(ShareError::Unreadable)?;
                true
            }
            StampKind::File => {
                self.sys.fs.open_as_it_is(path).map(drop).map_err(ShareError::Unreadable)?;
                false
            }
            StampKind::Other => return Err(ShareError::WrongKind.into()),
        };
        let own = self.own_dirs();
        let is_own = |dir: &Path| {
            self.sys.fs.stamp(dir).is_ok_and(|stamp| own.contains(&(stamp.dev, stamp.ino)))
        };
        if path.ancestors().any(is_own) {
            return Err(ShareError::Own.into());
        }
        let name = name.or_else(|| path.file_name().map(OsStrExt::as_bytes));
        let name = name.and_then(Name::new).ok_or(ShareError::BadName)?;
        let id = self.sys.rng.bytes();
        let new = Spec { id, path: path.to_owned(), name, is_dir, replicas, root };
        let added = self.shared_here.list.add(new, |bytes| self.save_shares(&bytes));
        added.map_err(|err| match err {
            NotAdded::NameTaken(path) => ShareError::NameTaken(path).into(),
            NotAdded::TooMany => ShareError::TooMany.into(),
            NotAdded::File(err) => err.into(),
        })
    }

    /// Device and inode of the directories of this node, which are never shared.
    fn own_dirs(&self) -> BTreeSet<(u64, u64)> {
        let dirs = [&self.config.data_dir, &self.config.config_dir];
        let stamps = dirs.iter().filter_map(|dir| self.sys.fs.stamp(dir).ok());
        stamps.map(|stamp| (stamp.dev, stamp.ino)).collect()
    }

    /// Takes a share off the list. Its records and row files go when the shares are swept.
    pub(super) fn remove_share(&self, id: &ShareId) -> Result<(), FileError> {
        self.shared_here.list.remove(id, |bytes| self.save_shares(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_leads_to_its_row_file() {
        let key = RowKey([7; 8]);
        let (one, two) = (key.claim(1, [1; 16]), key.claim(1, [2; 16]));
        assert_eq!((RowKey::of(&one), RowKey::of(&two)), (key, key));
        assert_ne!(one, two);
    }
}
