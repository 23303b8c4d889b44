//! What the other parts of the node tell the repair worker and ask of its findings: chunks to look
//! at, and how many copies there are. Owns the queue to it and the count of chunks that wait there;
//! what is done about them is the worker's.
//!
//! Invariant: a chunk of an answered put that lacks copies is counted from the moment when the put
//! gives it up until the worker has counted it.

use super::below;
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::Shared;
use crate::store::FollowTables;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A chunk for the worker to look at.
pub(in crate::node) struct Wanted {
    pub(super) cid: ChunkId,
    /// Who holds it, as far as that is known to whoever hands it over.
    pub(super) holders: Vec<NodeId>,
    /// Counts the chunk as below its copies until the worker does.
    pub(super) late: Option<Late>,
}

/// Counts one chunk as below its copies for as long as it lives.
pub(in crate::node) struct Late(Arc<AtomicU64>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// The fewest copies of any chunk under a claim, as last seen here.
    pub(in crate::node) fn copies_of(&self, claim: &ClaimId) -> Option<u8> {
        self.store.read_tables(|tables| below::copies(tables, claim)).ok()?
    }

    /// Writes down how many copies everything under each of these claims has.
    pub(in crate::node) async fn set_copies(&self, found: Vec<(ClaimId, u8)>) -> io::Result<()> {
        let set = move |tables: &mut dyn FollowTables| {
            let mut set = found.iter();
            set.try_for_each(|(claim, copies)| below::set_copies(tables, claim, 0, *copies))
        };
        self.change_tables(set).await
    }

    /// Counts a chunk as below its copies although the worker has not looked at it yet.
    pub(in crate::node) fn is_late(&self) -> Late {
        self.late.fetch_add(1, Ordering::Relaxed);
        Late(self.late.clone())
    }

    /// How many chunks are.
    pub(in crate::node) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Whether the chunk is known to be below its copies.
    pub(in crate::node) fn is_below(&self, cid: &ChunkId) -> bool {
        self.store.read_tables(|tables| below::is_noted(tables, cid)).unwrap_or(false)
    }

    /// Hands a chunk to the repair worker. When more wait than fit, it looks at all of them.
    pub(in crate::node) fn wants_repair(&self, cid: ChunkId) {
        self.queue_repair(Wanted { cid, holders: Vec::new(), late: None });
    }

    /// The same for a chunk that is known to have too few copies, at these holders.
    pub(in crate::node) fn lacks_copies(
        &self,
        cid: ChunkId,
        holders: &BTreeSet<NodeId>,
        late: Option<Late>,
    ) {
        let late = Some(late.unwrap_or_else(|| self.is_late()));
        self.queue_repair(Wanted { cid, holders: holders.iter().copied().collect(), late });
    }

    fn queue_repair(&self, wanted: Wanted) {
        if self.repair_queue().try_send(wanted).is_err() {
            self.repair_missed.store(true, Ordering::Relaxed);
        }
    }
}
