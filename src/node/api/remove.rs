//! Removing. Owns the order in which a directory's names go: what is in a directory before it, and
//! so many at a time, so that memory does not grow with it. What a removal is, is the tree's.

use super::files::millis;
use super::{Error, Outcome};
use crate::core::catalogue::Node as TreeNode;
use crate::core::tree::{Entry, Planner, Tree, TreeError, Walk};
use crate::crypto::EpochKeys;
use crate::id::InodeId;
use crate::node::publish::Publication;
use crate::node::{PublishError, ShareError, Shared};
use crate::wire::control::{PathText, Removed, Rm, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names that are removed or given back with one sync.
pub(super) const BATCH: usize = 256;
/// A name of which everything goes that is no directory.
struct Cleared {
    parent: InodeId,
    name: Vec<u8>,
    /// What has it, and its conflict copies.
    entries: Vec<Entry>,
}

/// Some of what is below a directory.
#[derive(Default)]
struct Page {
    names: Vec<Cleared>,
    /// Directories that have nothing in them but what is here, the deepest first: how deep, and
    /// which.
    dirs: Vec<(usize, InodeId)>,
    more: bool,
}

/// The way through a directory that is emptied: a directory comes when all that is in it has come.
struct Way {
    walk: Walk,
    /// The directories that the walk is in.
    open: Vec<(Vec<u8>, InodeId)>,
    /// The name that conflict copies belong to.
    name: (InodeId, Vec<u8>),
}

impl Way {
    fn new(dir: InodeId, path: &PathText) -> Self {
        let walk = Walk::new(dir, &path.0, true);
        Self { walk, open: Vec::new(), name: (dir, Vec::new()) }
    }

    fn next(&mut self, tree: &Tree<'_>) -> Result<Page, TreeError> {
        let Self { walk, open, name } = self;
        let mut page = Page::default();
        let mut visit = |path: &[u8], entry: &Entry| {
            while open.last().is_some_and(|(above, _)| !is_below(path, above)) {
                page.dirs.extend(open.pop().map(|(above, dir)| (depth(&above), dir)));
            }
            if !entry.conflict {
                *name = (entry.parent, entry.name.clone());
            }
            if entry.is_dir() {
                open.push((path.to_vec(), entry.inode));
            } else {
                page.add(name, entry);
            }
            page.names.len() + page.dirs.len() < BATCH
        };
        page.more = tree.walk(walk, &mut visit)?;
        if !page.more {
            page.dirs.extend(open.drain(..).rev().map(|(above, dir)| (depth(&above), dir)));
        }
        page.dirs.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        Ok(page)
    }
}

impl Page {
    fn add(&mut self, (parent, name): &(InodeId, Vec<u8>), entry: &Entry) {
        let same = |last: &&mut Cleared| last.parent == *parent && last.name == *name;
        match self.names.last_mut().filter(same) {
            Some(last) => last.entries.push(entry.clone()),
            None => {
                let (parent, name, entries) = (*parent, name.clone(), vec![entry.clone()]);
                self.names.push(Cleared { parent, name, entries });
            }
        }
    }
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

fn depth(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

/// Whether something was done; what somebody else has done, or made impossible, is passed over.
fn passed_over(done: Result<(), TreeError>) -> Result<bool, TreeError> {
    match done {
        Ok(()) => Ok(true),
        Err(TreeError::NotFound | TreeError::NotEmpty) => Ok(false),
        Err(err) => Err(err),
    }
}

fn count(removed: &mut Removed, entry: &Entry) {
    match &entry.version.node {
        TreeNode::Dir { .. } => removed.dirs += 1,
        TreeNode::Link(_) | TreeNode::Special(_) | TreeNode::Shared(_) => removed.files += 1,
        TreeNode::File(file) => {
            removed.files += 1;
            removed.bytes = removed.bytes.saturating_add(file.size);
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
            path: None,
        };
        let Some(path) = self.rm_path(&rm)? else {
            self.purge_unlisted(&rm, &mut removed).await?;
            return Ok(removed);
        };
        removed.path = Some(path.clone());
        let found = self.with_tree(|tree| tree.resolve(&path.0));
        let entry = match found {
            Err(TreeError::NotFound) if rm.purge => {
                self.purge_removed(&path, rm.recursive, &mut removed).await?;
                return Ok(removed);
            }
            found => found?,
        };
        if entry.name.is_empty() {
            return Err(TreeError::IsADirectory.into());
        }
        let mut page = Page::default();
        if entry.is_dir() && rm.recursive {
            self.rm_below(&path, entry.inode, &keys, &mut removed, &mut going).await?;
            page.dirs.push((0, entry.inode));
            self.rm_page(&page, &keys, &mut removed, &mut going).await?;
            if self.with_tree(|tree| Ok(tree.inode(&entry.inode)?))?.is_some() {
                return Err(Error::FilledAgain);
            }
        } else {
            self.rm_one(&path, &entry, &keys, &mut removed, &mut going).await?;
        }
        // One file may have several names, of which the last one is gone now.
        removed.kept += self.purge(going).await?.len() as u64;
        Ok(removed)
    }

    /// Removes one name, or an empty directory.
    async fn rm_one(
        self: &Arc<Self>,
        path: &PathText,
        entry: &Entry,
        keys: &EpochKeys,
        removed: &mut Removed,
        going: &mut BTreeSet<InodeId>,
    ) -> Outcome<()> {
        let purged = removed.purged && !entry.is_dir();
        if purged {
            self.may_purge(&entry.inode)?;
        }
        let done = self.publish_plans(keys, &[path], |planner, path| planner.remove(&path.0)).await;
        match done {
            Err(Error::Tree(TreeError::NotEmpty)) if removed.purged => {
                return Err(Error::NotEmptyToPurge);
            }
            done => drop(done?),
        }
        count(removed, entry);
        going.extend(self.purge(purged.then_some(entry.inode)).await?);
        Ok(())
    }

    /// The path that is meant; none: an unlisted file.
    fn rm_path(&self, rm: &Rm) -> Outcome<Option<PathText>> {
        let digits = match &rm.target {
            Target::Path(path) => return Ok(Some(path.clone())),
            Target::Share { .. } => return Err(ShareError::InPlace.into()),
            Target::Hash(hash) => hash.to_string(),
            Target::Prefix(digits) => digits.clone(),
            Target::Link(link) => link.hash.to_string(),
        };
        let found = self.with_tree(|tree| {
            let mut found = Vec::new();
            for (inode, hash) in tree.find_named(&digits)? {
                if !tree.shows(&inode, &hash)? {
                    return Err(TreeError::ConflictCopy);
                }
                for path in tree.paths_of(&inode, BATCH)? {
                    found.push((hash, Some(PathText(path))));
                }
            }
            found.sort();
            found.dedup();
            Ok(found)
        })?;
        match found.as_slice() {
            [] => Ok(None),
            [(_, path)] => Ok(path.clone()),
            _ => Err(Error::Ambiguous { found }),
        }
    }

    /// Removes everything in a directory, but what comes into it meanwhile.
    async fn rm_below(
        self: &Arc<Self>,
        path: &PathText,
        dir: InodeId,
        keys: &EpochKeys,
        removed: &mut Removed,
        going: &mut BTreeSet<InodeId>,
    ) -> Outcome<()> {
        let mut way = Some(Way::new(dir, path));
        while let Some(mut at) = way {
            let shared = self.clone();
            // A job of its own reads it: of many names it takes long.
            let read = move || {
                let page = shared.with_tree(|tree| at.next(tree))?;
                Ok::<_, TreeError>((page, at))
            };
            let (page, at) = self.job(read).await.map_err(Error::Disk)??;
            self.rm_page(&page, keys, removed, going).await?;
            way = page.more.then_some(at);
        }
        Ok(())
    }

    /// Removes these names, then these directories, the deepest first, and when that is wanted lets
    /// the content go; notes the files that go only with another name. What is gone already is
    /// passed over, and a directory that something has come into.
    async fn rm_page(
        self: &Arc<Self>,
        page: &Page,
        keys: &EpochKeys,
        removed: &mut Removed,
        going: &mut BTreeSet<InodeId>,
    ) -> Outcome<()> {
        let entries = page.names.iter().flat_map(|name| &name.entries);
        let files: BTreeSet<InodeId> =
            entries.filter(|_| removed.purged).map(|entry| entry.inode).collect();
        files.iter().try_for_each(|inode| self.may_purge(inode))?;
        let done = self
            .publish_plans(keys, &page.names, |planner, name| {
                passed_over(planner.clear(name.parent, &name.name))
            })
            .await?;
        for (name, _) in page.names.iter().zip(done).filter(|(_, done)| *done) {
            name.entries.iter().for_each(|entry| count(removed, entry));
        }
        for level in page.dirs.chunk_by(|one, two| one.0 == two.0) {
            let done = self.publish_plans(keys, level, |planner, (_, dir)| {
                passed_over(planner.remove_dir(*dir))
            });
            removed.dirs += done.await?.into_iter().filter(|done| *done).count() as u64;
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
}
