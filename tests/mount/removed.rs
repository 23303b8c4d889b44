//! Removals beside what another node does at the same place: what came from there and was not seen
//! stays, what was seen goes, and nothing that was removed comes back.

use crate::daemon::{names, until};
use crate::mounted::{Mounted, mounted};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|now| now == text)
}

/// Puts another file in the place of one, as editors do.
fn replace(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join(name)).unwrap();
}

/// A file that both nodes see.
fn seen_by_both(swarm: &Mounted, name: &str, text: &str) {
    fs::write(swarm.at(0).join(name), text).unwrap();
    for node in [0, 1] {
        until("the file to be there", || holds(&swarm.at(node).join(name), text));
        until("the file to be known", || knows(swarm, node, name, text));
    }
}

/// Whether a node knows a version with this text under a name.
fn knows(swarm: &Mounted, node: usize, name: &str, text: &str) -> bool {
    let (path, hash) = (format!("/{name}"), blake3::hash(text.as_bytes()).to_string());
    swarm[node].list(&["ls"]).iter().any(|entry| entry["path"] == path && entry["hash"] == *hash)
}

#[test]
fn a_removal_takes_nothing_away_that_it_has_not_seen() {
    let test = "a_removal_takes_nothing_away_that_it_has_not_seen";
    let Some(swarm) = mounted(test, 2) else { return };
    seen_by_both(&swarm, "f", "old");
    // The other one's file is made first, and heard of after the removal.
    swarm[0].signal(Signal::STOP);
    replace(swarm.at(1), "f", "theirs");
    until("their file to be known there", || knows(&swarm, 1, "f", "theirs"));
    swarm[1].signal(Signal::STOP);
    swarm[0].signal(Signal::CONT);
    fs::remove_file(swarm.at(0).join("f")).unwrap();
    until("the removal to be known here", || swarm[0].list(&["ls"]).is_empty());
    swarm[1].signal(Signal::CONT);
    for node in [0, 1] {
        until("their file to be there", || holds(&swarm.at(node).join("f"), "theirs"));
    }
    // And the other way round: what was seen goes, and stays away.
    fs::remove_file(swarm.at(0).join("f")).unwrap();
    for node in [0, 1] {
        until("the file to go", || names(swarm.at(node)).is_empty());
    }
    seen_by_both(&swarm, "f", "again");
    assert_eq!(names(swarm.at(1)), ["f"]);
}

#[test]
fn a_removal_and_another_file_at_once_end_alike_everywhere() {
    let test = "a_removal_and_another_file_at_once_end_alike_everywhere";
    let Some(swarm) = mounted(test, 2) else { return };
    let mut kept = 0;
    for round in 0..12 {
        let name = format!("f{round}");
        seen_by_both(&swarm, &name, "old");
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // From before it is made to well behind the moment at which it is known here.
                std::thread::sleep(Duration::from_millis(15 * round));
                fs::remove_file(swarm.at(0).join(&name)).unwrap();
            });
            start.wait();
            std::thread::sleep(Duration::from_millis(40));
            replace(swarm.at(1), &name, "theirs");
        });
        let is_kept = |node: usize| {
            let path = swarm.at(node).join(&name);
            match fs::read_to_string(&path) {
                Ok(text) => Some(text == "theirs" && knows(&swarm, node, &name, "theirs")),
                Err(_) => None,
            }
        };
        // Everything that was made at one is known at the other one.
        for (from, to) in [(0, 1), (1, 0)] {
            let mark = format!("mark-{round}-{from}");
            File::create(swarm.at(from).join(&mark)).unwrap();
            until("the mark to appear", || swarm.at(to).join(&mark).exists());
        }
        until("both to show the same", || is_kept(0) == is_kept(1) && is_kept(0) != Some(false));
        kept += usize::from(is_kept(0).is_some());
        assert_eq!(swarm[0].list(&["ls"]).len(), swarm[1].list(&["ls"]).len(), "round {round}");
        assert!(!names(swarm.at(0)).iter().any(|name| name.contains(".conflict-")));
    }
    assert!(kept > 0, "a file that was made after the removal began is never there");
}

#[test]
fn nothing_is_made_in_a_directory_that_another_node_has_removed() {
    let test = "nothing_is_made_in_a_directory_that_another_node_has_removed";
    let Some(swarm) = mounted(test, 2) else { return };
    let (here, there) = (swarm.dir(0, "d"), swarm.at(1).join("d"));
    until("the directory to appear", || there.is_dir());
    let dir = File::open(&here).unwrap();
    fs::remove_dir(&there).unwrap();
    until("the directory to go", || names(swarm.at(0)).is_empty());
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let refused = [
        rustix::fs::openat(&dir, "f", flags, Mode::RWXU).map(drop),
        rustix::fs::mkdirat(&dir, "e", Mode::RWXU),
        rustix::fs::symlinkat("f", &dir, "l"),
    ];
    for made in refused {
        assert!(matches!(made, Err(Errno::NOENT | Errno::STALE)), "{made:?}");
    }
    drop(dir);
    // The name is free, and what was refused is nowhere.
    fs::create_dir(&here).unwrap();
    fs::write(here.join("g"), "g").unwrap();
    until("another directory to appear", || there.is_dir() && names(&there) == ["g"]);
    assert_eq!(names(&here), ["g"]);
}

#[test]
fn who_waits_for_a_silent_node_gets_an_error_and_holds_up_nobody() {
    let test = "who_waits_for_a_silent_node_gets_an_error_and_holds_up_nobody";
    let Some(swarm) = mounted(test, 2) else { return };
    let far = crate::shared::only_at(&swarm, 1);
    let path = swarm.at(0).join(far);
    until("the file to appear", || path.exists());
    swarm[1].signal(Signal::STOP);
    let begun = Instant::now();
    let within = |text: &str, seconds| {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{text}: {:?}", begun.elapsed());
    };
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(&path).unwrap_err());
        // To change a part of a chunk the rest of it is needed.
        let cutting = scope.spawn(|| {
            let file = File::options().write(true).open(&path)?;
            file.set_len(1000)
        });
        let dir = swarm.dir(0, "d");
        let line = "for i in $(seq 50); do echo $1.$i > $1.$i; done";
        let mut writers: Vec<_> = (0..4)
            .map(|number| {
                let mut command = std::process::Command::new("sh");
                command.args(["-euc", line, "sh", &format!("w{number}")]).current_dir(&dir);
                command.spawn().unwrap()
            })
            .collect();
        assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
        within("others went on", 20);
        assert_eq!(names(&dir).len(), 200);
        for number in 0..4 {
            for i in 1..=50 {
                let name = format!("w{number}.{i}");
                assert!(holds(&dir.join(&name), &format!("{name}\n")), "{name}");
            }
        }
        within("others were read", 30);
        let failed = reading.join().unwrap();
        assert_ne!(failed.kind(), std::io::ErrorKind::NotFound, "{failed}");
        assert!(cutting.join().unwrap().is_err());
        within("it ended", 45);
    });
    swarm[1].signal(Signal::CONT);
    until("it to be there again", || fs::read(&path).is_ok_and(|bytes| bytes.len() == 1 << 20));
    until("the others to be there, too", || names(&swarm.at(1).join("d")).len() == 200);
}
