//! Nodes that die and disks that rot: the file is there, the truth is said, the copies are made
//! again.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::damage::flip;
use crate::segments::replicas;
use rustix::process::Signal;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// How many live nodes hold all chunks of a file.
fn whole_copies(node: &Daemon, target: &str) -> usize {
    let stat = node.list(&["stat", target]).remove(0);
    let whole = |holder: &&Value| holder["state"] == "alive" && holder["chunks"] == stat["chunks"];
    stat["holders"].as_array().unwrap().iter().filter(whole).count()
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap()
}

#[test]
fn a_file_outlives_the_node_where_it_was_put_and_gets_its_copies_back() {
    let mut swarm = Swarm::of(3);
    let bytes = noise(1, 5 * MIB + 123);
    let hash = swarm[0].put("/f", &bytes, &[]);
    for number in [1, 2] {
        assert!(swarm[number].get(&hash) == bytes && swarm[number].get("/f") == bytes);
    }
    swarm[0].kill();
    assert!(swarm[1].get(&hash) == bytes, "while nobody knows yet that the node is dead");
    until("the loss to be counted", || number(&swarm[1].status(), "need_nodes") > 0);
    let status = swarm[1].status();
    assert!(number(&status, "under_replicated") > 0 && number(&status, "nodes_missing") == 1);
    let problems = status["problems"].to_string();
    assert!(problems.contains("another node with room is needed"), "{problems}");
    let said = swarm[1].run(&["status"]);
    assert!(said.out.contains("Needs attention"), "{}", said.out);
    assert_eq!(swarm[1].run(&["status", "--check"]).code, 5);
    assert!(swarm[1].get(&hash) == bytes && swarm[2].get(&hash) == bytes);

    let mut fourth = swarm.draft();
    fourth.flags = vec!["--bootstrap".into(), swarm[1].address()];
    fourth.start();
    swarm.add(fourth);
    until("the fourth node to get its copies", || whole_copies(&swarm[3], &hash) == 3);
    for node in [1, 2, 3] {
        let below = || number(&swarm[node].status(), "under_replicated");
        until("all copies to be counted", || below() == 0);
    }
    swarm[1].kill();
    swarm[2].kill();
    assert!(swarm[3].get(&hash) == bytes, "from its own copy alone");
}

#[test]
fn what_was_fetched_once_can_be_had_when_all_its_holders_are_dead() {
    let mut swarm = Swarm::of(3);
    let here = |stat: &Value| {
        stat["holders"].as_array().unwrap().iter().any(|holder| holder["here"] == true)
    };
    // With one copy each, every third file is at the third node; one that is not is wanted.
    let small = (0..64).map(|seed| noise(seed, 200_000 + seed as usize)).find_map(|bytes| {
        let hash = swarm[0].put("/small", &bytes, &["--replicas", "1"]);
        let stat = swarm[2].list(&["stat", &hash]).remove(0);
        (!here(&stat)).then_some((hash, bytes))
    });
    let (small_hash, small) = small.expect("64 files in a row at one of three nodes");
    let large = noise(100, 8 * MIB + 1);
    let large_hash = swarm[0].put("/large", &large, &["--replicas", "1"]);
    let fetched = swarm[2].list(&["get", &small_hash, "-o", "out"]).remove(0);
    assert_eq!(fetched["remote_bytes"].as_u64().unwrap() / 1000, 200);
    assert_ne!(fetched["from"], serde_json::json!([]));
    assert!(swarm[2].get(&large_hash) == large);
    let status = swarm[2].status();
    assert!(number(&status, "cached_bytes") > 0, "{status}");
    swarm[0].kill();
    swarm[1].kill();
    assert!(swarm[2].get(&small_hash) == small && swarm[2].get(&large_hash) == large);
    // They are on the disk; after a crash nobody counts on them.
    assert_eq!(swarm[2].run(&["stop"]).code, 0);
    swarm[2].kill();
    swarm[2].start();
    assert!(swarm[2].get(&small_hash) == small && swarm[2].get(&large_hash) == large);
}

/// Flips a bit in every large chunk of a node's segments, as a bad disk does; how many.
fn rot(node: &Daemon) -> usize {
    let mut stored = replicas(&node.data);
    stored.retain(|replica| replica.len > 100_000);
    stored.iter().for_each(|replica| flip(replica, replica.head + replica.len / 2));
    stored.len()
}

#[test]
fn a_rotten_copy_is_never_served_and_is_replaced_by_a_good_one() {
    let mut swarm = Swarm::of(3);
    let bytes = noise(7, 2 * MIB + MIB / 2);
    let hash = swarm[0].put("/f", &bytes, &["--wait", "all"]);
    assert_eq!(rot(&swarm[0]), 3);
    // Its own copy, and a reader that asks it for its copy.
    assert!(swarm[0].get(&hash) == bytes);
    assert_eq!(rot(&swarm[1]), 3);
    assert!(swarm[1].get(&hash) == bytes);
    for node in [0, 1] {
        until("the damage to be repaired", || {
            let status = swarm[node].status();
            !status["problems"].to_string().contains("damaged")
                && whole_copies(&swarm[2], &hash) == 3
        });
    }
    swarm[1].kill();
    swarm[2].kill();
    assert!(swarm[0].get(&hash) == bytes, "from its repaired copy alone");
}

#[test]
fn when_every_copy_is_rotten_it_is_said_and_no_file_is_left() {
    let mut swarm = Swarm::of(2);
    let bytes = noise(8, MIB);
    let hash = swarm[0].put("/f", &bytes, &["--wait", "2"]);
    assert_eq!((rot(&swarm[0]), rot(&swarm[1])), (1, 1));
    let reader = swarm.join(&["--capacity", "1MB"]);
    for node in [0, 1, reader] {
        let said = swarm[node].run(&["get", &hash, "-o", "out"]);
        // A holder that has noticed its damage does not offer that copy any more.
        assert!(said.code == 9 || node > 0 && said.code == 10, "{}", said.err);
        assert!(said.err.starts_with("error: ") && said.err.contains(" hint: "), "{}", said.err);
        let said = swarm[node].run(&["get", &hash, "-o", "-"]);
        assert!([9, 10].contains(&said.code) && said.out.is_empty(), "{}", said.err);
        assert!(swarm[node].names().is_empty());
    }
}

#[test]
fn a_node_that_hangs_holds_up_neither_puts_nor_gets() {
    let swarm = Swarm::of(4);
    let bytes = noise(9, 3 * MIB);
    let hash = swarm[0].put("/before", &bytes, &["--wait", "all"]);
    swarm[1].signal(Signal::STOP);
    let begun = std::time::Instant::now();
    for seed in 10..14 {
        let bytes = noise(seed, MIB);
        let hash = swarm[0].put(&format!("/{seed}"), &bytes, &[]);
        assert!(swarm[2].get(&hash) == bytes);
    }
    assert!(swarm[3].get(&hash) == bytes);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    swarm[1].signal(Signal::CONT);
    until("the node to come back", || swarm[0].alive() == 3);
    assert!(swarm[1].get(&hash) == bytes);
}
