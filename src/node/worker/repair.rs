//! The repair worker: finds chunks of this node that are below their copies, makes the missing
//! ones, and counts what is left. `core::repair` judges each chunk; here it is asked who holds it,
//! and the copies are made.
//!
//! It looks at a chunk when a put hands it over, at all chunks when the membership changes, and at
//! all of them once a day. What is below its copies is kept in a table, so that memory does not
//! grow with it, and the count rides in this node's member record.

use crate::core::repair::{Holder, Verdict, judge};
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::Shared;
use crate::node::view::View;
use crate::store::{Held, Op, ReadError, Replica};
use crate::sys::{Table, TableWrite, Time};
use crate::wire::message::{CIDS_MAX, CLAIMS_MAX, ClaimTerms, Store as StoreMessage};
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Chunks below their copies that this node is responsible for: cid → missing, homeless.
const BELOW: Table = Table("repair.below");
/// Claims by the fewest copies of any of their chunks seen: claim → round, copies.
const COPIES: Table = Table("repair.copies");

/// Copies made at once: enough to keep a disk and a link busy, few enough to leave room for puts.
const COPIES_AT_ONCE: usize = 4;
/// How long the membership must be quiet before all chunks are looked at.
const QUIET: Duration = Duration::from_millis(300);
/// How often all chunks are looked at although nothing changed.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How soon a failed copy is tried again.
const RETRY: Duration = Duration::from_secs(5);

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
    /// Copies made since the start.
    pub(in crate::node) repaired: u64,
}

/// The worker.
pub(in crate::node) struct Repair {
    shared: Arc<Shared>,
    round: u32,
    due: Option<Time>,
    tally: Tally,
}

/// What became of one batch.
struct Judged {
    replica: Replica,
    verdict: Verdict,
    made: u8,
}

impl Repair {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, round: 0, due: None, tally: Tally::default() }
    }

    /// Works until the sender of `wanted` is gone.
    pub(in crate::node) async fn run(mut self, mut wanted: mpsc::Receiver<ChunkId>) {
        let mut views = self.shared.views();
        self.sweep().await;
        loop {
            let now = self.shared.sys.clock.now();
            let pause = self.due.map_or(SWEEP_EVERY, |due| due.since(now)).min(SWEEP_EVERY);
            tokio::select! {
                biased;
                cid = wanted.recv() => match cid {
                    Some(cid) => self.look_at(cid, &mut wanted).await,
                    None => return,
                },
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.settle(&mut views).await;
                    self.sweep().await;
                }
                () = tokio::time::sleep(pause) => self.sweep().await,
            }
        }
    }

    /// Waits until the membership has been quiet for a moment, so that a burst is one sweep.
    async fn settle(&self, views: &mut tokio::sync::watch::Receiver<Arc<View>>) {
        while let Ok(Ok(())) = tokio::time::timeout(QUIET, views.changed()).await {}
    }

    /// Looks at the chunks that puts handed over.
    async fn look_at(&mut self, first: ChunkId, wanted: &mut mpsc::Receiver<ChunkId>) {
        let mut cids = BTreeSet::from([first]);
        while cids.len() < CIDS_MAX
            && let Ok(cid) = wanted.try_recv()
        {
            cids.insert(cid);
        }
        for cid in &cids {
            self.mend(*cid).await;
        }
        let held = cids.into_iter().filter_map(|cid| self.replica(cid));
        let batch: Vec<Replica> = held.collect();
        self.work_on(batch).await;
        self.report();
    }

    /// Fetches a chunk again whose replica here is damaged.
    async fn mend(&mut self, cid: ChunkId) {
        match self.shared.try_mend(cid).await {
            Ok(false) => {}
            Ok(true) => self.tally.repaired += 1,
            // It is tried again when somebody asks for it, and in the next sweep.
            Err(err) => tracing::warn!(cid = %cid.short(), %err, "a damaged chunk stays so"),
        }
    }

    fn replica(&self, cid: ChunkId) -> Option<Replica> {
        let Ok(Some(Held { replica: true, len, hint })) = self.shared.store.held(cid) else {
            return None;
        };
        let claims = self.shared.store.claims(cid).ok()?;
        let replicas = claims.iter().map(|(claim, _)| claim.replicas).max().unwrap_or(0);
        Some(Replica { cid, len, replicas, hint })
    }

    /// Looks at all chunks, a batch at a time. A change of the membership meanwhile starts anew.
    async fn sweep(&mut self) {
        let views = self.shared.views();
        self.round = self.round.wrapping_add(1);
        self.due = None;
        for cid in self.shared.store.damaged().unwrap_or_default() {
            self.mend(cid).await;
        }
        let mut next = Some([0; 32]);
        while let Some(from) = next {
            let batch = match self.batch(ChunkId(from)) {
                Ok(batch) => batch,
                Err(err) => {
                    tracing::warn!(%err, "repair cannot read the store");
                    self.due_at(self.shared.sys.clock.now() + RETRY);
                    return;
                }
            };
            next = batch.last().and_then(|last| successor(last.cid));
            if batch.len() < CIDS_MAX {
                next = None;
            }
            self.work_on(batch).await;
            self.report();
            if views.has_changed().unwrap_or(true) {
                return;
            }
        }
        self.recount();
        self.report();
    }

    fn batch(&self, from: ChunkId) -> io::Result<Vec<Replica>> {
        let mut batch = Vec::with_capacity(64);
        self.shared.store.replicas_from(from, &mut |replica| {
            batch.push(replica);
            batch.len() < CIDS_MAX
        })?;
        Ok(batch)
    }

    /// Asks who holds the chunks, makes the copies that are due and writes down what is left.
    async fn work_on(&mut self, batch: Vec<Replica>) {
        let view = self.shared.view();
        let holders = self.ask_holders(&view, &batch).await;
        let now = self.shared.sys.clock.now();
        let mut judged = Vec::with_capacity(batch.len());
        let mut copies = Vec::new();
        for replica in batch.into_iter().filter(|replica| replica.replicas > 0) {
            let known = holders.get(&replica.cid);
            let (candidates, others) = self.holders_of(&view, &replica, known);
            let delay = self.shared.config.repair_delay;
            let me = self.shared.me;
            let verdict = judge(me, &candidates, &others, replica.replicas, delay, now);
            copies.extend(verdict.fill.iter().map(|to| (judged.len(), replica.cid, *to)));
            if let Some(due) = verdict.due {
                self.due_at(due);
            }
            judged.push(Judged { replica, verdict, made: 0 });
        }
        self.point(&copies).await;
        self.copy(copies, &mut judged).await;
        self.write_down(judged).await;
    }

    /// For each chunk the other live nodes that hold it as a replica.
    async fn ask_holders(
        &self,
        view: &View,
        batch: &[Replica],
    ) -> BTreeMap<ChunkId, BTreeSet<NodeId>> {
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
        let mut holders: BTreeMap<ChunkId, BTreeSet<NodeId>> = BTreeMap::new();
        while let Some(answer) = asking.join_next().await {
            if let Ok((id, cids, Ok(bits))) = answer {
                let yes = cids.into_iter().zip(bits).filter(|(_, bit)| *bit);
                yes.for_each(|(cid, _)| _ = holders.entry(cid).or_default().insert(id));
            }
        }
        holders
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

    /// Tells those who are about to get chunks where these are until then.
    async fn point(&self, copies: &[(usize, ChunkId, NodeId)]) {
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

    async fn copy(&mut self, copies: Vec<(usize, ChunkId, NodeId)>, judged: &mut [Judged]) {
        let mut copies = copies.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < COPIES_AT_ONCE
                && let Some((at, cid, to)) = copies.next()
            {
                let shared = self.shared.clone();
                under_way.spawn(async move { (at, shared.copy_to(cid, to).await) });
            }
            match under_way.join_next().await {
                Some(Ok((at, true))) => {
                    judged[at].made += 1;
                    self.tally.repaired += 1;
                }
                Some(_) => self.due_at(self.shared.sys.clock.now() + RETRY),
                None => return,
            }
        }
    }

    /// Keeps what is left below its copies, and how many copies each claim has.
    async fn write_down(&mut self, judged: Vec<Judged>) {
        let mut claims = Vec::new();
        for one in &judged {
            let copies = one.verdict.copies.saturating_add(one.made);
            let of_chunk = self.shared.store.claims(one.replica.cid).unwrap_or_default();
            claims.extend(of_chunk.into_iter().map(|(claim, _)| (claim.id, copies)));
        }
        let round = self.round;
        let written = self.shared.change_tables(move |tables| {
            judged.iter().try_for_each(|one| note_below(tables, one))?;
            claims.into_iter().try_for_each(|(id, copies)| note_copies(tables, id, round, copies))
        });
        match written.await {
            Ok(()) => self.recount(),
            Err(err) => tracing::warn!(%err, "repair cannot write down what it found"),
        }
    }

    /// Counts the table of what is below its copies.
    fn recount(&mut self) {
        let counted = self.shared.store.read_tables(|tables| {
            let mut tally = Tally { repaired: self.tally.repaired, ..Tally::default() };
            tables.range(BELOW, &[], None, &mut |_, row| {
                if let Some((missing, homeless, len)) = below_of(row) {
                    tally.below += 1;
                    tally.bytes += u64::from(missing) * u64::from(len);
                    tally.homeless += u64::from(homeless > 0);
                    tally.nodes_missing = tally.nodes_missing.max(homeless);
                }
                true
            })?;
            Ok(tally)
        });
        match counted {
            Ok(tally) => self.tally = tally,
            Err(err) => tracing::warn!(%err, "repair cannot count"),
        }
    }

    fn report(&self) {
        self.shared.repair_reports(self.tally);
    }

    fn due_at(&mut self, at: Time) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Shared {
    /// Copies a chunk of this node to another, with all its claims; true when it is there.
    async fn copy_to(self: &Arc<Self>, cid: ChunkId, to: NodeId) -> bool {
        match self.try_copy(cid, to).await {
            Ok(()) => true,
            Err(err) => {
                tracing::debug!(peer = %self.view().name(&to).escape_debug(), %err, "copy failed");
                false
            }
        }
    }

    async fn try_copy(
        self: &Arc<Self>,
        cid: ChunkId,
        to: NodeId,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut slot = self.memory.take().await;
        let shared = self.clone();
        let (sealed, slot) = self
            .job(move || {
                let read = shared.store.read(cid, &mut |len| {
                    let mut buf: BytesMut = slot.buffer();
                    buf.resize(len, 0);
                    buf
                });
                (read, slot)
            })
            .await?;
        if matches!(sealed, Err(ReadError::Damaged)) {
            self.is_damaged(cid);
        }
        let sealed = sealed?.ok_or("the chunk is gone")?;
        if crate::crypto::chunk_id(&sealed) != cid {
            self.check_again(cid);
            return Err("the copy here is damaged".into());
        }
        let claims = self.store.claims(cid)?;
        let mut terms = claims.into_iter().map(|(claim, committed)| ClaimTerms {
            id: claim.id,
            replicas: claim.replicas,
            renewed_ms: claim.renewed_ms,
            committed,
        });
        let first: Vec<_> = terms.by_ref().take(CLAIMS_MAX).collect();
        let store = StoreMessage { cid, claims: first, hint: None };
        self.ask_store(to, &store, slot.hold(sealed)).await?;
        for claim in terms {
            self.ask_have(to, claim, vec![cid]).await?;
        }
        Ok(())
    }

    /// Puts a good copy in the place of a damaged replica; false when there is none.
    async fn try_mend(
        self: &Arc<Self>,
        cid: ChunkId,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        if !self.store.is_damaged(cid)? {
            return Ok(false);
        }
        let _slot = self.memory.take().await;
        let (sealed, _) = self.fetch(cid).await?;
        // Its claims are here still.
        self.write(vec![Op::Replica { cid, sealed, claim: None, hint: None }]).await?;
        Ok(true)
    }

    /// The fewest copies of any chunk under a claim, as last seen here.
    pub(in crate::node) fn copies_of(&self, claim: &ClaimId) -> Option<u8> {
        let row = self.store.read_tables(|tables| tables.get(COPIES, &claim.0)).ok()??;
        copies_row(&row).map(|(_, copies)| copies)
    }

    /// Writes down how many copies everything under a claim has.
    pub(in crate::node) async fn set_copies(&self, claim: ClaimId, copies: u8) -> io::Result<()> {
        self.change_tables(move |tables| tables.insert(COPIES, &claim.0, &copies_bytes(0, copies)))
            .await
    }

    /// Hands a chunk to the repair worker. When more wait than fit, the next sweep finds it.
    pub(in crate::node) fn wants_repair(&self, cid: ChunkId) {
        if self.repair_queue().try_send(cid).is_err() {
            tracing::debug!("the repair queue is full");
        }
    }
}

fn note_below(tables: &mut dyn TableWrite, one: &Judged) -> io::Result<()> {
    let (verdict, key) = (&one.verdict, &one.replica.cid.0);
    let missing = verdict.missing.saturating_sub(one.made);
    if !verdict.responsible || missing == 0 {
        return tables.remove(BELOW, key).map(drop);
    }
    let mut row = vec![missing, verdict.homeless];
    row.extend_from_slice(&one.replica.len.to_le_bytes());
    tables.insert(BELOW, key, &row)
}

/// Missing copies, those without a node to take them, and the chunk's length in bytes.
fn below_of(row: &[u8]) -> Option<(u8, u8, u32)> {
    let (missing, homeless, len) = (row.first()?, row.get(1)?, row.get(2..6)?);
    Some((*missing, *homeless, u32::from_le_bytes(len.try_into().ok()?)))
}

/// Within one round the fewest copies of any chunk count; a new round starts afresh.
fn note_copies(
    tables: &mut dyn TableWrite,
    claim: ClaimId,
    round: u32,
    copies: u8,
) -> io::Result<()> {
    let before = tables.get(COPIES, &claim.0)?.as_deref().and_then(copies_row);
    let fewest = match before {
        Some((seen, fewest)) if seen == round => fewest.min(copies),
        _ => copies,
    };
    tables.insert(COPIES, &claim.0, &copies_bytes(round, fewest))
}

fn copies_bytes(round: u32, copies: u8) -> [u8; 5] {
    let [a, b, c, d] = round.to_le_bytes();
    [a, b, c, d, copies]
}

fn copies_row(row: &[u8]) -> Option<(u32, u8)> {
    let (round, copies) = row.split_first_chunk()?;
    Some((u32::from_le_bytes(*round), *copies.first()?))
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
