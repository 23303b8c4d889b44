//! Putting a file again. When its first chunk is here, the whole file is hashed, which costs a
//! fifth of sealing it; when that hash has a manifest that this node has made, the holders are only
//! asked to keep the chunks for this claim too, and nothing is sent. Another author's manifest does
//! not count: it proves which bytes the file has, not that its chunks give them. Whatever is in
//! doubt goes the ordinary way: this is a shortcut, never a reason to fail.

use super::Shared;
use super::attempt::Attempt;
use super::get::OpenFile;
use super::memory::{Slot, User};
use super::put::{Content, Whereabouts};
use super::records::{FoundRecord, Snapshot};
use super::replicate::{Promise, Tally, terms};
use crate::chunk::{self, CHUNK_LEN, Place, TreeHasher};
use crate::core::catalogue::{
    Content as Manifest, FileCandidate, FileVersion, Node, UNLISTED, files_by_lookup, is_released,
};
use crate::core::limits;
use crate::core::tree::TreeError;
use crate::crypto::{ChunkBuf, EpochKeys};
use crate::id::{ChunkId, ClaimId, FileHash, NodeId};
use crate::store::{Claim, Op, Outcome};
use crate::sys::Source;
use crate::wire::control::PathText;
use crate::wire::message::CIDS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Most chunks that are claimed this way; the ids of a larger file would take too much memory.
const CHUNKS_MAX: u64 = 256 * 1024;

/// Chunks of a longer one that are claimed at a time.
const PART: usize = 16 * 1024;

/// Who is asked to keep a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holders {
    /// Those who should have it.
    Homes,
    /// All who may have it.
    Any,
    /// The same, also where there are fewer than a put promises: the content would be lost.
    Last,
}

impl Shared {
    /// What the put comes to without storing anything, if the swarm has the file; and the source,
    /// at its beginning again.
    pub(super) async fn put_again(
        self: &Arc<Self>,
        mut source: Box<dyn Source>,
        keys: &Arc<EpochKeys>,
        path: Option<&PathText>,
        attempt: &Attempt,
    ) -> io::Result<(Box<dyn Source>, Option<Content>)> {
        if !source.rewind() {
            return Ok((source, None));
        }
        let (shared, keys) = (self.clone(), keys.clone());
        let slot = self.memory.take(User::Work).await;
        let sealing = keys.clone();
        let (source, hash) = self
            .job(move || {
                let hash = shared.hash_if_known(&mut *source, &sealing, slot)?;
                source.rewind();
                io::Result::Ok((source, hash))
            })
            .await??;
        let content = match hash {
            Some(hash) => {
                let own = attempt.claim();
                let claim = match self.claim_known_for(path, &hash, own.replicas) {
                    Some(id) => Claim { id, ..own },
                    None => attempt.offer(),
                };
                self.claim_known(hash, &keys, claim).await
            }
            None => None,
        };
        Ok((source, content))
    }

    /// The hash of the source, if its first chunk is one that this node holds.
    fn hash_if_known(
        &self,
        source: &mut dyn Source,
        keys: &EpochKeys,
        mut slot: Slot,
    ) -> io::Result<Option<FileHash>> {
        let mut first = ChunkBuf::recycle(slot.buffer(), CHUNK_LEN);
        if source.read(first.space())? < CHUNK_LEN {
            return Ok(None);
        }
        first.set_len(CHUNK_LEN);
        let sealed = self.sealers.seal(keys, Place::At(0), true, first);
        if sealed.row.is_zero() || !self.holds(&sealed.row.cid) {
            return Ok(None);
        }
        slot.put_back(sealed.bytes);
        let mut tree = TreeHasher::default();
        tree.push(sealed.row.value);
        let mut buf = ChunkBuf::recycle(slot.buffer(), CHUNK_LEN);
        for index in 1.. {
            let len = source.read(buf.space())?;
            if len > 0 {
                tree.push(chunk::value_of(Place::At(index), &buf.space()[..len]));
            }
            if len < CHUNK_LEN {
                break;
            }
        }
        // A file of one chunk has another hash than its value here; it is small anyway.
        let one = tree.pushed() == 1;
        Ok(if one || source.finish().is_err() { None } else { tree.root() })
    }

    /// The claim under which this node has put the same content before: of the file that is at the
    /// path, or without a name.
    fn claim_known_for(
        &self,
        path: Option<&PathText>,
        hash: &FileHash,
        replicas: u8,
    ) -> Option<ClaimId> {
        let Some(path) = path else {
            let own = self.read_records(|view| self.own_unlisted(view, hash, replicas));
            return own.ok()?.first().map(|known| known.file.claim);
        };
        let there = self.file_there(path).ok()??;
        (there.hash == *hash).then_some(there.claim)
    }

    /// The file at a path, unless its claim was released: such a one is not taken again.
    pub(super) fn file_there(&self, path: &PathText) -> Result<Option<FileVersion>, TreeError> {
        let there = self.with_tree(|tree| tree.put_target(&path.0))?;
        let Some(Node::File(file)) = there.map(|entry| entry.version.node) else {
            return Ok(None);
        };
        let released = self.read_records(|view| is_released(view, &file.claim))?;
        Ok((!released).then_some(file))
    }

    /// What this node has put without a name that is of this content and wants as many copies. It
    /// stands for itself: it is its author's, who may let it go, and does not go when somebody
    /// removes a name of its content.
    pub(super) fn own_unlisted(
        &self,
        view: &Snapshot<'_>,
        hash: &FileHash,
        replicas: u8,
    ) -> io::Result<Vec<FileCandidate>> {
        let keyring = self.catalogue.keyring();
        let Some(keys) = keyring.newest() else { return Ok(Vec::new()) };
        let mut known = files_by_lookup(view, &keys.lookup(hash))?;
        known.retain(|known| {
            let is_own = known.author == self.me && known.file.flags & UNLISTED != 0;
            is_own && known.file.replicas == replicas
        });
        Ok(known)
    }

    /// What a put of a known file comes to.
    async fn claim_known(
        self: &Arc<Self>,
        hash: FileHash,
        keys: &Arc<EpochKeys>,
        claim: Claim,
    ) -> Option<Content> {
        let lookup = keys.lookup(&hash);
        let mut known = self.read_records(|view| files_by_lookup(view, &lookup)).ok()?;
        known.retain(|one| one.author == self.me && !one.file.is_shared());
        let found = known.into_iter().map(|own| FoundRecord {
            author: own.author,
            record: own.file,
            keys: keys.clone(),
        });
        let mut records = found.collect();
        let file = self.open_file(hash, &mut records).await.ok()?;
        let (manifest, tally) = self.claim_all(&file, claim, Holders::Homes).await?;
        Some(Content { hash, length: file.manifest.length, claim, manifest, tally })
    }

    /// Has the holders of a file keep its chunks for this claim as well; none when one of them is
    /// not on as many nodes as a put promises.
    pub(super) async fn claim_all(
        self: &Arc<Self>,
        file: &OpenFile,
        claim: Claim,
        holders: Holders,
    ) -> Option<(Whereabouts, Arc<Tally>)> {
        let (cids, manifest) = self.all_cids(file).await?;
        Some((manifest, self.claim_cids(&cids, claim, holders).await?))
    }

    /// Has the holders of a file of any length keep its chunks for this claim; whether somebody
    /// does of each.
    pub(super) async fn claim_parts(self: &Arc<Self>, file: &OpenFile, claim: Claim) -> bool {
        let chunks = chunk::chunk_count(file.manifest.length);
        let mut cids = BTreeSet::new();
        for index in 0..chunks {
            let Ok(row) = self.row_of(file, index).await else { return false };
            cids.extend((!row.is_zero()).then_some(row.cid));
            if cids.len() < PART && index + 1 < chunks {
                continue;
            }
            let part: Vec<ChunkId> = std::mem::take(&mut cids).into_iter().collect();
            if self.claim_cids(&part, claim, Holders::Last).await.is_none() {
                return false;
            }
        }
        let (own, _) = own_cids(file);
        self.claim_cids(&own, claim, Holders::Last).await.is_some()
    }

    async fn claim_cids(
        self: &Arc<Self>,
        cids: &[ChunkId],
        claim: Claim,
        holders: Holders,
    ) -> Option<Arc<Tally>> {
        let view = self.view();
        let promise = Promise::now(&view, claim.replicas);
        let last = holders == Holders::Last;
        let mut asked: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for cid in cids {
            let ids = match holders {
                Holders::Homes => self.home(&view, cid, claim.replicas),
                Holders::Any | Holders::Last => view.candidates(cid),
            };
            let answers = |id: &NodeId| last || !self.chooser().hung(id);
            for id in ids.into_iter().filter(|id| view.lives(id) && answers(id)) {
                asked.entry(id).or_default().push(*cid);
            }
        }
        let mut asking = JoinSet::new();
        for (id, cids) in asked {
            let shared = self.clone();
            asking.spawn(async move { shared.claim_at(id, claim, cids).await });
        }
        let enough = |ids: &BTreeSet<NodeId>| match last {
            true => !ids.is_empty(),
            false => promise.kept(&view, ids),
        };
        let none = BTreeSet::new();
        let mut holders: BTreeMap<ChunkId, BTreeSet<NodeId>> = BTreeMap::new();
        loop {
            // Repair sees to those who are slow, once there are enough.
            let kept = cids.iter().all(|cid| enough(holders.get(cid).unwrap_or(&none)));
            let patience = if kept && !last { limits::HEDGE_MAX / 4 } else { limits::MOVE };
            match tokio::time::timeout(patience, asking.join_next()).await {
                Ok(Some(held)) => {
                    let (id, cids) = held.ok()?;
                    cids.into_iter().for_each(|cid| _ = holders.entry(cid).or_default().insert(id));
                }
                Ok(None) | Err(_) if kept => break,
                Ok(None) => return None,
                Err(_) => {}
            }
        }
        // Some may have answered long ago, while others were waited for, and be dead by now.
        let view = self.view();
        let lives = |mut ids: BTreeSet<NodeId>| {
            ids.retain(|id| view.lives(id));
            ids
        };
        let held: Vec<BTreeSet<NodeId>> =
            cids.iter().map(|cid| lives(holders.remove(cid).unwrap_or_default())).collect();
        if !held.iter().all(&enough) {
            return None;
        }
        for (cid, ids) in cids.iter().zip(&held) {
            if ids.len() < usize::from(claim.replicas) {
                self.lacks_copies(*cid, ids, None);
            }
        }
        Some(Arc::new(Tally::kept(&view, &held)))
    }

    /// Every chunk of a file, its pages and its manifest, each once.
    pub(super) async fn all_cids(
        self: &Arc<Self>,
        file: &OpenFile,
    ) -> Option<(Vec<ChunkId>, Whereabouts)> {
        let chunks = chunk::chunk_count(file.manifest.length);
        if chunks > CHUNKS_MAX {
            return None;
        }
        let (own, manifest) = own_cids(file);
        let mut cids = BTreeSet::from_iter(own);
        for index in 0..chunks {
            let row = self.row_of(file, index).await.ok()?;
            cids.extend((!row.is_zero()).then_some(row.cid));
        }
        Some((cids.into_iter().collect(), manifest))
    }

    /// Which of the chunks a node holds, and keeps for the claim from now on.
    pub(super) async fn claim_at(
        self: &Arc<Self>,
        id: NodeId,
        claim: Claim,
        cids: Vec<ChunkId>,
    ) -> (NodeId, Vec<ChunkId>) {
        let mut held = Vec::with_capacity(cids.len());
        for batch in cids.chunks(CIDS_MAX) {
            let bits = if id == self.me {
                let op = Op::Claim { cids: batch.to_vec(), claim };
                self.write(vec![op]).await.ok().and_then(|mut outcomes| match outcomes.pop() {
                    Some(Outcome::Claim { held }) => Some(held),
                    _ => None,
                })
            } else {
                self.ask_have(id, terms(&claim), batch.to_vec()).await.ok()
            };
            let bits = bits.unwrap_or_default();
            held.extend(batch.iter().zip(bits).filter(|(_, bit)| *bit).map(|(cid, _)| *cid));
        }
        (id, held)
    }
}

/// The chunks that say what a file is made of: its pages and its manifest.
pub(super) fn own_cids(file: &OpenFile) -> (Vec<ChunkId>, Whereabouts) {
    let rows = if file.manifest.is_paged() { &file.manifest.rows[..] } else { &[] };
    let mut cids: Vec<ChunkId> = rows.iter().map(|page| page.cid).collect();
    let manifest = match &file.record.content {
        Manifest::Inline(sealed) => Whereabouts::Inline(sealed.clone()),
        Manifest::Stored { manifest, sealed_len } => {
            cids.push(*manifest);
            Whereabouts::Stored { cid: *manifest, len: *sealed_len }
        }
    };
    (cids, manifest)
}
