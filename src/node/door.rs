//! The door: who is let in, who waits, and how this node gets in itself. Owns the node's standing
//! and the two ends of an approval; what a grant says and how a code is checked is decided by
//! `core::access`.
//!
//! Invariant: a peer is a member here only after it has shown a grant, signed by the swarm key, for
//! the very key that its connection has proved, or the statement that the swarm is open.

use super::files::{self, FileError};
use super::{NotReady, Shared};
use crate::core::access::{
    Approval, ApproveError, FOREVER, Grant, Joiner, MAX_WAITING, OpenStatement, Roles, Terms,
    WaitingRoom,
};
use crate::core::limits;
use crate::crypto::{PairingCode, SwarmKey};
use crate::id::{NodeId, SwarmId};
use crate::transport::{Admission, Message as Frame, PeerAddr};
use crate::wire::approve::{JoinRequest, Reply};
use crate::wire::codec::{Decode, Encode};
use crate::wire::control::WaitingInfo;
use crate::wire::hello::{Hello, Introduction, Lane, RefuseCode};
use crate::wire::message::{Deny, Message, Relay, Step, WaitingList, WaitingNode, kind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why nobody was approved or denied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// This node has no swarm key.
    #[error("this node cannot approve: it does not have the swarm key")]
    NotAdmin,
    /// What was typed is no code.
    #[error("{0}")]
    Code(#[from] crate::crypto::CodeError),
    /// Nobody who waits has this code.
    #[error("no node that waits has this code ({waiting} waiting)")]
    NoMatch {
        /// How many wait.
        waiting: usize,
    },
    /// Nobody who waits is meant by this text.
    #[error("no node that waits is called that")]
    Unknown,
    /// A key file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The grant could not be published.
    #[error(transparent)]
    Publish(#[from] super::publish::PublishError),
    /// This node is not a member itself.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// A node's place in its swarm.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// The swarm's public key.
    pub(super) swarm: [u8; 32],
    /// The node's grant as bytes.
    pub(super) grant: Vec<u8>,
}

impl Standing {
    pub(super) fn swarm_id(&self) -> SwarmId {
        SwarmKey::swarm_of(&self.swarm)
    }
}

/// Those who wait at the door, on either side of it.
#[derive(Default)]
pub(super) struct Door {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    room: WaitingRoom,
    /// Those whose connection is up, and where it comes from. Nobody else is shown: whoever is
    /// denied or approved before it is up would never hear of it.
    addrs: BTreeMap<NodeId, SocketAddr>,
    denied: BTreeMap<NodeId, crate::sys::Time>,
    joiner: Option<Joiner>,
    /// The place in an open swarm that its member has shown to this node, which waits.
    open: Option<Standing>,
}

/// How long a node that was turned away stays so.
const DENIED_FOR: std::time::Duration = std::time::Duration::from_secs(600);

impl Door {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for approval.
    pub(super) fn wait(&self, joiner: Joiner) {
        self.lock().joiner = Some(joiner);
    }

    /// Waits no longer.
    pub(super) fn entered(&self) {
        self.lock().joiner = None;
    }

    /// The connection of a node that may wait is up.
    pub(super) fn here(&self, peer: NodeId, addr: SocketAddr) {
        // As many as the transport lets strangers in.
        self.lock().addrs.insert(peer, addr);
    }

    /// A waiting node whose connection is gone waits no longer here.
    pub(super) fn gone(&self, peer: &NodeId) {
        self.lock().addrs.remove(peer);
    }
}

impl Shared {
    /// What this node says to a peer.
    pub(super) fn introduction(&self) -> Introduction {
        let standing = self.standing();
        let ask = self.door.lock().joiner.as_ref().map(|joiner| joiner.request().to_bytes());
        // In an open swarm the statement is everybody's grant, and shows newcomers how to get in.
        let open = standing.as_ref().and_then(|s| self.open_statement(&s.swarm));
        let open = open.map(|statement| statement.to_bytes());
        Introduction {
            swarm: standing.as_ref().map(|s| s.swarm_id()),
            grant: open.or(standing.map(|s| s.grant)).unwrap_or_default(),
            port: 0,
            addrs: Vec::new(),
            ask: ask.unwrap_or_default(),
        }
    }

    /// Whether a peer that has proved its key is let in.
    pub(super) fn admission(&self, peer: NodeId, hello: &Hello, from: SocketAddr) -> Admission {
        let Some(ours) = self.standing() else {
            // A node that waits lets only those in that it has dialled, as strangers: they may
            // approve it. Whoever dials it could only waste its codes.
            return match hello.intro.swarm {
                Some(swarm) if super::lock(&self.hosts).contains(&from) => {
                    *super::lock(&self.host_swarm) = Some(swarm);
                    self.door.lock().open = open_standing(&hello.intro.grant, swarm);
                    Admission::Stranger
                }
                _ => refuse(RefuseCode::NotAMember, "this node waits for approval itself"),
            };
        };
        match hello.intro.swarm {
            None => self.let_wait(peer, hello),
            Some(swarm) if swarm != ours.swarm_id() => {
                let text = "this node belongs to another swarm".to_owned();
                Admission::Refuse { code: RefuseCode::OtherSwarm, text }
            }
            Some(_) => match self.verify_grant(&hello.intro.grant, &peer) {
                Ok(_) => Admission::Member,
                Err(why) => refuse(RefuseCode::NotAMember, &why.to_string()),
            },
        }
    }

    fn let_wait(&self, peer: NodeId, hello: &Hello) -> Admission {
        let now = self.sys.clock.now();
        let Ok(request) = JoinRequest::from_bytes(&hello.intro.ask) else {
            return refuse(RefuseCode::NotAMember, "this swarm lets only members in");
        };
        let mut inner = self.door.lock();
        inner.denied.retain(|_, since| now.since(*since) < DENIED_FOR);
        if inner.denied.contains_key(&peer) {
            return refuse(RefuseCode::Denied, "a member of the swarm has turned this node away");
        }
        if inner.room.requests(now).count() >= MAX_WAITING {
            // Those who only knocked and ran away make room.
            let Inner { room, addrs, .. } = &mut *inner;
            let gone = room.requests(now).map(|r| r.node).filter(|id| !addrs.contains_key(id));
            gone.collect::<Vec<_>>().iter().for_each(|id| room.remove(id));
        }
        match inner.room.admit(now, &peer, request) {
            Ok(()) => Admission::Stranger,
            Err(ApproveError::Full) => refuse(RefuseCode::Busy, "too many nodes wait already"),
            Err(why) => refuse(RefuseCode::NotAMember, &why.to_string()),
        }
    }

    /// The place of this node, which waits, in the open swarm of the host that it has reached.
    pub(super) fn open_door(&self) -> Option<Standing> {
        self.door.lock().open.take().filter(|open| Some(open.swarm_id()) != self.config.avoid)
    }

    /// Whether a grant lets a node in, and what it may do.
    pub(super) fn verify_grant(&self, grant: &[u8], node: &NodeId) -> Result<Roles, GrantError> {
        let ours = self.standing().ok_or(GrantError::NoSwarm)?;
        if grant.is_empty() {
            return Err(GrantError::Missing);
        }
        if let Ok(statement) = OpenStatement::from_bytes(grant) {
            return Ok(statement.verify(&ours.swarm)?);
        }
        let grant = Grant::from_bytes(grant).map_err(|_| GrantError::Malformed)?;
        Ok(grant.verify(&ours.swarm, node, self.sys.clock.wall_ms())?)
    }

    /// The nodes that wait at this one.
    pub(super) fn waiting_here(&self) -> WaitingList {
        let inner = self.door.lock();
        let now = self.sys.clock.now();
        let nodes = inner.room.requests(now).filter_map(|request| {
            let addr = *inner.addrs.get(&request.node)?;
            Some(WaitingNode { request: request.clone(), addr })
        });
        WaitingList { nodes: nodes.collect() }
    }

    /// The nodes that wait anywhere, each with the member at which it waits.
    async fn waiting_everywhere(self: &Arc<Self>) -> Vec<(NodeId, WaitingNode)> {
        let mut asking = tokio::task::JoinSet::new();
        for member in self.view().others() {
            let (shared, id) = (self.clone(), member.record.id);
            asking.spawn(async move {
                let frame = Frame { kind: kind::WAITING, ..Frame::default() };
                let answer = shared.ask_frame(id, Lane::Control, frame, limits::ASK_ALL).await;
                (id, answer.ok().and_then(|a| WaitingList::from_bytes(&a.head).ok()))
            });
        }
        let here = self.waiting_here().nodes.into_iter().map(|node| (self.me, node));
        let mut all: Vec<(NodeId, WaitingNode)> = here.collect();
        while let Some(answer) = asking.join_next().await {
            if let Ok((at, Some(list))) = answer {
                all.extend(list.nodes.into_iter().map(|node| (at, node)));
            }
        }
        all
    }

    /// Lets the node in whose daemon shows `code`.
    pub(super) async fn approve(
        self: &Arc<Self>,
        code: &str,
    ) -> Result<WaitingInfo, ApprovalError> {
        let code: PairingCode = code.parse()?;
        self.ready()?;
        let swarm_key = self.swarm_key()?.ok_or(ApprovalError::NotAdmin)?;
        let waiting = self.waiting_everywhere().await;
        let places: BTreeMap<NodeId, (NodeId, WaitingInfo)> =
            waiting.iter().map(|(at, node)| (node.request.node, (*at, node.info()))).collect();
        let requests = waiting.iter().map(|(_, node)| node.request.clone());
        let seed = self.sys.rng.bytes();
        let (mut approval, offers) = Approval::start(&code, self.me, requests, &seed);
        for (joiner, offer) in offers {
            let Some((at, info)) = places.get(&joiner).cloned() else { continue };
            let Some(reply) = self.relay(at, joiner, Step::Offer(offer)).await else { continue };
            let Ok(reply) = Reply::from_bytes(&reply) else { continue };
            let (issued, verdict) = {
                let mut issued = None;
                let verdict = approval.reply(&joiner, &reply, |request| {
                    let grant = self.issue(&swarm_key, request);
                    issued = Some(grant.clone());
                    grant
                });
                (issued, verdict)
            };
            if let (Ok(verdict), Some(grant)) = (verdict, issued) {
                self.publish_grant(&swarm_key, &grant).await?;
                self.relay(at, joiner, Step::Verdict(verdict)).await;
                return Ok(info);
            }
        }
        Err(ApprovalError::NoMatch { waiting: places.len() })
    }

    /// Turns a waiting node away, everywhere.
    pub(super) async fn deny(self: &Arc<Self>, who: &str) -> Result<WaitingInfo, ApprovalError> {
        self.ready()?;
        self.swarm_key()?.ok_or(ApprovalError::NotAdmin)?;
        let meant = |node: &WaitingNode| {
            let id = node.request.node.to_string();
            (who.len() >= 8 && id.starts_with(&who.to_ascii_lowercase()))
                || node.addr.to_string() == who
                || node.name() == who
        };
        let waiting = self.waiting_everywhere().await;
        let (at, node) =
            waiting.into_iter().find(|(_, n)| meant(n)).ok_or(ApprovalError::Unknown)?;
        let id = node.request.node;
        if at == self.me {
            self.turn_away(id);
        } else {
            let head = Deny { node: id }.to_bytes().into();
            let frame = Frame { kind: Deny::KIND, head, body: Bytes::new() };
            self.ask_frame(at, Lane::Control, frame, limits::ASK)
                .await
                .map_err(|_| ApprovalError::Unknown)?;
        }
        Ok(node.info())
    }

    /// Whether a member is one who may turn others away, as its grant says.
    pub(super) fn is_admin(&self, peer: &NodeId) -> bool {
        let view = self.view();
        let grant = view.members.get(peer).map(|member| member.record.grant.as_slice());
        let roles = grant.and_then(|grant| self.verify_grant(grant, peer).ok());
        roles.is_some_and(|roles| roles.contains(Roles::ADMIN))
    }

    /// Turns a node away that waits here.
    pub(super) fn turn_away(&self, node: NodeId) {
        let now = self.sys.clock.now();
        let mut inner = self.door.lock();
        inner.room.remove(&node);
        inner.addrs.remove(&node);
        // Bounded like the room itself: who is forgotten may ask again.
        if inner.denied.len() < 64 {
            inner.denied.insert(node, now);
        }
        drop(inner);
        let text = "a member of the swarm has turned this node away";
        self.transport().refuse(node, RefuseCode::Denied, text);
    }

    /// Passes a step on to a node that waits at `at`; its answer, if it has one.
    async fn relay(self: &Arc<Self>, at: NodeId, to: NodeId, step: Step) -> Option<Bytes> {
        if at == self.me {
            return self.hand_step(to, step.to_bytes()).await;
        }
        let head = Relay { to, step: step.to_bytes() }.to_bytes().into();
        let frame = Frame { kind: Relay::KIND, head, body: Bytes::new() };
        let answer = self.ask_frame(at, Lane::Control, frame, limits::ASK).await;
        answer.ok().map(|answer| answer.head)
    }

    /// Hands a step to a node that waits here; to nobody else, whoever asks for it.
    pub(super) async fn hand_step(&self, to: NodeId, step: Vec<u8>) -> Option<Bytes> {
        if !self.door.lock().addrs.contains_key(&to) {
            return None;
        }
        let peer = PeerAddr { id: to, addrs: Vec::new() };
        let frame = Frame { kind: kind::APPROVE, head: step.into(), body: Bytes::new() };
        let answer = self.transport().request(&peer, Lane::Control, frame, limits::ASK).await;
        answer.ok().map(|answer| answer.head)
    }

    /// A step of an approval has reached this node, which waits.
    pub(super) fn take_step(&self, step: &[u8]) -> Result<Vec<u8>, ApproveError> {
        let step = Step::from_bytes(step).map_err(|_| ApproveError::NoRun)?;
        let now = self.sys.clock.now();
        let mut inner = self.door.lock();
        let joiner = inner.joiner.as_mut().ok_or(ApproveError::NoRun)?;
        match step {
            Step::Offer(offer) => {
                self.renew_code(joiner);
                let reply = joiner.offer(now, &offer, &self.sys.rng.bytes())?;
                Ok(reply.to_bytes())
            }
            Step::Verdict(verdict) => {
                let grant = joiner.verdict(now, self.sys.clock.wall_ms(), &verdict)?;
                drop(inner);
                let grant = Standing { swarm: grant.swarm, grant: grant.to_bytes() };
                self.enter(grant);
                Ok(Vec::new())
            }
        }
    }

    /// The code to show, while this node waits.
    pub(super) fn code(&self) -> Option<String> {
        let mut inner = self.door.lock();
        let joiner = inner.joiner.as_mut()?;
        self.renew_code(joiner);
        Some(joiner.code().to_string())
    }

    fn renew_code(&self, joiner: &mut Joiner) {
        let now = self.sys.clock.now();
        if joiner.is_due(now) {
            joiner.renew(now, self.sys.rng.bytes());
        }
    }

    /// A grant for a node that asked.
    fn issue(&self, key: &SwarmKey, request: &JoinRequest) -> Grant {
        let terms = Terms {
            node: request.node,
            owner: request.owner,
            roles: Roles::MEMBER,
            label: request.label.clone(),
            not_before: self.sys.clock.wall_ms(),
            not_after: FOREVER,
            serial: self.sys.rng.bytes(),
        };
        Grant::issue(key, terms)
    }

    /// The swarm key, if this user has that of this node's swarm.
    pub(super) fn swarm_key(&self) -> Result<Option<SwarmKey>, FileError> {
        let key = files::swarm_key(&*self.sys.fs, &self.config.config_dir)?;
        let ours = self.standing().map(|standing| standing.swarm);
        Ok(key.filter(|key| Some(key.public()) == ours))
    }
}

/// Why a grant does not let a node in.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    /// This node is in no swarm.
    #[error("this node is in no swarm")]
    NoSwarm,
    /// There is none.
    #[error("it shows no grant")]
    Missing,
    /// It is not one.
    #[error("its grant is malformed")]
    Malformed,
    /// It does not hold.
    #[error(transparent)]
    Refused(#[from] crate::core::access::Refused),
}

/// The statement of an open swarm as a place in it. Its key is the host's word, which is as much as
/// can be known of a swarm that lets everybody in.
fn open_standing(grant: &[u8], swarm: SwarmId) -> Option<Standing> {
    let statement = OpenStatement::from_bytes(grant).ok()?;
    let standing = Standing { swarm: statement.swarm, grant: grant.to_vec() };
    let holds = statement.verify(&statement.swarm).is_ok() && standing.swarm_id() == swarm;
    holds.then_some(standing)
}

fn refuse(code: RefuseCode, text: &str) -> Admission {
    Admission::Refuse { code, text: text.to_owned() }
}

/// A grant for the holder of the swarm key itself.
pub(super) fn own_grant(
    key: &SwarmKey,
    node: NodeId,
    owner: [u8; 32],
    label: &str,
    now: u64,
    serial: [u8; 16],
) -> Grant {
    let roles = Roles::MEMBER.with(Roles::INVITE).with(Roles::ADMIN);
    let label = label.to_owned();
    let terms = Terms { node, owner, roles, label, not_before: now, not_after: FOREVER, serial };
    Grant::issue(key, terms)
}
