//! What programs do with conflict copies: remove one, which ends it in favour of what has the name,
//! or give one another name, which makes it a file of its own. Nobody writes to a copy in place:
//! which of the concurrent versions that would continue is for a person to say.
//!
//! Invariant: a copy ends only when its content is known under another name, or was removed under
//! that. The two are different records, and the first one may be on its way for a while or fail; so
//! the second one is planned when the first one was settled.

use super::{Held, Own, Planned, Renaming, Spot, Unlinked, What, Working};
use crate::core::catalogue::{FileVersion, Name, Node};
use crate::core::tree::{Entry, Heads, Tree, TreeError};
use crate::id::{InodeId, RecordId};
use std::collections::BTreeSet;

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

/// What has to be said again so that a copy ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The inode that others see, by somebody who has seen this version of it.
    Version(InodeId, RecordId),
    /// The name that the copy lost, of which everything was seen.
    Name(Spot),
}

impl Working {
    /// Whether a conflict copy got another name and has not ended yet.
    pub fn has_copies(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Whether a plan says anything of what such a copy has become.
    pub fn has_copies_in(&self, planned: &Planned) -> bool {
        self.ending.keys().any(|id| planned.has(id))
    }

    /// Whether the next plan can end a conflict copy.
    pub fn ends_copies(&self) -> bool {
        self.ending.keys().any(|id| self.is_named(id))
    }

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
            let all = self.touch_name(tree, &base)?;
            self.say_again(&base, all);
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
        let lost = match whole {
            true => self.touch_name(tree, &base)?,
            false => Heads::default(),
        };
        if whole {
            self.own(tree, &copy.inode)?;
        }
        // Everything is touched: no question to the tables is left that could fail half-way.
        let gone = there.map(|other| self.detach(tree, to, other)).transpose()?;
        let (inode, content) = match whole {
            true => (self.move_copy(tree, &copy, (base, to), lost)?, None),
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
        (base, to): (Spot, &Spot),
        lost: Heads,
    ) -> Result<InodeId, TreeError> {
        let tick = self.next();
        let own = self.own(tree, &copy.inode)?;
        own.names.remove(&base);
        own.names.insert(to.clone());
        if own.what == What::Dir {
            own.changed = tick;
        } else {
            self.say_again(&base, lost);
            self.ending.insert(copy.inode, Ending::Name(base));
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
        self.ending.insert(new, Ending::Version(copy.inode, copy.version.record));
        content
    }

    /// Ends the copies of which the content is known under another name, or which were removed
    /// under that.
    pub(super) fn end_copies(&mut self, tree: &Tree<'_>) -> Result<(), TreeError> {
        let named: Vec<InodeId> =
            self.ending.keys().filter(|id| self.is_named(id)).copied().collect();
        for id in named {
            if let Some(Ending::Version(inode, record)) = self.ending.get(&id) {
                let (inode, record) = (*inode, *record);
                match self.end_version(tree, &inode, record) {
                    // What it was a version of is gone, and so is the copy.
                    Ok(()) | Err(TreeError::NotFound) => {}
                    Err(err) => return Err(err),
                }
            }
            self.ending.remove(&id);
        }
        Ok(())
    }

    /// Whether the records say all names of what a copy has become; it may have none any more.
    fn is_named(&self, id: &InodeId) -> bool {
        let Some(own) = self.inodes.get(id) else { return true };
        let is_said = |spot| self.names.get(spot).is_none_or(|held| held.was == Some(*id));
        own.names.is_empty() || own.known && own.names.iter().all(is_said)
    }

    /// Whether a name is not said again yet, so that a copy does not end too early. One that a copy
    /// has got is: others may wait for that.
    pub(super) fn is_held_back(&self, spot: &Spot, held: &Held) -> bool {
        let lost_here = |ending: &Ending| matches!(ending, Ending::Name(lost) if lost == spot);
        held.again
            && held.now.is_none_or(|now| !self.ending.contains_key(&now))
            && self.ending.values().any(lost_here)
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

    /// Touches a name and what has it; all that was said of it.
    fn touch_name(&mut self, tree: &Tree<'_>, spot: &Spot) -> Result<Heads, TreeError> {
        let all = tree.all_heads_of_name(&spot.0, &spot.1)?;
        if let Some(winner) = self.held(tree, &spot.0, &spot.1)?.now {
            // Only what was touched is written down.
            self.own(tree, &winner)?;
        }
        Ok(all)
    }

    /// Says a name that was touched again, by somebody who has seen all that lost it.
    fn say_again(&mut self, spot: &Spot, all: Heads) {
        let tick = self.next();
        if let Some(held) = self.names.get_mut(spot) {
            held.seen.extend(all);
            (held.again, held.changed) = (true, tick);
        }
    }
}

/// Whether a copy is an inode that lost its name, and not a version that lost against another one
/// of the same inode.
fn is_whole(tree: &Tree<'_>, copy: &Entry, (parent, name): &Spot) -> Result<bool, TreeError> {
    let winner = tree.lookup(parent, name)?.map(|winner| winner.inode);
    let seen = tree.inode(&copy.inode)?.map(|version| version.record);
    Ok(winner != Some(copy.inode) && seen == Some(copy.version.record))
}
