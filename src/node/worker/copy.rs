//! Makes copies: of chunks of this node at others, with all their claims, and of damaged chunks
//! here from others. Owns what is under way, the pace, and who lets copies fail; which chunk and
//! for whom is decided by repair, and what comes of it is noted there.
//!
//! Invariant: at most [`COPIES_AT_ONCE`] chunks are in memory for repair, and only a chunk with one
//! copy left, or one whose copy here is damaged, goes faster than the pace.

use crate::id::{ChunkId, NodeId};
use crate::node::Shared;
use crate::node::memory::User;
use crate::store::{Op, ReadError};
use crate::sys::Time;
#[cfg(p2pfs_planted = "forget-claims-in-repair")]
use crate::wire::message::ClaimTerms;
use crate::wire::message::{CLAIMS_MAX, Store as StoreMessage};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Copies made at once: enough to keep a disk and a link busy, few enough to leave room for puts.
const COPIES_AT_ONCE: usize = 4;
/// For so long nothing more is sent to a node that did not take a copy.
const LAME_FOR: Duration = Duration::from_secs(5);

/// A copy to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    /// The chunk.
    pub(super) cid: ChunkId,
    /// For whom; this node itself when its own copy is damaged.
    pub(super) to: NodeId,
    /// Sealed bytes.
    pub(super) len: u32,
    /// Whether it is the last copy that is copied: that waits for no pace.
    pub(super) last: bool,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It is on the disk there.
    Yes,
    /// It is not, but may be later.
    No,
    /// Nobody who answers has the chunk.
    Lost,
}

/// The copies under way.
pub(super) struct Copier {
    shared: Arc<Shared>,
    waiting: VecDeque<Copy>,
    under_way: JoinSet<(Copy, Made)>,
    /// Who did not take a copy, and until when it is left alone.
    lame: BTreeMap<NodeId, Time>,
    /// When the pace lets the next one begin.
    next: Time,
}

impl Copier {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (waiting, under_way, lame) = Default::default();
        Self { shared, waiting, under_way, lame, next: Time::ZERO }
    }

    /// Whether nothing waits or is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Until when the pace keeps the next copy waiting, if it does.
    pub(super) fn paced(&self, now: Time) -> Option<Time> {
        self.waiting.front().filter(|next| !next.last && now < self.next).map(|_| self.next)
    }

    /// Whether it could begin with more than it has.
    pub(super) fn is_hungry(&self) -> bool {
        self.waiting.len() < COPIES_AT_ONCE
    }

    /// Takes a copy on.
    pub(super) fn add(&mut self, copy: Copy) {
        if copy.last {
            self.waiting.push_front(copy);
        } else {
            self.waiting.push_back(copy);
        }
    }

    /// Waits for the next copy to end, beginning with others as places and pace allow. Never ends
    /// while there is nothing to do; may be cancelled.
    pub(super) async fn next(&mut self) -> (Copy, Made) {
        loop {
            let now = self.shared.sys.clock.now();
            self.lame.retain(|_, until| *until > now);
            if let Some(lamed) = self.take_lame() {
                return (lamed, Made::No);
            }
            let pause = self.begin(now);
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((copy, made)) = ended {
                        if made == Made::No {
                            self.lame.insert(copy.to, self.shared.sys.clock.now() + LAME_FOR);
                        }
                        return (copy, made);
                    }
                }
                () = tokio::time::sleep(pause), if !self.waiting.is_empty() => {}
                () = std::future::pending::<()>(), if self.is_idle() => {}
            }
        }
    }

    /// A copy that waits for somebody who would not take it.
    fn take_lame(&mut self) -> Option<Copy> {
        let view = self.shared.view();
        let hopeless = |copy: &Copy| {
            let elsewhere = copy.to != self.shared.me;
            elsewhere && (self.lame.contains_key(&copy.to) || !view.lives(&copy.to))
        };
        let at = self.waiting.iter().position(hopeless)?;
        self.waiting.remove(at)
    }

    /// Begins with what waits; returns how long the pace keeps the next one waiting.
    fn begin(&mut self, now: Time) -> Duration {
        while self.under_way.len() < COPIES_AT_ONCE
            && let Some(next) = self.waiting.front().copied()
        {
            if !next.last && now < self.next {
                return self.next.since(now);
            }
            self.waiting.pop_front();
            if let Some(rate) = self.shared.config.repair_rate {
                let takes = Duration::from_secs_f64(f64::from(next.len) / rate.max(1) as f64);
                self.next = self.next.max(now) + takes;
            }
            let shared = self.shared.clone();
            self.under_way.spawn(async move {
                let made = if next.to == shared.me {
                    shared.copy_here(next.cid).await
                } else {
                    shared.copy_to(next.cid, next.to).await
                };
                (next, made)
            });
        }
        Duration::MAX
    }
}

impl Shared {
    /// Fetches a chunk again that should be here and is not, because its copy was damaged.
    async fn copy_here(self: &Arc<Self>, cid: ChunkId) -> Made {
        let (sealed, from) = match self.fetch(cid).await {
            Ok(found) => found,
            Err(err) => {
                tracing::warn!(%err, "a damaged chunk cannot be replaced yet");
                return Made::Lost;
            }
        };
        let op = Op::Replica { cid, sealed, claim: None, hint: None };
        if let Err(err) = self.write(vec![op]).await {
            tracing::warn!(%err, "a damaged chunk was not replaced");
            return Made::No;
        }
        let from = self.view().name(&from);
        tracing::info!(cid = %cid.short(), from = %from.escape_debug(), "replaced a damaged chunk");
        Made::Yes
    }

    /// Copies a chunk of this node to another, with all its claims.
    async fn copy_to(self: &Arc<Self>, cid: ChunkId, to: NodeId) -> Made {
        match self.try_copy(cid, to).await {
            Ok(()) => Made::Yes,
            Err(err) => {
                tracing::debug!(peer = %self.view().name(&to).escape_debug(), %err, "copy failed");
                Made::No
            }
        }
    }

    async fn try_copy(
        self: &Arc<Self>,
        cid: ChunkId,
        to: NodeId,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut slot = self.memory.take(User::Work).await;
        let shared = self.clone();
        let (sealed, slot) = self
            .job(move || {
                let read = shared.store.read(cid, &mut |len| {
                    let mut buf: BytesMut = slot.buffer();
                    buf.resize(len, 0);
                    buf
                });
                (read, slot)
            })
            .await?;
        let sealed = match sealed {
            Ok(Some(sealed)) if crate::crypto::chunk_id(&sealed) == cid => sealed,
            Ok(None) => return Err("the chunk is gone".into()),
            Ok(Some(_)) | Err(ReadError::Damaged) => {
                self.check_again(cid);
                return Err("the copy here is damaged".into());
            }
            Err(ReadError::Io(err)) => return Err(err.into()),
        };
        let claims = self.live_claims(cid)?;
        #[cfg(p2pfs_planted = "forget-claims-in-repair")]
        let claims: Vec<ClaimTerms> = claims.into_iter().take(0).collect();
        let first = claims.iter().take(CLAIMS_MAX).copied().collect();
        let store = StoreMessage { cid, claims: first, hint: None };
        self.ask_store(to, &store, slot.hold(sealed)).await?;
        if claims.len() > CLAIMS_MAX
            && !self.hand_over_claims(to, vec![cid]).await.unknown.is_empty()
        {
            return Err("not all of its claims were taken".into());
        }
        Ok(())
    }
}
