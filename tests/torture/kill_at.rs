//! Killed at the n-th system call that changes the disk, for every n: while the very first start
//! makes keys and a store, while a file is put and the tables are written out, and while a start
//! makes good what a crash has left. It always starts again, what was acknowledged is whole, what
//! was not is whole or not there.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::machine::{able, alone};
use crate::room::stored;
use crate::trace::{self, KILL, Seen, Tracer, at_each_call};
use std::time::{Duration, Instant};

/// Two chunks and a little.
const LEN: usize = (2 << 20) + 4321;

/// Puts a file that depends on `number`; whether that was acknowledged.
fn put(node: &Daemon, number: u64) -> bool {
    std::fs::write(node.work.join("source"), noise(number, LEN)).unwrap();
    let code = node.run(&["put", "source", "--as", &format!("/{number}")]).code;
    assert!(code == 0 || code == 6, "a killed daemon cannot answer, and this one said {code}");
    code == 0
}

/// Whether a file is there; it is whole then.
fn is_there(node: &Daemon, number: u64) -> bool {
    let listed = node.list(&["ls"]).iter().any(|file| file["path"] == format!("/{number}"));
    if listed {
        assert!(node.get(&format!("/{number}")) == noise(number, LEN), "/{number} is not whole");
    }
    listed
}

#[test]
fn killed_at_any_call_of_the_first_start() {
    let _turn = alone();
    if !able("kill at each call of the first start", &["strace"]) {
        return;
    }
    at_each_call("first start", KILL, |fault| {
        let swarm = Swarm::empty();
        let mut node = swarm.draft();
        trace::from_the_start(&mut node, fault, false);
        if node.attempt().is_none() {
            node.run(&["stop"]);
        }
        node.kill();
        let seen = Seen::of(&node);
        node.prefix.clear();
        node.start();
        assert!(put(&node, 1) && is_there(&node, 1));
        seen
    });
}

#[test]
fn killed_at_any_call_of_a_put() {
    let _turn = alone();
    if !able("kill at each call of a put", &["strace"]) {
        return;
    }
    let mut swarm = Swarm::of(1);
    let (mut kept, mut number) = (Vec::new(), 0);
    at_each_call("put and stop", KILL, |fault| {
        let node = &mut swarm[0];
        let tracer = Tracer::attach(node, fault);
        number += 1;
        let acknowledged = put(node, number);
        node.run(&["stop"]);
        node.kill();
        tracer.ended();
        let seen = Seen::of(node);
        node.start();
        let there = is_there(node, number);
        assert!(there || !acknowledged, "/{number} was acknowledged and is lost after {fault}");
        if acknowledged {
            kept.push(number);
        }
        seen
    });
    assert!(kept.iter().all(|number| is_there(&swarm[0], *number)));
    println!("0 of {} acknowledged files lost", kept.len());
}

#[test]
fn killed_at_any_call_of_a_start_after_a_crash() {
    let _turn = alone();
    if !able("kill at each call of a start after a crash", &["strace"]) {
        return;
    }
    let mut swarm = Swarm::of(1);
    let mut number = 0;
    at_each_call("start after a crash", KILL, |fault| {
        let node = &mut swarm[0];
        number += 1;
        // In order once, so that no life has to make good what earlier ones have left.
        assert_eq!(node.run(&["stop"]).code, 0);
        node.kill();
        node.start();
        assert!(put(node, number));
        node.kill();
        trace::from_the_start(node, fault, false);
        if node.attempt().is_none() {
            node.run(&["stop"]);
        }
        node.kill();
        let seen = Seen::of(node);
        node.prefix.clear();
        node.start();
        assert!(is_there(node, number), "/{number} is lost after {fault}");
        seen
    });
    assert!((1..=number).all(|number| is_there(&swarm[0], number)));
    println!("0 of {number} acknowledged files lost");
}

#[test]
fn killed_at_any_call_of_a_purge_until_its_room_is_free() {
    let _turn = alone();
    if !able("kill at each call of a purge", &["strace"]) {
        return;
    }
    let mut swarm = Swarm::empty();
    let mut node = swarm.draft();
    node.flags = vec!["--gc-grace".into(), "1s".into()];
    node.start();
    swarm.add(node);
    let (mut number, mut purged) = (0, Vec::new());
    at_each_call("purge, free and compact", KILL, |fault| {
        let node = &mut swarm[0];
        number += 3;
        // What stays is little, so that what goes is always worth a compaction.
        let kept = format!("/{number}");
        std::fs::write(node.work.join("kept"), noise(number, 1000)).unwrap();
        assert_eq!(node.run(&["put", "kept", "--as", &kept]).code, 0);
        assert!([1, 2].into_iter().all(|more| put(node, number + more)));
        let before = stored(node);
        let tracer = Tracer::attach(node, fault);
        let names = [1, 2].map(|more| format!("/{}", number + more));
        let said = node.run(&["rm", "--purge", "--yes", &names[0], &names[1]]);
        assert!(said.code == 0 || said.code == 6, "{}", said.err);
        let begun = Instant::now();
        let lives = |node: &Daemon| node.run(&["id"]).code == 0;
        while stored(node) > before - LEN as u64 && lives(node) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "its room does not come back: {fault}, {number}, {before}, {}",
                stored(node)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        node.run(&["stop"]);
        node.kill();
        tracer.ended();
        let seen = Seen::of(node);
        node.start();
        assert!(node.get(&kept) == noise(number, 1000), "{kept} is lost after {fault}");
        if said.code != 0 {
            // Some of it may have gone.
            names.iter().for_each(|name| _ = node.run(&["rm", "--purge", "--yes", name]));
        }
        purged.extend([1, 2].map(|more| number + more));
        let back = purged.iter().find(|number| is_there(node, **number));
        assert_eq!(back, None, "it was purged, and {fault} brought it back");
        seen
    });
    let node = &swarm[0];
    let kept = number / 3;
    assert!((1..=kept).all(|life| node.get(&format!("/{}", 3 * life)) == noise(3 * life, 1000)));
    until("the room of all that was purged to come back", || stored(node) < 3 * LEN as u64);
    println!("0 of {kept} files lost, none of {} purged ones came back", purged.len());
}
