//! Going through what is shared: files that are new or have changed are hashed and announced, what
//! is gone is withdrawn. Owns the order of it and its bounds; nothing in memory grows with the
//! number of files.
//!
//! A share of which the path leads nowhere, or elsewhere with nothing of it there, is *away*, as a
//! disk that is not mounted: nothing of it is withdrawn.

use super::index::{IndexError, same_content};
use super::list::{Entry, Spec};
use super::source::FileSource;
use super::{RowKey, Shared};
use crate::core::catalogue::is_shared_path;
use crate::id::{ClaimId, FileHash};
use crate::node::api::{Error, Outcome};
use crate::node::{OnProgress, joined, lock};
use crate::sys::{Stamp, StampKind};
use crate::wire::control::Put;
use ignore::WalkBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Files that say what is passed over in their directory, in the form of `.gitignore`.
const IGNORE_FILE: &str = ".p2pfsignore";
/// Files that are looked at side by side.
const AT_ONCE: usize = 4;
/// Files that are announced in one step.
const BATCH: usize = 256;
/// Files that were found and wait to be looked at.
const FOUND: usize = 64;
/// Files of which it is told why they are not shared.
const TOLD: usize = 64;

/// What going through a share came to.
#[derive(Debug, Default)]
pub(in crate::node) struct Walked {
    /// Files that are shared.
    pub(in crate::node) files: u64,
    /// Their bytes.
    pub(in crate::node) bytes: u64,
    /// The hash of the share, when it is a file.
    pub(in crate::node) hash: Option<FileHash>,
    /// Links, pipes, sockets, devices, and what the names of are too long.
    pub(in crate::node) passed_over: u64,
    /// Files that are not shared although they should be.
    pub(in crate::node) failed: u64,
    /// Some of them, and why not.
    pub(in crate::node) why: Vec<(Vec<u8>, String)>,
}

impl Walked {
    fn fail(&mut self, path: Vec<u8>, why: String) {
        self.failed += 1;
        if self.why.len() < TOLD {
            self.why.push((path, why));
        }
    }
}

/// Something below a share's path.
enum Found {
    File(Vec<u8>, Stamp),
    PassedOver,
    Unreadable(Vec<u8>, String),
}

/// What became of a file that was looked at.
struct Looked {
    called: Vec<u8>,
    len: u64,
    done: Result<Seen, IndexError>,
}

struct Seen {
    key: RowKey,
    hash: FileHash,
    /// Whether it has to be said that it is shared.
    news: bool,
}

impl Shared {
    /// Goes through the files of a share; `thorough`: row files are checked as well. Whoever calls
    /// it holds the share's lock. `progress` gets the bytes that were looked at, and of how many.
    pub(in crate::node) async fn go_through(
        self: &Arc<Self>,
        entry: &Entry,
        thorough: bool,
        progress: &OnProgress,
    ) -> Outcome<Walked> {
        let mut walked = Walked::default();
        if self.note_away(entry).await? {
            return Ok(walked);
        }
        let total = self.sum(entry).await?;
        let done = Arc::new(AtomicU64::new(0));
        let (send, mut found) = mpsc::channel(FOUND);
        let (shared, spec) = (self.clone(), entry.spec.clone());
        self.sys.spawn.run(Box::new(move || {
            shared.find(&spec, &mut |found| send.blocking_send(found).is_ok());
        }));
        let (mut looking, mut news, mut ended) = (JoinSet::new(), Vec::new(), false);
        while !ended || !looking.is_empty() {
            tokio::select! {
                Some(looked) = looking.join_next() => {
                    let Some(looked) = joined(looked) else { break };
                    take(looked, &mut walked, &mut news);
                    progress(done.load(Ordering::Relaxed), Some(total));
                }
                next = found.recv(), if !ended && looking.len() < AT_ONCE => match next {
                    Some(Found::File(called, stamp)) => {
                        let (shared, spec) = (self.clone(), entry.spec.clone());
                        let done = done.clone();
                        looking.spawn(async move {
                            shared.look_at(&spec, called, &stamp, thorough, &done).await
                        });
                    }
                    Some(Found::PassedOver) => walked.passed_over += 1,
                    Some(Found::Unreadable(path, why)) => walked.fail(path, why),
                    None => ended = true,
                },
            }
            if news.len() >= BATCH {
                self.announce_shares(std::mem::take(&mut news)).await?;
            }
            if !self.is_on_list(entry) {
                break;
            }
        }
        self.announce_shares(news).await?;
        Ok(walked)
    }

    /// Looks at one file: hashes it unless it is known.
    async fn look_at(
        self: Arc<Self>,
        spec: &Spec,
        called: Vec<u8>,
        stamp: &Stamp,
        thorough: bool,
        done: &AtomicU64,
    ) -> Looked {
        let (len, counted) = (stamp.len, |bytes| _ = done.fetch_add(bytes, Ordering::Relaxed));
        let (shared, name, id) = (self.clone(), called.clone(), spec.id);
        let before = *stamp;
        let known = self.job(move || shared.known(&id, &name, &before, thorough)).await;
        let done = match known {
            Ok(Ok(Some(seen))) => {
                counted(len);
                Ok(seen)
            }
            Ok(Err(err)) | Err(err) => Err(err.into()),
            Ok(Ok(None)) => match self.index(spec, &called, &counted).await {
                Ok(key) => self.seen(key, true).map_err(IndexError::from),
                Err(err) => Err(err),
            },
        };
        Looked { called, len, done }
    }

    /// What is known of a file that has not changed; none: it has to be hashed.
    fn known(
        &self,
        share: &[u8; 16],
        called: &[u8],
        stamp: &Stamp,
        thorough: bool,
    ) -> io::Result<Option<Seen>> {
        let key = self.row_key(share, called);
        let rows = match self.open_rows(key) {
            Ok(Some(rows)) => rows,
            Ok(None) => return Ok(None),
            Err(err) => {
                tracing::warn!(%err, "a row file cannot be read; the file is hashed again");
                return Ok(None);
            }
        };
        let same = same_content(stamp, &rows.head.stamp) && rows.head.path == called;
        // Rows of another swarm's keys are of no use in this one.
        let usable = self.catalogue.keyring().get(&rows.head.epoch).is_some();
        let doubted = lock(&self.shared_here.doubted).contains(&key);
        if doubted || !same || !usable || thorough && !rows.is_whole()? {
            return Ok(None);
        }
        let (claim, hash) = rows.ends()?;
        let said = self.is_announced(called, &claim).map_err(io::Error::other)?;
        Ok(Some(Seen { key, hash, news: !said }))
    }

    fn seen(&self, key: RowKey, news: bool) -> io::Result<Seen> {
        let rows = self.open_rows(key)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Seen { key, hash: rows.ends()?.1, news })
    }

    /// The bytes of all files of a share.
    async fn sum(self: &Arc<Self>, entry: &Entry) -> Outcome<u64> {
        let (shared, spec) = (self.clone(), entry.spec.clone());
        let sum = self.job(move || {
            let mut sum: u64 = 0;
            shared.find(&spec, &mut |found| {
                if let Found::File(_, stamp) = found {
                    sum = sum.saturating_add(stamp.len);
                }
                true
            });
            sum
        });
        Ok(sum.await?)
    }

    /// Notes whether a share is away.
    async fn note_away(self: &Arc<Self>, entry: &Entry) -> Outcome<bool> {
        let (shared, spec) = (self.clone(), entry.spec.clone());
        let there = self
            .job(move || {
                let stamp = shared.sys.fs.stamp(&spec.path).ok()?;
                let kind = if spec.is_dir { StampKind::Dir } else { StampKind::File };
                (stamp.kind == kind).then_some((stamp.dev, stamp.ino))
            })
            .await?;
        // Once it is away, another directory in its place is not it, until the sweep finds
        // something of it there.
        let was_away = entry.is_away();
        let away = there.is_none_or(|root| was_away && root != entry.spec.root);
        self.set_away(entry, away);
        Ok(away)
    }

    /// Forgets that a share that is no more was away.
    pub(in crate::node) fn forget_away(&self, entry: &Entry) {
        self.set_away(entry, false);
    }

    fn set_away(&self, entry: &Entry, away: bool) {
        entry.away.store(away, Ordering::Relaxed);
        let name = crate::text::shown_bytes(entry.spec.name.as_bytes());
        let path = crate::text::shown_path(&entry.spec.path);
        let what = format!("the share {name} is away: {path} is not there");
        self.trouble(&format!("share {name}"), away.then_some(what));
    }

    /// Finds everything below a share's path, sorted by path, until `visit` says false.
    fn find(&self, spec: &Spec, visit: &mut dyn FnMut(Found) -> bool) {
        if !spec.is_dir {
            let found = self.found_at(spec, &spec.path, Vec::new());
            visit(found);
            return;
        }
        let (own, fs) = (self.own_dirs(), self.sys.fs.clone());
        let foreign = move |entry: &ignore::DirEntry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            let is_own = |stamp: Stamp| own.contains(&(stamp.dev, stamp.ino));
            !is_dir || !fs.stamp(entry.path()).is_ok_and(is_own)
        };
        let entries = WalkBuilder::new(&spec.path)
            .standard_filters(false)
            .add_custom_ignore_filename(IGNORE_FILE)
            .filter_entry(foreign)
            .sort_by_file_name(Ord::cmp)
            .build();
        for entry in entries {
            let found = match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_dir()) => continue,
                Ok(entry) => {
                    let below = entry.path().strip_prefix(&spec.path);
                    let below = below.map_or(&b""[..], |below| below.as_os_str().as_bytes());
                    self.found_at(spec, entry.path(), [b"/", below].concat())
                }
                Err(err) => Found::Unreadable(spec.called(b""), err.to_string()),
            };
            if !visit(found) {
                return;
            }
        }
    }

    fn found_at(&self, spec: &Spec, path: &Path, below: Vec<u8>) -> Found {
        let called = spec.called(&below);
        match self.sys.fs.stamp(path) {
            Ok(stamp) if stamp.kind == StampKind::File && is_shared_path(&called) => {
                Found::File(called, stamp)
            }
            Ok(_) => Found::PassedOver,
            Err(err) => Found::Unreadable(called, crate::text::reason(&err)),
        }
    }

    /// Goes through all row files: what they speak of and is not there any more is withdrawn, and
    /// what is of no share.
    pub(in crate::node) async fn sweep(self: &Arc<Self>) -> Outcome<()> {
        // Who goes through a share now is not disturbed: its row files come before its records.
        let entries = self.shares();
        let held: Vec<_> =
            entries.iter().filter_map(|entry| Some((entry.spec.id, entry.turn().ok()?))).collect();
        let free: Arc<Vec<[u8; 16]>> = Arc::new(held.iter().map(|(id, _)| *id).collect());
        let counts = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
        let shared = self.clone();
        let folders = self.job(move || shared.row_folders()).await?;
        for first in folders.iter().copied() {
            let (shared, counts) = (self.clone(), counts.clone());
            self.job(move || {
                for (key, what) in shared.row_files(first) {
                    let (share, there) = match what {
                        RowState::There(share) => (share, 1),
                        RowState::Gone(share, ..) => (share, 0),
                        RowState::OfNoShare(..) => continue,
                        RowState::Broken => {
                            shared.remove_rows(key);
                            continue;
                        }
                    };
                    *lock(&counts).entry(share).or_insert(0u64) += there;
                }
            })
            .await?;
        }
        let counts = lock(&counts).clone();
        for entry in &entries {
            match counts.get(&entry.spec.id) {
                Some(0) if !self.note_away(entry).await? => {
                    let stamp = self.sys.fs.stamp(&entry.spec.path);
                    let root = stamp.map(|stamp| (stamp.dev, stamp.ino));
                    self.set_away(entry, root.ok() != Some(entry.spec.root));
                }
                Some(1..) => self.set_away(entry, false),
                _ => {}
            }
        }
        for first in folders {
            let (shared, free) = (self.clone(), free.clone());
            let gone = self.job(move || shared.gone(first, &free)).await?;
            for batch in gone.chunks(BATCH) {
                let files: Vec<(Vec<u8>, ClaimId)> =
                    batch.iter().map(|(_, path, claim)| (path.clone(), *claim)).collect();
                self.withdraw_shares(&files).await?;
                let (shared, keys) = (self.clone(), batch.iter().map(|one| one.0));
                let keys: Vec<RowKey> = keys.collect();
                self.job(move || keys.into_iter().for_each(|key| shared.remove_rows(key))).await?;
            }
        }
        Ok(())
    }

    /// How many files of a share are known.
    pub(in crate::node) async fn count_files(self: &Arc<Self>, share: [u8; 16]) -> Outcome<u64> {
        let shared = self.clone();
        let of_it = move |(_, what): &(RowKey, RowState)| match what {
            RowState::There(of) | RowState::Gone(of, ..) => *of == share,
            RowState::OfNoShare(..) | RowState::Broken => false,
        };
        let count = move || {
            let folders = shared.row_folders().into_iter();
            folders
                .map(|first| shared.row_files(first).iter().filter(|row| of_it(row)).count())
                .sum()
        };
        let count: usize = self.job(count).await?;
        Ok(count as u64)
    }

    /// The row files of one folder that have no file any more.
    fn gone(&self, first: u8, free: &[[u8; 16]]) -> Vec<(RowKey, Vec<u8>, ClaimId)> {
        let mut gone = Vec::new();
        for (key, what) in self.row_files(first) {
            match what {
                RowState::Gone(share, path, claim) => {
                    let entry = self.shared_here.list.get(&share);
                    let there = entry.is_some_and(|entry| !entry.is_away());
                    if there && free.contains(&share) {
                        gone.push((key, path, claim));
                    }
                }
                RowState::OfNoShare(path, claim) => gone.push((key, path, claim)),
                RowState::There(_) | RowState::Broken => {}
            }
        }
        gone
    }

    /// The folders of row files that are there.
    fn row_folders(&self) -> Vec<u8> {
        // A node that never shared anything has none.
        let dir = self.config.data_dir.join("shares");
        let entries = self.sys.fs.read_dir(&dir).unwrap_or_default();
        let number = |name: &std::ffi::OsStr| crate::id::from_hex::<1>(name.to_str()?).ok();
        entries.iter().filter_map(|entry| number(&entry.name)).map(|[first]| first).collect()
    }

    /// What the row files of one folder speak of.
    fn row_files(&self, first: u8) -> Vec<(RowKey, RowState)> {
        // A folder that is not there has none.
        let files = self.sys.fs.read_dir(&self.rows_dir(first)).unwrap_or_default();
        let key = |name: &std::ffi::OsStr| {
            let rest: [u8; 7] = crate::id::from_hex(name.to_str()?).ok()?;
            let mut key = [first; 8];
            key[1..].copy_from_slice(&rest);
            Some(RowKey(key))
        };
        let keys = files.iter().filter_map(|file| key(&file.name));
        keys.map(|key| (key, self.row_state(key))).collect()
    }

    fn row_state(&self, key: RowKey) -> RowState {
        let Ok(Some(rows)) = self.open_rows(key) else { return RowState::Broken };
        let Ok((claim, _)) = rows.ends() else { return RowState::Broken };
        let (share, path) = (rows.head.share, rows.head.path);
        if self.row_key(&share, &path) != key {
            return RowState::Broken;
        }
        let Some(entry) = self.shared_here.list.get(&share) else {
            return RowState::OfNoShare(path, claim);
        };
        let Some(place) = entry.spec.place_of(&path) else {
            return RowState::OfNoShare(path, claim);
        };
        match self.sys.fs.stamp(&place) {
            Ok(stamp) if stamp.kind == StampKind::File => RowState::There(share),
            Ok(_) => RowState::Gone(share, path, claim),
            Err(err) if is_absent(&err) => RowState::Gone(share, path, claim),
            // A disk that fails now may not fail later.
            Err(_) => RowState::There(share),
        }
    }

    /// Stores copies of all files of a share beside it, as its list says; how many could not be.
    pub(in crate::node) async fn keep_copies(
        self: &Arc<Self>,
        entry: &Entry,
        walked: &mut Walked,
        progress: &OnProgress,
    ) -> Outcome<()> {
        let Some(replicas) = entry.spec.replicas else { return Ok(()) };
        let (send, mut found) = mpsc::channel(FOUND);
        let (shared, spec) = (self.clone(), entry.spec.clone());
        self.sys.spawn.run(Box::new(move || {
            shared.find(&spec, &mut |found| send.blocking_send(found).is_ok());
        }));
        while let Some(next) = found.recv().await {
            let Found::File(called, _) = next else { continue };
            let Some(path) = entry.spec.place_of(&called) else { continue };
            let fs = self.sys.fs.clone();
            let stored = match self.job(move || FileSource::open(&fs, path)).await? {
                Ok(source) => {
                    let len = Some(source.len());
                    let put =
                        Put { replicas: Some(replicas), compress: false, len, ..Put::default() };
                    self.put(put, Box::new(source), progress.clone()).await.map(drop)
                }
                Err(err) => Err(Error::Disk(err)),
            };
            if let Err(err) = stored {
                walked.fail(called, format!("no copies are kept: {err}"));
            }
        }
        Ok(())
    }
}

/// What a row file speaks of.
enum RowState {
    There([u8; 16]),
    Gone([u8; 16], Vec<u8>, ClaimId),
    OfNoShare(Vec<u8>, ClaimId),
    Broken,
}

fn is_absent(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Counts a file that was looked at.
fn take(looked: Looked, walked: &mut Walked, news: &mut Vec<RowKey>) {
    match looked.done {
        Ok(seen) => {
            walked.files += 1;
            walked.bytes = walked.bytes.saturating_add(looked.len);
            walked.hash = Some(seen.hash);
            news.extend(seen.news.then_some(seen.key));
        }
        // It went away meanwhile, which the next sweep finds.
        Err(IndexError::Io(err)) if is_absent(&err) => {}
        Err(err) => walked.fail(looked.called, err.to_string()),
    }
}
