//! Nodes that wait to be let in, as members speak of them: who waits, and the steps of an approval
//! that a member passes on. Owns the letters of these; the steps themselves are `wire::approve`'s.

use crate::id::NodeId;
use crate::wire::approve::{JoinRequest, Offer, Verdict};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use std::net::SocketAddr;

/// Most nodes that wait at one member.
pub const WAITING_MAX: usize = 16;
/// Longest step of an approval in bytes.
pub const APPROVE_MAX: usize = 4 * 1024;

/// A node that waits for approval at the answerer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingNode {
    /// What it asks for; its id is proved by its connection.
    pub request: JoinRequest,
    /// Where it came from.
    pub addr: SocketAddr,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaitingList {
    /// At most [`WAITING_MAX`].
    pub nodes: Vec<WaitingNode>,
}

impl Encode for WaitingNode {
    fn encode(&self, out: &mut Vec<u8>) {
        self.request.encode(out);
        self.addr.encode(out);
    }
}

impl Decode for WaitingNode {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { request: JoinRequest::decode(from)?, addr: SocketAddr::decode(from)? })
    }
}

impl Encode for WaitingList {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.nodes);
    }
}

impl Decode for WaitingList {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { nodes: from.list(WAITING_MAX)? })
    }
}

/// "Pass this step of an approval on to a node that waits at you."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The waiting node.
    pub to: NodeId,
    /// The step, at most [`APPROVE_MAX`] bytes; opaque to the one who relays.
    pub step: Vec<u8>,
}

impl Encode for Relay {
    fn encode(&self, out: &mut Vec<u8>) {
        self.to.encode(out);
        put_blob(out, &self.step);
    }
}

impl Decode for Relay {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let to = NodeId::decode(from)?;
        Ok(Self { to, step: from.blob(APPROVE_MAX)?.to_vec() })
    }
}

/// A step of an approval, from the admin to the node that waits. The answer to an offer is a
/// [`Reply`](super::super::approve::Reply), that to a verdict is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A run begins.
    Offer(Offer),
    /// It ends well.
    Verdict(Verdict),
}

impl Encode for Step {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Offer(offer) => {
                out.push(1);
                offer.encode(out);
            }
            Self::Verdict(verdict) => {
                out.push(2);
                verdict.encode(out);
            }
        }
    }
}

impl Decode for Step {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Offer::decode(from).map(Self::Offer),
            2 => Verdict::decode(from).map(Self::Verdict),
            _ => Err(Malformed::Invalid("step of an approval")),
        }
    }
}

/// "Turn this waiting node away."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deny {
    /// The waiting node.
    pub node: NodeId,
}

impl Encode for Deny {
    fn encode(&self, out: &mut Vec<u8>) {
        self.node.encode(out);
    }
}

impl Decode for Deny {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { node: NodeId::decode(from)? })
    }
}
