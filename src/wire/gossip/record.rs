//! The member record: what a node says about itself, signed by its key. Owns the fields, their
//! limits and their bytes; whether a record is believed is decided by `core::membership`'s
//! `Vouch`.
//!
//! Layout 1, in the terms of [`crate::wire::codec`]: layout u8 = 1, id, epoch u64, seq u32,
//! addresses (list ≤ 4), reach u8 (1 public, 2 behind NAT, 3 behind NAT with relays, then their
//! ids, list of 1 to 3), capacity u64, used u8, zone text ≤ 16 bytes, machine 8 bytes, version
//! text ≤ 16, name text ≤ 64, flags u16, counted u64, grant bytes ≤ 512, signature 64 bytes.
//! The signature is over everything before it, with the domain [`DOMAIN`].
//!
//! Invariant: only the owner of the key can make a record with a newer stamp.

use crate::crypto::{NodeKey, SIGNATURE_LEN, verify};
use crate::id::NodeId;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a record's signature is made for.
const DOMAIN: &str = "p2pfs member record v1";
const LAYOUT: u8 = 1;
/// The largest record in bytes: every field at its limit.
pub const RECORD_MAX: usize = 1024;

/// The age of a record: the later one wins, whoever it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Wall clock in milliseconds when the node started.
    pub epoch: u64,
    /// Count of the records made since.
    pub seq: u32,
}

impl Stamp {
    /// The stamp of the next record.
    pub const fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { epoch: self.epoch, seq },
            None => Self { epoch: self.epoch.saturating_add(1), seq: 0 },
        }
    }
}

/// How a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// Anyone can dial its addresses.
    #[default]
    Public,
    /// It can only dial out.
    Nat,
    /// It can only dial out; these members (1 to 3) pass messages on.
    Relay(Vec<NodeId>),
}

/// What a node says about its role, as bits. Unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberFlags(pub u16);

impl MemberFlags {
    /// It stores chunks.
    pub const STORE: Self = Self(1);
    /// It hands its chunks over and will go.
    pub const DRAINING: Self = Self(1 << 1);
    /// It serves what it has and takes nothing new.
    pub const READ_ONLY: Self = Self(1 << 2);
    /// It has no room.
    pub const FULL: Self = Self(1 << 3);
    /// It passes messages on for nodes behind NAT.
    pub const RELAY: Self = Self(1 << 4);
    /// It left in order: the last record of this epoch.
    pub const LEFT: Self = Self(1 << 15);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With the bits of `other` cleared.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The node.
    pub id: NodeId,
    /// Which of its records this is.
    pub stamp: Stamp,
    /// Where it listens, best first; at most [`Self::ADDRS`].
    pub addrs: Vec<SocketAddr>,
    /// Whether it can be dialled.
    pub reach: Reach,
    /// Bytes it offers to the swarm.
    pub capacity: u64,
    /// How much of that is used, in 64ths.
    pub used: u8,
    /// Its failure zone; empty: its machine. At most [`Self::ZONE`] bytes.
    pub zone: String,
    /// Keyed hash of the machine's id: equal for nodes on one machine.
    pub machine: [u8; 8],
    /// Its program's version; at most [`Self::VERSION`] bytes.
    pub version: String,
    /// What its owner calls it; at most [`Self::NAME`] bytes.
    pub name: String,
    /// Its roles.
    pub flags: MemberFlags,
    /// Chunks below their number of copies, as counted by this node.
    pub counted: u64,
    /// Why it is a member: opaque here; at most [`Self::GRANT`] bytes.
    pub grant: Vec<u8>,
    /// By the node's key, over all of the above.
    pub signature: [u8; SIGNATURE_LEN],
}

impl MemberRecord {
    /// Most addresses.
    pub const ADDRS: usize = 4;
    /// Most relays.
    pub const RELAYS: usize = 3;
    /// Longest zone in bytes.
    pub const ZONE: usize = 16;
    /// Longest version in bytes.
    pub const VERSION: usize = 16;
    /// Longest name in bytes.
    pub const NAME: usize = 64;
    /// Longest grant in bytes.
    pub const GRANT: usize = 512;

    /// Signs the record as it is now.
    pub fn sign(&mut self, key: &NodeKey) {
        let mut signed = Vec::with_capacity(RECORD_MAX);
        self.encode_unsigned(&mut signed);
        self.signature = key.sign(DOMAIN, &signed);
    }

    /// Whether the signature is the one of the node that the record is about.
    pub fn is_signed(&self) -> bool {
        let mut signed = Vec::with_capacity(RECORD_MAX);
        self.encode_unsigned(&mut signed);
        verify(self.id.as_bytes(), DOMAIN, &signed, &self.signature)
    }

    /// A number that differs between records: a part of the signature, which is a hash of all.
    pub fn mark(&self) -> u128 {
        let (first, _) = self.signature.split_first_chunk().expect("a signature has 64 bytes");
        u128::from_le_bytes(*first)
    }

    fn encode_unsigned(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        self.id.encode(out);
        self.stamp.encode(out);
        put_list(out, &self.addrs);
        match &self.reach {
            Reach::Public => out.push(1),
            Reach::Nat => out.push(2),
            Reach::Relay(via) => {
                out.push(3);
                put_list(out, via);
            }
        }
        self.capacity.encode(out);
        self.used.encode(out);
        put_blob(out, self.zone.as_bytes());
        self.machine.encode(out);
        put_blob(out, self.version.as_bytes());
        put_blob(out, self.name.as_bytes());
        self.flags.0.encode(out);
        self.counted.encode(out);
        put_blob(out, &self.grant);
    }
}

impl Encode for MemberRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_unsigned(out);
        self.signature.encode(out);
    }
}

impl Decode for MemberRecord {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != LAYOUT {
            return Err(Malformed::Invalid("member record layout"));
        }
        Ok(Self {
            id: NodeId::decode(from)?,
            stamp: Stamp::decode(from)?,
            addrs: from.list(Self::ADDRS)?,
            reach: Reach::decode(from)?,
            capacity: u64::decode(from)?,
            used: match u8::decode(from)? {
                used @ 0..=64 => used,
                _ => return Err(Malformed::Invalid("used share")),
            },
            zone: from.text(Self::ZONE)?,
            machine: from.array()?,
            version: from.text(Self::VERSION)?,
            name: from.text(Self::NAME)?,
            flags: MemberFlags(u16::decode(from)?),
            counted: u64::decode(from)?,
            grant: from.blob(Self::GRANT)?.to_vec(),
            signature: from.array()?,
        })
    }
}

impl Decode for Reach {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Ok(Self::Public),
            2 => Ok(Self::Nat),
            3 => {
                let via = from.list(MemberRecord::RELAYS)?;
                if via.is_empty() { Err(Malformed::Invalid("relay")) } else { Ok(Self::Relay(via)) }
            }
            _ => Err(Malformed::Invalid("reach")),
        }
    }
}

impl Encode for Arc<MemberRecord> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl Decode for Arc<MemberRecord> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        MemberRecord::decode(from).map(Self::new)
    }
}
