//! Pins: a node keeps a full copy of what is pinned there, follows what changes in it, can read it
//! when nobody else is there, and gives up what is not pinned any more.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

fn done(node: &Daemon, args: &[&str]) -> Said {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{}", said.err);
    said
}

fn pinned(node: &Daemon, path: &str) -> Option<Value> {
    node.list(&["pin"]).into_iter().find(|pin| pin["path"] == path)
}

fn has(node: &Daemon, path: &str, files: u64) -> bool {
    pinned(node, path)
        .is_some_and(|pin| pin["known"] == true && pin["files"] == files && pin["missing"] == 0)
}

fn chunks(node: &Daemon) -> u64 {
    node.status()["chunks_here"].as_u64().unwrap()
}

#[test]
fn what_is_pinned_is_here_stays_here_and_goes_with_the_pin() {
    // One copy of each chunk: without the pin a node has about a third of them.
    let mut swarm = Swarm::with(3, &["--replicas", "1", "--repair-delay", "1s"]);
    let dir = swarm[0].work.join("d");
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("film", noise(1, 9_400_000)),
        ("deep/note", b"a note".to_vec()),
        ("deep/er/picture", noise(2, 1_900_000)),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in &files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    done(&swarm[0], &["put", "-r", "d", "--as", "/d"]);
    swarm[0].put("/other", &noise(3, 5_000_000), &[]);
    let node = &swarm[2];
    until("the records are everywhere", || node.run(&["stat", "/other"]).code == 0);
    let before = chunks(node);
    let said = done(node, &["pin", "/d/"]);
    assert!(said.err.contains("/d: 4 files, 10.8 MiB, all here"), "{}", said.err);
    assert!(chunks(node) > before);
    // It follows what is put there by others, and what is changed.
    swarm[1].put("/d/later", &noise(4, 3_300_000), &[]);
    swarm[1].put("/d/deep/note", &noise(5, 2_100_000), &[]);
    until("it has followed", || has(&swarm[2], "/d", 5));
    // Also after a restart, and then it needs nobody.
    swarm[2].kill();
    swarm[2].start();
    until("it looks again", || has(&swarm[2], "/d", 5));
    swarm[1].kill();
    swarm[0].signal(Signal::STOP);
    for (name, bytes) in &files[..1] {
        assert!(swarm[2].get(&format!("/d/{name}")) == *bytes, "{name}");
    }
    assert!(swarm[2].get("/d/deep/er/picture") == files[2].1);
    assert!(swarm[2].get("/d/later") == noise(4, 3_300_000));
    assert!(swarm[2].get("/d/deep/note") == noise(5, 2_100_000));
    swarm[0].signal(Signal::CONT);
    swarm[1].start();
    swarm.met();
    let full = chunks(&swarm[2]);
    done(&swarm[2], &["unpin", "/d"]);
    until("it has given up what is elsewhere", || chunks(&swarm[2]) < full);
    assert!(done(&swarm[2], &["pin"]).err.contains("nothing is pinned here"));
    assert!(swarm[0].get("/d/film") == files[0].1);
}

#[test]
fn what_cannot_be_pinned_is_said() {
    let swarm = Swarm::of(1);
    let node = &swarm[0];
    let said = node.run(&["pin", "/nothing"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.err.contains("/nothing is not found in this swarm"), "{}", said.err);
    let said = node.run(&["unpin", "/nothing"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(said.err.contains("/nothing is not pinned on this node"), "{}", said.err);
    node.put("/here", b"here", &[]);
    done(node, &["pin", "/here", "--no-wait"]);
    done(node, &["pin", "/here"]);
    assert_eq!(node.list(&["pin"]).len(), 1);
    done(node, &["rm", "/here"]);
    // A pin is of a path: what was moved or removed from there is not kept, and that is said.
    let gone = |pin: &Value| pin["missing"] == 1 && pin["files"] == 0;
    until("it has followed", || pinned(node, "/here").is_some_and(|pin| gone(&pin)));
    let said = done(node, &["pin"]);
    assert!(said.out.contains("nothing is at this path any more"), "{}", said.out);
    done(node, &["unpin", "/here"]);
    assert!(node.list(&["pin"]).is_empty());
}

#[test]
fn a_node_that_is_full_still_finds_out_what_is_pinned() {
    let mut swarm = Swarm::with(2, &["--replicas", "1"]);
    swarm[0].put("/a", &noise(1, 5_000_000), &[]);
    swarm[0].put("/b", &noise(2, 100_000), &[]);
    let reader = swarm.join(&["--capacity", "1MB"]);
    let node = &swarm[reader];
    until("the records are there", || node.run(&["stat", "/b"]).code == 0);
    for path in ["/a", "/b"] {
        done(node, &["pin", path, "--no-wait"]);
    }
    let known = |path| pinned(node, path).is_some_and(|pin| pin["known"] == true);
    until("both were looked at", || known("/a") && known("/b"));
    let big = pinned(node, "/a").unwrap();
    assert_eq!(big["missing"], 1, "{big}");
    assert!(big.to_string().contains("the capacity of this node is used up"), "{big}");
}
