//! Removing. Owns the order in which a directory's names go, and who may let content go before its
//! time; what a removal is, is the tree's.

use super::files::millis;
use super::{Error, Outcome};
use crate::core::catalogue::{FileCandidate, Node as TreeNode, UNLISTED, files_by_lookup};
use crate::core::tree::{Due, Entry, Planner, Removed as Gone, TreeError, Walk};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, FileHash, InodeId};
use crate::node::publish::Publication;
use crate::node::release::ReleaseError;
use crate::node::{PublishError, Shared};
use crate::wire::control::{PathText, Removed, Rm, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names that are removed or given back with one sync.
pub(super) const BATCH: usize = 256;
/// Most directories that one command removes.
const DIRS_MAX: usize = 256 * 1024;

impl From<ReleaseError> for Error {
    fn from(err: ReleaseError) -> Self {
        match err {
            ReleaseError::Publish(err) => Self::Publish(err),
            ReleaseError::Get(err) => Self::Get(err),
            ReleaseError::Tree(err) => Self::Tree(err),
            ReleaseError::Io(err) => Self::Disk(err),
            ReleaseError::TooLarge | ReleaseError::Unclaimed => {
                Self::Disk(std::io::Error::other(err))
            }
        }
    }
}

impl Shared {
    pub(super) async fn rm(self: &Arc<Self>, rm: Rm) -> Outcome<Removed> {
        let keys = self.wait_for_keys().await?;
        let mut going = BTreeSet::new();
        let mut removed = Removed {
            files: 0,
            dirs: 0,
            bytes: 0,
            purged: rm.purge,
            kept: 0,
            restorable_ms: if rm.purge { 0 } else { millis(self.config.history) },
            grace_ms: millis(self.config.gc_grace),
        };
        let Some(path) = self.rm_path(&rm)? else {
            self.purge_unlisted(&rm, &mut removed).await?;
            return Ok(removed);
        };
        let found = self.with_tree(|tree| tree.resolve(&path.0));
        let entry = match found {
            Err(TreeError::NotFound) if rm.purge => {
                self.purge_removed(&path, rm.recursive, &mut removed).await?;
                return Ok(removed);
            }
            found => found?,
        };
        if entry.is_dir() {
            if entry.name.is_empty() {
                return Err(TreeError::IsADirectory.into());
            }
            if rm.recursive {
                self.rm_below(&path, &entry, &keys, &mut removed, &mut going).await?;
            }
        }
        self.rm_all(&[(path.0, entry)], &keys, &mut removed, &mut going).await?;
        // One file may have several names, of which the last one is gone now.
        removed.kept += self.purge(going).await?.len() as u64;
        Ok(removed)
    }

    /// The path that is meant; none: an unlisted file.
    fn rm_path(&self, rm: &Rm) -> Outcome<Option<PathText>> {
        let digits = match &rm.target {
            Target::Path(path) => return Ok(Some(path.clone())),
            Target::Hash(hash) => hash.to_string(),
            Target::Prefix(digits) => digits.clone(),
        };
        let found = self.with_tree(|tree| {
            let mut found = Vec::new();
            for one in tree.find(&digits)?.into_iter().filter(|one| one.current) {
                for path in tree.paths_of(&one.inode, BATCH)? {
                    found.push((one.hash, Some(PathText(path))));
                }
            }
            Ok(found)
        })?;
        match found.as_slice() {
            [] => Ok(None),
            [(_, path)] => Ok(path.clone()),
            _ => Err(Error::Ambiguous { found }),
        }
    }

    /// Removes everything in a directory.
    async fn rm_below(
        self: &Arc<Self>,
        path: &PathText,
        top: &Entry,
        keys: &EpochKeys,
        removed: &mut Removed,
        going: &mut BTreeSet<InodeId>,
    ) -> Outcome<()> {
        let mut walk = Walk::new(top.inode, &path.0, true);
        let mut dirs: Vec<(Vec<u8>, Entry)> = Vec::new();
        let mut more = true;
        while more {
            let mut page = Vec::new();
            more = self.with_tree(|tree| {
                Ok(tree.walk(&mut walk, &mut |path, entry| {
                    let list = if entry.is_dir() { &mut dirs } else { &mut page };
                    list.push((path.to_vec(), entry.clone()));
                    page.len() < BATCH
                })?)
            })?;
            // A conflict copy has no name of its own: it goes with the name that it belongs to.
            page.retain(|(_, entry)| !entry.conflict);
            self.rm_all(&page, keys, removed, going).await?;
            if dirs.len() > DIRS_MAX {
                return Err(TreeError::NotEmpty.into());
            }
        }
        // Those that are in others go before them.
        let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
        dirs.retain(|(_, entry)| !entry.conflict);
        dirs.sort_by_key(|(path, _)| std::cmp::Reverse(depth(path)));
        for level in dirs.chunk_by(|a, b| depth(&a.0) == depth(&b.0)) {
            for some in level.chunks(BATCH) {
                self.rm_all(some, keys, removed, going).await?;
            }
        }
        Ok(())
    }

    /// Removes these names and, when that is wanted, lets the content go; notes the files that go
    /// only with another name.
    async fn rm_all(
        self: &Arc<Self>,
        names: &[(Vec<u8>, Entry)],
        keys: &EpochKeys,
        removed: &mut Removed,
        going: &mut BTreeSet<InodeId>,
    ) -> Outcome<()> {
        if names.is_empty() {
            return Ok(());
        }
        let files = names.iter().filter(|(_, entry)| !entry.is_dir()).map(|(_, entry)| entry.inode);
        let files: Vec<InodeId> = files.filter(|_| removed.purged).collect();
        files.iter().try_for_each(|inode| self.may_purge(inode))?;
        self.publish_plans(keys, names, |planner, (path, _)| planner.remove(path)).await?;
        for (_, entry) in names {
            match &entry.version.node {
                TreeNode::Dir { .. } => removed.dirs += 1,
                TreeNode::Link(_) | TreeNode::Special(_) => removed.files += 1,
                TreeNode::File(file) => {
                    removed.files += 1;
                    removed.bytes = removed.bytes.saturating_add(file.size);
                }
            }
        }
        going.extend(self.purge(files).await?);
        Ok(())
    }

    /// Plans a change for each of these, and publishes them together; what each came to.
    pub(super) async fn publish_plans<T, R>(
        self: &Arc<Self>,
        keys: &EpochKeys,
        of: &[T],
        plan: impl Fn(&mut Planner<'_, '_>, &T) -> Result<R, TreeError>,
    ) -> Outcome<Vec<R>> {
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let plan_all = |planner: &mut Planner<'_, '_>| -> Outcome<Vec<R>> {
            of.iter().map(|one| plan(planner, one).map_err(Error::from)).collect()
        };
        let (done, records) = self.sign_plan(keys, plan_all)?;
        if records.is_empty() {
            return Ok(done);
        }
        let needed = 2.min(1 + self.view().others().count());
        let own =
            Publication { records, needed, planned: Some(planning), ..Publication::default() };
        self.publish_names(own).await?;
        Ok(done)
    }

    /// Publishes what changes names and stores nothing.
    pub(super) async fn publish_names(self: &Arc<Self>, own: Publication) -> Outcome<()> {
        match self.publish(own).await {
            // It is said here, and the others hear of it when they answer again.
            Ok(_) | Err(PublishError::TooFew { kept: 1.., .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    /// Only who put it, or an admin, may let content go before its time.
    fn may_purge(&self, inode: &InodeId) -> Outcome<()> {
        let mine = self.is_admin(&self.me)
            || self.with_tree(|tree| Ok(tree.is_all_by(inode, &self.me)?))?;
        if mine { Ok(()) } else { Err(Error::NotYours) }
    }

    /// Lets everything go that files without a name ever held; those that have another name.
    async fn purge(
        self: &Arc<Self>,
        inodes: impl IntoIterator<Item = InodeId>,
    ) -> Outcome<Vec<InodeId>> {
        let (mut named, mut unnamed) = (Vec::new(), Vec::new());
        for inode in inodes {
            let is_named = !self.with_tree(|tree| Ok(tree.paths_of(&inode, 1)?))?.is_empty();
            (if is_named { &mut named } else { &mut unnamed }).push(inode);
        }
        // Of a file with many versions some claims are due at a time.
        while !unnamed.is_empty() {
            let mut claims: Vec<ClaimId> = Vec::new();
            for inode in std::mem::take(&mut unnamed) {
                if let Some(Due::Claims(of)) =
                    self.with_tree(|tree| Ok(tree.due_claims(&inode)?))?
                {
                    claims.extend(of);
                    unnamed.push(inode);
                }
            }
            for claims in claims.chunks(BATCH) {
                self.release(claims, self.sys.clock.wall_ms()).await?;
            }
        }
        Ok(named)
    }

    /// Purges something that was removed before.
    async fn purge_removed(
        self: &Arc<Self>,
        path: &PathText,
        recursive: bool,
        removed: &mut Removed,
    ) -> Outcome<()> {
        let top = self.removed_at(path)?;
        if top.is_dir() && !recursive {
            return Err(TreeError::NotEmpty.into());
        }
        if !top.is_dir() {
            self.may_purge_all(&[&top])?;
            return self.purge_gone(&[&top], removed).await;
        }
        // Whether everything may go is asked before anything does.
        for goes in [false, true] {
            let mut walk = Some(self.removed_below(path)?);
            while let Some(at) = walk {
                let page = self.next_removed(at).await?;
                let gone: Vec<&Gone> = page.gone.iter().collect();
                if goes {
                    self.purge_gone(&gone, removed).await?;
                } else {
                    self.may_purge_all(&gone)?;
                }
                walk = page.more;
            }
        }
        Ok(())
    }

    fn may_purge_all(&self, gone: &[&Gone]) -> Outcome<()> {
        let files = gone.iter().filter(|gone| !gone.is_dir());
        files.map(|gone| &gone.inode).try_for_each(|inode| self.may_purge(inode))
    }

    async fn purge_gone(self: &Arc<Self>, gone: &[&Gone], removed: &mut Removed) -> Outcome<()> {
        let mut inodes = BTreeSet::new();
        for gone in gone {
            if let TreeNode::File(file) = &gone.version.node {
                removed.files += 1;
                removed.bytes = removed.bytes.saturating_add(file.size);
                inodes.insert(gone.inode);
            }
        }
        removed.kept += self.purge(inodes).await?.len() as u64;
        Ok(())
    }

    /// Purges a file that has no name, by its hash: the records that this node, or for an admin
    /// anybody, made of it.
    async fn purge_unlisted(self: &Arc<Self>, rm: &Rm, removed: &mut Removed) -> Outcome<()> {
        let nowhere = || Error::NotFound { asked: 0, unreachable: 0 };
        let Target::Hash(hash) = rm.target else { return Err(nowhere()) };
        let found = self.unlisted(&hash)?;
        if found.is_empty() {
            return Err(nowhere());
        }
        if !rm.purge {
            return Err(Error::Unlisted);
        }
        let mine = |one: &FileCandidate| one.author == self.me || self.is_admin(&self.me);
        let claims: Vec<ClaimId> =
            found.iter().filter(|one| mine(one)).map(|one| one.file.claim).collect();
        if claims.is_empty() {
            return Err(Error::NotYours);
        }
        self.release(&claims, self.sys.clock.wall_ms()).await?;
        removed.files = 1;
        removed.kept = u64::from(claims.len() < found.len());
        Ok(())
    }

    fn unlisted(&self, hash: &FileHash) -> Outcome<Vec<FileCandidate>> {
        let keyring = self.catalogue.keyring();
        let mut found = Vec::new();
        self.read_records(|view| {
            for keys in keyring.iter() {
                found.extend(files_by_lookup(view, &keys.lookup(hash))?);
            }
            Ok(())
        })?;
        found.retain(|one| one.file.flags & UNLISTED != 0);
        Ok(found)
    }
}
