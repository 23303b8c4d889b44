//! Gets catalogue records again whose bytes on this disk are damaged. Whoever reads a record and
//! finds it damaged notes it here; members have all records, so a few of them are asked. One that
//! none of them has is given up: the tables are rebuilt without it.
//!
//! Invariant: a record is in the tables and the set's sums whether its bytes here are damaged or
//! not, so reconciliation, which compares those, never brings it: only this does. Once it is given
//! up, reconciliation does, should a member come back that has it.

use super::board::Report;
use super::reconcile::ReconcileError;
use super::shape::{Next, Worked, Worker};
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

/// The worker.
pub(in crate::node) struct Mend {
    shared: Arc<Shared>,
    /// Whether it runs because more was noted.
    noted: bool,
    /// Whether, the last time, some were left that all who were asked lack; and how many times
    /// running that was so.
    nobody_has: bool,
    in_vain: u8,
    /// How many are good again.
    mended: u64,
}

impl Mend {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, noted: false, nobody_has: false, in_vain: 0, mended: 0 }
    }
}

impl Worker for Mend {
    const NAME: &'static str = "mend";

    async fn work(&mut self) -> Worked {
        if !std::mem::take(&mut self.noted) {
            self.in_vain = if self.nobody_has { self.in_vain + 1 } else { 0 };
            if self.in_vain == GIVEN_UP_AFTER {
                self.in_vain = 0;
                let why = "records are damaged that no other node has";
                self.shared.rebuild_tables(why).await;
            }
        }
        let before = self.shared.damaged.count();
        self.nobody_has = self.shared.mend_records(limits::ASK).await;
        let left = self.shared.damaged.count();
        self.mended += before.saturating_sub(left) as u64;
        let again = self.shared.sys.clock.now() + self.shared.config.reconcile_every;
        Ok(if left > 0 { Next::Idle(again) } else { Next::Wait })
    }

    async fn wait(&mut self) {
        self.shared.damaged.more.notified().await;
        self.noted = true;
    }

    fn report(&self) -> Report {
        let doing = match self.shared.damaged.count() {
            0 => String::new(),
            1 => "1 damaged record".into(),
            many => format!("{many} damaged records"),
        };
        Report { doing, moved: self.mended, moved_unit: "records", ..Report::default() }
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
                self.worker_failed(Mend::NAME, &err);
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
