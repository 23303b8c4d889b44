//! Scrub, with real daemons on loopback and bytes that are changed on their disks under them: all
//! damage is found and repaired, and nobody ever reads a wrong byte meanwhile.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

#[path = "harness/daemon.rs"]
mod daemon;
#[path = "harness/damage.rs"]
mod damage;
#[path = "scrub/forge.rs"]
mod forge;
#[path = "harness/said.rs"]
mod said;
#[path = "harness/segments.rs"]
mod segments;

use daemon::{Daemon, Swarm, noise};
use damage::flip;
use forge::{forged, record, write};
use segments::{Stored, replicas};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MIB: usize = 1 << 20;

/// Files by their hashes.
type Files = BTreeMap<String, Vec<u8>>;

/// Large and small files on every node of a swarm.
fn fill(swarm: &Swarm) -> Files {
    let mut files = Files::new();
    for (seed, len) in (0..40).map(|seed| (seed, 150_000 + seed as usize)) {
        let bytes = noise(seed, len);
        let path = format!("/small/{seed}");
        files.insert(swarm[seed as usize % 3].put(&path, &bytes, &["--wait", "all"]), bytes);
    }
    for seed in 50..53 {
        let bytes = noise(seed, 30 * MIB + 77);
        files.insert(swarm[0].put(&format!("/{seed}"), &bytes, &["--wait", "all"]), bytes);
    }
    files
}

/// Flips one byte each in a hundred of these: in heads, bodies, and everywhere in payloads.
fn rot(replicas: &[Stored]) {
    for (number, replica) in (0u64..100).zip(replicas) {
        let at = match number % 5 {
            0 => number % replica.head,
            1 => replica.head,
            2 => replica.head + replica.len - 1,
            _ => replica.head + replica.len * number / 100,
        };
        flip(replica, at);
    }
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap()
}

/// What `scrub --now` says, which must end with 0.
fn scrub(node: &Daemon) -> Value {
    node.list(&["scrub", "--now"]).remove(0)["found"].clone()
}

/// Reads files in a loop at some nodes while `work` runs; how often. None may be wrong.
fn reading<T>(nodes: &[&Daemon], files: &Files, work: impl FnOnce() -> T) -> (T, usize) {
    let (over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for node in nodes {
            scope.spawn(|| {
                for (hash, bytes) in files.iter().cycle() {
                    assert!(node.get(hash) == *bytes, "wrong bytes of {hash}");
                    reads.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, reads.load(Ordering::Relaxed))
    })
}

#[test]
fn a_hundred_of_a_hundred_are_found_and_repaired_and_nobody_reads_a_wrong_byte() {
    let mut swarm = Swarm::of(3);
    let files = fill(&swarm);
    let chunks = number(&swarm[0].status(), "chunks_here");
    let clean = scrub(&swarm[0]);
    assert_eq!(number(&clean, "chunks"), chunks);
    assert!(number(&clean, "damaged") == 0 && number(&clean, "records") > 40, "{clean}");

    // The others are read meanwhile, so that all that is found at this one is found by scrub.
    let stored = replicas(&swarm[0].data);
    assert_eq!(stored.len() as u64, chunks);
    rot(&stored);
    let (found, reads) = reading(&[&swarm[1], &swarm[2]], &files, || scrub(&swarm[0]));
    assert_eq!((number(&found, "damaged"), number(&found, "repaired")), (100, 100), "{found}");
    assert!(number(&found, "chunks") == chunks && number(&found, "lost") == 0 && reads > 0);
    let again = scrub(&swarm[0]);
    assert!(number(&again, "damaged") == 0 && number(&again, "chunks") == chunks, "{again}");

    // Now everybody reads, one that has no copy as well, and finds damage before scrub does.
    let reader = swarm.join(&["--capacity", "1MB"]);
    rot(&replicas(&swarm[0].data)[20..]);
    let nodes = [&swarm[0], &swarm[1], &swarm[reader]];
    let (found, reads) = reading(&nodes, &files, || scrub(&swarm[0]));
    assert!(found["damaged"] == found["repaired"] && reads > 0, "{found}");
    let again = scrub(&swarm[0]);
    assert!(number(&again, "damaged") == 0 && number(&again, "chunks") == chunks, "{again}");
    let problems = &swarm[0].status()["problems"];
    assert!(!problems.to_string().contains("damaged"), "{problems}");
    swarm[1].kill();
    swarm[2].kill();
    for (hash, bytes) in &files {
        assert!(swarm[0].get(hash) == *bytes, "from its own copies alone");
    }
}

/// Six chunks of a node: two as they are in each other's place, two with checks that hold there,
/// two whose payloads alone were exchanged.
fn exchange(data: &Path) {
    let all = replicas(data);
    let alike: Vec<&Stored> = all.iter().filter(|one| one.len > 300_000).collect();
    assert!(alike.len() == 8 && alike.iter().all(|one| one.len == alike[0].len));
    let swap = |a: &Stored, b: &Stored, of: fn(&Stored, &Stored, &Path) -> Vec<u8>| {
        let (into_a, into_b) = (of(a, b, data), of(b, a, data));
        write(a, a.head + a.len - into_a.len() as u64, &into_a);
        write(b, b.head + b.len - into_b.len() as u64, &into_b);
    };
    swap(alike[0], alike[1], |_, other, _| record(other));
    swap(alike[2], alike[3], forged);
    swap(alike[4], alike[5], |_, other, _| record(other).split_off(other.head as usize));
    // What is made here of a chunk that stays in its place holds, so the others are no mere noise.
    write(alike[6], 0, &forged(alike[6], alike[6], data));
}

#[test]
fn a_record_in_the_place_of_another_is_never_served_and_is_found() {
    let mut swarm = Swarm::of(3);
    let mut files = Files::new();
    for seed in 0..8 {
        let bytes = noise(seed, 300_000);
        files.insert(swarm[0].put(&format!("/{seed}"), &bytes, &["--wait", "all"]), bytes);
    }
    let reader = swarm.join(&["--capacity", "1MB"]);
    exchange(&swarm[0].data);
    let (found, _) = reading(&[&swarm[1], &swarm[2]], &files, || scrub(&swarm[0]));
    assert_eq!((number(&found, "damaged"), number(&found, "repaired")), (6, 6), "{found}");
    let again = scrub(&swarm[0]);
    assert_eq!(number(&again, "damaged"), 0, "{again}");

    // Once more, and this time nobody else has the chunks.
    exchange(&swarm[0].data);
    swarm[1].kill();
    swarm[2].kill();
    let mut unread = 0;
    for node in [reader, 0] {
        for (hash, bytes) in &files {
            let said = swarm[node].run(&["get", hash, "-o", "out"]);
            if said.code == 0 {
                assert!(std::fs::read(swarm[node].work.join("out")).unwrap() == *bytes);
                std::fs::remove_file(swarm[node].work.join("out")).unwrap();
            } else {
                assert!([9, 10].contains(&said.code), "{}", said.err);
                unread += 1;
            }
            assert!(swarm[node].names().is_empty());
        }
    }
    assert_eq!(unread, 12, "six at each");
    let said = swarm[0].run(&["scrub", "--now"]);
    assert!(said.code == 9 && said.out.ends_with(": 6 damaged, 0 repaired, 6 lost\n"), "{said:?}");
    swarm[1].start();
    swarm[2].start();
    swarm.met();
    let found = scrub(&swarm[0]);
    assert_eq!((number(&found, "damaged"), number(&found, "repaired")), (6, 6), "{found}");
    for (hash, bytes) in &files {
        assert!(swarm[0].get(hash) == *bytes && swarm[reader].get(hash) == *bytes);
    }
}

#[test]
fn what_nobody_else_has_is_lost_and_said_so() {
    let swarm = Swarm::of(1);
    let bytes = noise(1, 3 * MIB);
    swarm[0].put("/f", &bytes, &[]);
    let said = swarm[0].run(&["scrub", "--now"]);
    assert!(said.code == 0 && said.err.is_empty(), "{}", said.err);
    assert!(
        said.out.starts_with("checked ") && said.out.ends_with(": 0 damaged, 0 repaired, 0 lost\n")
    );
    let stored = replicas(&swarm[0].data);
    stored.iter().filter(|one| one.len > 100_000).take(2).for_each(|one| flip(one, one.head + 5));
    let said = swarm[0].run(&["scrub", "--now"]);
    assert!(said.out.ends_with(": 2 damaged, 0 repaired, 2 lost\n"), "{}", said.out);
    assert_eq!((said.code, &*said.err), (9, ""));
    let said = swarm[0].run(&["scrub", "--now", "--json"]);
    let found: Value = serde_json::from_str(&said.out).unwrap();
    assert!(said.code == 9 && found["v"] == 1 && found["found"]["lost"] == 2, "{}", said.out);
    let said = swarm[0].run(&["scrub"]);
    let last = said.out.lines().find(|line| line.starts_with("  Last  ended ")).unwrap();
    assert!(said.code == 0 && last.ends_with("2 damaged, 0 repaired, 2 lost"), "{}", said.out);
    let status = swarm[0].status();
    assert!(number(&status, "lost") == 2 && status["scrub"]["found"]["damaged"] == 2, "{status}");
    let workers = swarm[0].list(&["status", "--workers"]);
    let names: Vec<&str> = workers.iter().map(|worker| worker["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"repair") && names.contains(&"gc"), "{names:?}");
    let scrub = workers.iter().find(|worker| worker["name"] == "scrub").unwrap();
    assert!(scrub["doing"] == "2 damaged" && scrub["errors"] == 0, "{scrub}");
}
