//! One connection with one request: sends the call with its descriptors, reads the answers. Knows
//! nothing about what is asked.

use super::{Update, Watch};
use crate::wire::control::{Answer, Call, Code, Failure, ITEMS_MAX, LINE_MAX, Request, VERSION};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

/// Longest path of a socket in bytes: `sun_path` less its closing zero.
const SOCKET_PATH_MAX: usize = 107;
/// How long a cancelled daemon may take to let go.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// A request under way.
pub(super) struct Exchange {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Exchange {
    /// Connects and sends the call. This process keeps no copy of the descriptors,
    /// of which there are at most [`ITEMS_MAX`].
    pub(super) async fn open(
        socket: &Path,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Self, Failure> {
        let stream = dial(socket).await?;
        let mut line = serde_json::to_vec(&Call { v: VERSION, request })
            .map_err(|err| Failure::new(Code::Usage, format!("this cannot be asked: {err}")))?;
        line.push(b'\n');
        if line.len() > LINE_MAX {
            return Err(Failure::new(Code::Usage, "this request is too long"));
        }
        let mut exchange = Self { stream: BufReader::new(stream), line: Vec::new() };
        match exchange.send(&line, fds).await {
            Ok(()) => Ok(exchange),
            // A daemon that refuses may close before it has read everything: its answer counts.
            Err(_) => match exchange.next().await {
                Ok(Answer::Failed { error, .. }) | Err(error) => Err(error),
                Ok(_) => Err(gone()),
            },
        }
    }

    async fn send(&mut self, line: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let stream = self.stream.get_mut();
        let sent = match &fds[..] {
            [] => 0,
            fds => stream.async_io(Interest::WRITABLE, || send_with(stream, line, fds)).await?,
        };
        stream.write_all(&line[sent..]).await
    }

    /// The next answer. A future that is dropped loses nothing of what has arrived.
    pub(super) async fn next(&mut self) -> Result<Answer, Failure> {
        let room = LINE_MAX.saturating_sub(self.line.len());
        let mut limited = (&mut self.stream).take(room as u64);
        limited.read_until(b'\n', &mut self.line).await.map_err(|_| gone())?;
        if self.line.last() != Some(&b'\n') {
            return Err(gone());
        }
        let line = std::mem::take(&mut self.line);
        match serde_json::from_slice::<Answer>(&line) {
            Ok(answer) if version(&answer) == VERSION => Ok(answer),
            Ok(answer) => Err(other_version(version(&answer))),
            Err(_) => Err(not_understood(&line)),
        }
    }

    /// Reads up to the end and returns the reply.
    pub(super) async fn reply<T: DeserializeOwned>(
        &mut self,
        watch: Option<&Watch>,
    ) -> Result<T, Failure> {
        loop {
            match self.next().await? {
                Answer::Done { reply, .. } => return typed(reply),
                Answer::Failed { error, .. } => return Err(error),
                Answer::Item { .. } => {}
                Answer::Ended { .. } => self.go_on().await?,
                news => tell(watch, &news),
            }
        }
    }

    /// Reads up to the end and returns the items, and the reply.
    pub(super) async fn items_and_reply<I: DeserializeOwned, T: DeserializeOwned>(
        &mut self,
        watch: Option<&Watch>,
    ) -> Result<(Vec<I>, T), Failure> {
        let mut items = Vec::new();
        loop {
            match self.next().await? {
                Answer::Done { reply, .. } => return Ok((items, typed(reply)?)),
                Answer::Failed { error, .. } => return Err(error),
                Answer::Item { item, .. } => items.push(typed(item)?),
                news => tell(watch, &news),
            }
        }
    }

    /// Says that the end of a put's descriptor is the end of the file.
    async fn go_on(&mut self) -> Result<(), Failure> {
        self.stream.get_mut().write_all(b"\n").await.map_err(|_| gone())
    }

    /// Closes the connection's sending side and waits until the daemon has let go of the work.
    pub(super) async fn cancel(mut self) {
        let drained = async {
            self.stream.get_mut().shutdown().await?;
            tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await
        };
        // Whatever happens here, the connection is closed afterwards.
        tokio::time::timeout(CANCEL_DEADLINE, drained).await.ok();
    }
}

/// The items of a list or stream, as they arrive.
pub struct Items<T> {
    exchange: Option<Exchange>,
    watch: Option<Watch>,
    of: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("ended", &self.exchange.is_none()).finish_non_exhaustive()
    }
}

impl<T> Items<T> {
    pub(super) fn new(exchange: Exchange, watch: Option<Watch>) -> Self {
        Self { exchange: Some(exchange), watch, of: PhantomData }
    }
}

impl<T: DeserializeOwned> Items<T> {
    /// The next item; none at the end, also after an error.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        let Some(mut exchange) = self.exchange.take() else {
            return Ok(None);
        };
        loop {
            match exchange.next().await? {
                Answer::Item { item, .. } => {
                    self.exchange = Some(exchange);
                    return typed(item).map(Some);
                }
                Answer::Done { .. } => return Ok(None),
                Answer::Failed { error, .. } => return Err(error),
                news => tell(self.watch.as_ref(), &news),
            }
        }
    }

    /// All items up to the end.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn all(mut self) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await? {
            all.push(item);
        }
        Ok(all)
    }
}

fn tell(watch: Option<&Watch>, news: &Answer) {
    let Some(watch) = watch else { return };
    match news {
        Answer::Progress { progress, .. } => watch(Update::Progress(*progress)),
        Answer::Note { text, .. } => watch(Update::Note(text)),
        Answer::Item { .. }
        | Answer::Ended { .. }
        | Answer::Done { .. }
        | Answer::Failed { .. } => {}
    }
}

fn typed<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|_| {
        Failure::new(Code::Version, "the daemon's answer is not understood").hint(RESTART)
    })
}

const RESTART: &str =
    "restart the daemon with this executable:  p2pfs stop  and then  p2pfs daemon";

fn version(answer: &Answer) -> u32 {
    match answer {
        Answer::Progress { v, .. }
        | Answer::Note { v, .. }
        | Answer::Item { v, .. }
        | Answer::Ended { v }
        | Answer::Done { v, .. }
        | Answer::Failed { v, .. } => *v,
    }
}

fn other_version(theirs: u32) -> Failure {
    let message = format!(
        "this p2pfs speaks version {VERSION} of the control language, the running daemon {theirs}"
    );
    Failure::new(Code::Version, message).hint(RESTART)
}

fn not_understood(line: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    match serde_json::from_slice::<Head>(line) {
        Ok(head) if head.v != VERSION => other_version(head.v),
        _ => Failure::new(Code::Version, "the daemon's answer is not understood").hint(RESTART),
    }
}

fn gone() -> Failure {
    Failure::new(Code::NoDaemon, "the daemon ended before it answered")
        .hint("start it:  p2pfs daemon")
}

async fn dial(socket: &Path) -> Result<UnixStream, Failure> {
    let shown = crate::text::shown_path(socket);
    let len = socket.as_os_str().len();
    if len > SOCKET_PATH_MAX {
        let message =
            format!("the socket path has {len} bytes, {SOCKET_PATH_MAX} are possible: {shown}");
        return Err(Failure::new(Code::Usage, message)
            .hint("name a shorter one with  --socket PATH  or  --data-dir DIR"));
    }
    UnixStream::connect(socket).await.map_err(|err| match err.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, format!("permission denied: {shown}"))
                .hint("the daemon belongs to another user; run this as that user")
        }
        io::ErrorKind::WouldBlock => Failure::new(Code::NoDaemon, "the daemon is too busy")
            .hint("wait a little and try again"),
        _ => Failure::new(Code::NoDaemon, format!("no daemon answers at {shown}"))
            .hint(format!("start it:  {}", starting(socket))),
    })
}

/// The command that starts the daemon behind this socket.
fn starting(socket: &Path) -> String {
    let usual = crate::paths::data_dir().map(|dir| crate::paths::socket_in(&dir));
    match socket.parent().filter(|dir| crate::paths::socket_in(dir) == socket) {
        _ if usual.as_deref() == Some(socket) => "p2pfs daemon".to_owned(),
        Some(dir) => format!("p2pfs daemon --data-dir {}", crate::text::shown_path(dir)),
        None => format!("p2pfs daemon --socket {}", crate::text::shown_path(socket)),
    }
}

/// Sends the beginning of `line` with the descriptors; returns how many bytes went with them.
fn send_with(stream: &UnixStream, line: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ITEMS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is made for so many descriptors");
    Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
}
