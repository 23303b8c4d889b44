//! Copies one chunk of this node to another, with all its claims. Owns nothing but that; which
//! chunk and to whom is decided by repair.

use crate::id::{ChunkId, NodeId};
use crate::node::Shared;
use crate::node::memory::User;
use crate::wire::message::{CLAIMS_MAX, ClaimTerms, Store as StoreMessage};
use bytes::BytesMut;
use std::sync::Arc;

impl Shared {
    /// Copies a chunk of this node to another, with all its claims; true when it is there.
    pub(super) async fn copy_to(self: &Arc<Self>, cid: ChunkId, to: NodeId) -> bool {
        match self.try_copy(cid, to).await {
            Ok(()) => true,
            Err(err) => {
                tracing::debug!(peer = %self.view().name(&to).escape_debug(), %err, "copy failed");
                false
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
        let sealed = sealed?.ok_or("the chunk is gone")?;
        if crate::crypto::chunk_id(&sealed) != cid {
            self.check_again(cid);
            return Err("the copy here is damaged".into());
        }
        let claims = self.store.claims(cid)?;
        let mut terms = claims.into_iter().map(|(claim, committed)| ClaimTerms {
            id: claim.id,
            replicas: claim.replicas,
            renewed_ms: claim.renewed_ms,
            committed,
        });
        let first: Vec<_> = terms.by_ref().take(CLAIMS_MAX).collect();
        let store = StoreMessage { cid, claims: first, hint: None };
        self.ask_store(to, &store, slot.hold(sealed)).await?;
        for claim in terms {
            self.ask_have(to, claim, vec![cid]).await?;
        }
        Ok(())
    }
}
