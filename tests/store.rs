//! The store against a disk that crashes, lies, fails, fills up and rots. Everything goes through
//! the public interface and is compared with a model in memory; what was answered must be there.
//!
//! The random walk of store and model takes 200 walks of up to 30 steps; `P2PFS_STORE_WALKS` and
//! `P2PFS_STORE_STEPS` ask for more (before a release: 2000 and 60).

#[cfg(test)]
#[path = "store/compaction.rs"]
mod compaction;
#[cfg(test)]
#[path = "store/golden.rs"]
mod golden;
#[path = "harness/machine.rs"]
mod machine;
#[cfg(test)]
#[path = "store/model.rs"]
mod model;
#[cfg(all(test, p2pfs_shuttle))]
#[path = "store/schedules.rs"]
mod schedules;
#[cfg(test)]
#[path = "harness/simclock.rs"]
mod simclock;
#[cfg(test)]
#[path = "harness/simfs.rs"]
mod simfs;

use bytes::{Bytes, BytesMut};
use model::{Act, Disk, Model, chunk, compact, dump, submit};
use p2pfs::id::{ChunkId, NodeId, RecordId};
use p2pfs::store::{FollowTables, Op, OpenError, Outcome, ReadError, Store, Verdict, WriteError};
use p2pfs::sys::{Fs, Table};
use proptest::prelude::*;
use simfs::{Fault, SimFs, Survive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn segment(number: u32) -> PathBuf {
    Path::new("/data/segments").join(format!("{number:08}.seg"))
}

fn table_file() -> PathBuf {
    PathBuf::from("/data/tables/index.redb")
}

fn marker() -> PathBuf {
    PathBuf::from("/data/store.format")
}

/// What a busy life looks like: puts, claims, records, drops, copies, segments that fill up, a
/// checkpoint, idleness, a restart. It goes on after failures, as a daemon does.
fn workload(disk: &Disk, model: &mut Model) {
    let Ok((store, _)) = disk.open() else { return };
    for round in 0..2u8 {
        for n in 0..6 {
            let put = Act::Put { chunk: round * 4 + n, claim: Some(n % 3) };
            model.run(&store, vec![put, Act::Record(round * 4 + n)]);
        }
        model.run(&store, vec![Act::Claim { chunks: (0..16).collect(), claim: 3 }]);
        model.run(&store, vec![Act::Commit(round), Act::Drop(round * 2)]);
        let some = Act::ReleaseRows { claim: 3, chunks: (0..8).collect(), since: 0 };
        model.run(&store, vec![some, Act::Lapse { claim: 2, since: u64::from(round) * 6 }]);
        model.run(&store, vec![Act::Release(1 + round), Act::Free(1), Act::Free(5)]);
        model.run(&store, vec![Act::Free(1), Act::Claim { chunks: vec![5], claim: 3 }]);
        let mut put = 0;
        compact(&store, 20, || {
            put += 1;
            if put == 1 {
                model.run(&store, vec![Act::Drop(2), Act::Put { chunk: 2, claim: Some(3) }]);
            }
        });
        store.cache(chunk(13).0, chunk(13).1);
        disk.pass();
        let (sent, got) = std::sync::mpsc::channel();
        let done = Box::new(move |result: std::io::Result<()>| {
            sent.send(result.is_ok()).expect("someone waits");
        });
        let change =
            Box::new(|tables: &mut dyn FollowTables| tables.insert(Table("own"), b"key", b"value"));
        if store.update_tables(change, done).is_ok() {
            got.recv().expect("a change of tables is answered");
        }
    }
    store.close();
}

/// Runs the workload with the power cut at operation `step`, and checks what is there then.
fn crash_at(fs: SimFs, step: u64, survive: Survive) -> Result<(), String> {
    let disk = Disk::new(fs);
    disk.fs.fail_at(step, Fault::Crash);
    let mut model = Model::default();
    workload(&disk, &mut model);
    if !disk.fs.is_dead() {
        workload(&disk, &mut model);
    }
    disk.fs.crash(survive);
    // Recovery may be cut short as well.
    disk.fs.fail_at(disk.fs.steps() + 1 + step % 13, Fault::Crash);
    if let Ok((store, _)) = disk.open() {
        drop(store);
    }
    disk.fs.crash(survive);
    let (store, opened) = disk.open().map_err(|err| err.to_string())?;
    if !opened.rot.is_empty() {
        return Err(format!("a crash was taken for rot: {:?}", opened.rot));
    }
    model.settle(&store)?;
    model.run(&store, vec![Act::Put { chunk: 15, claim: Some(1) }]);
    model.check(&store)?;
    rebuild(&disk, store)
}

/// Loses the tables: those that are made anew must be the same.
fn rebuild(disk: &Disk, store: Store) -> Result<(), String> {
    let before = dump(&store).map_err(|err| err.to_string())?;
    let files = disk.fs.read_dir(Path::new("/data/segments")).map_err(|err| err.to_string())?;
    let known = &before["@segment"];
    let mut begun = Vec::new();
    for file in &files {
        let name = file.name.to_string_lossy();
        let number: u32 = name[..8].parse().map_err(|_| format!("{name} is no segment"))?;
        if !known.contains_key(&number.to_be_bytes()[..]) {
            begun.push(name.into_owned());
        }
    }
    // The newest may have nothing yet; of the others no one is there without a reason.
    let newest = files.iter().rfind(|file| file.name.len() == "00000001.seg".len());
    if begun.iter().any(|name| newest.is_none_or(|newest| *newest.name != **name)) {
        return Err(format!("of {files:?} there is no need for {begun:?}"));
    }
    store.close();
    drop(store);
    disk.fs.rot(&table_file(), Vec::clear);
    let (store, opened) = disk.open().map_err(|err| err.to_string())?;
    if opened.rebuilt.is_none() || !opened.rot.is_empty() {
        return Err(format!("the rebuild says {opened:?}"));
    }
    let after = dump(&store).map_err(|err| err.to_string())?;
    for (table, rows) in &before {
        let rebuilt = &after[table];
        if rows != rebuilt {
            return Err(format!("a rebuilt {table} differs: {rows:02x?} and {rebuilt:02x?}"));
        }
    }
    Ok(())
}

/// How many operations the workload takes.
fn steps() -> u64 {
    let disk = Disk::new(SimFs::new(1));
    let mut model = Model::default();
    workload(&disk, &mut model);
    workload(&disk, &mut model);
    let (store, opened) = disk.open().expect("nothing failed");
    assert_eq!((opened.rebuilt, opened.truncated, opened.replayed), (None, 0, 0));
    assert_eq!(model.check(&store), Ok(()));
    disk.fs.steps()
}

#[test]
fn what_waits_for_a_later_record_is_done_once_all_are_read_back() {
    let disk = Disk::new(SimFs::new(1));
    let mut model = Model::default();
    let (store, _) = disk.open().unwrap();
    let late = |store: &Store| {
        let mut rows = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        store.read_tables(|tables| tables.range(model::LATE, &[], None, visit)).unwrap();
        rows
    };
    model.run(&store, (0..5).map(Act::Record).collect());
    assert_eq!(late(&store), 5);
    drop(store);
    disk.fs.remove_file(&table_file()).unwrap();
    let (store, opened) = disk.open().unwrap();
    assert!(opened.rebuilt.is_some());
    assert_eq!(late(&store), 0);
    model.check(&store).unwrap();
}

#[test]
fn what_was_answered_survives_a_crash_at_every_step() {
    let steps = steps();
    assert!(steps > 150, "the workload is too small to mean much: {steps} steps");
    for step in 1..=steps {
        for survive in [Survive::None, Survive::Some, Survive::All] {
            let result = crash_at(SimFs::new(step), step, survive);
            assert_eq!(result, Ok(()), "crash at step {step} of {steps}, {survive:?}");
        }
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_anyone_relies_on_it() {
    for step in 1..=steps() {
        let disk = Disk::new(SimFs::new(step));
        disk.fs.fail_at(step, Fault::Crash);
        let mut model = Model::default();
        workload(&disk, &mut model);
        workload(&disk, &mut model);
        disk.fs.kill();
        let (store, _) = disk.open().expect("nothing failed");
        let mut result = model.settle(&store);
        // What a reader saw counts as much as what is answered now.
        if step % 2 == 0 {
            model.run(&store, vec![Act::Claim { chunks: (0..16).collect(), claim: 3 }]);
        }
        disk.fs.fail_at(disk.fs.steps() + 1, Fault::Crash);
        drop(store);
        disk.fs.crash(Survive::None);
        let (store, opened) = disk.open().expect("nothing failed");
        result = result.and_then(|()| model.check(&store));
        assert_eq!((result, opened.rot), (Ok(()), vec![]), "killed at step {step}");
    }
}

#[test]
fn without_sync_the_same_check_fails() {
    let failed = (1..=steps())
        .step_by(7)
        .filter(|step| crash_at(SimFs::new(*step).without_sync(), *step, Survive::Some).is_err())
        .count();
    assert!(failed > 10, "a disk that lies went unnoticed: {failed} failures");
}

#[test]
fn a_failed_operation_anywhere_loses_nothing() {
    for fault in [Fault::Io, Fault::NoSpace] {
        for step in 1..=steps() {
            let disk = Disk::new(SimFs::new(step));
            disk.fs.fail_at(step, fault);
            let mut model = Model::default();
            workload(&disk, &mut model);
            workload(&disk, &mut model);
            disk.fs.crash(Survive::Some);
            let (store, _) = disk.open().unwrap();
            let result = model.settle(&store).and_then(|()| model.check(&store));
            assert_eq!(result, Ok(()), "{fault:?} at step {step}");
        }
    }
}

#[test]
fn a_chunk_that_was_claimed_again_meanwhile_is_not_dropped() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    let claim = |claim| Act::Claim { chunks: vec![1], claim };
    model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }]);
    for again in [claim(2), claim(1), Act::Put { chunk: 1, claim: Some(3) }] {
        model.run(&store, vec![again, Act::Drop(1)]);
        assert!(model.chunks.contains_key(&1));
        assert_eq!(model.check(&store), Ok(()));
    }
    model.run(&store, vec![Act::Drop(1)]);
    assert!(model.chunks.is_empty());
    assert_eq!(model.check(&store), Ok(()));
}

#[test]
fn the_second_failure_makes_the_store_read_only_and_reads_go_on() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }]);
    let now = disk.fs.steps();
    (now + 1..now + 20).for_each(|step| disk.fs.fail_at(step, Fault::Io));
    let (cid, sealed) = chunk(2);
    let put = vec![Op::Replica { cid, sealed, claim: None, hint: None }];
    assert!(matches!(submit(&store, put.clone()), Err(WriteError::ReadOnly(_))));
    // A disk that seems well again is not believed before somebody has looked at it.
    disk.fs.forget_faults();
    assert!(matches!(submit(&store, put), Err(WriteError::ReadOnly(_))));
    assert!(store.usage().read_only.is_some());
    assert_eq!(store.held(cid).unwrap(), None);
    model.check(&store).unwrap();
}

#[test]
fn a_failed_sync_is_written_again_to_a_new_segment() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: None }]);
    // The write is the first operation of the batch, the sync the second.
    disk.fs.fail_at(disk.fs.steps() + 2, Fault::Io);
    model.run(&store, vec![Act::Put { chunk: 2, claim: None }]);
    model.check(&store).unwrap();
    assert_eq!(model.chunks.len(), 2, "the batch was answered");
    drop(store);
    disk.fs.crash(Survive::None);
    let (store, _) = disk.open().unwrap();
    model.check(&store).unwrap();
}

#[test]
fn a_full_disk_refuses_chunks_but_takes_claims_and_drops() {
    let disk = Disk::new(SimFs::new(1));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: None }, Act::Put { chunk: 2, claim: None }]);
    store.cache(chunk(9).0, chunk(9).1);
    disk.fs.set_capacity(disk.fs.used() + 1000);
    let (cid, sealed) = chunk(3);
    let put = Op::Replica { cid, sealed, claim: None, hint: None };
    assert_eq!(submit(&store, vec![put.clone()]), Err(WriteError::DiskFull));
    assert_eq!(store.held(chunk(9).0).unwrap(), None, "evictable copies went first");
    for n in 0..100 {
        model.run(&store, vec![Act::Claim { chunks: vec![1], claim: n }]);
    }
    model.run(&store, vec![Act::Drop(2)]);
    assert_eq!(model.unsure.len(), 0, "claims and drops were answered");
    model.check(&store).unwrap();
    disk.fs.set_capacity(1 << 40);
    assert_eq!(submit(&store, vec![put]), Ok(vec![Outcome::Replica { new: true }]));
}

#[test]
fn the_capacity_is_kept() {
    let mut disk = Disk::new(SimFs::new(1));
    disk.capacity = 100_000;
    let (store, _) = disk.open().unwrap();
    let refused = (0..40)
        .map(chunk)
        .map(|(cid, sealed)| {
            submit(&store, vec![Op::Replica { cid, sealed, claim: None, hint: None }])
        })
        .filter(|answer| *answer == Err(WriteError::NoCapacity))
        .count();
    assert!(refused > 0);
    assert!(store.usage().stored_bytes <= 100_000);
    let (cid, sealed) = chunk(0);
    let again = vec![Op::Replica { cid, sealed, claim: None, hint: None }];
    assert_eq!(submit(&store, again), Ok(vec![Outcome::Replica { new: false }]));
}

/// A store with some content, closed.
fn filled() -> (Disk, Model) {
    let disk = Disk::new(SimFs::new(5));
    let mut model = Model::default();
    workload(&disk, &mut model);
    (disk, model)
}

#[test]
fn tables_that_are_missing_cut_short_or_damaged_are_rebuilt() {
    let damages: [fn(&mut Vec<u8>); 6] = [
        Vec::clear,
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.truncate(bytes.len() / 3),
        |bytes| bytes.truncate(4104),
        |bytes| bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 0x10),
        |bytes| bytes[..4096].fill(0),
    ];
    for damage in damages {
        let (disk, model) = filled();
        disk.fs.rot(&table_file(), damage);
        let (store, opened) = disk.open().unwrap();
        assert!(opened.rebuilt.is_some() && opened.replayed > 0, "{opened:?}");
        model.check(&store).unwrap();
    }
    let (disk, model) = filled();
    disk.fs.remove_file(&table_file()).unwrap();
    let (store, opened) = disk.open().unwrap();
    assert!(opened.rebuilt.is_some());
    model.check(&store).unwrap();
}

#[test]
fn any_flipped_bit_of_the_table_file_is_harmless() {
    let len = {
        let (disk, _) = filled();
        disk.len(&table_file())
    };
    for n in 0..150 {
        let (disk, model) = filled();
        // Half of them in the pages that matter most, the others anywhere.
        let at = if n % 2 == 0 { n * 7 } else { n * 7919 * 41 % len };
        disk.fs.rot(&table_file(), |bytes| bytes[at] ^= 1 << (n % 8));
        let (store, _) = disk.open().unwrap();
        // A page that was not needed for opening fails the first reader; then it is rebuilt.
        let _ = model.check(&store);
        model.check(&store).unwrap();
    }
}

#[test]
fn rot_before_the_watermark_is_kept_and_reported_and_what_lies_behind_it_counts() {
    let disk = Disk::new(SimFs::new(5));
    let mut model = Model::default();
    let (store, _) = disk.open().unwrap();
    for chunk in 0..5 {
        model.run(&store, vec![Act::Put { chunk, claim: Some(1) }]);
    }
    store.close();
    // The head of the first chunk's record; the file keeps its length.
    disk.fs.rot(&segment(1), |bytes| bytes[100] ^= 1);
    disk.fs.rot(&table_file(), Vec::clear);
    let before = disk.len(&segment(1));
    let (store, opened) = disk.open().unwrap();
    assert_eq!((opened.rot.len(), opened.truncated), (1, 0), "{opened:?}");
    assert_eq!((opened.rot[0].segment, opened.rot[0].offset), (1, 88));
    assert_eq!(disk.len(&segment(1)), before);
    let lost = model.chunks.keys().filter(|n| store.held(chunk(**n).0).unwrap().is_none()).count();
    assert!(lost <= 1, "one record was damaged, {lost} chunks are gone");
}

#[test]
fn tables_are_rebuilt_on_demand_without_records_that_are_damaged() {
    let disk = Disk::new(SimFs::new(5));
    let (store, _) = disk.open().unwrap();
    let [bad, good] = [3u8, 4].map(|n| {
        let bytes = Bytes::from(vec![n; 100]);
        let id = RecordId(blake3::hash(&bytes).into());
        submit(&store, vec![Op::Record { id, bytes }]).unwrap();
        id
    });
    disk.fs.rot(&segment(1), |bytes| {
        let at = bytes.windows(9).position(|part| part == [3; 9]).unwrap();
        bytes[at] ^= 1;
    });
    assert!(matches!(store.record(bad), Err(ReadError::Damaged)));
    let (sent, got) = std::sync::mpsc::channel();
    store.rebuild("a test", Box::new(move || sent.send(()).unwrap())).unwrap();
    got.recv().unwrap();
    assert!(store.record(bad).unwrap().is_none());
    assert_eq!(store.record(good).unwrap().unwrap(), [4; 100]);
    assert_eq!(store.usage().records, 1);
}

#[test]
fn a_torn_tail_is_cut_off() {
    let disk = Disk::new(SimFs::new(5));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }]);
    // Power goes in the middle of the next batch; only parts of it are on the disk.
    disk.fs.fail_at(disk.fs.steps() + 2, Fault::Crash);
    model.run(&store, vec![Act::Put { chunk: 2, claim: Some(1) }]);
    drop(store);
    disk.fs.crash(Survive::Some);
    let (store, opened) = disk.open().unwrap();
    assert!(opened.truncated > 0 && opened.rot.is_empty(), "{opened:?}");
    model.settle(&store).unwrap();
    assert_eq!(model.chunks.len(), 1);
    model.check(&store).unwrap();
}

#[test]
fn a_damaged_chunk_counts_as_not_held_until_it_comes_again() {
    let disk = Disk::new(SimFs::new(5));
    let (store, _) = disk.open().unwrap();
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: Some(1) }]);
    disk.fs.rot(&segment(1), |bytes| {
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
    });
    let (cid, sealed) = chunk(1);
    assert_eq!(store.verify(cid).unwrap(), Verdict::Damaged);
    assert_eq!(store.verify(cid).unwrap(), Verdict::Damaged, "it is needed");
    assert_eq!(store.held(cid).unwrap(), None);
    assert_eq!((store.usage().replicas, store.usage().damaged), (0, 1));
    assert_eq!(store.claims(cid).unwrap().len(), 1, "the promise stands");
    let put = vec![Op::Replica { cid, sealed, claim: None, hint: None }];
    assert_eq!(submit(&store, put), Ok(vec![Outcome::Replica { new: true }]));
    assert_eq!(store.verify(cid).unwrap(), Verdict::Good);
    model.check(&store).unwrap();
}

#[test]
fn directories_that_are_not_ours_are_refused() {
    let (disk, _) = filled();
    let mut other = Disk { fs: disk.fs.clone(), ..Disk::new(SimFs::new(1)) };
    other.node = NodeId([9; 32]);
    assert!(matches!(other.open(), Err(OpenError::OtherNode { .. })));
    disk.fs.rot(&marker(), |bytes| {
        *bytes = String::from_utf8_lossy(bytes).replace("store 1", "store 7").into_bytes();
    });
    assert!(matches!(disk.open(), Err(OpenError::Newer { found: 7, known: 1 })));
    disk.fs.remove_file(&marker()).unwrap();
    assert!(matches!(disk.open(), Err(OpenError::MarkerLost)));
}

#[test]
fn evictable_copies_are_served_promoted_and_reclaimed() {
    let disk = Disk::new(SimFs::new(5));
    let (store, _) = disk.open().unwrap();
    for n in 0..200 {
        let sealed = Bytes::from(vec![n; 50_000]);
        store.cache(ChunkId(blake3::hash(&sealed).into()), sealed);
    }
    assert!(store.usage().cached_bytes <= disk.cached_max + 100);
    let sealed = Bytes::from(vec![199; 50_000]);
    let cid = ChunkId(blake3::hash(&sealed).into());
    assert!(store.held(cid).unwrap().is_some_and(|held| !held.replica));
    let mut buf = |len| BytesMut::zeroed(len);
    assert_eq!(store.read(cid, &mut buf).unwrap(), Some(sealed));
    let oldest = ChunkId(blake3::hash(&[0; 50_000]).into());
    assert_eq!(store.held(oldest).unwrap(), None);
    let claim = model::claim(1, 7);
    let outcome = submit(&store, vec![Op::Claim { cids: vec![cid, oldest], claim }]);
    assert_eq!(outcome, Ok(vec![Outcome::Claim { held: vec![true, false] }]));
    drop(store);
    disk.fs.crash(Survive::None);
    let (store, _) = disk.open().unwrap();
    assert!(store.held(cid).unwrap().is_some_and(|held| held.replica));
    assert_eq!(store.claims(cid).unwrap(), vec![(claim, false)]);
}

#[test]
fn an_idle_store_gives_back_reserved_space() {
    let disk = Disk::new(SimFs::new(5));
    let (store, _) = disk.open().unwrap();
    assert!(disk.fs.used() < 20 << 20, "an empty node uses {} bytes", disk.fs.used());
    let mut model = Model::default();
    model.run(&store, vec![Act::Put { chunk: 1, claim: None }]);
    let busy = disk.fs.used();
    disk.pass();
    assert!(disk.fs.used() + 10_000 < busy, "{} of {busy} bytes", disk.fs.used());
}

#[test]
fn the_writer_runs_in_a_thread_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(SimFs::new(1));
    let open = || {
        let mut options = disk.options();
        options.dir = dir.path().join("data");
        options.fs = Arc::new(p2pfs::sys::os::OsFs);
        options.clock = Arc::new(p2pfs::sys::os::OsClock::new());
        options.spawn = Arc::new(p2pfs::sys::os::OsSpawn);
        Store::open(options, Arc::new(model::Seen)).unwrap()
    };
    let mut model = Model::default();
    let (store, _) = open();
    for n in 0..12 {
        model.run(&store, vec![Act::Put { chunk: n, claim: Some(n % 3) }, Act::Record(n)]);
    }
    model.check(&store).unwrap();
    store.close();
    let (store, opened) = open();
    assert_eq!((opened.rebuilt, opened.replayed), (None, 0));
    model.check(&store).unwrap();
}

/// A step of the model test.
#[derive(Clone, Debug)]
enum Event {
    Submit(Vec<Act>),
    Cache(u8),
    Compact(u8, Vec<Act>),
    Fail(u64, bool),
    Crash(u8),
    Reopen,
    LoseTables,
    Pass,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..16, proptest::option::of(0u8..4))
            .prop_map(|(chunk, claim)| Act::Put { chunk, claim }),
        2 => (proptest::collection::vec(0u8..16, 1..6), 0u8..4)
            .prop_map(|(chunks, claim)| Act::Claim { chunks, claim }),
        2 => (0u8..16).prop_map(Act::Record),
        1 => (0u8..4).prop_map(Act::Commit),
        1 => (0u8..16).prop_map(Act::Drop),
        1 => (0u8..4).prop_map(Act::Release),
        1 => (proptest::collection::vec(0u8..16, 1..6), 0u8..4, 0u64..9)
            .prop_map(|(chunks, claim, since)| Act::ReleaseRows { chunks, claim, since }),
        1 => (0u8..4, 0u64..9).prop_map(|(claim, since)| Act::Lapse { claim, since }),
        3 => (0u8..16).prop_map(Act::Free),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => proptest::collection::vec(act(), 1..4).prop_map(Event::Submit),
        2 => (0u8..16).prop_map(Event::Cache),
        3 => (0u8..60, proptest::collection::vec(act(), 1..3))
            .prop_map(|(least, acts)| Event::Compact(least, acts)),
        2 => (1u64..12, any::<bool>()).prop_map(|(after, full)| Event::Fail(after, full)),
        2 => (0u8..4).prop_map(Event::Crash),
        1 => Just(Event::Reopen),
        1 => Just(Event::LoseTables),
        1 => Just(Event::Pass),
    ]
}

/// A number that can be given from outside.
fn asked(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: asked("P2PFS_STORE_WALKS", 200), failure_persistence: None, ..Default::default()
    })]
    #[test]
    fn the_store_agrees_with_the_model(
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..asked("P2PFS_STORE_STEPS", 30) as usize),
    ) {
        let disk = Disk::new(SimFs::new(seed));
        let mut model = Model::default();
        let (mut store, _) = disk.open().unwrap();
        for event in events {
            match event {
                Event::Submit(acts) => model.run(&store, acts),
                Event::Cache(n) => store.cache(chunk(n).0, chunk(n).1),
                Event::Compact(least, mut acts) => {
                    compact(&store, least, || model.run(&store, std::mem::take(&mut acts)));
                }
                Event::Fail(after, full) => {
                    let fault = if full { Fault::NoSpace } else { Fault::Io };
                    disk.fs.fail_at(disk.fs.steps() + after, fault);
                }
                Event::Pass => disk.pass(),
                Event::Crash(survive) => {
                    disk.fs.fail_at(disk.fs.steps() + 1, Fault::Crash);
                    drop(store);
                    match survive {
                        0 => disk.fs.crash(Survive::None),
                        1 => disk.fs.crash(Survive::Some),
                        2 => disk.fs.crash(Survive::All),
                        _ => disk.fs.kill(),
                    }
                    store = disk.open().unwrap().0;
                    model.settle(&store).unwrap();
                }
                Event::Reopen | Event::LoseTables => {
                    store.close();
                    // A fault that was not met is forgotten with the power.
                    disk.fs.crash(Survive::Some);
                    // Tables that could not be rebuilt are gone already.
                    let there = disk.fs.mode(&table_file()).is_ok();
                    if there && matches!(event, Event::LoseTables) {
                        disk.fs.rot(&table_file(), Vec::clear);
                    }
                    store = disk.open().unwrap().0;
                    model.settle(&store).unwrap();
                }
            }
            if store.usage().read_only.is_none() {
                // The first look may meet tables that are broken, which are then rebuilt.
                let _ = model.check(&store);
                prop_assert_eq!(model.check(&store), Ok(()));
            }
        }
    }
}
