//! The names at hand: one row for each inode that is seen, with all that a search looks at, so that
//! a question reads one table from front to back and opens no record. Owns the rows of `cat_name`
//! and what of the other tables they follow from; what fits a question is `core::search`'s.
//!
//! A row follows from the readers' tables alone: the winning version of the inode, its names or its
//! place. So it is made anew when one of these changes (`reveal`), and never by itself. While a
//! record that it follows from is damaged on this disk, no row is made.
//!
//! ```text
//! row    = epoch 4, sealed                 the first bytes of the epoch of the version's record
//! sealed = kind u8, author 8, made ms 6, size u64, tags (length u16, text), count u8, name…, 0…
//! kind   = 1 file, 2 directory, 3 link, 4 special, 5 shared file; 130 a directory that was removed
//! name   = length u8, bytes                ascending, each once
//! ```
//!
//! A shared file has the last name of its path. Integers are little-endian. The author is the first
//! bytes of its id. Zeros fill a whole block of the cipher (`crypto::NameKey`).

use super::browse::{self, Child, Named, Seen};
use super::change::{Change, Node};
use super::keyring::Keyring;
use super::reveal::Reveal;
use super::table::{NAME, State, damaged, versions_of};
use crate::core::hlc;
use crate::crypto::NameKey;
use crate::id::{InodeId, NodeId};
use crate::sys::TableRead;
use crate::wire::codec::Malformed;
use crate::wire::control::{FileKind, FileTag};
use std::collections::BTreeSet;
use std::io;

/// Most names of an inode that are found.
const NAMES_MAX: usize = 64;
/// Bytes of an author's id in a row.
pub const AUTHOR: usize = 8;
/// In the kind of a row: a directory that is seen only while something is in it.
const REMOVED: u8 = 128;
/// The kind of a shared file.
const SHARED: u8 = 5;
/// Bytes of an epoch's id in a row.
pub(super) const EPOCH: usize = 4;

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// What has the names.
    pub inode: InodeId,
    /// What it is.
    pub kind: FileKind,
    /// Whether it is a file that its author serves in place.
    pub shared: bool,
    /// Whether it is a directory that is seen only while something is in it.
    pub removed: bool,
    /// The first bytes of the id of who made the version.
    pub author: [u8; AUTHOR],
    /// When: milliseconds since 1970.
    pub made_ms: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its tags with commas between.
    pub tags: &'a str,
    names: &'a [u8],
}

impl<'a> Listed<'a> {
    /// Its names.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.names;
        std::iter::from_fn(move || {
            let (len, behind) = rest.split_first()?;
            let (name, behind) = behind.split_at_checked(usize::from(*len))?;
            rest = behind;
            Some(name)
        })
    }

    /// Reads what [`write`] wrote; none: it did not write this.
    fn read(inode: InodeId, row: &'a [u8]) -> Option<Self> {
        let (kind, rest) = row.split_first()?;
        let (author, rest) = rest.split_first_chunk()?;
        let (made, rest) = rest.split_first_chunk::<6>()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (tags, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let (count, names) = rest.split_first()?;
        let mut made_ms = [0; 8];
        made_ms[..6].copy_from_slice(made);
        let mut end = 0;
        for _ in 0..*count {
            end += 1 + usize::from(*names.get(end)?);
        }
        Some(Self {
            inode,
            kind: match kind & !REMOVED {
                1 | SHARED => FileKind::File,
                2 => FileKind::Dir,
                3 => FileKind::Link,
                4 => FileKind::Special,
                _ => return None,
            },
            shared: *kind == SHARED,
            removed: kind & REMOVED != 0,
            author: *author,
            made_ms: u64::from_le_bytes(made_ms),
            size: u64::from_le_bytes(*size),
            tags: std::str::from_utf8(tags).ok()?,
            names: names.get(..end)?,
        })
    }
}

/// Visits every row until `visit` says false.
pub(crate) fn each(
    tables: &dyn TableRead,
    keyring: &Keyring,
    visit: &mut dyn FnMut(&Listed<'_>) -> bool,
) -> io::Result<()> {
    let key = |keys: &crate::crypto::EpochKeys| (keys.epoch().0, keys.names());
    let keys: Vec<([u8; 32], NameKey)> = keyring.iter().map(key).collect();
    let (mut opened, mut fault) = (Vec::new(), Ok(()));
    tables.range(NAME, &[], None, &mut |inode, row| {
        let (Ok(inode), Some((epoch, sealed))) =
            (inode.try_into().map(InodeId), row.split_at_checked(EPOCH))
        else {
            fault = Err(damaged(Malformed::Invalid("row of a name")));
            return false;
        };
        // What cannot be read is not found.
        let Some((_, key)) = keys.iter().find(|(id, _)| id[..EPOCH] == *epoch) else { return true };
        opened.clear();
        opened.extend_from_slice(sealed);
        key.open(&inode, &mut opened);
        match Listed::read(inode, &opened) {
            Some(listed) => visit(&listed),
            None => {
                fault = Err(damaged(Malformed::Invalid("row of a name")));
                false
            }
        }
    })?;
    fault
}

/// Makes the row of an inode what the other tables say.
pub(super) fn write(reveal: &mut Reveal<'_>, inode: &InodeId) -> io::Result<()> {
    let row = match browse::dir_row(&*reveal.store, inode)? {
        Some(place) => of_dir(reveal, inode, &place)?,
        None => of_other(reveal, inode)?,
    };
    match row {
        Some(row) => reveal.store.insert(NAME, &inode.0, &row),
        None => reveal.store.remove(NAME, &inode.0).map(drop),
    }
}

fn of_dir(reveal: &mut Reveal<'_>, inode: &InodeId, place: &Named) -> io::Result<Option<Vec<u8>>> {
    let Child::Dir { seen, removed, .. } = place.child else { return Ok(None) };
    let Some(said) = reveal.said(&place.at.id)? else { return Ok(None) };
    let change = said.changes.get(usize::from(place.at.change));
    let Some(Change::Inode { node: Node::Dir { place: at, previous }, attributes, .. }) = change
    else {
        return Ok(None);
    };
    let name = match seen {
        Seen::There => at.as_ref().map(|at| at.name.as_bytes().to_vec()),
        Seen::Before => previous.as_ref().map(|at| at.name.as_bytes().to_vec()),
        Seen::Lost => Some(inode.to_string().into_bytes()),
    };
    let (epoch, author, tags) = (said.epoch, said.author, attributes.tags());
    let kind = 2 | if removed { REMOVED } else { 0 };
    let names = name.into_iter().collect();
    let row = plain((kind, 0), &author, hlc::ms_of(place.at.clock), &tags, &names);
    Ok(reveal.seal_names(&epoch, inode, row))
}

fn of_other(reveal: &mut Reveal<'_>, inode: &InodeId) -> io::Result<Option<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for link in browse::links_of(&*reveal.store, inode, NAMES_MAX)? {
        let Some(said) = reveal.said(&link.at.id)? else { continue };
        if let Some(Change::Entry { name, .. }) = said.changes.get(usize::from(link.at.change)) {
            names.insert(name.as_bytes().to_vec());
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let versions = versions_of(&*reveal.store, reveal.keyring, inode, State::Head)?;
    let Some(at) = versions.first().map(|winner| winner.at) else { return Ok(None) };
    let Some(said) = reveal.said(&at.id)? else { return Ok(None) };
    let change = said.changes.get(usize::from(at.change));
    let Some(Change::Inode { node, attributes, .. }) = change else { return Ok(None) };
    let what = match node {
        Node::File(file) => (1, file.size),
        Node::Link(target) => (3, target.len() as u64),
        Node::Special(_) => (4, 0),
        Node::Shared(file) => {
            let name = file.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            names = BTreeSet::from([name.to_vec()]);
            (SHARED, file.version.size)
        }
        // It has a place of its own, or none.
        Node::Dir { .. } => return Ok(None),
    };
    let (epoch, author, tags) = (said.epoch, said.author, attributes.tags());
    let row = plain(what, &author, hlc::ms_of(at.clock), &tags, &names);
    Ok(reveal.seal_names(&epoch, inode, row))
}

fn plain(
    (kind, size): (u8, u64),
    author: &NodeId,
    made_ms: u64,
    tags: &[FileTag],
    names: &BTreeSet<Vec<u8>>,
) -> Vec<u8> {
    let tags: Vec<&str> = tags.iter().map(FileTag::as_str).collect();
    let tags = tags.join(",");
    let mut out = vec![kind];
    out.extend_from_slice(&author.0[..AUTHOR]);
    out.extend_from_slice(&made_ms.to_le_bytes()[..6]);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&u16::try_from(tags.len()).expect("a few short tags").to_le_bytes());
    out.extend_from_slice(tags.as_bytes());
    out.push(u8::try_from(names.len()).expect("at most NAMES_MAX"));
    for name in names {
        out.push(u8::try_from(name.len()).expect("at most 255 bytes"));
        out.extend_from_slice(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_says_what_was_written(
            size: u64,
            made in 0..1_u64 << 48,
            tags in proptest::collection::vec("[a-z0-9]{1,32}", 0..16),
            names in proptest::collection::btree_set(
                proptest::collection::vec(any::<u8>(), 1..256), 1..9),
        ) {
            let tags: Vec<FileTag> = tags.iter().map(|tag| FileTag::new(tag).unwrap()).collect();
            let mut row = plain((1, size), &NodeId([7; 32]), made, &tags, &names);
            row.extend([0; 13]);
            let listed = Listed::read(InodeId([1; 16]), &row).unwrap();
            prop_assert_eq!((listed.kind, listed.removed), (FileKind::File, false));
            prop_assert_eq!((listed.size, listed.made_ms, listed.author), (size, made, [7; 8]));
            let read: Vec<&str> = listed.tags.split(',').filter(|tag| !tag.is_empty()).collect();
            let written: Vec<&str> = tags.iter().map(FileTag::as_str).collect();
            prop_assert_eq!(read, written);
            prop_assert!(listed.names().eq(names.iter().map(Vec::as_slice)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(row in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(listed) = Listed::read(InodeId([1; 16]), &row) {
                prop_assert!(listed.names().map(<[u8]>::len).sum::<usize>() <= row.len());
            }
        }
    }
}
