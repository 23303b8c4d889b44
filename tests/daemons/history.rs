//! The history of one simulation: every event in order, with its virtual time, as one hash; and how
//! often each kind of event happened. Two runs of a seed are the same when their hashes are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The history; clones write the same one.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<Inner>>);

struct Inner {
    hasher: blake3::Hasher,
    events: u64,
    delivered: u64,
    totals: BTreeMap<String, u64>,
    violations: Vec<String>,
    verbose: bool,
}

impl History {
    /// An empty one. A verbose one prints what it notes.
    pub(crate) fn new(verbose: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hasher: blake3::Hasher::new(),
            events: 0,
            delivered: 0,
            totals: BTreeMap::new(),
            violations: Vec::new(),
            verbose,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Notes an event.
    pub(crate) fn note(&self, at: Duration, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let line = format!("{:>9.3} {what}", at.as_secs_f64());
        inner.hasher.update(line.as_bytes()).update(b"\n");
        inner.events += 1;
        if inner.verbose {
            println!("{line}");
        }
    }

    /// Notes bytes that the network delivered.
    pub(crate) fn delivered(&self, at: Duration, way: &str, len: usize, bytes: &[u8]) {
        let mut inner = self.inner();
        let micros = u64::try_from(at.as_micros()).unwrap();
        inner.hasher.update(&micros.to_le_bytes()).update(way.as_bytes());
        inner.hasher.update(&(len as u64).to_le_bytes()).update(bytes);
        inner.events += 1;
        inner.delivered += len as u64;
    }

    /// Sets how many of a kind there are.
    pub(crate) fn set(&self, kind: &str, count: u64) {
        self.inner().totals.insert(kind.to_owned(), count);
    }

    /// Counts one of a kind.
    pub(crate) fn count(&self, kind: &str) {
        self.add(kind, 1);
    }

    /// Counts several of a kind.
    pub(crate) fn add(&self, kind: &str, count: u64) {
        *self.inner().totals.entry(kind.to_owned()).or_default() += count;
    }

    /// Notes that something happened that must not.
    pub(crate) fn violation(&self, at: Duration, what: String) {
        self.note(at, format_args!("VIOLATION {what}"));
        let mut inner = self.inner();
        // The first few say what is wrong; the rest follow from them.
        if inner.violations.len() < 10 {
            inner.violations.push(format!("{:.3} s: {what}", at.as_secs_f64()));
        }
    }

    /// What happened that must not.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// How often each kind happened.
    pub(crate) fn totals(&self) -> BTreeMap<String, u64> {
        self.inner().totals.clone()
    }

    /// The hash of everything so far, the number of events, and the bytes delivered.
    pub(crate) fn sum(&self) -> (String, u64, u64) {
        let inner = self.inner();
        let hash = inner.hasher.finalize().to_hex();
        (hash[..16].to_owned(), inner.events, inner.delivered)
    }
}
