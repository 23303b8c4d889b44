//! Limits of how fast bytes go between nodes, as they are set and shown. Owns the types; the
//! language that they are part of is specified above.

use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// A question for the limits, after they were changed as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limit {
    /// Whose, by name or id prefix; none: those for all peers together.
    #[serde(default)]
    pub peer: Option<String>,
    /// Bytes per second that may go there from now on; 0: no limit, none: as before.
    #[serde(default)]
    pub up: Option<u64>,
    /// Bytes per second that may come from there from now on; 0: no limit, none: as before.
    #[serde(default)]
    pub down: Option<u64>,
}

/// Reply of `limit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// For all peers together.
    #[serde(flatten)]
    pub all: RateInfo,
    /// Peers with limits of their own, sorted by name.
    pub peers: Vec<PeerLimits>,
}

/// The limits of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLimits {
    /// What it is called.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Its limits.
    #[serde(flatten)]
    pub rates: RateInfo,
}

/// Bytes per second, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateInfo {
    /// How many may go there; none: no limit.
    pub up: Option<u64>,
    /// How many may come from there; none: no limit.
    pub down: Option<u64>,
    /// How many went there in the last second.
    pub now_up: u64,
    /// How many came from there in the last second.
    pub now_down: u64,
}
