//! Names of files that are edited here while others give them other ones: what is removed then is
//! gone, and an edit brings back no name but one that was removed unseen.

use crate::copies::publish;
use crate::world::{Replica, meet, new_file, pair};
use p2pfs::core::tree::Spot;
use p2pfs::core::work::{Edition, Working};
use p2pfs::id::InodeId;
use std::collections::BTreeMap;

fn spot(name: &str) -> Spot {
    (InodeId::ROOT, name.as_bytes().to_vec())
}

/// Two members that know a file, and the working tree of the first one, where it is edited.
fn edited() -> (Replica, Replica, Working, InodeId) {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    meet(&mut a, &mut b);
    let id = a.tree().lookup(&InodeId::ROOT, b"f").unwrap().unwrap().inode;
    let mut work = Working::default();
    work.touch(&a.tree(), &id).unwrap();
    (a, b, work, id)
}

/// Writes everything down, with the edit if it is stored; what both see then.
fn lines(a: &mut Replica, b: &mut Replica, work: &mut Working, stored: Option<InodeId>) -> String {
    let edition = |id| (id, Edition { version: new_file(2).version, modified_ns: None });
    let editions: BTreeMap<_, _> = stored.map(edition).into_iter().collect();
    let planned = work.plan(&a.tree(), &editions, true).unwrap();
    publish(a, work, planned);
    meet(a, b);
    b.lines().join(" ")
}

#[test]
fn an_edited_file_is_gone_when_the_name_that_others_gave_it_is_removed() {
    let (mut a, mut b, mut work, id) = edited();
    b.rename("/f", "/g").unwrap();
    meet(&mut a, &mut b);
    assert!(work.find_names(&a.tree(), &id).unwrap());
    assert!(!work.find_names(&a.tree(), &id).unwrap(), "that is no news any more");
    assert_eq!(work.names(&a.tree(), &id, 9).unwrap(), [spot("g")]);
    assert!(work.remove(&a.tree(), &spot("g"), false).unwrap().last);
    assert_eq!(lines(&mut a, &mut b, &mut work, None), "");
}

#[test]
fn an_edit_keeps_what_others_removed_under_the_name_that_it_had_last() {
    let (mut a, mut b, mut work, id) = edited();
    b.remove("/f").unwrap();
    meet(&mut a, &mut b);
    assert!(!work.find_names(&a.tree(), &id).unwrap());
    assert_eq!(lines(&mut a, &mut b, &mut work, Some(id)), "/f 2");

    let (mut a, mut b, mut work, id) = edited();
    b.rename("/f", "/g").unwrap();
    meet(&mut a, &mut b);
    work.find_names(&a.tree(), &id).unwrap();
    b.remove("/g").unwrap();
    meet(&mut a, &mut b);
    assert!(!work.find_names(&a.tree(), &id).unwrap());
    assert_eq!(lines(&mut a, &mut b, &mut work, Some(id)), "/g 2");
}

#[test]
fn what_was_done_here_with_names_stays_when_others_give_some() {
    let (mut a, mut b, mut work, id) = edited();
    work.link(&a.tree(), id, &spot("own")).unwrap();
    b.rename("/f", "/g").unwrap();
    meet(&mut a, &mut b);
    assert!(work.find_names(&a.tree(), &id).unwrap());
    assert_eq!(work.names(&a.tree(), &id, 9).unwrap(), [spot("g"), spot("own")]);
    assert_eq!(lines(&mut a, &mut b, &mut work, Some(id)), "/g 2 /own 2");

    // The name is given up here, and the others have another file there and a name for this one.
    let (mut a, mut b, mut work, id) = edited();
    assert!(work.remove(&a.tree(), &spot("f"), false).unwrap().last);
    assert!(!work.find_names(&a.tree(), &id).unwrap(), "the others still show it");
    b.rename("/f", "/g").unwrap();
    meet(&mut a, &mut b);
    assert!(work.find_names(&a.tree(), &id).unwrap());
    assert_eq!(lines(&mut a, &mut b, &mut work, Some(id)), "/g 2");
}
