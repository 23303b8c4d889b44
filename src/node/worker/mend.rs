//! Gets catalogue records again whose bytes on this disk are damaged. Whoever reads a record and
//! finds it damaged notes it here; members have all records, so a few of them are asked. One that
//! none of them has is given up: the tables are rebuilt without it.
//!
//! Invariant: a record is in the tables and the set's sums whether its bytes here are damaged or
//! not, so reconciliation, which compares those, never brings it: only this does. Once it is given
//! up, reconciliation does, should a member come back that has it.

use super::reconcile::ReconcileError;
use crate::core::catalogue::id_of;
use crate::core::catalogue::sync::SyncError;
use crate::core::limits;
use crate::id::{NodeId, RecordId};
use crate::node::{Shared, lock};
use crate::wire::sync::{Answer, Ask, FETCH_MAX};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Most damaged records that are remembered; more are noted when they are read again.
const NOTED_MAX: usize = 4096;
/// Members that are asked in turn: what so many do not have, nobody has.
const ASKED_MAX: usize = 16;
/// How many times, a while apart, members say that they lack a record before it is given up: one
/// that has it may just be starting.
const GIVEN_UP_AFTER: u8 = 3;

/// The records that are known to be damaged here.
#[derive(Default)]
pub(in crate::node) struct DamagedRecords {
    ids: Mutex<BTreeSet<RecordId>>,
    more: Notify,
}

impl DamagedRecords {
    /// Has the worker get a record again.
    pub(in crate::node) fn note(&self, id: RecordId) {
        let mut ids = lock(&self.ids);
        if ids.len() < NOTED_MAX && ids.insert(id) {
            self.more.notify_one();
        }
    }

    /// Whether this record is one of them.
    pub(in crate::node) fn contains(&self, id: &RecordId) -> bool {
        lock(&self.ids).contains(id)
    }

    /// How many there are.
    pub(in crate::node) fn count(&self) -> usize {
        lock(&self.ids).len()
    }
}

/// Runs for as long as the node does.
pub(in crate::node) async fn run(shared: Arc<Shared>) {
    let mut in_vain = 0;
    loop {
        let nobody_has = shared.mend_records(limits::ASK).await;
        let again = shared.config.reconcile_every;
        tokio::select! {
            biased;
            () = shared.damaged.more.notified() => continue,
            () = tokio::time::sleep(again), if shared.damaged.count() > 0 => {}
        }
        in_vain = if nobody_has { in_vain + 1 } else { 0 };
        if in_vain == GIVEN_UP_AFTER {
            in_vain = 0;
            shared.rebuild_tables("records are damaged that no other node has").await;
        }
    }
}

impl Shared {
    /// Gets all records that are known to be damaged here again, as far as members have them.
    /// Waits for each answer at most for `patience`. Whether some are left of which all who were
    /// asked said that they lack them.
    pub(in crate::node) async fn mend_records(self: &Arc<Self>, patience: Duration) -> bool {
        if self.still_damaged().is_empty() {
            return false;
        }
        let before = self.damaged.count();
        let view = self.view();
        let others: Vec<NodeId> = view.others().map(|member| member.record.id).collect();
        let order = self.chooser().order(&others);
        let mut all_answered = !order.is_empty();
        for peer in order.into_iter().take(ASKED_MAX) {
            let ids = self.still_damaged();
            if ids.is_empty() {
                break;
            }
            if let Err(err) = self.mend_from(peer, &ids, patience).await {
                tracing::debug!(peer = %peer.short(), %err, "damaged records were not fetched");
                all_answered = false;
            }
        }
        let left = self.still_damaged().len();
        if left < before {
            tracing::info!(records = before - left, left, "damaged records are good again");
            // What waited for a grant or an epoch may have been among them.
            self.learn_epochs().await;
        }
        left > 0 && all_answered
    }

    async fn mend_from(
        self: &Arc<Self>,
        peer: NodeId,
        ids: &[RecordId],
        patience: Duration,
    ) -> Result<(), ReconcileError> {
        let mut rest = ids;
        while !rest.is_empty() {
            let asked = &rest[..rest.len().min(FETCH_MAX)];
            let answer = self.ask_sync(peer, &Ask::Fetch(asked.to_vec()), patience).await?;
            let Answer::Fetched(records) = answer else { return Err(SyncError::Unasked.into()) };
            let last = records.last().map(|record| id_of(record));
            let at = last.and_then(|last| asked.iter().position(|id| *id == last));
            // What comes before the last record is not there; nor is anything, if none came.
            rest = &rest[at.map_or(asked.len(), |at| at + 1)..];
            self.take_records(peer, records).await?;
        }
        Ok(())
    }

    /// Forgets those that can be read again, whoever brought them; the others. Reading tells the
    /// store as well that they are damaged, so that it takes them.
    fn still_damaged(&self) -> Vec<RecordId> {
        let ids: Vec<RecordId> = lock(&self.damaged.ids).iter().copied().collect();
        let (good, bad): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.store.record(*id).is_ok());
        lock(&self.damaged.ids).retain(|id| !good.contains(id));
        bad
    }
}
