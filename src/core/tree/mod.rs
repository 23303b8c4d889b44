//! The tree of names as people see it: paths, listings, versions, hashes. Owns what is visible: the
//! winner under a name, conflict copies and their names, lost+found; what stood at a name
//! (`history`, `which`), what has names that fit (`search`), what was removed (`gone`), what is
//! kept of that (`past`, `thin`), and what is news (`news`); what is shared in place, which has no
//! name in it (`shares`); and (in `plan`, `resolve` and `planner`) the changes that make a wish
//! true. It reads the catalogue's tables and changes nothing.
//!
//! Invariant: what is visible is a function of the record set and the keyring. Every member that
//! has both sees the same tree, conflict copies included.
//!
//! Rules (DESIGN 8): of concurrent changes to one register the winner is an edit before a removal,
//! then the highest (clock, id). A loser stays visible under its conflict name until a record names
//! it as parent; it is not shown while its content is what is shown already. A removed directory
//! stays while something is in it. What a name leads to is the winner of the inode's own register.
//! Directories that a put makes on its way have an inode that follows from their place, so that two
//! of them made at once are one.

mod conflict;
mod find;
mod gone;
mod heads;
mod history;
mod inode;
mod kept;
mod list;
mod news;
mod past;
mod plan;
mod planner;
mod resolve;
mod same;
mod search;
mod shares;
mod suspects;
mod thin;
mod which;

pub use conflict::conflict_name;
pub use find::Found;
pub use gone::{Dirs, Removed, RemovedWalk};
pub use heads::Heads;
pub use history::{Deed, History, Made, Step, VersionError};
pub use inode::Spot;
pub use list::{Page, Walk};
pub use news::{Deed as NewsDeed, News as TreeNews};
pub use past::Due;
pub use plan::NewFile;
pub use planner::Planner;
pub use resolve::Conflict;
pub use search::{Hit, Hits};
pub use shares::{SHARES, Share, ShareWalk, share_spot};
pub use thin::AGES_MS as THINNED_AFTER_MS;
pub use which::{Which, split as split_version};

use super::catalogue::browse::{self, ChangeAt, Child, Named, Opened, Seen};
use super::catalogue::{
    Attributes, Change, Keyring, LOST_AND_FOUND, Node, OpenedRecords, Place, View,
};
use crate::id::{InodeId, NodeId, RecordId};
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

pub use super::catalogue::past::Ended;

/// Longest path in bytes, as of the systems that mount the tree.
pub const PATH_MAX: usize = 4096;
/// Bytes of records that one reader keeps open whose view keeps none.
const OPENED_MAX: usize = 1 << 20;
/// The name of the directory that appears in the root while it has something in it.
const LOST_NAME: &[u8] = b"lost+found";

/// Why a path does not lead where it was expected to. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Not a path: it does not begin with `/`, is too long, or has an impossible name in it.
    #[error("not a path in the tree")]
    BadPath,
    /// Nothing has this name.
    #[error("not found")]
    NotFound,
    /// There is no directory in which it would be.
    #[error("no directory for it")]
    NoDirectory,
    /// Something on the way, or at the end, is not a directory; the path up to it.
    #[error("not a directory")]
    NotADirectory(Vec<u8>),
    /// A directory is in the way.
    #[error("a directory")]
    IsADirectory,
    /// The inode has as many names as it can have.
    #[error("it has too many names")]
    TooManyLinks,
    /// A link is in the way.
    #[error("a link")]
    IsALink,
    /// A pipe, socket or device has no content.
    #[error("a pipe, socket or device")]
    IsSpecial,
    /// The name is taken.
    #[error("exists already")]
    Exists,
    /// The directory has something in it.
    #[error("not empty")]
    NotEmpty,
    /// A directory cannot move into itself.
    #[error("inside itself")]
    InsideItself,
    /// A conflict copy has no name of its own until the conflict is resolved.
    #[error("a conflict copy")]
    ConflictCopy,
    /// Nothing is in conflict there.
    #[error("not in conflict")]
    NoConflict,
    /// A directory is in conflict: none of them can be kept alone.
    #[error("a directory is among what is in conflict")]
    ConflictOfDirs,
    /// It stands for a former version.
    #[error("a former version")]
    FormerVersion,
    /// None of what is in conflict is called that.
    #[error("none of them is called that")]
    NoSuchCopy,
    /// This node has no content secret.
    #[error("this node cannot read the swarm's names")]
    NoKeys,
    /// The tables or records could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One version of a file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The record that made it.
    pub record: RecordId,
    /// Which change of the record.
    pub change: u16,
    /// When: hybrid logical clock.
    pub clock: u64,
    /// By whom.
    pub author: NodeId,
    /// What it is.
    pub node: Node,
    /// Its attributes.
    pub attributes: Attributes,
}

impl Version {
    /// Whether both have the same content, so that only one of them need be seen.
    fn same_content(&self, other: &Self) -> bool {
        match (&self.node, &other.node) {
            (Node::File(one), Node::File(two)) => one.hash == two.hash,
            (Node::Link(one), Node::Link(two)) => one == two,
            (Node::Special(one), Node::Special(two)) => one == two,
            _ => false,
        }
    }
}

/// A name in a directory, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The directory.
    pub parent: InodeId,
    /// The name as it is seen; the root has none.
    pub name: Vec<u8>,
    /// What it leads to.
    pub inode: InodeId,
    /// The version that is seen.
    pub version: Version,
    /// Whether this is a conflict copy.
    pub conflict: bool,
}

impl Entry {
    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.version.node, Node::Dir { .. })
    }
}

/// Reads the tree. Made for one question or a few.
pub struct Tree<'a> {
    view: &'a dyn View,
    keyring: &'a Keyring,
    opened: RefCell<OpenedRecords>,
}

impl<'a> Tree<'a> {
    /// Reads through `view` what `keyring` opens.
    pub fn new(view: &'a dyn View, keyring: &'a Keyring) -> Self {
        Self { view, keyring, opened: RefCell::new(OpenedRecords::new(OPENED_MAX)) }
    }

    /// What a path leads to. `/` is the root; empty components are passed over.
    pub fn resolve(&self, path: &[u8]) -> Result<Entry, TreeError> {
        let mut at = self.root()?;
        for name in components(path)? {
            if !at.is_dir() {
                return Err(TreeError::NotADirectory(at.name));
            }
            at = self.lookup(&at.inode, name)?.ok_or(TreeError::NotFound)?;
        }
        Ok(at)
    }

    /// What a name in a directory leads to, conflict names included.
    pub fn lookup(&self, parent: &InodeId, name: &[u8]) -> io::Result<Option<Entry>> {
        let first = self.group(parent, name)?.into_iter().next();
        if first.is_some() { Ok(first) } else { self.lookup_conflict(parent, name) }
    }

    /// The winning version of an inode, and its concurrent ones behind it.
    pub fn versions(&self, inode: &InodeId) -> io::Result<Vec<Version>> {
        self.read_all(&browse::heads_of(self.view, self.keyring, inode)?)
    }

    fn read_all(&self, changes: &[ChangeAt]) -> io::Result<Vec<Version>> {
        let mut out = Vec::with_capacity(changes.len());
        for at in changes {
            out.extend(self.version(at)?);
        }
        Ok(out)
    }

    /// The root; until somebody changes its attributes, no record speaks of it.
    fn root(&self) -> io::Result<Entry> {
        let heads = self.versions(&InodeId::ROOT)?;
        let version = heads.into_iter().find(|v| matches!(v.node, Node::Dir { .. }));
        Ok(implicit(InodeId::ROOT, b"", version))
    }

    /// The version that a change of an inode makes.
    fn version(&self, at: &ChangeAt) -> io::Result<Option<Version>> {
        let Some(opened) = self.open(&at.id)? else { return Ok(None) };
        let change = opened.changes.get(usize::from(at.change));
        let Some(Change::Inode { node, attributes, .. }) = change else { return Ok(None) };
        Ok(Some(Version {
            record: at.id,
            change: at.change,
            clock: at.clock,
            author: opened.author,
            node: node.clone(),
            attributes: attributes.clone(),
        }))
    }

    /// The name that a row stands for, as its change says it.
    fn name_of(&self, row: &Named) -> io::Result<Option<Vec<u8>>> {
        if let Child::Dir { inode, seen: Seen::Lost, .. } = row.child {
            return Ok(Some(inode.to_string().into_bytes()));
        }
        let Some(opened) = self.open(&row.at.id)? else { return Ok(None) };
        let name = match (opened.changes.get(usize::from(row.at.change)), row.child) {
            (Some(Change::Entry { name, .. }), _) => Some(name),
            (Some(Change::Inode { node: Node::Dir { place, previous }, .. }), child) => {
                let before = matches!(child, Child::Dir { seen: Seen::Before, .. });
                let place: &Option<Place> = if before { previous } else { place };
                place.as_ref().map(|place| &place.name)
            }
            _ => None,
        };
        Ok(name.map(|name| name.as_bytes().to_vec()))
    }

    fn open(&self, id: &RecordId) -> io::Result<Option<Arc<Opened>>> {
        let kept = self.view.opened(id).or_else(|| self.opened.borrow_mut().get(id));
        if kept.is_some() {
            return Ok(kept);
        }
        let opened = browse::open(self.view, self.keyring, id)?.map(Arc::new);
        if let Some(opened) = &opened
            && !self.view.keep_open(id, opened)
        {
            self.opened.borrow_mut().keep(*id, opened.clone());
        }
        Ok(opened)
    }
}

/// A directory that is there without a record.
fn implicit(inode: InodeId, name: &[u8], version: Option<Version>) -> Entry {
    let version = version.unwrap_or_else(|| Version {
        record: RecordId([0; 32]),
        change: 0,
        clock: 0,
        author: NodeId([0; 32]),
        node: Node::Dir { place: None, previous: None },
        attributes: Attributes { mode: 0o755, ..Attributes::default() },
    });
    Entry { parent: InodeId::ROOT, name: name.to_vec(), inode, version, conflict: false }
}

/// The directory of directories that have no place.
fn lost_and_found() -> Entry {
    implicit(LOST_AND_FOUND, LOST_NAME, None)
}

/// The names of a path, from the root down.
///
/// # Errors
/// When it is none: it does not begin with `/`, or is too long, or a name in it is.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let rest = path.strip_prefix(b"/").filter(|_| path.len() <= PATH_MAX);
    let rest = rest.ok_or(TreeError::BadPath)?;
    let names: Vec<&[u8]> =
        rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    let fine = names.iter().all(|name| super::catalogue::Name::new(name).is_some());
    if fine { Ok(names) } else { Err(TreeError::BadPath) }
}
