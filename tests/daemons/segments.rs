//! Reads the segments on a simulated disk, after their specification (`store::format`) and not with
//! the store's own code, so that the checkers see what is on the disks and not what nodes say.

use crate::simfs::SimFs;
use p2pfs::id::{ChunkId, ClaimId, NodeId, RecordId};
use p2pfs::sys::{Fs, OpenMode};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where a node keeps its segments.
pub(crate) const FOLDER: &str = "/p2pfs/data/segments";
/// What says whose they are.
const MARKER: &str = "/p2pfs/data/store.format";
/// Bytes of a file's header and of a record's.
const FILE_HEAD: usize = 88;
const RECORD_HEAD: usize = 20;
const CLAIM: usize = 25;

/// What the segments of one disk say.
#[derive(Default)]
pub(crate) struct Contents {
    /// Chunks whose bytes are there and not damaged, and how many there are.
    pub(crate) replicas: BTreeMap<ChunkId, u32>,
    /// Those that were synced: a mark follows, or the end of a compacted segment.
    pub(crate) synced: BTreeSet<ChunkId>,
    /// Claims on chunks, and the copies that they ask for.
    pub(crate) claims: BTreeMap<(ChunkId, ClaimId), u8>,
    /// Claims that a file record names: the puts of others may never have come to an end.
    pub(crate) committed: BTreeSet<ClaimId>,
    /// Claims that have ended, for good or on some chunks.
    pub(crate) ended: BTreeSet<ClaimId>,
    /// Records.
    pub(crate) records: BTreeSet<RecordId>,
}

/// What the marker of a data directory says.
#[derive(Clone, Copy)]
struct Marker {
    node: NodeId,
    /// What makes the checks of its files.
    key: [u8; 32],
}

/// One segment file.
struct Segment {
    order: u32,
    number: u32,
    bytes: Vec<u8>,
    previous: (u32, usize),
    key: [u8; 32],
}

/// One record.
struct Record<'a> {
    kind: u8,
    body: &'a [u8],
    payload: &'a [u8],
}

impl Record<'_> {
    /// Whether its bytes are those of the chunk that it names.
    fn is_replica(&self) -> bool {
        self.kind == 1 && blake3::hash(self.payload).as_bytes() == &self.body[..32]
    }
}

/// Reads a whole file; nothing when it is not there.
pub(crate) fn bytes_of(disk: &SimFs, path: &Path) -> Vec<u8> {
    let Ok(file) = disk.open(path, OpenMode::Read) else { return Vec::new() };
    let mut bytes = vec![0; usize::try_from(file.len().unwrap_or(0)).unwrap()];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

/// All files of a disk, with what is in them.
pub(crate) fn all_files(disk: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut folders, mut files) = (vec![PathBuf::from("/")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in disk.read_dir(&folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                folders.push(path);
            } else {
                files.push((path.clone(), bytes_of(disk, &path)));
            }
        }
    }
    files
}

/// What is on this disk.
pub(crate) fn read(disk: &SimFs) -> Contents {
    let folder = Path::new(FOLDER);
    let Some(Marker { key, .. }) = marker(disk) else { return Contents::default() };
    let files = disk.read_dir(folder).unwrap_or_default();
    let read = files
        .iter()
        .filter_map(|file| Segment::new(&file.name, bytes_of(disk, &folder.join(&file.name)), key));
    let mut segments: Vec<Segment> = read.collect();
    let ends: BTreeMap<u32, usize> = segments.iter().map(|one| one.previous).collect();
    segments.sort_by_key(|one| (one.order, one.number));
    let complete: BTreeMap<u32, u32> = segments
        .iter()
        .filter(|one| one.number != one.order && one.records(usize::MAX).any(|r| r.kind == 12))
        .map(|one| (one.order, one.number))
        .collect();
    let mut contents = Contents::default();
    for one in &segments {
        let compacted = complete.get(&one.order);
        if compacted.unwrap_or(&one.order) != &one.number {
            continue;
        }
        let end = ends.get(&one.number).copied().unwrap_or(usize::MAX);
        let synced = match compacted {
            Some(_) => usize::MAX,
            None => one.records(end).rposition(|r| r.kind == 6).unwrap_or(0),
        };
        for (nth, record) in one.records(end).enumerate() {
            contents.take(&record);
            if nth < synced && record.is_replica() {
                contents.synced.insert(ChunkId(array(record.body)));
            }
        }
    }
    contents
}

impl Segment {
    /// Its name tells the number and the place in the log, its header, unless that is damaged, how
    /// much of the one before counts.
    fn new(name: &OsStr, bytes: Vec<u8>, key: [u8; 32]) -> Option<Self> {
        let mut numbers = name.to_str()?.strip_suffix(".seg")?.split('-');
        let number: u32 = numbers.next()?.parse().ok()?;
        let order = numbers.next().map_or(Some(number), |order| order.parse().ok())?;
        let head = bytes.get(..FILE_HEAD)?;
        let int = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let good = sum(&key, &[&head[..80]]) == head[80..];
        let previous = if good { (int(20), int(24) as usize) } else { (0, 0) };
        Some(Self { order, number, previous, bytes, key })
    }

    /// The records up to `end`. Behind damaged bytes they count if a mark, or the end of a
    /// compacted segment, says that those had been synced; else the file ends there.
    fn records(&self, end: usize) -> std::vec::IntoIter<Record<'_>> {
        let bytes = &self.bytes[..end.min(self.bytes.len())];
        let (mut at, mut records, mut sure) = (FILE_HEAD, Vec::new(), None);
        while at + RECORD_HEAD <= bytes.len() {
            let Some((record, next)) = self.record_at(bytes, at) else {
                sure.get_or_insert(records.len());
                at += 1;
                continue;
            };
            if matches!(record.kind, 6 | 12) {
                sure = None;
            }
            records.push(record);
            at = next;
        }
        records.truncate(sure.unwrap_or(records.len()));
        records.into_iter()
    }

    /// The record that begins at `at`, and where it ends.
    fn record_at<'b>(&self, bytes: &'b [u8], at: usize) -> Option<(Record<'b>, usize)> {
        let head = bytes.get(at..at + RECORD_HEAD)?;
        let body = usize::from(u16::from_le_bytes([head[6], head[7]]));
        let payload = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        let next = at + RECORD_HEAD + body + payload;
        if &head[..4] != b"p2fr" || next > bytes.len() {
            return None;
        }
        let (body, payload) = bytes[at + RECORD_HEAD..next].split_at(body);
        let place = [u64::from(self.number), at as u64].map(u64::to_le_bytes);
        let good = sum(&self.key, &[&place[0], &place[1], &head[..12], body]) == head[12..];
        good.then_some((Record { kind: head[4], body, payload }, next))
    }
}

/// The first bytes of BLAKE3 with a key.
fn sum(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    parts.iter().for_each(|part| _ = hasher.update(part));
    array(hasher.finalize().as_bytes())
}

/// What the marker beside the segments says.
fn marker(disk: &SimFs) -> Option<Marker> {
    let text = String::from_utf8(bytes_of(disk, Path::new(MARKER))).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let salt: [u8; 16] = p2pfs::id::from_hex(field("salt ")?).ok()?;
    let key = blake3::derive_key("p2pfs 2026-11 store record check v1", &salt);
    Some(Marker { node: field("node ")?.parse().ok()?, key })
}

/// The node that a disk belongs to, if it is one's.
pub(crate) fn owner(disk: &SimFs) -> Option<NodeId> {
    marker(disk).map(|marker| marker.node)
}

impl Contents {
    /// What claims a chunk here.
    pub(crate) fn claims(&self, cid: &ChunkId) -> impl Iterator<Item = &ClaimId> {
        let range = (*cid, ClaimId([0; 16]))..=(*cid, ClaimId([255; 16]));
        self.claims.range(range).map(|((_, claim), _)| claim)
    }

    fn take(&mut self, record: &Record<'_>) {
        let Record { kind, body, payload } = record;
        match kind {
            1 => {
                let cid = ChunkId(array(body));
                if record.is_replica() {
                    self.replicas.insert(cid, u32::try_from(payload.len()).unwrap());
                }
                if body[32] & 1 == 1 {
                    self.claim(cid, &body[33..]);
                }
            }
            2 => body[CLAIM..].chunks(32).for_each(|cid| self.claim(ChunkId(array(cid)), body)),
            3 => _ = self.records.insert(RecordId(array(body))),
            4 => _ = self.committed.insert(ClaimId(array(body))),
            5 => {
                let gone = ChunkId(array(body));
                self.replicas.remove(&gone);
                self.synced.remove(&gone);
                self.claims.retain(|(cid, _), _| *cid != gone);
            }
            8..=10 => {
                let ended = ClaimId(array(body));
                self.ended.insert(ended);
                let mut cids = body[16..].chunks(32).map(|cid| ChunkId(array(cid)));
                let some: BTreeSet<ChunkId> = cids.by_ref().collect();
                let is_ended = |cid: &ChunkId| *kind != 9 || some.contains(cid);
                self.claims.retain(|(cid, id), _| *id != ended || !is_ended(cid));
            }
            11 => _ = self.replicas.remove(&ChunkId(array(body))),
            _ => {}
        }
    }

    fn claim(&mut self, cid: ChunkId, claim: &[u8]) {
        let copies = self.claims.entry((cid, ClaimId(array(claim)))).or_default();
        *copies = claim[16].max(*copies);
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().unwrap()
}
