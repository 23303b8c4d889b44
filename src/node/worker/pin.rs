//! Keeps full copies of what is pinned here. Owns the passes through everything pinned: which files
//! there are, which of their chunks are not here, and fetching those. Which paths are pinned, and
//! what a copy here is kept for, is `node::pins`'; that a pinned copy does not go is repair's.
//!
//! A pass begins when the list or the catalogue changes. It reads everything pinned from the
//! catalogue again, so it rests for several times as long as the last one took.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::chunk;
use crate::core::catalogue::{FileVersion, Node as TreeNode};
use crate::core::hlc;
use crate::core::tree::{Entry, Tree, TreeError, Walk};
use crate::id::ChunkId;
use crate::node::again::own_cids;
use crate::node::get::OpenFile;
use crate::node::memory::User;
use crate::node::pins::{Filter, Pinned};
use crate::node::records::{records_of, stopping};
use crate::node::{GetError, Shared, Unavailable, joined};
use crate::store::{Claim, Op, Outcome, WriteError};
use crate::sys::Time;
use crate::text::shown_bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Files that are taken from the tree at a time.
const PAGE: usize = 256;
/// Chunks that are looked at in one piece.
const PIECE: usize = 256;
/// Chunks that are fetched at once: enough to keep a disk and a link busy, few enough to leave room
/// for puts and gets.
const AT_ONCE: usize = 4;
/// A pass rests for so many times as long as the last one took …
const REST: u32 = 8;
/// … and at least so long.
const REST_MIN: Duration = Duration::from_millis(100);
/// How long after a pass that could not fetch everything the next one begins.
const AGAIN: Duration = Duration::from_secs(15);

/// Why something is not here. What was fetched before stays.
#[derive(Debug, thiserror::Error)]
enum PinError {
    #[error(transparent)]
    Get(#[from] GetError),
    #[error(transparent)]
    Fetch(#[from] Unavailable),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The worker.
pub(in crate::node) struct Pin {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    asked: watch::Receiver<u64>,
    /// The pass that runs.
    pass: Option<Pass>,
    /// Whether somebody pinned something or let it go meanwhile.
    requested: bool,
    /// Whether there was other news since the last pass began, and when the next one may begin.
    news: bool,
    due: Time,
    /// Bytes fetched since the start.
    fetched: u64,
}

/// A pass through everything pinned.
struct Pass {
    /// The request that it serves.
    asked: u64,
    began: Time,
    paths: VecDeque<Vec<u8>>,
    at: Option<At>,
    chunks: Filter,
    /// Whether everything is here, as far as was looked.
    complete: bool,
    /// Why nothing more can be kept here. Which chunks are pinned is still found out: until that
    /// is known none is given up.
    full: Option<PinError>,
}

/// How far a pass is with one path.
#[derive(Default)]
struct At {
    path: Vec<u8>,
    /// What is left of a directory.
    walk: Option<Walk>,
    files: VecDeque<File>,
    open: Option<Open>,
    /// What has been found.
    found: Pinned,
}

/// A file that is to be here.
struct File {
    version: FileVersion,
    made_ms: u64,
}

/// The file that is looked at.
struct Open {
    file: OpenFile,
    claim: Claim,
    /// Its pages and its manifest, until they were looked at.
    own: Vec<ChunkId>,
    /// Chunks that were looked at.
    seen: u64,
    /// Whether something of it could not be had: nothing more of it is fetched in this pass.
    misses: bool,
}

impl Pin {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let (changes, asked) = (shared.records_changed.subscribe(), shared.pins.asked.subscribe());
        let due = shared.sys.clock.now();
        let (pass, requested, news, fetched) = (None, false, true, 0);
        Self { shared, changes, asked, pass, requested, news, due, fetched }
    }

    /// Begins a pass, if anything is pinned.
    fn begin(&mut self) -> Option<Pass> {
        self.changes.borrow_and_update();
        let asked = *self.asked.borrow_and_update();
        self.news = false;
        let paths: VecDeque<_> = self.shared.pins.list().into_keys().collect();
        if paths.is_empty() {
            self.shared.pins.settle(asked, None);
            return None;
        }
        // Without the keys it looks as if nothing was there.
        self.shared.keys().ok()?;
        let (began, chunks) = (self.shared.sys.clock.now(), Filter::new());
        Some(Pass { asked, began, paths, at: None, chunks, complete: true, full: None })
    }

    /// Goes on with a pass; the pass, unless that was the end of it.
    async fn go_on(&mut self, mut pass: Pass) -> Result<Option<Pass>, PinError> {
        let Some(mut at) = pass.at.take() else {
            let Some(path) = pass.paths.pop_front() else {
                self.end(pass);
                return Ok(None);
            };
            pass.at = Some(self.shared.begin_path(path)?);
            return Ok(Some(pass));
        };
        let more = match self.shared.look_on(&mut at, &mut pass).await {
            Ok(looked) => {
                self.fetched += looked.fetched;
                looked.more
            }
            Err(err) => {
                at.misses(&err);
                at.note(&self.shared, pass.asked);
                return Err(err);
            }
        };
        if more {
            self.shared.pins.note(&at.path, |pinned| pinned.done = at.found.bytes);
            pass.at = Some(at);
        } else {
            // Where nothing is there is nothing to be tried again before there is news.
            pass.complete &= at.found.missing == 0 || at.found.files == 0;
            at.note(&self.shared, pass.asked);
        }
        Ok(Some(pass))
    }

    fn end(&mut self, pass: Pass) {
        let Pass { asked, began, chunks, complete, .. } = pass;
        self.shared.pins.settle(asked, Some(chunks));
        let now = self.shared.sys.clock.now();
        self.news |= !complete;
        let rest = (now.since(began) * REST).max(REST_MIN);
        self.due = now + if complete { rest } else { rest.max(AGAIN) };
    }
}

impl Worker for Pin {
    const NAME: &'static str = "pin";

    async fn work(&mut self) -> Worked {
        if std::mem::take(&mut self.requested) || self.asked.has_changed().unwrap_or(false) {
            // Somebody waits for what he asked for, not for what was asked before.
            (self.pass, self.news) = (None, true);
            self.due = self.shared.sys.clock.now();
        }
        let pass = match self.pass.take() {
            Some(pass) => pass,
            None if self.news && self.shared.sys.clock.now() < self.due => {
                return Ok(Next::Idle(self.due));
            }
            None if self.news => match self.begin() {
                Some(pass) => pass,
                None => return Ok(Next::Wait),
            },
            None => return Ok(Next::Wait),
        };
        self.news |= self.changes.has_changed().unwrap_or(false);
        let gone_on = self.go_on(pass).await;
        self.news |= gone_on.is_err();
        self.pass = gone_on?;
        Ok(Next::More)
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            // The senders live in `shared`.
            _ = self.asked.changed() => self.requested = true,
            _ = self.changes.changed() => self.news = true,
        }
    }

    fn report(&self) -> Report {
        let doing = match self.pass.as_ref().and_then(|pass| pass.at.as_ref()) {
            Some(at) => shown_bytes(&at.path),
            None => String::new(),
        };
        Report { doing, moved: self.fetched, moved_unit: "bytes", ..Report::default() }
    }
}

/// What a look came to.
struct Looked {
    /// Whether there is more at this path.
    more: bool,
    /// Bytes that were fetched.
    fetched: u64,
}

impl At {
    /// Counts a file of which something is not here.
    fn misses(&mut self, why: &PinError) {
        self.found.missing += 1;
        self.found.why.get_or_insert_with(|| why.to_string());
    }

    /// Makes known what was found.
    fn note(&self, shared: &Shared, asked: u64) {
        let found = Pinned { through: asked, done: self.found.bytes, ..self.found.clone() };
        shared.pins.note(&self.path, |pinned| *pinned = found);
    }
}

impl File {
    fn of(entry: &Entry) -> Option<Self> {
        let TreeNode::File(version) = &entry.version.node else { return None };
        Some(Self { version: version.clone(), made_ms: hlc::ms_of(entry.version.clock) })
    }
}

impl Shared {
    /// Begins with what is at a path now. Where nothing is, nothing is kept, and that is said.
    fn begin_path(&self, path: Vec<u8>) -> Result<At, PinError> {
        let entry = match self.with_tree(|tree| tree.resolve(&path)) {
            Ok(entry) => entry,
            Err(err @ TreeError::Io(_)) => return Err(err.into()),
            Err(_) => {
                let why = Some("nothing is at this path any more".to_owned());
                let found = Pinned { missing: 1, why, ..Pinned::default() };
                return Ok(At { path, found, ..At::default() });
            }
        };
        let walk = entry.is_dir().then(|| Walk::new(entry.inode, &path, true));
        Ok(At { walk, files: File::of(&entry).into_iter().collect(), path, ..At::default() })
    }

    /// Does a piece of what is left to do for a path, and adds the chunks to those that are kept.
    async fn look_on(self: &Arc<Self>, at: &mut At, pass: &mut Pass) -> Result<Looked, PinError> {
        let mut looked = Looked { more: true, fetched: 0 };
        if let Some(mut open) = at.open.take() {
            let (missing, more) = match self.look_into(&mut open, &mut pass.chunks).await {
                Ok(found) => found,
                Err(err @ PinError::Get(_)) => {
                    at.misses(&err);
                    return Ok(looked);
                }
                Err(err) => return Err(err),
            };
            if !missing.is_empty() && !open.misses {
                looked.fetched = self.bring_or_miss(missing, &mut open, at, pass).await?;
            }
            at.open = more.then_some(open);
        } else if let Some(file) = at.files.pop_front() {
            at.found.files += 1;
            at.found.bytes += file.version.size;
            match self.open_pinned(&file).await {
                Ok(open) => at.open = open,
                Err(err @ PinError::Get(_)) => at.misses(&err),
                Err(err) => return Err(err),
            }
        } else {
            looked.more = self.more_files(at)?;
        }
        Ok(looked)
    }

    /// Takes further files of a directory from the tree; whether there were any.
    fn more_files(&self, at: &mut At) -> Result<bool, PinError> {
        let Some(walk) = &mut at.walk else { return Ok(false) };
        let keyring = self.catalogue.keyring();
        let files = &mut at.files;
        let more = self.read_records(|view| {
            Tree::new(view, &keyring).walk(walk, &mut |_, entry| {
                files.extend(File::of(entry));
                files.len() < PAGE
            })
        })?;
        if !more {
            at.walk = None;
        }
        Ok(more || !at.files.is_empty())
    }

    /// Opens a file to see which chunks it has; an empty one has none.
    async fn open_pinned(self: &Arc<Self>, file: &File) -> Result<Option<Open>, PinError> {
        let File { version, made_ms } = file;
        let mut records: Vec<_> = self.record_of(version)?.into_iter().collect();
        let keyring = self.catalogue.keyring();
        records.extend(self.read_records(|view| records_of(view, &keyring, &version.hash))?);
        records.retain(|found| !found.record.is_shared());
        let file = self.open_file(version.hash, &mut records).await?;
        // As old as the version, so that it ends with that.
        let replicas = file.record.replicas;
        let claim = Claim { id: version.claim, replicas, renewed_ms: *made_ms };
        let (own, _) = own_cids(&file);
        Ok(Some(Open { file, claim, own, seen: 0, misses: false }))
    }

    /// Adds the next chunks of a file to those that are kept: those of them that are not here, and
    /// whether it has more.
    async fn look_into(
        self: &Arc<Self>,
        open: &mut Open,
        chunks: &mut Filter,
    ) -> Result<(Vec<ChunkId>, bool), PinError> {
        let count = chunk::chunk_count(open.file.manifest.length);
        let mut cids = std::mem::take(&mut open.own);
        while open.seen < count && cids.len() < PIECE {
            let row = self.row_of(&open.file, open.seen).await?;
            cids.extend((!row.is_zero()).then_some(row.cid));
            open.seen += 1;
        }
        cids.sort_unstable();
        cids.dedup();
        cids.iter().for_each(|cid| chunks.insert(cid));
        let held = self.which_held(cids.clone()).await?;
        let missing = cids.into_iter().zip(held).filter(|(_, held)| !held).map(|(cid, _)| cid);
        Ok((missing.collect(), open.seen < count))
    }

    /// Fetches chunks of a file, or notes why they are not here; how many bytes.
    async fn bring_or_miss(
        self: &Arc<Self>,
        missing: Vec<ChunkId>,
        open: &mut Open,
        at: &mut At,
        pass: &mut Pass,
    ) -> Result<u64, PinError> {
        let brought = match &pass.full {
            Some(full) => {
                at.misses(full);
                open.misses = true;
                return Ok(0);
            }
            None => self.bring_all(missing, open.claim).await,
        };
        let err = match brought {
            Ok(bytes) => return Ok(bytes),
            Err(err) => err,
        };
        let full = matches!(err, PinError::Write(WriteError::NoCapacity | WriteError::DiskFull));
        if !full && !matches!(err, PinError::Get(_) | PinError::Fetch(_)) {
            return Err(err);
        }
        at.misses(&err);
        open.misses = true;
        pass.full = full.then_some(err);
        Ok(0)
    }

    /// Fetches chunks, some at a time, and keeps them; how many bytes.
    async fn bring_all(
        self: &Arc<Self>,
        missing: Vec<ChunkId>,
        claim: Claim,
    ) -> Result<u64, PinError> {
        let mut missing = missing.into_iter();
        let (mut bringing, mut bytes, mut failed) = (JoinSet::new(), 0, None);
        loop {
            while bringing.len() < AT_ONCE
                && failed.is_none()
                && let Some(cid) = missing.next()
            {
                let shared = self.clone();
                bringing.spawn(async move { shared.bring_pinned(cid, claim).await });
            }
            match bringing.join_next().await.map(joined) {
                None => break,
                Some(Some(Ok(len))) => bytes += len,
                Some(Some(Err(err))) => failed = Some(err),
                Some(None) => failed = Some(stopping().into()),
            }
        }
        failed.map_or(Ok(bytes), Err)
    }

    async fn bring_pinned(self: &Arc<Self>, cid: ChunkId, claim: Claim) -> Result<u64, PinError> {
        // A copy that could be evicted becomes one that cannot.
        let ops = vec![Op::Claim { cids: vec![cid], claim }];
        if let Some(Outcome::Claim { held }) = self.write(ops).await?.pop()
            && held == [true]
        {
            return Ok(0);
        }
        let slot = self.memory.take(User::Work).await;
        let (sealed, _) = self.fetch(cid).await?;
        let len = sealed.len() as u64;
        let op = Op::Replica { cid, sealed, claim: Some(claim), hint: None };
        self.write(vec![op]).await?;
        drop(slot);
        Ok(len)
    }
}
