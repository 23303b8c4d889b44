//! Speaks to a daemon: one connection per request over its Unix socket, in the language of
//! `wire::control`. Owns the client's half of that language and the handling of the files that go
//! in and out; the daemon decides everything else. The command line uses nothing but this.
//!
//! Invariant: a method that returns an error, or whose future is dropped, leaves no file behind and
//! no work running in the daemon.

mod download;
mod exchange;
mod landing;
mod source;
mod told;
mod upload;

pub use download::{FetchedDir, GetFailed};
pub use exchange::Items;
pub use upload::PutDir;

use crate::text;
use crate::wire::control::{
    Approved, Candidate, ChunkInfo, Code, ConflictInfo, ConnectionInfo, Event, Failure, Fetched,
    FileInfo, FileKind, FileStat, Get, HistoryInfo, Identity, Mount, MountInfo, Moved, PathText,
    PeerInfo, PinInfo, Progress, Put, Range, Removed, RemovedInfo, Request, Resolved, Restored, Rm,
    ScrubInfo, Setting, Status, Stored, Target, Umount, Watched, WordKind, WorkerInfo, Write,
    WrittenInfo,
};
use exchange::Exchange;
use landing::{Attributes, Place};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;

/// News while a request is worked on.
#[derive(Debug, Clone, Copy)]
pub enum Update<'a> {
    /// How far the work is.
    Progress(Progress),
    /// A sentence for the person.
    Note(&'a str),
}

type Watch = Arc<dyn Fn(Update<'_>) + Send + Sync>;

/// A daemon, as seen by its user. Cheap to clone; requests may run at the same time.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    watch: Option<Watch>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A file that [`Client::get_path`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What the daemon says about it.
    pub fetched: Fetched,
    /// Where it is now.
    pub path: PathBuf,
}

impl Client {
    /// A client of the daemon behind `socket`. Nothing is sent before the first request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), watch: None }
    }

    /// Like [`Client::new`], and makes sure that a daemon answers.
    ///
    /// # Errors
    /// [`Code::NoDaemon`] when none does, [`Code::Denied`] when it belongs to somebody else.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self, Failure> {
        let client = Self::new(socket);
        client.id().await?;
        Ok(client)
    }

    /// The same client, which also tells `watch` what the daemon says during its requests.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(Update<'_>) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Stores all that `reader` gives, to its end. When `reader` fails, nothing is stored.
    ///
    /// # Errors
    /// What the daemon says; [`Code::Failed`] when `reader` fails.
    pub async fn put(
        &self,
        mut reader: impl AsyncRead + Unpin + Send,
        put: Put,
    ) -> Result<Stored, Failure> {
        let (theirs, ours) = pipe_pair()?;
        let mut ours = pipe::Sender::from_owned_fd(ours).map_err(no_pipe)?;
        let mut exchange = self.open(Request::Put(put), vec![theirs]).await?;
        let copied = {
            let copy = tokio::io::copy(&mut reader, &mut ours);
            tokio::pin!(copy);
            tokio::select! {
                biased;
                copied = &mut copy => copied,
                // The daemon has made up its mind before the end: that is an error, or it does not
                // need the rest.
                answer = exchange.reply(self.watch.as_ref()) => return answer,
            }
        };
        if let Err(err) = copied {
            if err.kind() == std::io::ErrorKind::BrokenPipe {
                // The daemon stopped reading; its answer says why.
                return exchange.reply(self.watch.as_ref()).await;
            }
            // The end of the pipe would look like the end of the file: cancel first.
            exchange.cancel().await;
            let why = text::reason(&err);
            return Err(Failure::new(Code::Failed, format!("the source cannot be read: {why}")));
        }
        drop(ours);
        exchange.reply(self.watch.as_ref()).await
    }

    /// Stores what can be read from a descriptor, to its end.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn put_fd(&self, fd: impl Into<OwnedFd>, put: Put) -> Result<Stored, Failure> {
        self.open(Request::Put(put), vec![fd.into()]).await?.reply(self.watch.as_ref()).await
    }

    /// Stores a regular file. Its length, permission bits and modification time are filled in.
    ///
    /// # Errors
    /// Before anything is sent: [`Code::NotFound`], [`Code::Denied`], or [`Code::Usage`] for what
    /// is not a regular file. Otherwise what the daemon says.
    pub async fn put_path(&self, path: &Path, put: Put) -> Result<Stored, Failure> {
        let (fd, put) = source::open(path, put)?;
        self.put_fd(fd, put).await
    }

    /// Writes a file, or a range of it, to `writer`. After an error `writer` may have got a part.
    ///
    /// # Errors
    /// What the daemon says; [`Code::Failed`] when `writer` fails.
    pub async fn get(
        &self,
        target: Target,
        range: Option<Range>,
        mut writer: impl AsyncWrite + Unpin + Send,
    ) -> Result<Fetched, Failure> {
        let (ours, theirs) = pipe_pair()?;
        let mut ours = pipe::Receiver::from_owned_fd(ours).map_err(no_pipe)?;
        let get = Get { target, range, seekable: false };
        let mut exchange = self.open(Request::Get(get), vec![theirs]).await?;
        let copy = async {
            tokio::io::copy(&mut ours, &mut writer).await?;
            writer.flush().await
        };
        let copy = async {
            copy.await.map_err(|err| {
                let why = text::reason(&err);
                Failure::new(Code::Failed, format!("the output cannot be written: {why}"))
            })
        };
        let (fetched, ()) = tokio::try_join!(exchange.reply(self.watch.as_ref()), copy)?;
        Ok(fetched)
    }

    /// Writes a file, or a range of it, in order into a descriptor from where it stands.
    ///
    /// # Errors
    /// What the daemon says. [`is_broken_pipe`] tells whether the reader of a pipe has gone.
    pub async fn get_fd(
        &self,
        target: Target,
        range: Option<Range>,
        fd: impl Into<OwnedFd>,
    ) -> Result<Fetched, Failure> {
        let get = Get { target, range, seekable: false };
        self.open(Request::Get(get), vec![fd.into()]).await?.reply(self.watch.as_ref()).await
    }

    /// Fetches a whole file to `path`, which appears whole or not at all. When `path` is a
    /// directory the file gets its stored name in it. A device or a pipe is written as it is.
    ///
    /// # Errors
    /// Before anything is fetched: [`Code::Conflict`] when `path` exists and `overwrite` is false,
    /// [`Code::NotFound`] for a missing directory, [`Code::Denied`]. Otherwise what the daemon
    /// says.
    pub async fn get_path(
        &self,
        target: Target,
        path: &Path,
        overwrite: bool,
    ) -> Result<Saved, Failure> {
        let (target, path) = match landing::look(path)? {
            Place::Stream(fd) => {
                let fetched = self.get_fd(target, None, fd).await?;
                return Ok(Saved { fetched, path: path.to_owned() });
            }
            Place::File => (target, path.to_owned()),
            Place::Directory => {
                let (target, name) = self.stored_name(target).await?;
                (target, path.join(name))
            }
        };
        let landing = landing::Landing::open(&path, overwrite)?;
        let get = Get { target, range: None, seekable: true };
        let fd = landing.descriptor()?;
        let mut exchange = self.open(Request::Get(get), vec![fd]).await?;
        let fetched: Fetched = exchange.reply(self.watch.as_ref()).await?;
        landing.finish(Attributes::Allowed(fetched.mode)).await?;
        Ok(Saved { fetched, path })
    }

    /// The name under which a file is stored, as a name for this machine, and the file by its hash:
    /// what is fetched then is what was named, even when the name shows something newer meanwhile.
    async fn stored_name(&self, target: Target) -> Result<(Target, OsString), Failure> {
        let stat = self.stat(target).await?;
        let Some(hash) = stat.info.hash else {
            let path = text::shown_bytes(&stat.info.path.0);
            return Err(match stat.info.kind {
                FileKind::Link => Failure::new(Code::Conflict, format!("{path} is a link"))
                    .hint(format!("what it points to:  p2pfs stat {path}")),
                _ => Failure::new(Code::Usage, format!("{path} is a directory"))
                    .hint(format!("with everything in it:  p2pfs get -r {path}")),
            });
        };
        let last = stat.info.path.0.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let name = match last {
            // A file that is in no directory has no name but its hash.
            b"" => OsString::from(hash.to_string()),
            name if name == b"." || name == b".." || name.contains(&0) => {
                return Err(Failure::new(Code::Usage, "its stored name cannot be a file's name")
                    .hint(format!("under another one:  p2pfs get {hash} -o FILE")));
            }
            name => OsString::from_vec(name.to_vec()),
        };
        Ok((Target::Hash(hash), name))
    }

    /// The files below a directory, sorted by path; with `recursive` also those in directories
    /// below.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn list(&self, path: PathText, recursive: bool) -> Result<Items<FileInfo>, Failure> {
        self.items(Request::Ls { path, recursive }).await
    }

    /// Makes a directory; with `parents` those on the way too, and one that is there is fine.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mkdir(&self, path: PathText, parents: bool) -> Result<(), Failure> {
        self.ask::<serde::de::IgnoredAny>(Request::Mkdir { path, parents }).await.map(|_| ())
    }

    /// Gives a file, link or directory another name; in a directory of that name it keeps its own.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mv(&self, from: PathText, to: PathText) -> Result<Moved, Failure> {
        self.ask(Request::Mv { from, to }).await
    }

    /// Removes a name, or a directory.
    ///
    /// # Errors
    /// What the daemon says. When a directory fails half-way, a part of what is in it is removed.
    pub async fn rm(&self, rm: Rm) -> Result<Removed, Failure> {
        self.ask(Request::Rm(rm)).await
    }

    /// Gives back what was removed, or an old version; with `recursive` also what was removed below
    /// it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn restore(&self, path: PathText, recursive: bool) -> Result<Restored, Failure> {
        self.ask(Request::Restore { path, recursive }).await
    }

    /// What was removed below a directory and can be given back.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn removed(&self, path: PathText) -> Result<Items<RemovedInfo>, Failure> {
        self.items(Request::ListRemoved { path }).await
    }

    /// What happened to a name, newest first.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn history(&self, path: PathText) -> Result<Items<HistoryInfo>, Failure> {
        self.items(Request::History { path }).await
    }

    /// What is in conflict at a path or below.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn conflicts(&self, path: PathText) -> Result<Items<ConflictInfo>, Failure> {
        self.items(Request::Conflicts { path }).await
    }

    /// Ends a conflict: keeps what is called so, its name or a version, or without a call all,
    /// each under a name of its own.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn resolve(
        &self,
        path: PathText,
        keep: Option<PathText>,
    ) -> Result<Resolved, Failure> {
        self.ask(Request::Resolve { path, keep }).await
    }

    /// Everything about one file.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn stat(&self, target: Target) -> Result<FileStat, Failure> {
        self.ask(Request::Stat { target }).await
    }

    /// Every chunk of a file, with who holds it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn chunks(&self, target: Target) -> Result<Items<ChunkInfo>, Failure> {
        self.items(Request::Chunks { target }).await
    }

    /// Whether everything is well.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ask(Request::Status).await
    }

    /// The other nodes that are known, sorted by name.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn peers(&self) -> Result<Items<PeerInfo>, Failure> {
        self.items(Request::Peers).await
    }

    /// The open connections to other nodes.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn connections(&self) -> Result<Items<ConnectionInfo>, Failure> {
        self.items(Request::Connections).await
    }

    /// What the node's workers are doing, sorted by name.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn workers(&self) -> Result<Items<WorkerInfo>, Failure> {
        self.items(Request::Workers).await
    }

    /// How far the node's reading of everything that it stores is.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn scrub(&self) -> Result<ScrubInfo, Failure> {
        self.ask(Request::Scrub).await
    }

    /// Has the node read everything that it stores now; returns when all of it was read and what
    /// is damaged was repaired, as far as that is possible. It goes on when the future is dropped.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn scrub_now(&self) -> Result<ScrubInfo, Failure> {
        self.ask(Request::ScrubNow).await
    }

    /// Who the node is.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn id(&self) -> Result<Identity, Failure> {
        self.ask(Request::Id).await
    }

    /// Makes the node dial `host:port`, or a peer by name or id prefix, now.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn dial(&self, peer: impl Into<String>) -> Result<PeerInfo, Failure> {
        self.ask(Request::Connect { peer: peer.into() }).await
    }

    /// Lets the waiting node in whose daemon shows `code`.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn approve(&self, code: impl Into<String>) -> Result<Approved, Failure> {
        self.ask(Request::Approve { code: code.into() }).await
    }

    /// Turns a waiting node away.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn deny(&self, peer: impl Into<String>) -> Result<Approved, Failure> {
        self.ask(Request::Deny { peer: peer.into() }).await
    }

    /// Has the node emptied, or stops that. It is empty when its status says that no chunk is
    /// there.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn drain(&self, on: bool) -> Result<Status, Failure> {
        self.ask(Request::Drain { on }).await
    }

    /// Keeps a full copy on the node of what is at a path, now and later; with `wait` returns when
    /// it is there, or all was tried.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pin(&self, path: PathText, wait: bool) -> Result<PinInfo, Failure> {
        self.ask(Request::Pin { path, wait }).await
    }

    /// Keeps no full copy of it any more.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn unpin(&self, path: PathText) -> Result<PinInfo, Failure> {
        self.ask(Request::Unpin { path }).await
    }

    /// What is pinned on the node, sorted by path.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pins(&self) -> Result<Items<PinInfo>, Failure> {
        self.items(Request::Pins).await
    }

    /// The settings in force, with their sources.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn settings(&self) -> Result<Items<Setting>, Failure> {
        self.items(Request::Config).await
    }

    /// Lets the swarm's files be seen in a directory of this machine; returns when programs can use
    /// it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mount(&self, mount: Mount) -> Result<MountInfo, Failure> {
        self.ask(Request::Mount(mount)).await
    }

    /// Ends a mount, when the others have what was changed.
    ///
    /// # Errors
    /// [`Code::Conflict`] when programs use it; otherwise what the daemon says.
    pub async fn umount(&self, umount: Umount) -> Result<MountInfo, Failure> {
        self.ask(Request::Umount(umount)).await
    }

    /// The mounts of the daemon.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mounts(&self) -> Result<Items<MountInfo>, Failure> {
        self.items(Request::Mounts).await
    }

    /// Writes what can be read from a descriptor, to its end, into a file.
    ///
    /// # Errors
    /// What the daemon says. A part of it may have been written then.
    pub async fn write_fd(
        &self,
        fd: impl Into<OwnedFd>,
        write: Write,
    ) -> Result<WrittenInfo, Failure> {
        self.open(Request::Write(write), vec![fd.into()]).await?.reply(self.watch.as_ref()).await
    }

    /// Ends the daemon in order; returns when everything is on disk.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.ask::<serde::de::IgnoredAny>(Request::Stop).await.map(|_| ())
    }

    /// What happens from now on, until the stream is dropped.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn events(&self) -> Result<Items<Event>, Failure> {
        self.items(Request::Events).await
    }

    /// What happens in the tree at a path and below it, from now on; it ends when the daemon
    /// stops.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn watch(&self, path: PathText) -> Result<Items<Watched>, Failure> {
        self.items(Request::Watch { path }).await
    }

    /// Candidates for a word that begins with `prefix`.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn complete(
        &self,
        kind: WordKind,
        prefix: impl Into<String>,
    ) -> Result<Items<Candidate>, Failure> {
        self.items(Request::Complete { kind, prefix: prefix.into() }).await
    }

    async fn open(&self, request: Request, fds: Vec<OwnedFd>) -> Result<Exchange, Failure> {
        Exchange::open(&self.socket, request, fds).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.open(request, Vec::new()).await?.reply(self.watch.as_ref()).await
    }

    async fn items<T>(&self, request: Request) -> Result<Items<T>, Failure> {
        Ok(Items::new(self.open(request, Vec::new()).await?, self.watch.clone()))
    }
}

/// Whether [`Client::put_path`] would take this file, without asking a daemon.
///
/// # Errors
/// Those that `put_path` returns before anything is sent.
pub fn check_source(path: &Path) -> Result<(), Failure> {
    source::open(path, Put::default()).map(|_| ())
}

/// Whether `fd` is a pipe or socket whose reader has gone.
pub fn is_broken_pipe(fd: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok()
        && polled[0].revents().contains(PollFlags::ERR)
}

fn pipe_pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = std::io::pipe().map_err(no_pipe)?;
    Ok((read.into(), write.into()))
}

fn no_pipe(err: std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("no pipe can be made: {}", text::reason(&err)))
}
