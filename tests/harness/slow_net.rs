//! The network of a node behind a long line: all that it sends and gets over any connection is
//! under way for so long, however much of it there is at once. Bytes are neither lost nor
//! reordered.

use p2pfs::sys::os::OsNet;
use p2pfs::sys::{BoxFuture, ByteStream, Listener, Net};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Pieces under way each way: 16 MiB, far more than a line of this length carries in a test.
const UNDER_WAY: usize = 256;

/// A network with a delay each way.
pub(crate) struct SlowNet(pub(crate) Duration);

struct SlowListener(Box<dyn Listener>, Duration);

/// The same stream, later.
fn slow(stream: Box<dyn ByteStream>, delay: Duration) -> Box<dyn ByteStream> {
    let (near, far) = tokio::io::duplex(PIECE);
    let (read, write) = tokio::io::split(stream);
    let (far_read, far_write) = tokio::io::split(far);
    carry(read, far_write, delay);
    carry(far_read, write, delay);
    Box::new(near) as Box<dyn ByteStream>
}

/// Moves what comes to the other end, each piece when its time has come.
fn carry<R, W>(mut from: ReadHalf<R>, mut to: WriteHalf<W>, delay: Duration)
where
    ReadHalf<R>: tokio::io::AsyncRead + Send + Unpin + 'static,
    WriteHalf<W>: tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (send, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(len) if len > 0 => piece.truncate(len),
                // The end, or as good as that.
                _ => return,
            }
            if send.send((Instant::now() + delay, piece)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        // Whoever is at the other end may have gone before.
        to.shutdown().await.ok();
    });
}

impl Listener for SlowListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((slow(stream, self.1), from))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Net for SlowNet {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move { Ok(slow(OsNet.dial(addr).await?, self.0)) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener: Box<dyn Listener> =
                Box::new(SlowListener(OsNet.listen(addr).await?, self.0));
            Ok(listener)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { OsNet.resolve(&host, port).await })
    }
}
