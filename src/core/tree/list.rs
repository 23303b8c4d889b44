//! What is seen in a directory. Owns the rule that turns the concurrent changes of one name into a
//! winner and conflict copies, and the order of listings.
//!
//! A listing first reads all names of the directory but remembers only as many as are wanted (they
//! are sealed, so no table can hold them in order), and then resolves those. So its memory is that
//! of a page, and its time that of the directory.

use super::conflict::{MARK, conflict_name};
use super::{Entry, LOST_NAME, PATH_MAX, Tree, TreeError, Version, lost_and_found};
use crate::core::catalogue::browse::{self, Child, Named};
use crate::core::catalogue::{NAME_MAX, Node};
use crate::id::{InodeId, to_hex};
use std::collections::BTreeSet;
use std::io;

/// Rows of a directory that are read at a time.
const ROWS: usize = 1024;
/// Names of one directory that a walk remembers at a time: a few MiB at most.
const WALK_NAMES: usize = 32 * 1024;

/// A part of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, sorted bytewise by name; conflict copies follow the name that they belong to.
    pub entries: Vec<Entry>,
    /// The name after which the next page begins; none: this was the last.
    pub next: Option<Vec<u8>>,
}

/// Some names of a directory, ascending, and the one after which to go on.
pub(super) struct Names {
    pub(super) names: std::vec::IntoIter<Vec<u8>>,
    pub(super) next: Option<Vec<u8>>,
}

/// How far a visit of what is in a directory has come. It holds names and no tables, so that it may
/// be gone on with when the tables are others.
pub struct Walk {
    frames: Vec<Frame>,
    deep: bool,
}

/// A directory that a walk is in.
struct Frame {
    dir: InodeId,
    path: Vec<u8>,
    names: Names,
    entries: std::vec::IntoIter<Entry>,
}

impl Walk {
    /// Begins with the directory at `path`; `deep`: what is in its directories as well.
    pub fn new(dir: InodeId, path: &[u8], deep: bool) -> Self {
        let base = path.strip_suffix(b"/").unwrap_or(path);
        Self { frames: vec![Frame::new(dir, base.to_vec())], deep }
    }
}

impl Frame {
    fn new(dir: InodeId, path: Vec<u8>) -> Self {
        // All names come after the empty one.
        let names = Names { names: Vec::new().into_iter(), next: Some(Vec::new()) };
        Self { dir, path, names, entries: Vec::new().into_iter() }
    }
}

impl Tree<'_> {
    /// The entries of a directory whose names come after `after`; `limit` counts names, conflict
    /// copies come on top.
    pub fn list(&self, dir: &InodeId, after: Option<&[u8]>, limit: usize) -> io::Result<Page> {
        let Names { names, next } = self.names(dir, after, limit)?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            entries.extend(self.group(dir, &name)?);
        }
        Ok(Page { entries, next })
    }

    /// Visits everything below a directory, depth first in the order of names, with its path; stops
    /// when `visit` says false, and goes on from there when called again. False: this was all.
    /// Paths over [`PATH_MAX`] bytes are passed over.
    pub fn walk(
        &self,
        walk: &mut Walk,
        visit: &mut dyn FnMut(&[u8], &Entry) -> bool,
    ) -> io::Result<bool> {
        let Walk { frames, deep } = walk;
        while let Some(frame) = frames.last_mut() {
            let Some(entry) = frame.entries.next() else {
                if let Some(name) = frame.names.names.next() {
                    frame.entries = self.group(&frame.dir, &name)?.into_iter();
                } else if let Some(next) = frame.names.next.take() {
                    frame.names = self.names(&frame.dir, Some(&next), WALK_NAMES)?;
                } else {
                    frames.pop();
                }
                continue;
            };
            let path = [&frame.path, &b"/"[..], &entry.name].concat();
            if path.len() > PATH_MAX {
                continue;
            }
            let go_on = visit(&path, &entry);
            if entry.is_dir() && *deep {
                frames.push(Frame::new(entry.inode, path));
            }
            if !go_on {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first names of a directory after `after`.
    pub(super) fn names(
        &self,
        dir: &InodeId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Names> {
        let mut names = BTreeSet::new();
        let mut more = false;
        let mut add = |name: Vec<u8>| {
            if after.is_none_or(|after| name.as_slice() > after) {
                names.insert(name);
            }
            if names.len() > limit {
                names.pop_last();
                more = true;
            }
        };
        let mut key: Option<Vec<u8>> = None;
        loop {
            let rows = browse::rows_in(self.view, dir, key.as_deref(), ROWS)?;
            for row in &rows {
                if let Some(name) = self.name_of(row)? {
                    add(name);
                }
            }
            match rows.last() {
                Some(last) => key = Some(last.behind()),
                None => break,
            }
        }
        if *dir == InodeId::ROOT && browse::has_lost(self.view)? {
            add(LOST_NAME.to_vec());
        }
        let next = if more { names.last().cloned() } else { None };
        Ok(Names { names: names.into_iter().collect::<Vec<_>>().into_iter(), next })
    }

    /// What is seen under a name: the winner, then its conflict copies under their own names.
    pub(super) fn group(&self, parent: &InodeId, name: &[u8]) -> io::Result<Vec<Entry>> {
        let mut seen: Vec<Entry> = Vec::new();
        for row in browse::named(self.view, self.keyring, parent, name)? {
            let (inode, versions) = self.versions_under(&row)?;
            if seen.iter().any(|entry| entry.inode == inode) {
                continue;
            }
            for (place, version) in versions.into_iter().enumerate() {
                if seen.iter().any(|entry| entry.version.same_content(&version)) {
                    continue;
                }
                let mut entry = Entry {
                    parent: *parent,
                    name: name.to_vec(),
                    inode,
                    version,
                    conflict: !seen.is_empty(),
                };
                if entry.conflict {
                    let by_name = (place == 0).then_some(&row);
                    entry.name = self.conflict_name_of(&entry, by_name, &seen)?;
                }
                seen.push(entry);
            }
        }
        if *parent == InodeId::ROOT && name == LOST_NAME && browse::has_lost(self.view)? {
            let mut lost = lost_and_found();
            lost.conflict = !seen.is_empty();
            if lost.conflict {
                lost.name = self.conflict_name_of(&lost, None, &seen)?;
            }
            seen.push(lost);
        }
        Ok(seen)
    }

    /// The versions that a name leads to, the winner first; none: nothing is seen there.
    fn versions_under(&self, row: &Named) -> io::Result<(InodeId, Vec<Version>)> {
        match row.child {
            Child::Entry(inode) => {
                let versions = self.versions(&inode)?;
                // An inode that is a directory has its own place, and no entry leads to it. What is
                // shared has none in this tree, whoever gives it a name.
                let is_other =
                    |version: &Version| matches!(version.node, Node::Dir { .. } | Node::Shared(_));
                if versions.first().is_none_or(is_other) {
                    return Ok((inode, Vec::new()));
                }
                Ok((inode, versions.into_iter().filter(|version| !is_other(version)).collect()))
            }
            Child::Dir { inode, removed, .. } => {
                if removed && !browse::is_used(self.view, &inode)? {
                    return Ok((inode, Vec::new()));
                }
                Ok((inode, self.version(&row.at)?.into_iter().collect()))
            }
        }
    }

    /// The conflict name of a losing entry: by the change of the name when that lost, by the
    /// version when that lost inside its inode.
    fn conflict_name_of(
        &self,
        entry: &Entry,
        row: Option<&Named>,
        seen: &[Entry],
    ) -> io::Result<Vec<u8>> {
        let version = &entry.version;
        let (mut author, mut clock, mut id) = (version.author, version.clock, version.record);
        if let Some(row) = row {
            (clock, id) = (row.at.clock, row.at.id);
            if let Some(opened) = self.open(&id)? {
                author = opened.author;
            }
        }
        let short = conflict_name(&entry.name, &author, clock, "");
        let taken = seen.iter().any(|other| other.name == short)
            || !browse::named(self.view, self.keyring, &entry.parent, &short)?.is_empty();
        if !taken {
            return Ok(short);
        }
        let tell_apart = format!("-{}", to_hex(&id.0[..4]));
        Ok(conflict_name(&entry.name, &author, clock, &tell_apart))
    }

    /// Finds a conflict copy by the name that it is seen under.
    pub(super) fn lookup_conflict(
        &self,
        parent: &InodeId,
        name: &[u8],
    ) -> io::Result<Option<Entry>> {
        let group = self.conflict_group(parent, name)?.unwrap_or_default();
        Ok(group.into_iter().find(|entry| entry.name == name))
    }

    /// What is seen under the name that a conflict copy belongs to, by the name of the copy.
    pub(super) fn conflict_group(
        &self,
        parent: &InodeId,
        name: &[u8],
    ) -> io::Result<Option<Vec<Entry>>> {
        let mark = name.windows(MARK.len()).rposition(|part| part == MARK);
        let Some(mark) = mark else { return Ok(None) };
        let group = self.group(parent, &name[..mark])?;
        let has = |group: &[Entry]| group.iter().any(|entry| entry.name == name);
        if has(&group) {
            return Ok(Some(group));
        }
        if name.len() + 4 < NAME_MAX {
            return Ok(None);
        }
        // A name that may have been cut tells only its beginning, so the directory is searched.
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.list(parent, after.as_deref(), ROWS)?;
            let mut groups = page.entries.chunk_by(|_, next| next.conflict);
            if let Some(group) = groups.find(|group| has(group)) {
                return Ok(Some(group.to_vec()));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// The entries of the directory at a path: what `ls` of it shows.
    pub fn list_path(
        &self,
        path: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, TreeError> {
        let dir = self.resolve(path)?;
        if dir.is_dir() {
            Ok(self.list(&dir.inode, after, limit)?)
        } else {
            Err(TreeError::NotADirectory(path.to_vec()))
        }
    }
}
