//! Merging of subtree values to the root of BLAKE3's tree, in constant memory. Owns nothing but the
//! stack of finished subtrees; where the values come from (chunks or whole pages) is the caller's.
//!
//! Invariant: the stack holds the roots of the largest complete subtrees of what was pushed, from
//! left to right, except that the last merge waits until more is pushed: only then is it sure not
//! to be the root, which is merged with another flag (BLAKE3 paper, 5.1.2, "lazy merging").

use crate::id::{ChunkValue, FileHash};
use blake3::hazmat::{Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Merges the values of equally large aligned subtrees, the last one of any length, pushed from
/// left to right. Holds one value per level: at most 23 for the largest file.
#[derive(Debug, Clone, Default)]
pub struct TreeHasher {
    stack: Vec<ChunkValue>,
    pushed: u64,
}

impl TreeHasher {
    /// Adds the next subtree to the right.
    pub fn push(&mut self, value: ChunkValue) {
        // As many subtrees stay apart as the number pushed so far has bits set.
        while self.stack.len() > self.pushed.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(value);
        self.pushed += 1;
    }

    /// How many values were pushed.
    pub const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The root: the hash of the whole. None for fewer than two values, where the root is not made
    /// from values at all (the only chunk's value is the hash itself).
    pub fn root(mut self) -> Option<FileHash> {
        while self.stack.len() > 2 {
            self.merge_top();
        }
        let [left, right] = self.stack.as_slice() else { return None };
        Some(FileHash(merge_subtrees_root(&left.0, &right.0, Mode::Hash).into()))
    }

    /// The value of all that was pushed as a subtree of something larger. None for no value.
    pub fn subtree(mut self) -> Option<ChunkValue> {
        while self.stack.len() > 1 {
            self.merge_top();
        }
        self.stack.pop()
    }

    fn merge_top(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            let merged = merge_subtrees_non_root(&left.0, &right.0, Mode::Hash);
            self.stack.push(ChunkValue(merged));
        }
    }
}

impl Extend<ChunkValue> for TreeHasher {
    fn extend<I: IntoIterator<Item = ChunkValue>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

impl FromIterator<ChunkValue> for TreeHasher {
    fn from_iter<I: IntoIterator<Item = ChunkValue>>(values: I) -> Self {
        let mut tree = Self::default();
        tree.extend(values);
        tree
    }
}
