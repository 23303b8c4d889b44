//! What members share: who may say it, what the tree shows of it, and that it can be found.

use crate::world::Replica;
use p2pfs::core::catalogue::{Attributes, FileVersion, tally};
use p2pfs::core::tree::{Share, ShareWalk, TreeError};
use p2pfs::id::{ClaimId, FileHash, NodeId};

fn version(number: u8) -> FileVersion {
    let hash = FileHash(*blake3::hash(&[number]).as_bytes());
    FileVersion { hash, size: u64::from(number), claim: ClaimId([number; 16]), record: None }
}

/// Says that `sharer` shares something, signed by this replica.
fn say(by: &mut Replica, sharer: &NodeId, path: &str, number: u8) -> Vec<Vec<u8>> {
    let (path, attributes) = (path.as_bytes(), Attributes::default());
    let drafts = by.plan(|planner| planner.share(sharer, path, version(number), attributes));
    drafts.unwrap().iter().map(|draft| by.commit(draft)).collect()
}

fn unsay(by: &mut Replica, sharer: &NodeId, path: &str) -> Vec<Vec<u8>> {
    let drafts = by.plan(|planner| planner.unshare(sharer, path.as_bytes()));
    drafts.unwrap().iter().map(|draft| by.commit(draft)).collect()
}

fn take(to: &mut Replica, records: &[Vec<u8>]) {
    records.iter().for_each(|record| _ = to.apply(record));
}

fn walk(replica: &Replica, of: Option<(&NodeId, &str)>, at_once: usize) -> Vec<(NodeId, String)> {
    let mut walk = ShareWalk::new(of.map(|(id, path)| (id, path.as_bytes())));
    let mut all = Vec::new();
    loop {
        let mut page = 0;
        let more = replica.tree().walk_shares(&mut walk, &mut |share| {
            all.push((share.sharer, String::from_utf8(share.file.path).unwrap()));
            page += 1;
            page < at_once
        });
        if !more.unwrap() {
            return all;
        }
    }
}

fn shared(replica: &Replica, sharer: &NodeId, path: &str) -> Option<Share> {
    replica.tree().share(sharer, path.as_bytes()).unwrap()
}

#[test]
fn what_is_shared_is_found_by_name_by_hash_and_in_order() {
    let mut ann = Replica::new(10, 1);
    let me = ann.key.id();
    let long = format!("/films/{}/{}", "n".repeat(200), "x".repeat(200));
    for (number, path) in (1..).zip(["/films/b", "/films/a/x", "/films2", &long, "/films/a.b"]) {
        say(&mut ann, &me, path, number);
    }
    let in_order = ["/films/a/x", "/films/a.b", "/films/b", &long, "/films2"];
    let wanted: Vec<_> = in_order.iter().map(|path| (me, (*path).to_owned())).collect();
    for at_once in [1, 2, 100] {
        assert_eq!(walk(&ann, None, at_once), wanted);
    }
    assert_eq!(walk(&ann, Some((&me, "/films")), 2), wanted[..4]);
    assert_eq!(walk(&ann, Some((&me, "/films/a")), 2), wanted[..1]);
    assert_eq!(walk(&ann, Some((&NodeId([9; 32]), "/films")), 2), []);
    assert_eq!(shared(&ann, &me, &long).unwrap().file.version, version(4));
    let found = ann.tree().find_shares(&version(2).hash.to_string()[..9]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].file.path, b"/films/a/x");
    // The tree has none of it.
    assert_eq!(tally(&ann.store).unwrap().files, 0);
    assert!(ann.tree().find(&version(2).hash.to_string()).unwrap().is_empty());
    assert!(ann.tree().list_path(b"/", None, 10).unwrap().entries.is_empty());
    assert!(matches!(ann.tree().resolve(b"/films"), Err(TreeError::NotFound)));
}

#[test]
fn the_newest_version_counts_and_a_removed_one_does_not() {
    let mut ann = Replica::new(10, 1);
    let me = ann.key.id();
    say(&mut ann, &me, "/f", 1);
    say(&mut ann, &me, "/f", 2);
    assert_eq!(shared(&ann, &me, "/f").unwrap().file.version, version(2));
    assert!(ann.tree().find_shares(&version(1).hash.to_string()).unwrap().is_empty());
    unsay(&mut ann, &me, "/f");
    assert_eq!(shared(&ann, &me, "/f"), None);
    assert!(ann.tree().find_shares(&version(2).hash.to_string()).unwrap().is_empty());
    say(&mut ann, &me, "/f", 3);
    assert_eq!(shared(&ann, &me, "/f").unwrap().file.version, version(3));
}

#[test]
fn nobody_shares_in_the_name_of_another() {
    let (mut ann, mut eve) = (Replica::new(10, 1), Replica::new(11, 1));
    let grants = [ann.grant(), eve.grant()];
    take(&mut ann, &grants);
    take(&mut eve, &grants);
    let me = ann.key.id();
    let forged = say(&mut eve, &me, "/forged", 7);
    take(&mut ann, &forged);
    assert_eq!(shared(&ann, &me, "/forged"), None);
    assert!(walk(&ann, None, 10).is_empty());
    assert!(ann.tree().find_shares(&version(7).hash.to_string()).unwrap().is_empty());
    // Said at the same time, neither hides what its sharer says …
    let own = say(&mut ann, &me, "/f", 1);
    eve.now_ms += 10_000;
    let forged = say(&mut eve, &me, "/f", 2);
    take(&mut ann, &forged);
    take(&mut eve, &own);
    for replica in [&ann, &eve] {
        assert_eq!(shared(replica, &me, "/f").unwrap().file.version, version(1));
    }
    // … and what is said instead of it is said again.
    let forged = say(&mut eve, &me, "/f", 3);
    take(&mut ann, &forged);
    assert_eq!(shared(&ann, &me, "/f"), None);
    ann.now_ms += 20_000;
    let own = say(&mut ann, &me, "/f", 1);
    take(&mut eve, &own);
    for replica in [&ann, &eve] {
        assert_eq!(shared(replica, &me, "/f").unwrap().file.version, version(1));
    }
}
