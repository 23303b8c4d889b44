//! Gives up copies that are not needed here, because enough better holders have the chunk: those
//! that a node's absence made necessary, and all of a node that is being emptied. Owns the proof
//! that the others really have it, asked and given; who the better holders are is judged by repair.
//!
//! Invariant: a copy is given up only when each of the better holders has shown just now that it
//! has the bytes, with all claims on them, and has promised to keep them. Who promised gives up
//! nothing until the promise has ended, so two nodes cannot count on each other and both let go. A
//! claim that was not handed over keeps the copy.

use super::judge::Judged;
use crate::id::{ChunkId, NodeId};
use crate::node::memory::{Slot, User};
use crate::node::{Shared, lock};
use crate::store::{Claim, Held, Op, Outcome, Replica};
use crate::sys::Time;
use crate::wire::message::{CIDS_MAX, PROVE_MAX, Proofs, Prove};
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a promise holds.
const PROMISED_FOR: Duration = Duration::from_secs(600);
/// Questions for proofs that wait.
const SPARE_MAX: usize = 64;
/// All of one look at chunks finds room when none waits.
const _: () = assert!(SPARE_MAX * PROVE_MAX >= CIDS_MAX);
/// Promises that are remembered; beyond them nothing is proved.
const PROMISES_MAX: usize = 32 * 1024;
/// How often those that have ended are looked for, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What this node has promised to keep, and what it is giving up.
#[derive(Default)]
pub(in crate::node) struct Promises {
    /// Until when, and who was promised it last.
    made: BTreeMap<ChunkId, (Time, NodeId)>,
    /// How many of them each node has.
    each: BTreeMap<NodeId, usize>,
    going: BTreeSet<ChunkId>,
    /// When those that have ended are looked for again.
    look_at: Time,
}

impl Promises {
    /// Promises a node to keep a chunk; false when it is going, or there are too many.
    fn promise(&mut self, cid: ChunkId, to: NodeId, now: Time) -> bool {
        if self.going.contains(&cid) {
            return false;
        }
        if !self.has_room(&cid, &to) {
            self.forget_ended(now);
            if !self.has_room(&cid, &to) {
                return false;
            }
        }
        if let Some((_, before)) = self.made.insert(cid, (now + PROMISED_FOR, to)) {
            self.one_less(before);
        }
        *self.each.entry(to).or_default() += 1;
        true
    }

    /// Whether the node may be promised this chunk: nobody has more promises than are left for all
    /// others, so that there are always some left.
    fn has_room(&self, cid: &ChunkId, to: &NodeId) -> bool {
        let has = self.each.get(to).copied().unwrap_or(0);
        let again = self.made.get(cid).is_some_and(|(_, before)| before == to);
        again || has < PROMISES_MAX - self.made.len()
    }

    fn forget_ended(&mut self, now: Time) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let ended = self.made.extract_if(.., |_, (until, _)| *until <= now);
        let ended: Vec<NodeId> = ended.map(|(_, (_, to))| to).collect();
        ended.into_iter().for_each(|to| self.one_less(to));
    }

    fn one_less(&mut self, to: NodeId) {
        if let Some(count) = self.each.get_mut(&to) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&to);
            }
        }
    }

    /// Whether nothing was promised, so that it may go.
    fn let_go(&mut self, cid: ChunkId, now: Time) -> bool {
        let promised = self.made.get(&cid).is_some_and(|(until, _)| *until > now);
        !promised && self.going.insert(cid)
    }
}

/// A copy that is not needed here, and who is to prove that.
type Spare = (Replica, Vec<NodeId>);

/// Copies that are being given up, beside everything else that repair does: a proof may be long in
/// coming.
pub(super) struct Surplus {
    shared: Arc<Shared>,
    waiting: VecDeque<Vec<Spare>>,
    /// One at a time.
    under_way: JoinSet<Given>,
    /// The chunks of that one.
    current: BTreeSet<ChunkId>,
}

/// What became of some copies.
pub(super) struct Given {
    /// How many were to be given up.
    pub(super) spare: u64,
    /// How many were.
    pub(super) given: u64,
}

impl Surplus {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (waiting, under_way, current) = Default::default();
        Self { shared, waiting, under_way, current }
    }

    /// Takes on those of the chunks that are not needed here, each once; false when too many wait.
    pub(super) fn add(&mut self, judged: &[Judged]) -> bool {
        let mut taken: BTreeSet<ChunkId> =
            self.waiting.iter().flatten().map(|(replica, _)| replica.cid).collect();
        taken.append(&mut self.current.clone());
        let new = |one: &&Judged| !one.keepers.is_empty() && !taken.contains(&one.replica.cid);
        let spare = judged.iter().filter(new);
        let spare: Vec<Spare> = spare.map(|one| (one.replica, one.keepers.clone())).collect();
        for some in spare.chunks(PROVE_MAX) {
            if self.waiting.len() == SPARE_MAX {
                return false;
            }
            self.waiting.push_back(some.to_vec());
        }
        true
    }

    /// Whether none waits or is being given up.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Forgets what waits: others may be the better holders now.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Waits for the next copies to be given up. Never ends while there are none; may be cancelled.
    pub(super) async fn next(&mut self) -> Given {
        loop {
            if self.under_way.is_empty()
                && let Some(spare) = self.waiting.pop_front()
            {
                let shared = self.shared.clone();
                self.current = spare.iter().map(|(replica, _)| replica.cid).collect();
                self.under_way.spawn(async move { shared.give_up(&spare).await });
            }
            let ended = self.under_way.join_next().await;
            self.current.clear();
            match ended {
                Some(Ok(given)) => return given,
                Some(Err(_)) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }
}

impl Shared {
    /// Gives up what of these chunks others prove to have.
    async fn give_up(self: &Arc<Self>, spare: &[Spare]) -> Given {
        let began = self.sys.clock.now();
        // Before they are handed over: whatever comes later keeps the copy here.
        let claims: Vec<Vec<Claim>> = spare.iter().map(|(of, _)| self.claims_on(of.cid)).collect();
        let nonce: [u8; 32] = self.sys.rng.bytes();
        let proofs = self.proofs(spare, nonce).await;
        let mut given = 0;
        for ((Replica { cid, .. }, keepers), claims) in spare.iter().zip(claims) {
            let slot = self.memory.take(User::Work).await;
            let Some(expected) = self.proof(*cid, u8::MAX, nonce, slot).await else { continue };
            let view = self.view();
            // While another keeper was waited for, one that has proved it may have died.
            let good = |id: &NodeId| view.lives(id) && proofs.get(&(*cid, *id)) == Some(&expected);
            // Long before any of the promises ends.
            let fresh = self.sys.clock.now().since(began) < PROMISED_FOR / 2;
            if fresh && keepers.iter().all(good) && self.drop_copy(*cid, claims).await {
                given += 1;
            }
        }
        Given { spare: spare.len() as u64, given }
    }

    fn claims_on(&self, cid: ChunkId) -> Vec<Claim> {
        let claims = self.store.claims(cid).unwrap_or_default();
        claims.into_iter().map(|(claim, _)| claim).collect()
    }

    /// What the keepers of these chunks show, once they have the claims on them.
    async fn proofs(
        self: &Arc<Self>,
        spare: &[Spare],
        nonce: [u8; 32],
    ) -> BTreeMap<(ChunkId, NodeId), [u8; 32]> {
        let mut by_keeper: BTreeMap<(NodeId, u8), Vec<ChunkId>> = BTreeMap::new();
        for (Replica { cid, replicas, .. }, keepers) in spare {
            for id in keepers {
                by_keeper.entry((*id, *replicas)).or_default().push(*cid);
            }
        }
        let mut proofs = BTreeMap::new();
        for ((id, copies), cids) in by_keeper {
            if !self.hand_over_claims(id, cids.clone()).await.unknown.is_empty() {
                continue;
            }
            match self.ask_prove(id, &Prove { nonce, copies, cids: cids.clone() }).await {
                Ok(given) => {
                    let given = cids.into_iter().zip(given);
                    proofs.extend(given.filter_map(|(cid, proof)| Some(((cid, id), proof?))));
                }
                Err(err) => tracing::debug!(peer = %id.short(), %err, "no proof came"),
            }
        }
        proofs
    }

    /// Gives up a copy on which there are these claims and no others.
    async fn drop_copy(&self, cid: ChunkId, claims: Vec<Claim>) -> bool {
        if !lock(&self.promises).let_go(cid, self.sys.clock.now()) {
            return false;
        }
        let outcomes = self.write(vec![Op::Drop { cid, claims }]).await;
        lock(&self.promises).going.remove(&cid);
        matches!(outcomes.as_deref(), Ok([Outcome::Dropped { dropped: true }]))
    }

    /// Whether this node keeps a chunk, whole as far as is known and claimed for so many copies at
    /// most.
    fn keeps(&self, cid: ChunkId, copies: u8) -> bool {
        let replica = matches!(self.store.held(cid), Ok(Some(Held { replica: true, .. })));
        let wanted = self.copies_kept_for(cid).unwrap_or_default();
        replica && wanted.is_some_and(|wanted| wanted <= copies)
    }

    /// What shows that this node keeps a chunk and has its bytes.
    async fn proof(
        self: &Arc<Self>,
        cid: ChunkId,
        copies: u8,
        nonce: [u8; 32],
        mut slot: Slot,
    ) -> Option<[u8; 32]> {
        if !self.keeps(cid, copies) {
            return None;
        }
        let shared = self.clone();
        let read = self.job(move || {
            let read = shared.store.read(cid, &mut |len| {
                let mut buf: BytesMut = slot.buffer();
                buf.resize(len, 0);
                buf
            });
            let sealed = slot.hold(read.ok()??);
            let good = crate::crypto::chunk_id(&sealed) == cid;
            good.then(|| *blake3::keyed_hash(&nonce, &sealed).as_bytes())
        });
        let proof = read.await.ok()?;
        if proof.is_none() {
            self.check_again(cid);
        }
        proof
    }

    /// Answers a peer's question for proofs, in its share of the memory for peers.
    pub(in crate::node) async fn prove(self: &Arc<Self>, peer: NodeId, prove: Prove) -> Proofs {
        let Prove { nonce, copies, cids } = prove;
        let mut proofs = Vec::with_capacity(cids.len());
        for cid in cids {
            proofs.push(self.promised(peer, cid, copies, nonce).await);
        }
        Proofs { proofs }
    }

    /// Promises a peer to keep a chunk and shows that it is here.
    async fn promised(
        self: &Arc<Self>,
        peer: NodeId,
        cid: ChunkId,
        copies: u8,
        nonce: [u8; 32],
    ) -> Option<[u8; 32]> {
        if !self.keeps(cid, copies) {
            return None;
        }
        let slot = self.fetched.take(User::Peer(peer)).await;
        // The promise comes first: what is shown afterwards stays.
        if !lock(&self.promises).promise(cid, peer, self.sys.clock.now()) {
            return None;
        }
        self.proof(cid, copies, nonce, slot).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId([1; 32]);
    const BOB: NodeId = NodeId([2; 32]);

    fn id(n: usize) -> ChunkId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        ChunkId(id)
    }

    #[test]
    fn what_was_promised_stays_and_what_is_going_is_not_promised() {
        let (mut promises, now) = (Promises::default(), Time(1));
        let (one, two) = (id(1), id(2));
        assert!(promises.promise(one, ANN, now) && !promises.let_go(one, now));
        assert!(promises.let_go(two, now) && !promises.promise(two, ANN, now));
        assert!(promises.let_go(one, now + PROMISED_FOR));
    }

    #[test]
    fn promises_are_bounded_and_one_node_leaves_some_to_others() {
        let (mut promises, now) = (Promises::default(), Time(1));
        let most = PROMISES_MAX / 2;
        assert!((0..most).all(|n| promises.promise(id(n), ANN, now)));
        assert!(!promises.promise(id(most), ANN, now) && promises.promise(id(0), ANN, now));
        assert!((0..100).all(|n| promises.promise(id(most + n), BOB, now)));
        // Who asks last has it.
        assert!((0..100).all(|n| promises.promise(id(n), BOB, now)));
        assert_eq!((promises.each[&ANN], promises.each[&BOB]), (most - 100, 200));
        assert_eq!(promises.made.len(), most + 100);
    }

    #[test]
    fn promises_that_have_ended_make_room_and_are_not_looked_for_all_the_time() {
        let (mut promises, now) = (Promises::default(), Time(1));
        let most = PROMISES_MAX / 2;
        assert!((0..most).all(|n| promises.promise(id(n), ANN, now)));
        let almost = now + PROMISED_FOR - Duration::from_millis(1);
        assert!(!promises.promise(id(most), ANN, almost));
        assert!(!promises.promise(id(most), ANN, now + PROMISED_FOR), "looked a moment ago");
        assert!(promises.promise(id(most), ANN, now + PROMISED_FOR + LOOK_EVERY));
        assert_eq!((promises.made.len(), promises.each[&ANN]), (1, 1));
    }
}
