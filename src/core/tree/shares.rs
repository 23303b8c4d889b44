//! Files that members serve from where they lie. They have no name in the tree: all of them are
//! entries of one directory that nothing leads to, under names that begin with their sharer. Owns
//! those names, and the rule who may say what is shared by whom; the bytes are the sharer's matter.
//!
//! Rule: an entry counts only when the winner's name and version are both signed by the node that
//! the name begins with, and the name follows from the path in the version. So nobody can publish
//! in another's name, nor hide by a concurrent change what another one says. Any writer can remove
//! an entry, as in the tree; its sharer then says it again.

use super::{Planner, Tree, TreeError, Version};
use crate::core::catalogue::browse::{self, Child};
use crate::core::catalogue::{
    Attributes, Change, FileVersion, Name, Node, SharedFile, Target, is_shared_path,
};
use crate::id::{InodeId, NodeId, RecordId, to_hex};
use std::collections::BTreeMap;
use std::io;

/// The directory of all shared files: no record makes it, and nothing leads to it.
pub const SHARES: InodeId = {
    let mut id = [0; 16];
    id[15] = 2;
    InodeId(id)
};

/// Bytes of a path that its entry is sorted by.
const SORTED_BY: usize = 128;
/// Hex digits of a sharer.
const SHARER: usize = 2 * NodeId::LEN;
/// Most shared files with the same first digits that are looked at, as of files in the tree.
const ROWS_MAX: usize = 1024;
/// Most shared files that one beginning of a hash finds.
const FOUND_MAX: usize = 64;
/// Names that are remembered while a list is read.
const LIST_NAMES: usize = 16 * 1024;

/// A file that somebody serves from where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub sharer: NodeId,
    /// What it is called there, and its content.
    pub file: SharedFile,
    /// Its attributes there.
    pub attributes: Attributes,
    /// Its inode.
    pub inode: InodeId,
    /// The record that says so.
    pub record: RecordId,
}

/// How far a list of shared files has come; as with a walk, the tables may be others when it goes
/// on.
#[derive(Debug, Clone)]
pub struct ShareWalk {
    /// What the names of interest begin with.
    prefix: Vec<u8>,
    /// The path at which, or below which, a file is of interest; empty: all.
    path: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl ShareWalk {
    /// Everything that this node shares at or below a path without a closing slash, or what all of
    /// them share.
    pub fn new(of: Option<(&NodeId, &[u8])>) -> Self {
        let (prefix, path) = match of {
            Some((sharer, path)) => (sorted_by(sharer, path), path.to_vec()),
            None => (Vec::new(), Vec::new()),
        };
        let after = Some(prefix.clone());
        Self { prefix, path, after }
    }

    fn wants(&self, path: &[u8]) -> bool {
        path.strip_prefix(&self.path[..])
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }
}

/// The part of an entry's name that it is sorted by. A `/` sorts before everything else, so that
/// what is in a directory stands together.
fn sorted_by(sharer: &NodeId, path: &[u8]) -> Vec<u8> {
    let mut name = to_hex(&sharer.0).into_bytes();
    let shown = path.iter().take(SORTED_BY);
    name.extend(shown.map(|byte| if *byte == b'/' { 1 } else { *byte }));
    name
}

/// The name of the entry of a shared file.
fn entry_name(sharer: &NodeId, path: &[u8]) -> Option<Name> {
    const CONTEXT: &str = "p2pfs 2026-11 name of a shared file v1";
    let mut name = sorted_by(sharer, path);
    name.push(1);
    name.extend(to_hex(&blake3::derive_key(CONTEXT, path)[..16]).into_bytes());
    Name::new(&name)
}

/// The directory and the name of the entry of a shared file; none: it cannot be called so.
pub fn share_spot(sharer: &NodeId, path: &[u8]) -> Option<(InodeId, Name)> {
    entry_name(sharer, path).filter(|_| is_shared_path(path)).map(|name| (SHARES, name))
}

impl Tree<'_> {
    /// What a node shares under a path.
    pub fn share(&self, sharer: &NodeId, path: &[u8]) -> io::Result<Option<Share>> {
        match entry_name(sharer, path) {
            Some(name) => self.share_under(name.as_bytes()),
            None => Ok(None),
        }
    }

    /// What is said of an inode by who serves it in place, and what it is called there.
    pub(super) fn shared_as(&self, inode: &InodeId) -> io::Result<Option<(Vec<u8>, Version)>> {
        for version in self.versions(inode)? {
            if let Node::Shared(file) = &version.node
                && let Some(share) = self.share(&version.author, &file.path)?
                && share.record == version.record
            {
                return Ok(Some((share.file.path, version)));
            }
        }
        Ok(None)
    }

    /// What an entry stands for, as its sharer says it.
    fn share_under(&self, name: &[u8]) -> io::Result<Option<Share>> {
        let digits = name.get(..SHARER).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(Ok(sharer)) = digits.map(str::parse::<NodeId>) else { return Ok(None) };
        for row in browse::named(self.view, self.keyring, &SHARES, name)? {
            let Child::Entry(inode) = row.child else { continue };
            let Some(opened) = self.open(&row.at.id)? else { continue };
            if opened.author != sharer {
                continue;
            }
            for version in self.versions(&inode)? {
                if version.author == sharer
                    && let Node::Shared(file) = version.node
                    && entry_name(&sharer, &file.path).is_some_and(|own| own.as_bytes() == name)
                {
                    let (attributes, record) = (version.attributes, version.record);
                    return Ok(Some(Share { sharer, file, attributes, inode, record }));
                }
            }
        }
        Ok(None)
    }

    /// Visits shared files in the order of sharers and paths; stops when `visit` says false, and
    /// goes on from there when called again. False: this was all.
    pub fn walk_shares(
        &self,
        walk: &mut ShareWalk,
        visit: &mut dyn FnMut(Share) -> bool,
    ) -> io::Result<bool> {
        while let Some(after) = walk.after.take() {
            let page = self.names(&SHARES, Some(&after), LIST_NAMES)?;
            walk.after = page.next;
            for name in page.names {
                if !name.starts_with(&walk.prefix) {
                    if name > walk.prefix {
                        walk.after = None;
                        return Ok(false);
                    }
                    continue;
                }
                let Some(share) = self.share_under(&name)? else { continue };
                if walk.wants(&share.file.path) && !visit(share) {
                    walk.after = Some(name);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The shared files of which the hash begins with these hex digits (8 to 64 of them).
    pub fn find_shares(&self, digits: &str) -> Result<Vec<Share>, TreeError> {
        let digits = digits.to_ascii_lowercase();
        let first = digits.get(..8).and_then(|d| crate::id::from_hex(d).ok());
        let first: [u8; 4] = first.ok_or(TreeError::BadPath)?;
        let mut found = BTreeMap::new();
        for (id, change) in browse::versions_by_hash(self.view, self.keyring, &first, ROWS_MAX)? {
            let Some(opened) = self.open(&id)? else { continue };
            let Some(Change::Inode { node: Node::Shared(file), .. }) =
                opened.changes.get(usize::from(change))
            else {
                continue;
            };
            if found.len() < FOUND_MAX
                && file.version.hash.to_string().starts_with(&digits)
                && let Some(now) = self.share(&opened.author, &file.path)?
                && now.file.version.hash == file.version.hash
            {
                found.insert((now.sharer, now.file.path.clone()), now);
            }
        }
        Ok(found.into_values().collect())
    }
}

impl Planner<'_, '_> {
    /// Says what a node, which signs it, shares under a path, in place of what was said of that
    /// before.
    pub fn share(
        &mut self,
        sharer: &NodeId,
        path: &[u8],
        version: FileVersion,
        attributes: Attributes,
    ) -> Result<(), TreeError> {
        let name = entry_name(sharer, path).filter(|_| is_shared_path(path));
        let name = name.ok_or(TreeError::BadPath)?;
        let before = self.tree().share(sharer, path)?.map(|share| share.inode);
        let inode = before.unwrap_or_else(|| self.new_inode());
        let file = SharedFile { version, path: path.to_vec() };
        self.one(|wish| {
            wish.settle_inode(inode, Node::Shared(file), attributes)?;
            Ok(wish.settle_entry(SHARES, name, Target::Linked(inode))?)
        })
    }

    /// Says that a node shares nothing under a path any more.
    pub fn unshare(&mut self, sharer: &NodeId, path: &[u8]) -> Result<(), TreeError> {
        let name = entry_name(sharer, path).ok_or(TreeError::BadPath)?;
        self.one(|wish| Ok(wish.settle_entry(SHARES, name, Target::Removed)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_as_their_paths_and_are_told_apart() {
        let (ann, bob) = (NodeId([1; 32]), NodeId([2; 32]));
        let name = |who, path: &[u8]| entry_name(who, path).unwrap().as_bytes().to_vec();
        let sorted =
            [name(&ann, b"/a/x"), name(&ann, b"/a.b"), name(&ann, b"/b"), name(&bob, b"/a")];
        assert!(sorted.is_sorted());
        let long = |end: &str| format!("/{}/{end}", "n".repeat(250)).into_bytes();
        assert_ne!(name(&ann, &long("x")), name(&ann, &long("y")));
        assert!(name(&ann, &long("x")).len() <= 255);
    }

    #[test]
    fn a_walk_wants_what_is_at_or_below_its_path() {
        let walk = ShareWalk::new(Some((&NodeId([1; 32]), b"/films")));
        assert!(walk.wants(b"/films") && walk.wants(b"/films/a"));
        assert!(!walk.wants(b"/films2") && !walk.wants(b"/film"));
        assert!(ShareWalk::new(None).wants(b"/anything"));
    }
}
