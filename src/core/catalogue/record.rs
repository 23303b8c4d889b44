//! A record of the catalogue as bytes: the frame that every member checks, whether it can read the
//! body or not. Owns the header, the signature, the id and the seal of tree bodies; what the bodies
//! say is in `body` and `change`, what follows from a record in `apply`.
//!
//! Format, version 1 (integers little-endian, lists and byte strings with a u32 count;
//! `wire::codec`):
//!
//! ```text
//! record    = header, body, signature 64            at most 32 KiB; id = BLAKE3(record)
//! header    = 1 (version), kind u8, clock u64, author 32, epoch 32, parents, tags, also
//! parents   = count (0..=16), record id 32 …        ascending, each once
//! tags      = count (0..=512), tag 16 …             one per change of the body, each once
//! also      = count (0..=512), tag 16 …             ascending, each once, none of `tags`
//! body      = length, bytes
//! signature = ed25519 by the author's node key over (header, body), domain "p2pfs record v1"
//! kind      = 1 File, 2 Tree, 3 Grant, 4 Epoch, 5 Release, 6 Revocation, 7 OpenStatement
//! ```
//!
//! A tree record's body is `nonce 24, XChaCha20-Poly1305(changes)` under the epoch's catalogue key
//! with the header's bytes as associated data. All other bodies are clear. Only tree records have
//! parents and tags. `also` holds the tags of the same registers under the epochs of the parents,
//! where those differ: so members without any key still see which older record it supersedes.
//! Kind 6 has its number; this version refuses it.

use super::change::{CHANGES_MAX, Change, decode_changes, encode_changes};
use crate::crypto::{EpochKeys, NodeKey, SIGNATURE_LEN, verify};
use crate::id::{EpochId, NodeId, RecordId, Tag};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};

/// Longest record in bytes: two of them fit one control frame.
pub const RECORD_MAX: usize = 32 * 1024;
/// Most parents of a record.
pub const PARENTS_MAX: usize = 16;

const VERSION: u8 = 1;
const DOMAIN: &str = "p2pfs record v1";
const NONCE_LEN: usize = 24;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Where the manifest of a file is, and under which claim its chunks are kept.
    File,
    /// Changes to the tree.
    Tree,
    /// Lets a node in.
    Grant,
    /// The content secret of an epoch, sealed to those who may read.
    Epoch,
    /// Ends claims: their chunks need not be kept any more.
    Release,
    /// The signed statement that anybody may join.
    OpenStatement,
}

impl Kind {
    /// Its number in the format.
    pub const fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Tree => 2,
            Self::Grant => 3,
            Self::Epoch => 4,
            Self::Release => 5,
            Self::OpenStatement => 7,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::File),
            2 => Some(Self::Tree),
            3 => Some(Self::Grant),
            4 => Some(Self::Epoch),
            5 => Some(Self::Release),
            7 => Some(Self::OpenStatement),
            _ => None,
        }
    }
}

/// The part of a record that every member reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the record is about.
    pub kind: Kind,
    /// Hybrid logical clock (`core::hlc`).
    pub clock: u64,
    /// Whose key signed it.
    pub author: NodeId,
    /// The epoch whose keys were used, [`EpochId::NONE`] where none was.
    pub epoch: EpochId,
    /// Records that it supersedes, in the registers that both touch.
    pub parents: Vec<RecordId>,
    /// The register of each change.
    pub tags: Vec<Tag>,
    /// The same registers under the epochs of the parents.
    pub also: Vec<Tag>,
}

impl Header {
    /// The header of a record without registers.
    pub fn plain(kind: Kind, clock: u64, author: NodeId, epoch: EpochId) -> Self {
        let (parents, tags) = (Vec::new(), Vec::new());
        Self { kind, clock, author, epoch, parents, tags, also: Vec::new() }
    }

    fn check(&self) -> Result<(), Malformed> {
        if !ascending(&self.parents) || !ascending(&self.also) {
            return Err(Malformed::Invalid("order of a record's lists"));
        }
        let mut all: Vec<&Tag> = self.tags.iter().chain(&self.also).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Malformed::Invalid("register: it is named twice"));
        }
        let tree = self.kind == Kind::Tree;
        let fits = if tree {
            !self.tags.is_empty() && self.epoch != EpochId::NONE
        } else {
            self.parents.is_empty() && all.is_empty()
        };
        if fits { Ok(()) } else { Err(Malformed::Invalid("header of this kind of record")) }
    }
}

pub(super) fn ascending<T: Ord>(list: &[T]) -> bool {
    list.windows(2).all(|pair| pair[0] < pair[1])
}

impl Encode for Header {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(self.kind.code());
        self.clock.encode(out);
        self.author.encode(out);
        self.epoch.encode(out);
        put_list(out, &self.parents);
        put_list(out, &self.tags);
        put_list(out, &self.also);
    }
}

impl Decode for Header {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u8::decode(from)? != VERSION {
            return Err(Malformed::Invalid("version of a record"));
        }
        let kind = Kind::of_code(u8::decode(from)?).ok_or(Malformed::Invalid("kind of record"))?;
        let header = Self {
            kind,
            clock: u64::decode(from)?,
            author: NodeId::decode(from)?,
            epoch: EpochId::decode(from)?,
            parents: from.list(PARENTS_MAX)?,
            tags: from.list(CHANGES_MAX)?,
            also: from.list(CHANGES_MAX)?,
        };
        header.check()?;
        Ok(header)
    }
}

/// A record whose frame is well-formed. Its signature is not checked by decoding.
#[derive(Debug, Clone)]
pub struct Record {
    /// BLAKE3 of all its bytes.
    pub id: RecordId,
    /// What every member reads.
    pub header: Header,
    bytes: Vec<u8>,
    header_len: usize,
}

impl Record {
    /// Reads a record from exactly these bytes.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        if bytes.len() > RECORD_MAX {
            return Err(Malformed::TooLong { len: bytes.len(), max: RECORD_MAX });
        }
        let mut reader = Reader::new(&bytes);
        let header = Header::decode(&mut reader)?;
        let header_len = bytes.len() - reader.remaining();
        reader.blob(RECORD_MAX)?;
        reader.take(SIGNATURE_LEN)?;
        reader.finish()?;
        Ok(Self { id: id_of(&bytes), header, bytes, header_len })
    }

    /// All its bytes, as they are kept and sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The body: sealed for tree records, clear for the others.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.header_len + 4..self.bytes.len() - SIGNATURE_LEN]
    }

    /// Whether its author signed it.
    pub fn is_signed(&self) -> bool {
        self.bytes.split_last_chunk::<SIGNATURE_LEN>().is_some_and(|(signed, signature)| {
            verify(&self.header.author.0, DOMAIN, signed, signature)
        })
    }

    /// The changes of a tree record, opened with the keys of its epoch. None: the author sealed
    /// something else than the header says, and the record changes nothing for readers.
    pub fn open(&self, keys: &EpochKeys) -> Option<Vec<Change>> {
        let (nonce, sealed) = self.body().split_first_chunk::<NONCE_LEN>()?;
        let body = keys.open_body(nonce, &self.bytes[..self.header_len], sealed).ok()?;
        let changes = decode_changes(&body).ok()?;
        let honest = changes.len() == self.header.tags.len()
            && changes.iter().zip(&self.header.tags).all(|(change, tag)| change.tag(keys) == *tag);
        honest.then_some(changes)
    }
}

/// The id of an encoded record.
pub fn id_of(bytes: &[u8]) -> RecordId {
    RecordId(blake3::hash(bytes).into())
}

/// A record would be longer than [`RECORD_MAX`] or have more parents or changes than it may:
/// make several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes do not fit into one record")]
pub struct TooLarge;

/// Signs a record with a clear body. The header's author is set to the key's.
pub fn sign(key: &NodeKey, mut header: Header, body: &[u8]) -> Result<Vec<u8>, TooLarge> {
    header.author = key.id();
    finish(key, header.to_bytes(), body)
}

fn finish(key: &NodeKey, mut bytes: Vec<u8>, body: &[u8]) -> Result<Vec<u8>, TooLarge> {
    if bytes.len() + 4 + body.len() + SIGNATURE_LEN > RECORD_MAX {
        return Err(TooLarge);
    }
    put_blob(&mut bytes, body);
    let signature = key.sign(DOMAIN, &bytes);
    bytes.extend_from_slice(&signature);
    Ok(bytes)
}

/// What a tree record is made of, besides keys and time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// The changes, each to another register; at least one.
    pub changes: Vec<Change>,
    /// The heads that they supersede, ascending, at most [`PARENTS_MAX`].
    pub parents: Vec<RecordId>,
    /// The tags of their registers under the epochs of those heads, where those differ; ascending.
    pub also: Vec<Tag>,
}

/// Seals and signs a tree record. `nonce` is random and used once.
pub fn seal_tree(
    key: &NodeKey,
    keys: &EpochKeys,
    clock: u64,
    nonce: &[u8; NONCE_LEN],
    draft: &Draft,
) -> Result<Vec<u8>, TooLarge> {
    let most = draft.changes.len().max(draft.also.len());
    if most > CHANGES_MAX || draft.parents.len() > PARENTS_MAX {
        return Err(TooLarge);
    }
    let header = Header {
        kind: Kind::Tree,
        clock,
        author: key.id(),
        epoch: keys.epoch(),
        parents: draft.parents.clone(),
        tags: draft.changes.iter().map(|change| change.tag(keys)).collect(),
        also: draft.also.clone(),
    };
    debug_assert!(header.check().is_ok(), "a draft touches each register once");
    let header = header.to_bytes();
    let mut body = nonce.to_vec();
    body.extend(keys.seal_body(nonce, &header, &encode_changes(&draft.changes)));
    finish(key, header, &body)
}
