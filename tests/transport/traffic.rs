//! Requests, answers and closing over real sockets.

use crate::fixture::{
    ECHO, ECHO_BODY, HANG, REFUSED, Recorder, SINK, SOON, Setup, TestNode, chunk, message,
};
use p2pfs::transport::{Ended, LinkEvent, Message, RequestError};
use p2pfs::wire::frame::{BODY_MAX, HEAD_MAX, Refusal};
use p2pfs::wire::hello::Lane;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

async fn pair(budget: usize) -> (Arc<TestNode>, Arc<TestNode>) {
    let ann = Setup { budget, ..Setup::real(1) }.start().await;
    let bob = Setup { budget, ..Setup::real(2) }.start().await;
    (Arc::new(ann), Arc::new(bob))
}

#[tokio::test]
async fn requests_are_answered_or_refused_and_notes_arrive() {
    let (ann, bob) = pair(24 << 20).await;
    ann.echo(&bob.peer()).await.unwrap();
    let refused = ann.ask(&bob.peer(), Lane::Control, message(REFUSED, b"")).await;
    let refusal = Refusal { code: 40, text: "no room".into() };
    assert_eq!(refused, Err(RequestError::Refused(refusal)));
    let note = message(ECHO, b"gossip");
    ann.transport.notify(bob.id, note.clone()).unwrap();
    assert_eq!(bob.handler.noted(1).await, note);
    // The other way over the same connection, although bob never dialled.
    bob.transport.notify(ann.id, note.clone()).unwrap();
    assert_eq!(ann.handler.noted(1).await, note);
    bob.echo(&ann.peer()).await.unwrap();
    assert_eq!(bob.transport.connections().len(), 1);

    let full =
        Message { kind: ECHO_BODY, head: vec![1; HEAD_MAX].into(), body: vec![2; BODY_MAX].into() };
    assert_eq!(ann.ask(&bob.peer(), Lane::Bulk, full.clone()).await, Ok(full.clone()));
    let longer = Message { body: vec![2; BODY_MAX + 1].into(), ..full.clone() };
    let never_sent = ann.ask(&bob.peer(), Lane::Bulk, longer).await;
    assert_eq!(never_sent, Err(RequestError::DoesNotFit));
    let wrong_lane = ann.ask(&bob.peer(), Lane::Control, full).await;
    assert_eq!(wrong_lane, Err(RequestError::DoesNotFit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_send_to_each_other_never_wait_for_each_others_memory() {
    // The smallest budget there is: one full frame.
    let (ann, bob) = pair(0).await;
    let mut work = JoinSet::new();
    for n in 0..48u8 {
        let (from, to) = if n % 2 == 0 { (&ann, &bob) } else { (&bob, &ann) };
        let (from, to) = (Arc::clone(from), to.peer());
        work.spawn(async move {
            let sent = chunk(ECHO_BODY, n, 1 << 20);
            let got = from.ask(&to, Lane::Bulk, sent.clone()).await.unwrap();
            assert!(got == sent);
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_given_up_leave_the_connection_whole() {
    let (ann, bob) = pair(24 << 20).await;
    ann.ask(&bob.peer(), Lane::Bulk, chunk(SINK, 0, 10)).await.unwrap();
    for n in 0..200u8 {
        let request = chunk(ECHO_BODY, n, 200_000);
        let short = Duration::from_micros(u64::from(n) * 20);
        let peer = bob.peer();
        let _given_up = tokio::time::timeout(short, ann.ask(&peer, Lane::Bulk, request)).await;
    }
    let sent = chunk(ECHO_BODY, 1, 1 << 20);
    assert!(ann.ask(&bob.peer(), Lane::Bulk, sent.clone()).await.unwrap() == sent);
    let stats = ann.transport.connections();
    assert_eq!(stats.len(), 1, "{stats:#?}");
    assert!(stats[0].age > Duration::from_millis(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_dial_each_other_at_once_end_with_one_connection() {
    let mut work = JoinSet::new();
    for _ in 0..8 {
        work.spawn(async {
            let (ann, bob) = pair(0).await;
            let (there, back) = tokio::join!(ann.dial(&bob), bob.dial(&ann));
            assert_eq!((there, back), (Ok(bob.id), Ok(ann.id)));
            for count in [2, 1] {
                ann.has_connections(count).await;
                bob.has_connections(count).await;
            }
            let side = |node: &TestNode| node.transport.connections()[0].dialled;
            assert_ne!(side(&ann), side(&bob), "both keep the same one");
            ann.echo(&bob.peer()).await.unwrap();
            bob.echo(&ann.peer()).await.unwrap();
            for node in [&ann, &bob] {
                let events = node.handler.until(|events| !events.is_empty()).await;
                assert_eq!((Recorder::ups(&events), Recorder::downs(&events)), (1, 0));
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_share_one_dial() {
    let (ann, bob) = pair(0).await;
    let mut work = JoinSet::new();
    for _ in 0..100 {
        let (ann, peer) = (Arc::clone(&ann), bob.peer());
        work.spawn(async move { ann.echo(&peer).await.unwrap() });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    assert_eq!(ann.transport.connections().len(), 1);
}

#[test]
fn a_peer_that_dies_fails_its_requests_at_once_and_one_that_hangs_by_deadline() {
    let lives = tokio::runtime::Runtime::new().unwrap();
    let dies = tokio::runtime::Runtime::new().unwrap();
    let bob = dies.block_on(Setup::real(2).start());
    lives.block_on(async {
        let ann = Arc::new(Setup::real(1).start().await);
        ann.dial(&bob).await.unwrap();
        let short = Duration::from_millis(50);
        let peer = bob.peer();
        let hung = ann.transport.request(&peer, Lane::Control, message(HANG, b""), short);
        assert_eq!(hung.await, Err(RequestError::TimedOut));
        let (asker, peer) = (Arc::clone(&ann), bob.peer());
        let asked =
            tokio::spawn(async move { asker.ask(&peer, Lane::Control, message(HANG, b"")).await });
        let wait = async {
            while ann.transport.connections()[0].in_flight < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap();
        let begun = Instant::now();
        dies.shutdown_background();
        assert_eq!(asked.await.unwrap(), Err(RequestError::Lost));
        assert!(begun.elapsed() < Duration::from_secs(1));
        let events = ann.handler.until(|events| Recorder::downs(events) == 1).await;
        assert!(matches!(events.last(), Some(LinkEvent::Down { how: Ended::Lost(_), .. })));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_loses_no_request_and_a_shutdown_is_no_loss() {
    let (ann, bob) = pair(0).await;
    for n in 0..30 {
        let closer = if n % 2 == 0 { &ann } else { &bob };
        let (asker, peer) = (Arc::clone(&ann), bob.peer());
        let asked = tokio::spawn(async move { asker.echo(&peer).await });
        tokio::time::sleep(Duration::from_micros(100 * n)).await;
        closer.transport.close(if n % 2 == 0 { bob.id } else { ann.id });
        asked.await.unwrap().unwrap();
    }
    ann.echo(&bob.peer()).await.unwrap();
    bob.transport.shutdown().await;
    assert!(bob.transport.connections().is_empty());
    let events =
        ann.handler.until(|events| matches!(events.last(), Some(LinkEvent::Down { .. }))).await;
    let closed = |event: &LinkEvent| match event {
        LinkEvent::Down { how, .. } => *how == Ended::Closed,
        _ => true,
    };
    assert!(events.iter().all(closed), "{events:#?}");
    assert!(ann.dial(&bob).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_does_not_delay_a_ping() {
    let (ann, bob) = pair(8 << 20).await;
    ann.echo(&bob.peer()).await.unwrap();
    let mut work = JoinSet::new();
    for n in 0..16u8 {
        let (ann, peer) = (Arc::clone(&ann), bob.peer());
        work.spawn(async move {
            for _ in 0..8 {
                ann.ask(&peer, Lane::Bulk, chunk(SINK, n, 1 << 20)).await.unwrap();
            }
        });
    }
    let mut pings = Vec::new();
    while work.try_join_next().is_none() {
        let begun = Instant::now();
        ann.echo(&bob.peer()).await.unwrap();
        pings.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pings.sort();
    // The chunks together take far longer; a ping behind them would too.
    assert!(pings[pings.len() / 2] < Duration::from_millis(50), "{pings:?}");
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}
