//! The network and the clocks of a simulated machine. The network is turmoil's; everything that it
//! delivers goes into the history as it is read. The clocks follow the runtime that the node runs
//! in: while the node is paused they stand, and then they jump.

use crate::checks::memory::Books;
use crate::checks::plaintext::Secrets;
use crate::evil::{Liar, PREFACE};
use crate::history::History;
use crate::joins::MOVED;
use crate::kernel::{Incoming, Kernel};
use p2pfs::sys::{BoxFuture, ByteStream, Clock, Listener, Net, Time};
use p2pfs::wire::frame::{HEADER_LEN, Header, Limits, Parsed, Role};
use p2pfs::wire::message::kind;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// 2026-11-01, when all simulations begin.
const BEGIN_MS: i64 = 1_793_491_200_000;

/// A machine's clocks during one life; its wall clock may be wrong.
pub(crate) struct VirtualClock {
    /// When the life began, in virtual time.
    began: Duration,
    origin: Instant,
    /// By how much the wall clock is ahead, in milliseconds.
    ahead_ms: Arc<AtomicI64>,
}

impl VirtualClock {
    /// The clocks of a life that begins now, in the runtime that this is called in.
    pub(crate) fn new(began: Duration, ahead_ms: Arc<AtomicI64>) -> Self {
        Self { began, origin: Instant::now(), ahead_ms }
    }

    /// Virtual time since the simulation began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began + (Instant::now() - self.origin)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        // As in production: a little earlier than the start is still a time.
        Time(1_000_000) + self.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let passed = i64::try_from(self.elapsed().as_millis()).unwrap();
        u64::try_from(BEGIN_MS + self.ahead_ms.load(Ordering::Relaxed) + passed).unwrap()
    }
}

/// The network of a machine.
#[derive(Clone)]
pub(crate) struct TappedNet {
    pub(crate) kernel: Kernel,
    /// Where deliveries are noted.
    pub(crate) history: History,
    pub(crate) clock: Arc<VirtualClock>,
    /// Who reads here.
    pub(crate) name: String,
    /// Whether the bytes themselves count; those of TLS differ from run to run.
    pub(crate) bytes_count: bool,
    /// Who lies to the others in the node's name.
    pub(crate) liar: Option<Liar>,
    /// What must not be among what is delivered.
    pub(crate) secrets: Secrets,
}

impl TappedNet {
    fn tap(&self, stream: DuplexStream, from: SocketAddr) -> Box<dyn ByteStream> {
        let (net, way) = (self.clone(), format!("{from} > {}", self.name));
        match &self.liar {
            Some(liar) => Box::new(Tap::new(liar.between(stream), net, way)),
            None => Box::new(Tap::new(stream, net, way)),
        }
    }
}

impl Net for TappedNet {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move { Ok(self.tap(self.kernel.dial(addr).await?, addr)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (addr, incoming) = self.kernel.listen(addr).await?;
            let (incoming, net) = (Mutex::new(incoming), self.clone());
            Ok(Box::new(TappedListener { incoming, addr, net }) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        let addr = self.kernel.resolve(host).map(|ip| SocketAddr::new(ip, port));
        Box::pin(async move { addr.map(|addr| vec![addr]).ok_or(io::ErrorKind::NotFound.into()) })
    }
}

struct TappedListener {
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    addr: SocketAddr,
    net: TappedNet,
}

impl Listener for TappedListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let taken = self.incoming.lock().await.recv().await;
            let (stream, from) = taken.ok_or(io::ErrorKind::NetworkDown)?;
            Ok((self.net.tap(stream, from), from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

struct Tap<S> {
    inner: S,
    net: TappedNet,
    way: String,
    /// The last bytes that came.
    last: Vec<u8>,
    frames: Frames,
}

/// Follows the frames of a stream without TLS, to count the chunks that are sent to be kept.
struct Frames {
    /// Bytes before the next header.
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    /// The bytes of chunks in requests to keep them whose headers end in `bytes`.
    fn follow(&mut self, mut bytes: &[u8]) -> u64 {
        let mut stored = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let more = (HEADER_LEN - self.head.len()).min(bytes.len() - skipped);
            self.head.extend_from_slice(&bytes[skipped..skipped + more]);
            bytes = &bytes[skipped + more..];
            if self.head.len() < HEADER_LEN {
                continue;
            }
            let Ok(Parsed::Header(header)) = Header::parse(&self.head, &Limits::BULK) else {
                // Nothing that follows means anything.
                self.skip = usize::MAX;
                return stored;
            };
            if (header.kind, header.role) == (kind::STORE, Role::Request) {
                stored += u64::from(header.body_len);
            }
            self.head.clear();
            self.skip = header.content_len();
        }
        stored
    }
}

impl<S> Tap<S> {
    fn new(inner: S, net: TappedNet, way: String) -> Self {
        let frames = Frames { skip: PREFACE, head: Vec::new() };
        Self { inner, net, way, last: Vec::new(), frames }
    }

    /// Bytes were delivered.
    fn delivered(&mut self, fresh: &[u8]) {
        let _aside = Books::aside();
        let TappedNet { history, clock, bytes_count, secrets, .. } = &self.net;
        let bytes = if *bytes_count { fresh } else { &[] };
        match self.frames.follow(bytes) {
            0 => {}
            stored => history.add(MOVED, stored),
        }
        history.delivered(clock.elapsed(), &self.way, fresh.len(), bytes);
        self.last.extend_from_slice(fresh);
        if let Some(what) = secrets.find(&self.last) {
            let wrong = format!("I10: {what} in what came {}", self.way);
            history.violation(clock.elapsed(), wrong);
        }
        self.last.drain(..self.last.len().saturating_sub(Secrets::overlap()));
    }
}

impl<S: ByteStream> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        if done.is_ready() {
            self.delivered(&buf.filled()[before..]);
        }
        done
    }
}

impl<S: ByteStream> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
