//! Looks at what is shared here, again and again: what is new or has changed is hashed and
//! announced, what is gone is withdrawn. Owns when; what is done is `node::share`'s. It rests for
//! several times as long as the last look took.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::node::{OnProgress, Shared};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many times longer than it looks it rests.
const RESTS: u32 = 20;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(600);

/// Looks at shares.
pub(in crate::node) struct Shares {
    shared: Arc<Shared>,
    /// Whether row files were checked since the start.
    checked: bool,
    files: u64,
}

impl Shares {
    pub(in crate::node) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, checked: false, files: 0 }
    }
}

impl Worker for Shares {
    const NAME: &'static str = "share";

    async fn work(&mut self) -> Worked {
        let began = self.shared.sys.clock.now();
        if self.shared.keys().is_err() {
            return Ok(Next::Idle(began + self.shared.config.share_scan));
        }
        let quiet: OnProgress = Arc::new(|_, _| {});
        self.files = 0;
        let mut whole = true;
        for entry in self.shared.shares() {
            // Whoever goes through it already does what is to be done.
            let Ok(_turn) = entry.turn() else {
                whole = false;
                continue;
            };
            let walked = self.shared.go_through(&entry, !self.checked, &quiet).await?;
            for (path, why) in &walked.why {
                let path = crate::text::shown_bytes(path);
                tracing::warn!(%path, %why, "a file is not shared");
            }
            self.files += walked.files;
        }
        self.checked |= whole;
        self.shared.sweep().await?;
        let now = self.shared.sys.clock.now();
        let least = self.shared.config.share_scan;
        let rest = (now.since(began) * RESTS).clamp(least, REST_MAX.max(least));
        Ok(Next::Idle(now + rest))
    }

    async fn wait(&mut self) {
        self.shared.shared_here.asked.notified().await;
    }

    fn report(&self) -> Report {
        let hashed = self.shared.shared_here.hashed.load(Ordering::Relaxed);
        Report { doing: format!("{} files, {hashed} hashed", self.files), ..Report::default() }
    }
}
