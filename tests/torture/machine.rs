//! What the tests have in common: whether this is the full form, who runs now, what the machine
//! can do, and decisions from a seed. Invariant: a test that cannot run says so where whoever
//! wants to know looks (`P2PFS_TEST_SKIPS`).

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether everything is asked for, or some of it.
pub(crate) fn is_full() -> bool {
    std::env::var("P2PFS_TORTURE").is_ok_and(|what| what == "full")
}

/// One of two, by form.
pub(crate) fn form<T>(short: T, full: T) -> T {
    if is_full() { full } else { short }
}

/// Keeps the other tests waiting for as long as it is held.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has said so itself.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this user may do everything and these programs are here; says so if not.
pub(crate) fn able(test: &str, programs: &[&str]) -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing = programs.iter().find(|program| path_of(program).is_none());
    let why = match missing {
        _ if !root => "it needs root".to_owned(),
        Some(program) => format!("{program} is not installed"),
        None => return true,
    };
    skipped(test, &why);
    false
}

/// Where a program of the machine is; daemons are started without a `PATH`.
pub(crate) fn path_of(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut places = path.split(':').map(|dir| format!("{dir}/{program}"));
    places.find(|place| std::path::Path::new(place).is_file())
}

/// Says that a test cannot run here.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: {why}").ok();
    if let Some(list) = std::env::var_os("P2PFS_TEST_SKIPS") {
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "torture: {test}: {why}").unwrap();
    }
}

/// Runs a program of the machine that must succeed; what it prints.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(path_of(program).unwrap()).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// Decisions from a seed (SplitMix64, Steele et al. 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `P2PFS_TORTURE_SEED`, or each time another.
    pub(crate) fn from_outside() -> Self {
        let given = std::env::var("P2PFS_TORTURE_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("P2PFS_TORTURE_SEED={seed}");
        Self::new(seed)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut out = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (out ^ (out >> 31)) % bound
    }

    /// A length from 1 byte to 8 MiB, as many small as large ones.
    pub(crate) const fn len(&mut self) -> usize {
        let magnitude = self.below(23);
        ((1 << magnitude) + self.below(1 << magnitude)) as usize
    }
}

/// Tells threads to end when it goes, also when the test fails: somebody waits for them.
pub(crate) struct End<'a>(pub(crate) &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
