//! One connection: a task that reads, a task that writes, and what is under way between them. It
//! matches answers to requests, bounds both directions, and closes in order; which connection is
//! used for what, and when it closes, is `pool`'s matter.
//!
//! Invariant: at most [`IN_FLIGHT`] requests are under way in each direction. A request that its
//! caller gave up still counts until it is answered, so an honest peer never finds its requests
//! unread because of ours, and the reader never has to wait for a slot that depends on the reader.
//!
//! Closing: each side sends BYE after its last request. When both have, and everything is answered
//! and written, the connection closes; so nothing is lost by a close that crosses a request.

use super::error::{Ended, RequestError};
use super::framing::{Broken, STEP, fill, read_header, unstalled};
use super::handler::{ConnectionStats, LinkEvent, Message};
use super::outbox::Outbox;
use super::pace::Way;
use super::traffic::Meter;
use super::{Buffers, PooledBuf, Shared};
use crate::id::NodeId;
use crate::sys::ByteStream;
use crate::wire::codec::{Decode, Encode};
use crate::wire::frame::{FIRST_MESSAGE, HEADER_LEN, Header, Limits, Refusal, Role, kind};
use crate::wire::hello::{Hello, Lane, Refuse};
use bytes::{Buf, Bytes};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;

/// Requests under way on one connection, in each direction (DESIGN 4, threat T6).
pub(super) const IN_FLIGHT: usize = 64;
/// The same for a stranger: it asks one thing at a time.
const STRANGER_IN_FLIGHT: usize = 4;
/// Longest encoded frames that the writer keeps memory for between two writes.
const SCRATCH_KEPT: usize = 4 << 10;
/// Memory for bytes that nobody wants.
const SKIPPED_AT_ONCE: usize = 16 << 10;
/// How often a peer is told that it is read slowly on purpose.
const READING_SLOWLY_MS: u64 = 500;
/// That nothing has happened yet.
const NEVER: u64 = u64::MAX;

type Answer = oneshot::Sender<Result<Message, Refusal>>;
type Reader = ReadHalf<Box<dyn ByteStream>>;
type Writer = WriteHalf<Box<dyn ByteStream>>;

/// What is known of a peer when its connection begins.
pub(super) struct Greeted {
    pub(super) stream: Box<dyn ByteStream>,
    pub(super) peer: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) dialled: bool,
    pub(super) stranger: bool,
    pub(super) hello: Hello,
    pub(super) slot: OwnedSemaphorePermit,
}

pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) peer: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) lane: Lane,
    pub(super) dialled: bool,
    pub(super) stranger: bool,
    pub(super) hello: Hello,
    opened: Instant,
    outbox: Outbox,
    calls: Mutex<Calls>,
    allowed: Arc<Semaphore>,
    serving: Arc<Semaphore>,
    serving_max: usize,
    phase: watch::Sender<Phase>,
    sent: AtomicU64,
    received: AtomicU64,
    meter: Meter,
    /// Whether the peer was asked for a sign of life and has not given one.
    asked: AtomicBool,
    /// Milliseconds after `opened` of the last bytes of a message that came, or of a body that the
    /// peer took; and of when it was told last that its bytes are taken slowly.
    moved: AtomicU64,
    told: AtomicU64,
    /// Milliseconds after `opened` of the last message either way, of the last frame that came, and
    /// of the moment since which there is something to wait for.
    active: AtomicU64,
    heard: AtomicU64,
    waiting: AtomicU64,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
enum Phase {
    Open,
    /// We have said BYE; perhaps the peer has too.
    Leaving {
        since: Instant,
        both: bool,
    },
    Ended(Ended),
}

#[derive(Default)]
struct Calls {
    last: u32,
    ended: bool,
    open: BTreeMap<u32, Call>,
}

/// A request that we sent: who waits for the answer, if anybody still does.
struct Call {
    answer: Option<Answer>,
    _permit: OwnedSemaphorePermit,
}

/// Why a call has no response.
pub(super) enum CallError {
    /// The connection takes no more requests; here is the message again.
    Unsent(Message),
    /// It failed for the caller.
    Failed(RequestError),
}

/// Gives the call up when its future is dropped.
struct Waiting<'a> {
    conn: &'a Connection,
    request: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut calls = self.conn.calls();
        if self.conn.outbox.take_back(self.request) {
            calls.open.remove(&self.request);
        } else if let Some(call) = calls.open.get_mut(&self.request) {
            call.answer = None;
        }
    }
}

impl Connection {
    /// Makes the connection and the stream that [`Connection::start`] will run on.
    pub(super) fn new(
        number: u64,
        greeted: Greeted,
        meter: Meter,
    ) -> (Arc<Self>, Box<dyn ByteStream>) {
        let Greeted { stream, peer, addr, dialled, stranger, hello, slot } = greeted;
        let serving_max = if stranger { STRANGER_IN_FLIGHT } else { IN_FLIGHT };
        let connection = Self {
            number,
            peer,
            addr,
            lane: hello.lane,
            dialled,
            stranger,
            hello,
            opened: Instant::now(),
            outbox: Outbox::default(),
            calls: Mutex::default(),
            allowed: Arc::new(Semaphore::new(IN_FLIGHT)),
            serving: Arc::new(Semaphore::new(serving_max)),
            serving_max,
            phase: watch::Sender::new(Phase::Open),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            meter,
            asked: AtomicBool::new(false),
            moved: AtomicU64::new(NEVER),
            told: AtomicU64::new(0),
            active: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            _slot: slot,
        };
        (Arc::new(connection), stream)
    }

    /// Starts both tasks. They end with the connection and tell the pool.
    pub(super) fn start(self: &Arc<Self>, shared: &Arc<Shared>, stream: Box<dyn ByteStream>) {
        let (mut read, mut write) = tokio::io::split(stream);
        let conn = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = conn.ended() => {}
                how = conn.write_all(&mut write) => conn.end(how),
            }
        });
        let conn = Arc::clone(self);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let how = tokio::select! {
                biased;
                how = conn.ended() => how,
                how = conn.read_all(&shared, &mut read) => how,
            };
            tracing::debug!(peer = %conn.peer.short(), lane = ?conn.lane, ?how, "connection ended");
            conn.end(how.clone());
            shared.pool.forget(&shared, &conn, &how);
        });
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sends a request and waits for its response. Dropping the future gives the request up.
    pub(super) async fn call(&self, message: Message) -> Result<Message, CallError> {
        // The semaphore closes when the connection takes no more requests.
        let Ok(permit) = Arc::clone(&self.allowed).acquire_owned().await else {
            return Err(CallError::Unsent(message));
        };
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut calls = self.calls();
            if calls.ended || self.allowed.is_closed() {
                return Err(CallError::Unsent(message));
            }
            if calls.open.is_empty() {
                self.waiting.store(self.now_ms(), Relaxed);
            }
            let call = Call { answer: Some(answer), _permit: permit };
            let request = calls.add(call);
            // Pushed under the lock: a BYE that follows is then behind the request.
            self.outbox.push(Role::Request, request, message);
            request
        };
        let _waiting = Waiting { conn: self, request };
        match answered.await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(refusal)) => Err(CallError::Failed(refusal.into())),
            Err(_) => Err(CallError::Failed(RequestError::Lost)),
        }
    }

    /// Queues a one-way message.
    pub(super) fn notify(&self, message: Message) {
        self.outbox.push_notify(message);
    }

    /// Asks the peer for a sign of life.
    pub(super) fn probe(&self) {
        self.asked.store(true, Relaxed);
        self.tell(kind::PING);
    }

    /// Queues a frame of the transport's own.
    pub(super) fn tell(&self, kind: u16) {
        self.outbox.push_own(kind, Bytes::new());
    }

    /// Starts no more requests here and closes once everything is answered on both sides.
    pub(super) fn leave(&self) {
        self.phase.send_if_modified(|phase| {
            let open = matches!(phase, Phase::Open);
            if open {
                *phase = Phase::Leaving { since: Instant::now(), both: false };
                let _calls = self.calls();
                self.allowed.close();
                self.tell(kind::BYE);
            }
            open
        });
    }

    /// Tells the peer that it is not welcome any more; it closes when it has read that.
    pub(super) fn refuse(&self, refuse: &Refuse) {
        self.outbox.push_own(kind::REFUSE, refuse.to_bytes().into());
        self.leave();
    }

    /// Ends the connection at once. The first reason counts.
    pub(super) fn end(&self, how: Ended) {
        self.phase.send_if_modified(|phase| {
            let first = !matches!(phase, Phase::Ended(_));
            if first {
                *phase = Phase::Ended(how);
            }
            first
        });
        self.allowed.close();
        let mut calls = self.calls();
        calls.ended = true;
        calls.open.clear();
    }

    /// Waits for the end.
    async fn ended(&self) -> Ended {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await;
        match ended.as_deref() {
            Ok(Phase::Ended(how)) => how.clone(),
            _ => Ended::Lost("the connection is gone"),
        }
    }

    /// Whether it takes requests.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Open)
    }

    /// How long it has been closing.
    pub(super) fn leaving_for(&self) -> Option<Duration> {
        match *self.phase.borrow() {
            Phase::Leaving { since, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// Requests under way, both directions together.
    pub(super) fn in_flight(&self) -> usize {
        self.calls().open.len() + self.serving_max - self.serving.available_permits()
    }

    /// Since the last message either way.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.active.load(Relaxed)))
    }

    /// For how long an answer has been due without a sign of life; zero when none is.
    pub(super) fn silent(&self) -> Duration {
        if self.calls().open.is_empty() {
            return Duration::ZERO;
        }
        let since = self.heard.load(Relaxed).max(self.waiting.load(Relaxed));
        Duration::from_millis(self.now_ms().saturating_sub(since))
    }

    /// Since bytes of a message came, or the peer took bytes of a body; none: never yet.
    pub(super) fn still(&self) -> Option<Duration> {
        let moved = Some(self.moved.load(Relaxed)).filter(|moved| *moved != NEVER)?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(moved)))
    }

    fn moves(&self) {
        self.moved.store(self.now_ms(), Relaxed);
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            peer: self.peer,
            addr: self.addr,
            lane: self.lane,
            dialled: self.dialled,
            stranger: self.stranger,
            age: self.opened.elapsed(),
            idle: self.idle(),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            in_flight: self.in_flight() as u32,
        }
    }

    pub(super) fn up(&self) -> LinkEvent {
        LinkEvent::Up {
            peer: self.peer,
            dialled: self.dialled,
            addr: self.addr,
            observed: self.hello.observed,
            stranger: self.stranger,
        }
    }

    /// Where the peer may be dialled, as far as this connection tells.
    pub(super) fn reach(&self) -> Vec<SocketAddr> {
        if self.dialled {
            return vec![self.addr];
        }
        let intro = &self.hello.intro;
        let mut addrs = intro.addrs.clone();
        if intro.port != 0 {
            addrs.insert(0, SocketAddr::new(self.addr.ip(), intro.port));
        }
        addrs
    }

    const fn limits(&self) -> Limits {
        match (self.stranger, self.lane) {
            (true, _) => Limits::STRANGER,
            (false, Lane::Control) => Limits::CONTROL,
            (false, Lane::Bulk) => Limits::BULK,
        }
    }

    // ---- writing ----

    /// Writes what is queued until the connection has closed in order or broken.
    async fn write_all(&self, to: &mut Writer) -> Ended {
        let mut frames = Vec::new();
        loop {
            let done = match self.outbox.gather(&mut frames) {
                Some(body) => self.write(to, &frames, body).await,
                None => unstalled(to.flush()).await,
            };
            if let Err(broken) = done {
                return broken.into();
            }
            frames.shrink_to(SCRATCH_KEPT);
            if !self.outbox.is_empty() {
                continue;
            }
            if self.is_finished() {
                // The peer may be gone already: it closes by the same rule.
                let _gone = unstalled(to.shutdown()).await;
                return Ended::Closed;
            }
            if frames.is_empty() {
                self.outbox.filled().await;
            }
        }
    }

    /// Writes small frames and the body after them, straight from where they lie, as fast as the
    /// limits let it.
    async fn write(&self, to: &mut Writer, frames: &[u8], body: Bytes) -> Result<(), Broken> {
        let has_body = body.has_remaining();
        let mut rest = frames.chain(body);
        while rest.has_remaining() {
            let wrote = match self.meter.piece(Way::Up).map(|len| len.min(rest.remaining())) {
                None => unstalled(to.write_buf(&mut rest)).await?,
                Some(len) => {
                    // What was written before must be with the peer while this one waits.
                    unstalled(to.flush()).await?;
                    self.meter.wait(Way::Up, len).await;
                    let mut piece = (&mut rest).take(len);
                    while piece.has_remaining() {
                        unstalled(to.write_buf(&mut piece)).await?;
                    }
                    len
                }
            };
            self.sent.fetch_add(wrote as u64, Relaxed);
            self.meter.count(Way::Up, wrote);
            // A few bytes go into a socket whose other end is dead.
            if has_body {
                self.moves();
            }
        }
        Ok(())
    }

    /// Whether both sides said BYE and everything is answered and written.
    fn is_finished(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Leaving { both: true, .. })
            && self.in_flight() == 0
            && self.outbox.is_empty()
    }

    // ---- reading ----

    async fn read_all(self: &Arc<Self>, shared: &Arc<Shared>, from: &mut Reader) -> Ended {
        loop {
            if let Err(how) = self.read_frame(shared, from).await {
                return how;
            }
        }
    }

    async fn read_frame(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        from: &mut Reader,
    ) -> Result<(), Ended> {
        let header = match read_header(from, &self.limits()).await {
            Ok(header) => header,
            Err(Broken::Eof) if !self.is_open() => return Err(Ended::Closed),
            Err(broken) => return Err(broken.into()),
        };
        let now = self.now_ms();
        self.heard.store(now, Relaxed);
        self.came(HEADER_LEN);
        if header.kind < FIRST_MESSAGE {
            return self.read_own(shared, header, from).await;
        }
        self.active.store(now, Relaxed);
        match header.role {
            Role::Request => self.read_request(shared, header, from).await,
            Role::Response | Role::Error => self.read_answer(shared, header, from).await,
            Role::Notify if self.stranger => {
                self.skip(from, header.content_len()).await.map_err(Into::into)
            }
            Role::Notify => {
                let buffers = shared.memory.requests(self.lane);
                let message = self.read_message(header, from, buffers).await?;
                shared.handler.notify(self.peer, message);
                Ok(())
            }
        }
    }

    /// A frame of the transport's own.
    async fn read_own(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        header: Header,
        from: &mut Reader,
    ) -> Result<(), Ended> {
        if header.content_len() > Limits::GREETING.head || header.role != Role::Notify {
            return Err(Ended::Lost("the peer sent what is not a frame"));
        }
        let mut head = vec![0; header.content_len()];
        fill(from, &mut head).await?;
        self.came(head.len());
        match header.kind {
            kind::PING => self.tell(kind::PONG),
            // Unasked it says that the peer takes our bytes, only slowly, if there are any.
            kind::PONG if !self.asked.swap(false, Relaxed) => {
                if !self.calls().open.is_empty() {
                    self.moves();
                }
            }
            kind::PONG => {}
            kind::BYE => {
                shared.pool.leave(shared, self);
                self.phase.send_modify(|phase| {
                    if let Phase::Leaving { both, .. } = phase {
                        *both = true;
                    }
                });
                self.outbox.wake();
            }
            kind::REFUSE => {
                let refuse = Refuse::from_bytes(&head);
                let nonsense = |_| Ended::Lost("the peer sent a malformed refusal");
                return Err(refuse.map_or_else(nonsense, Ended::Refused));
            }
            kind::CALL_BACK if !self.stranger && self.lane == Lane::Control => {
                shared.call_back(self);
            }
            _ => return Err(Ended::Lost("the peer sent a frame out of place")),
        }
        Ok(())
    }

    async fn read_request(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        header: Header,
        from: &mut Reader,
    ) -> Result<(), Ended> {
        let Ok(permit) = Arc::clone(&self.serving).acquire_owned().await else {
            return Err(Ended::Lost("the connection is gone"));
        };
        if self.stranger && !shared.handler.stranger_kinds().contains(&header.kind) {
            self.skip(from, header.content_len()).await?;
            let text = "only members may ask this".into();
            let refusal = Refusal { code: Refusal::NOT_A_MEMBER, text };
            self.outbox.push_refusal(header.kind, header.request, &refusal);
            return Ok(());
        }
        let message = self.read_message(header, from, shared.memory.requests(self.lane)).await?;
        let work = shared.handler.serve(self.peer, self.lane, message);
        let conn = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = conn.ended() => {}
                done = work => conn.answer(header, done),
            }
            drop(permit);
            conn.outbox.wake();
        });
        Ok(())
    }

    fn answer(&self, header: Header, done: Result<Message, Refusal>) {
        let too_large =
            || Refusal { code: Refusal::TOO_LARGE, text: "the answer is too large".into() };
        let done = done.and_then(|message| {
            let fits = Limits::BULK.fits(message.kind, message.head.len(), message.body.len())
                && (self.lane == Lane::Bulk || message.body.is_empty());
            if fits { Ok(message) } else { Err(too_large()) }
        });
        self.active.store(self.now_ms(), Relaxed);
        match done {
            Ok(message) => self.outbox.push(Role::Response, header.request, message),
            Err(refusal) => self.outbox.push_refusal(header.kind, header.request, &refusal),
        }
    }

    async fn read_answer(
        &self,
        shared: &Shared,
        header: Header,
        from: &mut Reader,
    ) -> Result<(), Ended> {
        // The call stays in the list until its answer is read: the connection must not close yet.
        let wanted = match self.calls().open.get_mut(&header.request) {
            Some(call) => call.answer.take(),
            None => return Err(Ended::Lost("the peer answered what nobody asked")),
        };
        let read = match wanted.filter(|answer| !answer.is_closed()) {
            None => self.skip(from, header.content_len()).await.map_err(Into::into),
            Some(answer) => {
                let buffers = shared.memory.responses(self.lane);
                let message = self.read_message(header, from, buffers).await?;
                deliver(header.role, message, answer)
            }
        };
        self.calls().open.remove(&header.request);
        self.outbox.wake();
        read
    }

    /// Reads head and body into one buffer, as soon as the budget has room for it.
    async fn read_message(
        &self,
        header: Header,
        from: &mut Reader,
        buffers: &Buffers,
    ) -> Result<Message, Ended> {
        let mut content = Bytes::new();
        if header.content_len() > 0 {
            let mut buffer = self.room(buffers, header.content_len()).await;
            self.take_in(from, &mut buffer).await?;
            content = buffer.freeze();
        }
        let head = content.split_to(header.head_len as usize);
        Ok(Message { kind: header.kind, head, body: content })
    }
}

impl Connection {
    /// Waits for memory. That takes long when what others send waits for a limit here; the peer has
    /// no part in it.
    async fn room(&self, buffers: &Buffers, len: usize) -> PooledBuf {
        let mut taken = pin!(buffers.take(self.peer, len));
        loop {
            tokio::select! {
                biased;
                buffer = &mut taken => return buffer,
                () = tokio::time::sleep(Duration::from_millis(READING_SLOWLY_MS)) => {
                    self.tell_slow();
                    self.moves();
                    self.heard.store(self.moved.load(Relaxed), Relaxed);
                }
            }
        }
    }

    /// Fills `buf` with what comes, as fast as the limits let it.
    async fn take_in(&self, from: &mut Reader, buf: &mut [u8]) -> Result<(), Broken> {
        let mut rest = buf;
        while !rest.is_empty() {
            let paced = self.meter.piece(Way::Down);
            let (step, more) = rest.split_at_mut(paced.unwrap_or(STEP).min(rest.len()));
            if paced.is_some() && self.meter.wait(Way::Down, step.len()).await {
                self.tell_slow();
            }
            fill(from, step).await?;
            self.came(step.len());
            self.moves();
            self.heard.store(self.moved.load(Relaxed), Relaxed);
            rest = more;
        }
        Ok(())
    }

    /// Reads `len` bytes that nobody wants.
    async fn skip(&self, from: &mut Reader, mut len: usize) -> Result<(), Broken> {
        let mut scratch = vec![0; len.min(SKIPPED_AT_ONCE)];
        while len > 0 {
            let now = len.min(scratch.len());
            self.take_in(from, &mut scratch[..now]).await?;
            len -= now;
        }
        Ok(())
    }

    fn came(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
        self.meter.count(Way::Down, bytes);
    }

    /// Tells the peer now and then that its bytes are taken, and slowly because of a limit here: it
    /// sees only that its socket is full.
    fn tell_slow(&self) {
        let now = self.now_ms();
        if now.saturating_sub(self.told.load(Relaxed)) >= READING_SLOWLY_MS {
            self.told.store(now, Relaxed);
            self.tell(kind::PONG);
        }
    }
}

/// Hands an answer over. The caller may have gone meanwhile; then nobody misses it.
fn deliver(role: Role, message: Message, to: Answer) -> Result<(), Ended> {
    let nonsense = |_| Ended::Lost("the peer sent a malformed refusal");
    let answer = match role {
        Role::Error => Err(Refusal::from_bytes(&message.head).map_err(nonsense)?),
        _ => Ok(message),
    };
    let _gone = to.send(answer);
    Ok(())
}

impl Calls {
    fn add(&mut self, call: Call) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.open.contains_key(&self.last) {
                self.open.insert(self.last, call);
                return self.last;
            }
        }
    }
}
