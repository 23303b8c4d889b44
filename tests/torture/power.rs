//! The power fails while files are put: the file system is shut down at a random moment, and what
//! was not synced is gone. What was acknowledged is there when it is mounted again. That the test
//! would notice is tried out with a daemon whose syncs do nothing.
//!
//! Acknowledged is what was so before the power failed. Whoever has no power hears nothing after
//! that, but these daemons run on, and ext4 may then say that a sync has succeeded which was under
//! way, although nothing of it is there later.

use crate::daemon::{Daemon, Swarm, noise};
use crate::disk::Disk;
use crate::machine::{Dice, able, alone, form};
use crate::trace;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Puts under way at a time.
const WRITERS: u64 = 2;
/// The power fails within so many milliseconds after the puts have begun.
const WITHIN: u64 = 600;
/// Or within so many after a start has begun.
const START: u64 = 120;
/// A daemon whose syncs do nothing is found out within so many failures.
const FOUND_WITHIN: usize = 10;
/// Room for the store's free floor and what the test puts; the file has holes.
const DISK: u64 = 4 << 30;

/// What was acknowledged: path → the seed and length of its bytes.
type Files = BTreeMap<String, (u64, usize)>;

/// A node that has nothing on other disks, not even its keys.
fn node(swarm: &Swarm, disk: &Disk) -> Daemon {
    let mut node = swarm.draft();
    node.data = disk.path().join("data");
    node.config = disk.path().join("config");
    node
}

/// Puts one file after the other until one fails.
fn write(node: &Daemon, seed: u64, stop: &AtomicBool, kept: &Mutex<Files>) {
    let mut dice = Dice::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let (seed, len) = (dice.below(u64::MAX), dice.len());
        let name = format!("{seed:016x}");
        let source = node.work.join(&name);
        std::fs::write(&source, noise(seed, len)).unwrap();
        let said = node.run(&["put", &name, "--as", &format!("/{name}")]);
        std::fs::remove_file(&source).unwrap();
        let mut kept = kept.lock().unwrap();
        if said.code != 0 || stop.load(Ordering::Relaxed) {
            return;
        }
        kept.insert(format!("/{name}"), (seed, len));
    }
}

/// Puts files until the power fails; those that were acknowledged.
fn until_the_power_fails(node: &Daemon, disk: &Disk, dice: &mut Dice) -> Files {
    let (stop, kept) = (AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            let (seed, stop, kept) = (dice.below(u64::MAX), &stop, &kept);
            scope.spawn(move || write(node, seed, stop, kept));
        }
        std::thread::sleep(Duration::from_millis(dice.below(WITHIN)));
        stop_before(&stop, &kept);
        disk.cut();
        // It is without power, too.
        node.signal(Signal::KILL);
    });
    kept.into_inner().unwrap()
}

/// From now on nothing counts as acknowledged.
fn stop_before(stop: &AtomicBool, kept: &Mutex<Files>) {
    let _kept = kept.lock().unwrap();
    stop.store(true, Ordering::Relaxed);
}

/// Starts a node, the first time with everything to make, and the power fails meanwhile.
fn while_it_starts(node: &mut Daemon, disk: &Disk, dice: &mut Dice) {
    let after = Duration::from_millis(dice.below(START));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(after);
            disk.cut();
        });
        let _answers = node.attempt();
    });
    node.kill();
    disk.again();
}

/// Those of these files that are not there as they were put.
fn lost(node: &Daemon, kept: &Files) -> Vec<String> {
    let is_lost = |(path, (seed, len)): (&String, &(u64, usize))| {
        let got = node.command(&["get", path, "-o", "-"]).output().unwrap();
        let said = || format!("{path} ({len} B): {}", String::from_utf8_lossy(&got.stderr));
        (got.stdout != noise(*seed, *len)).then(said)
    };
    kept.iter().filter_map(is_lost).collect()
}

/// Cuts the power again and again; what was kept in all of that.
fn cycles(kind: &str, count: u64) -> usize {
    let disk = Disk::new(kind, DISK);
    let mut swarm = Swarm::empty();
    let node = node(&swarm, &disk);
    swarm.add(node);
    let (mut dice, mut all) = (Dice::from_outside(), Files::new());
    for cycle in 0..count {
        if cycle % 3 == 0 {
            while_it_starts(&mut swarm[0], &disk, &mut dice);
        }
        swarm[0].start();
        let kept = until_the_power_fails(&swarm[0], &disk, &mut dice);
        swarm[0].kill();
        disk.again();
        swarm[0].start();
        let lost = lost(&swarm[0], &kept);
        let count = kept.len();
        assert!(lost.is_empty(), "of {count} acknowledged in cycle {cycle} on {kind}: {lost:#?}");
        all.extend(kept);
        swarm[0].kill();
    }
    swarm[0].start();
    let lost = lost(&swarm[0], &all);
    assert!(lost.is_empty(), "in later cycles on {kind}: {lost:#?}");
    all.len()
}

fn keeps(kind: &str) {
    let _turn = alone();
    let tools = ["mount", "umount", &format!("mkfs.{kind}")];
    if !able(&format!("power failures on {kind}"), &tools) {
        return;
    }
    let (begun, count) = (Instant::now(), form(3, 50));
    let files = cycles(kind, count);
    assert!(files as u64 > 2 * count, "only {files} acknowledged: too few to say anything");
    println!(
        "0 of {files} acknowledged files lost in {count} power failures on {kind}, {:.1?}",
        begun.elapsed()
    );
}

#[test]
fn ext4_keeps_what_was_acknowledged_when_the_power_fails() {
    keeps("ext4");
}

#[test]
fn xfs_keeps_what_was_acknowledged_when_the_power_fails() {
    keeps("xfs");
}

/// Whether what a daemon with this fault has left does not start, or has lost something.
fn is_found_out(kind: &str, fault: &str, dice: &mut Dice) -> bool {
    let disk = Disk::new(kind, DISK);
    let swarm = Swarm::empty();
    let mut node = node(&swarm, &disk);
    node.start();
    node.run(&["stop"]);
    node.kill();
    trace::from_the_start(&mut node, fault, true);
    node.start();
    let kept = until_the_power_fails(&node, &disk, dice);
    node.kill();
    disk.again();
    node.prefix.clear();
    node.attempt().is_some() || !lost(&node, &kept).is_empty()
}

#[test]
fn a_daemon_that_does_not_sync_is_found_out() {
    let _turn = alone();
    let mut dice = Dice::from_outside();
    for kind in ["ext4", "xfs"] {
        let tools = ["mount", "umount", "strace", &format!("mkfs.{kind}")];
        if !able(&format!("syncs that do nothing on {kind}"), &tools) {
            continue;
        }
        assert!(!is_found_out(kind, "", &mut dice), "one that syncs, and is traced");
        let fault = "fdatasync,fsync:retval=0";
        let found = (1..=FOUND_WITHIN).find(|_| is_found_out(kind, fault, &mut dice));
        let after = found.expect("lost files would not have been noticed");
        println!("a daemon that does not sync is found out by failure {after} on {kind}");
    }
}
