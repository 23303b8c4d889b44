//! What is not p2pfs, or pretends to be.

use crate::fixture::{SOON, Setup, TestNode};
use p2pfs::id::NodeId;
use p2pfs::transport::{DialError, Limits, LinkEvent, Security};
use p2pfs::wire::codec::{Decode, Encode};
use p2pfs::wire::frame::{Header, Limits as FrameLimits, Parsed, Role, kind};
use p2pfs::wire::hello::{Hello, Introduction, Lane, Refuse, RefuseCode, Speaker, Versions};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EVE: NodeId = NodeId([0xee; 32]);

/// One frame as bytes.
pub(crate) fn frame(kind: u16, role: Role, request: u32, head: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { kind, request, role, head_len: head.len() as u32, body_len: 0 }.encode(&mut out);
    out.extend_from_slice(head);
    out
}

/// The opening of a stream without TLS and a hello of these versions.
pub(crate) fn opening(versions: Versions) -> Vec<u8> {
    let hello = Hello {
        speaker: Speaker { versions, software: "p2pfs 2.0.0".into(), name: "bob".into() },
        instance: 1,
        lane: Lane::Control,
        observed: None,
        intro: Introduction::default(),
    };
    let mut out = b"p2pfs simulation".to_vec();
    out.extend_from_slice(&EVE.0);
    out.extend_from_slice(&frame(kind::HELLO, Role::Notify, 0, &hello.to_bytes()));
    out
}

async fn named(seed: u8) -> TestNode {
    let security = Security::named_for_simulation();
    Setup { security, ..Setup::real(seed) }.start().await
}

async fn read_frame(from: &mut TcpStream) -> (Header, Vec<u8>) {
    let mut header = [0; 15];
    from.read_exact(&mut header).await.unwrap();
    let Ok(Parsed::Header(header)) = Header::parse(&header, &FrameLimits::BULK) else {
        panic!("no header");
    };
    let mut content = vec![0; header.content_len()];
    from.read_exact(&mut content).await.unwrap();
    (header, content)
}

/// Whether the other side closes, whatever it may still say.
async fn closes(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_node_of_another_version_is_told_so_and_shown() {
    let bob = named(2).await;
    let mut eve = TcpStream::connect(bob.addr()).await.unwrap();
    eve.write_all(&opening(Versions { lowest: 2, highest: 2 })).await.unwrap();
    eve.read_exact(&mut [0; 48]).await.unwrap();
    let (header, head) = read_frame(&mut eve).await;
    let refuse = Refuse::from_bytes(&head).unwrap();
    assert_eq!((header.kind, refuse.code), (kind::REFUSE, RefuseCode::Version));
    assert_eq!(refuse.versions, Versions::OURS);
    let events = bob.handler.until(|events| !events.is_empty()).await;
    assert!(matches!(&events[0], LinkEvent::Mismatch { peer: EVE, speaker, .. }
        if speaker.name == "bob"));
}

#[tokio::test]
async fn a_newer_node_that_answers_is_named_with_its_version() {
    let ann = named(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&opening(Versions { lowest: 2, highest: 2 })).await.unwrap();
        closes(&mut stream).await;
    });
    let err = ann.transport.dial(addr, None, Lane::Control).await.unwrap_err();
    assert_eq!(err.to_string(), "bob runs protocol 2, we need 1");
}

#[tokio::test]
async fn what_is_not_p2pfs_is_quoted() {
    let ann = Setup::real(1).start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut ssh, _) = listener.accept().await.unwrap();
        ssh.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
        let (mut web, _) = listener.accept().await.unwrap();
        web.read_exact(&mut [0; 20]).await.unwrap();
        web.write_all(b"HTTP/1.1 400 Bad\x1b Request\r\n").await.unwrap();
        closes(&mut web).await;
        drop(listener.accept().await.unwrap());
        closes(&mut ssh).await;
    });
    let ssh = ann.transport.dial(addr, None, Lane::Control).await.unwrap_err();
    assert_eq!(ssh.to_string(), format!("{addr} is not p2pfs: got \"SSH-2.0-OpenSSH_9.9\\r\\n\""));
    let web = ann.transport.dial(addr, None, Lane::Control).await.unwrap_err();
    let DialError::NotP2pfs { said, .. } = web else { panic!("{web:?}") };
    assert!(said.starts_with("HTTP/1.1 400 Bad\\x1b Request"), "{said}");
    let mute = ann.transport.dial(addr, None, Lane::Control).await.unwrap_err();
    assert!(matches!(mute, DialError::Handshake { .. }), "{mute:?}");
    let gone = ann.transport.dial(addr, None, Lane::Control).await.unwrap_err();
    assert!(matches!(gone, DialError::Unreachable { .. }), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_at_the_port_disturbs_nobody() {
    let (ann, bob) = (Setup::real(1).start().await, Setup::real(2).start().await);
    ann.dial(&bob).await.unwrap();
    bob.handler.until(|events| !events.is_empty()).await;
    let mut record = b"\x16\x03\x01\xff\xff".to_vec();
    record.extend_from_slice(&[0x5a; 70]);
    let junk: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", &[0xa7; 4096], &record, b""];
    let mut left_open = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(bob.addr()).await.unwrap();
        // A reset in answer to junk is fine.
        let _reset = stream.write_all(junk[n % 5]).await;
        if n % 3 == 0 {
            left_open.push(stream);
        }
    }
    let begun = Instant::now();
    let carol = Setup::real(3).start().await;
    carol.dial(&bob).await.unwrap();
    carol.echo(&bob.peer()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    ann.echo(&bob.peer()).await.unwrap();
    let events = bob.handler.until(|events| events.len() == 2).await;
    assert!(events.iter().all(|event| matches!(event, LinkEvent::Up { .. })), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_half_open_connections_do_not_shut_the_door() {
    let limits = Limits { connections: 100, ..Limits::default() };
    let bob = Setup { limits, ..Setup::real(2) }.start().await;
    let mut half_open = Vec::new();
    for _ in 0..400 {
        half_open.push(TcpStream::connect(bob.addr()).await.unwrap());
    }
    let begun = Instant::now();
    let ann = Setup::real(1).start().await;
    ann.dial(&bob).await.unwrap();
    ann.echo(&bob.peer()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_ended() {
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let bob = Setup { limits, ..Setup::real(2) }.start().await;
    let mut slow = TcpStream::connect(bob.addr()).await.unwrap();
    slow.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    assert!(closes(&mut slow).await);
}

/// A peer without TLS that has been let in.
async fn let_in(bob: &TestNode) -> TcpStream {
    let mut eve = TcpStream::connect(bob.addr()).await.unwrap();
    eve.write_all(&opening(Versions::OURS)).await.unwrap();
    eve.read_exact(&mut [0; 48]).await.unwrap();
    assert_eq!(read_frame(&mut eve).await.0.kind, kind::HELLO);
    eve.write_all(&frame(kind::READY, Role::Notify, 0, &[])).await.unwrap();
    bob.has_connections(1).await;
    eve
}

#[tokio::test]
async fn nonsense_from_a_member_ends_its_connection() {
    let bob = named(2).await;
    let too_long = (20u32 << 20).to_le_bytes().to_vec();
    let mut body_on_control = Vec::new();
    let role = Role::Request;
    Header { kind: 0x8011, request: 1, role, head_len: 0, body_len: 1 }
        .encode(&mut body_on_control);
    let unasked = frame(16, Role::Response, 77, b"here you are");
    let out_of_place = frame(kind::HELLO, Role::Notify, 0, &[]);
    for bytes in [too_long, body_on_control, unasked, out_of_place] {
        let mut eve = let_in(&bob).await;
        eve.write_all(&bytes).await.unwrap();
        assert!(closes(&mut eve).await);
        bob.has_connections(0).await;
    }
}

#[tokio::test]
async fn more_requests_than_allowed_wait_unread() {
    let bob = named(2).await;
    let mut eve = let_in(&bob).await;
    for request in 1..=80 {
        eve.write_all(&frame(crate::fixture::HANG, Role::Request, request, &[])).await.unwrap();
    }
    let wait = async {
        while bob.transport.connections()[0].in_flight < 64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bob.transport.connections()[0].in_flight, 64);
}
