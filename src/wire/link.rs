//! Links: a file of a swarm as one word that can be pasted anywhere. This file is their
//! specification, version 1; it owns the form, and neither knows who may read a file nor dials.
//!
//! ```text
//! p2pfs1 ‖ base32 (RFC 4648, lower case, no padding) of
//!   size  field
//!      1  version    1
//!      8  swarm      the first bytes of the swarm's id
//!     32  hash       the file's hash
//!      8  length     bytes of the file
//!      4  ends       seconds since 1970 after which it is not to be followed; 0: never
//!      1  hints      how many follow, at most 3
//!      …  hint       the first 8 bytes of a node's id ‖ an address that it listens on
//!      4  check      the first bytes of BLAKE3 of all before
//! ```
//!
//! Integers are little-endian. Upper case is read as lower case; else a link has one form only. A
//! link is no secret and gives no right: who is a member can read the file without it, who is not
//! cannot read it with it, and its end is a courtesy.
//!
//! Invariant: a link that was cut or mistyped is never taken for another one.

use super::codec::{Decode, Encode, Malformed, Reader};
use crate::id::{FileHash, NodeId, SwarmId};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What every link begins with.
pub const LINK_START: &str = "p2pfs1";
/// Most hints.
pub const HINTS_MAX: usize = 3;
/// Longest link in characters.
const LINK_MAX: usize = 300;
/// The version written here.
const VERSION: u8 = 1;
/// Bytes of the check.
const CHECK: usize = 4;
/// Digits of base32.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A file of a swarm, and where to ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The first bytes of the swarm's id.
    pub swarm: [u8; 8],
    /// The file.
    pub hash: FileHash,
    /// Its length in bytes.
    pub length: u64,
    /// Seconds since 1970 after which it is not to be followed; 0: never.
    pub ends_s: u32,
    /// Nodes that had it when the link was made, at most [`HINTS_MAX`].
    pub hints: Vec<Hint>,
}

/// A node, and where it listened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The first bytes of its id.
    pub node: [u8; 8],
    /// The address.
    pub addr: SocketAddr,
}

/// A text is not a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was cut, or something in it was changed.
    #[error("not a whole link: it was cut or changed")]
    Damaged,
    /// It is of a newer p2pfs.
    #[error("a link of version {0}, which this p2pfs does not know")]
    Version(u8),
}

impl Link {
    /// Whether it leads into this swarm.
    pub fn is_of(&self, swarm: &SwarmId) -> bool {
        swarm.0.starts_with(&self.swarm)
    }
}

impl Hint {
    /// A hint at a node.
    pub fn at(node: &NodeId, addr: SocketAddr) -> Self {
        Self { node: *node.0.first_chunk().expect("an id is longer"), addr }
    }

    /// Whether it is this node.
    pub fn is(&self, node: &NodeId) -> bool {
        node.0.starts_with(&self.node)
    }
}

impl Encode for Hint {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node);
        self.addr.encode(out);
    }
}

impl Decode for Hint {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { node: from.array()?, addr: SocketAddr::decode(from)? })
    }
}

impl Encode for Link {
    fn encode(&self, out: &mut Vec<u8>) {
        VERSION.encode(out);
        out.extend_from_slice(&self.swarm);
        self.hash.encode(out);
        self.length.encode(out);
        self.ends_s.encode(out);
        u8::try_from(self.hints.len()).expect("at most HINTS_MAX").encode(out);
        self.hints.iter().for_each(|hint| hint.encode(out));
    }
}

impl Decode for Link {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != VERSION {
            return Err(Malformed::Invalid("version of a link"));
        }
        let swarm = from.array()?;
        let (hash, length) = (FileHash::decode(from)?, u64::decode(from)?);
        let (ends_s, hints) = (u32::decode(from)?, u8::decode(from)?);
        if usize::from(hints) > HINTS_MAX {
            return Err(Malformed::TooLong { len: usize::from(hints), max: HINTS_MAX });
        }
        let hints = (0..hints).map(|_| Hint::decode(from)).collect::<Result<_, _>>()?;
        Ok(Self { swarm, hash, length, ends_s, hints })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.to_bytes();
        bytes.extend_from_slice(&check(&bytes));
        f.write_str(LINK_START)?;
        f.write_str(&to_base32(&bytes))
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_MAX {
            return Err(LinkError::Damaged);
        }
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix(LINK_START).ok_or(LinkError::Damaged)?;
        let bytes = from_base32(digits).ok_or(LinkError::Damaged)?;
        let (bytes, said) = bytes.split_last_chunk::<CHECK>().ok_or(LinkError::Damaged)?;
        if check(bytes) != *said {
            return Err(LinkError::Damaged);
        }
        match bytes.first() {
            Some(&VERSION) => Self::from_bytes(bytes).map_err(|_| LinkError::Damaged),
            Some(&other) => Err(LinkError::Version(other)),
            None => Err(LinkError::Damaged),
        }
    }
}

impl serde::Serialize for Link {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Link {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer")
}

fn to_base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0u32, 0);
    let digit = |bits: u32| char::from(DIGITS[bits as usize & 31]);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(digit(bits >> held));
        }
    }
    if held > 0 {
        out.push(digit(bits << (5 - held)));
    }
    out
}

/// None where it is not what [`to_base32`] writes.
fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut held) = (0u32, 0);
    for digit in text.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = bits << 5 | value as u32;
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    let rest = bits & ((1 << held) - 1);
    (held < 5 && rest == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(hints: usize) -> Link {
        let addrs = ["192.0.2.1:4000", "[2001:db8::1]:4001", "198.51.100.7:65535"];
        let hint = |n: usize| Hint { node: [n as u8 + 1; 8], addr: addrs[n].parse().unwrap() };
        Link {
            swarm: [7; 8],
            hash: FileHash(*blake3::hash(b"a file").as_bytes()),
            length: 6,
            ends_s: 1_795_262_589,
            hints: (0..hints).map(hint).collect(),
        }
    }

    #[test]
    fn links_look_as_they_did() {
        let golden = include_str!("../../tests/golden/wire/link-v1.txt");
        let made: Vec<String> = (0..=HINTS_MAX).map(|hints| link(hints).to_string()).collect();
        assert_eq!(golden.lines().collect::<Vec<_>>(), made);
        for (text, hints) in made.iter().zip(0..) {
            assert_eq!(text.parse(), Ok(link(hints)));
            assert_eq!(format!(" {}\n", text.to_uppercase()).parse(), Ok(link(hints)));
            assert!(text.len() < LINK_MAX);
        }
    }

    #[test]
    fn another_version_is_named_and_a_cut_link_is_not_followed() {
        let mut bytes = link(1).to_bytes();
        bytes[0] = 2;
        bytes.extend_from_slice(&check(&bytes));
        let newer = format!("{LINK_START}{}", to_base32(&bytes));
        assert_eq!(newer.parse::<Link>(), Err(LinkError::Version(2)));
        let text = link(2).to_string();
        for end in 0..text.len() {
            assert_eq!(text[..end].parse::<Link>(), Err(LinkError::Damaged));
        }
        assert_eq!("p2pfs1ö".parse::<Link>(), Err(LinkError::Damaged));
        assert_eq!(format!("{text}a").parse::<Link>(), Err(LinkError::Damaged));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(at in 0usize..150, digit in 0usize..32) {
            let text = link(3).to_string();
            let at = LINK_START.len() + at % (text.len() - LINK_START.len());
            let mut changed = text.clone().into_bytes();
            changed[at] = DIGITS[digit];
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(changed.parse::<Link>().is_ok(), changed == text);
        }

        #[test]
        fn base32_is_read_as_it_was_written(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(from_base32(&to_base32(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "p2pfs1[a-z2-7]{0,320}") {
            if let Ok(link) = text.parse::<Link>() {
                prop_assert_eq!(link.to_string(), text);
            }
        }
    }
}
