//! Shows how far a transfer is: a bar on a terminal, now and then a plain line elsewhere, nothing
//! for work that is over before anybody wonders.

use crate::sys::os::OsClock;
use crate::sys::{Clock, Time};
use crate::text;
use crate::wire::control::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Work that ends earlier shows no bar.
const BAR_AFTER: Duration = Duration::from_millis(300);
/// Work that ends earlier prints no plain line.
const LINE_AFTER: Duration = Duration::from_secs(5);
/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Terminals that are narrower show no bar: the figures say more.
const BAR_FROM: usize = 76;
/// Terminals that are narrower show no rate: a line that is too long is drawn as two.
const RATE_FROM: usize = 54;
/// Columns that the figures take, and the bar where there is one.
const FIGURES: usize = 64;
/// Fewest columns of a label.
const LABEL_MIN: usize = 12;

/// A progress display; shared with the client, which feeds it.
pub(in crate::cli) struct Meter {
    terminal: bool,
    clock: OsClock,
    state: Mutex<State>,
}

struct State {
    silent: bool,
    label: String,
    started: Time,
    next_line: Time,
    bar: Option<ProgressBar>,
}

impl Meter {
    pub(super) fn new(terminal: bool, silent: bool) -> Self {
        let clock = OsClock::new();
        let started = clock.now();
        let next_line = started + LINE_AFTER;
        let state = State { silent, label: String::new(), started, next_line, bar: None };
        Self { terminal, clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the work, e.g. `put film.mkv`; the label is already escaped.
    pub(in crate::cli) fn label(&self, label: String) {
        self.state().label = label;
    }

    /// Shows nothing from now on: the content itself goes to the same terminal.
    pub(in crate::cli) fn hush(&self) {
        self.state().silent = true;
    }

    /// Takes the news.
    pub(in crate::cli) fn update(&self, progress: Progress) {
        let now = self.clock.now();
        let mut state = self.state();
        if state.silent {
            return;
        }
        if self.terminal {
            if now.since(state.started) >= BAR_AFTER {
                state.bar(progress, self.clock).set_position(progress.done);
            }
        } else if now >= state.next_line {
            state.next_line = now + LINE_EVERY;
            let line = plain(&state.label, progress, now.since(state.started));
            // A closed standard error has no reader to miss this.
            writeln!(io::stderr().lock(), "{line}").ok();
        }
    }

    /// Says a sentence of the daemon, already escaped.
    pub(in crate::cli) fn note(&self, text: &str) {
        self.suspended(|| {
            // A closed standard error has no reader to miss this.
            writeln!(io::stderr().lock(), "{text}").ok();
        });
    }

    /// Writes around the bar.
    pub(super) fn suspended(&self, write: impl FnOnce()) {
        match &self.state().bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    pub(in crate::cli) fn clear(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl State {
    fn bar(&mut self, progress: Progress, clock: OsClock) -> &ProgressBar {
        let columns = columns();
        let began = Began { clock, at: self.started };
        let label = &self.label;
        let bar = self.bar.get_or_insert_with(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(progress.total, target);
            let label = shortened(label, columns.saturating_sub(FIGURES));
            let style = style(progress.total.is_some(), columns, began);
            bar.with_style(style).with_prefix(label)
        });
        if let Some(total) = progress.total
            && bar.length() != Some(total)
        {
            bar.set_length(total);
            bar.set_style(style(true, columns, began));
        }
        bar
    }
}

/// Width of the terminal behind standard error.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
    size.ok().filter(|&columns| columns > 0).unwrap_or(80)
}

/// The label, with its middle left out where it does not fit: its end tells files apart.
fn shortened(label: &str, room: usize) -> String {
    let room = room.max(LABEL_MIN);
    let length = label.chars().count();
    if length <= room {
        return label.to_owned();
    }
    let verb = label.find(' ').map_or(0, |at| at + 1);
    let rest: String = label.chars().skip(length - (room - verb - 1)).collect();
    format!("{}…{rest}", &label[..verb])
}

/// When the work began: long before its bar, which therefore cannot tell the rate.
#[derive(Clone, Copy)]
struct Began {
    clock: OsClock,
    at: Time,
}

impl Began {
    fn elapsed(self) -> Duration {
        self.clock.now().since(self.at)
    }

    fn rate(self, done: u64) -> u64 {
        rate(done, self.elapsed())
    }
}

/// Bytes per second since the beginning.
fn rate(done: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(done) * 1_000 / millis).unwrap_or(u64::MAX)
}

/// Milliseconds that the rest takes at this rate; none when nothing moves.
fn left(done: u64, total: u64, rate: u64) -> Option<u64> {
    total.saturating_sub(done).saturating_mul(1_000).checked_div(rate)
}

fn style(known: bool, columns: usize, began: Began) -> ProgressStyle {
    let template = match (known, columns) {
        (true, BAR_FROM..) => "{prefix} {bar:20} {done} of {all}, {rate}/s, {left} left",
        (true, RATE_FROM..) => "{prefix} {done} of {all}, {rate}/s",
        (true, _) => "{prefix} {done} of {all}",
        (false, RATE_FROM..) => "{prefix} {done}, {rate}/s, {elapsed}",
        (false, _) => "{prefix} {done}, {elapsed}",
    };
    let write = |to: &mut dyn fmt::Write, words: String| {
        // The buffer of a line takes everything.
        to.write_str(&words).ok();
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are well-formed")
        .progress_chars("━╸ ")
        .with_key("done", move |at: &ProgressState, to: &mut dyn fmt::Write| {
            write(to, text::size(at.pos()));
        })
        .with_key("all", move |at: &ProgressState, to: &mut dyn fmt::Write| {
            write(to, text::size(at.len().unwrap_or(0)));
        })
        .with_key("rate", move |at: &ProgressState, to: &mut dyn fmt::Write| {
            write(to, text::size(began.rate(at.pos())));
        })
        .with_key("left", move |at: &ProgressState, to: &mut dyn fmt::Write| {
            let left = left(at.pos(), at.len().unwrap_or(0), began.rate(at.pos()));
            write(to, left.map_or_else(|| "?".into(), |left| text::span(left.max(1_000))));
        })
        .with_key("elapsed", move |_: &ProgressState, to: &mut dyn fmt::Write| {
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            write(to, text::span(millis));
        })
}

/// `put film.mkv 41 % 860.2 MiB of 2.1 GiB, 108.0 MiB/s, 12 s left`
fn plain(label: &str, progress: Progress, elapsed: Duration) -> String {
    let rate = rate(progress.done, elapsed);
    let done = text::size(progress.done);
    let Some(total) = progress.total.filter(|&total| total > 0) else {
        return format!("{label} {done}, {}/s", text::size(rate));
    };
    let percent = u128::from(progress.done) * 100 / u128::from(total);
    let mut line =
        format!("{label} {percent} % {done} of {}, {}/s", text::size(total), text::size(rate));
    if let Some(left) = left(progress.done, total, rate) {
        line.push_str(&format!(", {} left", text::span(left)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_how_fast_and_how_long() {
        let progress = Progress { done: 50 << 20, total: Some(200 << 20) };
        assert_eq!(
            plain("put f", progress, Duration::from_secs(5)),
            "put f 25 % 50.0 MiB of 200.0 MiB, 10.0 MiB/s, 15 s left"
        );
        let open = Progress { done: 50 << 20, total: None };
        assert_eq!(plain("put -", open, Duration::from_secs(5)), "put - 50.0 MiB, 10.0 MiB/s");
        let none = Progress { done: 0, total: Some(0) };
        assert_eq!(plain("put e", none, Duration::ZERO), "put e 0 B, 0 B/s");
    }

    #[test]
    fn a_long_label_keeps_its_verb_and_its_end() {
        assert_eq!(shortened("put film.mkv", 20), "put film.mkv");
        assert_eq!(shortened("put /a/very/long/way/to/film.mkv", 16), "put …to/film.mkv");
        assert_eq!(shortened("put höchst-wünschenswert", 4), "put …enswert");
    }
}
