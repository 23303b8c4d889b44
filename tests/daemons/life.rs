//! One simulated machine: its disk, which outlives it, and its lives. A life is a whole node,
//! started as the daemon starts it, that does what the plan orders and reports what came of it. It
//! has a runtime of its own, beside that of its [`Kernel`], so that it can be paused as by SIGSTOP:
//! then no task of it runs and no timer, and afterwards all that were due are due at once.

use crate::chance::Dice;
use crate::checks::memory::Books;
use crate::checks::plaintext::Secrets;
use crate::checks::removed::Change;
use crate::disk::Aside;
use crate::evil::Liar;
use crate::history::History;
use crate::kernel::{Call, Kernel};
use crate::machine::{InlineSpawn, SeededRng};
use crate::simfs::SimFs;
use crate::tap::{TappedNet, VirtualClock};
use p2pfs::id::FileHash;
use p2pfs::node::{Config, Node, System};
use p2pfs::sys::{Sink, Source, SourceChanged};
use p2pfs::transport::Security;
use p2pfs::wire::control::{
    Event, FileStat, Get, PathText, Put, Range, Rm, Status, Stored, Target,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

/// The port of every node.
pub(crate) const PORT: u16 = 4000;

/// What each node offers, in bytes.
pub(crate) const CAPACITY: u64 = 256 << 20;
/// How long what unfinished puts leave behind is kept.
pub(crate) const LAPSE_AFTER: Duration = Duration::from_secs(90);
/// Length of a segment.
pub(crate) const SEGMENT_LEN: u64 = 2 << 20;

/// What all machines of a simulation have in common.
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) history: History,
    pub(crate) tls: bool,
    pub(crate) replicas: u8,
    pub(crate) repair_delay: Duration,
    pub(crate) gc_grace: Duration,
    pub(crate) reports: RefCell<Vec<Report>>,
    pub(crate) secrets: Secrets,
}

/// What a machine is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    Put { path: Option<String>, content: Arc<Vec<u8>>, replicas: Option<u8> },
    Get { target: Target, range: Option<Range>, seekable: bool },
    Ls,
    Change(PathText, Change),
    Scrub,
    Drain(bool),
    Stat(FileHash),
    Status,
    Approve(String),
    Stop,
}

/// What came of an order.
pub(crate) enum Outcome {
    Put(Result<Stored, String>),
    Get(Result<(FileHash, Vec<u8>), String>),
    Ls(Result<Listing, String>),
    Change(Result<(), String>),
    Scrub(Result<(), String>),
    Drain(Result<(), String>),
    Stat(Result<FileStat, String>),
    Status(Result<Box<Status>, String>),
    Approve(Result<(), String>),
    Stop,
}

/// Every path below the root, and the hash of what is there.
pub(crate) type Listing = Vec<(String, Option<FileHash>)>;

/// The answer to an order.
pub(crate) struct Report {
    pub(crate) number: u64,
    pub(crate) at: Duration,
    pub(crate) outcome: Outcome,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) number: usize,
    setup: Rc<Setup>,
    /// By how much its wall clock is ahead, in milliseconds.
    ahead_ms: Arc<AtomicI64>,
    state: RefCell<State>,
    life: RefCell<Option<Life>>,
}

struct State {
    disk: SimFs,
    lives: u64,
    bootstrap: Vec<(String, u16)>,
    orders: Option<mpsc::Sender<(u64, Order)>>,
    failed: Option<String>,
    liar: Option<Liar>,
    /// What the kernel of the next life takes.
    calls: Option<mpsc::UnboundedReceiver<Call>>,
}

/// A life under way.
struct Life {
    tokio: Runtime,
    local: LocalSet,
    task: JoinHandle<()>,
    /// How much time has passed that it has not noticed, while it is paused.
    missed: Option<Duration>,
}

impl Life {
    fn begin<F: Future<Output = ()> + 'static>(node: impl FnOnce() -> F) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let tokio = builder.enable_time().start_paused(true).build().unwrap();
        let local = LocalSet::new();
        let task = {
            let _inside = tokio.enter();
            local.spawn_local(node())
        };
        Self { tokio, local, task, missed: None }
    }

    /// Lets time pass; whether the life goes on.
    fn tick(&mut self, span: Duration) -> bool {
        if let Some(missed) = &mut self.missed {
            *missed += span;
            return true;
        }
        let pass = self.local.run_until(async { tokio::time::sleep(span).await });
        self.tokio.block_on(pass);
        !self.task.is_finished()
    }

    /// Goes on after a pause.
    fn resume(&mut self) {
        if let Some(missed) = self.missed.take() {
            let jump = self.local.run_until(async { tokio::time::advance(missed).await });
            self.tokio.block_on(jump);
        }
    }

    fn end(self) {
        let _inside = self.tokio.enter();
        drop(self.local);
    }
}

impl Machine {
    /// A machine with an empty disk.
    pub(crate) fn new(setup: &Rc<Setup>, number: usize, ahead_ms: i64) -> Rc<Self> {
        let seed = Dice::new(setup.seed, &format!("disk {number}")).roll();
        Rc::new(Self {
            name: format!("n{number}"),
            number,
            setup: setup.clone(),
            ahead_ms: Arc::new(AtomicI64::new(ahead_ms)),
            state: RefCell::new(State {
                disk: SimFs::new(seed),
                lives: 0,
                bootstrap: Vec::new(),
                orders: None,
                failed: None,
                liar: None,
                calls: None,
            }),
            life: RefCell::default(),
        })
    }

    /// By how much its wall clock is ahead, in milliseconds; shared with the clock itself.
    pub(crate) fn ahead_ms(&self) -> &AtomicI64 {
        &self.ahead_ms
    }

    /// Makes it evil: from its next life on there is a liar between it and the others.
    pub(crate) fn make_evil(&self) -> Liar {
        let dice = Dice::new(self.setup.seed, "lies");
        let liar = Liar::new(dice, self.setup.history.clone());
        self.state.borrow_mut().liar = Some(liar.clone());
        liar
    }

    /// What turmoil runs as this machine.
    pub(crate) async fn kernel(self: Rc<Self>) -> turmoil::Result {
        let calls = self.state.borrow_mut().calls.take();
        // Without a life there is nothing to do.
        match calls {
            Some(calls) => crate::kernel::run(calls).await,
            None => Ok(()),
        }
    }

    /// Begins a life; its kernel is to be started next.
    pub(crate) fn begin(self: &Rc<Self>, now: Duration, names: &Arc<BTreeMap<String, IpAddr>>) {
        let (kernel, calls) = Kernel::new(names.clone());
        let (orders, queue) = mpsc::channel(256);
        {
            let mut state = self.state.borrow_mut();
            (state.calls, state.orders) = (Some(calls), Some(orders));
            state.lives += 1;
        }
        let _books = Books::of(self.number);
        let life = Life::begin(|| {
            let clock = Arc::new(VirtualClock::new(now, self.ahead_ms.clone()));
            self.clone().live(kernel, clock, queue)
        });
        *self.life.borrow_mut() = Some(life);
    }

    /// Lets time pass in the node; whether its life goes on.
    pub(crate) fn tick(&self, span: Duration) -> bool {
        let _books = Books::of(self.number);
        self.life.borrow_mut().as_mut().is_none_or(|life| life.tick(span))
    }

    /// Stops the node in the middle of what it does, or lets it go on.
    pub(crate) fn pause(&self, pause: bool) {
        let _books = Books::of(self.number);
        match self.life.borrow_mut().as_mut() {
            Some(life) if pause => life.missed = life.missed.or(Some(Duration::ZERO)),
            Some(life) => life.resume(),
            None => {}
        }
    }

    /// Whether it is stopped in the middle of what it does.
    pub(crate) fn is_paused(&self) -> bool {
        self.life.borrow().as_ref().is_some_and(|life| life.missed.is_some())
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> SimFs {
        self.state.borrow().disk.clone()
    }

    /// Puts another disk in.
    pub(crate) fn replace_disk(&self, disk: SimFs) {
        self.state.borrow_mut().disk = disk;
    }

    /// Where its next life asks to be let in.
    pub(crate) fn set_bootstrap(&self, names: &[String]) {
        self.state.borrow_mut().bootstrap = names.iter().map(|n| (n.clone(), PORT)).collect();
    }

    /// Gives an order; false when nobody is there to take it.
    pub(crate) fn order(&self, number: u64, order: Order) -> bool {
        let state = self.state.borrow();
        state.orders.as_ref().is_some_and(|orders| orders.try_send((number, order)).is_ok())
    }

    /// Why the node of this life did not start, or gave up.
    pub(crate) fn take_failure(&self) -> Option<String> {
        self.state.borrow_mut().failed.take()
    }

    /// Ends the life.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        (state.orders, state.calls) = (None, None);
        drop(state);
        let life = self.life.borrow_mut().take();
        life.into_iter().for_each(Life::end);
    }

    fn config(&self, kernel: Kernel, clock: Arc<VirtualClock>, spawn: Arc<InlineSpawn>) -> Config {
        let state = self.state.borrow();
        let purpose = format!("life {} of {}", state.lives, self.name);
        let (setup, tls) = (&self.setup, self.setup.tls);
        let net = TappedNet {
            kernel,
            history: setup.history.clone(),
            clock: clock.clone(),
            name: self.name.clone(),
            bytes_count: !tls,
            liar: state.liar.clone(),
            secrets: setup.secrets.clone(),
        };
        let mut config = Config::new("/p2pfs/data", "/p2pfs/config");
        config.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
        config.bootstrap.clone_from(&state.bootstrap);
        config.name = Some(self.name.clone());
        config.machine = [u8::try_from(self.number).unwrap() + 1; 8];
        config.capacity = Some(CAPACITY);
        config.replicas = setup.replicas;
        config.repair_delay = setup.repair_delay;
        config.gc_grace = setup.gc_grace;
        config.lapse_after = LAPSE_AFTER;
        config.segment_len = SEGMENT_LEN;
        config.free_floor = 0;
        config.reconcile_every = Duration::from_secs(5);
        config.lan = None;
        config.system = System {
            fs: Arc::new(Aside(state.disk.clone())),
            net: Arc::new(net),
            clock,
            rng: Arc::new(SeededRng::new(Dice::new(setup.seed, &purpose).roll())),
            spawn,
            user: (0, 0),
            security: if tls { Security::tls() } else { Security::named_for_simulation() },
        };
        config
    }

    /// One life, from power on to power off.
    async fn live(
        self: Rc<Self>,
        kernel: Kernel,
        clock: Arc<VirtualClock>,
        mut queue: mpsc::Receiver<(u64, Order)>,
    ) {
        let spawn = Arc::new(InlineSpawn::default());
        let node = match Node::start(self.config(kernel, clock.clone(), spawn.clone())).await {
            Ok(node) => Rc::new(node),
            Err(err) => {
                self.state.borrow_mut().failed = Some(err.to_string());
                return;
            }
        };
        tokio::task::spawn_local(watch(node.clone(), self.clone(), clock.clone()));
        loop {
            tokio::select! {
                biased;
                order = queue.recv() => match order {
                    Some((number, Order::Stop)) => {
                        node.stop().await;
                        self.report(&clock, number, Outcome::Stop);
                        return;
                    }
                    Some((number, order)) => {
                        let (node, machine, clock) = (node.clone(), self.clone(), clock.clone());
                        tokio::task::spawn_local(async move {
                            let outcome = carry_out(&node, order).await;
                            machine.report(&clock, number, outcome);
                        });
                    }
                    None => return,
                },
                why = node.failed() => {
                    self.state.borrow_mut().failed = Some(why.to_string());
                    return;
                }
                // Threads wake up by themselves now and then.
                () = tokio::time::sleep(Duration::from_secs(10)) => spawn.tick(),
            }
        }
    }

    fn report(&self, clock: &VirtualClock, number: u64, outcome: Outcome) {
        let report = Report { number, at: clock.elapsed(), outcome };
        let _aside = Books::aside();
        self.setup.reports.borrow_mut().push(report);
    }
}

/// Notes what the node says about its peers.
async fn watch(node: Rc<Node>, machine: Rc<Machine>, clock: Arc<VirtualClock>) {
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if let Event::Peer { peer } = event {
            let (at, by) = (clock.elapsed(), &machine.name);
            let (who, id) = (&peer.name, peer.id.short());
            machine.setup.history.note(at, format_args!("{by} sees {who} {id} {:?}", peer.state));
            machine.setup.history.count(&format!("seen {:?}", peer.state).to_lowercase());
        }
    }
}

async fn carry_out(node: &Node, order: Order) -> Outcome {
    let quiet = Arc::new(|_: u64, _: Option<u64>| {});
    match order {
        Order::Put { path, content, replicas } => {
            let path = path.map(|path| PathText(path.into_bytes()));
            let put = Put { path, replicas, ..Put::default() };
            let source = Box::new(FromMemory { content, at: 0 });
            Outcome::Put(node.put(put, source, quiet).await.map_err(|err| err.to_string()))
        }
        Order::Get { target, range, seekable } => {
            let into = Arc::new(IntoMemory { bytes: Mutex::default(), seekable });
            let get = Get { target, range, seekable, from: None };
            let done = node.get(get, into.clone(), quiet).await;
            let bytes = std::mem::take(&mut *into.bytes.lock().unwrap());
            Outcome::Get(done.map(|got| (got.hash, bytes)).map_err(|err| err.to_string()))
        }
        Order::Ls => {
            let mut listing = Listing::new();
            let done = node.ls(&PathText(b"/".to_vec()), true, &mut |file| {
                listing.push((String::from_utf8_lossy(&file.path.0).into_owned(), file.hash));
                true
            });
            Outcome::Ls(done.map(|()| listing).map_err(|err| err.to_string()))
        }
        Order::Change(path, change) => {
            let done = match change {
                Change::Restore => node.restore(&path, false).await.map(drop),
                Change::Remove | Change::Purge => {
                    let (target, purge) = (Target::Path(path), change == Change::Purge);
                    node.rm(Rm { target, recursive: false, purge }).await.map(drop)
                }
            };
            Outcome::Change(done.map_err(|err| err.to_string()))
        }
        Order::Scrub => {
            let done = node.scrub_now(|_, _| ()).await;
            Outcome::Scrub(done.map(drop).map_err(|err| err.to_string()))
        }
        Order::Drain(on) => {
            Outcome::Drain(node.drain(on).await.map(drop).map_err(|err| err.to_string()))
        }
        Order::Stat(hash) => {
            let stat = node.stat(&Target::Hash(hash)).await;
            Outcome::Stat(stat.map_err(|err| err.to_string()))
        }
        Order::Status => {
            Outcome::Status(node.status().map(Box::new).map_err(|err| err.to_string()))
        }
        Order::Approve(code) => {
            let done = node.approve(&code).await;
            Outcome::Approve(done.map(drop).map_err(|err| err.to_string()))
        }
        Order::Stop => Outcome::Stop,
    }
}

/// What a put reads.
struct FromMemory {
    content: Arc<Vec<u8>>,
    at: usize,
}

impl Source for FromMemory {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.content[self.at..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }

    fn rewind(&mut self) -> bool {
        self.at = 0;
        true
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        Ok(())
    }
}

/// Where a get writes.
struct IntoMemory {
    bytes: Mutex<Vec<u8>>,
    seekable: bool,
}

impl Sink for IntoMemory {
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _aside = Books::aside();
        let offset = usize::try_from(offset).unwrap();
        let mut all = self.bytes.lock().unwrap();
        if !self.seekable && offset != all.len() {
            return Err(io::Error::other("a gap in what a pipe gets"));
        }
        let end = offset + bytes.len();
        let len = all.len().max(end);
        all.resize(len, 0);
        all[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        let _aside = Books::aside();
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
}
