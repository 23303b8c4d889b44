//! Letting content go before its time. Owns who may do so, and what goes then; when content goes by
//! itself is the tree's rule, and how it is let go `node::release`'s.

use super::remove::BATCH;
use super::{Error, Outcome};
use crate::core::catalogue::{FileCandidate, Node as TreeNode, UNLISTED, files_by_lookup};
use crate::core::tree::{Due, Removed as Gone};
use crate::id::{ClaimId, FileHash, InodeId};
use crate::node::Shared;
use crate::node::release::ReleaseError;
use crate::wire::control::{PathText, Removed, Rm, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// Only who put it, or an admin, may let content go before its time.
    pub(super) fn may_purge(&self, inode: &InodeId) -> Outcome<()> {
        let mine = self.is_admin(&self.me)
            || self.with_tree(|tree| Ok(tree.is_all_by(inode, &self.me)?))?;
        if mine { Ok(()) } else { Err(Error::NotYours) }
    }

    /// Lets everything go that files without a name ever held; those that have another name.
    pub(super) async fn purge(
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
    pub(super) async fn purge_removed(
        self: &Arc<Self>,
        path: &PathText,
        recursive: bool,
        removed: &mut Removed,
    ) -> Outcome<()> {
        let top = self.removed_at(path)?;
        if top.is_dir() && !recursive {
            return Err(Error::NotEmptyToPurge);
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
    pub(super) async fn purge_unlisted(
        self: &Arc<Self>,
        rm: &Rm,
        removed: &mut Removed,
    ) -> Outcome<()> {
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
