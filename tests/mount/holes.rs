//! Holes that programs make in files: they read as zeros from then on, on every node and after a
//! crash, and their room is given back at once, also that of what was not made a version yet.

use crate::daemon::{names, noise, until};
use crate::mounted::{Mounted, mounted};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 10 * MIB;

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Makes a hole, as `fallocate --punch-hole` or `--zero-range` does.
fn hole(file: &File, how: FallocateFlags, at: u64, len: u64) {
    rustix::fs::fallocate(file, how | FallocateFlags::KEEP_SIZE, at, len).unwrap();
}

fn used(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// The room that drafts of a node take.
fn drafts(swarm: &Mounted) -> u64 {
    let dir = swarm[0].data.join("drafts");
    // One of them may just have become a version.
    let used = |name: &String| fs::metadata(dir.join(name)).map_or(0, |meta| meta.blocks() * 512);
    names(&dir).iter().map(used).sum()
}

fn zeroed(bytes: &mut [u8], at: u64, len: u64) {
    bytes[at as usize..(at + len) as usize].fill(0);
}

/// A file that is a version, and nothing of it is edited.
fn stored(swarm: &Mounted, name: &str, bytes: &[u8]) -> File {
    let path = swarm.at(0).join(name);
    fs::write(&path, bytes).unwrap();
    let wanted = blake3::hash(bytes).to_string();
    until("a version", || swarm[0].list(&["ls"]).iter().any(|entry| entry["hash"] == *wanted));
    until("its draft to go", || names(&swarm[0].data.join("drafts")).is_empty());
    open(&path)
}

#[test]
fn a_hole_gives_its_room_back_before_anything_is_a_version() {
    let test = "a_hole_gives_its_room_back_before_anything_is_a_version";
    let Some(swarm) = mounted(test, 2) else { return };
    for how in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
        let (path, mut bytes) = (swarm.at(0).join("f"), noise(1, SIZE as usize));
        // A program that never rests, so that no version takes the draft away.
        let room = || {
            let (file, mut bytes) = (open(&path), bytes.clone());
            file.write_all_at(&bytes, 0).unwrap();
            file.sync_all().unwrap();
            let full = (drafts(&swarm), used(&path));
            hole(&file, how, MIB, 7 * MIB + 5000);
            zeroed(&mut bytes, MIB, 7 * MIB + 5000);
            let less = (drafts(&swarm), used(&path));
            assert_eq!(fs::read(&path).unwrap(), bytes);
            (full, less)
        };
        until("the room to be given back", || {
            let (full, less) = room();
            full.1 == SIZE && less.1 == 3 * MIB && full.0 > SIZE && less.0 < full.0 - 7 * MIB
        });
        zeroed(&mut bytes, MIB, 7 * MIB + 5000);
        until("the others to see it", || fs::read(swarm.at(1).join("f")).is_ok_and(|f| f == bytes));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_hole_in_what_was_stored_is_a_hole_for_programs_and_for_the_others() {
    let test = "a_hole_in_what_was_stored_is_a_hole_for_programs_and_for_the_others";
    let Some(swarm) = mounted(test, 2) else { return };
    let mut bytes = noise(2, SIZE as usize);
    let file = stored(&swarm, "f", &bytes);
    hole(&file, FallocateFlags::PUNCH_HOLE, 2 * MIB - 1, 3 * MIB + 1);
    // To the end, where the last chunk has no next one, and behind it, where nothing is.
    hole(&file, FallocateFlags::PUNCH_HOLE, 8 * MIB, 9 * MIB);
    zeroed(&mut bytes, 2 * MIB - 1, 3 * MIB + 1);
    zeroed(&mut bytes, 8 * MIB, 2 * MIB);
    let path = swarm.at(0).join("f");
    assert_eq!((fs::read(&path).unwrap(), used(&path)), (bytes.clone(), 5 * MIB));
    let seek = |from: SeekFrom| rustix::fs::seek(&file, from);
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(2 * MIB));
    assert_eq!(seek(SeekFrom::Data(2 * MIB)), Ok(5 * MIB));
    assert_eq!(seek(SeekFrom::Hole(5 * MIB)), Ok(8 * MIB));
    assert_eq!(seek(SeekFrom::Data(8 * MIB)), Err(Errno::NXIO));
    // What is written into it is not what was there before.
    file.write_all_at(b"new", 3 * MIB + 7).unwrap();
    bytes[3 * MIB as usize + 7..][..3].copy_from_slice(b"new");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    drop(file);
    until("the others to see it", || fs::read(swarm.at(1).join("f")).is_ok_and(|f| f == bytes));
    assert_eq!(used(&path), 6 * MIB, "also when it is a version");
}

#[test]
fn a_hole_that_was_synced_outlives_the_daemon_though_the_version_has_bytes_there() {
    let test = "a_hole_that_was_synced_outlives_the_daemon_though_the_version_has_bytes_there";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let drafts = swarm[0].data.join("drafts");
    for number in 0.. {
        assert!(number < 20, "the daemon was never killed while there was a draft");
        let (name, mut bytes) = (format!("f{number}"), noise(3, SIZE as usize));
        let file = stored(&swarm, &name, &bytes);
        hole(&file, FallocateFlags::PUNCH_HOLE, MIB + 100, 6 * MIB);
        zeroed(&mut bytes, MIB + 100, 6 * MIB);
        file.write_all_at(b"new", 4 * MIB).unwrap();
        bytes[4 * MIB as usize..][..3].copy_from_slice(b"new");
        file.sync_all().unwrap();
        // Not synced: after the crash there may be either, and the next edit must not care.
        file.write_all_at(&[b'x'; 4096], 2 * MIB).unwrap();
        swarm[0].signal(Signal::KILL);
        swarm[0].kill();
        drop(file);
        let had_draft = !names(&drafts).is_empty();
        swarm[0].start();
        let path = swarm.at(0).join(&name);
        swarm.until_back(0);
        let (from, to) = (2 * MIB as usize, 2 * MIB as usize + 4096);
        let seen = fs::read(&path).unwrap();
        assert!(seen[from..to].iter().all(|byte| [0, b'x'].contains(byte)));
        let file = open(&path);
        file.write_all_at(b"more", 2 * MIB + 5000).unwrap();
        bytes[from + 5000..][..4].copy_from_slice(b"more");
        hole(&file, FallocateFlags::PUNCH_HOLE, 2 * MIB, 4096);
        drop(file);
        assert!(fs::read(&path).unwrap() == bytes);
        let wanted = blake3::hash(&bytes).to_string();
        let known = || swarm[0].list(&["ls"]).iter().any(|entry| entry["hash"] == *wanted);
        until("a version of it", known);
        if had_draft {
            return;
        }
    }
}
