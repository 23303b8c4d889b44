//! The node inside the daemon: made from the settings, started anew when it has to leave an empty
//! swarm of its own to join another one, and stopped once. The errors of its start become sentences
//! here.

use crate::config::{self, Settings};
use crate::gateway::control::{NodeService, Service};
use crate::gateway::mount::Mounts;
use crate::node::{
    Balance, Config, Fatal, FileError, ListenError, Node, StartError, StoreError, forget_swarm,
};
use crate::sys::{BoxFuture, os};
use crate::text::{reason, shown, shown_path};
use crate::wire::control::{Code, Failure};
use std::io;
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// A node at work, as the command sees it.
pub(super) struct Running {
    /// Answers what comes through the socket; `Request::Stop` ends the node.
    pub(super) service: Arc<dyn Service>,
    /// Done when the node has ended; an error when it did so by itself.
    pub(super) ended: BoxFuture<'static, Result<(), Failure>>,
}

/// Starts the node.
pub(super) async fn start(settings: &Settings) -> Result<Running, Failure> {
    let config = node_config(settings);
    let first = start_node(config.clone()).await?;
    let node = Arc::new(RwLock::new(first));
    let (stop, stopping) = watch::channel(false);
    let (ended, wait) = watch::channel(false);
    let service = Arc::new(NodeService::new(node.clone(), stop, wait));
    let mounts = service.mounts();
    mounts.restore();
    let run = tokio::spawn(async move {
        let outcome = attend(config, &node, &mounts, stopping).await;
        mounts.end().await;
        current(&node).stop().await;
        ended.send_replace(true);
        outcome
    });
    let ended = Box::pin(async move {
        run.await.unwrap_or_else(|_| Err(Failure::new(Code::Failed, "the node broke down")))
    });
    Ok(Running { service, ended })
}

async fn start_node(config: Config) -> Result<Arc<Node>, Failure> {
    Node::start(config).await.map(Arc::new).map_err(|err| not_started(&err))
}

fn current(node: &RwLock<Arc<Node>>) -> Arc<Node> {
    node.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Waits until the node is to stop, or cannot go on.
async fn attend(
    mut config: Config,
    node: &RwLock<Arc<Node>>,
    mounts: &Arc<Mounts>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    loop {
        let now = current(node);
        let fatal = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            fatal = now.failed() => fatal,
        };
        let Fatal::OtherSwarm { empty: true, .. } = fatal else { return Err(fatal_words(&fatal)) };
        // Nothing was stored and nobody has joined: the own swarm is left without a word. What a
        // program makes in a mount until there is none keeps the node in it.
        let open = mounts.leave().await;
        if !now.leave() {
            return Err(fatal_words(&fatal));
        }
        config.avoid = now.identity().swarm;
        now.stop().await;
        drop(now);
        forget_swarm(&config).map_err(|err| not_started(&err))?;
        let next = start_node(config.clone()).await?;
        *node.write().unwrap_or_else(std::sync::PoisonError::into_inner) = next;
        mounts.arrive(open);
    }
}

fn node_config(settings: &Settings) -> Config {
    let mut config = Config::new(&settings.places.data_dir, &settings.places.config_dir);
    config.listen.clone_from(&settings.listen);
    let hosts = settings.bootstrap.iter();
    config.bootstrap = hosts.map(|at| (at.host.clone(), at.port)).collect();
    config.name.clone_from(&settings.name);
    config.zone = settings.zone.clone().unwrap_or_default();
    config.balance = balance(settings.balance);
    config.capacity = settings.capacity;
    config.replicas = settings.replicas;
    config.repair_delay = settings.repair_delay;
    config.repair_rate = Some(settings.repair_rate).filter(|rate| *rate > 0);
    config.limit_up = Some(settings.limit_up).filter(|rate| *rate > 0);
    config.limit_down = Some(settings.limit_down).filter(|rate| *rate > 0);
    config.history = settings.history;
    config.gc_grace = settings.gc_grace;
    config.open = settings.open;
    config.lan = config.lan.filter(|_| !settings.no_lan_discovery);
    config.settings.clone_from(&settings.rows);
    config.machine = os::machine();
    config
}

fn balance(setting: config::Balance) -> Balance {
    match setting {
        config::Balance::Auto => Balance::Auto,
        config::Balance::LeastStored => Balance::LeastStored,
        config::Balance::LeastLatency => Balance::LeastLatency,
    }
}

fn fatal_words(fatal: &Fatal) -> Failure {
    let Fatal::OtherSwarm { addr, .. } = fatal else {
        return Failure::new(Code::Failed, fatal.to_string());
    };
    Failure::new(Code::Conflict, format!("{addr} belongs to another swarm than this node")).hint(
        "a second swarm needs its own directory:  p2pfs daemon --data-dir DIR --bootstrap ...",
    )
}

fn not_started(err: &StartError) -> Failure {
    match err {
        StartError::Running { dir, pid } => {
            let by = if *pid == 0 { String::new() } else { format!(" as pid {pid}") };
            Failure::new(
                Code::Conflict,
                format!("a daemon is already running{by} in {}", shown_path(dir)),
            )
            .hint("p2pfs status")
            .hint("a second node on this machine:  p2pfs daemon --data-dir DIR --listen [::]:4001")
        }
        StartError::Directory { path, source } => super::unusable(path, source),
        StartError::File(err) => file(err),
        StartError::Store(err) => store(err),
        StartError::Listen(err) => listen(err),
        StartError::Tables(err) => {
            Failure::new(Code::Failed, format!("cannot read the node's tables: {}", reason(err)))
        }
        StartError::Found(err) => Failure::new(Code::Failed, err.to_string()),
    }
}

fn file(err: &FileError) -> Failure {
    let failure = Failure::new(Code::Failed, shown(&err.to_string()).into_owned());
    match err {
        FileError::Exposed { path, .. } => failure.hint(format!("chmod 600 {}", shown_path(path))),
        FileError::Damaged { .. } | FileError::Malformed { .. } => {
            failure.hint("restore it from a backup; without one, remove it to start as a new node")
        }
        FileError::Io { .. } => failure,
    }
}

fn store(err: &StoreError) -> Failure {
    let failure = Failure::new(Code::Failed, err.to_string());
    match err {
        StoreError::Newer { .. } => Failure::new(Code::Version, err.to_string())
            .hint("it was made by a newer p2pfs; this one does not change it"),
        StoreError::MarkerLost | StoreError::MarkerDamaged => failure
            .hint("restore the directory from a backup, or name an empty one with  --data-dir DIR"),
        StoreError::OtherNode { .. } => failure
            .hint("node.key and the segments do not belong together; restore both from one backup"),
        StoreError::Io(err) if err.kind() == io::ErrorKind::StorageFull => {
            Failure::new(Code::NoSpace, "no space left to open the store")
                .hint("a few MiB are enough; nothing is lost")
        }
        StoreError::Io(err) => {
            Failure::new(Code::Failed, format!("the store cannot be opened: {}", reason(err)))
        }
    }
}

fn listen(err: &ListenError) -> Failure {
    match err {
        ListenError::AddressInUse(addr) => {
            Failure::new(Code::Conflict, format!("port {} is in use ({addr})", addr.port()))
                .hint("is a daemon running already?  p2pfs status")
                .hint("any free port:  p2pfs daemon --listen [::]:0")
        }
        ListenError::Listen { addr, source } => {
            let code = match source.kind() {
                io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Failed,
            };
            Failure::new(code, format!("cannot listen on {addr}: {}", reason(source)))
                .hint("all addresses of this machine:  p2pfs daemon --listen [::]:4000")
        }
        ListenError::Key(_) => Failure::new(Code::Failed, err.to_string()),
    }
}
