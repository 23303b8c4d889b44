//! The numbers by which programs know inodes. A number is the first eight bytes of the inode's id,
//! so it is the same at every mount and after every restart and no table is needed to find the
//! inode again; owns the few that are not: the root's, those of conflict copies, and of inodes of
//! which another one has the number.

use super::Working;
use crate::core::catalogue::LOST_AND_FOUND;
use crate::core::tree::Tree;
use crate::id::{InodeId, RecordId};
use std::collections::BTreeMap;
use std::io;

/// The number of the root of a mount.
pub const ROOT_NUMBER: u64 = 1;
/// The number of lost+found.
const LOST_NUMBER: u64 = 2;
/// Numbers below are kept for special ones.
const FIRST: u64 = 16;
/// Numbers that are remembered because they follow from nothing: the oldest is forgotten.
const STRANGE_MAX: usize = 4096;

/// What a number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// An inode.
    Inode(InodeId),
    /// A conflict copy: a version that its inode does not show.
    Copy(InodeId, RecordId),
}

/// The numbers that do not follow from their inode.
#[derive(Debug, Default)]
pub struct Numbers {
    strange: BTreeMap<u64, (u64, Number)>,
    numbers: BTreeMap<Number, u64>,
    given: u64,
}

impl Numbers {
    /// The number of what is seen.
    pub fn of(&mut self, tree: &Tree<'_>, work: &Working, what: Number) -> io::Result<u64> {
        if let Number::Inode(id) = what {
            match id {
                InodeId::ROOT => return Ok(ROOT_NUMBER),
                LOST_AND_FOUND => return Ok(LOST_NUMBER),
                _ => {}
            }
            let number = natural(&id);
            if number >= FIRST && first(tree, work, number)?.is_none_or(|found| found == id) {
                return Ok(number);
            }
        }
        Ok(self.strange(what))
    }

    /// What a number is for; none: for nothing that there is now.
    pub fn find(&self, tree: &Tree<'_>, work: &Working, number: u64) -> io::Result<Option<Number>> {
        match number {
            ROOT_NUMBER => return Ok(Some(Number::Inode(InodeId::ROOT))),
            LOST_NUMBER => return Ok(Some(Number::Inode(LOST_AND_FOUND))),
            _ => {}
        }
        if let Some((_, what)) = self.strange.get(&number) {
            return Ok(Some(*what));
        }
        Ok(first(tree, work, number)?.map(Number::Inode))
    }

    /// What has a number of its own is something else now: whoever knows it by that finds this.
    pub fn become_of(&mut self, what: &Number, now: Number) {
        if let Some(number) = self.numbers.remove(what)
            && let Some((_, leads)) = self.strange.get_mut(&number)
        {
            *leads = now;
        }
    }

    /// Whether a new inode can have the number that follows from its id.
    pub fn is_free(&self, tree: &Tree<'_>, work: &Working, id: &InodeId) -> io::Result<bool> {
        let number = natural(id);
        let free = number >= FIRST && !self.strange.contains_key(&number);
        Ok(free && first(tree, work, number)?.is_none())
    }

    fn strange(&mut self, what: Number) -> u64 {
        if let Some(number) = self.numbers.get(&what) {
            return *number;
        }
        if self.strange.len() >= STRANGE_MAX {
            let oldest = self.strange.iter().min_by_key(|(_, (given, _))| *given);
            if let Some((number, (_, what))) = oldest.map(|(number, at)| (*number, *at)) {
                self.strange.remove(&number);
                self.numbers.remove(&what);
            }
        }
        let mut number = hashed(&what);
        while number < FIRST || self.strange.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.given += 1;
        self.strange.insert(number, (self.given, what));
        self.numbers.insert(what, number);
        number
    }
}

/// The number that follows from an id.
fn natural(id: &InodeId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(first)
}

/// The first inode that can have a number.
fn first(tree: &Tree<'_>, work: &Working, number: u64) -> io::Result<Option<InodeId>> {
    let first = number.to_be_bytes();
    let there = tree.inode_with(&first)?;
    let own = work.inode_with(&first);
    Ok(there.into_iter().chain(own).min())
}

fn hashed(what: &Number) -> u64 {
    let (id, record) = match what {
        Number::Inode(id) => (id, None),
        Number::Copy(id, record) => (id, Some(record)),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0);
    hasher.update(record.map_or(&[], |record| &record.0[..]));
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}
