//! Files by hash, and paths by inode. Owns how many answers a question may have; it does not know
//! unlisted files, which only a look-up id finds (`catalogue::files_by_lookup`).

use super::{Entry, PATH_MAX, Tree, TreeError, Version};
use crate::core::catalogue::browse::{self, ChangeAt, Named};
use crate::core::catalogue::{Change, LOST_AND_FOUND, Node, known};
use crate::id::{FileHash, InodeId, RecordId};
use std::collections::BTreeMap;
use std::io;

/// Shortest beginning of a hash that finds a file, in hex digits.
const DIGITS_MIN: usize = 8;
/// Most versions with the same first digits that are looked at.
const ROWS_MAX: usize = 1024;
/// Most hashes that one beginning finds.
const HASHES_MAX: usize = 16;
/// Most names of an inode that are tried for a path.
const LINKS_MAX: usize = 64;

/// A file found by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its whole hash.
    pub hash: FileHash,
    /// The inode that has or had this content.
    pub inode: InodeId,
    /// The version with this content.
    pub version: Version,
    /// Whether the version is still a current one of its inode.
    pub current: bool,
}

impl Tree<'_> {
    /// The inodes with a name of which the content has a hash that begins with these hex digits (8
    /// to 64 of them), each with its hash.
    pub fn find_named(&self, digits: &str) -> Result<BTreeMap<InodeId, FileHash>, TreeError> {
        let mut named = BTreeMap::new();
        self.each_found(digits, &mut |one| {
            if one.current {
                named.insert(one.inode, one.hash);
            }
        })?;
        Ok(named)
    }

    /// Whether that is what a file's names show, and not a conflict copy beside it.
    pub fn shows(&self, inode: &InodeId, hash: &FileHash) -> io::Result<bool> {
        let winner = self.versions(inode)?.into_iter().next();
        Ok(winner.is_some_and(|v| matches!(&v.node, Node::File(file) if file.hash == *hash)))
    }

    /// The listed files, former versions included, whose hash begins with these hex digits (8 to
    /// 64 of them), each hash once: more than one means that the digits are ambiguous.
    pub fn find(&self, digits: &str) -> Result<Vec<Found>, TreeError> {
        let mut found: BTreeMap<FileHash, Found> = BTreeMap::new();
        self.each_found(digits, &mut |next| {
            let rank = |one: &Found| (one.current, one.version.clock, one.version.record);
            match found.get(&next.hash) {
                Some(known) if rank(known) >= rank(&next) => {}
                None if found.len() == HASHES_MAX => {}
                _ => _ = found.insert(next.hash, next),
            }
        })?;
        Ok(found.into_values().collect())
    }

    /// Visits the versions whose hash begins with these digits.
    fn each_found(&self, digits: &str, visit: &mut dyn FnMut(Found)) -> Result<(), TreeError> {
        let digits = digits.to_ascii_lowercase();
        let first = digits.get(..DIGITS_MIN).and_then(|d| crate::id::from_hex(d).ok());
        let first: [u8; 4] = first.ok_or(TreeError::BadPath)?;
        let rows = browse::versions_by_hash(self.view, self.keyring, &first, ROWS_MAX)?;
        for (id, change) in rows {
            let Some((inode, version)) = self.inode_version(&id, change)? else { continue };
            let Node::File(file) = &version.node else { continue };
            let hash = file.hash;
            if hash.to_string().starts_with(&digits) {
                let current = self.is_current(&inode, &version)?;
                visit(Found { hash, inode, version, current });
            }
        }
        Ok(())
    }

    fn inode_version(&self, id: &RecordId, change: u16) -> io::Result<Option<(InodeId, Version)>> {
        let Some(opened) = self.open(id)? else { return Ok(None) };
        let Some(known) = known(self.view, id)? else { return Ok(None) };
        let Some(Change::Inode { inode, .. }) = opened.changes.get(usize::from(change)) else {
            return Ok(None);
        };
        let at = ChangeAt { clock: known.clock, id: *id, change };
        Ok(self.version(&at)?.map(|version| (*inode, version)))
    }

    /// Whether a version is a head of an inode that has a name.
    fn is_current(&self, inode: &InodeId, version: &Version) -> io::Result<bool> {
        let heads = browse::heads_of(self.view, self.keyring, inode)?;
        let is_head = heads.iter().any(|at| at.id == version.record && at.change == version.change);
        Ok(is_head && !browse::links_of(self.view, inode, 1)?.is_empty())
    }

    /// The paths under which an inode is seen, at most `limit`; a conflict copy of a version has
    /// the path of its winner.
    pub fn paths_of(&self, inode: &InodeId, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut rows = browse::links_of(self.view, inode, LINKS_MAX)?;
        rows.extend(browse::dir_row(self.view, inode)?);
        let mut out: Vec<Vec<u8>> = Vec::new();
        for row in &rows {
            if out.len() == limit {
                break;
            }
            let path = self.entry_at(row)?.map(|(path, _)| path);
            out.extend(path.filter(|path| !out.contains(path)));
        }
        Ok(out)
    }

    /// What is seen of an inode where it has this name, with the paths.
    pub(super) fn seen_named(
        &self,
        inode: &InodeId,
        name: &[u8],
    ) -> io::Result<Vec<(Vec<u8>, Entry)>> {
        let mut rows = browse::links_of(self.view, inode, LINKS_MAX)?;
        rows.extend(browse::dir_row(self.view, inode)?);
        let mut out: Vec<(Vec<u8>, Entry)> = Vec::new();
        for row in &rows {
            if self.name_of(row)?.is_some_and(|known| known == name) {
                let seen = self.entry_at(row)?;
                out.extend(seen.filter(|(path, _)| out.iter().all(|(known, _)| known != path)));
            }
        }
        Ok(out)
    }

    /// The path that a name in a directory has or would have; none: the directory is not seen.
    pub(super) fn path_in(&self, dir: &InodeId, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if *dir == InodeId::ROOT {
            return Ok(Some([b"/", name].concat()));
        }
        let above = self.paths_of(dir, 1)?.into_iter().next();
        Ok(above.map(|above| [&above[..], b"/", name].concat()))
    }

    /// The path that a name in a directory has or, where a directory on the way was removed, had.
    pub(super) fn path_once_in(&self, dir: &InodeId, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (mut dir, mut path) = (*dir, name.to_vec());
        while path.len() <= PATH_MAX {
            if let Some(path) = self.path_in(&dir, &path)? {
                return Ok(Some(path));
            }
            let Some(row) = browse::dir_row(self.view, &dir)? else { return Ok(None) };
            let Some(above) = self.name_of(&row)? else { return Ok(None) };
            path = [&above[..], b"/", &path].concat();
            dir = row.parent;
        }
        Ok(None)
    }

    /// What is seen of a name, with its path, walking up; none when it leads to nowhere.
    fn entry_at(&self, row: &Named) -> io::Result<Option<(Vec<u8>, Entry)>> {
        let (mut names, mut len) = (Vec::<Vec<u8>>::new(), 0);
        let (mut row, mut last) = (*row, None);
        loop {
            let Some(entry) = self.seen_as(&row)? else { return Ok(None) };
            len += entry.name.len() + 1;
            names.push(entry.name.clone());
            last.get_or_insert(entry);
            if len > PATH_MAX {
                return Ok(None);
            }
            if row.parent == InodeId::ROOT {
                break;
            }
            if row.parent == LOST_AND_FOUND {
                names.push(super::LOST_NAME.to_vec());
                break;
            }
            match browse::dir_row(self.view, &row.parent)? {
                Some(above) => row = above,
                None => return Ok(None),
            }
        }
        let path = names.iter().rev().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
        Ok(last.map(|entry| (path, entry)))
    }

    fn seen_as(&self, row: &Named) -> io::Result<Option<Entry>> {
        let Some(name) = self.name_of(row)? else { return Ok(None) };
        let inode = match row.child {
            browse::Child::Entry(inode) | browse::Child::Dir { inode, .. } => inode,
        };
        Ok(self.group(&row.parent, &name)?.into_iter().find(|entry| entry.inode == inode))
    }
}
