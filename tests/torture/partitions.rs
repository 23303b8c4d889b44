//! Networks that are cut: five nodes, each in a network namespace of its own, put files while
//! frames between some of them are lost. Half a minute after the network is whole again all see
//! each other and list the same, and every file that was acknowledged anywhere is readable
//! everywhere.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::machine::{Dice, End, able, alone, form};
use crate::net::Net;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NODES: usize = 5;
/// How long all may take to agree when the network is whole again.
const AGREED: Duration = Duration::from_secs(30);

/// Between two puts at a node.
const PAUSE: Duration = Duration::from_millis(100);

/// Pairs of whom the second does not hear the first.
type Deaf = Vec<(usize, usize)>;

fn both_ways(a: &[usize], b: &[usize]) -> Deaf {
    a.iter().flat_map(|a| b.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect()
}

/// What is done to the network: its name, and what is lost in each second, by turns.
fn schedules() -> Vec<(&'static str, Vec<Deaf>)> {
    let others = |of: usize| (0..NODES).filter(|node| *node != of).collect::<Vec<_>>();
    let to = |of: usize| others(of).into_iter().map(|from| (from, of)).collect();
    let from = |of: usize| others(of).into_iter().map(|to| (of, to)).collect();
    vec![
        ("two against three", vec![both_ways(&[0, 1], &[2, 3, 4])]),
        ("one alone", vec![both_ways(&[1], &others(1))]),
        ("one hears nobody", vec![to(2)]),
        // 2 sees everybody, the two sides see only 2.
        ("a bridge", vec![both_ways(&[0, 1], &[3, 4])]),
        ("flapping", vec![both_ways(&[0, 1], &[2, 3, 4]), Vec::new()]),
        ("nobody hears one", vec![from(3)]),
        ("each alone", vec![(0..NODES).flat_map(to).collect()]),
    ]
}

/// What was acknowledged: path → the seed and length of its bytes.
type Files = BTreeMap<String, (u64, usize)>;

/// Puts files at a node until it shall end.
fn write(node: &Daemon, seed: u64, stop: &AtomicBool, kept: &Mutex<Files>) {
    let mut dice = Dice::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let (seed, len) = (dice.below(u64::MAX), dice.len() / 4);
        let name = format!("{seed:016x}");
        std::fs::write(node.work.join(&name), noise(seed, len)).unwrap();
        let said = node.run(&["put", &name, "--as", &format!("/{name}")]);
        std::fs::remove_file(node.work.join(&name)).unwrap();
        match said.code {
            0 => drop(kept.lock().unwrap().insert(format!("/{name}"), (seed, len))),
            // Too few copies could be made in time.
            5 | 10 => {}
            code => panic!("put: exit {code}: {}", said.err),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Cuts the network for so many seconds while files are put at all nodes.
fn cut(net: &Net, swarm: &Swarm, what: &[Deaf], seconds: usize, dice: &mut Dice) -> Files {
    let (stop, kept) = (AtomicBool::new(false), Mutex::default());
    std::thread::scope(|scope| {
        let _end = End(&stop);
        for node in 0..NODES {
            let (seed, stop, kept) = (dice.below(u64::MAX), &stop, &kept);
            scope.spawn(move || write(&swarm[node], seed, stop, kept));
        }
        for second in 0..seconds {
            net.lose(&what[second % what.len()]);
            std::thread::sleep(Duration::from_secs(1));
        }
        net.lose(&[]);
    });
    kept.into_inner().unwrap()
}

/// What a node lists, the same on all when they agree.
pub(crate) fn tree(node: &Daemon) -> Vec<String> {
    let mut files = node.list(&["ls", "-R"]);
    // What each node knows of the copies is its own.
    files.iter_mut().for_each(|file| drop(file.as_object_mut().unwrap().remove("copies")));
    files.iter().map(ToString::to_string).collect()
}

/// How long all nodes take to see each other, and then to list the same.
fn agreed(swarm: &Swarm) -> (Duration, Duration) {
    let begun = Instant::now();
    swarm.met();
    let met = begun.elapsed();
    until("the same list everywhere", || {
        let first = tree(&swarm[0]);
        (1..NODES).all(|node| tree(&swarm[node]) == first)
    });
    (met, begun.elapsed())
}

fn all_readable(swarm: &Swarm, kept: &Files, what: &str) {
    for (number, (path, (seed, len))) in kept.iter().enumerate() {
        let node = &swarm[number % NODES];
        let got = node.command(&["get", path, "-o", "-"]).output().unwrap();
        let err = String::from_utf8_lossy(&got.stderr);
        assert!(got.stdout == noise(*seed, *len), "{what}: {path} ({len} B) is lost: {err}");
    }
}

#[test]
fn what_was_put_in_a_cut_network_is_everywhere_when_it_is_whole() {
    let _turn = alone();
    if !able("partitions", &["ip", "nft"]) {
        return;
    }
    let net = Net::of(NODES);
    let mut swarm = Swarm::empty();
    for number in 0..NODES {
        let mut node = swarm.draft();
        net.settle(number, &mut node);
        node.start();
        swarm.add(node);
    }
    swarm.met();
    let (mut dice, mut all) = (Dice::from_outside(), Files::new());
    for _ in 0..form(1, 10) {
        for (what, deaf) in schedules().into_iter().step_by(form(2, 1)) {
            let kept = cut(&net, &swarm, &deaf, form(4, 12), &mut dice);
            let (met, took) = agreed(&swarm);
            let files = kept.len();
            println!("{what}: {files} files acknowledged, met {met:.1?}, agreed {took:.1?}");
            assert!(took < AGREED, "{what}: {took:?}");
            assert!(!kept.is_empty(), "{what}: nothing was acknowledged");
            all_readable(&swarm, &kept, what);
            all.extend(kept);
        }
    }
    all_readable(&swarm, &all, "later");
    for node in 0..NODES {
        until("all copies", || swarm[node].status()["under_replicated"] == 0);
    }
    println!("0 of {} acknowledged files lost", all.len());
}
