//! The greeting: the first frame each way on a connection, and the refusal that may come instead.
//! This file is their specification; it owns the layout, and decides nothing about who may join.
//!
//! Order: the side that dialled sends [`Hello`]; the other answers with its own or with [`Refuse`];
//! the first then sends `READY` or `Refuse`. All travel after TLS has proved both keys.
//!
//! ```text
//! Hello   magic[8] · lowest u16 · highest u16 · software text ≤ 64 · name text ≤ 64   for ever
//!         instance u64 · lane u8 · observed option<addr> · swarm option<id> · grant ≤ 512
//!         · port u16 · addrs list ≤ 4 · ask ≤ 1024                                    version 1
//! Refuse  magic[8] · code u16 · lowest u16 · highest u16 · software text ≤ 64
//!         · swarm option<id> · text ≤ 200                                             for ever
//! ```
//!
//! Invariant: the part marked *for ever* is the same in every version, so that two versions that
//! cannot talk can still say so. Later versions append fields to the second part: bytes after what
//! is known here are an error unless the sender speaks a higher version.

use super::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use super::frame::{REFUSAL_TEXT_MAX, cut};
use crate::id::SwarmId;
use std::fmt;
use std::net::SocketAddr;

/// Opens every greeting; the line end shows a transfer that changes bytes.
const MAGIC: &[u8; 8] = b"p2pfs\0\r\n";
/// Longest software text in bytes.
pub const SOFTWARE_MAX: usize = 64;
/// Longest node name in bytes.
pub const NAME_MAX: usize = 64;
/// Longest grant in bytes.
pub const GRANT_MAX: usize = 512;
/// Most addresses that a node says it has.
pub const ADDRS_MAX: usize = 4;
/// Longest question of a joiner in bytes.
pub const ASK_MAX: usize = 1024;

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest one spoken.
    pub lowest: u16,
    /// The newest one spoken.
    pub highest: u16,
}

impl Versions {
    /// What this software speaks.
    pub const OURS: Self = Self { lowest: 1, highest: 1 };

    /// The newest version that both sides speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(f, "{}", self.lowest)
        } else {
            write!(f, "{} to {}", self.lowest, self.highest)
        }
    }
}

impl Encode for Versions {
    fn encode(&self, out: &mut Vec<u8>) {
        self.lowest.encode(out);
        self.highest.encode(out);
    }
}

impl Decode for Versions {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let range = Self { lowest: u16::decode(from)?, highest: u16::decode(from)? };
        if range.lowest > range.highest {
            Err(Malformed::Invalid("version range"))
        } else {
            Ok(range)
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small messages that must not wait.
    Control,
    /// Chunks.
    Bulk,
}

impl Encode for Lane {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Control => 1,
            Self::Bulk => 2,
        });
    }
}

impl Decode for Lane {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Ok(Self::Control),
            2 => Ok(Self::Bulk),
            _ => Err(Malformed::Invalid("lane")),
        }
    }
}

/// What every version can read of every other version's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Protocol versions it speaks.
    pub versions: Versions,
    /// Its software and release, at most [`SOFTWARE_MAX`] bytes. Escape it before showing it.
    pub software: String,
    /// What the node calls itself, at most [`NAME_MAX`] bytes. Escape it before showing it.
    pub name: String,
}

/// What a node says about its place in a swarm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Introduction {
    /// Its swarm, once it is in one.
    pub swarm: Option<SwarmId>,
    /// Its grant, encoded, at most [`GRANT_MAX`] bytes; empty: it has none.
    pub grant: Vec<u8>,
    /// The port that it listens on; 0: it cannot be dialled.
    pub port: u16,
    /// Addresses that it believes to be dialled at, at most [`ADDRS_MAX`].
    pub addrs: Vec<SocketAddr>,
    /// What a joiner asks, at most [`ASK_MAX`] bytes, for whoever decides about joining.
    pub ask: Vec<u8>,
}

/// The first frame each way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks, in every version.
    pub speaker: Speaker,
    /// Drawn when the sender's transport started: another number means that it has restarted.
    pub instance: u64,
    /// What this connection is for. Both sides say the same.
    pub lane: Lane,
    /// The address that the sender sees the receiver at.
    pub observed: Option<SocketAddr>,
    /// The sender's place in a swarm.
    pub intro: Introduction,
}

/// Why a frame is not a hello that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It is well-formed, but there is no version that both sides speak.
    #[error("it runs protocol {}, we need {}", .0.versions, Versions::OURS)]
    Version(Speaker),
    /// It is not a hello.
    #[error("the greeting is malformed: {0}")]
    Malformed(#[from] Malformed),
}

impl Hello {
    /// Reads the other side's hello, whatever version wrote it.
    pub fn read(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut from = Reader::new(bytes);
        let speaker = Speaker::decode(&mut from)?;
        if speaker.versions.common(Versions::OURS).is_none() {
            return Err(HelloError::Version(speaker));
        }
        let newer = speaker.versions.highest > Versions::OURS.highest;
        let hello = Self {
            speaker,
            instance: u64::decode(&mut from)?,
            lane: Lane::decode(&mut from)?,
            observed: Option::decode(&mut from)?,
            intro: Introduction::decode(&mut from)?,
        };
        if newer {
            from.rest();
        }
        from.finish()?;
        Ok(hello)
    }
}

impl Encode for Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        self.speaker.encode(out);
        self.instance.encode(out);
        self.lane.encode(out);
        self.observed.encode(out);
        self.intro.encode(out);
    }
}

impl Encode for Speaker {
    fn encode(&self, out: &mut Vec<u8>) {
        MAGIC.encode(out);
        self.versions.encode(out);
        put_blob(out, cut(&self.software, SOFTWARE_MAX).as_bytes());
        put_blob(out, cut(&self.name, NAME_MAX).as_bytes());
    }
}

impl Decode for Speaker {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        magic(from)?;
        Ok(Self {
            versions: Versions::decode(from)?,
            software: from.text(SOFTWARE_MAX)?,
            name: from.text(NAME_MAX)?,
        })
    }
}

impl Encode for Introduction {
    fn encode(&self, out: &mut Vec<u8>) {
        self.swarm.encode(out);
        put_blob(out, &self.grant);
        self.port.encode(out);
        put_list(out, &self.addrs[..self.addrs.len().min(ADDRS_MAX)]);
        put_blob(out, &self.ask);
    }
}

impl Decode for Introduction {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            swarm: Option::decode(from)?,
            grant: from.blob(GRANT_MAX)?.to_vec(),
            port: u16::decode(from)?,
            addrs: from.list(ADDRS_MAX)?,
            ask: from.blob(ASK_MAX)?.to_vec(),
        })
    }
}

/// Why a node will not talk. A code of a later version is kept as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseCode {
    /// No common protocol version.
    Version,
    /// It belongs to another swarm.
    OtherSwarm,
    /// The one who dialled is not a member, and nobody joins here.
    NotAMember,
    /// An admin turned it away, or its grant was taken back.
    Denied,
    /// Too many connections; later may do.
    Busy,
    /// The one who dialled is this very node.
    Myself,
    /// A code that this version does not know.
    Other(u16),
}

impl RefuseCode {
    const fn code(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::OtherSwarm => 2,
            Self::NotAMember => 3,
            Self::Denied => 4,
            Self::Busy => 5,
            Self::Myself => 6,
            Self::Other(code) => code,
        }
    }

    const fn of(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::OtherSwarm,
            3 => Self::NotAMember,
            4 => Self::Denied,
            5 => Self::Busy,
            6 => Self::Myself,
            other => Self::Other(other),
        }
    }
}

/// Comes instead of a hello, or ends a connection later; the sender closes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// Why, for programs.
    pub code: RefuseCode,
    /// Protocol versions that the sender speaks.
    pub versions: Versions,
    /// The sender's software and release. Escape it before showing it.
    pub software: String,
    /// The sender's swarm, when the code is [`RefuseCode::OtherSwarm`] or it wants it known.
    pub swarm: Option<SwarmId>,
    /// Why, for people; at most 200 bytes. Escape it before showing it.
    pub text: String,
}

impl fmt::Display for Refuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            RefuseCode::Version => {
                write!(f, "it runs protocol {}, we need {}", self.versions, Versions::OURS)
            }
            _ => write!(f, "{}", self.text.escape_debug()),
        }
    }
}

impl Encode for Refuse {
    fn encode(&self, out: &mut Vec<u8>) {
        MAGIC.encode(out);
        self.code.code().encode(out);
        self.versions.encode(out);
        put_blob(out, cut(&self.software, SOFTWARE_MAX).as_bytes());
        self.swarm.encode(out);
        put_blob(out, cut(&self.text, REFUSAL_TEXT_MAX).as_bytes());
    }
}

impl Decode for Refuse {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        magic(from)?;
        Ok(Self {
            code: RefuseCode::of(u16::decode(from)?),
            versions: Versions::decode(from)?,
            software: from.text(SOFTWARE_MAX)?,
            swarm: Option::decode(from)?,
            text: from.text(REFUSAL_TEXT_MAX)?,
        })
    }
}

fn magic(from: &mut Reader<'_>) -> Result<(), Malformed> {
    if from.array()? == *MAGIC { Ok(()) } else { Err(Malformed::Invalid("p2pfs greeting")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::to_hex;
    use crate::wire::frame::Limits;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            speaker: Speaker {
                versions: Versions { lowest: 1, highest: 1 },
                software: "p2pfs 0.1.0".into(),
                name: "bob".into(),
            },
            instance: 0x0102_0304_0506_0708,
            lane: Lane::Bulk,
            observed: Some("10.1.2.3:4000".parse().unwrap()),
            intro: Introduction {
                swarm: Some(SwarmId([0xaa; 32])),
                grant: vec![1, 2, 3],
                port: 4000,
                addrs: vec!["[2001:db8::1]:4000".parse().unwrap()],
                ask: b"please".to_vec(),
            },
        }
    }

    fn refuse() -> Refuse {
        Refuse {
            code: RefuseCode::OtherSwarm,
            versions: Versions { lowest: 1, highest: 1 },
            software: "p2pfs 0.1.0".into(),
            swarm: Some(SwarmId([0xbb; 32])),
            text: "this is another swarm".into(),
        }
    }

    #[test]
    fn greetings_are_what_they_always_were() {
        let golden = include_str!("../../tests/golden/wire/hello-v1.hex");
        let lines = [to_hex(&hello().to_bytes()), to_hex(&refuse().to_bytes())];
        assert_eq!(golden.lines().collect::<Vec<_>>(), lines);
        assert_eq!(Hello::read(&hello().to_bytes()), Ok(hello()));
        assert_eq!(Refuse::from_bytes(&refuse().to_bytes()), Ok(refuse()));
    }

    #[test]
    fn a_version_that_cannot_be_spoken_is_told_by_name() {
        let mut other = hello();
        other.speaker.versions = Versions { lowest: 2, highest: 3 };
        let mut bytes = other.speaker.to_bytes();
        bytes.extend_from_slice(b"whatever version 2 says");
        let Err(HelloError::Version(speaker)) = Hello::read(&bytes) else { panic!("accepted") };
        assert_eq!(speaker.name, "bob");
        let text = HelloError::Version(speaker).to_string();
        assert_eq!(text, "it runs protocol 2 to 3, we need 1");
    }

    #[test]
    fn only_a_newer_version_may_say_more() {
        let mut bytes = hello().to_bytes();
        bytes.push(0);
        assert_eq!(Hello::read(&bytes), Err(Malformed::Trailing.into()));
        let mut newer = hello();
        newer.speaker.versions.highest = 2;
        let mut bytes = newer.to_bytes();
        bytes.extend_from_slice(b"more");
        assert_eq!(Hello::read(&bytes), Ok(newer));
    }

    #[test]
    fn a_full_hello_fits_its_frame_and_a_fuller_one_is_refused() {
        let mut full = hello();
        full.speaker.software = "s".repeat(SOFTWARE_MAX);
        full.speaker.name = "n".repeat(NAME_MAX);
        full.intro.grant = vec![0; GRANT_MAX];
        full.intro.ask = vec![0; ASK_MAX];
        full.intro.addrs = vec![full.intro.addrs[0]; ADDRS_MAX];
        assert!(full.to_bytes().len() <= Limits::GREETING.head);
        assert_eq!(Hello::read(&full.to_bytes()), Ok(full.clone()));
        full.intro.grant.push(0);
        let refused = Malformed::TooLong { len: GRANT_MAX + 1, max: GRANT_MAX };
        assert_eq!(Hello::read(&full.to_bytes()), Err(refused.into()));
    }

    proptest! {
        #[test]
        fn damage_gives_an_error_or_a_canonical_hello(at in 0usize..200, to in any::<u8>()) {
            let mut bytes = hello().to_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(read) = Hello::read(&bytes) {
                prop_assert!(bytes.starts_with(&read.to_bytes()));
            }
            prop_assert!(Hello::read(&bytes[..at]).is_err());
        }
    }
}
