//! One simulated machine: its disk, which outlives it, and its lives. A life is a whole node,
//! started as the daemon starts it, that does what the plan orders and reports what came of it.

use crate::chance::Dice;
use crate::history::History;
use crate::machine::{InlineSpawn, SeededRng};
use crate::simfs::SimFs;
use crate::tap::{TappedNet, VirtualClock, elapsed};
use p2pfs::id::FileHash;
use p2pfs::node::{Config, Node, System};
use p2pfs::sys::{Sink, Source, SourceChanged};
use p2pfs::transport::Security;
use p2pfs::wire::control::{Event, FileStat, Get, PathText, Put, Range, Status, Stored, Target};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// The port of every node.
pub(crate) const PORT: u16 = 4000;

/// What all machines of a simulation have in common.
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) history: History,
    pub(crate) tls: bool,
    pub(crate) replicas: u8,
    pub(crate) repair_delay: Duration,
    pub(crate) reports: RefCell<Vec<Report>>,
}

/// What a machine is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    Put { path: Option<String>, content: Arc<Vec<u8>>, replicas: Option<u8> },
    Get { target: Target, range: Option<Range>, seekable: bool },
    Ls,
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
    state: RefCell<State>,
}

struct State {
    disk: SimFs,
    life: u64,
    ahead_ms: u64,
    bootstrap: Vec<(String, u16)>,
    orders: Option<mpsc::Sender<(u64, Order)>>,
    failed: Option<String>,
}

impl Machine {
    /// A machine with an empty disk.
    pub(crate) fn new(setup: &Rc<Setup>, number: usize, ahead_ms: u64) -> Rc<Self> {
        let seed = Dice::new(setup.seed, &format!("disk {number}")).roll();
        Rc::new(Self {
            name: format!("n{number}"),
            number,
            setup: setup.clone(),
            state: RefCell::new(State {
                disk: SimFs::new(seed),
                life: 0,
                ahead_ms,
                bootstrap: Vec::new(),
                orders: None,
                failed: None,
            }),
        })
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

    /// The life is over.
    pub(crate) fn ended(&self) {
        self.state.borrow_mut().orders = None;
    }

    fn config(&self, spawn: Arc<InlineSpawn>) -> Config {
        let mut state = self.state.borrow_mut();
        state.life += 1;
        let purpose = format!("life {} of {}", state.life, self.name);
        let (setup, tls) = (&self.setup, self.setup.tls);
        let net = TappedNet {
            history: setup.history.clone(),
            name: self.name.clone(),
            bytes_count: !tls,
        };
        let mut config = Config::new("/p2pfs/data", "/p2pfs/config");
        config.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
        config.bootstrap.clone_from(&state.bootstrap);
        config.name = Some(self.name.clone());
        config.machine = [u8::try_from(self.number).unwrap() + 1; 8];
        config.capacity = Some(256 << 20);
        config.replicas = setup.replicas;
        config.repair_delay = setup.repair_delay;
        config.segment_len = 2 << 20;
        config.free_floor = 0;
        config.reconcile_every = Duration::from_secs(5);
        config.system = System {
            fs: Arc::new(state.disk.clone()),
            net: Arc::new(net),
            clock: Arc::new(VirtualClock { ahead_ms: state.ahead_ms }),
            rng: Arc::new(SeededRng::new(Dice::new(setup.seed, &purpose).roll())),
            spawn,
            security: if tls { Security::tls() } else { Security::named_for_simulation() },
        };
        config
    }

    /// One life, from power on to power off.
    pub(crate) async fn live(self: Rc<Self>) -> turmoil::Result {
        let (orders, mut queue) = mpsc::channel(256);
        self.state.borrow_mut().orders = Some(orders);
        let spawn = Arc::new(InlineSpawn::default());
        let node = match Node::start(self.config(spawn.clone())).await {
            Ok(node) => Rc::new(node),
            Err(err) => {
                self.state.borrow_mut().failed = Some(err.to_string());
                return Ok(());
            }
        };
        tokio::task::spawn_local(watch(node.clone(), self.clone()));
        loop {
            tokio::select! {
                biased;
                order = queue.recv() => match order {
                    Some((number, Order::Stop)) => {
                        node.stop().await;
                        self.report(number, Outcome::Stop);
                        return Ok(());
                    }
                    Some((number, order)) => {
                        let (node, machine) = (node.clone(), self.clone());
                        tokio::task::spawn_local(async move {
                            let outcome = carry_out(&node, order).await;
                            machine.report(number, outcome);
                        });
                    }
                    None => return Ok(()),
                },
                why = node.failed() => {
                    self.state.borrow_mut().failed = Some(why.to_string());
                    return Ok(());
                }
                // Threads wake up by themselves now and then.
                () = tokio::time::sleep(Duration::from_secs(10)) => spawn.tick(),
            }
        }
    }

    fn report(&self, number: u64, outcome: Outcome) {
        let report = Report { number, at: elapsed(), outcome };
        self.setup.reports.borrow_mut().push(report);
    }
}

/// Notes what the node says about its peers.
async fn watch(node: Rc<Node>, machine: Rc<Machine>) {
    let mut events = node.events();
    while let Some(event) = events.next().await {
        if let Event::Peer { peer } = event {
            let (at, by) = (elapsed(), &machine.name);
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
            let get = Get { target, range, seekable };
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
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
}
