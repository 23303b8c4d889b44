//! Makes this node's catalogue equal to a neighbour's: with every neighbour when the link comes up,
//! with a random one every half minute, and with one whose records came too fast. What to ask is
//! decided by `core::catalogue::sync`; records that come are taken like any other.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::core::catalogue::sync::{Exchange, SyncError};
use crate::core::limits;
use crate::id::NodeId;
use crate::node::view::View;
use crate::node::{AskError, Shared, lock};
use crate::store::WriteError;
use crate::sys::Time;
use crate::transport::Message as Frame;
use crate::wire::codec::{Decode, Encode};
use crate::wire::hello::Lane;
use crate::wire::message::kind;
use crate::wire::sync::{Answer, Ask};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Tables(#[from] io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Periods within which each of about eight neighbours is reconciled with, almost surely.
const LATELY: u32 = 120;
/// How long a neighbour may take to tell what it knows.
const TOLD_MAX: Duration = Duration::from_secs(5);
/// The same after a start.
const START_MAX: Duration = Duration::from_secs(2);
/// Neighbours that are reconciled with at once: one that hangs must not keep the others waiting.
const AT_ONCE: usize = 3;

/// Peers that have records for which there was no room when they came.
#[derive(Default)]
pub(in crate::node) struct Behind {
    peers: Mutex<BTreeSet<NodeId>>,
    more: Notify,
}

impl Behind {
    /// Has the worker fetch what `peer` has.
    pub(in crate::node) fn note(&self, peer: NodeId) {
        lock(&self.peers).insert(peer);
        self.more.notify_one();
    }
}

/// The worker.
pub(in crate::node) struct Reconcile {
    shared: Arc<Shared>,
    views: watch::Receiver<Arc<View>>,
    met: BTreeSet<NodeId>,
    wanted: BTreeSet<NodeId>,
    busy: BTreeSet<NodeId>,
    work: JoinSet<(NodeId, u64)>,
    due: Time,
    /// Records fetched and pushed.
    moved: u64,
}

impl Reconcile {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let due = shared.sys.clock.now() + shared.config.reconcile_every;
        let (met, wanted, busy, work) = Default::default();
        Self { views: shared.views(), shared, met, wanted, busy, work, due, moved: 0 }
    }

    /// Once in a while a random neighbour.
    fn choose(&mut self) {
        let now = self.shared.sys.clock.now();
        if now < self.due {
            return;
        }
        self.due = now.max(self.due) + self.shared.config.reconcile_every;
        let links: Vec<NodeId> = self.met.iter().copied().collect();
        if !links.is_empty() {
            self.wanted.insert(links[self.shared.sys.rng.u64() as usize % links.len()]);
        }
    }
}

impl Worker for Reconcile {
    const NAME: &'static str = "reconcile";

    async fn work(&mut self) -> Worked {
        self.choose();
        let shared = &self.shared;
        // A member cannot be asked before its address is known, which the view tells.
        let links: BTreeSet<NodeId> =
            shared.links().into_iter().filter(|id| shared.view().lives(id)).collect();
        self.met.retain(|id| links.contains(id));
        self.wanted.append(&mut std::mem::take(&mut *lock(&shared.behind.peers)));
        self.wanted.extend(links.difference(&self.met));
        self.wanted.retain(|id| links.contains(id));
        let next: Vec<NodeId> = self.wanted.difference(&self.busy).copied().collect();
        for id in next.into_iter().take(AT_ONCE.saturating_sub(self.work.len())) {
            self.wanted.remove(&id);
            self.met.insert(id);
            self.busy.insert(id);
            let shared = shared.clone();
            self.work.spawn(async move { (id, shared.reconcile(id).await) });
        }
        let under_way = !self.work.is_empty();
        Ok(if under_way { Next::UnderWay(Some(self.due)) } else { Next::Idle(self.due) })
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            Some(done) = self.work.join_next() => if let Ok((id, moved)) = done {
                self.busy.remove(&id);
                self.moved += moved;
            },
            // The sender lives in `shared`.
            _ = self.views.changed() => {}
            () = self.shared.behind.more.notified() => {}
        }
    }

    fn report(&self) -> Report {
        let (equal, all) = (self.met.difference(&self.busy).count(), self.shared.links().len());
        Report {
            progress: Some((equal as u64, all as u64)),
            unit: "neighbours",
            moved: self.moved,
            moved_unit: "records",
            ..Report::default()
        }
    }
}

impl Shared {
    /// Makes both catalogues equal, as far as both accept what the other has. How many records that
    /// took.
    async fn reconcile(self: &Arc<Self>, with: NodeId) -> u64 {
        let done = self.try_reconcile(with).await;
        if done.is_ok() {
            let (links, now) = (self.links(), self.sys.clock.now());
            self.reconciled.send_modify(|reconciled| {
                reconciled.retain(|id, _| links.contains(id));
                // A link that went down meanwhile counts for nothing.
                if links.contains(&with) {
                    reconciled.insert(with, now);
                }
            });
        }
        match done {
            Ok((0, 0)) => 0,
            Ok((fetched, pushed)) => {
                let peer = self.view().name(&with);
                let peer = peer.escape_debug();
                tracing::info!(%peer, fetched, pushed, "catalogues reconciled");
                fetched + pushed
            }
            Err(err) => {
                tracing::debug!(peer = %with.short(), %err, "reconciling broke off");
                self.worker_failed(Reconcile::NAME, &err);
                0
            }
        }
    }

    /// Whether this node knows what all its neighbours know, as of a while ago; one that knows of
    /// others must have some.
    pub(super) fn has_reconciled_lately(&self) -> bool {
        self.is_told(&self.reconciled.borrow())
    }

    fn is_told(&self, reconciled: &BTreeMap<NodeId, Time>) -> bool {
        let told = !self.links().is_empty() || self.view().others().next().is_none();
        told && self.have_reconciled(reconciled)
    }

    /// Waits after a start until this node knows what its neighbours know, also what it had told
    /// them itself and lost; not long, for there may be nobody.
    pub(in crate::node) async fn reconcile_at_start(&self) {
        let mut reconciled = self.reconciled.subscribe();
        let told = reconciled.wait_for(|reconciled| self.is_told(reconciled));
        drop(tokio::time::timeout(START_MAX, told).await);
    }

    /// Waits until this node knows what all its neighbours know, but not long for those that do not
    /// tell.
    pub(super) async fn reconcile_first(&self) {
        let mut reconciled = self.reconciled.subscribe();
        let told = reconciled.wait_for(|reconciled| self.have_reconciled(reconciled));
        // Whatever it does not know then, it hears of later.
        drop(tokio::time::timeout(TOLD_MAX, told).await);
    }

    fn have_reconciled(&self, reconciled: &BTreeMap<NodeId, Time>) -> bool {
        let (links, now) = (self.links(), self.sys.clock.now());
        let lately = self.config.reconcile_every * LATELY;
        let recent = |id| reconciled.get(id).is_some_and(|at: &Time| now.since(*at) < lately);
        let view = self.view();
        links.iter().filter(|id| view.lives(id)).all(recent)
    }

    async fn try_reconcile(self: &Arc<Self>, with: NodeId) -> Result<(u64, u64), ReconcileError> {
        let mut exchange = Exchange::new();
        let mut came = Vec::new();
        loop {
            // The disk is busy with what came last while the peer looks for what comes next.
            let keeping = self.keep_from(with, std::mem::take(&mut came));
            let Some(ask) = self.read_records(|view| exchange.next(view))? else {
                keeping.await?;
                return Ok(exchange.moved());
            };
            let (answer, kept) = tokio::join!(self.ask_sync(with, &ask, limits::ASK), keeping);
            kept?;
            let answer = answer?;
            let mut taken = Ok(Vec::new());
            self.read_records(|view| {
                taken = exchange.take(view, answer);
                Ok(())
            })?;
            came = taken?;
        }
    }

    async fn keep_from(
        self: &Arc<Self>,
        peer: NodeId,
        records: Vec<Vec<u8>>,
    ) -> Result<(), WriteError> {
        if records.is_empty() { Ok(()) } else { self.take_records(peer, records).await.map(drop) }
    }

    pub(super) async fn ask_sync(
        &self,
        to: NodeId,
        ask: &Ask,
        deadline: Duration,
    ) -> Result<Answer, AskError> {
        let frame = Frame { kind: kind::SYNC, head: ask.to_bytes().into(), body: Bytes::new() };
        let answer = self.ask_frame(to, Lane::Control, frame, deadline).await?;
        Ok(Answer::from_bytes(&answer.head)?)
    }
}
