//! How nodes get in: by approval at any member.

use crate::fixture::{Place, addr, get, noise, put, until, until_met, until_status};
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
