//! Time as values: a monotonic instant that the simulator can make and print, and the trait that
//! reads the clocks. Decisions in `core` get a `Time` as an argument and never read a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A monotonic instant: microseconds since an origin that only this process knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The time that passed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// Reads the clocks of the machine.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time: for timeouts, leases and rates.
    fn now(&self) -> Time;

    /// Wall-clock time in milliseconds since 1970-01-01 UTC: only for hybrid logical clocks, grants
    /// and what people read. It may jump.
    fn wall_ms(&self) -> u64;
}
