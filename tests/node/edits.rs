//! Edits of open files, as a mount makes them, on disks that are slow.

use crate::badfs::BadFs;
use crate::fixture::{Place, noise, until, until_met};
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
    file.write(0, &bytes).await.unwrap();
    file.sync().await.unwrap();
    fs.hold_syncs(Some(place.path("one").join("drafts")));
    let cut = file.clone();
    let cutting = tokio::spawn(async move { cut.resize(MIB as u64 + 5).await });
    until("it is synced", async || (fs.held_syncs() > 0).then_some(())).await;
    let used = file.clone();
    let using = tokio::spawn(async move {
        used.write(10, b"new").await.unwrap();
        // What is behind the next end may go as well as stay.
        used.write(2 * MIB as u64, b"new").await.unwrap();
        used.read(5, 10).await.unwrap()
    });
    let used = tokio::time::timeout(Duration::from_secs(20), using).await;
    let is_cut = cutting.is_finished();
    fs.hold_syncs(None);
    let seen = used.expect("nobody waits for the disk").unwrap();
    assert_eq!(seen, [&bytes[5..10], b"new", &bytes[13..15]].concat());
    assert!(!is_cut, "its bytes are dropped when others are durable");
    cutting.await.unwrap().unwrap();
    assert_eq!(file.size(), MIB as u64 + 5);
    assert_eq!(file.read(MIB as u64, 100).await.unwrap(), bytes[MIB..MIB + 5]);
    drop(file);
    node.stop().await;
}
