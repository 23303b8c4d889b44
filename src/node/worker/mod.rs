//! Work that nobody waits for: each worker is a task that looks, does a bounded piece, and reports.
//! All have one shape (`shape`) and a row on one board (`board`).

mod below;
pub(super) mod board;
pub(super) mod bootstrap;
mod claims;
mod copy;
pub(super) mod count;
pub(super) mod describe;
pub(super) mod gc;
pub(super) mod handover;
pub(super) mod issue;
mod judge;
pub(super) mod lan;
mod looks;
pub(super) mod mend;
mod passes;
pub(super) mod pin;
pub(super) mod reconcile;
pub(super) mod release;
pub(super) mod repair;
pub(super) mod scrub;
pub(super) mod shape;
pub(super) mod share;
pub(super) mod surplus;
