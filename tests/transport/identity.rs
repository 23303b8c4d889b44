//! Who is at the other end, and whether it is let in.

use crate::fixture::{ECHO, HANG, Recorder, Setup, message};
use p2pfs::crypto::NodeKey;
use p2pfs::id::SwarmId;
use p2pfs::transport::{
    Admission, Buffers, DialError, Ended, Handler, Limits, LinkEvent, Options, RequestError,
    Security, StartError, Transport,
};
use p2pfs::wire::frame::Refusal;
use p2pfs::wire::hello::{Introduction, Lane, RefuseCode};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn a_node_is_known_by_its_key_and_by_nothing_else() {
    let (ann, bob) = (Setup::real(1).start().await, Setup::real(2).start().await);
    let expected = NodeKey::from_seed(&[9; 32]).id();
    let wrong = ann.transport.dial(bob.addr(), Some(expected), Lane::Control).await;
    let addr = bob.addr();
    assert_eq!(wrong, Err(DialError::WrongNode { addr, expected, found: bob.id }));

    let found = ann.transport.dial(bob.addr(), None, Lane::Control).await;
    assert_eq!(found, Ok(bob.id));
    let events = bob.handler.until(|events| !events.is_empty()).await;
    let [LinkEvent::Up { peer, dialled: false, observed, stranger: false, .. }] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((peer, observed), (ann.id, Some(bob.addr())));
    let stats = &ann.transport.connections()[0];
    assert_eq!((stats.peer, stats.lane, stats.dialled), (bob.id, Lane::Control, true));
}

#[tokio::test]
async fn a_node_does_not_talk_to_itself() {
    let ann = Setup::real(1).start().await;
    let addr = ann.addr();
    let dialled = ann.transport.dial(addr, None, Lane::Control).await;
    assert_eq!(dialled, Err(DialError::Myself { addr }));
}

#[tokio::test]
async fn who_is_refused_learns_why_on_either_side() {
    let swarm = Some(SwarmId([7; 32]));
    let refuse =
        || Admission::Refuse { code: RefuseCode::OtherSwarm, text: "not\x1b[2J ours".into() };
    let ann = Setup::real(1).start().await;
    let bob = Setup {
        judge: Box::new(move |_| refuse()),
        intro: Introduction { swarm, ..Introduction::default() },
        ..Setup::real(2)
    };
    let bob = bob.start().await;
    let Err(DialError::Refused { peer, refuse, .. }) = ann.dial(&bob).await else { panic!("in") };
    assert_eq!((peer, refuse.code, refuse.swarm), (bob.id, RefuseCode::OtherSwarm, swarm));
    assert_eq!(refuse.to_string(), "not\\u{1b}[2J ours");
    let Err(DialError::Unwelcome { peer, .. }) = bob.dial(&ann).await else { panic!("in") };
    assert_eq!(peer, ann.id);
    assert!(ann.transport.connections().is_empty() && bob.transport.connections().is_empty());
}

#[tokio::test]
async fn a_stranger_may_ask_to_join_and_nothing_else() {
    let ann = Setup::real(1).start().await;
    let judge = Box::new(|_| Admission::Stranger);
    let limits = Limits { strangers: 1, ..Limits::default() };
    let bob = Setup { judge, limits, ..Setup::real(2) }.start().await;
    ann.echo(&bob.peer()).await.unwrap();
    let denied = ann.ask(&bob.peer(), Lane::Control, message(HANG, b"x")).await;
    let Err(RequestError::Refused(Refusal { code, .. })) = denied else { panic!("{denied:?}") };
    assert_eq!(code, Refusal::NOT_A_MEMBER);

    let bulk = ann.transport.dial(bob.addr(), None, Lane::Bulk).await;
    let Err(DialError::Refused { refuse, .. }) = bulk else { panic!("{bulk:?}") };
    assert_eq!(refuse.code, RefuseCode::NotAMember);
    let eve = Setup::real(3).start().await;
    let Err(DialError::Refused { refuse, .. }) = eve.dial(&bob).await else { panic!("in") };
    assert_eq!(refuse.code, RefuseCode::Busy);

    // Its one-way messages are not heard, and a long head ends the connection.
    ann.transport.notify(bob.id, message(ECHO, b"gossip")).unwrap();
    ann.echo(&bob.peer()).await.unwrap();
    static LONG: [u8; 5000] = [0; 5000];
    let long = ann.ask(&bob.peer(), Lane::Control, message(ECHO, &LONG)).await;
    assert_eq!(long, Err(RequestError::Lost));
}

#[tokio::test]
async fn a_peer_can_be_turned_away_later() {
    let (ann, bob) = (Setup::real(1).start().await, Setup::real(2).start().await);
    ann.dial(&bob).await.unwrap();
    bob.handler.until(|events| Recorder::ups(events) == 1).await;
    bob.transport.refuse(ann.id, RefuseCode::Denied, "your grant was taken back");
    let events = ann.handler.until(|events| Recorder::downs(events) == 1).await;
    let Some(LinkEvent::Down { how: Ended::Refused(refuse), .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(refuse.code, RefuseCode::Denied);
    ann.has_connections(0).await;
    bob.has_connections(0).await;
}

#[tokio::test]
async fn a_node_without_tls_gets_nowhere() {
    let bob = Setup::real(2).start().await;
    let security = Security::named_for_simulation();
    let limits = Limits { handshake: Duration::from_secs(1), ..Limits::default() };
    let ann = Setup { security, limits, ..Setup::real(1) }.start().await;
    assert!(ann.dial(&bob).await.is_err());
    assert!(bob.dial(&ann).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let ann = Setup::real(1).start().await;
    let setup = Setup::real(2);
    let again = Transport::start(Options {
        key: NodeKey::from_seed(&[2; 32]),
        net: setup.net,
        rng: setup.rng,
        limits: setup.limits,
        listen: vec![ann.addr()],
        handler: Arc::clone(&ann.handler) as Arc<dyn Handler>,
        security: setup.security,
        requests: Buffers::new(0),
        responses: Buffers::new(0),
    });
    let Err(StartError::AddressInUse(addr)) = again.await else { panic!("started") };
    assert_eq!(addr, ann.addr());
}

#[tokio::test]
async fn a_stranger_that_comes_back_as_a_member_is_news() {
    let ann = Setup::real(1).start().await;
    let member = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_member = Arc::clone(&member);
    let judge = Box::new(move |_| match is_member.load(std::sync::atomic::Ordering::Relaxed) {
        true => Admission::Member,
        false => Admission::Stranger,
    });
    let bob = Setup { judge, ..Setup::real(2) }.start().await;
    ann.dial(&bob).await.unwrap();
    bob.handler.until(|events| Recorder::ups(events) == 1).await;
    member.store(true, std::sync::atomic::Ordering::Relaxed);
    ann.dial(&bob).await.unwrap();
    let events = bob.handler.until(|events| Recorder::ups(events) == 2).await;
    assert!(matches!(events[0], LinkEvent::Up { stranger: true, .. }));
    assert!(matches!(events[1], LinkEvent::Down { .. }));
    assert!(matches!(events[2], LinkEvent::Up { stranger: false, .. }));
}
