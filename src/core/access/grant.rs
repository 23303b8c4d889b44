//! Grants and the open statement: what the swarm key says about who may join. Owns their form and
//! their verification; revocations are catalogue records and are looked up by the serial.
//!
//! # Format, version 1
//!
//! *Grant*: version `1`, swarm public key (32), node id (32), owner key (32), roles (1), label
//! (text of at most 64 bytes), not before (8), not after (8), serial (16), signature (64) over all
//! before it, domain `p2pfs grant v1`. Times are milliseconds since 1970. Roles: 1 read, 2 write, 4
//! store, 8 invite, 16 admin; the other bits are 0.
//!
//! *Open statement*: version `1`, swarm public key (32), time it was made (8), signature (64),
//! domain `p2pfs open statement v1`.
//!
//! Invariant: a decoded grant means nothing until [`Grant::verify`] has said yes.

use crate::crypto::{SIGNATURE_LEN, SwarmKey, verify};
use crate::id::NodeId;
use crate::wire::approve::MAX_LABEL;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob};

/// No grant is longer than this in bytes.
pub const MAX_GRANT: usize = 512;

/// How far clocks may differ when the time of a grant is checked: 5 minutes.
pub const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// The end of a grant that does not end.
pub const FOREVER: u64 = u64::MAX;

const VERSION: u8 = 1;
const GRANT_DOMAIN: &str = "p2pfs grant v1";
const OPEN_DOMAIN: &str = "p2pfs open statement v1";

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Gets the content secrets of epochs.
    pub const READ: Self = Self(1);
    /// Makes records of the catalogue.
    pub const WRITE: Self = Self(2);
    /// Holds chunks for others.
    pub const STORE: Self = Self(4);
    /// Makes invites.
    pub const INVITE: Self = Self(8);
    /// Has the swarm key.
    pub const ADMIN: Self = Self(16);
    /// What an ordinary member may: read, write, store.
    pub const MEMBER: Self = Self(7);

    const ALL: u8 = 31;

    /// These roles and those.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Self::READ, "read"),
            (Self::WRITE, "write"),
            (Self::STORE, "store"),
            (Self::INVITE, "invite"),
            (Self::ADMIN, "admin"),
        ];
        let mine = names.into_iter().filter(|(role, _)| self.contains(*role));
        f.write_str(&mine.map(|(_, name)| name).collect::<Vec<_>>().join(","))
    }
}

/// Why a grant or open statement does not let a node in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is from another swarm.
    #[error("the grant is from another swarm")]
    Swarm,
    /// It is for another node.
    #[error("the grant is for another node")]
    Node,
    /// The swarm key did not sign it.
    #[error("the grant is not signed by the swarm's key")]
    Signature,
    /// It is not valid yet, or a clock is wrong.
    #[error("the grant is not valid yet; is the clock right?")]
    Early,
    /// It has ended.
    #[error("the grant has expired")]
    Expired,
}

/// What a grant says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The node that may join.
    pub node: NodeId,
    /// The X25519 public key of its user, to which epoch secrets are sealed too.
    pub owner: [u8; 32],
    /// What it may do.
    pub roles: Roles,
    /// What the node was called when it asked; for people only. At most 64 bytes.
    pub label: String,
    /// Start of its validity, milliseconds since 1970.
    pub not_before: u64,
    /// End of its validity, milliseconds since 1970; [`FOREVER`] for none.
    pub not_after: u64,
    /// Random name of this grant, by which it is revoked.
    pub serial: [u8; 16],
}

/// The swarm key's word that a node may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The public half of the swarm key that signed it.
    pub swarm: [u8; 32],
    /// What it says.
    pub terms: Terms,
    signature: [u8; SIGNATURE_LEN],
}

impl Grant {
    /// Signs `terms`. A label over 64 bytes is cut.
    pub fn issue(key: &SwarmKey, mut terms: Terms) -> Self {
        terms.label.truncate(terms.label.floor_char_boundary(MAX_LABEL));
        let mut grant = Self { swarm: key.public(), terms, signature: [0; SIGNATURE_LEN] };
        grant.signature = key.sign(GRANT_DOMAIN, &grant.signed());
        grant
    }

    /// Whether `node` may join the swarm of `swarm` at the wall-clock time `now_ms`, and what it
    /// may do there.
    pub fn verify(&self, swarm: &[u8; 32], node: &NodeId, now_ms: u64) -> Result<Roles, Refused> {
        if self.swarm != *swarm {
            return Err(Refused::Swarm);
        }
        if self.terms.node != *node {
            return Err(Refused::Node);
        }
        if now_ms.saturating_add(CLOCK_TOLERANCE_MS) < self.terms.not_before {
            return Err(Refused::Early);
        }
        if now_ms > self.terms.not_after.saturating_add(CLOCK_TOLERANCE_MS) {
            return Err(Refused::Expired);
        }
        // The costly check last.
        if !verify(swarm, GRANT_DOMAIN, &self.signed(), &self.signature) {
            return Err(Refused::Signature);
        }
        Ok(self.terms.roles)
    }

    fn signed(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.swarm.encode(&mut out);
        self.terms.node.encode(&mut out);
        self.terms.owner.encode(&mut out);
        out.push(self.terms.roles.0);
        put_blob(&mut out, self.terms.label.as_bytes());
        self.terms.not_before.encode(&mut out);
        self.terms.not_after.encode(&mut out);
        self.terms.serial.encode(&mut out);
        out
    }
}

impl Encode for Grant {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.signed());
        self.signature.encode(out);
    }
}

impl Decode for Grant {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != VERSION {
            return Err(Malformed::Invalid("grant version"));
        }
        let swarm = from.array()?;
        let terms = Terms {
            node: NodeId::decode(from)?,
            owner: from.array()?,
            roles: roles(u8::decode(from)?)?,
            label: from.text(MAX_LABEL)?,
            not_before: u64::decode(from)?,
            not_after: u64::decode(from)?,
            serial: from.array()?,
        };
        Ok(Self { swarm, terms, signature: from.array()? })
    }
}

fn roles(bits: u8) -> Result<Roles, Malformed> {
    if bits & !Roles::ALL == 0 { Ok(Roles(bits)) } else { Err(Malformed::Invalid("roles")) }
}

/// The swarm key's word that every node may join, read, write and store: a swarm made with
/// `--open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStatement {
    /// The public half of the swarm key that signed it.
    pub swarm: [u8; 32],
    /// When it was made, milliseconds since 1970.
    pub made_ms: u64,
    signature: [u8; SIGNATURE_LEN],
}

impl OpenStatement {
    /// Signs the statement.
    pub fn issue(key: &SwarmKey, made_ms: u64) -> Self {
        let mut statement = Self { swarm: key.public(), made_ms, signature: [0; SIGNATURE_LEN] };
        statement.signature = key.sign(OPEN_DOMAIN, &statement.signed());
        statement
    }

    /// Whether the swarm of `swarm` is open, and what every node may do there.
    pub fn verify(&self, swarm: &[u8; 32]) -> Result<Roles, Refused> {
        if self.swarm != *swarm {
            return Err(Refused::Swarm);
        }
        if !verify(swarm, OPEN_DOMAIN, &self.signed(), &self.signature) {
            return Err(Refused::Signature);
        }
        Ok(Roles::MEMBER)
    }

    fn signed(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.swarm.encode(&mut out);
        self.made_ms.encode(&mut out);
        out
    }
}

impl Encode for OpenStatement {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.signed());
        self.signature.encode(out);
    }
}

impl Decode for OpenStatement {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != VERSION {
            return Err(Malformed::Invalid("open statement version"));
        }
        Ok(Self { swarm: from.array()?, made_ms: u64::decode(from)?, signature: from.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::NodeKey;

    fn terms() -> Terms {
        Terms {
            node: NodeKey::from_seed(&[1; 32]).id(),
            owner: [2; 32],
            roles: Roles::MEMBER,
            label: "desk".into(),
            not_before: 1_000_000,
            not_after: 2_000_000,
            serial: [3; 16],
        }
    }

    #[test]
    fn a_grant_holds_for_its_swarm_node_and_time_only() {
        let key = SwarmKey::from_seed(&[5; 32]);
        let other = SwarmKey::from_seed(&[6; 32]);
        let grant = Grant::issue(&key, terms());
        let node = terms().node;
        let at = |now| grant.verify(&key.public(), &node, now);
        assert_eq!(at(1_500_000), Ok(Roles::MEMBER));
        assert_eq!(at(1_000_000 - CLOCK_TOLERANCE_MS), Ok(Roles::MEMBER));
        assert_eq!(at(1_000_000 - CLOCK_TOLERANCE_MS - 1), Err(Refused::Early));
        assert_eq!(at(2_000_000 + CLOCK_TOLERANCE_MS), Ok(Roles::MEMBER));
        assert_eq!(at(2_000_000 + CLOCK_TOLERANCE_MS + 1), Err(Refused::Expired));
        assert_eq!(grant.verify(&other.public(), &node, 1_500_000), Err(Refused::Swarm));
        assert_eq!(grant.verify(&key.public(), &NodeId([9; 32]), 1_500_000), Err(Refused::Node));
        let endless = Terms { not_before: 0, not_after: FOREVER, ..terms() };
        let endless = Grant::issue(&key, endless);
        assert_eq!(endless.verify(&key.public(), &node, u64::MAX), Ok(Roles::MEMBER));
    }

    #[test]
    fn any_changed_byte_of_a_grant_is_noticed() {
        let key = SwarmKey::from_seed(&[5; 32]);
        let bytes = Grant::issue(&key, terms()).to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let Ok(grant) = Grant::from_bytes(&changed) else { continue };
            assert_eq!(grant.to_bytes(), changed);
            assert!(grant.verify(&key.public(), &terms().node, 1_500_000).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_grant_is_small_and_its_label_bounded() {
        let key = SwarmKey::from_seed(&[5; 32]);
        let grant = Grant::issue(&key, Terms { label: "é".repeat(40), ..terms() });
        assert_eq!(grant.terms.label, "é".repeat(32));
        let bytes = grant.to_bytes();
        assert!(bytes.len() <= MAX_GRANT);
        assert_eq!(Grant::from_bytes(&bytes), Ok(grant));
    }

    #[test]
    fn unknown_roles_are_refused() {
        let key = SwarmKey::from_seed(&[5; 32]);
        let mut bytes = Grant::issue(&key, terms()).to_bytes();
        bytes[97] = 0x20;
        assert_eq!(Grant::from_bytes(&bytes), Err(Malformed::Invalid("roles")));
        assert_eq!(Roles::MEMBER.with(Roles::ADMIN).to_string(), "read,write,store,admin");
        assert!(!Roles::MEMBER.contains(Roles::ADMIN));
    }

    #[test]
    fn only_the_swarm_key_opens_a_swarm() {
        let key = SwarmKey::from_seed(&[5; 32]);
        let other = SwarmKey::from_seed(&[6; 32]);
        let open = OpenStatement::issue(&key, 77);
        assert_eq!(open.verify(&key.public()), Ok(Roles::MEMBER));
        assert_eq!(open.verify(&other.public()), Err(Refused::Swarm));
        let mut forged = OpenStatement::issue(&other, 77);
        forged.swarm = key.public();
        assert_eq!(forged.verify(&key.public()), Err(Refused::Signature));
        assert_eq!(OpenStatement::from_bytes(&open.to_bytes()), Ok(open));
    }
}
