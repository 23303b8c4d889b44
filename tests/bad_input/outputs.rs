//! Where it shall go: no such place, not allowed, full, nobody reads.

use crate::daemon::{Daemon, Swarm, names, noise};
use crate::said::Said;
use crate::{mounted, refused, unprivileged};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

fn one_file(len: usize) -> (Swarm, String) {
    let swarm = Swarm::of(1);
    let hash = swarm[0].put("/f", &noise(1, len), &[]);
    (swarm, hash)
}

/// A get that is refused and leaves no file, whole or in part.
fn leaves_nothing(node: &Daemon, hash: &str, output: &str, code: i32, sentence: &str) {
    let before = node.names();
    refused(&node.run(&["get", hash, "-o", output]), code, sentence);
    assert_eq!(node.names(), before);
}

#[test]
fn row_09_an_output_in_a_missing_directory() {
    let (swarm, hash) = one_file(10);
    let sentence = "directory none/deeper does not exist";
    leaves_nothing(&swarm[0], &hash, "none/deeper/out", 3, sentence);
    leaves_nothing(&swarm[0], &hash, "none/", 3, "directory none/ does not exist");
}

#[test]
fn row_10_an_output_that_exists_is_kept_unless_forced() {
    let (swarm, hash) = one_file(10);
    std::fs::write(swarm[0].work.join("out"), b"mine").unwrap();
    leaves_nothing(&swarm[0], &hash, "out", 11, "out already exists");
    assert_eq!(std::fs::read(swarm[0].work.join("out")).unwrap(), b"mine");
    // A failed forced one keeps it too.
    let said = swarm[0].run(&["get", &"0".repeat(64), "-o", "out", "--force"]);
    refused(&said, 3, "not found");
    assert_eq!(std::fs::read(swarm[0].work.join("out")).unwrap(), b"mine");
    assert_eq!(swarm[0].run(&["get", &hash, "-o", "out", "--force"]).code, 0);
    assert_eq!(std::fs::read(swarm[0].work.join("out")).unwrap(), noise(1, 10));
}

#[test]
fn a_read_only_directory_is_fetched_again_and_is_read_only_then() {
    let mut swarm = Swarm::empty();
    let mut node = unprivileged(&swarm);
    node.start();
    let number = swarm.add(node);
    let node = &swarm[number];
    let dir = node.work.join("d/closed");
    std::fs::create_dir_all(&dir).unwrap();
    let mode = |name: &str, bits| {
        std::fs::set_permissions(node.work.join(name), Permissions::from_mode(bits)).unwrap();
    };
    for content in ["first", "the second"] {
        mode("d/closed", 0o755);
        std::fs::write(dir.join("f"), content).unwrap();
        mode("d/closed", 0o555);
        assert_eq!(node.run(&["put", "-r", "d"]).code, 0);
        let said = node.run(&["get", "-r", "/d", "-o", "out", "--force"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(std::fs::read(node.work.join("out/closed/f")).unwrap(), content.as_bytes());
        let closed = std::fs::metadata(node.work.join("out/closed")).unwrap();
        assert_eq!(closed.permissions().mode() & 0o777, 0o555);
    }
    // So that all of it can be removed.
    mode("d/closed", 0o755);
    mode("out/closed", 0o755);
}

#[test]
fn a_directory_does_not_go_where_a_file_would() {
    let swarm = Swarm::of(1);
    swarm[0].put("/d/f", b"x", &[]);
    std::fs::write(swarm[0].work.join("file"), b"mine").unwrap();
    for (output, code, sentence) in [
        ("-", 2, "a directory cannot go to standard output"),
        ("file", 11, "file already exists"),
        ("none/out", 3, "directory none does not exist"),
    ] {
        let before = swarm[0].names();
        refused(&swarm[0].run(&["get", "-r", "/d", "-o", output]), code, sentence);
        assert_eq!(swarm[0].names(), before);
    }
    assert_eq!(std::fs::read(swarm[0].work.join("file")).unwrap(), b"mine");
    refused(&swarm[0].run(&["get", "-r", &"0".repeat(64)]), 2, "a directory has a name");
    refused(&swarm[0].run(&["mkdir", "/a/b"]), 3, "there is no directory for /a/b");
    refused(&swarm[0].run(&["mv", "/d/f", "/a/b"]), 3, "there is no directory for /a/b");
    refused(&swarm[0].run(&["mv", "/d", "/"]), 11, "/d exists already");
}

#[test]
fn row_11_an_output_that_is_a_directory_gets_the_stored_name() {
    let (swarm, hash) = one_file(10);
    let dir = swarm[0].work.join("dir");
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(swarm[0].run(&["get", &hash, "-o", "dir"]).code, 0);
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), noise(1, 10));
    leaves_nothing(&swarm[0], &hash, "dir", 11, "dir/f already exists");
    // Without a stored name it is the hash.
    let mut put = swarm[0].command(&["put", "-"]);
    let said: Said = put.stdin(std::process::Stdio::null()).output().unwrap().into();
    let empty = said.out.trim();
    assert_eq!(swarm[0].run(&["get", empty, "-o", "dir"]).code, 0);
    assert_eq!(names(&dir), [empty, "f"]);
}

#[test]
fn row_12_an_output_where_one_may_not_write() {
    let mut swarm = Swarm::empty();
    let mut node = unprivileged(&swarm);
    node.start();
    let number = swarm.add(node);
    let node = &swarm[number];
    let closed = node.work.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    std::fs::write(node.work.join("f"), b"content").unwrap();
    let said = node.run(&["put", "f"]);
    assert_eq!(said.code, 0, "{}", said.err);
    leaves_nothing(node, said.out.trim(), "closed/out", 7, "permission denied: closed");
    leaves_nothing(node, said.out.trim(), "/proc/1/out", 7, "permission denied: /proc/1");
    assert!(names(&closed).is_empty());
}

#[test]
fn row_13_an_output_without_room() {
    let (swarm, hash) = one_file(3 << 20);
    leaves_nothing(&swarm[0], &hash, "/dev/full", 8, "no space left");
    let dir = swarm[0].work.join("small");
    std::fs::create_dir(&dir).unwrap();
    let get = swarm[0].command(&["get", &hash, "-o", "small/out"]);
    let Some(mut command) = mounted(&get, &dir, "size=1m") else { return };
    let said: Said = command.output().unwrap().into();
    refused(&said, 8, "no space left");
    assert_eq!(said.out, "", "something was left in the full place");
    assert_eq!(swarm[0].get(&hash), noise(1, 3 << 20));
}

#[test]
fn row_14_an_output_that_nobody_reads() {
    let (swarm, hash) = one_file(3 << 20);
    for args in [&["get", &hash, "-o", "-"][..], &["cat", &hash], &["cat", "/f"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let said: Said = swarm[0].command(args).stdout(write).output().unwrap().into();
        assert_eq!((said.code, &*said.err), (141, ""), "{args:?}");
    }
    assert!(swarm[0].get(&hash) == noise(1, 3 << 20));
}
