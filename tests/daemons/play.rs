//! Plays one seed from the first start to the last check: the swarm forms, people put and get files
//! while things go wrong, everything is healed, and then it must all be well again.

use crate::chance::Dice;
use crate::checks::acknowledged::{Ledger, hash_of, is_doomed};
use crate::checks::kept::Kept;
use crate::checks::plaintext::Secrets;
use crate::checks::removed::{Change, Removed};
use crate::checks::visible::Visible;
use crate::checks::{content, copies, equal, index, memory, removed};
use crate::faults::{Faults, gap, is_far};
use crate::history::History;
use crate::life::{Listing, Order, Outcome, Report, SEGMENT_LEN, Setup};
use crate::plan::{Entry, KINDS_MIN, Plan};
use crate::segments::{self, Contents};
use crate::simfs::Survive;
use crate::swarm::{End, Swarm};
use p2pfs::id::FileHash;
use p2pfs::wire::control::{NodeState, PathText, Range, Status, Target};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Longest time until a swarm has formed although nothing goes wrong.
const FORMED_WITHIN: Duration = Duration::from_secs(60);
/// Longest time from the end of all faults until everything is well: a lost answer is waited for
/// 30 s, a dead connection is noticed after as long, and a failed copy is tried again.
const WELL_WITHIN: Duration = Duration::from_secs(150);
/// How long all must stay well, and the repair delay more: what a node has not looked at yet it
/// cannot count.
const STAYS_WELL: Duration = Duration::from_secs(10);
/// Longest operation: a put waits 30 s for its chunks and 10 s for each of several records.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// Longest get when at most one machine is lost, links are well, and nobody else reads.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// Longest time until what nobody wants has left the disks.
const FREED_WITHIN: Duration = Duration::from_secs(240);
/// So many violations say what is wrong.
const ENOUGH: usize = 3;
/// How often the disks are looked at.
const AUDIT_EVERY: Duration = Duration::from_secs(5);
/// How long what was acknowledged at one node may take to be known at all.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether all is well.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What was asked.
enum Asked {
    Put { path: Option<String>, content: Arc<Vec<u8>> },
    Get { target: Target, range: Option<Range>, must: bool, since: Duration },
    Ls,
    Change { path: String, change: Change },
    Scrub,
    Drain,
    Stat { must: bool },
    Status,
    Approve,
}

/// A simulation under way.
struct Play {
    plan: Plan,
    dice: Dice,
    swarm: Swarm,
    ledger: Ledger,
    kept: Kept,
    visible: Visible,
    removed: Removed,
    /// Paths made to be removed.
    doomed: u64,
    /// The machine that is being emptied, to go when it is empty.
    draining: Option<usize>,
    losses: u64,
    audit: Duration,
    faults: Faults,
    asked: BTreeMap<u64, Asked>,
    states: Vec<(Option<Box<Status>>, Option<Listing>)>,
    content: u64,
}

/// Plays a seed.
pub(crate) fn play(seed: u64, plan: Plan, history: &History) {
    let setup = Rc::new(Setup {
        seed,
        history: history.clone(),
        tls: plan.tls,
        replicas: plan.replicas,
        repair_delay: plan.repair_delay,
        gc_grace: plan.gc_grace,
        reports: RefCell::default(),
        secrets: Secrets::default(),
    });
    let swarm = Swarm::new(&setup, &plan.ahead_ms, plan.latency);
    if plan.lying_disks {
        swarm.machines.iter().for_each(|machine| drop(machine.disk().without_sync()));
    }
    let begin = if plan.early { Duration::ZERO } else { Duration::MAX };
    let machines = plan.machines + plan.spares;
    let mut play = Play {
        faults: Faults::new(&plan, seed, begin.min(FORMED_WITHIN)),
        plan,
        dice: Dice::new(seed, "operations"),
        swarm,
        ledger: Ledger::default(),
        kept: Kept::default(),
        visible: Visible::default(),
        removed: Removed::default(),
        doomed: 0,
        draining: None,
        losses: 0,
        audit: Duration::ZERO,
        asked: BTreeMap::new(),
        states: vec![(None, None); machines],
        content: 0,
    };
    let evil = play.plan.evil;
    let liar = evil.map(|at| play.swarm.machines[at].make_evil());
    play.form();
    liar.iter().for_each(|liar| {
        play.count("fault Evil");
        liar.begin();
    });
    evil.iter().for_each(|at| play.ledger.distrust(&play.swarm.machines[*at].name));
    play.be_busy();
    play.faults.end(&mut play.swarm);
    evil.into_iter().for_each(|at| play.turn_out(at));
    // Reading finds what has rotted; then everything has to get well once more.
    if play.get_well(Duration::ZERO) {
        play.read_everywhere();
        let stay = play.plan.repair_delay + STAYS_WELL;
        if play.get_well(stay) {
            play.look_at_copies();
            play.look_for_rest();
            play.lose_one();
        }
    }
    play.look_at_disks();
}

impl Play {
    fn violation(&self, what: String) {
        self.swarm.setup.history.violation(self.swarm.now(), what);
    }

    /// The liar goes, and with it what it said it held.
    fn turn_out(&mut self, evil: usize) {
        self.swarm.end(evil, End::Power(Survive::None));
        self.swarm.leave(evil);
        self.ledger.lost_machine(&self.swarm.machines[evil].name);
    }

    /// Whether it is known what is wrong.
    fn has_enough(&self) -> bool {
        self.swarm.setup.history.violations().len() >= ENOUGH
    }

    fn count(&self, kind: &str) {
        self.swarm.setup.history.count(kind);
    }

    /// One step of time.
    fn step(&mut self) {
        for (machine, report) in self.swarm.step() {
            self.take(machine, report);
        }
        for machine in &self.swarm.machines {
            if let Some(why) = machine.take_failure() {
                self.swarm.note(format_args!("{} gave up: {why}", machine.name));
                self.count("gave up");
            }
        }
        memory::check(self.swarm.len()).into_iter().for_each(|wrong| self.violation(wrong));
        if self.swarm.now() >= self.audit {
            self.audit = self.swarm.now() + AUDIT_EVERY;
            self.audit();
        }
        let pending = self.swarm.pending();
        self.asked.retain(|number, _| pending.contains_key(number));
        let late = pending.values().find(|one| self.swarm.now() > one.since + ANSWERED_WITHIN);
        if let Some(late) = late.map(|late| late.machine) {
            self.violation(format!("n{late} does not answer"));
            self.swarm.forget_pending();
        }
    }

    /// What is on the disks of members that can be relied on.
    fn disks(&self) -> Vec<Contents> {
        let machines = self.swarm.members().into_iter().map(|at| &self.swarm.machines[at]);
        let trusted = machines.filter(|machine| self.ledger.trusts(&machine.name));
        trusted.map(|machine| segments::read(&machine.disk())).collect()
    }

    /// Looks whether anything that was safe is not so any more.
    fn audit(&mut self) {
        if self.losses != self.ledger.losses {
            self.losses = self.ledger.losses;
            self.kept.lost_machine();
            self.visible.lost_machine();
        }
        if let Ok(chunk) = std::env::var("P2PFS_DAEMON_CHUNK") {
            self.tell_of(&chunk);
        }
        let disks = self.disks();
        self.kept.look(&disks).into_iter().for_each(|wrong| self.violation(wrong));
    }

    /// Notes which disks have a chunk, and what claims it there.
    fn tell_of(&mut self, chunk: &str) {
        let mut on = Vec::new();
        for machine in &self.swarm.machines {
            let disk = segments::read(&machine.disk());
            for cid in disk.replicas.keys().filter(|cid| cid.to_string().starts_with(chunk)) {
                let claims: Vec<_> = disk.claims(cid).collect();
                on.push(format!("{} for {claims:?}", machine.name));
            }
        }
        self.swarm.note(format_args!("{chunk} is on {}", on.join(", ")));
    }

    /// Starts the machines one after the other until they are one swarm.
    fn form(&mut self) {
        self.swarm.start(0);
        let until = self.swarm.now() + FORMED_WITHIN;
        let mut look = Duration::ZERO;
        while self.swarm.now() < until {
            self.step();
            if self.plan.early {
                self.faults.step(&mut self.swarm, &mut self.ledger);
            }
            if self.swarm.now() < look {
                continue;
            }
            look = self.swarm.now() + Duration::from_millis(500);
            self.let_in();
            let new = (1..self.plan.machines).find(|at| !self.swarm.has_lived(*at));
            match new {
                Some(at) if self.dice.chance(70) => self.switch_on(at),
                Some(_) => {}
                None if self.plan.early => return,
                None => {
                    self.look();
                    if self.look_result().is_ok() {
                        return;
                    }
                }
            }
        }
        if !self.plan.early {
            self.violation(format!("the swarm did not form: {:?}", self.look_result()));
        }
    }

    fn switch_on(&mut self, at: usize) {
        let members = self.swarm.members();
        let has_keys = |from: &usize| self.swarm.copy_keys(*from, at);
        if self.plan.entry == Entry::Keys && !members.iter().any(has_keys) {
            return;
        }
        let doors = [members[0], self.dice.pick(&members)];
        let names = doors.map(|door| self.swarm.machines[door].name.clone());
        self.swarm.machines[at].set_bootstrap(&names);
        self.swarm.start(at);
    }

    /// People read codes from screens and type them on the first machine.
    fn let_in(&mut self) {
        if self.plan.entry == Entry::Keys {
            return;
        }
        self.ask_all(|| (Order::Status, Asked::Status));
        let waiting = self.states.iter().filter_map(|(status, _)| status.as_ref());
        let waiting = waiting.filter(|status| status.state == NodeState::Waiting);
        let codes: Vec<String> = waiting.filter_map(|status| status.code.clone()).collect();
        let busy = self.asked.values().any(|asked| matches!(asked, Asked::Approve));
        if let (Some(code), false) = (codes.first(), busy) {
            self.ask(0, Order::Approve(code.clone()), Asked::Approve);
        }
    }

    /// Operations and faults.
    fn be_busy(&mut self) {
        let begin = self.swarm.now();
        self.faults.go_on(begin);
        let (mut next, mut look) = (begin, begin);
        let mut operations = 0;
        let at_most = begin + 10 * self.plan.busy;
        while self.swarm.now() < begin + self.plan.busy
            || operations < self.plan.operations
            || self.faults.struck.len() < KINDS_MIN
        {
            if self.has_enough() {
                return;
            }
            if self.swarm.now() > at_most {
                let kinds = self.faults.struck.len();
                return self.violation(format!("only {operations} operations and {kinds} faults"));
            }
            self.step();
            self.see_off();
            self.faults.step(&mut self.swarm, &mut self.ledger);
            if let Some(at) = self.faults.joining.pop() {
                self.switch_on(at);
            }
            if self.swarm.now() >= look {
                look = self.swarm.now() + LOOK_EVERY;
                self.let_in();
                self.allow_losses();
                let leaves = self.draining.into_iter();
                leaves.for_each(|at| self.ask(at, Order::Status, Asked::Status));
            }
            if self.swarm.now() >= next {
                next = self.swarm.now() + gap(&mut self.dice, self.plan.operation_every);
                operations += u64::from(self.operate());
            }
        }
    }

    /// Before everybody has read the catalogue, one machine may be the only one that can.
    fn allow_losses(&mut self) {
        let members = self.swarm.members();
        self.faults.losses |= members.iter().all(|at| self.states[*at].1.is_some());
        if !self.faults.losses {
            self.ask_all(|| (Order::Ls, Asked::Ls));
        }
    }

    /// One random operation on a random machine; whether that took it.
    fn operate(&mut self) -> bool {
        let mut members = self.swarm.members();
        members.retain(|at| Some(*at) != self.plan.evil);
        let at = self.dice.pick(&members);
        let asked = self.asked.len();
        match self.dice.below(14) {
            0..4 => self.put(at),
            4..8 => self.get(at),
            8 => self.ask(at, Order::Ls, Asked::Ls),
            9..11 => self.put_doomed(at),
            11..13 => self.change(at),
            13 if self.dice.chance(20) => self.ask(at, Order::Scrub, Asked::Scrub),
            13 if self.dice.chance(20) => self.drain(at),
            _ => match self.some_hash() {
                Some(hash) => self.ask(at, Order::Stat(hash), Asked::Stat { must: false }),
                None => self.ask(at, Order::Status, Asked::Status),
            },
        }
        self.asked.len() > asked
    }

    fn put(&mut self, at: usize) {
        let content = Arc::new(self.new_content());
        let path = self.dice.chance(80).then(|| some_path(&mut self.dice));
        let replicas = self.dice.chance(10).then_some(2);
        let order = Order::Put { path: path.clone(), content: content.clone(), replicas };
        self.ledger.tried(path.as_ref(), &content);
        self.swarm.setup.secrets.add_file(path.as_ref(), &content, &hash_of(&content));
        self.ask(at, order, Asked::Put { path, content });
    }

    /// Puts what may be removed later: each to a path of its own, and no content twice.
    fn put_doomed(&mut self, at: usize) {
        self.doomed += 1;
        let path = Some(format!("/doomed-letter-{:03}.txt", self.doomed));
        let content = Arc::new(self.fresh_content());
        let order = Order::Put { path: path.clone(), content: content.clone(), replicas: None };
        self.ledger.tried(path.as_ref(), &content);
        self.swarm.setup.secrets.add_file(path.as_ref(), &content, &hash_of(&content));
        self.ask(at, order, Asked::Put { path, content });
    }

    /// Begins to empty a machine, where the others can take what it has.
    fn drain(&mut self, at: usize) {
        let goes = at != 0 && self.plan.evil.is_none() && self.swarm.members().len() > 2;
        if goes && self.draining.is_none() {
            self.draining = Some(at);
            self.ask(at, Order::Drain(true), Asked::Drain);
        }
    }

    /// A machine that says that it is empty goes at once, for good.
    fn see_off(&mut self) {
        let Some(at) = self.draining.filter(|at| self.swarm.is_up(*at)) else { return };
        let empty = |status: &Status| status.draining && status.chunks_here == 0;
        if self.states[at].0.take().is_some_and(|status| empty(&status)) {
            self.count("emptied and gone");
            self.swarm.note(format_args!("n{at} is empty and goes"));
            self.swarm.end(at, End::Power(Survive::None));
            self.swarm.leave(at);
            self.ledger.gone_machine(&self.swarm.machines[at].name);
            self.draining = None;
        }
    }

    /// Removes something, for good or not, or asks for it back.
    fn change(&mut self, at: usize) {
        let idle = self.removed.idle();
        if idle.is_empty() {
            return;
        }
        let path = idle[self.dice.below(idle.len() as u64) as usize].clone();
        let change = self.dice.pick(&[
            Change::Remove,
            Change::Remove,
            Change::Restore,
            Change::Purge,
            Change::Purge,
        ]);
        let order = Order::Change(PathText(path.clone().into_bytes()), change);
        if let Some(number) = self.swarm.order(at, order) {
            let hash = self.removed.asked(&path, change);
            self.ledger.unlist(&path);
            if change == Change::Purge {
                self.ledger.let_go(&hash);
            }
            self.asked.insert(number, Asked::Change { path, change });
        }
    }

    /// Different each time, except that now and then an older one comes again.
    fn new_content(&mut self) -> Vec<u8> {
        if self.dice.chance(10)
            && let Some(hash) = self.some_hash()
            && let Some(file) = self.ledger.file(&hash)
        {
            return file.content.to_vec();
        }
        self.fresh_content()
    }

    fn fresh_content(&mut self) -> Vec<u8> {
        self.content += 1;
        let len = match self.dice.below(20) {
            0 => 0,
            1..12 => self.dice.between(1, 5000),
            12..18 => self.dice.between(60_000, 300_000),
            _ => self.dice.between(1 << 20, 2_500_000),
        };
        let mut bytes = vec![0; len as usize];
        let zeros = self.dice.chance(10);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.content.to_le_bytes());
        let random = if zeros { len.min(100) as usize } else { bytes.len() };
        hasher.finalize_xof().fill(&mut bytes[..random]);
        if self.dice.chance(30) {
            bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 4);
        }
        bytes
    }

    fn some_hash(&mut self) -> Option<FileHash> {
        let known: Vec<FileHash> = self.ledger.files().map(|file| file.hash).collect();
        (!known.is_empty()).then(|| self.dice.pick(&known))
    }

    fn get(&mut self, at: usize) {
        let Some(hash) = self.some_hash() else { return };
        let target = match self.dice.below(10) {
            0..2 => Target::Prefix(hash.to_string()[..12].to_owned()),
            2..5 => Target::Path(PathText(some_path(&mut self.dice).into_bytes())),
            _ => Target::Hash(hash),
        };
        let range = match self.dice.below(6) {
            0 => Some(Range::Last(self.dice.below(100_000))),
            1 => {
                let start = self.dice.below(1 << 20);
                Some(Range::Span { start, end: Some(start + self.dice.below(1 << 20)) })
            }
            _ => None,
        };
        self.ask_get(at, target, range, false);
    }

    fn ask_get(&mut self, at: usize, target: Target, range: Option<Range>, must: bool) {
        let seekable = self.dice.chance(50);
        let order = Order::Get { target: target.clone(), range, seekable };
        let since = self.swarm.now();
        self.ask(at, order, Asked::Get { target, range, must, since });
    }

    fn ask(&mut self, at: usize, order: Order, asked: Asked) {
        if let Some(number) = self.swarm.order(at, order) {
            self.asked.insert(number, asked);
        }
    }

    fn ask_all(&mut self, mut question: impl FnMut() -> (Order, Asked)) {
        for at in self.swarm.running() {
            let (order, asked) = question();
            self.ask(at, order, asked);
        }
    }

    /// An order was answered.
    fn take(&mut self, at: usize, report: Report) {
        let Some(asked) = self.asked.remove(&report.number) else { return };
        let (kind, said) = match (&report.outcome, &asked) {
            (Outcome::Put(Ok(stored)), _) => {
                ("put", format!("{} {} copies", stored.hash, stored.copies))
            }
            (Outcome::Get(Ok((hash, bytes))), _) => ("get", format!("{hash} {}", bytes.len())),
            (Outcome::Ls(Ok(listing)), _) => ("ls", format!("{} paths", listing.len())),
            (Outcome::Stat(Ok(stat)), _) => {
                let holders: Vec<&str> = stat.holders.iter().map(|h| h.name.as_str()).collect();
                ("stat", format!("{:?} copies at {holders:?}", stat.info.copies))
            }
            (Outcome::Status(Ok(status)), _) => {
                ("status", format!("{} alive, {:?}", status.peers_alive, status.problems))
            }
            (Outcome::Approve(Ok(())), _) => ("approve", String::new()),
            (Outcome::Change(Ok(())), Asked::Change { path, change }) => {
                (change.name(), path.clone())
            }
            (Outcome::Change(Ok(())), _) => ("change", String::new()),
            (Outcome::Change(Err(err)), _) => ("change failed", err.clone()),
            (Outcome::Scrub(Ok(())), _) => ("scrub", String::new()),
            (Outcome::Scrub(Err(err)), _) => ("scrub failed", err.clone()),
            (Outcome::Put(Err(err)), _) => ("put failed", err.clone()),
            (Outcome::Get(Err(err)), _) => ("get failed", err.clone()),
            (Outcome::Ls(Err(err)), _) => ("ls failed", err.clone()),
            (Outcome::Drain(Ok(())), _) => ("drain", String::new()),
            (Outcome::Drain(Err(err)), _) => ("drain failed", err.clone()),
            (Outcome::Stat(Err(err)), _) => ("stat failed", err.clone()),
            (Outcome::Status(Err(err)), _) => ("status failed", err.clone()),
            (Outcome::Approve(Err(err)), _) => ("approve failed", err.clone()),
            (Outcome::Stop, _) => ("stop", String::new()),
        };
        let number = report.number;
        let history = self.swarm.setup.history.clone();
        history.note(report.at, format_args!("n{at} order {number}: {kind} {said}"));
        history.count(&format!("operation {kind}"));
        if let Err(wrong) = self.check(at, report, asked) {
            self.violation(wrong);
        }
    }

    fn check(&mut self, at: usize, report: Report, asked: Asked) -> Result<(), String> {
        match (report.outcome, asked) {
            (Outcome::Put(Ok(stored)), Asked::Put { path, content, .. }) => {
                let ahead = is_far(&self.swarm.machines[at]);
                if let Some(path) = path.clone().filter(|path| is_doomed(path)) {
                    self.removed.put(path, stored.hash);
                }
                let done = self.ledger.acknowledged(path.as_ref(), content, &stored, ahead);
                done.map_err(|wrong| format!("I1: {wrong}"))
            }
            (Outcome::Get(Ok((hash, bytes))), Asked::Get { target, range, must, since }) => {
                let is_right = content::check(&self.ledger, &target, range, (&hash, &bytes));
                is_right.map_err(|wrong| format!("I2: {wrong}"))?;
                let took = report.at.saturating_sub(since);
                if must && took > READ_WITHIN {
                    return Err(format!("I1: n{at} took {took:?} to read {hash}"));
                }
                Ok(())
            }
            (Outcome::Get(Err(err)), Asked::Get { target, must: true, .. }) => {
                Err(format!("I1: n{at} cannot read {target:?}, which was acknowledged: {err}"))
            }
            (Outcome::Stat(Ok(stat)), Asked::Stat { must: true }) => {
                copies::check_stat(&stat, self.swarm.members().len())
            }
            (Outcome::Stat(Err(err)), Asked::Stat { must: true }) => {
                Err(format!("I6: n{at} does not know who holds a file: {err}"))
            }
            (Outcome::Change(done), Asked::Change { path, change }) => {
                self.removed.answered(&path, change, done.is_ok());
                Ok(())
            }
            (Outcome::Status(status), _) => {
                self.states[at].0 = status.ok();
                Ok(())
            }
            (Outcome::Ls(listing), _) => {
                let trusted = self.ledger.trusts(&self.swarm.machines[at].name);
                listing.iter().filter(|_| trusted).for_each(|l| self.visible.note(l));
                self.states[at].1 = listing.ok();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Asks everybody how it is and what it lists.
    fn look(&mut self) {
        self.states.fill((None, None));
        self.ask_all(|| (Order::Status, Asked::Status));
        self.ask_all(|| (Order::Ls, Asked::Ls));
        self.finish(Duration::from_secs(1));
    }

    fn look_result(&self) -> Result<(), String> {
        let state = |at: usize| {
            let (status, tree) = self.states[at].clone();
            (at, status.zip(tree))
        };
        let states: Vec<_> = self.swarm.members().into_iter().map(state).collect();
        equal::check(&self.ledger, &states)
    }

    /// Lets time pass until everything asked is answered, at most so long.
    fn finish(&mut self, at_most: Duration) {
        let until = self.swarm.now() + at_most;
        while !self.asked.is_empty() && self.swarm.now() < until {
            self.step();
        }
    }

    /// Waits until all is well, and stays so; false when that never happens.
    fn get_well(&mut self, stay: Duration) -> bool {
        let healed = self.swarm.now();
        let mut wrong = Err("nothing was looked at".to_owned());
        let mut since = healed;
        while wrong.is_err() || self.swarm.now() < since + stay {
            if self.swarm.now() >= healed + WELL_WITHIN + stay {
                break;
            }
            let next = self.swarm.now() + LOOK_EVERY;
            while self.swarm.now() < next {
                self.step();
            }
            self.tend();
            self.let_in();
            self.look();
            wrong = self.look_result();
            if wrong.is_err() {
                since = self.swarm.now();
            }
        }
        let took = since.saturating_sub(healed).as_secs();
        self.swarm.note(format_args!("well after {took} s"));
        self.count(&format!("well within {} s", took.next_multiple_of(15)));
        // What was asked before may still come to its end, and takes a moment to be known.
        self.finish(ANSWERED_WITHIN);
        let until = self.swarm.now() + KNOWN_WITHIN;
        let mut tree_is_right = self.look_at_tree();
        while tree_is_right.is_err() && self.swarm.now() < until {
            self.step();
            tree_is_right = self.look_at_tree();
        }
        match wrong.and(tree_is_right) {
            Ok(()) => true,
            Err(wrong) => {
                self.violation(format!("I7: not well {took} s after the last fault: {wrong}"));
                false
            }
        }
    }

    /// Whether the first member lists what it has to, and nothing that was removed.
    fn look_at_tree(&mut self) -> Result<(), String> {
        self.look();
        let tree = self.states[self.swarm.members()[0]].1.clone().unwrap_or_default();
        equal::check_tree(&self.ledger, &tree)?;
        // Who had heard of a removal may have been lost.
        if self.ledger.losses == 0 { self.removed.check(&tree) } else { Ok(()) }
    }

    /// What a person does: switches on what is off, and restarts what has given up writing.
    fn tend(&mut self) {
        for at in self.swarm.members() {
            let read_only =
                self.states[at].0.as_ref().is_some_and(|status| status.read_only.is_some());
            if self.states[at].0.as_ref().is_some_and(|status| status.draining) {
                self.ask(at, Order::Drain(false), Asked::Drain);
            }
            if read_only && self.swarm.is_up(at) {
                self.count("restarted when read-only");
                self.swarm.end(at, End::Kill);
            }
            if !self.swarm.is_up(at) {
                self.swarm.start(at);
            }
        }
    }

    /// Every file that was acknowledged or seen, through every node.
    fn read_everywhere(&mut self) {
        let seen: Vec<FileHash> = self.visible.unacknowledged(&self.ledger).collect();
        (0..seen.len()).for_each(|_| self.count("seen and not acknowledged"));
        for hash in self.readable().into_iter().chain(seen) {
            for at in self.swarm.running() {
                self.ask_get(at, Target::Hash(hash), None, true);
            }
            self.finish(ANSWERED_WITHIN);
            if self.has_enough() {
                return;
            }
        }
    }

    /// Nothing stays that nobody wants.
    fn look_for_rest(&mut self) {
        if self.ledger.rotted || self.disks().len() < self.swarm.members().len() {
            return;
        }
        let until = self.swarm.now() + FREED_WITHIN;
        let mut found = removed::check_disks(&self.disks());
        while found.is_err() && self.swarm.now() < until {
            let next = self.swarm.now() + LOOK_EVERY;
            while self.swarm.now() < next {
                self.step();
            }
            found = removed::check_disks(&self.disks());
        }
        if let Err(wrong) = found {
            self.violation(wrong);
        }
    }

    /// Every chunk has its copies.
    fn look_at_copies(&mut self) {
        let disks = self.disks();
        // What has rotted counts as soon as somebody has noticed.
        if disks.len() == self.swarm.members().len()
            && !self.ledger.rotted
            && let Err(wrong) = copies::check_disks(&disks)
        {
            self.violation(wrong);
        }
        for (nth, hash) in self.readable().into_iter().enumerate() {
            let members = self.swarm.members();
            let at = members[nth % members.len()];
            self.ask(at, Order::Stat(hash), Asked::Stat { must: true });
            self.finish(ANSWERED_WITHIN);
        }
    }

    fn readable(&self) -> Vec<FileHash> {
        self.ledger.files().filter(|file| !file.excused).map(|file| file.hash).collect()
    }

    /// Without one machine everything can still be read at once.
    fn lose_one(&mut self) {
        let members = self.swarm.members();
        if members.len() < 2 {
            return;
        }
        let lost = self.dice.pick(&members);
        self.swarm.note(format_args!("n{lost} is lost for good"));
        self.swarm.end(lost, End::Power(Survive::None));
        for hash in self.readable() {
            let running = self.swarm.running();
            let at = self.dice.pick(&running);
            self.ask_get(at, Target::Hash(hash), None, true);
            self.finish(ANSWERED_WITHIN);
        }
    }

    /// The last look: everything is off, and only the disks tell.
    fn look_at_disks(&mut self) {
        for at in self.swarm.running() {
            self.swarm.end(at, End::Kill);
        }
        for machine in self.swarm.machines.clone() {
            if self.ledger.trusts(&machine.name)
                && self.swarm.is_member(machine.number)
                && let Err(wrong) = index::check(&machine.disk(), SEGMENT_LEN, self.ledger.rotted)
            {
                self.violation(format!("{}: {wrong}", machine.name));
            }
            for (path, bytes) in segments::all_files(&machine.disk()) {
                if let Some(what) = self.swarm.setup.secrets.find(&bytes) {
                    let (name, path) = (&machine.name, path.display());
                    self.violation(format!("I10: {what} on {name} in {path}"));
                }
            }
        }
        let most = u64::try_from(memory::most() >> 10).unwrap_or(0);
        self.swarm.setup.history.set("most KiB of memory in a node", most);
    }
}

/// One of a dozen paths; each name is long enough to be searched for.
fn some_path(dice: &mut Dice) -> String {
    format!("/letter-{:02}.txt", dice.below(12))
}
