//! Random bytes. Keys, nonces and ids come from here too, so that a seed fixes them in simulation.

/// A source of random bytes, cryptographically strong in production.
pub trait Rng: Send + Sync + 'static {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}

impl dyn Rng {
    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A random 64-bit number.
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}
