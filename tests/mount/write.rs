//! `write`: a range of a file is changed without a mount.

use crate::daemon::{Daemon, Swarm, noise};
use std::io::Write;
use std::process::Stdio;

fn write(node: &Daemon, args: &[&str], bytes: &[u8]) -> (i32, String, String) {
    let mut command = node.command(&[&["write"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses does not read.
    child.stdin.take().unwrap().write_all(bytes).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_range_is_changed_and_the_hash_is_that_of_the_whole() {
    let swarm = Swarm::of(3);
    let mut bytes = noise(5, (5 << 20) + 100);
    swarm[0].put("/dir/large", &bytes, &[]);
    let before = swarm[0].list(&["stat", "/dir/large", "--chunks"]);
    bytes[3_000_000..3_000_004].copy_from_slice(b"1234");
    let (code, out, err) = write(&swarm[0], &["/dir/large", "--offset", "3000000"], b"1234");
    assert_eq!((code, out), (0, format!("{}\n", blake3::hash(&bytes))), "{err}");
    let after = swarm[0].list(&["stat", "/dir/large", "--chunks"]);
    let changed = before.iter().zip(&after).filter(|(one, two)| one["id"] != two["id"]).count();
    assert_eq!((changed, after.len()), (1, 6), "one chunk is another one");
    crate::daemon::until("the change to be at the others", || {
        swarm[2].list(&["stat", "/dir/large"])[0]["hash"] == blake3::hash(&bytes).to_string()
    });
    assert_eq!(swarm[2].get("/dir/large"), bytes);
    // Behind the end, and a file that is not there yet.
    let (code, ..) = write(&swarm[0], &["/dir/large", "--offset", "6MiB"], b"end");
    assert_eq!(code, 0);
    bytes.resize(6 << 20, 0);
    bytes.extend_from_slice(b"end");
    assert_eq!(swarm[0].get("/dir/large"), bytes);
    let (code, out, _) = write(&swarm[0], &["/new"], b"hello");
    assert_eq!((code, out), (0, format!("{}\n", blake3::hash(b"hello"))));
    assert_eq!(swarm[0].get("/new"), b"hello");
    assert!(swarm[0].names().is_empty(), "nothing is left where it was typed");
    // What is no file, and where there is no directory.
    let (code, _, err) = write(&swarm[0], &["/dir"], b"x");
    assert_eq!((code, err.contains("is a directory")), (2, true), "{err}");
    let (code, _, err) = write(&swarm[0], &["/none/x"], b"x");
    assert_eq!((code, err.contains("no directory")), (3, true), "{err}");
}
