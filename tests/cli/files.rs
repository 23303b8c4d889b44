//! Files in and out through the real socket, and the screens around them.

use super::harness::{Said, Served};
use p2pfs::Client;
use p2pfs::wire::control::{Code, Put, Range, Target};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

#[test]
fn put_prints_the_hash_and_nothing_else() {
    let served = Served::new();
    // Row 18 among them.
    for bytes in [&b""[..], b"a", &vec![7; 3 << 20]] {
        served.place.write("f", bytes);
        let said = served.run(&["put", "f"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(said.out, format!("{}\n", blake3::hash(bytes)));
    }
    let said = served.run(&["put", "f", "--as", "/d/"]);
    let expected = "stored f as /d/f: 3.0 MiB, 1 of 3 copies, all on this machine (0.31 s, \
                    9.7 MiB/s)\nthe other copies are made when nodes join:  p2pfs daemon \
                    --bootstrap HOST:4000\n";
    assert_eq!(said.err, expected);
    assert_eq!(served.run(&["put", "f", "-q"]).err, "");
    let said = served.run(&["put", "f", "--json"]);
    let stored: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(stored["v"] == 1 && stored["path"] == "/f" && said.err.is_empty());
    assert!(said.out.starts_with("{\"v\":1,\"hash\":\""));
}

#[test]
fn a_wait_that_is_not_met_is_exit_5_with_the_hash() {
    let served = Served::new();
    served.place.write("f", b"a");
    let said = served.run(&["put", "f", "--wait", "all", "--timeout", "1s"]);
    assert_eq!((said.code, said.out.len()), (5, 65));
    assert!(said.err.contains("error: stored, but only 1 of 3 copies are on disk yet\n"));
}

#[test]
fn standard_input_is_stored_without_a_name_unless_one_is_given() {
    let served = Served::new();
    for (args, path) in
        [(&["put", "-", "--json"][..], "null"), (&["put", "-", "--as", "x", "--json"], "\"/x\"")]
    {
        let mut child = served
            .place
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
        let said: Said = child.wait_with_output().unwrap().into();
        assert!(said.out.contains(&blake3::hash(b"from a pipe").to_string()), "{}", said.out);
        assert!(said.out.contains(&format!("\"path\":{path}")), "{}", said.out);
    }
}

#[test]
fn get_writes_the_stored_name_and_never_over_a_file() {
    let served = Served::new();
    served.place.write("f", b"content");
    let script = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(served.place.path("f"), script).unwrap();
    let hash = served.run(&["put", "f"]).out.trim().to_owned();
    // Row 10, and the file that is there stays as it is.
    served.place.write("f", b"mine");
    let said = served.run(&["get", &hash]);
    assert_eq!(said.code, 11);
    assert!(said.err.starts_with("error: ./f already exists\n hint: --force"), "{}", said.err);
    assert_eq!(served.place.read("f"), b"mine");
    let said = served.run(&["get", &hash, "--force"]);
    assert_eq!(said.err, "f: 7 B, every byte checked, from here (20 ms)\n");
    assert_eq!(served.place.read("f"), b"content");
    let mode = std::fs::metadata(served.place.path("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o100, 0o100);
    // Row 11.
    std::fs::create_dir(served.place.path("dir")).unwrap();
    assert_eq!(served.run(&["get", "/f", "-o", "dir"]).code, 0);
    assert_eq!(served.place.read("dir/f"), b"content");
    // Row 6.
    assert_eq!(served.run(&["get", &hash[..8], "-o", "out"]).code, 0);
    assert_eq!(served.place.names(), ["dir", "f", "out"]);
    let said = served.run(&["get", "/f", "-o", "json", "--json"]);
    assert!(said.out.starts_with("{\"v\":1,\"path\":\"json\",\"hash\":"), "{}", said.out);
}

#[test]
fn an_output_that_is_impossible_is_named() {
    let served = Served::new();
    served.place.write("f", b"content");
    let hash = served.run(&["put", "f"]).out.trim().to_owned();
    // Rows 9, 13, 3 and 7.
    for (args, code, sentence) in [
        (&["get", "/f", "-o", "no/out"][..], 3, "error: directory no does not exist\n"),
        (&["get", "/f", "-o", "no/"], 3, "error: directory no/ does not exist\n"),
        (&["get", "/f", "-o", "/dev/full"], 8, "error: no space left"),
        (&["get", &hash[..63].replace(&hash[..1], "0")], 3, "64 hex characters, this one 63"),
        (&["get", &"0".repeat(64)], 3, "error: no such file in this swarm\n"),
    ] {
        let said = served.run(args);
        assert!(said.code == code && said.err.contains(sentence), "{args:?}: {}", said.err);
    }
    assert_eq!(served.place.names(), ["f"]);
    assert_eq!(served.run(&["get", "/f", "-o", "/dev/null"]).code, 0);
}

#[test]
fn standard_output_gets_the_bytes_in_order() {
    let served = Served::new();
    served.place.write("f", b"0123456789");
    served.run(&["put", "f"]);
    for (args, expected) in [
        (&["get", "/f", "-o", "-"][..], "0123456789"),
        (&["cat", "/f"], "0123456789"),
        (&["cat", "/f", "--range", "2..5"], "234"),
        (&["cat", "/f", "--range", "-3"], "789"),
        (&["cat", "/f", "--range=8.."], "89"),
    ] {
        let said = served.run(args);
        assert_eq!((said.code, &*said.out, &*said.err), (0, expected, ""), "{args:?}");
    }
    // What stands before is not overwritten.
    let mut file = std::fs::File::create(served.place.path("log")).unwrap();
    file.write_all(b"head ").unwrap();
    let status = served.place.command(&["cat", "/f"]).stdout(file).status().unwrap();
    assert!(status.success());
    assert_eq!(served.place.read("log"), b"head 0123456789");
    // Row 14.
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let said: Said =
        served.place.command(&["get", "/f", "-o", "-"]).stdout(write).output().unwrap().into();
    assert_eq!((said.code, &*said.err), (141, ""));
}

#[test]
fn names_are_restored_byte_for_byte_and_shown_escaped() {
    // Rows 22, 23.
    let served = Served::new();
    let name = "a\n\x1b[31m\u{202e}";
    served.place.write(name, b"x");
    assert_eq!(served.run(&["put", name]).code, 0);
    std::fs::remove_file(served.place.path(name)).unwrap();
    let listed = served.run(&["ls"]).out;
    assert!(listed.contains("  /a\\u{a}\\u{1b}[31m\\u{202e}\n"), "{listed}");
    assert_eq!(served.run(&["get", &blake3::hash(b"x").to_string()]).code, 0);
    assert_eq!(served.place.names(), [name]);
    let peers = served.run(&["peers"]).out;
    assert!(peers.contains("evil\\u{1b}[2J\\u{202e}") && !peers.contains('\x1b'), "{peers}");
}

fn interrupt(mut child: Child) -> Said {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.wait().unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn ctrl_c_ends_the_work_everywhere_and_leaves_nothing() {
    // Row 50.
    let served = Served::new();
    served.place.write("f", b"x");
    let calls = [&["put", "f", "--as", "/hang"][..], &["get", "/hang", "-o", "out"]];
    for (number, args) in calls.into_iter().enumerate() {
        let mut command = served.place.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        served.until(&served.shelf.hanging, number + 1);
        let said = interrupt(child);
        assert_eq!((said.code, &*said.out), (130, ""), "{}", said.err);
        assert_eq!(said.err, "error: interrupted; nothing was left behind\n");
        served.until(&served.shelf.cancelled, number + 1);
    }
    let mut command = served.place.command(&["scrub", "--now"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    served.until(&served.shelf.hanging, 3);
    let said = interrupt(child);
    assert_eq!((said.code, &*said.out), (130, ""), "{}", said.err);
    assert!(said.err.starts_with("error: interrupted; the node goes on reading\n"), "{}", said.err);
    assert_eq!(served.place.names(), ["f"]);
    assert_eq!(served.run(&["id"]).out, format!("{}\n", "07".repeat(32)));
}

#[test]
fn status_speaks_to_people_scripts_and_monitors() {
    let served = Served::new();
    let said = served.run(&["status"]);
    let expected = "Needs attention\n  ! waiting for approval ABCDEFGH; on a member run:  \
                    p2pfs approve ABCDEFGH\n";
    assert!(said.out.ends_with(expected), "{}", said.out);
    assert_eq!(said.out.matches("ABCDEFGH").count(), 2, "each thing is said once");
    assert_eq!(served.run(&["status", "--check"]).code, 5);
    let said = served.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(status["v"] == 1 && status["code"] == "ABCDEFGH" && status["under_replicated"] == 0);
    let peer = served.run(&["peers", "--json"]).out;
    assert!(peer.contains("\"state\":\"alive\"") && peer.lines().count() == 1);
    let said = served.run(&["status", "--workers"]);
    let row = "repair  throttled  1.0 MiB of 3.0 MiB, looking  2.0 KiB/s       2  70 ms\n";
    assert!(said.out.starts_with("WORKER  STATE") && said.out.ends_with(row), "{}", said.out);
    assert_eq!(said.err, "last error of repair, 3 min ago: evil\\u{1b}[2J\n");
    let said = served.run(&["status", "--workers", "--json"]);
    let worker: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(worker["v"] == 1 && worker["state"] == "throttled" && worker["done"] == 1 << 20);
    assert_eq!(served.run(&["status", "--workers", "--check"]).code, 2);
    let expected = "Everything stored here is read again within 30 d\n  \
                    Now   25 %: 7 chunks, 1 record, 153.0 MiB: 4 damaged, 1 repaired, 1 lost, \
                    1 not needed any more, 1 still to be repaired:  p2pfs status\n  \
                    Last  ended 2 h ago: 1499 chunks, 1 record, 153.0 MiB: \
                    0 damaged, 0 repaired, 0 lost\n";
    assert_eq!(served.run(&["scrub"]).out, expected);
    let said = served.run(&["scrub", "--json"]);
    let scrub: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(scrub["v"] == 1 && scrub["found"]["damaged"] == 4 && said.code == 0);
    assert!(served.run(&["ls"]).err.contains("no files here"));
    assert_eq!(served.run(&["stop"]).err, "the daemon has stopped\n");
}

#[test]
fn shells_get_candidates_from_the_daemon() {
    let served = Served::new();
    let complete = |words: &[&str]| -> String {
        let mut args = vec!["--"];
        args.extend(words);
        let index = (words.len() - 1).to_string();
        let mut command = served.place.command(&args);
        command.env("COMPLETE", "fish").env("_CLAP_COMPLETE_INDEX", index);
        let said: Said = command.output().unwrap().into();
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    assert_eq!(complete(&["p2pfs", "get", "3f9a"]), "3f9a1c77\tsome file\n");
    assert!(complete(&["p2pfs", "cat", "/"]).contains("/a.txt\tsome file"));
    assert_eq!(complete(&["p2pfs", "ls", "3f9a"]), "", "a directory has no hash");
    assert!(complete(&["p2pfs", "st"]).contains("status\t"));
    // Without a daemon there is nothing, at once and without a word.
    assert_eq!(complete(&["p2pfs", "--data-dir", "other", "get", "3f9a"]), "");
}

/// Gives a little and then fails.
struct Fails(bool);

impl AsyncRead for Fails {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(std::io::Error::other("the source broke")));
        }
        buf.put_slice(b"half of it");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_library_puts_from_a_reader_and_gets_to_a_writer() {
    let served = Served::new();
    let client = Client::connect(&served.socket).await.unwrap();
    let bytes = vec![3; 1_000_000];
    let stored = client.put(&bytes[..], Put::default()).await.unwrap();
    assert_eq!(stored.hash.0, *blake3::hash(&bytes).as_bytes());
    let mut back = Vec::new();
    let fetched = client.get(Target::Hash(stored.hash), None, &mut back).await.unwrap();
    assert!(back == bytes && fetched.bytes == 1_000_000);
    let (mut end, writer) = tokio::io::duplex(16);
    let last = client.get(Target::Hash(stored.hash), Some(Range::Last(5)), writer);
    let mut five = Vec::new();
    let (last, read) = tokio::join!(last, end.read_to_end(&mut five));
    assert!(last.unwrap().bytes == 5 && read.unwrap() == 5 && five == [3; 5]);

    let put = Put { path: Some("/half".into()), ..Put::default() };
    let failure = client.put(Fails(false), put).await.unwrap_err();
    assert_eq!(failure.message, "the source cannot be read: the source broke");
    let half = client.stat(Target::Path("/half".into())).await.unwrap_err();
    assert_eq!(half.code, Code::NotFound, "half a file was stored");
}
