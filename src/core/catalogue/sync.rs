//! Reconciliation: makes two members' record sets equal, whatever happened to them. Owns both sides
//! as state without I/O: [`answer`] is a function of the tables, [`Exchange`] is the asking side.
//! Messages are `wire::sync`; who meets whom and when is decided by the shell.
//!
//! The asker compares summaries, then walks down the ranges whose sums differ, level by level,
//! until either side has few records there; these are listed, and what either side lacks is fetched
//! or pushed before the next list is asked for. So memory is bounded by one list, and an exchange
//! that breaks off has already moved what it found: the next one simply starts again.
//!
//! Every range is visited once. A record that one side refuses therefore ends no exchange and
//! starts no loop; it is only offered again at the next one.

use super::record::id_of;
use super::sums::{children, clocks_of, records, summary};
use super::table::View;
use crate::id::RecordId;
use crate::sys::TableRead;
use crate::wire::sync::{
    Answer, Ask, BATCH_MAX, FETCH_MAX, ITEMS_MAX, LEAF_LEVEL, Position, RANGES_MAX, Range,
    RangeSum, SUMS_MAX, Span,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

/// Ranges with at most this many records on either side are listed instead of cut further: the
/// list is no longer than a few levels of sums.
const LIST_MAX: u64 = 64;
/// Most own records that are compared with one list, and so most that wait to be pushed.
const OWN_MAX: usize = 4096;

/// The answer to a question. A push is answered once its records were applied, by the caller.
pub fn answer(view: &dyn View, ask: &Ask) -> io::Result<Answer> {
    match ask {
        Ask::Set(_) => summary(view).map(Answer::Set),
        Ask::Sums(ranges) => {
            let mut sums = Vec::new();
            for range in ranges.iter().filter(|range| range.level < LEAF_LEVEL) {
                sums.extend(children(view, *range)?);
            }
            sums.truncate(SUMS_MAX);
            Ok(Answer::Sums(sums))
        }
        Ask::Items(spans) => {
            let mut items = Vec::new();
            for (from, to) in spans {
                items.extend(records(view, from, to, ITEMS_MAX + 1 - items.len())?);
            }
            let more = items.len() > ITEMS_MAX;
            items.truncate(ITEMS_MAX);
            Ok(Answer::Items { items, more })
        }
        Ask::Fetch(ids) => batch(view, ids.iter()).map(|(records, _)| Answer::Fetched(records)),
        Ask::Push(_) => Ok(Answer::Pushed),
    }
}

/// The first records that fit one message, and how many ids they cover.
fn batch<'a>(
    view: &dyn View,
    ids: impl Iterator<Item = &'a RecordId>,
) -> io::Result<(Vec<Vec<u8>>, usize)> {
    let (mut records, mut covered, mut room) = (Vec::new(), 0, BATCH_MAX);
    for id in ids {
        if let Some(record) = view.record(id)? {
            let size = record.len() + 4;
            if size > room {
                break;
            }
            room -= size;
            records.push(record);
        }
        covered += 1;
    }
    Ok((records, covered))
}

/// Why an exchange cannot go on. Drop it; what it moved so far stays.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The peer answered something that was not asked.
    #[error("the answer does not fit the question")]
    Unasked,
    /// The own tables could not be read.
    #[error(transparent)]
    Tables(#[from] io::Error),
}

/// What was asked last.
#[derive(Debug)]
enum Asked {
    Nothing,
    Set,
    Sums(Vec<Range>),
    Items(Vec<Span>),
    Fetch(Vec<RecordId>),
    Push,
}

/// The asking side of one reconciliation.
#[derive(Debug)]
pub struct Exchange {
    begun: bool,
    asked: Asked,
    /// Ranges that differ, still to be cut; the last is next.
    ranges: Vec<Range>,
    /// Spans that differ, still to be listed, ascending.
    spans: VecDeque<Span>,
    fetch: VecDeque<RecordId>,
    push: VecDeque<RecordId>,
    fetched: u64,
    pushed: u64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// Begins.
    pub const fn new() -> Self {
        Self {
            begun: false,
            asked: Asked::Nothing,
            ranges: Vec::new(),
            spans: VecDeque::new(),
            fetch: VecDeque::new(),
            push: VecDeque::new(),
            fetched: 0,
            pushed: 0,
        }
    }

    /// How many records came and went so far.
    pub const fn moved(&self) -> (u64, u64) {
        (self.fetched, self.pushed)
    }

    /// The next question; none: both sides had the same when each range was visited. Call it again
    /// only after the answer was taken.
    pub fn next(&mut self, view: &dyn View) -> io::Result<Option<Ask>> {
        if !self.begun {
            self.begun = true;
            self.asked = Asked::Set;
            return summary(view).map(|mine| Some(Ask::Set(mine)));
        }
        if !self.fetch.is_empty() {
            let ids: Vec<_> = self.fetch.iter().take(FETCH_MAX).copied().collect();
            self.asked = Asked::Fetch(ids.clone());
            return Ok(Some(Ask::Fetch(ids)));
        }
        while !self.push.is_empty() {
            let (records, covered) = batch(view, self.push.iter())?;
            self.push.drain(..covered);
            if !records.is_empty() {
                self.pushed += records.len() as u64;
                self.asked = Asked::Push;
                return Ok(Some(Ask::Push(records)));
            }
        }
        if !self.spans.is_empty() {
            let count = self.spans.len().min(RANGES_MAX);
            let spans: Vec<Span> = self.spans.drain(..count).collect();
            self.asked = Asked::Items(spans.clone());
            return Ok(Some(Ask::Items(spans)));
        }
        if !self.ranges.is_empty() {
            let first = self.ranges.len().saturating_sub(RANGES_MAX);
            let ranges = self.ranges.split_off(first);
            self.asked = Asked::Sums(ranges.clone());
            return Ok(Some(Ask::Sums(ranges)));
        }
        self.asked = Asked::Nothing;
        Ok(None)
    }

    /// Takes the answer; returns the records to apply, each one that was asked for.
    pub fn take(&mut self, view: &dyn View, answer: Answer) -> Result<Vec<Vec<u8>>, SyncError> {
        match (std::mem::replace(&mut self.asked, Asked::Nothing), answer) {
            (Asked::Set, Answer::Set(theirs)) => {
                let mine = summary(view)?;
                if mine != theirs {
                    self.differ(Range::ALL, mine.count, theirs.count);
                }
            }
            (Asked::Sums(ranges), Answer::Sums(sums)) => self.take_sums(view, &ranges, &sums)?,
            (Asked::Items(spans), Answer::Items { items, more }) => {
                self.take_items(view, &spans, &items, more)?;
            }
            (Asked::Fetch(ids), Answer::Fetched(records)) => {
                return self.take_records(&ids, records);
            }
            (Asked::Push, Answer::Pushed) => {}
            _ => return Err(SyncError::Unasked),
        }
        Ok(Vec::new())
    }

    /// Notes a range in which the sides differ.
    fn differ(&mut self, range: Range, mine: u64, theirs: u64) {
        if range.level == LEAF_LEVEL || mine.min(theirs) <= LIST_MAX {
            let (first, last) = clocks_of(range);
            let span = ((first, RecordId([0; 32])), (last, RecordId([u8::MAX; 32])));
            self.spans.push_back(span);
        } else {
            self.ranges.push(range);
        }
    }

    fn take_sums(
        &mut self,
        view: &dyn View,
        ranges: &[Range],
        sums: &[RangeSum],
    ) -> Result<(), SyncError> {
        let parents: BTreeSet<Range> = ranges.iter().copied().collect();
        let theirs: BTreeMap<Range, _> = sums.iter().map(|sum| (sum.range, sum.summary)).collect();
        if !theirs.keys().all(|range| parent_of(*range).is_some_and(|up| parents.contains(&up))) {
            return Err(SyncError::Unasked);
        }
        let mut mine = BTreeMap::new();
        for range in ranges {
            mine.extend(children(view, *range)?.into_iter().map(|sum| (sum.range, sum.summary)));
        }
        let mut differing: BTreeSet<Range> = mine.keys().chain(theirs.keys()).copied().collect();
        differing.retain(|range| mine.get(range) != theirs.get(range));
        if cfg!(p2pfs_planted = "reconcile-skips-range") {
            differing.pop_first();
        }
        for range in differing {
            let count = |side: Option<&crate::wire::sync::Summary>| side.map_or(0, |s| s.count);
            self.differ(range, count(mine.get(&range)), count(theirs.get(&range)));
        }
        // Ranges of one question are of any level, so their children may not ascend as spans must.
        self.spans.make_contiguous().sort_unstable();
        Ok(())
    }

    fn take_items(
        &mut self,
        view: &dyn View,
        spans: &[Span],
        items: &[Position],
        more: bool,
    ) -> Result<(), SyncError> {
        let inside = |item: &Position| spans.iter().any(|(from, to)| from <= item && item <= to);
        if !items.iter().all(inside) || (more && items.is_empty()) {
            return Err(SyncError::Unasked);
        }
        let mut bound = items.last().copied().filter(|_| more);
        let mut mine = BTreeSet::new();
        for (from, to) in spans {
            let to = bound.map_or(*to, |bound| bound.min(*to));
            let room = OWN_MAX - mine.len();
            let own = records(view, from, &to, room)?;
            if own.len() == room {
                bound = own.last().copied().or(bound);
                mine.extend(own);
                break;
            }
            mine.extend(own);
        }
        let compared = |item: &&Position| bound.is_none_or(|bound| **item <= bound);
        let theirs: BTreeSet<Position> = items.iter().filter(compared).copied().collect();
        self.fetch.extend(theirs.difference(&mine).map(|(_, id)| *id));
        self.push.extend(mine.difference(&theirs).map(|(_, id)| *id));
        if let Some(bound) = bound {
            let rest = spans.iter().rev().filter(|(_, to)| *to > bound);
            for (from, to) in rest {
                self.spans.push_front((next_after(bound).max(*from), *to));
            }
        }
        Ok(())
    }

    fn take_records(
        &mut self,
        asked: &[RecordId],
        records: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, SyncError> {
        let mut at = 0;
        for record in &records {
            let id = id_of(record);
            let found = asked[at..].iter().position(|one| *one == id);
            at += found.ok_or(SyncError::Unasked)? + 1;
        }
        // Those before the last one that came are not there any more; so are all, if none came.
        let done = if records.is_empty() { asked.len() } else { at };
        self.fetch.drain(..done);
        self.fetched += records.len() as u64;
        Ok(records)
    }
}

fn parent_of(range: Range) -> Option<Range> {
    match range.level {
        0 => None,
        1 => Some(Range::ALL),
        level => Some(Range { level: level - 1, prefix: range.prefix >> 4 }),
    }
}

/// The position behind this one.
fn next_after((clock, RecordId(mut id)): Position) -> Position {
    for byte in id.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return (clock, RecordId(id));
        }
    }
    (clock.saturating_add(1), RecordId(id))
}

/// Whether the other side's summary is this side's: nothing to do, in nearly all cases.
pub fn is_equal(
    tables: &(impl TableRead + ?Sized),
    theirs: &crate::wire::sync::Summary,
) -> io::Result<bool> {
    Ok(summary(tables)? == *theirs)
}
