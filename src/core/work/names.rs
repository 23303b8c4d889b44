//! What programs do with names: make, link, remove, rename. Owns the rules that POSIX has for them;
//! every rule is checked before anything is changed, so what is refused leaves nothing.

use super::{Own, Spot, What, Working};
use crate::core::catalogue::{Attributes, Name};
use crate::core::tree::{Heads, Tree, TreeError};
use crate::id::InodeId;
use std::collections::BTreeSet;
use std::io;

/// Most names of one inode that a mount makes.
const LINKS_MAX: usize = 1000;
/// Directories on the way up that are looked at: as deep as a path can be.
const DEPTH_MAX: usize = 2048;

/// What becomes of something that has the next name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renaming {
    /// It is replaced.
    Replace,
    /// The renaming is refused.
    Keep,
    /// It gets the other name.
    Exchange,
}

/// What lost a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlinked {
    /// The inode.
    pub id: InodeId,
    /// Whether that was its last name.
    pub last: bool,
}

impl Working {
    /// Makes something new.
    pub fn create(
        &mut self,
        tree: &Tree<'_>,
        (parent, name): &Spot,
        id: InodeId,
        what: What,
        attributes: Attributes,
    ) -> Result<(), TreeError> {
        self.free(tree, parent, name)?;
        let tick = self.next();
        let own = Own {
            what,
            attributes,
            clock: 0,
            names: BTreeSet::from([(*parent, name.clone())]),
            known: false,
            seen: Heads::default(),
            was: None,
            before: None,
            changed: tick,
        };
        let held = self.held(tree, parent, name)?;
        (held.now, held.changed) = (Some(id), tick);
        self.inodes.insert(id, own);
        Ok(())
    }

    /// Gives an inode that is no directory one more name.
    pub fn link(&mut self, tree: &Tree<'_>, id: InodeId, spot: &Spot) -> Result<(), TreeError> {
        let (parent, name) = spot;
        let own = self.own(tree, &id)?;
        if own.what == What::Dir {
            return Err(TreeError::IsADirectory);
        }
        match own.names.len() {
            0 => return Err(TreeError::NotFound),
            LINKS_MAX.. => return Err(TreeError::TooManyLinks),
            _ => {}
        }
        self.free(tree, parent, name)?;
        let tick = self.next();
        let held = self.held(tree, parent, name)?;
        (held.now, held.changed) = (Some(id), tick);
        self.own(tree, &id)?.names.insert(spot.clone());
        Ok(())
    }

    /// Makes sure that something can get a name.
    fn free(&mut self, tree: &Tree<'_>, parent: &InodeId, name: &[u8]) -> Result<(), TreeError> {
        Name::new(name).ok_or(TreeError::BadPath)?;
        self.live_dir(tree, parent)?;
        match self.held(tree, parent, name) {
            Ok(held) if held.now.is_none() => Ok(()),
            Ok(_) | Err(TreeError::ConflictCopy) => Err(TreeError::Exists),
            Err(err) => Err(err),
        }
    }

    /// Makes sure that something can be put into a directory.
    pub(super) fn live_dir(&self, tree: &Tree<'_>, dir: &InodeId) -> Result<(), TreeError> {
        let inode = self.inode(tree, dir)?.ok_or(TreeError::NotFound)?;
        if !inode.is_dir() {
            return Err(TreeError::NotADirectory(Vec::new()));
        }
        if self.is_orphan(dir) { Err(TreeError::NotFound) } else { Ok(()) }
    }

    /// Removes a name: of a directory when `dir`, otherwise of anything else.
    pub fn remove(
        &mut self,
        tree: &Tree<'_>,
        (parent, name): &Spot,
        dir: bool,
    ) -> Result<Unlinked, TreeError> {
        let id = match self.held(tree, parent, name) {
            Ok(held) => held.now.ok_or(TreeError::NotFound)?,
            Err(TreeError::ConflictCopy) => return self.drop_copy(tree, parent, name),
            Err(err) => return Err(err),
        };
        let is_dir = self.own(tree, &id)?.what == What::Dir;
        match (is_dir, dir) {
            (true, false) => return Err(TreeError::IsADirectory),
            (false, true) => return Err(TreeError::NotADirectory(name.clone())),
            (true, true) if self.is_used(tree, &id)? => return Err(TreeError::NotEmpty),
            _ => {}
        }
        self.detach(tree, &(*parent, name.clone()), id)
    }

    pub(super) fn detach(
        &mut self,
        tree: &Tree<'_>,
        spot: &Spot,
        id: InodeId,
    ) -> Result<Unlinked, TreeError> {
        let tick = self.next();
        let held = self.held(tree, &spot.0, &spot.1)?;
        (held.now, held.changed) = (None, tick);
        let own = self.own(tree, &id)?;
        own.names.remove(spot);
        if own.what == What::Dir {
            own.changed = tick;
        }
        Ok(Unlinked { id, last: own.names.is_empty() })
    }

    fn attach(&mut self, tree: &Tree<'_>, spot: &Spot, id: InodeId) -> Result<(), TreeError> {
        let tick = self.next();
        let held = self.held(tree, &spot.0, &spot.1)?;
        (held.now, held.changed) = (Some(id), tick);
        let own = self.own(tree, &id)?;
        own.names.insert(spot.clone());
        if own.what == What::Dir {
            own.changed = tick;
        }
        Ok(())
    }

    /// Gives what has a name another one. What was replaced, if anything.
    pub fn rename(
        &mut self,
        tree: &Tree<'_>,
        from: &Spot,
        to: &Spot,
        how: Renaming,
    ) -> Result<Option<Unlinked>, TreeError> {
        Name::new(&to.1).ok_or(TreeError::BadPath)?;
        self.live_dir(tree, &to.0)?;
        let id = self.held(tree, &from.0, &from.1)?.now.ok_or(TreeError::NotFound)?;
        let there = match self.held(tree, &to.0, &to.1) {
            Ok(held) => held.now,
            Err(err) => return Err(err),
        };
        let is_dir = self.own(tree, &id)?.what == What::Dir;
        if is_dir && self.is_inside(tree, to.0, &id)? {
            return Err(TreeError::InsideItself);
        }
        let Some(other) = there else {
            if how == Renaming::Exchange {
                return Err(TreeError::NotFound);
            }
            self.detach(tree, from, id)?;
            self.attach(tree, to, id)?;
            return Ok(None);
        };
        if how == Renaming::Keep {
            return Err(TreeError::Exists);
        }
        if other == id {
            // Two names of one inode: both stay.
            return Ok(None);
        }
        if how == Renaming::Exchange {
            return self.exchange(tree, (from, id), (to, other)).map(|()| None);
        }
        match (is_dir, self.own(tree, &other)?.what == What::Dir) {
            (true, false) => return Err(TreeError::NotADirectory(to.1.clone())),
            (false, true) => return Err(TreeError::IsADirectory),
            (true, true) if self.is_used(tree, &other)? => return Err(TreeError::NotEmpty),
            _ => {}
        }
        let gone = self.detach(tree, to, other)?;
        self.detach(tree, from, id)?;
        self.attach(tree, to, id)?;
        Ok(Some(gone))
    }

    fn exchange(
        &mut self,
        tree: &Tree<'_>,
        (one, id): (&Spot, InodeId),
        (two, other): (&Spot, InodeId),
    ) -> Result<(), TreeError> {
        let is_dir = self.own(tree, &other)?.what == What::Dir;
        if is_dir && self.is_inside(tree, one.0, &other)? {
            return Err(TreeError::InsideItself);
        }
        self.detach(tree, one, id)?;
        self.detach(tree, two, other)?;
        self.attach(tree, two, id)?;
        self.attach(tree, one, other)
    }

    /// Whether `dir` is `above` or somewhere below it.
    pub(super) fn is_inside(
        &self,
        tree: &Tree<'_>,
        dir: InodeId,
        above: &InodeId,
    ) -> io::Result<bool> {
        let mut at = Some(dir);
        for _ in 0..DEPTH_MAX {
            match at {
                Some(dir) if dir == *above => return Ok(true),
                Some(dir) => at = self.place(tree, &dir)?.map(|(parent, _)| parent),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
