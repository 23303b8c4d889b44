//! What is said of single files and of what has a name: the arguments and replies of the requests
//! that store, fetch, list, remove and rename. Owns these types; what they ask for the node does.

use super::{FileTag, PathText, PeerState, Target};
use crate::id::{ChunkId, FileHash, NodeId};
use serde::{Deserialize, Serialize};

/// Arguments of [`super::Request::Put`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Where it is listed; none: unlisted.
    pub path: Option<PathText>,
    /// Number of replicas; none: the swarm's.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// Whether compressible chunks are compressed.
    #[serde(default = "yes")]
    pub compress: bool,
    /// How many copies to wait for; none: as many as the promise needs.
    #[serde(default)]
    pub wait: Option<Wait>,
    /// Longest wait for `wait`; none: for ever.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Length if the client knows it (a regular file); it must match what is read.
    #[serde(default)]
    pub len: Option<u64>,
    /// Permission bits of the source, when it is a file.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Modification time of the source in nanoseconds since 1970, when it is a file.
    #[serde(default)]
    pub mtime_ns: Option<i64>,
    /// Its tags, at most [`super::TAGS_MAX`]; none: those of the file that is there stay.
    #[serde(default)]
    pub tags: Vec<FileTag>,
}

pub(super) fn yes() -> bool {
    true
}

impl Default for Put {
    fn default() -> Self {
        Self {
            path: None,
            replicas: None,
            compress: true,
            wait: None,
            timeout_ms: None,
            len: None,
            mode: None,
            mtime_ns: None,
            tags: Vec::new(),
        }
    }
}

/// How many copies `put` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// That many.
    Copies(u8),
    /// As many as the file should have.
    All,
}

/// Reply of a `put`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The file's hash.
    pub hash: FileHash,
    /// Its length in bytes.
    pub size: u64,
    /// Where it is listed, if it is.
    pub path: Option<PathText>,
    /// The fewest copies that any part of it has on disk now.
    pub copies: u8,
    /// How many it should have.
    pub replicas: u8,
    /// On how many machines those copies are.
    pub machines: u8,
    /// Names of the nodes that have a whole copy, this one first.
    pub holders: Vec<String>,
    /// Bytes that had to be sent or stored (0: all known already).
    pub new_bytes: u64,
    /// Live members with room when it was stored, this one included.
    pub nodes_with_room: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether the wait for copies that was asked for was met.
    pub wait_met: bool,
}

/// Arguments of [`super::Request::Get`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which file.
    pub target: Target,
    /// Which bytes; none: all.
    #[serde(default)]
    pub range: Option<Range>,
    /// Whether descriptor 0 can be written at offsets (a file); false: in order (a pipe).
    pub seekable: bool,
    /// Name or id of the only peer that is asked for what is not here; none: whoever has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A byte range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// From `start` up to, not including, `end`; both are cut to the file's length.
    Span {
        /// First byte.
        start: u64,
        /// One past the last byte; none: to the end.
        end: Option<u64>,
    },
    /// The last bytes.
    Last(u64),
}

/// Reply of a `get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The file's hash.
    pub hash: FileHash,
    /// Bytes written.
    pub bytes: u64,
    /// The file's length.
    pub size: u64,
    /// Bytes that came from other nodes.
    pub remote_bytes: u64,
    /// Names of the nodes that bytes came from.
    pub from: Vec<String>,
    /// Permission bits of the file, when recorded.
    pub mode: Option<u32>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// One line of `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its path in the tree.
    pub path: PathText,
    /// `file` or `dir`.
    pub kind: FileKind,
    /// Its hash; none for a directory.
    pub hash: Option<FileHash>,
    /// Its length in bytes.
    pub size: u64,
    /// When this version was made: milliseconds since 1970.
    pub time_ms: u64,
    /// Name of the node that made it.
    pub by: String,
    /// How many copies it should have.
    pub replicas: u8,
    /// How many it has, as last known here; none: not known.
    pub copies: Option<u8>,
    /// Permission bits, when recorded.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Modification time of the source in nanoseconds since 1970, when recorded.
    #[serde(default)]
    pub mtime_ns: Option<i64>,
    /// What a link points to: bytes, as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathText>,
    /// Whether it is a conflict copy.
    #[serde(default)]
    pub conflict: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<FileTag>,
}

/// Kinds of entries of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device.
    Special,
}

/// Reply of `stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// What `ls` says; an unlisted file has the path `/` and the time 0.
    #[serde(flatten)]
    pub info: FileInfo,
    /// Whether it is in the tree.
    pub listed: bool,
    /// Whether it is a former version: its path shows something newer.
    #[serde(default)]
    pub former: bool,
    /// Number of chunks, all-zero ones included.
    pub chunks: u64,
    /// Chunks that are all zero and stored nowhere.
    pub zero_chunks: u64,
    /// Bytes of one replica on disk, padding and compression included.
    pub stored_bytes: u64,
    /// Chunks by who holds them, as last known here.
    pub holders: Vec<HolderInfo>,
}

/// A node's part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderInfo {
    /// Name of the node.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// How many of the file's chunks it holds.
    pub chunks: u64,
    /// Whether it is reachable.
    pub state: PeerState,
    /// Whether it is this node.
    pub here: bool,
}

/// A chunk of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkInfo {
    /// Its place in the file, from 0.
    pub index: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in the file, in bytes.
    pub len: u64,
    /// Its name; none: it is all zero and stored nowhere.
    pub id: Option<ChunkId>,
    /// The names of the members that hold it.
    pub holders: Vec<String>,
}

/// Arguments of [`super::Request::Rm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rm {
    /// Which file or directory; an unlisted file by its hash.
    pub target: Target,
    /// Whether a directory goes with everything in it.
    #[serde(default)]
    pub recursive: bool,
    /// Whether the content is let go at once: then it cannot be restored. What was removed before
    /// can be purged as well.
    #[serde(default)]
    pub purge: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Files and links.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Whether the content was let go, too.
    pub purged: bool,
    /// Purged files of which the content stays: another name leads to it, or somebody else put it.
    pub kept: u64,
    /// How long it can be restored, in ms; 0 when it was purged.
    pub restorable_ms: u64,
    /// How long after that, in ms, the nodes keep the chunks before they use the room again.
    pub grace_ms: u64,
    /// The name that was removed; none: a file without one was purged.
    #[serde(default)]
    pub path: Option<PathText>,
}

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedInfo {
    /// Its path.
    pub path: PathText,
    /// What it was.
    pub kind: FileKind,
    /// BLAKE3 of the content; none for directories and links.
    pub hash: Option<FileHash>,
    /// Length in bytes.
    pub size: u64,
    /// When it was removed, in ms since 1970.
    pub removed_ms: u64,
    /// Until when it can be restored, in ms since 1970.
    pub until_ms: u64,
}

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Files and links.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
}

/// What was renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its name now.
    pub path: PathText,
}
