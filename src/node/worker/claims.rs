//! The claims on chunks of this node and on the copies that others have. Owns their comparison:
//! what was let go and came back from a node that had not heard of it ends again, and a holder that
//! lacks a claim gets it, so that no copy counts which would be let go with somebody else's claim.

use crate::core::catalogue::thinned_until;
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::node::{AskError, Shared};
use crate::store::{Claim, Op, Replica};
use crate::wire::message::{ClaimsDigest, Compare, Compared};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// A chunk of this node, and all claims on it.
pub(super) struct Claimed {
    pub(super) replica: Replica,
    pub(super) digest: ClaimsDigest,
}

/// Stands for all claims on a chunk, in the order of their ids: two holders with the same one keep
/// the chunk for the same and want as many copies. The first bytes of a BLAKE3 hash; whoever finds
/// another set for one only keeps his own chunk from being kept.
fn digest(claims: &[Claim]) -> ClaimsDigest {
    let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 claims on a chunk v1");
    for claim in claims {
        hasher.update(&claim.id.0).update(&[claim.replicas]);
    }
    let mut digest = ClaimsDigest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

impl Shared {
    fn digest_of(&self, cid: ChunkId) -> io::Result<ClaimsDigest> {
        let claims = self.store.claims(cid)?;
        Ok(digest(&claims.into_iter().map(|(claim, _)| claim).collect::<Vec<_>>()))
    }

    /// Those of the chunks that are claimed, after what was let go has ended.
    pub(super) async fn claimed(self: &Arc<Self>, batch: Vec<Replica>) -> Vec<Claimed> {
        let shared = self.clone();
        let work = self.job(move || shared.look_at_claims(batch)).await.flatten();
        let (claimed, ended) = work.unwrap_or_else(|err| {
            tracing::warn!(%err, "repair cannot read the claims");
            Default::default()
        });
        if !ended.is_empty()
            && let Err(err) = self.write(ended).await
        {
            tracing::warn!(%err, "claims that were let go are still here");
        }
        claimed
    }

    /// What is claimed of these chunks, and how to end what was let go before.
    fn look_at_claims(&self, batch: Vec<Replica>) -> io::Result<(Vec<Claimed>, Vec<Op>)> {
        let mut ended: BTreeMap<(ClaimId, u64), Vec<ChunkId>> = BTreeMap::new();
        let mut claimed = Vec::with_capacity(batch.len());
        self.read_records(|view| {
            for mut replica in batch {
                let mut claims = Vec::new();
                for (claim, _) in self.store.claims(replica.cid)? {
                    match thinned_until(view, &claim.id, &replica.cid)? {
                        Some(until) if claim.renewed_ms <= until => {
                            ended.entry((claim.id, until)).or_default().push(replica.cid);
                        }
                        _ => claims.push(claim),
                    }
                }
                if let Some(replicas) = claims.iter().map(|claim| claim.replicas).max() {
                    replica.replicas = replicas;
                    claimed.push(Claimed { replica, digest: digest(&claims) });
                }
            }
            Ok(())
        })?;
        let op = |((claim, renewed_ms), cids)| Op::ReleaseRows { claim, cids, renewed_ms };
        Ok((claimed, ended.into_iter().map(op).collect()))
    }

    /// Which of the chunks a peer keeps for all that this node keeps them for; claims that it lacks
    /// it has been given.
    pub(super) async fn kept_by(
        self: &Arc<Self>,
        peer: NodeId,
        chunks: Vec<(ChunkId, ClaimsDigest)>,
    ) -> Result<BTreeSet<ChunkId>, AskError> {
        let Compared { held, same } =
            self.ask_compare(peer, &Compare { chunks: chunks.clone() }).await?;
        let blind = cfg!(p2pfs_planted = "claims-not-compared");
        let (mut kept, mut lacking) = (BTreeSet::new(), Vec::new());
        for (((cid, _), held), same) in chunks.into_iter().zip(held.bits).zip(same.bits) {
            match (held, same || blind) {
                (true, true) => _ = kept.insert(cid),
                (true, false) => lacking.push(cid),
                (false, _) => {}
            }
        }
        kept.extend(self.hand_over_claims(peer, &lacking).await?);
        Ok(kept)
    }

    /// Answers a peer's comparison.
    pub(in crate::node) async fn compared(
        self: &Arc<Self>,
        asked: Compare,
    ) -> io::Result<Compared> {
        let shared = self.clone();
        self.job(move || {
            let mut answer = Compared::default();
            for (cid, digest) in asked.chunks {
                let held = shared.holds(&cid);
                answer.held.bits.push(held);
                answer.same.bits.push(held && shared.digest_of(cid)? == digest);
            }
            Ok(answer)
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_claimed_and_not_of_when() {
        let claim =
            |id: u8, replicas, renewed_ms| Claim { id: ClaimId([id; 16]), replicas, renewed_ms };
        let two = digest(&[claim(1, 3, 7), claim(2, 3, 7)]);
        assert_eq!(two, digest(&[claim(1, 3, 9), claim(2, 3, 7)]));
        let others =
            [digest(&[claim(1, 3, 7)]), digest(&[claim(1, 3, 7), claim(2, 2, 7)]), digest(&[])];
        assert!(!others.contains(&two));
    }
}
