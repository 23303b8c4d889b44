//! Chunks from one peer alone, because a person said whom to ask: nobody else is asked, however
//! slow it is. Owns how often a connection to it is made anew, and what is said when it does not
//! give what was asked for.

use super::Shared;
use super::fetch::Sharers;
use super::serve::refusal;
use crate::core::limits;
use crate::crypto::chunk_id;
use crate::id::{ChunkId, NodeId};
use crate::wire::message::FetchShare;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How often a lost connection is made anew for one chunk.
const RENEWALS: usize = 3;
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(500);

/// Who is asked for what is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// Whoever has it, the fastest first.
    Anybody,
    /// This peer and nobody else.
    Only(NodeId),
}

/// Where what of a file is not here comes from.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub whom: Whom,
    /// Who serves it in place; none of a file of which copies are stored.
    pub sharers: Sharers,
}

/// Why one peer alone did not give a file. What came of it is kept here for a while.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFrom {
    /// It was away before anything was asked.
    #[error("{name} is away")]
    Away {
        /// Its name.
        name: String,
        /// Since when: milliseconds since 1970.
        since_ms: u64,
        /// Whether it said that it goes.
        left: bool,
    },
    /// It has not all of it.
    #[error("{name} has not all of it")]
    Lacks {
        /// Its name.
        name: String,
        /// How many of the chunks it has, zero ones included; none: not even the list of them.
        has: Option<u64>,
        /// Of how many.
        chunks: u64,
    },
    /// It did not answer, or was lost on the way.
    #[error("{name} does not answer")]
    Silent {
        /// Its name.
        name: String,
    },
    /// It sent something else.
    #[error("{name} sent something else")]
    Wrong {
        /// Its name.
        name: String,
    },
}

impl Shared {
    /// The sealed bytes of a chunk from this peer, which may serve the file in place. It may be as
    /// slow as it likes while bytes come.
    pub(super) async fn fetch_from(
        self: &Arc<Self>,
        peer: NodeId,
        cid: ChunkId,
        in_place: Option<FetchShare>,
    ) -> Result<Bytes, NotFrom> {
        let began = self.sys.clock.now();
        let name = || self.view().name(&peer);
        for renewal in 0..=RENEWALS {
            let answer = match &in_place {
                Some(ask) => self.ask_fetch_share(peer, ask).await,
                None => self.ask_fetch(peer, cid).await,
            };
            match answer {
                Ok(bytes) if chunk_id(&bytes) == cid => return Ok(bytes),
                Ok(_) => {
                    let strikes = self.chooser().strike(peer);
                    tracing::warn!(peer = %name().escape_debug(), strikes, "sent a wrong chunk");
                    return Err(NotFrom::Wrong { name: name() });
                }
                Err(err) if err.refused_with(refusal::NOT_HELD) => {
                    return Err(NotFrom::Lacks { name: name(), has: None, chunks: 0 });
                }
                Err(err) => tracing::debug!(peer = %peer.short(), %err, "did not give a chunk"),
            }
            let over = self.sys.clock.now().since(began) >= limits::MOVE;
            if renewal == RENEWALS || over || !self.view().lives(&peer) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            self.renew(peer).await;
        }
        Err(NotFrom::Silent { name: name() })
    }
}
