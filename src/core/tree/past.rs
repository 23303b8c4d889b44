//! What was removed or superseded and need not be kept any longer. Owns the rules; when somebody
//! acts on them is decided elsewhere, and which names can be given back until then is `gone`'s.
//!
//! Rules (DESIGN 7, 8): what was removed can be restored until its content is let go. The content
//! of a file is due when its last name ended before the horizon; a superseded version of a file
//! that still has a name is due when it was superseded before the horizon, and some are before that
//! (`thin`).

use super::thin::thinned;
use super::{Tree, Version};
use crate::core::catalogue::browse;
use crate::core::catalogue::past::{self, Ended};
use crate::core::catalogue::{ENDED_MAX, Node, is_released};
use crate::id::{ClaimId, InodeId, NodeId};
use std::collections::BTreeSet;
use std::io;

/// Rows that are read at a time.
const ROWS: usize = 1024;
/// Most superseded versions of one file that are kept in memory, or claims: those of an hourly
/// thinned history are far fewer.
const VERSIONS: usize = 4096;
/// Most superseded versions of one file that are thinned; of more, none goes before the history
/// time.
const THINNED_AMONG: usize = 64 * 1024;

/// Content that need not be kept any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Everything that these claims are for.
    Claims(Vec<ClaimId>),
    /// Superseded versions of one file, as far as the others do not need the same chunks.
    Versions {
        /// The claim of them all.
        claim: ClaimId,
        /// Which are due, at most [`ENDED_MAX`]: those that were superseded first.
        ended: Vec<Version>,
        /// All that are kept under the claim and not due.
        kept: Vec<Version>,
    },
}

impl Tree<'_> {
    /// What ended not later than the clock reading `horizon`, first things first, behind `after`.
    pub fn ended_until(
        &self,
        after: Option<&Ended>,
        horizon: u64,
        limit: usize,
    ) -> io::Result<Vec<Ended>> {
        past::ended(self.view, after, horizon, limit)
    }

    /// What of an inode need not be kept any longer. Of more versions than can be looked at, or one
    /// that cannot be read just now, nothing: it might need what another one lets go.
    pub fn due(&self, inode: &InodeId, horizon: u64) -> io::Result<Option<Due>> {
        if browse::links_of(self.view, inode, 1)?.is_empty() {
            let since = past::unnamed_since(self.view, inode)?;
            if since.is_some_and(|since| since <= horizon) {
                return self.due_claims(inode);
            }
        }
        self.due_versions(inode, None, &|row| row.ended <= horizon)
    }

    /// What thinning lets go of an inode at the clock reading `now`.
    pub fn due_thinned(&self, inode: &InodeId, now: u64) -> io::Result<Option<Due>> {
        let heads = self.versions(inode)?;
        let mut rows = PastVersions::of(inode);
        let mut past = Vec::new();
        while let Some(row) = rows.next(self)? {
            if !past::is_let_go(self.view, inode, &row.at)? {
                past.push(row);
            }
            if past.len() > THINNED_AMONG {
                return Ok(None);
            }
        }
        let thinned = thinned(&past, &heads, now);
        let goes = |row: &Ended| thinned.contains(&(row.at.id, row.at.change));
        for row in past.iter().filter(|row| goes(row)) {
            let claim = self.version(&row.at)?.as_ref().and_then(claim_of);
            if self.is_kept(claim)? {
                return self.due_versions(inode, claim, &goes);
            }
        }
        Ok(None)
    }

    /// The claims of all versions of an inode that are not released yet, at most 4096 at a time.
    pub fn due_claims(&self, inode: &InodeId) -> io::Result<Option<Due>> {
        let mut claims = BTreeSet::new();
        for version in self.versions(inode)? {
            let of = claim_of(&version);
            claims.extend(if self.is_kept(of)? { of } else { None });
        }
        let mut rows = PastVersions::of(inode);
        while claims.len() < VERSIONS
            && let Some(row) = rows.next(self)?
        {
            let of = self.version(&row.at)?.as_ref().and_then(claim_of);
            claims.extend(if self.is_kept(of)? { of } else { None });
        }
        let claims: Vec<ClaimId> = claims.into_iter().collect();
        Ok((!claims.is_empty()).then_some(Due::Claims(claims)))
    }

    /// Whether all versions of an inode that are kept were made by one node, as far as is certain.
    pub fn is_all_by(&self, inode: &InodeId, author: &NodeId) -> io::Result<bool> {
        let mut rows = PastVersions::of(inode);
        while let Some(row) = rows.next(self)? {
            if past::is_let_go(self.view, inode, &row.at)? {
                continue;
            }
            let Some(version) = self.version(&row.at)? else { return Ok(false) };
            if version.author != *author && self.is_kept(claim_of(&version))? {
                return Ok(false);
            }
        }
        let heads = self.versions(inode)?;
        let all = heads.len() == browse::heads_of(self.view, self.keyring, inode)?.len();
        Ok(all && heads.iter().all(|version| version.author == *author))
    }

    /// The versions of an inode that are due, of one claim: the one that is named, or else that of
    /// the first one, if nothing that is not due comes before it.
    fn due_versions(
        &self,
        inode: &InodeId,
        mut claim: Option<ClaimId>,
        is_due: &dyn Fn(&Ended) -> bool,
    ) -> io::Result<Option<Due>> {
        let (mut ended, mut kept) = (Vec::new(), Vec::new());
        let mut rows = PastVersions::of(inode);
        while let Some(row) = rows.next(self)? {
            let is_due = is_due(&row);
            if !is_due && claim.is_none() {
                return Ok(None);
            }
            // What is due and has no place among these comes after them.
            if is_due && ended.len() == ENDED_MAX || past::is_let_go(self.view, inode, &row.at)? {
                continue;
            }
            let version = self.version(&row.at)?;
            let of = version.as_ref().and_then(claim_of);
            match version {
                Some(version) if is_due => {
                    if (claim.is_none() || claim == of) && self.is_kept(of)? {
                        claim = of;
                        ended.push(version);
                    }
                }
                None if is_due => {}
                Some(_) if of != claim => {}
                Some(version) if kept.len() < VERSIONS => kept.push(version),
                Some(_) | None => return Ok(None),
            }
        }
        let Some(claim) = claim.filter(|_| !ended.is_empty()) else { return Ok(None) };
        let heads = self.versions(inode)?;
        if heads.len() < browse::heads_of(self.view, self.keyring, inode)?.len() {
            return Ok(None);
        }
        kept.extend(heads.into_iter().filter(|version| claim_of(version) == Some(claim)));
        Ok(Some(Due::Versions { claim, ended, kept }))
    }

    fn is_kept(&self, claim: Option<ClaimId>) -> io::Result<bool> {
        claim.map_or(Ok(false), |claim| is_released(self.view, &claim).map(|gone| !gone))
    }

    /// The inodes with a name of which the winning version has this claim, and it and its conflict
    /// copies that have it too.
    pub fn named_under(&self, claim: &ClaimId) -> io::Result<Vec<(InodeId, Vec<Version>)>> {
        let mut out = Vec::new();
        for inode in past::inodes_of(self.view, claim, VERSIONS)? {
            if browse::links_of(self.view, &inode, 1)?.is_empty() {
                continue;
            }
            let mut versions = self.versions(&inode)?;
            if versions.first().and_then(claim_of) == Some(*claim) {
                versions.retain(|version| claim_of(version) == Some(*claim));
                out.push((inode, versions));
            }
        }
        Ok(out)
    }
}

/// Goes through the superseded versions of an inode, those first that were superseded first.
pub(super) struct PastVersions {
    inode: InodeId,
    page: std::vec::IntoIter<Ended>,
    last: Option<Ended>,
}

impl PastVersions {
    pub(super) fn of(inode: &InodeId) -> Self {
        Self { inode: *inode, page: Vec::new().into_iter(), last: None }
    }

    pub(super) fn next(&mut self, tree: &Tree<'_>) -> io::Result<Option<Ended>> {
        if self.page.len() == 0 {
            let rows = past::past_versions(tree.view, &self.inode, self.last.as_ref(), ROWS)?;
            self.last = rows.last().copied().or(self.last);
            self.page = rows.into_iter();
        }
        Ok(self.page.next())
    }
}

fn claim_of(version: &Version) -> Option<ClaimId> {
    match &version.node {
        Node::File(file) => Some(file.claim),
        Node::Dir { .. } | Node::Link(_) | Node::Special(_) | Node::Shared(_) => None,
    }
}
