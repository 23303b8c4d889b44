//! Questions to the catalogue that need no tree: file records, grants, epochs, counts. Owns how the
//! tables are asked and how many answers a question may have; it opens no sealed body.

use super::body::{EpochRecord, FileRecord, Recipient};
use super::past::is_released;
use super::record::{Kind, Record};
use super::reveal::{Tally, tally as tally_of};
use super::table::{
    CLAIM, CLOCK, EPOCH, GRANT, Known, LOOKUP, OPEN, PREFIX, Parts, RECORD, REGISTER, State,
    Version, View, any, damaged, key, register_prefix, scan, value,
};
use crate::crypto::SIGNATURE_LEN;
use crate::id::{ClaimId, EpochId, LookupId, NodeId, RecordId, Tag};
use crate::sys::TableRead;
use crate::wire::codec::Decode;
use std::collections::BTreeSet;
use std::io;

/// Most file records of one lookup id that are tried: junk under somebody else's file costs a
/// reader at most this many small fetches.
pub const CANDIDATES_MAX: usize = 16;
/// Most rows of one lookup id that are looked at to find one per author; those of records that were
/// released do not count …
const LOOKUP_ROWS_MAX: usize = 256;
/// … up to so many times as many.
const LOOKUP_PAGES_MAX: usize = 64;
/// Most records that a question about a tag or a hash prefix finds.
pub const FOUND_MAX: usize = 64;

/// A file record with who wrote it and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCandidate {
    /// Its id.
    pub id: RecordId,
    /// Who signed it.
    pub author: NodeId,
    /// Its clock.
    pub clock: u64,
    /// What it says.
    pub file: FileRecord,
}

/// The file records under a lookup id, newest first: the newest of each author, at most
/// [`CANDIDATES_MAX`]. Only one that is proved by the manifest is the file.
pub fn files_by_lookup(view: &dyn View, lookup: &LookupId) -> io::Result<Vec<FileCandidate>> {
    let mut out = Vec::new();
    let mut authors = BTreeSet::new();
    let (mut looked, mut after) = (0, None::<Vec<u8>>);
    for _ in 0..LOOKUP_PAGES_MAX {
        let page = scan(view, LOOKUP, &lookup.0, after.as_deref(), LOOKUP_ROWS_MAX)?;
        for (row, author) in &page {
            if out.len() == CANDIDATES_MAX || looked == LOOKUP_ROWS_MAX {
                return Ok(out);
            }
            looked += 1;
            let author: NodeId = value(author)?;
            if authors.contains(&author) {
                continue;
            }
            let mut parts = Parts(row);
            parts.take::<32>()?;
            let clock = !u64::from_be_bytes(parts.take()?);
            let id = RecordId(parts.take()?);
            let Some(file) = file_record(view, &id)? else { continue };
            // What was released may be gone already.
            if is_released(view, &file.claim)? {
                looked -= 1;
                continue;
            }
            authors.insert(author);
            out.push(FileCandidate { id, author, clock, file });
        }
        match page.last() {
            Some((last, _)) if page.len() == LOOKUP_ROWS_MAX => after = Some(last.clone()),
            _ => break,
        }
    }
    Ok(out)
}

/// What a file record says; none when it is not here or is another kind of record.
pub fn file_record(view: &dyn View, id: &RecordId) -> io::Result<Option<FileRecord>> {
    let Some(bytes) = view.record(id)? else { return Ok(None) };
    let record = Record::parse(bytes).map_err(damaged)?;
    if record.header.kind != Kind::File {
        return Ok(None);
    }
    FileRecord::from_bytes(record.body()).map(Some).map_err(damaged)
}

/// The file records that name a claim, at most `limit`, in no particular order.
pub fn files_by_claim(
    tables: &dyn TableRead,
    claim: &ClaimId,
    limit: usize,
) -> io::Result<Vec<RecordId>> {
    last_ids(&scan(tables, CLAIM, &claim.0, None, limit)?)
}

/// The R that a file record asks for, without a look at the record; none: it is not here.
pub fn replicas_of(
    tables: &dyn TableRead,
    claim: &ClaimId,
    record: &RecordId,
) -> io::Result<Option<u8>> {
    let row = tables.get(CLAIM, &key(&[&claim.0[..], &record.0]))?;
    Ok(row.and_then(|row| row.first().copied()))
}

/// Whether any file record names the claim, which commits it.
pub fn is_committed(tables: &dyn TableRead, claim: &ClaimId) -> io::Result<bool> {
    any(tables, CLAIM, &claim.0)
}

/// The tree records whose changes are the heads of a register, at most [`FOUND_MAX`].
pub fn records_by_tag(tables: &dyn TableRead, tag: &Tag) -> io::Result<Vec<RecordId>> {
    let heads = scan(tables, REGISTER, &register_prefix(tag, State::Head), None, FOUND_MAX)?;
    heads.iter().map(|(key, row)| Ok(Version::read(key, row)?.at.id)).collect()
}

/// The tree records with a file of which the hash begins so (`EpochKeys::prefix`), at most
/// [`FOUND_MAX`]. Only readers have any.
pub fn records_by_prefix(tables: &dyn TableRead, prefix: &[u8; 8]) -> io::Result<Vec<RecordId>> {
    let mut ids = Vec::new();
    for (row, _) in scan(tables, PREFIX, prefix, None, FOUND_MAX)? {
        let mut parts = Parts(&row);
        parts.take::<8>()?;
        ids.push(RecordId(parts.take()?));
    }
    ids.dedup();
    Ok(ids)
}

/// The valid grants of a node.
pub fn grants_of(tables: &dyn TableRead, node: &NodeId) -> io::Result<Vec<RecordId>> {
    last_ids(&scan(tables, GRANT, &node.0, None, FOUND_MAX)?)
}

/// The valid grants of all nodes.
pub fn grants(tables: &dyn TableRead) -> io::Result<Vec<RecordId>> {
    last_ids(&scan(tables, GRANT, &[], None, usize::MAX)?)
}

/// The valid open statements of this swarm.
pub fn open_statements(tables: &dyn TableRead) -> io::Result<Vec<RecordId>> {
    last_ids(&scan(tables, OPEN, &[], None, FOUND_MAX)?)
}

/// All epochs with the clock reading at which each was made.
pub fn epochs(tables: &dyn TableRead) -> io::Result<Vec<(EpochId, u64)>> {
    let mut out: Vec<(EpochId, u64)> = Vec::new();
    for (row, made) in scan(tables, EPOCH, &[], None, usize::MAX)? {
        let epoch = EpochId(Parts(&row).take()?);
        let made: u64 = value(&made)?;
        match out.last_mut() {
            Some((last, newest)) if *last == epoch => *newest = made.max(*newest),
            _ => out.push((epoch, made)),
        }
    }
    Ok(out)
}

/// The secret of an epoch, sealed to one of the recipients that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Which epoch.
    pub epoch: EpochId,
    /// When it was made: what `Keyring::add` wants.
    pub made: u64,
    /// To whom it is sealed.
    pub recipient: Recipient,
    /// The box.
    pub sealed: Vec<u8>,
}

/// To whom which epoch is sealed.
pub fn boxes(view: &dyn View) -> io::Result<BTreeSet<(EpochId, Recipient)>> {
    let mut out = BTreeSet::new();
    for epoch in epoch_records(view)? {
        let epoch = epoch?;
        out.extend(epoch.boxes.iter().map(|one| (epoch.epoch, one.recipient)));
    }
    Ok(out)
}

fn epoch_records(
    view: &dyn View,
) -> io::Result<impl Iterator<Item = io::Result<EpochRecord>> + '_> {
    let ids = last_ids(&scan(view, EPOCH, &[], None, usize::MAX)?)?;
    let read = |id: RecordId| -> io::Result<Option<EpochRecord>> {
        let Some(bytes) = view.record(&id)? else { return Ok(None) };
        let record = Record::parse(bytes).map_err(damaged)?;
        let body = record.body();
        // Its signature was checked before the tables named it.
        let signed = &body[..body.len().saturating_sub(SIGNATURE_LEN)];
        EpochRecord::from_bytes(signed).map(Some).map_err(damaged)
    };
    Ok(ids.into_iter().filter_map(move |id| read(id).transpose()))
}

/// Every secret that is sealed to one of `recipients`.
pub fn sealed_secrets(view: &dyn View, recipients: &[Recipient]) -> io::Result<Vec<SealedSecret>> {
    let made: std::collections::BTreeMap<EpochId, u64> = epochs(view)?.into_iter().collect();
    let mut out = Vec::new();
    for epoch in epoch_records(view)? {
        let epoch = epoch?;
        let made = made.get(&epoch.epoch).copied().unwrap_or(epoch.made);
        let wanted = epoch.boxes.into_iter().filter(|one| recipients.contains(&one.recipient));
        out.extend(wanted.map(|one| SealedSecret {
            epoch: epoch.epoch,
            made,
            recipient: one.recipient,
            sealed: one.sealed,
        }));
    }
    Ok(out)
}

/// The highest clock of all records, from which a restarted node's clock goes on; 0: no record.
pub fn newest_clock(tables: &dyn TableRead) -> io::Result<u64> {
    match tables.last(CLOCK, &[], None)? {
        Some((key, _)) => Ok(u64::from_be_bytes(Parts(&key).take()?)),
        None => Ok(0),
    }
}

/// What is known of a record that is in the set.
pub fn known(tables: &dyn TableRead, id: &RecordId) -> io::Result<Option<Known>> {
    tables.get(RECORD, &id.0)?.map(|row| value(&row)).transpose()
}

/// The files in the tree and their bytes, as far as their names can be read here.
pub fn tally(tables: &dyn TableRead) -> io::Result<Tally> {
    tally_of(tables)
}

/// The record ids with which keys end.
fn last_ids(rows: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Vec<RecordId>> {
    let id = |(row, _): &(Vec<u8>, Vec<u8>)| {
        let tail = row.len().saturating_sub(RecordId::LEN);
        Parts(&row[tail..]).take().map(RecordId)
    };
    rows.iter().map(id).collect()
}
