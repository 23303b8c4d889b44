//! What follows from a record: the one function that fills the tables. Owns the checks that every
//! member makes (frame, signature, clock, right to write), the registers, and what waits for
//! something that is not here yet; what readers know beyond that is `reveal`'s.
//!
//! Invariant: the tables depend on the *set* of records applied and of epochs known, never on the
//! order. So nothing here asks "what is there already" except to answer a question about the set:
//!
//! * a record supersedes its parents in the registers that both touch, and only those; whichever of
//!   the two arrives first, the same row ends as past;
//! * a record is refused only for what every member can see in it alone, or (from a peer) for the
//!   time; a body that does not open as promised counts as a record that changes nothing;
//! * what waits (for a grant, a parent, a secret) is in a table of its own until it comes.

use super::body::{EpochRecord, FileRecord, Release, Scope};
use super::keyring::Keyring;
use super::record::{Kind, Record};
use super::reveal::Reveal;
use super::sums;
use super::table::{
    CLAIM, CLOCK, EPOCH, GRANT, Known, LET_GO, LOOKUP, OPEN, ORPHAN, OWED, Parts, RECORD, REGISTER,
    RELEASED, Row, SEALED, State, THINNED, TOTAL, TOTAL_WAITING, Version, View, WAITING, any,
    damaged, key, register_key, scan, value,
};
use crate::core::hlc;
use crate::id::{EpochId, NodeId, RecordId, Tag};
use crate::sys::{TableRead, TableWrite};
use crate::wire::codec::{Decode, Encode, Malformed};
use std::collections::BTreeMap;
use std::io;

/// Rows that are in memory at once.
const PAGE: usize = 1024;

/// Tables being changed, and the records that they name. `apply` reads records back: children that
/// came before their parent, and the winning versions whose sizes it counts.
pub trait ViewMut: View + TableWrite {}

impl<T: View + TableWrite> ViewMut for T {}

/// What a valid grant says, as far as the catalogue is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantFacts {
    /// Whom it lets in.
    pub node: NodeId,
    /// Whether that node may write file and tree records.
    pub may_write: bool,
    /// First millisecond since 1970 at which it holds.
    pub from_ms: u64,
    /// Last one.
    pub until_ms: u64,
}

/// Who may do what: the part of `core::access` that the catalogue asks. Its answers must depend on
/// the arguments and on the swarm alone.
pub trait Authority {
    /// What a grant says; none when the swarm key did not sign it.
    fn grant(&self, body: &[u8]) -> Option<GrantFacts>;

    /// Whether a statement opens this swarm, and then whether everybody may write.
    fn open_statement(&self, body: &[u8]) -> Option<bool>;

    /// The swarm's public key, which signs epochs.
    fn swarm_public(&self) -> &[u8; 32];
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From a peer, or just made here.
    Peer {
        /// The wall clock: what is more than [`hlc::MAX_AHEAD_MS`] ahead of it is refused.
        now_ms: u64,
    },
    /// From the own segments, to fill the tables again. What was accepted once is not judged by
    /// the time, and any number may wait for grants that follow.
    Disk,
}

/// What `apply` needs to know besides the tables.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The keys of all epochs that this node can read.
    pub keyring: &'a Keyring,
    /// Who may do what.
    pub authority: &'a dyn Authority,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is in the set. After a grant or open statement, [`catch_up`] applies what waited for it.
    New,
    /// It is in the set; its body waits until the keys of its epoch are known and [`catch_up`]
    /// runs.
    Sealed,
    /// Its author has no grant that lets him write at that time. Keep its bytes where
    /// [`View::record`] finds them; it is not in the set.
    Waiting,
    /// It was there already; nothing changed.
    Known,
    /// It was not accepted; nothing changed, do not keep it.
    Refused(Refusal),
}

/// Why a record is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its bytes are not a record, or not one of a kind that this version knows.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The author did not sign it.
    #[error("the signature does not hold")]
    Signature,
    /// Its clock is too far ahead.
    #[error("its clock is ahead of this machine's by more than a minute")]
    Ahead,
    /// What it says is not valid: a malformed file record, a grant or epoch that the swarm key did
    /// not sign.
    #[error("its content is not valid")]
    Body,
    /// Its author has no grant, and too many such records wait already.
    #[error("its author has no grant")]
    Author,
}

/// Most records from peers that wait for a grant: those of a few nodes that join right now.
pub const WAITING_MAX: u64 = 1024;
/// How far the clocks of two nodes may differ before a grant is not yet or no longer valid.
pub const GRANT_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// A record whose frame and signature hold. Checking needs no tables, so it can run anywhere.
#[derive(Debug, Clone)]
pub struct Checked(Record);

impl Checked {
    /// Checks the bytes of a record.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Refusal> {
        let record = Record::parse(bytes)?;
        if record.is_signed() { Ok(Self(record)) } else { Err(Refusal::Signature) }
    }

    /// A record that this node has made, or checked before it kept it: a signature costs more than
    /// everything else that is done with a record, and the store vouches for the bytes.
    pub fn kept(bytes: Vec<u8>) -> Result<Self, Refusal> {
        Ok(Self(Record::parse(bytes)?))
    }

    /// The record.
    pub const fn record(&self) -> &Record {
        &self.0
    }
}

/// What would become of a record from a peer, without changing anything: asked before its bytes are
/// kept. `New` stands for `Sealed` too. How many may wait is the caller's decision ([`waiting`]).
pub fn vet(
    tables: &dyn TableRead,
    authority: &dyn Authority,
    now_ms: u64,
    checked: &Checked,
) -> io::Result<Applied> {
    let record = &checked.0;
    if tables.get(RECORD, &record.id.0)?.is_some() {
        return Ok(Applied::Known);
    }
    if hlc::too_far_ahead(record.header.clock, now_ms) {
        return Ok(Applied::Refused(Refusal::Ahead));
    }
    let Some(body) = Body::read(record, authority) else {
        return Ok(Applied::Refused(Refusal::Body));
    };
    let open =
        !body.is_for_writers() || may_write(tables, &record.header.author, record.header.clock)?;
    Ok(if open { Applied::New } else { Applied::Waiting })
}

/// Applies a record to the tables, in any order and as often as one likes. An error leaves the
/// tables half changed: roll the transaction back.
pub fn apply(
    store: &mut dyn ViewMut,
    context: Context<'_>,
    source: Source,
    checked: &Checked,
) -> io::Result<Applied> {
    let record = &checked.0;
    if store.get(RECORD, &record.id.0)?.is_some() {
        return Ok(Applied::Known);
    }
    if let Source::Peer { now_ms } = source
        && hlc::too_far_ahead(record.header.clock, now_ms)
    {
        return Ok(Applied::Refused(Refusal::Ahead));
    }
    let Some(body) = Body::read(record, context.authority) else {
        return Ok(Applied::Refused(Refusal::Body));
    };
    if body.is_for_writers() {
        if !may_write(store, &record.header.author, record.header.clock)? {
            return wait(store, source, record);
        }
        // It may have waited, and come again just after its grant.
        forget_waiting(store, record)?;
    }
    insert(store, context, record, &body)
}

/// The body as far as every member reads it.
enum Body {
    File(FileRecord),
    Tree,
    Grant(GrantFacts),
    Epoch(EpochRecord),
    Release(Release),
    Open(bool),
}

impl Body {
    fn read(record: &Record, authority: &dyn Authority) -> Option<Self> {
        let body = record.body();
        match record.header.kind {
            Kind::File => FileRecord::from_bytes(body).ok().map(Self::File),
            Kind::Tree => Some(Self::Tree),
            Kind::Grant => authority.grant(body).map(Self::Grant),
            Kind::Epoch => EpochRecord::open(body, authority.swarm_public()).map(Self::Epoch),
            Kind::Release => Release::from_bytes(body)
                .ok()
                .filter(|release| release.is_of_the_past(record.header.clock))
                .map(Self::Release),
            Kind::OpenStatement => authority.open_statement(body).map(Self::Open),
        }
    }

    /// Whether its author must have the right to write.
    const fn is_for_writers(&self) -> bool {
        matches!(self, Self::File(_) | Self::Tree | Self::Release(_))
    }
}

/// Whether any grant, or an open statement, lets the author write at that clock reading.
fn may_write(store: &dyn TableRead, author: &NodeId, clock: u64) -> io::Result<bool> {
    let ms = hlc::ms_of(clock);
    for (_, row) in scan(store, GRANT, &author.0, None, usize::MAX)? {
        let (writes, (from, until)): (bool, (u64, u64)) = value(&row)?;
        let from = from.saturating_sub(GRANT_TOLERANCE_MS);
        if writes && (from..=until.saturating_add(GRANT_TOLERANCE_MS)).contains(&ms) {
            return Ok(true);
        }
    }
    let statements = scan(store, OPEN, &[], None, usize::MAX)?;
    Ok(statements.iter().any(|(_, row)| row == &[1]))
}

fn waiting_key(record: &Record) -> Vec<u8> {
    key(&[&record.header.author.0, &record.id.0])
}

fn wait(store: &mut dyn ViewMut, source: Source, record: &Record) -> io::Result<Applied> {
    let key = waiting_key(record);
    if store.get(WAITING, &key)?.is_some() {
        return Ok(Applied::Known);
    }
    let waiting = waiting(store)?;
    if waiting >= WAITING_MAX && source != Source::Disk {
        return Ok(Applied::Refused(Refusal::Author));
    }
    store.insert(WAITING, &key, &[])?;
    store.insert(TOTAL, TOTAL_WAITING, &(waiting + 1).to_bytes())?;
    Ok(Applied::Waiting)
}

fn forget_waiting(store: &mut dyn ViewMut, record: &Record) -> io::Result<()> {
    if store.remove(WAITING, &waiting_key(record))? {
        match waiting(store)?.saturating_sub(1) {
            0 => _ = store.remove(TOTAL, TOTAL_WAITING)?,
            rest => store.insert(TOTAL, TOTAL_WAITING, &rest.to_bytes())?,
        }
    }
    Ok(())
}

/// How many records wait for a grant of their author.
pub fn waiting(store: &dyn TableRead) -> io::Result<u64> {
    store.get(TOTAL, TOTAL_WAITING)?.map_or(Ok(0), |bytes| value(&bytes))
}

fn insert(
    store: &mut dyn ViewMut,
    context: Context<'_>,
    record: &Record,
    body: &Body,
) -> io::Result<Applied> {
    let header = &record.header;
    let known = Known { clock: header.clock, kind: header.kind.code(), author: header.author };
    store.insert(RECORD, &record.id.0, &known.to_bytes())?;
    let clock = header.clock.to_be_bytes();
    store.insert(CLOCK, &key(&[&clock, &record.id.0]), &[known.kind])?;
    sums::add(store, header.clock, &record.id)?;
    match body {
        Body::Tree => return insert_tree(store, context.keyring, record),
        Body::File(file) => {
            let newest_first = (!header.clock).to_be_bytes();
            let found = key(&[&file.lookup.0, &newest_first, &record.id.0]);
            store.insert(LOOKUP, &found, &header.author.0)?;
            store.insert(CLAIM, &key(&[&file.claim.0, &record.id.0]), &[file.replicas])?;
        }
        Body::Grant(facts) => {
            let row = (facts.may_write, (facts.from_ms, facts.until_ms));
            store.insert(GRANT, &key(&[&facts.node.0, &record.id.0]), &row.to_bytes())?;
        }
        Body::Epoch(epoch) => {
            let at = key(&[&epoch.epoch.0, &record.id.0]);
            store.insert(EPOCH, &at, &epoch.made.to_bytes())?;
        }
        Body::Release(release) => insert_release(store, &record.id, release)?,
        Body::Open(writes) => store.insert(OPEN, &record.id.0, &writes.to_bytes())?,
    }
    Ok(Applied::New)
}

fn insert_release(store: &mut dyn ViewMut, id: &RecordId, release: &Release) -> io::Result<()> {
    match &release.scope {
        Scope::All => {
            store.insert(RELEASED, &key(&[&release.claim.0, &id.0]), &[])?;
            // All of it says more than parts of it.
            loop {
                let rows = scan(store, THINNED, &release.claim.0, None, PAGE)?;
                if rows.is_empty() {
                    break;
                }
                rows.iter().try_for_each(|(row, _)| store.remove(THINNED, row).map(drop))?;
            }
        }
        Scope::Versions { until_ms, versions, chunks } => {
            for version in versions {
                store.insert(LET_GO, &key(&[&version.0, &release.claim.0, &id.0]), &[])?;
            }
            let thinned = if any(store, RELEASED, &release.claim.0)? { &[][..] } else { chunks };
            for chunk in thinned {
                let row = key(&[&release.claim.0, &chunk.0]);
                let before = store.get(THINNED, &row)?.map_or(Ok(0), |until| value(&until))?;
                store.insert(THINNED, &row, &before.max(*until_ms).to_bytes())?;
            }
        }
    }
    store.insert(OWED, &id.0, &[])
}

fn insert_tree(store: &mut dyn ViewMut, keyring: &Keyring, record: &Record) -> io::Result<Applied> {
    let readable = keyring.get(&record.header.epoch).is_some();
    let ended = ended_by_children(store, record)?;
    let mut reveal = Reveal::new(store, keyring);
    let facts = reveal.facts(record);
    for ((index, tag), fact) in (0..).zip(&record.header.tags).zip(facts) {
        let ended = ended.get(tag).copied();
        reveal.set(tag, record, Row { change: index, ended: ended.unwrap_or(0), fact })?;
    }
    let (clock, parents) = (record.header.clock, parents_here(reveal.store, record)?);
    for tag in record.header.tags.iter().chain(&record.header.also) {
        for version in versions_among(reveal.store, tag, &parents)? {
            reveal.end(tag, &version, clock)?;
        }
    }
    reveal.finish()?;
    for parent in &record.header.parents {
        if store.get(RECORD, &parent.0)?.is_none() {
            store.insert(ORPHAN, &key(&[&parent.0, &record.id.0]), &[])?;
        }
    }
    if readable {
        return Ok(Applied::New);
    }
    store.insert(SEALED, &key(&[&record.header.epoch.0, &record.id.0]), &[])?;
    Ok(Applied::Sealed)
}

/// The registers of a record that records which came before it have superseded, and the first clock
/// of those.
fn ended_by_children(store: &mut dyn ViewMut, record: &Record) -> io::Result<BTreeMap<Tag, u64>> {
    let mut ended = BTreeMap::new();
    for (row, _) in scan(store, ORPHAN, &record.id.0, None, usize::MAX)? {
        let mut parts = Parts(&row);
        parts.take::<32>()?;
        let child = RecordId(parts.take()?);
        let header = read_back(store, &child)?.header;
        let touched = header.tags.iter().chain(&header.also);
        for tag in touched.filter(|tag| record.header.tags.contains(tag)) {
            let first = ended.entry(*tag).or_insert(header.clock);
            *first = header.clock.min(*first);
        }
        store.remove(ORPHAN, &row)?;
    }
    Ok(ended)
}

/// The parents of a record that are here, with their clocks.
fn parents_here(store: &dyn ViewMut, record: &Record) -> io::Result<Vec<(RecordId, u64)>> {
    let mut here = Vec::new();
    for parent in &record.header.parents {
        if let Some(row) = store.get(RECORD, &parent.0)? {
            here.push((*parent, value::<Known>(&row)?.clock));
        }
    }
    Ok(here)
}

/// The changes of a register, superseded or not, that the given records made.
fn versions_among(
    store: &dyn ViewMut,
    tag: &Tag,
    records: &[(RecordId, u64)],
) -> io::Result<Vec<Version>> {
    let mut found = Vec::new();
    for (id, clock) in records {
        for state in [State::Head, State::Past] {
            let key = register_key(tag, state, *clock, id);
            if let Some(row) = store.get(REGISTER, &key)? {
                found.push(Version::read(&key, &row)?);
            }
        }
    }
    Ok(found)
}

/// A record that the tables name, which the store therefore has.
fn read_back(store: &dyn ViewMut, id: &RecordId) -> io::Result<Record> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "a record in the tables is gone");
    Record::parse(store.record(id)?.ok_or_else(missing)?).map_err(damaged)
}

/// What [`catch_up`] came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaughtUp {
    /// There may be more: call it again.
    pub more: bool,
    /// Records that were applied, or opened, only now.
    pub applied: Vec<RecordId>,
    /// Records that go on waiting because the store has lost their bytes.
    pub lost: Vec<RecordId>,
}

/// Applies up to `limit` records that waited for a grant of their author or for the keys of their
/// epoch, both of which may have come meanwhile.
pub fn catch_up(
    store: &mut dyn ViewMut,
    context: Context<'_>,
    limit: usize,
) -> io::Result<CaughtUp> {
    let mut done = CaughtUp::default();
    let left = admit(store, context, limit, &mut done)?;
    let left = unseal(store, context.keyring, left, &mut done)?;
    done.more = left == 0;
    Ok(done)
}

/// A record that waits; noted as lost when the store has not got its bytes any more.
fn waiting_record(
    store: &dyn ViewMut,
    id: RecordId,
    done: &mut CaughtUp,
) -> io::Result<Option<Record>> {
    match store.record(&id)? {
        Some(bytes) => Record::parse(bytes).map(Some).map_err(damaged),
        None => {
            done.lost.push(id);
            Ok(None)
        }
    }
}

/// Applies what waited for grants; how much of `limit` is left.
fn admit(
    store: &mut dyn ViewMut,
    context: Context<'_>,
    limit: usize,
    done: &mut CaughtUp,
) -> io::Result<usize> {
    let mut left = limit;
    let mut after: Option<Vec<u8>> = None;
    while left > 0 {
        let page = scan(store, WAITING, &[], after.as_deref(), left)?;
        for (row, _) in &page {
            let mut parts = Parts(row);
            let author = NodeId(parts.take()?);
            let id = RecordId(parts.take()?);
            let Some(record) = waiting_record(store, id, done)? else { continue };
            if may_write(store, &author, record.header.clock)? {
                forget_waiting(store, &record)?;
                if let Some(body) = Body::read(&record, context.authority) {
                    insert(store, context, &record, &body)?;
                    done.applied.push(id);
                }
                left -= 1;
            }
        }
        match page.last() {
            Some((row, _)) => after = Some(row.clone()),
            None => break,
        }
    }
    Ok(left)
}

/// Opens what waited for the keys of its epoch; how much of `limit` is left.
fn unseal(
    store: &mut dyn ViewMut,
    keyring: &Keyring,
    limit: usize,
    done: &mut CaughtUp,
) -> io::Result<usize> {
    let mut left = limit;
    for keys in keyring.iter() {
        let epoch: EpochId = keys.epoch();
        if !any(store, SEALED, &epoch.0)? {
            continue;
        }
        for (row, _) in scan(store, SEALED, &epoch.0, None, left)? {
            let mut parts = Parts(&row);
            parts.take::<32>()?;
            let id = RecordId(parts.take()?);
            let Some(record) = waiting_record(store, id, done)? else { continue };
            let mut reveal = Reveal::new(store, keyring);
            reveal.open(&record)?;
            reveal.finish()?;
            store.remove(SEALED, &row)?;
            done.applied.push(id);
            left -= 1;
        }
    }
    Ok(left)
}

/// A change in its register, in the state it is in.
pub(super) fn find_row(
    store: &dyn ViewMut,
    tag: &Tag,
    record: &Record,
) -> io::Result<Option<Version>> {
    Ok(versions_among(store, tag, &[(record.id, record.header.clock)])?.pop())
}
