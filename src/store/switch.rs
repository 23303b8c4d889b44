//! The writer's part of a compaction: choosing a segment, and, when its copy is complete, moving
//! the tables over to it and removing it. The tables move in pages between other work.
//!
//! Invariant: a segment is removed only after tables that do not need it are durable, and nothing
//! else is compacted before its removal is durable too: the ends of what it held may go next.

use super::batch::Plan;
use super::compact::{Begun, Compacted, Victim};
use super::files::Named;
use super::format::{Class, Entry, FILE_HEAD, FileHead};
use super::ledger;
use super::moves::Moving;
use super::segment::Segment;
use super::writer::{BALLAST, Writer};
use std::io;

/// An active segment is sealed early when a part of this size of a full one could be won …
const WORTH: u64 = 256;
/// … and so many percent of it are dead.
const MOSTLY: u64 = 50;
/// What a copy may need beyond what is live.
const SLACK: u64 = 64 << 10;

/// Whom to tell the length of the copy.
pub(super) type Switched = Box<dyn FnOnce(io::Result<u64>) + Send>;

/// A complete copy whose turn has come.
pub(super) struct Switching {
    /// What moves.
    pub(super) moving: Moving,
    /// Length of the old file.
    len: u64,
    done: Switched,
}

/// A segment that may be compacted.
struct Candidate {
    file: Named,
    head: FileHead,
    end: u64,
    /// What it holds that is needed.
    kept: u64,
    ends: bool,
    percent: u64,
}

impl Writer {
    /// Chooses a segment; one of which nothing is needed is removed at once.
    pub(super) fn begin(&mut self, least_dead: u8) -> io::Result<Option<Begun>> {
        if let Some(reason) = self.is_read_only() {
            return Err(io::Error::other(format!("the store is read-only: {reason}")));
        }
        if self.removal_failed {
            return Err(io::Error::other("a removal failed; the next start makes sure of it"));
        }
        self.seal_early(least_dead)?;
        let Some(chosen) = self.choose(u64::from(least_dead))? else { return Ok(None) };
        let Candidate { file: Named { number, len, .. }, head, .. } = chosen;
        if chosen.kept == 0 {
            self.shared.files.cut(head.previous, head.previous_end)?;
            self.remove_segment(number, len)?;
            let gone = Compacted { segment: number, before: len, after: 0, damaged: Vec::new() };
            return Ok(Some(Begun::Gone(gone)));
        }
        // After a crash the tables must not have to read anything that the copy lacks.
        self.change_tables(true, |_| Ok(()))?;
        let head = FileHead { number: self.next, ..head };
        self.next += 1;
        let Candidate { end, ends, .. } = chosen;
        Ok(Some(Begun::Copy(Box::new(Victim { number, end, len, ends, head }))))
    }

    /// Begins a new segment when most of the present one is dead.
    fn seal_early(&mut self, least_dead: u8) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let account = ledger::account(&self.shared.tables()?.read()?, segment.number)?;
        let account = account.unwrap_or_default();
        let (all, dead) = (account.total + account.ends, account.dead() + account.ends);
        let mostly = MOSTLY.max(u64::from(least_dead));
        if dead * 100 < all * mostly || dead * WORTH < self.options.segment_len {
            return Ok(());
        }
        if let Err(err) = segment.take_back() {
            self.abandon();
            return Err(err);
        }
        self.end.offset = segment.at;
        self.segment = None;
        self.ready_segment(0).map_err(|_| io::Error::other("no new segment could be made"))?;
        if let Some(segment) = &mut self.segment {
            // Space is to come back: the next write reserves what it needs.
            segment.trim()?;
        }
        self.change_tables(false, |_| Ok(()))
    }

    /// The first segment of which nothing is needed, or else the one with the highest dead share
    /// among those whose rest fits on the disk.
    fn choose(&mut self, least: u64) -> io::Result<Option<Candidate>> {
        let mut candidates = Vec::new();
        {
            let tables = self.shared.tables()?.read()?;
            // Something in a segment before this one is dead, and may need its end.
            let mut unclean = false;
            for file in self.shared.files.list(Class::Segment)? {
                if file.order >= self.end.number {
                    break;
                }
                let account = ledger::account(&tables, file.number)?.unwrap_or_default();
                let ends = unclean && account.ends > 0;
                let kept = account.live + if ends { account.ends } else { 0 };
                let all = account.total + account.ends;
                let dead = all.saturating_sub(kept);
                let percent = (dead * 100).checked_div(all).unwrap_or(100);
                let end = account.end;
                unclean |= account.dead() > 0;
                if kept > 0 && (dead == 0 || percent < least) {
                    continue;
                }
                let Some(head) = self.head(file)? else { continue };
                let candidate = Candidate { file, head, end, kept, ends, percent };
                if kept == 0 {
                    return Ok(Some(candidate));
                }
                candidates.push(candidate);
            }
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.percent));
        let Some(best) = candidates.first() else { return Ok(None) };
        let room = self.make_room(best.kept + SLACK);
        Ok(candidates.into_iter().find(|candidate| candidate.kept + SLACK <= room))
    }

    /// The header of a segment. One that is damaged stays as it is: what it said of the segment
    /// before could not be carried over.
    fn head(&self, file: Named) -> io::Result<Option<FileHead>> {
        let bytes = self.shared.files.reader(Class::Segment, file.number)?;
        let mut head = [0; FILE_HEAD];
        let read = bytes.read_at(&mut head, 0)?;
        let (node, check) = (self.options.node, &self.shared.check);
        let place = (file.number, file.order);
        Ok(FileHead::decode(&head[..read], Class::Segment, place, node, check).ok())
    }

    /// Tries to have so many bytes free, down to the ballast; says how many are.
    fn make_room(&mut self, wanted: u64) -> u64 {
        while self.available() < wanted {
            let evicted = self.cache.evict(&self.shared, &*self.follow);
            if !matches!(evicted, Ok(true)) {
                break;
            }
        }
        if self.available() < wanted.min(BALLAST) {
            self.drop_ballast();
        }
        self.available()
    }

    /// Completes the copy; from now on it counts, whatever happens.
    pub(super) fn start_switch(
        &mut self,
        (from, order, len): (u32, u32, u64),
        mut segment: Segment,
        done: Switched,
    ) {
        let shared = self.shared.clone();
        let mut plan = Plan::new(segment.number, segment.at);
        plan.push(&Entry::Complete { order }, None, &shared.check);
        let mut complete = || {
            segment.write(&plan.slices())?;
            segment.at = plan.end();
            segment.take_back()
        };
        if let Err(err) = complete() {
            // Perhaps it is complete on the disk: then the next start goes on with it.
            self.removal_failed |= shared.files.remove(Class::Segment, segment.number).is_err();
            self.removal_failed |=
                shared.files.fs.sync_dir(&shared.files.folder(Class::Segment)).is_err();
            return done(Err(err));
        }
        shared.set_usage(|usage| usage.stored_bytes += segment.at);
        let moving = Moving { from, to: segment.number, at: 0, end: segment.at };
        self.switching = Some(Switching { moving, len, done });
    }

    /// Moves a page of rows; true when there was a switch to work on.
    pub(super) fn switch_step(&mut self) -> bool {
        let Some(mut switching) = self.switching.take() else { return false };
        let result = match self.move_page(&mut switching.moving) {
            Ok(true) => {
                self.switching = Some(switching);
                return true;
            }
            Ok(false) => self.remove_segment(switching.moving.from, switching.len),
            Err(err) => Err(err),
        };
        // Rows may point at either file now: nothing more is compacted before the next start.
        self.removal_failed |= result.is_err();
        (switching.done)(result.map(|()| switching.moving.end));
        true
    }

    fn move_page(&mut self, moving: &mut Moving) -> io::Result<bool> {
        let shared = self.shared.clone();
        let file = shared.files.reader(Class::Segment, moving.to)?;
        let page = moving.page(&*file, &shared.check)?;
        if page.is_empty() {
            return Ok(false);
        }
        let moved = self.change_tables(false, |index| index.move_page(moving, &page));
        match moved {
            // Tables that are made anew follow the complete copy.
            Err(err) if self.rebuild(&err.to_string()) => moving.at = moving.end,
            other => other?,
        }
        Ok(true)
    }

    /// Removes a segment that no row is made from.
    fn remove_segment(&mut self, number: u32, len: u64) -> io::Result<()> {
        let forget =
            |writer: &mut Self| writer.change_tables(true, |index| index.forget_segment(number));
        if let Err(err) = forget(self)
            && (!self.rebuild(&err.to_string()) || forget(self).is_err())
        {
            return Err(err);
        }
        let files = &self.shared.files;
        let gone = files
            .remove(Class::Segment, number)
            .and_then(|()| files.fs.sync_dir(&files.folder(Class::Segment)));
        // Until it is sure, the ends of what the segment held must stay.
        self.removal_failed |= gone.is_err();
        gone?;
        self.shared.set_usage(|usage| usage.stored_bytes = usage.stored_bytes.saturating_sub(len));
        Ok(())
    }
}
