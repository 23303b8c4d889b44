//! An open file: reading, writing, syncing. Owns the count of who uses a content; when the last
//! writer is gone a version is made of it.

use super::body::{At, Body};
use super::door::Work;
use super::draft::{Head, RUNS_MAX};
use super::news::Stale;
use super::{State, WorkError, listed, named};
use crate::chunk::CHUNK_LEN;
use crate::core::tree::TreeError;
use crate::core::work::What;
use crate::id::FileHash;
use crate::node::{Shared, lock};
use std::sync::Arc;

const CHUNK: u64 = CHUNK_LEN as u64;
/// Zeros that are written at a time.
static ZEROS: [u8; CHUNK_LEN] = [0; CHUNK_LEN];

/// A file that a program has open.
pub struct OpenedFile {
    work: Work,
    body: Arc<Body>,
    number: u64,
    writes: bool,
    same: bool,
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

    /// Writes bytes if nothing has to be brought for that; false: [`Self::write`] does.
    pub fn write_now(&self, at: u64, bytes: &[u8]) -> Result<bool, WorkError> {
        let done = self.work.shared.try_write(&self.body, at, bytes)?.is_none();
        if done {
            self.changed();
        }
        Ok(done)
    }

    /// Writes bytes.
    pub async fn write(&self, at: u64, bytes: &[u8]) -> Result<(), WorkError> {
        self.work.shared.write_body(&self.body, at, bytes).await?;
        self.changed();
        Ok(())
    }

    /// Gives it another length.
    pub async fn resize(&self, to: u64) -> Result<(), WorkError> {
        self.work.shared.resize_body(&self.body, to).await?;
        self.changed();
        Ok(())
    }

    /// Other mounts have to forget what they remember of it.
    fn changed(&self) {
        self.body.lock().changed_by(self.work.door);
        self.work.tell_others([Stale::Inode(self.number)]);
    }

    /// Writes zeros, as far as the file goes, or `grow`.
    pub async fn zero(&self, at: u64, len: u64, grow: bool) -> Result<(), WorkError> {
        let end = at.saturating_add(len);
        let end = if grow { end } else { end.min(self.size()) };
        let mut at = at;
        while at < end {
            let step = (CHUNK - at % CHUNK).min(end - at);
            let hole = self.body.lock().at(at / CHUNK) == At::Hole;
            if hole && at + step <= self.size() {
                at += step;
                continue;
            }
            self.write(at, &ZEROS[..step as usize]).await?;
            at += step;
        }
        Ok(())
    }

    /// The next offset from `at` on with data, or with a hole; none: there is no more data.
    pub fn seek(&self, at: u64, data: bool) -> Option<u64> {
        self.body.lock().seek(at, data)
    }

    /// Makes it durable here, with its names.
    pub async fn sync(&self) -> Result<(), WorkError> {
        let shared = &self.work.shared;
        let dirs = lock(&shared.work.state).work.has_new_dirs();
        if dirs {
            shared.round(false).await?;
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
            if state.work.is_orphan(&self.body.id)
                && let Err(err) = self.body.lock().drop_draft(&*self.work.shared.sys.fs)
            {
                tracing::warn!(%err, "a draft is not removed");
            }
            state.idle(&self.body);
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
        // Too much to be listed: it is written down instead.
        body.lock().urgent = true;
        match self.round(false).await? {
            Some(err) if body.lock().is_edited() => Err(err),
            _ => Ok(()),
        }
    }

    /// Whether a draft could be made durable.
    pub(super) fn sync_draft(&self, body: &Body) -> Result<bool, WorkError> {
        let place = self.drafts();
        let (head, draft) = {
            let state = &mut *lock(&self.work.state);
            if !body.lock().is_edited() || state.work.is_orphan(&body.id) {
                return Ok(true);
            }
            let head = self.tree(|tree| head_of(state, tree, body))?;
            if head.runs.len() > RUNS_MAX {
                return Ok(false);
            }
            (head, body.lock().draft_for_sync(place, &body.id)?)
        };
        draft.sync(place.fs, &head)?;
        Ok(true)
    }
}

/// What a draft is a draft of.
fn head_of(
    state: &State,
    tree: &crate::core::tree::Tree<'_>,
    body: &Body,
) -> Result<Head, WorkError> {
    let inode = state.work.inode(tree, &body.id)?.ok_or(TreeError::NotFound)?;
    let names = state.work.names(tree, &body.id, 64)?;
    let content = body.lock();
    Ok(Head {
        id: body.id,
        size: content.size(),
        base_len: content.base_len(),
        base: content.base().cloned(),
        seen: listed(state.work.seen_of(&body.id)),
        attributes: inode.attributes,
        names: named(names),
        runs: content.runs(),
        modified_ns: content.modified_ns,
    })
}
