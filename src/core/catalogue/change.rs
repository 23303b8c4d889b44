//! The body of a tree record: a list of changes, each to one register. Owns their encoding and the
//! registers that they touch; which change wins is `apply`'s and `core::tree`'s business.
//!
//! Format (inside the seal; integers little-endian, `wire::codec`):
//!
//! ```text
//! body    = count u32 (1..=512), change…            one per tag of the header, in its order
//! change  = 1, inode 16, node                       SetInode: the register of the inode
//!         | 2, parent 16, name, entry               SetEntry: the register of (parent, name)
//! node    = 1, hash 32, size u64, claim 16, record  File: a version of its content, at most
//!                                                   8 TiB (`chunk::MAX_FILE_LEN`)
//!         | 2, place, place                         Dir: where it is, and where it was before
//!         | 3, target (length u32 1..=4095)         Link
//!         | 4, special u8, device u32               Special: 1 pipe, 2 socket (device 0),
//!                                                   3 character device, 4 block device
//!         | 5, file as of 1, path                   Shared: served in place by the author
//!           each followed by attributes
//! record  = 0 | 1, id 32                            the file record that was written with it
//! place   = 0 | 1, parent 16, name                  none: removed (is), or never (was)
//! attributes = mode u32, mtime ns i64, time, time, owner, count u32 (0..=64), (name', value)…
//! time    = 0 | 1, ns i64                           of the last change of the inode, of access
//! owner   = 0 | 1, uid u32, gid u32
//! name'   = length u32 (1..=255), bytes without NUL; value = length u32 (0..=4096), bytes
//! name    = length u32 (1..=255), bytes without `/` and NUL, not `.` or `..`
//! path    = length u32 (2..=4096), one or more names, each with a `/` before it
//! entry   = 0                                       Removed
//!         | 1, inode 16                             Linked: a new name of the inode
//!         | 2, inode 16                             Kept: an edit says its name again
//!         | 3, inode 16                             Moved: removed, the inode has another name
//! ```
//!
//! A directory has no entry: its place is part of its own inode, so moving it is one change.
//! An edit says its name again so that it beats a removal of that name that did not see it.

use crate::chunk::MAX_FILE_LEN;
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, FileHash, InodeId, RecordId, Tag};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};

/// Most changes in one record: what fits in its 32 KiB at the least size of a change.
pub const CHANGES_MAX: usize = 512;
/// Longest name in bytes, as in every file system that a mount can meet.
pub const NAME_MAX: usize = 255;
/// Longest path of a shared file in bytes.
pub const SHARED_PATH_MAX: usize = 4096;
/// Longest target of a link in bytes (`PATH_MAX` less the closing NUL).
pub const TARGET_MAX: usize = 4095;
/// Most extended attributes of an inode.
pub const XATTRS_MAX: usize = 64;
/// Longest value of an extended attribute in bytes.
pub const XATTR_VALUE_MAX: usize = 4096;

/// A name of the tree: 1 to 255 bytes without `/` and NUL, not `.` and not `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The name, when the bytes are one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=NAME_MAX).contains(&bytes.len());
        let plain = !bytes.iter().any(|byte| matches!(byte, b'/' | 0));
        (fits && plain && bytes != b"." && bytes != b"..").then(|| Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Where a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory that it is in.
    pub parent: InodeId,
    /// Its name there.
    pub name: Name,
}

/// What an inode has besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything of the inode was changed last; none: when its record was made.
    pub changed_ns: Option<i64>,
    /// The time of access that somebody has set: nobody notes that a file was read.
    pub accessed_ns: Option<i64>,
    /// User and group id, when they were recorded.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes in ascending order of their names (1 to 255 bytes, no NUL), each once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One version of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    /// BLAKE3 of the content.
    pub hash: FileHash,
    /// Its length in bytes.
    pub size: u64,
    /// The claim under which its chunks are kept; all versions of an inode share it.
    pub claim: ClaimId,
    /// The file record that was written with it, if the author named one.
    pub record: Option<RecordId>,
}

/// A file that its author serves from where it lies. It has no place in the tree of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFile {
    /// Its content, under a claim that is for no chunk of any store.
    pub version: FileVersion,
    /// What its author calls it, as [`is_shared_path`] has it.
    pub path: Vec<u8>,
}

/// Whether these bytes can be what a shared file is called: names with a `/` before each, at most
/// [`SHARED_PATH_MAX`] bytes.
pub fn is_shared_path(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/").filter(|_| path.len() <= SHARED_PATH_MAX) else {
        return false;
    };
    rest.split(|byte| *byte == b'/').all(|name| Name::new(name).is_some())
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File(FileVersion),
    /// A directory.
    Dir {
        /// Where it is; none: removed, and only seen while something unremoved is in it.
        place: Option<Place>,
        /// Where it was before: the way out of a cycle of moves, and the place of a removed one.
        previous: Option<Place>,
    },
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// A door to something that is not in the tree.
    Special(Special),
    /// A file that lies outside of every store.
    Shared(SharedFile),
}

/// What has a name and no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A character device, by its number.
    Char(u32),
    /// A block device, by its number.
    Block(u32),
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing any more.
    Removed,
    /// An inode, by a new name.
    Linked(InodeId),
    /// An inode that had the name before: said by an edit of the inode.
    Kept(InodeId),
    /// Nothing any more, because the inode got another name.
    Moved(InodeId),
}

impl Target {
    /// The inode that the name leads to.
    pub const fn inode(&self) -> Option<InodeId> {
        match self {
            Self::Linked(inode) | Self::Kept(inode) => Some(*inode),
            Self::Removed | Self::Moved(_) => None,
        }
    }
}

/// A change to one register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new version of an inode.
    Inode {
        /// Which.
        inode: InodeId,
        /// What it is now.
        node: Node,
        /// Its attributes now.
        attributes: Attributes,
    },
    /// What a name in a directory stands for now.
    Entry {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Name,
        /// What it stands for.
        target: Target,
    },
}

impl Change {
    /// The tag of the register that this change is to.
    pub fn tag(&self, keys: &EpochKeys) -> Tag {
        match self {
            Self::Inode { inode, .. } => inode_tag(keys, inode),
            Self::Entry { parent, name, .. } => entry_tag(keys, parent, name.as_bytes()),
        }
    }
}

/// The tag of an inode's register: of its content, or of its place if it is a directory. It begins
/// as the inode does, with the time that made it.
pub fn inode_tag(keys: &EpochKeys, inode: &InodeId) -> Tag {
    let mut what = [1; 17];
    what[1..].copy_from_slice(&inode.0);
    keys.tag([inode.0[0], inode.0[1]], &what)
}

/// The tag of the register of a name in a directory. It begins with two bytes that the directory
/// decides: they say no more of the name than that it may be in the same directory as another.
pub fn entry_tag(keys: &EpochKeys, parent: &InodeId, name: &[u8]) -> Tag {
    let mut what = Vec::with_capacity(17 + name.len());
    what.push(3);
    what.extend_from_slice(&parent.0);
    let directory = keys.tag([0; 2], &what).0;
    what[0] = 2;
    what.extend_from_slice(name);
    keys.tag([directory[2], directory[3]], &what)
}

/// The body of a tree record as bytes, before it is sealed.
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 * changes.len());
    put_list(&mut out, changes);
    out
}

/// The changes of an opened body.
pub fn decode_changes(body: &[u8]) -> Result<Vec<Change>, Malformed> {
    let mut reader = Reader::new(body);
    let changes = reader.list(CHANGES_MAX)?;
    reader.finish()?;
    Ok(changes)
}

impl Encode for Name {
    fn encode(&self, out: &mut Vec<u8>) {
        put_blob(out, &self.0);
    }
}

impl Decode for Name {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::new(from.blob(NAME_MAX)?).ok_or(Malformed::Invalid("name"))
    }
}

impl Encode for Place {
    fn encode(&self, out: &mut Vec<u8>) {
        self.parent.encode(out);
        self.name.encode(out);
    }
}

impl Decode for Place {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { parent: InodeId::decode(from)?, name: Name::decode(from)? })
    }
}

impl Encode for Attributes {
    fn encode(&self, out: &mut Vec<u8>) {
        self.mode.encode(out);
        self.mtime_ns.encode(out);
        self.changed_ns.encode(out);
        self.accessed_ns.encode(out);
        self.owner.encode(out);
        u32::try_from(self.xattrs.len()).expect("at most XATTRS_MAX").encode(out);
        for (name, value) in &self.xattrs {
            put_blob(out, name);
            put_blob(out, value);
        }
    }
}

impl Decode for Attributes {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mode = u32::decode(from)?;
        let mtime_ns = i64::decode(from)?;
        let (changed_ns, accessed_ns) = (Option::decode(from)?, Option::decode(from)?);
        let owner = Option::decode(from)?;
        let count = from.count(XATTRS_MAX)?;
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let name = from.blob(NAME_MAX)?;
            let follows = xattrs.last().is_none_or(|(last, _)| last.as_slice() < name);
            if !follows || name.is_empty() || name.contains(&0) {
                return Err(Malformed::Invalid("name of an extended attribute"));
            }
            xattrs.push((name.to_vec(), from.blob(XATTR_VALUE_MAX)?.to_vec()));
        }
        Ok(Self { mode, mtime_ns, changed_ns, accessed_ns, owner, xattrs })
    }
}

impl Encode for FileVersion {
    fn encode(&self, out: &mut Vec<u8>) {
        self.hash.encode(out);
        self.size.encode(out);
        self.claim.encode(out);
        self.record.encode(out);
    }
}

impl Decode for FileVersion {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (hash, size) = (FileHash::decode(from)?, u64::decode(from)?);
        if size > MAX_FILE_LEN {
            return Err(Malformed::Invalid("size of a file"));
        }
        let (claim, record) = (ClaimId::decode(from)?, Option::decode(from)?);
        Ok(Self { hash, size, claim, record })
    }
}

impl Encode for Node {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::File(version) => {
                out.push(1);
                version.encode(out);
            }
            Self::Dir { place, previous } => {
                out.push(2);
                place.encode(out);
                previous.encode(out);
            }
            Self::Link(target) => {
                out.push(3);
                put_blob(out, target);
            }
            Self::Special(special) => {
                out.push(4);
                special.encode(out);
            }
            Self::Shared(file) => {
                out.push(5);
                file.version.encode(out);
                put_blob(out, &file.path);
            }
        }
    }
}

impl Decode for Node {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => FileVersion::decode(from).map(Self::File),
            2 => Ok(Self::Dir { place: Option::decode(from)?, previous: Option::decode(from)? }),
            3 => match from.blob(TARGET_MAX)? {
                target if target.is_empty() || target.contains(&0) => {
                    Err(Malformed::Invalid("target of a link"))
                }
                target => Ok(Self::Link(target.to_vec())),
            },
            4 => Special::decode(from).map(Self::Special),
            5 => {
                let (version, path) = (FileVersion::decode(from)?, from.blob(SHARED_PATH_MAX)?);
                if !is_shared_path(path) {
                    return Err(Malformed::Invalid("path of a shared file"));
                }
                Ok(Self::Shared(SharedFile { version, path: path.to_vec() }))
            }
            _ => Err(Malformed::Invalid("kind of inode")),
        }
    }
}

impl Encode for Special {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, device): (u8, u32) = match self {
            Self::Pipe => (1, 0),
            Self::Socket => (2, 0),
            Self::Char(device) => (3, *device),
            Self::Block(device) => (4, *device),
        };
        out.push(code);
        device.encode(out);
    }
}

impl Decode for Special {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match (u8::decode(from)?, u32::decode(from)?) {
            (1, 0) => Ok(Self::Pipe),
            (2, 0) => Ok(Self::Socket),
            (3, device) => Ok(Self::Char(device)),
            (4, device) => Ok(Self::Block(device)),
            _ => Err(Malformed::Invalid("special inode")),
        }
    }
}

impl Encode for Target {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, inode) = match self {
            Self::Removed => (0, None),
            Self::Linked(inode) => (1, Some(inode)),
            Self::Kept(inode) => (2, Some(inode)),
            Self::Moved(inode) => (3, Some(inode)),
        };
        out.push(code);
        if let Some(inode) = inode {
            inode.encode(out);
        }
    }
}

impl Decode for Target {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            0 => Ok(Self::Removed),
            1 => InodeId::decode(from).map(Self::Linked),
            2 => InodeId::decode(from).map(Self::Kept),
            3 => InodeId::decode(from).map(Self::Moved),
            _ => Err(Malformed::Invalid("target of an entry")),
        }
    }
}

impl Encode for Change {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inode { inode, node, attributes } => {
                out.push(1);
                inode.encode(out);
                node.encode(out);
                attributes.encode(out);
            }
            Self::Entry { parent, name, target } => {
                out.push(2);
                parent.encode(out);
                name.encode(out);
                target.encode(out);
            }
        }
    }
}

impl Decode for Change {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Ok(Self::Inode {
                inode: InodeId::decode(from)?,
                node: Node::decode(from)?,
                attributes: Attributes::decode(from)?,
            }),
            2 => Ok(Self::Entry {
                parent: InodeId::decode(from)?,
                name: Name::decode(from)?,
                target: Target::decode(from)?,
            }),
            _ => Err(Malformed::Invalid("kind of change")),
        }
    }
}
