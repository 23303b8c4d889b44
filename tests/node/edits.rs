//! Edits of open files, as a mount makes them, on disks that are slow and of files that are long.

use crate::badfs::{BadFs, Call};
use crate::fixture::{Place, noise, until, until_met, until_status};
use p2pfs::Node;
use p2pfs::node::ROOT_NUMBER;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synced_file_that_is_made_shorter_is_read_and_written_while_that_is_synced() {
    let (place, fs) = (Place::new(), Arc::new(BadFs::default()));
    let mut config = place.config("one", "user", &[]);
    config.system.fs = fs.clone();
    let node = Node::start(config).await.unwrap();
    until_met(&node, 0).await;
    let bytes = noise("f", 3 * MIB);
    let (_, file) = node.work().create(ROOT_NUMBER, b"f", 0o644, None).unwrap();
    let file = Arc::new(file);
    file.write(Some(0), &bytes).await.unwrap();
    file.sync().await.unwrap();
    let hold = fs.hold(Call::Sync, &place.path("one").join("drafts"));
    let cut = file.clone();
    let cutting = tokio::spawn(async move { cut.resize(MIB as u64 + 5).await });
    until("it is synced", async || hold.is_reached().then_some(())).await;
    let used = file.clone();
    let using = tokio::spawn(async move {
        used.write(Some(10), b"new").await.unwrap();
        // What is behind the next end may go as well as stay.
        used.write(Some(2 * MIB as u64), b"new").await.unwrap();
        used.read(5, 10).await.unwrap()
    });
    let used = tokio::time::timeout(Duration::from_secs(20), using).await;
    let is_cut = cutting.is_finished();
    drop(hold);
    let seen = used.expect("nobody waits for the disk").unwrap();
    assert_eq!(seen, [&bytes[5..10], b"new", &bytes[13..15]].concat());
    assert!(!is_cut, "its bytes are dropped when others are durable");
    cutting.await.unwrap().unwrap();
    assert_eq!(file.size(), MIB as u64 + 5);
    assert_eq!(file.read(MIB as u64, 100).await.unwrap(), bytes[MIB..MIB + 5]);
    drop(file);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_ahead_of_a_new_file_and_then_written_again_is_let_go() {
    let place = Place::new();
    let mut config = place.config("one", "user", &[]);
    config.gc_grace = Duration::from_secs(2);
    let node = Node::start(config).await.unwrap();
    until_met(&node, 0).await;
    let mut bytes = noise("f", 24 * MIB);
    let (stat, file) = node.work().create(ROOT_NUMBER, b"f", 0o644, None).unwrap();
    for (number, chunk) in bytes.chunks(MIB).enumerate() {
        file.write(Some((number * MIB) as u64), chunk).await.unwrap();
    }
    until("most of it is stored ahead", async || {
        // A file at rest would become a version.
        file.write(Some(bytes.len() as u64), b"x").await.unwrap();
        bytes.push(b'x');
        (node.status().ok()?.bytes_here > 20 * MIB as u64).then_some(())
    })
    .await;
    let other = noise("other", 3 * MIB);
    file.write(Some(5 * MIB as u64), &other).await.unwrap();
    bytes[5 * MIB..8 * MIB].copy_from_slice(&other);
    drop(file);
    let hash = until("a version", async || node.work().hash(stat.number).unwrap()).await;
    assert_eq!(hash.0, *blake3::hash(&bytes).as_bytes());
    until_status("what it does not have goes", &node, |status| {
        (24 * MIB as u64..24 * MIB as u64 + 500_000).contains(&status.bytes_here)
    })
    .await;
    let file = node.work().open(stat.number, false).unwrap();
    let mut seen = Vec::new();
    while seen.len() < bytes.len() {
        seen.extend(file.read(seen.len() as u64, MIB).await.unwrap());
    }
    assert!(seen == bytes);
    drop(file);
    node.stop().await;
}
