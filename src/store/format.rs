//! The bytes of a segment file, version 1. Owns their layout and nothing else: it opens no file
//! and decides nothing. Invariant: a record is believed only when its check holds, and the check
//! covers the place where the record lies, so bytes left over from elsewhere never pass for one.
//!
//! # Files
//!
//! A segment is `segments/NNNNNNNN.seg`, a cache file `cache/NNNNNNNN.seg`; the number in the name
//! is decimal and repeated in the header. All integers are little-endian.
//!
//! The segments in the order of their numbers are the log. A segment that was compacted goes on as
//! a new file with a new number, which stands at the old one's place in the log: its *order*. It is
//! called `segments/NNNNNNNN-OOOOOOOO.seg`, number and order, and carries over what the old header
//! said of the segment before.
//!
//! ```text
//! header, 88 bytes
//!   0   8  "p2pfsseg"
//!   8   2  version, 1
//!  10   1  class: 1 segment, 2 cache file
//!  11   1  zero
//!  12   4  order, if it is not the number; else zero
//!  16   4  number of the file
//!  20   4  number of the segment written before this one; 0 when there is none
//!  24   8  how many bytes of that segment count
//!  32  32  node
//!  64  16  salt, the same in every file of a data directory and in its marker
//!  80   8  check of bytes 0..80
//!
//! record
//!   0   4  "p2fr"
//!   4   1  kind
//!   5   1  zero
//!   6   2  length of the body
//!   8   4  length of the payload
//!  12   8  check of: number of the file (8), offset of the record (8), bytes 0..12, body
//!  20      body, then payload
//! ```
//!
//! A check is the first 8 bytes of BLAKE3 keyed with `derive_key("p2pfs 2026-11 store record check
//! v1", salt)`. The salt is random and never leaves the node, so nobody can hide a record inside a
//! chunk that a search through damaged bytes would take for ours. The payload has no check of its
//! own: the id in the body is its BLAKE3 hash.
//!
//! | kind | name | body | payload |
//! |---|---|---|---|
//! | 1 | replica | chunk id 32, flags 1, [claim 25], [hint: node id 32] | sealed chunk |
//! | 2 | claims | claim 25, then chunk ids (1 to 1,024) × 32 | |
//! | 3 | record | record id 32 | catalogue record |
//! | 4 | committed | claim id 16 | |
//! | 5 | drop | chunk id 32 | |
//! | 6 | mark | | |
//! | 7 | cached | chunk id 32 | sealed chunk (cache files only) |
//! | 8 | released | claim id 16 | |
//! | 9 | released rows | claim id 16, then chunk ids (1 to 1,024) × 32 | |
//! | 10 | lapsed | claim id 16 | |
//! | 11 | lost | chunk id 32, length of the chunk 4, flags 1 (bit 1), [hint: node id 32] | |
//! | 12 | complete | order 4 | |
//!
//! A claim is its id 16, replicas 1, renewed 8 (ms since 1970). Flags: bit 0 claim, bit 1 hint.
//!
//! What an entry means, in the order of the log: a *claims* entry or a replica's claim sets that
//! claim on those chunks, merged with what is known of it, so that of several such entries the
//! last one alone says it all. *Drop*, *released rows* and *lapsed* end what stands before them:
//! everything of that chunk, the claims of that id on those chunks, all claims of that id.
//! *Released* ends all claims of that id before it and behind it. *Lost* stands for a replica whose
//! bytes are damaged: its claims hold, it is to be fetched again.
//!
//! # Durability rules
//!
//! * A batch of records is written, then synced, then answered; the next batch starts only then.
//!   A **mark** therefore says: every byte before me was durable when I was written. A damaged
//!   record before the last mark is bit rot: it stays, is reported, and the records behind it
//!   count. A damaged record behind the last mark was never answered: the file ends there.
//! * After a failed write or sync nothing more is written to that segment. The next one's header
//!   says how much of it counts, and is synced before its first record. Numbers ascend; one whose
//!   file could not be made is skipped.
//! * A compacted segment is written and synced as a whole before its last record, **complete**, is,
//!   and that is synced before the old file is removed. Of two files of one order the complete
//!   compacted one counts; one that is not complete never counts.
//! * A kind or number that was given away is never given to something else.

use super::Claim;
use crate::id::{ChunkId, ClaimId, NodeId, RecordId};

/// The version that this module writes and the newest that it reads.
pub const VERSION: u16 = 1;
/// Length of a file's header.
pub(super) const FILE_HEAD: usize = 88;
/// Length of a record's fixed part.
pub(super) const RECORD_HEAD: usize = 20;
/// The longest payload: a sealed chunk of 1 MiB with codec byte, tag and padding fits.
pub const MAX_PAYLOAD: usize = (1 << 20) + (64 << 10);
/// The most chunk ids in one claims record, so that a body's length fits its two bytes.
pub(super) const MAX_CLAIMED: usize = 1024;
/// The longest body: a full claims record.
pub(super) const MAX_BODY: usize = CLAIM_LEN + MAX_CLAIMED * ChunkId::LEN;

const FILE_MAGIC: &[u8; 8] = b"p2pfsseg";
/// What a record starts with.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"p2fr";
const CLAIM_LEN: usize = 25;
const HAS_CLAIM: u8 = 1;
const HAS_HINT: u8 = 2;

/// Random bytes of a data directory; see the module's notes on checks.
pub(super) type Salt = [u8; 16];

/// Which of the two kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Must survive.
    Segment,
    /// May go at any time.
    Cache,
}

impl Class {
    const fn code(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Cache => 2,
        }
    }
}

/// Makes and tests checks.
#[derive(Clone)]
pub(super) struct Checker {
    key: [u8; 32],
    salt: Salt,
}

impl Checker {
    /// For the data directory with this salt.
    pub(super) fn new(salt: Salt) -> Self {
        Self { key: blake3::derive_key("p2pfs 2026-11 store record check v1", &salt), salt }
    }

    fn of(&self, parts: &[&[u8]]) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(part);
        }
        let mut out = [0; 8];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        out
    }

    /// The check of a page of the table file. The bytes come first: so the hash has whole blocks of
    /// them, and takes a third of the time.
    pub(super) fn page(&self, number: u64, bytes: &[u8]) -> [u8; 8] {
        self.of(&[bytes, b"page", &number.to_le_bytes()])
    }
}

/// What a file's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHead {
    /// Segment or cache file.
    pub(super) class: Class,
    /// Number of the file.
    pub(super) number: u32,
    /// Its place in the log, among numbers.
    pub(super) order: u32,
    /// The segment written before this one; 0 when there is none.
    pub(super) previous: u32,
    /// How much of that one counts.
    pub(super) previous_end: u64,
    /// Whose data directory it is.
    pub(super) node: NodeId,
}

/// Why a file's header does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// Not these bytes, or not of this data directory.
    Damaged,
    /// Written by a newer program.
    Newer(u16),
}

impl FileHead {
    /// The header's bytes.
    pub(super) fn encode(&self, check: &Checker) -> [u8; FILE_HEAD] {
        let mut out = [0; FILE_HEAD];
        out[..8].copy_from_slice(FILE_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.class.code();
        let order = if self.order == self.number { 0 } else { self.order };
        out[12..16].copy_from_slice(&order.to_le_bytes());
        out[16..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..24].copy_from_slice(&self.previous.to_le_bytes());
        out[24..32].copy_from_slice(&self.previous_end.to_le_bytes());
        out[32..64].copy_from_slice(&self.node.0);
        out[64..80].copy_from_slice(&check.salt);
        let sum = check.of(&[&out[..80]]);
        out[80..].copy_from_slice(&sum);
        out
    }

    /// Reads a header; everything but the previous segment must be as expected.
    pub(super) fn decode(
        bytes: &[u8],
        class: Class,
        (number, order): (u32, u32),
        node: NodeId,
        check: &Checker,
    ) -> Result<Self, BadHead> {
        if bytes.len() < FILE_HEAD || &bytes[..8] != FILE_MAGIC {
            return Err(BadHead::Damaged);
        }
        if check.of(&[&bytes[..80]]) != bytes[80..FILE_HEAD] {
            return Err(BadHead::Damaged);
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(BadHead::Newer(version));
        }
        let mut fields = Cursor(&bytes[20..32]);
        let (Some(previous), Some(end)) = (fields.take(), fields.take()) else {
            return Err(BadHead::Damaged);
        };
        let (previous, previous_end) = (u32::from_le_bytes(previous), u64::from_le_bytes(end));
        let head = Self { class, number, order, previous, previous_end, node };
        if head.encode(check)[..] == bytes[..FILE_HEAD] { Ok(head) } else { Err(BadHead::Damaged) }
    }
}

/// What a record says, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A replica of a chunk.
    Replica {
        /// The chunk.
        cid: ChunkId,
        /// Why it is kept.
        claim: Option<Claim>,
        /// The node it is kept for.
        hint: Option<NodeId>,
    },
    /// A claim on replicas.
    Claims {
        /// The claim.
        claim: Claim,
        /// What it claims.
        cids: Vec<ChunkId>,
    },
    /// A catalogue record.
    Record {
        /// Its id.
        id: RecordId,
    },
    /// Claims of this id are committed.
    Committed {
        /// The claim.
        claim: ClaimId,
    },
    /// A replica was given up.
    Drop {
        /// The chunk.
        cid: ChunkId,
    },
    /// Everything before this record was durable when it was written.
    Mark,
    /// An evictable copy.
    Cached {
        /// The chunk.
        cid: ChunkId,
    },
    /// All claims of this id have ended for good.
    Released {
        /// The claim.
        claim: ClaimId,
    },
    /// Claims of this id on these chunks have ended.
    ReleasedRows {
        /// The claim.
        claim: ClaimId,
        /// What it claims no more.
        cids: Vec<ChunkId>,
    },
    /// All claims of this id have ended, until a new one comes.
    Lapsed {
        /// The claim.
        claim: ClaimId,
    },
    /// A replica whose bytes are damaged.
    Lost {
        /// The chunk.
        cid: ChunkId,
        /// Its sealed bytes.
        len: u32,
        /// The node it is kept for.
        hint: Option<NodeId>,
    },
    /// The compacted segment of this order ends here and lacks nothing.
    Complete {
        /// Its place in the log.
        order: u32,
    },
}

impl Entry {
    const fn kind(&self) -> u8 {
        match self {
            Self::Replica { .. } => 1,
            Self::Claims { .. } => 2,
            Self::Record { .. } => 3,
            Self::Committed { .. } => 4,
            Self::Drop { .. } => 5,
            Self::Mark => 6,
            Self::Cached { .. } => 7,
            Self::Released { .. } => 8,
            Self::ReleasedRows { .. } => 9,
            Self::Lapsed { .. } => 10,
            Self::Lost { .. } => 11,
            Self::Complete { .. } => 12,
        }
    }

    /// The id that the payload must hash to; `None` for an entry without one.
    pub(super) const fn payload_hash(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Replica { cid, .. } | Self::Cached { cid } => Some(&cid.0),
            Self::Record { id } => Some(&id.0),
            _ => None,
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Replica { cid, claim, hint } => {
                out.extend_from_slice(&cid.0);
                let claimed = if claim.is_some() { HAS_CLAIM } else { 0 };
                out.push(claimed | if hint.is_some() { HAS_HINT } else { 0 });
                if let Some(claim) = claim {
                    put_claim(claim, out);
                }
                if let Some(hint) = hint {
                    out.extend_from_slice(&hint.0);
                }
            }
            Self::Claims { claim, cids } => {
                put_claim(claim, out);
                put_cids(cids, out);
            }
            Self::Record { id } => out.extend_from_slice(&id.0),
            Self::Committed { claim } | Self::Released { claim } | Self::Lapsed { claim } => {
                out.extend_from_slice(&claim.0);
            }
            Self::ReleasedRows { claim, cids } => {
                out.extend_from_slice(&claim.0);
                put_cids(cids, out);
            }
            Self::Lost { cid, len, hint } => {
                out.extend_from_slice(&cid.0);
                out.extend_from_slice(&len.to_le_bytes());
                out.push(if hint.is_some() { HAS_HINT } else { 0 });
                if let Some(hint) = hint {
                    out.extend_from_slice(&hint.0);
                }
            }
            Self::Complete { order } => out.extend_from_slice(&order.to_le_bytes()),
            Self::Drop { cid } | Self::Cached { cid } => out.extend_from_slice(&cid.0),
            Self::Mark => {}
        }
    }

    fn from_body(kind: u8, body: &[u8], payload: usize) -> Option<Self> {
        let mut body = Cursor(body);
        let entry = match kind {
            1 => {
                let cid = ChunkId(body.take()?);
                let flags = body.flags(HAS_CLAIM | HAS_HINT)?;
                let claim = if flags & HAS_CLAIM == 0 { None } else { Some(body.claim()?) };
                let hint = if flags & HAS_HINT == 0 { None } else { Some(NodeId(body.take()?)) };
                Self::Replica { cid, claim, hint }
            }
            2 => Self::Claims { claim: body.claim()?, cids: body.cids()? },
            3 => Self::Record { id: RecordId(body.take()?) },
            4 => Self::Committed { claim: ClaimId(body.take()?) },
            5 => Self::Drop { cid: ChunkId(body.take()?) },
            6 => Self::Mark,
            7 => Self::Cached { cid: ChunkId(body.take()?) },
            8 => Self::Released { claim: ClaimId(body.take()?) },
            9 => Self::ReleasedRows { claim: ClaimId(body.take()?), cids: body.cids()? },
            10 => Self::Lapsed { claim: ClaimId(body.take()?) },
            11 => {
                let cid = ChunkId(body.take()?);
                let len = u32::from_le_bytes(body.take()?);
                let hint = match body.flags(HAS_HINT)? {
                    0 => None,
                    _ => Some(NodeId(body.take()?)),
                };
                if len as usize > MAX_PAYLOAD {
                    return None;
                }
                Self::Lost { cid, len, hint }
            }
            12 => Self::Complete { order: u32::from_le_bytes(body.take()?) },
            _ => return None,
        };
        let fits = entry.payload_hash().is_some() || payload == 0;
        (body.0.is_empty() && fits).then_some(entry)
    }
}

fn put_claim(claim: &Claim, out: &mut Vec<u8>) {
    out.extend_from_slice(&claim.id.0);
    out.push(claim.replicas);
    out.extend_from_slice(&claim.renewed_ms.to_le_bytes());
}

fn put_cids(cids: &[ChunkId], out: &mut Vec<u8>) {
    for cid in cids {
        out.extend_from_slice(&cid.0);
    }
}

/// Takes fields from the front of a body.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn flags(&mut self, known: u8) -> Option<u8> {
        let [flags] = self.take()?;
        (flags & !known == 0).then_some(flags)
    }

    /// The rest, as chunk ids.
    fn cids(&mut self) -> Option<Vec<ChunkId>> {
        let count = self.0.len() / ChunkId::LEN;
        if !(1..=MAX_CLAIMED).contains(&count) {
            return None;
        }
        (0..count).map(|_| self.take().map(ChunkId)).collect()
    }

    fn claim(&mut self) -> Option<Claim> {
        Some(Claim {
            id: ClaimId(self.take()?),
            replicas: self.take::<1>()?[0],
            renewed_ms: u64::from_le_bytes(self.take()?),
        })
    }
}

/// Appends the head and body of a record that will lie at `offset` of file `number`. The payload
/// follows them on the disk. Returns how long head and body are.
pub(super) fn put_record(
    entry: &Entry,
    payload: usize,
    number: u32,
    offset: u64,
    check: &Checker,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[entry.kind(), 0, 0, 0]);
    let length = u32::try_from(payload).expect("a payload is at most MAX_PAYLOAD");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    entry.put_body(out);
    let record = &mut out[start..];
    let body = u16::try_from(record.len() - RECORD_HEAD).expect("a body is at most MAX_BODY");
    record[6..8].copy_from_slice(&body.to_le_bytes());
    let sum = record_check(record, number, offset, check);
    record[12..RECORD_HEAD].copy_from_slice(&sum);
    record.len()
}

fn record_check(record: &[u8], number: u32, offset: u64, check: &Checker) -> [u8; 8] {
    let number = u64::from(number).to_le_bytes();
    check.of(&[&number, &offset.to_le_bytes(), &record[..12], &record[RECORD_HEAD..]])
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What it says.
    pub(super) entry: Entry,
    /// Length of head and body: where the payload starts, counted from the record's offset.
    pub(super) head: usize,
    /// Length of the payload.
    pub(super) payload: usize,
}

/// Length of head and body, and of the payload, as the fixed part announces them; `None` when no
/// record can start like this. Nothing of it is to be believed before [`get_record`].
pub(super) fn announced(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.len() < RECORD_HEAD || bytes[..4] != RECORD_MAGIC || bytes[5] != 0 {
        return None;
    }
    let body = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let payload = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    (body <= MAX_BODY && payload <= MAX_PAYLOAD).then_some((RECORD_HEAD + body, payload))
}

/// Reads the record whose head and body are the front of `bytes` and which lies at `offset` of
/// file `number`. `None` when it is damaged, cut off, or lies elsewhere.
pub(super) fn get_record(bytes: &[u8], number: u32, offset: u64, check: &Checker) -> Option<Found> {
    let (head, payload) = announced(bytes)?;
    let record = bytes.get(..head)?;
    if record_check(record, number, offset, check) != record[12..RECORD_HEAD] {
        return None;
    }
    let entry = Entry::from_body(record[4], &record[RECORD_HEAD..], payload)?;
    Some(Found { entry, head, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim() -> impl Strategy<Value = Claim> {
        (any::<[u8; 16]>(), any::<u8>(), any::<u64>())
            .prop_map(|(id, replicas, renewed_ms)| Claim { id: ClaimId(id), replicas, renewed_ms })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let cid = || any::<[u8; 32]>().prop_map(ChunkId);
        prop_oneof![
            (cid(), proptest::option::of(claim()), proptest::option::of(any::<[u8; 32]>()))
                .prop_map(|(cid, claim, hint)| Entry::Replica {
                    cid,
                    claim,
                    hint: hint.map(NodeId)
                }),
            (claim(), proptest::collection::vec(cid(), 1..50))
                .prop_map(|(claim, cids)| Entry::Claims { claim, cids }),
            any::<[u8; 32]>().prop_map(|id| Entry::Record { id: RecordId(id) }),
            any::<[u8; 16]>().prop_map(|id| Entry::Committed { claim: ClaimId(id) }),
            cid().prop_map(|cid| Entry::Drop { cid }),
            Just(Entry::Mark),
            cid().prop_map(|cid| Entry::Cached { cid }),
            any::<[u8; 16]>().prop_map(|id| Entry::Released { claim: ClaimId(id) }),
            (any::<[u8; 16]>(), proptest::collection::vec(cid(), 1..50))
                .prop_map(|(id, cids)| Entry::ReleasedRows { claim: ClaimId(id), cids }),
            any::<[u8; 16]>().prop_map(|id| Entry::Lapsed { claim: ClaimId(id) }),
            (cid(), 0..1u32 << 20, proptest::option::of(any::<[u8; 32]>()))
                .prop_map(|(cid, len, hint)| Entry::Lost { cid, len, hint: hint.map(NodeId) }),
            any::<u32>().prop_map(|order| Entry::Complete { order }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_round_trips_at_its_place_and_nowhere_else(
            entry in entry(), number in 1u32.., offset in 0u64..1 << 40, bit in any::<usize>(),
        ) {
            let check = Checker::new([7; 16]);
            let payload = if entry.payload_hash().is_some() { 5 } else { 0 };
            let mut out = Vec::new();
            let head = put_record(&entry, payload, number, offset, &check, &mut out);
            prop_assert_eq!(
                get_record(&out, number, offset, &check),
                Some(Found { entry, head, payload })
            );
            prop_assert_eq!(get_record(&out, number, offset + 1, &check), None);
            prop_assert_eq!(get_record(&out, number - 1, offset, &check), None);
            prop_assert_eq!(get_record(&out, number, offset, &Checker::new([8; 16])), None);
            let at = bit % (out.len() * 8);
            out[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(get_record(&out, number, offset, &check), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let check = Checker::new([7; 16]);
            get_record(&bytes, 1, 88, &check);
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&RECORD_MAGIC);
                get_record(&bytes, 1, 88, &check);
            }
        }
    }

    #[test]
    fn a_header_of_another_file_version_or_node_is_refused() {
        let check = Checker::new([7; 16]);
        let head = FileHead {
            class: Class::Segment,
            number: 3,
            order: 3,
            previous: 2,
            previous_end: 99,
            node: NodeId([1; 32]),
        };
        let bytes = head.encode(&check);
        let read = |bytes: &[u8], number, node: u8| {
            FileHead::decode(bytes, Class::Segment, (number, 3), NodeId([node; 32]), &check)
        };
        assert_eq!(read(&bytes, 3, 1), Ok(head));
        assert_eq!(read(&bytes, 4, 1), Err(BadHead::Damaged));
        assert_eq!(read(&bytes, 3, 2), Err(BadHead::Damaged));
        assert_eq!(read(&bytes[..80], 3, 1), Err(BadHead::Damaged));
        let compacted = FileHead { number: 7, ..head }.encode(&check);
        assert_eq!(read(&compacted, 7, 1), Ok(FileHead { number: 7, ..head }));
        assert_eq!(read(&compacted, 3, 1), Err(BadHead::Damaged));
        let mut newer = bytes;
        newer[8] = 2;
        let sum = check.of(&[&newer[..80]]);
        newer[80..].copy_from_slice(&sum);
        assert_eq!(read(&newer, 3, 1), Err(BadHead::Newer(2)));
    }
}
