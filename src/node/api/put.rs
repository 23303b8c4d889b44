//! What a put comes to: the copies that are waited for, and what is said of them. How chunks are
//! made and delivered is `node::put`'s and `replicate`'s, how the file becomes known `commit`'s.

use super::Outcome;
use super::commit::Prepared;
use super::files::millis;
use crate::chunk::CHUNK_LEN;
use crate::core::catalogue::Node as TreeNode;
use crate::core::limits;
use crate::core::tree::{Entry, TreeError, Version};
use crate::crypto::EpochKeys;
use crate::id::FileHash;
use crate::node::attempt::Attempt;
use crate::node::put::{Content, Upload};
use crate::node::records::records_of;
use crate::node::replicate::{Promise, Tally};
use crate::node::{OnProgress, PutError, Shared};
use crate::store::Claim;
use crate::sys::{Source, SourceChanged, Time};
use crate::wire::control::{HolderInfo, PathText, Put, Stored, Target, Wait};
use std::sync::Arc;
use std::time::Duration;

/// How often a put that waits for repair looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The same, when it takes long.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What was put, and the acknowledgements that are still to come.
pub(in crate::node) type Settling = (Claim, Arc<Tally>);

impl Shared {
    pub(in crate::node) async fn put(
        self: &Arc<Self>,
        put: Put,
        source: Box<dyn Source>,
        progress: OnProgress,
    ) -> Outcome<Stored> {
        let began = self.sys.clock.now();
        let keys = self.wait_for_keys().await?;
        self.whole(|| self.check_target(put.path.as_ref())).await?;
        let file = self.prepare(put, &keys, source, progress.clone()).await?;
        let needed = Promise::now(&self.view(), file.content.claim.replicas).nodes;
        let (mut files, _) = self.write_down(&keys, vec![file], Vec::new(), needed).await?;
        let mut file = files.pop().expect("what goes in comes out");
        match file.failed.take() {
            Some(err) => Err(err),
            None => {
                let mut settling = Vec::new();
                let stored = self.finished(&file, &progress, began, &mut settling).await;
                self.note_copies_later(settling);
                stored
            }
        }
    }

    /// How many copies a put is to have.
    pub(super) fn copies_wanted(&self, asked: Option<u8>) -> u8 {
        asked.unwrap_or(self.config.replicas).clamp(1, limits::REPLICAS_MAX)
    }

    /// Stores the bytes of a file: when it returns they are on enough disks, and nobody knows of
    /// them.
    pub(super) async fn prepare(
        self: &Arc<Self>,
        put: Put,
        keys: &Arc<EpochKeys>,
        source: Box<dyn Source>,
        progress: OnProgress,
    ) -> Outcome<Prepared> {
        let replicas = self.copies_wanted(put.replicas);
        let attempt = Attempt::new(self, replicas);
        // Of one chunk it is looked for when it is stored: nothing has to be read twice.
        let again = match put.len.is_some_and(|len| len <= CHUNK_LEN as u64) {
            true => (source, None),
            false => {
                let again = self.put_again(source, keys, put.path.as_ref(), &attempt).await;
                again.map_err(PutError::Read)?
            }
        };
        let content = match again {
            (_, Some(content)) => content,
            (source, None) => {
                let upload = Upload::new(self, keys.clone(), &attempt, put.compress, progress);
                upload.run(source, put.len).await?
            }
        };
        if put.len.is_some_and(|len| len != content.length) {
            // It was longer or shorter when the command opened it.
            return Err(PutError::from(SourceChanged).into());
        }
        Ok(Prepared::new(put, attempt, content))
    }

    /// What is said of a file that is written down, once the copies are there that were waited for.
    /// Adds it to what is `settling` when the copies are to be noted.
    pub(super) async fn finished(
        self: &Arc<Self>,
        file: &Prepared,
        progress: &OnProgress,
        began: Time,
        settling: &mut Vec<Settling>,
    ) -> Outcome<Stored> {
        let Prepared { put, content, .. } = file;
        let (claim, replicas) = (content.claim, content.claim.replicas);
        let wait_met = self.wait_for_copies(put, claim, content, progress).await;
        let wanted = wanted(put.wait, replicas).filter(|_| wait_met);
        let mut stored = self.stored(put.path.clone(), content, replicas, wait_met, began);
        if wanted.is_some_and(|wanted| stored.copies < wanted) {
            // The copies that were waited for are repair's: it has noted them, the tally has not.
            self.count_again(&mut stored).await?;
        } else {
            settling.push((claim, content.tally.clone()));
        }
        Ok(stored)
    }

    /// Asks who has the file now.
    async fn count_again(self: &Arc<Self>, stored: &mut Stored) -> Outcome<()> {
        let stat = self.stat(&Target::Hash(stored.hash)).await?;
        let whole = stat.holders.iter().filter(|h| h.chunks + stat.zero_chunks == stat.chunks);
        let whole: Vec<&HolderInfo> = whole.collect();
        let machines = self.view().machines(whole.iter().map(|holder| &holder.id));
        stored.copies = stat.info.copies.unwrap_or(stored.copies);
        stored.machines = u8::try_from(machines).unwrap_or(u8::MAX).max(1);
        stored.holders = whole.into_iter().map(|holder| holder.name.clone()).collect();
        Ok(())
    }

    /// Whether a file can be put there.
    fn check_target(&self, path: Option<&PathText>) -> Outcome<()> {
        let Some(path) = path else { return Ok(()) };
        self.with_tree(|tree| match tree.resolve(&path.0) {
            Ok(Entry { version: Version { node: TreeNode::Link(_), .. }, .. }) => {
                Err(TreeError::IsALink)
            }
            _ => tree.put_target(&path.0).map(drop),
        })?;
        Ok(())
    }

    /// Waits for as many copies as were asked for; whether they are there.
    async fn wait_for_copies(
        self: &Arc<Self>,
        put: &Put,
        claim: Claim,
        content: &Content,
        progress: &OnProgress,
    ) -> bool {
        let Some(wanted) = wanted(put.wait, claim.replicas) else { return true };
        let (hash, tally) = (content.hash, &content.tally);
        let reached = async {
            tally.reached(usize::from(wanted)).await;
            let count = tally.count();
            let mut enough = !count.any || count.copies >= usize::from(wanted);
            let mut pause = LOOK_AGAIN;
            if !enough {
                progress(content.length, Some(content.length));
            }
            // What the put itself could not deliver, repair will: when there are nodes for it. What
            // was noted of this claim may be of an earlier version, so the holders are asked.
            while !enough {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_AGAIN_MAX);
                enough = self.fewest_copies(hash).await.is_some_and(|copies| copies >= wanted);
            }
        };
        match put.timeout_ms {
            None => {
                reached.await;
                true
            }
            Some(ms) => tokio::time::timeout(Duration::from_millis(ms), reached).await.is_ok(),
        }
    }

    /// How many copies every chunk of a file has now, as its holders say.
    async fn fewest_copies(self: &Arc<Self>, hash: FileHash) -> Option<u8> {
        let keyring = self.catalogue.keyring();
        let mut records = self.read_records(|view| records_of(view, &keyring, &hash)).ok()?;
        records.retain(|found| !found.record.is_shared());
        let file = self.open_file(hash, &mut records).await.ok()?;
        self.survey(&file).await.ok()?.fewest
    }

    /// When all copies are there, or the puts have given up on some, writes down how many: of all
    /// that were put together in one step, because each holds up what waits for the disk.
    pub(in crate::node) fn note_copies_later(self: &Arc<Self>, settling: Vec<Settling>) {
        if settling.is_empty() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let mut found = Vec::with_capacity(settling.len());
            for (claim, tally) in settling {
                tally.reached(usize::from(claim.replicas)).await;
                let count = tally.count();
                let copies = if count.any {
                    u8::try_from(count.copies).unwrap_or(u8::MAX).max(1)
                } else {
                    shared.copies_of_records(claim.replicas)
                };
                found.push((claim.id, copies));
            }
            if let Err(err) = shared.set_copies(found).await {
                tracing::debug!(%err, "the number of copies was not noted");
            }
        });
    }

    fn stored(
        &self,
        path: Option<PathText>,
        content: &Content,
        replicas: u8,
        wait_met: bool,
        began: Time,
    ) -> Stored {
        let view = self.view();
        let mut count = content.tally.count();
        if !count.any {
            // Nothing but records, which every member keeps.
            count.copies = usize::from(self.copies_of_records(replicas));
            let others = view.others().map(|member| member.record.id);
            count.holders = std::iter::once(self.me).chain(others).take(count.copies).collect();
            count.machines = view.machines(&count.holders).max(1);
        }
        count.holders.sort_by_key(|id| *id != self.me);
        Stored {
            hash: content.hash,
            size: content.length,
            path,
            copies: u8::try_from(count.copies).unwrap_or(u8::MAX),
            replicas,
            machines: u8::try_from(count.machines).unwrap_or(u8::MAX),
            holders: count.holders.iter().map(|id| view.name(id)).collect(),
            new_bytes: count.new_bytes,
            nodes_with_room: u32::try_from(view.with_room()).unwrap_or(u32::MAX),
            took_ms: millis(self.sys.clock.now().since(began)),
            wait_met,
        }
    }
}

/// How many copies are waited for, when that is asked for.
fn wanted(wait: Option<Wait>, replicas: u8) -> Option<u8> {
    Some(match wait? {
        Wait::All => replicas,
        Wait::Copies(copies) => copies.min(replicas),
    })
}
