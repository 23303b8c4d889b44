//! Giving back what was removed, and the list of it. Owns how much of that is done with one sync;
//! what can be given back, and where it goes, is the tree's.

use super::files::millis;
use super::history::Former;
use super::remove::BATCH;
use super::{Error, Outcome};
use crate::core::catalogue::Node as TreeNode;
use crate::core::hlc;
use crate::core::tree::{Planner, Removed as Gone, RemovedWalk, Tree, TreeError};
use crate::crypto::EpochKeys;
use crate::node::Shared;
use crate::wire::control::{FileKind, PathText, RemovedInfo, Restored};
use std::sync::Arc;

/// What can be given back.
enum Restorable {
    Removed(Gone),
    Former(Former),
}

/// Some of what was removed below a path.
pub(super) struct GonePage {
    pub(super) gone: Vec<Gone>,
    /// How to go on; none: this was all.
    pub(super) more: Option<RemovedWalk>,
}

impl Shared {
    pub(super) async fn restore(
        self: &Arc<Self>,
        path: &PathText,
        recursive: bool,
    ) -> Outcome<Restored> {
        let keys = self.wait_for_keys().await?;
        let mut restored = Restored { files: 0, dirs: 0 };
        match self.with_tree(|tree| tree.resolve(&path.0)) {
            Ok(entry) if entry.is_dir() && recursive => {}
            Ok(_) => return Err(TreeError::Exists.into()),
            Err(TreeError::NotFound) => match self.restorable(path)? {
                Restorable::Removed(top) => {
                    self.publish_plans(&keys, &[&top], |planner, gone| planner.restore(gone))
                        .await?;
                    count(&mut restored, &top);
                    if !recursive || !top.is_dir() {
                        return Ok(restored);
                    }
                }
                Restorable::Former(former) => {
                    restored.files = u64::from(self.restore_version(&keys, former).await?);
                    return Ok(restored);
                }
            },
            Err(err) => return Err(err.into()),
        }
        let mut walk = Some(self.removed_below(path)?);
        while let Some(at) = walk {
            let page = self.next_removed(at).await?;
            self.restore_all(&keys, &page.gone, &mut restored).await?;
            walk = page.more;
        }
        Ok(restored)
    }

    /// Gives back as much of this as can be: a name may have been taken meanwhile.
    async fn restore_all(
        self: &Arc<Self>,
        keys: &EpochKeys,
        gone: &[Gone],
        restored: &mut Restored,
    ) -> Outcome<()> {
        let restore = |planner: &mut Planner<'_, '_>, gone: &Gone| match planner.restore(gone) {
            Ok(_) => Ok(true),
            Err(TreeError::Exists) => Ok(false),
            Err(err) => Err(err),
        };
        let done = self.publish_plans(keys, gone, restore).await?;
        let done = gone.iter().zip(done).filter(|(_, done)| *done);
        done.for_each(|(gone, _)| count(restored, gone));
        Ok(())
    }

    /// What can be given back by that name: what was removed, or else a former version.
    fn restorable(&self, path: &PathText) -> Outcome<Restorable> {
        if let Some(gone) = self.with_tree(|tree| tree.removed_at(&path.0))? {
            return Ok(Restorable::Removed(gone));
        }
        let keyring = self.catalogue.keyring();
        let mut former = Ok(None);
        self.read_records(|view| {
            former = self.former(&Tree::new(view, &keyring), path);
            Ok(())
        })?;
        Ok(Restorable::Former(former?.ok_or(TreeError::NotFound)?))
    }

    pub(super) fn removed_at(&self, path: &PathText) -> Outcome<Gone> {
        let gone = self.with_tree(|tree| tree.removed_at(&path.0))?;
        Ok(gone.ok_or(TreeError::NotFound)?)
    }

    /// Begins to visit what was removed below a path.
    pub(super) fn removed_below(&self, path: &PathText) -> Outcome<RemovedWalk> {
        let dirs = self.with_tree(|tree| tree.dirs_of(&path.0))?.ok_or(TreeError::NotFound)?;
        Ok(RemovedWalk::new(dirs, &path.0))
    }

    /// The next of what was removed. A job of its own reads it: of many names it takes long.
    pub(super) async fn next_removed(self: &Arc<Self>, mut walk: RemovedWalk) -> Outcome<GonePage> {
        let shared = self.clone();
        let read = move || {
            let mut gone = Vec::new();
            let more = shared.gone_page(&mut walk, &mut |_, one| gone.push(one.clone()))?;
            Ok(GonePage { gone, more: more.then_some(walk) })
        };
        self.job(read).await.map_err(Error::Disk)?
    }

    /// Visits the next of what was removed, one page of it; whether there may be more.
    fn gone_page(
        &self,
        walk: &mut RemovedWalk,
        visit: &mut dyn FnMut(&[u8], &Gone),
    ) -> Outcome<bool> {
        let mut visited = 0;
        let more = self.with_tree(|tree| {
            Ok(tree.walk_removed(walk, &mut |path, gone| {
                visit(path, gone);
                visited += 1;
                visited < BATCH
            })?)
        })?;
        Ok(more)
    }

    pub(super) fn list_removed(
        &self,
        path: &PathText,
        visit: &mut dyn FnMut(RemovedInfo) -> bool,
    ) -> Outcome<()> {
        self.keys()?;
        let history = millis(self.config.history);
        if let Err(TreeError::NotFound) = self.with_tree(|tree| tree.resolve(&path.0)) {
            let gone = self.removed_at(path)?;
            if !visit(info(&path.0, &gone, history)) || !gone.is_dir() {
                return Ok(());
            }
        }
        let mut walk = self.removed_below(path)?;
        loop {
            let mut page = Vec::new();
            let mut add = |path: &[u8], gone: &Gone| page.push(info(path, gone, history));
            let more = self.gone_page(&mut walk, &mut add)?;
            if !page.into_iter().all(&mut *visit) || !more {
                return Ok(());
            }
        }
    }
}

fn count(restored: &mut Restored, gone: &Gone) {
    *(if gone.is_dir() { &mut restored.dirs } else { &mut restored.files }) += 1;
}

fn info(path: &[u8], gone: &Gone, history_ms: u64) -> RemovedInfo {
    let (kind, hash, size) = match &gone.version.node {
        TreeNode::Dir { .. } => (FileKind::Dir, None, 0),
        TreeNode::Link(target) => (FileKind::Link, None, target.len() as u64),
        TreeNode::Special(_) | TreeNode::Shared(_) => (FileKind::Special, None, 0),
        TreeNode::File(file) => (FileKind::File, Some(file.hash), file.size),
    };
    let removed_ms = hlc::ms_of(gone.at);
    let until_ms = removed_ms.saturating_add(history_ms);
    RemovedInfo { path: PathText(path.to_vec()), kind, hash, size, removed_ms, until_ms }
}
