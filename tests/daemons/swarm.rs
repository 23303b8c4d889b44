//! The machines, the links between them and the time: what the plan does to them. It knows how a
//! fault is made; when and which is the plan's, and what may come of it the checkers'.
//!
//! Time goes in steps: first the network and the machines' kernels, then the nodes one by one.
//! After a partition turmoil does not send again what was lost, so a connection that was in use
//! then is dead without either side being told: harsher than TCP, and so are the checks.

use crate::life::{Machine, Order, Outcome, Report, Setup};
use crate::simfs::{Fault, SimFs, Survive};
use p2pfs::sys::{Fs, OpenMode};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How far time goes in one step of the network.
const TICK: Duration = Duration::from_millis(10);
/// The configuration directory.
const CONFIG: &str = "/p2pfs/config";
/// What is in it that makes a node one of its user's.
const KEYS: [&str; 2] = ["owner.key", "swarm.key"];

/// What is wrong with the link between two machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// Nothing gets through, and dialling fails at once.
    Cut,
    /// Nothing gets through from the first to the second; dialling waits.
    OneWay(usize, usize),
    /// Everything waits until the trouble ends.
    Held,
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The power goes: peers hear nothing, unsynced changes are lost as said.
    Power(Survive),
    /// The process is killed: its connections close, its files stay as they are.
    Kill,
}

/// An order that is not answered yet.
pub(crate) struct Pending {
    pub(crate) machine: usize,
    pub(crate) since: Duration,
}

/// All machines.
pub(crate) struct Swarm {
    pub(crate) setup: Rc<Setup>,
    pub(crate) machines: Vec<Rc<Machine>>,
    sim: turmoil::Sim<'static>,
    names: Arc<BTreeMap<String, IpAddr>>,
    links: BTreeMap<(usize, usize), Trouble>,
    up: Vec<bool>,
    lived: Vec<bool>,
    gone: Vec<bool>,
    last: u64,
    pending: BTreeMap<u64, Pending>,
}

impl Swarm {
    /// Machines that are switched off.
    pub(crate) fn new(setup: &Rc<Setup>, ahead_ms: &[i64], latency: (u64, u64)) -> Self {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(Duration::from_secs(100_000))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(latency.0))
            .max_message_latency(Duration::from_millis(latency.1))
            .tcp_capacity(4096)
            .rng_seed(setup.seed)
            .build();
        let numbers = 0..ahead_ms.len();
        let machines: Vec<_> =
            numbers.map(|number| Machine::new(setup, number, ahead_ms[number])).collect();
        for machine in &machines {
            let machine = machine.clone();
            sim.host(machine.name.clone(), move || machine.clone().kernel());
        }
        let up = vec![false; machines.len()];
        let names = machines.iter().map(|one| (one.name.clone(), sim.lookup(one.name.clone())));
        Self {
            names: Arc::new(names.collect()),
            setup: setup.clone(),
            machines,
            sim,
            links: BTreeMap::new(),
            lived: up.clone(),
            gone: up.clone(),
            up,
            last: 0,
            pending: BTreeMap::new(),
        }
    }

    /// Virtual time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// How many machines there are.
    pub(crate) fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether a machine runs.
    pub(crate) fn is_up(&self, at: usize) -> bool {
        self.up[at]
    }

    /// Whether a machine has ever been switched on.
    pub(crate) fn has_lived(&self, at: usize) -> bool {
        self.lived[at]
    }

    /// Whether a machine has been switched on, and not gone for good.
    pub(crate) fn is_member(&self, at: usize) -> bool {
        self.lived[at] && !self.gone[at]
    }

    /// The machines that there should be.
    pub(crate) fn members(&self) -> Vec<usize> {
        (0..self.len()).filter(|at| self.is_member(*at)).collect()
    }

    /// A machine that is off is never switched on again.
    pub(crate) fn leave(&mut self, at: usize) {
        self.gone[at] = true;
    }

    /// The machines that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.len()).filter(|at| self.up[*at]).collect()
    }

    /// Lets a little time pass; what was reported meanwhile, with the machine that was asked.
    pub(crate) fn step(&mut self) -> Vec<(usize, Report)> {
        self.sim.step().expect("no host gives up with an error");
        for at in self.running() {
            let goes_on = self.machines[at].tick(TICK);
            if self.machines[at].disk().is_dead() {
                self.note(format_args!("power fails in {}", self.machines[at].name));
                self.end(at, End::Power(Survive::Some));
            } else if !goes_on {
                self.end(at, End::Kill);
            }
        }
        let reports = std::mem::take(&mut *self.setup.reports.borrow_mut());
        let known = reports.into_iter().filter_map(|report| {
            let pending = self.pending.remove(&report.number)?;
            if matches!(report.outcome, Outcome::Stop) {
                self.note(format_args!("{} has stopped", self.machines[pending.machine].name));
            }
            Some((pending.machine, report))
        });
        known.collect()
    }

    /// Orders that are not answered yet.
    pub(crate) fn pending(&self) -> &BTreeMap<u64, Pending> {
        &self.pending
    }

    /// Waits for no answer any more.
    pub(crate) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Gives an order; its number, unless the machine is off.
    pub(crate) fn order(&mut self, at: usize, order: Order) -> Option<u64> {
        self.last += 1;
        if !self.machines[at].order(self.last, order) {
            return None;
        }
        self.pending.insert(self.last, Pending { machine: at, since: self.now() });
        Some(self.last)
    }

    /// Switches a machine on.
    pub(crate) fn start(&mut self, at: usize) {
        self.note(format_args!("{} starts", self.machines[at].name));
        self.machines[at].begin(self.now(), &self.names);
        self.sim.bounce(self.machines[at].name.clone());
        (self.up[at], self.lived[at]) = (true, true);
    }

    /// Ends a life.
    pub(crate) fn end(&mut self, at: usize, how: End) {
        let machine = self.machines[at].clone();
        let disk = machine.disk();
        if let End::Power(_) = how {
            self.each_link(at, |sim, a, b| sim.partition(a, b));
        }
        // The sockets close, or do not; then the node cannot say anything more, nor write.
        self.sim.crash(machine.name.clone());
        disk.fail_at(disk.steps() + 1, Fault::Crash);
        machine.end();
        match how {
            End::Power(survive) => {
                disk.crash(survive);
                self.each_link(at, |sim, a, b| sim.repair(a, b));
                let links: Vec<_> = self.links.clone().into_iter().collect();
                for ((a, b), trouble) in
                    links.into_iter().filter(|((a, b), _)| [*a, *b].contains(&at))
                {
                    self.make(a, b, trouble);
                }
            }
            End::Kill => disk.kill(),
        }
        self.over(at);
    }

    fn over(&mut self, at: usize) {
        self.up[at] = false;
        // Nobody will ever know what came of them.
        self.pending.retain(|_, pending| pending.machine != at);
    }

    /// Replaces the disk of a machine that is off by an empty one.
    pub(crate) fn wipe(&mut self, at: usize, seed: u64) {
        self.machines[at].replace_disk(SimFs::new(seed));
        let others = (0..self.len()).filter(|other| *other != at);
        let names: Vec<String> = others.map(|other| self.machines[other].name.clone()).collect();
        self.machines[at].set_bootstrap(&names);
    }

    /// Copies a user's keys from one machine to another; false when there are none yet.
    pub(crate) fn copy_keys(&self, from: usize, to: usize) -> bool {
        KEYS.iter().all(|name| self.copy_key(from, to, &Path::new(CONFIG).join(name)))
    }

    fn copy_key(&self, from: usize, to: usize, path: &Path) -> bool {
        let mut key = [0; 32];
        let read = self.machines[from].disk().open(path, OpenMode::Read);
        if !read.is_ok_and(|file| file.read_at(&mut key, 0).is_ok_and(|len| len == 32)) {
            return false;
        }
        let disk = self.machines[to].disk();
        disk.create_dir_all(Path::new(CONFIG)).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_at(&[&key], 0).unwrap();
        file.sync_data().unwrap();
        Path::new(CONFIG).ancestors().for_each(|folder| disk.sync_dir(folder).unwrap());
        true
    }

    /// Makes trouble on a link that has none.
    pub(crate) fn trouble(&mut self, a: usize, b: usize, trouble: Trouble) {
        let key = (a.min(b), a.max(b));
        if a != b && !self.links.contains_key(&key) {
            self.note(format_args!("link n{a} n{b}: {trouble:?}"));
            self.links.insert(key, trouble);
            self.make(a, b, trouble);
        }
    }

    /// Whether any link is in trouble.
    pub(crate) fn has_trouble(&self) -> bool {
        !self.links.is_empty()
    }

    /// Ends the trouble on all links.
    pub(crate) fn heal(&mut self) {
        for ((a, b), trouble) in std::mem::take(&mut self.links) {
            let (a, b) = (self.name(a), self.name(b));
            match trouble {
                Trouble::Cut | Trouble::OneWay(..) => self.sim.repair(a, b),
                Trouble::Held => self.sim.release(a, b),
            }
        }
        self.note(format_args!("links are healed"));
    }

    fn make(&self, a: usize, b: usize, trouble: Trouble) {
        match trouble {
            Trouble::Cut => self.sim.partition(self.name(a), self.name(b)),
            Trouble::OneWay(from, to) => {
                self.sim.partition_oneway(self.name(from), self.name(to));
            }
            Trouble::Held => self.sim.hold(self.name(a), self.name(b)),
        }
    }

    fn each_link(&self, at: usize, change: impl Fn(&turmoil::Sim<'static>, String, String)) {
        for other in (0..self.len()).filter(|other| *other != at) {
            change(&self.sim, self.name(at), self.name(other));
        }
    }

    fn name(&self, at: usize) -> String {
        self.machines[at].name.clone()
    }

    /// Notes what the plan does.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.setup.history.note(self.now(), what);
    }
}
