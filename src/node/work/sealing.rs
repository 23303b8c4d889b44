//! Changed chunks on their way from a draft to their homes: read, sealed some at a time, and
//! delivered under the claim of their file. Owns what became of each; which chunks are sealed when
//! is `edition`'s and `ahead`'s.
//!
//! Invariant: who waits for memory holds none.

use super::WorkError;
use super::body::Snapshot;
use super::draft::Draft;
use crate::chunk::{CHUNK_LEN, Place, Row};
use crate::core::catalogue::{FileVersion, Node as TreeNode, file_record, is_released};
use crate::core::hlc;
use crate::core::tree::Version;
use crate::crypto::{ChunkBuf, EpochKeys, Sealed};
use crate::id::{ChunkId, ClaimId, InodeId};
use crate::node::attempt::Attempt;
use crate::node::get::OpenFile;
use crate::node::memory::{Slot, User};
use crate::node::replicate::{Delivery, Promise, Tally};
use crate::node::{PutError, Shared};
use crate::store::Claim;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

const CHUNK: u64 = CHUNK_LEN as u64;
/// Chunks that are sealed at once.
const SEALERS: usize = 3;

/// The chunks of a version that were sealed.
pub(super) struct Sealing {
    shared: Arc<Shared>,
    pub(super) keys: Arc<EpochKeys>,
    /// The claim that the base is kept under.
    base: Option<ClaimId>,
    pub(super) claim: Claim,
    promise: Promise,
    pub(super) tally: Arc<Tally>,
    /// Of a new file: withdrawn when it is dropped before anybody can know of the version.
    pub(super) attempt: Option<Attempt>,
    under_way: VecDeque<UnderWay>,
    /// The rows of what was delivered, with the edits that they are of.
    rows: BTreeMap<u64, (u64, Row)>,
    /// Chunks that were delivered and then sealed anew.
    spare: BTreeSet<ChunkId>,
}

/// A chunk of a draft.
pub(super) struct Staged {
    pub(super) index: u64,
    /// The number of its last edit.
    pub(super) edit: u64,
    pub(super) place: Place,
    pub(super) len: usize,
    pub(super) draft: Option<Draft>,
}

/// A chunk that is being sealed.
struct UnderWay {
    index: u64,
    edit: u64,
    sealed: oneshot::Receiver<io::Result<(Sealed, Slot)>>,
}

impl Shared {
    /// Begins to seal chunks of a file that was made from a version, which is opened as far as it
    /// still counts.
    pub(super) async fn sealing(
        self: &Arc<Self>,
        id: &InodeId,
        version: Option<&FileVersion>,
        base: Option<&OpenFile>,
        keys: Arc<EpochKeys>,
    ) -> Result<Sealing, WorkError> {
        let (claim, attempt) = self.claim_of_edition(id, version, base).await?;
        let tally = attempt.as_ref().map_or_else(Arc::default, |attempt| attempt.tally().clone());
        Ok(Sealing {
            shared: self.clone(),
            keys,
            base: version.map(|version| version.claim),
            claim,
            promise: Promise::now(&self.view(), claim.replicas),
            tally,
            attempt,
            under_way: VecDeque::with_capacity(SEALERS),
            rows: BTreeMap::new(),
            spare: BTreeSet::new(),
        })
    }

    /// Under what the chunks of a version are kept: the claim of its file, or of a new file a new
    /// one. A file that begins as a version of another one is a new file.
    async fn claim_of_edition(
        self: &Arc<Self>,
        id: &InodeId,
        version: Option<&FileVersion>,
        base: Option<&OpenFile>,
    ) -> Result<(Claim, Option<Attempt>), WorkError> {
        let mut replicas = self.config.replicas;
        if let Some(version) = version {
            let (released, record) = self.read_records(|view| {
                let record = version.record.map_or(Ok(None), |id| file_record(view, &id));
                Ok((is_released(view, &version.claim)?, record?))
            })?;
            replicas = record.map_or(replicas, |record| record.replicas);
            let of_file = |known: &Version| match &known.node {
                TreeNode::File(file) => file.claim == version.claim,
                _ => false,
            };
            let own = self.tree(|tree| Ok(tree.versions(id)?.iter().any(of_file)))?;
            if !released && own {
                let renewed_ms = hlc::ms_of(self.tick());
                return Ok((Claim { id: version.claim, replicas, renewed_ms }, None));
            }
        }
        let attempt = Attempt::new(self, replicas);
        let claim = attempt.claim();
        if let Some(base) = base {
            // Somebody has let it go meanwhile, or it is another file's: what is there is kept for
            // a new claim.
            let offer = attempt.offer();
            if !self.claim_parts(base, offer).await {
                let needed = Promise::now(&self.view(), replicas).nodes;
                return Err(PutError::TooFewCopies { copies: 0, needed }.into());
            }
        }
        Ok((claim, Some(attempt)))
    }
}

impl Sealing {
    /// Whether it is for a file as it was at a moment.
    pub(super) fn is_for(&self, snapshot: &Snapshot) -> bool {
        self.base == snapshot.base.as_ref().map(|version| version.claim)
    }

    /// Whether a chunk was sealed as it was after an edit.
    pub(super) fn has(&self, index: u64, edit: u64) -> bool {
        self.rows.get(&index).is_some_and(|(sealed, _)| *sealed == edit)
    }

    /// The row of a chunk, which is then forgotten; none: it was not sealed.
    pub(super) fn take(&mut self, index: u64) -> Option<Row> {
        self.rows.remove(&index).map(|(_, row)| row)
    }

    /// What was sealed of other chunks than a version has in its draft is not needed for it.
    pub(super) fn spare_all_but(&mut self, staged: &BTreeMap<u64, u64>) {
        let Self { rows, spare, .. } = self;
        rows.retain(|index, (_, row)| {
            let is_staged = staged.contains_key(index);
            if !is_staged && !row.is_zero() {
                spare.insert(row.cid);
            }
            is_staged
        });
    }

    /// A version has this row.
    pub(super) fn needs(&mut self, row: &Row) {
        if !self.spare.is_empty() {
            self.spare.remove(&row.cid);
        }
    }

    /// The chunks that were delivered and that no version needs, as far as that is certain: under a
    /// claim that is new with this version nobody else keeps anything.
    pub(super) fn unneeded(&mut self) -> Vec<ChunkId> {
        let spare = std::mem::take(&mut self.spare);
        let is_new = self.attempt.is_some() && self.base.is_none();
        if is_new { spare.into_iter().collect() } else { Vec::new() }
    }

    /// Seals a chunk and brings it on its way.
    pub(super) async fn seal(&mut self, chunk: Staged) -> Result<(), WorkError> {
        let slot = match self.shared.memory.try_take(User::Work) {
            Some(slot) => slot,
            None => {
                // Others may be waiting for what this one holds.
                self.settle().await?;
                self.shared.memory.take(User::Work).await
            }
        };
        self.begin(chunk, slot);
        if self.under_way.len() == SEALERS {
            self.deliver_first().await?;
        }
        Ok(())
    }

    /// Waits until everything is sealed.
    pub(super) async fn settle(&mut self) -> Result<(), WorkError> {
        while !self.under_way.is_empty() {
            self.deliver_first().await?;
        }
        Ok(())
    }

    fn begin(&mut self, chunk: Staged, mut slot: Slot) {
        let (done, sealed) = oneshot::channel();
        let (shared, keys) = (self.shared.clone(), self.keys.clone());
        let Staged { index, edit, place, len, draft } = chunk;
        self.shared.sys.spawn.run(Box::new(move || {
            let read = || {
                let mut chunk = ChunkBuf::recycle(slot.buffer(), CHUNK_LEN);
                let draft = draft.ok_or(io::ErrorKind::NotFound)?;
                draft.read(&mut chunk.space()[..len], index * CHUNK)?;
                chunk.set_len(len);
                Ok(chunk)
            };
            let out = { read }().map(|chunk| shared.sealers.seal(&keys, place, true, chunk));
            // It may have been given up meanwhile: then nobody waits.
            drop(done.send(out.map(|out| (out, slot))));
        }));
        self.under_way.push_back(UnderWay { index, edit, sealed });
    }

    async fn deliver_first(&mut self) -> Result<(), WorkError> {
        let Some(first) = self.under_way.pop_front() else { return Ok(()) };
        let gone = |_| io::Error::from(io::ErrorKind::Interrupted);
        let (sealed, mut slot) = first.sealed.await.map_err(gone)??;
        if sealed.row.is_zero() {
            slot.put_back(sealed.bytes);
        } else {
            self.deliver(sealed.row.cid, slot.hold(sealed.bytes));
        }
        let before = self.rows.insert(first.index, (first.edit, sealed.row));
        self.spare.extend(before.filter(|(_, row)| !row.is_zero()).map(|(_, row)| row.cid));
        Ok(())
    }

    /// Brings something sealed to its homes.
    pub(super) fn deliver(&self, cid: ChunkId, sealed: Bytes) {
        let delivery = Delivery { cid, sealed, claim: self.claim, promise: self.promise };
        self.shared.deliver(delivery, &self.tally);
    }

    /// Waits until everything that is on its way is on enough disks.
    pub(super) async fn keep_promise(&self) -> Result<(), WorkError> {
        let Err(failed) = self.tally.promised().await else { return Ok(()) };
        let copies = self.tally.count().copies;
        Err(match failed {
            Some(err) if copies == 0 => PutError::NoSpace(err).into(),
            _ => PutError::TooFewCopies { copies, needed: self.promise.nodes }.into(),
        })
    }
}
