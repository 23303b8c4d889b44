//! Tree records opened for reading, and those that stay open from one question to the next: a
//! record speaks of hundreds of names, and opening it costs more than looking one up. Owns how much
//! is kept. What a record says follows from its id, so nothing kept is ever wrong.

use super::change::Change;
use super::keyring::Keyring;
use super::record::Record;
use super::table::{View, damaged};
use crate::id::{EpochId, NodeId, RecordId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A tree record opened for reading.
#[derive(Debug)]
pub struct Opened {
    pub(crate) author: NodeId,
    /// The epoch whose keys open it.
    pub(crate) epoch: EpochId,
    /// The records whose changes these supersede.
    pub(crate) parents: Vec<RecordId>,
    pub(crate) changes: Vec<Change>,
    /// About how many bytes of memory it takes.
    size: usize,
}

/// Opens a tree record. None when it is not here or cannot be opened, which the tables exclude
/// unless the store lost it.
pub(crate) fn open(
    view: &(impl View + ?Sized),
    keyring: &Keyring,
    id: &RecordId,
) -> io::Result<Option<Opened>> {
    let Some(bytes) = view.record(id)? else { return Ok(None) };
    let len = bytes.len();
    let record = Record::parse(bytes).map_err(damaged)?;
    let changes = keyring.get(&record.header.epoch).and_then(|keys| record.open(keys));
    let (author, epoch) = (record.header.author, record.header.epoch);
    let parents = &record.header.parents;
    Ok(changes.map(|changes| {
        let size = len + changes.len() * size_of::<Change>();
        Opened { author, epoch, parents: parents.clone(), changes, size }
    }))
}

/// Opened records that are kept, the ones used lately. When the younger half is full it becomes the
/// older one, whose rest is forgotten.
#[derive(Debug)]
pub struct OpenedRecords {
    young: BTreeMap<RecordId, Arc<Opened>>,
    old: BTreeMap<RecordId, Arc<Opened>>,
    size: usize,
    most: usize,
}

impl OpenedRecords {
    /// Keeps records of at most so many bytes.
    pub const fn new(most: usize) -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), size: 0, most }
    }

    /// Forgets all.
    pub fn trim(&mut self) {
        *self = Self::new(self.most);
    }

    /// A record, if it is kept.
    pub fn get(&mut self, id: &RecordId) -> Option<Arc<Opened>> {
        if let Some(opened) = self.young.get(id) {
            return Some(opened.clone());
        }
        let opened = self.old.remove(id)?;
        self.keep(*id, opened.clone());
        Some(opened)
    }

    /// Keeps a record.
    pub fn keep(&mut self, id: RecordId, opened: Arc<Opened>) {
        // Two questions may have opened it at once.
        if self.young.contains_key(&id) {
            return;
        }
        if self.size + opened.size > self.most / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        self.size += opened.size;
        self.young.insert(id, opened);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let record = |number| RecordId([number; 32]);
        let opened = || {
            let (author, parents, changes) = (NodeId([0; 32]), Vec::new(), Vec::new());
            let epoch = EpochId::NONE;
            Arc::new(Opened { author, epoch, parents, changes, size: 10 })
        };
        let mut kept = OpenedRecords::new(60);
        kept.keep(record(0), opened());
        for number in 1..100 {
            kept.keep(record(number), opened());
            assert!(kept.get(&record(0)).is_some(), "{number}");
            assert!(kept.young.len() + kept.old.len() <= 6, "{number}");
        }
        assert!(kept.get(&record(1)).is_none() && kept.get(&record(99)).is_some());
        kept.trim();
        assert!(kept.get(&record(0)).is_none());
    }
}
