//! Speaks to a daemon: one connection per request over its Unix socket, in the language of
//! `wire::control`. Owns the client's half of that language and the handling of the files that go
//! in and out; `tree` and `node` have the other questions. The daemon decides everything else. The
//! command line uses nothing but this.
//!
//! Invariant: a method that returns an error, or whose future is dropped, leaves no file behind and
//! no work running in the daemon.

mod download;
mod exchange;
mod landing;
mod node;
mod share;
mod source;
mod told;
mod tree;
mod upload;

pub use download::{FetchedDir, GetFailed};
pub use exchange::Items;
pub use upload::PutDir;

use crate::text;
use crate::wire::control::{
    Code, Failure, Fetched, FileKind, Get, Progress, Put, Range, Request, Stored, Target,
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
    /// The only peer that is asked for files.
    from: Option<String>,
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
        Self { socket: socket.into(), watch: None, from: None }
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

    /// The same client, which has files got from one peer alone, by its name or id: what is here
    /// already is not got, and nobody else is asked.
    #[must_use]
    pub fn only_from(mut self, peer: impl Into<String>) -> Self {
        self.from = Some(peer.into());
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
        let get = Get { target, range, seekable: false, from: self.from.clone() };
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
        let get = Get { target, range, seekable: false, from: self.from.clone() };
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
        let get = Get { target, range: None, seekable: true, from: self.from.clone() };
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
