//! Links to files: made with hints at nodes that have the file, and followed to nodes that this one
//! may not have met yet. What a link looks like is specified in `wire::link`.

use super::Outcome;
use crate::chunk::chunk_count;
use crate::core::catalogue::Content;
use crate::core::limits;
use crate::id::{ChunkId, FileHash, NodeId};
use crate::node::get::OpenFile;
use crate::node::records::records_of;
use crate::node::{NotReady, Shared};
use crate::transport::DialError;
use crate::wire::control::{Linked, Target};
use crate::wire::gossip::Reach;
use crate::wire::hello::Lane;
use crate::wire::link::{HINTS_MAX, Hint, Link};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Why a link is not followed. Nobody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// It leads into the swarm whose id begins so.
    #[error("the link is for another swarm")]
    Elsewhere([u8; 8]),
    /// It has ended, in milliseconds since 1970.
    #[error("the link has ended")]
    Ended(u64),
}

impl Shared {
    pub(super) async fn link(
        self: &Arc<Self>,
        target: &Target,
        ttl_ms: Option<u64>,
    ) -> Outcome<Linked> {
        let swarm = self.standing().ok_or(NotReady::Waiting)?.swarm_id();
        let (hash, file) = self.opened_with_hash(target).await?;
        let holders = self.hint_at(&file).await?;
        let view = self.view();
        let now_ms = self.sys.clock.wall_ms();
        let ends_s = ttl_ms.map_or(0, |ttl| {
            u32::try_from(now_ms.saturating_add(ttl).div_ceil(1_000)).unwrap_or(u32::MAX)
        });
        let hint = |id: &NodeId| Some(Hint::at(id, *view.addr(id)?.addrs.first()?));
        let link = Link {
            swarm: *swarm.0.first_chunk().expect("an id is longer"),
            hash,
            length: file.manifest.length,
            ends_s,
            hints: holders.iter().filter_map(hint).take(HINTS_MAX).collect(),
        };
        let named = |id: &&NodeId| link.hints.iter().any(|hint| hint.is(id));
        let holders = holders.iter().filter(named).map(|id| view.name(id)).collect();
        let expires_ms = (ends_s > 0).then_some(u64::from(ends_s) * 1_000);
        Ok(Linked { link, hash, expires_ms, holders })
    }

    /// Live members that have the first of the file, those that everybody can dial first. What is
    /// so small that it has no chunks is at every member.
    async fn hint_at(self: &Arc<Self>, file: &OpenFile) -> Outcome<Vec<NodeId>> {
        let view = self.view();
        let mut found: Vec<NodeId> = match self.first_chunk(file).await? {
            Some(cid) => {
                let held = self.holders_of(&[cid]).await.into_iter();
                held.filter(|(_, bits)| bits == &[true]).map(|(id, _)| id).collect()
            }
            None => view.members.keys().filter(|id| view.lives(id)).copied().collect(),
        };
        let hidden = |id: &NodeId| {
            view.members.get(id).is_none_or(|member| member.record.reach != Reach::Public)
        };
        found.sort_by_key(|id| (hidden(id), *id != self.me));
        Ok(found)
    }

    async fn first_chunk(self: &Arc<Self>, file: &OpenFile) -> Outcome<Option<ChunkId>> {
        for index in 0..chunk_count(file.manifest.length).min(1) {
            let row = self.row_of(file, index).await?;
            if !row.is_zero() {
                return Ok(Some(row.cid));
            }
        }
        Ok(match &file.record.content {
            Content::Stored { manifest, .. } => Some(*manifest),
            Content::Inline(_) => None,
        })
    }

    /// Sees to it that the file of a link can be asked for: when nothing is known of it here, the
    /// nodes that the link names are dialled, and waited for a moment.
    pub(super) async fn follow(self: &Arc<Self>, link: &Link) -> Outcome<()> {
        let swarm = self.standing().ok_or(NotReady::Waiting)?.swarm_id();
        if !link.is_of(&swarm) {
            return Err(LinkFault::Elsewhere(link.swarm).into());
        }
        let ends_ms = u64::from(link.ends_s) * 1_000;
        if ends_ms > 0 && self.sys.clock.wall_ms() > ends_ms {
            return Err(LinkFault::Ended(ends_ms).into());
        }
        if self.knows(link.hash)? {
            return Ok(());
        }
        let mut meeting = JoinSet::new();
        for hint in link.hints.iter().filter(|hint| !self.has_met(hint)) {
            let (shared, hint) = (self.clone(), hint.clone());
            meeting.spawn(async move { shared.meet(&hint).await });
        }
        // Others may know of it although none of those answers.
        while let Some(met) = meeting.join_next().await {
            if let Ok(Err(err)) = met {
                tracing::debug!(%err, "a node that a link names is not reached");
            }
        }
        Ok(())
    }

    fn knows(&self, hash: FileHash) -> Outcome<bool> {
        let keyring = self.catalogue.keyring();
        Ok(!self.read_records(|view| records_of(view, &keyring, &hash))?.is_empty())
    }

    fn has_met(&self, hint: &Hint) -> bool {
        hint.is(&self.me) || self.view().others().any(|member| hint.is(&member.record.id))
    }

    /// Dials a node and waits until it is known as a member.
    async fn meet(&self, hint: &Hint) -> Result<(), DialError> {
        self.transport().dial(hint.addr, None, Lane::Control).await?;
        let mut views = self.views();
        let met = views.wait_for(|view| view.others().any(|member| hint.is(&member.record.id)));
        // It may be another node by now, which is a member as well or will be of no use.
        drop(timeout(limits::ASK_ALL, met).await);
        Ok(())
    }
}
