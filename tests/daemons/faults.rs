//! Carries out the faults of a plan: draws whom and when they hit, and undoes them in time.

use crate::chance::Dice;
use crate::checks::acknowledged::Ledger;
use crate::life::{Machine, Order};
use crate::plan::{Fault, Plan};
use crate::segments;
use crate::simfs::{Fault as DiskFault, Survive};
use crate::swarm::{End, Swarm, Trouble};
use p2pfs::sys::Fs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Large enough to be no limit.
const ROOMY: u64 = 1 << 40;

/// How far a wall clock jumps, in milliseconds.
const JUMPS_MS: [i64; 5] = [30_000, -30_000, -3_600_000, -86_400_000, 86_400_000];
/// More than others accept.
pub(crate) const FAR_MS: i64 = 60_000;

/// Something that is due later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Start(usize),
    Heal,
    Room(usize),
    Resume(usize),
    Clock(usize),
}

/// The faults of one simulation.
pub(crate) struct Faults {
    dice: Dice,
    kinds: Vec<Fault>,
    every: Duration,
    next: Duration,
    due: Vec<(Duration, Due)>,
    /// By how much clocks were ahead when nothing was wrong with them.
    clocks: Vec<i64>,
    /// Whose clocks run wrong, and by how many milliseconds per step.
    drifting: BTreeMap<usize, i64>,
    /// Whether machines may be lost: what only one of them has is not lost before others have it.
    pub(crate) losses: bool,
    lost_one: bool,
    /// The kinds that have struck.
    pub(crate) struck: BTreeSet<String>,
    rotten: Option<usize>,
    keep_first: bool,
    spares_from: usize,
    /// Machines that are to be switched on for the first time.
    pub(crate) joining: Vec<usize>,
}

impl Faults {
    /// From a plan; the first one comes after `begin`.
    pub(crate) fn new(plan: &Plan, seed: u64, begin: Duration) -> Self {
        let mut dice = Dice::new(seed, "faults");
        let next = begin + gap(&mut dice, plan.fault_every);
        Self {
            dice,
            // The liar lies all the time.
            kinds: plan.faults.iter().copied().filter(|kind| *kind != Fault::Evil).collect(),
            every: plan.fault_every,
            next,
            due: Vec::new(),
            clocks: plan.ahead_ms.clone(),
            drifting: BTreeMap::new(),
            joining: Vec::new(),
            spares_from: plan.machines,
            losses: false,
            lost_one: false,
            struck: plan.evil.iter().map(|_| "Evil".to_owned()).collect(),
            rotten: None,
            // Where people approve, only the first machine has the swarm key.
            keep_first: plan.entry == crate::plan::Entry::Approval,
        }
    }

    /// The next fault comes after `begin`.
    pub(crate) fn go_on(&mut self, begin: Duration) {
        self.next = begin + gap(&mut self.dice, self.every);
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, swarm: &mut Swarm, ledger: &mut Ledger) {
        let now = swarm.now();
        while let Some(at) = self.due.iter().position(|(when, _)| *when <= now) {
            let (_, due) = self.due.remove(at);
            self.undo(swarm, due);
        }
        for (at, ms) in &self.drifting {
            swarm.machines[*at].ahead_ms().fetch_add(*ms, Ordering::Relaxed);
        }
        for at in 0..swarm.len() {
            let planned = self.due.iter().any(|(_, due)| *due == Due::Start(at));
            if swarm.is_member(at) && !swarm.is_up(at) && !planned {
                let pause = Duration::from_millis(self.dice.between(10, 15_000));
                self.due.push((now + pause, Due::Start(at)));
            }
        }
        if now >= self.next && !self.kinds.is_empty() {
            self.next = now + gap(&mut self.dice, self.every);
            let fault = self.dice.pick(&self.kinds);
            self.strike(fault, swarm, ledger);
        }
    }

    /// No more faults; everything that can be undone is.
    pub(crate) fn end(&mut self, swarm: &mut Swarm) {
        self.kinds.clear();
        self.due.clear();
        swarm.machines.iter().for_each(|machine| machine.disk().forget_faults());
        swarm.heal();
        for at in 0..swarm.len() {
            self.undo(swarm, Due::Room(at));
            self.undo(swarm, Due::Resume(at));
            self.undo(swarm, Due::Clock(at));
            if swarm.is_member(at) {
                self.undo(swarm, Due::Start(at));
            }
        }
    }

    fn strike(&mut self, fault: Fault, swarm: &mut Swarm, ledger: &mut Ledger) {
        let running = swarm.running();
        if running.is_empty() {
            return;
        }
        let one = self.dice.pick(&running);
        // A node that is alone with a wrong clock is believed by nobody afterwards: that is a loss
        // of time, until the clocks say so too, and of nothing else.
        let some_far = swarm.machines.iter().any(|machine| is_far(machine));
        if some_far && fault.parts() {
            return;
        }
        let survive = self.dice.pick(&[Survive::None, Survive::Some, Survive::All]);
        let idle = match fault {
            Fault::Join => self.spare(swarm).is_none(),
            Fault::Wipe | Fault::Leave => {
                !self.losses || self.lost_one || self.keep_first && one == 0
            }
            Fault::Evil => true,
            _ => false,
        };
        if idle {
            return;
        }
        self.struck.insert(format!("{fault:?}"));
        swarm.setup.history.count(&format!("fault {fault:?}"));
        swarm.note(format_args!("{fault:?} n{one}"));
        match fault {
            Fault::PowerLoss => swarm.end(one, End::Power(survive)),
            Fault::Kill => swarm.end(one, End::Kill),
            Fault::Blackout => running.iter().for_each(|at| swarm.end(*at, End::Power(survive))),
            Fault::Stop => drop(swarm.order(one, Order::Stop)),
            Fault::PowerLossAtWrite => self.disk(swarm, one, DiskFault::Crash),
            Fault::DiskError => self.disk(swarm, one, DiskFault::Io),
            Fault::DiskFull => {
                let disk = swarm.machines[one].disk();
                disk.set_capacity(disk.used() + (64 << 10));
                self.later(swarm, Due::Room(one));
            }
            Fault::Partition | Fault::OneWay | Fault::Hold => self.part(fault, swarm),
            Fault::Rot => self.rot(swarm, ledger, one),
            Fault::Pause => {
                swarm.machines[one].pause(true);
                let until = swarm.now() + self.between(20_000, 40_000);
                self.due.push((until, Due::Resume(one)));
            }
            Fault::ClockJump => self.jump(swarm, one, some_far),
            Fault::ClockDrift => {
                self.drifting.insert(one, self.dice.pick(&[-10, 10]));
                self.later(swarm, Due::Clock(one));
            }
            Fault::Join => self.joining.extend(self.spare(swarm)),
            Fault::Evil => {}
            Fault::Leave => {
                self.lost_one = true;
                swarm.end(one, End::Power(Survive::None));
                swarm.leave(one);
                ledger.lost_machine(&swarm.machines[one].name);
            }
            Fault::Wipe => {
                self.lost_one = true;
                swarm.end(one, End::Power(Survive::None));
                swarm.wipe(one, self.dice.roll());
                ledger.lost_machine(&swarm.machines[one].name);
                // Where people approve, nobody else has the keys, and a person types the new code.
                (0..swarm.len()).filter(|at| *at != one).find(|at| swarm.copy_keys(*at, one));
            }
        }
    }

    /// A machine that has not been switched on yet.
    fn spare(&self, swarm: &Swarm) -> Option<usize> {
        (self.spares_from..swarm.len())
            .find(|at| !swarm.has_lived(*at) && !self.joining.contains(at))
    }

    /// Sets a clock wrong; far ahead only where the others are there to say so.
    fn jump(&mut self, swarm: &Swarm, at: usize, some_far: bool) {
        let mut far = self.dice.pick(&JUMPS_MS);
        let all_there = swarm.running().len() == swarm.members().len()
            && !swarm.machines.iter().any(|machine| machine.is_paused());
        if some_far || !all_there || swarm.has_trouble() {
            far = far.min(FAR_MS / 2);
        }
        swarm.machines[at].ahead_ms().fetch_add(far, Ordering::Relaxed);
        self.later(swarm, Due::Clock(at));
    }

    /// Lets one of the next changes of a disk fail.
    fn disk(&mut self, swarm: &Swarm, at: usize, fault: DiskFault) {
        let disk = swarm.machines[at].disk();
        disk.fail_at(disk.steps() + self.dice.between(1, 30), fault);
    }

    /// Parts the machines into two groups, or makes trouble on single links.
    fn part(&mut self, fault: Fault, swarm: &mut Swarm) {
        let sides: Vec<bool> = (0..swarm.len()).map(|_| self.dice.chance(50)).collect();
        for a in 0..swarm.len() {
            for b in 0..a {
                let (from, to) = if self.dice.chance(50) { (a, b) } else { (b, a) };
                match fault {
                    Fault::Partition if sides[a] != sides[b] => swarm.trouble(a, b, Trouble::Cut),
                    Fault::OneWay if self.dice.chance(40) => {
                        swarm.trouble(a, b, Trouble::OneWay(from, to));
                    }
                    Fault::Hold if self.dice.chance(40) => swarm.trouble(a, b, Trouble::Held),
                    _ => {}
                }
            }
        }
        self.later(swarm, Due::Heal);
    }

    /// Changes some bytes of a segment, always of the same machine.
    fn rot(&mut self, swarm: &Swarm, ledger: &mut Ledger, one: usize) {
        let at = *self.rotten.get_or_insert(one);
        let disk = swarm.machines[at].disk();
        let folder = Path::new(segments::FOLDER);
        let files = disk.read_dir(folder).unwrap_or_default();
        let Some(file) = files.iter().max_by_key(|file| file.len).filter(|file| file.len > 0)
        else {
            return;
        };
        let places: Vec<u64> = (0..3).map(|_| self.dice.below(file.len)).collect();
        disk.rot(&folder.join(&file.name), |bytes| {
            places.iter().for_each(|place| bytes[*place as usize] ^= 0x55);
        });
        ledger.rotted = true;
        ledger.lost_machine(&swarm.machines[at].name);
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.dice.between(from_ms, to_ms))
    }

    fn later(&mut self, swarm: &Swarm, due: Due) {
        let pause = self.between(200, 20_000);
        self.due.retain(|(_, other)| *other != due);
        self.due.push((swarm.now() + pause, due));
    }

    fn undo(&mut self, swarm: &mut Swarm, due: Due) {
        match due {
            Due::Start(at) if !swarm.is_up(at) => swarm.start(at),
            Due::Start(_) => {}
            Due::Heal => swarm.heal(),
            Due::Room(at) => swarm.machines[at].disk().set_capacity(ROOMY),
            Due::Resume(at) => {
                if swarm.machines[at].is_paused() {
                    swarm.note(format_args!("n{at} goes on"));
                }
                swarm.machines[at].pause(false);
            }
            Due::Clock(at) => {
                self.drifting.remove(&at);
                swarm.machines[at].ahead_ms().store(self.clocks[at], Ordering::Relaxed);
            }
        }
    }
}

/// Whether others refuse what this machine writes.
pub(crate) fn is_far(machine: &Machine) -> bool {
    machine.ahead_ms().load(Ordering::Relaxed) > FAR_MS
}

/// A random gap with this mean.
pub(crate) fn gap(dice: &mut Dice, mean: Duration) -> Duration {
    // Exponentially distributed, in thousandths, so that nothing depends on rounding.
    let uniform = (dice.below(1 << 20) + 1) as f64 / f64::from(1 << 20);
    Duration::from_millis((mean.as_millis() as f64 * -uniform.ln()) as u64)
}
