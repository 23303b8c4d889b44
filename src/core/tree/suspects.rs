//! Where something may be in conflict, without looking at every name: a conflict is two rows of one
//! name, or two newest versions of one inode, and those lie beside each other in the tables. Owns
//! that search; whether what it finds is a conflict is `resolve`'s.
//!
//! It reads rows and opens no record but those of what it finds, so it takes a fraction of a second
//! for a hundred thousand entries, however few are in conflict.

use super::{Conflict, LOST_NAME, PATH_MAX, Spot, Tree};
use crate::core::catalogue::browse;
use crate::id::InodeId;
use std::collections::BTreeSet;
use std::io;

/// Most names that are remembered.
const SUSPECTS_MAX: usize = 4096;

impl Tree<'_> {
    /// The paths at which something may be in conflict, sorted; none: that would take a look at
    /// every name, because there are too many of them, or because what was named under one epoch
    /// has another tag under the next.
    pub fn suspects(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        if self.keyring.iter().nth(1).is_some() {
            return Ok(None);
        }
        let Some((names, inodes)) = browse::doubled(self.view, SUSPECTS_MAX)? else {
            return Ok(None);
        };
        let mut spots: BTreeSet<Spot> = BTreeSet::new();
        for row in names {
            spots.extend(self.name_of(&row)?.map(|name| (row.parent, name)));
        }
        for inode in inodes {
            spots.extend(self.names_of(&inode)?);
        }
        if browse::has_lost(self.view)? {
            spots.insert((InodeId::ROOT, LOST_NAME.to_vec()));
        }
        if spots.len() > SUSPECTS_MAX {
            return Ok(None);
        }
        let mut paths = BTreeSet::new();
        for (dir, name) in spots {
            let path = self.path_in(&dir, &name)?;
            paths.extend(path.filter(|path| path.len() <= PATH_MAX));
        }
        Ok(Some(paths.into_iter().collect()))
    }

    /// What is in conflict at such a path, if it still is.
    pub fn suspected(&self, path: &[u8]) -> io::Result<Option<Conflict>> {
        match self.conflict(path) {
            Ok(conflict) => Ok(conflict),
            Err(super::TreeError::Io(err)) => Err(err),
            // It went away meanwhile.
            Err(_) => Ok(None),
        }
    }
}
