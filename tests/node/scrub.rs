//! Scrub that nobody asked for, and a disk with places that it cannot read.

use crate::badfs::BadFs;
use crate::fixture::{Place, addr, get, get_now, noise, put, until, until_met};
use crate::segments::{Stored, replicas};
use p2pfs::Node;
use p2pfs::wire::control::{ScrubFound, Wait};
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_read_again_in_time_and_a_restart_goes_on_where_it_was() {
    let place = Place::new();
    let mut config = place.config("one", "user", &[]);
    config.scrub_within = Duration::from_secs(8);
    let node = Node::start(config.clone()).await.unwrap();
    put(&node, "/f", &noise("f", 6 * MIB), None).await;
    // How far it is gets on the disk every five seconds, and all of it takes eight.
    let most = async || node.scrub().ok().filter(|info| info.running && info.found.chunks >= 5);
    until("most of a pass is done", most).await;
    node.stop().await;

    let node = Node::start(config).await.unwrap();
    let info = until("the node is a member", async || node.scrub().ok()).await;
    assert!(info.found.chunks >= 1, "it goes on: {info:?}");
    let mut whole = 0;
    until("two passes have ended", async || {
        let info = node.scrub().unwrap();
        let (chunks, now) = (node.status().unwrap().chunks_here, info.last_ms?);
        // The first one may have begun before everything was there.
        whole += u64::from(now < 100 && info.last?.chunks == chunks && chunks >= 6);
        (whole >= 2).then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_cannot_read_is_got_elsewhere_and_replaced() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let disk = Arc::new(BadFs::default());
    let mut config = place.config("two", "user", &[addr(&one)]);
    config.system.fs = disk.clone();
    let two = Node::start(config).await.unwrap();
    until_met(&one, 1).await;
    let bytes = noise("f", 4 * MIB);
    let hash = put(&one, "/f", &bytes, Some(Wait::Copies(2))).await.hash;
    assert!(get(&two, hash).await == bytes);
    let stored = replicas(&place.path("two"));
    let large: Vec<_> = stored.iter().filter(|one| one.len > 100_000).collect();
    for replica in &large[..2] {
        spoil(&disk, replica);
    }
    assert!(get_now(&two, hash).await.is_some_and(|got| got == bytes), "with bytes from the other");

    let found = two.scrub_now(|_, _| {}).await.unwrap().found;
    let expected = ScrubFound { damaged: 2, repaired: 2, ..found };
    assert_eq!((found, found.lost), (expected, 0));
    one.stop().await;
    assert!(get_now(&two, hash).await.is_some_and(|got| got == bytes), "from its own copies alone");

    // Now nobody has another copy, and what cannot be read is kept: it may be read another day.
    let stored = replicas(&place.path("two"));
    spoil(&disk, stored.iter().find(|one| one.len > 100_000).unwrap());
    let found = two.scrub_now(|_, _| {}).await.unwrap().found;
    assert_eq!((found.damaged, found.repaired, found.lost), (1, 0, 1));
    assert_eq!(two.status().unwrap().chunks_here as usize, stored.len());
    two.stop().await;
}

/// Makes a page in the payload of a replica unreadable.
fn spoil(disk: &BadFs, stored: &Stored) {
    let payload = stored.at + stored.head;
    assert!(stored.len > 8192);
    disk.spoil(&stored.file, payload + 4096..payload + 8192);
}
