//! The language between a command and its daemon: one JSON object per line over a Unix socket.
//!
//! A connection carries one request. The client sends a [`Call`]; descriptors that belong to it
//! travel with that line (`SCM_RIGHTS`), never file contents. The daemon answers with any number of
//! [`Answer::Progress`], [`Answer::Item`] and [`Answer::Note`] lines and ends with exactly one
//! [`Answer::Done`] or [`Answer::Failed`]. Closing the connection cancels the work. A line is at
//! most [`LINE_MAX`] bytes. Every line has `"v":1`; keys are only ever added, unknown keys are
//! ignored, and a client and a daemon of different `v` say so with [`Code::Version`].
//!
//! The end of a pipe looks the same when its writer was interrupted, mostly together with the
//! client. So a put from anything but a regular file has one more step: the daemon says
//! [`Answer::Ended`], and goes on when the client, which is then still there, sends an empty line.
//!
//! This file owns the types, which are also what `--json` prints; it sends and decides nothing.

mod history;
mod many;
mod mount;
mod state;

pub use history::{ConflictInfo, Deed, HistoryInfo, Resolved, Watched};
pub use many::{ITEMS_MAX, PassedOver, PutFailed, PutItem, PutMany, PutWhat, StoredMany};
pub use mount::{Mount, MountInfo, Umount, Write, WrittenInfo};
pub use state::{
    Approved, Candidate, ConnectionInfo, Event, Identity, NodeState, PeerInfo, PeerState, PinInfo,
    ScrubFound, ScrubInfo, Setting, Status, WaitingInfo, WordKind, WorkerInfo, WorkerState,
};

use crate::id::{ChunkId, FileHash, NodeId};
use serde::{Deserialize, Serialize};

/// Version of this language.
pub const VERSION: u32 = 1;
/// Longest line in bytes, its newline included.
pub const LINE_MAX: usize = 1 << 20;

/// One request line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`VERSION`] of the client.
    pub v: u32,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// What a client may ask. Each variant names the reply type that [`Answer::Done`] carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Stores the bytes of descriptor 0 of this call. Reply: [`Stored`].
    Put(Put),
    /// Stores many files, directories and links in one step; the descriptors of this call are the
    /// files', in order. Reply: [`StoredMany`].
    PutMany(PutMany),
    /// Writes a file or a range of it into descriptor 0 of this call. Reply: [`Fetched`].
    Get(Get),
    /// Lists files below a directory; one [`FileInfo`] item each, sorted by path. Reply: empty.
    Ls {
        /// The directory; `/` for all.
        path: PathText,
        /// Whether directories below are listed too.
        recursive: bool,
    },
    /// Removes a name, with its content after the history time, or at once. Reply: [`Removed`].
    Rm(Rm),
    /// Gives back what was removed, or an old version. Reply: [`Restored`].
    Restore {
        /// What; `NAME@VERSION` for a version.
        path: PathText,
        /// Whether what was removed below it is given back, too.
        recursive: bool,
    },
    /// What was removed below a directory and can be given back; one [`RemovedInfo`] item each.
    /// Reply: empty.
    ListRemoved {
        /// The directory; `/` for all.
        path: PathText,
    },
    /// Makes a directory. Reply: empty.
    Mkdir {
        /// Where.
        path: PathText,
        /// Whether directories on the way are made, and one that is there is fine.
        parents: bool,
    },
    /// Gives a file, link or directory another name. Reply: [`Moved`].
    Mv {
        /// Its name now.
        from: PathText,
        /// Its next name; in a directory of that name it keeps its own.
        to: PathText,
    },
    /// What happened to a name; one [`HistoryInfo`] item each, newest first. Reply: empty.
    History {
        /// The name of a file or link, also one that was removed.
        path: PathText,
    },
    /// What is in conflict at a path or below; one [`ConflictInfo`] item each. Reply: empty.
    Conflicts {
        /// A directory, a file, or a conflict copy.
        path: PathText,
    },
    /// Ends a conflict. Reply: [`Resolved`].
    Resolve {
        /// What is in conflict, or one of its copies.
        path: PathText,
        /// What is kept: its name or path, or its version as in `history`; none: all, each under
        /// a name of its own.
        keep: Option<PathText>,
    },
    /// Lets the files of the swarm be seen in a directory of this machine. Reply: [`MountInfo`],
    /// when programs can use it.
    Mount(Mount),
    /// Ends that. Reply: [`MountInfo`], with what the others do not have yet.
    Umount(Umount),
    /// One [`MountInfo`] item per mount. Reply: empty.
    Mounts,
    /// Writes the bytes of descriptor 0 of this call into a file. Reply: [`WrittenInfo`].
    Write(Write),
    /// Everything about one file, directory or link. Reply: [`FileStat`].
    Stat {
        /// Which file.
        target: Target,
    },
    /// Every chunk of a file with who holds it; one [`ChunkInfo`] item each. Reply: empty.
    Chunks {
        /// Which file.
        target: Target,
    },
    /// Is everything well? Reply: [`Status`].
    Status,
    /// One [`PeerInfo`] item per other node that is known, sorted by name. Reply: empty.
    Peers,
    /// One [`ConnectionInfo`] item per open connection. Reply: empty.
    Connections,
    /// One [`WorkerInfo`] item per worker of the node, sorted by name. Reply: empty.
    Workers,
    /// How far the reading of everything that the node stores is. Reply: [`ScrubInfo`].
    Scrub,
    /// Has the node read everything that it stores now, and waits until all of it was read and
    /// what is damaged was repaired, as far as that is possible. Closing the connection ends the
    /// waiting and nothing else. Reply: [`ScrubInfo`].
    ScrubNow,
    /// Who this node is. Reply: [`Identity`].
    Id,
    /// Dials an address now. Reply: [`PeerInfo`] of who answered.
    Connect {
        /// `host:port`, or a peer's name or id prefix.
        peer: String,
    },
    /// Lets the waiting node in whose daemon shows this code. Reply: [`Approved`].
    Approve {
        /// 8 base32 characters, as typed.
        code: String,
    },
    /// Turns a waiting node away, by id prefix or address. Reply: [`Approved`].
    Deny {
        /// Id prefix of at least 8 digits, or host:port, of the waiting node.
        peer: String,
    },
    /// Begins to empty this node, or stops that. Reply: [`Status`].
    Drain {
        /// Whether it is emptied.
        on: bool,
    },
    /// Keeps a full copy on this node of what is at a path, now and later. Reply: [`PinInfo`].
    Pin {
        /// What.
        path: PathText,
        /// Whether the reply comes when everything is here, or when all was tried. Closing the
        /// connection ends the waiting and nothing else.
        wait: bool,
    },
    /// Keeps no full copy of it any more. Reply: [`PinInfo`].
    Unpin {
        /// What.
        path: PathText,
    },
    /// What is pinned on this node, one [`PinInfo`] item each, sorted by path. Reply: empty.
    Pins,
    /// The settings in force, one [`Setting`] item each. Reply: empty.
    Config,
    /// Ends the daemon in order. Reply: empty; sent when everything is on disk.
    Stop,
    /// Streams [`Event`] items until the client closes or the daemon stops. Reply: empty.
    Events,
    /// Streams what happens in the tree as [`Watched`] items, from now on, until the client closes
    /// or the daemon stops. A client that reads too slowly is told how much it has missed. Reply:
    /// empty.
    Watch {
        /// A directory, with everything below it, or a file.
        path: PathText,
    },
    /// Candidates for shell completion, one [`Candidate`] item each, at most 200. Reply: empty.
    Complete {
        /// What kind of word is completed.
        kind: WordKind,
        /// What was typed so far.
        prefix: String,
    },
}

/// Arguments of [`Request::Put`].
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
}

fn yes() -> bool {
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
        }
    }
}

/// Arguments of [`Request::Rm`].
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

/// What was renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its name now.
    pub path: PathText,
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

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Files and links.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
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

/// How many copies `put` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// That many.
    Copies(u8),
    /// As many as the file should have.
    All,
}

/// Arguments of [`Request::Get`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// Which file.
    pub target: Target,
    /// Which bytes; none: all.
    #[serde(default)]
    pub range: Option<Range>,
    /// Whether descriptor 0 can be written at offsets (a file); false: in order (a pipe).
    pub seekable: bool,
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

/// How a file is named by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// By its whole hash.
    Hash(FileHash),
    /// By the first 8 to 63 hex digits of its hash, lower case.
    Prefix(String),
    /// By its path in the tree. Where nothing has that path, what stands behind its last `@` is
    /// the number of a version, digits of its hash, or a time.
    Path(PathText),
}

/// A path in the tree: bytes, begins with `/`; or what a link points to: any bytes. In JSON a text
/// where it is UTF-8, otherwise `{"hex": …}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { hex: String },
}

impl Serialize for PathText {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => PathForm::Text(text.to_owned()).serialize(to),
            Err(_) => PathForm::Bytes { hex: crate::id::to_hex(&self.0) }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match PathForm::deserialize(from)? {
            PathForm::Text(text) => Ok(Self(text.into_bytes())),
            PathForm::Bytes { hex } if hex.is_ascii() && hex.len() % 2 == 0 => hex
                .as_bytes()
                .chunks_exact(2)
                .map(|pair| std::str::from_utf8(pair).ok())
                .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<_>>()
                .map(Self)
                .ok_or_else(|| D::Error::custom("not hex")),
            PathForm::Bytes { .. } => Err(D::Error::custom("not hex")),
        }
    }
}

impl std::fmt::Debug for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for PathText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// One answer line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// How far the work is.
    Progress {
        /// [`VERSION`] of the daemon.
        v: u32,
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// A sentence for the person while the work goes on.
    Note {
        /// [`VERSION`] of the daemon.
        v: u32,
        /// The sentence.
        text: String,
    },
    /// One item of a list or stream.
    Item {
        /// [`VERSION`] of the daemon.
        v: u32,
        /// The item; its type is the request's.
        item: serde_json::Value,
    },
    /// The descriptor of a put has come to its end. The client sends an empty line if that is the
    /// end of the file.
    Ended {
        /// [`VERSION`] of the daemon.
        v: u32,
    },
    /// The work is done.
    Done {
        /// [`VERSION`] of the daemon.
        v: u32,
        /// The reply; its type is the request's.
        reply: serde_json::Value,
    },
    /// The work failed.
    Failed {
        /// [`VERSION`] of the daemon.
        v: u32,
        /// Why.
        error: Failure,
    },
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of the file that are done.
    pub done: u64,
    /// Bytes of the file, when known.
    pub total: Option<u64>,
}

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
