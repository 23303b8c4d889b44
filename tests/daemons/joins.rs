//! Many machines join at once while people read: no get fails at any moment, and not much more is
//! moved than has to be. Owns the play of that; what is moved is counted on the network, what has
//! to be is computed with the placement that all nodes compute.

use crate::chance::Dice;
use crate::checks::acknowledged::Ledger;
use crate::checks::content;
use crate::checks::plaintext::Secrets;
use crate::history::History;
use crate::life::{CAPACITY, Order, Outcome, Report, Setup};
use crate::segments;
use crate::swarm::Swarm;
use p2pfs::core::placement::{Candidate, Placement};
use p2pfs::id::{ChunkId, FileHash, NodeId};
use p2pfs::wire::control::{Status, Target};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Files, and their longest length.
const FILES: u64 = 120;
const LONGEST: u64 = 90_000;
/// Copies of each.
const REPLICAS: usize = 3;
/// Pause between two gets.
const GET_EVERY: Duration = Duration::from_millis(50);
/// Longest get.
const GET_WITHIN: Duration = Duration::from_secs(10);
/// Longest time until the new machines hold what they should.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// All is settled when nothing was moved for so long.
const QUIET: Duration = Duration::from_secs(30);
/// What of the history counts the bytes of chunks that nodes send to be kept.
pub(crate) const MOVED: &str = "bytes sent to be kept";

struct Joins {
    swarm: Swarm,
    dice: Dice,
    ledger: Ledger,
    puts: BTreeMap<u64, (String, Arc<Vec<u8>>)>,
    gets: BTreeMap<u64, (FileHash, Duration)>,
    states: BTreeMap<usize, Box<Status>>,
    /// Machines that have listed all files.
    know_all: BTreeSet<usize>,
}

/// Plays `from` machines that become `to`.
pub(crate) fn play(seed: u64, from: usize, to: usize, history: &History) {
    let setup = Rc::new(Setup {
        seed,
        history: history.clone(),
        tls: false,
        replicas: REPLICAS as u8,
        repair_delay: Duration::from_secs(600),
        gc_grace: Duration::from_secs(24 * 3600),
        reports: RefCell::default(),
        secrets: Secrets::default(),
    });
    let mut joins = Joins {
        swarm: Swarm::new(&setup, &vec![0; to], (1, 10)),
        dice: Dice::new(seed, "joins"),
        ledger: Ledger::default(),
        puts: BTreeMap::new(),
        gets: BTreeMap::new(),
        states: BTreeMap::new(),
        know_all: BTreeSet::new(),
    };
    joins.form(from);
    joins.put_all(from);
    let old = joins.holders();
    let before = joins.moved();
    for at in from..to {
        joins.start(at);
    }
    let took = joins.settle(to);
    let moved = joins.moved() - before;
    joins.judge(&old, from, moved, took);
}

impl Joins {
    fn violation(&self, what: String) {
        self.swarm.setup.history.violation(self.swarm.now(), what);
    }

    fn moved(&self) -> u64 {
        self.swarm.setup.history.totals().get(MOVED).copied().unwrap_or(0)
    }

    fn start(&mut self, at: usize) {
        if at > 0 {
            assert!(self.swarm.copy_keys(0, at), "the first machine has made the keys");
            self.swarm.machines[at].set_bootstrap(&[self.swarm.machines[0].name.clone()]);
        }
        self.swarm.start(at);
    }

    fn step(&mut self) {
        for (at, report) in self.swarm.step() {
            self.take(at, report);
        }
        let late = self.gets.values().find(|(_, since)| self.swarm.now() > *since + GET_WITHIN);
        if let Some((hash, _)) = late.copied() {
            self.violation(format!("I1: {hash} cannot be read within {GET_WITHIN:?}"));
            self.gets.clear();
        }
    }

    fn run(&mut self, span: Duration) {
        let until = self.swarm.now() + span;
        while self.swarm.now() < until {
            self.step();
        }
    }

    fn take(&mut self, at: usize, report: Report) {
        let history = self.swarm.setup.history.clone();
        match report.outcome {
            Outcome::Put(Ok(stored)) => {
                let (path, content) = self.puts.remove(&report.number).unwrap();
                self.ledger.acknowledged(Some(&path), content, &stored, false).unwrap();
                history.count("operation put");
            }
            Outcome::Get(got) => {
                let Some((hash, _)) = self.gets.remove(&report.number) else { return };
                let is_right = got.and_then(|(found, bytes)| {
                    content::check(&self.ledger, &Target::Hash(hash), None, (&found, &bytes))
                });
                history.count("operation get");
                if let Err(wrong) = is_right {
                    self.violation(format!("I1: n{at} cannot read {hash}: {wrong}"));
                }
            }
            Outcome::Ls(Ok(listing)) if listing.len() as u64 == FILES => {
                self.know_all.insert(at);
            }
            Outcome::Status(Ok(status)) => _ = self.states.insert(at, status),
            Outcome::Put(Err(err)) => self.violation(format!("a put failed: {err}")),
            _ => {}
        }
    }

    /// Starts the first machines.
    fn form(&mut self, machines: usize) {
        for at in 0..machines {
            self.start(at);
            self.run(Duration::from_secs(1));
        }
        self.run(Duration::from_secs(5));
    }

    fn put_all(&mut self, machines: usize) {
        for nth in 0..FILES {
            let len = self.dice.between(LONGEST / 3, LONGEST) as usize;
            let mut content = vec![0; len];
            blake3::Hasher::new().update(&nth.to_le_bytes()).finalize_xof().fill(&mut content);
            let (path, content) = (format!("/letter-{nth:03}.txt"), Arc::new(content));
            self.ledger.tried(Some(&path), &content);
            let put =
                Order::Put { path: Some(path.clone()), content: content.clone(), replicas: None };
            let at = self.dice.below(machines as u64) as usize;
            let number = self.swarm.order(at, put).unwrap();
            self.puts.insert(number, (path, content));
            while !self.puts.is_empty() && self.swarm.now() < Duration::from_secs(600) {
                self.step();
            }
        }
        self.run(QUIET);
    }

    /// Reads all the time until nothing is moved any more; how long things were moved.
    fn settle(&mut self, machines: usize) -> Duration {
        let begin = self.swarm.now();
        let (mut last, mut moved, mut look) = (begin, self.moved(), begin);
        while self.swarm.now() < last + QUIET {
            if self.swarm.now() > begin + SETTLED_WITHIN {
                self.violation("I6: copies are still moved".to_owned());
                break;
            }
            if self.swarm.now() >= look {
                look = self.swarm.now() + Duration::from_secs(1);
                for at in 0..machines {
                    self.swarm.order(at, Order::Ls);
                    self.swarm.order(at, Order::Status);
                }
            }
            self.get();
            self.run(GET_EVERY);
            if self.moved() != moved {
                (last, moved) = (self.swarm.now(), self.moved());
            }
        }
        last - begin
    }

    fn get(&mut self) {
        let readers: Vec<usize> = self.know_all.iter().copied().collect();
        let hashes: Vec<FileHash> = self.ledger.files().map(|file| file.hash).collect();
        if readers.is_empty() {
            return;
        }
        let (at, hash) = (self.dice.pick(&readers), self.dice.pick(&hashes));
        let target = Target::Hash(hash);
        let order = Order::Get { target, range: None, seekable: true };
        if let Some(number) = self.swarm.order(at, order) {
            self.gets.insert(number, (hash, self.swarm.now()));
        }
    }

    /// Who holds each chunk, by the disks, and how long it is.
    fn holders(&self) -> BTreeMap<ChunkId, (u64, BTreeSet<usize>)> {
        let mut all: BTreeMap<ChunkId, (u64, BTreeSet<usize>)> = BTreeMap::new();
        for machine in &self.swarm.machines {
            for (cid, len) in segments::read(&machine.disk()).replicas {
                let (known, holders) = all.entry(cid).or_default();
                *known = u64::from(len);
                holders.insert(machine.number);
            }
        }
        all
    }

    fn judge(
        &self,
        old: &BTreeMap<ChunkId, (u64, BTreeSet<usize>)>,
        from: usize,
        moved: u64,
        took: Duration,
    ) {
        let ids: BTreeMap<NodeId, usize> =
            self.states.iter().map(|(at, status)| (status.identity.id, *at)).collect();
        if ids.len() != self.swarm.len() {
            return self.violation(format!("only {} machines answer", ids.len()));
        }
        let candidate = |(id, at): (&NodeId, &usize)| Candidate {
            id: *id,
            capacity: CAPACITY,
            zone: vec![*at as u8 + 1; 8],
            alive: true,
            full: false,
        };
        let mut placement = Placement::new(ids.iter().map(candidate));
        let (mut ideal, mut least) = (0, 0);
        for (cid, (len, holders)) in old {
            let found = placement.candidates(cid.prefix());
            let candidates: Vec<usize> = found.iter().map(|n| ids[&placement.id(*n)]).collect();
            let new = candidates.iter().take(REPLICAS).filter(|at| **at >= from).count();
            let good = candidates.iter().filter(|at| holders.contains(at)).count();
            ideal += len * new as u64;
            least += len * REPLICAS.saturating_sub(good) as u64;
        }
        let now = self.holders();
        let below = now.values().filter(|(_, holders)| holders.len() < REPLICAS).count();
        let surplus: u64 =
            now.values().map(|(len, h)| len * (h.len() as u64).saturating_sub(3)).sum();
        if below > 0 {
            self.violation(format!("I6: {below} chunks have fewer than {REPLICAS} copies"));
        }
        let history = &self.swarm.setup.history;
        history.set("KiB moved", moved >> 10);
        history.set("KiB that the new homes lack", ideal >> 10);
        history.set("KiB that the rules make move", least >> 10);
        history.set("KiB of surplus copies", surplus >> 10);
        history.set("s until nothing moves", took.as_secs());
        if moved * 10 > ideal * 12 {
            self.violation(format!("moved {moved} bytes, more than 1.2 x {ideal}"));
        }
    }
}
