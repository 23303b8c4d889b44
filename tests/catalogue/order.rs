//! The key property: tables and tree are a function of the set of records and of the epochs known,
//! whatever the order, with duplicates, grants and secrets arriving anywhere between.

use crate::maptables::MapTables;
use crate::world::{Replica, new_file};
use p2pfs::core::catalogue::{
    Applied, Attributes, Change, Draft, Keyring, Name, Node, PARENTS_MAX, Place, SharedFile,
    Source, Target, seal_tree,
};
use p2pfs::core::hlc::at_ms;
use p2pfs::core::tree::share_spot;
use p2pfs::crypto::NodeKey;
use p2pfs::id::{InodeId, RecordId};
use proptest::prelude::*;

/// Applies records in this order to a member that knew nothing, each number an index; a number
/// above their count means: learn an epoch, or catch up.
fn replay(records: &[Vec<u8>], order: &[usize]) -> (MapTables, Vec<String>) {
    let mut replica = Replica::new(10, 0);
    replica.store = MapTables::default();
    replica.keyring = Keyring::default();
    for index in order {
        match records.get(*index) {
            Some(record) => {
                let applied = replica.apply_from(record, Source::Disk);
                assert!(!matches!(applied, Applied::Refused(_)), "{applied:?}");
            }
            None if index % 3 < 2 => replica.learn((index % 3) as u8 + 1),
            None => _ = replica.catch_up(2),
        }
    }
    replica.learn(1);
    replica.learn(2);
    while replica.catch_up(5) {}
    let lines = replica.lines();
    crate::search::finds_what_is_seen(&replica);
    (replica.store, lines)
}

/// An order of `0..count` with duplicates and events between.
fn orders(count: usize) -> impl Strategy<Value = Vec<usize>> {
    let all: Vec<usize> = (0..count).collect();
    let extra = proptest::collection::vec(0..count + 6, 0..count + 6);
    (Just(all), extra).prop_flat_map(|(mut all, extra)| {
        all.extend(extra);
        Just(all).prop_shuffle()
    })
}

fn same_in_any_order(records: &[Vec<u8>], order: &[usize]) {
    let in_order: Vec<usize> = (0..records.len()).collect();
    let (tables, lines) = replay(records, &in_order);
    let (shuffled, shuffled_lines) = replay(records, order);
    assert_eq!(lines, shuffled_lines);
    for (table, rows) in &tables.tables {
        assert!(Some(rows) == shuffled.tables.get(table), "{table:?} differs");
    }
    assert_eq!(tables.tables.len(), shuffled.tables.len());
}

/// One step of a story: who, what, where.
type Step = (usize, u8, u8, u8, u8);

/// What three members did who met now and then.
fn story(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut members: Vec<Replica> = (0..3).map(|number| Replica::new(10 + number, 1)).collect();
    let path = |depth: u8, name: u8| {
        let names = ["a", "b", "c", "d"];
        let part = |shift: u8| names[usize::from(name >> shift) % names.len()];
        match depth % 3 {
            0 => format!("/{}", part(0)),
            1 => format!("/{}/{}", part(2), part(0)),
            _ => format!("/{}/{}/{}", part(4), part(2), part(0)),
        }
    };
    for (who, what, depth, from, to) in steps {
        let (one, other) = (who % 3, (who / 3) % 3);
        let member = &mut members[one];
        let (from, to) = (path(*depth, *from), path(depth / 3, *to));
        // A wish that the tree refuses is part of the story.
        let _ = match what % 8 {
            0..=2 => member.put(&from, u64::from(to.len() as u32 % 3)),
            3 => member.mkdir(&from),
            4 => member.remove(&from),
            5 => member.rename(&from, &to),
            6 => {
                member.learn(2);
                continue;
            }
            _ if one != other => {
                let [member, other] = members.get_disjoint_mut([one, other]).unwrap();
                member.send_all(other);
                continue;
            }
            _ => continue,
        };
    }
    let mut all: Vec<Vec<u8>> = Vec::new();
    for member in &members {
        all.extend(member.store.records.values().cloned());
    }
    all.sort();
    all.dedup();
    all
}

/// One record that no honest planner would make: changes and parents drawn at random.
type Wild = (u8, Vec<(u8, u8, u8, u8)>, Vec<u8>);

fn wild_change((what, inode, parent, name): (u8, u8, u8, u8)) -> Change {
    let dir = |number: u8| match number % 6 {
        0 => InodeId::ROOT,
        number => InodeId([number; 16]),
    };
    let name_of = |number: u8| Name::new(&[b'a' + number % 3]).unwrap();
    let inode_of = dir(inode % 5 + 1);
    let place = |parent, name| Some(Place { parent: dir(parent), name: name_of(name) });
    let attributes = Attributes::default();
    match what % 6 {
        0..=2 => {
            let node = Node::Dir { place: place(parent, name), previous: place(inode, parent) };
            Change::Inode { inode: inode_of, node, attributes }
        }
        3 => {
            let node = Node::Dir { place: None, previous: place(parent, name) };
            Change::Inode { inode: inode_of, node, attributes }
        }
        4 => {
            let version = new_file(u64::from(name % 3)).version;
            let node = match what / 6 % 2 {
                0 => Node::File(version),
                _ => Node::Shared(SharedFile { version, path: vec![b'/', b'a' + parent % 3] }),
            };
            Change::Inode { inode: InodeId([100 + inode % 4; 16]), node, attributes }
        }
        _ if what == 5 => {
            // As somebody would say it who shares.
            let sharer = NodeKey::from_seed(&[10; 32]).id();
            let (parent, name) = share_spot(&sharer, &[b'/', b'a' + name % 3]).unwrap();
            let target = Target::Linked(InodeId([100 + inode % 4; 16]));
            Change::Entry { parent, name, target }
        }
        _ => {
            let file = InodeId([100 + inode % 4; 16]);
            let target = [Target::Removed, Target::Linked(file), Target::Kept(inode_of)];
            let target = target[usize::from(what / 6) % 3];
            Change::Entry { parent: dir(parent), name: name_of(name), target }
        }
    }
}

fn wild_records(wild: &[Wild]) -> Vec<Vec<u8>> {
    let author = Replica::new(10, 2);
    let mut records = vec![author.grant()];
    let mut ids: Vec<RecordId> = Vec::new();
    for (number, (clock, changes, parents)) in wild.iter().enumerate() {
        let keys: Vec<_> = author.keyring.iter().collect();
        let keys = keys[number % 2];
        let mut draft = Draft::default();
        for change in changes.iter().map(|change| wild_change(*change)) {
            if draft.changes.iter().all(|known| known.tag(keys) != change.tag(keys)) {
                draft.changes.push(change);
            }
        }
        let other = author.keyring.iter().find(|other| other.epoch() != keys.epoch()).unwrap();
        draft.also = draft.changes.iter().take(1).map(|change| change.tag(other)).collect();
        draft.parents = parents
            .iter()
            .filter(|_| !ids.is_empty())
            .map(|parent| ids[usize::from(*parent) % ids.len()])
            .take(PARENTS_MAX)
            .collect();
        draft.parents.sort();
        draft.parents.dedup();
        let clock = at_ms(1_000_000 + u64::from(*clock));
        let nonce = [number as u8; 24];
        let record = seal_tree(&author.key, keys, clock, &nonce, &draft).unwrap();
        ids.push(p2pfs::core::catalogue::id_of(&record));
        records.push(record);
    }
    records
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_story_told_in_any_order_ends_the_same(
        (records, order) in proptest::collection::vec(any::<Step>(), 1..40)
            .prop_map(|steps| story(&steps))
            .prop_flat_map(|records| {
                let count = records.len();
                (Just(records), orders(count))
            })
    ) {
        same_in_any_order(&records, &order);
    }

    #[test]
    fn wild_records_in_any_order_end_the_same(
        (records, order) in proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..4),
             proptest::collection::vec(any::<u8>(), 0..3)), 1..30)
            .prop_map(|wild| wild_records(&wild))
            .prop_flat_map(|records| {
                let count = records.len();
                (Just(records), orders(count))
            })
    ) {
        same_in_any_order(&records, &order);
    }
}
