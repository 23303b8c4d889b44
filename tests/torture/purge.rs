//! Room that comes back: a large file that is purged leaves every node within the grace, while
//! other files are read; and nodes that are filled until they refuse and purged again end each
//! cycle as they began it. How long it takes and what is left is printed.

use crate::daemon::{Swarm, noise, until};
use crate::machine::{alone, form, run};
use crate::room::stored;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// What may be left of what was purged: records, and segments too lively to be compacted.
const LEFT: u64 = 24 * MIB;
/// How long after the grace the last segment may go.
const AFTER: Duration = Duration::from_secs(30);
const FULL: i32 = 8;

#[test]
fn what_was_purged_leaves_every_disk_within_the_grace() {
    let _turn = alone();
    let grace = Duration::from_secs(form(4, 20));
    let swarm = Swarm::with(3, &["--gc-grace", &format!("{}s", grace.as_secs())]);
    let kept = noise(1, 5 << 20);
    swarm[0].put("/kept", &kept, &["--wait", "all"]);
    let before: Vec<u64> = (0..3).map(|node| stored(&swarm[node])).collect();
    let len = form(100, 1024) * MIB;
    let of = format!("of={}", swarm[0].work.join("source").display());
    let count = format!("count={}", len / MIB);
    run("dd", &["if=/dev/urandom", "bs=1M", &of, &count, "status=none"]);
    let said = swarm[0].run(&["put", "source", "--as", "/f", "--wait", "all"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for (node, before) in before.iter().enumerate() {
        assert!(stored(&swarm[node]) >= before + len, "node {node} has all of it");
    }

    let said = swarm[1].run(&["rm", "--purge", "--yes", "/f"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let begun = Instant::now();
    let mut gone: Vec<Option<Duration>> = vec![None; 3];
    let mut reads = 0;
    while gone.contains(&None) {
        assert!(begun.elapsed() < grace + AFTER, "{gone:?}");
        for (node, gone) in gone.iter_mut().enumerate() {
            if gone.is_none() && stored(&swarm[node]) <= before[node] + LEFT {
                *gone = Some(begun.elapsed());
            }
        }
        assert!(swarm[2].get("/kept") == kept, "what was not purged can be read meanwhile");
        reads += 1;
    }
    let left: Vec<u64> = (0..3).map(|node| stored(&swarm[node]) - before[node]).collect();
    println!(
        "{} MiB purged, with a grace of {grace:?}: gone after {gone:.1?}, {left:?} bytes more than \
         before, {reads} reads meanwhile",
        len / MIB
    );
}

#[test]
fn filled_and_purged_again_and_again_a_node_is_as_it_was() {
    let _turn = alone();
    let capacity = form("120MB", "500MB");
    let swarm = Swarm::with(3, &["--gc-grace", "1s", "--capacity", capacity]);
    let file = 4 << 20;
    let mut cycles: Vec<(u64, u64)> = Vec::new();
    for cycle in 0..form(3, 20) {
        let mut files = 0;
        let refused = loop {
            std::fs::write(swarm[0].work.join("source"), noise(cycle << 32 | files, file)).unwrap();
            let said = swarm[0].run(&["put", "source", "--as", &format!("/d/{files}")]);
            if said.code != 0 {
                break said;
            }
            files += 1;
        };
        assert_eq!(refused.code, FULL, "{}", refused.err);
        for number in [0, files / 2, files - 1] {
            let path = format!("/d/{number}");
            assert!(swarm[1].get(&path) == noise(cycle << 32 | number, file), "{path}");
        }
        let said = swarm[2].run(&["rm", "-r", "--purge", "--yes", "/d"]);
        assert_eq!(said.code, 0, "{}", said.err);
        for node in 0..3 {
            let empty = || stored(&swarm[node]) <= LEFT;
            until("the room to come back", || swarm[node].status()["bytes_here"] == 0 && empty());
        }
        let most = (0..3).map(|node| stored(&swarm[node])).max().unwrap();
        println!("cycle {cycle}: {files} files, then at most {most} bytes left on a disk");
        cycles.push((files, most));
        // What each of them has told the others of its room arrives soon.
        until("puts to be taken again", || {
            std::fs::write(swarm[0].work.join("source"), b"room?").unwrap();
            swarm[0].run(&["put", "source", "--as", "/d/0"]).code == 0
        });
    }
    let (first, last) = (cycles[0], cycles[cycles.len() - 1]);
    assert!(last.0.abs_diff(first.0) <= 1 + first.0 / 10, "as many files fit: {cycles:?}");
}
