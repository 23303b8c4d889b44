//! What peers ask of this node. Each question is decoded, checked and answered from the own disk
//! alone, so that serving never waits for another peer. Owns the pointers: what others said they
//! hold.

use super::event::Event;
use super::memory::User;
use super::newest::Newest;
use super::records::Snapshot;
use super::replicate::claim_of_terms;
use super::{Shared, joined, lock};
use crate::core::catalogue::{self, files_by_lookup, records_by_prefix, records_by_tag, sync};
use crate::crypto::chunk_id;
use crate::id::{ChunkId, NodeId};
use crate::store::{Op, Outcome, ReadError, WriteError};
use crate::sys::BoxFuture;
use crate::transport::{Admission, Handler, LinkEvent, Message as Frame};
use crate::wire::codec::{Decode, Encode, Malformed};
use crate::wire::frame::Refusal;
use crate::wire::gossip::GossipMessage;
use crate::wire::hello::{Hello, Introduction, Lane};
use crate::wire::message::{
    Below, Bits, CIDS_MAX, Commit, Deny, Fetch, Find, HOLDERS_MAX, Have, Holders, Holds, PUSH_MAX,
    Pointers, Push, Relay, Room, Store, WhoHolds, kind,
};
use crate::wire::sync::{Answer, Ask};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Codes of refusals, part of the protocol.
pub(super) mod refusal {
    /// The question makes no sense.
    pub(super) const MALFORMED: u16 = 16;
    /// The chunk is not held here.
    pub(in crate::node) const NOT_HELD: u16 = 17;
    /// There is no room for it.
    pub(in crate::node) const NO_SPACE: u16 = 18;
    /// The chunk is not what its name says.
    pub(super) const WRONG: u16 = 19;
    /// The disk failed.
    pub(in crate::node) const DISK: u16 = 20;
    /// The node does not wait here, or does not accept the step.
    pub(super) const NOT_WAITING: u16 = 21;
    /// The asker does not have the right.
    pub(super) const NOT_ADMIN: u16 = 22;
    /// The clock of a record is too far ahead of the clock here.
    pub(in crate::node) const AHEAD: u16 = 23;
    /// A record is refused for another reason.
    pub(super) const RECORD: u16 = 24;
    /// A file that is served in place has changed.
    pub(in crate::node) const CHANGED: u16 = 25;
}

/// Pointers kept: a few MiB, as many as a join announces before the bytes follow.
const POINTERS_KEPT: usize = 32 * 1024;

/// Chunks that others said they hold.
pub(super) type PointerTable = Newest<ChunkId, NodeId, POINTERS_KEPT>;

/// The transport's way into the node.
pub(super) struct Service(pub(super) Arc<Shared>);

impl Handler for Service {
    fn name(&self) -> String {
        self.0.config.name.clone().unwrap_or_default()
    }

    fn introduce(&self, _: NodeId, _: Lane) -> Introduction {
        self.0.introduction()
    }

    fn admit(&self, peer: NodeId, hello: &Hello, from: SocketAddr) -> Admission {
        self.0.admission(peer, hello, from)
    }

    fn stranger_kinds(&self) -> &[u16] {
        &[kind::APPROVE, kind::PING]
    }

    fn serve(
        &self,
        peer: NodeId,
        _: Lane,
        message: Frame,
    ) -> BoxFuture<'static, Result<Frame, Refusal>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let turn = shared.asked.turn(peer, message.head.len()).await;
            // A connection that ends drops this future, and what waits for the disk by then stays
            // in memory until it was written: so the turn lasts as long. Otherwise a peer that
            // asks and hangs up, again and again, would fill the queue of the disk.
            let answering = tokio::spawn(async move {
                let answer = shared.answer(peer, message).await;
                drop(turn);
                answer
            });
            let answer = joined(answering.await);
            answer.unwrap_or_else(|| Err(stopping(io::ErrorKind::Interrupted.into())))
        })
    }

    fn notify(&self, peer: NodeId, message: Frame) {
        match message.kind {
            kind::GOSSIP => match GossipMessage::from_bytes(&message.head) {
                Ok(gossip) => self.0.take_gossip(peer, gossip, message.head.len()),
                Err(err) => tracing::warn!(peer = %peer.short(), %err, "malformed gossip"),
            },
            kind::PUSH_ON => self.0.take_push(peer, &message.head),
            _ => tracing::debug!(peer = %peer.short(), kind = message.kind, "unknown notice"),
        }
    }

    fn link(&self, event: LinkEvent) {
        let shared = &self.0;
        let peer = match &event {
            LinkEvent::Up { peer, stranger: false, observed, .. } => {
                lock(&shared.links).insert(*peer);
                shared.forget_dial_troubles();
                observed.iter().for_each(|addr| shared.seen_at(*peer, *addr));
                // What was on its way over an earlier connection may be lost.
                shared.behind.note(*peer);
                *peer
            }
            LinkEvent::Up { peer, addr, .. } => return shared.door.here(*peer, *addr),
            LinkEvent::Mismatch { .. } => return,
            LinkEvent::Down { peer, .. } => {
                shared.door.gone(peer);
                shared.not_seen_by(peer);
                if !lock(&shared.links).remove(peer) {
                    return;
                }
                // Much may happen there until the link comes up again.
                shared.reconciled.send_modify(|reconciled| _ = reconciled.remove(peer));
                *peer
            }
        };
        shared.link_news.tell(peer, event);
    }
}

type Answered = Result<Frame, Refusal>;

impl Shared {
    async fn answer(self: &Arc<Self>, peer: NodeId, message: Frame) -> Answered {
        let (kind, head) = (message.kind, message.head);
        let reply = match kind {
            kind::HAVE => self.answer_have(peer, parse(&head)?).await?,
            kind::STORE => self.answer_store(peer, parse(&head)?, message.body).await?,
            kind::FETCH => return self.answer_fetch(peer, parse(&head)?).await,
            kind::FETCH_SHARE => return self.answer_fetch_share(peer, parse(&head)?).await,
            kind::HOLDS => self.answer_holds(parse(&head)?).await?,
            kind::COMPARE => {
                let compared = self.compared(parse(&head)?).await;
                compared.map_err(|err| disk(&err))?.to_bytes()
            }
            kind::ADOPT => {
                let bits = self.adopt(peer, parse(&head)?).await.map_err(|err| full(&err))?;
                Bits { bits }.to_bytes()
            }
            kind::WITHDRAW => {
                self.withdrawn(parse(&head)?).await.map_err(|err| full(&err))?;
                Vec::new()
            }
            kind::RENEW => {
                self.renewed(&parse(&head)?).await.map_err(|err| disk(&err))?;
                Vec::new()
            }
            kind::POINTERS => self.answer_pointers(peer, parse(&head)?),
            kind::BELOW => self.answer_below(parse(&head)?).await?,
            kind::PROVE => self.prove(peer, parse(&head)?).await.to_bytes(),
            kind::WHO_HOLDS => self.answer_who(parse(&head)?).await?,
            kind::COMMIT => self.answer_commit(parse(&head)?).await?,
            kind::PUSH => self.answer_push(peer, parse(&head)?).await?,
            kind::SYNC => self.answer_sync(peer, parse(&head)?).await?,
            kind::FIND => self.answer_find(parse(&head)?).await?,
            kind::WAITING => self.waiting_here().to_bytes(),
            kind::RELAY => self.answer_relay(parse(&head)?).await?,
            kind::DENY if !self.is_admin(&peer) => {
                return Err(no(refusal::NOT_ADMIN, "only an admin may turn others away"));
            }
            kind::DENY => {
                self.turn_away(parse::<Deny>(&head)?.node);
                Vec::new()
            }
            kind::APPROVE => self.answer_approve(&head)?,
            kind::PING => Vec::new(),
            _ => return Err(no(refusal::MALFORMED, "a question that this node does not know")),
        };
        Ok(Frame { kind, head: reply.into(), body: Bytes::new() })
    }

    /// Hands gossip to the loop. When it cannot follow, gossip is lost, which the next comparison
    /// of tables makes good.
    fn take_gossip(&self, peer: NodeId, gossip: GossipMessage, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Ok(permit) = self.gossip.clone().try_acquire_many_owned(len) {
            drop(self.events.try_send(Event::Gossip(peer, gossip, permit)));
        }
    }

    async fn answer_have(self: &Arc<Self>, peer: NodeId, have: Have) -> Result<Vec<u8>, Refusal> {
        let claim = claim_of_terms(&have.claim);
        let mut ops = vec![Op::Claim { cids: have.cids, claim }];
        if have.claim.committed {
            ops.push(Op::Commit { claim: claim.id });
        }
        let outcomes = self.write_claimed(peer, ops).await.map_err(|err| full(&err))?;
        let bits = outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Claim { held } => Some(held),
            _ => None,
        });
        Ok(Bits { bits: bits.unwrap_or_default() }.to_bytes())
    }

    async fn answer_store(
        self: &Arc<Self>,
        peer: NodeId,
        store: Store,
        sealed: Bytes,
    ) -> Result<Vec<u8>, Refusal> {
        if chunk_id(&sealed) != store.cid && !cfg!(p2pfs_planted = "no-cid-check") {
            return Err(no(refusal::WRONG, "the bytes are not the chunk that they are called"));
        }
        let mut claims = store.claims.into_iter();
        let first = claims.next();
        let claim = first.as_ref().map(claim_of_terms);
        let mut ops = vec![Op::Replica { cid: store.cid, sealed, claim, hint: store.hint }];
        let committed = first.into_iter().chain(claims.clone()).filter(|terms| terms.committed);
        let committed: Vec<_> = committed.map(|terms| Op::Commit { claim: terms.id }).collect();
        let claim = |terms| Op::Claim { cids: vec![store.cid], claim: claim_of_terms(&terms) };
        ops.extend(claims.map(claim));
        ops.extend(committed);
        self.write_claimed(peer, ops).await.map_err(|err| full(&err))?;
        let usage = self.store.usage();
        Ok(Room { used: usage.replica_bytes, capacity: usage.capacity }.to_bytes())
    }

    async fn answer_fetch(self: &Arc<Self>, peer: NodeId, fetch: Fetch) -> Answered {
        let Fetch { cid } = fetch;
        if !matches!(self.store.held(cid), Ok(Some(_))) {
            return Err(no(refusal::NOT_HELD, "not held here"));
        }
        // Held until the bytes are in the socket: what is read for peers is bounded, and one that
        // takes its bytes slowly has a share of it only.
        let mut slot = self.fetched.take(User::Peer(peer)).await;
        let shared = self.clone();
        let read = self.job(move || {
            let mut buffer = slot.buffer();
            let read = shared.store.read(cid, &mut |len| {
                buffer.resize(len, 0);
                std::mem::take(&mut buffer)
            });
            read.map(|found| found.map(|sealed| slot.hold(sealed)))
        });
        match read.await.map_err(stopping)? {
            Ok(Some(sealed)) => Ok(Frame { kind: kind::FETCH, head: Bytes::new(), body: sealed }),
            Ok(None) => Err(no(refusal::NOT_HELD, "not held here")),
            Err(ReadError::Damaged) => {
                self.repair_when_noted(cid);
                Err(no(refusal::NOT_HELD, "the copy here is damaged"))
            }
            Err(ReadError::Io(err)) => Err(disk(&err)),
        }
    }

    async fn answer_holds(self: &Arc<Self>, holds: Holds) -> Result<Vec<u8>, Refusal> {
        let bits = self.which_held(holds.cids).await.map_err(stopping)?;
        Ok(Bits { bits }.to_bytes())
    }

    fn answer_pointers(&self, peer: NodeId, pointers: Pointers) -> Vec<u8> {
        let mut table = lock(&self.pointers);
        pointers.cids.into_iter().for_each(|cid| table.insert(cid, peer));
        Vec::new()
    }

    /// Has repair look at the chunks that it does not know to be below their copies.
    async fn answer_below(self: &Arc<Self>, below: Below) -> Result<Vec<u8>, Refusal> {
        let shared = self.clone();
        let look = move || {
            let news = |cid: &ChunkId| shared.holds(cid) && !shared.is_below(cid);
            below.cids.into_iter().filter(news).for_each(|cid| shared.wants_repair(cid));
        };
        self.job(look).await.map_err(stopping)?;
        Ok(Vec::new())
    }

    async fn answer_who(self: &Arc<Self>, who: WhoHolds) -> Result<Vec<u8>, Refusal> {
        let shared = self.clone();
        let lists = self.job(move || {
            let holders = |cid: &ChunkId| {
                let here = matches!(shared.store.held(*cid), Ok(Some(_))).then_some(shared.me);
                let there = lock(&shared.pointers).get(cid).copied();
                here.into_iter().chain(there).take(HOLDERS_MAX).collect()
            };
            who.cids.iter().map(holders).collect()
        });
        Ok(Holders { lists: lists.await.map_err(stopping)? }.to_bytes())
    }

    async fn answer_commit(&self, commit: Commit) -> Result<Vec<u8>, Refusal> {
        let ops = commit.claims.into_iter().map(|claim| Op::Commit { claim }).collect();
        self.write(ops).await.map_err(|err| full(&err))?;
        Ok(Vec::new())
    }

    async fn answer_push(self: &Arc<Self>, peer: NodeId, push: Push) -> Result<Vec<u8>, Refusal> {
        let refused = self.take_records(peer, push.records).await.map_err(|err| full(&err))?;
        match refused {
            None => Ok(Vec::new()),
            Some(why @ catalogue::Refusal::Ahead) => Err(no(refusal::AHEAD, &why.to_string())),
            Some(why) => Err(no(refusal::RECORD, &why.to_string())),
        }
    }

    async fn answer_sync(self: &Arc<Self>, peer: NodeId, ask: Ask) -> Result<Vec<u8>, Refusal> {
        let answer = match ask {
            Ask::Push(records) => {
                self.take_records(peer, records).await.map_err(|err| full(&err))?;
                Answer::Pushed
            }
            ask => {
                let shared = self.clone();
                let answer = self.job(move || shared.read_records(|view| sync::answer(view, &ask)));
                answer.await.map_err(stopping)?.map_err(|err| disk(&err))?
            }
        };
        Ok(answer.to_bytes())
    }

    async fn answer_find(self: &Arc<Self>, find: Find) -> Result<Vec<u8>, Refusal> {
        let shared = self.clone();
        let found = self.job(move || shared.read_records(|view| found(view, &find)));
        let found = found.await.map_err(stopping)?.map_err(|err| disk(&err))?;
        Ok(Push { records: found }.to_bytes())
    }

    async fn answer_relay(self: &Arc<Self>, relay: Relay) -> Result<Vec<u8>, Refusal> {
        let answer = self.hand_step(relay.to, relay.step).await;
        let answer = answer.ok_or_else(|| no(refusal::NOT_WAITING, "that node did not answer"))?;
        Ok(answer.to_vec())
    }

    fn answer_approve(&self, step: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.take_step(step).map_err(|err| no(refusal::NOT_WAITING, &err.to_string()))
    }

    /// Tells a peer that this node holds chunks which it is about to get.
    pub(super) async fn tell_pointers(
        &self,
        to: NodeId,
        cids: Vec<ChunkId>,
    ) -> Result<(), super::AskError> {
        for cids in cids.chunks(CIDS_MAX) {
            self.ask_pointers(to, cids.to_vec()).await?;
        }
        Ok(())
    }
}

fn found(view: &Snapshot<'_>, find: &Find) -> io::Result<Vec<Vec<u8>>> {
    use crate::core::catalogue::View;
    let ids = match find {
        Find::Lookup(lookup) => files_by_lookup(view, lookup)?.into_iter().map(|f| f.id).collect(),
        Find::Tag(tag) => records_by_tag(view, tag)?,
        Find::Prefix(prefix) => records_by_prefix(view, prefix)?,
    };
    let (mut records, mut room) = (Vec::new(), PUSH_MAX);
    for id in ids {
        let Some(record) = view.record(&id)? else { continue };
        // What does not fit one answer is not needed: the asker wants any proof of existence.
        let Some(left) = room.checked_sub(record.len() + 4) else { break };
        room = left;
        records.push(record);
    }
    Ok(records)
}

fn stopping(_: io::Error) -> Refusal {
    no(refusal::DISK, "this node is stopping")
}

fn parse<T: Decode>(head: &[u8]) -> Result<T, Refusal> {
    T::from_bytes(head).map_err(|err: Malformed| no(refusal::MALFORMED, &err.to_string()))
}

fn no(code: u16, text: &str) -> Refusal {
    Refusal { code, text: text.to_owned() }
}

fn full(err: &WriteError) -> Refusal {
    no(refusal::NO_SPACE, &err.to_string())
}

fn disk(err: &io::Error) -> Refusal {
    tracing::warn!(%err, "the disk failed");
    no(refusal::DISK, "the disk of this node failed")
}
