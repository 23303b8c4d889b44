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
//! This module owns the types, which are also what `--json` prints; it sends and decides nothing.

mod failure;
mod files;
mod history;
mod limit;
mod many;
mod mount;
mod search;
mod share;
mod state;
mod target;

pub use failure::{Code, Failure};
pub use files::{
    ChunkInfo, Fetched, FileInfo, FileKind, FileStat, Get, HolderInfo, Moved, Put, Range, Removed,
    RemovedInfo, Restored, Rm, Stored, Wait,
};
pub use history::{ConflictInfo, Deed, HistoryInfo, Resolved, Watched};
pub use limit::{Limit, Limits, PeerLimits, RateInfo};
pub use many::{ITEMS_MAX, PassedOver, PutFailed, PutItem, PutMany, PutWhat, StoredMany};
pub use mount::{Mount, MountInfo, Umount, Write, WrittenInfo};
pub use search::{
    FileTag, FoundInfo, RESULTS, RESULTS_MAX, Search, Searched, TAG_LEN_MAX, TAGS, TAGS_MAX,
};
pub use share::{NotShared, Share, ShareDone, ShareInfo, ShareState, Unshared};
pub use state::{
    Approved, Candidate, ConnectionInfo, Event, Identity, NodeState, PeerInfo, PeerState, PinInfo,
    ScrubFound, ScrubInfo, Setting, Status, WaitingInfo, WordKind, WorkerInfo, WorkerState,
};
pub use target::{Linked, PathText, Target};

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
    /// Finds what has names, tags, sizes or owners that fit; one [`FoundInfo`] item each, the best
    /// first. Reply: [`Searched`].
    Search(Search),
    /// Serves a file or directory from where it lies; its descriptor comes with this call, so that
    /// the daemon can see whether it finds the same there. The reply comes when all of it is known
    /// to the others. Closing the connection ends the waiting and nothing else. Reply:
    /// [`ShareDone`].
    Share(Share),
    /// Serves it no more. Reply: [`Unshared`].
    Unshare {
        /// Its path, what it is called, or its hash.
        what: PathText,
        /// The path that it would be, absolute and without links on the way.
        path: Option<PathText>,
    },
    /// What is served from where it lies, one [`ShareInfo`] item each, sorted by sharer and path.
    /// Reply: empty.
    Shares {
        /// By whom; none: by everybody.
        peer: Option<String>,
        /// Where there; none: all.
        path: Option<PathText>,
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
    /// A link to a file. Reply: [`Linked`].
    Link {
        /// Which file.
        target: Target,
        /// Milliseconds for which it is to be followed; none: for ever.
        #[serde(default)]
        ttl_ms: Option<u64>,
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
    /// Sets limits of how fast bytes go to other nodes and come from them, as far as it names some.
    /// Reply: [`Limits`].
    Limit(Limit),
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
