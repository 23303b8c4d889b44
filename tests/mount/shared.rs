//! What is special about a disk that several machines share: changes appear at the others, edits
//! on both sides are both kept, and a node that is away makes nobody wait for ever.

use crate::daemon::{names, noise, until};
use crate::mounted::{Mounted, mount, mounted};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn changes_appear_at_the_others() {
    let Some(swarm) = mounted("changes_appear_at_the_others", 3) else { return };
    let (one, two) = (swarm.at(0), swarm.at(1));
    fs::write(one.join("f"), "one").unwrap();
    until("the file to appear", || fs::read(two.join("f")).is_ok_and(|bytes| bytes == b"one"));
    let mut open = File::open(two.join("f")).unwrap();
    for number in 0..20 {
        // Of another length each time, and read through what the system remembers.
        let text = "x".repeat(number * 1000 + 1);
        fs::write(one.join("f"), &text).unwrap();
        let begun = Instant::now();
        until("the change to appear", || fs::read_to_string(two.join("f")).unwrap() == text);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let mut now = Vec::new();
    open.read_to_end(&mut now).unwrap();
    assert_eq!(now.len(), 19_001, "an open file shows the change, too");
    fs::rename(one.join("f"), one.join("g")).unwrap();
    until("the new name to appear", || names(two) == ["g"]);
    fs::remove_file(two.join("g")).unwrap();
    until("the file to go", || names(one).is_empty());
    fs::create_dir(two.join("d")).unwrap();
    until("the directory to appear", || one.join("d").is_dir());
    assert!(swarm[2].list(&["ls"]).iter().any(|entry| entry["path"] == "/d"));
}

#[test]
fn two_mounts_of_a_node_show_the_same() {
    let Some(swarm) = mounted("two_mounts_of_a_node_show_the_same", 1) else { return };
    let dir = tempfile::tempdir().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    let (one, two) = (swarm.at(0), dir.path());
    fs::write(one.join("f"), "first").unwrap();
    fs::write(one.join("other"), "other").unwrap();
    // Everything is remembered at the second one.
    assert_eq!(names(two), ["f", "other"]);
    assert_eq!(fs::read(two.join("f")).unwrap(), b"first");
    let open = File::open(two.join("f")).unwrap();
    // Of the same length, so that only the bytes tell.
    fs::write(one.join("f"), "again").unwrap();
    assert_eq!(fs::read(two.join("f")).unwrap(), b"again", "nothing is kept when it is opened");
    let text = || {
        let mut bytes = [0; 5];
        open.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    File::options().write(true).open(one.join("f")).unwrap().write_all_at(b"third", 0).unwrap();
    until("an open file to show the change", || text() == *b"third");
    fs::rename(one.join("f"), one.join("g")).unwrap();
    until("the name to change", || !two.join("f").exists() && two.join("g").exists());
    fs::set_permissions(one.join("g"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = || fs::metadata(two.join("g")).unwrap().permissions().mode() & 0o777;
    until("the permissions to change", || mode() == 0o600);
    fs::rename(one.join("other"), one.join("g")).unwrap();
    until("another file to be there", || fs::read(two.join("g")).is_ok_and(|b| b == b"other"));
    // And the other way round.
    fs::write(two.join("g"), "their").unwrap();
    until("the change to be seen", || fs::read(one.join("g")).is_ok_and(|b| b == b"their"));
    fs::remove_file(two.join("g")).unwrap();
    until("the file to go", || fs::metadata(one.join("g")).is_err());
    crate::mounted::detach(dir.path());
}

#[test]
fn what_is_appended_comes_behind_what_others_have_appended() {
    let test = "what_is_appended_comes_behind_what_others_have_appended";
    let Some(swarm) = mounted(test, 2) else { return };
    let dir = tempfile::tempdir().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    fs::write(swarm.at(0).join("log"), "begun\n").unwrap();
    let there = swarm.at(1).join("log");
    until("the file to appear", || fs::read(&there).is_ok_and(|bytes| bytes == b"begun\n"));
    // Opened by two mounts of a node and by another node before any of them has appended.
    let points = [swarm.at(0), dir.path(), swarm.at(1)];
    let open = |point: &Path| File::options().append(true).open(point.join("log")).unwrap();
    let mut logs = points.map(open);
    let mut wanted = String::from("begun\n");
    for round in 0..20 {
        for number in [0, 1] {
            let line = format!("round {round} of mount {number}\n");
            logs[number].write_all(line.as_bytes()).unwrap();
            wanted += &line;
        }
    }
    // Larger than what one request takes, and through the mount that wrote just before.
    let long = "x".repeat((2 << 20) + 5);
    logs[1].write_all(long.as_bytes()).unwrap();
    logs[0].write_all(b"behind it\n").unwrap();
    wanted += &(long + "behind it\n");
    for point in &points[..2] {
        until("both mounts to show it", || {
            fs::read_to_string(point.join("log")).unwrap() == wanted
        });
    }
    let [first, second, mut far] = logs;
    drop((first, second));
    // What the other node's system believes of the open file is the length that it had.
    until("the version to be there", || {
        let hash = blake3::hash(wanted.as_bytes()).to_string();
        swarm[1].list(&["stat", "/log"])[0]["hash"] == hash
    });
    far.write_all(b"from afar\n").unwrap();
    wanted += "from afar\n";
    drop(far);
    for point in points {
        until("all of it to be everywhere", || {
            fs::read_to_string(point.join("log")).is_ok_and(|text| text == wanted)
        });
    }
    crate::mounted::detach(dir.path());
}

#[test]
fn a_user_and_a_group_that_are_given_at_once_are_both_kept() {
    let test = "a_user_and_a_group_that_are_given_at_once_are_both_kept";
    let Some(swarm) = mounted(test, 1) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    fs::write(swarm.at(0).join("f"), "text").unwrap();
    let (one, two) = (swarm.at(0).join("f"), dir.path().join("f"));
    for number in 1..300 {
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                std::os::unix::fs::chown(&one, Some(number), None).unwrap();
            });
            start.wait();
            std::os::unix::fs::chown(&two, None, Some(number)).unwrap();
        });
        // What the daemon says, not what the system remembers.
        let flags = AtFlags::STATX_FORCE_SYNC;
        let stat = rustix::fs::statx(rustix::fs::CWD, &one, flags, StatxFlags::BASIC_STATS);
        let stat = stat.unwrap();
        assert_eq!((stat.stx_uid, stat.stx_gid), (number, number));
    }
    crate::mounted::detach(dir.path());
}

#[test]
fn a_file_that_two_make_at_once_is_opened_by_both() {
    let test = "a_file_that_two_make_at_once_is_opened_by_both";
    let Some(swarm) = mounted(test, 1) else { return };
    let dir = tempfile::tempdir().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    let points = [swarm.at(0), dir.path()];
    let start = std::sync::Barrier::new(points.len());
    std::thread::scope(|scope| {
        for point in points {
            scope.spawn(|| {
                for number in 0..300 {
                    start.wait();
                    // Whoever comes second opens what is there, and cuts it off.
                    let file = File::create(point.join(number.to_string()));
                    file.unwrap_or_else(|err| panic!("{number}: {err}"));
                }
            });
        }
    });
    // One that may not be changed is not, whoever was to make it.
    fs::write(points[0].join("kept"), "kept").unwrap();
    fs::set_permissions(points[0].join("kept"), fs::Permissions::from_mode(0o400)).unwrap();
    let refused = File::create_new(points[1].join("kept")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(points[1].join("kept")).unwrap(), b"kept");
    crate::mounted::detach(dir.path());
}

#[test]
fn what_another_node_removes_lives_on_for_who_has_it_open() {
    let test = "what_another_node_removes_lives_on_for_who_has_it_open";
    let Some(swarm) = mounted(test, 2) else { return };
    let (one, two) = (swarm.at(0), swarm.at(1));
    let mut bytes = noise(7, (2 << 20) + 5);
    fs::write(one.join("f"), &bytes).unwrap();
    until("the file to appear", || fs::read(two.join("f")).is_ok_and(|now| now == bytes));
    let open = File::options().read(true).write(true).open(one.join("f")).unwrap();
    fs::remove_file(two.join("f")).unwrap();
    until("the file to go", || names(one).is_empty());
    // What the daemon says, not what the system remembers.
    let links = || {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        rustix::fs::statx(&open, c"", flags, StatxFlags::BASIC_STATS).unwrap().stx_nlink
    };
    assert_eq!(links(), 0);
    let all = || {
        let mut now = vec![0; open.metadata().unwrap().len() as usize];
        open.read_exact_at(&mut now, 0).unwrap();
        now
    };
    assert!(all() == bytes);
    open.write_all_at(b"more", 1 << 20).unwrap();
    bytes[1 << 20..][..4].copy_from_slice(b"more");
    open.set_len(2 << 20).unwrap();
    bytes.truncate(2 << 20);
    open.sync_all().unwrap();
    assert!(all() == bytes);
    assert_eq!(links(), 0);
    drop(open);
    until("the draft to go", || names(&swarm[0].data.join("drafts")).is_empty());
    assert!(names(one).is_empty() && names(two).is_empty());
    fs::write(two.join("f"), "new").unwrap();
    until("another one to appear", || fs::read(one.join("f")).is_ok_and(|now| now == b"new"));
}

#[test]
fn what_others_change_keeps_its_name_for_who_has_it_open() {
    let test = "what_others_change_keeps_its_name_for_who_has_it_open";
    let Some(swarm) = mounted(test, 2) else { return };
    let (one, two) = (swarm.at(0), swarm.at(1));
    fs::create_dir_all(one.join("d/inner")).unwrap();
    fs::write(one.join("d/f"), "old").unwrap();
    until("all of it to appear", || two.join("d/inner").is_dir() && two.join("d/f").exists());
    let (dir, file) = (File::open(two.join("d")).unwrap(), File::open(two.join("d/f")).unwrap());
    let inner = File::open(two.join("d/inner")).unwrap();
    // What a program is told that asks where it is; no path is looked up for that.
    let name = |file: &File| fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    fs::write(one.join("d/f"), "newer").unwrap();
    until("the edit to be seen", || file.metadata().unwrap().len() == 5);
    assert_eq!(name(&file), two.join("d/f"));
    fs::set_permissions(one.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    let mode = |file: &File| file.metadata().unwrap().permissions().mode() & 0o777;
    until("the permissions to be seen", || mode(&dir) == 0o700);
    assert_eq!([&dir, &inner, &file].map(name), ["d", "d/inner", "d/f"].map(|path| two.join(path)));
    // One that gets another place does not keep its name, and has other permissions there, too.
    fs::rename(one.join("d"), one.join("e")).unwrap();
    fs::set_permissions(one.join("e"), fs::Permissions::from_mode(0o750)).unwrap();
    until("the permissions to be seen", || mode(&dir) == 0o750);
    assert_eq!(names(two), ["e"]);
    assert!(!two.join("d").exists() && two.join("e/inner").is_dir());
    fs::rename(one.join("e/f"), one.join("g")).unwrap();
    until("the other name to be seen", || fs::read(two.join("g")).is_ok_and(|now| now == b"newer"));
    assert_eq!(names(&two.join("e")), ["inner"]);
}

#[test]
fn a_name_that_another_node_gives_to_the_other_of_two_files_is_looked_at_again() {
    let test = "a_name_that_another_node_gives_to_the_other_of_two_files_is_looked_at_again";
    let Some(swarm) = mounted(test, 2) else { return };
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_string();
    // Made at both, none having seen what the other one did.
    for (here, there, text) in [(0, 1, "zero"), (1, 0, "one")] {
        swarm[there].signal(Signal::STOP);
        swarm[here].signal(Signal::CONT);
        fs::write(swarm.at(here).join("f"), text).unwrap();
        until("the version to be made", || {
            let all = swarm[here].list(&["ls"]);
            all.iter().any(|entry| entry["path"] == "/f" && entry["hash"] == hash(text))
        });
    }
    swarm[0].signal(Signal::CONT);
    until("both to be at both", || [0, 1].iter().all(|node| names(swarm.at(*node)).len() == 2));
    let text = |node: usize| fs::read_to_string(swarm.at(node).join("f")).unwrap_or_default();
    let kept = if text(0) == "one" { "zero" } else { "one" };
    assert_eq!(text(1), text(0));
    let said = swarm[1].run(&["conflicts", "/f", "--keep", &hash(kept)]);
    assert_eq!(said.code, 0, "{}", said.err);
    // Long before the system would ask again by itself.
    let begun = Instant::now();
    until("the other file to have the name", || text(0) == kept && text(1) == kept);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn of_a_large_file_only_what_changed_is_sent() {
    let Some(swarm) = mounted("of_a_large_file_only_what_changed_is_sent", 3) else { return };
    let bytes = noise(1, 40 << 20);
    let path = swarm.at(0).join("large");
    fs::write(&path, &bytes).unwrap();
    let there = swarm.at(1).join("large");
    until("the file to be there", || fs::metadata(&there).is_ok_and(|s| s.len() == 40 << 20));
    let sent = || -> u64 {
        let connections = swarm[0].list(&["peers", "--connections"]);
        connections.iter().map(|one| one["sent"].as_u64().unwrap()).sum()
    };
    let quiet = || {
        let before = sent();
        std::thread::sleep(Duration::from_millis(300));
        sent() < before + 10_000
    };
    until("the copies to be made", quiet);
    let before = sent();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"new!", (20 << 20) + 7).unwrap();
    drop(file);
    let mut wanted = bytes;
    wanted[(20 << 20) + 7..][..4].copy_from_slice(b"new!");
    until("the change to be there", || fs::read(&there).is_ok_and(|now| now == wanted));
    until("the copies to be made", quiet);
    // To two others each: one chunk, and what is said about it.
    let more = sent() - before;
    assert!(more < 2 * ((1 << 20) + (256 << 10)), "{more} bytes were sent");
    let hash = blake3::hash(&wanted).to_string();
    assert_eq!(swarm[2].list(&["stat", "/large"])[0]["hash"], hash);
}

#[test]
fn what_is_written_again_or_cut_off_behind_a_writer_counts() {
    let name = "what_is_written_again_or_cut_off_behind_a_writer_counts";
    let Some(swarm) = mounted(name, 2) else { return };
    let mut bytes = noise(3, (30 << 20) + 5);
    let file = File::create(swarm.at(0).join("again")).unwrap();
    let cut = File::create(swarm.at(0).join("cut")).unwrap();
    for (number, piece) in bytes.chunks(256 << 10).enumerate() {
        file.write_all_at(piece, number as u64 * (256 << 10)).unwrap();
        cut.write_all_at(piece, number as u64 * (256 << 10)).unwrap();
    }
    for at in [0, 5 << 20, (29 << 20) + 9] {
        file.write_all_at(b"again", at).unwrap();
        bytes[at as usize..][..5].copy_from_slice(b"again");
    }
    cut.set_len(0).unwrap();
    cut.set_len(20 << 20).unwrap();
    drop((file, cut));
    for (name, wanted) in [("/again", bytes), ("/cut", vec![0; 20 << 20])] {
        let hash = blake3::hash(&wanted).to_string();
        until("the version to be there", || {
            swarm[1].list(&["ls"]).iter().any(|e| e["path"] == name && e["hash"] == hash)
        });
        assert!(swarm[1].get(name) == wanted);
    }
}

/// Waits until both nodes show two files with these texts, whatever their names.
fn both_have(swarm: &Mounted, texts: [&str; 2]) {
    until("both files to be at both nodes", || {
        [0, 1].into_iter().all(|node| {
            let read = |name| fs::read_to_string(swarm.at(node).join(name)).unwrap_or_default();
            let entries = fs::read_dir(swarm.at(node)).into_iter().flatten().flatten();
            let mut all: Vec<_> = entries.map(|entry| read(entry.file_name())).collect();
            all.sort();
            all == texts
        })
    });
}

#[test]
fn a_synced_new_file_and_one_of_that_name_which_its_node_never_saw_are_both_kept() {
    let test = "a_synced_new_file_and_one_of_that_name_which_its_node_never_saw_are_both_kept";
    let Some(mut swarm) = mounted(test, 2) else { return };
    for node in [0, 1] {
        // So that they find each other again.
        swarm[node].listen = swarm[node].address();
    }
    // Made earlier, empty so that no chunk needs a home, and not known at the other node then: what
    // is sent to one that only stands still it hears later.
    swarm[1].kill();
    fs::write(swarm[0].work.join("f"), "").unwrap();
    let mut put = swarm[0].command(&["put", "f", "--as", "/f", "--replicas", "1"]);
    let mut put = put.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the file to be at its node", || swarm[0].run(&["stat", "/f"]).code == 0);
    swarm[0].kill();
    put.wait().unwrap();
    swarm[1].start();
    swarm.until_back(1);
    let mut file = File::create(swarm.at(1).join("f")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    swarm[1].kill();
    drop(file);
    swarm[0].start();
    swarm[1].start();
    both_have(&swarm, ["", "synced"]);
}

#[test]
fn a_synced_edit_and_the_file_that_took_its_name_meanwhile_are_both_kept() {
    let test = "a_synced_edit_and_the_file_that_took_its_name_meanwhile_are_both_kept";
    let Some(mut swarm) = mounted(test, 2) else { return };
    for node in [0, 1] {
        // So that they find each other again.
        swarm[node].listen = swarm[node].address();
    }
    fs::write(swarm.at(0).join("f"), "base").unwrap();
    let there = swarm.at(1).join("f");
    until("the file to appear", || fs::read(&there).is_ok_and(|bytes| bytes == b"base"));
    // No version of the edit is made: the other one does not answer.
    swarm[1].signal(Signal::STOP);
    let mut file = File::options().write(true).open(swarm.at(0).join("f")).unwrap();
    file.write_all(b"edit").unwrap();
    file.sync_all().unwrap();
    swarm[0].kill();
    drop(file);
    swarm[1].signal(Signal::CONT);
    fs::write(swarm.at(1).join("new"), "other").unwrap();
    fs::rename(swarm.at(1).join("new"), &there).unwrap();
    until("the other file to have the name", || {
        swarm[1].list(&["ls"]).iter().any(|entry| {
            entry["path"] == "/f" && entry["hash"] == blake3::hash(b"other").to_string()
        })
    });
    swarm[0].start();
    both_have(&swarm, ["edit", "other"]);
}

/// The name of a file of which one node has all that there is.
pub(crate) fn only_at(swarm: &Mounted, node: usize) -> String {
    // Of some of them, with one copy each, that is not at the node that is asked.
    let single = (10..40).find(|number| {
        let name = format!("/single{number}");
        swarm[node].put(&name, &noise(*number, 1 << 20), &["--replicas", "1"]);
        let stat = swarm[node].list(&["stat", &name]).remove(0);
        let holders = stat["holders"].as_array().unwrap();
        holders.iter().all(|holder| holder["here"] == true)
    });
    format!("single{}", single.unwrap())
}

#[test]
fn bytes_that_nobody_has_are_an_error_in_time() {
    let test = "bytes_that_nobody_has_are_an_error_in_time";
    let Some(mut swarm) = mounted(test, 2) else { return };
    let bytes = noise(3, 1 << 20);
    swarm[0].put("/both", &bytes[..1000], &[]);
    let path = swarm.at(0).join(only_at(&swarm, 1));
    until("the file to appear", || path.exists());
    swarm[1].kill();
    let begun = Instant::now();
    assert!(fs::read(&path).is_err());
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());
    assert_eq!(fs::read(swarm.at(0).join("both")).unwrap(), &bytes[..1000], "others are read");
}

#[test]
fn a_part_of_the_tree_can_be_mounted_and_left_as_it_is() {
    let test = "a_part_of_the_tree_can_be_mounted_and_left_as_it_is";
    let Some(swarm) = mounted(test, 1) else { return };
    fs::create_dir_all(swarm.at(0).join("team/notes")).unwrap();
    fs::write(swarm.at(0).join("team/notes/a"), "a").unwrap();
    let dir = tempfile::tempdir().unwrap();
    until("the directory to be known", || {
        let list = swarm[0].list(&["ls", "-R"]);
        list.iter().any(|entry| entry["path"] == "/team/notes/a")
    });
    mount(&swarm[0], dir.path(), &["--path", "/team", "--read-only"]);
    assert_eq!(names(dir.path()), ["notes"]);
    assert_eq!(fs::read(dir.path().join("notes/a")).unwrap(), b"a");
    let refused = fs::write(dir.path().join("b"), "b").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(swarm.at(0).join("team/notes/a"), "changed").unwrap();
    until("the change to be seen", || fs::read(dir.path().join("notes/a")).unwrap() == b"changed");
    crate::mounted::detach(dir.path());
}
