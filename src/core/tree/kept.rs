//! What history costs: the bytes that would be free without it. Owns which version counts; who adds
//! them up, and when, is decided elsewhere.
//!
//! It is an upper bound: two versions of a large file share the chunks that did not change between
//! them, and only their manifests know which.

use super::{Tree, Version};
use crate::core::catalogue::past::{self, Ended};
use crate::core::catalogue::{Node, browse, is_released};
use std::io;

impl Tree<'_> {
    /// The bytes that are kept only because of something that ended: those of a former version, or
    /// with the last name of a file all that it was then.
    pub fn kept_for(&self, ended: &Ended) -> io::Result<u64> {
        let inode = &ended.inode;
        let named = !browse::links_of(self.view, inode, 1)?.is_empty();
        let heads = self.versions(inode)?;
        let Some(version) = self.version(&ended.at)? else {
            // It was a name: the one that ended last counts.
            let last = !named && past::unnamed_since(self.view, inode)? == Some(ended.ended);
            let kept = heads.iter().filter(|_| last).map(|head| self.kept_bytes(head));
            return kept.sum();
        };
        let shown = heads.iter().any(|head| head.same_content(&version));
        if shown || past::is_let_go(self.view, inode, &ended.at)? {
            return Ok(0);
        }
        self.kept_bytes(&version)
    }

    fn kept_bytes(&self, version: &Version) -> io::Result<u64> {
        Ok(match &version.node {
            Node::File(file) if !is_released(self.view, &file.claim)? => file.size,
            _ => 0,
        })
    }
}
