//! Starts nodes in temporary directories and asks them things. Invariant: every wait ends, with a
//! panic that says what was waited for.

use p2pfs::core::membership;
use p2pfs::node::{Config, Error, OnProgress};
use p2pfs::sys::{Sink, Source, SourceChanged};
use p2pfs::wire::control::{Get, NodeState, Put, Range, Status, Stored, Target, Wait};
use p2pfs::{Node, id::FileHash};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for anything. Two slow cores run several tests at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directories of one test.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Settings of a node `name` of the user whose configuration directory is `user`, on a machine
    /// of its own.
    pub(crate) fn config(&self, name: &str, user: &str, bootstrap: &[SocketAddr]) -> Config {
        let mut config = Config::new(self.path(name), self.path(user));
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.bootstrap = bootstrap.iter().map(|at| (at.ip().to_string(), at.port())).collect();
        config.name = Some(name.to_owned());
        config.machine = *blake3::hash(name.as_bytes()).as_bytes().first_chunk().unwrap();
        config.capacity = Some(1 << 30);
        config.segment_len = 8 << 20;
        config.free_floor = 0;
        config.reconcile_every = Duration::from_secs(2);
        config.membership = membership::Config::default();
        config
    }

    /// Starts a node with those settings.
    pub(crate) async fn start(&self, name: &str, user: &str, bootstrap: &[SocketAddr]) -> Node {
        Node::start(self.config(name, user, bootstrap)).await.unwrap()
    }
}

/// Copies the swarm key from one configuration directory to another, as a person would.
pub(crate) fn copy_swarm_key(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("swarm.key"), to.join("swarm.key")).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(to.join("swarm.key"), private).unwrap();
}

/// Where a node listens.
pub(crate) fn addr(node: &Node) -> SocketAddr {
    node.identity().listen[0].parse().unwrap()
}

/// Waits until `done` gives something.
pub(crate) async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(value) = done().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited too long until {what}"))
}

/// Waits until the status of a node is as wanted.
pub(crate) async fn until_status(
    what: &str,
    node: &Node,
    wanted: impl Fn(&Status) -> bool,
) -> Status {
    until(what, async || node.status().ok().filter(&wanted)).await
}

/// Waits until a node is a member that sees `peers` others alive.
pub(crate) async fn until_met(node: &Node, peers: u32) {
    let met = |s: &Status| s.state == NodeState::Member && s.peers_alive == peers;
    until_status(&format!("{peers} peers are alive"), node, met).await;
}

struct Bytes {
    bytes: Vec<u8>,
    at: usize,
    /// How long the second half is in coming.
    pause: Duration,
}

impl Source for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at > self.bytes.len() / 2 {
            std::thread::sleep(std::mem::take(&mut self.pause));
        }
        let n = buf.len().min(self.bytes.len() - self.at);
        buf[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }

    fn rewind(&mut self) -> bool {
        self.at = 0;
        true
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        Ok(())
    }
}

#[derive(Default)]
struct Collected(Mutex<Vec<u8>>);

impl Sink for Collected {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut all = self.0.lock().unwrap();
        let end = usize::try_from(offset).unwrap() + bytes.len();
        let len = all.len().max(end);
        all.resize(len, 0);
        all[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn seekable(&self) -> bool {
        true
    }
}

fn quiet() -> OnProgress {
    Arc::new(|_, _| {})
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Puts bytes at a path, waiting for copies if asked.
pub(crate) async fn put(node: &Node, path: &str, bytes: &[u8], wait: Option<Wait>) -> Stored {
    let put = Put { path: Some(path.into()), wait, timeout_ms: Some(30_000), ..Put::default() };
    try_put(node, put, bytes).await.unwrap()
}

/// Puts bytes as `put` says.
pub(crate) async fn try_put(node: &Node, put: Put, bytes: &[u8]) -> Result<Stored, Error> {
    slow_put(node, put, bytes, Duration::ZERO).await
}

/// Puts bytes of which the second half comes so much later than the first one.
pub(crate) async fn slow_put(
    node: &Node,
    put: Put,
    bytes: &[u8],
    pause: Duration,
) -> Result<Stored, Error> {
    let source = Bytes { bytes: bytes.to_vec(), at: 0, pause };
    node.put(put, Box::new(source), quiet()).await
}

/// The bytes of a file, if the node can find and read it now.
pub(crate) async fn get_now(node: &Node, hash: FileHash) -> Option<Vec<u8>> {
    let sink = Arc::new(Collected::default());
    let (target, from) = (Target::Hash(hash), None);
    let get = Get { target, range: None, seekable: true, from };
    node.get(get, sink.clone(), quiet()).await.ok()?;
    Some(std::mem::take(&mut *sink.0.lock().unwrap()))
}

/// A range of a file that the node can read now.
pub(crate) async fn range(node: &Node, hash: FileHash, offset: u64, length: u64) -> Vec<u8> {
    let sink = Arc::new(Collected::default());
    let range = Some(Range::Span { start: offset, end: Some(offset + length) });
    let get = Get { target: Target::Hash(hash), range, seekable: true, from: None };
    node.get(get, sink.clone(), quiet()).await.unwrap();
    std::mem::take(&mut *sink.0.lock().unwrap())
}

/// The bytes of what is named so, or why they cannot be had.
pub(crate) async fn get_as(node: &Node, target: Target) -> Result<Vec<u8>, Error> {
    let sink = Arc::new(Collected::default());
    let get = Get { target, range: None, seekable: true, from: None };
    node.get(get, sink.clone(), quiet()).await?;
    Ok(std::mem::take(&mut *sink.0.lock().unwrap()))
}

/// The bytes of a file, once the node can find and read it.
pub(crate) async fn get(node: &Node, hash: FileHash) -> Vec<u8> {
    until("the file can be read", async || get_now(node, hash).await).await
}
