//! What can be wished of the tree: put, link, make a directory, remove, rename, give back. Owns
//! which registers a wish touches; which heads it supersedes, and what record it goes into, is
//! `planner`'s, and whether the wish is permitted is decided elsewhere.

use super::{Entry, Planner, Removed, Tree, TreeError, Version, components};
use crate::core::catalogue::browse::{self, Child};
use crate::core::catalogue::{Attributes, FileVersion, Name, Node, Place, Target};
use crate::id::{ClaimId, InodeId};
use std::io;

/// A file that was stored, to be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its content. A new version of an inode keeps that inode's claim.
    pub version: FileVersion,
    /// Its attributes.
    pub attributes: Attributes,
}

impl Planner<'_, '_> {
    /// Names a file: a new version of the file that has the path, or a new file, which replaces a
    /// link. The directories on the way are made. The inode that the path leads to then.
    pub fn put(&mut self, path: &[u8], file: NewFile) -> Result<InodeId, TreeError> {
        let NewFile { version, attributes } = file;
        let is_file = |node: &Node| matches!(node, Node::File(_));
        self.one(|wish| wish.set_content(path, Node::File(version), attributes, is_file))
    }

    /// Names a link, as [`Self::put`] does a file.
    pub fn link(
        &mut self,
        path: &[u8],
        target: Vec<u8>,
        attributes: Attributes,
    ) -> Result<InodeId, TreeError> {
        let is_link = |node: &Node| matches!(node, Node::Link(_));
        self.one(|wish| wish.set_content(path, Node::Link(target), attributes, is_link))
    }

    /// Makes a directory, with those on the way.
    pub fn mkdir(&mut self, path: &[u8], attributes: Attributes) -> Result<InodeId, TreeError> {
        self.one(|wish| {
            let (parent, name) = wish.make_parents(path)?;
            if wish.is_taken(&parent, &name)? {
                return Err(TreeError::Exists);
            }
            let inode = wish.new_inode();
            wish.place_dir(inode, Some(Place { parent, name }), None, attributes)?;
            Ok(inode)
        })
    }

    /// Makes a directory, or gives the one that is there these attributes.
    pub fn dir(&mut self, path: &[u8], attributes: Attributes) -> Result<InodeId, TreeError> {
        if let Some(inode) = self.made_at(path)? {
            return self.change_made(inode, attributes);
        }
        let entry = match self.tree().resolve(path) {
            Ok(entry) if entry.is_dir() => entry,
            Ok(_) => return Err(TreeError::NotADirectory(path.to_vec())),
            Err(TreeError::NotFound) => {
                return self.one(|wish| {
                    let (parent, name) = wish.make_parents(path)?;
                    wish.make_dir(parent, name, attributes)
                });
            }
            Err(err) => return Err(err),
        };
        let inode = entry.inode;
        if entry.version.attributes != attributes
            && let Node::Dir { place, previous } = entry.version.node
        {
            self.one(|wish| Ok(wish.place_dir(inode, place, previous, attributes)?))?;
        }
        Ok(inode)
    }

    /// Removes a name, or an empty directory. Conflict copies of its inode lose their name too.
    pub fn remove(&mut self, path: &[u8]) -> Result<InodeId, TreeError> {
        let (entry, place) = self.tree().named_entry(path)?;
        let inode = entry.inode;
        if let Node::Dir { .. } = entry.version.node {
            if browse::is_used(self.tree().view, &inode)? {
                return Err(TreeError::NotEmpty);
            }
            let attributes = entry.version.attributes;
            self.one(|wish| Ok(wish.place_dir(inode, None, Some(place), attributes)?))?;
        } else {
            self.one(|wish| Ok(wish.set_entry(place.parent, place.name, Target::Removed)?))?;
        }
        Ok(inode)
    }

    /// Removes all that a name leads to and is no directory, its conflict copies too. Not found:
    /// there is nothing of the kind.
    pub fn clear(&mut self, parent: InodeId, name: &[u8]) -> Result<(), TreeError> {
        if self.tree().group(&parent, name)?.iter().all(Entry::is_dir) {
            return Err(TreeError::NotFound);
        }
        let name = Name::new(name).ok_or(TreeError::BadPath)?;
        self.one(|wish| Ok(wish.settle_entry(parent, name, Target::Removed)?))
    }

    /// Removes an empty directory, by whatever name it is seen: that of a conflict copy too.
    pub fn remove_dir(&mut self, dir: InodeId) -> Result<(), TreeError> {
        let Some(version) = self.tree().inode(&dir)? else { return Err(TreeError::NotFound) };
        let Some((parent, name)) = self.tree().dir_spot(&dir)? else {
            return Err(TreeError::IsADirectory);
        };
        if self.tree().is_used(&dir)? {
            return Err(TreeError::NotEmpty);
        }
        let name = Name::new(&name).ok_or(TreeError::BadPath)?;
        let place = Some(Place { parent, name });
        self.one(|wish| Ok(wish.place_dir(dir, None, place, version.attributes)?))
    }

    /// Gives back a name that was removed, or a directory. The directories on the way may be
    /// removed as well: they are seen again with what is in them.
    pub fn restore(&mut self, removed: &Removed) -> Result<InodeId, TreeError> {
        let name = Name::new(&removed.name).ok_or(TreeError::BadPath)?;
        let (parent, inode) = (removed.parent, removed.inode);
        if self.is_taken(&parent, &name)? {
            return Err(TreeError::Exists);
        }
        self.one(|wish| {
            for (dir, place) in &removed.way {
                wish.move_removed(dir, place)?;
            }
            if removed.is_dir() {
                if wish.is_there(&inode)? {
                    return Err(TreeError::Exists);
                }
                let attributes = removed.version.attributes.clone();
                wish.place_dir(inode, Some(Place { parent, name }), None, attributes)?;
            } else {
                wish.set_entry(parent, name, Target::Linked(inode))?;
            }
            Ok(inode)
        })
    }

    /// Whether a directory is seen, where it was removed or where somebody gave it back.
    fn is_there(&self, dir: &InodeId) -> Result<bool, TreeError> {
        let row = browse::dir_row(self.tree().view, dir)?;
        Ok(row.is_some_and(|row| matches!(row.child, Child::Dir { removed: false, .. })))
    }

    /// Gives back a directory in another one, unless it is there or an earlier wish has done it.
    fn move_removed(&mut self, dir: &InodeId, place: &Place) -> Result<(), TreeError> {
        let row = browse::dir_row(self.tree().view, dir)?;
        let is_in_it = row.is_some_and(|row| row.parent == place.parent);
        if self.has_changed(dir) || is_in_it || self.is_there(dir)? {
            return Ok(());
        }
        if self.is_taken(&place.parent, &place.name)? {
            return Err(TreeError::Exists);
        }
        let last = self.tree().versions(dir)?.into_iter().next().ok_or(TreeError::NotFound)?;
        Ok(self.place_dir(*dir, Some(place.clone()), None, last.attributes)?)
    }

    /// Renames a file, link or directory. A file or link replaces another one at the new path; a
    /// directory replaces nothing.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<InodeId, TreeError> {
        let tree = self.tree();
        let (entry, old) = tree.named_entry(from)?;
        let (parent, new) = tree.existing_dirs(to)?;
        let name = match new[..] {
            [name] => Name::new(name).ok_or(TreeError::BadPath)?,
            [] => return Err(TreeError::Exists),
            _ => return Err(TreeError::NoDirectory),
        };
        let there = tree.group(&parent, name.as_bytes())?.into_iter().next();
        let inode = entry.inode;
        if !entry.is_dir() {
            match there {
                Some(there) if there.is_dir() => return Err(TreeError::IsADirectory),
                Some(there) if there.inode == inode => return Err(TreeError::Exists),
                _ => {}
            }
            self.one(|wish| {
                wish.set_entry(old.parent, old.name, Target::Moved(inode))?;
                Ok(wish.set_entry(parent, name, Target::Linked(inode))?)
            })?;
            return Ok(inode);
        }
        if there.is_some() {
            return Err(TreeError::Exists);
        }
        if tree.is_inside(parent, &inode)? {
            return Err(TreeError::InsideItself);
        }
        let (place, attributes) = (Some(Place { parent, name }), entry.version.attributes);
        self.one(|wish| Ok(wish.place_dir(inode, place, Some(old), attributes)?))?;
        Ok(inode)
    }

    /// Makes a version of an inode that has its content under another claim: only while the inode
    /// has a name and is what [`Tree::named_under`] found, else it is not found. No name is
    /// touched, so that one which was removed, here or elsewhere, stays removed.
    pub fn keep(
        &mut self,
        released: &ClaimId,
        (inode, found): (InodeId, &[Version]),
        file: NewFile,
    ) -> Result<InodeId, TreeError> {
        let named = self.tree().named_under(released)?;
        if !named.iter().any(|(id, now)| *id == inode && now == found) {
            return Err(TreeError::NotFound);
        }
        let node = Node::File(file.version);
        self.one(|wish| Ok(wish.set_inode(inode, node, file.attributes)?))?;
        Ok(inode)
    }
}

impl Tree<'_> {
    /// The file that a `put` to this path would make a new version of; none: it would be new. The
    /// caller claims its chunks under that file's claim.
    pub fn put_target(&self, path: &[u8]) -> Result<Option<Entry>, TreeError> {
        let (parent, names) = self.existing_dirs(path)?;
        let name = match names[..] {
            [name] => name,
            [] => return Err(TreeError::IsADirectory),
            _ => return Ok(None),
        };
        let winner = self.group(&parent, name)?.into_iter().next();
        match winner.as_ref().map(|entry| &entry.version.node) {
            Some(Node::Dir { .. }) => Err(TreeError::IsADirectory),
            // It would be replaced.
            Some(Node::Link(_) | Node::Special(_) | Node::Shared(_)) => Ok(None),
            Some(Node::File(_)) | None => Ok(winner),
        }
    }

    /// What a path leads to, which must have a name of its own, and the place of that name.
    fn named_entry(&self, path: &[u8]) -> Result<(Entry, Place), TreeError> {
        let entry = self.resolve(path)?;
        if entry.conflict {
            return Err(TreeError::ConflictCopy);
        }
        let name = Name::new(&entry.name).ok_or(TreeError::IsADirectory)?;
        let place = Place { parent: entry.parent, name };
        Ok((entry, place))
    }

    /// Follows a path as far as its directories exist; the last name is never followed. Returns
    /// where that is, and the names that are left.
    pub(super) fn existing_dirs<'p>(
        &self,
        path: &'p [u8],
    ) -> Result<(InodeId, Vec<&'p [u8]>), TreeError> {
        let mut names = components(path)?;
        let mut dir = InodeId::ROOT;
        while let [first, _, ..] = names[..] {
            match self.lookup(&dir, first)? {
                Some(entry) if entry.is_dir() => dir = entry.inode,
                Some(entry) => return Err(TreeError::NotADirectory(entry.name)),
                None => break,
            }
            names.remove(0);
        }
        Ok((dir, names))
    }

    /// Whether `dir` is `above` or somewhere below it.
    fn is_inside(&self, dir: InodeId, above: &InodeId) -> io::Result<bool> {
        let mut at = Some(dir);
        while let Some(dir) = at {
            if dir == *above {
                return Ok(true);
            }
            at = browse::dir_row(self.view, &dir)?.map(|row| row.parent);
        }
        Ok(false)
    }
}
