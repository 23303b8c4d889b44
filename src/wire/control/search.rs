//! What is said of a search, and of the tags that files are found by. Owns the form of a tag and
//! the bounds of a question; what fits it, and in which order, is `core::search`'s.

use super::{FileKind, PathText};
use crate::id::FileHash;
use serde::{Deserialize, Serialize};

/// The extended attribute that has the tags of a file, with commas between.
pub const TAGS: &[u8] = b"user.p2pfs.tags";
/// Most tags of a file.
pub const TAGS_MAX: usize = 16;
/// Longest tag in bytes.
pub const TAG_LEN_MAX: usize = 32;
/// Most results of a search.
pub const RESULTS_MAX: usize = 1_000;
/// Results of a search when nothing is said of that.
pub const RESULTS: usize = 50;

/// A tag of a file: letters, digits, `-`, `_` and `.`, at most 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileTag(String);

impl FileTag {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence when it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > TAG_LEN_MAX || !text.chars().all(fine) {
            return Err(format!(
                "`{}` is not a tag: 1 to {TAG_LEN_MAX} bytes of letters, digits, `-`, `_`, `.`",
                text.escape_debug()
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileTag {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<FileTag> for String {
    fn from(tag: FileTag) -> Self {
        tag.0
    }
}

/// Arguments of [`super::Request::Search`]. All of it has to fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Search {
    /// Each must be in a name, begin a tag, or be in the name of the owner; with `*` or `?` it is a
    /// pattern for a whole name.
    pub words: Vec<String>,
    /// Kinds of which it is one, or its name has one of the endings.
    pub kinds: Vec<FileKind>,
    /// What a name ends with after its last dot: one of these, or it is of one of the kinds.
    pub endings: Vec<String>,
    /// Least length in bytes, of a file.
    pub min: Option<u64>,
    /// Greatest length in bytes, of a file.
    pub max: Option<u64>,
    /// It was made within so many milliseconds.
    pub newer_ms: Option<u64>,
    /// It was made longer ago than so many milliseconds.
    pub older_ms: Option<u64>,
    /// Name or id of the node that made it.
    pub owner: Option<String>,
    /// Tags that it has, all of them.
    pub tags: Vec<FileTag>,
    /// Most results, up to [`RESULTS_MAX`]; none: [`RESULTS`].
    pub limit: Option<usize>,
}

/// One result of a search, the best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundInfo {
    /// Its path in the tree, or what it is called where it is shared in place.
    pub path: PathText,
    /// Whether its owner shares it in place.
    #[serde(default)]
    pub shared: bool,
    /// What it is.
    pub kind: FileKind,
    /// Its hash, of a file.
    pub hash: Option<FileHash>,
    /// Its length in bytes.
    pub size: u64,
    /// When this version was made: milliseconds since 1970.
    pub time_ms: u64,
    /// Name of the node that made it.
    pub owner: String,
    /// Its tags.
    pub tags: Vec<FileTag>,
    /// How well it fits: 0 the best; the same number: equally well.
    pub rank: u32,
}

/// Reply of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// Names that were looked at.
    pub looked: u64,
    /// How many of them fit; all of them were sent, or as many as were asked for.
    pub fit: u64,
    /// How long it took the node, in milliseconds.
    pub took_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_short_word() {
        for good in ["tax", "2026", "q3.final", "Ärger", "a-b_c"] {
            assert_eq!(FileTag::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a,b", "a/b", "\u{202e}x", &"x".repeat(33)] {
            assert!(FileTag::new(bad).unwrap_err().contains("is not a tag"), "{bad}");
        }
        assert!(serde_json::from_str::<FileTag>("\"a,b\"").is_err());
    }
}
