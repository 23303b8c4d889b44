//! One chunk from whoever has it. Asks the holder that answers fastest first, the next one as well
//! when it is late, everybody when no candidate has it; checks the name of what arrives, so that
//! what it returns is the chunk that was asked for. Opening it is the caller's.

use super::Shared;
use super::ask::AskError;
use super::memory::User;
use super::serve::refusal;
use super::view::View;
use crate::core::limits;
use crate::crypto::chunk_id;
use crate::id::{ChunkId, ClaimId, NodeId};
use crate::sys::Time;
use crate::wire::message::{FetchShare, Part};
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
    /// Who serves the file in place, if anybody does.
    pub sharers: Vec<Sharer>,
}

/// Somebody who serves a file in place, when a part of it was not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharer {
    /// Its name.
    pub name: String,
    /// What was wrong there.
    pub state: SharerState,
}

/// Why a sharer did not give a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharerState {
    /// It is not running, since this wall-clock time in milliseconds, if that is known.
    Away(Option<u64>),
    /// The file has changed there, or is not shared any more.
    Changed,
    /// It did not answer, or cannot read the file now.
    Silent,
}

/// Who serves a file in place, and the claim that its record of the file names.
pub(super) type Sharers = Vec<(NodeId, ClaimId)>;

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
        Err(hunt.unavailable(&view, Vec::new()))
    }

    /// A sealed part of a file, and from whom. Those who serve it in place are asked first: nobody
    /// else need have it. When they are away, or late, whoever got it from them may have kept it.
    pub(super) async fn fetch_part(
        self: &Arc<Self>,
        sharers: &Sharers,
        part: Part,
        cid: ChunkId,
    ) -> Result<(Bytes, NodeId), Unavailable> {
        if sharers.is_empty() {
            return self.fetch(cid).await;
        }
        let mut changed = BTreeSet::new();
        if let Some((me, claim)) = sharers.iter().find(|(id, _)| *id == self.me) {
            let slot = self.shared_here.own.take(User::Work).await;
            match self.shared_part(FetchShare { claim: *claim, part, cid }, slot).await {
                Ok(sealed) => return Ok((sealed, *me)),
                Err(refused) if refused.code == refusal::DISK => {}
                Err(_) => _ = changed.insert(*me),
            }
        }
        let view = self.view();
        let ids: Vec<NodeId> = sharers.iter().map(|(id, _)| *id).collect();
        let mut order = self.readers_choice(&view, &ids);
        order.retain(|id| *id != self.me);
        let mut hunt = Hunt::new(self, cid, order);
        let ask = |claim: &ClaimId| FetchShare { claim: *claim, part, cid };
        hunt.in_place = sharers.iter().map(|(id, claim)| (*id, ask(claim))).collect();
        if let Some(found) = hunt.run().await {
            return Ok(found);
        }
        changed.append(&mut hunt.changed);
        let sharers = ids.iter().map(|id| self.sharer(&view, id, &changed)).collect();
        Err(hunt.unavailable(&view, sharers))
    }

    /// What was wrong at somebody who serves a file in place.
    fn sharer(&self, view: &View, id: &NodeId, changed: &BTreeSet<NodeId>) -> Sharer {
        let state = match view.lives(id) || *id == self.me {
            _ if changed.contains(id) => SharerState::Changed,
            true => SharerState::Silent,
            false => SharerState::Away(self.away_since(view, id)),
        };
        Sharer { name: view.name(id), state }
    }

    /// Since when a member is away, by the wall clock; none: it is here, or that is not known.
    pub(super) fn away_since(&self, view: &View, id: &NodeId) -> Option<u64> {
        let member = view.members.get(id).filter(|member| !member.lives())?;
        let ago = self.sys.clock.now().since(member.since).as_millis();
        Some(self.sys.clock.wall_ms().saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
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
    /// What to ask of those who serve the file in place.
    in_place: BTreeMap<NodeId, FetchShare>,
    /// Those of them where it has changed.
    changed: BTreeSet<NodeId>,
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
            in_place: BTreeMap::new(),
            changed: BTreeSet::new(),
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

    /// Why nobody gave it.
    fn unavailable(&self, view: &View, sharers: Vec<Sharer>) -> Unavailable {
        Unavailable {
            cid: self.cid,
            asked: self.tried.len(),
            silent: self.silent.keys().map(|id| view.name(id)).collect(),
            wrong: self.wrong.iter().map(|id| view.name(id)).collect(),
            sharers,
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
        waited < SLOW.max(expected * SLOWER).max(self.shared.own_queue())
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
        let in_place = self.in_place.get(&id).copied();
        self.under_way.spawn(async move {
            if anew {
                shared.renew(id).await;
            }
            let answer = match in_place {
                Some(ask) => shared.ask_fetch_share(id, &ask).await,
                None => shared.ask_fetch(id, cid).await,
            };
            (id, answer)
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
                let gone = [refusal::CHANGED, refusal::NOT_HELD];
                if self.in_place.contains_key(&id) && gone.iter().any(|no| err.refused_with(*no)) {
                    self.changed.insert(id);
                }
                tracing::debug!(peer = %id.short(), %err, "did not give a chunk");
            }
        }
        None
    }
}
