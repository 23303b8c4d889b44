//! How a part of a file is asked of the node that serves it from where it lies. Owns the letters;
//! that what comes is the part that was asked for follows from its name, as of every chunk.
//!
//! ```text
//! fetch share = claim 16, part, chunk id 32
//! part        = 1                 the manifest
//!             | 2, number u32     a page of it
//!             | 3, number u64     a chunk
//! ```

use crate::id::{ChunkId, ClaimId};
use crate::wire::codec::{Decode, Encode, Malformed, Reader};

/// A part of a file, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the file is made of.
    Manifest,
    /// A page of that.
    Page(u32),
    /// Bytes of the file.
    Chunk(u64),
}

impl Encode for Part {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Manifest => out.push(1),
            Self::Page(number) => {
                out.push(2);
                number.encode(out);
            }
            Self::Chunk(number) => {
                out.push(3);
                number.encode(out);
            }
        }
    }
}

impl Decode for Part {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Ok(Self::Manifest),
            2 => u32::decode(from).map(Self::Page),
            3 => u64::decode(from).map(Self::Chunk),
            _ => Err(Malformed::Invalid("part of a file")),
        }
    }
}

/// "Give me this part of a file that you serve in place."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchShare {
    /// The claim that the sharer's file record names.
    pub claim: ClaimId,
    /// Which part.
    pub part: Part,
    /// Its name, sealed.
    pub cid: ChunkId,
}

impl Encode for FetchShare {
    fn encode(&self, out: &mut Vec<u8>) {
        self.claim.encode(out);
        self.part.encode(out);
        self.cid.encode(out);
    }
}

impl Decode for FetchShare {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            claim: ClaimId::decode(from)?,
            part: Part::decode(from)?,
            cid: ChunkId::decode(from)?,
        })
    }
}
