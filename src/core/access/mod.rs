//! Who may do what in a swarm. Owns grants and the open statement (what the swarm key says), the
//! state machines of `p2pfs approve`, and the names by which people tell nodes apart. It does not
//! own connections: `transport` proves that a peer has its key, this module says what that key may.
//!
//! Invariant: every permission comes from a signature by the swarm key.

mod approve;
mod grant;
mod names;
mod words;

pub use approve::{
    Approval, ApproveError, CODE_LIFETIME, Joiner, MAX_RUNS, MAX_WAITING, RUN_LIMIT, WAIT_LIMIT,
    WaitingRoom,
};
pub use grant::{
    CLOCK_TOLERANCE_MS, FOREVER, Grant, MAX_GRANT, OpenStatement, Refused, Roles, Terms,
};
pub use names::two_words;
