//! Many wishes at once: few records, and the same tree as one wish after the other.

use crate::world::{Replica, meet, new_file, pair};
use p2pfs::core::catalogue::Attributes;
use p2pfs::core::tree::{Planner, TreeError};

fn put(planner: &mut Planner<'_, '_>, path: &str, content: u64) -> Result<(), TreeError> {
    planner.put(path.as_bytes(), new_file(content)).map(drop)
}

/// Commits what many wishes come to; how many records that are.
fn commit(
    by: &mut Replica,
    wishes: impl FnOnce(&mut Planner<'_, '_>) -> Result<(), TreeError>,
) -> usize {
    let drafts = by.plan(wishes).unwrap();
    drafts.iter().for_each(|draft| drop(by.commit(draft)));
    drafts.len()
}

#[test]
fn many_wishes_are_few_records() {
    let (mut a, mut b) = pair();
    let mut c = Replica::new(12, 1);
    let paths: Vec<String> =
        (0..400).map(|number| format!("/tree/{}/file {number}", number % 10)).collect();
    let all = |planner: &mut Planner<'_, '_>| {
        let private = Attributes { mode: 0o700, ..Attributes::default() };
        planner.dir(b"/tree", private)?;
        planner.link(b"/tree/link", b"elsewhere".to_vec(), Attributes::default())?;
        paths.iter().try_for_each(|path| put(planner, path, 1))
    };
    let records = commit(&mut a, all);
    assert!(records < 20, "{records} records");
    assert_eq!(a.lines().len(), 1 + 1 + 10 + 400);
    // Somebody else has put the same tree at the same time: the directories are the same ones.
    commit(&mut b, all);
    meet(&mut a, &mut b);
    let tree = a.tree().resolve(b"/tree").unwrap();
    assert_eq!(tree.version.attributes.mode, 0o700);
    let dirs = a.lines().iter().filter(|line| line.ends_with('/')).count();
    assert_eq!(dirs, 11);
    // And one by one it is the same tree.
    for path in &paths {
        c.put(path, 1).unwrap();
    }
    let files = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| line.contains("/file ")).collect()
    };
    let mut alone = Replica::new(13, 1);
    commit(&mut alone, all);
    assert_eq!(files(alone.lines()), files(c.lines()));
    // Again: new versions of the same files, in as few records.
    assert!(commit(&mut alone, all) < 40);
    assert_eq!(files(alone.lines()), files(c.lines()));
}

#[test]
fn a_wish_that_cannot_be_leaves_nothing_and_hinders_no_other() {
    let mut a = Replica::new(10, 1);
    a.put("/file", 1).unwrap();
    a.put("/dir/inside", 1).unwrap();
    commit(&mut a, |planner| {
        assert!(matches!(put(planner, "/file/new/x", 2), Err(TreeError::NotADirectory(_))));
        assert!(matches!(put(planner, "/dir", 2), Err(TreeError::IsADirectory)));
        put(planner, "/made/x", 3)?;
        assert!(matches!(put(planner, "/made", 2), Err(TreeError::IsADirectory)));
        let attributes = Attributes::default();
        assert!(matches!(planner.dir(b"/file", attributes), Err(TreeError::NotADirectory(_))));
        put(planner, "/file", 4)
    });
    assert_eq!(a.lines(), ["/dir/", "/dir/inside 1", "/file 4", "/made/", "/made/x 3"]);
}

#[test]
fn what_one_wish_spares_no_other_one_ends() {
    let (mut a, mut b) = pair();
    let both = |f: u64, g: u64| {
        move |planner: &mut Planner<'_, '_>| {
            put(planner, "/f", f)?;
            put(planner, "/g", g)
        }
    };
    commit(&mut a, both(1, 1));
    meet(&mut a, &mut b);
    // One record of b has a version of /f that loses, and the version of /g that there is.
    assert_eq!(commit(&mut b, both(2, 2)), 1);
    for _ in 0..10 {
        a.tick();
    }
    a.put("/f", 3).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(a.lines().len(), 3, "a conflict copy of /f: {:?}", a.lines());
    assert_eq!(commit(&mut a, both(4, 5)), 2);
    meet(&mut a, &mut b);
    let lines = b.lines();
    assert!(lines.contains(&"/f 4".to_owned()) && lines.contains(&"/g 5".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(" 2")), "the copy stays: {lines:?}");
}
