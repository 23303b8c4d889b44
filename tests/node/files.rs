//! What nodes keep for each other, and that much at once is as good as one after the other.

use crate::fixture::{
    Place, addr, get, get_now, noise, put, slow_put, try_put, until, until_met, until_status,
};
use p2pfs::Node;
use p2pfs::node::{Error, PublishError};
use p2pfs::sys::os::OsClock;
use p2pfs::sys::{Clock, Time};
use p2pfs::wire::control::{Put, Wait};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_files_at_once_get_in_and_out() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let two = place.start("two", "user", &[addr(&one)]).await;
    until_met(&one, 1).await;
    let (one, two) = (Arc::new(one), Arc::new(two));
    let mut work = tokio::task::JoinSet::new();
    for n in 0..6 {
        let node = one.clone();
        work.spawn(async move {
            let name = format!("/file{n}");
            put(&node, &name, &noise(&name, 6 * MIB + n), Some(Wait::Copies(2))).await.hash
        });
    }
    let hashes = tokio::time::timeout(Duration::from_secs(60), work.join_all()).await;
    let mut work = tokio::task::JoinSet::new();
    for hash in hashes.expect("puts wait for each other") {
        let node = two.clone();
        work.spawn(async move {
            let bytes = get_now(&node, hash).await.expect("it was just put");
            assert_eq!(blake3::hash(&bytes), hash.0);
        });
    }
    let read = tokio::time::timeout(Duration::from_secs(60), work.join_all()).await;
    assert!(read.is_ok(), "gets wait for each other");
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_was_away_gets_its_copies_back() {
    let place = Place::new();
    let config = |name: &str, bootstrap: &[_]| {
        let mut config = place.config(name, "user", bootstrap);
        config.replicas = 2;
        config
    };
    let one = Node::start(config("one", &[])).await.unwrap();
    let at = [addr(&one)];
    let two = Node::start(config("two", &at)).await.unwrap();
    let three = Node::start(config("three", &at)).await.unwrap();
    for node in [&one, &two, &three] {
        until_met(node, 2).await;
    }
    three.stop().await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    let file = noise("away", 12 * MIB);
    let stored = put(&one, "/away", &file, Some(Wait::All)).await;
    assert!(stored.wait_met && stored.copies == 2 && stored.machines == 2, "{stored:?}");
    assert!(three.status().is_err(), "it has stopped");
    // The handle of the one that stopped is still there: it must not keep the directory.
    let back = Node::start(config("three", &at)).await.unwrap();
    let homes = until_status("copies come back", &back, |s| s.chunks_here > 0).await;
    assert!(homes.chunks_here <= 13);
    until("nothing lacks a copy", async || {
        [&one, &two, &back].iter().all(|n| n.status().unwrap().under_replicated == 0).then_some(())
    })
    .await;
    assert_eq!(get(&back, stored.hash).await, file);
    for node in [one, two, back] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_waits_for_copies_is_told_the_truth() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let first = put(&one, "/f", &noise("a", 3 * MIB), None).await;
    assert_eq!((first.copies, first.machines, first.wait_met), (1, 1, true));
    let at = [addr(&one)];
    let two = place.start("two", "user", &at).await;
    until_met(&one, 1).await;
    let put = put(&one, "/f", &noise("b", 3 * MIB), Some(Wait::Copies(2))).await;
    assert!(put.wait_met && put.copies >= 2);
    until_status("the third copies lack a node", &one, |s| s.under_replicated > 0).await;
    let three = place.start("three", "user", &at).await;
    for node in [&one, &two, &three] {
        until_status("nothing lacks a copy", node, |s| s.under_replicated == 0).await;
    }
    for node in [three, two, one] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_damaged_on_a_disk_come_from_other_nodes() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let two = place.start("two", "user", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    // Without content, so that all that is damaged is records.
    let hash = put(&one, "/empty", b"", None).await.hash;
    get(&two, hash).await;
    for segment in std::fs::read_dir(place.path("two").join("segments")).unwrap() {
        let path = segment.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(64).step_by(97).for_each(|byte| *byte ^= 1);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    }
    assert!(get_now(&two, hash).await.is_some(), "the records were not fetched");
    until_status("all is well", &two, |s| s.problems.is_empty()).await;
    one.stop().await;
    assert!(get_now(&two, hash).await.is_some(), "the records were not kept");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_by_any_record_whose_chunks_are_there() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let two = place.start("two", "user", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    // The same content as two kinds of chunks, and one copy of each: where it is, is chance.
    let put_at = async |node: &Node, seed: u8, compress| {
        let path = Some(format!("/{seed}").as_str().into());
        let put = Put { path, replicas: Some(1), compress, ..Put::default() };
        let text = format!("{seed} and much of the same, ").repeat(1000);
        try_put(node, put, text.as_bytes()).await.unwrap()
    };
    let mut found = None;
    for seed in 0..64 {
        let packed = put_at(&one, seed, true).await;
        let plain = put_at(&two, seed, false).await;
        if packed.holders == ["one"] && plain.holders == ["two"] {
            found = Some(plain.hash);
            break;
        }
    }
    let hash = found.expect("chance has put 64 files elsewhere");
    assert!(get_now(&one, hash).await.is_some());
    two.stop().await;
    // What was read is kept here as well, so only a new start forgets it.
    one.stop().await;
    std::fs::remove_dir_all(place.path("one").join("cache")).unwrap();
    let one = place.start("one", "user", &[]).await;
    assert!(get_now(&one, hash).await.is_some(), "the packed chunk is here");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_takes_longer_than_claims_last_loses_nothing_even_if_it_was_moved() {
    let place = Place::new();
    let start = async |name: &str, bootstrap: &[SocketAddr]| {
        let mut config = place.config(name, "user", bootstrap);
        (config.lapse_after, config.gc_grace) = (Duration::from_secs(8), Duration::from_secs(1));
        config.repair_delay = Duration::from_millis(500);
        Node::start(config).await.unwrap()
    };
    let one = start("one", &[]).await;
    let others = [start("two", &[addr(&one)]).await, start("three", &[addr(&one)]).await];
    until_met(&one, 2).await;
    let bytes = noise("slow", 32 << 20);
    let put = Put { path: Some("/slow".into()), replicas: Some(1), ..Put::default() };
    let needed = |node: &Node| node.status().unwrap().chunks_here;
    let empty_one = async {
        let has_some = || others.iter().find(|node| needed(node) > 0);
        let goes = until("another node has some", async || has_some()).await;
        goes.drain(true).await.unwrap();
        until("it is empty", async || (needed(goes) == 0).then_some(())).await;
    };
    let (stored, ()) =
        tokio::join!(slow_put(&one, put, &bytes, Duration::from_secs(12)), empty_one);
    let hash = stored.unwrap().hash;
    assert!(get_now(&others[0], hash).await.is_some_and(|got| got == bytes), "all of it");
    // The time has passed after which nothing would be there that was not renewed.
    let renewed = needed(&one) + needed(&others[0]) + needed(&others[1]);
    assert!(renewed >= 33, "32 chunks and the manifest: {renewed}");
    for node in [&one, &others[0], &others[1]] {
        node.stop().await;
    }
}

/// A wall clock that is two minutes ahead.
struct Ahead(OsClock);

impl Clock for Ahead {
    fn now(&self) -> Time {
        self.0.now()
    }

    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() + 120_000
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_the_others_refuse_is_not_called_stored() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let mut config = place.config("two", "user", &[addr(&one)]);
    config.system.clock = Arc::new(Ahead(OsClock::new()));
    let two = Node::start(config).await.unwrap();
    until_met(&two, 1).await;
    // Nor when it is repeated: then the records are at this node, but at no other.
    for _ in 0..2 {
        let put = Put { path: Some("/early".into()), ..Put::default() };
        let refused = try_put(&two, put, &noise("from the future", 3 << 20)).await;
        let ahead = matches!(refused, Err(Error::Publish(PublishError::ClockAhead)));
        assert!(ahead, "{refused:?}");
    }
    // And what was stored for it is kept by nobody.
    for node in [&one, &two] {
        until_status("nothing is needed", node, |status| status.chunks_here == 0).await;
    }
    two.stop().await;
    one.stop().await;
}
