//! Lets members read that lack the content secret: whoever put a copy of the swarm key on another
//! machine has made a member there, but nobody has sealed an epoch to it. Every admin notices, and
//! the first of them in the order of ids does it; the next ones only if it is still missing then.

use crate::id::NodeId;
use crate::node::Shared;
use std::sync::Arc;
use std::time::Duration;

/// How long an admin leaves it to the one before it.
const TURN: Duration = Duration::from_secs(3);
/// Admins that take turns; with so many away nobody else steps in before the next change.
const TURNS_MAX: usize = 8;

/// Runs for as long as the node does.
pub(in crate::node) async fn run(shared: Arc<Shared>) {
    let mut readers = shared.readers_changed.subscribe();
    loop {
        readers.borrow_and_update();
        if wanted(&shared) {
            let before = admins_before(&shared).min(TURNS_MAX);
            tokio::time::sleep(TURN * before as u32).await;
            if wanted(&shared)
                && let Err(err) = shared.seal_to_all().await
            {
                tracing::warn!(%err, "a reader still lacks the content secret");
            }
        }
        if readers.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(shared: &Shared) -> bool {
    shared.somebody_cannot_read().unwrap_or_else(|err| {
        tracing::warn!(%err, "the swarm key cannot be used");
        false
    })
}

/// Live admins before this one.
fn admins_before(shared: &Shared) -> usize {
    let view = shared.view();
    let others: Vec<NodeId> = view.others().map(|member| member.record.id).collect();
    others.into_iter().filter(|id| *id < shared.me && shared.is_admin(id)).count()
}
