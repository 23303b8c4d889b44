//! Names that changed just before a daemon is killed: what a program has synced is there afterwards
//! under the names that it had when a file or a directory was synced, or under later ones, and
//! nothing that was replaced comes back.

use crate::daemon::{names, until};
use crate::mounted::{Mounted, mounted};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

type Seen = BTreeMap<String, String>;

/// A synced file, which is open: so it gets no version for a while.
fn synced(path: &Path) -> File {
    let mut file = File::create(path).unwrap();
    file.write_all(path.file_name().unwrap().as_encoded_bytes()).unwrap();
    file.sync_all().unwrap();
    file
}

fn sync(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// What is there when the daemon was killed and started again: names with what was written first.
fn after_a_kill(swarm: &mut Mounted, open: Vec<File>) -> Seen {
    swarm[0].kill();
    drop(open);
    swarm[0].start();
    swarm.until_back(0);
    let mut seen = Seen::new();
    for name in names(swarm.at(0)) {
        let path = swarm.at(0).join(&name);
        let inside = if path.is_dir() { names(&path) } else { Vec::new() };
        for path in inside.iter().map(|inside| path.join(inside)).chain([path.clone()]) {
            if path.is_file() {
                let below = path.strip_prefix(swarm.at(0)).unwrap().to_str().unwrap().to_owned();
                seen.insert(below, fs::read_to_string(path).unwrap());
            }
        }
    }
    until("the drafts to go", || names(&swarm[0].data.join("drafts")).is_empty());
    for (name, text) in &seen {
        assert_eq!(swarm[0].get(&format!("/{name}")), text.as_bytes(), "{name}");
    }
    seen
}

fn seen(all: &[(&str, &str)]) -> Seen {
    all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_replaced_file_does_not_come_back_under_its_first_name() {
    let test = "a_replaced_file_does_not_come_back_under_its_first_name";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let at = |name: &str| swarm.at(0).join(name);
    let first = synced(&at("a"));
    fs::rename(at("a"), at("saved")).unwrap();
    let second = synced(&at("b"));
    fs::rename(at("b"), at("saved")).unwrap();
    sync(swarm.at(0));
    assert_eq!(after_a_kill(&mut swarm, vec![first, second]), seen(&[("saved", "b")]));
}

#[test]
fn a_file_whose_first_name_another_one_has_now_is_not_lost() {
    let test = "a_file_whose_first_name_another_one_has_now_is_not_lost";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let at = |name: &str| swarm.at(0).join(name);
    let first = synced(&at("a"));
    fs::rename(at("a"), at("c")).unwrap();
    let mut second = synced(&at("b"));
    fs::rename(at("b"), at("a")).unwrap();
    second.write_all(b"!").unwrap();
    second.sync_all().unwrap();
    let wanted = seen(&[("a", "b!"), ("c", "a")]);
    assert_eq!(after_a_kill(&mut swarm, vec![first, second]), wanted);
}

#[test]
fn files_that_exchanged_their_names_are_both_there() {
    let test = "files_that_exchanged_their_names_are_both_there";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let at = |name: &str| swarm.at(0).join(name);
    let (mut first, second) = (synced(&at("a")), synced(&at("b")));
    let (here, how) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(here, at("a"), here, at("b"), how).unwrap();
    first.write_all(b"!").unwrap();
    first.sync_all().unwrap();
    let wanted = seen(&[("a", "b"), ("b", "a!")]);
    assert_eq!(after_a_kill(&mut swarm, vec![first, second]), wanted);
}

#[test]
fn a_synced_directory_has_lost_what_was_moved_out_of_it() {
    let test = "a_synced_directory_has_lost_what_was_moved_out_of_it";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let at = |name: &str| swarm.at(0).join(name);
    fs::create_dir(at("one")).unwrap();
    fs::create_dir(at("two")).unwrap();
    let file = synced(&at("one/f"));
    fs::rename(at("one/f"), at("two/f")).unwrap();
    sync(&at("one"));
    assert_eq!(after_a_kill(&mut swarm, vec![file]), seen(&[("two/f", "f")]));
}

#[test]
fn a_new_file_under_a_name_that_was_just_given_up_is_not_lost() {
    let test = "a_new_file_under_a_name_that_was_just_given_up_is_not_lost";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let at = |name: &str| swarm.at(0).join(name);
    fs::write(at("f"), "former").unwrap();
    until("the file to be known", || swarm[0].run(&["stat", "/f"]).code == 0);
    fs::rename(at("f"), at("g")).unwrap();
    let file = synced(&at("f"));
    // The other one gives the name up for all to see while this one has no version yet.
    until("the new name to be known", || swarm[0].run(&["stat", "/g"]).code == 0);
    assert_eq!(swarm[0].run(&["stat", "/f"]).code, 3);
    let wanted = seen(&[("f", "f"), ("g", "former")]);
    assert_eq!(after_a_kill(&mut swarm, vec![file]), wanted);
}

#[test]
fn a_known_file_whose_name_a_synced_one_took_is_not_lost() {
    let test = "a_known_file_whose_name_a_synced_one_took_is_not_lost";
    let Some(mut swarm) = mounted(test, 1) else { return };
    for round in 0..5 {
        let at = |name: &str| swarm.at(0).join(name);
        let name = format!("f{round}");
        fs::write(at(&name), "former").unwrap();
        until("the file to be known", || swarm[0].run(&["stat", &format!("/{name}")]).code == 0);
        fs::rename(at(&name), at("g")).unwrap();
        let file = synced(&at(&name));
        swarm[0].signal(rustix::process::Signal::KILL);
        let seen = after_a_kill(&mut swarm, vec![file]);
        assert_eq!(seen.get(&name), Some(&name), "{round}: {seen:?}");
        assert_eq!(seen.get("g").map(String::as_str), Some("former"));
        fs::remove_file(swarm.at(0).join("g")).unwrap();
    }
}

#[test]
fn files_that_became_known_are_not_lost_when_their_name_is_taken_meanwhile() {
    let test = "files_that_became_known_are_not_lost_when_their_name_is_taken_meanwhile";
    let Some(mut swarm) = mounted(test, 1) else { return };
    for round in 0..6 {
        let at = |name: &str| swarm.at(0).join(name);
        // Closed: so a version of it is on its way, at some moment or other.
        drop(synced(&at("a")));
        std::thread::sleep(std::time::Duration::from_millis(15 + 5 * round));
        fs::rename(at("a"), at("c")).unwrap();
        let second = synced(&at("a"));
        swarm[0].signal(rustix::process::Signal::KILL);
        let seen = after_a_kill(&mut swarm, vec![second]);
        assert_eq!(seen.get("a").map(String::as_str), Some("a"), "{round}: {seen:?}");
        assert_eq!(seen.get("c").map(String::as_str), Some("a"), "{round}: {seen:?}");
        ["a", "c"].iter().for_each(|name| fs::remove_file(swarm.at(0).join(name)).unwrap());
    }
}

#[test]
fn what_replaces_a_file_that_is_just_becoming_known_makes_no_copy() {
    let test = "what_replaces_a_file_that_is_just_becoming_known_makes_no_copy";
    let Some(mut swarm) = mounted(test, 1) else { return };
    for round in 0..8 {
        let at = |name: &str| swarm.at(0).join(name);
        drop(synced(&at("a")));
        std::thread::sleep(std::time::Duration::from_millis(16 + 2 * round));
        let second = synced(&at("b"));
        fs::rename(at("b"), at("a")).unwrap();
        sync(swarm.at(0));
        swarm[0].signal(rustix::process::Signal::KILL);
        assert_eq!(after_a_kill(&mut swarm, vec![second]), seen(&[("a", "b")]), "{round}");
        fs::remove_file(swarm.at(0).join("a")).unwrap();
    }
}

#[test]
fn a_synced_directory_has_what_was_made_in_it() {
    let test = "a_synced_directory_has_what_was_made_in_it";
    let Some(mut swarm) = mounted(test, 1) else { return };
    for round in 0..5 {
        let at = |name: &str| swarm.at(0).join(name);
        drop(synced(&at("a")));
        fs::remove_file(at("a")).unwrap();
        // Closed and not synced: there may be less in it, but it is there.
        fs::write(at("a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
        fs::rename(at("b"), at("c")).unwrap();
        sync(swarm.at(0));
        swarm[0].signal(rustix::process::Signal::KILL);
        let wanted = seen(&[("a", ""), ("c", "")]);
        assert_eq!(after_a_kill(&mut swarm, Vec::new()), wanted, "{round}");
        ["a", "c"].iter().for_each(|name| fs::remove_file(swarm.at(0).join(name)).unwrap());
    }
}
