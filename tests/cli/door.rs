//! The socket itself: who may use it, what it refuses, how it ends.

use super::harness::{Place, Served};
use p2pfs::Client;
use p2pfs::gateway::control::{BindError, CONNECTIONS_MAX, ControlSocket};
use p2pfs::wire::control::{Code, LINE_MAX};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

/// Sends bytes and returns everything that comes back.
fn ask(served: &Served, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    // A door that refuses closes before it has read everything.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_bad_request_is_answered_and_closed() {
    // Row 46.
    let served = Served::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\n",
        b"{}\n",
        b"{\"v\":1}\n",
        b"{\"v\":1,\"op\":\"explode\"}\n",
        b"{\"v\":1,\"op\":\"approve\"}\n",
        b"\xff\xfe\n",
        &[b'['; 100_000],
        &vec![b'x'; LINE_MAX + 1],
    ] {
        let bytes = if bytes.len() > 99_999 && bytes.len() < LINE_MAX {
            [bytes, b"\n"].concat()
        } else {
            bytes.to_vec()
        };
        let answer = ask(&served, &bytes);
        assert!(answer.contains("\"code\":\"usage\",\"message\":\"bad request: "), "{answer}");
        assert_eq!(answer.matches('\n').count(), 1);
    }
    assert!(ask(&served, b"{\"v\":1,\"op\":\"id\"}\n").contains("\"type\":\"done\""));
    assert!(ask(&served, b"{\"v\":1,\"op\":\"id\",\"more\":[1]}\nwaste").contains("brave-otter"));
}

#[test]
fn another_version_is_said_by_both_sides() {
    let served = Served::new();
    let answer = ask(&served, b"{\"v\":2,\"op\":\"something new\"}\n");
    assert!(answer.contains("\"code\":\"version\"") && answer.contains("version 2"), "{answer}");

    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    let listener = UnixListener::bind(place.path("data/p2pfs.sock")).unwrap();
    let daemon = std::thread::spawn(move || {
        for answer in [&b"{\"v\":2,\"type\":\"anything\"}\n"[..], b"", b"{\"v\":1}\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut call = [0; 1024];
            assert!(stream.read(&mut call).unwrap() > 0);
            stream.write_all(answer).unwrap();
        }
    });
    let said = place.run(&["id"]);
    assert_eq!(said.code, 12);
    assert!(said.err.contains("the running daemon 2\n hint: restart the daemon"), "{}", said.err);
    let said = place.run(&["id"]);
    assert_eq!(said.code, 6);
    assert!(said.err.contains("the daemon ended before it answered"), "{}", said.err);
    assert_eq!(place.run(&["id"]).code, 12);
    daemon.join().unwrap();
}

#[test]
fn only_so_many_are_served_at_once_and_none_is_lost() {
    let served = Served::new();
    let mut idle: Vec<UnixStream> =
        (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    let mut late = UnixStream::connect(&served.socket).unwrap();
    late.write_all(b"{\"v\":1,\"op\":\"id\"}\n").unwrap();
    late.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut answer = [0; 64];
    assert!(late.read(&mut answer).is_err(), "it was served beyond the limit");
    idle.pop();
    late.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    assert!(late.read(&mut answer).unwrap() > 0);
}

#[tokio::test]
async fn the_socket_is_private_and_a_stale_one_is_replaced() {
    // Row 35.
    let place = Place::new();
    let path = place.path("deep/er/s");
    let socket = ControlSocket::bind(&path).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path.clone()), mode(place.path("deep/er"))), (0o600, 0o700));
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::InUse(_))));
    drop(socket);
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "as after a crash");
    let socket = ControlSocket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"a file").unwrap();
    assert!(matches!(ControlSocket::bind(&path), Err(BindError::NotASocket(_))));
    drop(socket);
    assert!(path.exists(), "what is not ours is not removed");

    let long = place.path(&"x".repeat(120));
    assert!(matches!(ControlSocket::bind(&long), Err(BindError::TooLong { .. })));
    let failure = Client::connect(&long).await.unwrap_err();
    assert_eq!(failure.code, Code::Usage);
}
