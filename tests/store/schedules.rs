//! Many schedules of the store's threads: put, free, claim, compact and read at once. Needs locks
//! that can be scheduled, so it is built apart and run alone:
//! `RUSTFLAGS="--cfg p2pfs_shuttle" cargo test --test store schedules`. It takes 1,000 schedules
//! of each kind; `P2PFS_STORE_SCHEDULES` asks for more (before a release: 100000).

use crate::model::{self, Disk, chunk};
use crate::simfs::{SimFs, Survive};
use bytes::BytesMut;
use p2pfs::store::{Op, Outcome, Progress, Store, WriteError};
use p2pfs::sys::{Spawn, Step, Work};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, sync::mpsc, thread};
use std::sync::Arc;

/// The store and its table library need more than the small stacks of coroutines.
const STACK: usize = 1 << 20;

struct Threads;

impl Spawn for Threads {
    fn start(&self, _name: &str, mut work: Box<dyn Work>) -> Arc<dyn Fn() + Send + Sync> {
        thread::spawn(move || {
            loop {
                match work.step() {
                    Step::More => {}
                    Step::Idle => work.wait(),
                    Step::Done => break,
                }
            }
        });
        Arc::new(|| ())
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

fn open(disk: &Disk) -> Store {
    let mut options = disk.options();
    options.spawn = Arc::new(Threads);
    Store::open(options, Arc::new(model::Seen)).unwrap().0
}

fn submit(store: &Store, op: Op) -> Result<Outcome, WriteError> {
    let (sent, got) = mpsc::channel();
    store.submit(vec![op], Box::new(move |answer| sent.send(answer).unwrap())).unwrap();
    got.recv().unwrap().map(|mut outcomes| outcomes.remove(0))
}

fn put(store: &Store, n: u8, claim: Option<u8>) {
    let (cid, sealed) = chunk(n);
    let claim = claim.map(|claim| model::claim(claim, 1));
    submit(store, Op::Replica { cid, sealed, claim, hint: None }).unwrap();
}

fn read(store: &Store, n: u8) -> bool {
    let (cid, sealed) = chunk(n);
    let read = store.read(cid, &mut |len| BytesMut::zeroed(len)).unwrap();
    assert!(read.as_ref().is_none_or(|got| *got == sealed), "wrong bytes");
    read.is_some()
}

/// A condemned chunk is freed and claimed at once, while its segment is compacted, one is put, and
/// a chunk that moves is read.
fn race() {
    const MOVES: u8 = 1;
    const CONTESTED: u8 = 2;
    const NEW: u8 = 3;
    let mut disk = Disk::new(SimFs::new(1));
    disk.cached_max = 0;
    let store = open(&disk);
    put(&store, MOVES, Some(1));
    put(&store, CONTESTED, None);
    put(&store, 15, None);
    submit(&store, Op::Drop { cid: chunk(15).0, claims: Vec::new() }).unwrap();
    let (sent, got) = mpsc::channel();
    let cid = chunk(CONTESTED).0;
    store.stamp(vec![cid], 1, Box::new(move |done| sent.send(done).unwrap())).unwrap();
    got.recv().unwrap().unwrap();
    let beside = |work: fn(&Store) -> bool| {
        let store = store.clone();
        thread::spawn(move || work(&store))
    };
    let freed = beside(|store| {
        let free = Op::Free { cid: chunk(CONTESTED).0, round: 1 };
        submit(store, free) == Ok(Outcome::Freed { freed: true })
    });
    let claimed = beside(|store| {
        let op = Op::Claim { cids: vec![chunk(CONTESTED).0], claim: model::claim(2, 1) };
        submit(store, op) == Ok(Outcome::Claim { held: vec![true] })
    });
    let moved = beside(|store| {
        let Ok(Some(mut compaction)) = store.compact(10) else { return false };
        while compaction.step(3000).unwrap() == Progress::More {}
        true
    });
    let others = [
        beside(|store| read(store, MOVES) && read(store, MOVES)),
        beside(|store| {
            put(store, NEW, Some(1));
            read(store, NEW)
        }),
    ];
    let [freed, claimed, moved] = [freed, claimed, moved].map(|work| work.join().unwrap());
    assert!(others.into_iter().all(|work| work.join().unwrap()), "a chunk was missed");
    assert!(moved && freed != claimed, "freed {freed}, claimed {claimed}, moved {moved}");
    let check = |store: &Store| {
        assert!(read(store, MOVES) && read(store, NEW));
        assert_eq!(read(store, CONTESTED), claimed);
        assert_eq!(store.claims(cid).unwrap().len(), usize::from(claimed));
    };
    check(&store);
    store.close();
    drop(store);
    disk.fs.crash(Survive::None);
    let store = open(&disk);
    check(&store);
    store.close();
}

fn run(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    Runner::new(scheduler, config).run(race);
}

fn schedules() -> usize {
    crate::asked("P2PFS_STORE_SCHEDULES", 1000) as usize
}

#[test]
fn random_schedules() {
    run(RandomScheduler::new(schedules()));
}

#[test]
fn schedules_with_few_switches() {
    run(PctScheduler::new(3, schedules()));
}
