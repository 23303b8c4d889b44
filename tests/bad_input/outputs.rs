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
