//! The format of the catalogue's tables. They are a cache: a pure function of the set of records
//! and of the epochs whose keys are known, whatever the order in which both arrived. Owns names,
//! keys and values; who fills them is `apply`, who asks them `query`, `sums` and `core::tree`.
//!
//! Nothing of a name, file hash or body lies in them in the clear: only tags, random ids, clocks,
//! keyed or sealed values and record ids. Numbers in keys are big-endian, so that keys sort by
//! them; `!` is the bitwise complement, so that the newest comes first. Values are `wire::codec`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `cat_total` | 0 | number of records u64, sum of their ids 32: the set's summary |
//! | | 1 | files in the tree u64, their bytes u64 |
//! | | 2 | records that wait for a grant u64 |
//! | `cat_clock` | clock 8, id 32 | kind u8 |
//! | `record/known` | id 32 | clock u64, kind u8, author 32 |
//! | `cat_sum` | level 1, clock prefix 8 | number u64, sum 32 (see `sums`) |
//! | `hash/lookup` | lookup 32, !clock 8, id 32 | author 32 |
//! | `cat_claim` | claim 16, id 32 | R u8 |
//! | `cat_grant` | node 32, id 32 | may write bool, from ms u64, until ms u64 |
//! | `cat_open` | id 32 | may write bool |
//! | `cat_epoch` | epoch 32, id 32 | made u64 |
//! | `cat_released` | claim 16, id 32 | (a release of all of the claim) |
//! | `cat_let_go` | tree record 32, claim 16, id 32 | (a release ends what it made under the claim) |
//! | `cat_thinned` | claim 16, chunk 32 | until ms u64 (claims renewed no later have ended) |
//! | `cat_owed` | id 32 | (a release; the node removes the row when its store has done it) |
//! | `cat_waiting` | author 32, id 32 | (the author has no grant yet; not in any other table) |
//! | `cat_orphan` | unknown parent 32, id 32 | (the record names a parent that is not here yet) |
//! | `cat_sealed` | epoch 32, id 32 | (the epoch's keys are not known yet) |
//! | `cat_register` | tag 16, 0 head or 1 past, !clock 8, !id 32 | [`Row`] |
//! | `cat_child` | parent inode 16, tag of the name 16, clock 8, id 32, change u16 | [`Child`] |
//! | `cat_link` | inode 16, then the key of its row in `cat_child` | |
//! | `cat_dir` | directory 16 | the key of its row in `cat_child` |
//! | `cat_fallen` | directory 16 | how far it fell u8: 1 previous place, 2 lost+found |
//! | `hash/prefix` | keyed prefix 8, id 32, change u16 | |
//! | `cat_file` | claim 16, inode 16, id 32, change u16 | |
//! | `cat_past` | parent inode 16, tag 16, ended 8, clock 8, id 32, change u16 | inode 16 |
//! | `cat_gone` | inode 16, 0 name or 1 version, ended 8, clock 8, id 32, change u16 | |
//! | `cat_ended` | ended 8, clock 8, id 32, change u16 | inode 16 |
//! | `cat_name` | inode 16 | what a search looks at, sealed (see `names`) |
//!
//! `cat_register` and the tables above it are kept by every member, the rest only as far as bodies
//! can be read. `cat_child` has heads only: entries that are not removals, and each directory once.
//! `ended` is the clock of the first change that superseded a change; `cat_past`, `cat_gone` and
//! `cat_ended` have the superseded names and versions (see `past`).

use super::keyring::Keyring;
use super::opened::Opened;
use crate::id::{InodeId, NodeId, RecordId, Tag};
use crate::sys::{Table, TableRead};
use crate::wire::codec::{Decode, Encode, Malformed, Reader};
use std::io;
use std::sync::Arc;

/// The version of this format. Tables of another version are thrown away and rebuilt.
pub const TABLES_VERSION: u32 = 7;

pub(super) const TOTAL: Table = Table("cat_total");
pub(super) const CLOCK: Table = Table("cat_clock");
pub(super) const RECORD: Table = Table("record/known");
pub(super) const SUM: Table = Table("cat_sum");
pub(super) const LOOKUP: Table = Table("hash/lookup");
pub(super) const CLAIM: Table = Table("cat_claim");
pub(super) const GRANT: Table = Table("cat_grant");
pub(super) const OPEN: Table = Table("cat_open");
pub(super) const EPOCH: Table = Table("cat_epoch");
pub(super) const RELEASED: Table = Table("cat_released");
pub(super) const LET_GO: Table = Table("cat_let_go");
pub(super) const THINNED: Table = Table("cat_thinned");
pub(super) const OWED: Table = Table("cat_owed");
pub(super) const WAITING: Table = Table("cat_waiting");
pub(super) const ORPHAN: Table = Table("cat_orphan");
pub(super) const SEALED: Table = Table("cat_sealed");
pub(super) const REGISTER: Table = Table("cat_register");
pub(super) const CHILD: Table = Table("cat_child");
pub(super) const LINK: Table = Table("cat_link");
pub(super) const DIR: Table = Table("cat_dir");
pub(super) const FALLEN: Table = Table("cat_fallen");
pub(super) const PREFIX: Table = Table("hash/prefix");
pub(super) const FILE: Table = Table("cat_file");
pub(super) const PAST: Table = Table("cat_past");
pub(super) const GONE: Table = Table("cat_gone");
pub(super) const ENDED: Table = Table("cat_ended");
pub(super) const NAME: Table = Table("cat_name");

/// All tables of the catalogue, so that a store can make, check and drop them.
pub const TABLES: &[Table] = &[
    TOTAL, CLOCK, RECORD, SUM, LOOKUP, CLAIM, GRANT, OPEN, EPOCH, RELEASED, LET_GO, THINNED, OWED,
    WAITING, ORPHAN, SEALED, REGISTER, CHILD, LINK, DIR, FALLEN, PREFIX, FILE, PAST, GONE, ENDED,
    NAME,
];

/// Keys of `cat_total`.
pub(super) const TOTAL_SET: &[u8] = &[0];
pub(super) const TOTAL_FILES: &[u8] = &[1];
pub(super) const TOTAL_WAITING: &[u8] = &[2];

/// Reads tables, and the records that the tables name.
pub trait View: TableRead {
    /// The bytes of a record that was applied, from the store.
    fn record(&self, id: &RecordId) -> io::Result<Option<Vec<u8>>>;

    /// A record that stayed open since an earlier question.
    fn opened(&self, _id: &RecordId) -> Option<Arc<Opened>> {
        None
    }

    /// Keeps a record open for later questions; false: nothing is kept here.
    fn keep_open(&self, _id: &RecordId, _opened: &Arc<Opened>) -> bool {
        false
    }
}

/// A key made of parts.
pub(super) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The end of the keys that begin with `prefix`; none: there is no end.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)? + 1;
    let mut end = prefix[..kept].to_vec();
    end[kept - 1] += 1;
    Some(end)
}

/// At most `limit` entries whose keys begin with `prefix`, from the first one above `after`.
pub(super) fn scan(
    tables: &(impl TableRead + ?Sized),
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let from = after.map_or_else(|| prefix.to_vec(), |after| key(&[after, &[0]]));
    let mut out = Vec::new();
    if limit > 0 {
        tables.range(table, &from, end_of(prefix).as_deref(), &mut |key, value| {
            out.push((key.to_vec(), value.to_vec()));
            out.len() < limit
        })?;
    }
    Ok(out)
}

/// Whether any key begins with `prefix`.
pub(super) fn any(
    tables: &(impl TableRead + ?Sized),
    table: Table,
    prefix: &[u8],
) -> io::Result<bool> {
    let mut found = false;
    tables.range(table, prefix, end_of(prefix).as_deref(), &mut |_, _| {
        found = true;
        false
    })?;
    Ok(found)
}

/// The value of a row, which only this module wrote: anything else is a damaged table.
pub(super) fn value<T: Decode>(bytes: &[u8]) -> io::Result<T> {
    T::from_bytes(bytes).map_err(damaged)
}

pub(super) fn damaged(err: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

/// Takes fixed parts from the front of a key.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl Parts<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| damaged(Malformed::Short))?;
        self.0 = rest;
        Ok(*head)
    }
}

/// What every member knows of a record without opening its bytes: the value of `record/known`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its clock.
    pub clock: u64,
    /// The number of its kind.
    pub kind: u8,
    /// Who signed it.
    pub author: NodeId,
}

impl Encode for Known {
    fn encode(&self, out: &mut Vec<u8>) {
        self.clock.encode(out);
        self.kind.encode(out);
        self.author.encode(out);
    }
}

impl Decode for Known {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            clock: u64::decode(from)?,
            kind: u8::decode(from)?,
            author: NodeId::decode(from)?,
        })
    }
}

/// A directory that a change places somewhere: the parent, and the tag of the name there.
pub(super) type Spot = (InodeId, Tag);

/// What readers know of one change of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// The body was not opened.
    Unread,
    /// The body does not say what the header promises: the change counts for nothing.
    Void,
    /// A name in `parent` that leads to an inode, or no longer to any.
    Entry { parent: InodeId, inode: Option<InodeId> },
    /// A version of a file or link.
    Version { inode: InodeId },
    /// A place of a directory; `at` is none when it was removed.
    Dir { inode: InodeId, at: Option<Spot>, previous: Option<Spot> },
}

/// A row of `cat_register`: which change of the record, since when it is past (0: it is a head),
/// and what readers know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) change: u16,
    pub(super) ended: u64,
    pub(super) fact: Fact,
}

impl Encode for Row {
    fn encode(&self, out: &mut Vec<u8>) {
        self.change.encode(out);
        self.ended.encode(out);
        match &self.fact {
            Fact::Unread => out.push(0),
            Fact::Void => out.push(1),
            Fact::Entry { parent, inode } => {
                out.push(2);
                parent.encode(out);
                inode.encode(out);
            }
            Fact::Version { inode } => {
                out.push(3);
                inode.encode(out);
            }
            Fact::Dir { inode, at, previous } => {
                out.push(4);
                inode.encode(out);
                at.encode(out);
                previous.encode(out);
            }
        }
    }
}

impl Decode for Row {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (change, ended) = (u16::decode(from)?, u64::decode(from)?);
        let fact = match u8::decode(from)? {
            0 => Fact::Unread,
            1 => Fact::Void,
            2 => Fact::Entry { parent: InodeId::decode(from)?, inode: Option::decode(from)? },
            3 => Fact::Version { inode: InodeId::decode(from)? },
            4 => Fact::Dir {
                inode: InodeId::decode(from)?,
                at: Option::decode(from)?,
                previous: Option::decode(from)?,
            },
            _ => return Err(Malformed::Invalid("row of a register")),
        };
        Ok(Self { change, ended, fact })
    }
}

/// Which of its places a directory is seen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Where its winning change puts it.
    There,
    /// At its previous place: it was removed, or fell out of a cycle.
    Before,
    /// In lost+found, under the hex digits of its inode.
    Lost,
}

/// A row of `cat_child`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    /// An entry that leads to a file or link.
    Entry(InodeId),
    /// A directory. A removed one is shown only while something unremoved is in it.
    Dir { inode: InodeId, seen: Seen, removed: bool },
}

impl Encode for Child {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(inode) => {
                out.push(0);
                inode.encode(out);
            }
            Self::Dir { inode, seen, removed } => {
                out.push(match seen {
                    Seen::There => 1,
                    Seen::Before => 2,
                    Seen::Lost => 3,
                });
                inode.encode(out);
                removed.encode(out);
            }
        }
    }
}

impl Decode for Child {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = u8::decode(from)?;
        let inode = InodeId::decode(from)?;
        let seen = match code {
            0 => return Ok(Self::Entry(inode)),
            1 => Seen::There,
            2 => Seen::Before,
            3 => Seen::Lost,
            _ => return Err(Malformed::Invalid("row of a directory")),
        };
        Ok(Self::Dir { inode, seen, removed: bool::decode(from)? })
    }
}

/// A change of a record, as the key of `cat_child` ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChangeAt {
    pub(crate) clock: u64,
    pub(crate) id: RecordId,
    pub(crate) change: u16,
}

impl ChangeAt {
    pub(super) fn child_key(&self, (parent, tag): &Spot) -> Vec<u8> {
        key(&[&parent.0, &tag.0, &self.clock.to_be_bytes(), &self.id.0, &self.change.to_be_bytes()])
    }

    /// How the keys of superseded changes end, and that of `cat_ended` as a whole.
    pub(super) fn ended_key(&self, ended: u64) -> Vec<u8> {
        let (ended, clock) = (ended.to_be_bytes(), self.clock.to_be_bytes());
        key(&[&ended, &clock, &self.id.0, &self.change.to_be_bytes()])
    }

    /// Reads what [`Self::ended_key`] wrote.
    pub(super) fn of_ended_key(key: &[u8]) -> io::Result<(u64, Self)> {
        let mut parts = Parts(key);
        let ended = u64::from_be_bytes(parts.take()?);
        let clock = u64::from_be_bytes(parts.take()?);
        let id = RecordId(parts.take()?);
        Ok((ended, Self { clock, id, change: u16::from_be_bytes(parts.take()?) }))
    }

    /// Reads a key of `cat_child`.
    pub(super) fn of_child_key(key: &[u8]) -> io::Result<(Spot, Self)> {
        let mut parts = Parts(key);
        let spot = (InodeId(parts.take()?), Tag(parts.take()?));
        let clock = u64::from_be_bytes(parts.take()?);
        let id = RecordId(parts.take()?);
        Ok((spot, Self { clock, id, change: u16::from_be_bytes(parts.take()?) }))
    }
}

/// Whether a change is the newest of its register, or was superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Head,
    Past,
}

pub(super) fn register_prefix(tag: &Tag, state: State) -> Vec<u8> {
    key(&[&tag.0, &[u8::from(state == State::Past)]])
}

pub(super) fn register_key(tag: &Tag, state: State, clock: u64, id: &RecordId) -> Vec<u8> {
    let id: [u8; 32] = id.0.map(|byte| !byte);
    key(&[&register_prefix(tag, state), &(!clock).to_be_bytes(), &id])
}

/// A change in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) at: ChangeAt,
    /// The clock of the first change that superseded it; 0: none did.
    pub(super) ended: u64,
    pub(super) fact: Fact,
}

impl Version {
    pub(super) fn read(key: &[u8], row: &[u8]) -> io::Result<Self> {
        let mut parts = Parts(key);
        parts.take::<17>()?;
        let clock = !u64::from_be_bytes(parts.take()?);
        let id = RecordId(parts.take::<32>()?.map(|byte| !byte));
        let Row { change, ended, fact } = value(row)?;
        Ok(Self { at: ChangeAt { clock, id, change }, ended, fact })
    }

    /// The order in which concurrent changes win: an edit before a removal, then the clock.
    pub(super) fn rank(&self) -> (bool, ChangeAt) {
        (!matches!(self.fact, Fact::Dir { at: None, .. }), self.at)
    }
}

/// Most concurrent changes of one register, or most superseded ones at a time, that are looked at:
/// a writer who floods a register hides nothing but what is older than all of his.
pub(super) const VERSIONS_MAX: usize = 64;

/// The newest changes of an inode in one state, under all epochs whose keys are known, best first.
pub(super) fn versions_of(
    tables: &(impl TableRead + ?Sized),
    keyring: &Keyring,
    inode: &InodeId,
    state: State,
) -> io::Result<Vec<Version>> {
    let mut out = Vec::new();
    for keys in keyring.iter() {
        let prefix = register_prefix(&super::change::inode_tag(keys, inode), state);
        for (key, row) in scan(tables, REGISTER, &prefix, None, VERSIONS_MAX)? {
            let version = Version::read(&key, &row)?;
            if !matches!(version.fact, Fact::Unread | Fact::Void) {
                out.push(version);
            }
        }
    }
    out.sort_unstable_by_key(|version| std::cmp::Reverse(version.rank()));
    Ok(out)
}
