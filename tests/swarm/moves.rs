//! Copies that move: off a node that is emptied, and away where more were made than are wanted.

use crate::daemon::{Daemon, Swarm, noise, until};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn chunks_here(node: &Daemon) -> u64 {
    node.status()["chunks_here"].as_u64().unwrap()
}

fn put_some(swarm: &Swarm, nodes: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for number in 0..6 {
        let bytes = noise(70 + number as u64, 3 * MIB + 100 * number);
        let path = format!("/f{number}");
        swarm[number % nodes].put(&path, &bytes, &["--wait", "all"]);
        files.push((path, bytes));
    }
    files
}

#[test]
fn a_node_that_is_emptied_keeps_nothing_and_every_file_keeps_its_copies() {
    let mut swarm = Swarm::with(4, &[]);
    let files = put_some(&swarm, 4);
    let before: u64 = (0..4).map(|node| chunks_here(&swarm[node])).sum();
    let said = swarm[3].run(&["drain"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("this node is empty"), "{}", said.err);
    assert_eq!(chunks_here(&swarm[3]), 0);
    until("the copies to be elsewhere", || {
        (0..3).map(|node| chunks_here(&swarm[node])).sum::<u64>() == before
    });
    let peers = swarm[0].list(&["peers"]);
    assert_eq!(peers.iter().filter(|peer| peer["draining"] == true).count(), 1);
    assert!(swarm[0].run(&["peers"]).out.contains("alive (draining)"));
    assert_eq!(swarm[3].run(&["status", "--check"]).code, 5);

    // It is remembered, and what is put there goes to others.
    swarm[3].kill();
    swarm[3].flags = vec!["--bootstrap".into(), swarm[0].address()];
    swarm[3].start();
    swarm.met();
    swarm[3].put("/late", &noise(1, 2 * MIB), &["--wait", "all"]);
    assert_eq!(chunks_here(&swarm[3]), 0);
    for (path, bytes) in &files {
        assert!(swarm[3].get(path) == *bytes && swarm[1].get(path) == *bytes);
    }
    assert_eq!(swarm[3].run(&["drain", "--cancel"]).code, 0);
    until("it to take new data", || {
        swarm[0].put("/more", &noise(2, 8 * MIB), &["--wait", "all"]);
        swarm[0].run(&["rm", "/more"]);
        chunks_here(&swarm[3]) > 0
    });
}

#[test]
fn copies_that_are_all_in_one_place_get_one_in_another_when_a_node_is_there() {
    let mut swarm = Swarm::with(3, &["--zone", "here", "--repair-delay", "1s"]);
    let files = put_some(&swarm, 3);
    swarm.join(&["--zone", "there", "--repair-delay", "1s"]);
    swarm.met();
    let name = swarm[3].status()["name"].clone();
    for (path, _) in &files {
        until("each chunk to be there too", || {
            let chunks = swarm[0].list(&["stat", "--chunks", path]);
            let has = |chunk: &Value| chunk["holders"].as_array().unwrap().contains(&name);
            chunks.iter().filter(|line| line["index"].is_u64()).all(has)
        });
    }
    for node in 0..3 {
        swarm[node].kill();
    }
    for (path, bytes) in &files {
        assert!(swarm[3].get(path) == *bytes, "one zone is lost and nothing else");
    }
}

#[test]
fn copies_are_made_no_faster_than_allowed() {
    const RATE: usize = 4 * MIB;
    let rate = ["--repair-rate", "4MiB"];
    let mut swarm = Swarm::with(2, &rate);
    let len = 8 * RATE;
    swarm[0].put("/f", &noise(5, len), &["--wait", "2"]);
    let begun = Instant::now();
    swarm.join(&rate);
    until("it to have all", || chunks_here(&swarm[2]) == chunks_here(&swarm[0]));
    // Two make them, and the last chunk of each is under way when its turn is over.
    let least = Duration::from_secs_f64((len / 2 - MIB) as f64 / RATE as f64 * 0.9);
    assert!(begun.elapsed() > least, "{:?} for {len} bytes", begun.elapsed());
}

#[test]
fn a_new_node_takes_over_what_full_ones_have_too_much_of() {
    let flags = ["--capacity", "100MB", "--gc-grace", "1s", "--repair-delay", "1s"];
    let mut swarm = Swarm::with(3, &flags);
    let mut files = Vec::new();
    let put = |swarm: &Swarm, number: usize, more: &[&str]| {
        let (path, bytes) = (format!("/f{number}"), noise(200 + number as u64, 4 * MIB));
        std::fs::write(swarm[0].work.join("source"), &bytes).unwrap();
        let said = swarm[0].run(&[&["put", "source", "--as", &path], more].concat());
        (said.code == 0).then_some((path, bytes)).ok_or(said)
    };
    let refused = loop {
        match put(&swarm, files.len(), &[]) {
            Ok(file) => files.push(file),
            Err(refused) => break refused,
        }
    };
    assert!(refused.code == 8 && files.len() > 15, "{refused:?}");

    swarm.join(&flags);
    swarm.met();
    let bytes = |node: &Daemon| node.status()["bytes_here"].as_u64().unwrap();
    // 3 of 4 parts of what each of the three had.
    let share = bytes(&swarm[0]) * 3 / 4;
    until("the load to be shared", || {
        (0..4).all(|node| bytes(&swarm[node]).abs_diff(share) < share / 5)
    });
    for number in files.len()..files.len() + 2 {
        files.push(put(&swarm, number, &["--wait", "all", "--timeout", "30s"]).unwrap());
    }
    for (path, bytes) in &files {
        assert!(swarm[3].get(path) == *bytes, "{path}");
    }
}

#[test]
fn the_last_node_is_not_emptied() {
    let swarm = Swarm::with(1, &[]);
    let said = swarm[0].run(&["drain"]);
    assert_eq!(said.code, 11, "{}", said.err);
    assert!(said.err.contains("no other node"), "{}", said.err);
    assert_eq!(swarm[0].run(&["status", "--check"]).code, 0);
}

#[test]
fn a_purged_file_does_not_keep_a_node_from_being_empty() {
    let swarm = Swarm::with(2, &["--gc-grace", "1h"]);
    swarm[0].put("/gone", &noise(4, 3 * MIB), &["--wait", "2"]);
    assert!(chunks_here(&swarm[1]) > 0);
    assert_eq!(swarm[1].run(&["rm", "--purge", "--yes", "/gone"]).code, 0);
    until("nobody to need its chunks", || chunks_here(&swarm[1]) == 0);
    assert!(swarm[1].status()["bytes_here"].as_u64().unwrap() > 0, "freed within the grace");
    let said = swarm[1].run(&["drain"]);
    assert!(said.code == 0 && said.err.contains("this node is empty"), "{}", said.err);
}

#[test]
fn who_waits_for_a_node_to_be_empty_hears_that_somebody_has_stopped_that() {
    let swarm = Swarm::with(2, &[]);
    swarm[0].put("/f", &noise(3, 3 * MIB), &["--wait", "2"]);
    // Nobody can prove that the copies here are not needed.
    swarm[1].signal(Signal::STOP);
    let mut drain = swarm[0].command(&["drain"]);
    let waits = drain.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("it to be emptied", || swarm[0].status()["draining"] == true);
    let cancelled = swarm[0].run(&["drain", "--cancel"]).code;
    swarm[1].signal(Signal::CONT);
    let said = waits.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!((cancelled, said.status.code()), (0, Some(1)), "{text}");
    assert!(text.contains("stopped the emptying") && text.contains("p2pfs drain"), "{text}");
}

#[test]
fn when_a_node_is_back_the_copies_made_for_it_go_and_no_others() {
    let mut swarm = Swarm::with(4, &["--repair-delay", "1s"]);
    let files = put_some(&swarm, 4);
    let total = |swarm: &Swarm, nodes: &[usize]| -> u64 {
        nodes.iter().map(|node| chunks_here(&swarm[*node])).sum()
    };
    let wanted = total(&swarm, &[0, 1, 2, 3]);
    swarm[3].kill();
    until("the copies to be made again", || total(&swarm, &[0, 1, 2]) == wanted);
    swarm[3].flags.truncate(0);
    swarm[3].flags.extend(["--repair-delay".into(), "1s".into()]);
    let address = swarm[0].address();
    swarm[3].flags.extend(["--bootstrap".into(), address]);
    swarm[3].start();
    swarm.met();
    until("the superfluous copies to go", || total(&swarm, &[0, 1, 2, 3]) == wanted);
    for (path, bytes) in &files {
        assert!(swarm[2].get(path) == *bytes);
        let stat = swarm[1].list(&["stat", path]).remove(0);
        let whole = stat["holders"].as_array().unwrap().iter();
        let whole = whole.filter(|holder| holder["chunks"] == stat["chunks"]).count();
        assert!(whole <= 4 && stat["copies"].as_u64().unwrap() >= 3, "{stat}");
    }
}
