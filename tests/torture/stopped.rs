//! A peer that hangs: one of three is stopped with SIGSTOP while the two others are written and
//! read. Nothing takes over a second longer than before; when it goes on it learns what it missed,
//! and nobody takes anything old from it.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::machine::{End, alone, form};
use crate::partitions::tree;
use rustix::process::Signal;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LEN: usize = 300_000;
/// Names that are put again and again.
const NAMES: u64 = 8;
/// What nothing may take longer than before.
const MORE: Duration = Duration::from_secs(1);
/// How long all may take to agree when the peer goes on.
const AGREED: Duration = Duration::from_secs(30);

/// How long commands took, the slowest first.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn slowest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    fn median(&mut self) -> Duration {
        self.0.sort_unstable();
        self.0[self.0.len() / 2]
    }
}

/// Puts new contents under the same names at one node and reads them there, until it shall end.
fn load(node: &Daemon, first: u64, count: &AtomicU64, stop: &AtomicBool, times: &Mutex<Times>) {
    let timed = |work: &mut dyn FnMut()| {
        let begun = Instant::now();
        work();
        times.lock().unwrap().0.push(begun.elapsed());
    };
    for round in first.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let (bytes, path) = (noise(number, LEN), format!("/{}", round % NAMES));
        let mut hash = String::new();
        timed(&mut || hash = node.put(&path, &bytes, &[]));
        timed(&mut || assert!(node.get(&hash) == bytes));
    }
}

/// Loads two nodes for so long.
fn loaded(swarm: &Swarm, count: &AtomicU64, how_long: Duration) -> Times {
    let (stop, times) = (AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        let _end = End(&stop);
        for (node, first) in [(0, 0), (1, NAMES / 2)] {
            let (stop, times) = (&stop, &times);
            scope.spawn(move || load(&swarm[node], first, count, stop, times));
        }
        std::thread::sleep(how_long);
    });
    times.into_inner().unwrap()
}

#[test]
fn a_peer_that_hangs_costs_nobody_a_second_and_brings_nothing_old_back() {
    let _turn = alone();
    let swarm = Swarm::of(3);
    let count = AtomicU64::new(0);
    let mut before = loaded(&swarm, &count, form(Duration::from_secs(4), Duration::from_secs(20)));
    let old = swarm[2].put("/0", b"what the one that hangs knows", &[]);
    until("all to know that", || tree(&swarm[0]) == tree(&swarm[2]));
    swarm[2].signal(Signal::STOP);
    // A command that reaches it now is answered when it goes on.
    let mut waiting = swarm[2].command(&["ls"]).stdout(Stdio::null()).spawn().unwrap();
    let mut during = loaded(&swarm, &count, form(Duration::from_secs(15), Duration::from_secs(60)));
    assert!(swarm[0].names().is_empty(), "{:?}", swarm[0].names());
    let newest = tree(&swarm[0]);
    swarm[2].signal(Signal::CONT);
    let begun = Instant::now();
    swarm.met();
    until("one tree everywhere", || {
        let first = tree(&swarm[0]);
        tree(&swarm[1]) == first && tree(&swarm[2]) == first
    });
    let agreed = begun.elapsed();
    println!(
        "{} commands before: median {:.1?}, slowest {:.1?}; {} beside one that hangs: median \
         {:.1?}, slowest {:.1?}; agreed {agreed:.1?} after it went on",
        before.0.len(),
        before.median(),
        before.slowest(),
        during.0.len(),
        during.median(),
        during.slowest(),
    );
    assert!(during.slowest() < before.slowest() + MORE);
    assert!(agreed < AGREED, "{agreed:?}");
    assert!(waiting.wait().unwrap().success());
    // What the two others agreed on meanwhile is what stays, also a little later.
    std::thread::sleep(Duration::from_secs(2));
    for node in [0, 1, 2] {
        let now = tree(&swarm[node]);
        assert_eq!(now, newest);
        assert!(!now.iter().any(|file| file.contains(&old)), "an old version came back");
    }
    until("all copies", || swarm[0].run(&["status", "--check"]).code == 0);
}
