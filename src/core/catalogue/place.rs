//! Where directories are seen. Each has one winning place; concurrent moves can make a cycle, which
//! no user made and which nothing below the root leads to. Owns the rule that opens cycles (DESIGN
//! 8) and the rows of directories in `cat_child`, `cat_dir` and `cat_fallen`.
//!
//! The rule, a pure function of the winning places: while a cycle exists, of the moves on cycles
//! the one with the highest (clock, id) falls back to its previous place, the second time to
//! lost+found; repeat. A removed directory stays at its previous place, where it is shown only
//! while something unremoved is in it (`core::tree` looks).
//!
//! Why it is enough to start from what changed: each directory has one parent, and the places as
//! seen before had no cycle. So a cycle now contains a directory whose winning place changed, or
//! one that had fallen; all of these start again from their winning places.

use super::apply::ViewMut;
use super::keyring::Keyring;
use super::table::{
    CHILD, ChangeAt, Child, DIR, FALLEN, Fact, Parts, Seen, Spot, State, scan, versions_of,
};
use crate::id::{InodeId, Tag};
use crate::wire::codec::Encode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The directory `/lost+found`: no record makes it, it is there while something is in it.
pub const LOST_AND_FOUND: InodeId = {
    let mut id = [0; 16];
    id[15] = 1;
    InodeId(id)
};

/// The tag under which lost+found holds a directory: its name there is its inode in hex.
pub(crate) const fn lost_tag(inode: &InodeId) -> Tag {
    Tag(inode.0)
}

/// The winning place of a directory.
#[derive(Debug, Clone, Copy)]
struct Winner {
    change: ChangeAt,
    at: Option<Spot>,
    previous: Option<Spot>,
}

impl Winner {
    /// Where the directory is seen after it fell `level` times; none: it never was anywhere.
    fn seen(&self, inode: &InodeId, level: u8) -> Option<(Spot, Seen)> {
        let lost = Some(((LOST_AND_FOUND, lost_tag(inode)), Seen::Lost));
        let before = self.previous.map(|spot| (spot, Seen::Before));
        match (self.at, level) {
            (Some(spot), 0) => Some((spot, Seen::There)),
            (None, 0) => before,
            (Some(_), 1) => before.or(lost),
            _ => lost,
        }
    }
}

/// The directories that take part in one change: how far each fell, and its winner once read.
struct Places<'a> {
    store: &'a mut dyn ViewMut,
    keyring: &'a Keyring,
    fallen: BTreeMap<InodeId, u8>,
    winners: BTreeMap<InodeId, Option<Winner>>,
}

impl Places<'_> {
    fn winner(&mut self, inode: &InodeId) -> io::Result<Option<Winner>> {
        if let Some(winner) = self.winners.get(inode) {
            return Ok(*winner);
        }
        let versions = versions_of(self.store, self.keyring, inode, State::Head)?;
        let winner = versions.first().and_then(|best| match best.fact {
            Fact::Dir { at, previous, .. } => Some(Winner { change: best.at, at, previous }),
            _ => None,
        });
        self.winners.insert(*inode, winner);
        Ok(winner)
    }

    fn level(&self, inode: &InodeId) -> u8 {
        self.fallen.get(inode).copied().unwrap_or(0)
    }

    fn parent(&mut self, inode: &InodeId) -> io::Result<Option<InodeId>> {
        let level = self.level(inode);
        let seen = self.winner(inode)?.and_then(|winner| winner.seen(inode, level));
        Ok(seen.map(|((parent, _), _)| parent))
    }

    /// The directories on the cycle that the way up from `start` leads into; none: it ends.
    fn cycle_above(
        &mut self,
        start: InodeId,
        safe: &mut BTreeSet<InodeId>,
    ) -> io::Result<Vec<InodeId>> {
        let mut way = Vec::new();
        let mut on_way = BTreeSet::new();
        let mut at = start;
        while at != InodeId::ROOT && at != LOST_AND_FOUND && !safe.contains(&at) {
            if !on_way.insert(at) {
                let first = way.iter().position(|dir| *dir == at).unwrap_or(0);
                return Ok(way.split_off(first));
            }
            way.push(at);
            match self.parent(&at)? {
                Some(parent) => at = parent,
                None => break,
            }
        }
        safe.append(&mut on_way);
        Ok(Vec::new())
    }

    /// Lets directories fall until there is no cycle.
    fn open_cycles(&mut self) -> io::Result<()> {
        loop {
            let mut safe = BTreeSet::new();
            let mut highest: Option<(ChangeAt, InodeId)> = None;
            let starts: Vec<InodeId> = self.fallen.keys().copied().collect();
            for start in starts {
                for dir in self.cycle_above(start, &mut safe)? {
                    if let Some(winner) = self.winner(&dir)? {
                        highest = highest.max(Some((winner.change, dir)));
                    }
                }
            }
            let Some((_, dir)) = highest else { return Ok(()) };
            *self.fallen.entry(dir).or_insert(0) += 1;
        }
    }

    /// Writes where a directory is seen now.
    fn write(&mut self, inode: &InodeId, level: u8) -> io::Result<()> {
        let now = self.winner(inode)?.and_then(|winner| {
            let (spot, seen) = winner.seen(inode, level)?;
            let child = Child::Dir { inode: *inode, seen, removed: winner.at.is_none() };
            Some((winner.change.child_key(&spot), child))
        });
        if let Some(old) = self.store.get(DIR, &inode.0)?
            && now.as_ref().is_none_or(|(key, _)| *key != old)
        {
            self.store.remove(CHILD, &old)?;
            self.store.remove(DIR, &inode.0)?;
        }
        if let Some((key, child)) = now {
            self.store.insert(CHILD, &key, &child.to_bytes())?;
            self.store.insert(DIR, &inode.0, &key)?;
        }
        if level > 0 {
            self.store.insert(FALLEN, &inode.0, &[level])?;
        } else {
            self.store.remove(FALLEN, &inode.0)?;
        }
        Ok(())
    }
}

/// Puts directories whose registers changed, and all that had fallen, where they belong; which
/// those are.
pub(super) fn settle(
    store: &mut dyn ViewMut,
    keyring: &Keyring,
    changed: BTreeSet<InodeId>,
) -> io::Result<Vec<InodeId>> {
    let mut fallen: BTreeMap<InodeId, u8> = changed.into_iter().map(|dir| (dir, 0)).collect();
    fallen.remove(&InodeId::ROOT);
    fallen.remove(&LOST_AND_FOUND);
    if fallen.is_empty() {
        return Ok(Vec::new());
    }
    for (row, _) in scan(store, FALLEN, &[], None, usize::MAX)? {
        fallen.insert(InodeId(Parts(&row).take()?), 0);
    }
    let mut places = Places { store, keyring, fallen, winners: BTreeMap::new() };
    places.open_cycles()?;
    let fallen = std::mem::take(&mut places.fallen);
    for (dir, level) in &fallen {
        places.write(dir, *level)?;
    }
    Ok(fallen.into_keys().collect())
}
