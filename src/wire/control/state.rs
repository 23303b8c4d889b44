//! What a command is told of the node, its peers and its work, and what it is told as that happens.
//! Owns the types; the language that they are part of is specified above.

use super::{FileInfo, MountInfo, PathText};
use crate::id::{NodeId, SwarmId};
use serde::{Deserialize, Serialize};

/// What is known of a peer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It answers.
    Alive,
    /// It has not answered for a while.
    Suspect,
    /// It is taken for dead.
    Dead,
    /// It said that it leaves.
    Left,
}

/// One line of `peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Two words from its key, or its `--name`.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Where it listens, best first.
    pub addresses: Vec<String>,
    /// Its life.
    pub state: PeerState,
    /// Smoothed round-trip time in microseconds, if measured.
    pub rtt_us: Option<u64>,
    /// Bytes it offers.
    pub capacity: u64,
    /// Bytes it uses of that, in steps of 1/64.
    pub used: u64,
    /// Its zone, when it has one.
    pub zone: String,
    /// Milliseconds since it was last heard of.
    pub seen_ms: u64,
    /// Its p2pfs version.
    pub version: String,
    /// Chunks from it that failed their check.
    pub strikes: u32,
    /// Whether it refuses new data at the moment, for whatever reason.
    pub full: bool,
    /// Whether that is because its disk has failed.
    #[serde(default)]
    pub read_only: bool,
    /// Whether that is because it is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// Bytes sent to it since this node started.
    #[serde(default)]
    pub sent: u64,
    /// Bytes received from it since then.
    #[serde(default)]
    pub received: u64,
}

/// One line of `peers --connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Name of the peer, or its address while it is not known.
    pub peer: String,
    /// Its id.
    pub id: NodeId,
    /// The far end.
    pub address: String,
    /// `control` or `bulk`.
    pub lane: String,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Seconds since it was opened.
    pub age_s: u64,
    /// Milliseconds since the last byte.
    pub idle_ms: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Requests under way.
    pub in_flight: u32,
}

/// One line of `status --workers`: work that the node does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name, one word.
    pub name: String,
    /// Whether it works.
    pub state: WorkerState,
    /// What it is at, in a few words; may be empty.
    pub doing: String,
    /// How much is done, where that can be counted.
    pub done: Option<u64>,
    /// Of how much.
    pub total: Option<u64>,
    /// What `done` and `total` count: `bytes`, `chunks`, …
    pub unit: Option<String>,
    /// How much it did per second, over the last minute.
    pub rate: Option<u64>,
    /// What `rate` counts: `bytes`, `records`, …
    pub rate_unit: Option<String>,
    /// Errors since the start.
    pub errors: u64,
    /// The last one.
    pub last_error: Option<String>,
    /// Milliseconds since that.
    pub last_error_ms: Option<u64>,
    /// Milliseconds until it runs again by itself; none: it runs, or waits for news.
    pub next_ms: Option<u64>,
}

/// Whether a worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It works.
    Busy,
    /// It works, and pauses so as not to be too fast.
    Throttled,
    /// It has nothing to do before its next run.
    Idle,
    /// It has nothing to do until something happens.
    Waiting,
}

/// Reply of `scrub`: how far the reading of everything that the node stores is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubInfo {
    /// Whether a pass runs; otherwise the next one is waited for.
    pub running: bool,
    /// Whether it was asked for, and goes on as fast as the disk lets it.
    pub at_once: bool,
    /// Bytes that this pass has read.
    pub done: u64,
    /// Bytes that there are.
    pub total: u64,
    /// What this pass has found; when none runs, the last one.
    pub found: ScrubFound,
    /// What the last whole pass found.
    pub last: Option<ScrubFound>,
    /// Milliseconds since it ended.
    pub last_ms: Option<u64>,
    /// Milliseconds until the next pass begins; none: one runs.
    pub next_ms: Option<u64>,
    /// The time in seconds within which everything is read again.
    pub within_s: u64,
}

/// What a pass has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScrubFound {
    /// Chunks that were read.
    pub chunks: u64,
    /// Catalogue records that were.
    pub records: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// How many of them were damaged, with what was known to be damaged before.
    pub damaged: u64,
    /// Those that were fetched from other nodes and are good again.
    pub repaired: u64,
    /// Those that no other node that answers has.
    pub lost: u64,
    /// Those that are not needed any more.
    pub unneeded: u64,
}

/// Reply of `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its swarm, once it is a member.
    pub swarm: Option<SwarmId>,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Version of the daemon.
    pub version: String,
}

/// Reply of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who this node is.
    #[serde(flatten)]
    pub identity: Identity,
    /// `member` or `waiting` (for approval).
    pub state: NodeState,
    /// The code to approve, while it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// Process id of the daemon.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Other members by life: alive, suspect, dead.
    pub peers_alive: u32,
    /// Suspect ones.
    pub peers_suspect: u32,
    /// Dead ones that have not left.
    pub peers_dead: u32,
    /// Nodes that wait for approval, as far as this node knows.
    pub waiting: Vec<WaitingInfo>,
    /// Files in the tree.
    pub files: u64,
    /// Bytes of those files.
    pub files_bytes: u64,
    /// Bytes of former versions and removed files that are still kept, at most: versions of a
    /// large file share what did not change. None: they were not counted yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history_bytes: Option<u64>,
    /// Milliseconds since they were counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history_ms: Option<u64>,
    /// Number of replicas that the swarm keeps.
    pub replicas: u8,
    /// Chunks stored here as replicas that somebody needs.
    pub chunks_here: u64,
    /// Bytes of all replicas, also of those that wait to be freed.
    pub bytes_here: u64,
    /// Bytes of those that wait to be freed.
    #[serde(default)]
    pub condemned_bytes: u64,
    /// Bytes of evictable cached copies.
    pub cached_bytes: u64,
    /// Bytes this node offers.
    pub capacity: u64,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Chunks of which fewer copies are known than there should be.
    pub under_replicated: u64,
    /// Bytes that still have to be copied for that.
    pub repair_bytes: u64,
    /// Chunks that a further node is needed for: every live node with room has one.
    pub need_nodes: u64,
    /// How many further nodes would do.
    pub nodes_missing: u32,
    /// Damaged chunks of this node that no other node has now.
    pub lost: u64,
    /// Chunks repaired since the start.
    pub repaired: u64,
    /// How far the reading of everything that is stored here is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scrub: Option<ScrubInfo>,
    /// Sentences about what is not well, most urgent first; empty: all is well.
    pub problems: Vec<String>,
    /// Why nothing new is taken at the moment, if so.
    pub read_only: Option<String>,
    /// Whether this node is being emptied.
    #[serde(default)]
    pub draining: bool,
    /// Files changed here of which no version could be stored for want of room.
    #[serde(default)]
    pub files_refused: u64,
    /// The directories of this machine in which the swarm's files are seen.
    #[serde(default)]
    pub mounts: Vec<MountInfo>,
    /// Bytes sent to other nodes since the start.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes received from them since then.
    #[serde(default)]
    pub received_bytes: u64,
}

/// Whether a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is a member of its swarm.
    Member,
    /// It waits for somebody to approve it.
    Waiting,
}

/// A node that waits for approval somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingInfo {
    /// Its name, as it calls itself (escaped).
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Where it came from.
    pub address: String,
}

/// Reply of `approve` and `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The node.
    #[serde(flatten)]
    pub node: WaitingInfo,
}

/// One line of `config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The key in `config.toml`.
    pub key: String,
    /// Its value as text.
    pub value: String,
    /// Where the value comes from: `default`, a file and line, a variable, a flag, `swarm`.
    pub source: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A path of the tree shows something else now.
    Changed {
        /// What it shows.
        file: FileInfo,
    },
    /// A path is gone.
    Removed {
        /// Which.
        path: PathText,
    },
    /// A peer's life changed.
    Peer {
        /// The peer.
        peer: PeerInfo,
    },
}

/// What a completed word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WordKind {
    /// A hash or a path.
    File,
    /// A peer.
    Peer,
    /// A code that waits for approval is never completed; its nodes are, for `deny`.
    Waiting,
}

/// A candidate for completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// What it is.
    pub help: String,
}

/// A path of which the node keeps a full copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinInfo {
    /// The path.
    pub path: PathText,
    /// Files there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of which something is not here.
    pub missing: u64,
    /// Why the first of them is not.
    #[serde(default)]
    pub why: Option<String>,
    /// Whether that was looked at since it was pinned, and since the daemon started.
    pub known: bool,
}
