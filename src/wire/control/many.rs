//! Arguments and replies of the requests that are about many names at once.

use super::{Failure, FileTag, PathText, Stored, Wait};
use serde::{Deserialize, Serialize};

/// Most items of one request; as many descriptors can come with it.
pub const ITEMS_MAX: usize = 128;

/// Arguments of [`super::Request::PutMany`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutMany {
    /// What is stored, at most [`ITEMS_MAX`], each at another path. Directories come before what is
    /// in them, or get the permission bits 755 first.
    pub items: Vec<PutItem>,
    /// Number of replicas; none: the swarm's.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// Whether compressible chunks are compressed.
    #[serde(default = "super::files::yes")]
    pub compress: bool,
    /// How many copies to wait for; none: as many as the promise needs.
    #[serde(default)]
    pub wait: Option<Wait>,
    /// Longest wait for `wait`; none: for ever.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether every file is read, also one of the length and modification time that are known.
    #[serde(default)]
    pub checksum: bool,
    /// Tags of the files, at most [`super::TAGS_MAX`]; none: those of the files that are there
    /// stay.
    #[serde(default)]
    pub tags: Vec<FileTag>,
}

/// One thing that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutItem {
    /// Where it is listed.
    pub path: PathText,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// What it is.
    #[serde(flatten)]
    pub what: PutWhat,
}

/// What a [`PutItem`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PutWhat {
    /// A file: the next descriptor of the call.
    File {
        /// Its length in bytes; it must match what is read.
        len: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Link {
        /// What it points to: bytes, as they are.
        target: PathText,
    },
}

/// Reply of a [`PutMany`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredMany {
    /// Files and links that are new or have changed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and links that were there already, the same.
    pub unchanged: u64,
    /// Their bytes.
    pub unchanged_bytes: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes that had to be sent or stored.
    pub new_bytes: u64,
    /// The fewest copies that any part of a file that was stored has on disk now; none: nothing was
    /// stored.
    pub copies: Option<u8>,
    /// How many it should have.
    pub replicas: u8,
    /// On how many machines the copies of such a file are, at least.
    pub machines: u8,
    /// Live members with room when it was stored, this one included.
    pub nodes_with_room: u32,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether the wait for copies that was asked for was met.
    pub wait_met: bool,
    /// What was not stored.
    pub failed: Vec<PutFailed>,
    /// What the command has not asked for: what has no content, and the node's own directories.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
}

/// Something of a [`PutMany`] that was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFailed {
    /// Where it would be listed.
    pub path: PathText,
    /// Why it is not.
    pub error: Failure,
}

/// Something of a directory that is not stored with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Where it would be listed.
    pub path: PathText,
    /// A few words.
    pub why: String,
}

impl StoredMany {
    /// What was stored of nothing.
    pub fn nothing() -> Self {
        Self { wait_met: true, ..Self::default() }
    }

    /// Counts a file that was stored.
    pub fn add_file(&mut self, stored: &Stored) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(stored.size);
        self.new_bytes = self.new_bytes.saturating_add(stored.new_bytes);
        self.note_copies(stored.copies, stored.machines);
        self.replicas = stored.replicas;
        self.nodes_with_room = stored.nodes_with_room;
        self.wait_met &= stored.wait_met;
    }

    /// Adds what another request, which ran beside this one, has stored.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unchanged += other.unchanged;
        self.unchanged_bytes = self.unchanged_bytes.saturating_add(other.unchanged_bytes);
        self.dirs += other.dirs;
        self.new_bytes = self.new_bytes.saturating_add(other.new_bytes);
        if other.copies.is_some() || self.copies.is_none() {
            self.replicas = other.replicas;
            self.nodes_with_room = other.nodes_with_room;
        }
        if let Some(copies) = other.copies {
            self.note_copies(copies, other.machines);
        }
        self.took_ms = self.took_ms.max(other.took_ms);
        self.wait_met &= other.wait_met;
        self.failed.extend(other.failed);
    }

    fn note_copies(&mut self, copies: u8, machines: u8) {
        let first = self.copies.is_none();
        self.machines = if first { machines } else { self.machines.min(machines) };
        self.copies = Some(self.copies.map_or(copies, |fewest| fewest.min(copies)));
    }
}
