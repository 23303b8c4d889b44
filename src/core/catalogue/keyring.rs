//! The keys of all epochs that this node can read. Owns their order (newest first, because new data
//! is found at the first try); how a secret arrives is the business of the epoch records.

use crate::crypto::EpochKeys;
use crate::id::EpochId;

/// The keys of every known epoch. A store-only member's ring is empty.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// (when the epoch was made, its keys), oldest first.
    epochs: Vec<(u64, EpochKeys)>,
}

impl Keyring {
    /// Adds the keys of an epoch that was made at the clock reading `made`; true when they are new.
    pub fn add(&mut self, made: u64, keys: EpochKeys) -> bool {
        if self.get(&keys.epoch()).is_some() {
            return false;
        }
        let order = (made, keys.epoch());
        let at = self.epochs.partition_point(|(made, keys)| (*made, keys.epoch()) < order);
        self.epochs.insert(at, (made, keys));
        true
    }

    /// The keys of `epoch`.
    pub fn get(&self, epoch: &EpochId) -> Option<&EpochKeys> {
        self.iter().find(|keys| keys.epoch() == *epoch)
    }

    /// The keys that seal new data: of the epoch with the highest (clock, id).
    pub fn newest(&self) -> Option<&EpochKeys> {
        self.iter().next()
    }

    /// All keys, newest epoch first.
    pub fn iter(&self) -> impl Iterator<Item = &EpochKeys> {
        self.epochs.iter().rev().map(|(_, keys)| keys)
    }
}
