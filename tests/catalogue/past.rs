//! What was removed or superseded: what can be given back, and what is due at which horizon.

use crate::world::{Replica, meet, new_file, pair};
use p2pfs::core::catalogue::{Applied, Checked, Node, Release, Scope};
use p2pfs::core::tree::{Due, Entry, Removed, RemovedWalk, TreeError, Version, Walk};
use p2pfs::id::{ClaimId, InodeId};

const EVER: u64 = u64::MAX;

fn claim(number: u8) -> ClaimId {
    ClaimId([number; 16])
}

/// Puts a file under a claim; the clock of that, which is when what it replaces ended.
fn put(by: &mut Replica, path: &str, content: u64, under: u8) -> u64 {
    let mut file = new_file(content);
    file.version.claim = claim(under);
    clock(by.put_file(path, file).unwrap())
}

fn remove(by: &mut Replica, path: &str) -> u64 {
    clock(by.remove(path).unwrap())
}

fn clock(record: Vec<u8>) -> u64 {
    Checked::new(record).unwrap().record().header.clock
}

fn release(by: &mut Replica, release: Release) {
    let at = by.tick();
    let bytes = release.sign(&by.key, at).unwrap();
    assert_eq!(by.apply(&bytes), Applied::New);
}

fn inode(at: &Replica, path: &str) -> InodeId {
    at.tree().resolve(path.as_bytes()).unwrap().inode
}

fn due(at: &Replica, inode: &InodeId, horizon: u64) -> Option<Due> {
    at.tree().due(inode, horizon).unwrap()
}

fn version_length(version: &Version) -> u64 {
    match &version.node {
        Node::File(file) => file.size,
        node => panic!("no file: {node:?}"),
    }
}

fn lengths(versions: &[Version]) -> Vec<u64> {
    let mut lengths: Vec<u64> = versions.iter().map(version_length).collect();
    lengths.sort_unstable();
    lengths
}

/// Under which claim versions are due, which ones, and which are kept.
fn versions(due: Option<Due>) -> (ClaimId, Vec<u64>, Vec<u64>) {
    match due {
        Some(Due::Versions { claim, ended, kept }) => (claim, lengths(&ended), lengths(&kept)),
        other => panic!("no versions: {other:?}"),
    }
}

/// What can be restored below a path, with the lengths of files.
fn removed(at: &Replica, path: &str) -> Vec<(String, u64)> {
    let tree = at.tree();
    let dirs = tree.dirs_of(path.as_bytes()).unwrap().unwrap();
    let mut walk = RemovedWalk::new(dirs, path.as_bytes());
    let mut out = Vec::new();
    let mut visit = |path: &[u8], removed: &Removed| {
        assert_eq!(tree.removed_at(path).unwrap().as_ref(), Some(removed));
        let size = if removed.is_dir() { 0 } else { version_length(&removed.version) };
        out.push((String::from_utf8(path.to_vec()).unwrap(), size));
        // One at a time: a walk that is interrupted goes on where it was.
        false
    };
    while tree.walk_removed(&mut walk, &mut visit).unwrap() {}
    out
}

fn names(at: &Replica, path: &str) -> Vec<String> {
    removed(at, path).into_iter().map(|(name, _)| name).collect()
}

/// Gives back everything below a path.
fn restore_below(by: &mut Replica, path: &str) {
    let drafts = by.plan(|planner| {
        let tree = planner.tree();
        let dirs = tree.dirs_of(path.as_bytes())?.unwrap();
        let mut gone = Vec::new();
        let mut walk = RemovedWalk::new(dirs, path.as_bytes());
        tree.walk_removed(&mut walk, &mut |_, one| {
            gone.push(one.clone());
            true
        })?;
        gone.iter().try_for_each(|one| planner.restore(one).map(drop))
    });
    drafts.unwrap().iter().for_each(|draft| drop(by.commit(draft)));
}

#[test]
fn content_is_due_from_the_moment_on_at_which_its_last_name_ended() {
    let mut a = Replica::new(10, 1);
    put(&mut a, "/a", 1, 1);
    let file = inode(&a, "/a");
    let moved = clock(a.rename("/a", "/b").unwrap());
    assert_eq!(due(&a, &file, EVER), None, "it has a name");
    let ended = remove(&mut a, "/b");
    // That an earlier name ended earlier does not count.
    assert!(moved < ended);
    assert_eq!(due(&a, &file, moved), None);
    assert_eq!(due(&a, &file, ended - 1), None);
    assert_eq!(due(&a, &file, ended), Some(Due::Claims(vec![claim(1)])));
    let first = |horizon| a.tree().ended_until(None, horizon, 100).unwrap().len();
    assert_eq!((first(moved - 1), first(moved), first(ended - 1), first(ended)), (0, 1, 1, 2));
    release(&mut a, Release { claim: claim(1), scope: Scope::All });
    assert_eq!(due(&a, &file, EVER), None, "it is released already");
}

#[test]
fn a_name_that_is_given_back_keeps_its_content() {
    let mut a = Replica::new(10, 1);
    put(&mut a, "/a", 1, 1);
    let file = inode(&a, "/a");
    remove(&mut a, "/a");
    let gone = a.tree().removed_at(b"/a").unwrap().unwrap();
    let given_back = a.plan(|planner| planner.restore(&gone)).unwrap();
    a.commit(&given_back[0]);
    assert_eq!(inode(&a, "/a"), file);
    assert_eq!(due(&a, &file, EVER), None);
    assert!(removed(&a, "/").is_empty());
    // Removed again, the second removal counts.
    let ended = remove(&mut a, "/a");
    assert_eq!(due(&a, &file, ended - 1), None);
    assert!(due(&a, &file, ended).is_some());
}

#[test]
fn superseded_versions_are_due_one_by_one_and_the_others_are_named_as_kept() {
    let mut a = Replica::new(10, 1);
    put(&mut a, "/a", 1, 1);
    let first = a.tree().resolve(b"/a").unwrap().version.record;
    let (second, third) = (put(&mut a, "/a", 2, 1), put(&mut a, "/a", 3, 1));
    let file = inode(&a, "/a");
    assert_eq!(due(&a, &file, second - 1), None);
    assert_eq!(versions(due(&a, &file, second)), (claim(1), vec![1], vec![2, 3]));
    assert_eq!(versions(due(&a, &file, third - 1)), (claim(1), vec![1], vec![2, 3]));
    assert_eq!(versions(due(&a, &file, third)), (claim(1), vec![1, 2], vec![3]));
    // What was let go is neither due again nor in the way.
    let scope = Scope::Versions { until_ms: 0, versions: vec![first], chunks: Vec::new() };
    release(&mut a, Release { claim: claim(1), scope });
    assert_eq!(due(&a, &file, second), None);
    assert_eq!(versions(due(&a, &file, third)), (claim(1), vec![2], vec![3]));
    // A version under another claim has chunks of its own.
    put(&mut a, "/a", 4, 2);
    assert_eq!(versions(due(&a, &file, EVER)), (claim(1), vec![2, 3], vec![]));
    release(&mut a, Release { claim: claim(1), scope: Scope::All });
    assert_eq!(due(&a, &file, EVER), None);
    // Without a name, only what is not released yet is due.
    remove(&mut a, "/a");
    assert_eq!(due(&a, &file, EVER), Some(Due::Claims(vec![claim(2)])));
}

#[test]
fn conflict_copies_are_kept_while_there_is_a_name_and_go_with_it() {
    let (mut a, mut b) = pair();
    put(&mut a, "/a", 1, 1);
    meet(&mut a, &mut b);
    let file = inode(&a, "/a");
    put(&mut a, "/a", 2, 1);
    // Later, so that this one has the name.
    b.tick();
    put(&mut b, "/a", 3, 1);
    meet(&mut a, &mut b);
    assert_eq!(versions(due(&b, &file, EVER)), (claim(1), vec![1], vec![2, 3]));
    assert!(removed(&a, "/").is_empty());
    // Others, under claims of their own, replace the one that has the name; its copy stays.
    put(&mut a, "/a", 4, 2);
    put(&mut b, "/a", 5, 3);
    meet(&mut a, &mut b);
    assert_eq!(versions(due(&a, &file, EVER)), (claim(1), vec![1, 3], vec![2]));
    remove(&mut a, "/a");
    meet(&mut a, &mut b);
    let all = Some(Due::Claims(vec![claim(1), claim(2), claim(3)]));
    assert_eq!(due(&b, &file, EVER), all);
    assert_eq!(removed(&b, "/").len(), 1);
}

#[test]
fn what_somebody_changed_while_somebody_else_removed_it_is_not_due() {
    let (mut a, mut b) = pair();
    put(&mut a, "/a", 1, 1);
    meet(&mut a, &mut b);
    let file = inode(&a, "/a");
    put(&mut b, "/a", 2, 1);
    remove(&mut a, "/a");
    assert!(matches!(due(&a, &file, EVER), Some(Due::Claims(_))), "alone it looks so");
    meet(&mut a, &mut b);
    assert_eq!(inode(&a, "/a"), file);
    assert_eq!(versions(due(&a, &file, EVER)), (claim(1), vec![1], vec![2]));
    assert!(removed(&a, "/").is_empty());
}

#[test]
fn a_name_that_was_moved_away_is_not_removed() {
    let mut a = Replica::new(10, 1);
    put(&mut a, "/d/x", 1, 1);
    a.rename("/d/x", "/e").unwrap();
    assert!(removed(&a, "/d").is_empty() && removed(&a, "/").is_empty());
    assert_eq!(a.tree().removed_at(b"/d/x").unwrap(), None);
    let at = remove(&mut a, "/e");
    assert_eq!(removed(&a, "/"), [("/e".to_owned(), 1)], "its last name was that one");
    assert_eq!(a.tree().removed_at(b"/e").unwrap().unwrap().at, at);
}

#[test]
fn a_removed_name_leads_to_what_it_led_to_last() {
    let mut a = Replica::new(10, 1);
    a.mkdir("/dir").unwrap();
    put(&mut a, "/f", 1, 1);
    put(&mut a, "/g", 2, 2);
    a.mkdir("/dir/kept").unwrap();
    remove(&mut a, "/dir/kept");
    remove(&mut a, "/dir");
    remove(&mut a, "/f");
    remove(&mut a, "/g");
    let all = [("/dir", 0), ("/dir/kept", 0), ("/f", 1), ("/g", 2)];
    let all = all.map(|(name, size)| (name.to_owned(), size));
    assert_eq!(removed(&a, "/"), all);
    // A name that is used again cannot be restored until that has ended, too.
    put(&mut a, "/f", 3, 3);
    assert_eq!(names(&a, "/"), ["/dir", "/dir/kept", "/g"]);
    remove(&mut a, "/f");
    assert_eq!(removed(&a, "/")[2], ("/f".to_owned(), 3));
    // What was let go cannot be given back.
    release(&mut a, Release { claim: claim(2), scope: Scope::All });
    assert_eq!(names(&a, "/"), ["/dir", "/dir/kept", "/f"]);
    assert_eq!(a.tree().removed_at(b"/g").unwrap(), None);
    assert_eq!(a.tree().removed_at(b"/never").unwrap(), None);
}

#[test]
fn what_was_in_a_removed_directory_comes_back_into_one_of_the_same_name() {
    let mut a = Replica::new(10, 1);
    for (file, sub) in [("/d/f", "/d/s/x"), ("/d/g", "/d/s/y")] {
        a.mkdir("/d").unwrap();
        a.mkdir("/d/s").unwrap();
        put(&mut a, file, 1, 1);
        put(&mut a, sub, 2, 2);
        for name in [file, sub, "/d/s", "/d"] {
            remove(&mut a, name);
        }
    }
    let below = ["/d/f", "/d/g", "/d/s", "/d/s/x", "/d/s/y"];
    assert_eq!(names(&a, "/d"), below, "of both of them, while there is neither");
    a.mkdir("/d").unwrap();
    put(&mut a, "/d/new", 3, 3);
    assert_eq!(names(&a, "/"), below);
    // One by one, the directory on the way too, and with the history that it had.
    let gone = a.tree().removed_at(b"/d/s/x").unwrap().unwrap();
    let drafts = a.plan(|planner| planner.restore(&gone)).unwrap();
    a.commit(&drafts[0]);
    assert_eq!(a.lines(), ["/d/", "/d/new 3", "/d/s/", "/d/s/x 2"]);
    assert_eq!(a.tree().history(b"/d/s/x").unwrap().steps.len(), 3);
    assert_eq!(a.tree().history(b"/d/f").unwrap().steps.len(), 2);
    restore_below(&mut a, "/d");
    let all =
        ["/d/", "/d/f 1", "/d/g 1", "/d/new 3", "/d/s/", "/d/s/x 2", "/d/s/y 2"].map(String::from);
    assert_eq!(a.lines(), all);
    assert!(names(&a, "/").is_empty());
    // What came back and went elsewhere is not removed.
    a.rename("/d/f", "/f").unwrap();
    assert!(names(&a, "/").is_empty());
}

#[test]
fn directories_of_one_name_that_two_removed_at_once_hide_nothing() {
    let (mut a, mut b) = pair();
    for (by, name, second) in [(&mut a, "/d/one", 0), (&mut b, "/d/two", 5_000)] {
        by.now_ms += second;
        by.mkdir("/d").unwrap();
        put(by, name, 1, 1);
        remove(by, name);
        remove(by, "/d");
        by.mkdir("/d").unwrap();
        remove(by, "/d");
    }
    meet(&mut a, &mut b);
    for at in [&a, &b] {
        assert_eq!(names(at, "/"), ["/d", "/d/one", "/d/two"]);
    }
    // A directory is moved while somebody who did not know of it makes one of its name.
    let mut c = Replica::new(12, 1);
    meet(&mut a, &mut c);
    let gone = a.tree().removed_at(b"/d").unwrap().unwrap();
    let drafts = a.plan(|planner| planner.restore(&gone)).unwrap();
    a.commit(&drafts[0]);
    a.rename("/d", "/moved").unwrap();
    c.mkdir("/d").unwrap();
    meet(&mut a, &mut c);
    assert_eq!(c.lines(), ["/d/", "/moved/"]);
    assert_eq!(names(&c, "/"), ["/d/one", "/d/two"]);
    restore_below(&mut c, "/");
    assert_eq!(c.lines(), ["/d/", "/d/one 1", "/d/two 1", "/moved/"]);
}

#[test]
fn of_a_directory_with_very_many_names_all_come_back() {
    const NAMES: usize = 33_000;
    let mut a = Replica::new(10, 1);
    let path = |number: usize| format!("/d/{number:05}");
    for numbers in (0..NAMES).collect::<Vec<_>>().chunks(500) {
        for removes in [false, true] {
            let drafts = a.plan(|planner| {
                numbers.iter().map(|number| path(*number)).try_for_each(|path| match removes {
                    true => planner.remove(path.as_bytes()).map(drop),
                    false => planner.put(path.as_bytes(), new_file(1)).map(drop),
                })
            });
            drafts.unwrap().iter().for_each(|draft| drop(a.commit(draft)));
        }
    }
    let names = names(&a, "/d");
    assert_eq!(names.len(), NAMES);
    assert!(names.is_sorted() && names[NAMES - 1] == path(NAMES - 1));
}

#[test]
fn all_that_is_in_conflict_under_a_name_goes_with_it_and_directories_come_back_as_one() {
    let (mut a, mut b) = pair();
    for (by, number) in [(&mut a, 1), (&mut b, 2)] {
        by.now_ms += number;
        by.mkdir("/dd").unwrap();
        put(by, &format!("/dd/{number}"), number, 1);
        put(by, "/new", number, 2);
    }
    a.mkdir("/mixed").unwrap();
    put(&mut b, "/mixed", 9, 3);
    meet(&mut a, &mut b);
    assert_eq!(a.lines().len(), 8, "{:?}", a.lines());
    let mut all = Vec::new();
    let mut walk = Walk::new(InodeId::ROOT, b"/", true);
    a.tree()
        .walk(&mut walk, &mut |_, entry| {
            all.push(entry.clone());
            true
        })
        .unwrap();
    // What is in directories first; each name once.
    let (dirs, files): (Vec<Entry>, Vec<Entry>) = all.into_iter().partition(Entry::is_dir);
    for file in files.iter().filter(|file| !file.conflict) {
        let drafts = a.plan(|planner| planner.clear(file.parent, &file.name)).unwrap();
        a.commit(&drafts[0]);
    }
    let mixed = a.plan(|planner| planner.clear(InodeId::ROOT, b"mixed"));
    if let Ok(drafts) = mixed {
        a.commit(&drafts[0]);
    }
    for dir in &dirs {
        let drafts = a.plan(|planner| planner.remove_dir(dir.inode)).unwrap();
        a.commit(&drafts[0]);
        let again = a.plan(|planner| planner.remove_dir(dir.inode));
        assert!(matches!(again, Err(TreeError::NotFound)), "{again:?}");
    }
    meet(&mut a, &mut b);
    assert!(b.lines().is_empty(), "{:?}", b.lines());
    let again = b.plan(|planner| planner.clear(InodeId::ROOT, b"new"));
    assert!(matches!(again, Err(TreeError::NotFound)), "{again:?}");
    restore_below(&mut b, "/dd");
    restore_below(&mut b, "/");
    let lines = b.lines();
    for line in ["/dd/", "/dd/1 1", "/dd/2 2", "/new 2"] {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
    }
    assert!(lines.iter().all(|line| !line.contains("conflict")), "{lines:?}");
}
