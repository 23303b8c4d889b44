//! Disks that fill up: puts are refused with exit code 8 and a sentence, reads go on, the status
//! says so, a killed daemon starts again, and when there is room puts are taken again. A disk of
//! its own that the puts and then something else fill, and nodes that offer little.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::disk::Disk;
use crate::machine::{able, alone, form};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Over the GiB that the store leaves free, by what all cycles put.
const DISK: u64 = 2300 * MIB;
/// Room for the puts of a cycle.
const ROOM: u64 = (1 << 30) + 40 * MIB;
const FILE: usize = 6 << 20;
const FULL: i32 = 8;

/// Puts files until that is refused; the number after the last one that was taken.
fn fill(node: &Daemon, from: u64) -> (u64, String) {
    for number in from.. {
        std::fs::write(node.work.join("source"), noise(number, FILE)).unwrap();
        let said = node.run(&["put", "source", "--as", &format!("/{number}")]);
        if said.code != 0 {
            assert_eq!(said.code, FULL, "{}", said.err);
            let has_hint = said.err.contains(" hint: ");
            assert!(said.err.starts_with("error: ") && has_hint, "{}", said.err);
            return (number, said.err);
        }
    }
    unreachable!("no disk is endless");
}

fn all_there(node: &Daemon, end: u64) {
    for number in 0..end {
        assert!(node.get(&format!("/{number}")) == noise(number, FILE), "/{number}");
    }
}

/// Something else on the disk.
struct Filler(PathBuf);

impl Filler {
    /// Takes all room but so much.
    fn leave(&self, bytes: u64) {
        drop(std::fs::remove_file(&self.0));
        let file = File::create(&self.0).unwrap();
        let available = || {
            let space = rustix::fs::statvfs(self.0.parent().unwrap()).unwrap();
            // To leave nothing it takes what is reserved for root, too.
            let free = if bytes == 0 { space.f_bfree } else { space.f_bavail };
            free * space.f_frsize
        };
        let mut step = available().saturating_sub(bytes);
        let mut taken = 0;
        // The file system needs a little itself, how much is not known beforehand.
        while step >= 4096 {
            let none = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, none, taken, step) {
                Ok(()) => taken += step,
                Err(_) => step /= 2,
            }
            step = step.min(available().saturating_sub(bytes));
        }
    }
}

#[test]
fn a_full_disk_refuses_puts_and_nothing_else() {
    let _turn = alone();
    if !able("a full disk", &["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let disk = Disk::new("ext4", DISK);
    let mut swarm = Swarm::empty();
    let mut node = swarm.draft();
    node.data = disk.path().join("data");
    // More than there is: the disk sets the bound.
    node.flags = vec!["--capacity".into(), "100GB".into()];
    swarm.add(node);
    let filler = Filler(disk.path().join("filler"));
    let cycles = form(2, 20);
    filler.leave(ROOM);
    swarm[0].start();
    let mut end = 0;
    for cycle in 0..cycles {
        filler.leave(ROOM);
        let (filled, said) = fill(&swarm[0], end);
        assert!(filled > end, "puts are taken again in cycle {cycle}: {said}");
        end = filled;
        assert!(said.contains("disk of this node is full"), "{said}");
        let status = swarm[0].status();
        println!("cycle {cycle}: {end} files, {}, {}", status["free_bytes"], status["problems"]);
        assert!(status["problems"].to_string().contains("the disk is full"), "{status}");
        assert_eq!(swarm[0].run(&["status", "--check"]).code, 5);
        all_there(&swarm[0], end);
        // Not a byte left, and a restart in this state.
        filler.leave(0);
        assert_eq!(fill(&swarm[0], end).0, end);
        all_there(&swarm[0], end);
        swarm[0].kill();
        swarm[0].start();
        assert_eq!(fill(&swarm[0], end).0, end);
        all_there(&swarm[0], end);
    }
    println!("{cycles} times full, {end} files of {} MiB, all there", FILE >> 20);
}

#[test]
fn a_node_with_a_full_disk_is_not_waited_for() {
    let _turn = alone();
    if !able("one full disk of two", &["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let disk = Disk::new("ext4", DISK);
    Filler(disk.path().join("filler")).leave(ROOM / 2);
    let mut swarm = Swarm::of(1);
    let mut node = swarm.draft();
    node.data = disk.path().join("data");
    node.flags.extend(["--capacity".into(), "100GB".into()]);
    node.start();
    swarm.add(node);
    swarm.met();
    let begun = Instant::now();
    let hash = swarm[0].put("/f", &noise(1, FILE), &["--replicas", "2"]);
    println!("put beside a full disk: {:.1?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(swarm[1].get(&hash) == noise(1, FILE));
    let peers = swarm[0].list(&["peers"]);
    let offered = |peer: &serde_json::Value| peer["used"].as_u64().unwrap();
    println!("{}", peers[0]);
    assert!(offered(&peers[0]) > 90_000_000_000, "{}", peers[0]);
}

#[test]
fn nodes_that_are_full_are_passed_over_until_none_has_room() {
    let _turn = alone();
    let mut swarm = Swarm::empty();
    for capacity in ["80MiB", "30MiB"] {
        let mut node = swarm.draft();
        node.flags.extend(["--capacity", capacity, "--replicas", "2"].map(Into::into));
        node.start();
        swarm.add(node);
    }
    swarm.met();
    let (end, said) = fill(&swarm[0], 0);
    println!("{end} files of {} MiB, then: {said}", FILE >> 20);
    assert!(said.contains("capacity"), "{said}");
    // What the larger one takes, and not only twice what the smaller one does.
    assert!((8..=13).contains(&end), "{end} files");
    for node in [0, 1] {
        all_there(&swarm[node], end);
        let status = swarm[node].status();
        let (here, capacity) = (status["bytes_here"].as_u64(), status["capacity"].as_u64());
        assert!(here <= capacity, "{status}");
        until("the missing copies to be said", || swarm[node].status()["under_replicated"] != 0);
        assert_eq!(swarm[node].run(&["status", "--check"]).code, 5);
    }
    // A node with room is what they need.
    swarm.join(&["--replicas", "2"]);
    swarm.met();
    for node in [0, 1, 2] {
        until("all copies", || swarm[node].status()["under_replicated"] == 0);
    }
    swarm[0].put(&format!("/{end}"), &noise(end, FILE), &[]);
    all_there(&swarm[2], end + 1);
}
