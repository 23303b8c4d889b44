//! The node behind the control socket: each request of `wire::control` becomes one call of
//! `node::api`, each error of it a sentence with a code and a hint. Nothing is decided here.

use super::failure::{failure, of_work};
use super::source::Confirmed;
use super::{ControlSocket, Gone, Outbox, Service};
use crate::gateway::mount::Mounts;
use crate::node::{Error, ManyStored, Node, OnProgress, Watch, Written};
use crate::sys::{BoxFuture, DescriptorSink, DescriptorSource, Source};
use crate::wire::control::{
    Code, ConflictInfo, Failure, FileInfo, Get, ITEMS_MAX, Put, PutFailed, PutItem, PutMany,
    PutWhat, RemovedInfo, Request, Target, Write, WrittenInfo,
};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, watch};

/// Items of a list that go together from the thread that reads it to its client.
const PAGE: usize = 64;
/// Pages that wait for a slow client.
const PAGES_QUEUED: usize = 4;

/// A node that is asked over a socket.
pub struct NodeService {
    node: Arc<RwLock<Arc<Node>>>,
    mounts: Arc<Mounts>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl NodeService {
    /// A service for `node`. It sets `stop` when somebody asks the node to stop, and answers once
    /// `ended` is set.
    pub fn new(
        node: Arc<RwLock<Arc<Node>>>,
        stop: watch::Sender<bool>,
        ended: watch::Receiver<bool>,
    ) -> Self {
        let mounts = Mounts::new(node.clone());
        Self { node, mounts, stop, ended }
    }

    /// The mounts of the node.
    pub fn mounts(&self) -> Arc<Mounts> {
        self.mounts.clone()
    }
}

impl ControlSocket {
    /// Serves a node of this program until somebody asks it to stop (`Client::stop`), and stops it
    /// then. For another end, drop the future and call [`Node::stop`].
    pub async fn serve_node(self, node: Arc<Node>) {
        let (stop, mut stopping) = watch::channel(false);
        let (ended, wait) = watch::channel(false);
        let service = NodeService::new(Arc::new(RwLock::new(node.clone())), stop, wait);
        let mounts = service.mounts();
        mounts.restore();
        let end = async move {
            // The sender is in the service, which is served until this is done.
            stopping.wait_for(|stop| *stop).await.ok();
            mounts.end().await;
            node.stop().await;
            ended.send_replace(true);
        };
        self.serve(Arc::new(service), end).await;
    }
}

impl NodeService {
    /// The node that is running now: it is exchanged when it joins another swarm.
    fn current(&self) -> Arc<Node> {
        self.node.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Service for NodeService {
    fn call(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
        out: Outbox,
    ) -> BoxFuture<'static, Result<Value, Failure>> {
        let (node, stop, mut ended) = (self.current(), self.stop.clone(), self.ended.clone());
        let mounts = self.mounts.clone();
        Box::pin(async move {
            match request {
                Request::Stop => {
                    stop.send_replace(true);
                    // When the sender is gone the node is, too.
                    ended.wait_for(|ended| *ended).await.ok();
                    Ok(Value::Null)
                }
                Request::Put(put) => put_file(&node, put, fds, out).await,
                Request::PutMany(many) => put_many(&node, many, fds, out).await,
                Request::Get(get) => get_file(&node, get, fds, out).await,
                Request::Mount(mount) => value(&mounts.mount(mount).await?),
                Request::Umount(umount) => value(&mounts.umount(&umount).await?),
                Request::Mounts => items(&mounts.list(), &out).await,
                Request::Status => {
                    let mut status = node.status().map_err(|err| failure(&err, None))?;
                    status.mounts = mounts.list();
                    value(&status)
                }
                Request::Write(write) => write_file(&node, write, fds, out).await,
                Request::Ls { path, recursive } => {
                    let target = Target::Path(path.clone());
                    let read = move |send: &mut dyn FnMut(FileInfo) -> bool| {
                        node.ls(&path, recursive, send)
                    };
                    list(read, target, out).await
                }
                Request::ListRemoved { path } => {
                    let target = Target::Path(path.clone());
                    let read =
                        move |send: &mut dyn FnMut(RemovedInfo) -> bool| node.removed(&path, send);
                    list(read, target, out).await
                }
                Request::Conflicts { path } => {
                    let target = Target::Path(path.clone());
                    let read = move |send: &mut dyn FnMut(ConflictInfo) -> bool| {
                        node.conflicts(&path, send)
                    };
                    list(read, target, out).await
                }
                Request::Events => until_stopped(&stop, stream_events(&node, &out)).await,
                Request::Watch { path } => {
                    let news = node.watch(&path).await;
                    let news = news.map_err(|err| failure(&err, Some(&Target::Path(path))))?;
                    until_stopped(&stop, stream_news(news, &out)).await
                }
                Request::Complete { kind, prefix } => {
                    // It walks the tree: not where other calls wait.
                    let words = move || node.complete(kind, &prefix);
                    let words = tokio::task::spawn_blocking(words).await;
                    items(&words.unwrap_or_default(), &out).await
                }
                request => answer(&node, request, &out).await,
            }
        })
    }
}

/// Requests whose answer is at hand, or one value.
async fn answer(node: &Node, request: Request, out: &Outbox) -> Result<Value, Failure> {
    match request {
        Request::Rm(rm) => {
            let target = rm.target.clone();
            value(&node.rm(rm).await.map_err(|err| failure(&err, Some(&target)))?)
        }
        Request::Mkdir { path, parents } => {
            let made = node.mkdir(&path, parents).await;
            value(&made.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Mv { from, to } => {
            let moved = node.mv(&from, &to).await;
            value(&moved.map_err(|err| failure(&err.why, Some(&Target::Path(err.about))))?)
        }
        Request::Restore { path, recursive } => {
            let restored = node.restore(&path, recursive).await;
            value(&restored.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::History { path } => {
            let history = node.history(&path).await;
            items(&history.map_err(|err| failure(&err, Some(&Target::Path(path))))?, out).await
        }
        Request::Resolve { path, keep } => {
            let resolved = node.resolve(&path, keep.as_ref()).await;
            value(&resolved.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Stat { target } => {
            value(&node.stat(&target).await.map_err(|err| failure(&err, Some(&target)))?)
        }
        Request::Scrub => value(&node.scrub().map_err(|err| failure(&err, None))?),
        Request::ScrubNow => {
            let scrubbed = node.scrub_now(|done, total| out.progress(done, Some(total))).await;
            value(&scrubbed.map_err(|err| failure(&err, None))?)
        }
        Request::Id => value(&node.identity()),
        Request::Connect { peer } => {
            value(&node.connect(&peer).await.map_err(|err| failure(&err, None))?)
        }
        Request::Approve { code } => {
            value(&node.approve(&code).await.map_err(|err| failure(&err, None))?)
        }
        Request::Deny { peer } => {
            value(&node.deny(&peer).await.map_err(|err| failure(&err, None))?)
        }
        Request::Drain { on } => value(&node.drain(on).await.map_err(|err| failure(&err, None))?),
        Request::Pin { path, wait } => {
            let pinned = node.pin(&path, wait, |done| out.progress(done, None)).await;
            value(&pinned.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Unpin { path } => {
            let pinned = node.unpin(&path).await;
            value(&pinned.map_err(|err| failure(&err, Some(&Target::Path(path))))?)
        }
        Request::Pins => items(&node.pins(), out).await,
        Request::Chunks { target } => chunks(node, &target, out).await,
        Request::Peers => items(&node.peers(), out).await,
        Request::Connections => items(&node.connections(), out).await,
        Request::Workers => items(&node.workers(), out).await,
        Request::Config => items(&node.settings(), out).await,
        _ => Err(Failure::new(Code::Usage, "not a request that this daemon knows")),
    }
}

async fn items<T: serde::Serialize>(list: &[T], out: &Outbox) -> Result<Value, Failure> {
    for item in list {
        if out.item(item).await.is_err() {
            break;
        }
    }
    Ok(Value::Null)
}

/// The tree is read by a job of its own, so that a slow reader of a long list stops nobody else.
async fn list<T: serde::Serialize + Send + 'static>(
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<(), Error> + Send + 'static,
    target: Target,
    out: Outbox,
) -> Result<Value, Failure> {
    let (send, mut pages) = mpsc::channel::<Vec<T>>(PAGES_QUEUED);
    let reading = tokio::task::spawn_blocking(move || {
        let mut page = Vec::new();
        read(&mut |item| {
            page.push(item);
            page.len() < PAGE || send.blocking_send(std::mem::take(&mut page)).is_ok()
        })?;
        // Whoever has gone does not miss it.
        send.blocking_send(page).ok();
        Ok(())
    });
    'reading: while let Some(page) = pages.recv().await {
        for item in &page {
            if out.item(item).await.is_err() {
                break 'reading;
            }
        }
    }
    drop(pages);
    match reading.await {
        Ok(read) => read.map(|()| Value::Null).map_err(|err| failure(&err, Some(&target))),
        Err(_) => Err(Failure::new(Code::Failed, "the list could not be read")),
    }
}

async fn chunks(node: &Node, target: &Target, out: &Outbox) -> Result<Value, Failure> {
    let mut from = 0;
    loop {
        let page = node.chunks(target, from).await.map_err(|err| failure(&err, Some(target)))?;
        let Some(last) = page.last() else { return Ok(Value::Null) };
        from = last.index + 1;
        items(&page, out).await?;
    }
}

/// Streams until the end or until the node is to stop, which does not wait for news.
async fn until_stopped(
    stop: &watch::Sender<bool>,
    stream: impl Future<Output = ()>,
) -> Result<Value, Failure> {
    let mut stopping = stop.subscribe();
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stop| *stop) => {}
        () = stream => {}
    }
    Ok(Value::Null)
}

async fn stream_events(node: &Node, out: &Outbox) {
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if let Err(Gone) = out.item(&event).await {
            break;
        }
    }
}

async fn stream_news(mut news: Watch, out: &Outbox) {
    while let Some(one) = news.next().await {
        if let Err(Gone) = out.item(&one).await {
            break;
        }
    }
}

/// What is said when all bytes are stored, and more copies are wanted before the end.
const WAITING: &str = "stored; waiting for the other copies:  p2pfs status";

async fn put_file(node: &Node, put: Put, fds: Vec<OwnedFd>, out: Outbox) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
    let total = source.len().or(put.len);
    let source: Box<dyn Source> = match source.len() {
        Some(_) => Box::new(source),
        None => Box::new(Confirmed::new(source, out.clone())),
    };
    let progress: OnProgress = Arc::new(move |done, stored| {
        out.progress(done, total);
        if stored.is_some() {
            out.note(WAITING);
        }
    });
    let target = put.path.clone().map(Target::Path);
    let stored = node.put(put, source, progress).await;
    value(&stored.map_err(|err| failure(&err, target.as_ref()))?)
}

async fn put_many(
    node: &Node,
    many: PutMany,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    if many.items.len() > ITEMS_MAX {
        return Err(Failure::new(Code::Usage, format!("more than {ITEMS_MAX} items in a request")));
    }
    let cancel = Cancel::default();
    let mut sources: Vec<Box<dyn Source>> = Vec::with_capacity(fds.len());
    for fd in fds {
        let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
        sources.push(Box::new(source));
    }
    let len = |item: &PutItem| if let PutWhat::File { len } = item.what { len } else { 0 };
    let total = many.items.iter().map(len).fold(0, u64::saturating_add);
    let noted = AtomicBool::new(false);
    let progress: OnProgress = Arc::new(move |done, stored| {
        if stored.is_none() {
            out.progress(done, Some(total));
        } else if !noted.swap(true, Ordering::Relaxed) {
            out.note(WAITING);
        }
    });
    let done = node.put_many(many, sources, progress).await;
    let ManyStored { mut stored, failed } = done.map_err(|err| failure(&err, None))?;
    stored.failed.extend(failed.into_iter().map(|(path, err)| {
        let error = failure(&err, Some(&Target::Path(path.clone())));
        PutFailed { path, error }
    }));
    value(&stored)
}

async fn write_file(
    node: &Node,
    write: Write,
    fds: Vec<OwnedFd>,
    out: Outbox,
) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let source = DescriptorSource::new(fd, cancel.0.clone()).map_err(|err| unusable(&err))?;
    let source: Box<dyn Source> = match source.len() {
        Some(_) => Box::new(source),
        None => Box::new(Confirmed::new(source, out)),
    };
    let Write { path, offset } = write;
    let written = node.work().write(&path, offset, source).await;
    let written = written.map_err(|err| of_work(&err, &path))?;
    let Written { hash, size, bytes } = written;
    value(&WrittenInfo { path, hash, size, written: bytes })
}

async fn get_file(node: &Node, get: Get, fds: Vec<OwnedFd>, out: Outbox) -> Result<Value, Failure> {
    let fd = fds.into_iter().next().ok_or_else(no_descriptor)?;
    let cancel = Cancel::default();
    let sink = DescriptorSink::new(fd, get.seekable, cancel.0.clone());
    let sink = Arc::new(sink.map_err(|err| unusable(&err))?);
    let target = get.target.clone();
    let progress: OnProgress = Arc::new(move |done, total| out.progress(done, total));
    let fetched = node.get(get, sink, progress).await;
    value(&fetched.map_err(|err| failure(&err, Some(&target)))?)
}

/// Ends the thread that waits for a descriptor when the work that it is for is dropped.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn value<T: serde::Serialize>(reply: &T) -> Result<Value, Failure> {
    Ok(serde_json::to_value(reply).expect("replies have text keys only"))
}

fn no_descriptor() -> Failure {
    Failure::new(Code::Usage, "the request came without its descriptor")
}

fn unusable(err: &std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("the descriptor cannot be used: {err}"))
}
