//! Who holds the chunks of a file now, asked of all live members. Owns the counting, a batch of
//! chunks at a time, so that a file of any length takes the same memory; it changes nothing.

use super::{Error, Outcome};
use crate::chunk::CHUNK_LEN;
use crate::core::catalogue::Content as RecordContent;
use crate::id::{ChunkId, NodeId};
use crate::node::Shared;
use crate::node::get::OpenFile;
use crate::wire::control::{ChunkInfo, HolderInfo, PeerState, Target};
use crate::wire::message::CIDS_MAX;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What was found.
#[derive(Default)]
pub(super) struct Survey {
    /// Chunks that are all zero and stored nowhere.
    pub zero_chunks: u64,
    /// Bytes of one replica on disk, padding and compression included.
    pub stored_bytes: u64,
    /// How many of the chunks each member holds.
    by_holder: BTreeMap<NodeId, u64>,
    /// The fewest copies of any of the chunks, or of the manifest; `None` without any.
    pub fewest: Option<u8>,
}

impl Survey {
    fn add(&mut self, held: &BTreeMap<NodeId, Vec<bool>>, chunks: usize) {
        for at in 0..chunks {
            let copies = held.values().filter(|bits| bits.get(at) == Some(&true)).count();
            let copies = u8::try_from(copies).unwrap_or(u8::MAX);
            self.fewest = Some(self.fewest.map_or(copies, |fewest| fewest.min(copies)));
        }
    }

    fn count(&mut self, held: &BTreeMap<NodeId, Vec<bool>>) {
        for (id, bits) in held {
            let chunks = bits.iter().filter(|bit| **bit).count() as u64;
            *self.by_holder.entry(*id).or_default() += chunks;
        }
    }
}

impl Shared {
    /// Asks all live members which chunks of the file they hold.
    pub(super) async fn survey(self: &Arc<Self>, file: &OpenFile) -> Outcome<Survey> {
        let mut survey = Survey::default();
        if let RecordContent::Stored { manifest, .. } = &file.record.content {
            survey.add(&self.holders_of(&[*manifest]).await, 1);
        }
        let mut batch = Vec::new();
        let chunks = crate::chunk::chunk_count(file.manifest.length);
        for index in 0..chunks {
            let row = self.row_of(file, index).await?;
            if row.is_zero() {
                survey.zero_chunks += 1;
            } else {
                survey.stored_bytes += u64::from(row.encoded) + 16;
                batch.push(row.cid);
            }
            if batch.len() == CIDS_MAX || index + 1 == chunks {
                let held = self.holders_of(&batch).await;
                survey.add(&held, batch.len());
                survey.count(&held);
                batch.clear();
            }
        }
        Ok(survey)
    }

    /// Some chunks of a file from this one on, with who holds them; none: there are no more.
    pub(super) async fn chunks(
        self: &Arc<Self>,
        target: &Target,
        from: u64,
    ) -> Outcome<Vec<ChunkInfo>> {
        let file = self.opened(target).await?;
        let length = file.manifest.length;
        let count = crate::chunk::chunk_count(length);
        let mut out = Vec::new();
        let mut cids = Vec::new();
        for index in from..count.min(from.saturating_add(CIDS_MAX as u64)) {
            let row = self.row_of(&file, index).await?;
            let offset = index * CHUNK_LEN as u64;
            let len = (length - offset).min(CHUNK_LEN as u64);
            let id = (!row.is_zero()).then_some(row.cid);
            cids.extend(id);
            out.push(ChunkInfo { index, offset, len, id, holders: Vec::new() });
        }
        let held = self.holders_of(&cids).await;
        let view = self.view();
        for (id, bits) in held {
            let name = view.name(&id);
            let stored = out.iter_mut().filter(|chunk| chunk.id.is_some());
            let holding = stored.zip(bits).filter(|(_, bit)| *bit);
            holding.for_each(|(chunk, _)| chunk.holders.push(name.clone()));
        }
        out.iter_mut().for_each(|chunk| chunk.holders.sort());
        Ok(out)
    }

    /// Which of at most [`CIDS_MAX`] chunks each live member holds.
    pub(super) async fn holders_of(
        self: &Arc<Self>,
        cids: &[ChunkId],
    ) -> BTreeMap<NodeId, Vec<bool>> {
        let mut held = BTreeMap::new();
        if cids.is_empty() {
            return held;
        }
        let mut asking = JoinSet::new();
        for member in self.view().others() {
            let (shared, id, cids) = (self.clone(), member.record.id, cids.to_vec());
            asking.spawn(async move { (id, shared.ask_holds(id, cids).await) });
        }
        held.extend(self.which_held(cids.to_vec()).await.ok().map(|bits| (self.me, bits)));
        while let Some(answer) = asking.join_next().await {
            if let Ok((id, Ok(bits))) = answer {
                held.insert(id, bits);
            }
        }
        held
    }

    /// How many chunks of the file a peer has, zero ones included; nobody else is asked.
    pub(super) async fn held_by(self: &Arc<Self>, peer: NodeId, file: &OpenFile) -> Outcome<u64> {
        let (mut has, mut batch) = (0, Vec::new());
        let chunks = crate::chunk::chunk_count(file.manifest.length);
        for index in 0..chunks {
            let row = self.row_of(file, index).await?;
            if row.is_zero() {
                has += 1;
            } else {
                batch.push(row.cid);
            }
            if batch.len() == CIDS_MAX || (index + 1 == chunks && !batch.is_empty()) {
                let held = self.ask_holds(peer, std::mem::take(&mut batch)).await;
                let bits = held.map_err(|_| Error::UnknownPeer)?;
                has += bits.iter().filter(|bit| **bit).count() as u64;
            }
        }
        Ok(has)
    }

    /// The members that hold parts of a file, this node first, the others by name.
    pub(super) fn holder_infos(&self, survey: &Survey) -> Vec<HolderInfo> {
        let view = self.view();
        let holding = survey.by_holder.iter().filter(|(_, chunks)| **chunks > 0);
        let mut holders: Vec<HolderInfo> = holding
            .map(|(id, chunks)| HolderInfo {
                name: view.name(id),
                id: *id,
                chunks: *chunks,
                state: view.members.get(id).map_or(PeerState::Alive, |m| m.state),
                here: *id == self.me,
            })
            .collect();
        holders.sort_by(|a, b| (!a.here, &a.name).cmp(&(!b.here, &b.name)));
        holders
    }
}
