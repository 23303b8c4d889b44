//! The repair worker: finds chunks of this node that are below their copies and has the missing
//! ones made, those with the fewest copies first. `judge` says what is wrong with a chunk, `below`
//! keeps it in tables, `copy` makes copies; here it is decided what is next.
//!
//! It looks at a chunk when a put hands it over or a reader finds it damaged, at all chunks when
//! the candidates change or something is pinned no more, again soon when a copy is still missing,
//! and at all of them once a day.
//! What is missing is counted before it is copied, and the count rides in this node's member
//! record.

use super::below::{self, Counts};
use super::board::Report;
use super::copy::{Copier, Copy, Made};
use super::handover::Wanted;
use super::judge::Judged;
use super::shape::{Next, Worked, Worker};
use super::surplus::{Given, Surplus};
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::view::View;
use crate::node::{Shared, lock};
use crate::store::{Held, Replica};
use crate::sys::Time;
use crate::wire::message::CIDS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Chunks that are judged anew at once, just before they are copied.
const TAKEN_AT_ONCE: usize = 64;
/// How long the candidates must stay the same before all chunks are looked at …
const QUIET: Duration = Duration::from_millis(300);
/// … at most, however often they change.
const UNQUIET_MAX: Duration = Duration::from_secs(5);
/// How long a node that starts waits for the members that it remembers.
const MEET_MAX: Duration = Duration::from_secs(3);
/// How often all chunks are looked at although nothing changed.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How soon all chunks are looked at again when a copy is still missing or a candidate did not
/// answer; twice as long each time, up to the second.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);
/// For so long a chunk is left alone while one of its live candidates does not answer; after that
/// it is judged as if that one did not hold it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon superfluous copies are looked at again that could not be given up: whoever has
/// promised to keep them is free again then.
const SPARE_AGAIN: Duration = Duration::from_secs(11 * 60);
/// Lost chunks remembered: more are not worth memory, "at least so many" says enough.
const LOST_MAX: usize = 4096;

/// What repair has to say; read by `status` and by the member record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::node) struct Tally {
    /// Chunks below their copies that this node is responsible for.
    pub(in crate::node) below: u64,
    /// Bytes that have to be copied for them.
    pub(in crate::node) bytes: u64,
    /// Chunks for which no live member with room is left.
    pub(in crate::node) homeless: u64,
    /// The most copies that any of those lacks.
    pub(in crate::node) nodes_missing: u8,
    /// Damaged chunks of this node that no other node has now.
    pub(in crate::node) lost: u64,
    /// Copies made since the start.
    pub(in crate::node) repaired: u64,
}

/// What there is to do next.
enum News {
    /// The node has just started.
    Began,
    /// There is a new view.
    View,
    /// Other chunks are pinned.
    Pins,
    /// Chunks to look at.
    Wanted(Wanted),
    /// A copy ended.
    Copied(Copy, Made),
    /// Some copies here were given up, or not.
    Given(Given),
}

/// The worker.
pub(in crate::node) struct Repair {
    shared: Arc<Shared>,
    news: Option<News>,
    views: watch::Receiver<Arc<View>>,
    pins: watch::Receiver<u64>,
    /// Chunks to look at soon.
    wanted: mpsc::Receiver<Wanted>,
    /// Names the look at all chunks that runs or was the last; different after a restart.
    round: u32,
    /// Where that look goes on; none when it has ended.
    next: Option<ChunkId>,
    /// The candidates at the beginning of that, and when they came to be these.
    placed: u64,
    since: Time,
    /// When all chunks are looked at again.
    due: Option<Time>,
    /// The same, however little there was to find.
    daily: Time,
    /// The earlier of them.
    sweep_at: Time,
    /// Whether copies were left missing or somebody did not answer since that began, and how long
    /// to wait then.
    failed: bool,
    /// Whether some of them could not be read: what was not seen may be there.
    unread: bool,
    retry: Duration,
    /// Whether others are to take chunks of which this node has too many, and how long to wait
    /// until they have some.
    sheds: bool,
    relief: Duration,
    copier: Copier,
    /// Chunks with copies under way, and how many of those.
    open: BTreeMap<ChunkId, (Judged, usize)>,
    /// Lost chunks that the look at all chunks has not met yet.
    doubted: BTreeSet<ChunkId>,
    /// Damaged chunks that are being fetched.
    healing: BTreeSet<ChunkId>,
    counts: Counts,
    repaired: u64,
    /// Bytes of those copies.
    copied: u64,
    surplus: Surplus,
    /// Where looking for copies to give up goes on, when there were more than could wait.
    spare_from: Option<ChunkId>,
}

impl Worker for Repair {
    const NAME: &'static str = "repair";

    async fn work(&mut self) -> Worked {
        match self.news.take() {
            Some(News::Began) => self.begin().await,
            Some(News::View) => self.moved().await,
            Some(News::Pins) => self.begin_sweep(),
            Some(News::Wanted(wanted)) => self.look_at(wanted).await,
            Some(News::Copied(copy, made)) => self.ended(copy, made).await,
            Some(News::Given(given)) => self.given(&given),
            None if self.next.is_some() => self.sweep().await,
            None if self.sweep_at <= self.shared.sys.clock.now() => self.begin_sweep(),
            None if self.wants_spare() => self.look_for_spare().await,
            None => {}
        }
        self.take_up().await;
        let now = self.shared.sys.clock.now();
        self.sweep_at = self.due.unwrap_or(self.daily).min(self.daily);
        Ok(match self.copier.paced(now) {
            _ if self.next.is_some() || self.wants_spare() => Next::More,
            Some(until) => Next::Pause(until.min(self.sweep_at)),
            None if self.copier.is_idle() => Next::Idle(self.sweep_at),
            None => Next::UnderWay(Some(self.sweep_at)),
        })
    }

    async fn wait(&mut self) {
        self.news = Some(tokio::select! {
            biased;
            // The senders live in `shared`.
            _ = self.views.changed() => News::View,
            _ = self.pins.changed() => News::Pins,
            Some(wanted) = self.wanted.recv() => News::Wanted(wanted),
            (copy, made) = self.copier.next() => News::Copied(copy, made),
            given = self.surplus.next() => News::Given(given),
        });
    }

    fn report(&self) -> Report {
        let (below, looking) = (self.counts.below(), self.next.is_some());
        let doing = match below {
            0 if looking => "looking at all chunks".into(),
            0 => String::new(),
            1 => "1 chunk to copy".into(),
            more => format!("{more} chunks to copy"),
        };
        Report { doing, moved: self.copied, moved_unit: "bytes", ..Report::default() }
    }
}

impl Repair {
    pub(in crate::node) fn new(shared: Arc<Shared>, wanted: mpsc::Receiver<Wanted>) -> Self {
        // Seconds, so that no round of an earlier life has the same name.
        let round = (shared.sys.clock.wall_ms() / 1000) as u32;
        let since = shared.sys.clock.now();
        Self {
            copier: Copier::new(shared.clone()),
            surplus: Surplus::new(shared.clone()),
            news: Some(News::Began),
            views: shared.views(),
            pins: shared.pins.settled.subscribe(),
            shared,
            wanted,
            round,
            next: None,
            placed: 0,
            since,
            daily: since,
            due: None,
            sweep_at: Time::ZERO,
            failed: false,
            unread: false,
            retry: RETRY,
            sheds: false,
            relief: RETRY,
            open: BTreeMap::new(),
            doubted: BTreeSet::new(),
            healing: BTreeSet::new(),
            counts: Counts::default(),
            repaired: 0,
            copied: 0,
            spare_from: None,
        }
    }

    /// Waits a moment until others are met again: what they hold cannot be known before, and is no
    /// cause for alarm.
    async fn begin(&mut self) {
        self.recount();
        self.tell();
        let met = self.views.wait_for(|view| view.members.values().all(|member| member.lives()));
        drop(tokio::time::timeout(MEET_MAX, met).await);
        self.views.mark_changed();
    }

    /// The candidates may be others now.
    async fn moved(&mut self) {
        let placed = self.views.borrow_and_update().placed;
        if placed != self.placed {
            self.since = self.shared.sys.clock.now();
            self.settle(placed).await;
            // Who was away may have what the others let go meanwhile, and would copy it.
            self.shared.reconcile_first().await;
            (self.retry, self.relief) = (RETRY, RETRY);
            self.surplus.forget();
            self.begin_sweep();
        }
    }

    /// Waits until the candidates have stayed the same for a moment, so that a burst of changes is
    /// one look at all chunks.
    async fn settle(&mut self, mut placed: u64) {
        let quiet = async {
            loop {
                let changed = self.views.wait_for(|view| view.placed != placed);
                match tokio::time::timeout(QUIET, changed).await {
                    Ok(Ok(view)) => placed = view.placed,
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        };
        // However it ends: the look begins with the candidates of that moment.
        tokio::time::timeout(UNQUIET_MAX, quiet).await.unwrap_or_default();
    }

    /// Looks at the chunks that were handed over, as many as one question has room for.
    async fn look_at(&mut self, first: Wanted) {
        let mut late = Vec::new();
        let mut cids = BTreeMap::new();
        let mut next = Some(first);
        while let Some(wanted) = next {
            late.extend(wanted.late);
            cids.insert(wanted.cid, wanted.holders);
            next = if cids.len() < CIDS_MAX { self.wanted.try_recv().ok() } else { None };
        }
        let mut batch = Vec::with_capacity(cids.len());
        let mut elsewhere = Vec::new();
        for (cid, holders) in cids {
            match self.replica(cid) {
                Some(replica) => batch.push(replica),
                None if self.is_claimed(cid) => self.heal(cid),
                None => elsewhere.push((cid, holders)),
            }
        }
        self.tell_holders(elsewhere).await;
        self.look(batch).await;
        if self.shared.repair_missed.swap(false, Ordering::Relaxed) {
            // Some were handed over while too many waited: only looking at all finds them.
            self.due_at(self.shared.sys.clock.now() + RETRY);
        }
        self.tell();
        drop(late);
    }

    fn replica(&self, cid: ChunkId) -> Option<Replica> {
        let Ok(Some(Held { replica: true, len, hint })) = self.shared.store.held(cid) else {
            return None;
        };
        let claims = self.shared.store.claims(cid).ok()?;
        let replicas = claims.iter().map(|(claim, _)| claim.replicas).max().unwrap_or(0);
        Some(Replica { cid, len, replicas, hint, damaged: false })
    }

    /// Whether this node is to keep the chunk.
    fn is_claimed(&self, cid: ChunkId) -> bool {
        self.shared.store.claims(cid).is_ok_and(|claims| !claims.is_empty())
    }

    /// Has a damaged chunk fetched again. When too many are, the next sweep finds the others.
    fn heal(&mut self, cid: ChunkId) {
        if self.healing.len() >= LOST_MAX {
            self.failed = true;
        } else if self.healing.insert(cid) {
            self.copier.add(Copy { cid, to: self.shared.me, len: 0, last: true });
        }
    }

    /// Hands chunks that are not here to one of their holders each: the first that answers.
    async fn tell_holders(&mut self, mut chunks: Vec<(ChunkId, Vec<NodeId>)>) {
        while !chunks.is_empty() {
            let mut to: BTreeMap<NodeId, Vec<(ChunkId, Vec<NodeId>)>> = BTreeMap::new();
            for (cid, mut holders) in std::mem::take(&mut chunks) {
                if let Some(next) = holders.pop() {
                    to.entry(next).or_default().push((cid, holders));
                }
            }
            for (id, told) in to {
                let cids = told.iter().map(|(cid, _)| *cid).collect();
                if let Err(err) = self.shared.ask_below(id, cids).await {
                    tracing::debug!(peer = %id.short(), %err, "cannot be told what to repair");
                    chunks.extend(told);
                }
            }
        }
    }

    /// Begins to look at all chunks.
    fn begin_sweep(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.placed = self.shared.view().placed;
        self.daily = self.shared.sys.clock.now() + SWEEP_EVERY;
        tracing::trace!(me = %self.shared.me.short(), self.round, "looking at all chunks");
        self.next = Some(ChunkId([0; 32]));
        self.due = None;
        self.spare_from = None;
        (self.failed, self.unread, self.sheds) = (false, false, false);
        self.doubted = lock(&self.shared.lost).clone();
    }

    /// Looks at the next batch of all chunks.
    async fn sweep(&mut self) {
        let Some(from) = self.next.take() else { return };
        let mut batch = match self.batch(from) {
            Ok(batch) => batch,
            Err(err) => {
                self.doubted.clear();
                return self.cannot_read(&err);
            }
        };
        self.next = rest(&batch);
        for damaged in batch.extract_if(.., |replica| replica.damaged) {
            self.doubted.remove(&damaged.cid);
            if self.healing.len() < LOST_MAX && self.healing.insert(damaged.cid) {
                let (cid, to) = (damaged.cid, self.shared.me);
                self.copier.add(Copy { cid, to, len: damaged.len, last: true });
            }
        }
        self.look(batch).await;
        if self.next.is_none() {
            self.end_sweep().await;
        }
    }

    async fn end_sweep(&mut self) {
        if *self.shared.draining.borrow() && self.shared.store.usage().claimed() > 0 {
            // The others are about to copy what is left here.
            self.failed = true;
        }
        if self.sheds {
            // Somebody may soon have taken what this node has too much of. Later each time.
            self.due_at(self.shared.sys.clock.now() + self.relief);
            self.relief = (self.relief * 2).min(RETRY_MAX);
        }
        if self.failed {
            // Later each time.
            self.due_at(self.shared.sys.clock.now() + self.retry);
            self.retry = (self.retry * 2).min(RETRY_MAX);
        } else {
            self.retry = RETRY;
        }
        if !self.unread {
            self.forget_older().await;
        }
        // What is lost and not here any more is nobody's loss.
        lock(&self.shared.lost).retain(|cid| !self.doubted.contains(cid));
        self.recount();
        self.tell();
        tracing::trace!(me = %self.shared.me.short(), self.failed, "looked at all chunks");
    }

    /// Something cannot be read here: it is looked at later.
    fn cannot_read(&mut self, err: &io::Error) {
        tracing::warn!(%err, "repair cannot read the store");
        self.shared.worker_failed(Self::NAME, err);
        self.unread = true;
        self.not_done();
    }

    fn batch(&self, from: ChunkId) -> io::Result<Vec<Replica>> {
        let mut batch = Vec::with_capacity(64);
        self.shared.store.replicas(from, &mut |replica| {
            batch.push(replica);
            batch.len() < CIDS_MAX
        })?;
        Ok(batch)
    }

    /// Judges chunks and keeps what was found; copies are taken up by themselves.
    async fn look(&mut self, batch: Vec<Replica>) {
        let judged = match self.shared.judge(batch).await {
            Ok(judged) => judged,
            Err(err) => return self.cannot_read(&err),
        };
        self.tell_responsible(&judged).await;
        self.look_again(&judged);
        let patient = self.retry < PATIENCE;
        let open = |one: &Judged| !(one.verdict.fill.is_empty() || one.unsure && patient);
        self.note_below(&judged, open).await;
        self.note_copies(&judged).await;
        self.give_up(&judged);
        self.sheds |= judged.iter().any(|one| one.sheds);
        self.tell();
    }

    /// Gives up copies that others make superfluous, once the candidates have been the same for
    /// long enough that nobody is about to come back or go.
    fn give_up(&mut self, judged: &[Judged]) {
        if judged.iter().all(|one| one.keepers.is_empty()) {
            return;
        }
        let settled = self.since + self.shared.config.repair_delay;
        if self.shared.sys.clock.now() < settled && !*self.shared.draining.borrow() {
            self.due_at(settled);
        } else if !self.surplus.add(judged) {
            let first = judged.first().map(|one| one.replica.cid);
            self.spare_from = self.spare_from.into_iter().chain(first).min();
        }
    }

    /// Whether there may be more copies to give up, and room for them to wait.
    fn wants_spare(&self) -> bool {
        self.spare_from.is_some() && self.surplus.is_idle()
    }

    /// Looks for more copies to give up where it had to stop.
    async fn look_for_spare(&mut self) {
        let Some(from) = self.spare_from.take() else { return };
        let mut batch = match self.batch(from) {
            Ok(batch) => batch,
            Err(err) => return self.cannot_read(&err),
        };
        self.spare_from = rest(&batch);
        batch.retain(|replica| !replica.damaged);
        match self.shared.judge(batch).await {
            Ok(judged) => self.give_up(&judged),
            Err(err) => self.cannot_read(&err),
        }
    }

    /// Looks again soon when some copies could not be given up, or when more are to be made
    /// elsewhere before this node is empty.
    fn given(&mut self, given: &Given) {
        let Given { spare, given } = *given;
        tracing::debug!(spare, given, "gave up copies that are not needed here");
        let now = self.shared.sys.clock.now();
        if given < spare {
            self.due_at(now + SPARE_AGAIN);
        }
        if given > 0 && *self.shared.draining.borrow() {
            self.retry = RETRY;
            self.due_at(now + RETRY);
        }
    }

    /// Whatever was found missing is looked at again: somebody else may be about to make it, or a
    /// delay may pass.
    fn look_again(&mut self, judged: &[Judged]) {
        judged.iter().filter_map(|one| one.verdict.due).for_each(|due| self.due_at(due));
        if judged.iter().any(|one| one.verdict.missing > 0 || one.unsure) {
            self.not_done();
        }
    }

    /// All chunks are looked at again soon.
    fn not_done(&mut self) {
        self.failed = true;
        if self.next.is_none() {
            self.due_at(self.shared.sys.clock.now() + self.retry);
        }
    }

    /// Hands the copier what is most urgent, when it has nothing to do.
    async fn take_up(&mut self) {
        while self.copier.is_hungry() && self.counts.queued() {
            let most = TAKEN_AT_ONCE + self.open.len();
            let queue = self.shared.store.read_tables(|tables| below::queue(tables, most));
            let queue = queue.unwrap_or_default();
            // While all chunks are looked at, only what has one copy left is copied already.
            let urgent = self.next.is_some();
            let next = queue
                .into_iter()
                .filter(|(cid, copies)| !self.open.contains_key(cid) && (*copies <= 1 || !urgent));
            let cids: Vec<ChunkId> = next.map(|(cid, _)| cid).take(TAKEN_AT_ONCE).collect();
            if cids.is_empty() {
                return;
            }
            let batch = cids.iter().filter_map(|cid| self.replica(*cid)).collect();
            let judged = match self.shared.judge(batch).await {
                Ok(judged) => judged,
                Err(err) => return self.cannot_read(&err),
            };
            self.look_again(&judged);
            self.forget_but(&cids, &judged).await;
            let copies: Vec<Copy> = judged.iter().flat_map(copies).collect();
            self.point(&copies).await;
            for one in judged {
                self.copies_of(one);
            }
        }
    }

    /// Takes on the copies of one chunk.
    fn copies_of(&mut self, judged: Judged) {
        let copies: Vec<Copy> = copies(&judged).collect();
        if !copies.is_empty() {
            self.open.insert(judged.replica.cid, (judged, copies.len()));
            copies.into_iter().for_each(|copy| self.copier.add(copy));
        }
    }

    /// What was taken up is not taken up again; what is not here any more is not below its copies.
    async fn forget_but(&mut self, taken: &[ChunkId], judged: &[Judged]) {
        let here: BTreeSet<ChunkId> = judged.iter().map(|one| one.replica.cid).collect();
        let gone: Vec<ChunkId> = taken.iter().filter(|cid| !here.contains(cid)).copied().collect();
        self.note_below(judged, |_| false).await;
        let written = self.shared.change_tables(move |tables| {
            let mut change = Counts::default();
            for cid in gone {
                below::note(tables, cid, None, &mut change)?;
            }
            Ok(change)
        });
        match written.await {
            Ok(change) => self.counts.add(&change),
            Err(err) => tracing::warn!(%err, "repair cannot write down what it found"),
        }
    }

    /// A copy was made, or not.
    async fn ended(&mut self, copy: Copy, made: Made) {
        if made == Made::Yes {
            self.repaired += 1;
            self.copied += u64::from(copy.len);
        } else {
            self.not_done();
        }
        if copy.to == self.shared.me {
            self.healed(copy.cid, made).await;
        } else if let Some((mut judged, left)) = self.open.remove(&copy.cid) {
            judged.made += u8::from(made == Made::Yes);
            if left > 1 {
                self.open.insert(copy.cid, (judged, left - 1));
            } else if judged.missing() > 0 && made == Made::Yes {
                // What was found of it may be old by now. What could not be copied waits for the
                // next look at all chunks: whoever did not take it would not take it now.
                let batch = self.replica(copy.cid).into_iter().collect();
                self.look(batch).await;
            } else {
                let judged = [judged];
                self.note_below(&judged, |_| false).await;
                self.note_copies(&judged).await;
            }
        }
        self.tell();
    }

    /// A damaged chunk was fetched again, or not.
    async fn healed(&mut self, cid: ChunkId, made: Made) {
        self.healing.remove(&cid);
        match made {
            Made::Yes => {
                lock(&self.shared.lost).remove(&cid);
                let batch = self.replica(cid).into_iter().collect();
                self.look(batch).await;
            }
            Made::Lost => {
                let mut lost = lock(&self.shared.lost);
                if lost.len() < LOST_MAX {
                    lost.insert(cid);
                }
            }
            Made::No => {}
        }
    }

    /// Tells the nodes that are responsible for chunks below their copies: they may not have
    /// noticed, because a put knows at once and a table of members that stays the same is silent,
    /// or may not have known of the claims that ask for those copies.
    async fn tell_responsible(&mut self, judged: &[Judged]) {
        let mut to: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for one in judged.iter().filter(|one| one.verdict.missing > 0) {
            let other = one.verdict.first.filter(|first| *first != self.shared.me);
            let Some(first) = other else { continue };
            to.entry(first).or_default().push(one.replica.cid);
        }
        for (id, cids) in to {
            if let Err(err) = self.shared.ask_below(id, cids).await {
                tracing::debug!(peer = %id.short(), %err, "cannot be told what to repair");
                self.failed = true;
            }
        }
    }

    /// Tells those who are about to get chunks where these are until then.
    async fn point(&self, copies: &[Copy]) {
        let mut to: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for Copy { cid, to: id, .. } in copies {
            to.entry(*id).or_default().push(*cid);
        }
        for (id, cids) in to {
            if let Err(err) = self.shared.tell_pointers(id, cids).await {
                tracing::debug!(peer = %id.short(), %err, "pointers were not taken");
            }
        }
    }

    /// Keeps what is left below its copies.
    async fn note_below(&mut self, judged: &[Judged], open: impl Fn(&Judged) -> bool) {
        let (me, round) = (self.shared.me, self.round);
        let rows: Vec<_> =
            judged.iter().map(|one| (one.replica.cid, one.row(me, round, open(one)))).collect();
        let written = self.shared.change_tables(move |tables| {
            let mut change = Counts::default();
            for (cid, row) in rows {
                below::note(tables, cid, row, &mut change)?;
            }
            Ok(change)
        });
        match written.await {
            Ok(change) => self.counts.add(&change),
            Err(err) => tracing::warn!(%err, "repair cannot write down what it found"),
        }
    }

    /// Keeps how many copies each claim has.
    async fn note_copies(&self, judged: &[Judged]) {
        let mut claims: Vec<(ClaimId, u8)> = Vec::new();
        for one in judged {
            let copies = one.copies();
            let of_chunk = self.shared.store.claims(one.replica.cid).unwrap_or_default();
            let found = of_chunk.into_iter().map(|(claim, _)| (claim.id, copies));
            claims.extend(found.filter(|(claim, copies)| !self.is_noted(claim, *copies)));
        }
        if claims.is_empty() {
            return;
        }
        let round = self.round;
        let written = self.shared.change_tables(move |tables| {
            claims
                .iter()
                .try_for_each(|(id, copies)| below::note_copies(tables, id, round, *copies))
        });
        if let Err(err) = written.await {
            tracing::warn!(%err, "repair cannot write down how many copies there are");
        }
    }

    /// Whether it is written down already that a claim has so many copies, and nothing else can be
    /// found of it in this round: most files have one chunk, and are as they were.
    fn is_noted(&self, claim: &ClaimId, copies: u8) -> bool {
        self.shared.copies_of(claim) == Some(copies)
            && self.shared.store.is_of_one_chunk(*claim).unwrap_or(false)
    }

    /// Forgets chunks that are not here any more.
    async fn forget_older(&self) {
        let round = self.round;
        loop {
            let forgotten =
                self.shared.change_tables(move |tables| below::forget_older(tables, round)).await;
            match forgotten {
                Ok(true) => {}
                Ok(false) => return,
                Err(err) => return tracing::warn!(%err, "repair cannot forget what is gone"),
            }
        }
    }

    /// Counts the table of what is below its copies.
    fn recount(&mut self) {
        match self.shared.store.read_tables(|tables| below::count(tables)) {
            Ok(counts) => self.counts = counts,
            Err(err) => tracing::warn!(%err, "repair cannot count"),
        }
    }

    fn tell(&self) {
        self.shared.repair_reports(Tally {
            below: self.counts.below(),
            bytes: self.counts.bytes(),
            homeless: self.counts.homeless(),
            nodes_missing: self.counts.nodes_missing(),
            lost: lock(&self.shared.lost).len() as u64,
            repaired: self.repaired,
        });
    }

    fn due_at(&mut self, at: Time) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// The copies that a chunk lacks.
fn copies(judged: &Judged) -> impl Iterator<Item = Copy> {
    let Replica { cid, len, .. } = judged.replica;
    // One that lacks none, and is only to move, is in no hurry.
    let last = judged.verdict.copies <= 1 && judged.verdict.missing > 0;
    judged.verdict.fill.iter().map(move |to| Copy { cid, to: *to, len, last })
}

/// Where the next batch begins; none: this was the last.
fn rest(batch: &[Replica]) -> Option<ChunkId> {
    batch.last().filter(|_| batch.len() == CIDS_MAX).and_then(|last| successor(last.cid))
}

/// The smallest chunk id above `cid`.
pub(super) fn successor(cid: ChunkId) -> Option<ChunkId> {
    let mut next = cid.0;
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(ChunkId(next));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_carries() {
        let mut id = [0; 32];
        id[31] = 0xff;
        let mut next = [0; 32];
        next[30] = 1;
        assert_eq!(successor(ChunkId(id)), Some(ChunkId(next)));
        assert_eq!(successor(ChunkId([0xff; 32])), None);
    }
}
