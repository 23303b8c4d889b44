//! The membership protocol in a simulated network: thousands of real cores in one thread, virtual
//! time, every history fixed by its seed. `tests/sim/net.rs` is the model, `scenarios.rs` the
//! scenarios as data, `checks.rs` the judges. Bars are those of the design and are asserted.
//!
//! Large swarms run on demand:
//!
//! ```text
//! P2PFS_SIM=5000,10000 cargo test --release --test sim big -- --nocapture
//! ```
//!
//! `P2PFS_SIM_SEED=7` plays one other seed; `P2PFS_SIM_VERBOSE=1` prints each step.

// A test binary has no outside to be reached from, and its reports go to the terminal.
#![allow(unreachable_pub, clippy::print_stdout)]

#[path = "sim/checks.rs"]
mod checks;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/scenarios.rs"]
mod scenarios;

use scenarios::{Scenario, Step, play};
use std::time::Instant;

/// Everything that can happen to a swarm, one after the other.
const TOUR: &[Step] = &[
    Step::ColdStart,
    Step::Idle(60),
    Step::Join,
    Step::Readdress,
    Step::PowerOff,
    Step::Kill,
    Step::Restart,
    Step::Leave,
    Step::BrokenPair(20),
    Step::Slow(30),
    Step::MassCrash(30),
    Step::Partition(3),
];

const SMALL: &[Step] = &[
    Step::ColdStart,
    Step::Join,
    Step::Readdress,
    Step::PowerOff,
    Step::Kill,
    Step::Restart,
    Step::Partition(2),
    Step::Leave,
];

const BIG: &[Step] =
    &[Step::WarmStart, Step::Idle(20), Step::Join, Step::Readdress, Step::PowerOff, Step::Kill];

fn run(scenario: &Scenario, seeds: impl IntoIterator<Item = u64>) {
    let only: Option<u64> = std::env::var("P2PFS_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = match only {
        Some(seed) => vec![seed],
        None => seeds.into_iter().collect(),
    };
    for seed in seeds {
        let started = Instant::now();
        let report = play(scenario, seed);
        let title = format!("{} n={} seed={seed}", scenario.name, scenario.nodes);
        println!(
            "{title} | {:.1} s wall, {} events, peak {} MiB, history {:016x}",
            started.elapsed().as_secs_f64(),
            report.events,
            peak_mib(),
            report.history,
        );
        report.check(&title);
    }
}

/// Largest memory of this process so far, where the system tells.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[test]
fn two_nodes() {
    let steps = &[Step::ColdStart, Step::Readdress, Step::Kill, Step::Restart, Step::Partition(2)];
    run(&Scenario { name: "two", nodes: 2, loss: 0.05, steps }, 1..=20);
}

#[test]
fn three_nodes() {
    let steps = &[
        Step::ColdStart,
        Step::PowerOff,
        Step::Join,
        Step::Kill,
        Step::Restart,
        Step::Partition(3),
        Step::Leave,
    ];
    run(&Scenario { name: "three", nodes: 3, loss: 0.05, steps }, 1..=20);
}

#[test]
fn five_nodes_many_seeds() {
    run(&Scenario { name: "five", nodes: 5, loss: 0.05, steps: SMALL }, 1..=60);
}

#[test]
fn fifty_nodes() {
    run(&Scenario { name: "fifty", nodes: 50, loss: 0.05, steps: TOUR }, 1..=8);
}

#[test]
fn fifty_nodes_without_loss() {
    run(&Scenario { name: "lossless", nodes: 50, loss: 0.0, steps: TOUR }, 1..=2);
}

/// A test per seed, so that they share the cores.
const THOUSAND: Scenario = Scenario { name: "thousand", nodes: 1000, loss: 0.05, steps: TOUR };

#[test]
fn thousand_nodes_first_seed() {
    run(&THOUSAND, [1]);
}

#[test]
fn thousand_nodes_second_seed() {
    run(&THOUSAND, [2]);
}

#[test]
fn thousand_nodes_third_seed() {
    run(&THOUSAND, [3]);
}

#[test]
fn a_seed_fixes_the_history() {
    let scenario = Scenario { name: "again", nodes: 20, loss: 0.05, steps: SMALL };
    let (first, again) = (play(&scenario, 7), play(&scenario, 7));
    assert_eq!((first.history, first.events), (again.history, again.events));
    assert_ne!(first.history, play(&scenario, 8).history);
}

/// Sizes named in `P2PFS_SIM`, each with one seed; nothing without it.
#[test]
fn big() {
    let sizes = std::env::var("P2PFS_SIM").unwrap_or_default();
    for nodes in sizes.split(',').filter_map(|size| size.trim().parse().ok()) {
        run(&Scenario { name: "big", nodes, loss: 0.05, steps: BIG }, [1]);
    }
}
