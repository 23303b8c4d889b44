//! Files of all shapes: empty, of exactly one chunk, from a pipe, in part, mostly holes; and work
//! that is interrupted half way.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};

const MIB: usize = 1 << 20;

#[test]
fn every_length_comes_back_as_it_was() {
    let swarm = Swarm::of(2);
    for len in [0, 1, 4095, MIB - 1, MIB, MIB + 1, 3 * MIB + 17] {
        let bytes = noise(len as u64, len);
        let path = format!("/{len}");
        let hash = swarm[0].put(&path, &bytes, &[]);
        assert!(swarm[1].get(&hash) == bytes && swarm[1].get(&path) == bytes, "{len}");
        let said = swarm[1].run(&["get", &path, "-o", "out", "--force"]);
        assert!(said.code == 0 && said.out.is_empty(), "{}", said.err);
        assert!(std::fs::read(swarm[1].work.join("out")).unwrap() == bytes, "{len}");
    }
    let empty = blake3::hash(b"").to_string();
    assert!(empty.starts_with("af1349b9") && swarm[1].get(&empty).is_empty());
    // Text is compressed on its way; it comes back all the same.
    let text = "the same line again and again\n".repeat(100_000);
    let hash = swarm[0].put("/text", text.as_bytes(), &[]);
    assert!(swarm[1].get(&hash) == text.as_bytes());
    let stat = swarm[1].list(&["stat", "/text"]).remove(0);
    assert!(stat["stored_bytes"].as_u64().unwrap() < 300_000, "{stat}");
    assert_eq!(stat["chunks"], 3);
}

#[test]
fn parts_are_read_at_any_place() {
    let swarm = Swarm::of(2);
    let bytes = noise(3, 2 * MIB + 5000);
    let hash = swarm[0].put("/f", &bytes, &[]);
    for (range, from, to) in [
        ("0..1", 0, 1),
        ("5..5", 5, 5),
        ("1048575..1048577", MIB - 1, MIB + 1),
        ("1MiB..2MiB", MIB, 2 * MIB),
        ("2097152..", 2 * MIB, bytes.len()),
        ("..3", 0, 3),
        ("-4KiB", bytes.len() - 4096, bytes.len()),
        ("-1G", 0, bytes.len()),
        ("2MiB..1G", 2 * MIB, bytes.len()),
        ("1G..2G", 0, 0),
    ] {
        for node in [0, 1] {
            let output = swarm[node].command(&["cat", &hash, "--range", range]).output().unwrap();
            assert!(output.status.success(), "{range}");
            assert!(output.stdout == bytes[from..to], "{range} at {node}");
        }
    }
}

#[test]
fn a_pipe_is_stored_and_read() {
    let swarm = Swarm::of(2);
    let bytes = noise(4, 5 * MIB + 1);
    let mut put = swarm[0].command(&["put", "-", "--as", "/piped"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(said.out, format!("{}\n", blake3::hash(&bytes)));
    assert!(swarm[1].get("/piped") == bytes);
    // Without a name only who knows the hash finds it.
    let mut put = swarm[0].command(&["put", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"unlisted").unwrap();
    let said: Said = child.wait_with_output().unwrap().into();
    assert_eq!(swarm[1].get(said.out.trim()), b"unlisted");
    assert_eq!(swarm[1].list(&["ls", "-R"]).len(), 1);
}

/// Bytes that a directory takes on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => disk_bytes(&entry.path()),
            meta => meta.blocks() * 512,
        })
        .sum()
}

/// The most memory that the daemon has had, in KiB.
fn peak_kib(node: &Daemon) -> u64 {
    let pid = node.status()["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `P2PFS_TEST_SPARSE_GIB` makes it larger than the 2 GiB of every day.
#[test]
fn holes_cost_neither_space_nor_memory() {
    let gib: u64 = std::env::var("P2PFS_TEST_SPARSE_GIB").map_or(2, |gib| gib.parse().unwrap());
    let swarm = Swarm::of(2);
    let source = swarm[0].work.join("sparse");
    let mut file = File::create(&source).unwrap();
    file.set_len(gib << 30).unwrap();
    file.seek(SeekFrom::Start((gib << 29) + 77)).unwrap();
    file.write_all(&noise(5, MIB / 2)).unwrap();
    file.seek(SeekFrom::End(-1)).unwrap();
    file.write_all(b"!").unwrap();
    drop(file);
    let before = disk_bytes(&swarm[0].data) + disk_bytes(&swarm[1].data);
    let said = swarm[0].run(&["put", "sparse", "--replicas", "2", "--wait", "all"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for node in [0, 1] {
        let here = swarm[node].status()["bytes_here"].as_u64().unwrap();
        assert!(here < 5 << 20, "{here} bytes at {node}");
        assert!(peak_kib(&swarm[node]) < 64 << 10, "{} KiB at {node}", peak_kib(&swarm[node]));
    }
    let grown = disk_bytes(&swarm[0].data) + disk_bytes(&swarm[1].data) - before;
    assert!(grown < 5 << 20, "{grown} bytes on two disks");
    let stat = swarm[0].list(&["stat", "/sparse"]).remove(0);
    assert_eq!(stat["zero_chunks"].as_u64().unwrap(), (gib << 10) - 2);

    let said = swarm[1].run(&["get", "/sparse"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let copy = swarm[1].work.join("sparse");
    let meta = std::fs::metadata(&copy).unwrap();
    assert!(meta.len() == gib << 30 && meta.blocks() * 512 < 5 << 20, "{meta:?}");
    let mut hash = blake3::Hasher::new();
    hash.update_reader(File::open(&copy).unwrap()).unwrap();
    assert_eq!(stat["hash"], *hash.finalize().to_string());
    // A pipe has no holes: the zeros are written.
    let tail = swarm[1].command(&["cat", "/sparse", "--range", "-3MiB"]).output().unwrap().stdout;
    assert!(tail.len() == 3 * MIB && tail.ends_with(b"\0!"));
}

fn interrupt(child: Child) -> Said {
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn who_stops_waiting_for_copies_is_told_that_the_file_is_stored() {
    let swarm = Swarm::of(1);
    std::fs::write(swarm[0].work.join("f"), b"waiting").unwrap();
    let mut put = swarm[0].command(&["put", "f", "--wait", "all"]);
    let mut child = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The sentence comes when the file is stored.
    let note = "stored; waiting for the other copies:  p2pfs status\n";
    let mut said = vec![0; note.len()];
    child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), note);
    let said = interrupt(child);
    assert_eq!(said.code, 130);
    assert!(said.err.starts_with("error: interrupted; the file may be stored already\n"));
    assert_eq!(swarm[0].get("/f"), b"waiting");
}

#[test]
fn a_former_version_does_not_pass_for_what_its_name_shows_now() {
    let swarm = Swarm::of(1);
    let first = swarm[0].put("/f", b"first", &[]);
    let second = swarm[0].put("/f", b"second", &[]);
    let stat = |hash: &str| swarm[0].run(&["stat", hash]).out;
    assert!(stat(&first).starts_with("Name      (a former version of /f)\n"), "{}", stat(&first));
    assert!(stat(&second).starts_with("Name      /f\n"), "{}", stat(&second));
    assert_eq!(swarm[0].list(&["stat", &first])[0]["former"], true);
}

#[test]
fn row_50_an_interrupted_put_leaves_nothing_to_see() {
    let swarm = Swarm::of(2);
    let mut put = swarm[0].command(&["put", "-", "--as", "/half"]);
    put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = put.spawn().unwrap();
    // More than a pipe holds: when it is written, the daemon has read most of it.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&noise(6, 4 * MIB)).unwrap();
    let said = interrupt(child);
    drop(stdin);
    assert_eq!((said.code, &*said.out), (130, ""), "{}", said.err);
    assert_eq!(said.err, "error: interrupted; nothing was left behind\n");
    for node in [0, 1] {
        assert!(swarm[node].list(&["ls", "-R"]).is_empty());
        assert_eq!(swarm[node].run(&["stat", "/half"]).code, 3);
        assert_eq!(swarm[node].status()["files"], 0);
    }
    let hash = swarm[0].put("/half", &noise(6, 4 * MIB), &[]);
    assert!(swarm[1].get(&hash) == noise(6, 4 * MIB));
}

#[test]
fn row_50_an_interrupted_get_leaves_no_file() {
    let swarm = Swarm::of(3);
    // One copy of each of its chunks: the third node has not all of them.
    let bytes = noise(7, 12 * MIB);
    let hash = swarm[0].put("/f", &bytes, &["--replicas", "1"]);
    swarm[0].signal(Signal::STOP);
    swarm[1].signal(Signal::STOP);
    let mut get = swarm[2].command(&["get", &hash, "-o", "out"]);
    get.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = get.spawn().unwrap();
    let fds = format!("/proc/{}/fd", swarm[2].status()["pid"]);
    let has_it = || {
        let links =
            std::fs::read_dir(&fds).unwrap().filter_map(|fd| fd.unwrap().path().read_link().ok());
        links.into_iter().any(|link| link.starts_with(&swarm[2].work))
    };
    until("the daemon to have the output's descriptor", has_it);
    let said = interrupt(child);
    assert_eq!((said.code, &*said.out), (130, ""), "{}", said.err);
    assert!(swarm[2].names().is_empty());
    until("the daemon to let go of it", || !has_it());
    swarm[0].signal(Signal::CONT);
    swarm[1].signal(Signal::CONT);
    swarm.met();
    assert!(swarm[2].get(&hash) == bytes);
}

#[test]
fn each_name_of_one_content_wants_as_many_copies_as_it_was_put_with() {
    let swarm = Swarm::of(3);
    let bytes = noise(11, 2 * MIB);
    let hash = swarm[0].put("/three", &bytes, &["--wait", "all"]);
    assert_eq!(swarm[0].put("/two", &bytes, &["--replicas", "2"]), hash);
    let wanted = |name: &str| swarm[0].list(&["stat", name])[0]["replicas"].clone();
    assert_eq!([wanted("/three"), wanted("/two")], [3, 2]);
    assert_eq!(swarm[0].list(&["stat", "/three"])[0]["copies"], 3);
}
