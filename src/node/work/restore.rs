//! Drafts across restarts: what programs had synced when this node ended is edited again, and a
//! version of it made. Owns the first look at the drafts, and the last one.

use super::WorkError;
use super::body::Body;
use super::draft::{Draft, Place};
use crate::core::catalogue::known;
use crate::core::tree::{Heads, Spot};
use crate::node::{Shared, lock};
use std::sync::Arc;

impl Shared {
    /// Where the drafts are.
    pub(super) fn drafts(&self) -> Place<'_> {
        Place { fs: &*self.sys.fs, dir: &self.config.data_dir, key: &self.key }
    }

    /// Takes up what was edited when this node ended.
    pub(super) async fn restore_drafts(self: &Arc<Self>) -> Result<(), WorkError> {
        let shared = self.clone();
        let drafts = self.job(move || Draft::all(shared.drafts())).await;
        let now = self.sys.clock.now();
        for (draft, head) in drafts?? {
            let names: Vec<Spot> = head
                .names
                .iter()
                .map(|(parent, name)| (*parent, name.as_bytes().to_vec()))
                .collect();
            let state = &mut *lock(&self.work.state);
            if state.bodies.contains_key(&head.id) {
                continue;
            }
            // A version that was about to be said when the node ended may never have been.
            let seen = self.read_records(|view| {
                let mut seen = Heads::default();
                for id in &head.seen {
                    if known(view, id)?.is_some() {
                        seen.add(*id);
                    }
                }
                Ok(seen)
            })?;
            let seen = (seen, head.attributes.clone());
            self.tree(|tree| {
                let base = head.base.clone();
                Ok(state.work.restore(tree, head.id, seen, base, &names)?)
            })?;
            tracing::info!(inode = %head.id.short(), "a file is edited that was synced before");
            state.bodies.insert(head.id, Arc::new(Body::restored(draft, &head)));
            state.changed(now);
        }
        Ok(())
    }

    /// Makes the edits of a file durable, where that is possible without making a version.
    pub(super) async fn sync_body_alone(
        self: &Arc<Self>,
        body: &Arc<Body>,
    ) -> Result<(), WorkError> {
        let (shared, body) = (self.clone(), body.clone());
        self.job(move || shared.sync_draft(&body)).await?.map(drop)
    }
}
