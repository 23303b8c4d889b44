//! From a wish to the changes that make it true: put, make a directory, remove, rename. Owns which
//! registers a wish touches and which heads it supersedes; sealing and signing is the catalogue's
//! (`seal_tree`), and whether the wish is permitted is decided elsewhere.
//!
//! Invariant: a change names as parents the heads that its author saw *under that name*, and never
//! a record that is shown as a conflict copy: that stays until somebody resolves it.

use super::{Entry, Removed, Tree, TreeError, Version, components};
use crate::core::catalogue::browse::{self, ChangeAt};
use crate::core::catalogue::{
    Attributes, Change, Draft, FileVersion, Name, Node, PARENTS_MAX, Place, Target, entry_tag,
    inode_tag,
};
use crate::crypto::EpochKeys;
use crate::id::{InodeId, RecordId, Tag};
use std::collections::BTreeSet;
use std::io;

/// Directories that were moved away from one place before their successors' inodes are random.
const GENERATIONS_MAX: u8 = 16;

/// A file that was stored, to be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its content. A new version of an inode keeps that inode's claim.
    pub version: FileVersion,
    /// Its attributes.
    pub attributes: Attributes,
}

/// What a wish comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The changes, to be sealed with the newest keys of the ring.
    pub draft: Draft,
    /// The inode that the path will lead to.
    pub inode: InodeId,
}

struct Planner<'t, 'a> {
    tree: &'t Tree<'a>,
    keys: &'a EpochKeys,
    changes: Vec<Change>,
    parents: BTreeSet<RecordId>,
    /// Records of conflict copies: naming them would end those.
    spared: BTreeSet<RecordId>,
    also: BTreeSet<Tag>,
}

impl<'a> Tree<'a> {
    fn planner(&self) -> Result<Planner<'_, 'a>, TreeError> {
        let keys = self.keyring.newest().ok_or(TreeError::NoKeys)?;
        let (parents, spared, also) = Default::default();
        Ok(Planner { tree: self, keys, changes: Vec::new(), parents, spared, also })
    }

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
            Some(Node::Link(_)) => Err(TreeError::IsALink),
            Some(Node::File(_)) | None => Ok(winner),
        }
    }

    /// Names a file: a new version of the file that has the path, or a new file, with the
    /// directories on the way. `new_inode` draws random inode numbers.
    pub fn plan_put(
        &self,
        path: &[u8],
        file: NewFile,
        new_inode: &mut dyn FnMut() -> InodeId,
    ) -> Result<Planned, TreeError> {
        let winner = self.put_target(path)?;
        let mut planner = self.planner()?;
        let (parent, name) = planner.make_parents(path, new_inode)?;
        let (inode, target) = match &winner {
            Some(winner) => (winner.inode, Target::Kept(winner.inode)),
            None => {
                let inode = new_inode();
                (inode, Target::Linked(inode))
            }
        };
        planner.set_inode(inode, Node::File(file.version), file.attributes)?;
        planner.set_entry(parent, name, target)?;
        Ok(planner.finish(inode))
    }

    /// Makes a directory, with those on the way.
    pub fn plan_mkdir(
        &self,
        path: &[u8],
        attributes: Attributes,
        new_inode: &mut dyn FnMut() -> InodeId,
    ) -> Result<Planned, TreeError> {
        let mut planner = self.planner()?;
        let (parent, name) = planner.make_parents(path, new_inode)?;
        if !self.group(&parent, name.as_bytes())?.is_empty() {
            return Err(TreeError::Exists);
        }
        let inode = new_inode();
        planner.place_dir(inode, Some(Place { parent, name }), None, attributes)?;
        Ok(planner.finish(inode))
    }

    /// Removes a name, or an empty directory. Conflict copies of its inode lose their name too.
    pub fn plan_remove(&self, path: &[u8]) -> Result<Planned, TreeError> {
        let (entry, place) = self.named_entry(path)?;
        let mut planner = self.planner()?;
        if let Node::Dir { .. } = entry.version.node {
            if browse::is_used(self.view, &entry.inode)? {
                return Err(TreeError::NotEmpty);
            }
            planner.place_dir(entry.inode, None, Some(place), entry.version.attributes)?;
        } else {
            planner.set_entry(place.parent, place.name, Target::Removed)?;
        }
        Ok(planner.finish(entry.inode))
    }

    /// Gives back a name that was removed, or a directory. The directories on the way may be
    /// removed as well: they are seen again with what is in them.
    pub fn plan_restore(&self, removed: &Removed) -> Result<Planned, TreeError> {
        let name = Name::new(&removed.name).ok_or(TreeError::BadPath)?;
        if !self.group(&removed.parent, &removed.name)?.is_empty() {
            return Err(TreeError::Exists);
        }
        let mut planner = self.planner()?;
        if removed.is_dir() {
            let place = Place { parent: removed.parent, name };
            let attributes = removed.version.attributes.clone();
            planner.place_dir(removed.inode, Some(place), None, attributes)?;
        } else {
            planner.set_entry(removed.parent, name, Target::Linked(removed.inode))?;
        }
        Ok(planner.finish(removed.inode))
    }

    /// What was removed from a path, in directories that may be removed too.
    pub fn removed_at(&self, path: &[u8]) -> Result<Option<Removed>, TreeError> {
        let names = components(path)?;
        let Some((last, above)) = names.split_last() else { return Err(TreeError::Exists) };
        let mut dir = InodeId::ROOT;
        for name in above {
            dir = match self.lookup(&dir, name)? {
                Some(entry) if entry.is_dir() => entry.inode,
                Some(entry) => return Err(TreeError::NotADirectory(entry.name)),
                None => match self.removed(&dir, name)? {
                    Some(removed) if removed.is_dir() => removed.inode,
                    Some(_) | None => return Ok(None),
                },
            };
        }
        if self.lookup(&dir, last)?.is_some() {
            return Err(TreeError::Exists);
        }
        Ok(self.removed(&dir, last)?)
    }

    /// Renames a file, link or directory. A file or link replaces another one at the new path; a
    /// directory replaces nothing.
    pub fn plan_rename(&self, from: &[u8], to: &[u8]) -> Result<Planned, TreeError> {
        let (entry, old) = self.named_entry(from)?;
        let (parent, new) = self.existing_dirs(to)?;
        let name = match new[..] {
            [name] => Name::new(name).ok_or(TreeError::BadPath)?,
            [] => return Err(TreeError::Exists),
            _ => return Err(TreeError::NotFound),
        };
        let there = self.group(&parent, name.as_bytes())?.into_iter().next();
        let mut planner = self.planner()?;
        if !entry.is_dir() {
            match there {
                Some(there) if there.is_dir() => return Err(TreeError::IsADirectory),
                Some(there) if there.inode == entry.inode => return Err(TreeError::Exists),
                _ => {}
            }
            planner.set_entry(old.parent, old.name, Target::Moved(entry.inode))?;
            planner.set_entry(parent, name, Target::Linked(entry.inode))?;
            return Ok(planner.finish(entry.inode));
        }
        if there.is_some() {
            return Err(TreeError::Exists);
        }
        if self.is_inside(parent, &entry.inode)? {
            return Err(TreeError::InsideItself);
        }
        let place = Place { parent, name };
        planner.place_dir(entry.inode, Some(place), Some(old), entry.version.attributes)?;
        Ok(planner.finish(entry.inode))
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
    fn existing_dirs<'p>(&self, path: &'p [u8]) -> Result<(InodeId, Vec<&'p [u8]>), TreeError> {
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

impl Planner<'_, '_> {
    /// Makes the directories on the way to a path; the last directory and the last name.
    fn make_parents(
        &mut self,
        path: &[u8],
        new_inode: &mut dyn FnMut() -> InodeId,
    ) -> Result<(InodeId, Name), TreeError> {
        let (mut parent, names) = self.tree.existing_dirs(path)?;
        let Some((last, missing)) = names.split_last() else { return Err(TreeError::Exists) };
        for name in missing {
            let name = Name::new(name).ok_or(TreeError::BadPath)?;
            let attributes = Attributes { mode: 0o755, ..Attributes::default() };
            let inode = self.inode_on_the_way(&parent, &name)?.unwrap_or_else(&mut *new_inode);
            self.place_dir(inode, Some(Place { parent, name }), None, attributes)?;
            parent = inode;
        }
        Ok((parent, Name::new(last).ok_or(TreeError::BadPath)?))
    }

    /// The inode of a directory that nobody made for its own sake: it follows from its place, so
    /// that two members who put files into a new directory at once make one directory and not two
    /// of one name. One that is in use, because a directory was moved away from there, is passed
    /// over; none when that happened too often.
    fn inode_on_the_way(&self, parent: &InodeId, name: &Name) -> io::Result<Option<InodeId>> {
        const CONTEXT: &str = "p2pfs 2026-11 inode of a directory on the way v1";
        for generation in 0..GENERATIONS_MAX {
            let place = [&parent.0[..], &[generation], name.as_bytes()].concat();
            let mut inode = InodeId([0; 16]);
            inode.0.copy_from_slice(&blake3::derive_key(CONTEXT, &place)[..16]);
            let heads = self.tree.versions(&inode)?;
            let is_free = |v: &Version| matches!(v.node, Node::Dir { place: None, .. });
            if heads.iter().all(is_free) {
                return Ok(Some(inode));
            }
        }
        Ok(None)
    }

    fn place_dir(
        &mut self,
        inode: InodeId,
        place: Option<Place>,
        previous: Option<Place>,
        attributes: Attributes,
    ) -> io::Result<()> {
        self.supersede(|keys| inode_tag(keys, &inode), &[])?;
        self.changes.push(Change::Inode { inode, node: Node::Dir { place, previous }, attributes });
        Ok(())
    }

    fn set_inode(&mut self, inode: InodeId, node: Node, attributes: Attributes) -> io::Result<()> {
        let heads = self.tree.versions(&inode)?;
        let losers = heads.iter().filter(|version| !version.same_content(&heads[0]));
        let spared: Vec<ChangeAt> =
            losers.map(|v| ChangeAt { clock: v.clock, id: v.record, change: v.change }).collect();
        self.supersede(|keys| inode_tag(keys, &inode), &spared)?;
        self.changes.push(Change::Inode { inode, node, attributes });
        Ok(())
    }

    fn set_entry(&mut self, parent: InodeId, name: Name, target: Target) -> io::Result<()> {
        let group = self.tree.group(&parent, name.as_bytes())?;
        let winner = group.first().map(|entry| entry.inode);
        let rows = browse::named(self.tree.view, self.tree.keyring, &parent, name.as_bytes())?;
        let loses = |inode: &InodeId| {
            Some(*inode) != winner && group.iter().any(|entry| entry.inode == *inode)
        };
        let spared: Vec<ChangeAt> = rows
            .iter()
            .filter(|row| matches!(&row.child, browse::Child::Entry(inode) if loses(inode)))
            .map(|row| row.at)
            .collect();
        self.supersede(|keys| entry_tag(keys, &parent, name.as_bytes()), &spared)?;
        self.changes.push(Change::Entry { parent, name, target });
        Ok(())
    }

    /// Names the heads of a register as parents, under all epochs, except the spared ones.
    fn supersede(
        &mut self,
        tag: impl Fn(&EpochKeys) -> Tag,
        spared: &[ChangeAt],
    ) -> io::Result<()> {
        for keys in self.tree.keyring.iter() {
            let tag = tag(keys);
            for head in browse::heads_under(self.tree.view, &tag)? {
                if spared.contains(&head) {
                    self.spared.insert(head.id);
                    continue;
                }
                self.parents.insert(head.id);
                if keys.epoch() != self.keys.epoch() {
                    self.also.insert(tag);
                }
            }
        }
        Ok(())
    }

    /// Of more heads than a record can name, the rest stays concurrent until the next change.
    fn finish(self, inode: InodeId) -> Planned {
        let parents = self.parents.difference(&self.spared).take(PARENTS_MAX).copied().collect();
        let also = self.also.into_iter().collect();
        Planned { draft: Draft { changes: self.changes, parents, also }, inode }
    }
}
