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
//! | 0x8202 | [`Store`]: keep this chunk | sealed | [`Room`], once it is on disk | |
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
//! | 0x020d | [`Renew`]: the put of this claim goes on | | empty | |
//! | 0x8210 | [`FetchShare`]: give me this part of a file that you serve in place | | empty | sealed |
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

mod claims;
mod share;
mod waiting;

pub use claims::{
    ADOPTED_MAX, Adopt, Adopted, CLAIMS_MAX, ClaimTerms, ClaimsDigest, Commit, Compare, Compared,
    Renew, Withdraw,
};
pub use share::{FetchShare, Part};
pub use waiting::{APPROVE_MAX, Deny, Relay, Step, WAITING_MAX, WaitingList, WaitingNode};

use super::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use crate::id::{ChunkId, LookupId, NodeId, Tag};

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
    /// [`super::Renew`].
    pub const RENEW: u16 = 0x020d;
    /// [`super::FetchShare`].
    pub const FETCH_SHARE: u16 = 0x8210;
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
    FetchShare = kind::FETCH_SHARE;
    Holds = kind::HOLDS;
    Pointers = kind::POINTERS;
    Below = kind::BELOW;
    Prove = kind::PROVE;
    Compare = kind::COMPARE;
    Adopt = kind::ADOPT;
    Withdraw = kind::WITHDRAW;
    Renew = kind::RENEW;
    WhoHolds = kind::WHO_HOLDS;
    Commit = kind::COMMIT;
    Push = kind::PUSH;
    Find = kind::FIND;
    Relay = kind::RELAY;
    Deny = kind::DENY;
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

/// How full of chunks the answerer is, at this moment: what it says of itself in gossip is coarse
/// and late, and counts the catalogue too, which takes as much of a small node as of a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the chunks that it keeps.
    pub used: u64,
    /// Bytes that it offers.
    pub capacity: u64,
}

impl Encode for Room {
    fn encode(&self, out: &mut Vec<u8>) {
        self.used.encode(out);
        self.capacity.encode(out);
    }
}

impl Decode for Room {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { used: u64::decode(from)?, capacity: u64::decode(from)? })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClaimId;
    use crate::wire::approve::JoinRequest;

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
        round_trip(Renew { claim: ClaimId([4; 16]), renewed_ms: 17 });
        round_trip(Compared { held: bits.clone(), same: bits });
        round_trip(Proofs { proofs: vec![None, Some([9; 32])] });
        round_trip(Push { records: vec![vec![1, 2], vec![]] });
        round_trip(Find::Prefix([7; 8]));
        for part in [Part::Manifest, Part::Page(7), Part::Chunk(1 << 40)] {
            let (claim, cid) = (ClaimId([4; 16]), ChunkId([2; 32]));
            round_trip(FetchShare { claim, part, cid });
        }
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
    fn room_looks_as_it_did() {
        let golden = include_str!("../../tests/golden/wire/room-v1.hex");
        let room = Room { used: 0x0102_0304_0506_0708, capacity: 1 << 40 };
        assert_eq!(golden.trim(), crate::id::to_hex(&room.to_bytes()));
        round_trip(room);
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
