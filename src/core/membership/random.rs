//! The core's own source of chance: SplitMix64 (Steele, Lea and Flood, 2014), seeded from outside
//! so that a seed fixes a whole history. For choices and jitter only, never for keys.

use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias of the remainder is below 2^-48 for
    /// the sizes of a member table.
    pub(super) const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// `span` changed by up to a quarter either way, so that nodes do not act in step.
    pub(super) fn jitter(&mut self, span: Duration) -> Duration {
        span * 3 / 4 + span / 2 * u32::from(self.next() as u16) / (1 << 16)
    }
}
