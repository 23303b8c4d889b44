//! Files that are served from where they lie: nothing of them is copied, what changes is never
//! served wrong, and what is known of them survives a restart.

use crate::fixture::{Place, addr, get_as, noise, until, until_met};
use p2pfs::Node;
use p2pfs::node::{Config, Error, GetError, OnProgress, ShareError, SharerState};
use p2pfs::wire::control::{Share, ShareDone, ShareInfo, ShareState, Target};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn config(place: &Place, name: &str, bootstrap: &[SocketAddr]) -> Config {
    let mut config = place.config(name, "user", bootstrap);
    config.share_scan = Duration::from_millis(100);
    config
}

async fn start(place: &Place, name: &str, bootstrap: &[SocketAddr]) -> Node {
    Node::start(config(place, name, bootstrap)).await.unwrap()
}

async fn pair(place: &Place) -> (Node, Node) {
    let one = start(place, "one", &[]).await;
    let two = start(place, "two", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    (one, two)
}

async fn share(node: &Node, path: &Path, replicas: Option<u8>) -> Result<ShareDone, Error> {
    let quiet: OnProgress = Arc::new(|_, _| {});
    let path = p2pfs::wire::control::PathText(path.as_os_str().as_bytes().to_vec());
    node.share(Share { path, name: None, replicas }, None, quiet).await
}

fn of(peer: &str, path: &str) -> Target {
    Target::Share { peer: peer.to_owned(), path: path.into() }
}

fn shares(node: &Node) -> Vec<ShareInfo> {
    let mut all = Vec::new();
    node.list_shares(None, &mut |share| {
        all.push(share);
        true
    })
    .unwrap();
    all
}

fn names(node: &Node) -> Vec<String> {
    let name = |share: ShareInfo| String::from_utf8(share.path.0).unwrap();
    shares(node).into_iter().map(name).collect()
}

fn hashed(node: &Node) -> String {
    let workers = node.workers();
    workers.into_iter().find(|worker| worker.name == "share").map_or_else(String::new, |w| w.doing)
}

/// A directory with files, outside of the nodes' own.
fn films(place: &Place) -> (PathBuf, Vec<(&'static str, Vec<u8>)>) {
    let dir = place.path("films");
    fs::create_dir_all(dir.join("old")).unwrap();
    let files = vec![
        ("/a.mkv", noise("a", 3 * MIB + 77)),
        ("/empty", Vec::new()),
        ("/old/b.mkv", noise("b", 500)),
        ("/zeros", vec![0; 2 * MIB]),
    ];
    for (name, bytes) in &files {
        fs::write(dir.join(&name[1..]), bytes).unwrap();
    }
    (dir, files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_file_is_got_and_nothing_is_copied() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let (dir, files) = films(&place);
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    let done = share(&one, &dir, None).await.unwrap();
    assert_eq!((done.files, done.passed_over, done.failed), (4, 1, 0));
    assert_eq!((done.owner.as_str(), done.path.0.as_slice()), ("one", &b"/films"[..]));
    let names_of = async |node: &Node| {
        until("all are listed", async || {
            let names = names(node);
            (names.len() == 4).then_some(names)
        })
        .await
    };
    let wanted = ["/films/a.mkv", "/films/empty", "/films/old/b.mkv", "/films/zeros"];
    assert_eq!(names_of(&one).await, wanted);
    assert_eq!(names_of(&two).await, wanted);
    for (name, bytes) in &files {
        let target = of("one", &format!("/films{name}"));
        assert!(get_as(&two, target.clone()).await.unwrap() == *bytes, "{name}");
        // Who serves it has it as well, and somebody who knows the hash.
        assert!(get_as(&one, target).await.unwrap() == *bytes, "{name}");
        let hash = Target::Hash(p2pfs::id::FileHash(*blake3::hash(bytes).as_bytes()));
        assert!(get_as(&two, hash).await.unwrap() == *bytes, "{name}");
    }
    let status = one.status().unwrap();
    assert_eq!((status.bytes_here, status.cached_bytes, status.chunks_here), (0, 0, 0));
    assert_eq!((status.files, two.status().unwrap().files), (0, 0));
    let states: BTreeSet<_> = shares(&two).iter().map(|share| share.state as u8).collect();
    assert_eq!(states, BTreeSet::from([ShareState::There as u8]));
    let unshared = one.unshare(&"films".into(), None).await.unwrap();
    assert_eq!(unshared.files, 4);
    assert!(names(&one).is_empty());
    until("it is shared no more", async || names(&two).is_empty().then_some(())).await;
    let again = one.unshare(&"films".into(), None).await;
    assert!(matches!(again, Err(Error::Share(ShareError::NotShared))), "{again:?}");
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_never_served_wrong() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let path = place.path("changing");
    let versions: Vec<Vec<u8>> =
        (0..6).map(|n| noise(&format!("version {n}"), 2 * MIB + 300 * (n % 3))).collect();
    fs::write(&path, &versions[0]).unwrap();
    share(&one, &path, None).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (path, versions, stop) = (path.clone(), versions.clone(), stop.clone());
        std::thread::spawn(move || {
            let old = fs::metadata(&path).unwrap().modified().unwrap();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let next = &versions[n % versions.len()];
                // In place, by another file, and shorter for a while; the time is put back.
                match n % 3 {
                    0 => fs::write(&path, next).unwrap(),
                    1 => {
                        let new = path.with_extension("new");
                        fs::write(&new, next).unwrap();
                        fs::rename(&new, &path).unwrap();
                    }
                    _ => {
                        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                        file.set_len(MIB as u64).unwrap();
                        fs::write(&path, next).unwrap();
                    }
                }
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_modified(old).unwrap();
                std::thread::sleep(Duration::from_millis(30));
            }
        })
    };
    let mut got = 0;
    for _ in 0..60 {
        match get_as(&two, of("one", "/changing")).await {
            Ok(bytes) => {
                // A file that is written in place is shorter for a while.
                let written = versions.iter().any(|version| version.starts_with(&bytes));
                assert!(written, "{} bytes that nobody wrote", bytes.len());
                got += 1;
            }
            Err(Error::Get(GetError::Unavailable(err))) => assert!(!err.sharers.is_empty()),
            // Its records are on their way.
            Err(Error::NotFound { .. }) => {}
            Err(err) => panic!("{err:?}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    fs::write(&path, &versions[5]).unwrap();
    until("the last version is there", async || {
        let bytes = get_as(&two, of("one", "/changing")).await.ok()?;
        (bytes == versions[5]).then_some(())
    })
    .await;
    println!("{got} of 60 gets while it changed all the time");
    fs::remove_file(&path).unwrap();
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_hashes_nothing_again_but_what_changed_or_was_damaged() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let (dir, files) = films(&place);
    share(&one, &dir, None).await.unwrap();
    one.stop().await;
    let looked = async |node: &Node, hashed_files: u32| {
        let wanted = format!("4 files, {hashed_files} hashed");
        until(&wanted, async || (hashed(node) == wanted).then_some(())).await;
    };
    let one = start(&place, "one", &[addr(&two)]).await;
    looked(&one, 0).await;
    one.stop().await;
    // A row file of one of them is damaged, and another file has changed.
    let rows = place.path("one").join("shares");
    let folders = fs::read_dir(&rows).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut row_files: Vec<PathBuf> = folders
        .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .collect();
    assert_eq!(row_files.len(), 4);
    row_files.sort();
    let mut bytes = fs::read(&row_files[0]).unwrap();
    // In its head, which even an empty file has.
    bytes[64] ^= 4;
    fs::write(&row_files[0], bytes).unwrap();
    let one = start(&place, "one", &[addr(&two)]).await;
    looked(&one, 1).await;
    until_met(&two, 1).await;
    for (name, bytes) in &files {
        let target = of("one", &format!("/films{name}"));
        let got = until("it can be got", async || get_as(&two, target.clone()).await.ok()).await;
        assert!(got == *bytes, "{name}");
    }
    fs::write(dir.join("old/b.mkv"), b"something else").unwrap();
    looked(&one, 2).await;
    until("the new content is there", async || {
        let got = get_as(&two, of("one", "/films/old/b.mkv")).await.ok()?;
        (got == b"something else").then_some(())
    })
    .await;
    fs::remove_file(dir.join("old/b.mkv")).unwrap();
    until("it is not listed", async || (names(&two).len() == 3).then_some(())).await;
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_whose_disk_is_away_stays_listed() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let (dir, files) = films(&place);
    share(&one, &dir, None).await.unwrap();
    let elsewhere = place.path("elsewhere");
    fs::rename(&dir, &elsewhere).unwrap();
    let away = async |node: &Node| {
        until("it is away", async || {
            let all = shares(node);
            let away = all.iter().all(|share| share.state == ShareState::Away);
            (away && all.len() == 4).then_some(())
        })
        .await;
    };
    away(&one).await;
    let problems = one.status().unwrap().problems;
    assert!(problems.iter().any(|one| one.contains("the share films is away")), "{problems:?}");
    // An empty directory where it was mounted is another one.
    fs::create_dir(&dir).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    away(&one).await;
    assert!(get_as(&two, of("one", "/films/a.mkv")).await.is_err());
    fs::remove_dir(&dir).unwrap();
    fs::rename(&elsewhere, &dir).unwrap();
    let got = until("it is back", async || get_as(&two, of("one", "/films/a.mkv")).await.ok());
    assert!(got.await == files[0].1);
    assert!(hashed(&one).ends_with(", 4 hashed"), "{}", hashed(&one));
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_sharer_is_named_and_another_one_does_as_well() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let three = start(&place, "three", &[addr(&one)]).await;
    until_met(&three, 2).await;
    let bytes = noise("both", 2 * MIB + 9);
    for dir in ["x", "y"] {
        fs::create_dir(place.path(dir)).unwrap();
        fs::write(place.path(dir).join("both"), &bytes).unwrap();
        fs::write(place.path(dir).join(dir), noise(dir, 3000)).unwrap();
    }
    share(&one, &place.path("x"), None).await.unwrap();
    share(&two, &place.path("y"), None).await.unwrap();
    until("both are known", async || (shares(&three).len() == 4).then_some(())).await;
    one.stop().await;
    until_met(&three, 1).await;
    assert!(get_as(&three, of("one", "/x/both")).await.unwrap() == bytes);
    let offline = shares(&three).into_iter().find(|share| share.owner == "one").unwrap();
    assert!(offline.state == ShareState::Offline && offline.since_ms.is_some());
    match get_as(&three, of("one", "/x/x")).await {
        Err(Error::Get(GetError::Unavailable(err))) => {
            assert_eq!(err.sharers.len(), 1);
            assert_eq!(err.sharers[0].name, "one");
            assert!(matches!(err.sharers[0].state, SharerState::Away(Some(_))));
        }
        other => panic!("{other:?}"),
    }
    // What somebody has fetched can be had from there.
    assert!(get_as(&two, of("two", "/y/y")).await.is_ok());
    assert!(get_as(&three, of("two", "/y/y")).await.is_ok());
    two.stop().await;
    until_met(&three, 0).await;
    assert!(get_as(&three, of("two", "/y/y")).await.unwrap() == noise("y", 3000));
    let unknown = get_as(&three, of("nobody", "/y/y")).await;
    assert!(matches!(unknown, Err(Error::UnknownPeer)), "{unknown:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_shared_is_refused_and_copies_are_kept_when_asked_for() {
    let place = Place::new();
    let (one, two) = pair(&place).await;
    let path = place.path("file");
    fs::write(&path, noise("kept", MIB + 1)).unwrap();
    let refused = |done: Result<ShareDone, Error>, wanted: fn(&ShareError) -> bool| match done {
        Err(Error::Share(err)) => assert!(wanted(&err), "{err:?}"),
        other => panic!("{other:?}"),
    };
    let not_seen: fn(&ShareError) -> bool = |err| matches!(err, ShareError::NotSeen);
    refused(share(&one, &place.path("nothing"), None).await, not_seen);
    refused(share(&one, Path::new("file"), None).await, not_seen);
    refused(share(&one, Path::new("/dev/null"), None).await, |err| {
        matches!(err, ShareError::WrongKind)
    });
    refused(share(&one, &place.path("one"), None).await, |err| matches!(err, ShareError::Own));
    refused(share(&one, Path::new("/"), None).await, |err| matches!(err, ShareError::BadName));
    let done = share(&one, &path, Some(2)).await.unwrap();
    assert_eq!((done.failed, done.replicas), (0, Some(2)));
    fs::create_dir(place.path("d")).unwrap();
    fs::write(place.path("d").join("file"), b"x").unwrap();
    refused(share(&one, &place.path("d").join("file"), None).await, |err| {
        matches!(err, ShareError::NameTaken(_))
    });
    let hash = Target::Hash(done.hash.unwrap());
    one.stop().await;
    assert!(get_as(&two, hash).await.unwrap() == noise("kept", MIB + 1));
    two.stop().await;
}
