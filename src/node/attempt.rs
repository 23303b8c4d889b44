//! A put that is not written down yet: its claim, which is its own. Owns that the claim is renewed
//! as long as the put runs, which may take longer than claims are kept that nobody commits, and
//! that it is withdrawn when the put fails, so that what was stored is not kept for a day.
//!
//! Only who put can withdraw: the claim's id is a hash of a secret, which a withdrawal shows.
//! Whoever was told remembers it, ends the claim whenever it is offered again, and tells who offers
//! it: otherwise holders that compare their claims would give it back to each other.

use super::newest::Newest;
use super::replicate::Tally;
use super::{Shared, lock};
use crate::core::hlc;
use crate::crypto::claim_of;
use crate::id::{ClaimId, NodeId};
use crate::store::{Claim, Op, Outcome, WriteError};
use crate::wire::message::Withdraw;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// How often a claim is renewed in the time after which it would lapse.
const RENEWED: u32 = 24;

/// Withdrawn puts that are remembered.
const REMEMBERED: usize = 4096;

/// The secrets of puts that were withdrawn lately.
pub(super) type Withdrawn = Newest<ClaimId, [u8; 16], REMEMBERED>;

/// A put under way. Dropped, it is withdrawn.
pub(super) struct Attempt {
    shared: Arc<Shared>,
    secret: [u8; 16],
    claim: Claim,
    tally: Arc<Tally>,
    /// Ends with this.
    renewing: JoinSet<()>,
    failed: bool,
}

impl Attempt {
    /// Begins a put of so many copies.
    pub(super) fn new(shared: &Arc<Shared>, replicas: u8) -> Self {
        let secret = shared.sys.rng.bytes();
        let renewed_ms = hlc::ms_of(shared.tick());
        let claim = Claim { id: claim_of(&secret), replicas, renewed_ms };
        let tally: Arc<Tally> = Arc::default();
        let mut renewing = JoinSet::new();
        renewing.spawn(shared.clone().keep_renewed(claim, tally.clone()));
        Self { shared: shared.clone(), secret, claim, tally, renewing, failed: true }
    }

    /// Under which everything is stored.
    pub(super) const fn claim(&self) -> Claim {
        self.claim
    }

    /// The acknowledgements.
    pub(super) const fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Everything is stored: from now on somebody else may know of it.
    pub(super) fn succeed(mut self) {
        self.failed = false;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.renewing.abort_all();
        if self.failed && self.tally.has_begun() {
            let (shared, secret, tally) = (self.shared.clone(), self.secret, self.tally.clone());
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { shared.withdraw(secret, &tally).await });
            }
        }
    }
}

impl Shared {
    /// Renews a claim for ever, wherever something was stored under it. It lapses by the newest of
    /// each node, so one chunk at each is enough.
    async fn keep_renewed(self: Arc<Self>, claim: Claim, tally: Arc<Tally>) {
        loop {
            tokio::time::sleep(self.config.lapse_after / RENEWED).await;
            let claim = Claim { renewed_ms: hlc::ms_of(self.tick()), ..claim };
            for (id, cid) in tally.one_at_each() {
                self.claim_at(id, claim, vec![cid]).await;
            }
        }
    }

    /// Tells all who stored something that it is not needed. Whoever does not hear of it keeps it
    /// until the claim lapses.
    async fn withdraw(self: Arc<Self>, secret: [u8; 16], tally: &Tally) {
        // What is on its way would be claimed again.
        tally.all_ended().await;
        let mut telling = JoinSet::new();
        let mut told: BTreeSet<NodeId> = tally.one_at_each().into_keys().collect();
        told.insert(self.me);
        for id in told {
            let shared = self.clone();
            telling.spawn(async move { shared.withdraw_at(id, secret).await });
        }
        telling.join_all().await;
    }

    async fn withdraw_at(self: &Arc<Self>, id: NodeId, secret: [u8; 16]) {
        let told = if id == self.me {
            self.withdrawn(Withdraw { secret }).await.map_err(|err| err.to_string())
        } else {
            self.ask_withdraw(id, &Withdraw { secret }).await.map_err(|err| err.to_string())
        };
        if let Err(err) = told {
            tracing::debug!(peer = %id.short(), %err, "a put was not withdrawn");
        }
    }

    /// Ends the claims of a put that has failed; one that is committed stays.
    pub(super) async fn withdrawn(&self, withdraw: Withdraw) -> Result<(), WriteError> {
        let claim = claim_of(&withdraw.secret);
        // First: what a peer has written meanwhile is then looked at again, by one of the two.
        lock(&self.withdrawn).insert(claim, withdraw.secret);
        self.end_pending([claim]).await
    }

    async fn end_pending(
        &self,
        claims: impl IntoIterator<Item = ClaimId>,
    ) -> Result<(), WriteError> {
        let end = |claim| Op::Lapse { claim, renewed_ms: u64::MAX };
        self.write(claims.into_iter().map(end).collect()).await.map(drop)
    }

    /// Writes what a peer wants to be claimed here. What was withdrawn ends again, and the peer is
    /// told, which does not know of it.
    pub(super) async fn write_claimed(
        self: &Arc<Self>,
        peer: NodeId,
        ops: Vec<Op>,
    ) -> Result<Vec<Outcome>, WriteError> {
        let claimed: BTreeSet<ClaimId> = ops.iter().filter_map(claimed_by).collect();
        let outcomes = self.write(ops).await?;
        let ended: Vec<(ClaimId, [u8; 16])> = {
            let withdrawn = lock(&self.withdrawn);
            claimed.iter().filter_map(|claim| Some((*claim, *withdrawn.get(claim)?))).collect()
        };
        if !ended.is_empty() {
            self.end_pending(ended.iter().map(|(claim, _)| *claim)).await?;
            let shared = self.clone();
            tokio::spawn(async move {
                for (_, secret) in ended {
                    shared.withdraw_at(peer, secret).await;
                }
            });
        }
        Ok(outcomes)
    }
}

/// The claim that a change makes.
const fn claimed_by(op: &Op) -> Option<ClaimId> {
    match op {
        Op::Replica { claim: Some(claim), .. } | Op::Claim { claim, .. } => Some(claim.id),
        _ => None,
    }
}
