//! The shell: one running node. Owns the tasks, the wiring and the order of starting and stopping;
//! it runs what `core` decides and decides nothing itself.
//!
//! | room | what happens there |
//! |---|---|
//! | `api` | what a person or program may ask of this node |
//! | `run`, `event` | the membership loop |
//! | `view` | a snapshot of the members, with their placement |
//! | `door` | who is let in, and how this node gets in |
//! | `serve` | what peers ask of this node |
//! | `ask`, `fetch`, `from` | what this node asks of peers |
//! | `put`, `attempt`, `again`, `replicate`, `get` | files in and out |
//! | `share` | files that are served from where they lie |
//! | `records` | the catalogue: kept, passed on |
//! | `publish` | this node's own records and the clock that they are made by |
//! | `epochs` | who can read: content secrets opened and sealed |
//! | `work` | files and directories as the programs of this machine see and change them |
//! | `worker` | repair, scrub, reconciliation, damaged records, bootstrap, self-description, new readers |
//!
//! A node that has no grant yet *waits*: it listens, answers on its socket, and asks to be let in.
//! Once it is a member (`enter`) the membership loop and the workers start.

mod again;
mod api;
mod ask;
mod asked;
mod attempt;
mod config;
mod door;
mod epochs;
mod event;
mod fetch;
mod files;
mod from;
mod get;
mod memory;
mod newest;
mod pins;
mod publish;
mod put;
mod records;
mod release;
mod replicate;
mod run;
mod serve;
mod share;
mod start;
mod view;
mod work;
mod worker;

pub use crate::chunk::TooLarge;
pub use crate::core::catalogue::Special;
pub use crate::core::placement::Balance;
pub use crate::core::search::BadQuery;
pub use crate::core::tree::{TreeError, VersionError};
pub use crate::core::work::{ROOT_NUMBER, Renaming};
pub use crate::store::OpenError as StoreError;
pub use crate::store::WriteError;
pub use crate::transport::{DialError, StartError as ListenError};
pub use api::{Error, LimitError, LinkFault, ManyStored, NotMoved, Outcome, Watch};
pub use ask::AskError;
pub use config::{Config, System};
pub use door::ApprovalError;
pub use fetch::{Sharer, SharerState, Unavailable};
pub use files::FileError;
pub use from::NotFrom;
pub use get::GetError;
pub use publish::PublishError;
pub use put::{OnProgress, PutError};
pub use share::ShareError;
pub use start::{Node, StartError, forget_swarm};
pub use work::{
    Changes, Kind, Made, News, OpenedFile, Page, Share, Space, Stale, Stat, Work, WorkError,
    Written, Xattr,
};

use crate::core::membership::MemberChange;
use crate::core::placement::millionths;
use crate::core::transfer::Chooser;
use crate::crypto::{NodeKey, OwnerKey};
use crate::id::SwarmId;
use crate::id::{ChunkId, NodeId};
use crate::store::{FollowTables, Op, Outcome as Kept, Store, SubmitError, Verdict};
use crate::transport::Transport;
use door::{Door, Standing};
use event::{Event, LinkNews};
use memory::Memory;
use records::Catalogue;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinError;
use view::{Member, View};
use worker::repair::Tally as RepairTally;

/// How long an address that led nowhere is shown as trouble: longer than the pause after which one
/// that is still wanted is dialled again.
const TROUBLE_LASTS: Duration = Duration::from_secs(90);

/// Why the node cannot do this now. Nothing was changed; it may be possible soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is not a member of a swarm yet.
    #[error("this node waits for approval")]
    Waiting,
    /// It has no key to the swarm's content: it has not reached its swarm yet, or may not read.
    #[error("this node has not read its swarm's catalogue yet")]
    NoEpoch,
}

/// Why a node ends by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// A part of it broke down.
    #[error("a part of this node broke down")]
    Broken,
    /// The bootstrap peer belongs to another swarm, and this node has a swarm with data.
    #[error("{addr} belongs to another swarm")]
    OtherSwarm {
        /// The peer.
        addr: SocketAddr,
        /// Whether this node's own swarm is of one and empty, so that it can be left.
        empty: bool,
    },
}

/// What all parts of the shell share.
pub(crate) struct Shared {
    me: NodeId,
    key: NodeKey,
    owner: OwnerKey,
    config: Config,
    sys: System,
    store: Store,
    catalogue: Arc<Catalogue>,
    standing: watch::Sender<Option<Standing>>,
    door: Door,
    transport: OnceLock<Transport>,
    views: watch::Sender<Arc<View>>,
    chooser: Mutex<Chooser>,
    memory: Memory,
    /// For chunks on their way to peers.
    fetched: Memory,
    /// What programs on this machine see and change.
    work: work::Desk,
    /// What peers ask.
    asked: asked::Asked,
    sealers: put::Sealers,
    openers: get::Openers,
    events: mpsc::Sender<Event>,
    link_news: LinkNews,
    /// Bytes of gossip that may still wait for the loop.
    gossip: Arc<Semaphore>,
    behind: worker::reconcile::Behind,
    /// When this node's catalogue was last made equal to a neighbour's.
    reconciled: watch::Sender<BTreeMap<NodeId, crate::sys::Time>>,
    damaged: worker::mend::DamagedRecords,
    repair: mpsc::Sender<worker::handover::Wanted>,
    /// Chunks of answered puts whose further copies take long, until repair has counted them.
    late: Arc<AtomicU64>,
    /// Whether some chunks were not handed to repair because too many waited.
    repair_missed: AtomicBool,
    repair_tally: watch::Sender<RepairTally>,
    /// What only history keeps, once it was counted.
    counted: watch::Sender<Option<worker::count::Counted>>,
    /// Damaged chunks of this node that nobody had when they were last asked for.
    lost: Mutex<BTreeSet<ChunkId>>,
    scrub: worker::scrub::Desk,
    /// What the workers are doing.
    board: worker::board::Board,
    links: Mutex<BTreeSet<NodeId>>,
    pointers: Mutex<serve::PointerTable>,
    withdrawn: Mutex<attempt::Withdrawn>,
    promises: Mutex<worker::surplus::Promises>,
    /// Whether this node is being emptied.
    draining: watch::Sender<bool>,
    pins: pins::Pins,
    /// What is served from where it lies.
    shared_here: share::Desk,
    observed: Mutex<worker::describe::Observed>,
    observed_anew: Notify,
    /// What the bootstrap names stand for.
    hosts: Mutex<BTreeSet<SocketAddr>>,
    /// The swarm of the host that this node waits at.
    host_swarm: Mutex<Option<SwarmId>>,
    /// What is wrong with the way to others, by address, and since when that is known; shown by
    /// `status`.
    troubles: Mutex<BTreeMap<String, (String, crate::sys::Time)>>,
    changes: broadcast::Sender<api::Changed>,
    records_changed: watch::Sender<u64>,
    /// Counts records of grants, epochs and open statements.
    readers_changed: watch::Sender<u64>,
    fatal: watch::Sender<Option<Fatal>>,
    began: crate::sys::Time,
}

/// What a task came to; none: the node is stopping. A fault of this program is passed on, so that
/// it does not look like that.
fn joined<T>(task: Result<T, JoinError>) -> Option<T> {
    match task.map_err(JoinError::try_into_panic) {
        Ok(value) => Some(value),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.subscribe()
    }

    /// The nodes that should take a chunk now.
    fn home(&self, view: &View, cid: &ChunkId, replicas: u8) -> Vec<NodeId> {
        let chooser = self.chooser();
        let balance = self.config.balance;
        let used = |member: &Member| match balance {
            Balance::LeastStored => self.used(&chooser, member),
            Balance::Auto | Balance::LeastLatency => 0,
        };
        view.home(cid, replicas, balance, &|id| chooser.speed(id), &used)
    }

    /// How full a member is, in millionths, as exactly as that is known here.
    fn used(&self, chooser: &Chooser, member: &Member) -> u32 {
        let record = &member.record;
        if record.id == self.me {
            let usage = self.store.usage();
            return millionths(usage.replica_bytes, usage.capacity);
        }
        chooser.used(&record.id, self.sys.clock.now(), member.used(), record.capacity)
    }

    /// The live ones of these holders, in the order in which they are to be asked for a chunk.
    fn readers_choice(&self, view: &View, holders: &[NodeId]) -> Vec<NodeId> {
        let chooser = self.chooser();
        let mut order = chooser.order(holders);
        if self.config.balance == Balance::LeastStored {
            let used = |id: &NodeId| view.members.get(id).map_or(0, |m| self.used(&chooser, m));
            order.sort_by_cached_key(|id| (chooser.is_last(id), used(id)));
        }
        order.retain(|id| view.lives(id));
        order
    }

    fn chooser(&self) -> MutexGuard<'_, Chooser> {
        lock(&self.chooser)
    }

    fn transport(&self) -> &Transport {
        self.transport.get().expect("the transport is there before anything that uses it starts")
    }

    fn standing(&self) -> Option<Standing> {
        self.standing.borrow().clone()
    }

    /// Whether this node is a member.
    fn ready(&self) -> Result<(), NotReady> {
        if self.standing.borrow().is_some() { Ok(()) } else { Err(NotReady::Waiting) }
    }

    fn links(&self) -> BTreeSet<NodeId> {
        lock(&self.links).clone()
    }

    fn memory_is_short(&self) -> bool {
        self.memory.is_short()
    }

    async fn event(&self, event: Event) {
        // The loop ends last; when it is gone there is no membership to tell.
        drop(self.events.send(event).await);
    }

    fn repair_reports(&self, tally: RepairTally) {
        self.repair_tally.send_if_modified(|old| std::mem::replace(old, tally) != tally);
    }

    fn records_changed(&self) {
        self.records_changed.send_modify(|count| *count += 1);
    }

    fn member_changed(&self, change: &MemberChange) {
        // Without a listener the news is not needed.
        drop(self.changes.send(api::Changed::Member(change.id)));
    }

    /// Notes why an address that was to be dialled did not lead to a member.
    fn dial_failed(&self, addr: SocketAddr, err: &DialError) {
        tracing::debug!(%addr, %err, "dialling failed");
        worker::bootstrap::dial_failed(self, addr, err);
    }

    fn trouble(&self, with: &str, what: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match what {
            // Bounded by the number of addresses that a person has given.
            Some(what) if troubles.len() < 64 || troubles.contains_key(with) => {
                let now = self.sys.clock.now();
                let before = troubles.insert(with.to_owned(), (what.clone(), now));
                if before.is_none_or(|(before, _)| before != what) {
                    tracing::warn!("{what}");
                }
            }
            Some(_) => {}
            None => drop(troubles.remove(with)),
        }
    }

    /// A member is reached: what was wrong with addresses before says nothing about now. Those
    /// that still lead nowhere are dialled again, and noted again.
    fn forget_dial_troubles(&self) {
        lock(&self.troubles).retain(|with, _| with.parse::<SocketAddr>().is_err());
    }

    /// What is wrong with the way to others now. An address that led nowhere for this long, while
    /// others were reached, is not dialled any more.
    fn current_troubles(&self) -> Vec<String> {
        let (now, alone) = (self.sys.clock.now(), self.view().others().next().is_none());
        let mut troubles = lock(&self.troubles);
        troubles.retain(|with, (_, noted)| {
            alone || now.since(*noted) < TROUBLE_LASTS || with.parse::<SocketAddr>().is_err()
        });
        troubles.values().map(|(what, _)| what.clone()).collect()
    }

    /// Whether the chunk is a replica here.
    fn holds(&self, cid: &ChunkId) -> bool {
        matches!(self.store.held(*cid), Ok(Some(held)) if held.replica)
    }

    /// Which of the chunks are replicas here, in their order; the tables are read beside the tasks.
    async fn which_held(self: &Arc<Self>, cids: Vec<ChunkId>) -> io::Result<Vec<bool>> {
        let shared = self.clone();
        self.job(move || cids.iter().map(|cid| shared.holds(cid)).collect()).await
    }

    /// Has the store do something, waiting while it is busy; done when it is on disk.
    async fn write(&self, mut ops: Vec<Op>) -> Result<Vec<Kept>, WriteError> {
        loop {
            let (done, kept) = oneshot::channel();
            let report = Box::new(move |result| drop(done.send(result)));
            match self.store.submit(ops, report) {
                Ok(()) => {
                    let closed = || Err(WriteError::ReadOnly("this node is stopping".into()));
                    return kept.await.unwrap_or_else(|_| closed());
                }
                Err((SubmitError::Busy, again)) => ops = again,
                Err((err, _)) => return Err(WriteError::ReadOnly(err.to_string())),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Changes tables alone.
    async fn change_tables<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut dyn FollowTables) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let out = Arc::new(Mutex::new(None));
        let slot = out.clone();
        let work = Box::new(move |tables: &mut dyn FollowTables| {
            let value = change(tables)?;
            *lock(&slot) = Some(value);
            Ok(())
        });
        let report = Box::new(move |result| drop(done.send(result)));
        self.store.update_tables(work, report).map_err(io::Error::other)?;
        result.await.map_err(io::Error::other)??;
        let value = lock(&out).take();
        value.ok_or_else(|| io::Error::other("the change did not run"))
    }

    /// Builds the tables anew and reads the epochs from them.
    async fn rebuild_tables(self: &Arc<Self>, reason: &'static str) {
        let (done, finished) = oneshot::channel();
        // Whoever waits may have been cancelled meanwhile.
        let report = Box::new(move || _ = done.send(()));
        match self.store.rebuild(reason, report) {
            // When the store has closed meanwhile, nobody needs the tables.
            Ok(()) => drop(finished.await),
            Err(err) => tracing::warn!(%err, "the tables were not rebuilt"),
        }
        self.learn_epochs().await;
        self.records_changed();
    }

    /// Runs work that computes, or waits for a disk or pipe, beside the tasks.
    async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        // The one who waits may have been cancelled meanwhile.
        self.sys.spawn.run(Box::new(move || drop(done.send(work()))));
        result.await.map_err(|_| io::ErrorKind::Interrupted.into())
    }

    /// Has a chunk of this node hashed again, because it did not open.
    fn check_again(self: &Arc<Self>, cid: ChunkId) {
        let shared = self.clone();
        self.sys.spawn.run(Box::new(move || {
            match shared.store.verify(cid) {
                Ok(Verdict::Damaged) => shared.repair_when_noted(cid),
                // Scrub replaces what the disk cannot read.
                Ok(Verdict::Good | Verdict::Missing | Verdict::Unreadable) => {}
                Err(err) => tracing::warn!(%err, "a chunk cannot be read"),
            }
        }));
    }

    /// Has a chunk repaired that was found damaged, once the tables say so: before, repair would
    /// take it for a good one.
    fn repair_when_noted(self: &Arc<Self>, cid: ChunkId) {
        let shared = self.clone();
        // What was found is in the queue before this.
        let noted = Box::new(move |_| shared.wants_repair(cid));
        if let Err(err) = self.store.update_tables(Box::new(|_| Ok(())), noted) {
            tracing::warn!(%err, "a damaged chunk is repaired later");
        }
    }

    fn repair_queue(&self) -> &mpsc::Sender<worker::handover::Wanted> {
        &self.repair
    }
}
