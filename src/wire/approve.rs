//! What a joiner, the member it asks and an admin say to each other while `p2pfs approve` runs.
//! Owns the four messages and their binary form; what they mean and when they count is
//! `core::access`'s matter, the cryptography `crypto`'s.
//!
//! # Format, version 1
//!
//! Integers are little-endian (`wire::codec`).
//!
//! * *Join request*: version `1`, node id (32), owner key (32), label (text of at most 64 bytes).
//! * *Offer*: run (16), admin's node id (32), SPAKE2 message (33).
//! * *Reply*: run (16), SPAKE2 message (33), confirmation (32).
//! * *Verdict*: run (16), confirmation (32), sealed grant (at most 1,024 bytes).
//!
//! Invariant: nothing here is believed because of where it came from; the bootstrap that relays
//! the messages may change any of them, and then the run fails.

use super::codec::{Decode, Encode, Malformed, Reader, put_blob};
use crate::crypto::PAKE_MESSAGE_LEN;
use crate::id::NodeId;

/// The longest label in bytes.
pub const MAX_LABEL: usize = 64;

/// The longest sealed grant: twice the longest grant.
pub const MAX_SEALED_GRANT: usize = 1024;

const VERSION: u8 = 1;

/// One run of the exchange, named by the admin's random bytes.
pub type RunId = [u8; 16];

/// Who asks to become a member, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The node that asks.
    pub node: NodeId,
    /// The X25519 public key of its user.
    pub owner: [u8; 32],
    /// What the user calls the node; empty for no name.
    pub label: String,
}

impl Encode for JoinRequest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.node.encode(out);
        self.owner.encode(out);
        put_blob(out, self.label.as_bytes());
    }
}

impl Decode for JoinRequest {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != VERSION {
            return Err(Malformed::Invalid("join request version"));
        }
        Ok(Self { node: NodeId::decode(from)?, owner: from.array()?, label: from.text(MAX_LABEL)? })
    }
}

/// The admin begins a run: admin to joiner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The run.
    pub run: RunId,
    /// Who claims to have been told the code.
    pub admin: NodeId,
    /// The SPAKE2 message.
    pub message: [u8; PAKE_MESSAGE_LEN],
}

impl Encode for Offer {
    fn encode(&self, out: &mut Vec<u8>) {
        self.run.encode(out);
        self.admin.encode(out);
        self.message.encode(out);
    }
}

impl Decode for Offer {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { run: from.array()?, admin: NodeId::decode(from)?, message: from.array()? })
    }
}

/// The joiner answers and proves that it has the code: joiner to admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The run.
    pub run: RunId,
    /// The SPAKE2 message.
    pub message: [u8; PAKE_MESSAGE_LEN],
    /// Proof of the key, over the join request.
    pub confirmation: [u8; 32],
}

impl Encode for Reply {
    fn encode(&self, out: &mut Vec<u8>) {
        self.run.encode(out);
        self.message.encode(out);
        self.confirmation.encode(out);
    }
}

impl Decode for Reply {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { run: from.array()?, message: from.array()?, confirmation: from.array()? })
    }
}

/// The admin proves that it has the code and hands over the grant: admin to joiner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The run.
    pub run: RunId,
    /// Proof of the key, over the grant.
    pub confirmation: [u8; 32],
    /// The grant, sealed under the key of the run.
    pub sealed: Vec<u8>,
}

impl Encode for Verdict {
    fn encode(&self, out: &mut Vec<u8>) {
        self.run.encode(out);
        self.confirmation.encode(out);
        put_blob(out, &self.sealed);
    }
}

impl Decode for Verdict {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            run: from.array()?,
            confirmation: from.array()?,
            sealed: from.blob(MAX_SEALED_GRANT)?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = value.to_bytes();
        assert_eq!(T::from_bytes(&bytes).as_ref(), Ok(&value));
        for cut in 0..bytes.len() {
            assert_eq!(T::from_bytes(&bytes[..cut]), Err(Malformed::Short), "{cut}");
        }
        assert_eq!(T::from_bytes(&[bytes, vec![0]].concat()), Err(Malformed::Trailing));
    }

    #[test]
    fn messages_round_trip_and_nothing_else_decodes() {
        let node = NodeId([1; 32]);
        survives(JoinRequest { node, owner: [2; 32], label: "desk".into() });
        survives(Offer { run: [3; 16], admin: node, message: [4; 33] });
        survives(Reply { run: [3; 16], message: [4; 33], confirmation: [5; 32] });
        survives(Verdict { run: [3; 16], confirmation: [5; 32], sealed: vec![6; 300] });
        let long = JoinRequest { node, owner: [2; 32], label: "x".repeat(65) };
        let refused = Malformed::TooLong { len: 65, max: MAX_LABEL };
        assert_eq!(JoinRequest::from_bytes(&long.to_bytes()), Err(refused));
    }
}
