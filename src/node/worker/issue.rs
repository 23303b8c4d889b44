//! Lets members read that lack the content secret: whoever put a copy of the swarm key on another
//! machine has made a member there, but nobody has sealed an epoch to it. Every admin notices, and
//! the first of them in the order of ids does it; the next ones only if it is still missing then.
//! A node that let itself in that way says so itself.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::id::NodeId;
use crate::node::Shared;
use crate::sys::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an admin leaves it to the one before it.
const TURN: Duration = Duration::from_secs(3);
/// Admins that take turns; with so many away nobody else steps in before the next change.
const TURNS_MAX: usize = 8;

/// The worker.
pub(in crate::node) struct Issue {
    shared: Arc<Shared>,
    readers: watch::Receiver<u64>,
    /// When it is this node's turn to seal, while somebody cannot read.
    turn: Option<Time>,
}

impl Issue {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { readers: shared.readers_changed.subscribe(), shared, turn: None }
    }
}

impl Worker for Issue {
    const NAME: &'static str = "issue";

    async fn work(&mut self) -> Worked {
        self.readers.borrow_and_update();
        self.shared.say_own_grant().await?;
        if !wanted(&self.shared) {
            self.turn = None;
            return Ok(Next::Wait);
        }
        let now = self.shared.sys.clock.now();
        let before = || admins_before(&self.shared).min(TURNS_MAX) as u32;
        let turn = *self.turn.get_or_insert_with(|| now + TURN * before());
        if now < turn {
            return Ok(Next::Idle(turn));
        }
        self.turn = None;
        self.shared.seal_to_all().await?;
        Ok(Next::Wait)
    }

    async fn wait(&mut self) {
        // The sender lives in `shared`.
        drop(self.readers.changed().await);
    }

    fn report(&self) -> Report {
        let somebody = if self.turn.is_some() { "somebody cannot read yet" } else { "" };
        Report { doing: somebody.into(), ..Report::default() }
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
