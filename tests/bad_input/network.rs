//! Who is dialled: nobody, itself, something else, another swarm. And garbage at the own doors.

use crate::daemon::{Daemon, Swarm, until};
use crate::refused;
use crate::said::Said;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

fn problems(node: &Daemon) -> String {
    let status = node.status();
    let problems = status["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem.as_str().unwrap().to_owned() + "\n").collect()
}

#[test]
fn row_27_a_host_that_cannot_be_resolved_is_tried_again() {
    let mut swarm = Swarm::of(1);
    swarm[0].kill();
    swarm[0].flags = vec!["--bootstrap".into(), "no-such-host.invalid:4000".into()];
    swarm[0].start();
    until("the name to be tried", || {
        problems(&swarm[0]).contains("cannot resolve no-such-host.invalid; retrying")
    });
    swarm[0].put("/f", b"it works all the same", &[]);
    let said = swarm[0].run(&["connect", "no-such-host.invalid:4000"]);
    refused(&said, 10, "the host name no-such-host.invalid is not known");
}

#[test]
fn row_28_a_node_that_is_its_own_bootstrap() {
    let mut swarm = Swarm::of(1);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    swarm[0].kill();
    swarm[0].flags = ["--listen", &address, "--bootstrap", &address].map(str::to_owned).into();
    swarm[0].start();
    let expected = format!("{address} is this node itself; ignored");
    until("itself to be met", || problems(&swarm[0]).contains(&expected));
    refused(&swarm[0].run(&["connect", &address]), 2, "is this node itself");
    assert_eq!(swarm[0].alive(), 0);
    swarm[0].put("/f", b"it works all the same", &[]);
}

/// Says the same to everybody who comes, and returns where. The thread ends with the test.
fn speaker(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Whoever leaves early has heard enough.
            stream.write_all(words).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    });
    address
}

#[test]
fn row_29_something_else_that_listens_there_is_quoted() {
    let ssh = speaker(b"SSH-2.0-OpenSSH_9.6\r\n");
    let http = speaker(b"HTTP/1.1 400 Bad Request\r\nServer: \x1b[2Jx\r\n\r\n");
    let silent = speaker(b"");
    let mut swarm = Swarm::of(1);
    swarm[0].kill();
    for address in [&ssh, &http, &silent] {
        swarm[0].flags.extend(["--bootstrap".into(), address.clone()]);
    }
    swarm[0].start();
    for expected in [
        format!("{ssh} is not p2pfs: got \"SSH-2.0-OpenSSH_9.6"),
        format!("{http} is not p2pfs: got \"HTTP/1.1 400 Bad Request"),
    ] {
        until("what it says to be shown", || problems(&swarm[0]).contains(&expected));
    }
    refused(&swarm[0].run(&["connect", &ssh]), 10, "is not p2pfs: got \"SSH-2.0-OpenSSH_9.6");
    refused(&swarm[0].run(&["connect", &http]), 10, "is not p2pfs: got \"HTTP/1.1 400 Bad");
    refused(&swarm[0].run(&["connect", &silent]), 10, &silent);
    assert!(!swarm[0].run(&["status"]).out.contains('\x1b'));
    swarm[0].put("/f", b"it works all the same", &[]);
}

#[test]
fn row_30_a_bootstrap_of_another_swarm_is_refused_by_a_node_with_files() {
    let swarm = Swarm::of(1);
    let mut other = swarm.draft();
    other.config = other.data.with_file_name("config-of-another");
    other.flags.clear();
    other.start();
    let hash = other.put("/mine", b"stays here", &[]);
    other.kill();
    other.flags = vec!["--bootstrap".into(), swarm[0].address()];
    let said: Said = other.starter().env_remove("P2PFS_LOG").output().unwrap().into();
    assert_eq!(said.code, 11, "{}", said.err);
    let sentence = format!("{} belongs to another swarm than this node", swarm[0].address());
    assert!(said.err.contains(&sentence), "{}", said.err);
    other.flags.clear();
    other.start();
    assert_eq!(other.get(&hash), b"stays here");
}

#[test]
fn row_46_garbage_at_the_socket_is_refused_and_harms_nobody() {
    let swarm = Swarm::of(1);
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(swarm[0].data.join("p2pfs.sock")).unwrap();
        // A door that refuses closes before it has read everything.
        let sent = bytes.chunks(64 << 10).take_while(|part| stream.write_all(part).is_ok()).count();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        (answer, sent * (64 << 10))
    };
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xfe\n", b"{\"v\":1}\n", b"\n"] {
        let (answer, _) = ask(bytes);
        assert!(answer.contains("\"message\":\"bad request: "), "{answer}");
    }
    // A gibibyte without a newline would be read to its end by a careless one.
    let (_, sent) = ask(&vec![b'x'; 64 << 20]);
    assert!(sent < 8 << 20, "{sent} bytes were taken");
    swarm[0].put("/f", b"it works all the same", &[]);
}

#[test]
fn limits_that_cannot_be_kept_and_limits_of_nobody() {
    let swarm = Swarm::of(1);
    for (args, sentence) in [
        (&["limit", "--up", "0.5"][..], "`0.5` is too slow: 64.0 KiB/s is the least, or none"),
        (&["limit", "--down", "1KiB/s"], "`1KiB/s` is too slow"),
        (&["limit", "--up", "fast"], "`fast` is not a rate, e.g. 500KB/s, 5MiB/s or none"),
        (&["daemon", "--limit-up", "1KiB/s"], "`1KiB/s` is too slow"),
    ] {
        let said = swarm[0].run(args);
        assert!(said.code == 2 && said.err.contains(sentence), "{args:?}: {}", said.err);
    }
    let said = swarm[0].run(&["limit", "--up", "1MiB/s", "--peer", "nobody"]);
    refused(&said, 3, "no peer is called that");
    refused(&swarm[0].run(&["limit", "--peer", "nobody"]), 2, "--peer sets a limit");
    let me = swarm[0].status()["name"].as_str().unwrap().to_owned();
    let said = swarm[0].run(&["limit", "--up", "none", "--peer", &me]);
    refused(&said, 2, "that is this node itself");
    let limits = swarm[0].list(&["limit"]).remove(0);
    assert_eq!(limits["up"], serde_json::Value::Null);
    assert_eq!(limits["peers"], serde_json::json!([]));
}

#[test]
fn a_limit_of_a_peer_whose_name_several_have_is_set_by_its_id() {
    let swarm = Swarm::with(3, &["--name", "twin"]);
    let said = swarm[0].run(&["limit", "--up", "1MiB/s", "--peer", "twin"]);
    refused(&said, 3, "several peers are called that: ");
    let id = swarm[1].status()["id"].as_str().unwrap().to_owned();
    let set = ["limit", "--up", "1MiB/s", "--down", "2MiB/s", "--peer", &id[..10]];
    let limits = swarm[0].list(&set).remove(0);
    assert_eq!(limits["peers"][0]["id"], id);
    assert_eq!(
        (&limits["peers"][0]["up"], &limits["peers"][0]["down"]),
        (&(1 << 20).into(), &(2 << 20).into())
    );
    swarm[0].list(&["limit", "--up", "none", "--down", "none", "--peer", &id]);
    assert_eq!(swarm[0].list(&["limit"])[0]["peers"], serde_json::json!([]));
}
