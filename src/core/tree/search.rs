//! What has names that fit a question. Owns the way from a row of the names at hand to what is
//! seen: only the best are looked up in the tree, which has the last word.

use super::{Tree, Version};
use crate::core::catalogue::names;
use crate::core::search::{Candidate, Query, Rank, Scratch, Top};
use crate::id::InodeId;
use std::io;

/// Results beyond those that are wanted, for those that are not seen after all: a conflict copy
/// with the content of the winner, or what is in a directory that nothing leads to.
const SPARE: usize = 64;

/// Something that fits.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Where it is seen; of what is shared in place, what it is called there.
    pub path: Vec<u8>,
    /// What is seen there.
    pub version: Version,
    /// How well it fits.
    pub rank: Rank,
}

/// What came of a question.
#[derive(Debug, Clone, Default)]
pub struct Hits {
    /// The best, in their order.
    pub found: Vec<Hit>,
    /// Names that were looked at.
    pub looked: u64,
    /// Names that fit.
    pub fit: u64,
}

impl Tree<'_> {
    /// The `limit` best of what fits a question.
    pub fn search(&self, query: &Query, limit: usize) -> io::Result<Hits> {
        let (mut hits, mut scratch) = (Hits::default(), Scratch::default());
        let mut top: Top<(Vec<u8>, InodeId)> = Top::new(limit + SPARE);
        let mut fault = Ok(());
        names::each(self.view, self.keyring, &mut |row| {
            for name in row.names() {
                let (kind, size, made_ms) = (row.kind, row.size, row.made_ms);
                let (owner, tags) = (row.author, row.tags);
                hits.looked += 1;
                let one = Candidate { kind, size, made_ms, owner, name, tags };
                let Some(rank) = query.rank(&one, &mut scratch) else { continue };
                if row.removed {
                    match self.is_used(&row.inode) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(err) => fault = Err(err),
                    }
                }
                hits.fit += 1;
                top.offer(rank, || (name.to_vec(), row.inode));
            }
            fault.is_ok()
        })?;
        fault?;
        let best = top.into_sorted();
        // While all that fit are here, those that are not seen can be told from the others.
        let all = hits.fit == best.len() as u64;
        for (rank, (name, inode)) in best {
            if hits.found.len() >= limit {
                break;
            }
            let seen = self.seen_named(&inode, &name)?;
            let mut seen: Vec<_> =
                seen.into_iter().map(|(path, entry)| (path, entry.version)).collect();
            if seen.is_empty() {
                seen.extend(self.shared_as(&inode)?);
            }
            hits.fit -= u64::from(all && seen.is_empty());
            hits.found.extend(seen.into_iter().map(|(path, version)| Hit { path, version, rank }));
        }
        hits.found.truncate(limit);
        hits.found.sort_by(|a, b| (a.rank, &a.path).cmp(&(b.rank, &b.path)));
        Ok(hits)
    }
}
