//! What a search finds is what the tree shows, after whatever happened to it; `order` asks this
//! after every story that it tells.

use crate::world::{Replica, new_file, pair};
use p2pfs::core::catalogue::{Attributes, LOST_AND_FOUND, Node};
use p2pfs::core::search::Query;
use p2pfs::core::tree::{Hits, Share, ShareWalk, Walk};
use p2pfs::id::InodeId;
use p2pfs::wire::control::{FileKind, FileTag, Search};
use std::collections::BTreeSet;

fn ask(replica: &Replica, search: &Search, limit: usize) -> Hits {
    let query = Query::parse(search, replica.now_ms, &[], None).unwrap();
    replica.tree().search(&query, limit).unwrap()
}

fn words(words: &str) -> Search {
    Search { words: vec![words.into()], ..Search::default() }
}

fn paths(hits: &Hits) -> Vec<String> {
    hits.found.iter().map(|hit| String::from_utf8(hit.path.clone()).unwrap()).collect()
}

/// Everything that is seen is found, and nothing else.
pub(crate) fn finds_what_is_seen(replica: &Replica) {
    let (mut seen, mut walk) = (BTreeSet::new(), Walk::new(InodeId::ROOT, b"/", true));
    let mut must = BTreeSet::new();
    let mut visit = |path: &[u8], entry: &p2pfs::core::tree::Entry| {
        let path = String::from_utf8(path.to_vec()).unwrap();
        // A concurrent version of a file has no row of its own, and lost+found has no inode.
        if !entry.conflict && entry.inode != LOST_AND_FOUND {
            must.insert(path.clone());
        }
        seen.insert(path);
        true
    };
    while replica.tree().walk(&mut walk, &mut visit).unwrap() {}
    let (mut shared, mut walk) = (BTreeSet::new(), ShareWalk::new(None));
    let mut note = |share: Share| {
        shared.insert(share.file.path);
        true
    };
    while replica.tree().walk_shares(&mut walk, &mut note).unwrap() {}
    let mut hits = ask(replica, &words("*"), 1000);
    // What is shared has a path of its own, which a name in the tree may have as well.
    hits.found.retain(|hit| match &hit.version.node {
        Node::Shared(file) => {
            assert!(hit.path == file.path && shared.contains(&hit.path));
            false
        }
        _ => true,
    });
    let found: BTreeSet<String> = paths(&hits).into_iter().collect();
    assert!(found.is_subset(&seen), "{found:?} {seen:?}");
    assert!(must.is_subset(&found), "{found:?} {must:?}");
    assert_eq!(hits.found.len(), found.len(), "each once");
}

#[test]
fn names_are_found_while_they_are_there() {
    let (mut a, mut b) = pair();
    a.put("/docs/Report_2026.pdf", 1).unwrap();
    a.put("/docs/rep", 2).unwrap();
    a.put("/other", 3).unwrap();
    a.send_all(&mut b);
    for replica in [&a, &b] {
        assert_eq!(paths(&ask(replica, &words("rep"), 9)), ["/docs/rep", "/docs/Report_2026.pdf"]);
        let hits = ask(replica, &words("rep"), 1);
        assert_eq!((paths(&hits), hits.fit, hits.looked), (vec!["/docs/rep".into()], 2, 4));
    }
    a.rename("/docs", "/papers").unwrap();
    a.rename("/papers/rep", "/papers/news").unwrap();
    a.remove("/other").unwrap();
    a.send_all(&mut b);
    for replica in [&a, &b] {
        assert_eq!(paths(&ask(replica, &words("rep"), 9)), ["/papers/Report_2026.pdf"]);
        assert_eq!(paths(&ask(replica, &words("papers"), 9)), ["/papers"]);
        assert!(paths(&ask(replica, &words("docs"), 9)).is_empty());
        assert!(paths(&ask(replica, &words("other"), 9)).is_empty());
        finds_what_is_seen(replica);
    }
}

#[test]
fn a_removed_directory_is_found_while_something_is_in_it() {
    let (mut a, mut b) = pair();
    a.mkdir("/attic").unwrap();
    a.send_all(&mut b);
    a.remove("/attic").unwrap();
    assert_eq!((ask(&a, &words("attic"), 9).fit, ask(&a, &words("x"), 9).fit), (0, 0));
    b.put("/attic/x", 1).unwrap();
    b.send_all(&mut a);
    assert_eq!(paths(&ask(&a, &words("attic"), 9)), ["/attic"]);
    assert_eq!(paths(&ask(&a, &words("x"), 9)), ["/attic/x"]);
}

#[test]
fn what_cannot_be_read_yet_is_found_when_it_can() {
    let (mut writer, mut reader) = (Replica::new(10, 2), Replica::new(11, 1));
    writer.put("/later", 1).unwrap();
    writer.send_all(&mut reader);
    assert_eq!(ask(&reader, &words("later"), 9).looked, 0);
    reader.learn(2);
    assert_eq!(paths(&ask(&reader, &words("later"), 9)), ["/later"]);
}

#[test]
fn tags_and_sizes_are_those_of_the_version_that_is_seen() {
    let (mut a, _) = pair();
    let tag = FileTag::new("tax").unwrap();
    let mut file = new_file(10);
    file.attributes.set_tags(vec![tag.clone()]);
    a.put_file("/scan", file).unwrap();
    let tagged = Search { tags: vec![tag], ..Search::default() };
    assert_eq!(paths(&ask(&a, &tagged, 9)), ["/scan"]);
    // A put without tags leaves them, one with others replaces them.
    a.put("/scan", 500).unwrap();
    let large = Search { min: Some(400), kinds: vec![FileKind::File], ..tagged.clone() };
    assert_eq!(paths(&ask(&a, &large, 9)), ["/scan"]);
    let mut file = new_file(10);
    file.attributes = Attributes::default();
    file.attributes.set_tags(vec![FileTag::new("other").unwrap()]);
    a.put_file("/scan", file).unwrap();
    assert_eq!(ask(&a, &tagged, 9).fit, 0);
    assert_eq!(paths(&ask(&a, &words("oth"), 9)), ["/scan"]);
}
