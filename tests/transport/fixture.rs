//! A node that is only a transport, with a handler that does what the kind of a message says.

use bytes::Bytes;
use p2pfs::crypto::NodeKey;
use p2pfs::id::NodeId;
use p2pfs::sys::os::{OsNet, OsRng};
use p2pfs::sys::{BoxFuture, Net, Rng};
use p2pfs::transport::{
    Admission, Buffers, DialError, Handler, Limits, LinkEvent, Message, Options, PeerAddr,
    RequestError, Security, Transport,
};
use p2pfs::wire::frame::Refusal;
use p2pfs::wire::hello::{Hello, Introduction, Lane};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Answered with the same head.
pub(crate) const ECHO: u16 = 16;
/// Never answered.
pub(crate) const HANG: u16 = 17;
/// Refused.
pub(crate) const REFUSED: u16 = 18;
/// Answered with the same head and body.
pub(crate) const ECHO_BODY: u16 = 0x8010;
/// Answered with an empty message.
pub(crate) const SINK: u16 = 0x8011;

/// Longest wait for what must happen; far more than it takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

type Judge = Box<dyn Fn(NodeId) -> Admission + Send + Sync>;

/// Does what the kinds above say and notes what happens.
pub(crate) struct Recorder {
    judge: Judge,
    intro: Introduction,
    events: watch::Sender<Vec<LinkEvent>>,
    notes: watch::Sender<usize>,
    last_note: Mutex<Option<Message>>,
}

impl Recorder {
    /// Waits until the events so far satisfy `what`.
    pub(crate) async fn until(&self, what: impl Fn(&[LinkEvent]) -> bool) -> Vec<LinkEvent> {
        let mut events = self.events.subscribe();
        let seen = tokio::time::timeout(SOON, events.wait_for(|events| what(events))).await;
        match seen {
            Ok(seen) => seen.unwrap().clone(),
            Err(_) => panic!("only saw {:?}", self.events.borrow()),
        }
    }

    /// Waits until `count` one-way messages have come; the last of them.
    pub(crate) async fn noted(&self, count: usize) -> Message {
        let mut notes = self.notes.subscribe();
        tokio::time::timeout(SOON, notes.wait_for(|n| *n >= count)).await.unwrap().unwrap();
        self.last_note.lock().unwrap().clone().unwrap()
    }

    pub(crate) fn ups(events: &[LinkEvent]) -> usize {
        events.iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count()
    }

    pub(crate) fn downs(events: &[LinkEvent]) -> usize {
        events.iter().filter(|event| matches!(event, LinkEvent::Down { .. })).count()
    }
}

impl Handler for Recorder {
    fn name(&self) -> String {
        "bob".into()
    }

    fn introduce(&self, _: NodeId, _: Lane) -> Introduction {
        self.intro.clone()
    }

    fn admit(&self, peer: NodeId, _: &Hello, _: SocketAddr) -> Admission {
        (self.judge)(peer)
    }

    fn stranger_kinds(&self) -> &[u16] {
        &[ECHO]
    }

    fn serve(
        &self,
        _: NodeId,
        _: Lane,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, Refusal>> {
        Box::pin(async move {
            match message.kind {
                ECHO => Ok(message),
                ECHO_BODY => {
                    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
                    let (head, body) = (copy(&message.head), copy(&message.body));
                    Ok(Message { kind: ECHO_BODY, head, body })
                }
                SINK => Ok(Message { kind: SINK, ..Message::default() }),
                REFUSED => Err(Refusal { code: 40, text: "no room".into() }),
                _ => std::future::pending().await,
            }
        })
    }

    fn notify(&self, _: NodeId, message: Message) {
        *self.last_note.lock().unwrap() = Some(message);
        self.notes.send_modify(|n| *n += 1);
    }

    fn link(&self, event: LinkEvent) {
        self.events.send_modify(|events| events.push(event));
    }
}

/// What differs between the nodes of the tests.
pub(crate) struct Setup {
    pub(crate) seed: u8,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) security: Security,
    pub(crate) limits: Limits,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) judge: Judge,
    pub(crate) intro: Introduction,
    pub(crate) budget: usize,
}

impl Setup {
    /// Real TCP and TLS on loopback; everybody is a member.
    pub(crate) fn real(seed: u8) -> Self {
        Self {
            seed,
            net: Arc::new(OsNet),
            rng: Arc::new(OsRng),
            security: Security::tls(),
            limits: Limits::default(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            judge: Box::new(|_| Admission::Member),
            intro: Introduction::default(),
            budget: 24 << 20,
        }
    }

    pub(crate) async fn start(self) -> TestNode {
        let key = NodeKey::from_seed(&[self.seed; 32]);
        let id = key.id();
        let handler = Arc::new(Recorder {
            judge: self.judge,
            intro: self.intro,
            events: watch::Sender::new(Vec::new()),
            notes: watch::Sender::new(0),
            last_note: Mutex::default(),
        });
        let transport = Transport::start(Options {
            key,
            net: self.net,
            rng: self.rng,
            limits: self.limits,
            listen: self.listen,
            handler: Arc::clone(&handler) as Arc<dyn Handler>,
            security: self.security,
            requests: Buffers::new(self.budget),
            responses: Buffers::new(self.budget),
        });
        TestNode { id, handler, transport: transport.await.unwrap() }
    }
}

/// A running transport.
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) handler: Arc<Recorder>,
    pub(crate) transport: Transport,
}

impl TestNode {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.transport.local_addrs()[0]
    }

    pub(crate) fn peer(&self) -> PeerAddr {
        PeerAddr { id: self.id, addrs: vec![self.addr()] }
    }

    pub(crate) async fn dial(&self, to: &Self) -> Result<NodeId, DialError> {
        self.transport.dial(to.addr(), Some(to.id), Lane::Control).await
    }

    pub(crate) async fn ask(
        &self,
        to: &PeerAddr,
        lane: Lane,
        message: Message,
    ) -> Result<Message, RequestError> {
        self.transport.request(to, lane, message, SOON).await
    }

    /// Whether a control request is answered.
    pub(crate) async fn echo(&self, to: &PeerAddr) -> Result<(), RequestError> {
        let question = message(ECHO, b"are you there?");
        let answer = self.ask(to, Lane::Control, question.clone()).await?;
        assert_eq!(answer, question);
        Ok(())
    }

    /// Waits until there are `count` connections.
    pub(crate) async fn has_connections(&self, count: usize) {
        let wait = async {
            while self.transport.connections().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(SOON, wait).await;
        assert!(done.is_ok(), "{:#?}", self.transport.connections());
    }
}

pub(crate) fn message(kind: u16, head: &'static [u8]) -> Message {
    Message { kind, head: Bytes::from_static(head), body: Bytes::new() }
}

/// A message with a body of `len` bytes that depend on `seed`.
pub(crate) fn chunk(kind: u16, seed: u8, len: usize) -> Message {
    let body: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
    Message { kind, head: Bytes::from(vec![seed; 9]), body: body.into() }
}
