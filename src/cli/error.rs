//! How a command ends badly: what it says and the exit code. The sentences about the daemon's own
//! failures come from the daemon; here are only those about the command line itself.

use super::ui::Ui;
use crate::config::ConfigError;
use crate::wire::control::{Code, Failure, VERSION};
use serde::Serialize;
use std::io;
use std::process::ExitCode;

/// What a shell reports for a process that died of SIGPIPE.
const BROKEN_PIPE_EXIT: u8 = 141;

/// Why a command ended before its work was done.
#[derive(Debug)]
pub(super) enum CommandError {
    /// It is told to the person.
    Failed(Failure),
    /// Whoever read the output has gone: nobody is told anything.
    BrokenPipe,
    /// A question was answered by the exit code; everything has been said.
    Answered(Code),
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for CommandError {
    fn from(err: io::Error) -> Self {
        match err.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            io::ErrorKind::StorageFull => {
                Self::Failed(Failure::new(Code::NoSpace, "no space left for the output"))
            }
            _ => {
                let why = crate::text::reason(&err);
                Self::Failed(Failure::new(Code::Failed, format!("cannot write the output: {why}")))
            }
        }
    }
}

impl From<ConfigError> for CommandError {
    fn from(err: ConfigError) -> Self {
        let failure = Failure::new(Code::Usage, err.to_string());
        Self::Failed(match err {
            ConfigError::UnknownKey { near: None, .. } => {
                failure.hint(format!("the keys are: {}", crate::config::KEYS[1..].join(", ")))
            }
            ConfigError::NoHome => {
                failure.hint("name the directories with  --data-dir DIR  and  --config-dir DIR")
            }
            ConfigError::Unreadable { path, .. } => {
                failure.hint(format!("what is there:  ls -l {}", crate::text::shown_path(path)))
            }
            _ => failure,
        })
    }
}

impl CommandError {
    /// Says what there is to say and returns the exit code.
    pub(super) fn report(&self, ui: &Ui) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::from(BROKEN_PIPE_EXIT),
            Self::Answered(code) => ExitCode::from(code.exit()),
            Self::Failed(failure) => {
                ui.failure(failure);
                ExitCode::from(failure.code.exit())
            }
        }
    }
}

/// A failure as `--json` prints it.
#[derive(Serialize)]
struct Report<'a> {
    v: u32,
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: Code,
    exit: u8,
    message: &'a str,
    hints: &'a [String],
}

/// The line that `--json` prints for a failure.
pub(super) fn json(failure: &Failure) -> String {
    let Failure { code, message, hints } = failure;
    let error = Error { code: *code, exit: code.exit(), message, hints };
    serde_json::to_string(&Report { v: VERSION, error }).expect("text keys only")
}
