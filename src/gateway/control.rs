//! The Unix socket: takes one [`Call`](crate::wire::control::Call) per connection, hands it with
//! its descriptors to the [`Service`], and writes what the service says as answer lines. The
//! language is specified in `wire::control`; what a request does is the service's matter.
//!
//! Invariants: only the daemon's own user and root are heard; nothing that a client sends or leaves
//! out makes memory or the number of tasks grow beyond the constants here; when a connection ends
//! before its work does, the work's future is dropped. A client that was killed never says that
//! the end of a pipe is the end of its file.

mod answer;
mod call;
mod failure;
mod service;
mod socket;
mod source;
mod transfer;

pub(super) use failure::of_work as work_failure;
pub use service::NodeService;
pub use socket::{BindError, ControlSocket};

use crate::sys::BoxFuture;
use crate::wire::control::{Answer, Code, Failure, LINE_MAX, Progress, Request, VERSION};
use call::Refusal;
use serde::Serialize;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::ReadHalf;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Connections that are served at once; more wait in the system's queue. A person has a few, a
/// script that puts files in parallel some dozens; each may cost one [`LINE_MAX`].
pub const CONNECTIONS_MAX: usize = 64;
/// Answers that wait for a slow client before the work waits too.
const ANSWERS_QUEUED: usize = 64;
/// Answers that wait are written together up to about so many bytes.
const WRITE: usize = 64 << 10;
/// How long a client may take to send its call.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long running calls may take to end once the daemon stops.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What stands behind the socket.
pub trait Service: Send + Sync + 'static {
    /// Does what `request` asks. `fds` are the descriptors that came with it, none is checked yet.
    /// The value is the reply that the request's documentation names. Dropping the future cancels
    /// the work: a thread that still reads for it must not store anything afterwards, for the end
    /// of a pipe may then only be the end of its writer.
    fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        out: Outbox,
    ) -> BoxFuture<'static, Result<serde_json::Value, Failure>>;
}

/// The client went away: nobody is interested any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct Gone;

/// Sends what a call says before its end.
#[derive(Debug, Clone)]
pub struct Outbox {
    to: mpsc::Sender<Answer>,
    /// Lines that the client has sent after its call.
    lines: watch::Receiver<u64>,
}

impl Outbox {
    /// Says how far the work is. Never waits: when the client reads slowly, this one is dropped.
    pub fn progress(&self, done: u64, total: Option<u64>) {
        let progress = Progress { done, total };
        // A full queue holds news of the same kind, a closed one has no reader: both are fine.
        self.to.try_send(Answer::Progress { v: VERSION, progress }).ok();
    }

    /// Says a sentence to the person. Never waits, like [`Outbox::progress`].
    pub fn note(&self, text: impl Into<String>) {
        let note = Answer::Note { v: VERSION, text: text.into() };
        // Whoever does not read does not miss a sentence.
        self.to.try_send(note).ok();
    }

    /// Sends one item of a list or stream. Waits while the client reads slowly.
    pub async fn item<T: Serialize>(&self, item: &T) -> Result<(), Gone> {
        let item = serde_json::to_value(item).expect("answer types have text keys only");
        self.to.send(Answer::Item { v: VERSION, item }).await.map_err(|_| Gone)
    }

    /// Says that the put's descriptor has come to its end, and waits until the client takes that
    /// for the end of the file.
    async fn ended(&self) -> Result<(), Gone> {
        let mut lines = self.lines.clone();
        let before = *lines.borrow_and_update();
        self.to.send(Answer::Ended { v: VERSION }).await.map_err(|_| Gone)?;
        lines.wait_for(|lines| *lines > before).await.map(drop).map_err(|_| Gone)
    }
}

impl ControlSocket {
    /// Serves until `stop` is done; then gives the calls that still run two seconds to end, drops
    /// the rest and removes the socket.
    pub async fn serve(self, service: Arc<dyn Service>, stop: impl Future<Output = ()>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            while tasks.try_join_next().is_some() {}
            let permit = tokio::select! {
                biased;
                () = &mut stop => break,
                permit = permits.clone().acquire_owned() => {
                    permit.expect("this semaphore is never closed")
                }
            };
            let stream = tokio::select! {
                biased;
                () = &mut stop => break,
                stream = self.accept() => stream,
            };
            match stream {
                Ok(stream) => {
                    let service = service.clone();
                    tasks.spawn(async move {
                        connection(stream, service).await;
                        drop(permit);
                    });
                }
                Err(err) => {
                    tracing::warn!("the control socket cannot accept: {err}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self);
        let rest = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, rest).await.is_err() {
            tracing::debug!("calls were dropped at the end");
        }
    }
}

/// Asks the service from inside its own process; what it says before its reply is dropped.
///
/// # Errors
/// What the service says.
pub async fn ask(service: &dyn Service, request: Request) -> Result<serde_json::Value, Failure> {
    let ((to, _), (_, lines)) = (mpsc::channel(1), watch::channel(0));
    service.call(request, Vec::new(), Outbox { to, lines }).await
}

/// Serves one connection from its call to its last answer.
async fn connection(mut stream: UnixStream, service: Arc<dyn Service>) {
    let refusal = if socket::allowed(&stream) {
        match tokio::time::timeout(CALL_DEADLINE, call::receive(&stream)).await {
            Ok(Ok((request, fds))) => return work(stream, service, request, fds).await,
            Ok(Err(Refusal::Gone)) => return,
            Ok(Err(Refusal::Bad(failure))) => failure,
            Err(_) => Failure::new(Code::Usage, "bad request: it did not arrive in time"),
        }
    } else {
        Failure::new(Code::Denied, "this daemon belongs to another user")
    };
    tracing::debug!("a call was refused: {refusal}");
    // Nobody may be there to read it.
    let (_, mut write) = stream.split();
    let (_, mut nothing) = mpsc::channel(1);
    send(&mut write, Answer::Failed { v: VERSION, error: refusal }, &mut nothing).await.ok();
}

/// Runs one call; returns when it is answered or its client has gone.
async fn work(
    mut stream: UnixStream,
    service: Arc<dyn Service>,
    request: Request,
    fds: Vec<OwnedFd>,
) {
    let (to, mut from) = mpsc::channel(ANSWERS_QUEUED);
    let (heard, lines) = watch::channel(0);
    let (read, mut write) = stream.split();
    let mut work = service.call(request, fds, Outbox { to, lines });
    let result = loop {
        tokio::select! {
            biased;
            Some(answer) = from.recv() => {
                if send(&mut write, answer, &mut from).await.is_err() {
                    return;
                }
            }
            () = closed(&read, &heard) => return,
            result = &mut work => break result,
        }
    };
    drop(work);
    while let Ok(answer) = from.try_recv() {
        if send(&mut write, answer, &mut from).await.is_err() {
            return;
        }
    }
    let last = match result {
        Ok(reply) => Answer::Done { v: VERSION, reply },
        Err(error) => Answer::Failed { v: VERSION, error },
    };
    // The work is done either way; a client that left without reading has chosen so.
    send(&mut write, last, &mut from).await.ok();
}

/// Returns when the client has closed its end. Of what it sends after its call the lines are
/// counted, and that is all.
async fn closed(read: &ReadHalf<'_>, heard: &watch::Sender<u64>) {
    let mut sent = [0; 512];
    loop {
        if read.readable().await.is_err() {
            return;
        }
        match read.try_read(&mut sent) {
            Ok(0) => return,
            Ok(n) => {
                let lines = sent[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
                heard.send_modify(|heard| *heard += lines);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Writes an answer, and with it those that wait already: a list is then a few writes.
async fn send(
    to: &mut (impl AsyncWriteExt + Unpin),
    answer: Answer,
    more: &mut mpsc::Receiver<Answer>,
) -> io::Result<()> {
    let mut lines = Vec::new();
    let mut next = Some(answer);
    while let Some(answer) = next {
        let begun = lines.len();
        serde_json::to_writer(&mut lines, &answer).map_err(io::Error::from)?;
        lines.push(b'\n');
        if lines.len() - begun > LINE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        next = if lines.len() < WRITE { more.try_recv().ok() } else { None };
    }
    to.write_all(&lines).await
}
