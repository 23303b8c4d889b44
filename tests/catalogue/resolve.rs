//! The end of a conflict: one is kept or all are, on all members alike, and nothing is lost.

use crate::world::{Replica, hash_of, meet, new_file, pair};
use p2pfs::core::catalogue::Node;
use p2pfs::core::tree::{Conflict, Entry, NewFile, TreeError};
use p2pfs::id::ClaimId;

/// Two members that have changed one file, or put two of one name, without hearing of each other.
fn in_conflict(known_before: bool) -> (Replica, Replica) {
    let (mut a, mut b) = pair();
    if known_before {
        a.put("/d/f.txt", 1).unwrap();
        meet(&mut a, &mut b);
    }
    a.put("/d/f.txt", 2).unwrap();
    b.now_ms += 5_000;
    b.put("/d/f.txt", 3).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines().len(), 3, "{:?}", a.lines());
    (a, b)
}

fn conflict(at: &Replica, path: &str) -> Conflict {
    at.tree().conflict(path.as_bytes()).unwrap().unwrap()
}

fn keep(by: &mut Replica, path: &str, called: &str) -> Result<(), TreeError> {
    let conflict = conflict(by, path);
    let kept = conflict.find(&by.tree(), b"/d/f.txt", called.as_bytes())?.clone();
    let drafts = by.plan(|planner| planner.keep_one(&conflict, &kept))?;
    assert_eq!(drafts.len(), 1);
    by.commit(&drafts[0]);
    Ok(())
}

/// Where the tables say that something may be in conflict.
fn suspects(at: &Replica) -> Vec<String> {
    let paths = at.tree().suspects().unwrap().unwrap().into_iter();
    paths.map(|path| String::from_utf8(path).unwrap()).collect()
}

#[test]
fn conflicts_are_found_without_a_look_at_every_name() {
    for known_before in [true, false] {
        let (mut a, mut b) = in_conflict(known_before);
        for number in 0..50 {
            a.put(&format!("/d/other {number}"), number).unwrap();
            a.put(&format!("/d/other {number}"), number + 1).unwrap();
        }
        // Directories of one name, one of them beside a file; and the same content twice.
        a.mkdir("/twice").unwrap();
        b.mkdir("/twice").unwrap();
        a.put("/twice/x", 1).unwrap();
        b.put("/twice/y", 1).unwrap();
        a.mkdir("/mixed").unwrap();
        b.put("/mixed", 9).unwrap();
        a.put("/same", 7).unwrap();
        b.put("/same", 7).unwrap();
        meet(&mut a, &mut b);
        let tree = a.tree();
        let found: Vec<String> = suspects(&a)
            .into_iter()
            .filter(|path| tree.suspected(path.as_bytes()).unwrap().is_some())
            .collect();
        assert_eq!(found, ["/d/f.txt", "/mixed", "/twice"], "{:?}", a.lines());
        assert_eq!(suspects(&b), suspects(&a));
        keep(&mut a, "/d/f.txt", "/d/f.txt").unwrap();
        assert!(!suspects(&a).contains(&"/d/f.txt".to_owned()));
    }
    // What was named under another epoch has to be looked at.
    assert!(Replica::new(12, 2).tree().suspects().unwrap().is_none());
}

fn copy_of(at: &Replica) -> String {
    let lines = at.lines();
    let copy = lines.iter().find(|line| line.contains(".conflict-")).unwrap();
    copy.split(' ').next().unwrap().to_owned()
}

fn contents(at: &Replica, path: &str) -> Vec<u64> {
    let steps = at.tree().history(path.as_bytes()).unwrap().steps;
    let size = |node: &Node| if let Node::File(file) = node { file.size } else { 0 };
    steps.iter().filter_map(|step| Some(size(&step.made.as_ref()?.version.node))).collect()
}

#[test]
fn one_is_kept_whichever_and_however_it_is_called_and_the_other_stays_in_the_history() {
    for known_before in [true, false] {
        for winner in [true, false] {
            for way in 0..3 {
                let (mut a, mut b) = in_conflict(known_before);
                let (copy, content) = (copy_of(&a), if winner { 3 } else { 2 });
                let name = if winner { "/d/f.txt" } else { &copy };
                let called = match way {
                    0 => name.to_owned(),
                    1 => name.rsplit('/').next().unwrap().to_owned(),
                    _ => hash_of(content).to_string()[..8].to_owned(),
                };
                let path = if way == 1 { &copy } else { "/d/f.txt" };
                keep(&mut a, path, &called).unwrap();
                meet(&mut a, &mut b);
                assert_eq!(b.lines(), ["/d/".to_owned(), format!("/d/f.txt {content}")]);
                assert!(b.tree().conflict(b"/d/f.txt").unwrap().is_none());
                let known = contents(&b, "/d/f.txt");
                assert!(known.contains(&2) && known.contains(&3), "{known:?}");
            }
        }
    }
}

#[test]
fn a_version_is_called_by_its_number_too_and_what_is_not_in_conflict_is_refused() {
    let (mut a, mut b) = in_conflict(true);
    let path = "/d/f.txt";
    for wrong in ["1", "9", "0123456789", "/other/f.txt", "/f.txt", "f", "", "2026-11-20", "@"] {
        assert!(matches!(keep(&mut a, path, wrong), Err(TreeError::NoSuchCopy)), "{wrong}");
    }
    keep(&mut a, path, "2").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/d/", "/d/f.txt 2"]);
    assert!(matches!(b.tree().conflict(b"/d/none"), Err(TreeError::NotFound)));
    assert!(matches!(b.tree().conflict(b"/none/f"), Err(TreeError::NotFound)));
}

#[test]
fn all_are_kept_and_each_has_a_name_of_its_own() {
    for known_before in [true, false] {
        let (mut a, mut b) = in_conflict(known_before);
        let (copy, found) = (copy_of(&a), conflict(&a, "/d/f.txt"));
        let files: Vec<NewFile> = found.versions().into_iter().map(with_own_claim).collect();
        assert_eq!(files.len(), usize::from(known_before), "two files have a claim each");
        let drafts = a.plan(|planner| planner.keep_all(&found, files)).unwrap();
        assert_eq!(drafts.len(), 1);
        a.commit(&drafts[0]);
        meet(&mut a, &mut b);
        assert_eq!(b.lines(), ["/d/".to_owned(), "/d/f.txt 3".to_owned(), format!("{copy} 2")]);
        assert!(b.tree().conflict(copy.as_bytes()).unwrap().is_none());
        // They are files like any other.
        b.rename(&copy, "/mine.txt").unwrap();
        b.put("/mine.txt", 4).unwrap();
        b.remove("/d/f.txt").unwrap();
        meet(&mut a, &mut b);
        assert_eq!(a.lines(), ["/d/", "/mine.txt 4"]);
        let inode = a.tree().resolve(b"/mine.txt").unwrap().inode;
        let due = a.tree().due(&inode, u64::MAX).unwrap();
        assert!(!format!("{due:?}").contains("Claims"), "its content stays: {due:?}");
    }
}

fn with_own_claim(copy: &Entry) -> NewFile {
    let Node::File(file) = &copy.version.node else { panic!("a file") };
    let mut new = new_file(file.size);
    new.version.claim = ClaimId([9; 16]);
    new
}

#[test]
fn a_directory_and_a_file_of_one_name_are_only_told_apart() {
    let (mut a, mut b) = pair();
    a.put("/x", 1).unwrap();
    b.now_ms += 5_000;
    b.put("/x/in", 2).unwrap();
    meet(&mut a, &mut b);
    let found = conflict(&a, "/x");
    for kept in found.entries() {
        let kept = a.plan(|planner| planner.keep_one(&found, kept));
        assert!(matches!(kept, Err(TreeError::ConflictOfDirs)));
    }
    let before = a.lines();
    assert!(found.versions().is_empty());
    let drafts = a.plan(|planner| planner.keep_all(&found, Vec::new())).unwrap();
    a.commit(&drafts[0]);
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), before);
    assert!(b.tree().conflict(b"/x").unwrap().is_none());
}
