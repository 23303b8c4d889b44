//! Whether a change leaves a name leading where it led: an edit says the names of its file again,
//! and a directory with other attributes its place. Nobody has to look at such a name again.

use super::Tree;
use crate::core::catalogue::{Change, Name, Node, Place};
use crate::id::{InodeId, RecordId};
use std::io;

impl Tree<'_> {
    /// Whether a record that says a file's name again says nothing new: what it has seen of the
    /// name, and what others say of it, leads to the same file.
    pub fn keeps_name(
        &self,
        id: &RecordId,
        (parent, name): (&InodeId, &Name),
        inode: &InodeId,
    ) -> io::Result<bool> {
        let heads = self.all_heads_of_name(parent, name.as_bytes())?;
        let heads: Vec<RecordId> = heads.iter().copied().collect();
        self.is_said_already(id, &heads, |change| match change {
            Change::Entry { parent: there, name: other, target } => {
                (there == parent && other == name).then(|| target.inode() == Some(*inode))
            }
            Change::Inode { .. } => None,
        })
    }

    /// Whether a record with a change of a directory leaves it at its place, and it is there.
    pub fn keeps_place(&self, id: &RecordId, dir: &InodeId, place: &Place) -> io::Result<bool> {
        let spot = self.dir_spot(dir)?;
        let there = |(parent, name): &(InodeId, Vec<u8>)| {
            *parent == place.parent && name == place.name.as_bytes()
        };
        if !spot.as_ref().is_some_and(there) {
            return Ok(false);
        }
        let heads: Vec<RecordId> = self.versions(dir)?.iter().map(|head| head.record).collect();
        self.is_said_already(id, &heads, |change| match change {
            Change::Inode { inode, node: Node::Dir { place: other, .. }, .. } => {
                (inode == dir).then(|| other.as_ref() == Some(place))
            }
            _ => None,
        })
    }

    /// Whether what a record has seen and these heads say the same as it does of one thing, of
    /// which at least one of them speaks. What cannot be read may say anything.
    fn is_said_already(
        &self,
        id: &RecordId,
        heads: &[RecordId],
        says_same: impl Fn(&Change) -> Option<bool>,
    ) -> io::Result<bool> {
        let Some(opened) = self.open(id)? else { return Ok(false) };
        let mut said = false;
        for other in opened.parents.iter().chain(heads).filter(|other| *other != id) {
            let Some(other) = self.open(other)? else { return Ok(false) };
            for same in other.changes.iter().filter_map(&says_same) {
                if !same {
                    return Ok(false);
                }
                said = true;
            }
        }
        Ok(said)
    }
}
