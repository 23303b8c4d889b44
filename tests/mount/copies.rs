//! Conflict copies in a mount: what two wrote at once is there under two names, and ordinary
//! programs settle it: they read, copy, rename and remove the copy, and write to none.

use crate::daemon::{Daemon, names, until};
use crate::mounted::{Mounted, mounted};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

fn knows(node: &Daemon, path: &str, text: &str) -> bool {
    let hash = blake3::hash(text.as_bytes()).to_string();
    node.list(&["ls", "-R"]).iter().any(|entry| entry["path"] == path && entry["hash"] == *hash)
}

/// Two nodes write to a name, none having seen what the other one did; what has the name then, and
/// where the copy is at the first node. What is written counts from the moment when a program
/// begins to, and is a version when that closes the file.
fn conflict(swarm: &Mounted, name: &str) -> (String, PathBuf) {
    let write = |node: usize, text: &str| {
        let mut file = File::create(swarm.at(node).join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.sync_all().unwrap();
        file
    };
    drop([write(0, "zero"), write(1, "one")]);
    both_seen(swarm, name)
}

/// The same of two nodes that cannot talk meanwhile: each makes a version without the other one,
/// which it does once that counts as dead.
fn conflict_apart(swarm: &Mounted, name: &str) -> (String, PathBuf) {
    let path = format!("/{name}");
    swarm[1].signal(Signal::STOP);
    fs::write(swarm.at(0).join(name), "zero").unwrap();
    until("the version of the first", || knows(&swarm[0], &path, "zero"));
    swarm[0].signal(Signal::STOP);
    swarm[1].signal(Signal::CONT);
    fs::write(swarm.at(1).join(name), "one").unwrap();
    until("the version of the second", || knows(&swarm[1], &path, "one"));
    swarm[0].signal(Signal::CONT);
    both_seen(swarm, name)
}

/// Waits until both nodes see both versions.
fn both_seen(swarm: &Mounted, name: &str) -> (String, PathBuf) {
    let mark = format!("{name}.conflict-");
    let copy_at = |node: usize| {
        let all = names(swarm.at(node)).into_iter();
        all.filter(|name| name.starts_with(&mark)).map(|name| swarm.at(node).join(name)).next()
    };
    for node in [0, 1] {
        until("both to be seen", || {
            let texts = |copy: PathBuf| [swarm.at(node).join(name), copy].map(fs::read_to_string);
            let texts = copy_at(node).map(texts);
            texts.is_some_and(|[name, copy]| match (name, copy) {
                (Ok(name), Ok(copy)) => {
                    [&*name, &*copy] == ["one", "zero"] || [&*name, &*copy] == ["zero", "one"]
                }
                _ => false,
            })
        });
    }
    (fs::read_to_string(swarm.at(0).join(name)).unwrap(), copy_at(0).unwrap())
}

fn other(text: &str) -> &'static str {
    if text == "zero" { "one" } else { "zero" }
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|now| now == text)
}

/// Waits until both nodes see these names at the top with these texts, and nothing in conflict.
fn settled(swarm: &Mounted, files: &[(&str, &str)]) {
    for node in [0, 1] {
        until("all to be seen alike", || {
            let all: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
            names(swarm.at(node)) == all
                && files.iter().all(|(name, text)| holds(&swarm.at(node).join(name), text))
                && files.iter().all(|(name, text)| knows(&swarm[node], &format!("/{name}"), text))
                && swarm[node].list(&["conflicts"]).is_empty()
        });
    }
}

#[test]
fn a_conflict_copy_is_read_and_copied_and_ends_when_it_is_removed() {
    let test = "a_conflict_copy_is_read_and_copied_and_ends_when_it_is_removed";
    let Some(swarm) = mounted(test, 2) else { return };
    fs::write(swarm.at(0).join("f"), "base").unwrap();
    until("the file to appear", || holds(&swarm.at(1).join("f"), "base"));
    let (winner, copy) = conflict_apart(&swarm, "f");
    // Which of the two versions would go on with what is written to it is for nobody to guess.
    let refused = File::options().write(true).open(&copy).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    fs::copy(&copy, swarm.at(0).join("copied")).unwrap();
    fs::remove_file(&copy).unwrap();
    assert_eq!(names(swarm.at(0)), ["copied", "f"]);
    settled(&swarm, &[("copied", other(&winner)), ("f", &winner)]);
    fs::remove_file(swarm.at(0).join("copied")).unwrap();
    fs::remove_file(swarm.at(0).join("f")).unwrap();
    settled(&swarm, &[]);
    // The same of two files that were made at once.
    let (winner, copy) = conflict(&swarm, "g");
    fs::remove_file(&copy).unwrap();
    settled(&swarm, &[("g", &winner)]);
}

#[test]
fn a_conflict_copy_that_gets_another_name_is_a_file_of_its_own() {
    let test = "a_conflict_copy_that_gets_another_name_is_a_file_of_its_own";
    let Some(mut swarm) = mounted(test, 2) else { return };
    let top = swarm.at(0).to_owned();
    // An edit of one file at both, and a new file at each.
    fs::write(top.join("f"), "base").unwrap();
    until("the file to appear", || holds(&swarm.at(1).join("f"), "base"));
    for (name, kept) in [("f", "kept-f"), ("g", "kept-g")] {
        let (winner, copy) = conflict(&swarm, name);
        fs::rename(&copy, top.join(kept)).unwrap();
        assert!(!copy.exists() && holds(&top.join(kept), other(&winner)));
        assert!(holds(&top.join(name), &winner));
        let (kept_text, text) = (format!("{} more", other(&winner)), format!("{winner} now"));
        settled(&swarm, &[(name, &winner), (kept, other(&winner))]);
        // Both are files like others, and nothing of one is the other one's.
        fs::write(top.join(kept), &kept_text).unwrap();
        fs::write(swarm.at(1).join(name), &text).unwrap();
        settled(&swarm, &[(name, &text), (kept, &kept_text)]);
        assert_eq!(swarm[0].get(&format!("/{kept}")), kept_text.as_bytes());
        fs::remove_file(top.join(name)).unwrap();
        settled(&swarm, &[(kept, &kept_text)]);
        fs::remove_file(top.join(kept)).unwrap();
        settled(&swarm, &[]);
        // In place of what has the name: the other side is taken.
        let (winner, copy) = conflict(&swarm, name);
        fs::rename(&copy, top.join(name)).unwrap();
        settled(&swarm, &[(name, other(&winner))]);
        fs::remove_file(top.join(name)).unwrap();
        settled(&swarm, &[]);
        if name == "f" {
            continue;
        }
        // It does not need the others, nor this daemon's life, once the directory is synced.
        let (winner, copy) = conflict(&swarm, name);
        fs::rename(&copy, top.join(kept)).unwrap();
        File::open(&top).unwrap().sync_all().unwrap();
        swarm[0].kill();
        swarm[0].start();
        swarm.until_back(0);
        settled(&swarm, &[(name, &winner), (kept, other(&winner))]);
    }
}
