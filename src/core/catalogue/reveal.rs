//! What readers know beyond the registers: which names lead where, where directories are, what a
//! hash prefix finds, and how many files and bytes the tree has. Owns the tables from `cat_child`
//! down and the facts in `cat_register`; it runs inside one `apply`, and again when a secret comes.
//!
//! Invariant: a row of `cat_child` and `cat_link` exists exactly while its change is a head, so
//! both follow each change of a register at once; directories, whose place depends on other
//! directories, are put where they belong at the end (`place`).

use super::apply::{ViewMut, find_row};
use super::change::{Change, Node, Place, entry_tag};
use super::keyring::Keyring;
use super::names;
use super::opened::open;
use super::past;
use super::place;
use super::record::Record;
use super::table::{
    CHILD, ChangeAt, Child, FILE, Fact, LINK, PREFIX, REGISTER, Row, Spot, State, TOTAL,
    TOTAL_FILES, Version, any, key, register_key, value, versions_of,
};
use crate::crypto::EpochKeys;
use crate::id::{EpochId, InodeId, NodeId, RecordId, Tag};
use crate::wire::codec::Encode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Files and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Number of files.
    pub files: u64,
    /// Sum of their lengths.
    pub bytes: u64,
}

/// The files in the tree, as far as their names can be read.
pub(super) fn tally(tables: &(impl crate::sys::TableRead + ?Sized)) -> io::Result<Tally> {
    let row = tables.get(TOTAL, TOTAL_FILES)?;
    let (files, bytes) = row.map_or(Ok((0, 0)), |row| value(&row))?;
    Ok(Tally { files, bytes })
}

/// A record opened for what it says.
pub(super) struct Said {
    id: RecordId,
    pub(super) author: NodeId,
    pub(super) epoch: EpochId,
    pub(super) changes: Vec<Change>,
}

/// One change of the readers' tables.
pub(super) struct Reveal<'a> {
    pub(super) store: &'a mut dyn ViewMut,
    pub(super) keyring: &'a Keyring,
    /// The record being applied, opened.
    current: Option<Said>,
    /// The one opened last, because neighbours often lie in the same record.
    last: Option<Said>,
    /// What each touched inode counted before.
    before: BTreeMap<InodeId, Tally>,
    dirs: BTreeSet<InodeId>,
}

impl<'a> Reveal<'a> {
    pub(super) fn new(store: &'a mut dyn ViewMut, keyring: &'a Keyring) -> Self {
        let (before, dirs) = (BTreeMap::new(), BTreeSet::new());
        Self { store, keyring, current: None, last: None, before, dirs }
    }

    /// What the changes of a record say, one fact per tag; opens the record if it can.
    pub(super) fn facts(&mut self, record: &Record) -> Vec<Fact> {
        let count = record.header.tags.len();
        let Some(keys) = self.keyring.get(&record.header.epoch) else {
            return vec![Fact::Unread; count];
        };
        let Some(changes) = record.open(keys) else { return vec![Fact::Void; count] };
        let facts = changes.iter().map(|change| fact_of(keys, change)).collect();
        let (author, epoch) = (record.header.author, record.header.epoch);
        self.current = Some(Said { id: record.id, author, epoch, changes });
        facts
    }

    /// Opens a record whose registers are filled already.
    pub(super) fn open(&mut self, record: &Record) -> io::Result<()> {
        let facts = self.facts(record);
        for ((index, tag), fact) in (0..).zip(&record.header.tags).zip(facts) {
            if let Some(Version { ended, .. }) = find_row(self.store, tag, record)? {
                self.set(tag, record, Row { change: index, ended, fact })?;
            }
        }
        Ok(())
    }

    /// Fills the row of one change, and what follows from it.
    pub(super) fn set(&mut self, tag: &Tag, record: &Record, row: Row) -> io::Result<()> {
        let state = if row.ended == 0 { State::Head } else { State::Past };
        let at = ChangeAt { clock: record.header.clock, id: record.id, change: row.change };
        let version = Version { at, ended: row.ended, fact: row.fact };
        match state {
            State::Head => self.touch(&version.fact)?,
            State::Past => past::note(self.store, tag, &version)?,
        }
        let register = register_key(tag, state, at.clock, &at.id);
        self.store.insert(REGISTER, &register, &row.to_bytes())?;
        if state == State::Head
            && let Fact::Entry { parent, inode: Some(inode) } = row.fact
        {
            let child = at.child_key(&(parent, *tag));
            self.store.insert(CHILD, &child, &Child::Entry(inode).to_bytes())?;
            self.store.insert(LINK, &key(&[&inode.0, &child]), &[])?;
        }
        self.set_file(&at, record)
    }

    /// Makes a file's version findable by the first digits of its hash and by its claim.
    fn set_file(&mut self, at: &ChangeAt, record: &Record) -> io::Result<()> {
        let current = self.current.as_ref();
        let change = current.and_then(|said| said.changes.get(usize::from(at.change)));
        // Of a shared file no chunk is kept that could be let go by its claim.
        let (inode, version, claimed) = match change {
            Some(Change::Inode { inode, node: Node::File(file), .. }) => (inode, file, true),
            Some(Change::Inode { inode, node: Node::Shared(file), .. }) => {
                (inode, &file.version, false)
            }
            _ => return Ok(()),
        };
        if let Some(keys) = self.keyring.get(&record.header.epoch)
            && let Some(first) = version.hash.0.first_chunk()
        {
            let at = key(&[&at.id.0, &at.change.to_be_bytes()]);
            self.store.insert(PREFIX, &key(&[&keys.prefix(first), &at]), &[])?;
            if claimed {
                self.store.insert(FILE, &key(&[&version.claim.0, &inode.0, &at]), &[])?;
            }
        }
        Ok(())
    }

    /// Moves a change to the past, if it is not there since an earlier clock reading.
    pub(super) fn end(&mut self, tag: &Tag, version: &Version, clock: u64) -> io::Result<()> {
        let (at, fact, ended) = (version.at, version.fact, version.ended);
        if ended == 0 {
            self.touch(&fact)?;
            self.store.remove(REGISTER, &register_key(tag, State::Head, at.clock, &at.id))?;
            if let Fact::Entry { parent, inode: Some(inode) } = fact {
                let child = at.child_key(&(parent, *tag));
                self.store.remove(CHILD, &child)?;
                self.store.remove(LINK, &key(&[&inode.0, &child]))?;
            }
        } else if ended <= clock {
            return Ok(());
        } else {
            past::forget(self.store, tag, version)?;
        }
        let row = Row { change: at.change, ended: clock, fact };
        let register = register_key(tag, State::Past, at.clock, &at.id);
        self.store.insert(REGISTER, &register, &row.to_bytes())?;
        past::note(self.store, tag, &Version { ended: clock, ..*version })
    }

    /// Notes what is about to change, before it does.
    fn touch(&mut self, fact: &Fact) -> io::Result<()> {
        match fact {
            Fact::Entry { inode: Some(inode), .. } | Fact::Version { inode } => {
                self.count_before(inode)
            }
            Fact::Dir { inode, .. } => {
                self.dirs.insert(*inode);
                // An inode that was a file for a moment stops to count.
                self.count_before(inode)
            }
            Fact::Entry { inode: None, .. } | Fact::Unread | Fact::Void => Ok(()),
        }
    }

    fn count_before(&mut self, inode: &InodeId) -> io::Result<()> {
        if !self.before.contains_key(inode) {
            let tally = self.count(inode)?;
            self.before.insert(*inode, tally);
        }
        Ok(())
    }

    /// What an inode adds to the tally: a file counts once, however many names it has.
    fn count(&mut self, inode: &InodeId) -> io::Result<Tally> {
        if !any(self.store, LINK, &inode.0)? {
            return Ok(Tally::default());
        }
        let versions = versions_of(self.store, self.keyring, inode, State::Head)?;
        let Some(at) = versions.first().map(|winner| winner.at) else {
            return Ok(Tally::default());
        };
        Ok(match self.change(&at)? {
            Some(Change::Inode { node: Node::File(version), .. }) => {
                Tally { files: 1, bytes: version.size }
            }
            _ => Tally::default(),
        })
    }

    fn change(&mut self, at: &ChangeAt) -> io::Result<Option<&Change>> {
        Ok(self.said(&at.id)?.and_then(|said| said.changes.get(usize::from(at.change))))
    }

    /// What a record says, if it can be read.
    pub(super) fn said(&mut self, id: &RecordId) -> io::Result<Option<&Said>> {
        let is = |slot: &Option<Said>| slot.as_ref().is_some_and(|said| said.id == *id);
        if !is(&self.current) && !is(&self.last) {
            let opened = open(self.store, self.keyring, id)?;
            self.last = opened.map(|opened| Said {
                id: *id,
                author: opened.author,
                epoch: opened.epoch,
                changes: opened.changes,
            });
        }
        Ok(if is(&self.current) { self.current.as_ref() } else { self.last.as_ref() })
    }

    /// A row of the names at hand, sealed under the keys of an epoch.
    pub(super) fn seal_names(
        &self,
        epoch: &EpochId,
        inode: &InodeId,
        mut row: Vec<u8>,
    ) -> Option<Vec<u8>> {
        self.keyring.get(epoch)?.names().seal(inode, &mut row);
        Some([&epoch.0[..names::EPOCH], &row].concat())
    }

    /// Ends the change: the tally, the places of directories and the names at hand follow.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let old = tally(self.store)?;
        let (mut new, mut touched) = (old, BTreeSet::new());
        for (inode, before) in std::mem::take(&mut self.before) {
            let after = self.count(&inode)?;
            touched.insert(inode);
            // The lengths are the authors' word, so their sum may wrap; it wraps back as well.
            new.files = new.files.wrapping_add(after.files).wrapping_sub(before.files);
            new.bytes = new.bytes.wrapping_add(after.bytes).wrapping_sub(before.bytes);
        }
        if new == Tally::default() {
            self.store.remove(TOTAL, TOTAL_FILES)?;
        } else if new != old {
            self.store.insert(TOTAL, TOTAL_FILES, &(new.files, new.bytes).to_bytes())?;
        }
        let dirs = std::mem::take(&mut self.dirs);
        touched.extend(place::settle(self.store, self.keyring, dirs)?);
        touched.iter().try_for_each(|inode| names::write(&mut self, inode))
    }
}

fn fact_of(keys: &EpochKeys, change: &Change) -> Fact {
    match change {
        Change::Entry { parent, target, .. } => {
            Fact::Entry { parent: *parent, inode: target.inode() }
        }
        Change::Inode { inode, node: Node::Dir { place, previous }, .. } => {
            let spot = |place: &Place| -> Spot {
                (place.parent, entry_tag(keys, &place.parent, place.name.as_bytes()))
            };
            let (at, previous) = (place.as_ref().map(spot), previous.as_ref().map(spot));
            Fact::Dir { inode: *inode, at, previous }
        }
        Change::Inode { inode, .. } => Fact::Version { inode: *inode },
    }
}
