//! Chance, all of it from the seed: the dice of the plan, and the random bytes that libraries draw
//! from the system by themselves (orders of hash tables, tokio's choice of whom to wake first).
//! Invariant: in a thread that has called [`seed_this_thread`] nothing random comes from outside.

use std::cell::Cell;

/// Dice: SplitMix64.
pub(crate) struct Dice(u64);

impl Dice {
    /// From a seed; `purpose` keeps streams of one seed apart.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("p2pfs simulation dice");
        hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        let hash = hasher.finalize();
        Self(u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()))
    }

    /// A random number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0 to `sides` - 1.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides.max(1)
    }

    /// One of `from` to `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Yes in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

thread_local! {
    static STREAM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on the system's random source gives this thread what follows from `seed`.
pub(crate) fn seed_this_thread(seed: u64) {
    STREAM.set(Some(Dice::new(seed, "system").0));
}

/// Stands in for the C library's function of this name in this test program; the standard library
/// and the crates find it first. Threads without a seed get the real thing.
#[allow(unsafe_code, reason = "replacing a C function cannot be said otherwise")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buf: *mut u8, len: usize, flags: u32) -> isize {
    let Ok(Some(state)) = STREAM.try_with(Cell::get) else {
        // SAFETY: the caller's own arguments, passed on to the kernel unchanged.
        return unsafe { libc::syscall(libc::SYS_getrandom, buf, len, flags) } as isize;
    };
    let mut dice = Dice(state);
    for at in 0..len {
        // SAFETY: the caller vouches for `len` bytes at `buf`.
        unsafe { buf.add(at).write(dice.roll() as u8) };
    }
    STREAM.set(Some(dice.0));
    len as isize
}
