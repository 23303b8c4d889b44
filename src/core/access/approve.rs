//! `p2pfs approve` as pure state machines: the joiner that shows a code, the member that keeps the
//! list of those who wait, the admin to whom a person typed the code. Owns the counting of runs and
//! times; the exchange itself is `crypto`'s ([`PairingAdmin`]), the messages `wire::approve`'s.
//!
//! The course: the joiner sends a [`JoinRequest`] to the member it knows, which keeps it in its
//! [`WaitingRoom`] and relays. An admin's [`Approval`] makes one [`Offer`] per waiting joiner; the
//! one with this code answers with a [`Reply`] that the admin can check, and gets a [`Verdict`]
//! with its grant. The joiner takes the swarm's public key only from there.
//!
//! Invariant: a run counts as failed from the moment the joiner has answered until the right
//! verdict is there, so whoever guesses pays for each guess, with or without finishing the run;
//! after [`MAX_RUNS`] the code is void. Whoever relays can prevent an approval, and nothing else.

use super::{Grant, Refused};
use crate::crypto::{Paired, PairingAdmin, PairingCode, PairingJoiner};
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::approve::{JoinRequest, Offer, Reply, RunId, Verdict};
use crate::wire::codec::{Decode, Encode};
use std::collections::BTreeMap;
use std::time::Duration;

/// Joiners that one member keeps waiting: one approval must stay a handful of messages.
pub const MAX_WAITING: usize = 16;

/// A joiner that was not heard for this long waits no longer.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Runs that one code is good for: 5 guesses in 2^40.
pub const MAX_RUNS: u8 = 5;

/// How long a code is good.
pub const CODE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long the joiner waits for the verdict of a run that it answered.
pub const RUN_LIMIT: Duration = Duration::from_secs(30);

/// Why a step of an approval was refused. The run that it belonged to, if any, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApproveError {
    /// Too many wait already.
    #[error("{MAX_WAITING} nodes are waiting already")]
    Full,
    /// A request for another node than the one that sent it.
    #[error("the request is for another node than the one that sent it")]
    Impostor,
    /// The code is used up or too old, and a new one is due.
    #[error("the code is no longer good")]
    CodeVoid,
    /// The message belongs to no open run.
    #[error("no such run is open")]
    NoRun,
    /// The other side has another code, or somebody changed something on the way.
    #[error("the code does not match")]
    Mismatch,
    /// The grant that came is not one for this node.
    #[error(transparent)]
    Grant(#[from] Refused),
}

/// The joiners that wait at one member.
#[derive(Debug, Default)]
pub struct WaitingRoom {
    waiting: BTreeMap<NodeId, (JoinRequest, Time)>,
}

impl WaitingRoom {
    /// Takes in, or renews, the request that came over a connection of `peer`.
    pub fn admit(
        &mut self,
        now: Time,
        peer: &NodeId,
        request: JoinRequest,
    ) -> Result<(), ApproveError> {
        if request.node != *peer {
            return Err(ApproveError::Impostor);
        }
        self.waiting.retain(|_, (_, heard)| now.since(*heard) < WAIT_LIMIT);
        if self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(peer) {
            return Err(ApproveError::Full);
        }
        self.waiting.insert(*peer, (request, now));
        Ok(())
    }

    /// Forgets a joiner: it was let in, denied, or its connection closed.
    pub fn remove(&mut self, node: &NodeId) {
        self.waiting.remove(node);
    }

    /// Who waits, in the order of their ids.
    pub fn requests(&self, now: Time) -> impl Iterator<Item = &JoinRequest> {
        let fresh = move |(_, heard): &&(JoinRequest, Time)| now.since(*heard) < WAIT_LIMIT;
        self.waiting.values().filter(fresh).map(|(request, _)| request)
    }
}

/// One `approve CODE` at the admin: a run with each of those who wait.
pub struct Approval {
    runs: BTreeMap<NodeId, AdminRun>,
}

struct AdminRun {
    id: RunId,
    request: JoinRequest,
    pairing: PairingAdmin,
}

impl Approval {
    /// Begins a run with each request, at most [`MAX_WAITING`], from one fresh random `seed`. The
    /// offers are for the nodes beside them.
    pub fn start(
        code: &PairingCode,
        admin: NodeId,
        requests: impl IntoIterator<Item = JoinRequest>,
        seed: &[u8; 32],
    ) -> (Self, Vec<(NodeId, Offer)>) {
        let mut runs = BTreeMap::new();
        let mut offers = Vec::new();
        for request in requests.into_iter().take(MAX_WAITING) {
            let joiner = request.node;
            let (pairing, message) = PairingAdmin::start(code, &admin, &joiner, seed);
            // The exchange's message is as random as a name needs to be.
            let mut id = [0; 16];
            id.copy_from_slice(&blake3::hash(&message).as_bytes()[..16]);
            if runs.insert(joiner, AdminRun { id, request, pairing }).is_none() {
                offers.push((joiner, Offer { run: id, admin, message }));
            }
        }
        (Self { runs }, offers)
    }

    /// How many joiners have not answered yet.
    pub fn open_runs(&self) -> usize {
        self.runs.len()
    }

    /// A joiner's answer. When it is the one with the code, `issue` makes its grant from the
    /// request that the joiner has confirmed, and the verdict is for that joiner; the other runs
    /// are over. [`ApproveError::Mismatch`]: not this one.
    pub fn reply(
        &mut self,
        joiner: &NodeId,
        reply: &Reply,
        issue: impl FnOnce(&JoinRequest) -> Grant,
    ) -> Result<Verdict, ApproveError> {
        let run = match self.runs.remove(joiner) {
            Some(run) if run.id == reply.run => run,
            _ => return Err(ApproveError::NoRun),
        };
        let paired = run.pairing.finish(&reply.message).map_err(|_| ApproveError::Mismatch)?;
        if !paired.joiner_confirms(&run.request.to_bytes(), &reply.confirmation) {
            return Err(ApproveError::Mismatch);
        }
        self.runs.clear();
        let (confirmation, sealed) = paired.seal(&issue(&run.request).to_bytes());
        Ok(Verdict { run: run.id, confirmation, sealed })
    }
}

/// A node that waits for approval.
pub struct Joiner {
    request: JoinRequest,
    code: PairingCode,
    drawn: Time,
    started: u8,
    runs: BTreeMap<RunId, (Paired, Time)>,
}

impl Joiner {
    /// Draws the first code from fresh random bytes.
    pub fn new(now: Time, request: JoinRequest, random: [u8; 5]) -> Self {
        let code = PairingCode::from_random(random);
        Self { request, code, drawn: now, started: 0, runs: BTreeMap::new() }
    }

    /// The code to show. It must not be sent to anybody.
    pub const fn code(&self) -> &PairingCode {
        &self.code
    }

    /// What this node asks for.
    pub const fn request(&self) -> &JoinRequest {
        &self.request
    }

    /// Whether a new code is due ([`Joiner::renew`]): the runs are used up or the code is too old,
    /// and no run is open that could still succeed.
    pub fn is_due(&self, now: Time) -> bool {
        self.is_void(now) && self.runs.values().all(|(_, until)| now > *until)
    }

    /// Draws a new code from fresh random bytes.
    pub fn renew(&mut self, now: Time, random: [u8; 5]) {
        self.code = PairingCode::from_random(random);
        self.drawn = now;
        self.started = 0;
        self.runs.clear();
    }

    /// Somebody says that a person has told it the code. `seed` are fresh random bytes.
    pub fn offer(
        &mut self,
        now: Time,
        offer: &Offer,
        seed: &[u8; 32],
    ) -> Result<Reply, ApproveError> {
        if self.is_void(now) {
            return Err(ApproveError::CodeVoid);
        }
        if self.runs.contains_key(&offer.run) {
            return Err(ApproveError::NoRun);
        }
        self.started += 1;
        let me = &self.request.node;
        let (message, paired) =
            PairingJoiner::answer(&self.code, &offer.admin, me, seed, &offer.message)
                .map_err(|_| ApproveError::Mismatch)?;
        let confirmation = paired.joiner_confirmation(&self.request.to_bytes());
        self.runs.insert(offer.run, (paired, now + RUN_LIMIT));
        Ok(Reply { run: offer.run, message, confirmation })
    }

    /// The end of a run. The grant, and with it the swarm's public key, is this node's; a grant
    /// that did not come under the key of a run is never looked at.
    pub fn verdict(
        &mut self,
        now: Time,
        wall_ms: u64,
        verdict: &Verdict,
    ) -> Result<Grant, ApproveError> {
        let (paired, until) = self.runs.remove(&verdict.run).ok_or(ApproveError::NoRun)?;
        if now > until {
            return Err(ApproveError::NoRun);
        }
        let bytes = paired
            .open(&verdict.confirmation, &verdict.sealed)
            .map_err(|_| ApproveError::Mismatch)?;
        let grant = Grant::from_bytes(&bytes).map_err(|_| ApproveError::Mismatch)?;
        grant.verify(&grant.swarm, &self.request.node, wall_ms)?;
        if grant.terms.owner != self.request.owner {
            return Err(Refused::Node.into());
        }
        Ok(grant)
    }

    fn is_void(&self, now: Time) -> bool {
        self.started >= MAX_RUNS || now.since(self.drawn) >= CODE_LIFETIME
    }
}

#[cfg(test)]
#[path = "approve_tests.rs"]
mod tests;
