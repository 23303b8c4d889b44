//! What the system under a node does for it: its sockets. It runs as the host that turmoil knows,
//! and goes on while the node is paused: it answers who dials, and keeps what comes until its
//! buffers are full, as a kernel does for a stopped process. The node runs beside it in a runtime
//! of its own (`life`). Invariant: no byte gets from one node to another but through turmoil.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{DuplexStream, copy_bidirectional_with_sizes, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use turmoil::net::{TcpListener, TcpStream};

/// Bytes that wait in a socket, each way.
const BUFFER: usize = 64 << 10;
/// Connections that wait for a listener to take them.
const BACKLOG: usize = 64;

/// A stream and where it comes from.
pub(crate) type Incoming = (DuplexStream, SocketAddr);
/// The address that is listened on, and who dials it.
type Listening = (SocketAddr, mpsc::Receiver<Incoming>);

/// What a node wants of it.
pub(crate) enum Call {
    Dial(SocketAddr, oneshot::Sender<io::Result<DuplexStream>>),
    Listen(SocketAddr, oneshot::Sender<io::Result<Listening>>),
}

/// A node's way to its kernel.
#[derive(Clone)]
pub(crate) struct Kernel {
    calls: mpsc::UnboundedSender<Call>,
    names: Arc<BTreeMap<String, IpAddr>>,
}

impl Kernel {
    /// The way, and the end that [`run`] takes; `names` is what everybody resolves.
    pub(crate) fn new(
        names: Arc<BTreeMap<String, IpAddr>>,
    ) -> (Self, mpsc::UnboundedReceiver<Call>) {
        let (calls, taken) = mpsc::unbounded_channel();
        (Self { calls, names }, taken)
    }

    /// Dials.
    pub(crate) async fn dial(&self, addr: SocketAddr) -> io::Result<DuplexStream> {
        self.call(|answer| Call::Dial(addr, answer)).await
    }

    /// Listens.
    pub(crate) async fn listen(&self, addr: SocketAddr) -> io::Result<Listening> {
        self.call(|answer| Call::Listen(addr, answer)).await
    }

    /// The address that a machine's name stands for.
    pub(crate) fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.names.get(name).copied()
    }

    async fn call<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Call,
    ) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        let off = |()| io::Error::from(io::ErrorKind::NetworkDown);
        self.calls.send(call(answer)).map_err(drop).map_err(off)?;
        answered.await.map_err(drop).map_err(off)?
    }
}

/// Serves one life, until the node's end is gone.
pub(crate) async fn run(mut calls: mpsc::UnboundedReceiver<Call>) -> turmoil::Result {
    while let Some(call) = calls.recv().await {
        match call {
            Call::Dial(addr, answer) => drop(spawn_local(dial(addr, answer))),
            Call::Listen(addr, answer) => drop(spawn_local(listen(addr, answer))),
        }
    }
    Ok(())
}

async fn dial(addr: SocketAddr, mut answer: oneshot::Sender<io::Result<DuplexStream>>) {
    let dialled = tokio::select! {
        biased;
        dialled = TcpStream::connect(addr) => dialled,
        () = answer.closed() => return,
    };
    // Who gives up waiting drops the connection.
    _ = answer.send(dialled.map(carry));
}

async fn listen(addr: SocketAddr, answer: oneshot::Sender<io::Result<Listening>>) {
    let listener = match TcpListener::bind(addr).await {
        Ok(listener) => listener,
        Err(err) => return drop(answer.send(Err(err))),
    };
    let (incoming, taken) = mpsc::channel(BACKLOG);
    if answer.send(listener.local_addr().map(|addr| (addr, taken))).is_err() {
        return;
    }
    loop {
        tokio::select! {
            biased;
            () = incoming.closed() => return,
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else { return };
                // One too many is reset.
                _ = incoming.try_send((carry(stream), from));
            }
        }
    }
}

/// The node's end of a connection.
fn carry(mut stream: TcpStream) -> DuplexStream {
    let (near, mut far) = duplex(BUFFER);
    spawn_local(async move {
        // However it ends, both sides see the end.
        _ = copy_bidirectional_with_sizes(&mut stream, &mut far, BUFFER, BUFFER).await;
    });
    near
}
