//! Connections between nodes: TCP with TLS 1.3, one port, separate connections for control and
//! bulk, requests with answers and one-way messages. It owns sockets and who is at their other end;
//! what messages mean, who may join, and which peers are wanted is its [`Handler`]'s matter.
//!
//! ```text
//! listen ─╮                                ╭─ reader ─ Handler::{serve, notify}
//!         ├─ secure ─ greet ─ connection ──┤
//! dial ───╯                       │        ╰─ writer ─ outbox ─ request, notify
//!                               pool: which one is used, which one closes ─ Handler::link
//! ```
//!
//! Memory: what arrives is read into [`Buffers`], one budget for requests and one for responses, so
//! that two nodes sending to each other never wait for each other's memory; control messages have
//! budgets of their own, so that no chunk delays a ping. Besides that a connection takes at most
//! about 96 KiB: 18 KiB to read and 64 KiB to write inside TLS when it is busy both ways.
//!
//! Invariant: a message reaches the handler only from a node that has proved its key and was
//! admitted by the handler, and every queue here has a bound.

mod buffers;
mod connection;
mod dial;
mod error;
mod framing;
mod greet;
mod handler;
mod listen;
mod outbox;
mod pace;
mod pool;
mod secure;
mod traffic;

pub use buffers::{Buffers, PooledBuf};
pub use error::{DialError, Ended, NotLinked, RequestError, StartError};
pub use handler::{Admission, ConnectionStats, Handler, LinkEvent, Message, PeerAddr};
pub use pace::{LEAST_RATE, PACED_MAX, Pace, Rates, TooManyPaced};
pub use secure::Security;
pub use traffic::Totals;

use crate::crypto::NodeKey;
use crate::id::NodeId;
use crate::sys::{Listener, Net, Rng};
use crate::wire::frame::{FIRST_MESSAGE, Limits as FrameLimits};
use crate::wire::hello::{Lane, RefuseCode};
use connection::CallError;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Budget for control messages in each role: 64 of full length, far more of usual length.
const CONTROL_BYTES: usize = 4 << 20;
/// How long a shutdown waits for what is under way.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);
/// How often a request is tried again that met a connection which was just closing.
const UNSENT_MAX: usize = 3;
/// How many times its deadline a request on a bulk connection may take while bytes come and go.
const PATIENCE: u32 = 20;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all, both ways, handshakes included; half of the descriptors at most.
    pub connections: usize,
    /// Connections whose other side has not been let in yet.
    pub unproved: usize,
    /// The same from one IPv4 address or IPv6 /64 network, loopback excepted.
    pub unproved_per_address: usize,
    /// Strangers that wait to be let in.
    pub strangers: usize,
    /// Bulk connections; above that the least recently used closes.
    pub bulk: usize,
    /// A connection that nobody wants closes after this time without a message.
    pub idle: Duration,
    /// Time for TLS and greeting.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            unproved: 64,
            unproved_per_address: 8,
            strangers: 16,
            bulk: 64,
            idle: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
        }
    }
}

/// What a transport is made of.
pub struct Options {
    /// The node's key; its public half is who we are.
    pub key: NodeKey,
    /// The network.
    pub net: Arc<dyn Net>,
    /// For decisions of the protocol. TLS draws its own random bytes.
    pub rng: Arc<dyn Rng>,
    /// Bounds.
    pub limits: Limits,
    /// Where to listen; empty: nowhere. Port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Whom to ask.
    pub handler: Arc<dyn Handler>,
    /// [`Security::tls`], except in simulations.
    pub security: Security,
    /// Memory for requests that arrive on bulk connections.
    pub requests: Buffers,
    /// Memory for responses that arrive on bulk connections; not the same budget.
    pub responses: Buffers,
}

/// A running transport. Clones are handles on the same one; it runs until
/// [`Transport::shutdown`].
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

struct Memory {
    requests: Buffers,
    responses: Buffers,
    control_requests: Buffers,
    control_responses: Buffers,
}

impl Memory {
    const fn requests(&self, lane: Lane) -> &Buffers {
        match lane {
            Lane::Control => &self.control_requests,
            Lane::Bulk => &self.requests,
        }
    }

    const fn responses(&self, lane: Lane) -> &Buffers {
        match lane {
            Lane::Control => &self.control_responses,
            Lane::Bulk => &self.responses,
        }
    }

    fn trim(&self) {
        self.requests.trim();
        self.responses.trim();
    }
}

struct Shared {
    me: NodeId,
    instance: u64,
    limits: Limits,
    net: Arc<dyn Net>,
    rng: Arc<dyn Rng>,
    handler: Arc<dyn Handler>,
    secure: secure::Secure,
    listening: Vec<SocketAddr>,
    memory: Memory,
    slots: Arc<Semaphore>,
    numbers: AtomicU64,
    pool: pool::Pool,
    dials: dial::Dials,
    room: listen::Room,
    traffic: traffic::Book,
    closing: watch::Sender<bool>,
}

impl Transport {
    /// Listens and starts to serve. Must be called inside a tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let secure = secure::Secure::new(options.security, &options.key)
            .map_err(|err| StartError::Key(err.to_string()))?;
        let mut listeners = Vec::new();
        let mut listening = Vec::new();
        for addr in &options.listen {
            let listener = listen_on(&*options.net, *addr).await?;
            let source = |source| StartError::Listen { addr: *addr, source };
            listening.push(listener.local_addr().map_err(source)?);
            listeners.push(listener);
        }
        let shared = Arc::new(Shared {
            me: options.key.id(),
            instance: options.rng.u64(),
            limits: options.limits,
            net: options.net,
            rng: options.rng,
            handler: options.handler,
            secure,
            listening,
            memory: Memory {
                requests: options.requests,
                responses: options.responses,
                control_requests: Buffers::new(CONTROL_BYTES),
                control_responses: Buffers::new(CONTROL_BYTES),
            },
            slots: Arc::new(Semaphore::new(options.limits.connections.max(1))),
            numbers: AtomicU64::new(0),
            pool: pool::Pool::default(),
            dials: dial::Dials::default(),
            room: listen::Room::default(),
            traffic: traffic::Book::new(),
            closing: watch::Sender::new(false),
        });
        for listener in listeners {
            tokio::spawn(listen::accept_all(Arc::clone(&shared), listener));
        }
        tokio::spawn(pool::tend(Arc::downgrade(&shared)));
        Ok(Self(shared))
    }

    /// Where it listens, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.listening
    }

    /// Dials an address and says who answered. With `expect`, anybody else is an error. A peer that
    /// is connected already is dialled all the same; the new connection takes the old one's place.
    pub async fn dial(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        lane: Lane,
    ) -> Result<NodeId, DialError> {
        if *self.0.closing.borrow() {
            return Err(DialError::ShuttingDown);
        }
        self.0.dial(addr, expect, lane).await.map(|conn| conn.peer)
    }

    /// Sends a request and waits for the response, dialling first when there is no connection.
    /// Dropping the future gives the request up; the peer may have done what was asked. On a bulk
    /// connection the deadline counts from the last byte that came or was taken: one that is slow,
    /// be it on purpose, is not dead.
    pub async fn request(
        &self,
        to: &PeerAddr,
        lane: Lane,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, RequestError> {
        let limits = match lane {
            Lane::Control => FrameLimits::CONTROL,
            Lane::Bulk => FrameLimits::BULK,
        };
        let fits = limits.fits(message.kind, message.head.len(), message.body.len());
        if !fits || message.kind < FIRST_MESSAGE {
            return Err(RequestError::DoesNotFit);
        }
        let late = sleep(match lane {
            Lane::Control => deadline,
            Lane::Bulk => deadline * PATIENCE,
        });
        let (request, mut late) = (pin!(self.try_request(to, lane, message)), pin!(late));
        let mut request = request;
        let mut left = deadline;
        loop {
            tokio::select! {
                biased;
                answer = &mut request => return answer,
                () = &mut late => return Err(RequestError::TimedOut),
                () = sleep(left) => match self.last_byte(to.id) {
                    Some(since) if since < deadline => left = deadline - since,
                    _ => return Err(RequestError::TimedOut),
                }
            }
        }
    }

    /// Dials a peer although there may be a connection already; requests use the new one from then
    /// on, and those under way on the old one may still be answered.
    pub async fn renew(&self, to: &PeerAddr, lane: Lane) -> Result<(), DialError> {
        self.0.renew(to, lane).await
    }

    async fn try_request(
        &self,
        to: &PeerAddr,
        lane: Lane,
        mut message: Message,
    ) -> Result<Message, RequestError> {
        for _ in 0..UNSENT_MAX {
            let conn = self.0.connection(to, lane).await?;
            match conn.call(message).await {
                Ok(response) => return Ok(response),
                Err(CallError::Failed(err)) => return Err(err),
                Err(CallError::Unsent(again)) => message = again,
            }
        }
        Err(RequestError::Lost)
    }

    /// Sends a one-way message over the control connection, if there is one. When the peer takes
    /// messages too slowly the oldest waiting ones are dropped. The head must be within 64 KiB.
    pub fn notify(&self, peer: NodeId, message: Message) -> Result<(), NotLinked> {
        debug_assert!(FrameLimits::CONTROL.fits(message.kind, message.head.len(), 0));
        let conn = self.0.pool.get(peer, Lane::Control).ok_or(NotLinked)?;
        conn.notify(message);
        Ok(())
    }

    /// Keeps the control connection to a peer open although it is idle, or no longer.
    pub fn keep(&self, peer: NodeId, keep: bool) {
        self.0.pool.keep(peer, keep);
    }

    /// Closes the control connections to a peer in order; chunks that are on their way go on.
    pub fn unlink(&self, peer: NodeId) {
        for conn in self.0.pool.list(Some(peer)).iter().filter(|conn| conn.lane == Lane::Control) {
            self.0.pool.leave(&self.0, conn);
        }
    }

    /// Closes all connections to a peer in order.
    pub fn close(&self, peer: NodeId) {
        for conn in self.0.pool.list(Some(peer)) {
            self.0.pool.leave(&self.0, &conn);
        }
    }

    /// Turns a connected peer away, telling it why.
    pub fn refuse(&self, peer: NodeId, code: RefuseCode, text: &str) {
        for conn in self.0.pool.list(Some(peer)) {
            conn.refuse(&self.0.refuse(peer, conn.lane, code, text.into()));
            self.0.pool.leave(&self.0, &conn);
        }
    }

    /// Every open connection.
    pub fn connections(&self) -> Vec<ConnectionStats> {
        self.0.pool.stats()
    }

    /// Since bytes of a message came over a bulk connection to a peer, or it took bytes of a body;
    /// none: there is no such connection, or nothing has gone over it.
    pub fn last_byte(&self, peer: NodeId) -> Option<Duration> {
        let connections = self.0.pool.list(Some(peer)).into_iter();
        connections.filter(|conn| conn.lane == Lane::Bulk).filter_map(|conn| conn.still()).min()
    }

    /// How fast bytes may go.
    pub fn pace(&self) -> &Pace {
        self.0.traffic.pace()
    }

    /// Bytes to and from each peer that is remembered.
    pub fn totals(&self) -> BTreeMap<NodeId, Totals> {
        self.0.traffic.totals()
    }

    /// Bytes to and from everybody.
    pub fn total(&self) -> Totals {
        self.0.traffic.all()
    }

    /// Forgets how many bytes went to and came from peers that are not connected, unless wanted.
    pub fn forget_totals(&self, wanted: impl Fn(&NodeId) -> bool) {
        self.0.traffic.retain(wanted);
    }

    /// Stops listening, closes all connections in order, and waits at most 2 s for what is under
    /// way. Nothing is served, sent or dialled afterwards.
    pub async fn shutdown(&self) {
        self.0.closing.send_replace(true);
        for conn in self.0.pool.list(None) {
            self.0.pool.leave(&self.0, &conn);
        }
        let waited = timeout(SHUTDOWN_DEADLINE, self.0.pool.wait_empty()).await;
        if waited.is_err() {
            for conn in self.0.pool.list(None) {
                conn.end(Ended::Lost("this node was shut down"));
            }
            self.0.pool.wait_empty().await;
        }
    }
}

async fn listen_on(net: &dyn Net, addr: SocketAddr) -> Result<Box<dyn Listener>, StartError> {
    net.listen(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse(addr),
        _ => StartError::Listen { addr, source },
    })
}
