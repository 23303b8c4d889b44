//! A directory of its own for each test, the executable in it, and a shelf: a service that keeps
//! files in memory behind the real control socket.

pub(crate) use crate::said::Said;
use p2pfs::gateway::control::{ControlSocket, Outbox, Service};
use p2pfs::id::{FileHash, NodeId};
use p2pfs::sys::BoxFuture;
use p2pfs::wire::control::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// A directory in which commands run.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "data")
            .collect();
        names.sort();
        names
    }

    /// The executable, in this directory, with nothing of the person's own settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pfs"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("P2PFS_DATA_DIR", "data")
            .env("P2PFS_CONFIG_DIR", "config");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }
}

/// One stored file.
struct Kept {
    hash: FileHash,
    path: Option<PathText>,
    bytes: Vec<u8>,
    mode: Option<u32>,
}

/// Keeps files in memory. A path that contains `hang` is never finished.
#[derive(Default)]
pub(crate) struct Shelf {
    files: Mutex<Vec<Kept>>,
    /// Calls that were dropped before their end.
    pub(crate) cancelled: AtomicUsize,
    /// Calls under way that will never end.
    pub(crate) hanging: AtomicUsize,
}

/// Counts a call that is dropped.
struct Hanging(Arc<Shelf>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

fn node(byte: u8) -> NodeId {
    NodeId([byte; 32])
}

fn failure(code: Code, message: &str) -> Failure {
    Failure::new(code, message)
}

fn json<T: serde::Serialize>(value: T) -> Result<serde_json::Value, Failure> {
    Ok(serde_json::to_value(value).unwrap())
}

impl Shelf {
    fn put(&self, put: Put, bytes: Vec<u8>) -> Result<serde_json::Value, Failure> {
        if put.len.is_some_and(|len| len != bytes.len() as u64) {
            return Err(failure(Code::Conflict, "the file changed while it was read"));
        }
        let hash = FileHash(*blake3::hash(&bytes).as_bytes());
        let size = bytes.len() as u64;
        let kept = Kept { hash, path: put.path.clone(), bytes, mode: put.mode };
        self.files.lock().unwrap().push(kept);
        json(Stored {
            hash,
            size,
            path: put.path,
            copies: 1,
            replicas: put.replicas.unwrap_or(3),
            machines: 1,
            holders: vec!["me".into()],
            new_bytes: size,
            nodes_with_room: 1,
            took_ms: 310,
            wait_met: put.wait.is_none(),
        })
    }

    fn info(kept: &Kept) -> FileInfo {
        FileInfo {
            path: kept.path.clone().unwrap_or_else(|| "/".into()),
            kind: FileKind::File,
            hash: Some(kept.hash),
            size: kept.bytes.len() as u64,
            time_ms: 0,
            by: "me".into(),
            replicas: 3,
            copies: Some(1),
            mode: kept.mode,
            mtime_ns: None,
            target: None,
            conflict: false,
            tags: Vec::new(),
        }
    }

    fn find<T>(&self, target: &Target, then: impl FnOnce(&Kept) -> T) -> Result<T, Failure> {
        let files = self.files.lock().unwrap();
        let found = files.iter().rev().find(|kept| match target {
            Target::Hash(hash) => kept.hash == *hash,
            Target::Link(link) => kept.hash == link.hash,
            Target::Prefix(prefix) => kept.hash.to_string().starts_with(prefix),
            Target::Path(path) => kept.path.as_ref() == Some(path),
            Target::Share { .. } => false,
        });
        found.map(then).ok_or_else(|| failure(Code::NotFound, "no such file in this swarm"))
    }

    fn get(&self, get: &Get, fd: OwnedFd) -> Result<serde_json::Value, Failure> {
        let (kept, mode) =
            self.find(&get.target, |kept| ((kept.hash, kept.bytes.clone()), kept.mode))?;
        let (hash, bytes) = kept;
        let size = bytes.len() as u64;
        let (start, end) = match get.range {
            None => (0, size),
            Some(Range::Last(last)) => (size.saturating_sub(last), size),
            Some(Range::Span { start, end }) => (start.min(size), end.unwrap_or(size).min(size)),
        };
        let part = &bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
        let mut file = File::from(fd);
        let written = if get.seekable { file.write_all_at(part, 0) } else { file.write_all(part) };
        written.map_err(|err| match err.raw_os_error() {
            Some(28) => failure(Code::NoSpace, "no space left for the output"),
            _ => failure(Code::Failed, "the output cannot be written"),
        })?;
        json(Fetched {
            hash,
            bytes: end - start,
            size,
            remote_bytes: 0,
            from: Vec::new(),
            mode,
            took_ms: 20,
        })
    }

    async fn answer(
        self: Arc<Self>,
        request: Request,
        mut fds: Vec<OwnedFd>,
        out: Outbox,
    ) -> Result<serde_json::Value, Failure> {
        let mut fd = || fds.pop().ok_or_else(|| failure(Code::Usage, "no descriptor"));
        match request {
            Request::Put(put) if hangs(put.path.as_ref()) => self.hang(out).await,
            Request::Get(Get { target: Target::Path(path), .. }) if hangs(Some(&path)) => {
                File::from(fd()?).write_all(b"half").ok();
                self.hang(out).await
            }
            Request::Put(put) => {
                let fd = fd()?;
                let bytes = tokio::task::spawn_blocking(|| read(fd)).await.unwrap()?;
                // Not in that thread: nothing may be stored once this future has been dropped.
                self.put(put, bytes)
            }
            Request::Get(get) => {
                let fd = fd()?;
                tokio::task::spawn_blocking(move || self.get(&get, fd)).await.unwrap()
            }
            Request::Stat { target } => json(self.find(&target, |kept| FileStat {
                info: Self::info(kept),
                listed: kept.path.is_some(),
                former: false,
                chunks: 1,
                zero_chunks: 0,
                stored_bytes: 4096,
                holders: Vec::new(),
            })?),
            Request::Ls { .. } => {
                let files: Vec<FileInfo> =
                    self.files.lock().unwrap().iter().map(Self::info).collect();
                for file in files {
                    out.item(&file).await.ok();
                }
                json(())
            }
            Request::Peers => {
                out.item(&peer()).await.ok();
                json(())
            }
            Request::Complete { prefix, .. } => {
                for word in ["3f9a1c77", "3f9b0000", "/a.txt"] {
                    if word.starts_with(&prefix) {
                        let help = "some file".into();
                        out.item(&Candidate { word: word.into(), help }).await.ok();
                    }
                }
                json(())
            }
            Request::Workers => {
                out.item(&worker()).await.ok();
                json(())
            }
            Request::Scrub => json(scrub()),
            Request::ScrubNow => self.hang(out).await,
            Request::Id => json(identity()),
            Request::Status => json(status()),
            Request::Stop => json(()),
            _ => Err(failure(Code::Usage, "not on this shelf")),
        }
    }

    async fn hang(self: Arc<Self>, out: Outbox) -> Result<serde_json::Value, Failure> {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let _hanging = Hanging(self);
        out.progress(1, Some(2));
        std::future::pending().await
    }
}

fn read(fd: OwnedFd) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match File::from(fd).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(failure(Code::Failed, "unreadable")),
    }
}

fn hangs(path: Option<&PathText>) -> bool {
    path.is_some_and(|path| path.0.windows(4).any(|word| word == b"hang"))
}

fn peer() -> PeerInfo {
    PeerInfo {
        name: "evil\x1b[2J\u{202e}".into(),
        id: node(1),
        addresses: vec!["127.0.0.1:4000".into()],
        state: PeerState::Alive,
        rtt_us: Some(400),
        capacity: 1 << 40,
        used: 1 << 30,
        zone: String::new(),
        seen_ms: 10,
        version: "0.1.0".into(),
        strikes: 0,
        full: false,
        read_only: false,
        draining: false,
        sent: 0,
        received: 0,
    }
}

fn worker() -> WorkerInfo {
    WorkerInfo {
        name: "repair".into(),
        state: WorkerState::Throttled,
        doing: "looking".into(),
        done: Some(1 << 20),
        total: Some(3 << 20),
        unit: Some("bytes".into()),
        rate: Some(2_048),
        rate_unit: Some("bytes".into()),
        errors: 2,
        last_error: Some("evil\x1b[2J".into()),
        last_error_ms: Some(180_000),
        next_ms: Some(70),
    }
}

fn scrub() -> ScrubInfo {
    let whole = ScrubFound { chunks: 1_499, records: 1, bytes: 153 << 20, ..ScrubFound::default() };
    ScrubInfo {
        running: true,
        at_once: false,
        done: 1 << 20,
        total: 4 << 20,
        found: ScrubFound { damaged: 4, repaired: 1, unneeded: 1, lost: 1, chunks: 7, ..whole },
        last: Some(whole),
        last_ms: Some(7_200_000),
        next_ms: None,
        within_s: 30 * 24 * 3_600,
    }
}

fn identity() -> Identity {
    Identity {
        id: node(7),
        name: "brave-otter".into(),
        swarm: None,
        listen: vec!["127.0.0.1:4000".into()],
        version: "0.1.0".into(),
    }
}

fn status() -> Status {
    Status {
        identity: identity(),
        state: NodeState::Waiting,
        code: Some("ABCDEFGH".into()),
        pid: 1,
        uptime_s: 5,
        peers_alive: 0,
        peers_suspect: 0,
        peers_dead: 0,
        waiting: Vec::new(),
        files: 0,
        files_bytes: 0,
        history_bytes: None,
        history_ms: None,
        replicas: 3,
        chunks_here: 0,
        bytes_here: 0,
        condemned_bytes: 0,
        cached_bytes: 0,
        capacity: 0,
        free_bytes: 0,
        under_replicated: 0,
        repair_bytes: 0,
        need_nodes: 0,
        nodes_missing: 0,
        lost: 0,
        repaired: 0,
        scrub: None,
        problems: vec![
            "waiting for approval ABCDEFGH; on a member run:  p2pfs approve ABCDEFGH".into(),
        ],
        read_only: None,
        draining: false,
        files_refused: 0,
        mounts: Vec::new(),
        sent_bytes: 0,
        received_bytes: 0,
    }
}

/// The shelf as a service.
struct Door(Arc<Shelf>);

impl Service for Door {
    fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        out: Outbox,
    ) -> BoxFuture<'static, Result<serde_json::Value, Failure>> {
        Box::pin(self.0.clone().answer(request, fds, out))
    }
}

/// A place with a shelf behind its socket.
pub(crate) struct Served {
    pub(crate) place: Place,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let socket = place.path("data").join("p2pfs.sock");
        let shelf = Arc::new(Shelf::default());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let door = Arc::new(Door(shelf.clone()));
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let socket = ControlSocket::bind(&path).unwrap();
                ready.send(()).unwrap();
                socket.serve(door, async { stopped.await.unwrap_or(()) }).await;
            });
        });
        is_ready.recv().unwrap();
        Self { place, shelf, socket, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.place.run(args)
    }

    /// Waits until `count` calls hang or were dropped.
    pub(crate) fn until(&self, counter: &AtomicUsize, count: usize) {
        for _ in 0..2_000 {
            if counter.load(Ordering::SeqCst) == count {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("it did not happen within 10 s");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        assert!(!self.socket.exists() || std::thread::panicking());
    }
}
