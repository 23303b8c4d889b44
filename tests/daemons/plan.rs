//! What a seed decides before anything runs: how many machines, how slow the links, and which kinds
//! of faults there are. Swarm testing (Groce and others, ISSTA 2012): each seed turns a random
//! subset of the kinds on, because kinds that are always on hide what the others would find.

use crate::chance::Dice;
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// One machine loses power.
    PowerLoss,
    /// One machine loses power in the middle of writing.
    PowerLossAtWrite,
    /// All machines lose power at once.
    Blackout,
    /// A process is killed.
    Kill,
    /// A node is stopped in order.
    Stop,
    /// Two groups of machines cannot reach each other.
    Partition,
    /// Messages get through in one direction only.
    OneWay,
    /// Messages on a link are late, by seconds.
    Hold,
    /// A write or sync fails.
    DiskError,
    /// A disk is full for a while.
    DiskFull,
    /// Bytes change on one machine's disk.
    Rot,
    /// A disk is lost and replaced by an empty one; at most once.
    Wipe,
}

const FAULTS: [Fault; 12] = [
    Fault::PowerLoss,
    Fault::PowerLossAtWrite,
    Fault::Blackout,
    Fault::Kill,
    Fault::Stop,
    Fault::Partition,
    Fault::OneWay,
    Fault::Hold,
    Fault::DiskError,
    Fault::DiskFull,
    Fault::Rot,
    Fault::Wipe,
];

/// How nodes get into the swarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// The user has copied the configuration directory.
    Keys,
    /// A person types the code.
    Approval,
}

/// The plan of a seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) machines: usize,
    pub(crate) tls: bool,
    pub(crate) replicas: u8,
    pub(crate) repair_delay: Duration,
    pub(crate) entry: Entry,
    /// Bounds of the delay of a message, in milliseconds.
    pub(crate) latency: (u64, u64),
    /// By how much each wall clock is ahead, in milliseconds.
    pub(crate) ahead_ms: Vec<u64>,
    pub(crate) faults: Vec<Fault>,
    /// Whether faults begin before the swarm has formed.
    pub(crate) early: bool,
    /// How long operations and faults go on.
    pub(crate) busy: Duration,
    /// Mean times between operations and between faults.
    pub(crate) operation_every: Duration,
    pub(crate) fault_every: Duration,
    /// No disk keeps what was synced: the bug that the checkers have to find.
    pub(crate) lying_disks: bool,
}

impl Plan {
    /// The plan of `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let machines = dice.pick(&[3, 3, 3, 4, 5]);
        let slowest = dice.pick(&[10, 40, 150]);
        let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|_| dice.chance(50)).collect();
        // Both take copies away for good, and the promise is about one loss.
        if faults.contains(&Fault::Rot) {
            faults.retain(|fault| *fault != Fault::Wipe);
        }
        let early = dice.chance(25);
        Self {
            machines,
            tls: seed.is_multiple_of(10),
            replicas: dice.pick(&[2, 3, 3]),
            repair_delay: Duration::from_secs(dice.pick(&[2, 10, 20])),
            entry: if dice.chance(30) { Entry::Approval } else { Entry::Keys },
            latency: (1, slowest),
            ahead_ms: (0..machines).map(|_| dice.pick(&[0, 0, 500, 20_000])).collect(),
            faults,
            early,
            busy: Duration::from_secs(dice.between(50, 80)),
            operation_every: Duration::from_millis(dice.pick(&[400, 1000, 2500])),
            fault_every: Duration::from_millis(dice.pick(&[3000, 8000, 15_000])),
            lying_disks: false,
        }
    }

    /// The plan that finds disks which lie: whole swarms lose power.
    pub(crate) fn with_lying_disks(mut self) -> Self {
        self.faults = vec![Fault::Blackout];
        self.lying_disks = true;
        self
    }
}
