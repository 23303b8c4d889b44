//! The network and the clock of a simulated machine. The network is turmoil's; everything that it
//! delivers goes into the history as it is read. The clock reads turmoil's virtual time.

use crate::history::History;
use crate::turmoil_net::TurmoilNet;
use p2pfs::sys::{BoxFuture, ByteStream, Clock, Listener, Net, Time};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 2026-11-01, when all simulations begin.
const BEGIN_MS: u64 = 1_793_491_200_000;

/// Virtual time since the simulation began, as seen from inside a machine.
pub(crate) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A machine's clocks; its wall clock may be wrong.
pub(crate) struct VirtualClock {
    /// By how much it is ahead, in milliseconds.
    pub(crate) ahead_ms: u64,
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        // As in production: a little earlier than the start is still a time.
        Time(1_000_000) + elapsed()
    }

    fn wall_ms(&self) -> u64 {
        BEGIN_MS + self.ahead_ms + u64::try_from(elapsed().as_millis()).unwrap()
    }
}

/// The network of the machine that the caller runs in.
pub(crate) struct TappedNet {
    /// Where deliveries are noted.
    pub(crate) history: History,
    /// Who reads here.
    pub(crate) name: String,
    /// Whether the bytes themselves count; those of TLS differ from run to run.
    pub(crate) bytes_count: bool,
}

impl TappedNet {
    fn tap(&self, stream: Box<dyn ByteStream>, from: SocketAddr) -> Box<dyn ByteStream> {
        Box::new(Tap {
            inner: stream,
            history: self.history.clone(),
            way: format!("{from} > {}", self.name),
            bytes_count: self.bytes_count,
        })
    }
}

impl Net for TappedNet {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move { Ok(self.tap(TurmoilNet.dial(addr).await?, addr)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let Self { history, name, bytes_count } = self;
        let net = Self { history: history.clone(), name: name.clone(), bytes_count: *bytes_count };
        Box::pin(async move {
            let inner = TurmoilNet.listen(addr).await?;
            Ok(Box::new(TappedListener { inner, net }) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        TurmoilNet.resolve(host, port)
    }
}

struct TappedListener {
    inner: Box<dyn Listener>,
    net: TappedNet,
}

impl Listener for TappedListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.inner.accept().await?;
            Ok((self.net.tap(stream, from), from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

struct Tap {
    inner: Box<dyn ByteStream>,
    history: History,
    way: String,
    bytes_count: bool,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        if done.is_ready() {
            let fresh = &buf.filled()[before..];
            let bytes = if self.bytes_count { fresh } else { &[] };
            self.history.delivered(elapsed(), &self.way, fresh.len(), bytes);
        }
        done
    }
}

impl AsyncWrite for Tap {
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
