//! How a person names a file: by hash, by the first digits of one, by a link, or by a path, whose
//! bytes JSON keeps whatever they are. Owns the form of these words; what they lead to the node
//! finds.

use crate::id::FileHash;
use crate::wire::link::Link;
use serde::{Deserialize, Serialize};

/// How a file is named by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// By its whole hash.
    Hash(FileHash),
    /// By the first 8 to 63 hex digits of its hash, lower case.
    Prefix(String),
    /// By its path in the tree. Where nothing has that path, what stands behind its last `@` is
    /// the number of a version, digits of its hash, or a time.
    Path(PathText),
    /// As what a node serves from where it lies.
    Share {
        /// Its name, or at least 8 digits of its id.
        peer: String,
        /// What it is called there.
        path: PathText,
    },
    /// By a link, which may lead to nodes that are not known yet.
    Link(Link),
}

/// Reply of `link`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// The link.
    pub link: Link,
    /// The file that it leads to.
    pub hash: FileHash,
    /// Milliseconds since 1970 after which it is not followed; none: never.
    pub expires_ms: Option<u64>,
    /// Names of the nodes that it says to have the file.
    pub holders: Vec<String>,
}

/// A path in the tree: bytes, begins with `/`; or what a link points to: any bytes. In JSON a text
/// where it is UTF-8, otherwise `{"hex": …}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { hex: String },
}

impl Serialize for PathText {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => PathForm::Text(text.to_owned()).serialize(to),
            Err(_) => PathForm::Bytes { hex: crate::id::to_hex(&self.0) }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match PathForm::deserialize(from)? {
            PathForm::Text(text) => Ok(Self(text.into_bytes())),
            PathForm::Bytes { hex } if hex.is_ascii() && hex.len() % 2 == 0 => hex
                .as_bytes()
                .chunks_exact(2)
                .map(|pair| std::str::from_utf8(pair).ok())
                .map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<_>>()
                .map(Self)
                .ok_or_else(|| D::Error::custom("not hex")),
            PathForm::Bytes { .. } => Err(D::Error::custom("not hex")),
        }
    }
}

impl std::fmt::Debug for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for PathText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}
