//! What was superseded, and what releases make of it.

use crate::world::{Replica, new_file};
use p2pfs::core::catalogue::{
    Applied, Content, FileRecord, Node, Record, Refusal, Release, Scope, files_by_lookup, id_of,
    owed, settle_owed, thinned_until,
};
use p2pfs::core::hlc::ms_of;
use p2pfs::core::tree::{Due, NewFile, TreeError};
use p2pfs::id::{ChunkId, ClaimId, EpochId, LookupId};

/// The claim of all files of this world.
const CLAIM: ClaimId = ClaimId([7; 16]);

fn release(by: &mut Replica, claim: ClaimId, scope: Scope) -> Vec<u8> {
    let clock = by.tick();
    let record = Release { claim, scope }.sign(&by.key, clock).unwrap();
    assert_eq!(by.apply(&record), Applied::New);
    record
}

fn under(claim: u8, content: u64) -> NewFile {
    let mut file = new_file(content);
    file.version.claim = ClaimId([claim; 16]);
    file
}

#[test]
fn what_was_let_go_by_mistake_is_kept_but_no_removed_name_comes_back() {
    let mut a = Replica::new(10, 1);
    let mut b = Replica::new(11, 1);
    a.put("/f", 1).unwrap();
    a.send_all(&mut b);
    release(&mut a, CLAIM, Scope::All);
    let (inode, found) = a.tree().named_under(&CLAIM).unwrap().remove(0);

    // The one who keeps it has not heard of the removal.
    b.remove("/f").unwrap();
    let keep = a.plan(|planner| planner.keep(&CLAIM, (inode, &found), under(8, 1))).unwrap();
    a.commit(&keep[0]);
    assert_eq!(a.lines(), ["/f 1"]);
    let kept = a.tree().versions(&inode).unwrap();
    assert!(
        matches!(&kept[..], [one] if matches!(&one.node, Node::File(f) if f.claim.0 == [8; 16]))
    );
    assert!(a.tree().named_under(&CLAIM).unwrap().is_empty());
    b.send_all(&mut a);
    a.send_all(&mut b);
    assert!(a.lines().is_empty() && b.lines().is_empty());
}

#[test]
fn nothing_is_kept_that_was_changed_or_removed_meanwhile() {
    let mut a = Replica::new(10, 1);
    a.put("/f", 1).unwrap();
    release(&mut a, CLAIM, Scope::All);
    let (inode, found) = a.tree().named_under(&CLAIM).unwrap().remove(0);
    let gone = |a: &mut Replica| {
        let planned = a.plan(|planner| planner.keep(&CLAIM, (inode, &found), under(8, 1)));
        matches!(planned, Err(TreeError::NotFound))
    };
    assert!(!gone(&mut a));
    a.put("/f", 2).unwrap();
    assert!(gone(&mut a));
    a.remove("/f").unwrap();
    assert!(gone(&mut a));
}

#[test]
fn a_release_that_cannot_be_read_stays_owed_and_hides_no_other() {
    let mut a = Replica::new(10, 1);
    let records: Vec<_> =
        (1..=3).map(|n| id_of(&release(&mut a, ClaimId([n; 16]), Scope::All))).collect();
    let rotten = a.store.records.remove(&records[1]).unwrap();
    let pages = |a: &Replica| {
        let (mut out, mut after) = (Vec::new(), None);
        while let Some(one) = owed(&a.store, after.as_ref(), 1).unwrap().pop() {
            after = Some(one.0);
            out.push((one.0, one.1.is_some()));
        }
        out
    };
    let mut expected: Vec<_> = records.iter().map(|id| (*id, *id != records[1])).collect();
    expected.sort_unstable();
    assert_eq!(pages(&a), expected);
    settle_owed(&mut a.store, &[records[0], records[2]]).unwrap();
    a.store.records.insert(records[1], rotten);
    assert_eq!(pages(&a), [(records[1], true)]);
}

#[test]
fn a_file_is_found_behind_any_number_of_released_ones() {
    let mut a = Replica::new(10, 1);
    let lookup = LookupId([4; 32]);
    let mut put = |number: u16| {
        let mut claim = ClaimId([0; 16]);
        claim.0[..2].copy_from_slice(&number.to_be_bytes());
        let content = Content::Inline(vec![1; 100]);
        let file = FileRecord { claim, lookup, content, replicas: 3, flags: 0 };
        let clock = a.tick();
        let record = file.sign(&a.key, clock, EpochId::NONE).unwrap();
        assert_eq!(a.apply(&record), Applied::New);
        if number > 0 {
            release(&mut a, claim, Scope::All);
        }
        id_of(&record)
    };
    let kept = put(0);
    (1..600).for_each(|number| _ = put(number));
    let found = files_by_lookup(&a.store, &lookup).unwrap();
    assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), [kept]);
}

#[test]
fn the_last_of_thousands_of_versions_goes_too_and_none_that_is_kept_is_overlooked() {
    const ALL: u64 = 4200;
    const KEPT: u64 = 10;
    let mut a = Replica::new(10, 1);
    let puts: Vec<_> = (0..ALL).map(|content| a.put("/f", content).unwrap()).collect();
    let replaced = Record::parse(puts[(ALL - KEPT) as usize].clone()).unwrap();
    let inode = a.tree().resolve(b"/f").unwrap().inode;
    let mut gone = 0;
    while let Some(due) = a.tree().due(&inode, replaced.header.clock).unwrap() {
        let Due::Versions { claim, ended, kept } = due else { panic!("the file has a name") };
        let size = |node: &Node| if let Node::File(file) = node { file.size } else { 0 };
        let mut sizes: Vec<u64> = kept.iter().map(|one| size(&one.node)).collect();
        sizes.sort_unstable();
        assert!(sizes.into_iter().eq(ALL - KEPT..ALL));
        assert!(ended.iter().map(|one| size(&one.node)).eq((gone..).take(ended.len())));
        gone += ended.len() as u64;
        let mut versions: Vec<_> = ended.iter().map(|one| one.record).collect();
        versions.sort_unstable();
        let scope = Scope::Versions { until_ms: 1, versions, chunks: Vec::new() };
        release(&mut a, claim, scope);
    }
    assert_eq!(gone, ALL - KEPT);
    // A kept version that cannot be read might need anything.
    a.store.records.remove(&id_of(&puts[ALL as usize - 2]));
    let later = Record::parse(puts[ALL as usize - 4].clone()).unwrap().header.clock;
    assert_eq!(a.tree().due(&inode, later).unwrap(), None);
}

#[test]
fn nobody_lets_go_what_is_claimed_only_later() {
    let mut a = Replica::new(10, 1);
    let clock = a.tick();
    let mut until = |until_ms| {
        let (versions, chunks) = (Vec::new(), vec![ChunkId([1; 32])]);
        let scope = Scope::Versions { until_ms, versions, chunks };
        a.apply(&Release { claim: CLAIM, scope }.sign(&a.key, clock).unwrap())
    };
    assert_eq!(until(ms_of(clock) + 1), Applied::Refused(Refusal::Body));
    assert_eq!(until(u64::MAX), Applied::Refused(Refusal::Body));
    assert_eq!(until(ms_of(clock)), Applied::New);
}

#[test]
fn what_was_let_go_of_a_chunk_is_known_whatever_came_first() {
    let mut a = Replica::new(10, 1);
    let mut b = Replica::new(11, 1);
    let (chunk, other) = (ChunkId([3; 32]), ChunkId([4; 32]));
    let thin = |until_ms, chunks| Scope::Versions { until_ms, versions: Vec::new(), chunks };
    let releases = [thin(5, vec![chunk, other]), thin(9, vec![chunk])]
        .map(|scope| release(&mut a, CLAIM, scope));
    assert_eq!(b.apply(&a.grant()), Applied::New);
    for record in releases.iter().rev() {
        assert_eq!(b.apply(record), Applied::New);
    }
    for world in [&a, &b] {
        let until = |claim, chunk| thinned_until(&world.store, claim, chunk).unwrap();
        assert_eq!((until(&CLAIM, &chunk), until(&CLAIM, &other)), (Some(9), Some(5)));
        assert_eq!(until(&ClaimId([8; 16]), &chunk), None);
    }
}

#[test]
fn a_file_that_two_have_written_is_not_of_one_alone() {
    let mut a = Replica::new(10, 1);
    let mut b = Replica::new(11, 1);
    a.put("/f", 1).unwrap();
    a.put("/f", 2).unwrap();
    let inode = a.tree().resolve(b"/f").unwrap().inode;
    assert!(a.tree().is_all_by(&inode, &a.key.id()).unwrap());
    a.send_all(&mut b);
    b.put("/f", 3).unwrap();
    for by in [&a, &b] {
        assert!(!b.tree().is_all_by(&inode, &by.key.id()).unwrap());
    }
}
