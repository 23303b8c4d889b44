//! What was removed: which names of a directory led to something that can be given back, and where
//! it goes then. Owns the rule which directories one path stands for; how long content is kept is
//! `past`'s, and the change that gives something back is made in `plan`.
//!
//! A path stands for the directory that is seen there and for those that were removed from there.
//! They are different inodes and stay so: whoever makes a directory where one was removed makes a
//! new one, because the old one may be moved, restored or written into elsewhere at the same time,
//! and because a mount's programs may still stand in it. So what was in a removed directory is
//! looked for under the path that it had, and comes back into the directory that is there now; two
//! members who made or removed directories of one name at once hide nothing from each other.

use super::{LOST_NAME, PATH_MAX, Tree, TreeError, Version, components};
use crate::core::catalogue::browse::{self, Child, Named};
use crate::core::catalogue::past::{self, PastName};
use crate::core::catalogue::{Change, Name, Node, Place, Target, is_released};
use crate::id::{InodeId, Tag};
use std::collections::BTreeSet;
use std::io;

/// Rows that are read at a time.
const ROWS: usize = 1024;
/// Names of one directory that a walk remembers at a time: a few MiB at most.
const WALK_NAMES: usize = 32 * 1024;
/// Most removed directories that one path stands for: the last ones.
const DIRS_MAX: usize = 64;

/// A name that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The directory that it would be in.
    pub parent: InodeId,
    /// The name.
    pub name: Vec<u8>,
    /// What it led to.
    pub inode: InodeId,
    /// The version that it would lead to again.
    pub version: Version,
    /// The clock of its removal.
    pub at: u64,
    /// Removed directories on the way that go elsewhere with it, and where to.
    pub(super) way: Vec<(InodeId, Place)>,
}

impl Removed {
    /// Whether it was a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.version.node, Node::Dir { .. })
    }
}

/// The directories that one path stands for: the one that is seen there, then those that were
/// removed from there, the last one first. What is given back goes into the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    first: InodeId,
    others: Vec<InodeId>,
    /// Removed directories on the way that were in another one than the first, and where they go.
    way: Vec<(InodeId, Place)>,
}

impl Dirs {
    fn only(first: InodeId) -> Self {
        Self { first, others: Vec::new(), way: Vec::new() }
    }

    fn add(&mut self, inode: InodeId) {
        if self.others.len() < DIRS_MAX {
            self.others.push(inode);
        }
    }

    /// The removed directory that has a name in one of these, which goes into the first of them.
    fn goes_into(&self, inode: InodeId, from: &InodeId, name: &[u8]) -> Self {
        let mut way = self.way.clone();
        if let Some(name) = Name::new(name).filter(|_| *from != self.first) {
            way.push((inode, Place { parent: self.first, name }));
        }
        Self { way, ..Self::only(inode) }
    }

    /// The one that what is given back goes into.
    pub const fn first(&self) -> &InodeId {
        &self.first
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &InodeId> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// How far a visit of what was removed below a path has come. It holds names and no tables, so that
/// it may be gone on with when the tables are others.
pub struct RemovedWalk {
    frames: Vec<Frame>,
}

/// A path that a walk is at.
struct Frame {
    dirs: Dirs,
    path: Vec<u8>,
    names: Names,
}

/// Some names of a path, ascending, and the one behind which to go on.
struct Names {
    names: std::vec::IntoIter<Vec<u8>>,
    next: Option<Vec<u8>>,
}

impl RemovedWalk {
    /// Begins with the directories that `path` stands for.
    pub fn new(dirs: Dirs, path: &[u8]) -> Self {
        let base = path.strip_suffix(b"/").unwrap_or(path);
        Self { frames: vec![Frame::new(dirs, base.to_vec())] }
    }
}

impl Frame {
    fn new(dirs: Dirs, path: Vec<u8>) -> Self {
        // All names come after the empty one.
        let names = Names { names: Vec::new().into_iter(), next: Some(Vec::new()) };
        Self { dirs, path, names }
    }
}

/// The first names behind one, in the making.
struct First<'a> {
    after: &'a [u8],
    first: BTreeSet<Vec<u8>>,
    more: bool,
}

impl First<'_> {
    fn add(&mut self, name: Vec<u8>) {
        if name.as_slice() > self.after {
            self.first.insert(name);
        }
        if self.first.len() > WALK_NAMES {
            self.first.pop_last();
            self.more = true;
        }
    }
}

impl Tree<'_> {
    /// The directories that a path stands for; none: there is and was none.
    pub fn dirs_of(&self, path: &[u8]) -> Result<Option<Dirs>, TreeError> {
        let names = components(path)?;
        self.dirs_below(&names)
    }

    /// What was removed from a path, in directories that may be removed too.
    pub fn removed_at(&self, path: &[u8]) -> Result<Option<Removed>, TreeError> {
        let Some((dirs, last)) = self.place_of(path)? else { return Ok(None) };
        if last.is_empty() || self.lookup(dirs.first(), last)?.is_some() {
            return Err(TreeError::Exists);
        }
        Ok(self.removed(&dirs, last)?)
    }

    /// The directories that a path is in, and the last name; that of the root is empty. None: there
    /// is and was no such directory.
    pub(super) fn place_of<'p>(
        &self,
        path: &'p [u8],
    ) -> Result<Option<(Dirs, &'p [u8])>, TreeError> {
        let names = components(path)?;
        let (last, above) = names.split_last().map_or((&b""[..], &[][..]), |(l, a)| (*l, a));
        Ok(self.dirs_below(above)?.map(|dirs| (dirs, last)))
    }

    fn dirs_below(&self, names: &[&[u8]]) -> Result<Option<Dirs>, TreeError> {
        let mut dirs = Dirs::only(InodeId::ROOT);
        for name in names {
            match self.dirs_at(&dirs, name)? {
                Some(below) => dirs = below,
                None => return Ok(None),
            }
        }
        Ok(Some(dirs))
    }

    /// The directories that a name in these stands for.
    fn dirs_at(&self, above: &Dirs, name: &[u8]) -> Result<Option<Dirs>, TreeError> {
        let seen = self.group(above.first(), name)?;
        let there = match seen.first() {
            Some(winner) => Some(winner.clone()),
            None => self.lookup_conflict(above.first(), name)?,
        };
        let mut out: Option<Dirs> = None;
        if let Some(there) = there {
            if !there.is_dir() {
                return Err(TreeError::NotADirectory(there.name));
            }
            out = Some(Dirs::only(there.inode));
        }
        for dir in above.iter() {
            let rows = browse::named(self.view, self.keyring, dir, name)?;
            for inode in rows.iter().filter_map(removed_dir) {
                match &mut out {
                    Some(out) if seen.iter().all(|entry| entry.inode != inode) => out.add(inode),
                    Some(_) => {}
                    None => out = Some(above.goes_into(inode, dir, name)),
                }
            }
        }
        Ok(out)
    }

    /// What a name led to before it was removed; none: it leads to something, or there is nothing
    /// that could be given back. Of several, what the first of the directories had.
    pub fn removed(&self, dirs: &Dirs, name: &[u8]) -> io::Result<Option<Removed>> {
        let parent = *dirs.first();
        if !self.group(&parent, name)?.is_empty() {
            return Ok(None);
        }
        // What came back into one of them may have gone elsewhere since.
        let mut moved = Vec::new();
        for dir in dirs.iter() {
            if let Some(found) = self.removed_from(dir, name, &mut moved)? {
                let way = dirs.way.clone();
                return Ok(Some(Removed { parent, way, ..found }));
            }
        }
        Ok(None)
    }

    fn removed_from(
        &self,
        dir: &InodeId,
        name: &[u8],
        moved: &mut Vec<InodeId>,
    ) -> io::Result<Option<Removed>> {
        let mut best: Option<Removed> = None;
        let mut offer = |inode: InodeId, version: Option<Version>, at: u64| {
            if let Some(version) = version
                && best.as_ref().is_none_or(|best| best.at < at)
            {
                let (parent, name, way) = (*dir, name.to_vec(), Vec::new());
                best = Some(Removed { parent, name, inode, version, at, way });
            }
        };
        for tag in browse::tags_of(self.keyring, dir, name) {
            moved.extend(self.moved_away(&tag)?);
            let Some(last) = past::last_name(self.view, dir, &tag)? else { continue };
            if !moved.contains(&last.inode) {
                offer(last.inode, self.content_of(&last.inode)?, last.ended);
            }
        }
        for row in browse::named(self.view, self.keyring, dir, name)? {
            if let Some(inode) = removed_dir(&row) {
                offer(inode, self.version(&row.at)?, row.at.clock);
            }
        }
        Ok(best)
    }

    /// Visits what was removed below a path and can be given back, depth first in the order of
    /// names, with its path; stops when `visit` says false, and goes on from there when called
    /// again. False: this was all. Paths over [`PATH_MAX`] bytes are passed over.
    pub fn walk_removed(
        &self,
        walk: &mut RemovedWalk,
        visit: &mut dyn FnMut(&[u8], &Removed) -> bool,
    ) -> io::Result<bool> {
        while let Some(frame) = walk.frames.last_mut() {
            let Some(name) = frame.names.names.next() else {
                match frame.names.next.take() {
                    Some(after) => frame.names = self.once_in(&frame.dirs, &after)?,
                    None => drop(walk.frames.pop()),
                }
                continue;
            };
            let path = [&frame.path, &b"/"[..], &name].concat();
            if path.len() > PATH_MAX {
                continue;
            }
            let removed = self.removed(&frame.dirs, &name)?;
            let below = match &removed {
                Some(removed) if !removed.is_dir() => None,
                _ => match self.dirs_at(&frame.dirs, &name) {
                    Err(TreeError::Io(err)) => return Err(err),
                    below => below.ok().flatten(),
                },
            };
            let go_on = removed.is_none_or(|removed| visit(&path, &removed));
            walk.frames.extend(below.map(|below| Frame::new(below, path)));
            if !go_on {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first names behind `after` that led elsewhere once or are of a directory, and the one
    /// behind which to go on. What is in a directory and is none costs a row each and no more.
    fn once_in(&self, dirs: &Dirs, after: &[u8]) -> io::Result<Names> {
        let mut names = First { after, first: BTreeSet::new(), more: false };
        for dir in dirs.iter() {
            self.add_past_names(dir, &mut names)?;
            let mut key: Option<Vec<u8>> = None;
            loop {
                let page = browse::dirs_behind(self.view, dir, key.as_deref(), ROWS)?;
                for row in &page.rows {
                    self.name_of(row)?.into_iter().for_each(|name| names.add(name));
                }
                match page.last {
                    Some(last) => key = Some(last),
                    None => break,
                }
            }
            if *dir == InodeId::ROOT && browse::has_lost(self.view)? {
                names.add(LOST_NAME.to_vec());
            }
        }
        let next = if names.more { names.first.last().cloned() } else { None };
        let names: Vec<Vec<u8>> = names.first.into_iter().collect();
        Ok(Names { names: names.into_iter(), next })
    }

    fn add_past_names(&self, dir: &InodeId, names: &mut First<'_>) -> io::Result<()> {
        let mut after: Option<PastName> = None;
        let mut last_tag: Option<Tag> = None;
        loop {
            let key = after.as_ref().map(PastName::key);
            let rows = past::past_names(self.view, dir, key, ROWS)?;
            for row in &rows {
                if last_tag.replace(row.tag) != Some(row.tag) {
                    self.past_name(row)?.into_iter().for_each(|name| names.add(name));
                }
            }
            match rows.last() {
                Some(last) => after = Some(*last),
                None => return Ok(()),
            }
        }
    }

    /// The inodes that a name leads to no longer because they have another one.
    fn moved_away(&self, tag: &Tag) -> io::Result<Vec<InodeId>> {
        let mut out = Vec::new();
        for head in browse::heads_under(self.view, tag)? {
            let Some(opened) = self.open(&head.id)? else { continue };
            if let Some(Change::Entry { target: Target::Moved(inode), .. }) =
                opened.changes.get(usize::from(head.change))
            {
                out.push(*inode);
            }
        }
        Ok(out)
    }

    fn past_name(&self, row: &PastName) -> io::Result<Option<Vec<u8>>> {
        let Some(opened) = self.open(&row.what.at.id)? else { return Ok(None) };
        Ok(match opened.changes.get(usize::from(row.what.at.change)) {
            Some(Change::Entry { name, .. }) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
    }

    /// The winning version of an inode that is no directory, if its content is still kept.
    fn content_of(&self, inode: &InodeId) -> io::Result<Option<Version>> {
        let Some(version) = self.versions(inode)?.into_iter().next() else { return Ok(None) };
        let kept = match &version.node {
            Node::File(file) => !is_released(self.view, &file.claim)?,
            Node::Link(_) | Node::Special(_) => true,
            Node::Dir { .. } | Node::Shared(_) => false,
        };
        Ok(kept.then_some(version))
    }
}

/// The directory that a row is of, if it was removed.
const fn removed_dir(row: &Named) -> Option<InodeId> {
    match row.child {
        Child::Dir { inode, removed: true, .. } => Some(inode),
        Child::Dir { .. } | Child::Entry(_) => None,
    }
}
