//! Getting a file from one named peer: who is meant, and why it cannot give what was asked for.

use super::{Error, Outcome};
use crate::chunk::chunk_count;
use crate::id::NodeId;
use crate::node::Shared;
use crate::node::from::{NotFrom, Whom};
use crate::node::get::{GetError, OpenFile};
use crate::wire::control::PeerState;
use std::sync::Arc;

impl Shared {
    /// The one other member that a person calls so, by name or id prefix.
    pub(super) fn the_peer(&self, called: &str) -> Outcome<NodeId> {
        let view = self.view();
        match &view.find(called)[..] {
            [] => Err(Error::UnknownPeer),
            [id] if *id == self.me => Err(Error::ThisNode),
            [id] => Ok(*id),
            many => {
                let found = many.iter().map(|id| (view.name(id), *id)).collect();
                Err(Error::AmbiguousPeer { found })
            }
        }
    }

    /// The same; it is alive, as far as that is known.
    pub(super) fn peer_meant(&self, called: &str) -> Outcome<Whom> {
        let (view, id) = (self.view(), self.the_peer(called)?);
        let away = view.members.get(&id).filter(|member| !member.lives());
        if let Some(member) = away {
            let now = self.sys.clock.now();
            let ago = super::files::millis(now.since(member.since));
            let since_ms = self.sys.clock.wall_ms().saturating_sub(ago);
            let left = member.state == PeerState::Left;
            return Err(
                GetError::from(NotFrom::Away { name: view.name(&id), since_ms, left }).into()
            );
        }
        Ok(Whom::Only(id))
    }

    /// Counts what a peer has of a file, when that is why it was not got.
    pub(super) async fn counted(self: &Arc<Self>, err: GetError, file: &OpenFile) -> GetError {
        let (GetError::NotFrom(NotFrom::Lacks { name, .. }), Whom::Only(peer)) =
            (&err, file.sources.whom)
        else {
            return err;
        };
        let has = self.held_by(peer, file).await.ok();
        let chunks = chunk_count(file.manifest.length);
        NotFrom::Lacks { name: name.clone(), has, chunks }.into()
    }
}
