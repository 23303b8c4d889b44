//! What a command is told of former and of concurrent versions, and of new ones as they come.

use super::{FileInfo, FileKind, PathText};
use crate::id::FileHash;
use serde::{Deserialize, Serialize};

/// One line of `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryInfo {
    /// The version's number, which grows with time; none: what happened made no version.
    pub version: Option<u64>,
    /// What happened.
    pub what: Deed,
    /// When, in ms since 1970.
    pub time_ms: u64,
    /// Name of the node where it happened.
    pub by: String,
    /// What the version is of; none without a version.
    pub kind: Option<FileKind>,
    /// Its hash; none for a link.
    pub hash: Option<FileHash>,
    /// Its length in bytes.
    pub size: u64,
    /// What a link pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathText>,
    /// The other name of what was moved, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<PathText>,
    /// Whether it is what the name shows now.
    pub current: bool,
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Something was put there.
    Created,
    /// It got another content, or other attributes.
    Edited,
    /// The same, but it is a conflict copy: a concurrent change has the name.
    Conflict,
    /// It came from another name.
    MovedFrom,
    /// It went to another name.
    MovedTo,
    /// It was removed.
    Removed,
    /// What was removed was given back.
    Restored,
}

/// One name of which several versions were made at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// The name.
    pub path: PathText,
    /// What has the name, then the conflict copies under theirs.
    pub versions: Vec<FileInfo>,
}

/// Reply of [`super::Request::Resolve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The name that was in conflict.
    pub path: PathText,
    /// What is there now, the name first.
    pub kept: Vec<PathText>,
    /// How many versions are only in the history now.
    pub dropped: u64,
}

/// One line of `watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Watched {
    /// Something is there that was not.
    Created {
        /// What.
        #[serde(flatten)]
        file: FileInfo,
    },
    /// Something has another content, or other attributes.
    Changed {
        /// What it is now.
        #[serde(flatten)]
        file: FileInfo,
    },
    /// Something has another name.
    Moved {
        /// Its former path; none: it is not known any more.
        from: Option<PathText>,
        /// What it is; its time is that of its content.
        #[serde(flatten)]
        file: FileInfo,
        /// When it was moved, in ms since 1970.
        moved_ms: u64,
        /// Name of the node where it was moved.
        moved_by: String,
    },
    /// Something was changed at several places at once, and this is the copy that does not have
    /// the name.
    Conflict {
        /// The copy.
        #[serde(flatten)]
        file: FileInfo,
    },
    /// Something is gone.
    Removed {
        /// Its path.
        path: PathText,
        /// When, in ms since 1970.
        time_ms: u64,
        /// Name of the node where it was removed.
        by: String,
    },
    /// More happened than was read in time.
    Missed {
        /// How many records of changes were not looked at; each may be about many paths.
        count: u64,
    },
}
