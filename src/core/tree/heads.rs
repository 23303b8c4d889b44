//! Changes by inode, with what their author had seen. A mount makes a change long before it is
//! written down, so it remembers the heads of a register from then on; owns which of them the
//! record names as parents. What the changes are is decided by `core::work`.
//!
//! Invariant: a head that came after somebody looked is never named as parent: what it says stays,
//! as a conflict copy where it is another content.

use super::{Planner, Tree, TreeError};
use crate::core::catalogue::browse::{self, ChangeAt};
use crate::core::catalogue::{Change, entry_tag, inode_tag};
use crate::crypto::EpochKeys;
use crate::id::{InodeId, RecordId, Tag};
use std::collections::BTreeSet;
use std::io;

/// The records whose changes were the newest of a register when somebody looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads(BTreeSet<RecordId>);

impl FromIterator<RecordId> for Heads {
    fn from_iter<I: IntoIterator<Item = RecordId>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl Heads {
    /// The records, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &RecordId> {
        self.0.iter()
    }

    /// Adds one that somebody has seen now.
    pub fn add(&mut self, record: RecordId) {
        self.0.insert(record);
    }

    /// Adds all of these.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    fn has(&self, at: &ChangeAt) -> bool {
        self.0.contains(&at.id)
    }
}

impl Tree<'_> {
    /// The heads of an inode, as far as they are seen: a conflict copy is not among them, so that
    /// it stays until somebody resolves it.
    pub fn heads_of(&self, inode: &InodeId) -> io::Result<Heads> {
        let heads = self.versions(inode)?;
        let Some((winner, others)) = heads.split_first() else {
            return self.heads(|keys| inode_tag(keys, inode));
        };
        let same = others.iter().filter(|version| version.same_content(winner));
        Ok(std::iter::once(winner).chain(same).map(|version| version.record).collect())
    }

    /// The heads of a name in a directory, those of its conflict copies excepted.
    pub fn heads_of_name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Heads> {
        let group = self.group(parent, name)?;
        let winner = group.first().map(|entry| entry.inode);
        let mut heads = self.heads(|keys| entry_tag(keys, parent, name))?;
        for row in browse::named(self.view, self.keyring, parent, name)? {
            if let browse::Child::Entry(inode) = row.child
                && Some(inode) != winner
                && group.iter().any(|entry| entry.inode == inode)
            {
                heads.0.remove(&row.at.id);
            }
        }
        Ok(heads)
    }

    /// The heads of a name in a directory, those of its conflict copies too.
    pub fn all_heads_of_name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Heads> {
        self.heads(|keys| entry_tag(keys, parent, name))
    }

    /// Those heads of a name that say what it leads to.
    pub fn entries_of_name(&self, parent: &InodeId, name: &[u8]) -> io::Result<Heads> {
        let rows = browse::named(self.view, self.keyring, parent, name)?;
        Ok(rows.iter().map(|row| row.at.id).collect())
    }

    fn heads(&self, tag: impl Fn(&EpochKeys) -> Tag) -> io::Result<Heads> {
        let mut out = BTreeSet::new();
        for keys in self.keyring.iter() {
            out.extend(browse::heads_under(self.view, &tag(keys))?.iter().map(|head| head.id));
        }
        Ok(Heads(out))
    }
}

impl Planner<'_, '_> {
    /// Plans changes that belong together: they go into one record. Each names as parents what its
    /// author had seen of the register, and nothing else.
    pub fn changes(&mut self, group: Vec<(Change, Heads)>) -> Result<(), TreeError> {
        self.one(|wish| {
            for (change, seen) in group {
                wish.supersede_where(|keys| change.tag(keys), |head| seen.has(head))?;
                wish.push(change);
            }
            Ok(())
        })
    }
}
