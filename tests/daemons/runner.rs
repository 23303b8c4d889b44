//! Runs seeds, each in a process of its own, as many at a time as there are cores, and reads back
//! what they report.

use crate::chance::seed_this_thread;
use crate::history::History;
use crate::joins;
use crate::plan::Plan;
use crate::play::play;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seeds that every change is tested with.
const SEEDS: u64 = 200;
/// Seeds that every change plays twice.
const AGAIN: u64 = 5;
/// Tells a process which seed to play, and how.
const TOLD: &str = "P2PFS_DAEMON_PLAY";
/// Longest real time for one seed, which usually takes a second.
const PATIENCE: Duration = Duration::from_secs(180);
/// Begins a line of the report.
const MARK: &str = "report:";

/// What is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    /// The plan as it is.
    Real,
    /// The bug that has to be found.
    LyingDisks,
    /// Machines that join a swarm of 5, so that there are 20.
    FiveToTwenty,
    /// Machines that join a swarm of 10, so that there are 30.
    TenToThirty,
}

/// What became of one seed.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) hash: String,
    pub(crate) violations: Vec<String>,
    totals: BTreeMap<String, u64>,
    took: Duration,
    output: String,
}

impl Run {
    /// What was wrong, and how to see it again.
    pub(crate) fn what_is_wrong(&self) -> Option<String> {
        let Self { seed, violations, output, .. } = self;
        if self.hash.is_empty() {
            let tail: Vec<&str> = output.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            return Some(format!("seed {seed} did not end:\n{}", tail.join("\n")));
        }
        let list = violations.join("\n  ");
        (!violations.is_empty()).then(|| format!("seed {seed}:\n  {list}\n{}", how_to_see(*seed)))
    }
}

fn how_to_see(seed: u64) -> String {
    format!("  P2PFS_DAEMON_SEED={seed} cargo test --test daemons seeds -- --nocapture")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// The seeds to play.
pub(crate) fn seeds() -> Vec<u64> {
    let from = number("P2PFS_DAEMON_FROM").unwrap_or(1);
    match number("P2PFS_DAEMON_SEED") {
        Some(seed) => vec![seed],
        None => (from..from + number("P2PFS_DAEMON_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// How many of them are played twice.
pub(crate) fn again() -> usize {
    usize::try_from(number("P2PFS_DAEMON_AGAIN").unwrap_or(AGAIN)).unwrap()
}

/// Plays the seed that the environment names, and reports.
pub(crate) fn play_as_told() {
    let told = std::env::var(TOLD).unwrap_or_default();
    let Some((seed, variant)) = told.split_once(' ') else { return };
    let seed: u64 = seed.parse().unwrap();
    let is = |one: Variant| variant == format!("{one:?}");
    let mut plan = Plan::of(seed);
    if is(Variant::LyingDisks) {
        plan = plan.with_lying_disks();
    }
    let joins = match () {
        () if is(Variant::FiveToTwenty) => Some((5, 20)),
        () if is(Variant::TenToThirty) => Some((10, 30)),
        () => None,
    };
    if let Ok(filter) = std::env::var("P2PFS_DAEMON_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let verbose = std::env::var("P2PFS_DAEMON_SEED").is_ok();
    if verbose {
        println!("{plan:?}");
    }
    let history = History::new(verbose);
    let panics = history.clone();
    std::panic::set_hook(Box::new(move |panic| {
        panics.violation(Duration::ZERO, format!("panic: {panic}"));
    }));
    let player = history.clone();
    let thread = std::thread::spawn(move || {
        seed_this_thread(seed);
        match joins {
            Some((from, to)) => joins::play(seed, from, to, &player),
            None => play(seed, plan, &player),
        }
    });
    // A panic is among the violations.
    drop(thread.join());
    let (hash, events, delivered) = history.sum();
    println!("\n{MARK} hash {hash}");
    println!("{MARK} total {events} events");
    println!("{MARK} total {} MiB delivered", delivered >> 20);
    for (kind, count) in history.totals() {
        println!("{MARK} total {count} {kind}");
    }
    for violation in history.violations() {
        println!("{MARK} violation {}", violation.replace('\n', " "));
    }
}

/// Plays seeds, several at a time; the runs in the order of the seeds.
pub(crate) fn run_all(seeds: &[u64], variant: Variant) -> Vec<Run> {
    let next = Mutex::new(seeds.iter().enumerate());
    let runs: Mutex<BTreeMap<usize, Run>> = Mutex::default();
    let first_is_enough = std::env::var("P2PFS_DAEMON_UNTIL_WRONG").is_ok();
    let enough = || {
        let wrong = |run: &Run| run.what_is_wrong().is_some();
        first_is_enough && runs.lock().unwrap().values().any(wrong)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(seeds.len()) {
            scope.spawn(|| {
                while let Some((at, seed)) = { next.lock().unwrap().next() }.filter(|_| !enough()) {
                    let run = run_one(*seed, variant);
                    let took = run.took.as_secs_f64();
                    let wrong = if run.what_is_wrong().is_some() { ", WRONG" } else { "" };
                    println!("{variant:?} seed {seed}: {took:.1} s, history {}{wrong}", run.hash);
                    runs.lock().unwrap().insert(at, run);
                }
            });
        }
    });
    runs.into_inner().unwrap().into_values().collect()
}

fn run_one(seed: u64, variant: Variant) -> Run {
    let begin = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_seed", "--nocapture", "--test-threads=1"])
        .env(TOLD, format!("{seed} {variant:?}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let text = |mut from: Box<dyn Read + Send>| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
    };
    let output = std::thread::scope(|scope| {
        let err = scope.spawn(move || text(Box::new(err)).unwrap());
        let out = scope.spawn(move || text(Box::new(out)).unwrap());
        // A simulation whose time stands still would never end.
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > PATIENCE {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        out.join().unwrap() + &err.join().unwrap()
    });
    if std::env::var("P2PFS_DAEMON_SEED").is_ok() {
        println!("{output}");
    }
    let (hash, totals, violations) = (String::new(), BTreeMap::new(), Vec::new());
    let took = begin.elapsed();
    let mut run = Run { seed, hash, violations, totals, took, output };
    run.read_report();
    run
}

impl Run {
    fn read_report(&mut self) {
        for line in self.output.lines().filter_map(|line| line.strip_prefix(MARK)) {
            match line.trim().split_once(' ') {
                Some(("hash", hash)) => self.hash = hash.to_owned(),
                Some(("violation", what)) => self.violations.push(what.to_owned()),
                Some(("total", total)) => {
                    let (count, kind) = total.split_once(' ').unwrap();
                    self.totals.insert(kind.to_owned(), count.parse().unwrap());
                }
                _ => {}
            }
        }
    }
}

/// How often each kind of event happened, in all runs together.
pub(crate) fn print_totals(runs: &[Run]) {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in runs.iter().flat_map(|run| &run.totals) {
        let total = totals.entry(kind).or_default();
        *total = if kind.starts_with("most") { *count.max(total) } else { *total + count };
    }
    let took: f64 = runs.iter().map(|run| run.took.as_secs_f64()).sum();
    println!("{} runs, {took:.1} s of processor", runs.len());
    for (kind, count) in totals {
        println!("  {count:>8} {kind}");
    }
}
