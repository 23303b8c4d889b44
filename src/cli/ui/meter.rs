//! Shows how far a transfer is: a bar on a terminal, now and then a plain line elsewhere, nothing
//! for work that is over before anybody wonders.

use crate::sys::os::OsClock;
use crate::sys::{Clock, Time};
use crate::text;
use crate::wire::control::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Work that ends earlier shows no bar.
const BAR_AFTER: Duration = Duration::from_millis(300);
/// Work that ends earlier prints no plain line.
const LINE_AFTER: Duration = Duration::from_secs(5);
/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress display; shared with the client, which feeds it.
pub(in crate::cli) struct Meter {
    terminal: bool,
    silent: bool,
    clock: OsClock,
    state: Mutex<State>,
}

struct State {
    label: String,
    started: Time,
    next_line: Time,
    bar: Option<ProgressBar>,
}

impl Meter {
    pub(super) fn new(terminal: bool, silent: bool) -> Self {
        let clock = OsClock::new();
        let started = clock.now();
        let state =
            State { label: String::new(), started, next_line: started + LINE_AFTER, bar: None };
        Self { terminal, silent, clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the work, e.g. `put film.mkv`; the label is already escaped.
    pub(in crate::cli) fn label(&self, label: String) {
        self.state().label = label;
    }

    /// Takes the news.
    pub(in crate::cli) fn update(&self, progress: Progress) {
        if self.silent {
            return;
        }
        let now = self.clock.now();
        let mut state = self.state();
        if self.terminal {
            if now.since(state.started) >= BAR_AFTER {
                state.bar(progress).set_position(progress.done);
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
    fn bar(&mut self, progress: Progress) -> &ProgressBar {
        let label = &self.label;
        let bar = self.bar.get_or_insert_with(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(progress.total, target);
            bar.with_style(style(progress.total.is_some())).with_prefix(label.clone())
        });
        if let Some(total) = progress.total
            && bar.length() != Some(total)
        {
            bar.set_length(total);
            bar.set_style(style(true));
        }
        bar
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}"
    } else {
        "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}"
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are well-formed")
        .progress_chars("━╸ ")
}

/// `put film.mkv 41 % 860.2 MiB of 2.1 GiB, 108.0 MiB/s, 12 s left`
fn plain(label: &str, progress: Progress, elapsed: Duration) -> String {
    let millis = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(progress.done) * 1_000 / millis).unwrap_or(u64::MAX);
    let done = text::size(progress.done);
    let Some(total) = progress.total.filter(|&total| total > 0) else {
        return format!("{label} {done}, {}/s", text::size(rate));
    };
    let percent = u128::from(progress.done) * 100 / u128::from(total);
    let mut line =
        format!("{label} {percent} % {done} of {}, {}/s", text::size(total), text::size(rate));
    if let Some(left) = total.saturating_sub(progress.done).saturating_mul(1_000).checked_div(rate)
    {
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
}
