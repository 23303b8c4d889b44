//! Gives up copies that are not needed here, because enough better holders have the chunk: those
//! that a node's absence made necessary, and all of a node that is being emptied. Owns the proof
//! that the others really have it, asked and given; who the better holders are is judged by repair.
//!
//! Invariant: a copy is given up only when each of the better holders has shown just now that it has
//! the bytes, with all claims on them, and has promised to keep them. Who promised gives up nothing
//! until the promise has ended, so two nodes cannot count on each other and both let go. A claim that
//! was not handed over keeps the copy.

use super::judge::Judged;
use crate::id::{ChunkId, NodeId};
use crate::node::memory::User;
use crate::node::{Shared, lock};
use crate::store::{Claim, Op, Outcome, Replica};
use crate::sys::Time;
use crate::wire::message::{PROVE_MAX, Proofs, Prove};
use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a promise holds.
const PROMISED_FOR: Duration = Duration::from_secs(600);
/// Questions for proofs that wait.
const SPARE_MAX: usize = 64;
/// Promises that are remembered; beyond them nothing is proved.
const PROMISES_MAX: usize = 32 * 1024;

/// What this node has promised to keep, and what it is giving up.
#[derive(Default)]
pub(in crate::node) struct Promises {
    until: BTreeMap<ChunkId, Time>,
    going: BTreeSet<ChunkId>,
}

impl Promises {
    /// Promises to keep a chunk; false when it is going, or there are too many.
    fn promise(&mut self, cid: ChunkId, now: Time) -> bool {
        if self.until.len() >= PROMISES_MAX {
            self.until.retain(|_, until| *until > now);
        }
        let room = self.until.len() < PROMISES_MAX || self.until.contains_key(&cid);
        let stays = room && !self.going.contains(&cid);
        if stays {
            self.until.insert(cid, now + PROMISED_FOR);
        }
        stays
    }

    /// Whether nothing was promised, so that it may go.
    fn let_go(&mut self, cid: ChunkId, now: Time) -> bool {
        let promised = self.until.get(&cid).is_some_and(|until| *until > now);
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
    under_way: JoinSet<Given>,
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
        Self { shared, waiting: VecDeque::new(), under_way: JoinSet::new() }
    }

    /// Takes on those of the chunks that are not needed here; false when too many wait.
    pub(super) fn add(&mut self, judged: &[Judged]) -> bool {
        let spare = judged.iter().filter(|one| !one.keepers.is_empty());
        let spare: Vec<Spare> = spare.map(|one| (one.replica, one.keepers.clone())).collect();
        for some in spare.chunks(PROVE_MAX) {
            if self.waiting.len() == SPARE_MAX {
                return false;
            }
            self.waiting.push_back(some.to_vec());
        }
        true
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
                self.under_way.spawn(async move { shared.give_up(&spare).await });
            }
            match self.under_way.join_next().await {
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
            let Some(expected) = self.proof(*cid, u8::MAX, nonce).await else { continue };
            let good = |id: &NodeId| proofs.get(&(*cid, *id)) == Some(&expected);
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
            let all: Vec<(ChunkId, u8)> = cids.iter().map(|cid| (*cid, 0)).collect();
            if !self.hand_over_claims(id, &all).await {
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

    /// What shows that this node has a chunk on its disk, whole and claimed for so many copies at
    /// most.
    async fn proof(
        self: &Arc<Self>,
        cid: ChunkId,
        copies: u8,
        nonce: [u8; 32],
    ) -> Option<[u8; 32]> {
        let claims = self.store.claims(cid).ok()?;
        let wanted = claims.iter().map(|(claim, _)| claim.replicas).max()?;
        if wanted > copies {
            return None;
        }
        let mut slot = self.memory.take(User::Work).await;
        let shared = self.clone();
        let read = self.job(move || {
            let read = shared.store.read(cid, &mut |len| {
                let mut buf: BytesMut = slot.buffer();
                buf.resize(len, 0);
                buf
            });
            let sealed = slot.hold(read.ok()??);
            let good = crate::crypto::chunk_id(&sealed) == cid;
            Some((good, *blake3::keyed_hash(&nonce, &sealed).as_bytes()))
        });
        match read.await.ok()?? {
            (true, proof) => Some(proof),
            (false, _) => {
                self.check_again(cid);
                None
            }
        }
    }

    /// Answers a question for proofs.
    pub(in crate::node) async fn prove(self: &Arc<Self>, prove: Prove) -> Proofs {
        let mut proofs = Vec::with_capacity(prove.cids.len());
        for cid in prove.cids {
            // The promise comes first: what is shown afterwards stays.
            let stays = lock(&self.promises).promise(cid, self.sys.clock.now());
            proofs.push(if stays {
                self.proof(cid, prove.copies, prove.nonce).await
            } else {
                None
            });
        }
        Proofs { proofs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promised_stays_and_what_is_going_is_not_promised() {
        let (mut promises, now) = (Promises::default(), Time(1));
        let (one, two) = (ChunkId([1; 32]), ChunkId([2; 32]));
        assert!(promises.promise(one, now) && !promises.let_go(one, now));
        assert!(promises.let_go(two, now) && !promises.promise(two, now));
        assert!(promises.let_go(one, now + PROMISED_FOR));
    }

    #[test]
    fn promises_are_bounded_and_old_ones_forgotten() {
        let (mut promises, now) = (Promises::default(), Time(1));
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            ChunkId(id)
        };
        assert!((0..PROMISES_MAX).all(|n| promises.promise(id(n), now)));
        assert!(!promises.promise(id(PROMISES_MAX), now) && promises.promise(id(0), now));
        assert!(promises.promise(id(PROMISES_MAX), now + PROMISED_FOR));
    }
}
