//! Brings one chunk to its holders: to its homes first, to the next candidates with a hint when a
//! home does not answer. Owns the acknowledgements of a put: how many chunks are on disk at enough
//! nodes, and how many at all of theirs. What is enough is decided by `Promise`; a chunk whose
//! further copies are slow is handed to the repair worker, which reads it from the store, so that
//! its memory is free.

use super::Shared;
use super::view::View;
use crate::core::limits;
use crate::id::{ChunkId, NodeId};
use crate::store::{Claim, Op, WriteError};
use crate::wire::message::{ClaimTerms, Store as StoreMessage};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How many copies a put promises before it answers (DESIGN 7).
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    /// How many copies there should be.
    pub replicas: u8,
    /// How many must be on disk, on that many distinct nodes.
    pub nodes: usize,
    /// On how many distinct machines these must be.
    pub machines: usize,
}

impl Promise {
    /// `min(2, R, live members with room)` nodes, on distinct machines where there are any.
    pub(super) fn now(view: &View, replicas: u8) -> Self {
        let nodes = usize::from(replicas).min(2).min(view.with_room().max(1));
        Self { replicas, nodes, machines: nodes.min(view.machines_with_room().max(1)) }
    }

    pub(super) fn kept(&self, view: &View, holders: &BTreeSet<NodeId>) -> bool {
        holders.len() >= self.nodes && view.machines(holders) >= self.machines.min(holders.len())
    }
}

/// The acknowledgements of one put.
#[derive(Default)]
pub(super) struct Tally {
    state: Mutex<TallyState>,
    changed: Notify,
}

#[derive(Default)]
struct TallyState {
    started: u64,
    promised: u64,
    ended: u64,
    /// Chunks by how many copies they have now.
    by_copies: BTreeMap<usize, u64>,
    /// How many of the chunks each node holds.
    by_holder: BTreeMap<NodeId, u64>,
    /// Bytes that were sent or written because somebody lacked them.
    new_bytes: u64,
    failed: Option<Arc<WriteError>>,
}

/// What a tally says at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Count {
    /// The fewest copies of any chunk.
    pub copies: usize,
    /// Nodes that hold all chunks.
    pub holders: Vec<NodeId>,
    /// Bytes that were sent or written because somebody lacked them.
    pub new_bytes: u64,
}

impl Tally {
    /// The tally of chunks that these nodes hold already.
    pub(super) fn kept(held: &[BTreeSet<NodeId>]) -> Self {
        let chunks = held.len() as u64;
        let mut state = TallyState {
            started: chunks,
            promised: chunks,
            ended: chunks,
            ..TallyState::default()
        };
        for ids in held {
            *state.by_copies.entry(ids.len()).or_default() += 1;
            ids.iter().for_each(|id| *state.by_holder.entry(*id).or_default() += 1);
        }
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut TallyState) -> T) -> T {
        let out = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        out
    }

    fn acknowledge(&self, holders: &mut BTreeSet<NodeId>, id: NodeId, new_bytes: u64) {
        self.with(|state| {
            let before = holders.len();
            if holders.insert(id) {
                *state.by_holder.entry(id).or_default() += 1;
                if let Some(count) = state.by_copies.get_mut(&before) {
                    *count -= 1;
                }
                state.by_copies.retain(|_, count| *count > 0);
                *state.by_copies.entry(before + 1).or_default() += 1;
            }
            state.new_bytes += new_bytes;
        });
    }

    /// Waits until every chunk that was started keeps its promise. Err when one was given up.
    pub(super) async fn promised(&self) -> Result<(), Option<Arc<WriteError>>> {
        self.until(|s| match (s.promised == s.started, s.ended == s.started) {
            (true, _) => Some(Ok(())),
            (false, true) => Some(Err(s.failed.clone())),
            (false, false) => None,
        })
        .await
    }

    /// Waits until every chunk has `copies` copies, or its work has ended.
    pub(super) async fn reached(&self, copies: usize) {
        self.until(|s| {
            let fewest = s.by_copies.keys().next().copied().unwrap_or(copies);
            (fewest >= copies || s.ended == s.started).then_some(())
        })
        .await;
    }

    async fn until<T>(&self, done: impl Fn(&TallyState) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = self.with_quiet(&done) {
                return value;
            }
            changed.await;
        }
    }

    fn with_quiet<T>(&self, look: impl FnOnce(&TallyState) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it says now.
    pub(super) fn count(&self) -> Count {
        self.with_quiet(|state| Count {
            copies: state.by_copies.keys().next().copied().unwrap_or(0),
            holders: state
                .by_holder
                .iter()
                .filter(|(_, chunks)| **chunks == state.started)
                .map(|(id, _)| *id)
                .collect(),
            new_bytes: state.new_bytes,
        })
    }
}

/// One chunk on its way to its holders.
pub(super) struct Delivery {
    /// Its name.
    pub cid: ChunkId,
    /// Its sealed bytes; the memory is free when the delivery ends.
    pub sealed: Bytes,
    /// Why it is kept.
    pub claim: Claim,
    /// What the put promises.
    pub promise: Promise,
}

/// What one attempt came to.
enum Attempt {
    Kept { new_bytes: u64 },
    Refused,
    NoSpace(WriteError),
}

impl Shared {
    /// Delivers a chunk in a task of its own.
    pub(super) fn deliver(self: &Arc<Self>, delivery: Delivery, tally: &Arc<Tally>) {
        tally.with(|state| {
            state.started += 1;
            *state.by_copies.entry(0).or_default() += 1;
        });
        let (shared, tally) = (self.clone(), tally.clone());
        tokio::spawn(async move {
            let mut run = Run::new(&shared, delivery, tally);
            run.to_the_end().await;
        });
    }
}

/// The state of one delivery.
struct Run {
    shared: Arc<Shared>,
    delivery: Arc<Delivery>,
    tally: Arc<Tally>,
    holders: BTreeSet<NodeId>,
    tried: BTreeSet<NodeId>,
    under_way: JoinSet<(NodeId, Attempt)>,
    asking: BTreeSet<NodeId>,
    promised: bool,
    /// Whether to ask before sending: somebody may well have the chunk already.
    ask_first: bool,
}

impl Run {
    fn new(shared: &Arc<Shared>, delivery: Delivery, tally: Arc<Tally>) -> Self {
        Self {
            shared: shared.clone(),
            delivery: Arc::new(delivery),
            tally,
            holders: BTreeSet::new(),
            tried: BTreeSet::new(),
            under_way: JoinSet::new(),
            asking: BTreeSet::new(),
            promised: false,
            ask_first: false,
        }
    }

    async fn to_the_end(&mut self) {
        let view = self.shared.view();
        let home = view.home(&self.delivery.cid, self.delivery.promise.replicas);
        let here = self.shared.holds(&self.delivery.cid);
        // A home that lacks the chunk itself tells that it is new: then asking is a wasted trip.
        self.ask_first = here || !home.contains(&self.shared.me);
        for id in home {
            self.start(id, None);
        }
        let shared = self.shared.clone();
        let began = shared.sys.clock.now();
        let elapsed = || shared.sys.clock.now().since(began);
        while !self.finished(elapsed()) {
            let patience = self.patience(elapsed());
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((id, attempt)) = ended {
                        self.ended(id, attempt);
                    }
                }
                () = tokio::time::sleep(patience) => self.hedge(),
            }
        }
        self.hand_over();
    }

    /// All copies are there, or enough and no more time for the others, or nothing can be hoped for.
    fn finished(&self, elapsed: Duration) -> bool {
        let full = self.holders.len() >= usize::from(self.delivery.promise.replicas);
        let slow = self.promised && elapsed > limits::HEDGE_MAX && self.shared.memory_is_short();
        let idle = self.under_way.is_empty();
        full || slow || (self.promised && idle) || elapsed > limits::PUT_PATIENCE
    }

    fn patience(&self, elapsed: Duration) -> Duration {
        let chooser = self.shared.chooser();
        let hedge = self.asking.iter().map(|id| chooser.hedge_after(id)).min();
        hedge.unwrap_or(limits::HEDGE_MAX).min(limits::PUT_PATIENCE.saturating_sub(elapsed))
            + Duration::from_millis(1)
    }

    fn start(&mut self, id: NodeId, hint: Option<NodeId>) {
        if !self.tried.insert(id) {
            return;
        }
        self.asking.insert(id);
        let (shared, delivery) = (self.shared.clone(), self.delivery.clone());
        let ask_first = self.ask_first;
        self.under_way.spawn(async move {
            let attempt = if id == shared.me {
                keep_here(&shared, &delivery).await
            } else {
                keep_there(&shared, id, &delivery, ask_first, hint).await
            };
            (id, attempt)
        });
    }

    fn ended(&mut self, id: NodeId, attempt: Attempt) {
        self.asking.remove(&id);
        match attempt {
            Attempt::Kept { new_bytes } => {
                self.tally.acknowledge(&mut self.holders, id, new_bytes);
                let kept = self.delivery.promise.kept(&self.shared.view(), &self.holders);
                if kept && !self.promised {
                    self.promised = true;
                    self.tally.with(|state| state.promised += 1);
                }
            }
            Attempt::Refused => self.next_candidate(Some(id)),
            Attempt::NoSpace(err) => {
                self.tally.with(|state| state.failed = Some(Arc::new(err)));
                self.next_candidate(Some(id));
            }
        }
    }

    /// Somebody takes too long: the next candidate is asked as well.
    fn hedge(&mut self) {
        let slow: Vec<NodeId> =
            self.asking.iter().copied().filter(|id| *id != self.shared.me).collect();
        for id in &slow {
            self.shared.chooser().overdue(*id);
        }
        if !self.promised {
            // A node that came back or joined meanwhile may be tried again.
            if self.under_way.is_empty() {
                self.tried = self.holders.clone();
            }
            self.next_candidate(slow.first().copied());
        }
    }

    fn next_candidate(&mut self, instead_of: Option<NodeId>) {
        let view = self.shared.view();
        let candidates = view.candidates(&self.delivery.cid).into_iter();
        let untried = candidates.filter(|id| !self.tried.contains(id));
        let takers = untried.filter_map(|id| view.members.get(&id).filter(|m| m.has_space()));
        // Those that have more than their share come last.
        if let Some(id) = takers.min_by_key(|m| !m.has_room()).map(|m| m.record.id) {
            self.start(id, instead_of.filter(|home| *home != self.shared.me));
        }
    }

    /// Counts the chunk as ended; copies that are still missing become the repair worker's.
    fn hand_over(&mut self) {
        self.under_way.abort_all();
        if self.holders.len() < usize::from(self.delivery.promise.replicas) {
            self.shared.wants_repair(self.delivery.cid);
        }
        self.tally.with(|state| state.ended += 1);
    }
}

async fn keep_here(shared: &Shared, delivery: &Delivery) -> Attempt {
    let already = shared.holds(&delivery.cid);
    let op = Op::Replica {
        cid: delivery.cid,
        sealed: delivery.sealed.clone(),
        claim: Some(delivery.claim),
        hint: None,
    };
    match shared.write(vec![op]).await {
        Ok(_) => {
            Attempt::Kept { new_bytes: if already { 0 } else { delivery.sealed.len() as u64 } }
        }
        Err(err) => Attempt::NoSpace(err),
    }
}

async fn keep_there(
    shared: &Shared,
    id: NodeId,
    delivery: &Delivery,
    ask_first: bool,
    hint: Option<NodeId>,
) -> Attempt {
    let claim = terms(&delivery.claim);
    if ask_first
        && let Ok(bits) = shared.ask_have(id, claim, vec![delivery.cid]).await
        && bits == [true]
    {
        return Attempt::Kept { new_bytes: 0 };
    }
    let store = StoreMessage { cid: delivery.cid, claims: vec![claim], hint };
    match shared.ask_store(id, &store, delivery.sealed.clone()).await {
        Ok(()) => Attempt::Kept { new_bytes: delivery.sealed.len() as u64 },
        Err(err) => {
            tracing::debug!(peer = %shared.view().name(&id), %err, "a chunk was not taken");
            Attempt::Refused
        }
    }
}

/// A claim as it travels.
pub(super) fn terms(claim: &Claim) -> ClaimTerms {
    ClaimTerms {
        id: claim.id,
        replicas: claim.replicas,
        renewed_ms: claim.renewed_ms,
        committed: false,
    }
}
