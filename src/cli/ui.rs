//! The one door to the terminal. Data goes to standard output, words to standard error; quiet,
//! JSON, colour and progress are decided here and nowhere else. Callers escape foreign strings with
//! `text::shown` before they hand them in, as part of a sentence; table cells and failures are
//! escaped here.

mod meter;
mod table;
mod terminal;

pub(super) use meter::Meter;
pub(super) use table::{Align, Table};
pub(super) use terminal::TerminalText;

use super::args::Globals;
use super::error::{self, CommandError};
use crate::text::shown;
use crate::wire::control::{Failure, VERSION};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Stdout, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest answer to a question in bytes.
const ANSWER_MAX: u64 = 64;

/// How this command speaks.
pub(super) struct Ui {
    /// Whether data is printed as JSON.
    pub(super) json: bool,
    /// Whether only errors are said.
    pub(super) quiet: bool,
    /// How much is explained.
    pub(super) verbose: u8,
    /// Whether standard output is a terminal.
    pub(super) data_is_seen: bool,
    /// Whether standard error is a terminal.
    words_are_seen: bool,
    colour: bool,
    out: Mutex<BufWriter<Stdout>>,
    meter: Arc<Meter>,
}

/// An object with the version of its form.
#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    object: &'a T,
}

impl Ui {
    /// Decides once how to speak.
    pub(super) fn new(globals: &Globals) -> Self {
        let words_are_seen = io::stderr().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json: globals.json,
            quiet: globals.quiet,
            verbose: globals.verbose,
            data_is_seen: io::stdout().is_terminal(),
            words_are_seen,
            colour: words_are_seen && !set("NO_COLOR") && !dumb,
            out: Mutex::new(BufWriter::new(io::stdout())),
            meter: Arc::new(Meter::new(words_are_seen && !dumb, globals.quiet || globals.json)),
        }
    }

    /// Whether standard error is a terminal that takes colour.
    pub(super) fn has_colour(&self) -> bool {
        self.colour
    }

    /// Prints a line of data.
    pub(super) fn data(&self, line: impl Display) -> Result<(), CommandError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(writeln!(out, "{line}")?)
    }

    /// Prints an object as one line of JSON.
    pub(super) fn object<T: Serialize>(&self, object: &T) -> Result<(), CommandError> {
        let line = serde_json::to_string(&Versioned { v: VERSION, object });
        self.data(line.expect("answer types have text keys only"))
    }

    /// Hands everything printed so far to the system.
    pub(super) fn flush(&self) -> Result<(), CommandError> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(out.flush()?)
    }

    /// Says something to the person, unless quiet.
    pub(super) fn say(&self, words: impl Display) {
        if !self.quiet && !self.json {
            self.words(&words.to_string());
        }
    }

    /// Says what went wrong with one of many, also quietly; with `--json` it is in the data.
    pub(super) fn fault(&self, words: impl Display) {
        if !self.json {
            self.words(&words.to_string());
        }
    }

    /// Says something only to a person who wants to know more.
    pub(super) fn explain(&self, words: impl Display) {
        if self.verbose > 0 {
            self.say(words);
        }
    }

    /// Says something only to a person who looks at a terminal.
    pub(super) fn remark(&self, words: impl Display) {
        if self.words_are_seen && self.data_is_seen {
            self.say(words);
        }
    }

    /// Says what went wrong, and what to type next.
    pub(super) fn failure(&self, failure: &Failure) {
        self.meter.clear();
        if self.json {
            return self.words(&error::json(failure));
        }
        let (red, cyan, end) =
            if self.colour { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
        self.words(&format!("{red}error{end}: {}", shown(&failure.message)));
        for hint in &failure.hints {
            self.words(&format!(" {cyan}hint{end}: {}", shown(hint)));
        }
    }

    /// Asks a person at a terminal; without one, or quietly, the answer is no.
    pub(super) fn confirm(&self, question: &str) -> Result<bool, CommandError> {
        if !self.words_are_seen || !io::stdin().is_terminal() || self.quiet || self.json {
            return Ok(false);
        }
        write!(io::stderr().lock(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// The progress display of this command.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    fn words(&self, words: &str) {
        self.meter.suspended(|| {
            // Standard error is the last resort: there is nobody to tell that it is closed.
            writeln!(io::stderr().lock(), "{words}").ok();
        });
    }
}
