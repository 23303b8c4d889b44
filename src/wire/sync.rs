//! How two members make their record sets equal: the questions and answers of a reconciliation.
//! Owns the messages; who asks what when is `core::catalogue::sync`'s business.
//!
//! One side asks, the other answers from its tables and remembers nothing between two questions, so
//! a lost message only means asking again. All fit a control frame of 64 KiB.
//!
//! Format (integers little-endian, lists with a u32 count; `wire::codec`):
//!
//! ```text
//! ask      = 1, summary                      Set: mine; what is yours?
//!          | 2, range … (1..=32)             Sums: of the children of these ranges
//!          | 3, (position, position) … (1..=32)  Items: in these spans, both ends included;
//!                                           spans ascend and do not overlap
//!          | 4, record id 32 … (1..=1024)    Fetch: these records
//!          | 5, record … (≤ 60 KiB)          Push: records that you have not got
//! answer   = 1, summary                      Set
//!          | 2, (range, summary) … (≤ 1024)  Sums: ranges that are empty are left out
//!          | 3, position … (≤ 1500), more    Items: ascending; more = 1: there are more behind
//!          | 4, record … (≤ 60 KiB)          Fetched: the first of those asked for that fit
//!          | 5                               Pushed
//! summary  = count u64, fingerprint 16       first half of BLAKE3(count, sum of ids mod 2^256)
//! range    = level u8 (0..=8), prefix u64    upper bits of the clock: none, then 16, 20, 24 …
//! position = clock u64, record id 32
//! record   = length u32 (≤ 32 KiB), bytes
//! ```

use super::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use crate::id::RecordId;

/// Deepest level of ranges: records within 16 ms. Below it, they are listed.
pub const LEAF_LEVEL: u8 = 8;
/// Most ranges or spans in one question.
pub const RANGES_MAX: usize = 32;
/// Most sums in one answer: 16 per range, and room for the root's children of 130 years.
pub const SUMS_MAX: usize = 1024;
/// Most positions in one answer; 1,500 × 40 bytes fit a frame.
pub const ITEMS_MAX: usize = 1500;
/// Most records asked for at once.
pub const FETCH_MAX: usize = 1024;
/// Most bytes of records in one message, each counted with its length.
pub const BATCH_MAX: usize = 60 * 1024;
/// Longest record in bytes.
const RECORD_MAX: usize = 32 * 1024;

/// A set of records, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many records.
    pub count: u64,
    /// Equal for equal sets.
    pub fingerprint: [u8; 16],
}

/// The records whose clocks begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// 0: all records; 1: 16 bits of the clock; each further level 4 bits more; at most 8.
    pub level: u8,
    /// Those bits.
    pub prefix: u64,
}

impl Range {
    /// All records.
    pub const ALL: Self = Self { level: 0, prefix: 0 };

    const fn is_valid(self) -> bool {
        match self.level {
            0 => self.prefix == 0,
            level => level <= LEAF_LEVEL && self.prefix >> (12 + 4 * level as u32) == 0,
        }
    }
}

/// A range that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeSum {
    /// Which.
    pub range: Range,
    /// Its records.
    pub summary: Summary,
}

/// A record's place in the order of the set: its clock and id.
pub type Position = (u64, RecordId);

/// The records from one position to another, both included.
pub type Span = (Position, Position);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// This is my set; what is yours?
    Set(Summary),
    /// The sums of the children of these ranges.
    Sums(Vec<Range>),
    /// The records in these spans, which ascend and do not overlap.
    Items(Vec<Span>),
    /// These records.
    Fetch(Vec<RecordId>),
    /// Records that you have not got.
    Push(Vec<Vec<u8>>),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// My set.
    Set(Summary),
    /// The children that are not empty.
    Sums(Vec<RangeSum>),
    /// The first records of those asked about, ascending.
    Items {
        /// Their positions.
        items: Vec<Position>,
        /// Whether there are more behind the last one; up to it the list is complete.
        more: bool,
    },
    /// The first of the records asked for that fit; those that are not here are left out.
    Fetched(Vec<Vec<u8>>),
    /// The pushed records were taken or refused, each for itself.
    Pushed,
}

impl Encode for Summary {
    fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        self.fingerprint.encode(out);
    }
}

impl Decode for Summary {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { count: u64::decode(from)?, fingerprint: from.array()? })
    }
}

impl Encode for Range {
    fn encode(&self, out: &mut Vec<u8>) {
        self.level.encode(out);
        self.prefix.encode(out);
    }
}

impl Decode for Range {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let range = Self { level: u8::decode(from)?, prefix: u64::decode(from)? };
        if range.is_valid() { Ok(range) } else { Err(Malformed::Invalid("range of records")) }
    }
}

impl Encode for RangeSum {
    fn encode(&self, out: &mut Vec<u8>) {
        self.range.encode(out);
        self.summary.encode(out);
    }
}

impl Decode for RangeSum {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { range: Range::decode(from)?, summary: Summary::decode(from)? })
    }
}

fn put_records(out: &mut Vec<u8>, records: &[Vec<u8>]) {
    u32::try_from(records.len()).expect("at most BATCH_MAX bytes").encode(out);
    for record in records {
        put_blob(out, record);
    }
}

fn take_records(from: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let before = from.remaining();
    // Each has at least its length, which is four bytes.
    let count = from.count(BATCH_MAX / 4)?;
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(from.blob(RECORD_MAX)?.to_vec());
    }
    let len = before - from.remaining() - 4;
    if len > BATCH_MAX {
        return Err(Malformed::TooLong { len, max: BATCH_MAX });
    }
    Ok(records)
}

fn some<T>(list: Vec<T>) -> Result<Vec<T>, Malformed> {
    if list.is_empty() { Err(Malformed::Invalid("empty question")) } else { Ok(list) }
}

impl Encode for Ask {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set(summary) => {
                out.push(1);
                summary.encode(out);
            }
            Self::Sums(ranges) => {
                out.push(2);
                put_list(out, ranges);
            }
            Self::Items(spans) => {
                out.push(3);
                put_list(out, spans);
            }
            Self::Fetch(ids) => {
                out.push(4);
                put_list(out, ids);
            }
            Self::Push(records) => {
                out.push(5);
                put_records(out, records);
            }
        }
    }
}

impl Decode for Ask {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Summary::decode(from).map(Self::Set),
            2 => some(from.list(RANGES_MAX)?).map(Self::Sums),
            3 => {
                let spans: Vec<Span> = some(from.list(RANGES_MAX)?)?;
                let apart = spans.windows(2).all(|pair| pair[0].1 < pair[1].0);
                if !apart || spans.iter().any(|(first, last)| first > last) {
                    return Err(Malformed::Invalid("order of spans"));
                }
                Ok(Self::Items(spans))
            }
            4 => some(from.list(FETCH_MAX)?).map(Self::Fetch),
            5 => some(take_records(from)?).map(Self::Push),
            _ => Err(Malformed::Invalid("question")),
        }
    }
}

impl Encode for Answer {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set(summary) => {
                out.push(1);
                summary.encode(out);
            }
            Self::Sums(sums) => {
                out.push(2);
                put_list(out, sums);
            }
            Self::Items { items, more } => {
                out.push(3);
                put_list(out, items);
                more.encode(out);
            }
            Self::Fetched(records) => {
                out.push(4);
                put_records(out, records);
            }
            Self::Pushed => out.push(5),
        }
    }
}

impl Decode for Answer {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Summary::decode(from).map(Self::Set),
            2 => Ok(Self::Sums(from.list(SUMS_MAX)?)),
            3 => {
                let items: Vec<Position> = from.list(ITEMS_MAX)?;
                if items.windows(2).any(|pair| pair[0] >= pair[1]) {
                    return Err(Malformed::Invalid("order of records"));
                }
                Ok(Self::Items { items, more: bool::decode(from)? })
            }
            4 => take_records(from).map(Self::Fetched),
            5 => Ok(Self::Pushed),
            _ => Err(Malformed::Invalid("answer")),
        }
    }
}
