//! The checkers: what must be true whatever happened. Each says what it found wrong, as sentences.

pub(crate) mod acknowledged;
pub(crate) mod content;
pub(crate) mod equal;
