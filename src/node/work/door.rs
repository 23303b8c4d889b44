//! What a mount may ask of the working tree: names, attributes, files. Each question is answered
//! from what is here; only the bytes of files (`file`) may have to come from others.

use super::attributes::{Changes, Kind, Stat};
use super::body::Body;
use super::draft::sync_removals;
use super::file::OpenedFile;
use super::news::Stale;
use super::{Desk, NO_DOOR, PENDING_MAX, REMOVALS_MAX, Shared, State, WorkError};
use crate::core::catalogue::{Attributes, Special};
use crate::core::tree::{Spot, Tree, TreeError, components};
use crate::core::work::{Inode, Number, ROOT_NUMBER, Renaming, Unlinked, What};
use crate::id::InodeId;
use crate::node::{Node, NotReady, lock};
use crate::wire::control::PathText;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A handle on the working tree of a node.
#[derive(Clone)]
pub struct Work {
    pub(super) shared: Arc<Shared>,
    /// The number of the door that it is used through: what is changed through one is news at the
    /// others.
    pub(super) door: u64,
}

/// What can be made besides files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// An empty file, without opening it.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// A pipe, socket or device.
    Special(Special),
}

/// The share of the changes that may wait to be written down which one counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// That of all changes.
    All,
    /// That of removals, and of what only gives a file a length, beside it: when new files find no
    /// room in the swarm they wait, however many they are, and nothing else could end that.
    Removals,
}

impl Share {
    const fn limit(self) -> usize {
        match self {
            Self::All => PENDING_MAX,
            Self::Removals => PENDING_MAX + REMOVALS_MAX,
        }
    }
}

/// An extended attribute: its name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Some of what is in a directory.
#[derive(Debug)]
pub struct Page {
    /// Names with what programs see of what they lead to, sorted.
    pub entries: Vec<(Vec<u8>, Stat)>,
    /// The name after which there is more; none: this was all.
    pub next: Option<Vec<u8>>,
}

/// The room of the swarm, as far as files can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes of files that there could be.
    pub total: u64,
    /// Bytes of files that there is room for.
    pub free: u64,
    /// Files that there are.
    pub files: u64,
}

impl Node {
    /// The working tree.
    pub fn work(&self) -> Work {
        Work { shared: self.shared.clone(), door: NO_DOOR }
    }
}

impl Work {
    /// The same through another door, which hears of what is changed through this one.
    pub fn another_door(&self) -> Self {
        let door = self.desk().doors.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared: self.shared.clone(), door }
    }

    /// The user and the group who own what records no owner: whoever runs this node.
    pub fn user(&self) -> (u32, u32) {
        self.shared.sys.user
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.shared.work
    }

    /// Looks at what there is.
    fn look<T>(
        &self,
        look: impl FnOnce(&mut State, &Tree<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let state = &mut *lock(&self.desk().state);
        self.shared.tree(|tree| look(state, tree))
    }

    /// Changes something that is to be written down.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut State, &Tree<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        self.change_in(&mut lock(&self.desk().state), change)
    }

    fn change_in<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut State, &Tree<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        if state.closed {
            return Err(NotReady::Waiting.into());
        }
        let before = state.work.changes();
        let out = self.shared.tree(|tree| change(state, tree)).inspect_err(|_| state.rest());
        // What fails when something was changed already leaves that to be written down.
        if out.is_ok() || state.work.changes() != before {
            state.changed(self.shared.sys.clock.now());
            self.desk().pending.send_replace(state.work.pending());
            self.desk().changed.notify_one();
        }
        out
    }

    /// Whether there is room for another change.
    pub fn has_room(&self, share: Share) -> bool {
        *self.desk().pending.borrow() < share.limit()
    }

    /// Waits until there is room for another change.
    pub async fn room(&self, share: Share) {
        let mut pending = self.desk().pending.subscribe();
        // The sender lives as long as the node.
        pending.wait_for(|pending| *pending < share.limit()).await.ok();
    }

    /// The number of the directory at a path.
    pub fn dir_at(&self, path: &PathText) -> Result<u64, WorkError> {
        let stat = self.walk(&components(&path.0)?)?;
        match stat.kind {
            Kind::Dir => Ok(stat.number),
            _ => Err(TreeError::NotADirectory(path.0.clone()).into()),
        }
    }

    /// What names lead to from the root down, as it is seen here: also where nobody else knows of
    /// one of them yet.
    pub(super) fn walk(&self, names: &[&[u8]]) -> Result<Stat, WorkError> {
        let mut at = self.stat(ROOT_NUMBER)?;
        let mut last: &[u8] = b"/";
        for name in names {
            if at.kind != Kind::Dir {
                return Err(TreeError::NotADirectory(last.to_vec()).into());
            }
            (at, last) = (self.lookup(at.number, name)?, name);
        }
        Ok(at)
    }

    /// What a name leads to.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Stat, WorkError> {
        self.look(|state, tree| {
            let (dir, name) = state.spot(tree, parent, name)?;
            let inode = state.work.lookup(tree, &dir, &name)?.ok_or(TreeError::NotFound)?;
            Ok(state.stat(tree, &inode)?)
        })
    }

    /// What programs see of an inode.
    pub fn stat(&self, number: u64) -> Result<Stat, WorkError> {
        self.look(|state, tree| {
            let inode = state.find(tree, number)?;
            Ok(state.stat(tree, &inode)?)
        })
    }

    /// Changes attributes; a change of the length may have to bring bytes.
    pub async fn set(&self, number: u64, changes: &Changes) -> Result<Stat, WorkError> {
        if let Some(size) = changes.size {
            let file = self.open(number, true)?;
            file.resize(size).await?;
        }
        if changes.has_attributes() || changes.lends_nothing && self.stat(number)?.lends() {
            self.set_attributes(number, changes)?;
        }
        self.stat(number)
    }

    /// Changes attributes other than the length.
    pub(super) fn set_attributes(&self, number: u64, changes: &Changes) -> Result<(), WorkError> {
        let (now_ns, user) = (self.shared.now_ns(), self.user());
        self.change(|state, tree| {
            let inode = state.find(tree, number)?;
            let id = mine(&inode)?;
            let apply = |to: &mut _| changes.apply(&inode.what, to, user, now_ns);
            state.work.set(tree, &id, apply)?;
            if changes.modified_ns.is_some() {
                state.recent.told(&id);
                if let Some(body) = state.bodies.get(&id) {
                    body.lock().modified_ns = None;
                }
            }
            Ok(())
        })?;
        self.tell_others([Stale::Inode(number)]);
        Ok(())
    }

    /// What a link points to.
    pub fn read_link(&self, number: u64) -> Result<Vec<u8>, WorkError> {
        self.look(|state, tree| match state.find(tree, number)?.what {
            What::Link(target) => Ok(target),
            _ => Err(WorkError::WrongKind),
        })
    }

    /// Makes something; `owner` where it is not whoever runs this node.
    pub fn make(
        &self,
        parent: u64,
        name: &[u8],
        made: Made,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Stat, WorkError> {
        let what = match made {
            Made::File => What::File(None),
            Made::Dir => What::Dir,
            Made::Link(target) => What::Link(target),
            Made::Special(special) => What::Special(special),
        };
        let stat = self.change(|state, tree| {
            let inode = self.new_inode(state, tree, (parent, name), what, (mode, owner))?;
            Ok(state.stat(tree, &inode)?)
        })?;
        self.tell_others(entered(parent, name));
        Ok(stat)
    }

    /// Makes a file and opens it.
    pub fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(Stat, OpenedFile), WorkError> {
        let state = &mut *lock(&self.desk().state);
        let (stat, body) = self.change_in(state, |state, tree| {
            let what = What::File(None);
            let inode = self.new_inode(state, tree, (parent, name), what, (mode, owner))?;
            Ok((state.stat(tree, &inode)?, state.body(&inode)))
        })?;
        self.tell_others(entered(parent, name));
        // Counted as used before anybody else can forget the content; nothing fails from here on.
        let file = OpenedFile::new(self, body, stat.number, true);
        Ok((stat, file))
    }

    fn new_inode(
        &self,
        state: &mut State,
        tree: &Tree<'_>,
        (parent, name): (u64, &[u8]),
        what: What,
        (mode, mut owner): (u32, Option<(u32, u32)>),
    ) -> Result<Inode, WorkError> {
        let spot = state.spot(tree, parent, name)?;
        let above = state.work.inode(tree, &spot.0)?.ok_or(TreeError::NotFound)?.attributes;
        let mut mode = mode & 0o7777;
        if above.mode & 0o2000 != 0 {
            // A directory with this bit gives its group to what is made in it.
            let mine = self.user();
            let made = (owner.unwrap_or(mine).0, above.owner.unwrap_or(mine).1);
            owner = Some(made).filter(|made| *made != mine);
            mode |= if what == What::Dir { 0o2000 } else { 0 };
        }
        let id = self.free_inode(state, tree)?;
        let now_ns = self.shared.now_ns();
        let (mtime_ns, changed_ns) = (now_ns, Some(now_ns));
        let attributes = Attributes { mode, mtime_ns, changed_ns, owner, ..Default::default() };
        let is_file = what == What::File(None);
        state.work.create(tree, &spot, id, what, attributes)?;
        state.recent.entered(spot.0, now_ns);
        let inode = state.work.inode(tree, &id)?.ok_or(TreeError::NotFound)?;
        if is_file {
            let body = state.body(&inode);
            let now = self.shared.sys.clock.now();
            let mut content = body.lock();
            (content.since, content.last) = (now, now);
        }
        Ok(inode)
    }

    /// Removes a name: of a directory when `dir`, otherwise of anything else.
    pub fn remove(&self, parent: u64, name: &[u8], dir: bool) -> Result<(), WorkError> {
        let now_ns = self.shared.now_ns();
        let gone = self.change(|state, tree| {
            let spot = state.spot(tree, parent, name)?;
            let gone = state.work.remove(tree, &spot, dir)?;
            self.shared.note_renamed(state, &gone.id);
            state.recent.entered(spot.0, now_ns);
            self.unlinked(state, gone, spot, now_ns);
            state.number(tree, gone.id)
        })?;
        self.tell_others(entered(parent, name).into_iter().chain([Stale::Inode(gone)]));
        Ok(())
    }

    /// What becomes of the content of something that lost this name.
    fn unlinked(&self, state: &mut State, gone: Unlinked, spot: Spot, now_ns: i64) {
        state.recent.changed(gone.id, now_ns);
        if let Some(body) = state.bodies.get(&gone.id).filter(|_| gone.last).cloned() {
            state.lose(&*self.shared.sys.fs, body, spot);
        }
    }

    /// Gives something another name.
    pub fn rename(
        &self,
        (parent, name): (u64, &[u8]),
        (to_parent, to_name): (u64, &[u8]),
        how: Renaming,
    ) -> Result<(), WorkError> {
        let now_ns = self.shared.now_ns();
        let changed = self.change(|state, tree| {
            let from: Spot = state.spot(tree, parent, name)?;
            let to: Spot = state.spot(tree, to_parent, to_name)?;
            let moved = state.work.lookup(tree, &from.0, &from.1)?;
            if let Some(copy) = moved.as_ref().filter(|inode| inode.copy.is_some()) {
                return self.name_copy(state, tree, copy, (from, to), how);
            }
            let there = state.work.lookup(tree, &to.0, &to.1)?;
            let gone = state.work.rename(tree, &from, &to, how)?;
            let both = moved.iter().chain(&there);
            both.for_each(|inode| self.shared.note_renamed(state, &inode.id));
            [from.0, to.0].into_iter().for_each(|dir| state.recent.entered(dir, now_ns));
            let mut changed = Vec::new();
            if let Some(inode) = moved {
                state.recent.changed(inode.id, now_ns);
                changed.push(Stale::Inode(state.number(tree, inode.id)?));
            }
            if let Some(gone) = gone {
                self.unlinked(state, gone, to, now_ns);
                changed.push(Stale::Inode(state.number(tree, gone.id)?));
            }
            Ok(changed)
        })?;
        let names = entered(parent, name).into_iter().chain(entered(to_parent, to_name));
        self.tell_others(names.chain(changed));
        Ok(())
    }

    /// Gives a conflict copy a name of its own. What is not as programs were told.
    fn name_copy(
        &self,
        state: &mut State,
        tree: &Tree<'_>,
        copy: &Inode,
        (from, to): (Spot, Spot),
        how: Renaming,
    ) -> Result<Vec<Stale>, WorkError> {
        let new = self.free_inode(state, tree)?;
        let named = state.work.name_copy(tree, &from, &to, how, new)?;
        let now_ns = self.shared.now_ns();
        [from.0, to.0].into_iter().for_each(|dir| state.recent.entered(dir, now_ns));
        state.recent.changed(named.inode, now_ns);
        if let Some(content) = named.content {
            let body = Body::copied(named.inode, content, self.shared.sys.clock.now());
            state.bodies.insert(named.inode, Arc::new(body));
        }
        // The system goes on to know it by the number that the copy had.
        state.numbers.become_of(&copy.number(), Number::Inode(named.inode));
        let mut changed = vec![Stale::Inode(state.number(tree, named.inode)?)];
        if let Some(gone) = named.gone {
            self.shared.note_renamed(state, &gone.id);
            self.unlinked(state, gone, to, now_ns);
            changed.push(Stale::Inode(state.number(tree, gone.id)?));
        }
        Ok(changed)
    }

    /// An inode that nothing has, nor its number.
    fn free_inode(&self, state: &State, tree: &Tree<'_>) -> Result<InodeId, WorkError> {
        loop {
            let id = self.shared.new_inode();
            if state.numbers.is_free(tree, &state.work, &id)? {
                return Ok(id);
            }
        }
    }

    /// Gives an inode one more name.
    pub fn link(&self, number: u64, parent: u64, name: &[u8]) -> Result<Stat, WorkError> {
        let now_ns = self.shared.now_ns();
        let stat = self.change(|state, tree| {
            let inode = state.find(tree, number)?;
            let id = mine(&inode)?;
            let spot = state.spot(tree, parent, name)?;
            state.work.link(tree, id, &spot)?;
            self.shared.note_renamed(state, &id);
            state.recent.entered(spot.0, now_ns);
            state.recent.changed(id, now_ns);
            let inode = state.find(tree, number)?;
            Ok(state.stat(tree, &inode)?)
        })?;
        self.tell_others(entered(parent, name).into_iter().chain([Stale::Inode(number)]));
        Ok(stat)
    }

    /// Opens a file.
    pub fn open(&self, number: u64, writes: bool) -> Result<OpenedFile, WorkError> {
        let state = &mut *lock(&self.desk().state);
        let body = self.shared.tree(|tree| {
            let inode = state.find(tree, number)?;
            if !matches!(inode.what, What::File(_)) {
                return Err(match inode.is_dir() {
                    true => TreeError::IsADirectory.into(),
                    false => WorkError::WrongKind,
                });
            }
            if writes {
                mine(&inode)?;
            }
            Ok(state.body(&inode))
        })?;
        // Counted as used before anybody else can forget the content; nothing fails from here on.
        Ok(OpenedFile::new(self, body, number, writes))
    }

    /// Some of what is in a directory, from behind a name on.
    pub fn list(&self, dir: u64, after: Option<&[u8]>, limit: usize) -> Result<Page, WorkError> {
        self.look(|state, tree| {
            let dir = state.dir(tree, dir)?;
            let page = state.work.list(tree, &dir, after, limit)?;
            let mut entries = Vec::with_capacity(page.entries.len());
            for (name, inode) in page.entries {
                entries.push((name, state.stat(tree, &inode)?));
            }
            Ok(Page { entries, next: page.next })
        })
    }

    /// The number of the directory that a directory is in.
    pub fn parent(&self, number: u64) -> Result<u64, WorkError> {
        self.look(|state, tree| {
            let dir = state.dir(tree, number)?;
            let above = state.work.place(tree, &dir)?.map_or(dir, |(above, _)| above);
            let inode = state.work.inode(tree, &above)?.ok_or(TreeError::NotFound)?;
            Ok(state.stat(tree, &inode)?.number)
        })
    }

    /// The room of the swarm.
    pub fn space(&self) -> Result<Space, WorkError> {
        let view = self.shared.view();
        let replicas = u64::from(self.shared.config.replicas).max(1);
        let (mut total, mut free) = (0_u64, 0_u64);
        for member in view.members.values().filter(|member| member.lives()) {
            let capacity = member.record.capacity;
            let used = capacity / 64 * u64::from(member.record.used);
            total = total.saturating_add(capacity);
            free = free.saturating_add(capacity.saturating_sub(used));
        }
        // What no version has room for does not fit, whatever the shares of nodes say.
        if self.shared.is_short_of_room() {
            free = 0;
        }
        let copies = replicas.min(view.with_room().max(1) as u64);
        let tally = self.shared.read_records(|view| crate::core::catalogue::tally(view))?;
        Ok(Space { total: total / copies, free: free / copies, files: tally.files })
    }

    /// An extended attribute of an inode, as programs have set it.
    pub fn xattr(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, WorkError> {
        let xattrs = self.xattrs(number)?.into_iter();
        let mut found = xattrs.filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value).ok_or(WorkError::NoAttribute)
    }

    /// All extended attributes of an inode.
    pub fn xattrs(&self, number: u64) -> Result<Vec<Xattr>, WorkError> {
        self.look(|state, tree| Ok(state.find(tree, number)?.attributes.xattrs))
    }

    /// Sets an extended attribute, or with no value removes it.
    pub fn set_xattr(
        &self,
        number: u64,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), WorkError> {
        let now_ns = self.shared.now_ns();
        self.change(|state, tree| {
            let inode = state.find(tree, number)?;
            state.set_xattr(tree, &mine(&inode)?, name, value, now_ns)
        })?;
        self.tell_others([Stale::Inode(number)]);
        Ok(())
    }

    /// Makes what was done in a directory durable.
    pub async fn sync_dir(&self, number: u64) -> Result<(), WorkError> {
        let bodies: Vec<_> = self.look(|state, tree| {
            let dir = state.dir(tree, number)?;
            let unnamed = state.bodies.values().filter(|body| body.lock().is_unnamed());
            let unnamed: Vec<_> = unnamed.cloned().collect();
            let work = &state.work;
            let inside = |id: &InodeId| {
                let names = work.names(tree, id, 64).unwrap_or_default();
                names.iter().any(|(parent, _)| *parent == dir)
            };
            Ok(unnamed.into_iter().filter(|body| inside(&body.id)).collect())
        })?;
        self.shared.sync_names().await?;
        for body in bodies {
            self.shared.sync_body(&body).await?;
        }
        self.shared.write_down_names().await?;
        self.shared.end_copies().await;
        let removed = std::mem::take(&mut lock(&self.desk().state).removed);
        if removed {
            let shared = self.shared.clone();
            self.shared.job(move || sync_removals(shared.drafts())).await??;
        }
        Ok(())
    }

    /// Waits until what was synced before this node ended last is there again.
    pub async fn restored(&self) {
        // The sender lives as long as the node.
        self.desk().restored.subscribe().wait_for(|restored| *restored).await.ok();
    }

    /// Makes everything known to the others, or durable at least; waits so long.
    pub async fn flush(&self, patience: Duration) -> Result<(), WorkError> {
        self.shared.flush(patience).await
    }

    /// Makes everything durable here, also what programs did not sync.
    pub async fn sync_all(&self) -> Result<(), WorkError> {
        let dirs = lock(&self.desk().state).work.has_new_dirs();
        let names = async { if dirs { self.shared.write_down_names().await } else { Ok(()) } };
        // Names may wait for other nodes, which must not hold up this disk.
        let (synced, named) = tokio::join!(self.shared.sync_all(), names);
        synced.and(named)
    }

    /// Files of which a version has not been made yet, and their bytes.
    pub fn unsaved(&self) -> (u64, u64) {
        let state = lock(&self.desk().state);
        state.unsaved().fold((0, 0), |(files, bytes), body| (files + 1, bytes + body.lock().used()))
    }
}

/// What another content of a directory makes stale.
fn entered(dir: u64, name: &[u8]) -> [Stale; 2] {
    [Stale::Name(dir, name.to_vec()), Stale::Inode(dir)]
}

/// The inode, unless it is of a conflict copy, which nobody changes in place.
fn mine(inode: &Inode) -> Result<InodeId, WorkError> {
    if inode.copy.is_some() { Err(TreeError::ConflictCopy.into()) } else { Ok(inode.id) }
}
