//! The claims on chunks of this node and on the copies that others have. Owns their comparison:
//! what was let go and came back from a node that had not heard of it ends again, and a holder that
//! lacks a claim gets it, so that no copy counts which would be let go with somebody else's claim.

use super::gc::newest;
use crate::core::catalogue::{is_committed, is_released, thinned_until};
use crate::core::limits;
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::records::Snapshot;
use crate::node::replicate::{claim_of_terms, terms};
use crate::node::{AskError, Shared};
use crate::store::{self, Claim, Op, Outcome, Replica, WriteError};
use crate::wire::message::{
    ADOPTED_MAX, Adopt, Adopted, CLAIMS_MAX, ClaimTerms, ClaimsDigest, Compare, Compared,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Most chunks of which all claims are in memory at once.
const ADOPTED_AT_ONCE: usize = 64;

/// A chunk of this node, and all claims on it.
pub(super) struct Claimed {
    pub(super) replica: Replica,
    pub(super) digest: ClaimsDigest,
}

/// What is claimed on a chunk.
struct Claims {
    /// What it is kept for.
    live: Vec<ClaimTerms>,
    /// What was let go before, and until when it must have been renewed for that.
    ended: Vec<(ClaimId, u64)>,
    /// Stands for what is live: two holders with the same one keep the chunk for the same, and want
    /// as many copies. The first bytes of a BLAKE3 hash.
    digest: ClaimsDigest,
}

/// Which chunks a peer keeps for all that this node keeps them for.
pub(in crate::node) struct Kept {
    /// These.
    pub(in crate::node) kept: BTreeSet<ChunkId>,
    /// Of these it holds copies, but did not say in time whether it took the claims.
    pub(in crate::node) unknown: BTreeSet<ChunkId>,
}

impl Shared {
    /// What is claimed on a chunk, without what the catalogue says has ended or what puts have left
    /// behind that nobody finished: whoever still has those will end them.
    fn claims_now(&self, view: &Snapshot<'_>, cid: ChunkId) -> io::Result<Claims> {
        // What goes must not take with it what is in doubt.
        self.claims_of(view, cid, *self.draining.borrow())
    }

    /// The same, `doubtful`: with what puts have left behind.
    fn claims_of(&self, view: &Snapshot<'_>, cid: ChunkId, doubtful: bool) -> io::Result<Claims> {
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 claims on a chunk v1");
        for (claim, committed) in store::claims_in(view, cid)? {
            let until = thinned_until(view, &claim.id, &cid)?;
            if let Some(until) = until.filter(|until| claim.renewed_ms <= *until) {
                ended.push((claim.id, until));
                continue;
            }
            let committed = committed || is_committed(view, &claim.id)?;
            let renewed_ms = if committed { claim.renewed_ms } else { newest(view, &claim)? };
            let left_behind = !committed && self.is_left_behind(renewed_ms);
            if left_behind && !doubtful || is_released(view, &claim.id)? {
                continue;
            }
            hasher.update(&claim.id.0).update(&[claim.replicas]);
            if until.is_some() {
                // An older one, which has ended, is another one.
                hasher.update(&claim.renewed_ms.to_le_bytes());
            }
            live.push(ClaimTerms { committed, renewed_ms, ..terms(&claim) });
        }
        let mut digest = ClaimsDigest::default();
        hasher.finalize_xof().fill(&mut digest);
        Ok(Claims { live, ended, digest })
    }

    /// What a chunk is kept for now.
    pub(super) fn live_claims(&self, cid: ChunkId) -> io::Result<Vec<ClaimTerms>> {
        self.read_records(|view| Ok(self.claims_now(view, cid)?.live))
    }

    /// For how many copies this node keeps a chunk, with what puts have left behind: a node that is
    /// emptied hands that over too.
    pub(super) fn copies_kept_for(&self, cid: ChunkId) -> io::Result<Option<u8>> {
        let claims = self.read_records(|view| self.claims_of(view, cid, true))?;
        Ok(claims.live.iter().map(|claim| claim.replicas).max())
    }

    /// Those of the chunks that are claimed, after what was let go has ended.
    pub(super) async fn claimed(self: &Arc<Self>, batch: Vec<Replica>) -> io::Result<Vec<Claimed>> {
        let shared = self.clone();
        let (claimed, ended) = self.job(move || shared.look_at_claims(batch)).await??;
        if !ended.is_empty()
            && let Err(err) = self.write(ended).await
        {
            tracing::warn!(%err, "claims that were let go are still here");
        }
        Ok(claimed)
    }

    /// What is claimed of these chunks, and how to end what was let go before.
    fn look_at_claims(&self, batch: Vec<Replica>) -> io::Result<(Vec<Claimed>, Vec<Op>)> {
        let mut ended: BTreeMap<(ClaimId, u64), Vec<ChunkId>> = BTreeMap::new();
        let mut claimed = Vec::with_capacity(batch.len());
        self.read_records(|view| {
            for mut replica in batch {
                let claims = self.claims_now(view, replica.cid)?;
                for end in claims.ended {
                    ended.entry(end).or_default().push(replica.cid);
                }
                if let Some(replicas) = claims.live.iter().map(|claim| claim.replicas).max() {
                    replica.replicas = replicas;
                    claimed.push(Claimed { replica, digest: claims.digest });
                }
            }
            Ok(())
        })?;
        let op = |((claim, renewed_ms), cids)| Op::ReleaseRows { claim, cids, renewed_ms };
        Ok((claimed, ended.into_iter().map(op).collect()))
    }

    /// Which of the chunks a peer keeps for all that this node keeps them for; claims that it lacks
    /// it is given.
    pub(super) async fn kept_by(
        self: &Arc<Self>,
        peer: NodeId,
        mut chunks: Vec<(ChunkId, ClaimsDigest)>,
    ) -> Result<Kept, AskError> {
        chunks.sort_unstable();
        chunks.dedup();
        let Compared { held, same } =
            self.ask_compare(peer, &Compare { chunks: chunks.clone() }).await?;
        let blind = cfg!(p2pfs_planted = "claims-not-compared");
        let (mut same_as_here, mut lacking) = (Vec::new(), Vec::new());
        for (((cid, _), held), same) in chunks.into_iter().zip(held.bits).zip(same.bits) {
            match (held, same || blind) {
                (true, true) => same_as_here.push(cid),
                (true, false) => lacking.push(cid),
                (false, _) => {}
            }
        }
        let mut kept = self.hand_over_claims(peer, lacking).await;
        kept.kept.extend(same_as_here);
        Ok(kept)
    }

    /// Has a peer keep chunks that it holds for all that this node keeps them for.
    pub(super) async fn hand_over_claims(
        self: &Arc<Self>,
        peer: NodeId,
        chunks: Vec<ChunkId>,
    ) -> Kept {
        let began = self.sys.clock.now();
        let mut said = Kept { kept: BTreeSet::new(), unknown: BTreeSet::new() };
        let mut left = &chunks[..];
        while !left.is_empty() {
            // One that is slow must not keep the others waiting.
            if self.sys.clock.now().since(began) > limits::ASK {
                said.unknown.extend(left);
                break;
            }
            let next = left[..left.len().min(ADOPTED_AT_ONCE)].to_vec();
            let (taken, gone) = self.have_adopted(peer, next).await;
            let (some, more) = left.split_at(taken);
            match gone {
                Some(gone) => said.kept.extend(some.iter().filter(|cid| !gone.contains(cid))),
                None => said.unknown.extend(some),
            }
            left = more;
        }
        said
    }

    /// Has a peer take the claims on the first of some chunks: on how many, and which of those it
    /// does not hold, or none when it did not take all.
    async fn have_adopted(
        self: &Arc<Self>,
        peer: NodeId,
        chunks: Vec<ChunkId>,
    ) -> (usize, Option<BTreeSet<ChunkId>>) {
        let (shared, all) = (self.clone(), chunks.len());
        let read = self.job(move || shared.to_adopt(&chunks)).await.flatten();
        let unread = |err: &io::Error| tracing::warn!(%err, "claims cannot be read");
        let Ok((taken, adopted)) = read.inspect_err(unread) else { return (all, None) };
        let mut gone = BTreeSet::new();
        for batch in Adopt::batches(adopted) {
            let bits = match self.ask_adopt(peer, &batch).await {
                Ok(bits) => bits,
                Err(err) => {
                    tracing::debug!(peer = %peer.short(), %err, "claims were not taken");
                    return (taken, None);
                }
            };
            let lacking = batch.chunks.iter().zip(bits).filter(|(_, held)| !held);
            gone.extend(lacking.map(|(one, _)| one.cid));
        }
        (taken, Some(gone))
    }

    /// The claims on the first of some chunks, as they travel, and on how many these are: no more
    /// than fit a question, but for a single chunk that has more.
    fn to_adopt(&self, chunks: &[ChunkId]) -> io::Result<(usize, Vec<Adopted>)> {
        self.read_records(|view| {
            let (mut taken, mut claims, mut out) = (0, 0, Vec::new());
            for &cid in chunks {
                if claims >= ADOPTED_MAX {
                    break;
                }
                let live = self.claims_now(view, cid)?.live;
                claims += live.len();
                out.extend(
                    live.chunks(CLAIMS_MAX).map(|some| Adopted { cid, claims: some.to_vec() }),
                );
                taken += 1;
            }
            Ok((taken, out))
        })
    }

    /// Answers a peer's comparison.
    pub(in crate::node) async fn compared(
        self: &Arc<Self>,
        asked: Compare,
    ) -> io::Result<Compared> {
        let shared = self.clone();
        let compare = move || {
            shared.read_records(|view| {
                let mut answer = Compared::default();
                for (cid, digest) in asked.chunks {
                    let held = shared.holds(&cid);
                    answer.held.bits.push(held);
                    answer.same.bits.push(held && shared.claims_now(view, cid)?.digest == digest);
                }
                Ok(answer)
            })
        };
        self.job(compare).await?
    }

    /// Takes claims from a peer; which of the chunks are held then.
    pub(in crate::node) async fn adopt(
        self: &Arc<Self>,
        peer: NodeId,
        adopt: Adopt,
    ) -> Result<Vec<bool>, WriteError> {
        let cids: Vec<ChunkId> = adopt.chunks.iter().map(|one| one.cid).collect();
        let mut by_terms: BTreeMap<_, (Claim, Vec<ChunkId>)> = BTreeMap::new();
        let mut committed = BTreeSet::new();
        for Adopted { cid, claims } in adopt.chunks {
            for terms in claims {
                let same = (terms.id, terms.replicas, terms.renewed_ms);
                let claim = || (claim_of_terms(&terms), Vec::new());
                by_terms.entry(same).or_insert_with(claim).1.push(cid);
                committed.extend(terms.committed.then_some(terms.id));
            }
        }
        let claimed: Vec<(Claim, Vec<ChunkId>)> = by_terms.into_values().collect();
        let claim =
            |(claim, cids): &(Claim, Vec<ChunkId>)| Op::Claim { cids: cids.clone(), claim: *claim };
        let commits = committed.into_iter().map(|claim| Op::Commit { claim });
        let ops = claimed.iter().map(claim).chain(commits).collect();
        let outcomes = self.write_claimed(peer, ops).await?;
        let mut gone = BTreeSet::new();
        for ((_, cids), outcome) in claimed.into_iter().zip(outcomes) {
            let Outcome::Claim { held } = outcome else { continue };
            gone.extend(cids.into_iter().zip(held).filter(|(_, held)| !held).map(|(cid, _)| cid));
        }
        Ok(cids.into_iter().map(|cid| !gone.contains(&cid)).collect())
    }
}
