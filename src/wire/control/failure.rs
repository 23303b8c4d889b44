//! Failures in words: the sentence, its hints, and the code that scripts can trust. Owns the exit
//! codes; which error is which failure the gateway says.

use serde::{Deserialize, Serialize};

/// A failure in words, with a code that scripts can trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind; it decides the exit code.
    pub code: Code,
    /// One sentence, no full stop, in the person's words. Strings from peers are escaped.
    pub message: String,
    /// What to type next, each a command or a short sentence.
    #[serde(default)]
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure without hints.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hints: Vec::new() }
    }

    /// Adds what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Kinds of failure, each with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Anything that has no kind of its own.
    Failed,
    /// Bad arguments.
    Usage,
    /// Hash, name or peer unknown.
    NotFound,
    /// Some of several items failed.
    Partial,
    /// Fewer copies than asked for.
    Degraded,
    /// No daemon answers.
    NoDaemon,
    /// Not permitted.
    Denied,
    /// Disk or quota full.
    NoSpace,
    /// Data failed its check and no good copy was found.
    Corrupt,
    /// The holders are not reachable.
    Unreachable,
    /// Exists already, in use, or changed meanwhile.
    Conflict,
    /// Versions do not fit.
    Version,
    /// Stopped by a signal.
    Interrupted,
}

impl Code {
    /// The process exit code, never to be changed.
    pub const fn exit(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Partial => 4,
            Self::Degraded => 5,
            Self::NoDaemon => 6,
            Self::Denied => 7,
            Self::NoSpace => 8,
            Self::Corrupt => 9,
            Self::Unreachable => 10,
            Self::Conflict => 11,
            Self::Version => 12,
            Self::Interrupted => 130,
        }
    }
}
