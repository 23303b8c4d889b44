//! Opening: from what lies on the disk to tables that agree with the segments. Tells a torn tail
//! (cut off: it was never answered) from bit rot (kept, reported, passed over) by the rules in
//! `format`. Invariant: a table file is only ever a shortcut; without it the same tables result.

use super::files::{Files, Named};
use super::format::{BadHead, Checker, Class, Entry, FILE_HEAD, FileHead, Found, RECORD_HEAD};
use super::format::{VERSION, get_record};
use super::index::Index;
use super::ledger;
use super::moves::Moving;
use super::read::Reader;
use super::rows::{self, Counts, Position};
use super::scan::{Item, Scan};
use super::tables::Tables;
use super::{Follow, OpenError, Opened, Rot};
use crate::id::NodeId;
use crate::sys::{File, OpenMode, TableWrite};
use std::io;
use std::sync::Arc;

/// Entries that one transaction takes while replaying: bounds memory and what a crash repeats.
const MAX_PENDING: usize = 4096;
/// Length of the last record of a compacted segment.
const COMPLETE: usize = RECORD_HEAD + 4;
/// Bytes of heads and catalogue records that it takes.
const MAX_PENDING_BYTES: usize = 4 << 20;

/// What recovery needs of the store.
pub(super) struct Recovery<'a> {
    /// The data directory.
    pub(super) files: &'a Files,
    /// Whose it is.
    pub(super) node: NodeId,
    /// Tests what is read.
    pub(super) check: &'a Checker,
    /// Who follows catalogue records.
    pub(super) follow: &'a dyn Follow,
}

/// A data directory whose tables agree with its segments.
pub(super) struct Recovered {
    /// The tables.
    pub(super) tables: Tables,
    /// Their counts.
    pub(super) counts: Counts,
    /// What was found.
    pub(super) opened: Opened,
    /// The newest segment and how much of it counts; number 0 when there is none.
    pub(super) end: Position,
    /// Whether the newest segment may be written on.
    pub(super) writable: bool,
}

/// The segments that count.
struct Log {
    /// By order, one of each.
    files: Vec<Named>,
    /// Old files whose compacted copy, the second one, counts instead.
    replaced: Vec<(Named, Named)>,
}

/// One segment as it is to be read.
struct Source {
    number: u32,
    order: u32,
    file: Arc<dyn File>,
    from: u64,
    /// How much of it counts.
    end: u64,
    /// Damage below this is rot.
    durable: u64,
    last: bool,
}

impl Recovery<'_> {
    /// Opens the tables, or makes new ones, and reads into them what the segments have more.
    pub(super) fn run(&self) -> Result<Recovered, OpenError> {
        self.remove_unborn()?;
        let (tables, reason) = match self.shortcut() {
            Ok(tables) => (Some(tables), None),
            Err(reason) => (None, Some(reason)),
        };
        if let Some((tables, position, counts)) = tables {
            return match self.replay(tables, position, counts, None) {
                Err(OpenError::Io(err)) => self.anew(err.to_string(), None),
                other => other,
            };
        }
        self.anew(reason.unwrap_or_default(), None)
    }

    /// Builds the tables from the segments alone. `live` is where a running writer stands: what
    /// lies before it is durable, what lies behind it does not count.
    pub(super) fn anew(
        &self,
        reason: String,
        live: Option<Position>,
    ) -> Result<Recovered, OpenError> {
        let tables = self.fresh()?;
        for file in self.files.list(Class::Cache)? {
            self.files.remove(Class::Cache, file.number)?;
        }
        let mut recovered = self.replay(tables, Position::default(), Counts::default(), live)?;
        // A new directory has nothing to rebuild.
        if recovered.end.number > 0 {
            recovered.opened.rebuilt = Some(reason);
        }
        Ok(recovered)
    }

    /// An empty table file in the place of what is there.
    fn fresh(&self) -> io::Result<Tables> {
        let path = self.files.table_path();
        match self.files.fs.remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let tables = Tables::open(&*self.files.fs, &path, self.check)?;
        if let Some(folder) = path.parent() {
            self.files.fs.sync_dir(folder)?;
        }
        Ok(tables)
    }

    /// The table file as it is, if it can be used; else why not.
    fn shortcut(&self) -> Result<(Tables, Position, Counts), String> {
        let (path, opening) = (self.files.table_path(), self.files.opening_path());
        let fs = &*self.files.fs;
        let say = |err: io::Error| err.to_string();
        match fs.open(&path, OpenMode::Write) {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err("the table file is missing".into());
            }
            Err(err) => return Err(say(err)),
        }
        let died = fs.open(&opening, OpenMode::Read).is_ok();
        if !died {
            // Not synced: it tells of a process that died here, not of a machine.
            fs.open(&opening, OpenMode::Create).map_err(say)?;
        }
        let opened = if died {
            Err("the last start ended while it opened the table file".to_owned())
        } else {
            self.open_tables().map_err(say)
        };
        fs.remove_file(&opening).map_err(say)?;
        let (tables, state) = opened?;
        let Some((position, counts)) = state else {
            return Err("the table file is empty or of another version".into());
        };
        if self.is_ahead(position).map_err(say)? {
            return Err("the tables are ahead of the segments".into());
        }
        Ok((tables, position, counts))
    }

    fn open_tables(&self) -> io::Result<(Tables, Option<(Position, Counts)>)> {
        let tables = Tables::open(&*self.files.fs, &self.files.table_path(), self.check)?;
        let state = rows::state(&tables.read()?, self.follow.version())?;
        Ok((tables, state))
    }

    fn is_ahead(&self, position: Position) -> io::Result<bool> {
        let segments = self.files.list(Class::Segment)?;
        let file = segments.iter().find(|file| file.order == position.number);
        Ok(match file {
            Some(file) => file.len < position.offset,
            None => position.number != 0,
        })
    }

    fn head(
        &self,
        number: u32,
        order: u32,
        file: &dyn File,
    ) -> io::Result<Result<FileHead, BadHead>> {
        let mut bytes = [0; FILE_HEAD];
        let len = file.read_at(&mut bytes, 0)?;
        Ok(FileHead::decode(&bytes[..len], Class::Segment, (number, order), self.node, self.check))
    }

    /// Which files count. A compacted one that is not complete is removed at a start; while the
    /// store runs it may be one that is being written.
    fn log(&self, starting: bool) -> io::Result<Log> {
        let (mut files, mut replaced): (Vec<Named>, Vec<(Named, Named)>) = Default::default();
        for file in self.files.list(Class::Segment)? {
            match files.last() {
                Some(&old) if old.order == file.order => {
                    if self.is_complete(file)? {
                        files.pop();
                        files.push(file);
                        replaced.push((old, file));
                    } else if starting {
                        self.files.remove(Class::Segment, file.number)?;
                    }
                }
                _ => files.push(file),
            }
        }
        Ok(Log { files, replaced })
    }

    fn is_complete(&self, file: Named) -> io::Result<bool> {
        let bytes = self.files.reader(Class::Segment, file.number)?;
        let at = file.len.saturating_sub(COMPLETE as u64);
        let mut record = [0; COMPLETE];
        let read = bytes.read_at(&mut record, at)?;
        let found = get_record(&record[..read], file.number, at, self.check);
        Ok(found.is_some_and(|found| found.entry == Entry::Complete { order: file.order }))
    }

    /// Brings a compaction to its end that a crash interrupted: its copy is complete.
    fn replace(&self, run: &mut Run<'_>, old: Named, new: Named) -> io::Result<()> {
        run.change(|index| index.forget_segment(new.number))?;
        let file = self.files.reader(Class::Segment, new.number)?;
        let (from, to) = (old.number, new.number);
        let mut moving = Moving { from, to, at: 0, end: new.len };
        loop {
            let page = moving.page(&*file, self.check)?;
            if page.is_empty() {
                return run.change(|index| index.forget_segment(old.number));
            }
            run.change(|index| index.move_page(&moving, &page))?;
        }
    }

    /// Removes files that the tables know nothing of although they know all that came later: a
    /// removal that a crash undid, or a segment that never held anything.
    fn remove_leftovers(&self, run: &Run<'_>, log: &Log) -> io::Result<()> {
        let tables = run.tables.read()?;
        for file in log.files.iter().filter(|file| file.order < run.position.number) {
            if ledger::account(&tables, file.number)?.is_none() {
                let bytes = self.files.reader(Class::Segment, file.number)?;
                if let Ok(head) = self.head(file.number, file.order, &*bytes)? {
                    self.files.cut(head.previous, head.previous_end)?;
                    self.files.remove(Class::Segment, file.number)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a newest segment whose header never became durable: it has no records.
    fn remove_unborn(&self) -> Result<(), OpenError> {
        let segments = self.files.list(Class::Segment)?;
        let Some(&Named { order, number, len }) = segments.last() else { return Ok(()) };
        let file = self.files.reader(Class::Segment, number)?;
        match self.head(number, order, &*file)? {
            Ok(_) => return Ok(()),
            Err(BadHead::Newer(found)) => return Err(OpenError::Newer { found, known: VERSION }),
            Err(BadHead::Damaged) => {}
        }
        let mut scan = Scan::new(&*file, self.check, number, 0, len, len);
        while let Some(item) = scan.next()? {
            if matches!(item, Item::Record { .. }) {
                return Ok(());
            }
        }
        self.files.remove(Class::Segment, number)?;
        self.files.fs.sync_dir(&self.files.folder(Class::Segment))?;
        Ok(())
    }

    fn replay(
        &self,
        tables: Tables,
        from: Position,
        counts: Counts,
        live: Option<Position>,
    ) -> Result<Recovered, OpenError> {
        let mut run = Run {
            recovery: self,
            tables,
            counts,
            position: from,
            pending: Vec::new(),
            pending_bytes: 0,
            rot: Vec::new(),
            opened: Opened::default(),
            writable: true,
        };
        let log = self.log(live.is_none())?;
        let wanted: Vec<Named> = log
            .files
            .iter()
            .copied()
            .filter(|file| file.order >= from.number)
            .filter(|file| live.is_none_or(|live| file.order <= live.number))
            .collect();
        for (at, file) in wanted.iter().enumerate() {
            let source = self.source(*file, wanted.get(at + 1), from, live)?;
            run.writable = !file.is_compacted();
            run.segment(&source)?;
        }
        run.commit()?;
        if live.is_none() {
            log.replaced.iter().try_for_each(|&(old, new)| self.replace(&mut run, old, new))?;
        }
        run.settle()?;
        if run.opened.replayed > 0 || from == Position::default() || !log.replaced.is_empty() {
            run.tables.checkpoint()?;
        }
        if live.is_none() {
            for (old, _) in &log.replaced {
                self.files.remove(Class::Segment, old.number)?;
            }
            self.remove_leftovers(&run, &log)?;
            self.files.fs.sync_dir(&self.files.folder(Class::Segment))?;
        }
        let known = rows::rot(&run.tables.read()?)?;
        run.opened.rot =
            known.into_iter().map(|(segment, offset, len)| Rot { segment, offset, len }).collect();
        let Run { tables, counts, opened, position, writable, .. } = run;
        Ok(Recovered { tables, counts, opened, end: position, writable })
    }

    fn source(
        &self,
        named: Named,
        next: Option<&Named>,
        from: Position,
        live: Option<Position>,
    ) -> Result<Source, OpenError> {
        let Named { order, number, len } = named;
        let file = self.files.reader(Class::Segment, number)?;
        if let Err(BadHead::Newer(found)) = self.head(number, order, &*file)? {
            return Err(OpenError::Newer { found, known: VERSION });
        }
        let start = if order == from.number { from.offset } else { 0 };
        let start = start.max(FILE_HEAD as u64);
        let mut source = Source {
            number,
            order,
            file,
            from: start,
            end: len,
            durable: len,
            last: next.is_none() && live.is_none() && !named.is_compacted(),
        };
        if named.is_compacted() {
            return Ok(source);
        }
        if let Some(next) = next {
            let after = self.files.reader(Class::Segment, next.number)?;
            let head = self.head(next.number, next.order, &*after)?;
            if let Ok(FileHead { previous, previous_end: end, .. }) = head
                && previous == number
            {
                (source.end, source.durable) = (end, end);
            }
        } else if let Some(live) = live {
            (source.end, source.durable) = (live.offset, live.offset);
        } else {
            source.durable = self.last_mark(&source)?;
            if source.end > source.durable {
                // A process that was killed leaves bytes that were never synced, and the tables
                // must not know more than the disk.
                let path = self.files.path(Class::Segment, number);
                self.files.fs.open(&path, OpenMode::Write)?.sync_data()?;
            }
        }
        Ok(source)
    }

    /// Up to where the newest segment was durable, as its marks say.
    fn last_mark(&self, source: &Source) -> io::Result<u64> {
        let mut durable = source.from;
        let Source { number, from, end, .. } = *source;
        let mut scan = Scan::new(&*source.file, self.check, number, from, end, durable);
        while let Some(item) = scan.next()? {
            if let Item::Record { offset, found: Found { entry: Entry::Mark, .. } } = item {
                durable = offset;
            }
        }
        Ok(durable)
    }
}

/// A replay under way.
struct Run<'a> {
    recovery: &'a Recovery<'a>,
    tables: Tables,
    counts: Counts,
    position: Position,
    /// Entries that the next transaction takes, with a catalogue record's bytes.
    pending: Vec<(u32, u64, Found, Vec<u8>)>,
    pending_bytes: usize,
    /// Damaged ranges that it takes.
    rot: Vec<Rot>,
    opened: Opened,
    writable: bool,
}

impl Run<'_> {
    fn segment(&mut self, source: &Source) -> Result<(), OpenError> {
        let mut at = source.from.min(source.end);
        let may_have_records = source.end > FILE_HEAD as u64;
        if may_have_records
            && self.recovery.head(source.number, source.order, &*source.file)?.is_err()
        {
            self.note_rot(source.number, 0, FILE_HEAD as u64);
        }
        let check = self.recovery.check;
        let Source { number, from, end, durable, .. } = *source;
        let mut scan = Scan::new(&*source.file, check, number, from, end, durable);
        let mut torn = false;
        while let Some(item) = scan.next()? {
            match item {
                Item::Record { offset, found } => {
                    let len = (found.head + found.payload) as u64;
                    let payload = self.payload(source, offset, &found)?;
                    match payload {
                        Some(payload) => self.take(source, offset, found, payload)?,
                        None if offset < source.durable => {
                            self.note_rot(source.number, offset, len);
                        }
                        None => torn = true,
                    }
                    if torn {
                        break;
                    }
                    at = offset + len;
                }
                Item::Damaged { offset, len } if offset < source.durable || !source.last => {
                    self.note_rot(source.number, offset, len);
                    at = offset + len;
                }
                Item::Damaged { .. } => {
                    torn = true;
                    break;
                }
            }
            self.position = Position { number: source.order, offset: at };
        }
        self.position = Position { number: source.order, offset: at };
        if torn {
            self.opened.truncated = source.end - at;
            let files = self.recovery.files;
            let path = files.path(Class::Segment, source.number);
            let file = files.fs.open(&path, OpenMode::Write)?;
            file.set_len(at)?;
            file.sync_data()?;
        }
        Ok(())
    }

    /// The bytes of a catalogue record, and of a chunk behind the last mark; `None` when they are
    /// not what the id says. Other payloads are left to the scrub.
    fn payload(&self, source: &Source, offset: u64, found: &Found) -> io::Result<Option<Vec<u8>>> {
        let Some(hash) = found.entry.payload_hash() else { return Ok(Some(Vec::new())) };
        let is_record = matches!(found.entry, Entry::Record { .. });
        if !is_record && offset < source.durable {
            return Ok(Some(Vec::new()));
        }
        let mut bytes = vec![0; found.payload];
        let read = source.file.read_at(&mut bytes, offset + found.head as u64);
        let read = match read {
            Ok(read) => read,
            // A sector that cannot be read is rot like any other.
            Err(_) if offset < source.durable => return Ok(None),
            Err(err) => return Err(err),
        };
        if read < bytes.len() || blake3::hash(&bytes) != *hash {
            return Ok(None);
        }
        if !is_record {
            bytes.clear();
        }
        Ok(Some(bytes))
    }

    fn take(
        &mut self,
        source: &Source,
        offset: u64,
        found: Found,
        payload: Vec<u8>,
    ) -> Result<(), OpenError> {
        if matches!(found.entry, Entry::Mark | Entry::Complete { .. }) {
            return Ok(());
        }
        self.opened.replayed += 1;
        let end = offset + (found.head + found.payload) as u64;
        self.pending_bytes += found.head + payload.len();
        self.pending.push((source.number, offset, found, payload));
        if self.pending.len() >= MAX_PENDING || self.pending_bytes >= MAX_PENDING_BYTES {
            self.position = Position { number: source.order, offset: end };
            self.commit()?;
            self.tables.checkpoint()?;
        }
        Ok(())
    }

    fn note_rot(&mut self, segment: u32, offset: u64, len: u64) {
        self.rot.push(Rot { segment, offset, len });
        // A damaged file is not written on.
        self.writable = false;
    }

    fn commit(&mut self) -> io::Result<()> {
        let (pending, rot) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.rot));
        self.pending_bytes = 0;
        self.change(|index| {
            for (number, offset, found, payload) in &pending {
                index.replay(found, *number, *offset, payload)?;
            }
            for Rot { segment, offset, len } in rot {
                index.note_rot(segment, offset, len)?;
            }
            Ok(())
        })
    }

    /// Has the follower do what had to wait for a record further behind in the log.
    fn settle(&mut self) -> io::Result<()> {
        let follow = self.recovery.follow;
        let mut more = true;
        while more {
            self.change(|index| {
                index.change(|tables| {
                    more = follow.settle(tables)?;
                    Ok(())
                })
            })?;
        }
        Ok(())
    }

    /// One transaction.
    fn change(&mut self, work: impl FnOnce(&mut Index<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut change = self.tables.begin()?;
        let (position, follow) = (self.position, self.recovery.follow);
        let (files, check) = (self.recovery.files, self.recovery.check);
        let reader = Reader { files, check, fresh: false };
        let counts = &mut self.counts;
        change.edit(|tables: &mut dyn TableWrite| {
            let mut index = Index::new(tables, counts, follow, reader);
            work(&mut index)?;
            index.finish(position)
        })?;
        change.commit()
    }
}
