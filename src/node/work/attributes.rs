//! What programs see of an inode besides its content. Owns how it is put together from the tree,
//! from the edits of the file and from what happened lately, and the extended attributes that the
//! node itself answers.

use super::{State, WorkError};
use crate::core::catalogue::{Attributes, Special, XATTR_VALUE_MAX, XATTRS_MAX};
use crate::core::hlc;
use crate::core::tree::Tree;
use crate::core::work::{Inode, What};
use crate::id::InodeId;
use std::io;

/// Longest extended attributes of one inode together: they have to fit into a record.
const XATTRS_LEN: usize = 16 << 10;

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A character device, by its number.
    Char(u32),
    /// A block device, by its number.
    Block(u32),
}

/// What programs see of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that count as used.
    pub used: u64,
    /// Permission bits.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// User and group id, where they are recorded.
    pub owner: Option<(u32, u32)>,
    /// Last modification in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last change of anything.
    pub changed_ns: i64,
    /// Last access, as far as anybody has said it.
    pub accessed_ns: i64,
}

impl Stat {
    /// Whether who runs it gets rights of its owner or its group.
    pub fn lends(&self) -> bool {
        self.kind == Kind::File && self.mode != lending_nothing(self.mode)
    }
}

/// Permission bits of a file that lends nobody the rights of its owner or its group. Where the
/// group may not run it the second of the bits means something else.
const fn lending_nothing(mode: u32) -> u32 {
    let group = if mode & 0o010 != 0 { 0o2000 } else { 0 };
    mode & !(0o4000 | group)
}

/// Attributes that are to be changed: what is not named stays what it is when that is done, also
/// where somebody else changes it at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// A file that another one owns or has changed must not lend the rights of the first, unless
    /// permission bits are named that say so.
    pub lends_nothing: bool,
    /// User id.
    pub user: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last modification; `Some(None)` is now.
    pub modified_ns: Option<Option<i64>>,
    /// Last access; `Some(None)` is now.
    pub accessed_ns: Option<Option<i64>>,
}

impl Changes {
    /// Whether anything but the length is to be changed, whatever it is.
    pub const fn has_attributes(&self) -> bool {
        self.mode.is_some()
            || self.user.is_some()
            || self.group.is_some()
            || self.modified_ns.is_some()
            || self.accessed_ns.is_some()
    }

    /// Makes the changes; `mine` owns what records no owner.
    pub(super) fn apply(&self, what: &What, to: &mut Attributes, mine: (u32, u32), now_ns: i64) {
        if let Some(mode) = self.mode {
            to.mode = mode & 0o7777;
        } else if self.lends_nothing && matches!(what, What::File(_)) {
            to.mode = lending_nothing(to.mode);
        }
        if self.user.is_some() || self.group.is_some() {
            let (user, group) = to.owner.unwrap_or(mine);
            to.owner = Some((self.user.unwrap_or(user), self.group.unwrap_or(group)));
        }
        to.mtime_ns = self.modified_ns.map_or(to.mtime_ns, |ns| ns.unwrap_or(now_ns));
        if let Some(ns) = self.accessed_ns {
            to.accessed_ns = Some(ns.unwrap_or(now_ns));
        }
        to.changed_ns = Some(now_ns);
    }
}

impl State {
    /// What programs see of an inode.
    pub(super) fn stat(&mut self, tree: &Tree<'_>, inode: &Inode) -> io::Result<Stat> {
        let number = self.numbers.of(tree, &self.work, inode.number())?;
        let links = if inode.copy.is_some() { 1 } else { self.work.links(tree, inode)? };
        let recent = self.recent.of(&inode.id);
        let attributes = &inode.attributes;
        let made_ns = i64::try_from(hlc::ms_of(inode.clock)).unwrap_or(0) * 1_000_000;
        let (mut modified_ns, mut changed_ns) =
            (attributes.mtime_ns, attributes.changed_ns.unwrap_or(made_ns));
        if modified_ns == 0 && attributes.changed_ns.is_none() {
            modified_ns = made_ns;
        }
        modified_ns = modified_ns.max(recent.modified_since(made_ns).unwrap_or(i64::MIN));
        changed_ns = changed_ns.max(recent.changed_ns.unwrap_or(i64::MIN));
        let (kind, mut size) = match &inode.what {
            What::File(version) => (Kind::File, version.as_ref().map_or(0, |v| v.size)),
            What::Dir => (Kind::Dir, 4096),
            What::Link(target) => (Kind::Link, target.len() as u64),
            What::Special(Special::Pipe) => (Kind::Pipe, 0),
            What::Special(Special::Socket) => (Kind::Socket, 0),
            What::Special(Special::Char(device)) => (Kind::Char(*device), 0),
            What::Special(Special::Block(device)) => (Kind::Block(*device), 0),
        };
        let mut used = if kind == Kind::File { size } else { 0 };
        if inode.copy.is_none()
            && kind == Kind::File
            && let Some(body) = self.bodies.get(&inode.id)
        {
            let content = body.lock();
            let current = content.is_edited() || content.base().map(|base| base.size) == Some(size);
            if current {
                (size, used) = (content.size(), content.used());
            }
            if let Some(written_ns) = content.modified_ns {
                modified_ns = written_ns;
                changed_ns = changed_ns.max(written_ns);
            }
        }
        Ok(Stat {
            number,
            kind,
            size,
            used,
            mode: if kind == Kind::Link { 0o777 } else { attributes.mode & 0o7777 },
            links: u32::try_from(links).unwrap_or(u32::MAX),
            owner: attributes.owner,
            modified_ns,
            changed_ns,
            accessed_ns: attributes.accessed_ns.unwrap_or(modified_ns),
        })
    }

    /// Changes the extended attributes of an inode; a value of none removes one.
    pub(super) fn set_xattr(
        &mut self,
        tree: &Tree<'_>,
        id: &InodeId,
        name: &[u8],
        value: Option<&[u8]>,
        now_ns: i64,
    ) -> Result<(), WorkError> {
        let inode = self.work.inode(tree, id)?;
        let mut xattrs = inode.map(|inode| inode.attributes.xattrs).unwrap_or_default();
        let at = xattrs.binary_search_by(|(known, _)| known.as_slice().cmp(name));
        match (at, value) {
            (Ok(at), Some(value)) => xattrs[at].1 = value.to_vec(),
            (Err(at), Some(value)) => xattrs.insert(at, (name.to_vec(), value.to_vec())),
            (Ok(at), None) => drop(xattrs.remove(at)),
            (Err(_), None) => return Err(WorkError::NoAttribute),
        }
        let len: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let too_long = value.is_some_and(|value| value.len() > XATTR_VALUE_MAX);
        if too_long || xattrs.len() > XATTRS_MAX || len > XATTRS_LEN {
            return Err(WorkError::NoSpace);
        }
        self.work.set(tree, id, |attributes| {
            (attributes.xattrs, attributes.changed_ns) = (xattrs, Some(now_ns));
        })?;
        Ok(())
    }
}
