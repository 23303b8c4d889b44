//! Whole nodes in one thread: three to eight of them run as they do in production, on simulated
//! disks, network, clocks and random sources, while things go wrong. Everything follows from the
//! seed: the same seed gives the same history, event by event, and its hash is printed.
//!
//! ```text
//! cargo test --test daemons -- --nocapture                      # 200 seeds, with their totals
//! P2PFS_DAEMON_SEEDS=5000 cargo test --test daemons seeds -- --nocapture         # more of them
//! P2PFS_DAEMON_SEEDS=50 P2PFS_DAEMON_AGAIN=50 cargo test --test daemons seeds    # each twice
//! P2PFS_DAEMON_SEED=7 cargo test --test daemons -- --nocapture  # one, every event printed
//! P2PFS_DAEMON_LOG=p2pfs=debug                                  # with it, what the nodes log
//! P2PFS_DAEMON_CHUNK=16eeaf2f                                   # and who holds this chunk
//! P2PFS_DAEMON_FROM=200                                         # the first of several seeds
//! P2PFS_DAEMON_UNTIL_WRONG=1                                    # ends with the first that fails
//! ```
//!
//! What the checkers are worth is shown by bugs that are planted: `.ci/planted`.
//!
//! `plan` is what a seed decides, `faults` and `play` carry it out on a `swarm` of machines, each
//! of which has one `life` after the other; `checks` judge. Each seed runs in a process of its own,
//! because libraries count things per process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and reports")]

#[path = "daemons/chance.rs"]
mod chance;
#[path = "daemons/checks/mod.rs"]
mod checks;
#[path = "daemons/disk.rs"]
mod disk;
#[path = "daemons/evil.rs"]
mod evil;
#[path = "daemons/faults.rs"]
mod faults;
#[path = "daemons/history.rs"]
mod history;
#[path = "daemons/joins.rs"]
mod joins;
#[path = "daemons/kernel.rs"]
mod kernel;
#[path = "daemons/life.rs"]
mod life;
#[path = "harness/machine.rs"]
mod machine;
#[path = "daemons/plan.rs"]
mod plan;
#[path = "daemons/play.rs"]
mod play;
#[path = "daemons/runner.rs"]
mod runner;
#[path = "daemons/segments.rs"]
mod segments;
#[path = "harness/simfs.rs"]
mod simfs;
#[path = "daemons/swarm.rs"]
mod swarm;
#[path = "daemons/tap.rs"]
mod tap;

#[global_allocator]
static COUNTING: checks::memory::Counting = checks::memory::Counting;

use runner::{Run, Variant, run_all, seeds};
use std::collections::{BTreeMap, BTreeSet};

/// Where a process starts that plays one seed; it does nothing when it was not started for that.
#[test]
fn one_seed() {
    runner::play_as_told();
}

/// Nothing is lost, nothing is wrong, everything gets well again; and a seed fixes the history.
#[test]
fn seeds_hold_the_promises() {
    let wanted = seeds();
    let again = wanted.iter().copied().take(runner::again());
    let all: Vec<u64> = wanted.iter().copied().chain(again).collect();
    let runs = run_all(&all, Variant::Real);
    let mut first: BTreeMap<u64, &Run> = BTreeMap::new();
    runner::print_totals(&runs);
    let wrong: Vec<String> = runs.iter().filter_map(Run::what_is_wrong).collect();
    assert!(wrong.is_empty(), "{} runs failed\n{}", wrong.len(), wrong.join("\n"));
    for run in &runs {
        if let Some(before) = first.insert(run.seed, run) {
            assert_eq!(before.hash, run.hash, "seed {} had two histories", run.seed);
        }
    }
    let different: BTreeSet<&str> = runs.iter().map(|run| run.hash.as_str()).collect();
    assert_eq!(different.len(), first.len(), "different seeds had the same history");
}

/// Many machines join at once: everything is readable all the time, and little is moved.
#[test]
fn many_join_at_once() {
    let variants = [Variant::FiveToTwenty, Variant::TenToThirty];
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let both = variants.map(|variant| scope.spawn(move || run_all(&[1], variant)));
        both.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    runs.iter().for_each(|run| runner::print_totals(std::slice::from_ref(run)));
    let wrong: Vec<String> = runs.iter().filter_map(Run::what_is_wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The checkers find what they are for: disks that do not keep what was synced.
#[test]
fn lying_disks_are_found() {
    let runs = run_all(&[1, 2, 3, 4], Variant::LyingDisks);
    let is_loss = |what: &String| what.contains(" I1: ") || what.contains(" I4: ");
    let found = runs.iter().filter(|run| run.violations.iter().any(is_loss)).count();
    assert!(found > 0, "whole swarms lost power on disks that lie, and nothing was missed");
}
