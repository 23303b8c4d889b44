//! How nodes get in: by approval at any member, by a copied swarm key, into an open swarm.

use crate::fixture::{
    Place, addr, copy_swarm_key, get, noise, put, until, until_met, until_status,
};
use p2pfs::wire::control::NodeState;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_the_bootstrap_approves() {
    let place = Place::new();
    let host = place.start("host", "user", &[]).await;
    let admin = place.start("admin", "user", &[addr(&host)]).await;
    until_met(&admin, 1).await;
    let stored = put(&admin, "/file", &noise("approved", 3_000_000), None).await;

    let guest = place.start("guest", "stranger", &[addr(&host)]).await;
    let waiting = until_status("a code is shown", &guest, |s| s.code.is_some()).await;
    assert_eq!(waiting.state, NodeState::Waiting);
    let code = waiting.code.unwrap();
    let wrong = if code.starts_with('A') { "BBBB-BBBB" } else { "AAAA-AAAA" };
    until_status("the host sees who waits", &host, |s| !s.waiting.is_empty()).await;
    assert!(admin.approve(wrong).await.is_err());
    assert_eq!(admin.approve(&code).await.unwrap().node.name, "guest");
    until_met(&guest, 2).await;
    until_met(&host, 2).await;
    until_met(&admin, 2).await;
    assert_eq!(get(&guest, stored.hash).await, noise("approved", 3_000_000));
    until("nobody waits any more", async || {
        host.status().unwrap().waiting.is_empty().then_some(())
    })
    .await;
    for node in [guest, admin, host] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away_stays_outside() {
    let place = Place::new();
    let host = place.start("host", "user", &[]).await;
    let guest = place.start("guest", "stranger", &[addr(&host)]).await;
    until_status("the host sees who waits", &host, |s| !s.waiting.is_empty()).await;
    host.deny("guest").await.unwrap();
    let refused = |s: &p2pfs::wire::control::Status| {
        s.problems.iter().any(|problem| problem.contains("turned this node away"))
    };
    until_status("it is told so", &guest, refused).await;
    assert!(host.status().unwrap().waiting.is_empty());
    guest.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_nothing_but_the_swarm_key_reads() {
    let place = Place::new();
    let host = place.start("host", "user", &[]).await;
    let stored = put(&host, "/file", &noise("key", 100_000), None).await;
    copy_swarm_key(&place.path("user"), &place.path("other"));
    let other = place.start("other", "other", &[addr(&host)]).await;
    until_met(&other, 1).await;
    assert_eq!(get(&other, stored.hash).await, noise("key", 100_000));
    other.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_waits_lets_itself_in_when_the_swarm_key_comes_and_can_write() {
    let place = Place::new();
    let host = place.start("host", "user", &[]).await;
    let other = place.start("other", "other", &[addr(&host)]).await;
    until_status("it waits", &other, |status| status.state == NodeState::Waiting).await;
    copy_swarm_key(&place.path("user"), &place.path("other"));
    until_met(&other, 1).await;
    let stored = put(&other, "/file", &noise("late key", 100_000), None).await;
    assert_eq!(get(&host, stored.hash).await, noise("late key", 100_000));
    other.stop().await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_swarm_lets_everybody_in() {
    let place = Place::new();
    let mut config = place.config("host", "user", &[]);
    config.open = true;
    let host = p2pfs::Node::start(config).await.unwrap();
    let stored = put(&host, "/file", &noise("open", 100_000), None).await;
    let first = place.start("first", "stranger", &[addr(&host)]).await;
    until_met(&first, 1).await;
    assert_eq!(get(&first, stored.hash).await, noise("open", 100_000));
    // Through one that got in itself, with the founder gone, and what it writes counts.
    host.stop().await;
    let second = place.start("second", "another", &[addr(&first)]).await;
    until_met(&second, 1).await;
    let more = put(&second, "/more", &noise("more", 100_000), None).await;
    assert_eq!(get(&first, more.hash).await, noise("more", 100_000));
    second.stop().await;
    first.stop().await;
}
