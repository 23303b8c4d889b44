//! Questions by inode rather than by path, as a mount asks them: what it is, where it is, and how
//! many names it has. Paths and listings are `find`'s and `list`'s.

use super::{LOST_NAME, Tree, Version, implicit, lost_and_found};
use crate::core::catalogue::browse::{self, Child};
use crate::core::catalogue::{LOST_AND_FOUND, Node};
use crate::id::InodeId;
use std::collections::BTreeSet;
use std::io;

/// A name in a directory.
pub type Spot = (InodeId, Vec<u8>);

/// Names of a directory up to which the directories in it are counted.
const COUNTED_MAX: usize = 256;
/// Most names of an inode that are looked at.
const NAMES_MAX: usize = 1024;

impl Tree<'_> {
    /// The version of an inode that is seen; none: nothing leads to it.
    pub fn inode(&self, inode: &InodeId) -> io::Result<Option<Version>> {
        if *inode == InodeId::ROOT {
            let heads = self.versions(inode)?;
            let version = heads.into_iter().find(|v| matches!(v.node, Node::Dir { .. }));
            return Ok(Some(implicit(*inode, b"", version).version));
        }
        if *inode == LOST_AND_FOUND {
            let lost = browse::has_lost(self.view)?.then(lost_and_found);
            return Ok(lost.map(|lost| lost.version));
        }
        if let Some(row) = browse::dir_row(self.view, inode)? {
            let gone = matches!(row.child, Child::Dir { removed: true, .. });
            let seen = !gone || browse::is_used(self.view, inode)?;
            return if seen { self.version(&row.at) } else { Ok(None) };
        }
        if self.links(inode)? == 0 {
            return Ok(None);
        }
        let heads = self.versions(inode)?.into_iter();
        let has_place = |v: &Version| !matches!(v.node, Node::Dir { .. } | Node::Shared(_));
        Ok(heads.take(1).find(has_place))
    }

    /// How many names an inode has that is no directory, as far as they are counted.
    pub fn links(&self, inode: &InodeId) -> io::Result<usize> {
        // Concurrent changes may say one name several times.
        let rows = browse::links_of(self.view, inode, NAMES_MAX)?;
        Ok(rows.into_iter().map(|row| (row.parent, row.tag)).collect::<BTreeSet<_>>().len())
    }

    /// How many directories are in a directory, where few names are in it.
    pub fn dirs_in(&self, dir: &InodeId) -> io::Result<Option<usize>> {
        browse::dirs_in(self.view, dir, COUNTED_MAX)
    }

    /// The names of an inode that is no directory.
    pub fn names_of(&self, inode: &InodeId) -> io::Result<Vec<Spot>> {
        let mut out = Vec::new();
        for row in browse::links_of(self.view, inode, NAMES_MAX)? {
            out.extend(self.name_of(&row)?.map(|name| (row.parent, name)));
        }
        Ok(out)
    }

    /// Where a directory is seen; the root is nowhere.
    pub fn dir_spot(&self, dir: &InodeId) -> io::Result<Option<Spot>> {
        if *dir == LOST_AND_FOUND {
            return Ok(Some((InodeId::ROOT, LOST_NAME.to_vec())));
        }
        let Some(row) = browse::dir_row(self.view, dir)? else { return Ok(None) };
        Ok(self.name_of(&row)?.map(|name| (row.parent, name)))
    }

    /// The first inode that is seen of which the id begins like this.
    pub fn inode_with(&self, first: &[u8; 8]) -> io::Result<Option<InodeId>> {
        browse::inode_with(self.view, first)
    }

    /// Whether anything is in a directory.
    pub fn is_used(&self, dir: &InodeId) -> io::Result<bool> {
        browse::is_used(self.view, dir)
    }
}
