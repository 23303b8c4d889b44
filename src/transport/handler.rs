//! What the transport asks of its owner, and the values that pass between them. Nothing here runs.

use super::error::Ended;
use crate::id::NodeId;
use crate::sys::BoxFuture;
use crate::wire::frame::Refusal;
use crate::wire::hello::{Hello, Introduction, Lane, RefuseCode, Speaker};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// A node and where it may be reached, best address first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddr {
    /// Who must answer.
    pub id: NodeId,
    /// Where to dial; may be empty when the peer can only dial us.
    pub addrs: Vec<SocketAddr>,
}

/// One message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// What it is; from [`FIRST_MESSAGE`](crate::wire::frame::FIRST_MESSAGE) up.
    pub kind: u16,
    /// An encoded control message of at most 64 KiB.
    pub head: Bytes,
    /// Raw bytes, for kinds with [`BODY_KINDS`](crate::wire::frame::BODY_KINDS) on a bulk
    /// connection. Those that arrived return to their [`Buffers`](super::Buffers) when the last
    /// handle on head and body is dropped.
    pub body: Bytes,
}

/// Whether a node that has proved its key is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may send everything.
    Member,
    /// It may send only [`Handler::stranger_kinds`], little of it, on a control connection. To
    /// become a member it dials again.
    Stranger,
    /// It is turned away.
    Refuse {
        /// Why, for programs. [`RefuseCode::OtherSwarm`] sends our swarm's id along.
        code: RefuseCode,
        /// Why, for people; at most 200 bytes.
        text: String,
    },
}

/// What happens to control connections. Events of one peer arrive in order: `Up`, then `Down`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// There is a control connection to the peer now.
    Up {
        /// Who.
        peer: NodeId,
        /// Whether we dialled.
        dialled: bool,
        /// The far end.
        addr: SocketAddr,
        /// How the peer sees our address.
        observed: Option<SocketAddr>,
        /// Whether it was let in as a stranger only.
        stranger: bool,
    },
    /// The control connection to the peer is gone. A peer that restarted goes down and up again.
    Down {
        /// Who.
        peer: NodeId,
        /// How.
        how: Ended,
    },
    /// A node dialled us that speaks no protocol version of ours; it was told so.
    Mismatch {
        /// Who.
        peer: NodeId,
        /// The far end.
        addr: SocketAddr,
        /// What it says about itself.
        speaker: Speaker,
    },
}

/// The owner of a transport: says who we are, decides who may come in, and does what peers ask.
pub trait Handler: Send + Sync + 'static {
    /// What the node calls itself.
    fn name(&self) -> String;

    /// What we say to a peer that has proved its key. A port of 0 is replaced by the one that is
    /// listened on.
    fn introduce(&self, to: NodeId, lane: Lane) -> Introduction;

    /// Whether a peer is let in; called on both sides of every connection. It must not block.
    fn admit(&self, peer: NodeId, hello: &Hello, from: SocketAddr) -> Admission;

    /// The kinds of requests that strangers may send.
    fn stranger_kinds(&self) -> &[u16];

    /// Does what a peer asks. At most 64 run for each connection; further requests wait unread. The
    /// future is dropped when the connection ends, so work that must be finished belongs into a
    /// task of its own. It must not wait for a response over the same connection, and on a bulk
    /// connection it must not answer with the bytes that it was sent: they hold the memory that the
    /// reader needs, and their way out may depend on the other side's reader.
    fn serve(
        &self,
        peer: NodeId,
        lane: Lane,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, Refusal>>;

    /// Takes a one-way message. It must not block; what it queues must be bounded.
    fn notify(&self, peer: NodeId, message: Message);

    /// Takes an event. It must not block and not call the transport.
    fn link(&self, event: LinkEvent);
}

/// One open connection, for people and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Who is at the other end.
    pub peer: NodeId,
    /// The far end.
    pub addr: SocketAddr,
    /// What it is for.
    pub lane: Lane,
    /// Whether we dialled.
    pub dialled: bool,
    /// Whether the peer is a stranger here.
    pub stranger: bool,
    /// Since it was opened.
    pub age: Duration,
    /// Since the last message.
    pub idle: Duration,
    /// Bytes of frames sent.
    pub sent: u64,
    /// Bytes of frames received.
    pub received: u64,
    /// Requests under way, both directions together.
    pub in_flight: u32,
}
