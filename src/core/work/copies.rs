//! What programs do with conflict copies: remove one, which ends it in favour of what has the name,
//! or give one another name, which makes it a file of its own. Nobody writes to a copy in place:
//! which of the concurrent versions that would continue is for a person to say.
//!
//! Invariant: a copy ends only together with the record that has its content under another name.

use super::{Own, Renaming, Spot, Unlinked, What, Working};
use crate::core::catalogue::{FileVersion, Name, Node};
use crate::core::tree::{Entry, Heads, Tree, TreeError};
use crate::id::{InodeId, RecordId};
use std::collections::{BTreeMap, BTreeSet};

/// A conflict copy that has got a name of its own.
#[derive(Debug)]
pub struct Named {
    /// What has the name: the inode of the copy, or a new one when the copy was a version of one
    /// that others see, too.
    pub inode: InodeId,
    /// The content of that, when a version of it has to be made under a claim of its own.
    pub content: Option<FileVersion>,
    /// What lost the name.
    pub gone: Option<Unlinked>,
}

impl Working {
    /// Removes a conflict copy: what is seen under the name is said again, by somebody who has seen
    /// both.
    pub(super) fn drop_copy(
        &mut self,
        tree: &Tree<'_>,
        parent: &InodeId,
        name: &[u8],
    ) -> Result<Unlinked, TreeError> {
        let (copy, base) = self.copy_at(tree, &(*parent, name.to_vec()))?;
        if is_whole(tree, &copy, &base)? {
            self.say_again(tree, &base)?;
        } else {
            self.end_version(tree, &copy.inode, copy.version.record)?;
        }
        self.dropped.insert((copy.inode, copy.version.record));
        Ok(Unlinked { id: copy.inode, last: false })
    }

    /// Gives a conflict copy another name; `new` is the inode that it gets when it is none itself.
    pub fn name_copy(
        &mut self,
        tree: &Tree<'_>,
        from: &Spot,
        to: &Spot,
        how: Renaming,
        new: InodeId,
    ) -> Result<Named, TreeError> {
        Name::new(&to.1).ok_or(TreeError::BadPath)?;
        self.live_dir(tree, &to.0)?;
        let (copy, base) = self.copy_at(tree, from)?;
        if copy.is_dir() && self.is_inside(tree, to.0, &copy.inode)? {
            return Err(TreeError::InsideItself);
        }
        let there = self.held(tree, &to.0, &to.1)?.now;
        let is_dir = match &there {
            Some(other) => self.own(tree, other)?.what == What::Dir,
            None => false,
        };
        match (how, there.is_some()) {
            (Renaming::Exchange, _) => return Err(TreeError::ConflictCopy),
            (Renaming::Keep, true) => return Err(TreeError::Exists),
            _ if is_dir => return Err(TreeError::IsADirectory),
            (_, true) if copy.is_dir() => return Err(TreeError::NotADirectory(to.1.clone())),
            _ => {}
        }
        let whole = is_whole(tree, &copy, &base)?;
        let gone = there.map(|other| self.detach(tree, to, other)).transpose()?;
        let (inode, content) = match whole {
            true => (self.move_copy(tree, &copy, (&base, to))?, None),
            false => (new, self.make_copy(&copy, to, new)),
        };
        let tick = self.next();
        let held = self.held(tree, &to.0, &to.1)?;
        (held.now, held.changed) = (Some(inode), tick);
        self.dropped.insert((copy.inode, copy.version.record));
        Ok(Named { inode, content, gone })
    }

    /// The copy that is seen under a name, and the name that it is a copy of.
    fn copy_at(&self, tree: &Tree<'_>, spot: &Spot) -> Result<(Entry, Spot), TreeError> {
        let (parent, name) = spot;
        let entry = tree.lookup(parent, name)?;
        let seen = entry.filter(|entry| entry.conflict && !self.is_dropped(entry));
        let entry = seen.ok_or(TreeError::NotFound)?;
        let places = match entry.is_dir() {
            true => tree.dir_spot(&entry.inode)?.into_iter().collect(),
            false => tree.names_of(&entry.inode)?,
        };
        let base = places.into_iter().find(|(dir, base)| {
            dir == parent && name.starts_with(&base[..base.len().min(name.len() / 2)])
        });
        Ok((entry, base.ok_or(TreeError::ConflictCopy)?))
    }

    /// An inode that lost a name against another one moves away from there.
    fn move_copy(
        &mut self,
        tree: &Tree<'_>,
        copy: &Entry,
        (base, to): (&Spot, &Spot),
    ) -> Result<InodeId, TreeError> {
        let tick = self.next();
        let own = self.own(tree, &copy.inode)?;
        own.names.remove(base);
        own.names.insert(to.clone());
        if own.what == What::Dir {
            own.changed = tick;
        } else {
            self.say_again(tree, base)?;
        }
        Ok(copy.inode)
    }

    /// A concurrent version of an inode becomes one of its own; its content, if it is a file.
    fn make_copy(&mut self, copy: &Entry, to: &Spot, new: InodeId) -> Option<FileVersion> {
        let content = match &copy.version.node {
            Node::File(version) => Some(version.clone()),
            _ => None,
        };
        let what = match &content {
            Some(_) => What::File(None),
            None => What::of(&copy.version.node),
        };
        let tick = self.next();
        let own = Own {
            what,
            attributes: copy.version.attributes.clone(),
            clock: 0,
            names: BTreeSet::from([to.clone()]),
            known: false,
            seen: Heads::default(),
            was: None,
            before: None,
            changed: tick,
        };
        self.inodes.insert(new, own);
        self.ending.insert(new, (copy.inode, copy.version.record));
        content
    }

    /// Ends the copies of which the content is written down under another name now, or which were
    /// removed under that.
    pub(super) fn end_copies<T>(
        &mut self,
        tree: &Tree<'_>,
        stored: &BTreeMap<InodeId, T>,
    ) -> Result<(), TreeError> {
        let waits = |working: &Self, id: &InodeId| {
            let own = working.inodes.get(id).filter(|own| !own.names.is_empty());
            own.is_some_and(|own| own.what == What::File(None)) && !stored.contains_key(id)
        };
        for (new, (inode, record)) in std::mem::take(&mut self.ending) {
            if waits(self, &new) {
                self.ending.insert(new, (inode, record));
                continue;
            }
            match self.end_version(tree, &inode, record) {
                // What it was a version of is gone, and so is the copy.
                Err(TreeError::NotFound) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Says an inode again, by somebody who has seen this version of it.
    fn end_version(
        &mut self,
        tree: &Tree<'_>,
        inode: &InodeId,
        record: RecordId,
    ) -> Result<(), TreeError> {
        let tick = self.next();
        let own = self.own(tree, inode)?;
        own.seen.add(record);
        own.changed = tick;
        Ok(())
    }

    /// Says a name again, by somebody who has seen all that lost it.
    fn say_again(&mut self, tree: &Tree<'_>, (parent, name): &Spot) -> Result<(), TreeError> {
        let all = tree.all_heads_of_name(parent, name)?;
        let tick = self.next();
        let held = self.held(tree, parent, name)?;
        held.seen.extend(all);
        (held.again, held.changed) = (true, tick);
        if let Some(winner) = held.now {
            // Only what was touched is written down.
            self.own(tree, &winner)?;
        }
        Ok(())
    }
}

/// Whether a copy is an inode that lost its name, and not a version that lost against another one
/// of the same inode.
fn is_whole(tree: &Tree<'_>, copy: &Entry, (parent, name): &Spot) -> Result<bool, TreeError> {
    let winner = tree.lookup(parent, name)?.map(|winner| winner.inode);
    let seen = tree.inode(&copy.inode)?.map(|version| version.record);
    Ok(winner != Some(copy.inode) && seen == Some(copy.version.record))
}
