//! What a command says and is told of mounts, and of writing a part of a file. Owns the types; the
//! language that they are part of is specified above.

use super::PathText;
use crate::id::FileHash;
use serde::{Deserialize, Serialize};

/// Arguments of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory of this machine: an absolute path.
    pub point: PathText,
    /// The directory of the swarm that is seen there.
    pub path: PathText,
    /// Whether nothing can be changed through it.
    #[serde(default)]
    pub read_only: bool,
    /// Whether other users of this machine may use it, as far as the permissions let them.
    #[serde(default)]
    pub allow_other: bool,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountInfo {
    /// What it was made with.
    #[serde(flatten)]
    pub mount: Mount,
    /// Files that are edited through the mounts of this node, of which no version is made yet.
    #[serde(default)]
    pub edited: u64,
    /// Bytes of those that lie here.
    #[serde(default)]
    pub edited_bytes: u64,
}

/// Arguments of an unmount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Umount {
    /// The directory of this machine: an absolute path.
    pub point: PathText,
    /// Whether it goes although programs use it: they keep what they have open.
    #[serde(default)]
    pub force: bool,
}

/// Arguments of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which file; it is made when there is none.
    pub path: PathText,
    /// Where the first byte goes.
    pub offset: u64,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenInfo {
    /// The file.
    pub path: PathText,
    /// BLAKE3 of its content now.
    pub hash: FileHash,
    /// Its length now.
    pub size: u64,
    /// Bytes that were written.
    pub written: u64,
}
