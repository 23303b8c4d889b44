//! I4: a chunk that is claimed is never given up before others have it. Owns what was seen on the
//! disks during the run: once two disks hold a claimed chunk, two do for ever, unless a disk is
//! lost or the claim ends. It reads the disks; no node is asked.

use crate::segments::Contents;
use p2pfs::id::{ChunkId, ClaimId};
use std::collections::{BTreeMap, BTreeSet};

/// As many copies as a put promises.
const PROMISED: usize = 2;

/// What was seen.
#[derive(Default)]
pub(crate) struct Kept {
    /// Chunks that enough disks held, and why they are kept.
    safe: BTreeMap<ChunkId, BTreeSet<ClaimId>>,
    /// Claims that have ended; a compacted segment may not say so any more.
    ended: BTreeSet<ClaimId>,
}

impl Kept {
    /// Looks at all disks that can be trusted; the chunks that were given up too early.
    pub(crate) fn look(&mut self, disks: &[Contents]) -> Vec<String> {
        let mut copies: BTreeMap<ChunkId, usize> = BTreeMap::new();
        for cid in disks.iter().flat_map(|disk| disk.replicas.keys()) {
            *copies.entry(*cid).or_default() += 1;
        }
        self.ended.extend(disks.iter().flat_map(|disk| &disk.ended));
        let count = |cid: &ChunkId| copies.get(cid).copied().unwrap_or(0);
        let wrong: Vec<ChunkId> = self
            .safe
            .iter()
            .filter(|(cid, claims)| {
                count(cid) < PROMISED && !claims.iter().any(|claim| self.ended.contains(claim))
            })
            .map(|(cid, _)| *cid)
            .collect();
        let mut synced: BTreeMap<ChunkId, usize> = BTreeMap::new();
        for disk in disks {
            // A copy that nothing claims there may be freed at any time.
            for cid in disk.synced.iter().filter(|cid| disk.claims(cid).next().is_some()) {
                *synced.entry(*cid).or_default() += 1;
            }
        }
        for (cid, claim) in disks.iter().flat_map(|disk| disk.claims.keys()) {
            if synced.get(cid).is_some_and(|count| *count >= PROMISED) {
                self.safe.entry(*cid).or_default().insert(*claim);
            }
        }
        let say = |cid: ChunkId| {
            self.safe.remove(&cid);
            format!("I4: {} was on {PROMISED} disks and is on {}", cid.short(), count(&cid))
        };
        wrong.into_iter().map(say).collect()
    }

    /// A disk is lost, or not to be trusted any more: what was seen counts no more.
    pub(crate) fn lost_machine(&mut self) {
        self.safe.clear();
    }
}
