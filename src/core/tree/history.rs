//! What stood at a name, and what happened to it. Owns which versions a name has had, the numbers
//! that they are called by, and which of them is meant by what a person writes behind the name;
//! whether a version is kept any longer is `past`'s rule.
//!
//! A name has the versions of every file that it led to, as far as they are kept: of the one that
//! it leads to now all of them, also those made under another name, and of a former one those that
//! were made before the name led elsewhere. They are numbered from the oldest on, so a new version
//! changes no number; one that is let go does. What always holds are the digits of a hash.

use super::past::PastVersions;
use super::{Dirs, Tree, TreeError, Version, Which};
use crate::core::catalogue::browse::{self, ChangeAt, Opened};
use crate::core::catalogue::past::{Ended, is_let_go};
use crate::core::catalogue::{Change, Node, Target, is_released};
use crate::core::hlc;
use crate::id::{FileHash, InodeId, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Changes of a name that are looked at: the newest ones.
const NAMES: usize = 1024;
/// Versions that a history has: the newest ones. A thinned history has far fewer.
const VERSIONS: usize = 1024;

/// What happened to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Something was put there.
    Created,
    /// It got another content, or other attributes.
    Edited,
    /// The same, but a concurrent change has the name: this version is a conflict copy.
    Conflict,
    /// It came from another name; none: that cannot be said any more.
    MovedFrom(Option<Vec<u8>>),
    /// It went to another name.
    MovedTo(Option<Vec<u8>>),
    /// The name was removed.
    Removed,
    /// What was removed was given back.
    Restored,
}

/// A version that a name has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its number: 1 is the oldest that is kept.
    pub number: u64,
    /// The inode that it is a version of.
    pub inode: InodeId,
    /// The version.
    pub version: Version,
    /// Whether it is what the name shows now.
    pub current: bool,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When: hybrid logical clock.
    pub clock: u64,
    /// By whom.
    pub author: NodeId,
    /// What.
    pub deed: Deed,
    /// The version that it made; none: it was about the name alone.
    pub made: Option<Made>,
}

/// Why a version cannot be had. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// What stands behind the name is no way to call a version.
    #[error("neither a number, nor digits of a hash, nor a time")]
    Unreadable,
    /// The name has no such version, or not any more.
    #[error("no such version is kept")]
    Absent,
    /// Different versions have hashes that begin like that.
    #[error("several versions begin like that")]
    Ambiguous,
    /// The name led to nothing at that time, or to what is not kept any more.
    #[error("nothing that is kept stood there at that time")]
    Nothing,
    /// A directory has no versions.
    #[error("a directory has no versions")]
    Directory,
}

/// What stood at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What happened, newest first.
    pub steps: Vec<Step>,
    /// What the name led to, and from when until when; newest first.
    led: Vec<(InodeId, u64, u64)>,
}

/// A change of the name itself.
struct NameChange {
    at: ChangeAt,
    /// Clock of the first change that superseded it.
    ended: u64,
    target: Target,
    opened: Arc<Opened>,
}

impl Tree<'_> {
    /// What stood at a path; not found: nothing of it is known any more.
    pub fn history(&self, path: &[u8]) -> Result<History, TreeError> {
        let Some((dirs, name)) = self.place_of(path)? else { return Err(TreeError::NotFound) };
        if name.is_empty() {
            return Err(TreeError::IsADirectory);
        }
        let entry = self.lookup(dirs.first(), name)?;
        if entry.as_ref().is_some_and(super::Entry::is_dir) {
            return Err(TreeError::IsADirectory);
        }
        // The name of a conflict copy is that of the version, and has no register.
        let copy = entry.as_ref().filter(|entry| entry.conflict);
        let group = match copy {
            Some(_) => self.conflict_group(dirs.first(), name)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let name = group.first().map_or(name, |winner| &winner.name);
        let mut names = self.name_changes(&dirs, name)?;
        if let Some(copy) = copy {
            names.retain(|one| one.target.inode() == Some(copy.inode));
        }
        let shown = entry.as_ref().map(|entry| &entry.version);
        let mut steps = self.version_steps(&names, shown)?;
        for one in &names {
            steps.extend(self.name_step(one)?);
        }
        if steps.is_empty() {
            return Err(TreeError::NotFound);
        }
        steps.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let made = steps.iter_mut().rev().filter_map(|(_, step)| step.made.as_mut());
        for (number, made) in (1..).zip(made) {
            made.number = number;
        }
        let led = |one: &NameChange| Some((one.target.inode()?, one.at.clock, one.ended));
        let led = names.iter().filter_map(led).collect();
        Ok(History { steps: steps.into_iter().map(|(_, step)| step).collect(), led })
    }

    /// The changes of a name, newest first.
    fn name_changes(&self, dirs: &Dirs, name: &[u8]) -> io::Result<Vec<NameChange>> {
        let mut out = Vec::new();
        for tag in dirs.iter().flat_map(|dir| browse::tags_of(self.keyring, dir, name)) {
            for (at, ended) in browse::changes_under(self.view, &tag, NAMES)? {
                let Some(opened) = self.open(&at.id)? else { continue };
                let change = opened.changes.get(usize::from(at.change));
                let Some(Change::Entry { target, .. }) = change else { continue };
                let ended = if ended == 0 { u64::MAX } else { ended };
                out.push(NameChange { at, ended, target: *target, opened });
            }
        }
        out.sort_by_key(|one| std::cmp::Reverse(one.at));
        out.truncate(NAMES);
        Ok(out)
    }

    /// The versions of what a name led to.
    fn version_steps(
        &self,
        names: &[NameChange],
        shown: Option<&Version>,
    ) -> io::Result<Vec<(ChangeAt, Step)>> {
        let mut until: BTreeMap<InodeId, u64> = BTreeMap::new();
        for one in names {
            let Some(inode) = one.target.inode() else { continue };
            let last = until.entry(inode).or_insert(one.ended);
            *last = one.ended.max(*last);
        }
        let mut inodes: Vec<(u64, InodeId)> = until.into_iter().map(|(i, at)| (at, i)).collect();
        inodes.sort_unstable_by(|a, b| b.cmp(a));
        let mut out = Vec::new();
        for (until, inode) in inodes {
            let room = VERSIONS.saturating_sub(out.len());
            let heads = self.versions(&inode)?;
            let winner = heads.first().map(|head| (head.record, head.change));
            let past = self.kept_versions(&inode, until, room)?;
            let heads = heads.into_iter().filter(|head| head.clock < until).take(room);
            for (version, is_head) in
                heads.map(|head| (head, true)).chain(past.into_iter().map(|past| (past, false)))
            {
                if !self.has_content(&version)? {
                    continue;
                }
                let loses = is_head && winner != Some((version.record, version.change));
                out.push(self.version_step(inode, version, loses, shown)?);
            }
        }
        Ok(out)
    }

    fn version_step(
        &self,
        inode: InodeId,
        version: Version,
        loses: bool,
        shown: Option<&Version>,
    ) -> io::Result<(ChangeAt, Step)> {
        let at = ChangeAt { clock: version.clock, id: version.record, change: version.change };
        let opened = self.open(&at.id)?;
        let new = opened.is_some_and(|opened| gives_name(&opened, &Target::Linked(inode)));
        let deed = match (loses, new) {
            (true, _) => Deed::Conflict,
            (false, true) => Deed::Created,
            (false, false) => Deed::Edited,
        };
        let (clock, author) = (version.clock, version.author);
        let current = shown == Some(&version);
        let made = Some(Made { number: 0, inode, version, current });
        Ok((at, Step { clock, author, deed, made }))
    }

    /// The newest superseded versions of an inode that are kept and were made before `until`.
    fn kept_versions(&self, inode: &InodeId, until: u64, limit: usize) -> io::Result<Vec<Version>> {
        let mut rows: VecDeque<Ended> = VecDeque::new();
        let mut all = PastVersions::of(inode);
        while let Some(row) = all.next(self)? {
            if row.at.clock < until && !is_let_go(self.view, inode, &row.at)? {
                rows.push_back(row);
            }
            if rows.len() > limit {
                rows.pop_front();
            }
        }
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            out.extend(self.version(&row.at)?);
        }
        Ok(out)
    }

    /// Whether a version is of a file or link, and what it shows can still be had.
    fn has_content(&self, version: &Version) -> io::Result<bool> {
        Ok(match &version.node {
            Node::File(file) => !is_released(self.view, &file.claim)?,
            Node::Link(_) => true,
            Node::Dir { .. } | Node::Special(_) | Node::Shared(_) => false,
        })
    }

    /// What a change of the name says that no version says.
    fn name_step(&self, one: &NameChange) -> io::Result<Option<(ChangeAt, Step)>> {
        let deed = match one.target {
            Target::Removed => Deed::Removed,
            Target::Moved(inode) => {
                Deed::MovedTo(self.other_name(&one.opened, &Target::Linked(inode))?)
            }
            Target::Kept(_) => return Ok(None),
            Target::Linked(inode) if makes_version(&one.opened, inode) => return Ok(None),
            Target::Linked(inode) => {
                let moved = Target::Moved(inode);
                if gives_name(&one.opened, &moved) {
                    Deed::MovedFrom(self.other_name(&one.opened, &moved)?)
                } else {
                    Deed::Restored
                }
            }
        };
        let (clock, author) = (one.at.clock, one.opened.author);
        Ok(Some((one.at, Step { clock, author, deed, made: None })))
    }

    /// The path of the name that a record gives this target.
    pub(super) fn other_name(
        &self,
        opened: &Opened,
        wanted: &Target,
    ) -> io::Result<Option<Vec<u8>>> {
        for change in &opened.changes {
            if let Change::Entry { parent, name, target } = change
                && target == wanted
            {
                return self.path_once_in(parent, name.as_bytes());
            }
        }
        Ok(None)
    }
}

impl History {
    /// The version that is meant.
    pub fn find(&self, which: &Which) -> Result<&Made, VersionError> {
        let made = || self.steps.iter().filter_map(|step| step.made.as_ref());
        match which {
            Which::Number(number) => {
                made().find(|made| made.number == *number).ok_or(VersionError::Absent)
            }
            Which::Hash(digits) => {
                let mut found = made().filter(|made| {
                    hash_of(made).is_some_and(|hash| hash.to_string().starts_with(digits))
                });
                // Versions of one content are one as far as that goes: the newest stands for them.
                let first = found.next().ok_or(VersionError::Absent)?;
                let same = found.all(|made| hash_of(made) == hash_of(first));
                if same { Ok(first) } else { Err(VersionError::Ambiguous) }
            }
            Which::Moment(ms) => self.as_of(*ms).ok_or(VersionError::Nothing),
        }
    }

    /// What stood at the name at the end of that millisecond, or the nearest before it that is
    /// kept. Before something came from another name it is as it was under that.
    fn as_of(&self, ms: u64) -> Option<&Made> {
        let end = hlc::at_ms(ms.saturating_add(1));
        let at_that_time = |led: &&(InodeId, u64, u64)| led.1 < end && end <= led.2;
        let first = self.led.iter().min_by_key(|led| led.1).filter(|led| end <= led.1);
        let inode = self.led.iter().find(at_that_time).or(first)?.0;
        let made = self.steps.iter().filter_map(|step| step.made.as_ref());
        made.filter(|made| made.inode == inode).find(|made| made.version.clock < end)
    }
}

/// Whether a record makes a version of an inode.
fn makes_version(opened: &Opened, of: InodeId) -> bool {
    let is = |change: &Change| matches!(change, Change::Inode { inode, .. } if *inode == of);
    opened.changes.iter().any(is)
}

/// Whether a record has some name lead there.
fn gives_name(opened: &Opened, to: &Target) -> bool {
    let is = |change: &Change| matches!(change, Change::Entry { target, .. } if target == to);
    opened.changes.iter().any(is)
}

fn hash_of(made: &Made) -> Option<FileHash> {
    match &made.version.node {
        Node::File(file) => Some(file.hash),
        Node::Dir { .. } | Node::Link(_) | Node::Special(_) | Node::Shared(_) => None,
    }
}
