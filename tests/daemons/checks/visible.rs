//! I3: no file shows in the tree before its chunks have their copies. Owns what any node has ever
//! listed: even when the put was never answered, it can be read once all is healed, unless a
//! machine was lost that may have had the second copy.

use super::acknowledged::Ledger;
use crate::life::Listing;
use p2pfs::id::FileHash;
use std::collections::BTreeMap;

/// What was listed.
#[derive(Default)]
pub(crate) struct Visible(BTreeMap<[u8; 32], FileHash>);

impl Visible {
    /// A node lists this.
    pub(crate) fn note(&mut self, listing: &Listing) {
        for hash in listing.iter().filter_map(|(_, hash)| *hash) {
            self.0.insert(hash.0, hash);
        }
    }

    /// A disk is lost: who has the other copy of what was not acknowledged is not known.
    pub(crate) fn lost_machine(&mut self) {
        self.0.clear();
    }

    /// What must be readable although nobody was told that it is stored.
    pub(crate) fn unacknowledged<'a>(
        &'a self,
        ledger: &'a Ledger,
    ) -> impl Iterator<Item = FileHash> + 'a {
        self.0.values().copied().filter(|hash| ledger.file(hash).is_none())
    }
}
