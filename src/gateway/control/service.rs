//! The node behind the control socket: each request of `wire::control` becomes one call of
//! `node::api`, each error of it a sentence with a code and a hint. Nothing is decided here.

use super::answer::{answer, items, list, value};
use super::failure::failure;
use super::transfer::{get_file, put_file, put_many, share_path, write_file};
use super::{ControlSocket, Gone, Outbox, Service};
use crate::gateway::mount::Mounts;
use crate::node::{Node, Watch};
use crate::sys::BoxFuture;
use crate::wire::control::{
    ConflictInfo, Failure, FileInfo, PathText, RemovedInfo, Request, ShareInfo, Target,
};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

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
                Request::Share(share) => share_path(&node, share, fds, out).await,
                Request::Shares { peer, path } => list_shares(node, peer, path, out).await,
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

async fn list_shares(
    node: Arc<Node>,
    peer: Option<String>,
    path: Option<PathText>,
    out: Outbox,
) -> Result<Value, Failure> {
    let path = path.unwrap_or_else(|| "/".into());
    let target = match &peer {
        Some(peer) => Target::Share { peer: peer.clone(), path: path.clone() },
        None => Target::Path(path.clone()),
    };
    let read = move |send: &mut dyn FnMut(ShareInfo) -> bool| {
        node.list_shares(peer.as_deref().map(|peer| (peer, &path)), send)
    };
    list(read, target, out).await
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
