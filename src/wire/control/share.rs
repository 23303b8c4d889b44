//! What is said of files that are served from where they lie: the arguments and replies of the
//! requests that share them. Owns these types; what they ask for the node does.

use super::PathText;
use crate::id::{FileHash, NodeId};
use serde::{Deserialize, Serialize};

/// Arguments of [`super::Request::Share`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The file or directory of the daemon's machine: absolute, without links on the way.
    pub path: PathText,
    /// What others call it; none: its own name.
    #[serde(default)]
    pub name: Option<PathText>,
    /// How many copies are stored beside it; none: none.
    #[serde(default)]
    pub replicas: Option<u8>,
}

/// Reply of a [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareDone {
    /// Who shares it: this node.
    pub owner: String,
    /// What it is called there.
    pub path: PathText,
    /// Files that are shared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The hash, when it is a file.
    pub hash: Option<FileHash>,
    /// How many copies are stored beside it.
    pub replicas: Option<u8>,
    /// Links, pipes, sockets and devices, which are not shared.
    pub passed_over: u64,
    /// Files that should be shared, and are not.
    pub failed: u64,
    /// Some of them, and why not.
    pub why: Vec<NotShared>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A file that should be shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotShared {
    /// What it would be called.
    pub path: PathText,
    /// A few words.
    pub why: String,
}

/// Reply of [`super::Request::Unshare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unshared {
    /// What it was called.
    pub path: PathText,
    /// Files that were shared.
    pub files: u64,
}

/// A file that somebody serves from where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareInfo {
    /// Who.
    pub owner: String,
    /// That node's id.
    pub owner_id: NodeId,
    /// What it is called there.
    pub path: PathText,
    /// Its hash.
    pub hash: FileHash,
    /// Its length in bytes.
    pub size: u64,
    /// When it was modified, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Whether it is to be had.
    pub state: ShareState,
    /// Since when it is not, in milliseconds since 1970, if that is known.
    pub since_ms: Option<u64>,
}

/// Whether a shared file is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// It lies on this machine.
    Here,
    /// Its sharer runs.
    There,
    /// Its sharer does not run.
    Offline,
    /// It lies on this machine, on a disk that is not there now.
    Away,
}
