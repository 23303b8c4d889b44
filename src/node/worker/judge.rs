//! Looks at a batch of chunks: ends what was let go of them, asks their candidates who keeps them,
//! which gives those the claims that they lack, and has `core::repair` judge each. Owns the
//! questions and what the answers mean; what is done about it is the worker's.

use super::below::Row;
use super::claims::{Claimed, Kept};
use crate::core::placement::{per_mille, shedding};
use crate::core::repair::{self, Holder, Verdict, judge};
use crate::id::{ChunkId, NodeId};
use crate::node::Shared;
use crate::node::view::{Member, View};
use crate::store::Replica;
use crate::sys::Time;
use crate::wire::message::ClaimsDigest;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A day in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What was found of one chunk, and how many copies were made since.
pub(super) struct Judged {
    pub(super) replica: Replica,
    pub(super) verdict: Verdict,
    pub(super) made: u8,
    /// Whether a live candidate did not answer: it may hold the chunk.
    pub(super) unsure: bool,
    /// Who has it so well that this node need not; empty: it has to.
    pub(super) keepers: Vec<NodeId>,
    /// Whether this node, which has more than its share, is to give it to somebody who can take it.
    pub(super) sheds: bool,
}

impl Judged {
    /// Copies that are still missing.
    pub(super) fn missing(&self) -> u8 {
        self.verdict.missing.saturating_sub(self.made)
    }

    /// Live copies.
    pub(super) fn copies(&self) -> u8 {
        self.verdict.copies.saturating_add(self.made)
    }

    /// What is left to be done about the chunk, when `me` has to do it; `open`: now.
    pub(super) fn row(&self, me: NodeId, round: u32, open: bool) -> Option<Row> {
        let Verdict { first, homeless, .. } = self.verdict;
        // What is handed to a home that is back lacks nothing, and is counted by nobody.
        let missing = if first == Some(me) { self.missing() } else { 0 };
        // What lacks none comes after all that does.
        let copies = if self.verdict.missing > 0 { self.copies() } else { u8::MAX };
        let len = self.replica.len;
        (missing > 0 || open).then_some(Row { missing, homeless, copies, open, len, round })
    }
}

/// What the other candidates say.
#[derive(Default)]
struct Answers {
    /// For each chunk the nodes that keep it.
    holders: BTreeMap<ChunkId, BTreeSet<NodeId>>,
    /// Live nodes that did not answer, by what they were asked of.
    silent: BTreeSet<(NodeId, ChunkId)>,
}

impl Shared {
    /// Judges chunks of this node, at most one question's worth. When the claims on them cannot be
    /// read nothing is known.
    pub(super) async fn judge(self: &Arc<Self>, batch: Vec<Replica>) -> io::Result<Vec<Judged>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.claimed(batch).await?;
        let view = self.view();
        let answers = self.ask_holders(&view, &batch).await;
        let (delay, me, now) = (self.config.repair_delay, self.me, self.sys.clock.now());
        let (day, mean) = (self.sys.clock.wall_ms() / DAY_MS, view.mean_used());
        let replicas = batch.into_iter().map(|claimed| claimed.replica);
        let judged = replicas.map(|replica| {
            let known = answers.holders.get(&replica.cid);
            let (mut candidates, others) = self.candidates_of(&view, &replica, known);
            relieve(&view, &replica.cid, &mut candidates, day, mean);
            let Replica { cid, hint, replicas, .. } = replica;
            let verdict = judge(me, &candidates, &others, hint, replicas, delay, now);
            tracing::trace!(me = %me.short(), cid = %cid.short(), ?verdict, "judged");
            let open = verdict.missing > 0 || !verdict.fill.is_empty();
            let silent = |c: &Holder| c.alive && answers.silent.contains(&(c.id, cid));
            let unsure = open && candidates.iter().any(silent);
            // A node that is emptied keeps nothing.
            let pinned = self.pins.keeps(&cid) && !*self.draining.borrow();
            let keepers = match pinned {
                true => Vec::new(),
                false => self.keepers(&view, &candidates, &others, replicas, now),
            };
            let sheds = !pinned
                && candidates.iter().any(|c| c.id == me && c.sheds)
                && (!keepers.is_empty() || candidates.iter().any(Holder::takes));
            Judged { replica, verdict, made: 0, unsure, keepers, sheds }
        });
        Ok(judged.collect())
    }

    /// Asks the other live candidates which of the chunks they keep.
    async fn ask_holders(self: &Arc<Self>, view: &View, batch: &[Claimed]) -> Answers {
        let mut questions: BTreeMap<NodeId, Vec<(ChunkId, ClaimsDigest)>> = BTreeMap::new();
        for Claimed { replica, digest } in batch {
            let live = view.candidates(&replica.cid).into_iter();
            for id in live.filter(|id| *id != self.me && view.lives(id)) {
                questions.entry(id).or_default().push((replica.cid, *digest));
            }
        }
        let mut asking = JoinSet::new();
        for (id, chunks) in questions {
            let shared = self.clone();
            let cids: Vec<ChunkId> = chunks.iter().map(|(cid, _)| *cid).collect();
            asking.spawn(async move { (id, cids, shared.kept_by(id, chunks).await) });
        }
        let mut answers = Answers::default();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((id, _, Ok(Kept { kept, unknown }))) => {
                    answers.silent.extend(unknown.into_iter().map(|cid| (id, cid)));
                    for cid in kept {
                        answers.holders.entry(cid).or_default().insert(id);
                    }
                }
                Ok((id, cids, Err(err))) => {
                    tracing::debug!(peer = %id.short(), %err, "does not say what it holds");
                    answers.silent.extend(cids.into_iter().map(|cid| (id, cid)));
                }
                Err(_) => {}
            }
        }
        answers
    }

    fn candidates_of(
        &self,
        view: &View,
        replica: &Replica,
        known: Option<&BTreeSet<NodeId>>,
    ) -> (Vec<Holder>, Vec<NodeId>) {
        let me = self.me;
        let holds = |id: &NodeId| *id == me || known.is_some_and(|known| known.contains(id));
        let ids = view.candidates(&replica.cid);
        // What is on a node that is being emptied is safe for now, and has to go elsewhere.
        let drains = |id: &NodeId| view.members.get(id).is_some_and(Member::drains);
        let leaving = ids.iter().filter(|id| drains(id) && view.lives(id) && holds(id));
        let mut others: Vec<NodeId> = leaving.copied().collect();
        if !ids.contains(&me) {
            others.push(me);
        }
        let stay = ids.iter().filter(|id| !drains(id)).filter_map(|id| view.members.get(id));
        let candidates = stay.map(|member| Holder {
            id: member.record.id,
            alive: member.lives(),
            room: member.has_space(),
            over_full: !member.has_room(),
            sheds: false,
            holds: holds(&member.record.id),
            since: member.since,
            zone: view.zone(&member.record.id),
        });
        (candidates.collect(), others)
    }

    /// Who holds a chunk so well that this node need not.
    fn keepers(
        &self,
        view: &View,
        candidates: &[Holder],
        others: &[NodeId],
        replicas: u8,
        now: Time,
    ) -> Vec<NodeId> {
        let drains = view.members.get(&self.me).is_some_and(Member::drains);
        // Who is emptied cannot wait for nodes that are not there.
        let most = if drains { most(candidates, self.config.repair_delay, now) } else { u8::MAX };
        let wanted = replicas.min(most);
        let keepers = repair::keepers(self.me, candidates, wanted).unwrap_or_default();
        // A copy in a second zone is worth more than a place in the order; one copy is in one.
        let holding = candidates.iter().filter(|c| c.alive && c.holds).map(|c| &c.id);
        // What is on a node that is emptied goes, wherever that is, when several others have it.
        let beside = if drains && keepers.len() > 1 { &[][..] } else { others };
        let zones = view.zones(holding.chain(beside)).min(usize::from(replicas)).min(2);
        if view.zones(&keepers) < zones { Vec::new() } else { keepers }
    }
}

/// Notes which holders of a chunk are to give it to somebody with less than their share. Those that
/// have given it up already keep their place in the draw, or the next one would be drawn for it.
fn relieve(view: &View, cid: &ChunkId, candidates: &mut [Holder], day: u64, mean: u64) {
    let is_full = |c: &Holder| view.members.get(&c.id).is_some_and(Member::is_over_full);
    let mut full: Vec<&mut Holder> =
        candidates.iter_mut().filter(|c| c.alive && is_full(c)).collect();
    let share = |m: &Member| per_mille(m.record.used.into(), 64);
    let used = |c: &&mut Holder| view.members.get(&c.id).map_or(0, share);
    let used: Vec<u64> = full.iter().map(used).collect();
    let sheds = shedding(cid, day, &used, mean);
    full.iter_mut().zip(sheds).for_each(|(c, sheds)| c.sheds = sheds);
}

/// How many copies of a chunk there can be elsewhere once a node has been emptied: where there is
/// room or a copy, and where somebody went so lately that he may be back. Two, as long as two nodes
/// are known, however long they have been away.
fn most(candidates: &[Holder], delay: Duration, now: Time) -> u8 {
    let counts = |c: &&Holder| if c.alive { c.room || c.holds } else { now.since(c.since) < delay };
    let most = candidates.iter().filter(counts).count().max(candidates.len().min(2));
    u8::try_from(most).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_emptied_waits_for_who_may_be_back_and_never_goes_down_to_one_copy() {
        let delay = Duration::from_secs(600);
        let (soon, late) = (Time(2_000_000), Time(1_000_000) + delay);
        let holder = |n: u8, alive: bool| Holder {
            id: NodeId([n; 32]),
            alive,
            room: alive,
            over_full: false,
            sheds: false,
            holds: alive,
            since: Time(1_000_000),
            zone: 0,
        };
        let all = [holder(1, true), holder(2, true), holder(3, false)];
        assert_eq!((most(&all, delay, soon), most(&all, delay, late)), (3, 2));
        assert_eq!((most(&all[1..], delay, soon), most(&all[1..], delay, late)), (2, 2));
        assert_eq!(most(&all[..1], delay, late), 1, "nobody else is known");
        let full = Holder { room: false, holds: false, ..all[0] };
        assert_eq!(most(&[full, all[1], full, all[0]], delay, late), 2);
    }
}
