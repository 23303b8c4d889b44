//! Drafts across restarts: what programs had synced when this node ended is edited again, and a
//! version of it made. Owns the first look at the drafts, and which of them are of no use any more:
//! a version may have been made of one, or its file removed, before the draft was.

use super::WorkError;
use super::body::Body;
use super::draft::{Draft, Found, Named, Place, Seen};
use crate::core::catalogue::{Known, Node as TreeNode, known};
use crate::core::tree::{Heads, Spot};
use crate::core::work::Synced;
use crate::id::RecordId;
use crate::node::{Shared, lock};
use std::sync::Arc;

impl Shared {
    /// Where the drafts are.
    pub(super) fn drafts(&self) -> Place<'_> {
        Place { fs: &*self.sys.fs, dir: &self.config.data_dir, key: &self.key }
    }

    /// Takes up what was edited when this node ended, what was named last at the end: of two files
    /// of one name the later one has taken it from the other.
    pub(super) async fn restore_drafts(self: &Arc<Self>) -> Result<(), WorkError> {
        let shared = self.clone();
        let drafts = self.job(move || shared.found_drafts()).await??;
        if !drafts.is_empty() {
            // Others may have a version that this disk has not.
            self.reconcile_at_start().await;
        }
        let mut restored = Vec::new();
        for found in drafts {
            let id = found.head.id;
            if lock(&self.work.state).bodies.contains_key(&id) {
                continue;
            }
            let Some(synced) = self.synced(&found)? else {
                tracing::debug!(inode = %id.short(), "a draft was of no use any more");
                found.draft.remove(&*self.sys.fs)?;
                continue;
            };
            let state = &mut *lock(&self.work.state);
            self.tree(|tree| Ok(state.work.restore(tree, &synced)?))?;
            restored.push(id);
            state.bodies.insert(id, Arc::new(Body::restored(found.draft, &found.head)?));
            state.changed(self.sys.clock.now());
            tracing::info!(inode = %id.short(), "a file is edited that was synced before");
        }
        let state = &mut *lock(&self.work.state);
        for id in restored.into_iter().filter(|id| state.work.is_orphan(id)).collect::<Vec<_>>() {
            if let Some(body) = state.bodies.remove(&id) {
                body.lock().drop_draft(&*self.sys.fs)?;
            }
            state.work.forget(&id);
        }
        Ok(())
    }

    fn found_drafts(&self) -> Result<Vec<Found>, WorkError> {
        let mut drafts = Draft::all(self.drafts())?;
        if !drafts.is_empty() {
            self.name_found(&mut drafts)?;
        }
        Ok(drafts)
    }

    /// What a draft is to be edited as; none: nothing of it is missing anywhere.
    fn synced(&self, found: &Found) -> Result<Option<Synced>, WorkError> {
        let Found { head, clock, .. } = found;
        let mut seen: Heads = head.seen.iter().copied().collect();
        let mut attributes = head.attributes.clone();
        let (versions, links) =
            self.tree(|tree| Ok((tree.versions(&head.id)?, tree.links(&head.id)?)))?;
        let known_inode = !versions.is_empty();
        for version in versions.into_iter().filter(|one| one.author == self.key.id()) {
            let TreeNode::File(file) = &version.node else { continue };
            let made = file.record.map_or(Ok(None), |id| self.known_record(&id))?;
            if made.is_some_and(|made| made.clock > *clock && made.author == self.key.id()) {
                return Ok(None);
            }
            if !head.seen.contains(&version.record) {
                // Begun before it was synced, and written down after that.
                seen.add(version.record);
                attributes = version.attributes;
            }
        }
        // Otherwise the tree says them.
        let is_unnamed = !known_inode || links == 0;
        let names = match known_inode {
            false => self.new_names(found)?,
            true if is_unnamed => self.kept_names(found)?,
            true => Vec::new(),
        };
        if is_unnamed && names.is_empty() {
            return Ok(None);
        }
        Ok(Some(Synced { id: head.id, seen, attributes, names }))
    }

    /// The names of a file that nobody else knows of, as they were said last.
    fn new_names(&self, found: &Found) -> Result<Vec<(Spot, Option<Heads>)>, WorkError> {
        let mut names = Vec::new();
        for Named { parent, name, seen } in &found.new_names {
            let spot: Spot = (*parent, name.as_bytes().to_vec());
            let (entries, winning, all) = self.tree(|tree| {
                let (parent, name) = (&spot.0, &spot.1);
                let (entries, winning) =
                    (tree.entries_of_name(parent, name)?, tree.heads_of_name(parent, name)?);
                Ok((entries, winning, tree.all_heads_of_name(parent, name)?))
            })?;
            if self.own_since(&entries, found.named_at)?.iter().next().is_some() {
                // Something else has got it here since.
                continue;
            }
            // What this node removed there since, it removed before it was synced.
            let later = self.own_since(&all, found.named_at)?;
            let mut seen: Heads = match seen {
                Some(Seen(seen)) => {
                    self.own_since(&winning, 0)?.iter().chain(seen).copied().collect()
                }
                None => Heads::default(),
            };
            seen.extend(later);
            names.push((spot, Some(seen)));
        }
        Ok(names)
    }

    /// The names of a file that others have removed while it was edited.
    fn kept_names(&self, found: &Found) -> Result<Vec<(Spot, Option<Heads>)>, WorkError> {
        let mut names = Vec::new();
        for Named { parent, name, .. } in &found.head.names {
            let spot: Spot = (*parent, name.as_bytes().to_vec());
            let last = self.last_of(&spot)?.filter(|last| last.clock > found.clock);
            // It was removed here since, or something else has its name.
            if last.is_none_or(|last| last.author != self.key.id()) {
                let there = self.tree(|tree| Ok(tree.lookup(&spot.0, &spot.1)?))?;
                let is_other = there.is_some_and(|entry| entry.inode != found.head.id);
                // What others have put there is kept, too.
                names.push((spot, is_other.then(Heads::default)));
            }
        }
        Ok(names)
    }

    /// Those of these records that this node has made since.
    fn own_since(&self, heads: &Heads, clock: u64) -> Result<Heads, WorkError> {
        let mut own = Heads::default();
        for id in heads.iter() {
            let one = self.known_record(id)?;
            if one.is_some_and(|one| one.author == self.key.id() && one.clock > clock) {
                own.add(*id);
            }
        }
        Ok(own)
    }

    fn known_record(&self, id: &RecordId) -> Result<Option<Known>, WorkError> {
        Ok(self.read_records(|view| known(view, id))?)
    }

    /// The latest that is said of a name.
    fn last_of(&self, (parent, name): &Spot) -> Result<Option<Known>, WorkError> {
        let heads = self.tree(|tree| Ok(tree.all_heads_of_name(parent, name)?))?;
        let mut last = None::<Known>;
        for id in heads.iter() {
            let one = self.known_record(id)?;
            if one.as_ref().is_some_and(|one| last.as_ref().is_none_or(|l| l.clock < one.clock)) {
                last = one;
            }
        }
        Ok(last)
    }

    /// Makes the edits of all files durable, where that is possible without making a version. One
    /// for which it is not keeps no other one from it; the first error is told.
    pub(super) async fn sync_all(self: &Arc<Self>) -> Result<(), WorkError> {
        let bodies: Vec<_> = lock(&self.work.state).bodies.values().cloned().collect();
        let shared = self.clone();
        let sync = move || {
            let mut all = Ok(());
            for body in bodies {
                let synced = shared.sync_draft(&body).and_then(|listed| match listed {
                    true => Ok(()),
                    false => Err(WorkError::Unlisted),
                });
                all = all.and(synced);
            }
            all
        };
        self.job(sync).await?
    }
}
