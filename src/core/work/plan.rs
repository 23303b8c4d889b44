//! What the working tree comes to as records. Owns which changes belong together and which have to
//! wait: a new file is named only when its content is stored. After it was written down, what has
//! not changed meanwhile is forgotten here, because the replicated tree says it.

use super::{Held, Own, Spot, What, Working, place_of};
use crate::core::catalogue::{Attributes, Change, FileVersion, Name, Node, Target};
use crate::core::tree::{Heads, Tree, TreeError};
use crate::id::{InodeId, RecordId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Names that an edit of a file says again.
const KEPT_MAX: usize = 8;

/// Changes of one inode that go into one record: so many have room there, however long the names.
const TOGETHER_MAX: usize = 32;

/// A content that was stored, to be written down.
#[derive(Debug, Clone)]
pub struct Edition {
    /// What it is.
    pub version: FileVersion,
    /// When it was modified, where no program said another time since.
    pub modified_ns: Option<i64>,
}

/// Whether somebody on this machine needs an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nobody.
    None,
    /// It is open: without a name it lives on.
    Used,
    /// Its content is edited: what was seen of it is remembered until that is written down.
    Edited,
}

/// Changes that go into one record.
#[derive(Debug, Clone)]
pub struct Group {
    /// The inode that they are of.
    pub inode: InodeId,
    /// Each with what was seen of its register.
    pub changes: Vec<(Change, Heads)>,
    names: Vec<Spot>,
}

/// An inode that is written down.
#[derive(Debug)]
struct Written {
    changed: u64,
    what: What,
    attributes: Attributes,
    /// Whether a record speaks of the inode itself, and not only of its names.
    is_said: bool,
}

/// What is written down, and as of when.
#[derive(Debug, Default)]
pub struct Planned {
    /// The changes, those of directories first.
    pub groups: Vec<Group>,
    inodes: BTreeMap<InodeId, Written>,
    names: BTreeMap<Spot, (u64, Option<InodeId>, bool)>,
    /// Names that edits say again though nobody touched them.
    kept: Vec<Spot>,
}

impl Planned {
    /// Whether anything of an inode is written down.
    pub fn has(&self, inode: &InodeId) -> bool {
        self.inodes.contains_key(inode)
    }

    /// These changes cannot be written down with the others: they wait for the next plan.
    pub fn leave_out(&mut self, group: &Group) {
        self.inodes.remove(&group.inode);
        self.names.retain(|spot, _| !group.names.contains(spot));
    }
}

impl Working {
    /// Everything that can be written down now, with the contents that were just stored. Conflict
    /// copies end with `ends`: enough others have everything that was written down before.
    pub fn plan(
        &mut self,
        tree: &Tree<'_>,
        editions: &BTreeMap<InodeId, Edition>,
        ends: bool,
    ) -> io::Result<Planned> {
        if ends {
            self.end_copies(tree).map_err(|err| match err {
                TreeError::Io(err) => err,
                err => io::Error::other(err),
            })?;
        }
        for (id, edition) in editions {
            match self.own(tree, id) {
                // What is gone altogether needs no version.
                Ok(_) | Err(TreeError::NotFound) => {}
                Err(TreeError::Io(err)) => return Err(err),
                Err(err) => return Err(io::Error::other(err)),
            }
            if let (Some(own), Some(modified_ns)) = (self.inodes.get_mut(id), edition.modified_ns) {
                let attributes = &mut own.attributes;
                attributes.mtime_ns = modified_ns;
                attributes.changed_ns = attributes.changed_ns.max(Some(modified_ns));
            }
        }
        let mut names: BTreeMap<InodeId, Vec<(&Spot, Cow<'_, Held>)>> = BTreeMap::new();
        let mut planned = Planned::default();
        for (spot, held) in &self.names {
            match held.now.or(held.was) {
                _ if self.is_held_back(spot, held) => {}
                Some(id) if self.waits(&id, editions) => {
                    if let Some(was) = held.was.filter(|was| self.is_elsewhere(was)) {
                        // What has another name now gives this one up without waiting.
                        let given_up = Held { now: None, changed: 0, ..held.clone() };
                        names.entry(was).or_default().push((spot, Cow::Owned(given_up)));
                    }
                }
                Some(id) => names.entry(id).or_default().push((spot, Cow::Borrowed(held))),
                // Made and removed again before anybody knew of it.
                None => _ = planned.names.insert(spot.clone(), (held.changed, None, false)),
            }
        }
        let changed = self.inodes.iter().filter(|(_, own)| own.changed > 0).map(|(id, _)| *id);
        let mut ids: Vec<InodeId> = changed.chain(editions.keys().copied()).collect();
        ids.extend(names.keys().copied());
        ids.sort_unstable_by_key(|id| {
            let dir = self.inodes.get(id).is_some_and(|own| own.what == What::Dir);
            (!dir, *id)
        });
        ids.dedup();
        for id in ids {
            let Some(own) = self.inodes.get(&id) else { continue };
            let edition = editions.get(&id);
            if self.waits(&id, editions) {
                continue;
            }
            let names = names.remove(&id).unwrap_or_default();
            self.plan_one(tree, (id, own), edition, &names, &mut planned)?;
        }
        let now = planned.names.iter().filter_map(|(spot, (_, now, _))| Some((spot, (*now)?)));
        self.leaving = now.map(|(spot, id)| (spot.clone(), id)).collect();
        Ok(planned)
    }

    /// Whether an inode cannot be named yet: it is a new file of which no version is stored.
    fn waits(&self, id: &InodeId, editions: &BTreeMap<InodeId, Edition>) -> bool {
        let Some(own) = self.inodes.get(id) else { return false };
        own.what == What::File(None) && !editions.contains_key(id) && !own.names.is_empty()
    }

    fn plan_one(
        &self,
        tree: &Tree<'_>,
        (id, own): (InodeId, &Own),
        edition: Option<&Edition>,
        names: &[(&Spot, Cow<'_, Held>)],
        planned: &mut Planned,
    ) -> io::Result<()> {
        let mut changes = Vec::new();
        let attributes = own.attributes.clone();
        let what = match edition {
            Some(edition) => What::File(Some(edition.version.clone())),
            None => own.what.clone(),
        };
        let alive = !own.names.is_empty() || id == InodeId::ROOT;
        let is_dir = what == What::Dir;
        if (alive || is_dir && own.known)
            && (own.changed > 0 || edition.is_some())
            && let Some(node) = own.node(&what)
        {
            let change = Change::Inode { inode: id, node, attributes: attributes.clone() };
            changes.push((change, own.seen.clone()));
        }
        let is_said = !changes.is_empty();
        for (spot, held) in names {
            let is_file = |id: InodeId| self.inodes.get(&id).is_some_and(|o| o.what != What::Dir);
            let now = held.now.filter(|id| is_file(*id));
            let was = held.was.filter(|_| !held.was_dir);
            if (now != was || held.again)
                && let Some(name) = Name::new(&spot.1)
            {
                let target = match (now, was) {
                    (Some(id), _) => Target::Linked(id),
                    (None, Some(was)) if self.is_elsewhere(&was) => Target::Moved(was),
                    (None, _) => Target::Removed,
                };
                changes.push((Change::Entry { parent: spot.0, name, target }, held.seen.clone()));
            }
            let now_dir = held.now.is_some() && now.is_none();
            planned.names.insert((*spot).clone(), (held.changed, held.now, now_dir));
        }
        if edition.is_some() && own.known {
            let said = changes.len();
            self.keep_names(tree, id, own, &mut changes)?;
            planned.kept.extend(changes[said..].iter().filter_map(|(change, _)| match change {
                Change::Entry { parent, name, .. } => Some((*parent, name.as_bytes().to_vec())),
                Change::Inode { .. } => None,
            }));
        }
        let written = Written { changed: own.changed, what, attributes, is_said };
        planned.inodes.insert(id, written);
        if changes.len() > TOGETHER_MAX {
            // What has many names has one at every moment.
            changes.sort_by_key(|(change, _)| match change {
                Change::Inode { .. } => 0,
                Change::Entry { target: Target::Linked(_) | Target::Kept(_), .. } => 1,
                Change::Entry { .. } => 2,
            });
        }
        let names: Vec<Spot> = names.iter().map(|(spot, _)| (*spot).clone()).collect();
        let parts = changes.chunks(TOGETHER_MAX);
        planned.groups.extend(parts.map(|part| {
            let (changes, names) = (part.to_vec(), names.clone());
            Group { inode: id, changes, names }
        }));
        Ok(())
    }

    /// Whether what lost a name has another one.
    pub(super) fn is_elsewhere(&self, id: &InodeId) -> bool {
        self.inodes.get(id).is_some_and(|own| !own.names.is_empty())
    }

    /// An edit says the names of its file again, so that it beats a removal that it did not see. A
    /// name that others gave up for another one is not said again.
    fn keep_names(
        &self,
        tree: &Tree<'_>,
        id: InodeId,
        own: &Own,
        changes: &mut Vec<(Change, Heads)>,
    ) -> io::Result<()> {
        for spot in own.names.iter().filter(|spot| !self.names.contains_key(*spot)).take(KEPT_MAX) {
            let (parent, bytes) = spot;
            let there = tree.lookup(parent, bytes)?.map(|entry| entry.inode);
            if there != Some(id) && tree.links(&id)? > 0 {
                continue;
            }
            let seen = match there == Some(id) {
                true => tree.heads_of_name(parent, bytes)?,
                false => Heads::default(),
            };
            if let Some(name) = Name::new(bytes) {
                let target = Target::Kept(id);
                changes.push((Change::Entry { parent: *parent, name, target }, seen));
            }
        }
        Ok(())
    }

    /// The records of these changes are kept: what has not changed since is forgotten, unless
    /// `need` says that somebody needs it.
    pub fn settle(
        &mut self,
        planned: Planned,
        records: &[RecordId],
        clock: u64,
        need: &dyn Fn(&InodeId) -> Need,
    ) {
        self.leaving.clear();
        let seen: Heads = records.iter().copied().collect();
        for (spot, (changed, now, now_dir)) in planned.names {
            match self.names.get_mut(&spot) {
                Some(held) if held.changed > changed => {
                    (held.was, held.was_dir, held.seen) = (now, now_dir, seen.clone());
                }
                _ => _ = self.names.remove(&spot),
            }
        }
        for spot in planned.kept {
            // Touched while that was under way: whoever did so has seen it.
            if let Some(held) = self.names.get_mut(&spot) {
                held.seen.extend(seen.clone());
            }
        }
        for (id, written) in planned.inodes {
            let Written { changed, what, attributes, is_said } = written;
            let Some(own) = self.inodes.get_mut(&id) else { continue };
            if own.changed > changed {
                if what != What::Dir {
                    own.what = what;
                }
            } else {
                (own.what, own.attributes, own.changed) = (what, attributes, 0);
            }
            if is_said {
                (own.clock, own.seen) = (clock, seen.clone());
            }
            if !own.names.is_empty() {
                own.known = true;
            }
            if own.what == What::Dir {
                let now = own.names.first().and_then(place_of);
                if own.changed == 0 && own.was != now {
                    own.before = std::mem::replace(&mut own.was, now);
                }
            }
        }
        self.drop_settled(need);
    }

    /// Forgets what was looked at and not changed, unless `need` says that somebody needs it.
    pub fn rest(&mut self, need: &dyn Fn(&InodeId) -> Need) {
        self.names.retain(|_, held| held.changed > 0);
        self.drop_settled(need);
    }

    /// Forgets the inodes of which the replicated tree says all there is.
    fn drop_settled(&mut self, need: &dyn Fn(&InodeId) -> Need) {
        let names = &self.names;
        // The replicated tree still shows a name that another one has taken and that waits.
        let lost: BTreeSet<InodeId> = names.values().filter_map(|held| held.was).collect();
        self.inodes.retain(|id, own| {
            own.changed > 0
                || !own.known && !own.names.is_empty()
                || lost.contains(id)
                || own.names.iter().any(|spot| names.contains_key(spot))
                || match need(id) {
                    Need::Edited => true,
                    Need::Used => own.names.is_empty(),
                    Need::None => false,
                }
        });
        if names.is_empty() && self.inodes.is_empty() && self.ending.is_empty() {
            self.dropped.clear();
        }
    }
}

impl Own {
    /// What a record says of it.
    fn node(&self, what: &What) -> Option<Node> {
        Some(match what {
            What::File(version) => Node::File(version.clone()?),
            What::Link(target) => Node::Link(target.clone()),
            What::Special(special) => Node::Special(*special),
            What::Dir => {
                let place = self.names.first().and_then(place_of);
                let previous = match place == self.was {
                    true => self.before.clone(),
                    false => self.was.clone(),
                };
                Node::Dir { place, previous }
            }
        })
    }
}
