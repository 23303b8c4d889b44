//! Times that programs see and no record says: that something was made in a directory, or that a
//! file got another name. A record for each would make changes of others into conflicts, so they
//! are remembered here, as many as there is room for.

use crate::id::InodeId;
use std::collections::BTreeMap;

/// Inodes that are remembered.
const INODES_MAX: usize = 8192;

/// What a node does at once is written down within this time.
const ROUND_NS: i64 = 2_000_000_000;

/// When something happened to an inode lately, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// A directory got another content.
    pub modified_ns: Option<i64>,
    /// Anything.
    pub changed_ns: Option<i64>,
    /// Another node wrote down that a directory got another content.
    heard_ns: Option<i64>,
}

impl Times {
    /// When a directory got another content, of which a version was written down at `made_ns`: what
    /// another node has done before it said the time of the directory may be written down later.
    pub fn modified_since(&self, made_ns: i64) -> Option<i64> {
        let heard = self.heard_ns.filter(|heard| *heard > made_ns.saturating_add(ROUND_NS));
        self.modified_ns.max(heard)
    }
}

/// What happened lately.
#[derive(Debug, Default)]
pub struct Recent {
    times: BTreeMap<InodeId, (u64, Times)>,
    count: u64,
}

impl Recent {
    /// What is remembered of an inode.
    pub fn of(&self, id: &InodeId) -> Times {
        self.times.get(id).map(|(_, times)| *times).unwrap_or_default()
    }

    /// Something in a directory changed.
    pub fn entered(&mut self, dir: InodeId, now_ns: i64) {
        let times = self.touch(dir);
        (times.modified_ns, times.changed_ns) = (Some(now_ns), Some(now_ns));
    }

    /// Another node has written down that something in a directory changed.
    pub fn heard(&mut self, dir: InodeId, made_ns: i64) {
        let times = self.touch(dir);
        times.heard_ns = times.heard_ns.max(Some(made_ns));
    }

    /// Something about an inode changed, but not its content.
    pub fn changed(&mut self, id: InodeId, now_ns: i64) {
        self.touch(id).changed_ns = Some(now_ns);
    }

    /// Somebody has said when it was modified.
    pub fn told(&mut self, id: &InodeId) {
        if let Some((_, times)) = self.times.get_mut(id) {
            times.modified_ns = None;
        }
    }

    fn touch(&mut self, id: InodeId) -> &mut Times {
        self.count += 1;
        if self.times.len() >= INODES_MAX && !self.times.contains_key(&id) {
            // Half of them at once, so that this is rare.
            let horizon = self.count.saturating_sub(INODES_MAX as u64 / 2);
            self.times.retain(|_, (count, _)| *count > horizon);
        }
        let (count, times) = self.times.entry(id).or_default();
        *count = self.count;
        times
    }
}
