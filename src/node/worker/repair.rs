//! The repair worker: finds chunks of this node that are below their copies, makes the missing
//! ones, and counts what is left. `core::repair` judges each chunk; here it is asked who holds it,
//! and the copies are made.
//!
//! It looks at a chunk when a put hands it over or a reader finds it damaged, at all chunks when
//! the candidates change, again soon when a copy failed, and at all of them once a day. What is
//! below its copies is kept in a table (`below`), and the count rides in this node's member record.

use super::below::{self, Counts, Row};
use super::handover::Wanted;
use crate::core::repair::{Holder, Verdict, judge};
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::Shared;
use crate::node::view::View;
use crate::store::{Held, Op, Replica};
use crate::sys::Time;
use crate::wire::message::CIDS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Copies made at once: enough to keep a disk and a link busy, few enough to leave room for puts.
const COPIES_AT_ONCE: usize = 4;
/// How long the candidates must stay the same before all chunks are looked at …
const QUIET: Duration = Duration::from_millis(300);
/// … at most, however often they change.
const UNQUIET_MAX: Duration = Duration::from_secs(5);
/// How long a node that starts waits for the members that it remembers.
const MEET_MAX: Duration = Duration::from_secs(3);
/// How often all chunks are looked at although nothing changed.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How soon it is tried again when a copy failed or a candidate did not answer; twice as long each
/// time, up to the second.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);
/// For so long a chunk is left alone while one of its live candidates does not answer; after that
/// it is judged as if that one did not hold it.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The worker.
pub(in crate::node) struct Repair {
    shared: Arc<Shared>,
    /// Chunks to look at soon.
    wanted: mpsc::Receiver<Wanted>,
    /// Names the look at all chunks that runs or was the last; different after a restart.
    round: u32,
    /// The candidates at the beginning of that.
    placed: u64,
    /// When all chunks are looked at again.
    due: Option<Time>,
    /// Whether copies were left missing or somebody did not answer since that began, and how long
    /// to wait then.
    failed: bool,
    retry: Duration,
    counts: Counts,
    /// Damaged chunks that nobody had when they were last asked for.
    lost: BTreeSet<ChunkId>,
    repaired: u64,
}

/// What became of one batch.
struct Judged {
    replica: Replica,
    verdict: Verdict,
    made: u8,
}

/// What the other candidates say.
#[derive(Default)]
struct Answers {
    /// For each chunk the nodes that hold it as a replica.
    holders: BTreeMap<ChunkId, BTreeSet<NodeId>>,
    /// Live nodes that did not answer.
    silent: BTreeSet<NodeId>,
}

/// A copy to be made: the place of its chunk in the batch, the chunk, and for whom.
type Copy = (usize, ChunkId, NodeId);

impl Repair {
    pub(in crate::node) fn new(shared: Arc<Shared>, wanted: mpsc::Receiver<Wanted>) -> Self {
        // Seconds, so that no round of an earlier life has the same name.
        let round = (shared.sys.clock.wall_ms() / 1000) as u32;
        Self {
            shared,
            wanted,
            round,
            placed: 0,
            due: None,
            failed: false,
            retry: RETRY,
            counts: Counts::default(),
            lost: BTreeSet::new(),
            repaired: 0,
        }
    }

    /// Works for as long as the node does.
    pub(in crate::node) async fn run(mut self) {
        self.recount();
        self.report();
        let mut views = self.shared.views();
        // What others hold cannot be known before they are met again, and is no cause for alarm.
        let met = views.wait_for(|view| view.members.values().all(|member| member.lives()));
        drop(tokio::time::timeout(MEET_MAX, met).await);
        views.mark_changed();
        loop {
            let now = self.shared.sys.clock.now();
            let pause = self.due.map_or(SWEEP_EVERY, |due| due.since(now)).min(SWEEP_EVERY);
            tokio::select! {
                biased;
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let placed = views.borrow_and_update().placed;
                    if placed != self.placed {
                        self.settle(&mut views, placed).await;
                        self.retry = RETRY;
                        self.sweep().await;
                    }
                }
                cid = self.wanted.recv() => match cid {
                    Some(wanted) => self.look_at(Some(wanted)).await,
                    None => return,
                },
                () = tokio::time::sleep(pause) => self.sweep().await,
            }
        }
    }

    /// Waits until the candidates have stayed the same for a moment, so that a burst of changes is
    /// one look at all chunks.
    async fn settle(&self, views: &mut watch::Receiver<Arc<View>>, mut placed: u64) {
        let quiet = async {
            loop {
                let changed = views.wait_for(|view| view.placed != placed);
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
    async fn look_at(&mut self, first: Option<Wanted>) {
        let mut late = Vec::new();
        let mut cids = BTreeMap::new();
        let mut next = first;
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
                None if self.is_claimed(cid) => batch.extend(self.heal(cid).await),
                None => elsewhere.push((cid, holders)),
            }
        }
        self.tell_holders(elsewhere).await;
        self.work_on(batch).await;
        if self.failed {
            self.due_at(self.shared.sys.clock.now() + self.retry);
        }
        if self.shared.repair_missed.swap(false, Ordering::Relaxed) {
            // Some were handed over while too many waited: only looking at all finds them.
            self.due_at(self.shared.sys.clock.now() + RETRY);
        }
        self.report();
        drop(late);
    }

    /// The batch with its damaged chunks replaced, less those that cannot be had now.
    async fn sound(&mut self, mut batch: Vec<Replica>) -> Vec<Replica> {
        let damaged: Vec<ChunkId> =
            batch.extract_if(.., |replica| replica.damaged).map(|replica| replica.cid).collect();
        for cid in damaged {
            batch.extend(self.heal(cid).await);
        }
        batch
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

    /// Fetches a chunk again that should be here and is not, because its copy was damaged.
    async fn heal(&mut self, cid: ChunkId) -> Option<Replica> {
        let (sealed, from) = match self.shared.fetch(cid).await {
            Ok(found) => found,
            Err(err) => {
                tracing::warn!(%err, "a damaged chunk cannot be replaced yet");
                self.failed = true;
                if self.lost.len() < LOST_MAX {
                    self.lost.insert(cid);
                }
                return None;
            }
        };
        self.lost.remove(&cid);
        let op = Op::Replica { cid, sealed, claim: None, hint: None };
        if let Err(err) = self.shared.write(vec![op]).await {
            tracing::warn!(%err, "a damaged chunk was not replaced");
            self.failed = true;
            return None;
        }
        let from = self.shared.view().name(&from);
        tracing::info!(cid = %cid.short(), from = %from.escape_debug(), "replaced a damaged chunk");
        self.repaired += 1;
        self.replica(cid)
    }

    /// Looks at all chunks, a batch at a time, and in between at those that are handed over. When
    /// the candidates change meanwhile it ends: the next look begins at once.
    async fn sweep(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.placed = self.shared.view().placed;
        self.due = None;
        self.failed = false;
        self.lost.clear();
        let mut next = Some([0; 32]);
        while let Some(from) = next {
            let batch = match self.batch(ChunkId(from)) {
                Ok(batch) => batch,
                Err(err) => {
                    tracing::warn!(%err, "repair cannot read the store");
                    self.failed = true;
                    break;
                }
            };
            next = batch.last().and_then(|last| successor(last.cid));
            if batch.len() < CIDS_MAX {
                next = None;
            }
            let batch = self.sound(batch).await;
            self.work_on(batch).await;
            self.look_at(None).await;
            if self.shared.view().placed != self.placed {
                return;
            }
        }
        if self.failed {
            self.due_at(self.shared.sys.clock.now() + self.retry);
            self.retry = (self.retry * 2).min(RETRY_MAX);
        } else {
            self.retry = RETRY;
            self.forget_older().await;
        }
        self.recount();
        self.report();
    }

    fn batch(&self, from: ChunkId) -> io::Result<Vec<Replica>> {
        let mut batch = Vec::with_capacity(64);
        self.shared.store.replicas(from, &mut |replica| {
            batch.push(replica);
            batch.len() < CIDS_MAX
        })?;
        Ok(batch)
    }

    /// Asks who holds the chunks, makes the copies that are due and writes down what is left.
    async fn work_on(&mut self, batch: Vec<Replica>) {
        if batch.is_empty() {
            return;
        }
        let view = self.shared.view();
        let answers = self.ask_holders(&view, &batch).await;
        let now = self.shared.sys.clock.now();
        let mut judged = Vec::with_capacity(batch.len());
        let mut copies = Vec::new();
        for replica in batch.into_iter().filter(|replica| replica.replicas > 0) {
            let known = answers.holders.get(&replica.cid);
            let (candidates, others) = self.holders_of(&view, &replica, known);
            let (delay, me) = (self.shared.config.repair_delay, self.shared.me);
            let Replica { cid, hint, replicas, .. } = replica;
            let mut verdict = judge(me, &candidates, &others, hint, replicas, delay, now);
            tracing::trace!(me = %me.short(), cid = %cid.short(), ?verdict, ?candidates, "judged");
            let open = verdict.missing > 0 || !verdict.fill.is_empty();
            if open && candidates.iter().any(|c| c.alive && answers.silent.contains(&c.id)) {
                self.failed = true;
                if self.retry < PATIENCE {
                    // It may well hold the chunk, which counts as below its copies until it says.
                    verdict.fill.clear();
                }
            }
            copies.extend(verdict.fill.iter().map(|to| (judged.len(), cid, *to)));
            if let Some(due) = verdict.due {
                self.due_at(due);
            }
            judged.push(Judged { replica, verdict, made: 0 });
        }
        self.tell_responsible(&judged).await;
        self.point(&copies).await;
        if !copies.is_empty() {
            // Copying takes its time: until then it is seen what is missing.
            self.note_below(&judged).await;
            self.report();
        }
        self.copy(copies, &mut judged).await;
        // Somebody else may be about to make what is missing: it is looked at again.
        self.failed |= judged.iter().any(|one| one.missing() > 0);
        self.note_below(&judged).await;
        self.note_copies(&judged).await;
    }

    /// Asks the other live candidates which of the chunks they hold.
    async fn ask_holders(&self, view: &View, batch: &[Replica]) -> Answers {
        let mut questions: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for replica in batch {
            let live = view.candidates(&replica.cid).into_iter();
            for id in live.filter(|id| *id != self.shared.me && view.lives(id)) {
                questions.entry(id).or_default().push(replica.cid);
            }
        }
        let mut asking = JoinSet::new();
        for (id, cids) in questions {
            let shared = self.shared.clone();
            asking.spawn(async move {
                let answer = shared.ask_holds(id, cids.clone()).await;
                (id, cids, answer)
            });
        }
        let mut answers = Answers::default();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((id, cids, Ok(bits))) => {
                    let yes = cids.into_iter().zip(bits).filter(|(_, bit)| *bit);
                    for (cid, _) in yes {
                        answers.holders.entry(cid).or_default().insert(id);
                    }
                }
                Ok((id, _, Err(err))) => {
                    tracing::debug!(peer = %id.short(), %err, "does not say what it holds");
                    answers.silent.insert(id);
                }
                Err(_) => {}
            }
        }
        answers
    }

    fn holders_of(
        &self,
        view: &View,
        replica: &Replica,
        known: Option<&BTreeSet<NodeId>>,
    ) -> (Vec<Holder>, Vec<NodeId>) {
        let me = self.shared.me;
        let holds = |id: &NodeId| *id == me || known.is_some_and(|known| known.contains(id));
        let ids = view.candidates(&replica.cid);
        let others = if ids.contains(&me) { Vec::new() } else { vec![me] };
        let candidates = ids.iter().filter_map(|id| view.members.get(id)).map(|member| Holder {
            id: member.record.id,
            alive: member.lives(),
            room: member.has_space(),
            over_full: !member.has_room(),
            holds: holds(&member.record.id),
            since: member.since,
        });
        (candidates.collect(), others)
    }

    /// Tells the nodes that are responsible for chunks below their copies: they may not have
    /// noticed, because a put knows at once and a table of members that stays the same is silent.
    async fn tell_responsible(&mut self, judged: &[Judged]) {
        let mut to: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for one in judged.iter().filter(|one| one.verdict.missing > 0) {
            let other = one.verdict.first.filter(|first| *first != self.shared.me);
            if let Some(first) = other {
                to.entry(first).or_default().push(one.replica.cid);
            }
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
        for (_, cid, id) in copies {
            to.entry(*id).or_default().push(*cid);
        }
        for (id, cids) in to {
            if let Err(err) = self.shared.tell_pointers(id, cids).await {
                tracing::debug!(peer = %id.short(), %err, "pointers were not taken");
            }
        }
    }

    async fn copy(&mut self, copies: Vec<Copy>, judged: &mut [Judged]) {
        let mut copies = copies.into_iter();
        let mut under_way = JoinSet::new();
        // Whoever did not take one copy is not kept asking: others wait for theirs.
        let mut lame = BTreeSet::new();
        loop {
            while under_way.len() < COPIES_AT_ONCE
                && let Some((at, cid, to)) = copies.next()
            {
                if lame.contains(&to) || !self.shared.view().lives(&to) {
                    self.failed = true;
                    continue;
                }
                let shared = self.shared.clone();
                under_way.spawn(async move { (at, to, shared.copy_to(cid, to).await) });
            }
            match under_way.join_next().await {
                Some(Ok((at, _, true))) => {
                    judged[at].made += 1;
                    self.repaired += 1;
                }
                Some(Ok((_, to, false))) => {
                    self.failed = true;
                    lame.insert(to);
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Keeps what is left below its copies.
    async fn note_below(&mut self, judged: &[Judged]) {
        let (me, round) = (self.shared.me, self.round);
        let rows: Vec<_> =
            judged.iter().map(|one| (one.replica.cid, one.below(me, round))).collect();
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
            let copies = one.verdict.copies.saturating_add(one.made);
            let of_chunk = self.shared.store.claims(one.replica.cid).unwrap_or_default();
            claims.extend(of_chunk.into_iter().map(|(claim, _)| (claim.id, copies)));
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

    fn report(&self) {
        self.shared.repair_reports(Tally {
            below: self.counts.below(),
            bytes: self.counts.bytes(),
            homeless: self.counts.homeless(),
            nodes_missing: self.counts.nodes_missing(),
            lost: self.lost.len() as u64,
            repaired: self.repaired,
        });
    }

    fn due_at(&mut self, at: Time) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Judged {
    /// Copies that are still missing.
    fn missing(&self) -> u8 {
        self.verdict.missing.saturating_sub(self.made)
    }

    /// What is left to be done about the chunk.
    fn below(&self, me: NodeId, round: u32) -> Option<Row> {
        let missing = self.missing();
        let row = Row { missing, homeless: self.verdict.homeless, len: self.replica.len, round };
        (self.verdict.first == Some(me) && missing > 0).then_some(row)
    }
}

/// The smallest chunk id above `cid`.
fn successor(cid: ChunkId) -> Option<[u8; 32]> {
    let mut next = cid.0;
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
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
        assert_eq!(successor(ChunkId(id)), Some(next));
        assert_eq!(successor(ChunkId([0xff; 32])), None);
    }
}
