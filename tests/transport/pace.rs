//! Limits of how fast bytes go, over real sockets.

use crate::fixture::{HANG, SINK, Setup, TestNode, chunk, message};
use p2pfs::transport::{Message, Rates, RequestError};
use p2pfs::wire::hello::Lane;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

async fn pair() -> (TestNode, TestNode) {
    let (ann, bob) = (Setup::real(1).start().await, Setup::real(2).start().await);
    // The connection is there before anything is measured.
    ann.ask(&bob.peer(), Lane::Bulk, chunk(SINK, 0, 10)).await.unwrap();
    ann.echo(&bob.peer()).await.unwrap();
    (ann, bob)
}

/// Sends so many chunks of a mebibyte one after the other; how long that takes.
async fn send(from: &TestNode, to: &TestNode, chunks: u8) -> Duration {
    let begun = Instant::now();
    for seed in 0..chunks {
        from.ask(&to.peer(), Lane::Bulk, chunk(SINK, seed, MIB)).await.unwrap();
    }
    begun.elapsed()
}

fn limit(node: &TestNode, peer: Option<&TestNode>, up: usize, down: usize) {
    let rate = |rate: usize| Some(rate as u64).filter(|rate| *rate > 0);
    let rates = Rates { up: rate(up), down: rate(down) };
    node.transport.pace().set(peer.map(|peer| peer.id), rates).unwrap();
}

/// Whether a span is what it should be, less a burst and more what a busy machine adds.
fn about(took: Duration, seconds: f64) -> bool {
    (seconds * 0.85..seconds * 1.25 + 0.3).contains(&took.as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_keep_to_the_limits_of_both_ends_and_control_does_not_wait() {
    let (ann, bob) = pair().await;
    for (up, down, seconds) in [(4 * MIB, 0, 1.0), (0, 2 * MIB, 2.0), (2 * MIB, 8 * MIB, 2.0)] {
        limit(&ann, None, up, 0);
        limit(&bob, None, 0, down);
        let pings = async {
            let mut took = Vec::new();
            for _ in 0..20 {
                let begun = Instant::now();
                ann.echo(&bob.peer()).await.unwrap();
                took.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            took.sort_unstable();
            took[took.len() / 2]
        };
        let (took, ping) = tokio::join!(send(&ann, &bob, 4), pings);
        assert!(about(took, seconds), "up {up}, down {down}: {took:?}");
        assert!(ping < Duration::from_millis(100), "{ping:?}");
    }
    limit(&ann, None, 0, 0);
    limit(&bob, None, 0, 0);
    let took = send(&ann, &bob, 16).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let sent = ann.transport.totals()[&bob.id].sent;
    assert!((28 * MIB as u64..29 * MIB as u64).contains(&sent), "{sent}");
    assert!(bob.transport.totals()[&ann.id].received >= sent - 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_one_peer_is_not_that_of_another_and_a_change_counts_at_once() {
    let (ann, bob) = pair().await;
    let cat = Setup::real(3).start().await;
    send(&ann, &cat, 1).await;
    limit(&ann, Some(&bob), MIB, 0);
    let change = async {
        let took = send(&ann, &cat, 8).await;
        assert!(took < Duration::from_millis(900), "{took:?}");
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(took)).await;
        limit(&ann, Some(&bob), 0, 0);
    };
    // At the first rate it would take eight seconds.
    let (took, ()) = tokio::join!(send(&ann, &bob, 8), change);
    assert!(about(took, 1.1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_take_longer_than_its_deadline_while_its_bytes_go() {
    let (ann, bob) = pair().await;
    let second = Duration::from_secs(1);
    let ask = async |message: Message| {
        let begun = Instant::now();
        let answer = ann.transport.request(&bob.peer(), Lane::Bulk, message, second).await;
        (answer.map(drop), begun.elapsed())
    };
    // Sent slowly: ann sees what goes. Taken slowly: it is all in sockets, and only bob knows.
    for (up, down) in [(MIB / 3, 0), (0, MIB / 3)] {
        limit(&ann, None, up, 0);
        limit(&bob, None, 0, down);
        let (answer, took) = ask(chunk(SINK, 1, MIB)).await;
        assert_eq!(answer, Ok(()), "{up} {down}: {took:?}");
        assert!(about(took, 3.0), "{took:?}");
    }
    limit(&bob, None, 0, 0);
    tokio::time::sleep(second).await;
    let (answer, took) = ask(message(HANG, b"")).await;
    assert_eq!(answer, Err(RequestError::TimedOut));
    assert!(about(took, 1.0), "{took:?}");
}
