//! Collects the changes that wishes come to. Owns which heads a change names as parents, the
//! directories that are made on the way to a path, and the packing of many wishes into few records;
//! what a wish is, is said in `plan`.
//!
//! Invariant: a record names as parents the heads that its author saw of the registers that it
//! changes, and never the record of a conflict copy: that stays until somebody resolves it. Two
//! wishes of which one spares what the other supersedes get records of their own.

use super::{Entry, Tree, TreeError, Version};
use crate::core::catalogue::browse::{self, ChangeAt};
use crate::core::catalogue::{
    Attributes, CHANGES_MAX, Change, Draft, Name, Node, PARENTS_MAX, Place, RECORD_MAX, Target,
    entry_tag, inode_tag,
};
use crate::crypto::EpochKeys;
use crate::id::{InodeId, RecordId, Tag};
use crate::wire::codec::Encode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Directories that were moved away from one place before their successors' inodes are random.
const GENERATIONS_MAX: u8 = 16;
/// Bytes of a record that do not depend on its changes, generously.
const FRAME: usize = 512;

/// Plans wishes one after the other. Later ones see the directories that earlier ones make.
pub struct Planner<'t, 'a> {
    tree: &'t Tree<'a>,
    keys: &'a EpochKeys,
    new_inode: &'t mut dyn FnMut() -> InodeId,
    /// Directories that do not exist yet, by where they will be.
    made: BTreeMap<(InodeId, Vec<u8>), InodeId>,
    /// Registers that were changed.
    changed: BTreeSet<Register>,
    /// The wish that is being planned.
    open: Part,
    /// The wishes before it.
    packed: Vec<Part>,
}

/// What a change is to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Register {
    Inode(InodeId),
    Entry(InodeId, Vec<u8>),
}

/// A record in the making.
#[derive(Default)]
struct Part {
    changes: Vec<Change>,
    parents: BTreeSet<RecordId>,
    /// Records of conflict copies: naming them would end those.
    spared: BTreeSet<RecordId>,
    also: BTreeSet<Tag>,
    /// Length of the changes in bytes.
    len: usize,
}

impl Part {
    fn push(&mut self, change: Change) {
        self.len += change.to_bytes().len();
        self.changes.push(change);
    }

    /// Whether it puts directories somewhere and does nothing else.
    fn is_of_dirs(&self) -> bool {
        let is_of_dir = |change: &Change| {
            matches!(change, Change::Inode { node: Node::Dir { place: Some(_), .. }, .. })
        };
        self.changes.iter().all(is_of_dir)
    }

    /// Whether both can be one record.
    fn fits(&self, other: &Self) -> bool {
        let parents: BTreeSet<&RecordId> = self.parents.union(&other.parents).collect();
        let (changes, also) =
            (self.changes.len() + other.changes.len(), self.also.union(&other.also).count());
        let header = 32 * parents.len() + 16 * (changes + also);
        parents.len() <= PARENTS_MAX
            && changes.max(also) <= CHANGES_MAX
            && FRAME + header + self.len + other.len <= RECORD_MAX
            && self.parents.is_disjoint(&other.spared)
            && self.spared.is_disjoint(&other.parents)
    }

    fn join(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.parents.extend(other.parents);
        self.spared.extend(other.spared);
        self.also.extend(other.also);
        self.len += other.len;
    }

    /// Of more heads than a record can name, the rest stays concurrent until the next change.
    fn draft(self) -> Draft {
        let parents = self.parents.difference(&self.spared).take(PARENTS_MAX).copied().collect();
        Draft { changes: self.changes, parents, also: self.also.into_iter().collect() }
    }
}

impl<'a> Tree<'a> {
    /// Begins to plan; `new_inode` draws random inode numbers.
    pub fn planner<'t>(
        &'t self,
        new_inode: &'t mut dyn FnMut() -> InodeId,
    ) -> Result<Planner<'t, 'a>, TreeError> {
        let keys = self.keyring.newest().ok_or(TreeError::NoKeys)?;
        let (made, changed, open, packed) = Default::default();
        Ok(Planner { tree: self, keys, new_inode, made, changed, open, packed })
    }
}

impl<'t, 'a> Planner<'t, 'a> {
    /// The tree as it is, without the wishes.
    pub const fn tree(&self) -> &'t Tree<'a> {
        self.tree
    }

    pub(super) fn new_inode(&mut self) -> InodeId {
        (self.new_inode)()
    }

    /// Whether something has the name.
    pub(super) fn is_taken(&self, parent: &InodeId, name: &Name) -> io::Result<bool> {
        let made = self.made.contains_key(&(*parent, name.as_bytes().to_vec()));
        Ok(made || !self.tree.group(parent, name.as_bytes())?.is_empty())
    }

    /// Whether an earlier wish changes an inode.
    pub(super) fn has_changed(&self, inode: &InodeId) -> bool {
        self.changed.contains(&Register::Inode(*inode))
    }

    /// What all wishes come to: few records, to be sealed with the newest keys of the ring.
    /// Directories come before files; one on the way to a file comes with that.
    pub fn finish(mut self) -> Vec<Draft> {
        self.packed.sort_by_key(|part| !part.is_of_dirs());
        self.packed.into_iter().map(Part::draft).collect()
    }

    /// Plans one wish. One that cannot be leaves nothing.
    pub(super) fn one<T>(
        &mut self,
        wish: impl FnOnce(&mut Self) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let made = self.made.clone();
        let done = wish(self).and_then(|done| self.close().map(|()| done));
        if done.is_err() {
            (self.open, self.made) = (Part::default(), made);
        }
        done
    }

    /// Packs the wish that was planned.
    fn close(&mut self) -> Result<(), TreeError> {
        let open = std::mem::take(&mut self.open);
        let registers: Vec<Register> = open.changes.iter().map(register).collect();
        if registers.iter().any(|register| self.changed.contains(register)) {
            return Err(TreeError::Exists);
        }
        self.changed.extend(registers);
        // Whoever lists directories has to open the records of all of them: so these hold no files.
        let of_dirs = open.is_of_dirs();
        let last = self.packed.iter_mut().rev().find(|part| part.is_of_dirs() == of_dirs);
        match last {
            Some(last) if last.fits(&open) => last.join(open),
            _ if open.changes.is_empty() => {}
            _ => self.packed.push(open),
        }
        Ok(())
    }

    /// Gives a name what it leads to: a new version of what is there, if that is of the same kind.
    /// That keeps its tags unless the new one brings some.
    pub(super) fn set_content(
        &mut self,
        path: &[u8],
        node: Node,
        mut attributes: Attributes,
        same_kind: impl Fn(&Node) -> bool,
    ) -> Result<InodeId, TreeError> {
        let (parent, name) = self.make_parents(path)?;
        let winner = self.tree.group(&parent, name.as_bytes())?.into_iter().next();
        let made = self.made.contains_key(&(parent, name.as_bytes().to_vec()));
        if made || winner.as_ref().is_some_and(Entry::is_dir) {
            return Err(TreeError::IsADirectory);
        }
        let (inode, target) = match winner.filter(|entry| same_kind(&entry.version.node)) {
            Some(entry) => {
                if attributes.tags().is_empty() {
                    attributes.set_tags(entry.version.attributes.tags());
                }
                (entry.inode, Target::Kept(entry.inode))
            }
            None => {
                let inode = self.new_inode();
                (inode, Target::Linked(inode))
            }
        };
        self.set_inode(inode, node, attributes)?;
        self.set_entry(parent, name, target)?;
        Ok(inode)
    }

    /// The directory that earlier wishes make at a path.
    pub(super) fn made_at(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let (parent, names) = self.existing_dirs(path)?;
        Ok(match names[..] {
            [name] => self.made.get(&(parent, name.to_vec())).copied(),
            _ => None,
        })
    }

    /// Gives a directory that an earlier wish makes other attributes.
    pub(super) fn change_made(
        &mut self,
        inode: InodeId,
        attributes: Attributes,
    ) -> Result<InodeId, TreeError> {
        let changes = self.packed.iter_mut().flat_map(|part| &mut part.changes);
        for change in changes {
            if let Change::Inode { inode: of, attributes: now, .. } = change
                && *of == inode
            {
                *now = attributes;
                return Ok(inode);
            }
        }
        Err(TreeError::Exists)
    }

    /// Follows a path as far as its directories exist, or will; see [`Tree::existing_dirs`].
    fn existing_dirs<'p>(&self, path: &'p [u8]) -> Result<(InodeId, Vec<&'p [u8]>), TreeError> {
        let (mut dir, mut names) = self.tree.existing_dirs(path)?;
        while let [first, _, ..] = names[..] {
            let Some(inode) = self.made.get(&(dir, first.to_vec())) else { break };
            dir = *inode;
            names.remove(0);
        }
        Ok((dir, names))
    }

    /// Makes the directories on the way to a path; the last directory and the last name.
    pub(super) fn make_parents(&mut self, path: &[u8]) -> Result<(InodeId, Name), TreeError> {
        let (mut parent, names) = self.existing_dirs(path)?;
        let Some((last, missing)) = names.split_last() else { return Err(TreeError::Exists) };
        for name in missing {
            let name = Name::new(name).ok_or(TreeError::BadPath)?;
            let attributes = Attributes { mode: 0o755, ..Attributes::default() };
            parent = self.make_dir(parent, name, attributes)?;
        }
        Ok((parent, Name::new(last).ok_or(TreeError::BadPath)?))
    }

    /// Makes a directory of which the inode follows from its place.
    pub(super) fn make_dir(
        &mut self,
        parent: InodeId,
        name: Name,
        attributes: Attributes,
    ) -> Result<InodeId, TreeError> {
        let found = self.inode_on_the_way(&parent, &name)?;
        let inode = found.unwrap_or_else(&mut *self.new_inode);
        self.made.insert((parent, name.as_bytes().to_vec()), inode);
        self.place_dir(inode, Some(Place { parent, name }), None, attributes)?;
        Ok(inode)
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

    /// Says where a directory is.
    pub(super) fn place_dir(
        &mut self,
        inode: InodeId,
        place: Option<Place>,
        previous: Option<Place>,
        attributes: Attributes,
    ) -> io::Result<()> {
        self.supersede(|keys| inode_tag(keys, &inode), &[])?;
        self.open.push(Change::Inode { inode, node: Node::Dir { place, previous }, attributes });
        Ok(())
    }

    /// Makes a version of a file or link.
    pub(super) fn set_inode(
        &mut self,
        inode: InodeId,
        node: Node,
        attributes: Attributes,
    ) -> io::Result<()> {
        let heads = self.tree.versions(&inode)?;
        let losers = heads.iter().filter(|version| !version.same_content(&heads[0]));
        let spared: Vec<ChangeAt> =
            losers.map(|v| ChangeAt { clock: v.clock, id: v.record, change: v.change }).collect();
        self.supersede(|keys| inode_tag(keys, &inode), &spared)?;
        self.open.push(Change::Inode { inode, node, attributes });
        Ok(())
    }

    /// Says what a name leads to.
    pub(super) fn set_entry(
        &mut self,
        parent: InodeId,
        name: Name,
        target: Target,
    ) -> io::Result<()> {
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
        self.open.push(Change::Entry { parent, name, target });
        Ok(())
    }

    /// Makes a version of a file or link that ends all others, conflict copies too.
    pub(super) fn settle_inode(
        &mut self,
        inode: InodeId,
        node: Node,
        attributes: Attributes,
    ) -> io::Result<()> {
        self.supersede(|keys| inode_tag(keys, &inode), &[])?;
        self.open.push(Change::Inode { inode, node, attributes });
        Ok(())
    }

    /// Says what a name leads to, and that it leads to nothing else.
    pub(super) fn settle_entry(
        &mut self,
        parent: InodeId,
        name: Name,
        target: Target,
    ) -> io::Result<()> {
        self.supersede(|keys| entry_tag(keys, &parent, name.as_bytes()), &[])?;
        self.open.push(Change::Entry { parent, name, target });
        Ok(())
    }

    /// Names the heads of a register as parents, under all epochs, except the spared ones.
    fn supersede(
        &mut self,
        tag: impl Fn(&EpochKeys) -> Tag,
        spared: &[ChangeAt],
    ) -> io::Result<()> {
        self.supersede_where(tag, |head| !spared.contains(head))
    }

    /// Adds a change to the wish that is being planned.
    pub(super) fn push(&mut self, change: Change) {
        self.open.push(change);
    }

    /// Names those heads of a register as parents, under all epochs, that `ends` chooses.
    pub(super) fn supersede_where(
        &mut self,
        tag: impl Fn(&EpochKeys) -> Tag,
        ends: impl Fn(&ChangeAt) -> bool,
    ) -> io::Result<()> {
        for keys in self.tree.keyring.iter() {
            let tag = tag(keys);
            for head in browse::heads_under(self.tree.view, &tag)? {
                if !ends(&head) {
                    self.open.spared.insert(head.id);
                    continue;
                }
                self.open.parents.insert(head.id);
                if keys.epoch() != self.keys.epoch() {
                    self.open.also.insert(tag);
                }
            }
        }
        Ok(())
    }
}

fn register(change: &Change) -> Register {
    match change {
        Change::Inode { inode, .. } => Register::Inode(*inode),
        Change::Entry { parent, name, .. } => Register::Entry(*parent, name.as_bytes().to_vec()),
    }
}
