//! The board: what each worker is doing, how far it is, how fast, what went wrong and when it runs
//! next. Owns one row per worker; the rows are written by `shape` and read by `status --workers`.

use crate::node::{Shared, lock};
use crate::sys::Time;
use crate::wire::control::{WorkerInfo, WorkerState};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

/// The time over which a rate is taken, in steps of [`STEP`].
const STEPS: usize = 12;
/// One step.
const STEP: Duration = Duration::from_secs(5);
/// Characters of an error that are kept: it may contain what others said.
const ERROR_CHARS: usize = 300;

/// What a worker says of itself.
#[derive(Debug, Clone, Default)]
pub(in crate::node) struct Report {
    /// How far it is: done, of how much.
    pub(in crate::node) progress: Option<(u64, u64)>,
    /// What that counts, in the plural: `bytes`, `chunks`.
    pub(in crate::node) unit: &'static str,
    /// What it is at, in a few words, where that cannot be counted.
    pub(in crate::node) doing: String,
    /// How much it has done since the start; the board makes a rate of it.
    pub(in crate::node) moved: u64,
    /// What that counts, in the plural.
    pub(in crate::node) moved_unit: &'static str,
}

/// All workers by name.
#[derive(Default)]
pub(in crate::node) struct Board {
    rows: Mutex<BTreeMap<&'static str, Row>>,
}

#[derive(Default)]
struct Row {
    state: Option<WorkerState>,
    next: Option<Time>,
    report: Report,
    rate: Rate,
    errors: u64,
    last_error: Option<(String, Time)>,
}

impl Board {
    /// Notes what a worker is doing, and when it goes on.
    pub(super) fn state(&self, name: &'static str, state: WorkerState, next: Option<Time>) {
        let mut rows = lock(&self.rows);
        let row = rows.entry(name).or_default();
        (row.state, row.next) = (Some(state), next);
    }

    /// Notes what a worker says of itself.
    pub(super) fn report(&self, name: &'static str, now: Time, report: Report) {
        let mut rows = lock(&self.rows);
        let row = rows.entry(name).or_default();
        row.rate.add(now, report.moved.saturating_sub(row.report.moved));
        row.report = report;
    }

    /// Counts an error.
    pub(super) fn failed(&self, name: &'static str, now: Time, err: &dyn Error) {
        let mut rows = lock(&self.rows);
        let row = rows.entry(name).or_default();
        row.errors += 1;
        row.last_error = Some((err.to_string().chars().take(ERROR_CHARS).collect(), now));
    }

    fn read(&self, now: Time) -> Vec<WorkerInfo> {
        let rows = lock(&self.rows);
        rows.iter().map(|(name, row)| row.info(name, now)).collect()
    }
}

impl Row {
    fn info(&self, name: &str, now: Time) -> WorkerInfo {
        let Report { progress, unit, doing, moved_unit, .. } = &self.report;
        let last_error = self.last_error.as_ref();
        WorkerInfo {
            name: name.to_owned(),
            state: self.state.unwrap_or(WorkerState::Waiting),
            doing: doing.clone(),
            done: progress.map(|(done, _)| done),
            total: progress.map(|(_, total)| total),
            unit: progress.map(|_| (*unit).to_owned()),
            rate: (!moved_unit.is_empty()).then(|| self.rate.per_second(now)),
            rate_unit: (!moved_unit.is_empty()).then(|| (*moved_unit).to_owned()),
            errors: self.errors,
            last_error: last_error.map(|(text, _)| text.clone()),
            last_error_ms: last_error.map(|(_, at)| millis(now.since(*at))),
            next_ms: self.next.map(|next| millis(next.since(now))),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How much was done in each of the last steps.
#[derive(Default)]
struct Rate {
    /// Number of the step, what was done in it.
    steps: [(u64, u64); STEPS],
}

impl Rate {
    fn add(&mut self, now: Time, moved: u64) {
        let step = step(now);
        let slot = &mut self.steps[(step % STEPS as u64) as usize];
        if slot.0 != step {
            *slot = (step, 0);
        }
        slot.1 = slot.1.saturating_add(moved);
    }

    /// The mean of the last minute.
    fn per_second(&self, now: Time) -> u64 {
        let oldest = (step(now) + 1).saturating_sub(STEPS as u64);
        let moved = self.steps.iter().filter(|(step, _)| *step >= oldest).map(|(_, moved)| moved);
        let began = Time::ZERO + STEP * u32::try_from(oldest).unwrap_or(u32::MAX);
        moved.sum::<u64>() / now.since(began).as_secs().max(1)
    }
}

/// Which step a moment belongs to.
fn step(now: Time) -> u64 {
    now.since(Time::ZERO).as_secs() / STEP.as_secs()
}

impl Shared {
    /// Counts an error of a worker that goes on all the same.
    pub(in crate::node) fn worker_failed(&self, name: &'static str, err: &dyn Error) {
        self.board.failed(name, self.sys.clock.now(), err);
    }

    /// What all workers are doing, sorted by name.
    pub(in crate::node) fn workers(&self) -> Vec<WorkerInfo> {
        self.board.read(self.sys.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let board = Board::default();
        let rate = |now| board.read(at(now))[0].rate;
        let moved = |now, moved| {
            let report = Report { moved, moved_unit: "bytes", ..Report::default() };
            board.report("one", at(now), report);
        };
        moved(100, 0);
        moved(101, 600);
        moved(130, 3_600);
        assert_eq!(rate(155), Some(3_600 / 55));
        assert_eq!(rate(165), Some(3_000 / 55));
        assert_eq!(rate(300), Some(0));
        moved(301, 3_600 + 58_000);
        assert_eq!(rate(303), Some(1_000));
    }

    #[test]
    fn an_error_stays_with_its_age() {
        let board = Board::default();
        board.state("one", WorkerState::Idle, Some(at(12)));
        board.failed("one", at(5), &std::io::Error::other("x".repeat(1_000)));
        let row = &board.read(at(9))[0];
        assert_eq!((row.errors, row.last_error_ms, row.next_ms), (1, Some(4_000), Some(3_000)));
        assert_eq!(row.last_error.as_ref().map(String::len), Some(ERROR_CHARS));
        assert!(row.rate.is_none() && row.done.is_none());
    }
}
