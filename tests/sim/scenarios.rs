//! The scenarios as data, and the one function that plays them. A scenario is a swarm size, a
//! loss rate and a list of steps; each step reports a row and the bar that it must hold.

use crate::checks::{all_agree, connected, degrees, running, same_tables, wrong_across};
use crate::net::{MS, SECOND, World};
use p2pfs::core::membership::{Change, Input};
use p2pfs::wire::gossip::{Entry, GossipMessage, TABLE_ENTRIES};
use std::time::Instant;

/// What happens, in order. Times are virtual seconds.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// All nodes start within a second; all but the first know the first one's address.
    ColdStart,
    /// All nodes run already, with full tables and random links.
    WarmStart,
    /// Nothing happens for so long; counts bytes.
    Idle(u64),
    /// A new node joins through a random one.
    Join,
    /// A node's power is cut.
    PowerOff,
    /// A node's process is killed.
    Kill,
    /// The power of so many in a hundred is cut at once.
    MassCrash(usize),
    /// A killed node starts again, without a bootstrap address.
    Restart,
    /// A node moves to another address.
    Readdress,
    /// A node says goodbye.
    Leave,
    /// The swarm is cut in two, one in so many on the small side, for 30 s.
    Partition(usize),
    /// Two linked nodes cannot reach each other for so long; everybody else can.
    BrokenPair(u64),
    /// A node stops for up to 2.5 s again and again, for so long.
    Slow(u64),
}

pub struct Scenario {
    pub name: &'static str,
    pub nodes: usize,
    /// Share of packets lost.
    pub loss: f64,
    pub steps: &'static [Step],
}

/// One measured figure and its bar.
#[derive(Debug, Clone)]
pub struct Row {
    pub step: String,
    pub what: &'static str,
    pub value: f64,
    pub bar: f64,
}

pub struct Report {
    pub rows: Vec<Row>,
    pub history: u64,
    pub events: u64,
}

impl Report {
    /// Prints all rows and fails if any misses its bar.
    pub fn check(&self, title: &str) {
        for row in &self.rows {
            let mark = if row.value <= row.bar { " " } else { "MISSED" };
            println!(
                "{title} | {:<16} | {:<28} | {:>10.3} | bar {:>8.3} {mark}",
                row.step, row.what, row.value, row.bar
            );
        }
        let missed: Vec<_> = self.rows.iter().filter(|row| row.value > row.bar).collect();
        assert!(missed.is_empty(), "{title}: {missed:#?}");
    }
}

/// Bars of DESIGN 5, in seconds and bytes per second.
const JOIN_BAR: f64 = 1.0;
const SILENT_BAR: f64 = 10.0;
const SILENT_BAR_HUGE: f64 = 15.0;
const KILLED_BAR: f64 = 2.0;
const IDLE_BAR: f64 = 1200.0;
const HEAL_BAR: f64 = 60.0;
/// Our own: nobody has set one.
const COLD_BAR: f64 = 30.0;
const WARM_BAR: f64 = 1.0;
/// A step that does not come to its end is given up after this.
const LIMIT: u64 = 120 * SECOND;

/// Seconds until a joiner has the whole table: our own bar; 0.4 MB per 1,000 members in pages.
fn table_bar(members: usize) -> f64 {
    2.0 + members as f64 / 1000.0
}

struct Play {
    world: World,
    rows: Vec<Row>,
    killed: Option<usize>,
    moves: u8,
}

/// Plays a scenario with a seed.
pub fn play(scenario: &Scenario, seed: u64) -> Report {
    let mut world = World::new(seed, scenario.loss);
    if scenario.nodes <= 50 {
        world.encode_all();
    }
    for _ in 0..scenario.nodes {
        world.add();
    }
    let mut play = Play { world, rows: Vec::new(), killed: None, moves: 0 };
    for step in scenario.steps {
        let started = Instant::now();
        play.step(*step);
        if std::env::var_os("P2PFS_SIM_VERBOSE").is_some() {
            let (least, mean, most) = degrees(&play.world);
            println!(
                "  {step:?}: {:.1} s wall, {} events, links {least}/{mean:.1}/{most}, \
                 {} false suspicions, {} false deaths",
                started.elapsed().as_secs_f64(),
                play.world.events,
                play.world.checks.false_suspicions,
                play.world.checks.false_deaths,
            );
        }
    }
    let deaths = play.world.checks.false_deaths as f64;
    play.row("all steps", "false deaths", deaths, 0.0);
    Report { rows: play.rows, history: play.world.history, events: play.world.events }
}

impl Play {
    fn row(&mut self, step: impl std::fmt::Debug, what: &'static str, value: f64, bar: f64) {
        let step = format!("{step:?}").trim_matches('"').to_owned();
        self.rows.push(Row { step, what, value, bar });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::ColdStart => self.cold_start(step),
            Step::WarmStart => self.warm_start(step),
            Step::Idle(seconds) => self.idle(step, seconds),
            Step::Join => self.join(step),
            Step::PowerOff => self.crash(step),
            Step::Kill => self.crash(step),
            Step::MassCrash(share) => self.mass_crash(step, share),
            Step::Restart => self.restart(step),
            Step::Readdress => self.readdress(step),
            Step::Leave => self.leave(step),
            Step::Partition(small) => self.partition(step, small),
            Step::BrokenPair(seconds) => self.broken_pair(seconds),
            Step::Slow(seconds) => self.slow(seconds),
        }
        assert!(connected(&self.world), "{step:?}: the links do not connect all nodes");
    }

    /// A running node, not the first.
    fn any(&mut self) -> usize {
        let nodes: Vec<usize> = running(&self.world).skip(1).collect();
        nodes[self.world.chance.below(nodes.len() as u64) as usize]
    }

    fn wait(&mut self, limit: u64, done: impl FnMut(&World) -> bool) -> f64 {
        let start = self.world.now;
        let end = self.world.run_until(start + limit, done);
        end.map_or(f64::INFINITY, |end| (end - start) as f64 / SECOND as f64)
    }

    fn cold_start(&mut self, step: Step) {
        let first = self.world.nodes[0].addr;
        self.world.start(0, &[]);
        let mut starts: Vec<(u64, usize)> = (1..self.world.nodes.len())
            .map(|node| (self.world.chance.below(SECOND), node))
            .collect();
        starts.sort_unstable();
        let mut past = 0;
        for (at, node) in starts {
            self.world.run_for(at - past);
            past = at;
            self.world.start(node, &[first]);
        }
        let took = self.wait(LIMIT, |world| all_agree(world) && connected(world));
        self.row(step, "all know all (s)", took, COLD_BAR);
        self.world.run_for(30 * SECOND);
    }

    fn warm_start(&mut self, step: Step) {
        let count = self.world.nodes.len();
        for node in 0..count {
            self.world.start(node, &[]);
        }
        let entry =
            |node: usize| Entry { record: self.world.nodes[node].core().own().clone(), gone: None };
        let entries: Vec<Entry> = (0..count).map(entry).collect();
        for node in 0..count {
            let other = &self.world.nodes[(node + 1) % count];
            let (from, addr) = (other.id, other.addr);
            self.world.prime(node, Input::LinkUp { peer: from, dialled: true, addr });
            for page in entries.chunks(TABLE_ENTRIES) {
                let entries = page.to_vec();
                let message = GossipMessage::Table { entries, want: vec![], last: false };
                self.world.prime(node, Input::Gossip { from, message });
            }
        }
        for node in 0..count {
            self.world.link_now(node, (node + 1) % count);
            for _ in 0..3 {
                let peer = self.world.chance.below(count as u64) as usize;
                self.world.link_now(node, peer);
            }
        }
        let took = self.wait(LIMIT, |world| all_agree(world) && same_tables(world));
        self.row(step, "all agree (s)", took, WARM_BAR);
        self.world.run_for(30 * SECOND);
    }

    fn idle(&mut self, step: Step, seconds: u64) {
        let before: Vec<u64> = self.world.nodes.iter().map(|node| node.sent).collect();
        self.world.run_for(seconds * SECOND);
        let rate = |node: usize| (self.world.nodes[node].sent - before[node]) / seconds;
        let rates: Vec<u64> = running(&self.world).map(rate).collect();
        let mean = rates.iter().sum::<u64>() as f64 / rates.len() as f64;
        let most = rates.iter().max().copied().unwrap_or(0) as f64;
        self.row(step, "sent per node, mean (B/s)", mean, IDLE_BAR);
        self.row(step, "sent per node, most (B/s)", most, f64::INFINITY);
        let differ = f64::from(u8::from(!same_tables(&self.world)));
        self.row(step, "tables differ", differ, 0.0);
        let links = degrees(&self.world);
        self.row(step, "links per node, mean", links.1, 12.0);
        self.row(step, "links per node, most", links.2 as f64, 32.0);
    }

    fn join(&mut self, step: Step) {
        let through = self.any();
        let addr = self.world.nodes[through].addr;
        let node = self.world.add();
        let others = running(&self.world).count();
        let sent: u64 = self.world.nodes.iter().map(|node| node.sent).sum();
        let id = self.world.nodes[node].id;
        self.world.checks.watch(self.world.now, id, Change::Joined);
        self.world.start(node, &[addr]);
        self.contact(step, node);
        self.wait(10 * SECOND, |world| world.checks.seen() == others);
        let spread = self.world.checks.spread();
        let all = if self.world.checks.seen() == others { spread.all } else { f64::INFINITY };
        self.row(step, "known to half (s)", spread.half, JOIN_BAR);
        self.row(step, "known to 99 % (s)", spread.most, JOIN_BAR);
        self.row(step, "known to all (s)", all, JOIN_BAR);
        let table = self.wait(10 * SECOND, all_agree);
        self.row(step, "then: has the table (s)", table, table_bar(others));
        let now: u64 = self.world.nodes.iter().map(|node| node.sent).sum();
        let each = (now - sent) as f64 / others as f64;
        self.row(step, "sent per node meanwhile (B)", each, f64::INFINITY);
        self.world.run_for(5 * SECOND);
    }

    /// Waits for the first link. The bars count from there: what comes before is TCP and TLS, where
    /// a lost SYN alone costs a second.
    fn contact(&mut self, step: Step, node: usize) {
        let took =
            self.wait(40 * SECOND, |world| world.nodes[node].core().links().next().is_some());
        self.row(step, "first link (s)", took, f64::INFINITY);
        self.world.checks.count_from(self.world.now.saturating_sub(20 * MS));
    }

    fn crash(&mut self, step: Step) {
        let node = self.any();
        let others = running(&self.world).count() - 1;
        let id = self.world.nodes[node].id;
        self.world.checks.watch(self.world.now, id, Change::Dead);
        let bar = if matches!(step, Step::Kill) {
            self.world.kill(node);
            self.killed = Some(node);
            KILLED_BAR
        } else {
            self.world.power_off(node);
            if others > 2000 { SILENT_BAR_HUGE } else { SILENT_BAR }
        };
        self.wait(40 * SECOND, |world| world.checks.seen() == others);
        let spread = self.world.checks.spread();
        let all = if self.world.checks.seen() == others { spread.all } else { f64::INFINITY };
        self.row(step, "known to the first (s)", spread.first, bar);
        self.row(step, "known to all (s)", all, bar);
        self.world.run_for(10 * SECOND);
    }

    fn mass_crash(&mut self, step: Step, share: usize) {
        let mut nodes: Vec<usize> = running(&self.world).collect();
        let count = nodes.len() * share / 100;
        let sent = |world: &World| world.nodes.iter().map(|node| node.sent).sum::<u64>();
        let before = sent(&self.world);
        for _ in 0..count {
            let at = self.world.chance.below(nodes.len() as u64) as usize;
            self.world.power_off(nodes.swap_remove(at));
        }
        let bar = if nodes.len() > 2000 { SILENT_BAR_HUGE } else { SILENT_BAR };
        let took = self.wait(LIMIT, all_agree);
        self.row(step, "survivors agree (s)", took, bar);
        let each = (sent(&self.world) - before) as f64 / nodes.len() as f64;
        self.row(step, "sent per survivor (B)", each, f64::INFINITY);
        self.world.run_for(20 * SECOND);
        let whole = f64::from(u8::from(!connected(&self.world)));
        self.row(step, "links apart", whole, 0.0);
    }

    fn restart(&mut self, step: Step) {
        let node = self.killed.take().expect("a kill comes before a restart");
        let others = running(&self.world).count();
        let id = self.world.nodes[node].id;
        self.world.checks.watch(self.world.now, id, Change::Alive);
        self.world.start(node, &[]);
        self.contact(step, node);
        self.wait(40 * SECOND, |world| world.checks.seen() == others);
        let all = self.world.checks.spread().all;
        let all = if self.world.checks.seen() == others { all } else { f64::INFINITY };
        self.row(step, "back in every table (s)", all, JOIN_BAR);
        let table = self.wait(10 * SECOND, all_agree);
        self.row(step, "then: has the table (s)", table, table_bar(others));
        self.world.run_for(5 * SECOND);
    }

    fn readdress(&mut self, step: Step) {
        let node = self.any();
        let others = running(&self.world).count() - 1;
        let id = self.world.nodes[node].id;
        self.world.checks.watch(self.world.now, id, Change::Updated);
        self.moves += 1;
        self.world.move_to(node, self.moves);
        self.wait(40 * SECOND, |world| world.checks.seen() == others);
        let all = self.world.checks.spread().all;
        let all = if self.world.checks.seen() == others { all } else { f64::INFINITY };
        self.row(step, "known to all (s)", all, JOIN_BAR);
        self.world.run_for(5 * SECOND);
    }

    fn leave(&mut self, step: Step) {
        let node = self.any();
        let others = running(&self.world).count() - 1;
        let id = self.world.nodes[node].id;
        self.world.checks.watch(self.world.now, id, Change::Left);
        self.world.input(node, Input::Leave);
        self.world.kill(node);
        self.wait(40 * SECOND, |world| world.checks.seen() == others);
        let all = self.world.checks.spread().all;
        let all = if self.world.checks.seen() == others { all } else { f64::INFINITY };
        self.row(step, "known to all (s)", all, JOIN_BAR);
        self.world.run_for(10 * SECOND);
    }

    fn partition(&mut self, step: Step, small: usize) {
        self.world.cut_sides(|node| u8::from(node % small == 0));
        self.world.run_for(30 * SECOND);
        let wrong = wrong_across(&self.world) * 100.0;
        self.row(step, "unnoticed after 30 s (%)", wrong, 10.0);
        self.world.heal();
        let took = self.wait(LIMIT, all_agree);
        self.row(step, "merged after heal (s)", took, HEAL_BAR);
        self.world.run_for(20 * SECOND);
        let apart = f64::from(u8::from(!all_agree(&self.world)));
        self.row(step, "in doubt 20 s later", apart, 0.0);
    }

    fn broken_pair(&mut self, seconds: u64) {
        let node = self.any();
        let peer = self.world.nodes[node].core().links().next().expect("a node has links").peer;
        let peer = self.world.checks.ids[&peer];
        self.world.cut_pair(node, peer);
        self.world.run_for(seconds * SECOND);
        self.world.heal();
        self.world.run_for(5 * SECOND);
    }

    fn slow(&mut self, seconds: u64) {
        let node = self.any();
        self.world.slow_down(node);
        self.world.run_for(seconds * SECOND);
        self.world.speed_up(node);
        self.world.run_for(5 * SECOND + 500 * MS);
    }
}
