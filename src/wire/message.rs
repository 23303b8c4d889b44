//! What members ask of each other, as typed requests over the frames of `wire::frame`.
//!
//! Each request has an explicit kind number, a head (this file's encoding) and, where it says so, a
//! body: the sealed bytes of one chunk. Each reply's head is the type that the request names. The
//! numbers are part of the protocol and never reused; those from 0x8000 up may carry a body:
//!
//! | kind | request | body | reply head | reply body |
//! |---|---|---|---|---|
//! | 0x0100 | gossip (one-way; `wire::gossip`) | | | |
//! | 0x0101 | push of records that the receiver may not have (one-way, [`Push`]) | | | |
//! | 0x0201 | [`Have`]: do you hold these? then keep them for this claim | | [`Bits`] | |
//! | 0x8202 | [`Store`]: keep this chunk | sealed | empty, once it is on disk | |
//! | 0x8203 | [`Fetch`]: give me this chunk | | empty | sealed |
//! | 0x0204 | [`Holds`]: which of these do you hold as replicas? | | [`Bits`] | |
//! | 0x0205 | [`Pointers`]: I hold these | | empty | |
//! | 0x0206 | [`WhoHolds`]: do you hold, or know who holds, these? | | [`Holders`] | |
//! | 0x0207 | [`Commit`]: claims of these ids are committed | | empty | |
//! | 0x0208 | [`Below`]: these have too few copies; you see to them | | empty | |
//! | 0x0209 | [`Prove`]: show that you have the bytes of these, and keep them | | [`Proofs`] | |
//! | 0x020a | [`Compare`]: which of these do you hold, and with these claims? | | [`Compared`] | |
//! | 0x020b | [`Adopt`]: keep these for these claims too | | [`Bits`]: which are held | |
//! | 0x020c | [`Withdraw`]: what was stored for this put is not needed | | empty | |
//! | 0x0301 | [`Push`]: keep these records | | empty, once they are on disk | |
//! | 0x0302 | a step of reconciliation (`wire::sync`) | | the same | |
//! | 0x0303 | [`Find`]: records that a member here may lack | | [`Push`] | |
//! | 0x0401 | who waits at you for approval? (empty) | | [`WaitingList`] | |
//! | 0x0402 | [`Relay`]: pass this on to a node that waits at you | | opaque | |
//! | 0x0403 | [`Deny`]: turn this waiting node away | | empty | |
//! | 0x0404 | a [`Step`] of the approval (to a node that waits) | | `wire::approve` | |
//! | 0x0501 | ping (empty) | | empty | |
//!
//! Goals: small, total, canonical, one round trip each, safe to repeat. Not goals: compatibility
//! with anything else, or meaning that depends on an earlier request.

use super::approve::{JoinRequest, Offer, Verdict};
use super::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use crate::id::{ChunkId, ClaimId, LookupId, NodeId, Tag};
use std::net::SocketAddr;

/// Kind numbers.
pub mod kind {
    /// One-way gossip of the membership.
    pub const GOSSIP: u16 = 0x0100;
    /// One-way push of catalogue records.
    pub const PUSH_ON: u16 = 0x0101;
    /// [`super::Have`].
    pub const HAVE: u16 = 0x0201;
    /// [`super::Store`].
    pub const STORE: u16 = 0x8202;
    /// [`super::Fetch`].
    pub const FETCH: u16 = 0x8203;
    /// [`super::Holds`].
    pub const HOLDS: u16 = 0x0204;
    /// [`super::Pointers`].
    pub const POINTERS: u16 = 0x0205;
    /// [`super::WhoHolds`].
    pub const WHO_HOLDS: u16 = 0x0206;
    /// [`super::Commit`].
    pub const COMMIT: u16 = 0x0207;
    /// [`super::Below`].
    pub const BELOW: u16 = 0x0208;
    /// [`super::Prove`].
    pub const PROVE: u16 = 0x0209;
    /// [`super::Compare`].
    pub const COMPARE: u16 = 0x020a;
    /// [`super::Adopt`].
    pub const ADOPT: u16 = 0x020b;
    /// [`super::Withdraw`].
    pub const WITHDRAW: u16 = 0x020c;
    /// [`super::Push`].
    pub const PUSH: u16 = 0x0301;
    /// A step of reconciliation.
    pub const SYNC: u16 = 0x0302;
    /// [`super::Find`].
    pub const FIND: u16 = 0x0303;
    /// The list of nodes that wait here.
    pub const WAITING: u16 = 0x0401;
    /// [`super::Relay`].
    pub const RELAY: u16 = 0x0402;
    /// [`super::Deny`].
    pub const DENY: u16 = 0x0403;
    /// A step of the approval, to a node that waits.
    pub const APPROVE: u16 = 0x0404;
    /// Is anybody there?
    pub const PING: u16 = 0x0501;
}

/// Most chunk ids in one question: its head stays below 64 KiB.
pub const CIDS_MAX: usize = 1024;
/// Most chunks in one [`Prove`]: each is read from a disk.
pub const PROVE_MAX: usize = 16;
/// Most chunk ids in one [`WhoHolds`].
pub const WHO_MAX: usize = 256;
/// Most holders named per chunk in [`Holders`].
pub const HOLDERS_MAX: usize = 8;
/// Most bytes of records in one [`Push`], so that its head stays below the frame's limit.
pub const PUSH_MAX: usize = 60 * 1024;
/// Most records in one [`Push`].
pub const PUSH_RECORDS_MAX: usize = 512;
/// Longest catalogue record in bytes.
pub const RECORD_MAX: usize = 32 * 1024;
/// Most nodes that wait at one member.
pub const WAITING_MAX: usize = 16;
/// Longest step of an approval in bytes.
pub const APPROVE_MAX: usize = 4 * 1024;

/// A message of one kind. Each type here belongs to exactly one kind number.
pub trait Message: Encode + Decode {
    /// Its kind number.
    const KIND: u16;
}

macro_rules! message {
    ($($name:ident = $kind:expr;)*) => {$(
        impl Message for $name {
            const KIND: u16 = $kind;
        }
    )*};
}

message! {
    Have = kind::HAVE;
    Store = kind::STORE;
    Fetch = kind::FETCH;
    Holds = kind::HOLDS;
    Pointers = kind::POINTERS;
    Below = kind::BELOW;
    Prove = kind::PROVE;
    Compare = kind::COMPARE;
    Adopt = kind::ADOPT;
    Withdraw = kind::WITHDRAW;
    WhoHolds = kind::WHO_HOLDS;
    Commit = kind::COMMIT;
    Push = kind::PUSH;
    Find = kind::FIND;
    Relay = kind::RELAY;
    Deny = kind::DENY;
}

/// Why a holder shall keep a chunk, as it travels with the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimTerms {
    /// `P`: the inode's or unlisted file's claim, or that of a put that is not written down yet.
    pub id: ClaimId,
    /// How many replicas the claim wants, 1 to 8.
    pub replicas: u8,
    /// When the putter last renewed it: milliseconds since 1970; merges by maximum.
    pub renewed_ms: u64,
    /// Whether a file record naming the claim has been seen.
    pub committed: bool,
}

impl Encode for ClaimTerms {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.replicas.encode(out);
        self.renewed_ms.encode(out);
        self.committed.encode(out);
    }
}

impl Decode for ClaimTerms {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = ClaimId::decode(from)?;
        let replicas = u8::decode(from)?;
        if !(1..=8).contains(&replicas) {
            return Err(Malformed::Invalid("number of replicas"));
        }
        let renewed_ms = u64::decode(from)?;
        Ok(Self { id, replicas, renewed_ms, committed: bool::decode(from)? })
    }
}

/// "Do you hold these? Then keep them for this claim." The claim is on disk before a yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// The claim.
    pub claim: ClaimTerms,
    /// The chunks, at most [`CIDS_MAX`].
    pub cids: Vec<ChunkId>,
}

impl Encode for Have {
    fn encode(&self, out: &mut Vec<u8>) {
        self.claim.encode(out);
        put_list(out, &self.cids);
    }
}

impl Decode for Have {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { claim: ClaimTerms::decode(from)?, cids: from.list(CIDS_MAX)? })
    }
}

/// "Keep this chunk"; the body is its sealed bytes, which must hash to `cid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub cid: ChunkId,
    /// Why; at most [`CLAIMS_MAX`], more than one when a replica is copied in repair.
    pub claims: Vec<ClaimTerms>,
    /// The home that was down, when this node is only next in line.
    pub hint: Option<NodeId>,
}

/// Most claims that travel with one chunk; a chunk with more has the rest sent by [`Adopt`].
pub const CLAIMS_MAX: usize = 512;

impl Encode for Store {
    fn encode(&self, out: &mut Vec<u8>) {
        self.cid.encode(out);
        put_list(out, &self.claims);
        self.hint.encode(out);
    }
}

impl Decode for Store {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let cid = ChunkId::decode(from)?;
        Ok(Self { cid, claims: from.list(CLAIMS_MAX)?, hint: Option::decode(from)? })
    }
}

macro_rules! cid_lists {
    ($($(#[$doc:meta])* $name:ident <= $max:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            /// The chunks.
            pub cids: Vec<ChunkId>,
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_list(out, &self.cids);
            }
        }

        impl Decode for $name {
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self { cids: from.list($max)? })
            }
        }
    )*};
}

cid_lists! {
    /// "Which of these do you hold as replicas?"
    Holds <= CIDS_MAX;
    /// "I hold these": sent to new candidates before the bytes.
    Pointers <= CIDS_MAX;
    /// "These have too few copies, and you are the first of their holders."
    Below <= CIDS_MAX;
    /// "Do you hold these, or know who does?"
    WhoHolds <= WHO_MAX;
}

/// "Show that you have the bytes of these chunks on your disk, with claims on them, and give up
/// none of them as superfluous for a while."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prove {
    /// Drawn for this question, so that nobody can answer without the bytes.
    pub nonce: [u8; 32],
    /// How many copies the asker knows to be wanted: who knows of more gives no proof.
    pub copies: u8,
    /// The chunks, at most [`PROVE_MAX`].
    pub cids: Vec<ChunkId>,
}

impl Encode for Prove {
    fn encode(&self, out: &mut Vec<u8>) {
        self.nonce.encode(out);
        self.copies.encode(out);
        put_list(out, &self.cids);
    }
}

impl Decode for Prove {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { nonce: from.array()?, copies: u8::decode(from)?, cids: from.list(PROVE_MAX)? })
    }
}

/// For each chunk of a [`Prove`], in order, the keyed BLAKE3 hash of its sealed bytes under the
/// nonce, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs {
    /// The proofs.
    pub proofs: Vec<Option<[u8; 32]>>,
}

impl Encode for Proofs {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.proofs);
    }
}

impl Decode for Proofs {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { proofs: from.list(PROVE_MAX)? })
    }
}

/// Stands for all claims on a chunk: for what, and for how many copies (`node::worker::claims`).
pub type ClaimsDigest = [u8; 16];

/// "Which of these do you hold as replicas, and have you the same claims on them as I have?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The chunks, at most [`CIDS_MAX`], ascending, each with the claims of who asks.
    pub chunks: Vec<(ChunkId, ClaimsDigest)>,
}

impl Encode for Compare {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.chunks);
    }
}

impl Decode for Compare {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let chunks: Vec<(ChunkId, ClaimsDigest)> = from.list(CIDS_MAX)?;
        // A chunk with many claims is much to read: each is asked for once.
        if chunks.is_sorted_by(|a, b| a.0 < b.0) {
            Ok(Self { chunks })
        } else {
            Err(Malformed::Invalid("order of chunks"))
        }
    }
}

/// The answer to [`Compare`], a bit for each chunk, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Whether it is held as a replica.
    pub held: Bits,
    /// Whether the claims on it are the same.
    pub same: Bits,
}

impl Encode for Compared {
    fn encode(&self, out: &mut Vec<u8>) {
        self.held.encode(out);
        self.same.encode(out);
    }
}

impl Decode for Compared {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { held: Bits::decode(from)?, same: Bits::decode(from)? })
    }
}

/// Most claims in one [`Adopt`]: its head stays below 64 KiB, and they are written in one go.
pub const ADOPTED_MAX: usize = 1024;

/// A chunk, and claims on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its name.
    pub cid: ChunkId,
    /// 1 to [`CLAIMS_MAX`].
    pub claims: Vec<ClaimTerms>,
}

impl Encode for Adopted {
    fn encode(&self, out: &mut Vec<u8>) {
        self.cid.encode(out);
        put_list(out, &self.claims);
    }
}

impl Decode for Adopted {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (cid, claims): (_, Vec<_>) = (ChunkId::decode(from)?, from.list(CLAIMS_MAX)?);
        if claims.is_empty() {
            return Err(Malformed::Invalid("no claims"));
        }
        Ok(Self { cid, claims })
    }
}

/// "Keep these chunks, as far as you hold them, for these claims too." The claims are on disk
/// before the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopt {
    /// At most [`CIDS_MAX`], with [`ADOPTED_MAX`] claims together.
    pub chunks: Vec<Adopted>,
}

impl Encode for Adopt {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.chunks);
    }
}

impl Decode for Adopt {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let chunks: Vec<Adopted> = from.list(CIDS_MAX)?;
        let claims = chunks.iter().map(|one| one.claims.len()).sum();
        match claims {
            0..=ADOPTED_MAX => Ok(Self { chunks }),
            len => Err(Malformed::TooLong { len, max: ADOPTED_MAX }),
        }
    }
}

impl Adopt {
    /// Splits chunks and their claims into questions that each fit a frame, in order.
    pub fn batches(chunks: Vec<Adopted>) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        let mut room = 0;
        for one in chunks {
            let claims = one.claims.len();
            match out.last_mut() {
                Some(last) if claims <= room => last.chunks.push(one),
                _ => {
                    out.push(Self { chunks: vec![one] });
                    room = ADOPTED_MAX;
                }
            }
            room = room.saturating_sub(claims);
        }
        out
    }
}

/// "The put whose claim is the hash of this secret has failed: its claims end."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdraw {
    /// Known to nobody but who put.
    pub secret: [u8; 16],
}

impl Encode for Withdraw {
    fn encode(&self, out: &mut Vec<u8>) {
        self.secret.encode(out);
    }
}

impl Decode for Withdraw {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { secret: from.array()? })
    }
}

/// "Give me this chunk."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its name.
    pub cid: ChunkId,
}

impl Encode for Fetch {
    fn encode(&self, out: &mut Vec<u8>) {
        self.cid.encode(out);
    }
}

impl Decode for Fetch {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { cid: ChunkId::decode(from)? })
    }
}

/// Yes or no for each chunk of the question, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    /// The answers.
    pub bits: Vec<bool>,
}

impl Encode for Bits {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.bits.len()).expect("at most CIDS_MAX").encode(out);
        for eight in self.bits.chunks(8) {
            let byte =
                eight.iter().enumerate().fold(0, |byte, (i, bit)| byte | u8::from(*bit) << i);
            out.push(byte);
        }
    }
}

impl Decode for Bits {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = from.count(CIDS_MAX)?;
        let bytes = from.take(len.div_ceil(8))?;
        let bit = |i: usize| bytes[i / 8] >> (i % 8) & 1 == 1;
        // The bits that pad the last byte must be zero: one form for each answer.
        if (len..bytes.len() * 8).any(bit) {
            return Err(Malformed::Invalid("padding of bits"));
        }
        Ok(Self { bits: (0..len).map(bit).collect() })
    }
}

/// Who holds each chunk of a [`WhoHolds`], in its order, as far as the answerer knows; itself
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// One list per chunk, each at most [`HOLDERS_MAX`].
    pub lists: Vec<Vec<NodeId>>,
}

impl Encode for Holders {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.lists.len()).expect("at most WHO_MAX").encode(out);
        for list in &self.lists {
            put_list(out, list);
        }
    }
}

impl Decode for Holders {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = from.count(WHO_MAX)?;
        let lists = (0..len).map(|_| from.list(HOLDERS_MAX)).collect::<Result<_, _>>()?;
        Ok(Self { lists })
    }
}

/// "File records naming these claims have been seen."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The claims, at most [`CIDS_MAX`].
    pub claims: Vec<ClaimId>,
}

impl Encode for Commit {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.claims);
    }
}

impl Decode for Commit {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { claims: from.list(CIDS_MAX)? })
    }
}

/// Encoded catalogue records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Push {
    /// The records: at most [`PUSH_RECORDS_MAX`], each at most [`RECORD_MAX`] bytes.
    pub records: Vec<Vec<u8>>,
}

impl Encode for Push {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.records.len()).expect("at most PUSH_RECORDS_MAX").encode(out);
        for record in &self.records {
            put_blob(out, record);
        }
    }
}

impl Decode for Push {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = from.count(PUSH_RECORDS_MAX)?;
        let records = (0..len)
            .map(|_| from.blob(RECORD_MAX).map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?;
        Ok(Self { records })
    }
}

impl Push {
    /// Splits records into pushes that each fit a frame, in order.
    pub fn batches(records: Vec<Vec<u8>>) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        let mut room = 0;
        for record in records {
            let size = record.len() + 4;
            if out.last().is_none_or(|last| size > room || last.records.len() == PUSH_RECORDS_MAX) {
                out.push(Self::default());
                room = PUSH_MAX;
            }
            room -= size.min(room);
            out.last_mut().expect("one was pushed above").records.push(record);
        }
        out
    }
}

/// "Which records do you have for this?" Asked of all live members before "not found".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Find {
    /// File records by their look-up id.
    Lookup(LookupId),
    /// Tree records by a register's tag.
    Tag(Tag),
    /// File records by the keyed look-up of a hash prefix.
    Prefix([u8; 8]),
}

impl Encode for Find {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Lookup(id) => {
                out.push(1);
                id.encode(out);
            }
            Self::Tag(tag) => {
                out.push(2);
                tag.encode(out);
            }
            Self::Prefix(prefix) => {
                out.push(3);
                prefix.encode(out);
            }
        }
    }
}

impl Decode for Find {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => LookupId::decode(from).map(Self::Lookup),
            2 => Tag::decode(from).map(Self::Tag),
            3 => from.array().map(Self::Prefix),
            _ => Err(Malformed::Invalid("kind of question")),
        }
    }
}

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
/// [`Reply`](super::approve::Reply), that to a verdict is empty.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(T::from_bytes(&value.to_bytes()).as_ref(), Ok(&value));
    }

    #[test]
    fn messages_round_trip() {
        let claim =
            ClaimTerms { id: ClaimId([1; 16]), replicas: 3, renewed_ms: 99, committed: true };
        round_trip(Have { claim, cids: vec![ChunkId([2; 32]); 3] });
        let hint = Some(NodeId([4; 32]));
        round_trip(Store { cid: ChunkId([3; 32]), claims: vec![claim], hint });
        round_trip(Holders { lists: vec![vec![], vec![NodeId([5; 32])]] });
        round_trip(Prove { nonce: [8; 32], copies: 3, cids: vec![ChunkId([2; 32]); PROVE_MAX] });
        let chunk = |n| (ChunkId([n; 32]), [7; 16]);
        round_trip(Compare { chunks: vec![chunk(2), chunk(3)] });
        for chunks in [vec![chunk(2); 2], vec![chunk(3), chunk(2)]] {
            assert!(Compare::from_bytes(&Compare { chunks }.to_bytes()).is_err());
        }
        let bits = Bits { bits: vec![true, false, true] };
        round_trip(Adopt {
            chunks: vec![Adopted { cid: ChunkId([4; 32]), claims: vec![claim; 2] }],
        });
        round_trip(Withdraw { secret: [6; 16] });
        round_trip(Compared { held: bits.clone(), same: bits });
        round_trip(Proofs { proofs: vec![None, Some([9; 32])] });
        round_trip(Push { records: vec![vec![1, 2], vec![]] });
        round_trip(Find::Prefix([7; 8]));
        let addr = "127.0.0.1:4000".parse().unwrap();
        let label = "calm-heron".into();
        let request = JoinRequest { node: NodeId([6; 32]), owner: [7; 32], label };
        let node = WaitingNode { request, addr };
        round_trip(WaitingList { nodes: vec![node] });
        round_trip(Relay { to: NodeId([7; 32]), step: vec![9; 40] });
        for len in [0, 1, 7, 8, 9, 1024] {
            round_trip(Bits { bits: (0..len).map(|i| i % 3 == 0).collect() });
        }
    }

    #[test]
    fn only_canonical_bits_are_accepted() {
        let mut bytes = Bits { bits: vec![true; 3] }.to_bytes();
        *bytes.last_mut().unwrap() |= 0x80;
        assert_eq!(Bits::from_bytes(&bytes), Err(Malformed::Invalid("padding of bits")));
    }

    #[test]
    fn one_more_than_the_limit_is_refused() {
        let many = Holds { cids: vec![ChunkId([0; 32]); CIDS_MAX + 1] };
        let refused = Malformed::TooLong { len: CIDS_MAX + 1, max: CIDS_MAX };
        assert_eq!(Holds::from_bytes(&many.to_bytes()), Err(refused));
    }

    #[test]
    fn pushes_fit_a_frame() {
        let records: Vec<_> = (0..2000).map(|i| vec![0; i % 700]).collect();
        let batches = Push::batches(records.clone());
        assert!(batches.iter().all(|b| b.to_bytes().len() <= PUSH_MAX + 4));
        assert!(batches.iter().all(|b| b.records.len() <= PUSH_RECORDS_MAX));
        let back: Vec<_> = batches.into_iter().flat_map(|b| b.records).collect();
        assert_eq!(back, records);
    }
}
