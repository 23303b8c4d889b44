//! What is asked about files that are served from where they lie: to share and unshare them, and
//! what is shared by whom.

use super::files::millis;
use super::{Error, Outcome};
use crate::core::tree::{Share as TreeShare, ShareWalk};
use crate::id::{FileHash, NodeId};
use crate::node::records::stopping;
use crate::node::share::Entry;
use crate::node::view::View;
use crate::node::{OnProgress, PublishError, ShareError, Shared, joined};
use crate::wire::control::{
    NotShared, PathText, Share, ShareDone, ShareInfo, ShareState, Unshared,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Entries of a list that are read at once.
const LIST_PAGE: usize = 1024;

impl Shared {
    /// Shares a path; `seen` is the device and inode that the asker sees there. Dropping the future
    /// ends the waiting and nothing else.
    pub(super) async fn share(
        self: &Arc<Self>,
        share: Share,
        seen: Option<(u64, u64)>,
        progress: OnProgress,
    ) -> Outcome<ShareDone> {
        let began = self.sys.clock.now();
        self.wait_for_keys().await?;
        let shared = self.clone();
        let added = self.job(move || {
            let path = Path::new(OsStr::from_bytes(&share.path.0));
            let name = share.name.as_ref().map(|name| name.0.strip_prefix(b"/").unwrap_or(&name.0));
            shared.add_share(path, name, share.replicas, seen)
        });
        let entry = added.await??;
        let (shared, of) = (self.clone(), entry.clone());
        let work = tokio::spawn(async move {
            let _turn = of.wait_for_turn().await;
            let mut walked = shared.go_through(&of, true, &progress).await?;
            if of.is_away() {
                return Err(ShareError::NotSeen.into());
            }
            shared.keep_copies(&of, &mut walked, &progress).await?;
            Ok::<_, Error>(walked)
        });
        let walked = joined(work.await);
        let walked = walked.unwrap_or_else(|| Err(PublishError::from(stopping()).into()))?;
        let why = walked.why.into_iter().map(|(path, why)| NotShared { path: PathText(path), why });
        Ok(ShareDone {
            owner: self.view().name(&self.me),
            path: called(&entry),
            files: walked.files,
            bytes: walked.bytes,
            hash: walked.hash.filter(|_| !entry.spec.is_dir),
            replicas: entry.spec.replicas,
            passed_over: walked.passed_over,
            failed: walked.failed,
            why: why.collect(),
            took_ms: millis(self.sys.clock.now().since(began)),
        })
    }

    /// Shares no more what is called so: by its path here, which may be given whole as well, by its
    /// name, or by its hash.
    pub(super) async fn unshare(
        self: &Arc<Self>,
        what: &PathText,
        path: Option<&PathText>,
    ) -> Outcome<Unshared> {
        self.wait_for_keys().await?;
        let entry = self.meant_share(what, path)?.ok_or(ShareError::NotShared)?;
        let (shared, of) = (self.clone(), entry.clone());
        let work = tokio::spawn(async move {
            let (at, id) = (shared.clone(), of.spec.id);
            let files = shared.count_files(id).await?;
            // First: whoever goes through it stops then.
            shared.job(move || at.remove_share(&id)).await??;
            let _turn = of.wait_for_turn().await;
            shared.forget_away(&of);
            shared.sweep().await?;
            Ok::<_, Error>(files)
        });
        let swept = joined(work.await);
        let files = swept.unwrap_or_else(|| Err(PublishError::from(stopping()).into()))?;
        Ok(Unshared { path: called(&entry), files })
    }

    fn meant_share(&self, what: &PathText, path: Option<&PathText>) -> Outcome<Option<Entry>> {
        let shares = self.shares();
        let by_path = |entry: &&Entry| {
            let own = entry.spec.path.as_os_str().as_bytes();
            own == what.0 || path.is_some_and(|path| own == path.0)
        };
        let name = what.0.strip_prefix(b"/").unwrap_or(&what.0);
        let by_name = |entry: &&Entry| entry.spec.name.as_bytes() == name;
        let found = shares.iter().find(by_path).or_else(|| shares.iter().find(by_name));
        if found.is_some() {
            return Ok(found.cloned());
        }
        let hash = std::str::from_utf8(&what.0).ok().map(str::parse::<FileHash>);
        let Some(Ok(hash)) = hash else { return Ok(None) };
        for entry in shares.iter().filter(|entry| !entry.spec.is_dir) {
            let said = self.with_tree(|tree| Ok(tree.share(&self.me, &called(entry).0)?))?;
            if said.is_some_and(|share| share.file.version.hash == hash) {
                return Ok(Some(entry.clone()));
            }
        }
        Ok(None)
    }

    /// Visits what is shared by everybody or, with a peer, by that one at a path and below.
    pub(super) fn list_shares(
        &self,
        of: Option<(&str, &PathText)>,
        visit: &mut dyn FnMut(ShareInfo) -> bool,
    ) -> Outcome<()> {
        // Without keys every name is sealed: an empty list would be a lie.
        self.keys()?;
        let of = match of {
            Some((peer, path)) => Some((self.member(peer)?, trimmed(&path.0).to_vec())),
            None => None,
        };
        let mut walk = ShareWalk::new(of.as_ref().map(|(id, path)| (id, &path[..])));
        loop {
            let mut page = Vec::new();
            let more = self.with_tree(|tree| {
                Ok(tree.walk_shares(&mut walk, &mut |share| {
                    page.push(share);
                    page.len() < LIST_PAGE
                })?)
            })?;
            let view = self.view();
            let away: Vec<Entry> = self.shares().into_iter().filter(Entry::is_away).collect();
            let mut infos = page.into_iter().map(|share| self.share_info(&view, &away, share));
            if !infos.all(&mut *visit) || !more {
                return Ok(());
            }
        }
    }

    fn share_info(&self, view: &View, away: &[Entry], share: TreeShare) -> ShareInfo {
        let since_ms = self.away_since(view, &share.sharer);
        let state = match share.sharer == self.me {
            true if away.iter().any(|own| own.holds(&share.file.path)) => ShareState::Away,
            true => ShareState::Here,
            false if view.lives(&share.sharer) => ShareState::There,
            false => ShareState::Offline,
        };
        ShareInfo {
            owner: view.name(&share.sharer),
            owner_id: share.sharer,
            path: PathText(share.file.path),
            hash: share.file.version.hash,
            size: share.file.version.size,
            mtime_ns: share.attributes.mtime_ns,
            state,
            since_ms,
        }
    }

    /// The member that a person means.
    pub(super) fn member(&self, peer: &str) -> Outcome<NodeId> {
        match self.the_peer(peer) {
            Err(Error::ThisNode) => Ok(self.me),
            Err(Error::UnknownPeer) if self.view().name(&self.me) == peer => Ok(self.me),
            meant => meant,
        }
    }
}

/// What a share is called.
fn called(entry: &Entry) -> PathText {
    PathText([b"/", entry.spec.name.as_bytes()].concat())
}

/// A path without a slash at its end.
fn trimmed(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}
