//! Nodes whose bytes go slowly on purpose: nothing fails for it, and nothing is sent twice.

use crate::fixture::{Place, addr, get, noise, put, until, until_met};
use p2pfs::Node;
use p2pfs::wire::control::{Limit, Wait};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn limit_up(node: &Node, rate: usize) {
    node.limit(&Limit { up: Some(rate as u64), ..Limit::default() }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paced_holders_are_not_hedged() {
    let place = Place::new();
    let mut config = place.config("ann", "user", &[]);
    config.replicas = 2;
    let ann = Node::start(config).await.unwrap();
    let bob = place.start("bob", "user", &[addr(&ann)]).await;
    until_met(&ann, 1).await;
    let bytes = noise("paced", 16 * MIB);
    let stored = put(&ann, "/f", &bytes, Some(Wait::All)).await;
    assert_eq!(stored.copies, 2);
    let mut config = place.config("cat", "user", &[addr(&ann)]);
    // No copies come to it before it asks.
    config.capacity = Some(0);
    let cat = Node::start(config).await.unwrap();
    until_met(&cat, 2).await;
    // Each of the eight chunks that are asked for at once takes two seconds or more.
    limit_up(&ann, 2 * MIB);
    limit_up(&bob, 2 * MIB);
    let before = cat.status().unwrap().received_bytes;
    let begun = Instant::now();
    assert!(get(&cat, stored.hash).await == bytes);
    let took = begun.elapsed();
    let came = cat.status().unwrap().received_bytes - before;
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(9), "{took:?}");
    let most = bytes.len() as u64 * 21 / 20;
    assert!(came < most, "{came} bytes came for {}", bytes.len());
    for node in [ann, bob, cat] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_put_is_acknowledged_and_the_limit_can_be_raised_meanwhile() {
    let place = Place::new();
    let mut config = place.config("ann", "user", &[]);
    config.replicas = 2;
    config.limit_up = Some(2 * MIB as u64);
    let ann = Node::start(config).await.unwrap();
    let bob = place.start("bob", "user", &[addr(&ann)]).await;
    until_met(&ann, 1).await;
    let begun = Instant::now();
    let stored = put(&ann, "/f", &noise("slow", 8 * MIB), Some(Wait::All)).await;
    let took = begun.elapsed();
    assert_eq!(stored.copies, 2);
    assert!(took > Duration::from_millis(3_500), "{took:?}");
    // Sixteen seconds, if the limit stayed.
    let raise = async {
        until("the limit to be reached", async || {
            let now_up = ann.limit(&Limit::default()).unwrap().all.now_up;
            (now_up > MIB as u64).then_some(())
        })
        .await;
        let limits = ann.limit(&Limit { up: Some(0), ..Limit::default() }).unwrap();
        assert_eq!(limits.all.up, None);
    };
    let begun = Instant::now();
    let bytes = noise("slow and then fast", 32 * MIB);
    let (stored, ()) = tokio::join!(put(&ann, "/g", &bytes, Some(Wait::All)), raise);
    assert_eq!(stored.copies, 2);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    for node in [ann, bob] {
        node.stop().await;
    }
}
