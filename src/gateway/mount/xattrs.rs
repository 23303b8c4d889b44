//! Extended attributes in a mount: those that programs set, and those with which the node says what
//! only the swarm knows of a file. The requests come through `door`.

use super::attr::errno;
use super::door::{Door, tell_empty};
use crate::node::{Work, WorkError};
use crate::wire::control::{TAGS, Target};
use fuser::{Errno, INodeNo, ReplyEmpty, ReplyXattr};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The extended attributes that the node answers itself, but for [`TAGS`], which are kept like any.
const OWN: &[u8] = b"user.p2pfs.";

fn is_own(name: &[u8]) -> bool {
    name.starts_with(OWN) && name != TAGS
}

impl Door {
    /// Sets one; `flags` say whether it must be there already, or not.
    pub(super) fn set_xattr(
        &self,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        reply: ReplyEmpty,
    ) {
        let (number, name) = (self.inside(ino), name.as_bytes());
        if let Err(err) = is_free(name) {
            return reply.error(err);
        }
        let there = self.work.xattr(number, name).is_ok();
        if there && flags & libc::XATTR_CREATE != 0 {
            return reply.error(Errno::EEXIST);
        }
        if !there && flags & libc::XATTR_REPLACE != 0 {
            return reply.error(Errno::ENODATA);
        }
        let (name, value) = (name.to_vec(), value.to_vec());
        let set = move |work: &Work| work.set_xattr(number, &name, Some(&value));
        self.change(set, |done| tell_empty(done, reply));
    }

    /// The value of one.
    pub(super) fn xattr(&self, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (number, name) = (self.inside(ino), name.as_bytes());
        if is_own(name) {
            return self.own_xattr(number, name, size, reply);
        }
        if is_free(name).is_err() {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let value = self.work.xattr(number, name).map_err(|err| errno(&err));
        tell_xattr(value, size, reply);
    }

    /// The names of those that programs have set.
    pub(super) fn xattrs(&self, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let xattrs = self.work.xattrs(self.inside(ino));
        let names = xattrs.map(|all| {
            let names = all.into_iter().flat_map(|(name, _)| [name, vec![0]].concat());
            names.collect::<Vec<u8>>()
        });
        tell_xattr(names.map_err(|err| errno(&err)), size, reply);
    }

    /// Removes one.
    pub(super) fn remove_xattr(&self, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (number, name) = (self.inside(ino), name.as_bytes());
        if let Err(err) = is_free(name) {
            return reply.error(err);
        }
        let name = name.to_vec();
        let remove = move |work: &Work| work.set_xattr(number, &name, None);
        self.change(remove, |done| tell_empty(done, reply));
    }

    /// What a file is asked that only the swarm knows.
    fn own_xattr(&self, number: u64, name: &[u8], size: u32, reply: ReplyXattr) {
        let (node, what) = (self.node.clone(), name[OWN.len()..].to_vec());
        let hash = self.work.hash(number);
        let answer = async move {
            let hash = hash?.ok_or(WorkError::NoAttribute)?;
            if what == b"hash" {
                return Ok(hash.to_string().into_bytes());
            }
            if what != b"copies" && what != b"peers" {
                return Err(WorkError::NoAttribute);
            }
            let stat = node.stat(&Target::Hash(hash)).await;
            let stat = stat.map_err(|_| WorkError::NoAttribute)?;
            if what == b"copies" {
                return Ok(stat.info.copies.unwrap_or(0).to_string().into_bytes());
            }
            let whole = stat.holders.iter().filter(|h| h.chunks + stat.zero_chunks == stat.chunks);
            let names: Vec<&str> = whole.map(|holder| &*holder.name).collect();
            Ok(names.join(" ").into_bytes())
        };
        self.later(answer, move |value| tell_xattr(value, size, reply));
    }
}

/// Answers a question for an extended attribute.
fn tell_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Err(err) => reply.error(err),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

/// Names of extended attributes that programs may set.
fn is_free(name: &[u8]) -> Result<(), Errno> {
    if is_own(name) {
        return Err(Errno::EPERM);
    }
    let known = [&b"user."[..], b"trusted."].iter().any(|class| name.starts_with(class));
    match name.len() {
        _ if !known => Err(Errno::EOPNOTSUPP),
        0..=255 => Ok(()),
        _ => Err(Errno::ERANGE),
    }
}
