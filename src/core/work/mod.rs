//! The working tree of a node: what its own mount has changed and nobody else knows of yet, laid
//! over the replicated tree. Owns what is seen through both, and (in `names` and `copies`) the
//! rules of a file system for names; `plan` turns the changes into those of records, `numbers`
//! gives inodes the numbers that programs see. File contents are not here: an edited file is known
//! by its inode.
//!
//! Invariant: a change remembers what its author had seen of the register ([`Heads`]) when it was
//! first touched, so that what others did meanwhile is never superseded unseen.

mod copies;
mod names;
mod numbers;
mod plan;
mod recent;

pub use copies::Named;
pub use names::{Renaming, Unlinked};
pub use numbers::{Number, Numbers, ROOT_NUMBER};
pub use plan::{Edition, Group, Need, Planned};
pub use recent::Recent;

use crate::core::catalogue::{Attributes, FileVersion, Node, Place, Special};
use crate::core::tree::{Entry, Heads, Spot, Tree, TreeError, Version};
use crate::id::{InodeId, RecordId};
use copies::Ending;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file; none: it is new, and no version of it was stored yet.
    File(Option<FileVersion>),
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// A pipe, socket or device.
    Special(Special),
}

impl What {
    fn of(node: &Node) -> Self {
        match node {
            Node::File(version) => Self::File(Some(version.clone())),
            Node::Dir { .. } => Self::Dir,
            Node::Link(target) => Self::Link(target.clone()),
            Node::Special(special) => Self::Special(*special),
            // It has no place in the tree, so nobody comes here with one.
            Node::Shared(_) => Self::Special(Special::Socket),
        }
    }
}

/// An inode as this node sees it, its own changes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Which.
    pub id: InodeId,
    /// What it is.
    pub what: What,
    /// Its attributes.
    pub attributes: Attributes,
    /// The clock of the record that says so; 0: none does yet.
    pub clock: u64,
    /// The record of the version, when this is a conflict copy: its inode shows another one.
    pub copy: Option<RecordId>,
}

impl Inode {
    fn of(id: InodeId, version: Version, copy: bool) -> Self {
        Self {
            id,
            what: What::of(&version.node),
            attributes: version.attributes,
            clock: version.clock,
            copy: copy.then_some(version.record),
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.what == What::Dir
    }

    /// What its number is for.
    pub const fn number(&self) -> Number {
        match self.copy {
            None => Number::Inode(self.id),
            Some(record) => Number::Copy(self.id, record),
        }
    }
}

/// An inode that was touched.
#[derive(Debug, Clone)]
struct Own {
    what: What,
    attributes: Attributes,
    clock: u64,
    /// All its names; a directory has one, or none any more.
    names: BTreeSet<Spot>,
    /// Whether a record speaks of it.
    known: bool,
    seen: Heads,
    /// Where a directory is as far as others know, and where it was before.
    was: Option<Place>,
    before: Option<Place>,
    /// When it last changed in a way that asks for a record of its own; 0: it has not.
    changed: u64,
}

/// A name that was touched.
#[derive(Debug, Clone)]
struct Held {
    now: Option<InodeId>,
    was: Option<InodeId>,
    /// Whether that is a directory, which has no entry.
    was_dir: bool,
    seen: Heads,
    changed: u64,
    /// Whether it is said again, so that a conflict copy of it ends.
    again: bool,
}

/// The working tree.
#[derive(Debug, Default)]
pub struct Working {
    inodes: BTreeMap<InodeId, Own>,
    names: BTreeMap<Spot, Held>,
    /// Conflict copies that were removed.
    dropped: BTreeSet<(InodeId, RecordId)>,
    /// Inodes that copies have become, and what ends those when the inodes are known.
    ending: BTreeMap<InodeId, Ending>,
    /// What records say of names that are just being published.
    leaving: BTreeMap<Spot, InodeId>,
    /// Counts the changes.
    tick: u64,
}

/// A file that was synced before this node ended.
#[derive(Debug, Clone)]
pub struct Synced {
    /// Which.
    pub id: InodeId,
    /// What was seen of it.
    pub seen: Heads,
    /// Its attributes.
    pub attributes: Attributes,
    /// Names that nobody else knows of, each with what was seen of it, where that was said: what
    /// others have made of it since is kept, too.
    pub names: Vec<(Spot, Option<Heads>)>,
}

/// A part of a directory.
#[derive(Debug)]
pub struct Listing {
    /// Names with what they lead to, sorted.
    pub entries: Vec<(Vec<u8>, Inode)>,
    /// The name after which there is more; none: this was all.
    pub next: Option<Vec<u8>>,
}

impl Working {
    /// How much of the tree was touched.
    pub fn pending(&self) -> usize {
        self.names.len() + self.inodes.len()
    }

    /// How many changes were made.
    pub const fn changes(&self) -> u64 {
        self.tick
    }

    /// Whether a directory was made, moved or changed and nobody else knows of it.
    pub fn has_new_dirs(&self) -> bool {
        self.inodes.values().any(|own| own.changed > 0 && own.what == What::Dir)
    }

    /// Whether a file itself was changed, besides its content and names.
    pub fn is_changed(&self, id: &InodeId) -> bool {
        self.inodes.get(id).is_some_and(|own| own.changed > 0)
    }

    /// Whether a name of an inode was changed, and records are needed to say so: others know the
    /// inode, or the tree shows something there that has another name now. What is being published
    /// counts as known.
    pub fn has_new_names(&self, id: &InodeId) -> bool {
        let Some(own) = self.inodes.get(id) else { return false };
        let is_new = |spot: &Spot| {
            let held = self.names.get(spot);
            held.is_some_and(|held| own.known || self.has_moved(held, id))
        };
        let is_left = |(spot, at): (&Spot, &InodeId)| (at == id) != own.names.contains(spot);
        own.names.iter().any(is_new) || self.leaving.iter().any(is_left)
    }

    /// Whether what had a name, of which others know, has another one now.
    fn has_moved(&self, held: &Held, now: &InodeId) -> bool {
        held.was.is_some_and(|was| was != *now && self.is_elsewhere(&was))
    }

    /// Whether records speak of an inode.
    pub fn is_known(&self, id: &InodeId) -> bool {
        self.inodes.get(id).is_none_or(|own| own.known)
    }

    /// The names of an inode that no record speaks of, each with what was seen of it; none where
    /// something had it that has another name now: that must not be lost, whatever happens.
    pub fn new_names(&self, id: &InodeId) -> Vec<(Spot, Option<Heads>)> {
        let own = self.inodes.get(id).filter(|own| !own.known);
        let names = own.into_iter().flat_map(|own| own.names.iter());
        let seen = |spot: &Spot| {
            let held = self.names.get(spot).filter(|held| !self.has_moved(held, id))?;
            let left = self.leaving.get(spot).filter(|left| *left != id);
            (!left.is_some_and(|left| self.is_elsewhere(left))).then(|| held.seen.clone())
        };
        names.map(|spot| (spot.clone(), seen(spot))).collect()
    }

    /// Whether a name was touched and nobody else knows of it.
    pub fn is_pending(&self, spot: &Spot) -> bool {
        self.names.contains_key(spot)
    }

    /// What was seen of an inode when it was touched.
    pub fn seen_of(&self, id: &InodeId) -> Option<&Heads> {
        self.inodes.get(id).map(|own| &own.seen)
    }

    /// A file as it was when this node ended: with these names, wherever they can be had.
    pub fn restore(&mut self, tree: &Tree<'_>, synced: &Synced) -> Result<(), TreeError> {
        let Synced { id, seen, attributes, names } = synced;
        let tick = self.next();
        if tree.inode(id)?.is_some() {
            let own = self.own(tree, id)?;
            (own.attributes, own.seen, own.changed) = (attributes.clone(), seen.clone(), tick);
        } else {
            let own = Own {
                // Named when its content is a version: that of the base may be of another claim.
                what: What::File(None),
                attributes: attributes.clone(),
                clock: 0,
                names: BTreeSet::new(),
                known: false,
                seen: seen.clone(),
                was: None,
                before: None,
                changed: tick,
            };
            self.inodes.insert(*id, own);
        }
        for ((parent, name), seen) in names {
            let there = self.inode(tree, parent)?.is_some_and(|dir| dir.is_dir());
            let spot = (if there { *parent } else { InodeId::ROOT }, name.clone());
            let Ok(held) = self.held(tree, &spot.0, &spot.1) else { continue };
            let before = held.now.replace(*id);
            held.changed = tick;
            if let Some(seen) = seen {
                held.seen = seen.clone();
            }
            if let Some(own) = before.and_then(|before| self.inodes.get_mut(&before)) {
                own.names.remove(&spot);
            }
            if let Some(own) = self.inodes.get_mut(id) {
                own.names.insert(spot);
            }
        }
        Ok(())
    }

    /// What a name in a directory leads to.
    pub fn lookup(
        &self,
        tree: &Tree<'_>,
        parent: &InodeId,
        name: &[u8],
    ) -> io::Result<Option<Inode>> {
        if let Some(held) = self.names.get(&(*parent, name.to_vec())) {
            return held.now.map_or(Ok(None), |id| self.inode(tree, &id));
        }
        let entry = tree.lookup(parent, name)?.filter(|entry| !self.is_dropped(entry));
        Ok(entry.map(|entry| self.seen(entry)))
    }

    /// Whether a conflict copy was removed, or its inode was.
    fn is_dropped(&self, entry: &Entry) -> bool {
        entry.conflict
            && (self.is_orphan(&entry.inode)
                || self.dropped.contains(&(entry.inode, entry.version.record)))
    }

    fn seen(&self, entry: Entry) -> Inode {
        match self.inodes.get(&entry.inode) {
            Some(own) if !entry.conflict => own.inode(entry.inode),
            _ => Inode::of(entry.inode, entry.version, entry.conflict),
        }
    }

    /// An inode, as long as it has a name or somebody keeps it here.
    pub fn inode(&self, tree: &Tree<'_>, id: &InodeId) -> io::Result<Option<Inode>> {
        match self.inodes.get(id) {
            Some(own) => Ok(Some(own.inode(*id))),
            None => Ok(tree.inode(id)?.map(|version| Inode::of(*id, version, false))),
        }
    }

    /// A conflict copy.
    pub fn copy(
        &self,
        tree: &Tree<'_>,
        id: &InodeId,
        record: &RecordId,
    ) -> io::Result<Option<Inode>> {
        let versions = tree.versions(id)?.into_iter();
        let mut copies = versions.filter(|version| version.record == *record);
        Ok(copies.next().map(|version| Inode::of(*id, version, true)))
    }

    /// How many names an inode has: a directory its own, `.`, and the `..` of each one in it, or 1
    /// where those are not counted.
    pub fn links(&self, tree: &Tree<'_>, inode: &Inode) -> io::Result<usize> {
        if inode.is_dir() {
            if self.is_orphan(&inode.id) {
                return Ok(0);
            }
            let known = tree.dirs_in(&inode.id)?;
            return Ok(known.map_or(1, |known| 2 + self.dirs_in(&inode.id, known)));
        }
        match self.inodes.get(&inode.id) {
            Some(own) => Ok(own.names.len()),
            None => tree.links(&inode.id),
        }
    }

    /// How many directories are in a directory of which others know that so many are.
    fn dirs_in(&self, dir: &InodeId, known: usize) -> usize {
        let is_dir = |id: InodeId| self.inodes.get(&id).is_some_and(|own| own.what == What::Dir);
        let held = self.names.range((*dir, Vec::new())..);
        let held = held.take_while(|((parent, _), _)| parent == dir);
        held.fold(known, |count, (_, held)| {
            let was = usize::from(held.was.is_some() && held.was_dir);
            (count + usize::from(held.now.is_some_and(is_dir))).saturating_sub(was)
        })
    }

    /// Whether an inode was touched, and has lost its last name.
    pub fn is_orphan(&self, id: &InodeId) -> bool {
        let own = self.inodes.get(id);
        own.is_some_and(|own| own.names.is_empty()) && *id != InodeId::ROOT
    }

    /// Whether a name was touched.
    fn is_held(&self, parent: &InodeId, name: &[u8]) -> bool {
        self.names.contains_key(&(*parent, name.to_vec()))
    }

    /// The first touched inode of which the id begins like this.
    pub fn inode_with(&self, first: &[u8; 8]) -> Option<InodeId> {
        let mut from = [0; 16];
        from[..8].copy_from_slice(first);
        let found = self.inodes.range(InodeId(from)..).next().map(|(id, _)| *id);
        found.filter(|id| id.0.starts_with(first))
    }

    /// The names of a directory that come after `after`, some at a time.
    pub fn list(
        &self,
        tree: &Tree<'_>,
        dir: &InodeId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Listing> {
        let page = tree.list(dir, after, limit)?;
        let mut found = BTreeMap::new();
        for entry in page.entries {
            let own = !entry.conflict && self.is_held(dir, &entry.name);
            if !own && !self.is_dropped(&entry) {
                found.insert(entry.name.clone(), self.seen(entry));
            }
        }
        let from = match after {
            Some(after) => Bound::Excluded((*dir, after.to_vec())),
            None => Bound::Included((*dir, Vec::new())),
        };
        let own = self.names.range((from, Bound::Unbounded));
        let own = own.take_while(|((parent, name), _)| {
            parent == dir && page.next.as_ref().is_none_or(|next| name <= next)
        });
        for ((_, name), held) in own {
            if let Some(id) = held.now
                && let Some(inode) = self.inode(tree, &id)?
            {
                found.insert(name.clone(), inode);
            }
        }
        Ok(Listing { entries: found.into_iter().collect(), next: page.next })
    }

    /// Whether anything is in a directory.
    fn is_used(&self, tree: &Tree<'_>, dir: &InodeId) -> io::Result<bool> {
        const PAGE: usize = 256;
        let held = self.names.range((*dir, Vec::new())..);
        let mut held = held.take_while(|((parent, _), _)| parent == dir).peekable();
        if held.peek().is_none() {
            return tree.is_used(dir);
        }
        if held.any(|(_, held)| held.now.is_some()) {
            return Ok(true);
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = tree.list(dir, after.as_deref(), PAGE)?;
            let seen = |entry: &Entry| {
                !self.is_dropped(entry) && (entry.conflict || !self.is_held(dir, &entry.name))
            };
            if page.entries.iter().any(seen) {
                return Ok(true);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(false),
            }
        }
    }

    /// Where a directory is; none: it is the root, or nowhere any more.
    pub fn place(&self, tree: &Tree<'_>, dir: &InodeId) -> io::Result<Option<Spot>> {
        match self.inodes.get(dir) {
            Some(own) => Ok(own.names.first().cloned()),
            None => tree.dir_spot(dir),
        }
    }

    /// The names of an inode, at most `limit`.
    pub fn names(&self, tree: &Tree<'_>, id: &InodeId, limit: usize) -> io::Result<Vec<Spot>> {
        let mut names = match self.inodes.get(id) {
            Some(own) => own.names.iter().cloned().collect(),
            None => match tree.dir_spot(id)? {
                Some(place) => vec![place],
                None => tree.names_of(id)?,
            },
        };
        names.truncate(limit);
        Ok(names)
    }

    /// Changes the attributes of an inode.
    pub fn set(
        &mut self,
        tree: &Tree<'_>,
        id: &InodeId,
        change: impl FnOnce(&mut Attributes),
    ) -> Result<(), TreeError> {
        let tick = self.next();
        let own = self.own(tree, id)?;
        change(&mut own.attributes);
        own.changed = tick;
        Ok(())
    }

    /// Remembers what is seen of a file of which the content is about to change.
    pub fn touch(&mut self, tree: &Tree<'_>, id: &InodeId) -> Result<(), TreeError> {
        self.own(tree, id).map(drop)
    }

    fn next(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Touches an inode.
    fn own(&mut self, tree: &Tree<'_>, id: &InodeId) -> Result<&mut Own, TreeError> {
        if !self.inodes.contains_key(id) {
            let version = tree.inode(id)?.ok_or(TreeError::NotFound)?;
            let names: Vec<Spot> = match &version.node {
                Node::Dir { .. } => tree.dir_spot(id)?.into_iter().collect(),
                _ => tree.names_of(id)?,
            };
            // What was restored may have taken one of them.
            let taken = |spot: &Spot| {
                let held = self.names.get(spot).filter(|held| held.changed > 0);
                held.is_some_and(|held| held.now.is_some_and(|now| now != *id))
            };
            let names: Vec<Spot> = names.into_iter().filter(|spot| !taken(spot)).collect();
            let before = match &version.node {
                Node::Dir { previous, .. } => previous.clone(),
                _ => None,
            };
            let is_dir = matches!(version.node, Node::Dir { .. });
            let place = names.first().filter(|_| is_dir).and_then(place_of);
            let own = Own {
                what: What::of(&version.node),
                attributes: version.attributes,
                clock: version.clock,
                names: names.into_iter().collect(),
                known: true,
                seen: tree.heads_of(id)?,
                was: place,
                before,
                changed: 0,
            };
            self.inodes.insert(*id, own);
        }
        self.inodes.get_mut(id).ok_or(TreeError::NotFound)
    }

    /// Touches a name.
    fn held(
        &mut self,
        tree: &Tree<'_>,
        parent: &InodeId,
        name: &[u8],
    ) -> Result<&mut Held, TreeError> {
        let spot = (*parent, name.to_vec());
        if !self.names.contains_key(&spot) {
            let entry = tree.lookup(parent, name)?;
            if entry.as_ref().is_some_and(|entry| entry.conflict) {
                return Err(TreeError::ConflictCopy);
            }
            let was = entry.as_ref().map(|entry| entry.inode);
            let was_dir = entry.is_some_and(|entry| entry.is_dir());
            let seen = tree.heads_of_name(parent, name)?;
            let held = Held { now: was, was, was_dir, seen, changed: 0, again: false };
            self.names.insert(spot.clone(), held);
        }
        self.names.get_mut(&spot).ok_or(TreeError::NotFound)
    }

    /// Remembers a file that others have removed and that is open here, as if it had been removed
    /// here. One that has a name needs that not.
    pub fn keep(&mut self, tree: &Tree<'_>, id: &InodeId) -> io::Result<()> {
        if self.inode(tree, id)?.is_some() {
            return Ok(());
        }
        let Some(version) = tree.versions(id)?.into_iter().next() else { return Ok(()) };
        let own = Own {
            what: What::of(&version.node),
            attributes: version.attributes,
            clock: version.clock,
            names: BTreeSet::new(),
            known: true,
            seen: tree.heads_of(id)?,
            was: None,
            before: None,
            changed: 0,
        };
        self.inodes.insert(*id, own);
        Ok(())
    }

    /// Gives a file that was touched the names that others have given it since, beside those that
    /// it got here, and takes those that they gave up for others; whether anything is new. The last
    /// one stays: an edit keeps what others removed.
    pub fn find_names(&mut self, tree: &Tree<'_>, id: &InodeId) -> io::Result<bool> {
        let Some(own) = self.inodes.get(id).filter(|own| own.what != What::Dir) else {
            return Ok(false);
        };
        // What is not known to the others yet the tree does not show.
        let is_here = |spot: &Spot| self.names.get(spot).map(|held| held.now == Some(*id));
        let mut names: BTreeSet<Spot> = tree.names_of(id)?.into_iter().collect();
        names.retain(|spot| is_here(spot) != Some(false));
        names.extend(own.names.iter().filter(|spot| is_here(spot) == Some(true)).cloned());
        if names.is_empty() || names == own.names {
            return Ok(false);
        }
        if let Some(own) = self.inodes.get_mut(id) {
            own.names = names;
        }
        Ok(true)
    }

    /// Forgets an inode that has no name, when nobody uses it any more.
    pub fn forget(&mut self, id: &InodeId) {
        let held = self.names.values().any(|held| held.was == Some(*id) && held.now.is_none());
        if self.is_orphan(id) && !held {
            self.inodes.remove(id);
        }
    }
}

impl Own {
    fn inode(&self, id: InodeId) -> Inode {
        Inode {
            id,
            what: self.what.clone(),
            attributes: self.attributes.clone(),
            clock: self.clock,
            copy: None,
        }
    }
}

/// A name as a record says it.
fn place_of((parent, name): &Spot) -> Option<Place> {
    let name = crate::core::catalogue::Name::new(name)?;
    Some(Place { parent: *parent, name })
}
