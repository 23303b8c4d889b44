//! What was superseded: names that lead elsewhere now, and versions of files that are not the
//! newest. Owns the tables that tell when that was, for those who bring something back and those
//! who let it go; whether and when either happens is not decided here.
//!
//! Invariant: the rows follow from those of `cat_register` that are past and can be read.

use super::apply::ViewMut;
use super::body::Release;
use super::record::{Kind, Record};
use super::table::{
    ChangeAt, ENDED, FILE, Fact, GONE, LET_GO, OWED, PAST, Parts, RELEASED, THINNED, Version, View,
    any, key, scan, value,
};
use crate::id::{ChunkId, ClaimId, InodeId, RecordId, Tag};
use crate::sys::{TableRead, TableWrite};
use crate::wire::codec::Decode;
use std::io;

/// Parts of `cat_gone`.
const NAME: u8 = 0;
const VERSION: u8 = 1;

/// Writes down that a change is past.
pub(super) fn note(store: &mut dyn ViewMut, tag: &Tag, version: &Version) -> io::Result<()> {
    let at = version.at.ended_key(version.ended);
    let (inode, part) = match version.fact {
        Fact::Entry { parent, inode: Some(inode) } => {
            store.insert(PAST, &key(&[&parent.0, &tag.0, &at]), &inode.0)?;
            (inode, NAME)
        }
        Fact::Version { inode } => (inode, VERSION),
        Fact::Entry { .. } | Fact::Dir { .. } | Fact::Unread | Fact::Void => return Ok(()),
    };
    store.insert(GONE, &key(&[&inode.0, &[part], &at]), &[])?;
    store.insert(ENDED, &at, &inode.0)
}

/// Takes that back.
pub(super) fn forget(store: &mut dyn ViewMut, tag: &Tag, version: &Version) -> io::Result<()> {
    let at = version.at.ended_key(version.ended);
    let (inode, part) = match version.fact {
        Fact::Entry { parent, inode: Some(inode) } => {
            store.remove(PAST, &key(&[&parent.0, &tag.0, &at]))?;
            (inode, NAME)
        }
        Fact::Version { inode } => (inode, VERSION),
        Fact::Entry { .. } | Fact::Dir { .. } | Fact::Unread | Fact::Void => return Ok(()),
    };
    store.remove(GONE, &key(&[&inode.0, &[part], &at]))?;
    store.remove(ENDED, &at).map(drop)
}

/// A superseded name or version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The inode that it led to, or was a version of.
    pub inode: InodeId,
    /// The change that was superseded.
    pub(crate) at: ChangeAt,
    /// The clock of the first change that superseded it.
    pub(crate) ended: u64,
}

/// A name that led to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PastName {
    /// The register of the name.
    pub(crate) tag: Tag,
    /// What it led to, and until when.
    pub(crate) what: Ended,
    key: [u8; 82],
}

impl PastName {
    fn read(row: &[u8], inode: &[u8]) -> io::Result<Self> {
        let tag = Tag(Parts(row.get(InodeId::LEN..).unwrap_or(&[])).take()?);
        let (ended, at) = ChangeAt::of_ended_key(&row[InodeId::LEN + Tag::LEN..])?;
        let what = Ended { inode: InodeId(Parts(inode).take()?), at, ended };
        Ok(Self { tag, what, key: Parts(row).take()? })
    }

    /// The key behind which a listing goes on.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// What was superseded first, from the key `after`, as far as `limit` reaches and not later than
/// the clock reading `until`.
pub(crate) fn ended(
    tables: &dyn TableRead,
    after: Option<&Ended>,
    until: u64,
    limit: usize,
) -> io::Result<Vec<Ended>> {
    let after = after.map(|after| after.at.ended_key(after.ended));
    let mut out = Vec::new();
    for (row, inode) in scan(tables, ENDED, &[], after.as_deref(), limit)? {
        let (ended, at) = ChangeAt::of_ended_key(&row)?;
        if ended > until {
            break;
        }
        out.push(Ended { inode: InodeId(Parts(&inode).take()?), at, ended });
    }
    Ok(out)
}

/// The names in a directory that led to something, in the order of their tags and of when they
/// ended, behind the key `after`.
pub(crate) fn past_names(
    tables: &dyn TableRead,
    parent: &InodeId,
    after: Option<&[u8]>,
    limit: usize,
) -> io::Result<Vec<PastName>> {
    let rows = scan(tables, PAST, &parent.0, after, limit)?;
    rows.iter().map(|(row, inode)| PastName::read(row, inode)).collect()
}

/// What a name in a directory led to last that it leads to no longer.
pub(crate) fn last_name(
    tables: &dyn TableRead,
    parent: &InodeId,
    tag: &Tag,
) -> io::Result<Option<Ended>> {
    let prefix = key(&[&parent.0, &tag.0]);
    let last = tables.last(PAST, &prefix, super::table::end_of(&prefix).as_deref())?;
    last.map(|(row, inode)| PastName::read(&row, &inode).map(|name| name.what)).transpose()
}

/// When the last name of an inode that has none any more was superseded; none: it never had one.
pub(crate) fn unnamed_since(tables: &dyn TableRead, inode: &InodeId) -> io::Result<Option<u64>> {
    let prefix = key(&[&inode.0, &[NAME]]);
    let last = tables.last(GONE, &prefix, super::table::end_of(&prefix).as_deref())?;
    let ended = last.map(|(row, _)| ChangeAt::of_ended_key(&row[prefix.len()..]));
    Ok(ended.transpose()?.map(|(ended, _)| ended))
}

/// The superseded versions of an inode, those first that were superseded first, from the one
/// behind `after`.
pub(crate) fn past_versions(
    tables: &dyn TableRead,
    inode: &InodeId,
    after: Option<&Ended>,
    limit: usize,
) -> io::Result<Vec<Ended>> {
    let prefix = key(&[&inode.0, &[VERSION]]);
    let after = after.map(|after| key(&[&prefix, &after.at.ended_key(after.ended)]));
    let rows = scan(tables, GONE, &prefix, after.as_deref(), limit)?;
    let read = |(row, _): (Vec<u8>, Vec<u8>)| {
        let (ended, at) = ChangeAt::of_ended_key(&row[prefix.len()..])?;
        Ok(Ended { inode: *inode, at, ended })
    };
    rows.into_iter().map(read).collect()
}

/// Whether all of a claim was released.
pub fn is_released(tables: &(impl TableRead + ?Sized), claim: &ClaimId) -> io::Result<bool> {
    any(tables, RELEASED, &claim.0)
}

/// Whether the version of an inode that a change made was let go. One record may have made versions
/// of many inodes, so the claim of what was let go has to be that of this one.
pub(crate) fn is_let_go(
    tables: &dyn TableRead,
    inode: &InodeId,
    at: &ChangeAt,
) -> io::Result<bool> {
    for (row, _) in scan(tables, LET_GO, &at.id.0, None, usize::MAX)? {
        let mut parts = Parts(&row);
        parts.take::<{ RecordId::LEN }>()?;
        let claim: [u8; ClaimId::LEN] = parts.take()?;
        let file = key(&[&claim, &inode.0, &at.id.0, &at.change.to_be_bytes()]);
        if tables.get(FILE, &file)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Until when claims on a chunk must have been renewed to have ended with the versions that needed
/// it, in milliseconds since 1970; none: nothing of the claim was let go that needed the chunk.
pub fn thinned_until(
    tables: &dyn TableRead,
    claim: &ClaimId,
    chunk: &ChunkId,
) -> io::Result<Option<u64>> {
    let until = tables.get(THINNED, &key(&[&claim.0, &chunk.0]))?;
    until.map(|until| value(&until)).transpose()
}

/// The claims that were released, from the first one above `after`, at most `limit` of them.
pub fn released(
    tables: &dyn TableRead,
    after: Option<&ClaimId>,
    limit: usize,
) -> io::Result<Vec<ClaimId>> {
    let after = after.map(|claim| key(&[&claim.0, &[u8::MAX; RecordId::LEN]]));
    let mut out = Vec::new();
    for (row, _) in scan(tables, RELEASED, &[], after.as_deref(), limit)? {
        out.push(ClaimId(Parts(&row).take()?));
    }
    out.dedup();
    Ok(out)
}

/// The inodes of which versions have this claim; honest authors use each claim for one.
pub(crate) fn inodes_of(
    tables: &dyn TableRead,
    claim: &ClaimId,
    limit: usize,
) -> io::Result<Vec<InodeId>> {
    let mut out = Vec::new();
    for (row, _) in scan(tables, FILE, &claim.0, None, limit)? {
        out.push(InodeId(Parts(&row[ClaimId::LEN..]).take()?));
    }
    out.dedup();
    Ok(out)
}

/// Releases that this node's store has not done yet, behind `after`, at most `limit`; none as the
/// second part of one: it cannot be read here just now and stays owed.
pub fn owed(
    view: &dyn View,
    after: Option<&RecordId>,
    limit: usize,
) -> io::Result<Vec<(RecordId, Option<Release>)>> {
    let mut out = Vec::new();
    for (row, _) in scan(view, OWED, &[], after.map(|id| &id.0[..]), limit)? {
        let id = RecordId(Parts(&row).take()?);
        out.push((id, view.record(&id)?.and_then(|bytes| release_of(bytes).ok().flatten())));
    }
    Ok(out)
}

fn release_of(bytes: Vec<u8>) -> Result<Option<Release>, crate::wire::codec::Malformed> {
    let record = Record::parse(bytes)?;
    let is = record.header.kind == Kind::Release;
    if is { Release::from_bytes(record.body()).map(Some) } else { Ok(None) }
}

/// Says that the store has done what these releases say.
pub fn settle_owed(tables: &mut dyn TableWrite, done: &[RecordId]) -> io::Result<()> {
    done.iter().try_for_each(|id| tables.remove(OWED, &id.0).map(drop))
}
