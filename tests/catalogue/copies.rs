//! Conflict copies that a mount gives names of their own: the copy ends when others know what it
//! has become, and not before, whatever fails on the way.

use crate::maptables::MapTables;
use crate::world::{Replica, meet, pair};
use p2pfs::core::catalogue::{View, id_of};
use p2pfs::core::tree::{Spot, Tree};
use p2pfs::core::work::{Edition, Named, Need, Planned, Renaming, Working};
use p2pfs::id::{InodeId, RecordId};
use p2pfs::sys::{Table, TableRead};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

type Editions = BTreeMap<InodeId, Edition>;

fn spot(name: &str) -> Spot {
    (InodeId::ROOT, name.as_bytes().to_vec())
}

/// Where the only conflict copy is, and how long it is.
fn copy_at(replica: &Replica) -> (Spot, u64) {
    let lines = replica.lines();
    let mut copies = lines.iter().filter(|line| line.contains(".conflict-"));
    let (name, content) = copies.next().unwrap()[1..].split_once(' ').unwrap();
    assert!(copies.next().is_none(), "{lines:?}");
    (spot(name), content.parse().unwrap())
}

/// An edit of one file at both members: a copy that is a version of an inode that others see, too.
fn edited() -> (Replica, Replica) {
    let (mut a, mut b) = pair();
    a.put("/f", 1).unwrap();
    meet(&mut a, &mut b);
    both_put(a, b)
}

/// A new file of the same name at each: a copy that is an inode.
fn made() -> (Replica, Replica) {
    let (a, b) = pair();
    both_put(a, b)
}

fn both_put(mut a: Replica, mut b: Replica) -> (Replica, Replica) {
    a.put("/f", 2).unwrap();
    b.now_ms += 5_000;
    b.put("/f", 3).unwrap();
    meet(&mut a, &mut b);
    (a, b)
}

/// Gives the copy a name; what has it now, and its content once that is stored.
fn name_copy(a: &mut Replica, work: &mut Working, to: &str) -> (Named, Editions) {
    let (from, new) = (copy_at(a).0, a.inode());
    let named = work.name_copy(&a.tree(), &from, &spot(to), Renaming::Replace, new).unwrap();
    let edition = |version| (named.inode, Edition { version, modified_ns: None });
    let editions = named.content.clone().map(edition).into_iter().collect();
    (named, editions)
}

/// Writes a plan down, as `node::work` does.
pub(crate) fn publish(a: &mut Replica, work: &mut Working, planned: Planned) {
    let drafts = a.plan(|planner| {
        planned.groups.iter().try_for_each(|group| planner.changes(group.changes.clone()))
    });
    let commit = |draft| id_of(&a.commit(draft));
    let ids: Vec<RecordId> = drafts.unwrap().iter().map(commit).collect();
    let clock = a.tick();
    work.settle(planned, &ids, clock, &|_| Need::None);
}

#[test]
fn a_copy_ends_after_its_content_is_known_under_its_name() {
    let (mut a, mut b) = edited();
    let content = copy_at(&a).1;
    let before = a.lines();
    let mut work = Working::default();
    let (named, editions) = name_copy(&mut a, &mut work, "kept");
    // Its version is stored, but what says so is not published, and the next time there is none.
    let planned = work.plan(&a.tree(), &editions, true).unwrap();
    assert!(planned.groups.iter().all(|group| group.inode == named.inode));
    let planned = work.plan(&a.tree(), &Editions::new(), true).unwrap();
    publish(&mut a, &mut work, planned);
    assert_eq!(a.lines(), before, "the copy is there for the others");
    assert!(!work.ends_copies() && work.has_copies());
    let planned = work.plan(&a.tree(), &editions, true).unwrap();
    publish(&mut a, &mut work, planned);
    assert!(work.ends_copies() && a.lines().contains(&format!("/kept {content}")));
    // Too few others have that yet.
    let planned = work.plan(&a.tree(), &Editions::new(), false).unwrap();
    publish(&mut a, &mut work, planned);
    assert_eq!((work.ends_copies(), a.lines().len()), (true, 3));
    let planned = work.plan(&a.tree(), &Editions::new(), true).unwrap();
    publish(&mut a, &mut work, planned);
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), [format!("/f {}", 5 - content), format!("/kept {content}")]);
    assert!(!work.ends_copies() && !work.has_copies() && work.pending() == 0);
}

#[test]
fn a_copy_that_is_an_inode_leaves_its_name_after_it_has_another_one() {
    let (mut a, mut b) = made();
    let content = copy_at(&a).1;
    let mut work = Working::default();
    let (named, editions) = name_copy(&mut a, &mut work, "kept");
    assert!(editions.is_empty(), "it is a version already");
    let planned = work.plan(&a.tree(), &editions, true).unwrap();
    assert!(planned.groups.iter().all(|group| group.inode == named.inode));
    publish(&mut a, &mut work, planned);
    assert!(work.ends_copies());
    let planned = work.plan(&a.tree(), &editions, true).unwrap();
    publish(&mut a, &mut work, planned);
    meet(&mut a, &mut b);
    assert_eq!(b.lines(), [format!("/f {}", 5 - content), format!("/kept {content}")]);
    assert!(!work.has_copies() && work.pending() == 0);
}

#[test]
fn a_copy_takes_the_place_of_what_has_the_name_or_is_removed_under_another_one() {
    for make in [edited, made] {
        let (mut a, mut b) = make();
        let (other, mut work) = (copy_at(&a).1, Working::default());
        let (_, editions) = name_copy(&mut a, &mut work, "f");
        for editions in [editions, Editions::new()] {
            let planned = work.plan(&a.tree(), &editions, true).unwrap();
            publish(&mut a, &mut work, planned);
        }
        meet(&mut a, &mut b);
        assert_eq!(b.lines(), [format!("/f {other}")]);
        assert!(!work.has_copies() && work.pending() == 0);

        let (mut a, mut b) = make();
        let (other, mut work) = (copy_at(&a).1, Working::default());
        name_copy(&mut a, &mut work, "kept");
        work.remove(&a.tree(), &spot("kept"), false).unwrap();
        for _ in 0..2 {
            let planned = work.plan(&a.tree(), &Editions::new(), true).unwrap();
            publish(&mut a, &mut work, planned);
        }
        meet(&mut a, &mut b);
        assert_eq!(b.lines(), [format!("/f {}", 5 - other)]);
        assert!(!work.has_copies());
    }
}

/// Tables that cannot be read any more after so many questions.
struct Failing<'a> {
    tables: &'a MapTables,
    left: Cell<usize>,
}

impl Failing<'_> {
    fn ask(&self) -> io::Result<()> {
        let left = self.left.get().checked_sub(1).ok_or(io::ErrorKind::Other)?;
        self.left.set(left);
        Ok(())
    }
}

impl TableRead for Failing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.ask().and_then(|()| self.tables.get(table, key))
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        self.ask().and_then(|()| self.tables.range(table, from, to, visit))
    }

    fn last(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.ask().and_then(|()| self.tables.last(table, from, to))
    }
}

impl View for Failing<'_> {
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>> {
        self.tables.record(id)
    }
}

#[test]
fn a_renaming_that_a_table_stops_leaves_everything_as_it_was() {
    for make in [edited, made] {
        for to in ["there", "f"] {
            let (mut a, _) = make();
            a.put("/there", 9).unwrap();
            let (from, new) = (copy_at(&a).0, a.inode());
            let mut failed = 0;
            for left in 0.. {
                let tables = Failing { tables: &a.store, left: Cell::new(left) };
                let (mut work, tree) = (Working::default(), Tree::new(&tables, &a.keyring));
                if work.name_copy(&tree, &from, &spot(to), Renaming::Replace, new).is_ok() {
                    break;
                }
                failed += 1;
                let seen = work.list(&a.tree(), &InodeId::ROOT, None, 9).unwrap().entries;
                let seen: Vec<_> = seen.into_iter().map(|(name, _)| name).collect();
                assert_eq!(seen, [&b"f"[..], &from.1, b"there"], "after {left} questions");
                work.rest(&|_| Need::None);
                assert_eq!(work.pending(), 0, "after {left} questions");
            }
            assert!(failed > 5);
        }
    }
}
