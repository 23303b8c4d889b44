//! Sealing ahead: while a program writes a long file in order, what lies behind it is sealed and
//! brought to its homes, so that little is left to do when the file is closed. Owns when that
//! begins and ends; `edition` takes over what was done.
//!
//! The system writes the draft of such a file out as it grows, and forgets it: the memory that it
//! would fill is worth more, and is dear to get on machines that share theirs.
//!
//! A chunk that is written again afterwards is sealed again with the version, and what was sealed
//! of it before is let go when the version of a new file is published. Under the claim of an older
//! file other versions may have the same chunk, also ones that others are just making; there it
//! stays as long as the file. The first chunk, in which many formats have what is only known at the
//! end, always waits for the version.

use super::body::Body;
use super::draft::Draft;
use super::sealing::Sealing;
use super::{State, WorkError};
use crate::chunk::CHUNK_LEN;
use crate::node::{Shared, lock};
use std::ops::Range;
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

const CHUNK: u64 = CHUNK_LEN as u64;
/// Bytes that are written in order before anything is sealed.
const FROM: u64 = 8 * CHUNK;
/// Files of which chunks are sealed ahead at a time.
const FILES: usize = 4;
/// Chunks behind the writer of which the draft may stay in the system's memory, and how many of
/// them may wait to be written to the disk. That happens by so many at a time.
const KEPT: u64 = 64;
const DIRTY: u64 = 32;
const AT_A_TIME: u64 = 8;

/// What is done of a file. Dropped, it is given up.
pub(super) struct Ahead {
    stop: oneshot::Sender<()>,
    more: Arc<Notify>,
    work: JoinSet<Result<Sealing, WorkError>>,
}

/// The bytes that were written in order until now.
#[derive(Default)]
pub(super) struct Run(Range<u64>);

impl Run {
    /// Notes a write; whether a chunk was left behind with it.
    pub(super) fn note(&mut self, at: u64, end: u64) -> bool {
        let before = self.0.end / CHUNK;
        if self.0.end == at {
            self.0.end = end;
        } else {
            self.0 = at..end;
        }
        self.is_long() && end / CHUNK != before
    }

    fn is_long(&self) -> bool {
        self.0.end - self.0.start >= FROM
    }

    /// The chunks that are behind the writer.
    pub(super) fn behind(&self) -> Range<u64> {
        if !self.is_long() {
            return 0..0;
        }
        self.0.start.div_ceil(CHUNK).max(1)..(self.0.end / CHUNK).saturating_sub(1)
    }
}

impl Ahead {
    /// There is more to do.
    pub(super) fn more(&self) {
        self.more.notify_one();
    }

    /// What was done; none: it failed, and has to be done anew.
    pub(super) async fn finish(mut self) -> Option<Sealing> {
        drop(self.stop);
        let done = self.work.join_next().await?;
        done.ok()?.inspect_err(|err| tracing::debug!(%err, "nothing was sealed ahead")).ok()
    }
}

impl Shared {
    /// Begins with files that are being written in order.
    pub(super) fn seal_ahead(self: &Arc<Self>) {
        let State { work, bodies, .. } = &*lock(&self.work.state);
        let running = bodies.values().filter(|body| body.lock().ahead.is_some()).count();
        let wanted =
            bodies.values().filter(|body| body.lock().wants_ahead() && !work.is_orphan(&body.id));
        for body in wanted.take(FILES.saturating_sub(running)) {
            let (stop, stopped) = oneshot::channel();
            let more = Arc::new(Notify::new());
            let mut work = JoinSet::new();
            let follow = follow(self.clone(), Arc::downgrade(body), more.clone(), stopped);
            work.spawn(follow);
            body.lock().ahead = Some(Ahead { stop, more, work });
        }
    }
}

/// Seals what the writer of a file leaves behind, until it is stopped.
async fn follow(
    shared: Arc<Shared>,
    body: Weak<Body>,
    more: Arc<Notify>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<Sealing, WorkError> {
    let gone = || WorkError::TimedOut;
    let mut sealing = {
        let body = body.upgrade().ok_or_else(gone)?;
        let (version, base_len) = {
            let content = body.lock();
            (content.base().cloned(), content.base_len())
        };
        let base = match base_len {
            0 => None,
            _ => shared.base_of(&body).await?,
        };
        let keys = shared.keys()?;
        shared.sealing(&body.id, version.as_ref(), base.as_deref(), keys).await?
    };
    let mut next = 0;
    while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        let staged = body.upgrade().ok_or_else(gone)?.lock().behind(next);
        if let Some(chunk) = staged {
            next = chunk.index + 1;
            let draft = chunk.draft.clone().filter(|_| next.is_multiple_of(AT_A_TIME));
            sealing.seal(chunk).await?;
            if let Some(draft) = draft {
                shared.job(move || write_out(&draft, next)).await?;
            }
            continue;
        }
        sealing.settle().await?;
        tokio::select! {
            () = more.notified() => {}
            _ = &mut stopped => break,
        }
    }
    sealing.settle().await?;
    Ok(sealing)
}

/// Has the system write what lies so far behind, and forget what lies farther behind. It may
/// refuse.
fn write_out(draft: &Draft, next: u64) {
    let range = |distance: u64| {
        let first = next.checked_sub(distance + AT_A_TIME)?;
        Some((first * CHUNK, AT_A_TIME * CHUNK))
    };
    let written = range(DIRTY).map(|(at, len)| draft.write_out(at, len));
    let forgotten = range(KEPT).map(|(at, len)| draft.let_go(at, len));
    for err in [written, forgotten].into_iter().flatten().filter_map(Result::err) {
        tracing::debug!(%err, "a draft stays in memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_writer_in_order_has_left_is_behind_it_but_the_first_chunk() {
        let mut run = Run::default();
        for at in 0..7 {
            assert!(!run.note(at * CHUNK, (at + 1) * CHUNK));
            assert_eq!(run.behind(), 0..0);
        }
        assert!(run.note(7 * CHUNK, 8 * CHUNK + 5), "a chunk was left");
        assert_eq!(run.behind(), 1..7);
        assert!(!run.note(8 * CHUNK + 5, 8 * CHUNK + 9), "no other one");
        assert_eq!(run.behind(), 1..7);
        // It goes on elsewhere, in the middle of a chunk.
        run.note(20 * CHUNK + 1, 20 * CHUNK + 2);
        assert_eq!(run.behind(), 0..0);
        assert!(run.note(20 * CHUNK + 2, 30 * CHUNK));
        assert_eq!(run.behind(), 21..29);
    }
}
