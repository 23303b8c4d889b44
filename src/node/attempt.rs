//! A put that is not written down yet: its claim, which is its own. Owns that the claim is renewed
//! as long as the put runs, which may take longer than claims are kept that nobody commits, and
//! that it is withdrawn when the put fails, so that what was stored is not kept for a day.
//!
//! Only who put can withdraw: the claim's id follows from a secret, which a withdrawal shows.
//! Whoever was told remembers it, ends the claim whenever it is offered again, and tells who offers
//! it: otherwise holders that compare their claims would give it back to each other.

use super::newest::Newest;
use super::replicate::Tally;
use super::{Shared, lock};
use crate::core::hlc;
use crate::crypto::claim_of;
use crate::id::{ClaimId, NodeId, made_at};
use crate::store::{Claim, Op, Outcome, WriteError};
use crate::sys::Time;
use crate::wire::message::{Renew, Withdraw};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often a claim is renewed in the time after which it would lapse.
const RENEWED: u32 = 24;

/// Chunks on which it is renewed at each node; the newest renewal stands for all.
const RENEWED_ON: usize = 16;

/// Withdrawn puts that are remembered.
const REMEMBERED: usize = 4096;

/// Of these a peer that offers their claims is told at once.
const TOLD_AT_ONCE: usize = 32;

/// Puts that were withdrawn lately.
#[derive(Default)]
pub(super) struct Withdrawn {
    secrets: Newest<ClaimId, [u8; 16], REMEMBERED>,
    /// Who is being told of some.
    telling: BTreeSet<NodeId>,
}

/// A put under way. Dropped, it is withdrawn.
pub(super) struct Attempt {
    shared: Arc<Shared>,
    secret: [u8; 16],
    claim: Claim,
    tally: Arc<Tally>,
    /// Ends with this.
    renewing: JoinSet<()>,
    began: Time,
    /// Whether some were asked to take the claim whom the tally does not name.
    offered: AtomicBool,
    failed: bool,
}

impl Attempt {
    /// Begins a put of so many copies.
    pub(super) fn new(shared: &Arc<Shared>, replicas: u8) -> Self {
        let secret = made_at(shared.sys.clock.wall_ms(), shared.sys.rng.bytes());
        let renewed_ms = hlc::ms_of(shared.tick());
        let claim = Claim { id: claim_of(&secret), replicas, renewed_ms };
        let tally: Arc<Tally> = Arc::default();
        let mut renewing = JoinSet::new();
        renewing.spawn(shared.clone().keep_renewed(claim.id));
        let (began, offered) = (shared.sys.clock.now(), AtomicBool::new(false));
        let shared = shared.clone();
        Self { shared, secret, claim, tally, renewing, began, offered, failed: true }
    }

    /// Under which everything is stored.
    pub(super) const fn claim(&self) -> Claim {
        self.claim
    }

    /// The same, renewed now, for whoever may hold what is put already.
    pub(super) fn offer(&self) -> Claim {
        self.offered.store(true, Ordering::Relaxed);
        Claim { renewed_ms: hlc::ms_of(self.shared.tick()), ..self.claim }
    }

    /// Whether it has taken so long that somebody may have missed too many renewals: by the wall
    /// clock too, since the other one stands still while a machine sleeps.
    pub(super) fn may_have_lapsed(&self) -> bool {
        let took = self.shared.sys.clock.now().since(self.began);
        let wall_ms = hlc::ms_of(self.shared.tick()).saturating_sub(self.claim.renewed_ms);
        took.max(Duration::from_millis(wall_ms)) > self.shared.config.lapse_after / 2
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
        let offered = self.offered.load(Ordering::Relaxed);
        if self.failed && (offered || self.tally.has_begun()) {
            let (shared, secret, tally) = (self.shared.clone(), self.secret, self.tally.clone());
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { shared.withdraw(secret, &tally, offered).await });
            }
        }
    }
}

impl Shared {
    /// Renews a claim for ever. All members are told, since repair may have moved what was stored.
    async fn keep_renewed(self: Arc<Self>, claim: ClaimId) {
        loop {
            tokio::time::sleep(self.config.lapse_after / RENEWED).await;
            let renew = Renew { claim, renewed_ms: hlc::ms_of(self.tick()) };
            let mut telling = JoinSet::new();
            for id in self.view().others().map(|member| member.record.id) {
                let (shared, renew) = (self.clone(), renew.clone());
                telling.spawn(async move { shared.ask_renew(id, &renew).await });
            }
            if let Err(err) = self.renewed(&renew).await {
                tracing::warn!(%err, "the claim of a put is not renewed here");
            }
            // Who does not hear of it hears of the next one, long before the claim lapses.
            telling.join_all().await;
        }
    }

    /// Renews a claim here, if it is one of a put that goes on.
    pub(super) async fn renewed(&self, renew: &Renew) -> io::Result<()> {
        // Of several, since one may be damaged.
        let cids = self.store.pending_chunks(renew.claim, RENEWED_ON)?;
        if cids.is_empty() {
            return Ok(());
        }
        // It asks for no more copies than before.
        let claim = Claim { id: renew.claim, replicas: 1, renewed_ms: renew.renewed_ms };
        let written = self.write(vec![Op::Claim { cids, claim }]).await;
        written.map(drop).map_err(io::Error::other)
    }

    /// Tells all who stored something, or all members, that it is not needed. Whoever does not hear
    /// of it hears of it when claims are compared, and at last the claim lapses.
    async fn withdraw(self: Arc<Self>, secret: [u8; 16], tally: &Tally, everybody: bool) {
        // What is on its way would be claimed again.
        tally.all_ended().await;
        let mut told: BTreeSet<NodeId> = tally.takers();
        if everybody {
            told.extend(self.view().others().map(|member| member.record.id));
        }
        told.insert(self.me);
        let mut telling = JoinSet::new();
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
        lock(&self.withdrawn).secrets.insert(claim, withdraw.secret);
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
        let (ended, secrets): (Vec<ClaimId>, Vec<[u8; 16]>) = {
            let withdrawn = lock(&self.withdrawn);
            let secret = |claim: &ClaimId| withdrawn.secrets.get(claim).copied();
            claimed.into_iter().filter_map(|claim| Some((claim, secret(&claim)?))).unzip()
        };
        if !ended.is_empty() {
            self.end_pending(ended).await?;
            self.tell_of_withdrawn(peer, secrets);
        }
        Ok(outcomes)
    }

    /// Tells a peer of some withdrawn puts, in a task of its own. One that is being told already
    /// offers those claims again when they are compared the next time.
    fn tell_of_withdrawn(self: &Arc<Self>, peer: NodeId, secrets: Vec<[u8; 16]>) {
        if !lock(&self.withdrawn).telling.insert(peer) {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            for secret in secrets.into_iter().take(TOLD_AT_ONCE) {
                shared.withdraw_at(peer, secret).await;
            }
            lock(&shared.withdrawn).telling.remove(&peer);
        });
    }
}

/// The claim that a change makes.
const fn claimed_by(op: &Op) -> Option<ClaimId> {
    match op {
        Op::Replica { claim: Some(claim), .. } | Op::Claim { claim, .. } => Some(claim.id),
        _ => None,
    }
}
