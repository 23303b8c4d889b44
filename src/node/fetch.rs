//! One chunk from whoever has it. Asks the holder that answers fastest first, the next one as well
//! when it is late, everybody when no candidate has it; checks the name of what arrives, so that
//! what it returns is the chunk that was asked for. Opening it is the caller's.

use super::Shared;
use super::ask::AskError;
use crate::core::limits;
use crate::crypto::chunk_id;
use crate::id::{ChunkId, NodeId};
use crate::sys::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Why a chunk was not got.
#[derive(Debug, Clone, thiserror::Error)]
#[error("chunk {} is not to be had", .cid.short())]
pub struct Unavailable {
    /// The chunk.
    pub cid: ChunkId,
    /// Members that were asked and do not have it.
    pub asked: usize,
    /// Names of members that may have it and did not answer, or are dead.
    pub silent: Vec<String>,
    /// Names of members that sent something else.
    pub wrong: Vec<String>,
}

impl Shared {
    /// The sealed bytes of a chunk from another node, and from which.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        cid: ChunkId,
    ) -> Result<(Bytes, NodeId), Unavailable> {
        let view = self.view();
        let candidates = view.candidates(&cid);
        let mut order = self.readers_choice(&view, &candidates);
        order.retain(|id| *id != self.me);
        let mut hunt = Hunt::new(self, cid, order);
        if let Some(found) = hunt.run().await {
            return Ok(found);
        }
        let dead = candidates.into_iter().filter(|id| !view.lives(id));
        hunt.silent.extend(dead.map(|id| (id, Time::ZERO)));
        Err(Unavailable {
            cid,
            asked: hunt.tried.len(),
            silent: hunt.silent.keys().map(|id| view.name(id)).collect(),
            wrong: hunt.wrong.iter().map(|id| view.name(id)).collect(),
        })
    }

    /// Who holds a chunk that no candidate gave: all live members are asked at once.
    async fn ask_around(
        self: &Arc<Self>,
        cid: ChunkId,
        tried: &BTreeSet<NodeId>,
    ) -> VecDeque<NodeId> {
        let mut asking = JoinSet::new();
        for member in self.view().others() {
            let (shared, id) = (self.clone(), member.record.id);
            asking.spawn(async move { shared.ask_who(id, vec![cid]).await });
        }
        let mut holders = BTreeSet::new();
        while let Some(answer) = asking.join_next().await {
            if let Ok(Ok(lists)) = answer {
                holders.extend(lists.into_iter().flatten());
            }
        }
        let view = self.view();
        let useful = |id: &NodeId| *id != self.me && !tried.contains(id) && view.lives(id);
        holders.into_iter().filter(useful).collect()
    }
}

/// So long a chunk may be on its way until another one is asked as well …
const SLOW: Duration = Duration::from_secs(3);
/// … or so many times as long as that one takes as a rule.
const SLOWER: u32 = 4;

/// The search for one chunk.
struct Hunt {
    shared: Arc<Shared>,
    cid: ChunkId,
    queue: VecDeque<NodeId>,
    tried: BTreeSet<NodeId>,
    /// Who was asked and has not said yes or no, and since when.
    silent: BTreeMap<NodeId, Time>,
    /// Whether all members were asked who holds the chunk.
    asked_around: bool,
    /// Whether those who are silent were asked again over new connections.
    renewed: bool,
    wrong: Vec<NodeId>,
    under_way: JoinSet<(NodeId, Result<Bytes, AskError>)>,
}

impl Hunt {
    fn new(shared: &Arc<Shared>, cid: ChunkId, order: Vec<NodeId>) -> Self {
        Self {
            shared: shared.clone(),
            cid,
            queue: order.into(),
            tried: BTreeSet::new(),
            silent: BTreeMap::new(),
            asked_around: false,
            renewed: false,
            wrong: Vec::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Asks the queue, one after the other, until somebody gives the chunk. Dropping it withdraws
    /// the questions that are still open.
    async fn run(&mut self) -> Option<(Bytes, NodeId)> {
        let mut patience = self.ask_next().await?;
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.under_way.join_next() => {
                    if let Ok((id, answer)) = answer
                        && let Some(bytes) = self.accept(id, answer)
                    {
                        return Some((bytes, id));
                    }
                    if self.under_way.is_empty() {
                        patience = self.ask_next().await?;
                    }
                }
                () = tokio::time::sleep(patience) => {
                    self.mark_overdue();
                    patience = if self.is_on_its_way() {
                        limits::HEDGE_MIN
                    } else {
                        self.ask_next().await.unwrap_or(limits::MOVE)
                    };
                }
            }
        }
    }

    /// Marks those that let this request hang: bytes of others do not come from them either.
    fn mark_overdue(&self) {
        let now = self.shared.sys.clock.now();
        for (id, since) in &self.silent {
            if now.since(*since) >= self.shared.chooser().hedge_after(id) && !self.shared.moves(id)
            {
                self.shared.chooser().overdue(*id);
            }
        }
    }

    /// Whether bytes come from somebody who was asked, and it is too early to say that another one
    /// would be faster: where the own way is what is slow, asking a second one makes both slower.
    fn is_on_its_way(&self) -> bool {
        let now = self.shared.sys.clock.now();
        let moving = self.silent.iter().filter(|(id, _)| self.shared.moves(id));
        let Some(waited) = moving.map(|(_, since)| now.since(*since)).min() else { return false };
        let Some(next) = self.queue.front() else { return waited < limits::MOVE };
        let expected = self.shared.chooser().smoothed(next).unwrap_or_default();
        waited < SLOW.max(expected * SLOWER)
    }

    /// Asks the next holder; returns how long to wait for it before another is asked as well. When
    /// no candidate is left, all members are asked for others, even if some candidates are silent;
    /// and when that finds nobody, the silent ones are asked again over new connections: the path
    /// of the old ones may be dead without a word, as behind a router that has forgotten them.
    async fn ask_next(&mut self) -> Option<Duration> {
        if self.queue.is_empty() && !self.asked_around {
            self.asked_around = true;
            self.queue = self.shared.ask_around(self.cid, &self.tried).await;
        }
        if self.queue.is_empty() && !self.renewed {
            self.renewed = true;
            self.queue = self.silent.keys().copied().collect();
        }
        let id = self.queue.pop_front()?;
        self.tried.insert(id);
        self.silent.insert(id, self.shared.sys.clock.now());
        let (shared, cid, anew) = (self.shared.clone(), self.cid, self.renewed);
        self.under_way.spawn(async move {
            if anew {
                shared.renew(id).await;
            }
            (id, shared.ask_fetch(id, cid).await)
        });
        Some(self.shared.chooser().hedge_after(&id))
    }

    fn accept(&mut self, id: NodeId, answer: Result<Bytes, AskError>) -> Option<Bytes> {
        match answer {
            Ok(bytes) if chunk_id(&bytes) == self.cid => return Some(bytes),
            Ok(_) => {
                self.silent.remove(&id);
                self.wrong.push(id);
                let strikes = self.shared.chooser().strike(id);
                let name = self.shared.view().name(&id);
                tracing::warn!(peer = %name.escape_debug(), strikes, "sent a wrong chunk");
            }
            Err(err) => {
                if err.is_no() {
                    self.silent.remove(&id);
                }
                tracing::debug!(peer = %id.short(), %err, "did not give a chunk");
            }
        }
        None
    }
}
