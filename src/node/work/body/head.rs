//! The draft of a content: what its head says of it, and when there is one at all.

use super::Content;
use crate::chunk::chunk_count;
use crate::core::catalogue::Attributes;
use crate::id::InodeId;
use crate::node::work::draft::{Draft, Head, Place};
use crate::sys::Fs;
use std::io;

impl Content {
    /// The draft, if there is one.
    pub(in crate::node::work) fn reader(&self) -> Option<Draft> {
        self.draft.clone()
    }

    pub(super) fn draft(&mut self, place: Place<'_>, id: &InodeId) -> io::Result<&Draft> {
        if self.draft.is_none() {
            self.draft = Some(Draft::create(place, id)?);
        }
        self.draft.as_ref().ok_or_else(|| io::Error::other("it was just made"))
    }

    /// Removes the draft.
    pub(in crate::node::work) fn drop_draft(&mut self, fs: &dyn Fs) -> io::Result<()> {
        self.staged.clear();
        self.holes.clear();
        self.stale.clear();
        (self.ahead, self.refused) = (None, None);
        self.unclean = 0;
        self.draft.take().map_or(Ok(()), |draft| draft.remove(fs))
    }

    /// Whether a head of the draft was written, or is just being written.
    pub(in crate::node::work) fn may_be_said(&self) -> bool {
        self.draft.as_ref().is_some_and(Draft::may_be_said)
    }

    /// What its draft is a draft of, as far as the content goes, once it has a length of at most
    /// `size`.
    pub(in crate::node::work) fn head(&self, id: InodeId, size: u64) -> Head {
        let size = self.size.min(size);
        let base_len = self.base_len.min(size);
        Head {
            id,
            size,
            base_len,
            base: self.base.clone(),
            seen: Vec::new(),
            attributes: Attributes::default(),
            names: Vec::new(),
            list: 0,
            runs: self.runs(chunk_count(size)),
            holes: self.holes.runs(chunk_count(base_len)).collect(),
            modified_ns: self.modified_ns,
        }
    }

    /// Whether nothing at all says its names after a crash: it is a new file, or was a conflict
    /// copy, and was not synced.
    pub(in crate::node::work) fn is_unnamed(&self) -> bool {
        let is_said = self.draft.as_ref().is_some_and(Draft::is_said);
        !is_said && (self.copied || self.base.is_none())
    }

    /// The chunks in the draft as runs.
    fn runs(&self, count: u64) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for index in self.staged.range(..count).map(|(index, _)| index) {
            match out.last_mut() {
                Some((first, count)) if *first + *count == *index => *count += 1,
                _ => out.push((*index, 1)),
            }
        }
        out
    }

    pub(in crate::node::work) const fn edits(&self) -> u64 {
        self.edits
    }

    /// Whether a version has as many edits.
    pub(in crate::node::work) fn has_written(&self, edits: u64) -> bool {
        !self.edited || self.written.is_some_and(|written| written >= edits)
    }

    /// The draft, made if there is none.
    pub(in crate::node::work) fn draft_for_sync(
        &mut self,
        place: Place<'_>,
        id: &InodeId,
    ) -> io::Result<Draft> {
        self.draft(place, id).cloned()
    }

    /// Nobody shall find the draft after a crash.
    pub(in crate::node::work) fn unname_draft(&self, fs: &dyn Fs) -> io::Result<()> {
        self.draft.as_ref().map_or(Ok(()), |draft| draft.remove(fs))
    }
}
