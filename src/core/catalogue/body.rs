//! The clear bodies: file records, releases and epoch records. Owns their encoding and the epoch's
//! signature. It does not know how a lookup id, a manifest or a sealed secret is made.
//!
//! Formats (integers little-endian, `wire::codec`):
//!
//! ```text
//! file    = claim 16, lookup 32, content, replicas u8, flags u8
//! content = 1, manifest chunk id 32, its sealed length u32
//!         | 2, length u32 (1..=4096), sealed manifest
//! release = claim 16, 1                           all that it was for, for good
//!         | claim 16, 2, until ms u64, versions, chunks
//! versions = count (0..=32), tree record id 32 …    chunks = count (0..=900), chunk id 32 …
//!                                                 both ascending, each once, not both empty;
//!                                                 until not later than the record's clock
//! epoch   = epoch 32, made u64, count u32 (0..=128), box …, signature 64
//! box     = 1 (node key) | 2 (owner key), public half 32, length u32 (1..=160), sealed secret
//! ```
//!
//! The epoch's signature is by the swarm key over everything before it, domain "p2pfs epoch v1".
//! A file record has 1 to 8 replicas, or with flag 2 none: its author serves the chunks from a file
//! of its own, and nobody can claim them. Flag 1: it stands for itself and not for a file of the
//! tree. Flags that this version does not know are kept and mean nothing to it.

use super::record::{Header, Kind, TooLarge, ascending, sign};
use crate::core::hlc;
use crate::crypto::{NodeKey, SIGNATURE_LEN, SwarmKey, verify};
use crate::id::{ChunkId, ClaimId, EpochId, LookupId, RecordId};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};

/// Longest manifest inside its record, sealed, in bytes: one row with room to spare.
pub const INLINE_MAX: usize = 4096;
/// Most copies that a file can ask for.
pub const REPLICAS_MAX: u8 = 8;
/// The flag of a file record that stands for itself: no path leads to it.
pub const UNLISTED: u8 = 1;
/// The flag of a file record without replicas: its author serves the file in place.
pub const SHARED: u8 = 2;
/// Most chunks in one release: its longest form stays below the limit of a record.
pub const RELEASED_MAX: usize = 900;
/// Most versions that one release ends.
pub const ENDED_MAX: usize = 32;
/// Most recipients in one epoch record: its longest form stays below the limit of a record.
pub const BOXES_MAX: usize = 128;
/// Longest sealed secret in bytes.
pub const BOX_MAX: usize = 160;

const EPOCH_DOMAIN: &str = "p2pfs epoch v1";

/// Where a file's sealed manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Stored like a chunk.
    Stored {
        /// Its id.
        manifest: ChunkId,
        /// Its sealed length in bytes.
        sealed_len: u32,
    },
    /// Here, sealed: 1 to [`INLINE_MAX`] bytes.
    Inline(Vec<u8>),
}

/// The body of a file record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Why its chunks are kept.
    pub claim: ClaimId,
    /// What it is found by.
    pub lookup: LookupId,
    /// Where the manifest is.
    pub content: Content,
    /// How many copies it wants, 1 to [`REPLICAS_MAX`]; 0 exactly when it is [`SHARED`].
    pub replicas: u8,
    /// [`UNLISTED`], [`SHARED`], and bits for later versions.
    pub flags: u8,
}

impl FileRecord {
    /// Whether the author serves it in place, so that nobody keeps chunks because of it.
    pub const fn is_shared(&self) -> bool {
        self.replicas == 0
    }

    /// Signs the record. `epoch` is the one whose keys made the lookup id.
    pub fn sign(&self, key: &NodeKey, clock: u64, epoch: EpochId) -> Result<Vec<u8>, TooLarge> {
        sign(key, Header::plain(Kind::File, clock, key.id(), epoch), &self.to_bytes())
    }
}

impl Encode for FileRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.claim.encode(out);
        self.lookup.encode(out);
        match &self.content {
            Content::Stored { manifest, sealed_len } => {
                out.push(1);
                manifest.encode(out);
                sealed_len.encode(out);
            }
            Content::Inline(sealed) => {
                out.push(2);
                put_blob(out, sealed);
            }
        }
        self.replicas.encode(out);
        self.flags.encode(out);
    }
}

impl Decode for FileRecord {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let claim = ClaimId::decode(from)?;
        let lookup = LookupId::decode(from)?;
        let content = match u8::decode(from)? {
            1 => {
                Content::Stored { manifest: ChunkId::decode(from)?, sealed_len: u32::decode(from)? }
            }
            2 => Content::Inline(from.blob(INLINE_MAX)?.to_vec()),
            _ => return Err(Malformed::Invalid("place of a manifest")),
        };
        if content == Content::Inline(Vec::new()) {
            return Err(Malformed::Invalid("inline manifest"));
        }
        let (replicas, flags) = (u8::decode(from)?, u8::decode(from)?);
        let in_place = flags & SHARED != 0;
        if replicas > REPLICAS_MAX || in_place != (replicas == 0) {
            return Err(Malformed::Invalid("number of replicas"));
        }
        Ok(Self { claim, lookup, content, replicas, flags })
    }
}

/// How much of a claim ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of it, for good.
    All,
    /// What only versions needed that are not kept any more.
    Versions {
        /// Claims on the chunks that were renewed later than this are for newer versions and stay;
        /// milliseconds since 1970.
        until_ms: u64,
        /// The tree records that made those versions, ascending, at most [`ENDED_MAX`].
        versions: Vec<RecordId>,
        /// The chunks, ascending, at most [`RELEASED_MAX`]; one of the lists is not empty.
        chunks: Vec<ChunkId>,
    },
}

/// The body of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which claim.
    pub claim: ClaimId,
    /// How much of it.
    pub scope: Scope,
}

impl Release {
    /// Signs the record.
    pub fn sign(&self, key: &NodeKey, clock: u64) -> Result<Vec<u8>, TooLarge> {
        let header = Header::plain(Kind::Release, clock, key.id(), EpochId::NONE);
        sign(key, header, &self.to_bytes())
    }

    /// Whether it ends nothing that is claimed only after the record's clock reading: nobody knows
    /// what that will be needed for.
    pub(super) const fn is_of_the_past(&self, clock: u64) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Versions { until_ms, .. } => *until_ms <= hlc::ms_of(clock),
        }
    }
}

impl Encode for Release {
    fn encode(&self, out: &mut Vec<u8>) {
        self.claim.encode(out);
        match &self.scope {
            Scope::All => out.push(1),
            Scope::Versions { until_ms, versions, chunks } => {
                out.push(2);
                until_ms.encode(out);
                put_list(out, versions);
                put_list(out, chunks);
            }
        }
    }
}

impl Decode for Release {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let claim = ClaimId::decode(from)?;
        let scope = match u8::decode(from)? {
            1 => Scope::All,
            2 => {
                let until_ms = u64::decode(from)?;
                let versions: Vec<RecordId> = from.list(ENDED_MAX)?;
                let chunks: Vec<ChunkId> = from.list(RELEASED_MAX)?;
                let nothing = versions.is_empty() && chunks.is_empty();
                if nothing || !ascending(&versions) || !ascending(&chunks) {
                    return Err(Malformed::Invalid("lists of a release"));
                }
                Scope::Versions { until_ms, versions, chunks }
            }
            _ => return Err(Malformed::Invalid("scope of a release")),
        };
        Ok(Self { claim, scope })
    }
}

/// To whom a secret is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// A node, by its id's bytes.
    Node([u8; 32]),
    /// A user, by the public half of the owner key.
    Owner([u8; 32]),
}

/// The secret of an epoch, sealed to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretBox {
    /// To whom.
    pub recipient: Recipient,
    /// The sealed secret, 1 to [`BOX_MAX`] bytes.
    pub sealed: Vec<u8>,
}

impl Encode for SecretBox {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, public) = match &self.recipient {
            Recipient::Node(public) => (1, public),
            Recipient::Owner(public) => (2, public),
        };
        out.push(code);
        public.encode(out);
        put_blob(out, &self.sealed);
    }
}

impl Decode for SecretBox {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let recipient = match u8::decode(from)? {
            1 => Recipient::Node(from.array()?),
            2 => Recipient::Owner(from.array()?),
            _ => return Err(Malformed::Invalid("kind of recipient")),
        };
        match from.blob(BOX_MAX)? {
            [] => Err(Malformed::Invalid("sealed secret")),
            sealed => Ok(Self { recipient, sealed: sealed.to_vec() }),
        }
    }
}

/// The body of an epoch record. Further records of the same epoch add recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// Which epoch.
    pub epoch: EpochId,
    /// Clock reading at which it was made: the newest epoch seals new data.
    pub made: u64,
    /// The secret, once per recipient; at most [`BOXES_MAX`].
    pub boxes: Vec<SecretBox>,
}

impl EpochRecord {
    /// Signs the record: the body with the swarm key, the whole with the node key.
    pub fn sign(&self, key: &NodeKey, swarm: &SwarmKey, clock: u64) -> Result<Vec<u8>, TooLarge> {
        if self.boxes.len() > BOXES_MAX {
            return Err(TooLarge);
        }
        let mut body = self.to_bytes();
        let signature = swarm.sign(EPOCH_DOMAIN, &body);
        body.extend_from_slice(&signature);
        sign(key, Header::plain(Kind::Epoch, clock, key.id(), self.epoch), &body)
    }

    /// Reads a body and checks that the swarm key signed it.
    pub fn open(body: &[u8], swarm_public: &[u8; 32]) -> Option<Self> {
        let (signed, signature) = body.split_last_chunk::<SIGNATURE_LEN>()?;
        let genuine = verify(swarm_public, EPOCH_DOMAIN, signed, signature);
        Self::from_bytes(signed).ok().filter(|_| genuine)
    }
}

impl Encode for EpochRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.made.encode(out);
        put_list(out, &self.boxes);
    }
}

impl Decode for EpochRecord {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: EpochId::decode(from)?,
            made: u64::decode(from)?,
            boxes: from.list(BOXES_MAX)?,
        })
    }
}
