//! I10: nothing that a user has put lies in the clear on a disk or on the network: no content, no
//! name, no hash. Owns the list of what must not be found, and the search for it.

use p2pfs::id::FileHash;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Bytes of a sample.
const SAMPLE: usize = 16;
/// What of a sample is looked up at each place.
const KEY: usize = 8;
/// Bits of the filter before the look-up.
const FILTER_BITS: u32 = 20;

/// What must not be found; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<Mutex<Samples>>);

#[derive(Default)]
struct Samples {
    filter: Vec<u64>,
    samples: BTreeMap<u64, Vec<(Vec<u8>, String)>>,
}

impl Secrets {
    /// A file is put.
    pub(crate) fn add_file(&self, name: Option<&String>, content: &[u8], hash: &FileHash) {
        let mut samples = self.0.lock().unwrap();
        for at in [0, content.len() / 2, content.len().saturating_sub(SAMPLE)] {
            let sample = &content[at..content.len().min(at + SAMPLE)];
            // What says little may be there by chance.
            if sample.len() == SAMPLE && sample.iter().collect::<BTreeSet<_>>().len() > 2 {
                samples.add(sample, &format!("content of {hash}"));
            }
        }
        samples.add(&hash.0[..SAMPLE], &format!("hash {hash}"));
        samples.add(&hash.to_string().as_bytes()[..SAMPLE], &format!("hash {hash}, as text"));
        if let Some(name) = name.map(|name| name.trim_start_matches('/')) {
            samples.add(name.as_bytes(), &format!("name {name}"));
        }
    }

    /// What of it is in these bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<String> {
        let samples = self.0.lock().unwrap();
        samples.find(bytes)
    }

    /// How many bytes of a stream must be looked at again with the next ones.
    pub(crate) const fn overlap() -> usize {
        SAMPLE - 1
    }
}

impl Samples {
    fn add(&mut self, sample: &[u8], what: &str) {
        if self.filter.is_empty() {
            self.filter = vec![0; 1 << (FILTER_BITS - 6)];
        }
        let key = u64::from_le_bytes(sample[..KEY].try_into().unwrap());
        let bit = slot(key);
        self.filter[bit >> 6] |= 1 << (bit & 63);
        let same = self.samples.entry(key).or_default();
        if !same.iter().any(|(known, _)| known == sample) {
            same.push((sample.to_owned(), what.to_owned()));
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<String> {
        if self.filter.is_empty() {
            return None;
        }
        for (at, window) in bytes.windows(KEY).enumerate() {
            let key = u64::from_le_bytes(window.try_into().unwrap());
            let bit = slot(key);
            if self.filter[bit >> 6] >> (bit & 63) & 1 == 0 {
                continue;
            }
            let found = self.samples.get(&key).into_iter().flatten();
            let mut found = found.filter(|(sample, _)| bytes[at..].starts_with(sample));
            if let Some((_, what)) = found.next() {
                return Some(what.clone());
            }
        }
        None
    }
}

fn slot(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)) as usize
}
