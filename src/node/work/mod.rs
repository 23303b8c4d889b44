//! The working tree at work: files and directories as programs on this machine see and change them.
//! Owns the state that the doors to it share; `door` has what they may ask, `body`, `holes`,
//! `content` and `draft` the bytes of files, `naming` and `slot` what is said of drafts, `restore`
//! what is found of them at a start, `room` whether they may grow, `edition` and `commit` how
//! changes become known to the others, and `news` how the others' changes become known here.
//!
//! Invariants: what a program has synced is on this disk; a version names as parents what was seen
//! when its edits began; of several locks that of a body's heads is taken first, then that of the
//! names, then the state's, then a body's, and that of what was renamed last.

mod ahead;
mod attributes;
mod body;
pub(super) mod commit;
mod content;
mod door;
mod draft;
mod edition;
mod file;
mod holes;
mod naming;
mod news;
mod restore;
mod room;
mod sealed;
mod sealing;
mod slot;
mod write;

pub use attributes::{Changes, Kind, Stat};
pub use door::{Made, Page, Share, Space, Work, Xattr};
pub use file::OpenedFile;
pub use news::{News, Stale};
pub(in crate::node) use room::Refused;
pub use write::Written;

use super::{GetError, NotReady, PublishError, PutError, Shared, lock};
use crate::core::catalogue::Name;
use crate::core::tree::{Heads, Spot, Tree, TreeError};
use crate::core::work::{Inode, Need, Number, Numbers, Recent, What, Working};
use crate::id::{InodeId, RecordId};
use crate::sys::{Fs, Time};
use body::Body;
use commit::Rounds;
use content::Clear;
use draft::{Named, SEEN_MAX, Seen, has_any};
use naming::{Naming, Noted};
use news::Told;
use room::Room;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, broadcast, watch};

/// Contents that are remembered though nobody has them open.
const IDLE_MAX: usize = 512;
/// Those of them of which the list of chunks is remembered, too.
const IDLE_OPEN_MAX: usize = 8;
/// Changes that may wait to be written down; programs wait then.
const PENDING_MAX: usize = 8192;
/// So many more may be removals.
const REMOVALS_MAX: usize = 1024;
/// Whoever changes something without a mount.
const NO_DOOR: u64 = 0;
/// News that a door may be behind.
const STALE_MAX: usize = 1024;
/// Synced drafts that are kept though their files are gone here; nothing says so to others yet.
const GONE_MAX: usize = 64;
/// Own records that are remembered.
const WRITTEN_MAX: usize = 1024;

/// Why something could not be done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The tree does not allow it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Bytes of it are not to be had.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A version of it could not be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A change could not be written down.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// This node cannot do it yet.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// There is no room for it.
    #[error("no space left")]
    NoSpace,
    /// A file can have at most 8 TiB.
    #[error("a file can have at most 8 TiB")]
    TooLarge,
    /// A name can have at most 255 bytes.
    #[error("a name can have at most 255 bytes")]
    NameTooLong,
    /// It has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// It is not for this kind of inode.
    #[error("not possible with this kind of file")]
    WrongKind,
    /// Too many parts of it were changed for a draft to list them.
    #[error("too many parts of a file were changed: it has to be stored first")]
    Unlisted,
    /// It took too long.
    #[error("it took too long")]
    TimedOut,
    /// The own disk failed.
    #[error("this node's disk failed: {0}")]
    Disk(#[from] io::Error),
}

/// What the working tree's doors share.
pub(super) struct Desk {
    state: Mutex<State>,
    /// Where names of files are said of which no version exists; taken before the state.
    naming: Mutex<Naming>,
    /// Files with drafts that have got or lost names since that was said; taken last.
    renamed: Mutex<BTreeMap<InodeId, Noted>>,
    clear: Clear,
    /// Held from a plan until what it came to is settled.
    writing: tokio::sync::Mutex<()>,
    /// Records of what conflict copies have become that are here and not at enough others.
    late: Mutex<Vec<Vec<u8>>>,
    /// Those were pushed once more.
    pushed: Notify,
    /// Something was changed that is to be written down.
    changed: Notify,
    rounds: Rounds,
    room: Room,
    /// What became stale by other ways than the catalogue's news.
    stale: broadcast::Sender<Told>,
    /// The number of the door that was opened last.
    doors: AtomicU64,
    /// How many changes wait.
    pending: watch::Sender<usize>,
    /// Whether what was synced before this node ended last is edited again.
    restored: watch::Sender<bool>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            naming: Mutex::default(),
            renamed: Mutex::default(),
            clear: Clear::default(),
            writing: tokio::sync::Mutex::default(),
            late: Mutex::default(),
            pushed: Notify::new(),
            changed: Notify::new(),
            rounds: Rounds::default(),
            room: Room::default(),
            stale: broadcast::channel(STALE_MAX).0,
            doors: AtomicU64::new(NO_DOOR),
            pending: watch::Sender::default(),
            restored: watch::Sender::default(),
        }
    }
}

impl Desk {
    /// Gives back what is only kept to be faster next time, and was not used for a while.
    pub(super) fn rest(&self, now: Time) {
        self.clear.rest(now);
    }
}

/// The state.
#[derive(Default)]
struct State {
    work: Working,
    numbers: Numbers,
    recent: Recent,
    bodies: BTreeMap<InodeId, Arc<Body>>,
    /// Bodies that nobody uses, those used last at the end.
    idle: VecDeque<InodeId>,
    /// Contents of which a draft was synced, and the name that they lost: until others know that,
    /// it is there again after a crash, and so must they be.
    gone: VecDeque<(Arc<Body>, Spot)>,
    /// Whether drafts were removed that the disk may still know of.
    removed: bool,
    /// Whether nothing can be changed any more, because the node leaves its swarm.
    closed: bool,
    /// Records that were written here lately.
    written: VecDeque<RecordId>,
    /// When the first and the last change was made that nobody else knows of.
    first: Option<Time>,
    last: Time,
}

impl State {
    /// What a number is for.
    fn find(&mut self, tree: &Tree<'_>, number: u64) -> Result<Inode, WorkError> {
        let found = match self.numbers.find(tree, &self.work, number)? {
            Some(Number::Copy(id, record)) => self.work.copy(tree, &id, &record)?,
            Some(Number::Inode(id)) => self.open_or_named(tree, &id)?,
            // What is open lives on without a name.
            None => match self.used_with(number) {
                Some(id) => self.open_or_named(tree, &id)?,
                None => None,
            },
        };
        found.ok_or(WorkError::Tree(TreeError::NotFound))
    }

    /// An inode, also one that others have removed while it is open here.
    fn open_or_named(&mut self, tree: &Tree<'_>, id: &InodeId) -> io::Result<Option<Inode>> {
        if self.bodies.get(id).is_some_and(|body| body.lock().users > 0) {
            self.work.keep(tree, id)?;
        }
        self.work.inode(tree, id)
    }

    /// The open file that has a number.
    fn used_with(&self, number: u64) -> Option<InodeId> {
        let mut from = [0; 16];
        from[..8].copy_from_slice(&number.to_be_bytes());
        let (id, body) = self.bodies.range(InodeId(from)..).next()?;
        (id.0[..8] == from[..8] && body.lock().users > 0).then_some(*id)
    }

    /// The directory that a number is for.
    fn dir(&mut self, tree: &Tree<'_>, number: u64) -> Result<InodeId, WorkError> {
        let inode = self.find(tree, number)?;
        if inode.is_dir() { Ok(inode.id) } else { Err(TreeError::NotADirectory(Vec::new()).into()) }
    }

    /// A name in the directory that a number is for.
    fn spot(&mut self, tree: &Tree<'_>, parent: u64, name: &[u8]) -> Result<Spot, WorkError> {
        if name.len() > crate::core::catalogue::NAME_MAX {
            return Err(WorkError::NameTooLong);
        }
        Ok((self.dir(tree, parent)?, name.to_vec()))
    }

    /// The content of a file, as it is used.
    fn body(&mut self, inode: &Inode) -> Arc<Body> {
        let version = match &inode.what {
            What::File(version) => version.clone(),
            _ => None,
        };
        if inode.copy.is_some() {
            return Arc::new(Body::new(inode.id, version));
        }
        if let Some(body) = self.bodies.get(&inode.id) {
            if let Some(version) = version {
                body.lock().rebase(&version);
            }
            return body.clone();
        }
        let body = Arc::new(Body::new(inode.id, version));
        self.bodies.insert(inode.id, body.clone());
        body
    }

    /// Whether somebody on this machine needs an inode.
    fn need(bodies: &BTreeMap<InodeId, Arc<Body>>, id: &InodeId) -> Need {
        let Some(body) = bodies.get(id) else { return Need::None };
        let content = body.lock();
        match (content.is_touched(), content.users) {
            (true, _) => Need::Edited,
            (false, 0) => Need::None,
            (false, _) => Need::Used,
        }
    }

    /// Contents that are edited, but of what has no name any more.
    fn unsaved(&self) -> impl Iterator<Item = &Arc<Body>> {
        let saved = |body: &Body| !body.lock().is_edited() || self.work.is_orphan(&body.id);
        self.bodies.values().filter(move |body| !saved(body))
    }

    /// Forgets what was looked at and not changed.
    fn rest(&mut self) {
        let Self { work, bodies, .. } = self;
        work.rest(&|id| Self::need(bodies, id));
    }

    /// Somebody has ended the use of a content.
    fn idle(&mut self, body: &Arc<Body>, fs: &dyn Fs) {
        let id = body.id;
        if self.work.is_orphan(&id) {
            self.bodies.remove(&id);
            self.work.forget(&id);
            let kept = self.is_kept(body);
            if !kept {
                is_removed(body.lock().drop_draft(fs));
            }
            return;
        }
        let rested = body.lock().rest(fs);
        if *rested.as_ref().unwrap_or(&true) {
            self.rest();
        }
        is_removed(rested.map(drop));
        if body.lock().is_edited() || !self.bodies.contains_key(&id) {
            return;
        }
        self.idle.retain(|other| *other != id);
        self.idle.push_back(id);
        if let Some(at) = self.idle.len().checked_sub(IDLE_OPEN_MAX + 1)
            && let Some(body) = self.bodies.get(&self.idle[at])
        {
            body.lock().close();
        }
        if self.idle.len() > IDLE_MAX
            && let Some(oldest) = self.idle.pop_front()
        {
            let unused = |body: &Arc<Body>| {
                let content = body.lock();
                content.users == 0 && !content.is_edited()
            };
            if self.bodies.get(&oldest).is_some_and(unused) {
                self.bodies.remove(&oldest);
            }
        }
    }

    /// Whether the draft of a content that has no name any more is still needed.
    fn is_kept(&self, body: &Arc<Body>) -> bool {
        self.gone.iter().any(|(gone, _)| Arc::ptr_eq(gone, body))
    }

    /// A content has lost its last name. What was synced of it goes when others know that.
    fn lose(&mut self, fs: &dyn Fs, body: Arc<Body>, spot: Spot) {
        let mut content = body.lock();
        if content.users == 0 {
            self.bodies.remove(&body.id);
        }
        if content.may_be_said() {
            drop(content);
            self.gone.push_back((body, spot));
            return self.drop_gone(fs);
        }
        let unused = content.users == 0;
        // Without a head it is nothing to whoever finds it.
        is_removed(if unused { content.drop_draft(fs) } else { content.unname_draft(fs) });
    }

    /// Removes the drafts of contents that others know to be gone. One that the disk does not let
    /// go of would be edited again after a restart: it is tried again.
    fn drop_gone(&mut self, fs: &dyn Fs) {
        let over = self.gone.len().saturating_sub(GONE_MAX);
        for (number, (body, spot)) in std::mem::take(&mut self.gone).into_iter().enumerate() {
            if number >= over && self.work.is_pending(&spot) {
                self.gone.push_back((body, spot));
                continue;
            }
            let again = self.bodies.contains_key(&body.id) && !self.work.is_orphan(&body.id);
            if again {
                continue;
            }
            self.removed = true;
            let removed = is_removed(body.lock().unname_draft(fs));
            if !removed && self.gone.len() < GONE_MAX {
                self.gone.push_back((body, spot));
            }
        }
    }

    /// Notes a change that is to be written down.
    fn changed(&mut self, now: Time) {
        self.first.get_or_insert(now);
        self.last = now;
    }
}

impl Shared {
    /// Makes no change any more.
    pub(super) fn close_work(&self) {
        lock(&self.work.state).closed = true;
    }

    /// Whether there are changes that no record says yet, or files of a former run of this node of
    /// which a version is still to be made.
    pub(super) fn has_unwritten_work(&self) -> bool {
        let state = lock(&self.work.state);
        state.work.pending() > 0 || state.unsaved().next().is_some() || has_any(self.drafts())
    }

    /// Looks at the tree.
    fn tree<T>(
        &self,
        look: impl FnOnce(&Tree<'_>) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        self.keys()?;
        let keyring = self.catalogue.keyring();
        let mut out = None;
        self.read_records(|view| {
            out = Some(look(&Tree::new(view, &keyring)));
            Ok(())
        })?;
        out.unwrap_or(Err(WorkError::Tree(TreeError::NotFound)))
    }
}

/// Whether a draft could be removed. What made that necessary is done all the same, and nobody is
/// told that it was not.
fn is_removed(removed: io::Result<()>) -> bool {
    removed.inspect_err(|err| tracing::warn!(%err, "a draft is not removed")).is_ok()
}

/// The records of what was seen, as many as a draft lists.
fn listed(seen: Option<&Heads>) -> Vec<RecordId> {
    seen.into_iter().flat_map(Heads::iter).copied().take(64).collect()
}

/// The names of a file with what was seen of each, as many as a draft lists.
fn named(names: Vec<(Spot, Option<Heads>)>) -> Vec<Named> {
    let name = |((parent, name), seen): (Spot, Option<Heads>)| {
        let seen = seen.map(|seen| Seen(seen.iter().copied().take(SEEN_MAX).collect()));
        Some(Named { parent, name: Name::new(&name)?, seen })
    };
    names.into_iter().filter_map(name).take(64).collect()
}
