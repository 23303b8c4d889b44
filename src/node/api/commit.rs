//! Writing down what was stored: the claim under which it is kept, then in one step the records
//! that make files findable and visible, with directories and links. Owns the order of those; which
//! changes a name comes to is `core::tree`'s, how records reach the others `node::publish`'s.
//!
//! Invariant: a file that is named is kept under the claim that its record names, by as many nodes
//! as a put promises.

use super::{Error, Outcome};
use crate::core::catalogue::{
    Attributes, Content as RecordContent, FileRecord, FileVersion, Node as TreeNode, UNLISTED,
    View as _, id_of,
};
use crate::core::hlc;
use crate::core::tree::{NewFile, Planner, Tree};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, RecordId};
use crate::node::again::Holders;
use crate::node::attempt::Attempt;
use crate::node::publish::Publication;
use crate::node::put::{Content, Whereabouts};
use crate::node::records::{FoundRecord, stopping};
use crate::node::{PublishError, PutError, Shared, joined};
use crate::store::Claim;
use crate::wire::control::{PathText, Put};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

/// How often a put is claimed for the file that is at its path, when that changes all the time.
const CLAIMED_AGAIN: usize = 3;

/// A file of which the bytes are stored, and which nobody knows of.
pub(super) struct Prepared {
    /// How it was put.
    pub put: Put,
    /// What it is made of; its claim is the one under which it is kept.
    pub content: Content,
    /// Why it was not written down.
    pub failed: Option<Error>,
    /// Whether all of it was written down before.
    pub known: bool,
    /// Withdrawn when it is dropped before anybody can know of the file.
    attempt: Option<Attempt>,
    /// The put's own claim.
    own: ClaimId,
    /// The claim that it was stored under.
    stored_under: Claim,
    /// A claim that its holders did not take.
    refused: Option<ClaimId>,
}

/// A directory or link that is written down.
pub(super) struct Other {
    pub path: PathText,
    pub attributes: Attributes,
    /// Of a link.
    pub target: Option<Vec<u8>>,
    /// Why it was not written down.
    pub failed: Option<Error>,
}

impl Prepared {
    pub(super) const fn new(put: Put, attempt: Attempt, content: Content) -> Self {
        let (own, stored_under) = (attempt.claim().id, content.claim);
        let (failed, known, refused) = (None, false, None);
        Self { put, content, failed, known, attempt: Some(attempt), own, stored_under, refused }
    }

    /// What is said of the file.
    fn record(&self, keys: &EpochKeys) -> FileRecord {
        FileRecord {
            claim: self.content.claim.id,
            lookup: keys.lookup(&self.content.hash),
            content: place(&self.content),
            replicas: self.content.claim.replicas,
            flags: if self.put.path.is_some() { 0 } else { UNLISTED },
        }
    }

    fn attributes(&self, now_ns: i64) -> Attributes {
        let mut attributes = Attributes {
            mode: self.put.mode.unwrap_or(0o644) & 0o7777,
            mtime_ns: self.put.mtime_ns.unwrap_or(now_ns),
            ..Attributes::default()
        };
        attributes.set_tags(self.put.tags.clone());
        attributes
    }

    /// Whether a version has the attributes that were asked for.
    fn has(&self, attributes: &Attributes) -> bool {
        self.put.mode.is_none_or(|mode| mode & 0o7777 == attributes.mode)
            && self.put.mtime_ns.is_none_or(|mtime_ns| mtime_ns == attributes.mtime_ns)
            && (self.put.tags.is_empty() || self.attributes(0).tags() == attributes.tags())
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

/// Records that are published together.
#[derive(Default)]
struct Letters {
    records: Vec<Vec<u8>>,
    commits: Vec<ClaimId>,
    attempts: Vec<Attempt>,
    /// Those that are here already, which enough others must have.
    again: Vec<Vec<u8>>,
}

impl Shared {
    /// Makes files findable and, if they have a path, visible, with directories and links. Each
    /// says for itself why it was not written down; after an error none was. Dropping the future
    /// stops nothing: chunks would stay claimed for a file that needs none of them.
    pub(super) async fn write_down(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        mut files: Vec<Prepared>,
        mut others: Vec<Other>,
        needed: usize,
    ) -> Outcome<(Vec<Prepared>, Vec<Other>)> {
        let (shared, keys) = (self.clone(), keys.clone());
        let writing = tokio::spawn(async move {
            let written = shared.write_all_down(&keys, &mut files, &mut others, needed).await;
            written.map(|()| (files, others))
        });
        let written = joined(writing.await);
        written.unwrap_or_else(|| Err(PublishError::from(stopping()).into()))
    }

    async fn write_all_down(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        files: &mut [Prepared],
        others: &mut [Other],
        needed: usize,
    ) -> Outcome<()> {
        for file in &mut *files {
            file.failed = self.keep_anew(keys, file, needed).await.err();
        }
        // Two plans for one path must see each other, so plan and record are one step.
        let planning = self.settle_claims(keys, files, needed).await;
        let letters = self.letters(keys, files, others)?;
        let Letters { records, commits, attempts, again } = letters;
        if records.is_empty() {
            drop(planning);
        } else {
            let planned = Some(planning);
            self.publish(Publication { records, commits, needed, planned, attempts }).await?;
        }
        if !again.is_empty() {
            // Whoever wrote them may have died before others had them.
            self.publish_again(again, needed).await?;
        }
        Ok(())
    }

    /// Has the holders keep what took very long to put: one that missed the renewals of its claim
    /// may have given it up.
    async fn keep_anew(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        file: &mut Prepared,
        needed: usize,
    ) -> Outcome<()> {
        let Some(attempt) = file.attempt.as_ref().filter(|attempt| attempt.may_have_lapsed())
        else {
            return Ok(());
        };
        if file.content.claim.id != file.own {
            return Ok(());
        }
        file.content.claim = attempt.offer();
        file.stored_under = file.content.claim;
        let mut records = vec![self.own_record(file.record(keys), keys)];
        let kept = match self.open_file(file.content.hash, &mut records).await {
            Ok(opened) => self.claim_parts(&opened, file.content.claim).await,
            Err(_) => false,
        };
        // What is on too few nodes now was on enough before, and repair sees to it.
        if kept { Ok(()) } else { Err(PutError::TooFewCopies { copies: 0, needed }.into()) }
    }

    /// A record that this node is about to sign.
    fn own_record(&self, record: FileRecord, keys: &Arc<EpochKeys>) -> FoundRecord {
        FoundRecord { author: self.me, record, keys: keys.clone() }
    }

    /// Has every file kept under the claim of what is at its path; the lock of the plans, under
    /// which that stays so.
    async fn settle_claims(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        files: &mut [Prepared],
        needed: usize,
    ) -> OwnedMutexGuard<()> {
        let mut rounds = 0;
        loop {
            let planning = self.catalogue.planning.clone().lock_owned().await;
            let unsettled = self.unsettled(files);
            if unsettled.is_empty() {
                return planning;
            }
            let (open, given_up): (Vec<_>, Vec<_>) = unsettled
                .into_iter()
                .partition(|(at, id)| rounds < CLAIMED_AGAIN && files[*at].refused != Some(*id));
            if open.is_empty() {
                for (at, _) in given_up {
                    let file = &mut files[at];
                    // Its own claim is always good: nobody else can have let that go.
                    file.content.claim = file.stored_under;
                    if file.stored_under.id != file.own {
                        file.failed = Some(PutError::TooFewCopies { copies: 0, needed }.into());
                    }
                }
                return planning;
            }
            drop(planning);
            // Meanwhile somebody may remove a file, or let its content go.
            self.claim_all_anew(keys, files, open).await;
            rounds += 1;
        }
    }

    /// The files that are not kept under the claim that they should be, and that claim.
    fn unsettled(&self, files: &mut [Prepared]) -> Vec<(usize, ClaimId)> {
        let mut out = Vec::new();
        for (at, file) in files.iter_mut().enumerate().filter(|(_, file)| file.failed.is_none()) {
            match self.claim_for(file) {
                Ok(wanted) if wanted == file.content.claim.id => {}
                Ok(wanted) => out.push((at, wanted)),
                Err(err) => file.failed = Some(err),
            }
        }
        out
    }

    /// The claim under which a put is to be kept: that of the file that is at the path, or of the
    /// same content that this node has put without a name; else its own.
    fn claim_for(&self, file: &Prepared) -> Outcome<ClaimId> {
        let known = match &file.put.path {
            Some(path) => self.file_there(path)?.map(|there| there.claim),
            None => {
                let (hash, replicas) = (&file.content.hash, file.content.claim.replicas);
                let known = self.read_records(|view| self.own_unlisted(view, hash, replicas))?;
                let same = known.iter().find(|known| known.file.content == place(&file.content));
                same.map(|known| known.file.claim)
            }
        };
        Ok(known.unwrap_or(file.own))
    }

    /// Has the holders of what was put keep it for other claims, all at once.
    async fn claim_all_anew(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        files: &mut [Prepared],
        wanted: Vec<(usize, ClaimId)>,
    ) {
        let mut claiming = JoinSet::new();
        for (at, id) in wanted {
            let file = &files[at];
            // Now: what was let go of that file before is another matter.
            let claim = Claim { id, renewed_ms: hlc::ms_of(self.tick()), ..file.content.claim };
            let (shared, hash) = (self.clone(), file.content.hash);
            let mut records = vec![self.own_record(file.record(keys), keys)];
            claiming.spawn(async move {
                let kept = match shared.open_file(hash, &mut records).await {
                    Ok(opened) => shared.claim_all(&opened, claim, Holders::Any).await.is_some(),
                    Err(_) => false,
                };
                (at, claim, kept)
            });
        }
        for (at, claim, kept) in claiming.join_all().await {
            if kept {
                files[at].content.claim = claim;
            } else {
                files[at].refused = Some(claim.id);
            }
        }
    }

    /// What is to be published, once every file has its claim.
    fn letters(
        &self,
        keys: &EpochKeys,
        files: &mut [Prepared],
        others: &mut [Other],
    ) -> Outcome<Letters> {
        let mut letters = Letters::default();
        let mut signed = Vec::new();
        let mut again = BTreeSet::new();
        for file in files.iter_mut().filter(|file| file.failed.is_none()) {
            let record = file.record(keys);
            let attempt = file.attempt.take().filter(|_| record.claim == file.own);
            if let Some(said) = self.said_before(file, &record)? {
                file.known = true;
                again.extend(said);
                continue;
            }
            let bytes = record.sign(&self.key, self.tick(), keys.epoch());
            signed.push((file, attempt, bytes.map_err(PublishError::from)?));
        }
        letters.again = again.into_iter().collect();
        let now_ns = self.now_ns();
        let plan = |planner: &mut Planner<'_, '_>| -> Outcome<()> {
            others.iter_mut().for_each(|other| other.plan(planner));
            for (file, attempt, bytes) in signed {
                file.failed = file.name(planner, id_of(&bytes), now_ns).err();
                if file.failed.is_none() {
                    letters.commits.push(file.content.claim.id);
                    letters.attempts.extend(attempt);
                    letters.records.push(bytes);
                }
            }
            Ok(())
        };
        let ((), named) = self.sign_plan(keys, plan)?;
        letters.records.extend(named);
        Ok(letters)
    }

    /// The time as modification times say it: nanoseconds since the epoch.
    pub(in crate::node) fn now_ns(&self) -> i64 {
        let ms = i64::try_from(self.sys.clock.wall_ms()).unwrap_or(i64::MAX);
        ms.saturating_mul(1_000_000)
    }

    /// The records that say what a put would write down, if all of it is said already: that a file
    /// is made of the same chunks and, if the put has a path, that it is there.
    fn said_before(&self, file: &Prepared, record: &FileRecord) -> Outcome<Option<Vec<Vec<u8>>>> {
        let keyring = self.catalogue.keyring();
        let hash = &file.content.hash;
        Ok(self.read_records(|view| {
            let mut ids = Vec::new();
            if let Some(path) = &file.put.path {
                let entry = Tree::new(view, &keyring).resolve(&path.0).ok();
                let Some(entry) = entry else { return Ok(None) };
                let TreeNode::File(version) = &entry.version.node else { return Ok(None) };
                let Some(id) = version.record else { return Ok(None) };
                let there = crate::core::catalogue::file_record(view, &id)?;
                let same = version.hash == *hash && file.has(&entry.version.attributes);
                if !same || there.as_ref() != Some(record) {
                    return Ok(None);
                }
                ids.extend([id, entry.version.record]);
            } else {
                let known = self.own_unlisted(view, hash, record.replicas)?;
                let Some(same) = known.iter().find(|known| known.file == *record) else {
                    return Ok(None);
                };
                ids.push(same.id);
            }
            let records = ids.iter().map(|id| view.record(id));
            Ok(records.collect::<io::Result<Vec<_>>>()?.into_iter().collect())
        })?)
    }
}

impl Prepared {
    /// Plans its name, if it has one.
    fn name(&self, planner: &mut Planner<'_, '_>, record: RecordId, now_ns: i64) -> Outcome<()> {
        let Some(path) = &self.put.path else { return Ok(()) };
        let version = FileVersion {
            hash: self.content.hash,
            size: self.content.length,
            claim: self.content.claim.id,
            record: Some(record),
        };
        planner.put(&path.0, NewFile { version, attributes: self.attributes(now_ns) })?;
        Ok(())
    }
}

impl Other {
    fn plan(&mut self, planner: &mut Planner<'_, '_>) {
        let attributes = self.attributes.clone();
        let planned = match &self.target {
            None => planner.dir(&self.path.0, attributes),
            Some(target) => planner.link(&self.path.0, target.clone(), attributes),
        };
        self.failed = planned.err().map(Error::from);
    }
}
