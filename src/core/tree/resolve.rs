//! The end of a conflict: one of the concurrent versions of a name is kept, or each gets a name of
//! its own. Owns which registers that touches. Everything here is a change like any other, so all
//! members see the same, and what is dropped stays in the history of the name.

use super::{Entry, NewFile, Planner, Tree, TreeError, Version, Which};
use crate::core::catalogue::{Name, Node, Place, Target};
use crate::id::InodeId;
use std::collections::BTreeSet;
use std::io;

/// What is in conflict under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What has the name, then its conflict copies; at least two.
    entries: Vec<Entry>,
}

impl Conflict {
    /// What has the name.
    pub fn winner(&self) -> &Entry {
        &self.entries[0]
    }

    /// What has the name, then its conflict copies.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The directory that it is in.
    fn parent(&self) -> InodeId {
        self.winner().parent
    }

    fn name(&self) -> Result<Name, TreeError> {
        Name::new(&self.winner().name).ok_or(TreeError::BadPath)
    }

    /// The conflict copies that are no inode of their own: they are concurrent versions of one that
    /// comes before them, and need an inode and a claim to get a name.
    pub fn versions(&self) -> Vec<&Entry> {
        let mut inodes = BTreeSet::new();
        let mut known = |entry: &&Entry| !inodes.insert(entry.inode);
        self.entries.iter().filter(|entry| known(entry)).collect()
    }

    /// The entry that a person calls by its name or path, or by the digits of its hash, or by the
    /// number that the history has for it.
    pub fn find(&self, tree: &Tree<'_>, path: &[u8], called: &[u8]) -> Result<&Entry, TreeError> {
        let dir = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let by_name = |entry: &&Entry| {
            let before = called.strip_suffix(&entry.name[..]);
            before.is_some_and(|before| before.is_empty() || *before == path[..dir])
        };
        if let Some(found) = self.entries.iter().find(by_name) {
            return Ok(found);
        }
        let which = std::str::from_utf8(called).ok().and_then(|text| Which::parse(text, 0));
        let version = match which {
            Some(which @ (Which::Number(_) | Which::Hash(_))) => {
                tree.history(path)?.find(&which).ok().map(|made| made.version.clone())
            }
            Some(Which::Moment(_)) | None => None,
        };
        let same = |entry: &&Entry| {
            version.as_ref().is_some_and(|version| entry.version.same_content(version))
        };
        self.entries.iter().find(same).ok_or(TreeError::NoSuchCopy)
    }
}

impl Tree<'_> {
    /// What is in conflict under a name, or where a conflict copy is; none: nothing is.
    pub fn conflict(&self, path: &[u8]) -> Result<Option<Conflict>, TreeError> {
        let Some((dirs, name)) = self.place_of(path)? else { return Err(TreeError::NotFound) };
        let mut entries = self.group(dirs.first(), name)?;
        if entries.is_empty() && !name.is_empty() {
            entries = self.conflict_group(dirs.first(), name)?.ok_or(TreeError::NotFound)?;
        }
        Ok((entries.len() > 1).then_some(Conflict { entries }))
    }
}

impl Planner<'_, '_> {
    /// Keeps one of what is in conflict under a name; the others end.
    pub fn keep_one(&mut self, conflict: &Conflict, kept: &Entry) -> Result<InodeId, TreeError> {
        // What is in a directory would go with it, and what was replaced by one would be hidden.
        if conflict.entries.iter().any(Entry::is_dir) {
            return Err(TreeError::ConflictOfDirs);
        }
        let (parent, name) = (conflict.parent(), conflict.name()?);
        self.one(|wish| {
            wish.end_versions(&kept.version, kept.inode)?;
            wish.settle_entry(parent, name, Target::Kept(kept.inode))?;
            Ok(kept.inode)
        })
    }

    /// Gives each conflict copy the name under which it is seen. `files` are what
    /// [`Conflict::versions`] has of files, in that order, each under a claim of its own.
    pub fn keep_all(&mut self, conflict: &Conflict, files: Vec<NewFile>) -> Result<(), TreeError> {
        let (parent, name) = (conflict.parent(), conflict.name()?);
        let mut files = files.into_iter();
        self.one(|wish| {
            let mut seen = BTreeSet::from([conflict.winner().inode]);
            for copy in &conflict.entries[1..] {
                let own = Name::new(&copy.name).ok_or(TreeError::BadPath)?;
                if wish.is_taken(&parent, &own)? {
                    return Err(TreeError::Exists);
                }
                let (mut node, attributes) =
                    (copy.version.node.clone(), copy.version.attributes.clone());
                if seen.insert(copy.inode) {
                    wish.name_inode(copy, parent, (name.clone(), own))?;
                    continue;
                }
                if let Node::File(_) = node {
                    let file = files.next().ok_or(TreeError::NotFound)?;
                    node = Node::File(file.version);
                }
                let inode = wish.new_inode();
                wish.set_inode(inode, node, attributes)?;
                wish.set_entry(parent, own, Target::Linked(inode))?;
            }
            let winner = conflict.winner();
            if winner.is_dir() {
                // A directory has no entry: those of the copies end.
                let ended = conflict.entries.iter().find(|entry| !entry.is_dir());
                if let Some(ended) = ended {
                    wish.settle_entry(parent, name, Target::Moved(ended.inode))?;
                }
                return Ok(());
            }
            wish.end_versions(&winner.version, winner.inode)?;
            Ok(wish.settle_entry(parent, name, Target::Kept(winner.inode))?)
        })
    }

    /// Gives an inode that loses under one name another one.
    fn name_inode(
        &mut self,
        copy: &Entry,
        parent: InodeId,
        (old, own): (Name, Name),
    ) -> io::Result<()> {
        if copy.is_dir() {
            let (place, previous) = (Place { parent, name: own }, Place { parent, name: old });
            let attributes = copy.version.attributes.clone();
            return self.place_dir(copy.inode, Some(place), Some(previous), attributes);
        }
        self.end_versions(&copy.version, copy.inode)?;
        self.set_entry(parent, own, Target::Linked(copy.inode))
    }

    /// Ends all concurrent versions of an inode but one.
    fn end_versions(&mut self, kept: &Version, inode: InodeId) -> io::Result<()> {
        if self.tree().versions(&inode)?.len() > 1 {
            self.settle_inode(inode, kept.node.clone(), kept.attributes.clone())?;
        }
        Ok(())
    }
}
