//! Questions to one peer, typed. Owns the bookkeeping that every question needs: the peer's
//! address, the deadline, its speed in the chooser, and whether the answer is well formed. Which
//! peer to ask and what to do when it fails is decided by the caller.

use super::Shared;
use crate::core::limits;
use crate::id::{ChunkId, NodeId};
use crate::transport::{Message as Frame, RequestError};
use crate::wire::codec::{Decode, Encode, Malformed};
use crate::wire::hello::Lane;
use crate::wire::message::{
    Adopt, Below, Bits, ClaimTerms, Compare, Compared, Fetch, FetchShare, Find, Have, Holders,
    Holds, Message, Pointers, Proofs, Prove, Push, Renew, Room, Store, WhoHolds, Withdraw, kind,
};
use bytes::Bytes;
use std::time::Duration;

/// How often a question is asked again because the connection was dead: as often as there may be
/// connections to one peer.
const STALE_MAX: usize = 2;

/// Why a question has no answer. Nothing changed here; whether the peer did what was asked is not
/// known, and asking again is safe.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The peer is not a member that is known here.
    #[error("the peer is not known")]
    Unknown,
    /// It did not answer, or said no.
    #[error(transparent)]
    Request(Box<RequestError>),
    /// Its answer makes no sense.
    #[error("the peer's answer is malformed: {0}")]
    Malformed(#[from] Malformed),
}

impl AskError {
    /// Whether the peer answered, and said no.
    pub(super) fn is_no(&self) -> bool {
        matches!(self, Self::Request(err) if matches!(**err, RequestError::Refused(_)))
    }

    /// Whether the peer said no for this reason.
    pub(super) fn refused_with(&self, reason: u16) -> bool {
        let Self::Request(err) = self else { return false };
        matches!(&**err, RequestError::Refused(refusal) if refusal.code == reason)
    }
}

impl From<RequestError> for AskError {
    fn from(err: RequestError) -> Self {
        Self::Request(Box::new(err))
    }
}

/// So long a chunk may be on its way to one node until another one is asked to take it as well.
const SLOW: Duration = Duration::from_secs(10);

impl Shared {
    /// Asks `to` and waits up to `deadline`, where chunks move from one byte to the next. A
    /// connection that turns out to be dead, as those to a peer that was restarted do, is replaced:
    /// every question may be asked twice.
    pub(super) async fn ask_frame(
        &self,
        to: NodeId,
        lane: Lane,
        frame: Frame,
        deadline: Duration,
    ) -> Result<Frame, AskError> {
        let addr = self.view().addr(&to).ok_or(AskError::Unknown)?;
        let guard = InFlight::new(self, to);
        let began = self.sys.clock.now();
        let mut answer = self.transport().request(&addr, lane, frame.clone(), deadline).await;
        for _ in 0..STALE_MAX {
            let left = deadline.saturating_sub(self.sys.clock.now().since(began));
            if left.is_zero() || !matches!(answer, Err(RequestError::Lost)) {
                break;
            }
            answer = self.transport().request(&addr, lane, frame.clone(), left).await;
        }
        let took = self.sys.clock.now().since(began);
        guard.done(answer.as_ref().ok().map(|_| took));
        Ok(answer?)
    }

    /// Whether bytes of chunks went to the peer or came from it within the last second: then it is
    /// slow, perhaps on purpose, and does not hang.
    pub(super) fn moves(&self, peer: &NodeId) -> bool {
        self.transport().last_byte(*peer).is_some_and(|since| since < limits::HEDGE_MAX)
    }

    /// How long a chunk waits here for those that were asked for before it, because of a limit of
    /// this node's own.
    pub(super) fn own_queue(&self) -> Duration {
        let ahead = 2 * limits::WORK_BYTES as u64;
        let rate = self.transport().pace().rates(None).down;
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs(ahead / rate.max(1)))
    }

    /// Whether one who takes a chunk slowly is waited for after this time without asking another
    /// one as well. A limit of this node's own slows all of them down.
    pub(super) fn waits_for(&self, waited: Duration) -> bool {
        waited < SLOW || self.transport().pace().rates(None).up.is_some()
    }

    /// Makes a new connection for chunks to `to`, in place of one that seems dead. When that fails
    /// the old one stays.
    pub(super) async fn renew(&self, to: NodeId) {
        if let Some(addr) = self.view().addr(&to)
            && let Err(err) = self.transport().renew(&addr, Lane::Bulk).await
        {
            tracing::debug!(peer = %to.short(), %err, "no new connection");
        }
    }

    async fn ask<M: Message>(
        &self,
        to: NodeId,
        lane: Lane,
        message: &M,
        body: Bytes,
    ) -> Result<Frame, AskError> {
        let frame = Frame { kind: M::KIND, head: message.to_bytes().into(), body };
        let deadline = if matches!(lane, Lane::Bulk) { limits::MOVE } else { limits::ASK };
        self.ask_frame(to, lane, frame, deadline).await
    }

    /// Which of the chunks `to` holds; it keeps those for the claim from now on.
    pub(super) async fn ask_have(
        &self,
        to: NodeId,
        claim: ClaimTerms,
        cids: Vec<ChunkId>,
    ) -> Result<Vec<bool>, AskError> {
        let asked = cids.len();
        let answer = self.ask(to, Lane::Bulk, &Have { claim, cids }, Bytes::new()).await?;
        bits(&answer, asked)
    }

    /// Which of the chunks `to` holds as replicas.
    pub(super) async fn ask_holds(
        &self,
        to: NodeId,
        cids: Vec<ChunkId>,
    ) -> Result<Vec<bool>, AskError> {
        let asked = cids.len();
        let answer = self.ask(to, Lane::Control, &Holds { cids }, Bytes::new()).await?;
        bits(&answer, asked)
    }

    /// Which of the chunks `to` holds as replicas, and with the same claims.
    pub(super) async fn ask_compare(
        &self,
        to: NodeId,
        compare: &Compare,
    ) -> Result<Compared, AskError> {
        let answer = self.ask(to, Lane::Control, compare, Bytes::new()).await?;
        let compared = Compared::from_bytes(&answer.head)?;
        let lengths = [compared.held.bits.len(), compared.same.bits.len()];
        if lengths == [compare.chunks.len(); 2] {
            Ok(compared)
        } else {
            Err(Malformed::Short.into())
        }
    }

    /// Has `to` keep chunks for these claims too; which of them it holds.
    pub(super) async fn ask_adopt(&self, to: NodeId, adopt: &Adopt) -> Result<Vec<bool>, AskError> {
        let answer = self.ask(to, Lane::Control, adopt, Bytes::new()).await?;
        bits(&answer, adopt.chunks.len())
    }

    /// Tells `to` that a put has failed for which it stored something.
    pub(super) async fn ask_withdraw(
        &self,
        to: NodeId,
        withdraw: &Withdraw,
    ) -> Result<(), AskError> {
        self.ask(to, Lane::Control, withdraw, Bytes::new()).await.map(drop)
    }

    /// Tells `to` that a put goes on for which it may have stored something.
    pub(super) async fn ask_renew(&self, to: NodeId, renew: &Renew) -> Result<(), AskError> {
        self.ask(to, Lane::Control, renew, Bytes::new()).await.map(drop)
    }

    /// Gives `to` a chunk; returns once it is on the peer's disk.
    pub(super) async fn ask_store(
        &self,
        to: NodeId,
        store: &Store,
        sealed: Bytes,
    ) -> Result<(), AskError> {
        let answer = self.ask(to, Lane::Bulk, store, sealed).await?;
        let Room { used, capacity } = Room::from_bytes(&answer.head)?;
        self.chooser().has_room(to, self.sys.clock.now(), used, capacity);
        Ok(())
    }

    /// The sealed bytes of a chunk that `to` holds, not checked yet.
    pub(super) async fn ask_fetch(&self, to: NodeId, cid: ChunkId) -> Result<Bytes, AskError> {
        Ok(self.ask(to, Lane::Bulk, &Fetch { cid }, Bytes::new()).await?.body)
    }

    /// A sealed part of a file that `to` serves in place, not checked yet.
    pub(super) async fn ask_fetch_share(
        &self,
        to: NodeId,
        ask: &FetchShare,
    ) -> Result<Bytes, AskError> {
        Ok(self.ask(to, Lane::Bulk, ask, Bytes::new()).await?.body)
    }

    /// Who holds the chunks, as far as `to` knows.
    pub(super) async fn ask_who(
        &self,
        to: NodeId,
        cids: Vec<ChunkId>,
    ) -> Result<Vec<Vec<NodeId>>, AskError> {
        let asked = cids.len();
        let question = WhoHolds { cids };
        let frame =
            Frame { kind: WhoHolds::KIND, head: question.to_bytes().into(), body: Bytes::new() };
        let answer = self.ask_frame(to, Lane::Control, frame, limits::ASK_ALL).await?;
        let lists = Holders::from_bytes(&answer.head)?.lists;
        if lists.len() == asked { Ok(lists) } else { Err(Malformed::Short.into()) }
    }

    /// Tells `to` that this node holds chunks which it is about to get.
    pub(super) async fn ask_pointers(
        &self,
        to: NodeId,
        cids: Vec<ChunkId>,
    ) -> Result<(), AskError> {
        self.ask(to, Lane::Control, &Pointers { cids }, Bytes::new()).await.map(drop)
    }

    /// Tells `to`, who is responsible for the chunks, that they have too few copies.
    pub(super) async fn ask_below(&self, to: NodeId, cids: Vec<ChunkId>) -> Result<(), AskError> {
        self.ask(to, Lane::Control, &Below { cids }, Bytes::new()).await.map(drop)
    }

    /// What `to` shows of these chunks; it gives up none of them as superfluous for a while.
    pub(super) async fn ask_prove(
        &self,
        to: NodeId,
        prove: &Prove,
    ) -> Result<Vec<Option<[u8; 32]>>, AskError> {
        let answer = self.ask(to, Lane::Bulk, prove, Bytes::new()).await?;
        let proofs = Proofs::from_bytes(&answer.head)?.proofs;
        if proofs.len() == prove.cids.len() { Ok(proofs) } else { Err(Malformed::Short.into()) }
    }

    /// Has `to` keep records; returns once they are on its disk.
    pub(super) async fn ask_push(&self, to: NodeId, push: &Push) -> Result<(), AskError> {
        self.ask(to, Lane::Control, push, Bytes::new()).await.map(drop)
    }

    /// Records that answer a question which this node cannot answer itself.
    pub(super) async fn ask_find(&self, to: NodeId, find: &Find) -> Result<Push, AskError> {
        let frame = Frame { kind: kind::FIND, head: find.to_bytes().into(), body: Bytes::new() };
        let answer = self.ask_frame(to, Lane::Control, frame, limits::ASK_ALL).await?;
        Ok(Push::from_bytes(&answer.head)?)
    }
}

fn bits(answer: &Frame, asked: usize) -> Result<Vec<bool>, AskError> {
    let bits = Bits::from_bytes(&answer.head)?.bits;
    if bits.len() == asked { Ok(bits) } else { Err(Malformed::Short.into()) }
}

/// Counts a request in the chooser, also when the future that waits for it is dropped.
struct InFlight<'a> {
    shared: &'a Shared,
    peer: Option<NodeId>,
}

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared, peer: NodeId) -> Self {
        shared.chooser().started(peer);
        Self { shared, peer: Some(peer) }
    }

    fn done(mut self, took: Option<Duration>) {
        if let (Some(took), Some(peer)) = (took, self.peer.take()) {
            self.shared.chooser().answered(peer, took);
            self.peer = None;
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            self.shared.chooser().ended(peer);
        }
    }
}
