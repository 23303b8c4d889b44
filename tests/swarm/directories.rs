//! Directories: they go into the swarm and come out the same, again and again, and whatever is in
//! the tree or lies about in the way, nothing is written outside of the output.

use crate::daemon::{Daemon, Swarm, noise, until};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a copy has to have: kind, permissions, time, and content or target.
type Kept = (char, u32, i64, i64, Vec<u8>);

fn tree_of(dir: &Path) -> BTreeMap<PathBuf, Kept> {
    fn walk(top: &Path, dir: &Path, out: &mut BTreeMap<PathBuf, Kept>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, content) = if meta.is_dir() {
                walk(top, &path, out);
                ('d', Vec::new())
            } else if meta.is_symlink() {
                ('l', fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else {
                ('f', fs::read(&path).unwrap())
            };
            let mode = if kind == 'l' { 0o777 } else { meta.permissions().mode() & 0o7777 };
            let inside = path.strip_prefix(top).unwrap().to_owned();
            out.insert(inside, (kind, mode, meta.mtime(), meta.mtime_nsec(), content));
        }
    }
    let mut out = BTreeMap::new();
    walk(dir, dir, &mut out);
    out
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn modified(path: &Path, secs: i64) {
    let then = Timespec { tv_sec: secs, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: then, last_modification: then };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
}

/// A home directory as people have them.
fn laptop(dir: &Path) -> PathBuf {
    let home = dir.join("laptop");
    for number in 0..300 {
        let name = format!("notes/{}/note {number}.txt", number % 7);
        write(&home, &name, format!("note {number}\n").repeat(number).as_bytes());
    }
    write(&home, "film.mkv", &noise(1, 5_300_000));
    write(&home, "exactly one chunk", &noise(2, 1 << 20));
    write(&home, "empty file", b"");
    mode(&write(&home, "bin/run.sh", b"#!/bin/sh\nexit 0\n"), 0o755);
    mode(&write(&home, "secret", b"mine"), 0o600);
    mode(&write(&home, "read only", b"done"), 0o444);
    fs::create_dir_all(home.join("empty/inner")).unwrap();
    mode(&home.join("empty"), 0o700);
    let strange = home.join(OsStr::from_bytes(b"\xff\xfe not text \n\t"));
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join(OsStr::from_bytes(b"\x80")), b"bytes").unwrap();
    symlink("../film.mkv", home.join("bin/film")).unwrap();
    symlink("/etc/passwd", home.join("absolute")).unwrap();
    symlink(OsStr::from_bytes(b"nowhere \xff"), home.join("dangling")).unwrap();
    write(&home, &format!("deep/{}/end", vec!["down"; 60].join("/")), b"end");
    modified(&home.join("dangling"), 1_200_000_000);
    for (path, kept) in tree_of(&home) {
        if kept.0 == 'f' {
            modified(&home.join(path), 1_500_000_000 + i64::from(kept.1));
        }
    }
    modified(&home.join("empty"), 1_100_000_000);
    modified(&home.join("bin"), 1_100_000_001);
    home
}

fn ok(node: &Daemon, args: &[&str]) -> String {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.err
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_laptop_is_backed_up_and_comes_back_elsewhere() {
    let mut swarm = Swarm::of(3);
    let home = laptop(&swarm[0].work);
    let before = tree_of(&home);
    ok(&swarm[0], &["put", "-r", text(&home), "--as", "/backup", "--wait", "all"]);
    // The laptop is lost, and with it a node.
    swarm[0].kill();
    fs::remove_dir_all(&swarm[0].data).unwrap();
    fs::remove_dir_all(&home).unwrap();
    let back = swarm[1].work.join("laptop");
    ok(&swarm[1], &["get", "-r", "/backup", "-o", "laptop"]);
    let after = tree_of(&back);
    for (path, kept) in &before {
        assert_eq!(after.get(path), Some(kept), "{}", path.display());
    }
    assert_eq!(before.len(), after.len());
    // Once more: there is nothing to do.
    let said = ok(&swarm[1], &["get", "-r", "/backup", "-o", "laptop"]);
    assert!(said.contains("laptop: nothing is new, 311 unchanged"), "{said}");
    assert_eq!(tree_of(&back), before);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let swarm = Swarm::of(2);
    let home = laptop(&swarm[0].work);
    let put = |args: &[&str]| {
        let said = swarm[0].run(&[&["put", "-r", text(&home), "--json"], args].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str::<serde_json::Value>(&said.out).unwrap()
    };
    let first = put(&[]);
    let (files, bytes) = (first["files"].as_u64().unwrap(), first["bytes"].as_u64().unwrap());
    assert_eq!(
        (first["unchanged"].as_u64(), first["failed"].as_array().unwrap().len()),
        (Some(0), 0)
    );
    let again = put(&[]);
    assert_eq!(again["files"], 0);
    assert_eq!((again["unchanged"].as_u64(), again["new_bytes"].as_u64()), (Some(files), Some(0)));
    // Read again, it is the same.
    let read = put(&["--checksum"]);
    assert_eq!((read["files"].as_u64(), read["unchanged"].as_u64()), (Some(0), Some(files)));
    assert!(read["unchanged_bytes"].as_u64() <= Some(bytes));
    // Same length and, as file systems go, perhaps the same time.
    write(&home, "secret", b"ours");
    mode(&home.join("read only"), 0o640);
    write(&home, "new", b"new");
    fs::remove_file(home.join("absolute")).unwrap();
    write(&home, "absolute", b"no link any more");
    fs::remove_file(home.join("empty file")).unwrap();
    symlink("secret", home.join("empty file")).unwrap();
    let changed = put(&[]);
    assert_eq!(
        (changed["files"].as_u64(), changed["unchanged"].as_u64()),
        (Some(5), Some(files - 4))
    );
    ok(&swarm[1], &["get", "-r", "/laptop"]);
    assert_eq!(tree_of(&swarm[1].work.join("laptop")), tree_of(&home));
}

#[test]
fn a_directory_that_was_there_keeps_its_own_permissions() {
    let swarm = Swarm::of(1);
    let dir = swarm[0].work.join("d");
    write(&dir, "sub/x", b"x");
    mode(&dir, 0o755);
    ok(&swarm[0], &["put", "-r", "d"]);
    let home = swarm[0].work.join("home");
    fs::create_dir(&home).unwrap();
    for bits in [0o700, 0o550] {
        mode(&home, bits);
        modified(&home, 1_100_000_000);
        ok(&swarm[0], &["get", "-r", "/d", "-o", "home"]);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o7777, bits);
        fs::remove_dir_all(home.join("sub")).ok();
    }
    mode(&home, 0o700);
    let existing = write(&home, "sub/x", b"other");
    let said = swarm[0].run(&["get", "-r", "/d", "-o", "home"]);
    assert!(said.code == 4 && said.err.contains("-o PATH"), "{}", said.err);
    assert_eq!(fs::read(existing).unwrap(), b"other");
    ok(&swarm[0], &["get", "-r", "/d", "-o", "made"]);
    let made = fs::metadata(swarm[0].work.join("made")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o755);
}

#[test]
fn an_empty_file_has_as_many_copies_as_there_are_members_to_keep_records() {
    let swarm = Swarm::of(2);
    let dir = swarm[0].work.join("d");
    write(&dir, "empty", b"");
    write(&dir, "small", &noise(1, 100_000));
    let said = ok(&swarm[0], &["put", "-r", "d"]);
    assert!(said.contains("2 of 3 copies"), "{said}");
    let said = ok(&swarm[0], &["put", text(&dir.join("empty")), "--as", "/e"]);
    assert!(said.contains("2 of 3 copies"), "{said}");
}

#[test]
fn a_directory_that_is_put_onto_a_file_is_one_complaint() {
    let swarm = Swarm::of(1);
    swarm[0].put("/d", b"a file", &[]);
    let dir = swarm[0].work.join("d");
    for number in 0..300 {
        write(&dir, &format!("{number}"), b"x");
    }
    let said = swarm[0].run(&["put", "-r", "d"]);
    assert_eq!(said.code, 11, "{}", said.err);
    assert!(said.err.contains("/d is there already and is not a directory"), "{}", said.err);
    assert!(said.err.lines().count() < 5, "{}", said.err);
    assert_eq!(swarm[0].get("/d"), b"a file");
}

#[test]
fn what_is_excluded_or_cannot_be_stored_is_passed_over_and_the_rest_is_stored() {
    let swarm = Swarm::of(1);
    let dir = swarm[0].work.join("d");
    for name in ["a.txt", "a.tmp", "cache/x", "sub/b.tmp", "sub/cache/y", "sub/keep", "sub/drop"] {
        write(&dir, name, name.as_bytes());
    }
    write(&dir, "sub/.p2pfsignore", b"drop\n");
    rustix::fs::mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let args = ["put", "-r", "d", "--exclude", "*.tmp", "--exclude", "/cache/"];
    let said = swarm[0].run(&args);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("passed over /d/pipe: a pipe"), "{}", said.err);
    let listed: Vec<String> = swarm[0]
        .list(&["ls", "-R", "/d"])
        .iter()
        .map(|one| one["path"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "/d/a.txt",
        "/d/sub",
        "/d/sub/.p2pfsignore",
        "/d/sub/cache",
        "/d/sub/cache/y",
        "/d/sub/keep",
    ];
    assert_eq!(listed, expected);
    // In the swarm it is a file, here a directory: that one is not stored, and said also quietly.
    fs::remove_file(dir.join("a.txt")).unwrap();
    write(&dir, "a.txt/inside", b"inside");
    write(&dir, "later", b"later");
    let said = swarm[0].run(&["put", "-r", "d", "--exclude", "*.tmp", "-q"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("not stored: /d/a.txt: "), "{}", said.err);
    assert!(said.err.contains("not stored: /d/a.txt/inside: "), "{}", said.err);
    assert!(said.err.contains("error: 2 items were not stored"), "{}", said.err);
    assert_eq!(swarm[0].get("/d/later"), b"later");
    // Nobody else is there to have the other copies: that is said once, and no longer waited for.
    let args = ["put", "-r", "d", "--as", "/w", "--wait", "all", "--timeout", "300ms"];
    let said = swarm[0].run(&args);
    assert_eq!(said.code, 5, "{}", said.err);
    assert_eq!(said.err.matches("stored; waiting for the other copies").count(), 1, "{}", said.err);
    assert!(said.err.contains("error: stored, but only 1 of 3 copies are on disk"), "{}", said.err);
    for nothing in ["", " ", "!keep"] {
        let bad = swarm[0].run(&["put", "-r", "d", "--exclude", nothing]);
        assert_eq!(bad.code, 2, "{nothing:?}: {}", bad.err);
        assert!(bad.err.contains("excludes nothing"), "{}", bad.err);
    }
    let bad = swarm[0].run(&["put", "-r", "d", "--exclude", "a[b"]);
    assert_eq!(bad.code, 2, "{}", bad.err);
    assert_eq!(swarm[0].run(&["put", "d"]).code, 2);
    assert_eq!(swarm[0].run(&["put", "-r", "nowhere"]).code, 3);
    assert_eq!(swarm[0].run(&["put", "-r", "d/later"]).code, 2);
}

#[test]
fn the_node_does_not_store_its_own_keys_and_data() {
    let swarm = Swarm::of(1);
    let home = swarm[0].data.parent().unwrap();
    let said = swarm[0].run(&["put", "-r", text(home), "--as", "/home"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("passed over /home/config: this node keeps"), "{}", said.err);
    let names = swarm[0].list(&["ls", "/home"]);
    let names: Vec<&str> = names.iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["/home/work-0", "/home/work-0.log"]);
}

#[test]
fn a_named_link_is_the_directory_that_it_points_to() {
    let swarm = Swarm::of(1);
    let work = &swarm[0].work;
    write(work, "real/file", b"content");
    symlink("real", work.join("link")).unwrap();
    ok(&swarm[0], &["put", "-r", "link"]);
    assert_eq!(swarm[0].get("/link/file"), b"content");
    fs::create_dir(work.join("out")).unwrap();
    symlink("out", work.join("way")).unwrap();
    ok(&swarm[0], &["get", "-r", "/link", "-o", "way"]);
    assert_eq!(fs::read(work.join("out/file")).unwrap(), b"content");
    // The root has no attributes that a directory here could get.
    mode(&work.join("out"), 0o700);
    ok(&swarm[0], &["get", "-r", "/", "-o", "out"]);
    assert_eq!(fs::metadata(work.join("out")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read(work.join("out/link/file")).unwrap(), b"content");
}

#[test]
fn nothing_is_written_outside_of_the_output() {
    let swarm = Swarm::of(1);
    let work = &swarm[0].work;
    let outside = work.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"untouched").unwrap();
    swarm[0].put("/evil/x/file", b"evil", &[]);
    swarm[0].put("/evil/fine", b"fine", &[]);

    // A link that somebody planted where a directory is to be, and one where a file is to be.
    fs::create_dir(work.join("out")).unwrap();
    symlink("../outside", work.join("out/x")).unwrap();
    symlink("../outside/file", work.join("out/fine")).unwrap();
    let said = swarm[0].run(&["get", "-r", "/evil", "-o", "out"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("not fetched: /evil/x: out/x exists"), "{}", said.err);
    assert!(said.err.contains("not fetched: /evil/fine: out/fine already exists"), "{}", said.err);
    let said = swarm[0].run(&["get", "-r", "/evil", "-o", "out", "--force"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert_eq!(fs::read(work.join("out/fine")).unwrap(), b"fine", "the link itself is replaced");
    assert!(fs::symlink_metadata(work.join("out/fine")).unwrap().is_file());

    // A link that the tree itself has, and later a directory of the same name.
    let planted = work.join("planted");
    fs::create_dir(&planted).unwrap();
    symlink("../outside", planted.join("l")).unwrap();
    ok(&swarm[0], &["put", "-r", "planted", "--as", "/two"]);
    ok(&swarm[0], &["get", "-r", "/two", "-o", "two"]);
    assert_eq!(fs::read_link(work.join("two/l")).unwrap(), Path::new("../outside"));
    ok(&swarm[0], &["rm", "/two/l"]);
    swarm[0].put("/two/l/file", b"evil", &[]);
    for args in [&["get", "-r", "/two", "-o", "two"][..], &["get", "-r", "/two", "-o", "two", "-f"]]
    {
        assert_eq!(swarm[0].run(args).code, 4);
    }
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(swarm[0].run(&["get", "-r", "/evil/fine", "-o", "x"]).code, 2);
    assert_eq!(swarm[0].run(&["get", "-r", "/none", "-o", "x"]).code, 3);
    assert_eq!(swarm[0].run(&["get", "/evil"]).code, 2);
}

#[test]
fn directories_are_made_and_moved_everywhere_at_once() {
    let swarm = Swarm::of(2);
    let names = |node: &Daemon| -> Vec<String> {
        node.list(&["ls", "-R"])
            .iter()
            .map(|one| one["path"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(swarm[0].run(&["mkdir", "/a/b"]).code, 3, "not without the one that it is in");
    ok(&swarm[0], &["mkdir", "-p", "/a/b"]);
    ok(&swarm[0], &["mkdir", "-p", "/a/b"]);
    assert_eq!(swarm[0].run(&["mkdir", "/a/b"]).code, 11);
    swarm[0].put("/a/b/f", b"content", &[]);
    until("the names to be known", || names(&swarm[1]) == ["/a", "/a/b", "/a/b/f"]);
    ok(&swarm[1], &["mv", "/a/b", "/c"]);
    ok(&swarm[1], &["mv", "/c/f", "/a"]);
    until("the moves to be known", || names(&swarm[0]) == ["/a", "/a/f", "/c"]);
    assert_eq!(swarm[0].get("/a/f"), b"content");
    assert_eq!(swarm[0].run(&["mv", "/a", "/a/inside"]).code, 2);
    assert_eq!(swarm[0].run(&["mv", "/none", "/x"]).code, 3);
    assert_eq!(swarm[0].run(&["mv", "/a", "/c", "/nowhere"]).code, 3);
    ok(&swarm[0], &["mv", "/a/f", "/g"]);
    ok(&swarm[0], &["mv", "/a", "/g", "/c"]);
    until("the moves to be known", || names(&swarm[1]) == ["/c", "/c/a", "/c/g"]);
    let stat = ok_out(&swarm[1], &["stat", "/c"]);
    assert!(stat.contains("Kind      directory") && stat.contains("Mode      0755"), "{stat}");
}

fn ok_out(node: &Daemon, args: &[&str]) -> String {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.out
}
