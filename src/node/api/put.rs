//! What a put comes to: the claim it is made under, the records that make the file findable and
//! visible, and what is said of its copies. Owns the order of those records; how chunks are made
//! and delivered is `node::put`'s and `replicate`'s.

use super::Outcome;
use super::files::millis;
use crate::core::catalogue::{
    Attributes, Content as RecordContent, FileRecord, FileVersion, Node as TreeNode, UNLISTED,
    View as _, id_of,
};
use crate::core::tree::{NewFile, Tree};
use crate::core::{hlc, limits};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, FileHash, RecordId};
use crate::node::again::Holders;
use crate::node::attempt::Attempt;
use crate::node::publish::Publication;
use crate::node::put::{Content, Upload, Whereabouts};
use crate::node::records::records_of;
use crate::node::replicate::{Promise, Tally};
use crate::node::{OnProgress, PublishError, PutError, Shared};
use crate::store::Claim;
use crate::sys::{Source, SourceChanged};
use crate::wire::control::{HolderInfo, PathText, Put, Stored, Target, Wait};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often a put that waits for repair looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The same, when it takes long.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// How often a put is claimed for the file that is at its path, when that changes all the time.
const CLAIMED_AGAIN: usize = 3;

impl Shared {
    pub(super) async fn put(
        self: &Arc<Self>,
        put: Put,
        source: Box<dyn Source>,
        progress: OnProgress,
    ) -> Outcome<Stored> {
        let began = self.sys.clock.now();
        let keys = self.wait_for_keys().await?;
        let replicas = put.replicas.unwrap_or(self.config.replicas).clamp(1, limits::REPLICAS_MAX);
        self.whole(|| self.check_target(put.path.as_ref())).await?;
        let attempt = Attempt::new(self, replicas);
        let again = self.put_again(source, &keys, put.path.as_ref(), &attempt).await;
        let mut content = match again.map_err(PutError::Read)? {
            (_, Some(content)) => content,
            (source, None) => {
                let progress = progress.clone();
                let upload = Upload::new(self, keys.clone(), &attempt, put.compress, progress);
                upload.run(source).await?
            }
        };
        if put.len.is_some_and(|len| len != content.length) {
            // It was longer or shorter when the command opened it.
            return Err(PutError::from(SourceChanged).into());
        }
        let needed = Promise::now(&self.view(), replicas).nodes;
        self.write_down(&put, &keys, attempt, &mut content, needed).await?;
        let claim = content.claim;
        let wait_met = self.wait_for_copies(&put, claim, &content, &progress).await;
        let wanted = wanted(put.wait, replicas).filter(|_| wait_met);
        let mut stored = self.stored(put.path, &content, replicas, wait_met, began);
        if wanted.is_some_and(|wanted| stored.copies < wanted) {
            // The copies that were waited for are repair's: it has noted them, the tally has not.
            self.count_again(&mut stored).await?;
        } else {
            self.note_copies_later(claim, content.tally.clone());
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
        Ok(self.with_tree(|tree| tree.put_target(&path.0)).map(drop)?)
    }

    /// Makes the file findable and, if it has a path, visible.
    async fn write_down(
        self: &Arc<Self>,
        put: &Put,
        keys: &Arc<EpochKeys>,
        attempt: Attempt,
        content: &mut Content,
        needed: usize,
    ) -> Outcome<()> {
        self.keep_anew(put, keys, &attempt, content, needed).await?;
        let stored_under = content.claim;
        // Two plans for one path must see each other, so plan and record are one step.
        let mut planning = self.catalogue.planning.clone().lock_owned().await;
        let mut wanted = self.claim_for(put, content, attempt.claim().id)?;
        for _ in 0..CLAIMED_AGAIN {
            if content.claim.id == wanted {
                break;
            }
            drop(planning);
            // Now: what was let go of that file before is another matter.
            let renewed_ms = hlc::ms_of(self.tick());
            let claim = Claim { id: wanted, renewed_ms, ..content.claim };
            if self.claim_anew(put, keys, claim, content).await {
                content.claim = claim;
            }
            planning = self.catalogue.planning.clone().lock_owned().await;
            // Somebody may have removed the file meanwhile, or let its content go.
            let now = self.claim_for(put, content, attempt.claim().id)?;
            if now == wanted {
                break;
            }
            wanted = now;
        }
        if content.claim.id != wanted {
            // Its own claim is always good: nobody else can have let that go.
            if stored_under.id != attempt.claim().id {
                return Err(PutError::TooFewCopies { copies: 0, needed }.into());
            }
            content.claim = stored_under;
        }
        let file = file_record(put, keys, content);
        if let Some(records) = self.said_before(put, content, &file)? {
            drop(planning);
            // Whoever wrote them may have died before others had them.
            return Ok(self.publish_again(records, needed).await?);
        }
        let record = file.sign(&self.key, self.tick(), keys.epoch()).map_err(PublishError::from)?;
        let mut records = vec![record];
        if let Some(path) = &put.path {
            let id = id_of(&records[0]);
            records.push(self.name_it(put, path, keys, content, id)?);
        }
        let attempt = Some(attempt).filter(|attempt| content.claim.id == attempt.claim().id);
        let (commits, planned) = (vec![file.claim], Some(planning));
        self.publish(Publication { records, commits, needed, planned, attempt }).await?;
        Ok(())
    }

    /// Has the holders keep what took very long to put: one that missed the renewals of its claim
    /// may have given it up.
    async fn keep_anew(
        self: &Arc<Self>,
        put: &Put,
        keys: &Arc<EpochKeys>,
        attempt: &Attempt,
        content: &mut Content,
        needed: usize,
    ) -> Outcome<()> {
        if content.claim.id != attempt.claim().id || !attempt.may_have_lapsed() {
            return Ok(());
        }
        content.claim = attempt.offer();
        let mut records = vec![(file_record(put, keys, content), keys.clone())];
        let kept = match self.open_file(content.hash, &mut records).await {
            Ok(opened) => self.claim_parts(&opened, content.claim).await,
            Err(_) => false,
        };
        // What is on too few nodes now was on enough before, and repair sees to it.
        if kept { Ok(()) } else { Err(PutError::TooFewCopies { copies: 0, needed }.into()) }
    }

    /// The claim under which a put is to be kept: that of the file that is at the path, or of the
    /// same content that this node has put without a name; else its own.
    fn claim_for(&self, put: &Put, content: &Content, own: ClaimId) -> Outcome<ClaimId> {
        let known = match &put.path {
            Some(path) => self.file_there(path)?.map(|file| file.claim),
            None => {
                let replicas = content.claim.replicas;
                let known =
                    self.read_records(|view| self.own_unlisted(view, &content.hash, replicas))?;
                let same = known.iter().find(|known| known.file.content == place(content));
                same.map(|known| known.file.claim)
            }
        };
        Ok(known.unwrap_or(own))
    }

    /// Has the holders of what was put keep it for another claim; whether enough do.
    async fn claim_anew(
        self: &Arc<Self>,
        put: &Put,
        keys: &Arc<EpochKeys>,
        claim: Claim,
        content: &Content,
    ) -> bool {
        let mut records = vec![(file_record(put, keys, content), keys.clone())];
        let Ok(opened) = self.open_file(content.hash, &mut records).await else { return false };
        self.claim_all(&opened, claim, Holders::Any).await.is_some()
    }

    /// The records that say what a put would write down, if all of it is said already: that a file
    /// is made of the same chunks and, if the put has a path, that it is there.
    fn said_before(
        &self,
        put: &Put,
        content: &Content,
        file: &FileRecord,
    ) -> Outcome<Option<Vec<Vec<u8>>>> {
        let keyring = self.catalogue.keyring();
        Ok(self.read_records(|view| {
            let mut ids = Vec::new();
            if let Some(path) = &put.path {
                let entry = Tree::new(view, &keyring).resolve(&path.0).ok();
                let Some(entry) = entry else { return Ok(None) };
                let TreeNode::File(version) = &entry.version.node else { return Ok(None) };
                let Some(id) = version.record else { return Ok(None) };
                let there = crate::core::catalogue::file_record(view, &id)?;
                if version.hash != content.hash || there.as_ref() != Some(file) {
                    return Ok(None);
                }
                ids.extend([id, entry.version.record]);
            } else {
                let known = self.own_unlisted(view, &content.hash, file.replicas)?;
                let Some(same) = known.iter().find(|known| known.file == *file) else {
                    return Ok(None);
                };
                ids.push(same.id);
            }
            let records = ids.iter().map(|id| view.record(id));
            Ok(records.collect::<io::Result<Vec<_>>>()?.into_iter().collect())
        })?)
    }

    /// The tree record that gives the file its path.
    fn name_it(
        &self,
        put: &Put,
        path: &PathText,
        keys: &EpochKeys,
        content: &Content,
        record: RecordId,
    ) -> Outcome<Vec<u8>> {
        let now_ns =
            i64::try_from(self.sys.clock.wall_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000;
        let version = FileVersion {
            hash: content.hash,
            size: content.length,
            claim: content.claim.id,
            record: Some(record),
        };
        let attributes = Attributes {
            mode: put.mode.unwrap_or(0o644) & 0o7777,
            mtime_ns: put.mtime_ns.unwrap_or(now_ns),
            ..Attributes::default()
        };
        let file = NewFile { version, attributes };
        self.sign_plan(keys, |tree, inode| tree.plan_put(&path.0, file, inode))
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
        let file = self.open_file(hash, &mut records).await.ok()?;
        self.survey(&file).await.ok()?.fewest
    }

    /// When all copies are there, or the put has given up on some, writes down how many.
    fn note_copies_later(self: &Arc<Self>, claim: Claim, tally: Arc<Tally>) {
        let shared = self.clone();
        tokio::spawn(async move {
            tally.reached(usize::from(claim.replicas)).await;
            let count = tally.count();
            let copies = if count.any {
                u8::try_from(count.copies).unwrap_or(u8::MAX).max(1)
            } else {
                shared.copies_of_records(claim.replicas)
            };
            if let Err(err) = shared.set_copies(claim.id, copies).await {
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
        began: crate::sys::Time,
    ) -> Stored {
        let view = self.view();
        let mut count = content.tally.count();
        if !count.any {
            // Nothing but records: those are here, and at every member soon.
            (count.copies, count.machines) = (1, 1);
            count.holders = vec![self.me];
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

/// What a put says of the file.
fn file_record(put: &Put, keys: &EpochKeys, content: &Content) -> FileRecord {
    FileRecord {
        claim: content.claim.id,
        lookup: keys.lookup(&content.hash),
        content: place(content),
        replicas: content.claim.replicas,
        flags: if put.path.is_some() { 0 } else { UNLISTED },
    }
}

/// Where the manifest is, as a file record says it.
fn place(content: &Content) -> RecordContent {
    match &content.manifest {
        Whereabouts::Inline(sealed) => RecordContent::Inline(sealed.clone()),
        Whereabouts::Stored { cid, len } => {
            RecordContent::Stored { manifest: *cid, sealed_len: *len }
        }
    }
}
