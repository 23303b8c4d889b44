//! What programs change through a node at moments that chance seldom meets: while a version is made,
//! or while the disk fails. The disk waits or fails as a test wants, so that each of them comes.

use crate::badfs::{BadFs, Call};
use crate::fixture::{Place, until, until_met};
use p2pfs::Node;
use p2pfs::node::{Changes, ROOT_NUMBER, Work};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A node alone, its disk and where its drafts are.
async fn alone(place: &Place) -> (Node, Arc<BadFs>, PathBuf) {
    let disk = Arc::new(BadFs::default());
    let mut config = place.config("one", "user", &[]);
    config.system.fs = disk.clone();
    let node = Node::start(config).await.unwrap();
    until_met(&node, 0).await;
    node.work().restored().await;
    (node, disk, place.path("one").join("drafts"))
}

/// Waits until everything is known to the others.
async fn settled(work: &Work) {
    work.flush(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_is_said_while_a_version_is_made_stays() {
    let place = Place::new();
    let (node, disk, drafts) = alone(&place).await;
    let work = node.work().another_door();
    let (stat, file) = work.create(ROOT_NUMBER, b"f", 0o644, None).unwrap();
    file.write(0, &[7; 100_000]).await.unwrap();
    let hold = disk.hold(Call::Read, &drafts);
    drop(file);
    until("a version is being made", async || hold.is_reached().then_some(())).await;
    let changes = Changes { modified_ns: Some(Some(1_000_000_007)), ..Changes::default() };
    work.set(stat.number, &changes).await.unwrap();
    drop(hold);
    settled(&work).await;
    assert_eq!(work.stat(stat.number).unwrap().modified_ns, 1_000_000_007);
    // What is written later is of a later time.
    let file = work.open(stat.number, true).unwrap();
    file.write(0, b"again").await.unwrap();
    drop(file);
    settled(&work).await;
    assert!(work.stat(stat.number).unwrap().modified_ns > 1_000_000_007);
    node.stop().await;
}
