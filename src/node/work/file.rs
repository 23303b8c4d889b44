//! An open file: reading, writing, syncing. Owns the count of who uses a content; when the last
//! writer is gone a version is made of it.

use super::attributes::Changes;
use super::body::{Body, Content};
use super::content::Tried;
use super::door::Work;
use super::draft::{Head, Saying};
use super::news::Stale;
use super::{State, WorkError, listed, named};
use crate::core::tree::TreeError;
use crate::core::work::What;
use crate::id::{FileHash, InodeId};
use crate::node::{Shared, lock};
use std::sync::Arc;

/// A file that a program has open.
pub struct OpenedFile {
    pub(super) work: Work,
    pub(super) body: Arc<Body>,
    number: u64,
    pub(super) writes: bool,
    same: bool,
}

/// What came of making a file shorter.
pub(super) enum Cut {
    /// It is shorter.
    Done,
    /// It is not as it was when that was begun.
    NotReady,
    /// There is too much to be said of its draft.
    Unlisted,
}

impl OpenedFile {
    /// Its end takes the state's lock: it must not be made and dropped by who has that.
    pub(super) fn new(work: &Work, body: Arc<Body>, number: u64, writes: bool) -> Self {
        let same = {
            let mut content = body.lock();
            content.users += 1;
            content.writers += u32::from(writes);
            content.opened_by(work.door)
        };
        Self { work: work.clone(), body, number, writes, same }
    }

    /// Whether its content is what it was when it was opened last through the same mount, which
    /// may have changed it itself: what was remembered of it is right.
    pub const fn is_same(&self) -> bool {
        self.same
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.body.lock().size()
    }

    /// Bytes of it, fewer at its end.
    pub async fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, WorkError> {
        self.work.shared.read_body(&self.body, at, len).await
    }

    /// Whether a version of it was refused for want of room. Who writes is told; what a program
    /// has written through a memory map comes too late for that, and is taken.
    pub fn is_refused(&self) -> bool {
        self.body.lock().refused().is_some()
    }

    /// Writes bytes if nothing has to be brought for that, without an offset at the end, whoever
    /// has moved it. Where that was; none: [`Self::write`] does it.
    pub fn write_now(&self, at: Option<u64>, bytes: &[u8]) -> Result<Option<u64>, WorkError> {
        match self.work.shared.try_write(&self.body, at, bytes)? {
            Tried::Written(at) => {
                self.changed();
                Ok(Some(at))
            }
            Tried::Misses(_) => Ok(None),
        }
    }

    /// Writes bytes, without an offset at the end; where that was.
    pub async fn write(&self, at: Option<u64>, bytes: &[u8]) -> Result<u64, WorkError> {
        let at = self.work.shared.write_body(&self.body, at, bytes).await?;
        self.changed();
        Ok(at)
    }

    /// Gives it another length.
    pub async fn resize(&self, to: u64) -> Result<(), WorkError> {
        if self.work.shared.resize_body(&self.body, to).await? {
            self.changed();
            return Ok(());
        }
        // Whoever cuts a file to the length that it has says that it was modified.
        let now = Changes { modified_ns: Some(None), ..Changes::default() };
        self.work.set_attributes(self.number, &now)
    }

    /// Other mounts have to forget what they remember of it.
    fn changed(&self) {
        self.body.lock().changed_by(self.work.door);
        self.work.tell_others([Stale::Inode(self.number)]);
    }

    /// The system of this mount has to forget what it remembers of it, too.
    pub fn forget(&self) {
        self.work.tell_all([Stale::Inode(self.number)]);
    }

    /// Makes bytes zero, as far as the file goes, and gives their room back.
    pub async fn punch(&self, at: u64, len: u64) -> Result<(), WorkError> {
        self.work.shared.punch_body(&self.body, at, len).await?;
        self.changed();
        Ok(())
    }

    /// The next offset from `at` on with data, or with a hole; none: there is no more data.
    pub fn seek(&self, at: u64, data: bool) -> Option<u64> {
        self.body.lock().seek(at, data)
    }

    /// Makes it durable here, with its names.
    pub async fn sync(&self) -> Result<(), WorkError> {
        let shared = &self.work.shared;
        let names = {
            let work = &lock(&shared.work.state).work;
            let id = &self.body.id;
            // A draft says the attributes of a file, and its names if nobody else knows of them.
            let said = self.body.lock().is_edited();
            work.has_new_dirs() || work.has_new_names(id) || !said && work.is_changed(id)
        };
        if names {
            shared.write_down_names().await?;
        }
        shared.sync_body(&self.body).await
    }

    /// Makes a version of it now, known to the others when it returns; its hash and length.
    pub async fn publish(&self) -> Result<(FileHash, u64), WorkError> {
        let shared = &self.work.shared;
        self.body.lock().urgent = true;
        let failed = shared.round(false).await?;
        let content = self.body.lock();
        let version = content.base().filter(|_| !content.is_edited());
        let made = version.map(|version| (version.hash, version.size));
        made.ok_or_else(|| failed.unwrap_or(WorkError::TimedOut))
    }
}

impl Drop for OpenedFile {
    fn drop(&mut self) {
        let desk = &self.work.shared.work;
        let state = &mut *lock(&desk.state);
        let (last, edited) = {
            let mut content = self.body.lock();
            content.users -= 1;
            content.writers -= u32::from(self.writes);
            (content.users == 0, content.is_edited())
        };
        if self.writes && edited {
            state.changed(self.work.shared.sys.clock.now());
            desk.changed.notify_one();
        }
        if last {
            let fs = &*self.work.shared.sys.fs;
            state.idle(&self.body, fs);
        }
    }
}

impl Work {
    /// The hash of what a file is, unless it is being edited.
    pub fn hash(&self, number: u64) -> Result<Option<FileHash>, WorkError> {
        let state = &mut *lock(&self.shared.work.state);
        self.shared.tree(|tree| {
            let inode = state.find(tree, number)?;
            let edited = |body: &Arc<Body>| body.lock().is_edited();
            if inode.copy.is_none() && state.bodies.get(&inode.id).is_some_and(edited) {
                return Ok(None);
            }
            match inode.what {
                What::File(version) => Ok(version.map(|version| version.hash)),
                _ => Err(WorkError::NoAttribute),
            }
        })
    }
}

impl Shared {
    /// Makes the edits of a file durable here.
    pub(super) async fn sync_body(self: &Arc<Self>, body: &Arc<Body>) -> Result<(), WorkError> {
        let (shared, synced) = (self.clone(), body.clone());
        let done = self.job(move || shared.sync_draft(&synced)).await?;
        if done? {
            return Ok(());
        }
        // Too much to be listed, or nothing that can be found again: a version is made instead.
        body.lock().urgent = true;
        let failed = self.round(false).await?;
        let content = body.lock();
        match failed {
            Some(err) if content.is_edited() => Err(err),
            // It had no turn, because there was no room for it a moment ago.
            None if content.refused().is_some() => Err(WorkError::NoSpace),
            _ => Ok(()),
        }
    }

    /// Whether a draft could be made durable.
    pub(super) fn sync_draft(&self, body: &Body) -> Result<bool, WorkError> {
        let place = self.drafts();
        let _heads = body.heads();
        let mut naming = lock(&self.work.naming);
        naming.ready(place)?;
        let state = lock(&self.work.state);
        let renamed = self.renamed(&naming, &state, body.id);
        let (saying, draft) = {
            let mut content = body.lock();
            if !content.is_edited() || state.work.is_orphan(&body.id) {
                return Ok(true);
            }
            let mut saying = self.saying(&state, body.id, &content, u64::MAX)?;
            saying.head.list = renamed.list(&naming);
            (saying, content.draft_for_sync(place, &body.id)?)
        };
        drop(state);
        if draft.is_removed() {
            // Others gave the file its name back when it had gone here.
            return Ok(false);
        }
        Ok(self.say(naming, &renamed, &draft, &saying)?)
    }

    /// Makes a file shorter of which something was synced: that is said first, so that who finds
    /// the draft does not miss what was dropped.
    ///
    /// Others read and write while that becomes durable. Nobody else writes a head until the bytes
    /// are dropped, so the newest one does not speak of them then; and what was written meanwhile
    /// was not synced, so that after a crash it may be there or not.
    pub(super) fn cut_synced(&self, body: &Body, to: u64) -> Result<Cut, WorkError> {
        let _heads = body.heads();
        let cannot = |content: &Content| {
            !content.is_touched() || to >= content.size() || content.missing_to_resize(to).is_some()
        };
        let mut naming = lock(&self.work.naming);
        naming.ready(self.drafts())?;
        let (renamed, said) = {
            let state = lock(&self.work.state);
            let renamed = self.renamed(&naming, &state, body.id);
            let content = body.lock();
            if cannot(&content) {
                return Ok(Cut::NotReady);
            }
            let draft = content.reader().filter(|_| !state.work.is_orphan(&body.id));
            let saying =
                |draft| Ok::<_, WorkError>((draft, self.saying(&state, body.id, &content, to)?));
            (renamed, draft.map(saying).transpose()?)
        };
        if let Some((draft, mut saying)) = said {
            saying.head.list = renamed.list(&naming);
            if !self.say(naming, &renamed, &draft, &saying)? {
                return Ok(Cut::Unlisted);
            }
        }
        let mut content = body.lock();
        if cannot(&content) {
            return Ok(Cut::NotReady);
        }
        content.resize(to, self.sys.clock.now())?;
        content.modified_ns = Some(self.now_ns());
        Ok(Cut::Done)
    }

    /// What is said of a draft, once the file has a length of at most `size`.
    fn saying(
        &self,
        state: &State,
        id: InodeId,
        content: &Content,
        size: u64,
    ) -> Result<Saying, WorkError> {
        self.tree(|tree| {
            let inode = state.work.inode(tree, &id)?.ok_or(TreeError::NotFound)?;
            let names = match state.work.is_known(&id) {
                true => {
                    state.work.names(tree, &id, 64)?.into_iter().map(|spot| (spot, None)).collect()
                }
                false => state.work.new_names(&id),
            };
            let head = Head {
                seen: listed(state.work.seen_of(&id)),
                attributes: inode.attributes,
                names: named(names),
                ..content.head(id, size)
            };
            Ok(Saying { head, clock: self.tick(), edits: content.edits() })
        })
    }
}
