//! Who is asked for what several nodes hold: the fast ones.

use crate::fixture::{Place, addr, noise, put, range, until_met};
use crate::slow_net::SlowNet;
use p2pfs::Node;
use p2pfs::node::Balance;
use p2pfs::wire::control::Wait;
use std::sync::Arc;
use std::time::Duration;

/// Reads at random, and how many bytes each of them is of.
const READS: u64 = 600;
const LEN: u64 = 64 << 10;
/// Chunks of the file that is read.
const CHUNKS: u64 = 96;

/// Reads over and over from three holders of which one is behind a long line; the part of the
/// bytes that came from that one.
async fn part_of_the_slow_one(balance: Balance) -> f64 {
    let place = Place::new();
    let fast = place.start("fast", "user", &[]).await;
    let mut config = place.config("slow", "user", &[addr(&fast)]);
    config.system.net = Arc::new(SlowNet(Duration::from_millis(50)));
    let slow = Node::start(config).await.unwrap();
    let other = place.start("other", "user", &[addr(&fast)]).await;
    until_met(&fast, 2).await;
    let bytes = noise("all hold it", usize::try_from(CHUNKS << 20).unwrap());
    let stored = put(&fast, "/f", &bytes, Some(Wait::All)).await;
    assert_eq!(stored.copies, 3);
    let mut config = place.config("reader", "user", &[addr(&fast)]);
    config.balance = balance;
    config.cache_percent = 0;
    let reader = Node::start(config).await.unwrap();
    until_met(&reader, 3).await;
    for n in 0..READS {
        // Every chunk in turn, at another place each time.
        let at = ((n % CHUNKS) << 20) + n * 1_237 % ((1 << 20) - LEN);
        let from = usize::try_from(at).unwrap();
        let got = range(&reader, stored.hash, at, LEN).await;
        assert!(got[..] == bytes[from..from + LEN as usize]);
    }
    let peers = reader.peers();
    let all: u64 = peers.iter().map(|peer| peer.received).sum();
    let from_slow = peers.iter().find(|peer| peer.name == "slow").unwrap().received;
    for node in [reader, other, slow, fast] {
        node.stop().await;
    }
    assert!(all > READS * LEN, "{all}: what was read did not come from others");
    from_slow as f64 / all as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_holder_gets_few_reads() {
    for balance in [Balance::Auto, Balance::LeastLatency] {
        let part = part_of_the_slow_one(balance).await;
        assert!(part <= 0.1, "{balance:?}: {:.1} % came from the slow one", part * 100.0);
    }
}
