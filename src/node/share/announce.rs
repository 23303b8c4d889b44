//! The records of what is served in place: that it is here, and that it is not any more. Owns what
//! is said and in which step; what there is to say follows from the row files.

use super::list::Entry;
use super::{RowKey, Shared};
use crate::core::catalogue::{
    Attributes, Content, FileRecord, FileVersion, Release, SHARED, Scope, id_of,
};
use crate::core::tree::Planner;
use crate::crypto::{EpochKeys, chunk_id};
use crate::id::ClaimId;
use crate::node::PublishError;
use crate::node::api::Outcome;
use crate::node::publish::Publication;
use std::io;
use std::sync::Arc;

/// What is said of one file.
struct Letter {
    path: Vec<u8>,
    keys: Arc<EpochKeys>,
    record: FileRecord,
    version: FileVersion,
    attributes: Attributes,
}

impl Shared {
    /// Says of files whose rows are there that they are shared. What was said of the same names
    /// before ends with that.
    pub(super) async fn announce_shares(self: &Arc<Self>, files: Vec<RowKey>) -> Outcome<()> {
        if files.is_empty() {
            return Ok(());
        }
        let keys = self.keys()?;
        let shared = self.clone();
        let read = self.job(move || files.into_iter().map(|key| shared.letter(key)).collect());
        let letters: io::Result<Vec<Option<Letter>>> = read.await?;
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let (mut records, mut ended) = (Vec::new(), Vec::new());
        let plan = |planner: &mut Planner<'_, '_>| -> Outcome<()> {
            for mut letter in letters?.into_iter().flatten() {
                let there = planner.tree().share(&self.me, &letter.path)?;
                let before = there.map(|share| share.file.version.claim);
                if before == Some(letter.version.claim) {
                    continue;
                }
                let epoch = letter.keys.epoch();
                let signed = letter.record.sign(&self.key, self.tick(), epoch);
                let signed = signed.map_err(PublishError::from)?;
                letter.version.record = Some(id_of(&signed));
                let Letter { path, version, attributes, .. } = letter;
                planner.share(&self.me, &path, version, attributes)?;
                records.push(signed);
                ended.extend(before);
            }
            Ok(())
        };
        let ((), named) = self.sign_plan(&keys, plan)?;
        records.extend(named);
        self.say_shares(records, &ended, planning).await
    }

    /// Says that files are shared no more, as far as that was said of these very ones.
    pub(super) async fn withdraw_shares(
        self: &Arc<Self>,
        files: &[(Vec<u8>, ClaimId)],
    ) -> Outcome<()> {
        if files.is_empty() {
            return Ok(());
        }
        let keys = self.keys()?;
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let mut ended = Vec::new();
        let plan = |planner: &mut Planner<'_, '_>| -> Outcome<()> {
            for (path, claim) in files {
                let there = planner.tree().share(&self.me, path)?;
                if there.is_some_and(|share| share.file.version.claim == *claim) {
                    planner.unshare(&self.me, path)?;
                    ended.push(*claim);
                }
            }
            Ok(())
        };
        let ((), records) = self.sign_plan(&keys, plan)?;
        self.say_shares(records, &ended, planning).await
    }

    /// Publishes records, and the end of what these claims were for.
    async fn say_shares(
        self: &Arc<Self>,
        mut records: Vec<Vec<u8>>,
        ended: &[ClaimId],
        planning: tokio::sync::OwnedMutexGuard<()>,
    ) -> Outcome<()> {
        for claim in ended {
            let release = Release { claim: *claim, scope: Scope::All };
            let signed = release.sign(&self.key, self.tick());
            records.push(signed.map_err(PublishError::from)?);
        }
        if records.is_empty() {
            return Ok(());
        }
        let planned = Some(planning);
        let own = Publication { records, needed: 1, planned, ..Publication::default() };
        self.publish(own).await?;
        Ok(())
    }

    /// What a row file has to say; none: it is not there any more, or cannot be used.
    fn letter(&self, key: RowKey) -> io::Result<Option<Letter>> {
        let Some(rows) = self.open_rows(key)? else { return Ok(None) };
        let keyring = self.catalogue.keyring();
        let Some(keys) = keyring.get(&rows.head.epoch) else { return Ok(None) };
        let Some((sealed, parts)) = self.sealed_manifest(&rows)? else { return Ok(None) };
        let content = if parts <= 1 {
            Content::Inline(sealed)
        } else {
            let sealed_len = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
            Content::Stored { manifest: chunk_id(&sealed), sealed_len }
        };
        let (claim, hash) = rows.ends()?;
        let lookup = keys.lookup(&hash);
        let record = FileRecord { claim, lookup, content, replicas: 0, flags: SHARED };
        let stamp = rows.head.stamp;
        let version = FileVersion { hash, size: stamp.len, claim, record: None };
        let attributes =
            Attributes { mode: stamp.mode, mtime_ns: stamp.mtime_ns, ..Attributes::default() };
        let path = rows.head.path;
        Ok(Some(Letter { path, keys: Arc::new(keys.clone()), record, version, attributes }))
    }

    /// Whether it is said of a file that it is shared, and under which claim.
    pub(super) fn is_announced(&self, called: &[u8], claim: &ClaimId) -> Outcome<bool> {
        let said = self.with_tree(|tree| Ok(tree.share(&self.me, called)?))?;
        Ok(said.is_some_and(|share| share.file.version.claim == *claim))
    }

    /// Whether a share is still on the list.
    pub(super) fn is_on_list(&self, entry: &Entry) -> bool {
        self.shared_here.list.get(&entry.spec.id).is_some()
    }
}
