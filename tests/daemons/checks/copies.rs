//! I6: after all is healed and quiet, every file has its copies on as many machines, by what the
//! nodes say and by what is on the disks.

use crate::segments::Contents;
use p2pfs::id::{ChunkId, ClaimId};
use p2pfs::wire::control::FileStat;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a node says that a file has its copies, on as many machines as there are.
pub(crate) fn check_stat(stat: &FileStat, machines: usize) -> Result<(), String> {
    let wanted = usize::from(stat.info.replicas).min(machines);
    match stat.info.copies {
        Some(copies) if usize::from(copies) < wanted => {
            Err(format!("I6: {:?} has {copies} of {wanted} copies", stat.info.hash))
        }
        _ => Ok(()),
    }
}

/// Whether each chunk of a file lies on as many of the disks as its claims ask for.
pub(crate) fn check_disks(disks: &[Contents]) -> Result<(), String> {
    let mut wanted: BTreeMap<ChunkId, usize> = BTreeMap::new();
    let committed: BTreeSet<&ClaimId> = disks.iter().flat_map(|disk| &disk.committed).collect();
    let claims = disks.iter().flat_map(|disk| &disk.claims);
    for ((cid, _), replicas) in claims.filter(|((_, claim), _)| committed.contains(claim)) {
        let wanted = wanted.entry(*cid).or_default();
        *wanted = usize::from(*replicas).min(disks.len()).max(*wanted);
    }
    // A copy that only unfinished puts claim, or nothing, may be freed at any time.
    let is_kept = |disk: &&Contents, cid: &ChunkId| {
        let mut claims = disk.claims(cid);
        disk.replicas.contains_key(cid) && claims.any(|claim| committed.contains(claim))
    };
    let copies = |cid: &ChunkId| disks.iter().filter(|disk| is_kept(disk, cid)).count();
    let below: Vec<String> = wanted
        .iter()
        .filter(|(cid, wanted)| copies(cid) < **wanted)
        .map(|(cid, wanted)| format!("{} on {} of {wanted}", cid.short(), copies(cid)))
        .collect();
    match below.len() {
        0 => Ok(()),
        count => Err(format!("I6: {count} chunks lack copies on the disks: {}", below.join(", "))),
    }
}
