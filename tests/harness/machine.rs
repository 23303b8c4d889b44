//! Two seams of a simulated machine: random bytes from a seed, and work that runs inline.
//! Invariant: nothing here depends on anything but its arguments.

use p2pfs::sys::{Rng, Spawn, Step, Work};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Random bytes from a seed.
pub(crate) struct SeededRng(AtomicU64);

impl SeededRng {
    /// From this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Rng for SeededRng {
    fn fill(&self, out: &mut [u8]) {
        let draw = self.0.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&draw.to_le_bytes());
        hasher.finalize_xof().fill(out);
    }
}

/// Runs work inline, whenever it is woken, until it is idle. Woken by the work itself it returns
/// at once: the work is running already and looks again.
#[derive(Default)]
pub(crate) struct InlineSpawn(Mutex<Vec<Arc<dyn Fn() + Send + Sync>>>);

impl InlineSpawn {
    /// Wakes all work, as its threads do by themselves when time has passed.
    pub(crate) fn tick(&self) {
        let all = self.0.lock().expect("no thread panics with it").clone();
        all.iter().for_each(|wake| wake());
    }
}

impl Spawn for InlineSpawn {
    fn start(&self, _name: &str, work: Box<dyn Work>) -> Arc<dyn Fn() + Send + Sync> {
        let work = Mutex::new(Some(work));
        let wake = Arc::new(move || {
            let Ok(mut slot) = work.try_lock() else { return };
            let Some(running) = slot.as_mut() else { return };
            loop {
                match running.step() {
                    Step::More => {}
                    Step::Idle => return,
                    Step::Done => break,
                }
            }
            *slot = None;
        });
        wake();
        self.0.lock().expect("no thread panics with it").push(wake.clone());
        wake
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}
