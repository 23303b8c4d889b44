//! What programs change through a node at moments that chance seldom meets: while a version is
//! made, or while the disk fails. The disk waits or fails as a test wants, so that each one comes.

use crate::badfs::{BadFs, Call, HELD};
use crate::fixture::{Place, addr, put, until, until_met};
use p2pfs::Node;
use p2pfs::id::FileHash;
use p2pfs::node::{Changes, Made, ROOT_NUMBER, Share, TreeError, Work, WorkError};
use p2pfs::wire::control::Target;
use std::path::{Path, PathBuf};
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

/// The hash of what the swarm knows at a path.
async fn known(node: &Node, path: &str) -> Option<FileHash> {
    node.stat(&Target::Path(path.into())).await.ok()?.info.hash
}

fn hash_of(bytes: &[u8]) -> FileHash {
    FileHash(blake3::hash(bytes).into())
}

fn names(work: &Work) -> Vec<String> {
    let page = work.list(ROOT_NUMBER, None, 100).unwrap();
    page.entries.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
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
    file.write(Some(0), &[7; 100_000]).await.unwrap();
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
    file.write(Some(0), b"again").await.unwrap();
    drop(file);
    settled(&work).await;
    assert!(work.stat(stat.number).unwrap().modified_ns > 1_000_000_007);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_begins_while_a_version_becomes_known_supersedes_nobody() {
    let place = Place::new();
    let (one, disk, _) = alone(&place).await;
    let two = place.start("two", "user", &[addr(&one)]).await;
    until_met(&one, 1).await;
    until_met(&two, 1).await;
    let work = one.work().another_door();
    let (stat, file) = work.create(ROOT_NUMBER, b"f", 0o644, None).unwrap();
    file.write(Some(0), b"first").await.unwrap();
    file.publish().await.unwrap();
    file.write(Some(0), b"again").await.unwrap();
    // It is being edited, so there is nothing to do but to write; and then it is not any more.
    let hold = disk.hold(Call::Space, &place.path("one"));
    let file = Arc::new(file);
    let held = file.clone();
    let write = move || held.write_now(Some(0), b"later").unwrap();
    let writer = std::thread::Builder::new().name(HELD.to_owned()).spawn(write).unwrap();
    until("the edit begins", async || hold.is_reached().then_some(())).await;
    file.publish().await.unwrap();
    until("the other one knows the version", async || {
        (known(&two, "/f").await == Some(hash_of(b"again"))).then_some(())
    })
    .await;
    drop(hold);
    assert!(writer.join().unwrap().is_some(), "all of the file is in the draft");
    put(&two, "/f", b"theirs", None).await;
    until("the other version is here", async || {
        // Written on and on, it gets no version meanwhile.
        file.write(Some(0), b"later").await.unwrap();
        (known(&one, "/f").await == Some(hash_of(b"theirs"))).then_some(())
    })
    .await;
    drop(file);
    settled(&work).await;
    let names = names(&work);
    assert!(names.len() == 2 && names[1].starts_with("f.conflict-"), "{names:?}");
    assert!(work.stat(stat.number).is_ok());
    for node in [one, two] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_gives_its_group_away_gives_no_owner_with_it() {
    let (mine, other, team) = ((1000, 1001), (2000, 2001), 3000);
    let place = Place::new();
    let mut config = place.config("one", "user", &[]);
    config.system.user = mine;
    let node = Node::start(config).await.unwrap();
    until_met(&node, 0).await;
    let work = node.work().another_door();
    let mut made = Vec::new();
    for (name, owner) in [("of-team", Some((mine.0, team))), ("mine", None)] {
        let mode = 0o2755;
        let dir = work.make(ROOT_NUMBER, name.as_bytes(), Made::Dir, mode, owner).unwrap();
        for by in [None, Some(other)] {
            let name = format!("{}", made.len());
            let stat = work.make(dir.number, name.as_bytes(), Made::Dir, 0o755, by).unwrap();
            assert_eq!(stat.mode, mode, "it goes on below");
            let name = format!("file-{name}");
            let (file, _) = work.create(dir.number, name.as_bytes(), 0o644, by).unwrap();
            assert_eq!(file.owner, stat.owner);
            made.push(stat.owner);
        }
    }
    let of_team = [Some((mine.0, team)), Some((other.0, team))];
    assert_eq!(made, [of_team, [None, Some((other.0, mine.1))]].concat());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_is_gone_though_its_draft_stays() {
    let place = Place::new();
    let (node, disk, drafts) = alone(&place).await;
    let work = node.work().another_door();
    let mut open = Vec::new();
    for (name, synced) in [("known", false), ("new", false), ("synced", true)] {
        let (_, file) = work.create(ROOT_NUMBER, name.as_bytes(), 0o644, None).unwrap();
        file.write(Some(0), b"text").await.unwrap();
        if name == "known" {
            file.publish().await.unwrap();
            file.write(Some(0), b"more").await.unwrap();
        }
        if synced {
            file.sync().await.unwrap();
        }
        open.push(file);
    }
    disk.refuse(Call::Remove, &drafts);
    for name in [&b"known"[..], b"new", b"synced"] {
        work.remove(ROOT_NUMBER, name, false).unwrap();
    }
    assert!(names(&work).is_empty());
    until("the others know", async || known(&node, "/known").await.is_none().then_some(())).await;
    drop(open);
    work.make(ROOT_NUMBER, b"d", Made::Dir, 0o755, None).unwrap();
    settled(&work).await;
    // What was synced would be there again after a crash: that is tried again.
    let before = files(&drafts).len();
    disk.allow_all();
    work.make(ROOT_NUMBER, b"e", Made::Dir, 0o755, None).unwrap();
    settled(&work).await;
    until("a draft goes", async || (files(&drafts).len() < before).then_some(())).await;
    node.stop().await;
    let node = place.start("one", "user", &[]).await;
    until_met(&node, 0).await;
    let work = node.work();
    work.restored().await;
    assert_eq!(names(&work), ["d", "e"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_cannot_be_synced_at_the_end_takes_no_other_one_with_it() {
    let place = Place::new();
    let (node, disk, drafts) = alone(&place).await;
    let work = node.work().another_door();
    // No version of them is made.
    disk.refuse(Call::Sync, &place.path("one").join("segments"));
    let mut open = Vec::new();
    for name in ["a", "b", "c"] {
        let (_, file) = work.create(ROOT_NUMBER, name.as_bytes(), 0o644, None).unwrap();
        file.write(Some(0), name.as_bytes()).await.unwrap();
        open.push(file);
    }
    disk.refuse(Call::Sync, &files(&drafts)[0]);
    assert!(work.flush(Duration::from_millis(50)).await.is_err());
    // What is closed afterwards is not known to the others either, and durable at the very end.
    let dir = work.make(ROOT_NUMBER, b"dir", Made::Dir, 0o755, None).unwrap().number;
    let (_, late) = work.create(dir, b"late", 0o644, None).unwrap();
    late.write(Some(0), b"late").await.unwrap();
    drop(late);
    assert!(work.sync_all().await.is_err(), "one is still not durable");
    node.stop().await;
    drop(open);
    let node = place.start("one", "user", &[]).await;
    until_met(&node, 0).await;
    let work = node.work();
    work.restored().await;
    let names = names(&work);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&"late".to_owned()), "its directory is not known: {names:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_find_no_room_can_be_removed_however_many_they_are() {
    let place = Place::new();
    let (node, disk, _) = alone(&place).await;
    let work = node.work().another_door();
    // Nothing is written down meanwhile.
    let hold = disk.hold(Call::Sync, &place.path("one").join("segments"));
    let mut made = 0;
    while work.has_room(Share::All) {
        let name = made.to_string();
        work.make(ROOT_NUMBER, name.as_bytes(), Made::File, 0o644, None).unwrap();
        made += 1;
    }
    assert!(made > 1000);
    assert!(work.has_room(Share::Removals));
    let room = tokio::time::timeout(Duration::from_millis(100), work.room(Share::All));
    assert!(room.await.is_err() && hold.is_reached(), "nothing is written down");
    for number in 0..made {
        let removed = async {
            work.room(Share::Removals).await;
            work.remove(ROOT_NUMBER, number.to_string().as_bytes(), false)
        };
        let removed = tokio::time::timeout(Duration::from_secs(30), removed).await;
        removed.expect("there is no room for a removal").unwrap();
    }
    drop(hold);
    let room = tokio::time::timeout(Duration::from_secs(30), work.room(Share::All));
    room.await.expect("removals made no room");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_attributes_only_those_change_that_are_named() {
    let place = Place::new();
    let mut config = place.config("one", "user", &[]);
    config.system.user = (1000, 1001);
    let node = Node::start(config).await.unwrap();
    until_met(&node, 0).await;
    let work = node.work().another_door();
    let file = work.make(ROOT_NUMBER, b"f", Made::File, 0o644, None).unwrap().number;
    let dir = work.make(ROOT_NUMBER, b"d", Made::Dir, 0o2755, None).unwrap().number;
    let none = Changes::default();
    let owner = |number| work.stat(number).unwrap().owner;
    work.set(file, &Changes { group: Some(7), ..none.clone() }).await.unwrap();
    assert_eq!(owner(file), Some((1000, 7)));
    work.set(file, &Changes { user: Some(5), ..none.clone() }).await.unwrap();
    assert_eq!(owner(file), Some((5, 7)));
    let lends_nothing = Changes { lends_nothing: true, ..none.clone() };
    for (mode, then) in [(0o6755, 0o755), (0o2644, 0o2644), (0o4700, 0o700), (0o755, 0o755)] {
        let named = Changes { mode: Some(mode), lends_nothing: true, ..none.clone() };
        assert_eq!(work.set(file, &named).await.unwrap().mode, mode, "it is said");
        let stat = work.set(file, &lends_nothing).await.unwrap();
        assert_eq!((stat.mode, stat.lends()), (then, false));
    }
    assert_eq!(work.set(dir, &lends_nothing).await.unwrap().mode, 0o2755);
    assert_eq!(owner(dir), None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_to_the_length_that_it_has_was_modified_then() {
    let place = Place::new();
    let (node, ..) = alone(&place).await;
    let work = node.work().another_door();
    let (number, times) = {
        let stat = work.make(ROOT_NUMBER, b"f", Made::File, 0o644, None).unwrap();
        settled(&work).await;
        (stat.number, Changes { modified_ns: Some(Some(1_000_000_007)), ..Changes::default() })
    };
    let cut = Changes { size: Some(0), ..Changes::default() };
    let open = work.open(number, true).unwrap();
    for is_edited in [false, true] {
        if is_edited {
            open.write(Some(0), b"text").await.unwrap();
            work.set(number, &cut).await.unwrap();
        }
        work.set(number, &times).await.unwrap();
        assert_eq!(work.stat(number).unwrap().modified_ns, 1_000_000_007);
        work.set(number, &cut).await.unwrap();
        let cut_ns = work.stat(number).unwrap().modified_ns;
        assert!(cut_ns > 1_000_000_007);
        settled(&work).await;
        let tree = node.stat(&Target::Path("/f".into())).await.unwrap();
        assert_eq!(tree.info.mtime_ns, Some(cut_ns), "edited: {is_edited}");
    }
    drop(open);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_just_made_is_found_by_its_path() {
    let place = Place::new();
    let (node, ..) = alone(&place).await;
    let work = node.work().another_door();
    let team = work.make(ROOT_NUMBER, b"team", Made::Dir, 0o755, None).unwrap().number;
    let notes = work.make(team, b"notes", Made::Dir, 0o755, None).unwrap().number;
    work.make(team, b"file", Made::File, 0o644, None).unwrap();
    assert_eq!(work.dir_at(&"/".into()).unwrap(), ROOT_NUMBER);
    assert_eq!(work.dir_at(&"/team".into()).unwrap(), team);
    assert_eq!(work.dir_at(&"/team/notes".into()).unwrap(), notes);
    let said = |path: &str| match work.dir_at(&path.into()) {
        Err(WorkError::Tree(err)) => err,
        other => panic!("{path}: {other:?}"),
    };
    for path in ["/none", "/team/none", "/none/notes"] {
        assert!(matches!(said(path), TreeError::NotFound), "{path}");
    }
    for (path, at) in [("/team/file", "/team/file"), ("/team/file/x", "file")] {
        assert!(
            matches!(said(path), TreeError::NotADirectory(of) if of == at.as_bytes()),
            "{path}"
        );
    }
    assert!(matches!(said("team"), TreeError::BadPath));
    node.stop().await;
}
