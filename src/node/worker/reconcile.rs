//! Makes this node's catalogue equal to a neighbour's: with every neighbour when the link comes up,
//! with a random one every half minute. What to ask is decided by `core::catalogue::sync`; records
//! that come are taken like any other.

use crate::core::catalogue::sync::{Exchange, SyncError};
use crate::core::limits;
use crate::id::NodeId;
use crate::node::{AskError, Shared};
use crate::store::WriteError;
use crate::transport::Message as Frame;
use crate::wire::codec::{Decode, Encode};
use crate::wire::hello::Lane;
use crate::wire::message::kind;
use crate::wire::sync::Answer;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Tables(#[from] io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Runs for as long as the node does.
pub(in crate::node) async fn run(shared: Arc<Shared>) {
    let mut views = shared.views();
    let mut met: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        // A member cannot be asked before its address is known, which the view tells.
        let links: BTreeSet<NodeId> =
            shared.links().into_iter().filter(|id| shared.view().lives(id)).collect();
        met.retain(|id| links.contains(id));
        let new: Vec<NodeId> = links.difference(&met).copied().collect();
        for id in new {
            met.insert(id);
            shared.reconcile(id).await;
        }
        tokio::select! {
            biased;
            changed = views.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(shared.config.reconcile_every) => {
                let links: Vec<NodeId> = met.iter().copied().collect();
                if !links.is_empty() {
                    let at = shared.sys.rng.u64() as usize % links.len();
                    shared.reconcile(links[at]).await;
                }
            }
        }
    }
}

impl Shared {
    /// Makes both catalogues equal, as far as both accept what the other has.
    async fn reconcile(self: &Arc<Self>, with: NodeId) {
        match self.try_reconcile(with).await {
            Ok((0, 0)) => {}
            Ok((fetched, pushed)) => {
                let peer = self.view().name(&with);
                tracing::info!(peer = %peer.escape_debug(), fetched, pushed, "catalogues reconciled");
            }
            Err(err) => tracing::debug!(peer = %with.short(), %err, "reconciling broke off"),
        }
    }

    async fn try_reconcile(self: &Arc<Self>, with: NodeId) -> Result<(u64, u64), ReconcileError> {
        let mut exchange = Exchange::new();
        loop {
            let Some(ask) = self.read_records(|view| exchange.next(view))? else {
                return Ok(exchange.moved());
            };
            let frame = Frame { kind: kind::SYNC, head: ask.to_bytes().into(), body: Bytes::new() };
            let answer = self.ask_frame(with, Lane::Control, frame, limits::ASK).await?;
            let answer = Answer::from_bytes(&answer.head).map_err(AskError::from)?;
            let mut taken = Ok(Vec::new());
            self.read_records(|view| {
                taken = exchange.take(view, answer);
                Ok(())
            })?;
            let records = taken?;
            if !records.is_empty() {
                self.take_records(with, records).await?;
            }
        }
    }
}
