//! A clock that moves when it is told to. Invariant: it reads no other clock.

use p2pfs::sys::{Clock, Time};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A clock that stands still.
#[derive(Default)]
pub(crate) struct SimClock(AtomicU64);

impl SimClock {
    /// Lets time pass.
    pub(crate) fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1000
    }
}
