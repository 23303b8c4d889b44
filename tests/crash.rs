//! `kill -9` at random moments while files are put: what was acknowledged is there afterwards,
//! under its path and its hash, and nothing else is shown. A node alone, and swarms of three of
//! which any one, or all at once, are killed. Power failures, torn writes and rotten disks need a
//! disk that obeys and are simulated (`tests/daemons.rs`).
//!
//! `P2PFS_CRASH_SEED` repeats a run's decisions (their timing is the machine's), and
//! `P2PFS_CRASH=full` makes 200 kills of a node alone and 200 in a swarm instead of a few.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

#[path = "harness/daemon.rs"]
mod daemon;
#[path = "harness/said.rs"]
mod said;

use daemon::{Swarm, noise, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Puts under way at a time.
const WRITERS: u64 = 2;
/// From the start of the puts to the kill, at most, in milliseconds.
const KILL_WITHIN: u64 = 700;
/// How long a killed node may take to be ready again.
const READY: Duration = Duration::from_secs(10);

/// Decisions from a seed (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut out = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (out ^ (out >> 31)) % bound
    }

    /// 1 byte to 16 MiB, as many small as large ones; fewer large ones where there are thousands.
    fn len(&mut self) -> usize {
        let most = if is_full() { 1 + self.below(24) } else { 24 };
        let magnitude = self.below(most);
        ((1 << magnitude) + self.below(1 << magnitude)) as usize
    }
}

fn is_full() -> bool {
    std::env::var("P2PFS_CRASH").is_ok_and(|what| what == "full")
}

fn seed() -> u64 {
    let given = std::env::var("P2PFS_CRASH_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

/// What was acknowledged: path → the seed and length of its bytes.
type Acknowledged = Mutex<BTreeMap<String, (u64, usize)>>;

/// Puts one file after the other until one fails or all shall end.
fn write(swarm: &Swarm, at: usize, seed: u64, stop: &AtomicBool, kept: &Acknowledged) {
    let mut dice = Dice(seed);
    for number in 0.. {
        let (seed, len) = (dice.below(u64::MAX), dice.len());
        let name = format!("{seed:016x}.{number}");
        let path = format!("/{}/{name}", number % 4);
        let source = swarm[at].work.join(&name);
        std::fs::write(&source, noise(seed, len)).unwrap();
        let said = swarm[at].run(&["put", &name, "--as", &path]);
        std::fs::remove_file(&source).unwrap();
        match said.code {
            0 => drop(kept.lock().unwrap().insert(path, (seed, len))),
            // The daemon died, or one that it needed for the second copy; or it is not there yet.
            6 | 10 => {}
            code => panic!("put: exit {code}: {}", said.err),
        }
        if said.code == 6 || stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// One round: puts at `writers` until `end` has been called and each has finished or failed.
fn round(
    swarm: &Swarm,
    writers: &[usize],
    dice: &mut Dice,
    kept: &Acknowledged,
    end: impl FnOnce(),
) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in writers {
            for _ in 0..WRITERS {
                let (seed, stop) = (dice.below(u64::MAX), &stop);
                scope.spawn(move || write(swarm, *at, seed, stop, kept));
            }
        }
        let within = if is_full() { 4 * KILL_WITHIN } else { KILL_WITHIN };
        std::thread::sleep(Duration::from_millis(dice.below(within)));
        end();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Starts nodes again that were killed. Each gets another port, so that it is told where one that
/// runs is: when all were killed, nobody's old address leads anywhere.
fn revive(swarm: &mut Swarm, nodes: usize, killed: &[usize]) {
    killed.iter().for_each(|node| swarm[*node].kill());
    let mut host = (0..nodes).find(|node| !killed.contains(node));
    for &node in killed {
        swarm[node].flags.clear();
        if let Some(host) = host {
            swarm[node].flags = vec!["--bootstrap".into(), swarm[host].address()];
        }
        host = host.or(Some(node));
        let begun = Instant::now();
        swarm[node].start();
        assert!(begun.elapsed() < READY, "ready after {:?}", begun.elapsed());
    }
    swarm.met();
}

/// A file that is there before all kills.
fn first(swarm: &Swarm) -> Acknowledged {
    let (path, seed, len) = (format!("/0/{:016x}.first", 1), 1, 3 << 20);
    swarm[0].put(&path, &noise(seed, len), &[]);
    Mutex::new(BTreeMap::from([(path, (seed, len))]))
}

/// Every acknowledged file is readable at one of the nodes, by turns, and is listed at each.
fn check(swarm: &Swarm, nodes: usize, kept: &Acknowledged) -> usize {
    let kept = kept.lock().unwrap();
    let mut lost = Vec::new();
    for (number, (path, (seed, len))) in kept.iter().enumerate() {
        let bytes = noise(*seed, *len);
        let target = match number % 2 {
            0 => path.clone(),
            _ => blake3::hash(&bytes).to_string(),
        };
        let output = swarm[number % nodes].command(&["get", &target, "-o", "-"]).output().unwrap();
        if !output.status.success() || output.stdout != bytes {
            lost.push(format!("{path} ({len} B): {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(lost.is_empty(), "{} of {} lost:\n{}", lost.len(), kept.len(), lost.join("\n"));
    for node in 0..nodes {
        let listed = swarm[node].list(&["ls", "-R"]);
        let listed: Vec<&str> = listed.iter().filter_map(|file| file["path"].as_str()).collect();
        assert!(kept.keys().all(|path| listed.contains(&path.as_str())));
        // A put that was cut short may be listed, when only its answer was lost; then it is whole.
        for path in listed.iter().filter(|path| path.len() > 2 && !kept.contains_key(**path)) {
            let name = path.rsplit('/').next().unwrap();
            let seed = u64::from_str_radix(name.split('.').next().unwrap(), 16).unwrap();
            let bytes = swarm[node].get(path);
            assert!(bytes == noise(seed, bytes.len()), "{path} is listed and not whole");
        }
        assert_eq!(swarm[node].names(), Vec::<String>::new());
    }
    kept.len()
}

#[test]
fn a_node_alone_keeps_what_it_acknowledged() {
    let (kills, at_least) = if is_full() { (200, 1000) } else { (8, 30) };
    let seed = seed();
    println!("P2PFS_CRASH_SEED={seed}");
    let mut dice = Dice(seed);
    let mut swarm = Swarm::of(1);
    let kept = first(&swarm);
    for _ in 0..kills {
        round(&swarm, &[0], &mut dice, &kept, || swarm[0].signal(Signal::KILL));
        revive(&mut swarm, 1, &[0]);
    }
    let files = check(&swarm, 1, &kept);
    assert!(files >= at_least, "only {files} acknowledged: too few to say anything");
    println!("0 of {files} acknowledged files lost in {kills} kills of a node alone");
}

#[test]
fn a_swarm_keeps_what_it_acknowledged() {
    let (kills, at_least) = if is_full() { (200, 1000) } else { (4, 15) };
    let seed = seed();
    println!("P2PFS_CRASH_SEED={seed}");
    let mut dice = Dice(seed ^ 1);
    let mut swarm = Swarm::of(3);
    let kept = first(&swarm);
    for number in 0..kills {
        // Every fourth time the lights go out: all three at once.
        let victims = if number % 4 == 3 { vec![0, 1, 2] } else { vec![dice.below(3) as usize] };
        let writers = [dice.below(3) as usize, dice.below(3) as usize];
        round(&swarm, &writers, &mut dice, &kept, || {
            victims.iter().for_each(|victim| swarm[*victim].signal(Signal::KILL));
        });
        // What a node that is away for a while did not hear of has to reach it afterwards.
        revive(&mut swarm, 3, &victims);
    }
    let files = check(&swarm, 3, &kept);
    assert!(files >= at_least, "only {files} acknowledged: too few to say anything");
    for node in [0, 1, 2] {
        until("all copies", || swarm[node].status()["under_replicated"] == 0);
    }
    println!("0 of {files} acknowledged files lost in {kills} kills in a swarm of three");
}
