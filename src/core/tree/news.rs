//! What a record changed, as it is seen in the tree. Owns the rule what of a record is news: what
//! came to a name, changed, moved or went, and which conflict copies there are because of it.
//!
//! Invariant: the news of a record follow from it and from what is known when they are told. Of
//! two changes of one name that did not see each other, whichever comes later has it told.

use super::{Entry, Tree, Version};
use crate::core::catalogue::browse::{self, Opened};
use crate::core::catalogue::{Change, Node, Place, Target, known};
use crate::id::{InodeId, NodeId, RecordId};
use std::io;

/// Most names of an inode of which a change is told.
const LINKS_MAX: usize = 16;

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It leads to something that was not there.
    Created(Box<Entry>),
    /// What it leads to has changed.
    Changed(Box<Entry>),
    /// What it leads to came from another path; none: that one cannot be said.
    Moved(Box<Entry>, Option<Vec<u8>>),
    /// It is a conflict copy.
    Conflict(Box<Entry>),
    /// It leads to nothing any more.
    Removed,
}

/// One of the news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The path.
    pub path: Vec<u8>,
    /// What happened.
    pub deed: Deed,
    /// When: hybrid logical clock.
    pub clock: u64,
    /// By whom.
    pub author: NodeId,
}

/// The record that news are told of.
struct Told<'a> {
    id: &'a RecordId,
    clock: u64,
    opened: &'a Opened,
    news: Vec<News>,
}

impl Told<'_> {
    fn tell(&mut self, path: Option<Vec<u8>>, deed: Deed) {
        let (clock, author) = (self.clock, self.opened.author);
        // What was never in a directory was seen by nobody.
        self.news.extend(path.map(|path| News { path, deed, clock, author }));
    }
}

impl Tree<'_> {
    /// What a record changed; nothing, while it waits or cannot be read.
    pub fn news(&self, id: &RecordId) -> io::Result<Vec<News>> {
        let Some(clock) = known(self.view, id)?.map(|known| known.clock) else {
            return Ok(Vec::new());
        };
        let Some(opened) = self.open(id)? else { return Ok(Vec::new()) };
        let mut told = Told { id, clock, opened: &opened, news: Vec::new() };
        for (index, change) in (0..).zip(&opened.changes) {
            match change {
                Change::Entry { parent, name, target } => {
                    let place = Place { parent: *parent, name: name.clone() };
                    self.news_of_name(&mut told, &place, *target)?;
                }
                Change::Inode { inode, node: Node::Dir { place, previous }, .. } => {
                    self.news_of_dir(
                        &mut told,
                        *inode,
                        index,
                        (place.as_ref(), previous.as_ref()),
                    )?;
                }
                Change::Inode { inode, .. } if !is_named(&opened, *inode) => {
                    for path in self.paths_of(inode, LINKS_MAX)? {
                        if let Ok(entry) = self.resolve(&path) {
                            told.tell(Some(path), Deed::Changed(Box::new(entry)));
                        }
                    }
                }
                Change::Inode { .. } => {}
            }
        }
        Ok(told.news)
    }

    fn news_of_name(&self, told: &mut Told<'_>, at: &Place, target: Target) -> io::Result<()> {
        let path = self.path_of_place(at)?;
        let group = self.group(&at.parent, at.name.as_bytes())?;
        let Some(inode) = target.inode() else {
            let elsewhere = match target {
                Target::Moved(inode) => is_named(told.opened, inode),
                _ => false,
            };
            // An edit that did not see the removal is stronger.
            if group.is_empty() && !elsewhere {
                told.tell(path, Deed::Removed);
            }
            return Ok(());
        };
        let is_own = |entry: &&Entry| entry.inode == inode && entry.version.record == *told.id;
        let own = group.iter().find(is_own);
        if let Some(copy) = own.filter(|entry| entry.conflict) {
            let path = self.path_in(&at.parent, &copy.name)?;
            told.tell(path, Deed::Conflict(Box::new(copy.clone())));
            return Ok(());
        }
        let seen = own.or_else(|| group.first()).cloned();
        let entry = match self.version_by(told, inode)? {
            Some(version) => Some(Entry {
                parent: at.parent,
                name: at.name.as_bytes().to_vec(),
                inode,
                version,
                conflict: false,
            }),
            None => seen,
        };
        if let Some(entry) = entry.map(Box::new) {
            let deed = match target {
                Target::Kept(_) => Deed::Changed(entry),
                _ if gives(told.opened, &Target::Moved(inode)) => {
                    Deed::Moved(entry, self.other_name(told.opened, &Target::Moved(inode))?)
                }
                _ => Deed::Created(entry),
            };
            told.tell(path, deed);
        }
        self.news_of_copies(told, at, &group)
    }

    /// Tells of the conflict copies that there are because of the record.
    fn news_of_copies(&self, told: &mut Told<'_>, at: &Place, group: &[Entry]) -> io::Result<()> {
        for copy in group.iter().filter(|entry| entry.conflict) {
            let by = copy.version.record;
            let met = match self.open(&by)? {
                _ if by == *told.id => true,
                // Both changed the same, and neither saw the other. What changed it again later
                // has seen one of them.
                Some(other) => {
                    let (mine, theirs) = (&told.opened.parents, &other.parents);
                    mine.iter().any(|parent| theirs.contains(parent))
                        || mine.is_empty() && theirs.is_empty()
                }
                None => false,
            };
            if met {
                let path = self.path_in(&at.parent, &copy.name)?;
                told.tell(path, Deed::Conflict(Box::new(copy.clone())));
            }
        }
        Ok(())
    }

    fn news_of_dir(
        &self,
        told: &mut Told<'_>,
        inode: InodeId,
        index: u16,
        (place, previous): (Option<&Place>, Option<&Place>),
    ) -> io::Result<()> {
        let Some(place) = place else {
            let path = previous.map_or(Ok(None), |place| self.path_of_place(place))?;
            if inode != InodeId::ROOT && !browse::is_used(self.view, &inode)? {
                told.tell(path, Deed::Removed);
            } else if inode == InodeId::ROOT
                && let Ok(root) = self.resolve(b"/")
            {
                told.tell(Some(b"/".to_vec()), Deed::Changed(Box::new(root)));
            }
            return Ok(());
        };
        let at = browse::ChangeAt { clock: told.clock, id: *told.id, change: index };
        let Some(version) = self.version(&at)? else { return Ok(()) };
        let (parent, name) = (place.parent, place.name.as_bytes().to_vec());
        let entry = Box::new(Entry { parent, name, inode, version, conflict: false });
        let deed = match self.place_before(&inode, &at)? {
            Some(before) if before == *place => Deed::Changed(entry),
            Some(before) => Deed::Moved(entry, self.path_of_place(&before)?),
            None => Deed::Created(entry),
        };
        told.tell(self.path_of_place(place)?, deed);
        let group = self.group(&place.parent, place.name.as_bytes())?;
        self.news_of_copies(told, place, &group)
    }

    /// Where a directory was before a change; none: nowhere.
    fn place_before(&self, inode: &InodeId, at: &browse::ChangeAt) -> io::Result<Option<Place>> {
        let past = browse::past_of(self.view, self.keyring, inode)?;
        let Some(before) = past.iter().find(|past| *past < at) else { return Ok(None) };
        Ok(match self.version(before)?.map(|version| version.node) {
            Some(Node::Dir { place, .. }) => place,
            _ => None,
        })
    }

    /// The path of a place. News may be told when the directory is removed, as after a time without
    /// contact, of which all records come at once.
    fn path_of_place(&self, place: &Place) -> io::Result<Option<Vec<u8>>> {
        self.path_once_in(&place.parent, place.name.as_bytes())
    }

    /// The version of an inode that a record made.
    fn version_by(&self, told: &Told<'_>, of: InodeId) -> io::Result<Option<Version>> {
        let is = |change: &Change| matches!(change, Change::Inode { inode, .. } if *inode == of);
        let Some(change) = told.opened.changes.iter().position(is) else { return Ok(None) };
        let Ok(change) = u16::try_from(change) else { return Ok(None) };
        self.version(&browse::ChangeAt { clock: told.clock, id: *told.id, change })
    }
}

/// Whether a record gives an inode a name, or says its name again.
fn is_named(opened: &Opened, inode: InodeId) -> bool {
    gives(opened, &Target::Linked(inode)) || gives(opened, &Target::Kept(inode))
}

fn gives(opened: &Opened, to: &Target) -> bool {
    let is = |change: &Change| matches!(change, Change::Entry { target, .. } if target == to);
    opened.changes.iter().any(is)
}
