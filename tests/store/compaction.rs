//! Space that comes back: what compaction keeps, what it gives up, and what it does with damage, a
//! full disk and readers that are under way. Crashes at each of its steps are the workload's.

use crate::model::{self, Act, Disk, Model, chunk, compact, submit};
use crate::rebuild;
use crate::simfs::{Fault, SimFs, Survive};
use bytes::{Bytes, BytesMut};
use p2pfs::id::{ChunkId, ClaimId};
use p2pfs::store::{CompactError, Op, Outcome, Progress, Store, Verdict};
use p2pfs::sys::Fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The segment files.
fn segments(disk: &Disk) -> Vec<PathBuf> {
    let folder = Path::new("/data/segments");
    disk.fs.read_dir(folder).unwrap().into_iter().map(|entry| folder.join(entry.name)).collect()
}

/// Damages the first place where these bytes lie in any segment.
fn flip(disk: &Disk, needle: &[u8]) {
    for path in segments(disk) {
        let at = disk.bytes(&path).windows(needle.len()).position(|part| part == needle);
        if let Some(at) = at {
            return disk.fs.rot(&path, |bytes| bytes[at] ^= 1);
        }
    }
    panic!("there is no such place");
}

/// A new segment is begun when the next batch does not fit; this fills up the present one.
fn fill_segment(store: &Store, model: &mut Model) {
    for chunk in [12, 13, 14, 15] {
        model.run(store, vec![Act::Put { chunk, claim: None }, Act::Drop(chunk)]);
    }
}

#[test]
fn purging_everything_shrinks_even_a_small_store() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }, Act::Record(1)]);
    let before = store.usage().stored_bytes;
    model.run(&store, vec![Act::Release(1)]);
    model.run(&store, vec![Act::Free(1)]);
    assert!(compact(&store, 20, || ()) > 0);
    model.check(&store).unwrap();
    let after = store.usage();
    assert!(after.stored_bytes + 2000 < before, "{before} bytes became {after:?}");
    assert_eq!((after.replicas, after.condemned, after.dead_bytes), (0, 0, 0));
    store.close();
    let on_disk: usize = segments(&disk).iter().map(|path| disk.len(path)).sum();
    assert!(on_disk < 600, "{on_disk} bytes are left");
    rebuild(&disk, disk.open().unwrap().0).unwrap();
}

#[test]
fn cycles_of_filling_and_purging_end_as_they_began() {
    let disk = Disk::new(SimFs::new(1));
    let (mut store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 0, claim: Some(0) }, Act::Record(0)]);
    let mut first = None;
    for cycle in 1..=20u8 {
        for chunk in 1..16 {
            model.run(&store, vec![Act::Put { chunk, claim: Some(cycle) }]);
        }
        let full = store.usage().stored_bytes;
        model.run(&store, vec![Act::Commit(cycle)]);
        model.run(&store, vec![Act::Release(cycle)]);
        model.run(&store, (1..16).map(Act::Free).collect());
        assert!(compact(&store, 10, || ()) > 0);
        model.check(&store).unwrap();
        let usage = store.usage();
        let left = usage.stored_bytes;
        assert!(left < full / 10 + 5000, "cycle {cycle}: {usage:?}");
        let start = *first.get_or_insert(left);
        // A release is remembered for good: 36 bytes, alone in its file at worst.
        assert!(left <= start + u64::from(cycle) * 260, "cycle {cycle}: {start} became {usage:?}");
        if cycle % 5 == 0 {
            rebuild(&disk, store).unwrap();
            store = disk.open().unwrap().0;
        }
    }
}

#[test]
fn an_end_stays_as_long_as_something_could_come_back_without_it() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 0..6 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(1) }]);
    }
    model.run(&store, vec![Act::Claim { chunks: vec![0, 1, 2], claim: 2 }]);
    fill_segment(&store, &mut model);
    // The first segment stays mostly live; what ends these claims lies in a later one.
    model.run(&store, vec![Act::Drop(0), Act::ReleaseRows { claim: 2, chunks: vec![1], since: 0 }]);
    model.run(&store, vec![Act::Lapse { claim: 2, since: 0 }]);
    fill_segment(&store, &mut model);
    fill_segment(&store, &mut model);
    assert!(compact(&store, 60, || ()) > 0);
    model.check(&store).unwrap();
    assert!(segments(&disk)[0].ends_with("00000001.seg"), "the first segment has not moved");
    rebuild(&disk, store).unwrap();
    let (store, _) = disk.open().unwrap();
    model.check(&store).unwrap();
    // Without anything dead before them they go.
    compact(&store, 1, || ());
    let mut gone = store.usage().stored_bytes;
    compact(&store, 1, || ());
    gone -= store.usage().stored_bytes;
    assert!(gone < 1000 && store.usage().dead_bytes == 0, "{:?}", store.usage());
    model.check(&store).unwrap();
    rebuild(&disk, store).unwrap();
}

#[test]
fn a_damaged_payload_is_not_copied_as_good_and_keeps_its_claims() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 1..5 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(1) }]);
    }
    model.run(&store, vec![Act::Claim { chunks: vec![2], claim: 2 }, Act::Commit(1)]);
    fill_segment(&store, &mut model);
    model.run(&store, vec![Act::Drop(1)]);
    // An even one: the hint of an odd one looks like its bytes.
    let (cid, sealed) = chunk(2);
    flip(&disk, &[2; 1000]);
    let claims = store.claims(cid).unwrap();
    let mut damaged = 0;
    while let Some(mut compaction) = store.compact(1).unwrap() {
        loop {
            match compaction.step(1000).unwrap() {
                Progress::More => {}
                Progress::Done(done) => break damaged += done.damaged.len(),
            }
        }
    }
    assert_eq!(damaged, 1);
    let expect_damaged = |store: &Store| {
        assert_eq!(store.held(cid).unwrap(), None);
        assert_eq!(store.claims(cid).unwrap(), claims);
        let usage = store.usage();
        assert_eq!((usage.replicas, usage.damaged), (2, 1));
        let mut listed = Vec::new();
        store
            .replicas(cid, &mut |replica| {
                listed.push(replica);
                false
            })
            .unwrap();
        let (found, len) = (listed[0], u32::try_from(sealed.len()).unwrap());
        assert_eq!((found.cid, found.damaged, found.len, found.replicas), (cid, true, len, 3));
        assert_eq!(store.verify(chunk(3).0).unwrap(), Verdict::Good);
    };
    expect_damaged(&store);
    rebuild(&disk, store).unwrap();
    let (store, _) = disk.open().unwrap();
    expect_damaged(&store);
    let again = Op::Replica { cid, sealed: sealed.clone(), claim: None, hint: None };
    assert_eq!(submit(&store, vec![again]), Ok(vec![Outcome::Replica { new: true }]));
    model.check(&store).unwrap();
}

#[test]
fn a_claim_outlives_the_copy_that_it_came_with() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 1..5 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(1) }]);
    }
    fill_segment(&store, &mut model);
    flip(&disk, &[2; 1000]);
    assert_eq!(store.verify(chunk(2).0).unwrap(), Verdict::Damaged);
    model.run(&store, vec![Act::Put { chunk: 2, claim: None }, Act::Drop(1)]);
    assert!(compact(&store, 1, || ()) > 0);
    model.check(&store).unwrap();
    rebuild(&disk, store).unwrap();
    model.check(&disk.open().unwrap().0).unwrap();
}

#[test]
fn a_removed_segment_does_not_come_back() {
    for step in 1..25 {
        let disk = Disk::new(SimFs::new(step));
        let (store, _) = disk.open().unwrap();
        let mut model = Model::default();
        for _ in 0..3 {
            fill_segment(&store, &mut model);
        }
        model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }]);
        disk.fs.fail_at(disk.fs.steps() + step, Fault::Crash);
        compact(&store, 1, || ());
        drop(store);
        disk.fs.crash(Survive::None);
        let (store, _) = disk.open().unwrap();
        model.settle(&store).unwrap();
        model.check(&store).unwrap();
        assert_eq!(rebuild(&disk, store), Ok(()), "crash at step {step}");
    }
}

#[test]
fn damaged_entries_are_said_anew() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 1..4 {
        model.run(&store, vec![Act::Put { chunk, claim: None }]);
    }
    model.run(&store, vec![Act::Claim { chunks: vec![2], claim: 20 }]);
    model.run(&store, vec![Act::Commit(20)]);
    model.run(&store, vec![Act::Release(30)]);
    fill_segment(&store, &mut model);
    model.run(&store, vec![Act::Drop(1)]);
    // The bodies of the entries: a replica's, a claim's, a committed, a released.
    flip(&disk, &[&chunk(3).0.0[..], &[2]].concat());
    flip(&disk, &[20; 16]);
    flip(&disk, &[20; 16]);
    flip(&disk, &[30; 16]);
    let before = store.claims(chunk(2).0).unwrap();
    assert!(compact(&store, 1, || ()) > 0);
    let check = |store: &Store| {
        assert_eq!(store.claims(chunk(2).0).unwrap(), before);
        assert!(before[0].1, "it is committed");
        assert_eq!(store.verify(chunk(2).0).unwrap(), Verdict::Good);
        let usage = store.usage();
        assert_eq!((usage.replicas, usage.damaged, usage.condemned), (1, 1, 1));
        let claim = Op::Claim { cids: vec![chunk(2).0], claim: model::claim(30, 9) };
        assert_eq!(submit(store, vec![claim]), Ok(vec![Outcome::Claim { held: vec![true] }]));
        assert_eq!(store.claims(chunk(2).0).unwrap(), before, "claim 30 stays released");
    };
    check(&store);
    rebuild(&disk, store).unwrap();
    check(&disk.open().unwrap().0);
}

#[test]
fn a_full_disk_is_emptied() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 0..16 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(chunk % 2) }]);
    }
    disk.fs.set_capacity(disk.fs.used());
    let full = disk.fs.used();
    model.run(&store, vec![Act::Release(1)]);
    model.run(&store, (0..16).map(Act::Free).collect());
    assert_eq!((model.unsure.len(), model.chunks.len()), (0, 8));
    assert!(compact(&store, 10, || ()) > 0);
    assert!(disk.fs.used() + 40_000 < full, "{} of {full} bytes", disk.fs.used());
    model.check(&store).unwrap();
    disk.fs.crash(Survive::None);
    let (store, _) = disk.open().unwrap();
    model.check(&store).unwrap();
}

#[test]
fn a_compaction_that_is_dropped_has_not_been() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    for chunk in 0..14 {
        model.run(&store, vec![Act::Put { chunk, claim: None }]);
    }
    model.run(&store, vec![Act::Drop(1)]);
    let before = segments(&disk);
    let mut compaction = store.compact(1).unwrap().unwrap();
    assert_eq!(compaction.step(1).unwrap(), Progress::More);
    assert!(matches!(store.compact(1), Err(CompactError::Running)));
    assert_eq!(segments(&disk).len(), before.len() + 1);
    drop(compaction);
    assert_eq!(segments(&disk), before);
    // Left behind by a crash it is removed at the next start.
    let mut compaction = store.compact(1).unwrap().unwrap();
    assert_eq!(compaction.step(1).unwrap(), Progress::More);
    drop(store);
    disk.fs.crash(Survive::All);
    drop(compaction);
    let (store, opened) = disk.open().unwrap();
    assert_eq!((segments(&disk), opened.rebuilt), (before, None));
    model.check(&store).unwrap();
    assert!(compact(&store, 1, || ()) > 0);
    model.check(&store).unwrap();
}

/// Chunk number `n` of a kind.
fn large(kind: u8, n: u8) -> (ChunkId, Bytes) {
    let bytes = Bytes::from([&[kind, n][..], &[n; 20_000]].concat());
    (ChunkId(blake3::hash(&bytes).into()), bytes)
}

fn put(store: &Store, kind: u8, n: u8, claim: u8) {
    let (cid, sealed) = large(kind, n);
    let claim = Some(model::claim(claim, 1));
    submit(store, vec![Op::Replica { cid, sealed, claim, hint: None }]).unwrap();
}

#[test]
fn readers_never_miss_a_chunk_that_moves() {
    const KEPT: u8 = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut options = Disk::new(SimFs::new(1)).options();
    options.dir = dir.path().join("data");
    options.segment_len = 300_000;
    options.fs = Arc::new(p2pfs::sys::os::OsFs);
    options.clock = Arc::new(p2pfs::sys::os::OsClock::new());
    options.spawn = Arc::new(p2pfs::sys::os::OsSpawn);
    let (store, _) = Store::open(options, Arc::new(model::Seen)).unwrap();
    let (over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut moved = 0;
    (0..KEPT).for_each(|n| put(&store, 0, n, 1));
    std::thread::scope(|scope| {
        for reader in 0..2u8 {
            let (store, over, reads) = (store.clone(), &over, &reads);
            scope.spawn(move || {
                let mut n = reader;
                while !over.load(Ordering::Relaxed) {
                    n = (n + 7) % KEPT;
                    let (cid, sealed) = large(0, n);
                    let mut buf = |len| BytesMut::zeroed(len);
                    let read = store.read(cid, &mut buf);
                    assert!(matches!(&read, Ok(Some(got)) if *got == sealed), "{n}: {read:?}");
                    if n % 8 == 0 {
                        assert_eq!(store.verify(cid).unwrap(), Verdict::Good);
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 2..14u8 {
            (0..20).for_each(|n| put(&store, round, n, round));
            submit(&store, vec![Op::Release { claim: ClaimId([round; 16]) }]).unwrap();
            let cids: Vec<_> = (0..20).map(|n| large(round, n).0).collect();
            let (sent, got) = std::sync::mpsc::channel();
            store.stamp(cids.clone(), 1, Box::new(move |_| sent.send(()).unwrap())).unwrap();
            got.recv().unwrap();
            let free = cids.into_iter().map(|cid| Op::Free { cid, round: 1 }).collect();
            let freed = submit(&store, free).unwrap();
            assert!(freed.iter().all(|freed| *freed == Outcome::Freed { freed: true }));
            moved += compact(&store, 10, || ());
        }
        over.store(true, Ordering::Relaxed);
    });
    let reads = reads.into_inner();
    assert!(moved > 12 && reads > 100, "{moved} segments moved under {reads} reads");
    assert!(store.usage().stored_bytes < 1_000_000, "{:?}", store.usage());
}
