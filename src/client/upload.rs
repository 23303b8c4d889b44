//! Storing a directory: walks it, opens its files and sends them in batches, a few at a time. Owns
//! what is passed over and how much goes into a batch; what of it is new, the daemon decides.

use super::Client;
use super::landing::refused;
use super::source::mtime_ns;
use super::told::{Told, broken};
use crate::text::{reason, shown, shown_path};
use crate::wire::control::{
    Code, Failure, FileTag, ITEMS_MAX, PassedOver, PathText, PutFailed, PutItem, PutMany, PutWhat,
    Request, StoredMany, Wait,
};
use ignore::overrides::{Override, OverrideBuilder};
use ignore::{DirEntry, Walk, WalkBuilder};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Batches that are under way at a time.
const AT_ONCE: usize = 4;
/// Bytes of files in a batch; a larger file is one alone.
const BATCH_BYTES: u64 = 64 << 20;
/// Bytes of names in a batch: a request, which has some as six characters, is a line of at most
/// `LINE_MAX`.
const BATCH_NAMES: usize = 128 * 1024;
/// Files that say what is passed over in their directory, in the form of `.gitignore`.
const IGNORE_FILE: &str = ".p2pfsignore";

/// How a directory is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutDir {
    /// Where it is listed; none: at the root.
    pub path: Option<PathText>,
    /// What is passed over, each in the form of a line of `.gitignore`.
    pub exclude: Vec<String>,
    /// Directories that are passed over wherever they turn up, as the node's own.
    pub own: Vec<PathBuf>,
    /// Number of replicas; none: the swarm's.
    pub replicas: Option<u8>,
    /// Whether chunks are stored as they are, also where compression would pay.
    pub no_compress: bool,
    /// How many copies to wait for; none: as many as the promise needs.
    pub wait: Option<Wait>,
    /// Longest wait for `wait`; none: for ever.
    pub timeout_ms: Option<u64>,
    /// Whether every file is read, also one of the length and modification time that are known.
    pub checksum: bool,
    /// Tags of the files; none: those of the files that are there stay.
    pub tags: Vec<FileTag>,
}

/// What goes to the daemon with one request.
#[derive(Default)]
struct Batch {
    items: Vec<PutItem>,
    fds: Vec<OwnedFd>,
    bytes: u64,
    names: usize,
}

impl Batch {
    fn has_room(&self, names: usize, bytes: u64) -> bool {
        self.items.len() < ITEMS_MAX
            && self.names + names <= BATCH_NAMES
            && (self.bytes == 0 || self.bytes.saturating_add(bytes) <= BATCH_BYTES)
    }
}

impl Client {
    /// Stores a directory with everything in it. What cannot be stored is in the reply's list; the
    /// rest is stored nevertheless.
    ///
    /// # Errors
    /// Before anything is sent: [`Code::NotFound`], [`Code::Denied`], or [`Code::Usage`] for what
    /// is not a directory or an exclusion that is none. Otherwise [`Code::NoSpace`], or what the
    /// daemon says of a batch; what was stored before stays.
    pub async fn put_dir(&self, dir: &Path, options: PutDir) -> Result<StoredMany, Failure> {
        let walker = Walker::new(dir, &options)?;
        let (send, mut batches) = mpsc::channel(1);
        let told = Told::new(self.watch.clone());
        let counted = told.clone();
        let walking = tokio::task::spawn_blocking(move || walker.walk(&send, &counted));
        let (mut all, root) = (StoredMany::nothing(), options.path.as_ref());
        let mut storing = JoinSet::new();
        loop {
            tokio::select! {
                Some(done) = storing.join_next() => take(&mut all, root, done)?,
                batch = batches.recv(), if storing.len() < AT_ONCE => match batch {
                    Some(batch) => {
                        let (client, told) = (self.clone(), told.clone());
                        let options = options.clone();
                        storing.spawn(async move { client.put_batch(batch, &options, told).await });
                    }
                    None => break,
                },
            }
        }
        while let Some(done) = storing.join_next().await {
            take(&mut all, root, done)?;
        }
        let walked = walking.await.map_err(broken)?;
        all.failed.extend(walked.failed);
        all.failed.sort_by(|a, b| a.path.cmp(&b.path));
        all.passed_over = walked.passed_over;
        Ok(all)
    }

    async fn put_batch(
        self,
        batch: Batch,
        options: &PutDir,
        told: Arc<Told>,
    ) -> Result<StoredMany, Failure> {
        let many = PutMany {
            items: batch.items,
            replicas: options.replicas,
            compress: !options.no_compress,
            wait: options.wait,
            timeout_ms: options.timeout_ms,
            checksum: options.checksum,
            tags: options.tags.clone(),
        };
        let one = told.one();
        let mut exchange = self.open(Request::PutMany(many), batch.fds).await?;
        let stored = exchange.reply(Some(&one.watch())).await;
        one.reach(batch.bytes);
        stored
    }
}

/// Adds what a batch has stored.
fn take(
    all: &mut StoredMany,
    root: Option<&PathText>,
    done: Result<Result<StoredMany, Failure>, JoinError>,
) -> Result<(), Failure> {
    let mut stored = done.map_err(broken)??;
    // All that follows would fail too: where there is no room, or what was to be the directory is
    // something else.
    let all_fail = |one: &PutFailed| match one.error.code {
        Code::NoSpace => true,
        Code::Conflict => Some(&one.path) == root,
        _ => false,
    };
    if let Some(first) = stored.failed.iter().position(all_fail) {
        return Err(stored.failed.swap_remove(first).error);
    }
    all.add(stored);
    Ok(())
}

/// What of a directory was not sent.
#[derive(Default)]
struct Walked {
    failed: Vec<PutFailed>,
    passed_over: Vec<PassedOver>,
}

/// Goes through a directory.
struct Walker {
    dir: PathBuf,
    root: Vec<u8>,
    entries: Walk,
    /// The node's own directories that were met.
    own: Arc<Mutex<Vec<PathBuf>>>,
    batch: Batch,
    walked: Walked,
}

impl Walker {
    fn new(dir: &Path, options: &PutDir) -> Result<Self, Failure> {
        let name = shown_path(dir);
        let stat = rustix::fs::stat(dir).map_err(|err| match err {
            Errno::NOENT => Failure::new(Code::NotFound, format!("no such directory: {name}"))
                .hint("what is here:  ls"),
            err => refused("cannot read", dir, err),
        })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Failure::new(Code::Usage, format!("{name} is not a directory"))
                .hint(format!("a file:  p2pfs put {name}")));
        }
        // The person named it, so here a link is what it points to.
        let dir = std::fs::canonicalize(dir).map_err(|err| {
            Failure::new(Code::Failed, format!("cannot read {name}: {}", reason(&err)))
        })?;
        let own = Arc::default();
        let entries = WalkBuilder::new(&dir)
            .standard_filters(false)
            .add_custom_ignore_filename(IGNORE_FILE)
            .overrides(overrides(&dir, &options.exclude)?)
            .filter_entry(foreign(&options.own, &own))
            .sort_by_file_name(Ord::cmp)
            .build();
        let root = options.path.as_ref().map_or(&b"/"[..], |path| &path.0);
        let root = root.strip_suffix(b"/").unwrap_or(root).to_vec();
        let (batch, walked) = (Batch::default(), Walked::default());
        Ok(Self { dir, root, entries, own, batch, walked })
    }

    /// Sends everything; what could not be read, or is nothing that can be stored.
    fn walk(mut self, send: &mpsc::Sender<Batch>, told: &Told) -> Walked {
        while let Some(entry) = self.entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(err) => {
                    self.fail_walking(&err);
                    continue;
                }
            };
            if let Some(err) = entry.error() {
                // A line of an ignore file that is no pattern.
                self.fail_walking(err);
            }
            let path = self.listed(entry.path());
            match open(entry.path()) {
                Ok(Found::Item(what, stat, fd)) => {
                    if !path.0.is_empty() && !self.add(path, what, &stat, fd, send, told) {
                        return self.walked;
                    }
                }
                Ok(Found::Special(why)) => {
                    self.walked.passed_over.push(PassedOver { path, why: why.to_owned() });
                }
                // It went while the others were read, and so is not there any more.
                Err(Errno::NOENT) => {}
                Err(err) => self.walked.failed.push(unreadable(path, &err.into())),
            }
        }
        told.expect_no_more();
        if !self.batch.items.is_empty() {
            // Nobody takes it when another batch has failed.
            send.blocking_send(std::mem::take(&mut self.batch)).ok();
        }
        let own = std::mem::take(&mut *self.own.lock().unwrap_or_else(PoisonError::into_inner));
        for dir in own {
            let path = self.listed(&dir);
            let why = "this node keeps its own things there".to_owned();
            self.walked.passed_over.push(PassedOver { path, why });
        }
        self.walked
    }

    /// Adds an item to the batch, which is sent when it is full; false: nobody takes it.
    fn add(
        &mut self,
        path: PathText,
        what: PutWhat,
        stat: &Stat,
        fd: Option<OwnedFd>,
        send: &mpsc::Sender<Batch>,
        told: &Told,
    ) -> bool {
        let (names, bytes) = match &what {
            PutWhat::File { len } => (path.0.len(), *len),
            PutWhat::Dir => (path.0.len(), 0),
            PutWhat::Link { target } => (path.0.len() + target.0.len(), 0),
        };
        if !self.batch.has_room(names, bytes)
            && send.blocking_send(std::mem::take(&mut self.batch)).is_err()
        {
            return false;
        }
        told.expect(bytes);
        let (mode, mtime_ns) = (stat.st_mode & 0o7777, mtime_ns(stat).unwrap_or(0));
        self.batch.items.push(PutItem { path, mode, mtime_ns, what });
        self.batch.fds.extend(fd);
        self.batch.bytes = self.batch.bytes.saturating_add(bytes);
        self.batch.names += names;
        true
    }

    /// Where something of the directory is listed; empty: the root, which has no attributes here.
    fn listed(&self, path: &Path) -> PathText {
        let inside = path.strip_prefix(&self.dir).unwrap_or(path).as_os_str().as_bytes();
        let slash: &[u8] = if inside.is_empty() { b"" } else { b"/" };
        PathText([&self.root, slash, inside].concat())
    }

    fn fail_walking(&mut self, err: &ignore::Error) {
        let path = self.listed(path_of(err).unwrap_or(&self.dir));
        let failed = match err.io_error().map(first_cause) {
            // It went while the others were read.
            Some(err) if err.kind() == io::ErrorKind::NotFound => return,
            Some(err) => unreadable(path, err),
            None => {
                let error = Failure::new(Code::Usage, shown(&err.to_string()).into_owned());
                PutFailed { path, error }
            }
        };
        // What cannot be read twice is one thing.
        if self.walked.failed.last().is_none_or(|last| last.path != failed.path) {
            self.walked.failed.push(failed);
        }
    }
}

/// What the system said, without the sentences around it.
fn first_cause(err: &io::Error) -> &io::Error {
    let mut first = err;
    let mut cause: Option<&(dyn Error + 'static)> = err.source();
    while let Some(err) = cause {
        first = err.downcast_ref().unwrap_or(first);
        cause = err.source();
    }
    first
}

fn unreadable(path: PathText, err: &io::Error) -> PutFailed {
    let code = match err.kind() {
        io::ErrorKind::PermissionDenied => Code::Denied,
        _ => Code::Failed,
    };
    PutFailed { path, error: Failure::new(code, format!("it cannot be read: {}", reason(err))) }
}

/// Tells what is to be stored from the node's own directories, which are noted.
fn foreign(
    own: &[PathBuf],
    met: &Arc<Mutex<Vec<PathBuf>>>,
) -> impl Fn(&DirEntry) -> bool + Send + Sync + 'static {
    let id = |stat: &Stat| (stat.st_dev, stat.st_ino);
    let own: Vec<_> = own.iter().filter_map(|dir| rustix::fs::stat(dir).ok()).collect();
    let own: Vec<_> = own.iter().map(id).collect();
    let met = met.clone();
    move |entry| {
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        let is_own =
            is_dir && rustix::fs::lstat(entry.path()).is_ok_and(|stat| own.contains(&id(&stat)));
        if is_own {
            met.lock().unwrap_or_else(PoisonError::into_inner).push(entry.path().to_owned());
        }
        !is_own
    }
}

/// The path that an error is about.
fn path_of(err: &ignore::Error) -> Option<&Path> {
    match err {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        ignore::Error::Partial(errors) => errors.iter().find_map(path_of),
        _ => None,
    }
}

fn overrides(dir: &Path, exclude: &[String]) -> Result<Override, Failure> {
    let bad = |pattern: &str, err: &ignore::Error| {
        let pattern = shown(pattern);
        Failure::new(Code::Usage, format!("`{pattern}` is not a pattern: {err}"))
            .hint("patterns are those of .gitignore:  --exclude '*.tmp' --exclude /cache/")
    };
    let mut builder = OverrideBuilder::new(dir);
    for pattern in exclude {
        if pattern.trim().is_empty() || pattern.starts_with('!') {
            let pattern = shown(pattern);
            let message = format!("`{pattern}` excludes nothing");
            return Err(Failure::new(Code::Usage, message)
                .hint("what is passed over is named:  --exclude '*.tmp' --exclude /cache/")
                .hint("exceptions are lines that begin with ! in a file .p2pfsignore"));
        }
        // What is an exception there is a rule here.
        builder.add(&format!("!{pattern}")).map_err(|err| bad(pattern, &err))?;
    }
    builder.build().map_err(|err| bad(&exclude.join(" "), &err))
}

/// What is at a path.
enum Found {
    /// What can be stored; a file is open.
    Item(PutWhat, Stat, Option<OwnedFd>),
    /// What has no content of its own, in words.
    Special(&'static str),
}

/// Looks what is at a path without following links, and opens it if it is a file.
fn open(path: &Path) -> rustix::io::Result<Found> {
    // Looked at before it is opened: opening a pipe waits, and opening a device may do anything.
    let stat = rustix::fs::lstat(path)?;
    let special = |stat: &Stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Found::Special("a pipe"),
        FileType::Socket => Found::Special("a socket"),
        _ => Found::Special("a device"),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Found::Item(PutWhat::Dir, stat, None)),
        FileType::Symlink => {
            let target = PathText(rustix::fs::readlink(path, Vec::new())?.into_bytes());
            Ok(Found::Item(PutWhat::Link { target }, stat, None))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY
                | OFlags::CLOEXEC
                | OFlags::NOCTTY
                | OFlags::NONBLOCK
                | OFlags::NOFOLLOW;
            let fd = rustix::fs::open(path, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(special(&stat));
            }
            let len = u64::try_from(stat.st_size).unwrap_or(0);
            Ok(Found::Item(PutWhat::File { len }, stat, Some(fd)))
        }
        _ => Ok(special(&stat)),
    }
}
