//! Compaction: the space of dead records comes back. What is still needed of a sealed segment is
//! copied, in its order, into a new file that takes the old one's place in the log; the writer then
//! makes the tables point at the copy (`switch`) and removes the old file. The copying runs beside
//! the writer, in steps that its caller paces. Payloads are verified while they are copied.
//!
//! What is needed is what some row is made from, and ends while a segment before this one still
//! holds something dead: that might be what they ended. Only the writer adds rows, and none that
//! point at a sealed segment: what was dead when the copying began never lives again, and what dies
//! meanwhile is simply dead in the copy.
//!
//! Invariant: until the writer has switched, the copy can be thrown away at any time.

use super::batch::Plan;
use super::format::{Class, Entry, FileHead, Found};
use super::read::read_full;
use super::rows::{self, Maker, Place};
use super::scan::{Item, Scan};
use super::segment::Segment;
use super::shared::{Damage, Job, Shared};
use super::sync::mpsc::{Receiver, sync_channel};
use super::tables::Snapshot;
use super::{Store, SubmitError};
use crate::id::{ChunkId, ClaimId, RecordId};
use crate::sys::{File, Table};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// The most bytes of one step, whatever its caller asks for: a step holds them in memory.
const MAX_STEP: u64 = 8 << 20;
/// Rows of a table that one step looks through for some whose entries are damaged.
const ROWS: usize = 4096;
/// What the walk over a record costs of a step's bytes when it is not copied.
const SKIPPED: u64 = 64;
/// The tables whose rows are made from segments.
const MADE: [Table; 5] = [rows::CHUNK, rows::CLAIM, rows::DONE, rows::RELEASED, rows::RECORD];

/// Why a compaction does not go on; nothing is lost, and another one may be tried later.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// There is one already.
    #[error("a compaction is under way")]
    Running,
    /// The writer does not take it now.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// The disk or the tables failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a compaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// The segment that is gone.
    pub segment: u32,
    /// Its length in bytes.
    pub before: u64,
    /// The length of what has taken its place; 0: nothing.
    pub after: u64,
    /// Replicas that turned out to be damaged: they have to be fetched again.
    pub damaged: Vec<ChunkId>,
}

/// What one step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    More,
    /// That was all of it.
    Done(Compacted),
}

/// The segment to be compacted, as the writer chose it.
pub(super) struct Victim {
    /// Its number.
    pub(super) number: u32,
    /// How much of it counts.
    pub(super) end: u64,
    /// Its length.
    pub(super) len: u64,
    /// Its ends are still needed.
    pub(super) ends: bool,
    /// The header of the copy.
    pub(super) head: FileHead,
}

/// What the writer answers to [`Job::Begin`].
pub(super) enum Begun {
    /// This one was dead as a whole and is gone.
    Gone(Compacted),
    /// This one is to be copied.
    Copy(Box<Victim>),
}

/// One segment being compacted; dropped before it is done, nothing has happened. There is one at a
/// time.
pub struct Compaction {
    store: Store,
    state: State,
}

enum State {
    Copying(Box<Copying>),
    Done(Compacted),
}

struct Copying {
    victim: Victim,
    from: Arc<dyn File>,
    /// The copy, until the writer has it.
    to: Option<Segment>,
    /// Up to where the old file was copied.
    at: u64,
    /// Something in the old file cannot be read: rows may point there.
    damage: bool,
    /// Where the look for such rows stands: the table, and the key in it.
    look: (usize, Vec<u8>),
    damaged: Vec<ChunkId>,
}

impl Store {
    /// Begins to compact the sealed segment of which most is dead, at least `least_dead` percent;
    /// `None` when there is none, or none whose live part fits on the disk. A segment of which
    /// nothing lives is removed at once. Waits for the writer, like the steps of a compaction: it
    /// must not be called by a `done`.
    pub fn compact(&self, least_dead: u8) -> Result<Option<Compaction>, CompactError> {
        let shared = &self.inner.shared;
        if !shared.begin_compaction() {
            return Err(CompactError::Running);
        }
        let mut compaction = self.chosen(least_dead);
        if !matches!(compaction, Ok(Some(_))) {
            shared.end_compaction();
        }
        if let Ok(Some(Compaction { state: State::Copying(copying), .. })) = &mut compaction {
            copying.create(shared)?;
        }
        compaction
    }

    fn chosen(&self, least_dead: u8) -> Result<Option<Compaction>, CompactError> {
        let (sent, got) = sync_channel(1);
        let done = Box::new(move |begun| drop(sent.send(begun)));
        let begun = self.ask(Job::Begin { least_dead, done }, &got)?;
        let state = match begun? {
            None => return Ok(None),
            Some(Begun::Gone(compacted)) => State::Done(compacted),
            Some(Begun::Copy(victim)) => {
                let from = self.inner.shared.files.reader(Class::Segment, victim.number)?;
                let look = (0, Vec::new());
                State::Copying(Box::new(Copying {
                    victim: *victim,
                    from,
                    to: None,
                    at: 0,
                    damage: false,
                    look,
                    damaged: Vec::new(),
                }))
            }
        };
        Ok(Some(Compaction { store: self.clone(), state }))
    }

    /// Hands the writer a job and waits for its answer.
    fn ask<T>(&self, job: Job, got: &Receiver<T>) -> Result<T, SubmitError> {
        self.inner.shared.push(job)?;
        (self.inner.wake)();
        got.recv().map_err(|_| SubmitError::Closed)
    }
}

impl Compaction {
    /// The number of the segment.
    pub const fn segment(&self) -> u32 {
        match &self.state {
            State::Copying(copying) => copying.victim.number,
            State::Done(compacted) => compacted.segment,
        }
    }

    /// Copies about `budget` bytes. After an error the compaction is to be dropped.
    pub fn step(&mut self, budget: u64) -> Result<Progress, CompactError> {
        let copying = match &mut self.state {
            State::Done(compacted) => return Ok(Progress::Done(compacted.clone())),
            State::Copying(copying) => copying,
        };
        if copying.copy(&self.store, budget.clamp(1, MAX_STEP))? {
            return Ok(Progress::More);
        }
        let compacted = copying.switch(&self.store)?;
        self.state = State::Done(compacted.clone());
        Ok(Progress::Done(compacted))
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        let shared = &self.store.inner.shared;
        if let State::Copying(copying) = &self.state
            && copying.to.is_some()
            && !shared.is_closed()
        {
            // What is left of it is not complete, and removed at the next start.
            let _ = shared.files.remove(Class::Segment, copying.victim.head.number);
        }
        shared.end_compaction();
    }
}

impl Copying {
    fn create(&mut self, shared: &Shared) -> io::Result<()> {
        let head = &self.victim.head;
        shared.files.set_order(head.number, head.order);
        match Segment::create(&shared.files, &shared.check, head, self.victim.len) {
            Ok(segment) => self.to = Some(segment),
            Err(err) => {
                let _ = shared.files.remove(Class::Segment, head.number);
                return Err(err);
            }
        }
        Ok(())
    }

    /// One step; false when all is copied.
    fn copy(&mut self, store: &Store, budget: u64) -> Result<bool, CompactError> {
        let shared = &store.inner.shared;
        let Some(to) = &self.to else {
            return Err(io::Error::other("the compaction has failed").into());
        };
        let plan = Plan::new(to.number, to.at);
        let snapshot = shared.tables()?.read()?;
        let mut step = Step { copying: self, shared, snapshot, plan, reports: Vec::new() };
        let more = step.records(budget)? || step.orphans()?;
        let Step { plan, reports, .. } = step;
        let Some(to) = &mut self.to else { return Ok(false) };
        to.write(&plan.slices())?;
        to.at = plan.end();
        for damage in reports {
            store.report(damage);
        }
        Ok(more)
    }

    /// Makes the copy durable and hands it to the writer.
    fn switch(&mut self, store: &Store) -> Result<Compacted, CompactError> {
        let Some(mut segment) = self.to.take() else {
            return Err(io::Error::other("the compaction has failed").into());
        };
        if let Err(err) = segment.sync() {
            self.to = Some(segment);
            return Err(err.into());
        }
        let Victim { number, len, head, .. } = self.victim;
        let (sent, got) = sync_channel(1);
        let done = Box::new(move |after| drop(sent.send(after)));
        let job = Job::Switch { from: number, order: head.order, len, segment, done };
        let shared = &store.inner.shared;
        if let Err(refused) = shared.push(job) {
            if refused != SubmitError::Closed {
                shared.files.remove(Class::Segment, head.number)?;
            }
            return Err(refused.into());
        }
        (store.inner.wake)();
        let after = got.recv().map_err(|_| SubmitError::Closed)??;
        Ok(Compacted {
            segment: number,
            before: len,
            after,
            damaged: std::mem::take(&mut self.damaged),
        })
    }
}

/// What one step works with.
struct Step<'a> {
    copying: &'a mut Copying,
    shared: &'a Shared,
    snapshot: Snapshot,
    plan: Plan,
    reports: Vec<Damage>,
}

impl Step<'_> {
    /// Goes on through the old file; false at its end.
    fn records(&mut self, budget: u64) -> io::Result<bool> {
        let from = self.copying.from.clone();
        let Victim { number, end, .. } = self.copying.victim;
        let mut scan = Scan::new(&*from, &self.shared.check, number, self.copying.at, end, end);
        let mut worked = 0;
        while worked < budget {
            let Some(item) = scan.next()? else { return Ok(false) };
            match item {
                Item::Damaged { offset, len } => {
                    self.copying.damage = true;
                    self.copying.at = offset + len;
                }
                Item::Record { offset, found } => {
                    self.copying.at = offset + (found.head + found.payload) as u64;
                    let before = self.plan.end();
                    let place = Place::of(number, offset, found.head, found.payload);
                    self.carry(&found, place)?;
                    worked += self.plan.end() - before;
                }
            }
            worked += SKIPPED;
        }
        Ok(true)
    }

    fn push(&mut self, entry: &Entry, payload: Option<Bytes>) {
        self.plan.push(entry, payload, &self.shared.check);
    }

    /// Copies what is needed of a record.
    fn carry(&mut self, found: &Found, place: Place) -> io::Result<()> {
        let here = place.maker();
        match &found.entry {
            Entry::Replica { cid, claim, .. } => {
                let claim = match claim {
                    Some(claim) if self.is_claim(*cid, claim.id, here)? => Some(*claim),
                    _ => None,
                };
                self.replica(*cid, claim, place)?;
            }
            Entry::Lost { cid, .. } => self.replica(*cid, None, place)?,
            Entry::Claims { claim, cids } => {
                let mut live = Vec::with_capacity(cids.len());
                for &cid in cids {
                    if self.is_claim(cid, claim.id, here)? {
                        live.push(cid);
                    }
                }
                if !live.is_empty() {
                    self.push(&Entry::Claims { claim: *claim, cids: live }, None);
                }
            }
            Entry::Record { .. } if cfg!(p2pfs_planted = "compaction-drops-live") => {}
            Entry::Record { id } => self.record(*id, place)?,
            Entry::Committed { claim } if self.is_said(rows::DONE, *claim, here)? => {
                self.push(&found.entry, None);
            }
            Entry::Released { claim } if self.is_said(rows::RELEASED, *claim, here)? => {
                self.push(&found.entry, None);
            }
            Entry::Drop { .. } | Entry::ReleasedRows { .. } | Entry::Lapsed { .. }
                if self.copying.victim.ends =>
            {
                self.push(&found.entry, None);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_claim(&self, cid: ChunkId, id: ClaimId, here: Maker) -> io::Result<bool> {
        let row = rows::claim(&self.snapshot, cid, id)?;
        Ok(row.is_some_and(|row| row.maker == here))
    }

    fn is_said(&self, table: Table, id: ClaimId, here: Maker) -> io::Result<bool> {
        Ok(rows::said_by(&self.snapshot, table, id)? == Some(here))
    }

    fn replica(
        &mut self,
        cid: ChunkId,
        claim: Option<super::Claim>,
        place: Place,
    ) -> io::Result<()> {
        let row = rows::chunk(&self.snapshot, cid)?;
        let live = row.filter(|row| row.place.maker() == place.maker());
        let good = match &live {
            Some(row) if !row.damaged => self.payload(place, &cid.0),
            _ => None,
        };
        match (live, good) {
            (Some(row), Some(sealed)) => {
                let entry = Entry::Replica { cid, claim, hint: row.hint };
                self.push(&entry, Some(sealed));
                return Ok(());
            }
            (Some(row), None) => self.lost(cid, &row),
            (None, _) => {}
        }
        if let Some(claim) = claim {
            self.push(&Entry::Claims { claim, cids: vec![cid] }, None);
        }
        Ok(())
    }

    /// A replica whose bytes are not what they should be.
    fn lost(&mut self, cid: ChunkId, row: &rows::ChunkRow) {
        let len = row.place.payload;
        self.push(&Entry::Lost { cid, len, hint: row.hint }, None);
        if !row.damaged {
            self.copying.damaged.push(cid);
            self.reports.push(Damage::Replica(cid, row.place));
        }
    }

    fn record(&mut self, id: RecordId, place: Place) -> io::Result<()> {
        let Some((at, false)) = rows::record(&self.snapshot, id)? else { return Ok(()) };
        if at != place {
            return Ok(());
        }
        match self.payload(place, &id.0) {
            Some(bytes) => self.push(&Entry::Record { id }, Some(bytes)),
            None => self.reports.push(Damage::Record(id, place)),
        }
        Ok(())
    }

    /// The payload at this place, if it hashes to its id.
    fn payload(&self, place: Place, hash: &[u8; 32]) -> Option<Bytes> {
        let mut bytes = vec![0; place.payload as usize];
        let at = u64::from(place.offset) + u64::from(place.head);
        read_full(&*self.copying.from, &mut bytes, at).ok()?;
        (blake3::hash(&bytes) == *hash).then(|| Bytes::from(bytes))
    }

    /// Looks for rows that point at damaged bytes; false when there are no more to look through.
    fn orphans(&mut self) -> io::Result<bool> {
        let (table, from) = &self.copying.look;
        let Some(&table) = MADE.get(*table).filter(|_| self.copying.damage) else {
            return Ok(false);
        };
        let number = self.copying.victim.number;
        let (found, next) = rows::made_from(&self.snapshot, table, number, from, ROWS)?;
        for (key, row, offset) in found {
            if !self.is_readable(offset)? {
                self.orphan(table, &key, &row)?;
            }
        }
        self.copying.look = match next {
            Some(next) => (self.copying.look.0, next),
            None => (self.copying.look.0 + 1, Vec::new()),
        };
        Ok(true)
    }

    fn is_readable(&self, offset: u32) -> io::Result<bool> {
        let Victim { number, end, .. } = self.copying.victim;
        let (file, check) = (&*self.copying.from, &self.shared.check);
        let offset = u64::from(offset);
        let item = Scan::new(file, check, number, offset, end, end).next()?;
        Ok(matches!(item, Some(Item::Record { .. })))
    }

    /// Says anew what a damaged entry said.
    fn orphan(&mut self, table: Table, key: &[u8], row: &[u8]) -> io::Result<()> {
        let bad = || rows::bad_row(table);
        let id = || key.try_into().map(ClaimId).map_err(|_| bad());
        if table == rows::CHUNK {
            let cid = ChunkId(key.try_into().map_err(|_| bad())?);
            self.lost(cid, &rows::ChunkRow::decode(row)?);
        } else if table == rows::CLAIM {
            let (cid, id) = key.split_first_chunk().ok_or_else(bad)?;
            let claim = rows::ClaimRow::decode(id, row)?.claim;
            self.push(&Entry::Claims { claim, cids: vec![ChunkId(*cid)] }, None);
        } else if table == rows::DONE {
            self.push(&Entry::Committed { claim: id()? }, None);
        } else if table == rows::RELEASED {
            self.push(&Entry::Released { claim: id()? }, None);
        } else {
            let id = RecordId(key.try_into().map_err(|_| bad())?);
            if let Some((place, false)) = rows::record(&self.snapshot, id)? {
                self.reports.push(Damage::Record(id, place));
            }
        }
        Ok(())
    }
}
