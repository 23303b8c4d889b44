//! Names: the same everywhere, and a name that is used again shows the newer content.

use crate::daemon::{Daemon, Swarm, until};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What `ls` prints, without what each node knows by itself.
fn listed(node: &Daemon) -> Vec<String> {
    let files = node.list(&["ls", "-R"]).into_iter();
    files
        .map(|mut file| {
            file.as_object_mut().unwrap().remove("copies");
            file.to_string()
        })
        .collect()
}

fn same_everywhere(swarm: &Swarm, count: usize) -> Vec<String> {
    let begun = Instant::now();
    let lists = || [0, 1, 2].map(|node| listed(&swarm[node]));
    until("the same list everywhere", || {
        let [a, b, c] = lists();
        a.len() == count && a == b && b == c
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
    let [first, ..] = lists();
    first
}

#[test]
fn every_node_lists_the_same_and_a_name_shows_what_was_put_last() {
    let swarm = Swarm::of(3);
    let mut hashes = Vec::new();
    for number in 0..12_u8 {
        let path = format!("/d{}/f{number}", number % 2);
        hashes.push(swarm[usize::from(number % 3)].put(&path, &[number; 1000], &[]));
    }
    // Twelve files in two directories.
    let before = same_everywhere(&swarm, 14);
    let again = swarm[1].put("/d0/f0", b"the newer version", &[]);
    for node in [0, 2] {
        until("the newer version", || swarm[node].get("/d0/f0") == b"the newer version");
    }
    let after = same_everywhere(&swarm, 14);
    let hash = |lines: &[String]| -> Value {
        let line = lines.iter().find(|line| line.contains("\"/d0/f0\"")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["hash"].clone()
    };
    assert!(hash(&before) == *hashes[0] && hash(&after) == *again);
    let same = before.iter().filter(|line| after.contains(line)).count();
    assert_eq!(same, 13, "nothing but the file has changed");
    // Who knows the older content's hash still gets it, from every node.
    for node in [0, 1, 2] {
        assert_eq!(swarm[node].get(&hashes[0]), [0; 1000]);
    }
    for (number, hash) in hashes.iter().enumerate().skip(1) {
        let prefix = &hash[..10];
        assert_eq!(swarm[(number + 1) % 3].get(prefix), [number as u8; 1000]);
    }
}

#[test]
fn one_name_put_at_two_nodes_at_once_loses_nothing() {
    let swarm = Swarm::of(3);
    let put = |node: usize| {
        let text = format!("from node {node}");
        swarm[node].put("/same", text.as_bytes(), &[]);
    };
    std::thread::scope(|scope| {
        for node in [0, 1, 2] {
            scope.spawn(move || put(node));
        }
    });
    let lines = |node: usize| listed(&swarm[node]);
    until("all three to agree", || lines(0) == lines(1) && lines(1) == lines(2));
    // Whichever came last, or all of them under conflict names: every content is to be had.
    for node in [0, 1, 2] {
        let text = format!("from node {node}");
        let hash = blake3::hash(text.as_bytes()).to_string();
        assert_eq!(swarm[(node + 1) % 3].get(&hash), text.as_bytes());
    }
}
