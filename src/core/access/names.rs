//! The name by which people tell a node: two words from its key. Owns the choice, not the words.
//! A name is no proof of anything: two nodes of a large swarm may share one.

use super::words::{ADJECTIVES, ANIMALS};
use crate::id::NodeId;

/// The node's two words, such as `brave-otter`: one of 65,536 names.
pub fn two_words(node: &NodeId) -> String {
    // Hashed, because the bytes of a key are the coordinates of a point and not evenly spread.
    let hash = blake3::hash(&node.0);
    let [first, second, ..] = *hash.as_bytes();
    format!("{}-{}", ADJECTIVES[usize::from(first)], ANIMALS[usize::from(second)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_distinct_short_and_plain() {
        let all: BTreeSet<_> = ADJECTIVES.iter().chain(&ANIMALS).collect();
        assert_eq!(all.len(), 512);
        for word in all {
            assert!((3..=9).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn a_name_never_changes() {
        assert_eq!(two_words(&NodeId([0; 32])), two_words(&NodeId([0; 32])));
        assert_ne!(two_words(&NodeId([0; 32])), two_words(&NodeId([1; 32])));
    }
}
