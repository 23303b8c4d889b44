//! What is pinned: paths of which this node keeps a full copy, whoever else has one. Owns the list
//! and the set of chunks that must not be given up because of it; fetching what is missing is
//! `worker::pin`'s, what a person may ask `api::pins`', and the list's file is in `files`.
//!
//! Invariant: as long as it is not known which chunks the pinned files have, none is given up.

use super::lock;
use crate::id::ChunkId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use tokio::sync::watch;

/// How far the copy of what is at a path is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pinned {
    /// Files there.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Files of which something is not here.
    pub(super) missing: u64,
    /// Why the first of them is not.
    pub(super) why: Option<String>,
    /// The last request whose pass through everything pinned has ended for this path.
    pub(super) through: u64,
    /// Bytes that were looked at in the pass that runs, of which nothing is missing now.
    pub(super) done: u64,
}

/// The pinned paths and their chunks.
pub(super) struct Pins {
    list: Mutex<BTreeMap<Vec<u8>, Pinned>>,
    kept: RwLock<Kept>,
    /// Counts the changes of the list.
    pub(super) asked: watch::Sender<u64>,
    /// Counts what has become known of the copies.
    pub(super) told: watch::Sender<u64>,
    /// The last request by which copies are kept or not.
    pub(super) settled: watch::Sender<u64>,
}

/// Which chunks are pinned.
enum Kept {
    /// It is not known yet.
    Unknown,
    /// None of a node that has no pins, else these.
    These(Option<Filter>),
}

/// A set of chunks of fixed size that may say of a few others that they are in it: those are kept
/// without need. Source: Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970.
/// The names of chunks are hashes already. Of 1,000,000 chunks one in 40 others is taken for one.
pub(super) struct Filter(Vec<u64>);

/// Bits of a filter, as a power of two: 1 MiB.
const BITS: u32 = 23;
/// Bits that stand for a chunk.
const PROBES: usize = 4;

impl Filter {
    pub(super) fn new() -> Self {
        Self(vec![0; 1 << (BITS - 6)])
    }

    fn probes(cid: &ChunkId) -> impl Iterator<Item = usize> + '_ {
        cid.0.chunks_exact(4).take(PROBES).map(|four| {
            let word = u32::from_le_bytes(four.try_into().expect("chunks of four"));
            (word >> (32 - BITS)) as usize
        })
    }

    pub(super) fn insert(&mut self, cid: &ChunkId) {
        for bit in Self::probes(cid) {
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn contains(&self, cid: &ChunkId) -> bool {
        Self::probes(cid).all(|bit| self.0[bit / 64] & (1 << (bit % 64)) != 0)
    }
}

impl Pins {
    /// Those that were remembered.
    pub(super) fn new(paths: Vec<Vec<u8>>) -> Self {
        let list: BTreeMap<_, _> =
            paths.into_iter().map(|path| (path, Pinned::default())).collect();
        let kept = if list.is_empty() { Kept::These(None) } else { Kept::Unknown };
        let (asked, told, settled) =
            (watch::Sender::new(1), watch::Sender::default(), watch::Sender::new(1));
        Self { list: Mutex::new(list), kept: RwLock::new(kept), asked, told, settled }
    }

    /// Every pinned path, and how far its copy is.
    pub(super) fn list(&self) -> BTreeMap<Vec<u8>, Pinned> {
        lock(&self.list).clone()
    }

    /// Begins or ends to keep what is at a path, once `save` has made the new list durable. The
    /// request's number; none: nothing had to be changed.
    pub(super) fn change<E>(
        &self,
        path: &[u8],
        pin: bool,
        save: impl FnOnce(Vec<Vec<u8>>) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        let mut list = lock(&self.list);
        if list.contains_key(path) == pin {
            return Ok(None);
        }
        let mut paths: Vec<Vec<u8>> = list.keys().cloned().collect();
        if pin {
            paths.push(path.to_vec());
            save(paths)?;
            list.insert(path.to_vec(), Pinned::default());
            // Its chunks may be here, and about to go.
            self.keep(Kept::Unknown);
        } else {
            paths.retain(|other| other != path);
            save(paths)?;
            list.remove(path);
        }
        self.asked.send_modify(|count| *count += 1);
        Ok(Some(*self.asked.borrow()))
    }

    /// Notes how far the copy of what is at a path is, if it is still pinned.
    pub(super) fn note(&self, path: &[u8], note: impl FnOnce(&mut Pinned)) {
        if let Some(pinned) = lock(&self.list).get_mut(path) {
            note(pinned);
        }
        self.told.send_modify(|count| *count += 1);
    }

    /// Only these chunks are pinned, as of this request; unless there was another one since.
    pub(super) fn settle(&self, asked: u64, chunks: Option<Filter>) {
        let list = lock(&self.list);
        if *self.asked.borrow() == asked {
            self.keep(Kept::These(chunks));
            self.settled.send_if_modified(|old| std::mem::replace(old, asked) != asked);
        }
        drop(list);
    }

    fn keep(&self, kept: Kept) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// Whether a chunk must not be given up.
    pub(super) fn keeps(&self, cid: &ChunkId) -> bool {
        match &*self.kept.read().unwrap_or_else(PoisonError::into_inner) {
            Kept::Unknown => true,
            Kept::These(chunks) => chunks.as_ref().is_some_and(|chunks| chunks.contains(cid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u32) -> ChunkId {
        ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_million_chunks_are_in_the_filter_and_few_others() {
        let mut filter = Filter::new();
        (0..1_000_000).for_each(|n| filter.insert(&cid(n)));
        assert!((0..1_000_000).all(|n| filter.contains(&cid(n))));
        let wrong = (1_000_000..1_100_000).filter(|n| filter.contains(&cid(*n))).count();
        assert!(wrong < 100_000 / 40, "{wrong} of 100,000");
    }

    #[test]
    fn nothing_goes_until_it_is_known_what_is_pinned() {
        let pins = Pins::new(Vec::new());
        assert!(!pins.keeps(&cid(1)));
        let pin = |path: &[u8], on| pins.change::<()>(path, on, |_| Ok(())).unwrap();
        let first = pin(b"/a", true).unwrap();
        assert!(pins.keeps(&cid(1)) && pins.keeps(&cid(2)));
        let mut filter = Filter::new();
        filter.insert(&cid(1));
        let second = pin(b"/b", true).unwrap();
        pins.settle(first, Some(filter));
        assert!(pins.keeps(&cid(2)), "that of /b is not known yet");
        let mut filter = Filter::new();
        filter.insert(&cid(1));
        pins.settle(second, Some(filter));
        assert!(pins.keeps(&cid(1)) && !pins.keeps(&cid(2)));
        assert_eq!(pin(b"/b", true), None);
    }

    #[test]
    fn what_cannot_be_saved_changes_nothing() {
        let pins = Pins::new(vec![b"/a".to_vec()]);
        assert_eq!(pins.change(b"/a", false, |_| Err("full")), Err("full"));
        assert_eq!(pins.change(b"/b", true, |_| Err("full")), Err("full"));
        assert_eq!(pins.list().into_keys().collect::<Vec<_>>(), [b"/a"]);
    }
}
