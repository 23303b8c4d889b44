//! A put that is not written down yet: its claim, which is its own. Owns that the claim is renewed
//! as long as the put runs, which may take longer than claims are kept that nobody commits, and
//! that it is withdrawn when the put fails, so that what was stored is not kept for a day.
//!
//! Only who put can withdraw: the claim's id is a hash of a secret, which a withdrawal shows.

use super::Shared;
use super::replicate::Tally;
use crate::core::hlc;
use crate::id::{ClaimId, NodeId};
use crate::store::{Claim, Op, WriteError};
use crate::wire::message::Withdraw;
use std::sync::Arc;
use tokio::task::JoinSet;

/// How often a claim is renewed in the time after which it would lapse.
const RENEWED: u32 = 24;

/// The claim that a secret stands for.
fn claim_of(secret: &[u8; 16]) -> ClaimId {
    let hash = blake3::derive_key("p2pfs 2026-11 claim of a put v1", secret);
    let mut id = ClaimId([0; 16]);
    id.0.copy_from_slice(&hash[..16]);
    id
}

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
        for id in tally.one_at_each().into_keys() {
            let shared = self.clone();
            telling.spawn(async move { shared.withdraw_at(id, secret).await });
        }
        telling.join_all().await;
    }

    async fn withdraw_at(&self, id: NodeId, secret: [u8; 16]) {
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
        self.write(vec![Op::Lapse { claim, renewed_ms: u64::MAX }]).await.map(drop)
    }
}
