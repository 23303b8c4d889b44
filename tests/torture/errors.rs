//! A disk that answers with an error, once or from then on, at the n-th system call that changes
//! it, for every n. The power fails right afterwards, so that an acknowledgement that was given
//! although nothing reached the disk is found out. The daemon goes on reading, or ends and says
//! why.

use crate::daemon::{Daemon, Swarm, noise};
use crate::disk::Disk;
use crate::machine::{able, alone};
use crate::trace::{self, Seen, Tracer, at_each_call};

/// Two chunks and a little.
const LEN: usize = (2 << 20) + 4321;
/// As for power failures.
const DISK: u64 = 4 << 30;

const TOOLS: [&str; 4] = ["strace", "mount", "umount", "mkfs.ext4"];

/// A node on a disk that can fail, with one file.
fn swarm(disk: &Disk) -> Swarm {
    let mut swarm = Swarm::empty();
    let mut node = swarm.draft();
    node.data = disk.path().join("data");
    node.config = disk.path().join("config");
    node.start();
    swarm.add(node);
    swarm[0].put("/first", &noise(0, LEN), &[]);
    swarm
}

/// Puts a file that depends on `number`; whether that was acknowledged. If not, it is said why.
fn put(node: &Daemon, number: u64) -> bool {
    std::fs::write(node.work.join("source"), noise(number, LEN)).unwrap();
    let said = node.run(&["put", "source", "--as", &format!("/{number}")]);
    assert!(said.code == 0 || said.err.starts_with("error: "), "{}: {}", said.code, said.err);
    said.code == 0
}

fn has(node: &Daemon, number: u64) -> bool {
    let got = node.command(&["get", &format!("/{number}"), "-o", "-"]).output().unwrap();
    got.stdout == noise(number, LEN)
}

/// The writer meets an error in the middle of two puts, or of what a stop writes after them.
fn errors_while_putting(title: &str, error: &str, stop: bool) {
    let disk = Disk::new("ext4", DISK);
    let mut swarm = swarm(&disk);
    let mut number = 0;
    let (mut acknowledged, mut refused) = (0, 0);
    at_each_call(title, error, |fault| {
        let node = &mut swarm[0];
        let tracer = Tracer::attach(node, fault);
        number += 2;
        let kept = [number - 1, number].map(|number| (number, put(node, number)));
        // What a disk that takes nothing more has is still read, and its state is shown.
        assert!(node.get("/first") == noise(0, LEN), "reads go on after {fault}");
        let status = node.status();
        if kept[1].1 {
            acknowledged += 1;
        } else {
            refused += 1;
            assert_ne!(status["problems"], serde_json::json!([]), "after {fault}");
        }
        if stop {
            node.run(&["stop"]);
        }
        disk.cut();
        node.kill();
        tracer.ended();
        let seen = Seen::of(node);
        disk.again();
        node.start();
        for (number, _) in kept.into_iter().filter(|(_, kept)| *kept) {
            assert!(has(node, number), "/{number} was acknowledged and is lost after {fault}");
        }
        assert!(node.get("/first") == noise(0, LEN));
        seen
    });
    println!("{acknowledged} puts acknowledged after the error, none lost; {refused} refused");
}

#[test]
fn an_error_while_putting_never_leads_to_a_false_ok() {
    let _turn = alone();
    if able("an I/O error at each call of a put", &TOOLS) {
        errors_while_putting("put", "error=EIO", false);
        errors_while_putting("put and stop", "error=EIO", true);
    }
}

#[test]
fn a_disk_that_fails_from_then_on_never_leads_to_a_false_ok() {
    let _turn = alone();
    if able("I/O errors from each call of a put on", &TOOLS) {
        errors_while_putting("put, from then on", "error=EIO+", false);
    }
}

#[test]
fn an_error_while_starting_is_overcome_or_said() {
    let _turn = alone();
    if !able("an I/O error at each call of a start", &TOOLS) {
        return;
    }
    let disk = Disk::new("ext4", DISK);
    let mut swarm = swarm(&disk);
    let (mut number, mut ended) = (0, 0);
    at_each_call("start after a crash", "error=EIO", |fault| {
        let node = &mut swarm[0];
        node.run(&["stop"]);
        node.kill();
        node.start();
        number += 1;
        assert!(put(node, number));
        node.kill();
        trace::from_the_start(node, fault, false);
        let before = node.log().len();
        match node.attempt() {
            None => {
                assert!(has(node, number), "after {fault}");
                number += 1;
                let kept = put(node, number);
                disk.cut();
                node.kill();
                number -= u64::from(!kept);
            }
            Some(status) => {
                ended += 1;
                let said = &node.log()[before..];
                assert!(status.code().is_some() && said.contains("\"error\":"), "{fault}: {said}");
                disk.cut();
            }
        }
        let seen = Seen::of(node);
        node.prefix.clear();
        disk.again();
        node.start();
        assert!(has(node, number) && (number == 1 || has(node, number - 1)), "after {fault}");
        seen
    });
    assert!((1..=number).all(|number| has(&swarm[0], number)));
    println!("{ended} starts ended and said why; 0 of {number} acknowledged files lost");
}
