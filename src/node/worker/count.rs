//! Counts what only history keeps: some of what ended at a time, in pauses, and from the first on
//! again after a while. Owns the sum and its age; what counts is the tree's.

use crate::core::tree::{Ended, Tree};
use crate::node::Shared;
use crate::sys::Time;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Rows that are looked at in one go: some milliseconds of work.
const PIECE: usize = 1024;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(1);
/// A count that takes long is begun anew after so many times as long.
const REST: u32 = 10;

/// What history keeps, as it was counted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Counted {
    /// Bytes of files, at most.
    pub(in crate::node) bytes: u64,
    /// When that was.
    pub(in crate::node) at: Time,
}

/// A count under way.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Nothing before this.
    pub(super) due: Time,
    after: Option<Ended>,
    bytes: u64,
    began: Time,
}

impl Count {
    /// Goes on with it, if that is due; `every`: how often it is begun anew.
    pub(super) async fn work(&mut self, shared: &Arc<Shared>, every: Duration) {
        let now = shared.sys.clock.now();
        if now < self.due {
            return;
        }
        self.due = now + every;
        if shared.keys().is_err() {
            return;
        }
        if self.after.is_none() {
            (self.bytes, self.began) = (0, now);
        }
        let (counting, after) = (shared.clone(), self.after);
        let piece = shared.job(move || counting.count_piece(after)).await;
        let piece = match piece.flatten() {
            Ok(piece) => piece,
            Err(err) => return tracing::debug!(%err, "what history keeps is not counted"),
        };
        self.bytes = self.bytes.saturating_add(piece.bytes);
        self.after = piece.next;
        if self.after.is_some() {
            self.due = now + PAUSE;
        } else {
            shared.counted.send_replace(Some(Counted { bytes: self.bytes, at: now }));
            self.due = now + every.max(now.since(self.began) * REST);
        }
    }
}

/// What some rows came to.
struct Piece {
    bytes: u64,
    /// Behind which there is more.
    next: Option<Ended>,
}

impl Shared {
    fn count_piece(&self, after: Option<Ended>) -> io::Result<Piece> {
        let keyring = self.catalogue.keyring();
        self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            let rows = tree.ended_until(after.as_ref(), u64::MAX, PIECE)?;
            let bytes = rows.iter().map(|row| tree.kept_for(row)).sum::<io::Result<u64>>()?;
            let next = rows.last().copied().filter(|_| rows.len() == PIECE);
            Ok(Piece { bytes, next })
        })
    }
}
