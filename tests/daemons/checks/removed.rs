//! I11: what was removed stays away, also when a node was not there when it happened; what can be
//! restored is kept; and what was let go leaves every disk. Owns what was removed by its path. Each
//! of these paths is put once, and one thing at a time is asked of it.

use crate::life::Listing;
use crate::segments::Contents;
use p2pfs::id::{ChunkId, ClaimId, FileHash};
use std::collections::{BTreeMap, BTreeSet};

/// What is asked of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// It goes, and can be restored.
    Remove,
    /// It goes for good, with its content.
    Purge,
    /// It comes back.
    Restore,
}

impl Change {
    /// What it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Purge => "purge",
            Self::Restore => "restore",
        }
    }
}

/// What became of a path.
struct Path {
    hash: FileHash,
    /// Whether something is asked of it; for ever when the answer was lost.
    busy: bool,
    /// Whether anybody removed it, and whether anybody asked for it back or ended its content.
    gone: bool,
    restored: bool,
    purged: bool,
}

/// The paths.
#[derive(Default)]
pub(crate) struct Removed(BTreeMap<String, Path>);

impl Removed {
    /// A put to this path was acknowledged.
    pub(crate) fn put(&mut self, path: String, hash: FileHash) {
        let fresh = Path { hash, busy: false, gone: false, restored: false, purged: false };
        self.0.entry(path).or_insert(fresh);
    }

    /// Paths of which something can be asked.
    pub(crate) fn idle(&self) -> Vec<String> {
        self.0
            .iter()
            .filter(|(_, at)| !at.busy && !at.purged)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Something is asked of a path; what was put there.
    pub(crate) fn asked(&mut self, path: &str, change: Change) -> FileHash {
        let at = self.0.get_mut(path).unwrap();
        at.busy = true;
        at.restored |= change == Change::Restore;
        at.purged |= change == Change::Purge;
        at.hash
    }

    /// The answer came.
    pub(crate) fn answered(&mut self, path: &str, change: Change, done: bool) {
        let at = self.0.get_mut(path).unwrap();
        at.busy = false;
        at.gone |= done && change != Change::Restore;
    }

    /// What is listed although it was removed.
    pub(crate) fn check(&self, tree: &Listing) -> Result<(), String> {
        let gone = |path: &String| self.0.get(path).is_some_and(|at| at.gone && !at.restored);
        match tree.iter().find(|(path, _)| gone(path)) {
            Some((path, _)) => Err(format!("I11: {path} is listed although it was removed")),
            None => Ok(()),
        }
    }
}

/// What lies on a disk although nothing claims it there but puts that were never finished.
pub(crate) fn check_disks(disks: &[Contents]) -> Result<(), String> {
    let committed: BTreeSet<&ClaimId> = disks.iter().flat_map(|disk| &disk.committed).collect();
    for disk in disks {
        let wanted = |cid: &&ChunkId| disk.claims(cid).any(|claim| committed.contains(claim));
        if let Some(cid) = disk.replicas.keys().find(|cid| !wanted(cid)) {
            return Err(format!("I11: {} is kept although nothing claims it", cid.short()));
        }
    }
    Ok(())
}
