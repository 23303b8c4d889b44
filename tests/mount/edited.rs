//! Files that are edited while something else happens to them: others' changes, new names, other
//! lengths, the end of the daemon. Owns what must hold then; plain use is elsewhere.

use crate::daemon::{Daemon, noise, until};
use crate::mounted::{Mounted, mount, mounted};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn holds(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).is_ok_and(|now| now == bytes)
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn hash_of(node: &Daemon, path: &str) -> String {
    let list = node.list(&["ls"]);
    let found = list.iter().find(|entry| entry["path"] == path);
    found.map_or_else(String::new, |entry| entry["hash"].as_str().unwrap_or_default().to_owned())
}

/// A file that all know.
fn known(swarm: &Mounted, name: &str, bytes: &[u8]) -> (PathBuf, PathBuf) {
    let (here, there) = (swarm.at(0).join(name), swarm.at(1).join(name));
    fs::write(&here, bytes).unwrap();
    until("the file to appear", || holds(&there, bytes));
    (here, there)
}

#[test]
fn an_edit_of_what_others_replace_stops_nothing() {
    let Some(swarm) = mounted("an_edit_of_what_others_replace_stops_nothing", 2) else { return };
    let (here, there) = known(&swarm, "f", b"first");
    let former = open(&here);
    former.write_all_at(b"FIRST", 0).unwrap();
    fs::write(swarm.at(1).join("new"), "second").unwrap();
    fs::rename(swarm.at(1).join("new"), &there).unwrap();
    until("the other file to be seen", || holds(&here, b"second"));
    let now = open(&here);
    former.write_all_at(b"x", 4).unwrap();
    now.write_all_at(b"SECOND", 0).unwrap();
    drop((former, now));
    fs::create_dir(swarm.at(0).join("later")).unwrap();
    until("what is made later to be seen", || swarm.at(1).join("later").is_dir());
    // What was edited without having seen the other one is kept beside it, under either name.
    until("both to be seen", || {
        let texts: Vec<_> = swarm[1].list(&["ls"]).iter().map(|e| e["hash"].clone()).collect();
        let hash = |text: &[u8]| blake3::hash(text).to_string();
        texts.contains(&hash(b"FIRSx").into()) && texts.contains(&hash(b"SECOND").into())
    });
}

#[test]
fn a_new_name_of_an_edited_file_makes_no_copy_of_it() {
    let Some(swarm) = mounted("a_new_name_of_an_edited_file_makes_no_copy_of_it", 2) else {
        return;
    };
    let (here, there) = known(&swarm, "f", b"text");
    let (renamed, linked) = (swarm.at(0).join("g"), swarm.at(0).join("h"));
    let file = open(&here);
    file.write_all_at(b"T", 0).unwrap();
    fs::rename(&here, &renamed).unwrap();
    until("the new name to be seen", || swarm.at(1).join("g").exists());
    file.write_all_at(b"E", 1).unwrap();
    fs::hard_link(&renamed, &linked).unwrap();
    until("the link to be seen", || swarm.at(1).join("h").exists());
    drop(file);
    until("the edit to be seen", || holds(&swarm.at(1).join("h"), b"TExt"));
    assert_eq!(crate::daemon::names(swarm.at(1)), ["g", "h"]);
    assert_eq!(fs::metadata(&linked).unwrap().nlink(), 2);
    assert!(!there.exists());
}

#[test]
fn a_name_that_others_change_is_not_said_again_by_an_edit() {
    let Some(swarm) = mounted("a_name_that_others_change_is_not_said_again_by_an_edit", 2) else {
        return;
    };
    let (here, there) = known(&swarm, "f", b"text");
    let file = open(&here);
    file.write_all_at(b"T", 0).unwrap();
    fs::rename(&there, swarm.at(1).join("g")).unwrap();
    until("the new name to be seen", || swarm.at(0).join("g").exists());
    file.write_all_at(b"E", 1).unwrap();
    drop(file);
    until("the edit to be seen", || holds(&swarm.at(1).join("g"), b"TExt"));
    assert_eq!(crate::daemon::names(swarm.at(1)), ["g"]);
    assert_eq!(crate::daemon::names(swarm.at(0)), ["g"]);
}

#[test]
fn what_is_refused_or_comes_to_nothing_hides_no_change() {
    let Some(swarm) = mounted("what_is_refused_or_comes_to_nothing_hides_no_change", 2) else {
        return;
    };
    let (empty, there) = known(&swarm, "empty", b"");
    fs::create_dir(swarm.at(0).join("d")).unwrap();
    fs::write(swarm.at(0).join("d/in"), "it").unwrap();
    until("the directory to appear", || swarm.at(1).join("d/in").exists());
    assert!(fs::remove_dir(swarm.at(0).join("d")).is_err(), "something is in it");
    File::create(&empty).unwrap();
    fs::rename(swarm.at(1).join("d"), swarm.at(1).join("e")).unwrap();
    fs::write(there, "full").unwrap();
    let soon = Instant::now();
    until("the changes to be seen", || {
        !swarm.at(0).join("d").exists()
            && swarm.at(0).join("e/in").exists()
            && holds(&empty, b"full")
    });
    assert!(soon.elapsed() < Duration::from_secs(20), "not by a timeout");
}

#[test]
fn a_hole_that_changes_while_a_version_is_made_reads_as_zeros() {
    let Some(swarm) = mounted("a_hole_that_changes_while_a_version_is_made_reads_as_zeros", 2)
    else {
        return;
    };
    let lengths = [(100_000, 200_000), (1_500_000, 3_500_000), (3_500_000, 1_500_000)];
    for round in 0..40_u64 {
        for (number, (first, then)) in lengths.iter().enumerate() {
            let file = File::create(swarm.at(0).join(format!("{round}.{number}"))).unwrap();
            file.set_len(*first).unwrap();
            drop(file);
            // Where in the making of the version this comes is chance.
            std::thread::sleep(Duration::from_millis(15 + round % 20));
            open(&swarm.at(0).join(format!("{round}.{number}"))).set_len(*then).unwrap();
        }
    }
    for (number, (_, then)) in lengths.iter().enumerate() {
        let zeros = vec![0; *then as usize];
        let wanted = blake3::hash(&zeros).to_string();
        for round in 0..40 {
            let path = format!("/{round}.{number}");
            until("the last version", || hash_of(&swarm[1], &path) == wanted);
            assert!(holds(&swarm.at(1).join(&path[1..]), &zeros), "{path}");
        }
    }
}

#[test]
fn a_new_file_that_is_taken_up_supersedes_nobody() {
    let Some(mut swarm) = mounted("a_new_file_that_is_taken_up_supersedes_nobody", 2) else {
        return;
    };
    let (here, there) = (swarm.at(1).join("f"), swarm.at(0).join("f"));
    // Before a version of it is made.
    let mut mine = File::create(&here).unwrap();
    mine.write_all(b"mine").unwrap();
    mine.sync_all().unwrap();
    swarm[1].kill();
    drop(mine);
    let mut theirs = File::create(&there).unwrap();
    theirs.write_all(b"theirs").unwrap();
    drop(theirs);
    let hash = |text: &[u8]| blake3::hash(text).to_string();
    until("the other's version", || hash_of(&swarm[0], "/f") == hash(b"theirs"));
    swarm[1].start();
    for node in [0, 1] {
        until("both to be seen", || {
            let list = swarm[node].list(&["ls"]);
            let has = |text: &[u8]| list.iter().any(|entry| entry["hash"] == hash(text));
            has(b"mine") && has(b"theirs")
        });
    }
}

#[test]
fn a_file_that_is_written_on_and_on_gets_few_versions() {
    let Some(swarm) = mounted("a_file_that_is_written_on_and_on_gets_few_versions", 2) else {
        return;
    };
    let path = swarm.at(0).join("log");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.sync_all().unwrap();
    // The first version, after which the others follow every 30 seconds of writing.
    until("a version", || !hash_of(&swarm[0], "/log").is_empty());
    file.write_all_at(b"more", 5).unwrap();
    file.sync_all().unwrap();
    let begun = Instant::now();
    let mut at = 9;
    while begun.elapsed() < Duration::from_secs(4) {
        file.write_all_at(b"and more", at).unwrap();
        at += 8;
        std::thread::sleep(Duration::from_millis(5));
    }
    let versions = swarm[0].list(&["history", "/log"]).len();
    assert!(versions <= 3, "{versions} versions");
}

#[test]
fn a_name_that_a_new_file_has_is_not_the_moved_ones_any_more() {
    let test = "a_name_that_a_new_file_has_is_not_the_moved_ones_any_more";
    let Some(swarm) = mounted(test, 2) else { return };
    let (here, there) = known(&swarm, "new", b"first");
    fs::rename(&here, swarm.at(0).join("saved")).unwrap();
    // As long as it is written to, it has no version.
    let mut open = File::create(&here).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        open.write_all(b"on and on").unwrap();
        if holds(&swarm.at(1).join("saved"), b"first") {
            assert!(!there.exists() || !holds(&there, b"first"), "one file, two names");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(holds(&swarm.at(1).join("saved"), b"first"), "the other one did not wait");
    drop(open);
    until("the new one", || fs::read(&there).is_ok_and(|now| now.starts_with(b"on and on")));
}

#[test]
fn what_has_no_name_any_more_holds_nothing_up() {
    let Some(swarm) = mounted("what_has_no_name_any_more_holds_nothing_up", 2) else { return };
    let (one, two) = (swarm.at(0).join("one"), swarm.at(0).join("two"));
    let mut gone = File::create(&one).unwrap();
    gone.write_all(b"gone").unwrap();
    fs::remove_file(&one).unwrap();
    fs::write(two, "kept").unwrap();
    let begun = Instant::now();
    let said = swarm[0].run(&["umount", swarm.at(0).to_str().unwrap()]);
    assert_ne!(said.code, 0, "it is in use");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    until("the other file", || hash_of(&swarm[1], "/two") == blake3::hash(b"kept").to_string());
    let mut text = String::new();
    drop(gone);
    mounted_again(&swarm);
    File::open(swarm.at(0).join("two")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "kept");
}

fn mounted_again(swarm: &Mounted) {
    let point = swarm.at(0).to_str().unwrap();
    swarm[0].run(&["umount", point]);
    mount(&swarm[0], swarm.at(0), &[]);
}

#[test]
fn names_do_not_wait_for_a_large_file() {
    let Some(swarm) = mounted("names_do_not_wait_for_a_large_file", 2) else { return };
    fs::write(swarm.at(0).join("large"), noise(9, 96 << 20)).unwrap();
    fs::create_dir(swarm.at(0).join("dir")).unwrap();
    let file = File::create(swarm.at(0).join("dir/small")).unwrap();
    file.write_all_at(b"small", 0).unwrap();
    file.sync_all().unwrap();
    File::open(swarm.at(0)).unwrap().sync_all().unwrap();
    drop(file);
    until("all of it", || {
        holds(&swarm.at(1).join("dir/small"), b"small")
            && hash_of(&swarm[1], "/large") == blake3::hash(&noise(9, 96 << 20)).to_string()
    });
}
