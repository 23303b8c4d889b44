//! Conflict copies: which there are, and what a person wants of them. Owns the claims that copies
//! need to become files of their own; what is in conflict, and how that ends, is the tree's.

use super::{Error, Outcome};
use crate::core::catalogue::Node as TreeNode;
use crate::core::tree::{Conflict, Entry, NewFile, Planner, Tree, TreeError};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, InodeId};
use crate::node::publish::Publication;
use crate::node::records::{Snapshot, stopping};
use crate::node::release::ReleaseError;
use crate::node::{PublishError, Shared, joined};
use crate::wire::control::{ConflictInfo, PathText, Resolved};
use std::sync::Arc;

/// Names that are looked at with one look at the tables, where each has to be: all names of a
/// directory are read for each look.
const PAGE: usize = 4096;
/// Most directories that are remembered to be looked into.
const DIRS_MAX: usize = 256 * 1024;
/// How often it is begun anew because what is in conflict has changed meanwhile.
const ATTEMPTS: usize = 3;

/// A directory with a part of its names that is looked at next.
struct Look {
    dir: InodeId,
    path: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl Shared {
    /// Calls `visit` for everything that is in conflict at a path or below, until it returns false.
    pub(super) fn conflicts(
        &self,
        path: &PathText,
        visit: &mut dyn FnMut(ConflictInfo) -> bool,
    ) -> Outcome<()> {
        self.keys()?;
        let top = self.with_tree(|tree| tree.resolve(&path.0))?;
        let keyring = self.catalogue.keyring();
        let mut found = Ok(None);
        self.read_records(|view| {
            found = Tree::new(view, &keyring).conflict(&path.0).map(|conflict| {
                let conflict = conflict?;
                let dir = dir_of(&path.0);
                Some(self.conflict_info(view, dir, conflict.entries()))
            });
            Ok(())
        })?;
        if !found?.is_none_or(&mut *visit) || !top.is_dir() {
            return Ok(());
        }
        let base = path.0.strip_suffix(b"/").unwrap_or(&path.0).to_vec();
        if let Some(paths) = self.with_tree(|tree| Ok(tree.suspects()?))? {
            return self.conflicts_among(&base, paths, visit);
        }
        let mut open = vec![Look { dir: top.inode, path: base, after: None }];
        while let Some(look) = open.pop() {
            if !self.conflicts_in(look, &mut open)?.into_iter().all(&mut *visit) {
                break;
            }
        }
        Ok(())
    }

    /// Calls `visit` for what is in conflict among these paths, as far as they are below another.
    fn conflicts_among(
        &self,
        base: &[u8],
        paths: Vec<Vec<u8>>,
        visit: &mut dyn FnMut(ConflictInfo) -> bool,
    ) -> Outcome<()> {
        let keyring = self.catalogue.keyring();
        let is_below =
            |path: &Vec<u8>| path.strip_prefix(base).is_some_and(|rest| rest.starts_with(b"/"));
        for path in paths.into_iter().filter(is_below) {
            let found = self.read_records(|view| {
                let conflict = Tree::new(view, &keyring).suspected(&path)?;
                let dir = dir_of(&path);
                Ok(conflict.map(|conflict| self.conflict_info(view, dir, conflict.entries())))
            })?;
            if !found.is_none_or(&mut *visit) {
                break;
            }
        }
        Ok(())
    }

    /// What is in conflict among some names of a directory; notes what is to be looked at next.
    fn conflicts_in(&self, look: Look, open: &mut Vec<Look>) -> Outcome<Vec<ConflictInfo>> {
        let Look { dir, path, after } = look;
        let keyring = self.catalogue.keyring();
        let (found, dirs, next) = self.read_records(|view| {
            let page = Tree::new(view, &keyring).list(&dir, after.as_deref(), PAGE)?;
            let groups = page.entries.chunk_by(|_, next| next.conflict);
            let groups = groups.filter(|group| group.len() > 1);
            let found: Vec<ConflictInfo> =
                groups.map(|group| self.conflict_info(view, &path, group)).collect();
            let below = |entry: &Entry| Look {
                dir: entry.inode,
                path: [&path[..], b"/", &entry.name].concat(),
                after: None,
            };
            let dirs = page.entries.iter().filter(|entry| entry.is_dir()).map(below);
            Ok((found, dirs.collect::<Vec<_>>(), page.next))
        })?;
        // What is opened last is looked into first.
        open.extend(next.map(|after| Look { dir, path, after: Some(after) }));
        let room = DIRS_MAX.saturating_sub(open.len());
        open.extend(dirs.into_iter().take(room).rev());
        Ok(found)
    }

    fn conflict_info(&self, view: &Snapshot<'_>, dir: &[u8], entries: &[Entry]) -> ConflictInfo {
        let path = |entry: &Entry| PathText([dir, b"/", &entry.name].concat());
        let versions = entries.iter().map(|entry| self.file_info(view, path(entry), entry));
        ConflictInfo { path: path(&entries[0]), versions: versions.collect() }
    }

    /// Ends a conflict: keeps the version that is called so, or without a call all of them, each
    /// under a name of its own. Dropping the future stops nothing: chunks would stay claimed for a
    /// file that nobody sees.
    pub(super) async fn end_conflict(
        self: &Arc<Self>,
        path: &PathText,
        keep: Option<&PathText>,
    ) -> Outcome<Resolved> {
        let keys = self.wait_for_keys().await?;
        if let Some(called) = keep {
            return self.keep_one(&keys, path, called).await;
        }
        let (shared, path) = (self.clone(), path.clone());
        let work = async move { shared.keep_all(&keys, &path).await };
        let resolved = joined(tokio::spawn(work).await);
        resolved.unwrap_or_else(|| Err(PublishError::from(stopping()).into()))
    }

    async fn keep_one(
        self: &Arc<Self>,
        keys: &EpochKeys,
        path: &PathText,
        called: &PathText,
    ) -> Outcome<Resolved> {
        let (conflict, kept) = self.with_tree(|tree| {
            let conflict = tree.conflict(&path.0)?.ok_or(TreeError::NoConflict)?;
            let base = in_dir(&path.0, &conflict.winner().name);
            let kept = conflict.find(tree, &base, &called.0)?.clone();
            Ok((conflict, kept))
        })?;
        self.publish_plans(keys, &[()], |planner, ()| {
            if planner.tree().conflict(&path.0)?.as_ref() != Some(&conflict) {
                return Err(TreeError::NoConflict);
            }
            planner.keep_one(&conflict, &kept)
        })
        .await?;
        let base = PathText(in_dir(&path.0, &conflict.winner().name));
        let dropped = conflict.entries().len() as u64 - 1;
        Ok(Resolved { kept: vec![base.clone()], path: base, dropped })
    }

    async fn keep_all(self: &Arc<Self>, keys: &EpochKeys, path: &PathText) -> Outcome<Resolved> {
        for _ in 0..ATTEMPTS {
            let conflict = self.conflict_at(path)?;
            let (mut files, mut records, mut commits) = (Vec::new(), Vec::new(), Vec::new());
            for copy in conflict.versions() {
                let TreeNode::File(file) = &copy.version.node else { continue };
                let own = ClaimId(self.sys.rng.bytes());
                let kept = self.keep_version(file, own).await?;
                records.extend(kept.record);
                commits.push(own);
                let attributes = copy.version.attributes.clone();
                files.push(NewFile { version: kept.version, attributes });
            }
            let planning = self.catalogue.planning.clone().lock_owned().await;
            // Meanwhile somebody may have changed one of them.
            if self.conflict_at(path)? != conflict {
                continue;
            }
            let plan = |planner: &mut Planner<'_, '_>| -> Outcome<()> {
                planner.keep_all(&conflict, files).map_err(Error::from)
            };
            let ((), named) = self.sign_plan(keys, plan)?;
            records.extend(named);
            let needed = 2.min(1 + self.view().others().count());
            let (planned, attempts) = (Some(planning), Vec::new());
            self.publish_names(Publication { records, commits, needed, planned, attempts }).await?;
            let entries = conflict.entries().iter();
            let kept: Vec<PathText> =
                entries.map(|entry| PathText(in_dir(&path.0, &entry.name))).collect();
            return Ok(Resolved { path: kept[0].clone(), kept, dropped: 0 });
        }
        Err(ReleaseError::Unclaimed.into())
    }

    fn conflict_at(&self, path: &PathText) -> Outcome<Conflict> {
        Ok(self.with_tree(|tree| tree.conflict(&path.0)?.ok_or(TreeError::NoConflict))?)
    }
}

/// The path of the directory that something is in, without the last slash.
fn dir_of(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

/// The path of another name in the same directory.
fn in_dir(path: &[u8], name: &[u8]) -> Vec<u8> {
    [dir_of(path), b"/", name].concat()
}
