//! What `core::tree` may ask of the readers' tables: which changes give a name, hold an inode, or
//! lie in a directory. Owns how keys are cut for these questions, so that the tree knows no table.

use super::change::entry_tag;
use super::keyring::Keyring;
pub(crate) use super::opened::{Opened, open};
use super::place::{LOST_AND_FOUND, lost_tag};
use super::table::{
    CHILD, DIR, Fact, LINK, PREFIX, Parts, REGISTER, State, VERSIONS_MAX, Version, any, key,
    register_prefix, scan, value, versions_of,
};
pub(crate) use super::table::{ChangeAt, Child, Seen};
use crate::id::{InodeId, RecordId, Tag};
use crate::sys::TableRead;
use std::io;

/// A name in a directory: which change gives it, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) parent: InodeId,
    pub(crate) tag: Tag,
    pub(crate) at: ChangeAt,
    pub(crate) child: Child,
}

/// What the key of a name in a directory begins with: the directory, and the tag of the name.
const SPOT_LEN: usize = InodeId::LEN + Tag::LEN;

impl Named {
    fn is_same_name(&self, other: &Self) -> bool {
        (self.parent, self.tag) == (other.parent, other.tag)
    }

    fn read(key: &[u8], row: &[u8]) -> io::Result<Self> {
        let ((parent, tag), at) = ChangeAt::of_child_key(key)?;
        Ok(Self { parent, tag, at, child: value(row)? })
    }

    /// The key behind which a listing goes on after all rows of this name.
    pub(crate) fn behind(&self) -> Vec<u8> {
        key(&[&self.parent.0, &self.tag.0, &[u8::MAX; 42]])
    }
}

/// The tags that a name in a directory can have, newest epoch first.
pub(crate) fn tags_of(keyring: &Keyring, parent: &InodeId, name: &[u8]) -> Vec<Tag> {
    let mut tags: Vec<Tag> = keyring.iter().map(|keys| entry_tag(keys, parent, name)).collect();
    if *parent == LOST_AND_FOUND {
        let inode = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        tags.extend(inode.as_ref().map(lost_tag));
    }
    tags
}

/// What a name in a directory stands for, under all epochs; best first, at most 64.
pub(crate) fn named(
    tables: &dyn TableRead,
    keyring: &Keyring,
    parent: &InodeId,
    name: &[u8],
) -> io::Result<Vec<Named>> {
    let mut out: Vec<Named> = Vec::new();
    let mut fault = Ok(());
    for tag in tags_of(keyring, parent, name) {
        let prefix = key(&[&parent.0, &tag.0]);
        let end = super::table::end_of(&prefix);
        tables.range(CHILD, &prefix, end.as_deref(), &mut |key, row| {
            match Named::read(key, row) {
                Ok(row) => out.push(row),
                Err(err) => fault = Err(err),
            }
            // Rows ascend by clock: only the newest are kept of a name that somebody floods.
            if out.len() == 2 * VERSIONS_MAX {
                out.drain(..VERSIONS_MAX);
            }
            fault.is_ok()
        })?;
    }
    out.sort_unstable_by_key(|row| std::cmp::Reverse(row.at));
    out.truncate(VERSIONS_MAX);
    fault.map(|()| out)
}

/// The first row of each name in a directory behind the key `after`, as far as `limit` rows reach.
pub(crate) fn rows_in(
    tables: &dyn TableRead,
    parent: &InodeId,
    after: Option<&[u8]>,
    limit: usize,
) -> io::Result<Vec<Named>> {
    let rows = scan(tables, CHILD, &parent.0, after, limit)?;
    let mut out: Vec<Named> = Vec::with_capacity(rows.len());
    for (key, row) in rows {
        let row = Named::read(&key, &row)?;
        if out.last().is_none_or(|last| last.tag != row.tag) {
            out.push(row);
        }
    }
    Ok(out)
}

/// Directories in a directory, removed ones too, and the key behind which there may be more.
pub(crate) struct DirRows {
    pub(crate) rows: Vec<Named>,
    pub(crate) last: Option<Vec<u8>>,
}

/// The directories in a directory behind the key `after`, as far as `limit` rows of any kind reach.
pub(crate) fn dirs_behind(
    tables: &dyn TableRead,
    parent: &InodeId,
    after: Option<&[u8]>,
    limit: usize,
) -> io::Result<DirRows> {
    let (mut rows, mut last) = (Vec::new(), None);
    for (key, row) in scan(tables, CHILD, &parent.0, after, limit)? {
        let named = Named::read(&key, &row)?;
        if matches!(named.child, Child::Dir { .. }) {
            rows.push(named);
        }
        last = Some(key);
    }
    Ok(DirRows { rows, last })
}

/// How many directories are in a directory; none: there are too many names in it to be counted.
pub(crate) fn dirs_in(
    tables: &dyn TableRead,
    parent: &InodeId,
    names_max: usize,
) -> io::Result<Option<usize>> {
    let rows = scan(tables, CHILD, &parent.0, None, names_max + 1)?;
    if rows.len() > names_max {
        return Ok(None);
    }
    let mut dirs = 0;
    for (key, row) in rows {
        dirs += usize::from(matches!(
            Named::read(&key, &row)?.child,
            Child::Dir { removed: false, .. }
        ));
    }
    Ok(Some(dirs))
}

/// Whether anything unremoved is in a directory. Removed directories are looked into; places as
/// seen have no cycle, so this ends.
pub(crate) fn is_used(tables: &dyn TableRead, dir: &InodeId) -> io::Result<bool> {
    const PAGE: usize = 64;
    let mut open = vec![*dir];
    while let Some(dir) = open.pop() {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = scan(tables, CHILD, &dir.0, after.as_deref(), PAGE)?;
            for (key, row) in &page {
                match Named::read(key, row)?.child {
                    Child::Dir { inode, removed: true, .. } => open.push(inode),
                    Child::Dir { .. } | Child::Entry(_) => return Ok(true),
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => after = Some(key.clone()),
                _ => break,
            }
        }
    }
    Ok(false)
}

/// The concurrent newest changes of an inode, the winner first.
pub(crate) fn heads_of(
    tables: &dyn TableRead,
    keyring: &Keyring,
    inode: &InodeId,
) -> io::Result<Vec<ChangeAt>> {
    let heads = versions_of(tables, keyring, inode, State::Head)?;
    Ok(heads.iter().map(|version| version.at).collect())
}

/// The superseded changes of an inode that are kept, newest first, at most 64.
pub(crate) fn past_of(
    tables: &dyn TableRead,
    keyring: &Keyring,
    inode: &InodeId,
) -> io::Result<Vec<ChangeAt>> {
    let mut past = versions_of(tables, keyring, inode, State::Past)?;
    past.sort_unstable_by_key(|version| std::cmp::Reverse(version.at));
    Ok(past.iter().map(|version| version.at).collect())
}

/// The heads of a register, removals too: what a new change to it has to name as parents.
pub(crate) fn heads_under(tables: &dyn TableRead, tag: &Tag) -> io::Result<Vec<ChangeAt>> {
    let heads = scan(tables, REGISTER, &register_prefix(tag, State::Head), None, VERSIONS_MAX)?;
    let mut out = Vec::new();
    for (key, row) in heads {
        let version = Version::read(&key, &row)?;
        // What was not read yet was not seen by whoever makes the new change.
        if version.fact != Fact::Unread {
            out.push(version.at);
        }
    }
    Ok(out)
}

/// The changes of the register of a name, newest first within each state, at most `limit` of them:
/// each with the clock of the first change that superseded it, 0 while none did.
pub(crate) fn changes_under(
    tables: &dyn TableRead,
    tag: &Tag,
    limit: usize,
) -> io::Result<Vec<(ChangeAt, u64)>> {
    let mut out = Vec::new();
    for state in [State::Head, State::Past] {
        let room = limit - out.len();
        for (key, row) in scan(tables, REGISTER, &register_prefix(tag, state), None, room)? {
            let version = Version::read(&key, &row)?;
            if let Fact::Entry { .. } = version.fact {
                out.push((version.at, version.ended));
            }
        }
    }
    Ok(out)
}

/// The names of an inode that is no directory, at most `limit`.
pub(crate) fn links_of(
    tables: &dyn TableRead,
    inode: &InodeId,
    limit: usize,
) -> io::Result<Vec<Named>> {
    let mut out = Vec::new();
    for (row, _) in scan(tables, LINK, &inode.0, None, limit)? {
        let ((parent, tag), at) = ChangeAt::of_child_key(&row[InodeId::LEN..])?;
        out.push(Named { parent, tag, at, child: Child::Entry(*inode) });
    }
    Ok(out)
}

/// The first inode with a name or a place of which the id begins with these bytes.
pub(crate) fn inode_with(tables: &dyn TableRead, first: &[u8]) -> io::Result<Option<InodeId>> {
    let mut out: Option<InodeId> = None;
    for table in [LINK, DIR] {
        for (row, _) in scan(tables, table, first, None, 1)? {
            let inode = InodeId(Parts(&row).take()?);
            out = Some(out.map_or(inode, |other| other.min(inode)));
        }
    }
    Ok(out)
}

/// Where a directory is.
pub(crate) fn dir_row(tables: &dyn TableRead, inode: &InodeId) -> io::Result<Option<Named>> {
    let Some(key) = tables.get(DIR, &inode.0)? else { return Ok(None) };
    tables.get(CHILD, &key)?.map(|row| Named::read(&key, &row)).transpose()
}

/// Whether lost+found exists.
pub(crate) fn has_lost(tables: &dyn TableRead) -> io::Result<bool> {
    any(tables, CHILD, &LOST_AND_FOUND.0)
}

/// The first row of each name that several rows lead from, and the inodes of which several versions
/// are the newest; none: there are more than `limit` of either. It reads all rows.
pub(crate) fn doubled(
    tables: &dyn TableRead,
    limit: usize,
) -> io::Result<Option<(Vec<Named>, Vec<InodeId>)>> {
    let (mut names, mut fault) = (Vec::<Named>::new(), Ok(()));
    let mut before = [0; SPOT_LEN];
    tables.range(CHILD, &[], None, &mut |key, row| {
        let spot = key.first_chunk::<SPOT_LEN>().copied().unwrap_or_default();
        if std::mem::replace(&mut before, spot) == spot {
            match Named::read(key, row) {
                Ok(row) if names.last().is_some_and(|last| last.is_same_name(&row)) => {}
                Ok(row) => names.push(row),
                Err(err) => fault = Err(err),
            }
        }
        fault.is_ok() && names.len() <= limit
    })?;
    fault?;
    let (mut inodes, mut fault) = (Vec::new(), Ok(()));
    let head = register_prefix(&Tag([0; Tag::LEN]), State::Head)[Tag::LEN];
    let mut before = [u8::MAX; Tag::LEN + 1];
    tables.range(REGISTER, &[], None, &mut |key, row| {
        let tag = key.first_chunk::<{ Tag::LEN + 1 }>().copied().unwrap_or_default();
        if std::mem::replace(&mut before, tag) == tag && tag[Tag::LEN] == head {
            match Version::read(key, row).map(|version| version.fact) {
                Ok(Fact::Version { inode }) if inodes.last() != Some(&inode) => inodes.push(inode),
                Ok(_) => {}
                Err(err) => fault = Err(err),
            }
        }
        fault.is_ok() && inodes.len() <= limit
    })?;
    fault?;
    Ok((names.len() <= limit && inodes.len() <= limit).then_some((names, inodes)))
}

/// File versions of which the hash begins with the same four bytes, at most `limit`.
pub(crate) fn versions_by_hash(
    tables: &dyn TableRead,
    keyring: &Keyring,
    first: &[u8; 4],
    limit: usize,
) -> io::Result<Vec<(RecordId, u16)>> {
    let mut out = Vec::new();
    for keys in keyring.iter() {
        for (row, _) in scan(tables, PREFIX, &keys.prefix(first), None, limit - out.len())? {
            let mut parts = Parts(&row);
            parts.take::<8>()?;
            out.push((RecordId(parts.take()?), u16::from_be_bytes(parts.take()?)));
        }
    }
    Ok(out)
}
