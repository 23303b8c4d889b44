//! Brings one chunk to its holders: to its homes first, to the next candidates with a hint when a
//! home does not answer. Owns the acknowledgements of a put: how many chunks are on disk at enough
//! nodes, and how many at all of theirs. What is enough is decided by `Promise`; a chunk whose
//! further copies are slow is handed to the repair worker, which reads it from the store, so that
//! its memory is free.

use super::Shared;
use super::serve::refusal;
use super::view::{Member, View};
use super::worker::handover::Late;
use crate::core::limits;
use crate::id::{ChunkId, NodeId};
use crate::store::{Claim, Op, WriteError};
use crate::sys::Time;
use crate::wire::message::{ClaimTerms, Store as StoreMessage};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// When every candidate has said no, it is asked again for so long: one that is just ending or
/// starting will soon be known as such.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// How many times [`limits::PUT_PATIENCE`] a chunk may take while its bytes go.
const PATIENCE: u32 = 20;

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
        Self::among(view, replicas, |member| member.has_space())
    }

    /// The same, with those for members with room.
    fn among(view: &View, replicas: u8, takes: impl Fn(&Member) -> bool) -> Self {
        let takers: Vec<_> = view.members.values().filter(|member| takes(member)).collect();
        let nodes = usize::from(replicas).min(2).min(takers.len().max(1));
        let machines = view.machines(takers.iter().map(|member| &member.record.id));
        Self { replicas, nodes, machines: nodes.min(machines.max(1)) }
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
    /// Chunks by on how many machines these are.
    by_machines: BTreeMap<usize, u64>,
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
    /// The fewest machines that have a copy of any chunk.
    pub machines: usize,
    /// Whether there are any chunks at all.
    pub any: bool,
    /// Nodes that hold all chunks.
    pub holders: Vec<NodeId>,
    /// Bytes that were sent or written because somebody lacked them.
    pub new_bytes: u64,
}

impl Tally {
    /// The tally of chunks that these nodes hold already.
    pub(super) fn kept(view: &View, held: &[BTreeSet<NodeId>]) -> Self {
        let chunks = held.len() as u64;
        let mut state = TallyState {
            started: chunks,
            promised: chunks,
            ended: chunks,
            ..TallyState::default()
        };
        for ids in held {
            *state.by_copies.entry(ids.len()).or_default() += 1;
            *state.by_machines.entry(view.machines(ids)).or_default() += 1;
            ids.iter().for_each(|id| *state.by_holder.entry(*id).or_default() += 1);
        }
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut TallyState) -> T) -> T {
        let out = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        out
    }

    fn acknowledge(&self, view: &View, holders: &mut BTreeSet<NodeId>, id: NodeId, new_bytes: u64) {
        let before = (holders.len(), view.machines(&*holders));
        let new = holders.insert(id);
        let after = (holders.len(), view.machines(&*holders));
        self.with(|state| {
            if new {
                *state.by_holder.entry(id).or_default() += 1;
                advance(&mut state.by_copies, before.0, after.0);
                advance(&mut state.by_machines, before.1, after.1);
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

    /// Whether anything was delivered.
    pub(super) fn has_begun(&self) -> bool {
        self.with_quiet(|state| state.started > 0)
    }

    /// Waits until no chunk is on its way any more.
    pub(super) async fn all_ended(&self) {
        self.until(|s| (s.ended == s.started).then_some(())).await;
    }

    /// The nodes that have any of the chunks.
    pub(super) fn takers(&self) -> BTreeSet<NodeId> {
        self.with_quiet(|state| state.by_holder.keys().copied().collect())
    }

    /// What it says now.
    pub(super) fn count(&self) -> Count {
        self.with_quiet(|state| Count {
            copies: state.by_copies.keys().next().copied().unwrap_or(0),
            machines: state.by_machines.keys().next().copied().unwrap_or(0),
            any: state.started > 0,
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

/// One chunk has more of something now.
fn advance(counts: &mut BTreeMap<usize, u64>, from: usize, to: usize) {
    if let Some(count) = counts.get_mut(&from) {
        *count -= 1;
    }
    counts.retain(|_, count| *count > 0);
    *counts.entry(to).or_default() += 1;
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

/// Bytes on their way to a peer, which counts as fuller by them meanwhile.
struct Coming {
    shared: Arc<Shared>,
    to: NodeId,
    bytes: u64,
}

impl Coming {
    fn new(shared: &Arc<Shared>, to: NodeId, bytes: usize) -> Self {
        let bytes = bytes as u64;
        shared.chooser().sets_out(to, bytes);
        Self { shared: shared.clone(), to, bytes }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.shared.chooser().arrived(self.to, self.bytes);
    }
}

/// What one attempt came to.
enum Attempt {
    Kept {
        new_bytes: u64,
    },
    /// The peer said no.
    Refused,
    /// It said nothing.
    Silent,
    /// It has no space, or this node has none.
    NoSpace(WriteError),
}

impl Shared {
    /// Delivers a chunk in a task of its own.
    pub(super) fn deliver(self: &Arc<Self>, delivery: Delivery, tally: &Arc<Tally>) {
        tally.with(|state| {
            state.started += 1;
            *state.by_copies.entry(0).or_default() += 1;
            *state.by_machines.entry(0).or_default() += 1;
        });
        let (shared, tally) = (self.clone(), tally.clone());
        tokio::spawn(async move {
            let mut run = Run::new(&shared, delivery, tally);
            run.finish().await;
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
    /// Who has said that it has no space, which others may not have heard yet.
    full: BTreeSet<NodeId>,
    under_way: JoinSet<(NodeId, Attempt)>,
    /// Who has not answered yet, and since when it was asked.
    asking: BTreeMap<NodeId, Time>,
    promised: bool,
    /// Whether some did not answer, and may yet.
    silent: bool,
    /// Counts the chunk as below its copies, once the promise is kept and the others take long.
    late: Option<Late>,
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
            full: BTreeSet::new(),
            under_way: JoinSet::new(),
            asking: BTreeMap::new(),
            promised: false,
            silent: false,
            late: None,
            ask_first: false,
        }
    }

    async fn finish(&mut self) {
        let view = self.shared.view();
        let home = self.shared.home(&view, &self.delivery.cid, self.delivery.promise.replicas);
        let here = self.shared.holds(&self.delivery.cid);
        // A home that lacks the chunk itself tells that it is new: then asking is a wasted trip.
        self.ask_first = here || !home.contains(&self.shared.me);
        self.start_at(&view, home);
        let shared = self.shared.clone();
        let began = shared.sys.clock.now();
        let elapsed = || shared.sys.clock.now().since(began);
        loop {
            let quiet = self.quiet(elapsed());
            if self.finished(elapsed(), quiet) {
                break;
            }
            let patience = self.patience(quiet);
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((id, attempt)) = ended {
                        self.ended(id, attempt);
                    }
                }
                () = tokio::time::sleep(patience) => self.hedge(),
            }
            if self.promised && self.late.is_none() && elapsed() > limits::HEDGE_MAX {
                self.late = Some(self.shared.is_late());
            }
        }
        self.hand_over();
    }

    /// For how long nobody who is asked has taken a byte; so long as it has run, if none ever did.
    fn quiet(&self, elapsed: Duration) -> Duration {
        let transport = self.shared.transport();
        let still = self.asking.keys().filter_map(|id| transport.last_byte(*id));
        still.min().map_or(elapsed, |still| still.min(elapsed))
    }

    /// All copies are there, or enough and no more time for the others, or nothing can be hoped
    /// for.
    fn finished(&self, elapsed: Duration, quiet: Duration) -> bool {
        let full = self.holders.len() >= usize::from(self.delivery.promise.replicas);
        let slow = self.promised && elapsed > limits::HEDGE_MAX && self.shared.memory_is_short();
        let idle = self.under_way.is_empty();
        // The copies that hang are made from the store later: memory does not wait for them.
        let hung = self.promised && self.asking.keys().all(|id| self.shared.chooser().hung(id));
        let hopeless = idle && !self.silent && elapsed > REFUSED_FOR;
        let given_up = quiet > limits::PUT_PATIENCE || elapsed > limits::PUT_PATIENCE * PATIENCE;
        full || slow || hung || hopeless || given_up
    }

    /// Begins with the homes; in place of one that is away or hangs the next candidate.
    fn start_at(&mut self, view: &View, home: Vec<NodeId>) {
        let (cid, replicas) = (self.delivery.cid, self.delivery.promise.replicas);
        let now = self.shared.sys.clock.now();
        let grace = self.shared.config.repair_delay;
        let back_soon = |id: &NodeId| {
            view.members.get(id).is_some_and(|member| now.since(member.since) < grace)
        };
        let mut away = view.away(&cid, replicas);
        away.retain(back_soon);
        let proper: BTreeSet<NodeId> =
            view.candidates(&cid).into_iter().take(usize::from(replicas)).collect();
        let hangs = |id: &NodeId| self.shared.chooser().hung(id);
        let (hung, well): (Vec<NodeId>, Vec<NodeId>) = home.into_iter().partition(hangs);
        for id in well {
            let hint = if proper.contains(&id) { None } else { away.pop() };
            self.start(id, hint);
        }
        for id in hung {
            if !self.next_candidate(Some(id)) {
                self.start(id, None);
            }
        }
    }

    fn patience(&self, quiet: Duration) -> Duration {
        let chooser = self.shared.chooser();
        let hedge = self.asking.keys().map(|id| chooser.hedge_after(id)).min();
        hedge.unwrap_or(limits::HEDGE_MAX).min(limits::PUT_PATIENCE.saturating_sub(quiet))
            + Duration::from_millis(1)
    }

    fn start(&mut self, id: NodeId, hint: Option<NodeId>) {
        if !self.tried.insert(id) {
            return;
        }
        self.asking.insert(id, self.shared.sys.clock.now());
        let (shared, delivery) = (self.shared.clone(), self.delivery.clone());
        let ask_first = self.ask_first;
        let coming = Coming::new(&self.shared, id, self.delivery.sealed.len());
        self.under_way.spawn(async move {
            // It ends with this task, also when that is given up.
            let _coming = coming;
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
                let view = self.shared.view();
                self.tally.acknowledge(&view, &mut self.holders, id, new_bytes);
                self.look_at_promise(&view);
            }
            Attempt::Refused => _ = self.next_candidate(Some(id)),
            Attempt::Silent => {
                self.silent = true;
                self.next_candidate(Some(id));
            }
            Attempt::NoSpace(err) => {
                // What this node says of its own disk is the better reason.
                let here = id == self.shared.me;
                self.tally.with(|state| {
                    if here || state.failed.is_none() {
                        state.failed = Some(Arc::new(err));
                    }
                });
                self.full.insert(id);
                self.look_at_promise(&self.shared.view());
                self.next_candidate(Some(id));
            }
        }
    }

    /// The promise counts live members that took the chunk or may take it: when one dies meanwhile
    /// or turns out to be full, less may keep it.
    fn look_at_promise(&mut self, view: &View) {
        let promise = Promise::among(view, self.delivery.promise.replicas, |member| {
            let id = &member.record.id;
            let kept = self.holders.contains(id) && member.lives();
            kept || member.has_space() && !self.full.contains(id)
        });
        if !self.promised && !self.holders.is_empty() && promise.kept(view, &self.holders) {
            self.promised = true;
            self.tally.with(|state| state.promised += 1);
        }
    }

    /// Somebody takes too long: the next candidate is asked as well.
    fn hedge(&mut self) {
        let now = self.shared.sys.clock.now();
        let (mut slow, mut moving) = (Vec::new(), false);
        for (id, since) in self.asking.iter().filter(|(id, _)| **id != self.shared.me) {
            let moves = self.shared.moves(id) && self.shared.waits_for(now.since(*since));
            moving |= moves;
            let mut chooser = self.shared.chooser();
            if !moves && now.since(*since) >= chooser.hedge_after(id) {
                chooser.overdue(*id);
                slow.push(*id);
            }
        }
        self.look_at_promise(&self.shared.view());
        // While bytes go, another one would only get a copy too many, and make all slower.
        if !self.promised && (!moving || !slow.is_empty()) {
            // A node that came back or joined meanwhile may be tried again.
            if self.under_way.is_empty() {
                self.tried = self.holders.clone();
                self.silent = false;
            }
            self.next_candidate(slow.first().copied());
        }
    }

    /// Asks the next candidate that does not hang; whether there is one.
    fn next_candidate(&mut self, instead_of: Option<NodeId>) -> bool {
        let view = self.shared.view();
        let candidates = view.candidates(&self.delivery.cid).into_iter();
        let untried = candidates
            .filter(|id| !self.tried.contains(id) && !self.shared.chooser().hung(id))
            .filter_map(|id| view.members.get(&id).filter(|m| m.has_space()));
        // Those that have more than their share come last.
        let next = untried.min_by_key(|m| !m.has_room()).map(|m| m.record.id);
        if let Some(id) = next {
            self.start(id, instead_of.filter(|home| *home != self.shared.me));
        }
        next.is_some()
    }

    /// Counts the chunk as ended; copies that are still missing become the repair worker's.
    fn hand_over(&mut self) {
        tracing::trace!(cid = %self.delivery.cid.short(), holders = ?self.holders, "delivered");
        self.under_way.abort_all();
        if self.holders.len() < usize::from(self.delivery.promise.replicas) {
            self.shared.lacks_copies(self.delivery.cid, &self.holders, self.late.take());
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
            let peer = shared.view().name(&id);
            tracing::debug!(peer = %peer.escape_debug(), %err, "a chunk was not taken");
            match err {
                _ if err.refused_with(refusal::NO_SPACE) => {
                    Attempt::NoSpace(WriteError::NoCapacity)
                }
                _ if err.is_no() => Attempt::Refused,
                _ => Attempt::Silent,
            }
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

/// The claim that travels like this.
pub(super) const fn claim_of_terms(terms: &ClaimTerms) -> Claim {
    Claim { id: terms.id, replicas: terms.replicas, renewed_ms: terms.renewed_ms }
}
