//! What a command is told of former versions.

use super::{FileKind, PathText};
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
