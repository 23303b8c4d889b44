//! Why chunks are kept, as holders say it to each other: claims on chunks, their comparison and
//! handing over, their commit and withdrawal. Owns the letters of these; what is claimed is the
//! store's, and who has to be given what `node::worker::claims` decides.

use super::Bits;
use super::CIDS_MAX;
use crate::id::{ChunkId, ClaimId};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_list};

/// Most claims that travel with one chunk; a chunk with more has the rest sent by [`Adopt`].
pub const CLAIMS_MAX: usize = 512;
/// Most claims in one [`Adopt`]: its head stays below 64 KiB, and they are written in one go.
pub const ADOPTED_MAX: usize = 1024;

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

/// "The put whose claim follows from this secret (`crypto::claim_of`) has failed, or is kept for
/// another claim: this one ends, and is not to be taken from anybody any more."
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

/// "The put of this claim goes on: keep what is claimed here." Whoever has such chunks renews the
/// claim on some of them, which stand for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// The claim, which nobody has committed yet.
    pub claim: ClaimId,
    /// When it was renewed: milliseconds since 1970.
    pub renewed_ms: u64,
}

impl Encode for Renew {
    fn encode(&self, out: &mut Vec<u8>) {
        self.claim.encode(out);
        self.renewed_ms.encode(out);
    }
}

impl Decode for Renew {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { claim: ClaimId::decode(from)?, renewed_ms: u64::decode(from)? })
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
