//! Directories of many names, read in small steps by programs that change them meanwhile, or go
//! back to where they were.

use crate::daemon::until;
use crate::mounted::{Mounted, mounted};
use rustix::fs::{RawDir, SeekFrom, seek};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// More than the node reads at a time, several times.
const MANY: usize = 3500;

/// What a program reads at a time, which is less than the node tells the system at once.
type Small = [MaybeUninit<u8>; 512];

/// A node with a directory of many files, all of which others know.
fn many(test: &str) -> Option<(Mounted, PathBuf)> {
    let swarm = mounted(test, 1)?;
    let source = swarm[0].work.join("many");
    fs::create_dir(&source).unwrap();
    (0..MANY).for_each(|number| fs::write(source.join(name(number)), "").unwrap());
    let said = swarm[0].run(&["put", "-r", "many", "--as", "/many"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let dir = swarm.at(0).join("many");
    until("the directory to appear", || dir.is_dir());
    Some((swarm, dir))
}

fn name(number: usize) -> String {
    format!("f{number:05}")
}

/// Reads names until `each` has enough, which gets every one and the place behind it.
fn read(dir: impl AsFd, mut each: impl FnMut(&str, u64) -> bool) {
    let mut buf: Small = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(dir, &mut buf);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap();
        if !name.starts_with('.') && !each(name, entry.next_entry_cookie()) {
            return;
        }
    }
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
}

#[test]
fn a_directory_that_is_emptied_while_it_is_read_in_small_steps_is_read_to_its_end() {
    let test = "a_directory_that_is_emptied_while_it_is_read_in_small_steps_is_read_to_its_end";
    let Some((_swarm, dir)) = many(test) else { return };
    let mut found = Vec::new();
    read(File::open(&dir).unwrap(), |name, _| {
        remove(&dir, name);
        found.push(name.to_owned());
        true
    });
    assert_eq!(found.len(), MANY, "none is passed over, and none comes twice");
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn who_goes_back_in_a_directory_goes_on_with_the_same_name() {
    let test = "who_goes_back_in_a_directory_goes_on_with_the_same_name";
    let Some((_swarm, dir)) = many(test) else { return };
    let open = File::open(&dir).unwrap();
    let mut places = Vec::new();
    read(&open, |_, behind| {
        places.push(behind);
        places.len() < 3400
    });
    (0..1000).for_each(|number| remove(&dir, &name(number)));
    // Far back, a little, and to what was read last.
    for last in [1100, 3300, 2040, 2060, 3399] {
        seek(&open, SeekFrom::Start(places[last])).unwrap();
        let mut next = Vec::new();
        read(&open, |name, _| {
            next.push(name.to_owned());
            next.len() < 50
        });
        let wanted: Vec<_> = (last + 1..last + 51).map(name).collect();
        assert_eq!(next, wanted);
    }
    // Names that are gone are passed over, and nothing behind them.
    seek(&open, SeekFrom::Start(places[500])).unwrap();
    let mut left = 0;
    read(&open, |_, _| {
        left += 1;
        true
    });
    assert!(left >= MANY - 1024 - 500, "{left}");
}
