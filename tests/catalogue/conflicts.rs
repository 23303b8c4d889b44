//! The rules of concurrent changes, each as the story of two or three members that could not talk.

use crate::world::{Replica, hash_of, meet, pair};
use p2pfs::core::catalogue::{Attributes, Change, Draft, LOST_AND_FOUND, Name, Node, Place};
use p2pfs::core::tree::TreeError;
use p2pfs::id::InodeId;

#[test]
fn a_put_makes_directories_and_the_same_name_again_a_new_version() {
    let mut a = Replica::new(10, 1);
    a.put("/reports/2026/q3.pdf", 5).unwrap();
    a.put("/reports/2026/q3.pdf", 6).unwrap();
    a.put("/a", 1).unwrap();
    assert_eq!(a.lines(), ["/a 1", "/reports/", "/reports/2026/", "/reports/2026/q3.pdf 6"]);
    assert_eq!(a.tree().history(b"/reports/2026/q3.pdf").unwrap().steps.len(), 2);
    assert!(matches!(a.put("/reports", 1), Err(TreeError::IsADirectory)));
    assert!(matches!(a.put("/a/b", 1), Err(TreeError::NotADirectory(_))));
    assert!(matches!(a.tree().resolve(b"/b"), Err(TreeError::NotFound)));
    let tally = p2pfs::core::catalogue::tally(&a.store).unwrap();
    assert_eq!((tally.files, tally.bytes), (2, 7));
}

#[test]
fn two_members_who_put_into_a_new_directory_make_one() {
    let (mut a, mut b) = pair();
    a.put("/d/e/a", 1).unwrap();
    b.put("/d/e/b", 2).unwrap();
    b.put("/d/c", 3).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines(), ["/d/", "/d/c 3", "/d/e/", "/d/e/a 1", "/d/e/b 2"]);
    // One that was moved away leaves its place to another one.
    a.rename("/d", "/old").unwrap();
    a.put("/d/new", 4).unwrap();
    meet(&mut a, &mut b);
    let lines = b.lines();
    assert!(lines.contains(&"/d/new 4".to_owned()) && lines.contains(&"/old/c 3".to_owned()));
    assert_eq!(lines.len(), 7, "{lines:?}");
    // One that was removed comes back, for both.
    a.remove("/d/new").unwrap();
    a.remove("/d").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines().len(), 5);
    a.put("/d/a", 5).unwrap();
    b.put("/d/b", 6).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines()[..3], ["/d/", "/d/a 5", "/d/b 6"]);
}

#[test]
fn concurrent_edits_keep_both_and_a_later_version_keeps_the_copy() {
    let (mut a, mut b) = pair();
    a.put("/f.txt", 1).unwrap();
    meet(&mut a, &mut b);
    a.put("/f.txt", 2).unwrap();
    b.now_ms += 5_000;
    b.put("/f.txt", 3).unwrap();
    meet(&mut a, &mut b);
    let author = a.key.id().to_string()[..8].to_owned();
    let copy = format!("/f.txt.conflict-{author}-20261121-092104");
    assert_eq!(a.lines(), ["/f.txt 3".to_owned(), format!("{copy} 2")]);
    assert_eq!(a.tree().resolve(copy.as_bytes()).unwrap().version.author, a.key.id());
    a.put("/f.txt", 4).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/f.txt 4".to_owned(), format!("{copy} 2")]);
    assert!(matches!(b.remove(&copy), Err(TreeError::ConflictCopy)));
}

#[test]
fn concurrent_new_files_of_one_name_are_both_seen_and_equal_ones_once() {
    let (mut a, mut b) = pair();
    a.put("/same", 1).unwrap();
    b.put("/same", 1).unwrap();
    a.put("/other", 2).unwrap();
    b.put("/other", 3).unwrap();
    meet(&mut a, &mut b);
    let lines = a.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("/other.conflict-")).count(), 1);
    assert!(lines.contains(&"/same 1".to_owned()));
}

#[test]
fn an_edit_beats_a_concurrent_removal_and_not_a_former_one() {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    a.put("/g", 1).unwrap();
    meet(&mut a, &mut b);
    a.put("/f", 2).unwrap();
    b.now_ms += 1_000;
    b.remove("/f").unwrap();
    b.remove("/g").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines(), ["/f 2"]);
    a.remove("/f").unwrap();
    meet(&mut a, &mut b);
    assert!(b.lines().is_empty());
    b.put("/f", 9).unwrap();
    assert_eq!(b.lines(), ["/f 9"]);
    let tally = p2pfs::core::catalogue::tally(&b.store).unwrap();
    assert_eq!((tally.files, tally.bytes), (1, 9));
}

#[test]
fn a_directory_with_a_concurrent_new_entry_is_not_removed() {
    let (mut a, mut b) = pair();
    a.mkdir("/d").unwrap();
    a.mkdir("/d/e").unwrap();
    meet(&mut a, &mut b);
    assert!(matches!(b.remove("/d"), Err(TreeError::NotEmpty)));
    a.put("/d/e/new", 1).unwrap();
    b.remove("/d/e").unwrap();
    b.remove("/d").unwrap();
    assert!(b.lines().is_empty());
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/d/", "/d/e/", "/d/e/new 1"]);
    b.remove("/d/e/new").unwrap();
    assert!(b.lines().is_empty());
}

#[test]
fn renames_of_files_and_directories_are_one_change_each() {
    let (mut a, mut b) = pair();
    a.put("/d/x/f", 1).unwrap();
    a.put("/g", 2).unwrap();
    meet(&mut a, &mut b);
    let before = a.tree().resolve(b"/d/x/f").unwrap().inode;
    a.rename("/d/x", "/y").unwrap();
    a.rename("/g", "/y/h").unwrap();
    b.put("/d/x/new", 3).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/d/", "/y/", "/y/f 1", "/y/h 2", "/y/new 3"]);
    assert_eq!(b.tree().resolve(b"/y/f").unwrap().inode, before);
    assert_eq!(b.tree().paths_of(&before, 5).unwrap(), [b"/y/f".to_vec()]);
    assert!(matches!(a.rename("/y", "/y/inside"), Err(TreeError::InsideItself)));
    assert!(matches!(a.rename("/d", "/y"), Err(TreeError::Exists)));
}

#[test]
fn a_cycle_of_moves_opens_where_the_last_move_came_from() {
    let (mut a, mut b) = pair();
    a.put("/p/in-p", 1).unwrap();
    a.put("/q/in-q", 2).unwrap();
    meet(&mut a, &mut b);
    a.rename("/p", "/q/p").unwrap();
    b.now_ms += 1_000;
    b.rename("/q", "/p/q").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines(), ["/q/", "/q/in-q 2", "/q/p/", "/q/p/in-p 1"]);
    a.rename("/q/p", "/p").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/p/", "/p/in-p 1", "/p/q/", "/p/q/in-q 2"]);
}

#[test]
fn concurrent_directories_of_one_name_are_both_reachable() {
    let (mut a, mut b) = pair();
    a.mkdir("/d").unwrap();
    b.mkdir("/d").unwrap();
    a.put("/d/of-a", 1).unwrap();
    b.put("/d/of-b", 2).unwrap();
    meet(&mut a, &mut b);
    let lines = a.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in &lines {
        let path = line.trim_end_matches('/').split(' ').next().unwrap();
        a.tree().resolve(path.as_bytes()).unwrap();
    }
}

#[test]
fn the_hash_of_a_conflict_copy_is_not_taken_for_the_file() {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    meet(&mut a, &mut b);
    a.put("/f", 2).unwrap();
    b.put("/f", 3).unwrap();
    meet(&mut a, &mut b);
    let shown = |content: u64| {
        let hash = hash_of(content);
        let found = a.tree().find_named(&hash.to_string()).unwrap();
        found.keys().map(|inode| a.tree().shows(inode, &hash).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(shown(1), [false; 0]);
    let mut both = [shown(2), shown(3)];
    both.sort();
    assert_eq!(both, [[false], [true]]);
}

#[test]
fn a_file_is_found_by_the_first_digits_of_its_hash() {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    a.put("/f", 2).unwrap();
    meet(&mut a, &mut b);
    for (content, current) in [(1, false), (2, true)] {
        let digits = hash_of(content).to_string();
        for len in [8, 11, 64] {
            let found = b.tree().find(&digits[..len]).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].hash, found[0].current), (hash_of(content), current));
        }
    }
    assert!(b.tree().find("00000000").unwrap().is_empty());
    assert!(b.tree().find("0000000").is_err());
}

#[test]
fn a_new_epoch_changes_no_name_and_supersedes_what_the_old_one_sealed() {
    let (mut a, mut b) = (Replica::new(10, 2), Replica::new(11, 1));
    meet(&mut a, &mut b);
    b.put("/d/f", 1).unwrap();
    b.put("/gone", 1).unwrap();
    b.send_all(&mut a);
    a.put("/d/f", 2).unwrap();
    a.remove("/gone").unwrap();
    a.send_all(&mut b);
    assert_eq!(a.lines(), ["/d/", "/d/f 2"]);
    // Without the new secret the old version is known to be superseded, but not by what.
    assert_eq!(b.lines(), ["/d/"]);
    b.learn(2);
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/d/", "/d/f 2"]);
}

#[test]
fn listings_come_in_pages_and_hold_everything_once() {
    let mut a = Replica::new(10, 1);
    for number in 0..25 {
        a.put(&format!("/f{number:02}"), number).unwrap();
    }
    let tree = a.tree();
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let page = tree.list_path(b"/", after.as_deref(), 7).unwrap();
        names.extend(page.entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(names, (0..25).map(|n| format!("f{n:02}")).collect::<Vec<_>>());
    assert!(tree.list(&LOST_AND_FOUND, None, 5).unwrap().entries.is_empty());
}

#[test]
fn a_directory_without_any_way_back_is_in_lost_and_found() {
    let (mut a, mut b) = pair();
    let (one, two) = (InodeId([1; 16]), InodeId([2; 16]));
    let placed = |inode, parent| Change::Inode {
        inode,
        node: Node::Dir {
            place: Some(Place { parent, name: Name::new(b"dir").unwrap() }),
            previous: None,
        },
        attributes: Attributes::default(),
    };
    a.commit(&Draft { changes: vec![placed(one, two)], ..Draft::default() });
    b.now_ms += 1_000;
    b.commit(&Draft { changes: vec![placed(two, one)], ..Draft::default() });
    meet(&mut a, &mut b);
    let hex = two.to_string();
    let lines = [
        "/lost+found/".to_owned(),
        format!("/lost+found/{hex}/"),
        format!("/lost+found/{hex}/dir/"),
    ];
    assert_eq!(a.lines(), lines);
    let path = lines[2].trim_end_matches('/');
    assert_eq!(a.tree().resolve(path.as_bytes()).unwrap().inode, one);
    assert_eq!(a.tree().paths_of(&one, 1).unwrap(), [path.as_bytes()]);
    a.rename(lines[1].trim_end_matches('/'), "/back").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), ["/back/", "/back/dir/"]);
}
