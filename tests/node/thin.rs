//! Former versions are thinned when their time has come and everybody is there.

use crate::fixture::{Place, addr, get, noise, put, until, until_met, until_status};
use p2pfs::Node;
use p2pfs::sys::os::OsClock;
use p2pfs::sys::{Clock, Time};
use p2pfs::wire::control::Wait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;

/// A wall clock that is ahead of the real one, by as much as one likes.
struct Ahead {
    real: OsClock,
    by_ms: AtomicU64,
}

impl Ahead {
    /// Shows the beginning of an hour, so that what follows is all of one.
    fn new() -> Self {
        let real = OsClock::new();
        let by_ms = AtomicU64::new(HOUR_MS - real.wall_ms() % HOUR_MS);
        Self { real, by_ms }
    }

    fn pass(&self, hours: u64) {
        self.by_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn now(&self) -> Time {
        self.real.now()
    }

    fn wall_ms(&self) -> u64 {
        self.real.wall_ms() + self.by_ms.load(Ordering::Relaxed)
    }
}

async fn versions(node: &Node) -> usize {
    node.history(&"/f".into()).await.unwrap().len()
}

/// Waits until the worker that thins has looked for what is due.
async fn until_looked(node: &Node) {
    let next = || {
        let workers = node.workers();
        let release = workers.iter().find(|worker| worker.name == "release").unwrap();
        release.next_ms.unwrap_or(0)
    };
    let mut last = next();
    until("it has looked for what is due", async || {
        let looked = next() > last;
        last = next();
        looked.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_thinned_after_an_hour_but_not_while_a_member_is_away() {
    let (place, clock) = (Place::new(), Arc::new(Ahead::new()));
    let start = async |name: &str, bootstrap: &[std::net::SocketAddr]| {
        let mut config = place.config(name, "user", bootstrap);
        config.system.clock = clock.clone();
        config.gc_grace = Duration::from_secs(2);
        config.replicas = 2;
        Node::start(config).await.unwrap()
    };
    let one = start("one", &[]).await;
    let two = start("two", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    let mut last = None;
    for seed in ["first", "second", "third"] {
        last = Some(put(&one, "/f", &noise(seed, 3 << 20), Some(Wait::All)).await.hash);
    }
    until("all is known", async || (versions(&two).await == 3).then_some(())).await;

    two.stop().await;
    until_status("the other one is away", &one, |status| status.peers_alive == 0).await;
    clock.pass(2);
    for _ in 0..2 {
        until_looked(&one).await;
    }
    assert_eq!(versions(&one).await, 3, "nothing is thinned while somebody is away");

    let two = start("two", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    for node in [&one, &two] {
        until("former versions go", async || (versions(node).await == 1).then_some(())).await;
        until_status("their room is free", node, |status| status.bytes_here < 4 << 20).await;
        assert!(get(node, last.unwrap()).await == noise("third", 3 << 20));
    }
    one.stop().await;
    two.stop().await;
}
