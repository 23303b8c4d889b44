//! One file per command or small family: asks the daemon through `client` and shows the answer.
//! Only `daemon` may know the node and the doors.

pub(super) mod arrange;
pub(super) mod config;
pub(super) mod conflicts;
pub(super) mod daemon;
pub(super) mod demo;
pub(super) mod generate;
pub(super) mod get;
pub(super) mod history;
pub(super) mod limit;
pub(super) mod link;
pub(super) mod ls;
pub(super) mod mount;
pub(super) mod node;
pub(super) mod peers;
pub(super) mod pin;
pub(super) mod put;
pub(super) mod rm;
pub(super) mod scrub;
pub(super) mod search;
pub(super) mod share;
pub(super) mod stat;
pub(super) mod status;
pub(super) mod watch;

/// `1 node`, `2 nodes`.
fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `1 directory`, `2 directories`.
fn directories(number: u64) -> String {
    if number == 1 { "1 directory".into() } else { format!("{number} directories") }
}

/// `1 copy`, `3 copies`.
fn copies(number: u8) -> String {
    if number == 1 { "1 copy".into() } else { format!("{number} copies") }
}

/// How long ago something was, for a table: `now`, `12 s`, `3 min`.
fn ago(millis: u64) -> String {
    if millis < 1_000 { "now".into() } else { crate::text::span(millis) }
}
