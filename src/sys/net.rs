//! The network as the transport sees it: dial an address, listen on one, and get byte streams.
//! Production uses tokio's TCP, the simulation turmoil's.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future with its type erased.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An ordered, reliable stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Waits for peers that dial.
pub trait Listener: Send + Sync {
    /// The next stream and the address it came from.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>>;

    /// The address that is listened on, with the port the system chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Dials and listens.
pub trait Net: Send + Sync + 'static {
    /// Opens a stream to `addr` with Nagle's algorithm off. It may wait for as long as the network
    /// lets it: the caller sets the deadline.
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// Listens on `addr`; `[::]` takes IPv4 too.
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// All addresses of `host:port`.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>>;
}
