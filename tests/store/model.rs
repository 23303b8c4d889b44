//! What a store should hold, as a map in memory, and how to compare. Knows which changes were
//! answered (they must be there), refused (they must not) and left open by a crash (either).

use crate::machine::{InlineSpawn, SeededRng};
use crate::simclock::SimClock;
use crate::simfs::SimFs;
use bytes::{Bytes, BytesMut};
use p2pfs::id::{ChunkId, ClaimId, NodeId, RecordId};
use p2pfs::store::{
    Claim, Condemned, Follow, FollowTables, Op, OpenError, Opened, Options, Outcome, Pending,
    Progress, Store, Verdict, WriteError,
};
use p2pfs::sys::{Fs, OpenMode, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Chunks and records that tests use.
const NAMES: u8 = 16;

/// Chunk number `n`.
pub(crate) fn chunk(n: u8) -> (ChunkId, Bytes) {
    let bytes = Bytes::from(vec![n; 2000 + usize::from(n) * 900]);
    (ChunkId(blake3::hash(&bytes).into()), bytes)
}

fn record(n: u8) -> (RecordId, Bytes) {
    let bytes = Bytes::from(vec![!n; 100 + usize::from(n)]);
    (RecordId(blake3::hash(&bytes).into()), bytes)
}

/// A claim with the id of number `n`.
pub(crate) fn claim(n: u8, renewed_ms: u64) -> Claim {
    Claim { id: ClaimId([n; 16]), replicas: n % 4 + 1, renewed_ms }
}

/// Counts the records and notes each, so that one applied twice shows; and each waits until the
/// store says that there are no more behind it.
pub(crate) struct Seen;

const SEEN: Table = Table("seen");
/// Records that wait.
pub(crate) const LATE: Table = Table("late");

impl Follow for Seen {
    fn version(&self) -> u32 {
        1
    }

    fn apply(&self, id: RecordId, record: &[u8], tables: &mut dyn FollowTables) -> io::Result<()> {
        let count = tables.get(SEEN, b"")?.map_or(0, |row| row[0]);
        tables.insert(SEEN, b"", &[count + 1])?;
        tables.insert(LATE, &id.0, &[])?;
        tables.insert(SEEN, &id.0, record)
    }

    fn settle(&self, tables: &mut dyn FollowTables) -> io::Result<bool> {
        match tables.last(LATE, &[], None)? {
            Some((id, _)) => tables.remove(LATE, &id),
            None => Ok(false),
        }
    }
}

/// A machine with one data directory.
pub(crate) struct Disk {
    pub(crate) fs: SimFs,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) spawn: Arc<InlineSpawn>,
    pub(crate) node: NodeId,
    pub(crate) capacity: u64,
    pub(crate) cached_max: u64,
}

impl Disk {
    /// On this file system.
    pub(crate) fn new(fs: SimFs) -> Self {
        let (node, capacity) = (NodeId([1; 32]), 1 << 30);
        let (clock, spawn) = (Arc::default(), Arc::default());
        Self { fs, clock, spawn, node, capacity, cached_max: 5 << 20 }
    }

    /// With segments that hold a few chunks.
    pub(crate) fn options(&self) -> Options {
        Options {
            dir: PathBuf::from("/data"),
            node: self.node,
            capacity: self.capacity,
            cached_max: self.cached_max,
            free_floor: 16 << 10,
            segment_len: 48 << 10,
            fs: Arc::new(self.fs.clone()),
            clock: self.clock.clone(),
            rng: Arc::new(SeededRng::new(1)),
            spawn: self.spawn.clone(),
        }
    }

    /// Opens the store.
    pub(crate) fn open(&self) -> Result<(Store, Opened), OpenError> {
        Store::open(self.options(), Arc::new(Seen))
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let file = self.fs.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Lets a minute pass, after which a store is idle.
    pub(crate) fn pass(&self) {
        self.clock.pass(Duration::from_secs(61));
        self.spawn.tick();
    }

    /// Its length.
    pub(crate) fn len(&self, path: &Path) -> usize {
        self.bytes(path).len()
    }
}

/// Whether a table says something of the claim of number `n`.
fn says(store: &Store, table: &'static str, n: u8) -> io::Result<bool> {
    Ok(store.read_tables(|tables| tables.get(Table(table), &[n; 16]))?.is_some())
}

/// Rows of a table.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// All tables that a rebuild must make anew just as they were.
pub(crate) fn dump(store: &Store) -> io::Result<BTreeMap<&'static str, Rows>> {
    let names = [
        "chunk/place",
        "chunk/claim",
        "@by_claim",
        "@pending",
        "@done",
        "@released",
        "@condemned",
        "record/place",
        "@segment",
        "seen",
    ];
    store.read_tables(|tables| {
        let mut all = BTreeMap::new();
        for name in names {
            let rows: &mut Rows = all.entry(name).or_default();
            tables.range(Table(name), &[], None, &mut |key, row| {
                // When a chunk was condemned is not in the segments.
                let row = if name == "@condemned" { &[] } else { row };
                rows.insert(key.to_vec(), row.to_vec()).is_none()
            })?;
        }
        Ok(all)
    })
}

/// Compacts whatever can be, in small steps, with `between` after each; says how many segments
/// went.
pub(crate) fn compact(store: &Store, least_dead: u8, mut between: impl FnMut()) -> u64 {
    let mut gone = 0;
    while let Ok(Some(mut compaction)) = store.compact(least_dead) {
        loop {
            match compaction.step(4000) {
                Ok(Progress::More) => between(),
                Ok(Progress::Done(_)) => break,
                // What failed may be tried again, but not for ever.
                Err(_) => return gone,
            }
        }
        gone += 1;
        assert!(gone < 1000, "compaction gains nothing and does not end");
    }
    gone
}

/// Submits and waits for the answer.
pub(crate) fn submit(store: &Store, ops: Vec<Op>) -> Result<Vec<Outcome>, WriteError> {
    let (sent, got) = mpsc::channel();
    store.submit(ops, Box::new(move |answer| sent.send(answer).unwrap())).unwrap();
    got.recv().expect("a submission is answered")
}

/// A change, by numbers.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Put {
        chunk: u8,
        claim: Option<u8>,
    },
    Claim {
        chunks: Vec<u8>,
        claim: u8,
    },
    Record(u8),
    Commit(u8),
    /// Gives the chunk up if its claims are those from before this submission.
    Drop(u8),
    Release(u8),
    /// Ends the claims if they were not renewed in this many of the last submissions.
    ReleaseRows {
        claim: u8,
        chunks: Vec<u8>,
        since: u64,
    },
    /// Ends the claim if it was not renewed in this many of the last submissions.
    Lapse {
        claim: u8,
        since: u64,
    },
    /// Frees the chunk if it was condemned before this submission.
    Free(u8),
}

impl Act {
    /// The chunks that it may change; `None`: any.
    fn touches(&self) -> Option<&[u8]> {
        match self {
            Self::Put { chunk, .. } | Self::Drop(chunk) | Self::Free(chunk) => {
                Some(std::slice::from_ref(chunk))
            }
            Self::Claim { chunks, .. } | Self::ReleaseRows { chunks, .. } => Some(chunks),
            Self::Record(_) | Self::Commit(_) => Some(&[]),
            Self::Release(_) | Self::Lapse { .. } => None,
        }
    }

    /// Whether it may take chunk `n` away.
    fn removes(&self, n: u8) -> bool {
        matches!(self, Self::Drop(chunk) | Self::Free(chunk) if *chunk == n)
    }

    /// Whether it may end this claim on chunk `n`.
    fn ends(&self, n: u8, id: u8) -> bool {
        match self {
            Self::Release(claim) | Self::Lapse { claim, .. } => *claim == id,
            Self::ReleaseRows { claim, chunks, .. } => *claim == id && chunks.contains(&n),
            other => other.removes(n),
        }
    }
}

/// What should be there.
#[derive(Default)]
pub(crate) struct Model {
    /// Replicas, with the time of renewal of each claim.
    pub(crate) chunks: BTreeMap<u8, BTreeMap<u8, u64>>,
    records: BTreeSet<u8>,
    committed: BTreeSet<u8>,
    released: BTreeSet<u8>,
    /// Changes that were neither answered nor refused for good.
    pub(crate) unsure: Vec<Act>,
    /// The claims on each replica before the last submission.
    before: BTreeMap<u8, BTreeMap<u8, u64>>,
    now: u64,
}

impl Model {
    /// Submits these changes together and follows the answer.
    pub(crate) fn run(&mut self, store: &Store, acts: Vec<Act>) {
        self.now += 1;
        self.before = self.chunks.clone();
        let freeing = acts.iter().filter_map(|act| match act {
            Act::Free(n) => Some(chunk(*n).0),
            _ => None,
        });
        // A stamp that was not taken only means that nothing is freed.
        let _ = store.stamp(freeing.collect(), self.now, Box::new(drop));
        let ops = acts.iter().map(|act| self.op(act)).collect();
        match submit(store, ops) {
            Ok(outcomes) => {
                for (act, outcome) in acts.iter().zip(outcomes) {
                    self.follow(act, &outcome);
                }
            }
            Err(WriteError::ReadOnly(_)) => self.unsure.extend(acts),
            Err(WriteError::NoCapacity | WriteError::DiskFull) => {}
        }
    }

    fn op(&self, act: &Act) -> Op {
        match act {
            Act::Put { chunk: n, claim: c } => {
                let (cid, sealed) = chunk(*n);
                let hint = (n % 2 == 1).then_some(NodeId([*n; 32]));
                Op::Replica { cid, sealed, claim: c.map(|c| claim(c, self.now)), hint }
            }
            Act::Claim { chunks, claim: c } => Op::Claim {
                cids: chunks.iter().map(|n| chunk(*n).0).collect(),
                claim: claim(*c, self.now),
            },
            Act::Record(n) => {
                let (id, bytes) = record(*n);
                Op::Record { id, bytes }
            }
            Act::Commit(n) => Op::Commit { claim: ClaimId([*n; 16]) },
            Act::Drop(n) => {
                let claims = self.before.get(n).into_iter().flatten();
                let claims = claims.map(|(id, renewed)| claim(*id, *renewed)).collect();
                Op::Drop { cid: chunk(*n).0, claims }
            }
            Act::Release(n) => Op::Release { claim: ClaimId([*n; 16]) },
            Act::ReleaseRows { claim, chunks, since } => Op::ReleaseRows {
                claim: ClaimId([*claim; 16]),
                cids: chunks.iter().map(|n| chunk(*n).0).collect(),
                renewed_ms: self.now.saturating_sub(*since),
            },
            Act::Lapse { claim, since } => Op::Lapse {
                claim: ClaimId([*claim; 16]),
                renewed_ms: self.now.saturating_sub(*since),
            },
            Act::Free(n) => Op::Free { cid: chunk(*n).0, round: self.now },
        }
    }

    fn follow(&mut self, act: &Act, outcome: &Outcome) {
        match (act, outcome) {
            (Act::Put { chunk, claim }, Outcome::Replica { .. }) => {
                let claim = claim.filter(|claim| !self.released.contains(claim));
                let claims = self.chunks.entry(*chunk).or_default();
                claims.extend(claim.map(|claim| (claim, self.now)));
            }
            (Act::Claim { chunks, claim }, Outcome::Claim { held }) => {
                let released = self.released.contains(claim);
                for (chunk, held) in chunks.iter().zip(held) {
                    let claims = self.chunks.get(chunk);
                    if released {
                        assert_eq!(*held, claims.is_some_and(|claims| !claims.is_empty()));
                        continue;
                    }
                    assert!(*held || claims.is_none(), "{chunk} is held");
                    if *held {
                        self.chunks.entry(*chunk).or_default().insert(*claim, self.now);
                    }
                }
            }
            (Act::Record(n), Outcome::Record { .. }) => {
                self.records.insert(*n);
            }
            (Act::Commit(n), Outcome::Committed) => {
                if !self.released.contains(n) {
                    self.committed.insert(*n);
                }
            }
            (Act::Drop(n), Outcome::Dropped { dropped }) => {
                let claims = self.chunks.get(n).into_iter().flatten();
                let same = claims.eq(self.before.get(n).into_iter().flatten());
                let sure = self.unsure.is_empty();
                assert!(!sure || *dropped == same, "dropped: {dropped}, the same claims: {same}");
                if *dropped {
                    self.chunks.remove(n);
                }
            }
            (Act::Free(n), Outcome::Freed { freed }) => {
                if *freed {
                    let claims = self.chunks.remove(n);
                    assert_eq!(claims, Some(BTreeMap::new()), "a claimed chunk was freed");
                }
            }
            (Act::Release(n), Outcome::Ended { claims }) => {
                assert_eq!(*claims, self.end(*n, None));
                self.committed.remove(n);
                self.released.insert(*n);
            }
            (Act::ReleaseRows { claim, chunks, since }, Outcome::Ended { claims }) => {
                let until = self.now.saturating_sub(*since);
                let old = |n: &u8| {
                    let renewed = self.chunks.get(n).and_then(|claims| claims.get(claim));
                    renewed.is_some_and(|renewed| *renewed <= until)
                };
                let chunks: Vec<u8> = chunks.iter().copied().filter(old).collect();
                assert_eq!(*claims, self.end(*claim, Some(&chunks)));
            }
            (Act::Lapse { claim, since }, Outcome::Ended { claims }) => {
                let latest = self.chunks.values().filter_map(|claims| claims.get(claim)).max();
                let recent = latest.is_some_and(|latest| *latest > self.now.saturating_sub(*since));
                let lapses = !recent && !self.committed.contains(claim);
                assert_eq!(*claims, if lapses { self.end(*claim, None) } else { 0 });
            }
            _ => panic!("{act:?} came to {outcome:?}"),
        }
    }

    /// Takes these claims away and counts them.
    fn end(&mut self, claim: u8, chunks: Option<&Vec<u8>>) -> u64 {
        let those = self.chunks.iter_mut().filter(|(n, _)| chunks.is_none_or(|c| c.contains(n)));
        those.filter_map(|(_, claims)| claims.remove(&claim)).count() as u64
    }

    /// After a restart: changes that were left open may have happened; what they did not touch
    /// must be as it was. Takes over what is there.
    pub(crate) fn settle(&mut self, store: &Store) -> Result<(), String> {
        let unsure = std::mem::take(&mut self.unsure);
        let fail = |err: io::Error| err.to_string();
        let mut touched = BTreeSet::new();
        for act in &unsure {
            match act.touches() {
                Some(chunks) => touched.extend(chunks.iter().copied()),
                None => touched.extend(0..NAMES),
            }
            match act {
                Act::Record(n)
                    if store.record(record(*n).0).map_err(|err| err.to_string())?.is_some() =>
                {
                    self.records.insert(*n);
                }
                Act::Commit(n) if says(store, "@done", *n).map_err(fail)? => {
                    self.committed.insert(*n);
                }
                Act::Release(n) if says(store, "@released", *n).map_err(fail)? => {
                    self.released.insert(*n);
                    self.committed.remove(n);
                }
                _ => {}
            }
        }
        touched.into_iter().try_for_each(|n| self.take_over(store, n, &unsure))
    }

    fn take_over(&mut self, store: &Store, n: u8, unsure: &[Act]) -> Result<(), String> {
        let cid = chunk(n).0;
        let held = store.held(cid).map_err(|err| err.to_string())?;
        let is_replica = held.is_some_and(|held| held.replica);
        let removed = unsure.iter().any(|act| act.removes(n));
        if !removed && self.chunks.contains_key(&n) && !is_replica {
            return Err(format!("chunk {n} is gone"));
        }
        let old = self.chunks.remove(&n).unwrap_or_default();
        if is_replica {
            let claims = store.claims(cid).map_err(|err| err.to_string())?;
            let new: BTreeMap<u8, u64> =
                claims.iter().map(|(claim, _)| (claim.id.0[0], claim.renewed_ms)).collect();
            for (id, renewed) in old {
                let ended = unsure.iter().any(|act| act.ends(n, id));
                if !ended && new.get(&id).is_none_or(|now| *now < renewed) {
                    return Err(format!("claim {id} on chunk {n} is gone"));
                }
            }
            self.chunks.insert(n, new);
        }
        Ok(())
    }

    /// Compares everything.
    pub(crate) fn check(&self, store: &Store) -> Result<(), String> {
        let fail = |err: io::Error| err.to_string();
        for n in 0..NAMES {
            self.check_chunk(store, n)?;
            let found = store.record(record(n).0).map_err(|err| err.to_string())?;
            if found.is_some() != self.records.contains(&n)
                || found.is_some_and(|bytes| bytes != record(n).1)
            {
                return Err(format!("record {n} is not as it should be"));
            }
        }
        let mut listed = Vec::new();
        store
            .replicas(ChunkId([0; 32]), &mut |replica| {
                if !replica.damaged {
                    listed.push(replica.cid);
                }
                true
            })
            .map_err(fail)?;
        let mut expected: Vec<ChunkId> = self.chunks.keys().map(|n| chunk(*n).0).collect();
        expected.sort();
        if listed != expected {
            return Err(format!("{} replicas are listed", listed.len()));
        }
        self.check_lists(store)?;
        let usage = store.usage();
        let bytes: usize = self.chunks.keys().map(|n| chunk(*n).1.len()).sum();
        if (usage.replicas, usage.replica_bytes) != (self.chunks.len() as u64, bytes as u64)
            || usage.records != self.records.len() as u64
        {
            return Err(format!("the usage is wrong: {usage:?}"));
        }
        let seen = store.read_tables(|tables| tables.get(SEEN, b"")).map_err(fail)?;
        let seen = seen.map_or(0, |row| usize::from(row[0]));
        if seen != self.records.len() {
            return Err(format!("{seen} records were followed"));
        }
        Ok(())
    }

    /// Condemned chunks and pending claims.
    fn check_lists(&self, store: &Store) -> Result<(), String> {
        let fail = |err: io::Error| err.to_string();
        let mut listed = BTreeSet::new();
        let mut visit = |found: Condemned| listed.insert(found.cid);
        store.condemned(ChunkId([0; 32]), &mut visit).map_err(fail)?;
        let unclaimed = self.chunks.iter().filter(|(_, claims)| claims.is_empty());
        let expected: BTreeMap<ChunkId, usize> =
            unclaimed.map(|(n, _)| (chunk(*n).0, chunk(*n).1.len())).collect();
        let usage = store.usage();
        let bytes: usize = expected.values().sum();
        if !listed.iter().eq(expected.keys())
            || (usage.condemned, usage.condemned_bytes) != (expected.len() as u64, bytes as u64)
        {
            return Err(format!("condemned are {listed:?}, not {expected:?}; {usage:?}"));
        }
        let claimed = (self.chunks.len() - expected.len()) as u64;
        if usage.claimed() < claimed || usage.damaged == 0 && usage.claimed() > claimed {
            return Err(format!("{claimed} are claimed, not {}", usage.claimed()));
        }
        let mut listed = BTreeMap::new();
        let mut visit = |found: Pending| {
            listed.insert(found.claim.0[0], (found.chunks, found.renewed_ms)).is_none()
        };
        store.pending(ClaimId([0; 16]), &mut visit).map_err(fail)?;
        let mut expected: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
        for (id, renewed) in self.chunks.values().flatten() {
            if !self.committed.contains(id) {
                let (count, latest) = expected.entry(*id).or_default();
                (*count, *latest) = (*count + 1, (*latest).max(*renewed));
            }
        }
        for id in 0..8 {
            let pending = !store.pending_chunks(ClaimId([id; 16]), 1).map_err(fail)?.is_empty();
            if pending != expected.contains_key(&id) {
                return Err(format!("claim {id} is pending: {pending}"));
            }
        }
        if listed == expected { Ok(()) } else { Err(format!("pending: {listed:?}, {expected:?}")) }
    }

    fn check_chunk(&self, store: &Store, n: u8) -> Result<(), String> {
        let (cid, bytes) = chunk(n);
        let held = store.held(cid).map_err(|err| err.to_string())?;
        let mut buf = |len| BytesMut::zeroed(len);
        let read = store.read(cid, &mut buf).map_err(|err| err.to_string())?;
        let Some(expected) = self.chunks.get(&n) else {
            let replica = held.is_some_and(|held| held.replica);
            return if replica { Err(format!("chunk {n} is there")) } else { Ok(()) };
        };
        if read != Some(bytes) || !held.is_some_and(|held| held.replica) {
            return Err(format!("chunk {n} is not readable"));
        }
        if store.verify(cid).map_err(|err| err.to_string())? != Verdict::Good {
            return Err(format!("chunk {n} does not verify"));
        }
        let claims = store.claims(cid).map_err(|err| err.to_string())?;
        let found: BTreeMap<u8, u64> =
            claims.iter().map(|(claim, _)| (claim.id.0[0], claim.renewed_ms)).collect();
        if found != *expected {
            return Err(format!("chunk {n} has the claims {found:?}, not {expected:?}"));
        }
        for (claim, committed) in claims {
            if committed != self.committed.contains(&claim.id.0[0]) {
                return Err(format!("claim {} is committed: {committed}", claim.id));
            }
        }
        Ok(())
    }
}
