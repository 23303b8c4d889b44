//! Names of things: one distinct type per kind of identifier, so that a chunk id can never be
//! passed where a file hash is wanted. Owns their text form (lower-case hex) and their parsing;
//! it does not know how any of them is derived (`chunk`, `crypto`, `core::catalogue` do).
//!
//! Invariant: the text form of every id is the plain lower-case hex of its bytes, and parsing
//! accepts nothing else.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong number of characters.
    #[error("{want} hex characters expected, got {got}")]
    Length {
        /// Characters that the id needs.
        want: usize,
        /// Characters that were given.
        got: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("`{}` at place {at} is not a hex digit", .found.escape_default())]
    Digit {
        /// The offending character.
        found: char,
        /// Its place, counted from 1.
        at: usize,
    },
}

/// Writes `bytes` as lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Parses exactly `N` bytes of hex, either case.
pub fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    if let Some((index, found)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        return Err(ParseIdError::Digit { found, at: index + 1 });
    }
    if text.len() != N * 2 {
        return Err(ParseIdError::Length { want: N * 2, got: text.len() });
    }
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Ok(out)
}

/// Random bytes that begin with the time instead: two bytes that count four seconds each, and begin
/// anew after three days. What is made at about the same time then lies side by side in every table
/// that sorts by it; among a million rows each would otherwise be on a page of its own. It tells no
/// more than the clock of the record that names it.
pub const fn made_at(wall_ms: u64, mut random: [u8; 16]) -> [u8; 16] {
    let steps = (wall_ms / 4_096).to_be_bytes();
    random[0] = steps[6];
    random[1] = steps[7];
    random
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident [$len:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id as bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten hex digits, for tables read by people.
            pub fn short(&self) -> String {
                to_hex(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                from_hex(text).map(Self)
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A node: its ed25519 public key, which is also the key that its TLS connections prove.
    NodeId[32];
    /// A swarm: BLAKE3 of the swarm's ed25519 public key.
    SwarmId[32];
    /// A file's hash `H`: BLAKE3 of its plain content, what `b3sum` prints.
    FileHash[32];
    /// A chunk's name `cid` on the wire, on disk and for placement: BLAKE3 of its sealed bytes.
    ChunkId[32];
    /// A BLAKE3 subtree chaining value: `v_i` of a chunk at its offset, or of a manifest page.
    ChunkValue[32];
    /// What a file record is found by, `L`, which is keyed: a peer never sees `H`.
    LookupId[32];
    /// A catalogue record: BLAKE3 of its encoded bytes, signature included.
    RecordId[32];
    /// A generation of the content secret: BLAKE3 of the secret. All zero: no epoch.
    EpochId[32];
    /// `P`: why a holder keeps a chunk. Random; it belongs to an inode or to one unlisted file.
    ClaimId[16];
    /// A file, directory or link of the tree; random, all zero is the root directory.
    InodeId[16];
    /// A register of the tree: keyed hash of an inode, or of a parent inode and a name.
    Tag[16];
}

impl InodeId {
    /// The root directory, the same in every swarm.
    pub const ROOT: Self = Self([0; 16]);
}

impl EpochId {
    /// The mark of a record whose body is not sealed.
    pub const NONE: Self = Self([0; 32]);
}

impl ChunkId {
    /// The first 20 bits: the unit of placement (DESIGN: "a placement is one of 2^20").
    pub const fn prefix(&self) -> u32 {
        (self.0[0] as u32) << 12 | (self.0[1] as u32) << 4 | (self.0[2] as u32) >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_plain_hex_and_round_trips() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string(), "ab".repeat(32));
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<ChunkId>(), Ok(id));
    }

    #[test]
    fn a_wrong_text_says_what_is_wrong() {
        assert_eq!("xyz".parse::<FileHash>(), Err(ParseIdError::Digit { found: 'x', at: 1 }));
        assert_eq!("ab".parse::<ClaimId>(), Err(ParseIdError::Length { want: 32, got: 2 }));
    }

    #[test]
    fn prefix_is_the_first_twenty_bits() {
        let mut bytes = [0; 32];
        bytes[..3].copy_from_slice(&[0xff, 0xff, 0xf7]);
        assert_eq!(ChunkId(bytes).prefix(), 0xfffff);
    }
}
