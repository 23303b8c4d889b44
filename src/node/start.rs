//! Starting and stopping a node: the order in which its parts come up, and how it gets its place in
//! a swarm. Everything that can be wrong with the directories is said here, before anything runs.

use super::asked::Asked;
use super::door::{Standing, own_grant};
use super::event::Event;
use super::files::{self, FileError};
use super::memory::Memory;
use super::pins::Pins;
use super::records::Catalogue;
use super::run::Loop;
use super::serve::Service;
use super::view::View;
use super::work::commit::Commit;
use super::worker::bootstrap::Bootstrap;
use super::worker::describe::Describe;
use super::worker::gc::Gc;
use super::worker::handover::Wanted;
use super::worker::issue::Issue;
use super::worker::lan::Lan;
use super::worker::mend::Mend;
use super::worker::pin::Pin;
use super::worker::reconcile::Reconcile;
use super::worker::release::Releases;
use super::worker::repair::Repair;
use super::worker::scrub::Scrub;
use super::worker::share::Shares;
use super::worker::{self, shape};
use super::{Config, Fatal, Shared};
use crate::core::access::{Grant, Joiner, Roles};
use crate::core::catalogue::{self, Record, View as _};
use crate::core::limits;
use crate::core::membership::{Identity, Membership, Vouch};
use crate::crypto::{NodeKey, SwarmKey};
use crate::id::NodeId;
use crate::store::{self, Store};
use crate::sys::{Fs, Lock, OpenMode};
use crate::transport::{self, Buffers, Rates, Transport};
use crate::wire::approve::JoinRequest;
use crate::wire::codec::{Decode, Encode};
use crate::wire::gossip::MemberRecord;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Why a node did not start. Nothing runs; what it wrote is what a start writes anyway.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another daemon has the data directory.
    #[error("a daemon is already running in {} (pid {pid})", .dir.display())]
    Running {
        /// The directory.
        dir: PathBuf,
        /// The other daemon's process, 0 when it has not said.
        pid: u32,
    },
    /// A directory cannot be made or used.
    #[error("cannot use {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or state file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] transport::StartError),
    /// The tables cannot be read.
    #[error("cannot read this node's tables: {0}")]
    Tables(io::Error),
    /// The first records could not be written.
    #[error("cannot write the swarm's first records: {0}")]
    Found(#[from] super::PublishError),
}

/// A running node. It runs until [`Node::stop`].
pub struct Node {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
    /// Held until the node has stopped, so that no second one uses the directory.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// How long a node looks for others of its swarm on the local network before it takes itself for
/// the first.
const LAN_PATIENCE: Duration = Duration::from_secs(3);
/// How long the start waits for another daemon that makes keys in the configuration directory.
const CONFIG_LOCK_TRIES: u32 = 100;

impl Node {
    /// Starts a node: opens the data directory, listens, and joins or founds a swarm. It runs as
    /// tasks of the tokio runtime that this is called in (which needs its timer and its I/O), until
    /// [`Node::stop`]. It returns when the node answers; other members are found meanwhile.
    ///
    /// # Errors
    /// When a directory, a key, the store or the port cannot be used; then nothing runs.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let lock = claim(&config)?;
        let fs = &*config.system.fs;
        let key = files::node_key(fs, &*config.system.rng, &config.data_dir)?;
        let (owner, standing, is_new) = standing(&config, &key).await?;
        let catalogue = Arc::new(Catalogue::default());
        if let Some(standing) = &standing {
            catalogue.set_swarm(standing.swarm);
        }
        let (store, opened) = Store::open(store_options(&config, key.id())?, catalogue.clone())?;
        if let Some(why) = &opened.rebuilt {
            tracing::warn!(records = opened.replayed, took = ?opened.took, "tables rebuilt: {why}");
        }
        for rot in &opened.rot {
            tracing::warn!(segment = rot.segment, offset = rot.offset, "a segment is damaged");
        }
        let draining = files::draining(&*config.system.fs, &config.data_dir)?;
        let pins = files::pins(&*config.system.fs, &config.data_dir)?;
        let shares = super::share::read_list(&*config.system.fs, &config.data_dir)?;
        let before = Before { standing, draining, pins, shares };
        let (shared, channels) = share(config, key, owner, before, store, catalogue);
        shared.listen().await?;
        shared.learn_epochs().await;
        let mut lan = Lan::new(shared.clone());
        shared.first_records(is_new, &mut lan).await?;
        let node = Self { shared, tasks: Mutex::default(), lock: Mutex::new(Some(lock)) };
        node.run(channels, lan);
        Ok(node)
    }

    fn run(&self, channels: Channels, lan: Lan) {
        let shared = &self.shared;
        let mut tasks = super::lock(&self.tasks);
        tasks.spawn(shape::run(shared.clone(), Bootstrap::new(shared.clone())));
        tasks.spawn(be_member(shared.clone(), channels, lan));
    }

    /// The directory of its keys and segments.
    pub fn data_dir(&self) -> &Path {
        &self.shared.config.data_dir
    }

    /// Resolves when the node cannot go on by itself.
    pub async fn failed(&self) -> Fatal {
        let mut fatal = self.shared.fatal.subscribe();
        loop {
            if let Some(why) = fatal.borrow_and_update().clone() {
                return why;
            }
            if fatal.changed().await.is_err() {
                // The sender lives in `shared`, which this borrows: it cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes no change in the tree any more, because this node is to leave its swarm; whether the
    /// swarm is of one and nothing is lost with it.
    pub fn leave(&self) -> bool {
        self.shared.close_work();
        self.shared.is_alone_with_nothing()
    }

    /// Tells the others, finishes what is being written, and ends.
    pub async fn stop(&self) {
        let (told, leaving) = oneshot::channel();
        if self.shared.standing().is_some() {
            self.shared.event(Event::Leave(told)).await;
            // The goodbye is a courtesy: nobody waits long for it.
            drop(tokio::time::timeout(Duration::from_millis(500), leaving).await);
        }
        self.shared.transport().shutdown().await;
        let mut tasks = std::mem::take(&mut *super::lock(&self.tasks));
        tasks.shutdown().await;
        let shared = self.shared.clone();
        // Ends the writer: everything queued is on disk when it returns.
        drop(self.shared.job(move || shared.store.close()).await);
        drop(super::lock(&self.lock).take());
    }
}

/// Takes the data directory for this process.
fn claim(config: &Config) -> Result<Box<dyn Lock>, StartError> {
    let fs = &*config.system.fs;
    for dir in [&config.data_dir, &config.config_dir] {
        make_dir(fs, dir).map_err(|source| StartError::Directory { path: dir.clone(), source })?;
    }
    let path = config.data_dir.join("lock");
    let io = |source| StartError::Directory { path: config.data_dir.clone(), source };
    let lock = match fs.lock(&path) {
        Ok(lock) => lock,
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
            let said = files::read(fs, &path)?.unwrap_or_default();
            let pid = String::from_utf8_lossy(&said).trim().parse().unwrap_or(0);
            return Err(StartError::Running { dir: config.data_dir.clone(), pid });
        }
        Err(err) => return Err(io(err)),
    };
    let file = fs.open(&path, OpenMode::Create).map_err(io)?;
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).and_then(|()| file.write_at(&[pid.as_bytes()], 0)).map_err(io)?;
    Ok(lock)
}

/// Makes a directory whose name survives a power failure: without that everything in it is lost,
/// however well it was synced. A directory that was there may not be durable yet either.
fn make_dir(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    fs.create_dir_all(dir)?;
    for above in dir.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs.sync_dir(above) {
            // Where this user may not look or nothing can be written, the name is others' work.
            Err(err) if is_of_others(err.kind()) => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}

fn is_of_others(why: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(why, PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// The owner key and the node's place in a swarm, if it has or can give itself one. Other daemons
/// of the same user wait meanwhile, so that they find one swarm key and not one each. Also whether
/// the swarm was made just now.
async fn standing(
    config: &Config,
    key: &NodeKey,
) -> Result<(crate::crypto::OwnerKey, Option<Standing>, bool), StartError> {
    let (fs, rng, dir) = (&*config.system.fs, &*config.system.rng, &config.config_dir);
    let key_id = key.id();
    let _lock = config_lock(config).await?;
    let owner = files::owner_key(fs, rng, dir)?;
    let found = files::swarm_key(fs, dir)?;
    if let Some(standing) = files::standing(fs, &config.data_dir)? {
        // Whose key came later is an admin from now on, and its grant says so.
        let promoted = found
            .filter(|key| key.public() == standing.swarm && !is_admin(&standing))
            .map(|key| grant_oneself(config, &key, key_id, owner.public()));
        if let Some(promoted) = &promoted {
            files::save_standing(fs, &config.data_dir, promoted)?;
        }
        let files::Standing { swarm, grant } = promoted.unwrap_or(standing);
        return Ok((owner, Some(Standing { swarm, grant }), false));
    }
    let is_new = found.is_none();
    let swarm = match found {
        Some(swarm) => swarm,
        None if config.bootstrap.is_empty() => files::make_swarm_key(fs, rng, dir)?,
        None => return Ok((owner, None, false)),
    };
    if Some(swarm.swarm()) == config.avoid {
        return Ok((owner, None, false));
    }
    let standing = grant_oneself(config, &swarm, key_id, owner.public());
    files::save_standing(fs, &config.data_dir, &standing)?;
    Ok((owner, Some(Standing { swarm: standing.swarm, grant: standing.grant }), is_new))
}

fn is_admin(standing: &files::Standing) -> bool {
    let grant = Grant::from_bytes(&standing.grant);
    grant.is_ok_and(|grant| grant.terms.roles.contains(Roles::ADMIN))
}

/// Whoever has the swarm key is admin, and lets himself in.
pub(super) fn grant_oneself(
    config: &Config,
    swarm: &SwarmKey,
    node: NodeId,
    owner: [u8; 32],
) -> files::Standing {
    let label = config.name.as_deref().unwrap_or_default();
    let (now, serial) = (config.system.clock.wall_ms(), config.system.rng.bytes());
    let grant = own_grant(swarm, node, owner, label, now, serial);
    files::Standing { swarm: swarm.public(), grant: grant.to_bytes() }
}

async fn config_lock(config: &Config) -> Result<Box<dyn Lock>, StartError> {
    // Not the name of the data directory's lock: one directory may be both.
    let path = config.config_dir.join("config.lock");
    for _ in 0..CONFIG_LOCK_TRIES {
        match config.system.fs.lock(&path) {
            Ok(lock) => return Ok(lock),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(source) => return Err(StartError::Directory { path, source }),
        }
    }
    Err(StartError::Directory { path, source: io::ErrorKind::WouldBlock.into() })
}

/// A capacity is shared by so many segments at least: what is dead in one is freed by copying the
/// rest of it, for which there has to be room …
const SEGMENTS: u64 = 16;
/// … but none is shorter than this.
const SEGMENT_LEAST: u64 = 16 << 20;

fn store_options(config: &Config, node: NodeId) -> Result<store::Options, StartError> {
    let fs = &config.system.fs;
    let dir = &config.data_dir;
    let space =
        fs.space(dir).map_err(|source| StartError::Directory { path: dir.clone(), source })?;
    let stored = stored_bytes(config);
    let capacity = config.capacity.unwrap_or_else(|| {
        let reachable = space.available.saturating_add(stored);
        (reachable / 5 * 4).min(reachable.saturating_sub(config.free_floor))
    });
    Ok(store::Options {
        dir: dir.clone(),
        node,
        capacity,
        cached_max: capacity / 100 * u64::from(config.cache_percent),
        free_floor: config.free_floor,
        segment_len: config.segment_len.min((capacity / SEGMENTS).max(SEGMENT_LEAST)),
        fs: fs.clone(),
        clock: config.system.clock.clone(),
        rng: config.system.rng.clone(),
        spawn: config.system.spawn.clone(),
    })
}

/// Bytes that the store has already, which are not free but this node's.
fn stored_bytes(config: &Config) -> u64 {
    let folder = |name: &str| config.system.fs.read_dir(&config.data_dir.join(name));
    let entries = ["segments", "cache"].iter().filter_map(|name| folder(name).ok()).flatten();
    entries.map(|entry| entry.len).sum()
}

/// The receiving ends of what `Shared` sends.
struct Channels {
    events: mpsc::Receiver<Event>,
    repair: mpsc::Receiver<Wanted>,
}

/// What a node remembers of its last life.
struct Before {
    standing: Option<Standing>,
    draining: bool,
    pins: Vec<Vec<u8>>,
    shares: Vec<super::share::Spec>,
}

fn share(
    config: Config,
    key: NodeKey,
    owner: crate::crypto::OwnerKey,
    before: Before,
    store: Store,
    catalogue: Arc<Catalogue>,
) -> (Arc<Shared>, Channels) {
    let (events, events_end) = mpsc::channel(limits::EVENTS);
    let (repair, repair_end) = mpsc::channel(limits::REPAIRS_WAITING);
    let me = key.id();
    let shared = Shared {
        me,
        key,
        owner,
        sys: config.system.clone(),
        began: config.system.clock.now(),
        config,
        store,
        catalogue,
        standing: watch::Sender::new(before.standing),
        door: super::Door::default(),
        transport: OnceLock::new(),
        views: watch::Sender::new(Arc::new(View::empty(me))),
        chooser: Mutex::default(),
        memory: Memory::new(limits::WORK_BYTES),
        fetched: Memory::new(limits::FETCH_BYTES),
        work: Default::default(),
        asked: Asked::new(limits::ASKED_BYTES),
        sealers: super::put::Sealers::default(),
        openers: super::get::Openers::default(),
        events,
        link_news: super::LinkNews::default(),
        gossip: Arc::new(tokio::sync::Semaphore::new(limits::GOSSIP_BYTES)),
        behind: worker::reconcile::Behind::default(),
        reconciled: watch::Sender::default(),
        damaged: worker::mend::DamagedRecords::default(),
        repair,
        repair_missed: Default::default(),
        lost: Mutex::default(),
        scrub: Default::default(),
        board: Default::default(),
        late: Default::default(),
        repair_tally: watch::Sender::default(),
        counted: watch::Sender::default(),
        links: Mutex::default(),
        pointers: Mutex::default(),
        withdrawn: Mutex::default(),
        promises: Mutex::default(),
        draining: watch::Sender::new(before.draining),
        pins: Pins::new(before.pins),
        shared_here: super::share::Desk::new(before.shares),
        observed: Mutex::default(),
        observed_anew: Default::default(),
        hosts: Mutex::default(),
        host_swarm: Mutex::default(),
        troubles: Mutex::default(),
        changes: broadcast::channel(limits::EVENTS).0,
        records_changed: watch::Sender::default(),
        readers_changed: watch::Sender::default(),
        fatal: watch::Sender::default(),
    };
    (Arc::new(shared), Channels { events: events_end, repair: repair_end })
}

impl Shared {
    async fn listen(self: &Arc<Self>) -> Result<(), StartError> {
        let transport = Transport::start(transport::Options {
            key: self.key.clone(),
            net: self.sys.net.clone(),
            rng: self.sys.rng.clone(),
            limits: transport::Limits::default(),
            listen: self.config.listen.clone(),
            handler: Arc::new(Service(self.clone())),
            security: self.sys.security,
            requests: Buffers::new(limits::SERVE_BYTES / 2),
            responses: Buffers::new(limits::SERVE_BYTES / 2),
        });
        let transport = transport.await?;
        let rates = Rates { up: self.config.limit_up, down: self.config.limit_down };
        let set = transport.pace().set(None, rates);
        set.expect("the limits for all peers together always have room");
        // Set once: `listen` is called once.
        drop(self.transport.set(transport));
        Ok(())
    }

    /// What a member must have said before it says anything else: its own grant, and in a swarm
    /// that nobody else has founded, an epoch. Who has got the key of a swarm that was made before
    /// looks for its nodes first.
    async fn first_records(
        self: &Arc<Self>,
        is_new: bool,
        lan: &mut Lan,
    ) -> Result<(), StartError> {
        let newest = self.read_records(|view| catalogue::newest_clock(view)).unwrap_or_default();
        self.catalogue.set_clock(newest);
        if self.standing().is_none() {
            self.ask_to_enter();
            return Ok(());
        }
        self.say_own_grant().await?;
        let begins = self.config.bootstrap.is_empty() && self.swarm_key()?.is_some();
        if begins && !self.is_founded()? && (is_new || !lan.finds_own_swarm(LAN_PATIENCE).await) {
            self.found_if_nobody_did().await?;
        }
        Ok(())
    }

    /// Whether the swarm has an epoch, as far as this node knows.
    fn is_founded(&self) -> Result<bool, StartError> {
        // Without the tables nothing is known, least of all that the swarm has no epoch yet.
        let epochs = self.read_records(|view| catalogue::epochs(view));
        Ok(!epochs.map_err(StartError::Tables)?.is_empty())
    }

    /// Makes the first epoch of a swarm that has none, with its key.
    pub(super) async fn found_if_nobody_did(self: &Arc<Self>) -> Result<(), StartError> {
        if let Some(swarm) = self.swarm_key()?
            && !self.is_founded()?
        {
            self.found(&swarm, self.config.open).await?;
        }
        Ok(())
    }

    /// Makes known the grant of a node that has let itself in with the swarm key: nobody else does.
    pub(super) async fn say_own_grant(self: &Arc<Self>) -> Result<(), StartError> {
        let Some(standing) = self.standing() else { return Ok(()) };
        let Some(swarm) = self.swarm_key()? else { return Ok(()) };
        let said = self.read_records(|view| {
            let grants = catalogue::grants_of(view, &self.me)?;
            let grants = grants.iter().map(|id| view.record(id));
            let grants: Vec<_> = grants.collect::<io::Result<_>>()?;
            let is_ours =
                |bytes| Record::parse(bytes).is_ok_and(|record| record.body() == standing.grant);
            Ok(grants.into_iter().flatten().any(is_ours))
        });
        if !said.map_err(StartError::Tables)?
            && let Ok(grant) = Grant::from_bytes(&standing.grant)
        {
            self.publish_grant(&swarm, &grant).await?;
        }
        Ok(())
    }

    /// Becomes one who waits: draws a code and asks every host it reaches.
    fn ask_to_enter(&self) {
        let label = self.config.name.clone().unwrap_or_default();
        let request = JoinRequest { node: self.me, owner: self.owner.public(), label };
        let now = self.sys.clock.now();
        self.door.wait(Joiner::new(now, request, self.sys.rng.bytes()));
    }

    /// Becomes a member. The connections that it has as a stranger end; it dials again.
    pub(super) fn enter(&self, standing: Standing) {
        let file = files::Standing { swarm: standing.swarm, grant: standing.grant.clone() };
        if let Err(err) = files::save_standing(&*self.sys.fs, &self.config.data_dir, &file) {
            tracing::error!(%err, "the grant cannot be kept: this node will ask again");
        }
        self.catalogue.set_swarm(standing.swarm);
        self.door.entered();
        tracing::info!(swarm = %standing.swarm_id().short(), "this node is a member now");
        self.standing.send_replace(Some(standing));
    }
}

/// Waits until the node is a member, then runs the membership loop and the workers.
async fn be_member(shared: Arc<Shared>, channels: Channels, lan: Lan) {
    let waited = shared.standing().is_none();
    let mut standing = shared.standing.subscribe();
    let Ok(standing) = standing.wait_for(Option::is_some).await.map(|s| s.clone()) else { return };
    let Some(standing) = standing else { return };
    if waited && shared.store.usage().records > 0 {
        // It was a member once and its grant was lost: the tables may have been filled while nobody
        // could say which swarm's records are valid.
        shared.rebuild_tables("this node is a member again").await;
    }
    if waited && let Err(err) = shared.say_own_grant().await {
        // A worker does it, when it can be done.
        tracing::warn!(%err, "the grant of this node is not known to the others yet");
    }
    let fs = &*shared.sys.fs;
    let saved = files::peers(fs, &shared.config.data_dir).into_iter();
    let identity = Identity {
        key: shared.key.clone(),
        epoch: shared.sys.clock.wall_ms(),
        state: shared.self_state(&standing),
        saved: saved.map(|peer| (peer.id, peer.addrs)).collect(),
    };
    let vouch = Box::new(GrantVouch(shared.clone()));
    let config = shared.config.membership.clone();
    let membership = Membership::new(identity, config, shared.sys.rng.u64(), vouch);
    let run = Loop::new(shared.clone(), membership);
    let mut tasks = JoinSet::new();
    tasks.spawn(run.run(channels.events));
    tasks.spawn(shape::run(shared.clone(), Commit::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Describe::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Reconcile::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Mend::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Issue::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), lan));
    tasks.spawn(shape::run(shared.clone(), Releases::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Gc::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Scrub::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Pin::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Shares::new(shared.clone())));
    tasks.spawn(shape::run(shared.clone(), Repair::new(shared.clone(), channels.repair)));
    // Ends only when a worker has failed: they all run for as long as the node does.
    tasks.join_next().await;
    shared.fatal.send_replace(Some(Fatal::Broken));
}

/// Believes records that are signed by the node that they are about, and that carry its grant.
struct GrantVouch(Arc<Shared>);

impl Vouch for GrantVouch {
    fn vouch(&self, record: &MemberRecord) -> bool {
        record.is_signed() && self.0.verify_grant(&record.grant, &record.id).is_ok()
    }
}

/// Forgets a swarm in which this node was alone and has stored nothing, so that it can join
/// another. The node must not be running.
pub fn forget_swarm(config: &Config) -> Result<(), StartError> {
    let fs = &*config.system.fs;
    let io = |path: &Path, source| StartError::Directory { path: path.into(), source };
    for name in ["segments", "tables", "cache"] {
        let dir = config.data_dir.join(name);
        for entry in fs.read_dir(&dir).unwrap_or_default() {
            let path = dir.join(entry.name);
            fs.remove_file(&path).map_err(|err| io(&path, err))?;
        }
    }
    Ok(files::drop_standing(fs, &config.data_dir)?)
}
