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
    /// A process is stopped as by SIGSTOP, and goes on later.
    Pause,
    /// A wall clock jumps by up to a day, and jumps back later.
    ClockJump,
    /// A wall clock runs too fast or stands still, and is set right later.
    ClockDrift,
    /// One more machine joins.
    Join,
    /// A disk is lost and replaced by an empty one; at most once.
    Wipe,
    /// A machine goes for good, with its disk; at most once.
    Leave,
    /// One member lies from the beginning, until it goes for good.
    Evil,
}

impl Fault {
    /// Whether it may leave a machine alone.
    pub(crate) const fn parts(self) -> bool {
        !matches!(
            self,
            Self::DiskError
                | Self::DiskFull
                | Self::Rot
                | Self::ClockJump
                | Self::ClockDrift
                | Self::Join
                | Self::Evil
        )
    }
}

/// Each of these takes copies away for good, and the promise is about one loss.
const LOSSES: [Fault; 4] = [Fault::Rot, Fault::Wipe, Fault::Leave, Fault::Evil];
/// At least so many kinds of faults in a seed.
pub(crate) const KINDS_MIN: usize = 3;

const FAULTS: [Fault; 18] = [
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
    Fault::Pause,
    Fault::ClockJump,
    Fault::ClockDrift,
    Fault::Join,
    Fault::Rot,
    Fault::Wipe,
    Fault::Leave,
    Fault::Evil,
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
    /// Machines that form the swarm.
    pub(crate) machines: usize,
    /// Machines that may join it later.
    pub(crate) spares: usize,
    pub(crate) tls: bool,
    pub(crate) replicas: u8,
    pub(crate) repair_delay: Duration,
    /// How long a chunk is kept that nothing claims any more.
    pub(crate) gc_grace: Duration,
    pub(crate) entry: Entry,
    /// Bounds of the delay of a message, in milliseconds.
    pub(crate) latency: (u64, u64),
    /// By how much each wall clock is ahead, in milliseconds.
    pub(crate) ahead_ms: Vec<i64>,
    pub(crate) faults: Vec<Fault>,
    /// The member that lies.
    pub(crate) evil: Option<usize>,
    /// Whether faults begin before the swarm has formed.
    pub(crate) early: bool,
    /// How long operations and faults go on, and at least how many operations.
    pub(crate) busy: Duration,
    pub(crate) operations: u64,
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
        let machines = dice.pick(&[3, 3, 3, 4, 5, 6]);
        let slowest = dice.pick(&[10, 40, 150]);
        let faults = some_faults(&mut dice);
        let spares = if faults.contains(&Fault::Join) { dice.pick(&[1, 1, 2]) } else { 0 };
        // Nobody can change what travels through TLS.
        let tls = seed.is_multiple_of(10) && !faults.contains(&Fault::Evil);
        let evil = faults.contains(&Fault::Evil).then(|| dice.between(1, machines as u64 - 1));
        let early = dice.chance(25);
        Self {
            machines,
            spares,
            tls,
            evil: evil.map(|at| at as usize),
            replicas: dice.pick(&[2, 3, 3]),
            repair_delay: Duration::from_secs(dice.pick(&[2, 10, 20])),
            gc_grace: Duration::from_secs(dice.pick(&[4, 12, 40])),
            entry: if dice.chance(30) { Entry::Approval } else { Entry::Keys },
            latency: (1, slowest),
            ahead_ms: (0..machines + spares).map(|_| dice.pick(&[0, 0, 500, 20_000])).collect(),
            faults,
            early,
            busy: Duration::from_secs(dice.between(60, 80)),
            operations: 30,
            operation_every: Duration::from_millis(dice.pick(&[400, 1000, 2000])),
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

/// The kinds of faults of a seed.
fn some_faults(dice: &mut Dice) -> Vec<Fault> {
    let loss = dice.pick(&LOSSES);
    let mut faults = Vec::new();
    while faults.len() < KINDS_MIN {
        faults = FAULTS.into_iter().filter(|_| dice.chance(45)).collect();
        faults.retain(|fault| *fault == loss || !LOSSES.contains(fault));
    }
    faults
}
