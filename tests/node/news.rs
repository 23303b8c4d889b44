//! What the doors of a node are told of changes, also when more happens at once than they can be
//! behind.

use crate::fixture::{Place, addr, put, until, until_met};
use p2pfs::node::{Made, News, ROOT_NUMBER, Stale};
use std::time::Duration;

/// More than a door can be behind.
const MANY: usize = 1100;

/// Waits for a piece of news.
async fn heard(news: &mut News, wanted: &Stale) {
    let hear = async { while !news.next().await.unwrap().contains(wanted) {} };
    tokio::time::timeout(Duration::from_secs(30), hear).await.expect("it is never told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_misses_what_another_door_changed_is_told_of_all_open_files() {
    let place = Place::new();
    let node = place.start("one", "user", &[]).await;
    until_met(&node, 0).await;
    let (here, there) = (node.work().another_door(), node.work().another_door());
    let make = |name: &[u8]| here.make(ROOT_NUMBER, name, Made::File, 0o644, None);
    let (first, other) = (make(b"f").unwrap().number, make(b"g").unwrap().number);
    let (mut told, mut mine) = (there.news(), here.news());
    let open = there.open(first, false).unwrap();
    here.open(first, true).unwrap().write(Some(0), b"new").await.unwrap();
    let file = here.open(other, true).unwrap();
    for at in 0..MANY {
        file.write(Some(at as u64), b"x").await.unwrap();
    }
    heard(&mut told, &Stale::Inode(first)).await;
    assert_eq!(open.read(0, 10).await.unwrap(), b"new");
    // What is done through a door is no news there.
    there.open(other, true).unwrap().write(Some(0), b"y").await.unwrap();
    there.make(ROOT_NUMBER, b"h", Made::File, 0o644, None).unwrap();
    heard(&mut mine, &Stale::Name(ROOT_NUMBER, b"h".to_vec())).await;
    drop((open, file));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_misses_records_shows_what_is_new_in_open_files() {
    let place = Place::new();
    let one = place.start("one", "user", &[]).await;
    let two = place.start("two", "user", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    put(&two, "/f", b"old", None).await;
    let here = one.work().another_door();
    let found = until("the file is there", async || here.lookup(ROOT_NUMBER, b"f").ok()).await;
    let open = here.open(found.number, false).unwrap();
    assert_eq!(open.read(0, 10).await.unwrap(), b"old");
    let mut told = here.news();
    put(&two, "/f", b"new", None).await;
    let there = two.work();
    for number in 0..MANY {
        let name = number.to_string().into_bytes();
        there.make(ROOT_NUMBER, &name, Made::File, 0o644, None).unwrap();
    }
    until("all of it is there", async || {
        let last = (MANY - 1).to_string();
        here.lookup(ROOT_NUMBER, last.as_bytes()).ok()
    })
    .await;
    heard(&mut told, &Stale::Inode(found.number)).await;
    assert_eq!(open.read(0, 10).await.unwrap(), b"new");
    drop(open);
    for node in [one, two] {
        node.stop().await;
    }
}
