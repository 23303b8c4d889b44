//! Fetching a directory: makes what the tree lists below a directory of this machine. Owns that
//! nothing is written outside of it: every name is opened alone in the directory that it is in, and
//! no link is followed, neither one that was there before nor one that the tree has.
//!
//! Order: directories when something is in them, files, then links, and when all is there the
//! attributes of the directories, the innermost first, since writing changes them.

use super::Client;
use super::landing::{Attributes, Landing, exists, modified_at, refused};
use super::told::{One, Told, broken};
use crate::text::shown_path;
use crate::wire::control::{Code, Failure, FileInfo, FileKind, Get, PathText, Request, Target};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Files that are fetched at a time.
const AT_ONCE: usize = 12;

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FetchedDir {
    /// Files and links that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and links that were there already, the same.
    pub unchanged: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes that came from other nodes.
    pub remote_bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was not fetched.
    pub failed: Vec<GetFailed>,
}

/// Something that was not fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GetFailed {
    /// Its path in the tree.
    pub path: PathText,
    /// Why.
    pub error: Failure,
}

/// A directory that is open.
struct Open {
    name: OsString,
    fd: Arc<OwnedFd>,
}

/// A file that is fetched or was.
type Landed = (FileInfo, Result<u64, Failure>);

impl Client {
    /// Fetches a directory with everything in it: `out` becomes a copy of it. When `out` exists,
    /// its own attributes stay, and what is in it and not in the tree; a file that has the length
    /// and modification time that are recorded is not fetched again. What cannot be fetched is in
    /// the list of the reply.
    ///
    /// # Errors
    /// [`Code::Usage`] when `path` is not a directory or `out` not one, [`Code::Denied`],
    /// [`Code::NoSpace`]; what the daemon says of the list. What was fetched before stays.
    pub async fn get_dir(
        &self,
        path: PathText,
        out: &Path,
        overwrite: bool,
    ) -> Result<FetchedDir, Failure> {
        let top = self.stat(Target::Path(path.clone())).await?.info;
        if top.kind != FileKind::Dir {
            let name = crate::text::shown_bytes(&path.0);
            let verb = if top.kind == FileKind::File { "get" } else { "stat" };
            return Err(Failure::new(Code::Usage, format!("{name} is not a directory"))
                .hint(format!("p2pfs {verb} {name}")));
        }
        let mut copy = Copy::new(self.clone(), path.clone(), out, overwrite)?;
        let mut list = self.list(path, true).await?;
        while let Some(info) = list.next().await? {
            copy.add(info).await?;
        }
        copy.finish(&top).await
    }
}

/// A copy of a directory in the making.
struct Copy {
    client: Client,
    /// The directory in the tree, without a slash at its end.
    from: Vec<u8>,
    out: PathBuf,
    root: Arc<OwnedFd>,
    /// The permissions of a directory that was there before: they are its owner's matter.
    own: Option<Mode>,
    overwrite: bool,
    /// The directories on the way to what was added last.
    open: Vec<Open>,
    /// Directories that could not be made: what is in them is passed over.
    closed: Option<Vec<u8>>,
    dirs: Vec<FileInfo>,
    links: Vec<FileInfo>,
    told: Arc<Told>,
    fetching: JoinSet<Landed>,
    done: FetchedDir,
}

impl Copy {
    fn new(client: Client, from: PathText, out: &Path, overwrite: bool) -> Result<Self, Failure> {
        let made = match rustix::fs::mkdirat(CWD, out, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => {
                let parent = shown_path(out.parent().unwrap_or(out));
                let message = format!("directory {parent} does not exist");
                return Err(
                    Failure::new(Code::NotFound, message).hint(format!("mkdir -p {parent}"))
                );
            }
            Err(err) => return Err(refused("cannot make", out, err)),
        };
        // The person named it, so here a link is what it points to.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(out, flags, Mode::empty()).map_err(|err| match err {
            Errno::NOTDIR => exists(out),
            err => refused("cannot write into", out, err),
        })?;
        let own = rustix::fs::fstat(&root).map_err(|err| refused("cannot write into", out, err))?;
        let own = (!made).then(|| Mode::from_raw_mode(own.st_mode & 0o7777));
        let from = from.0.strip_suffix(b"/").unwrap_or(&from.0).to_vec();
        let (open, closed, dirs, links) = Default::default();
        let (fetching, done) = (JoinSet::new(), FetchedDir::default());
        let (out, root, told) = (out.to_owned(), Arc::new(root), Told::new(client.watch.clone()));
        Ok(Self {
            client,
            from,
            out,
            root,
            own,
            overwrite,
            open,
            closed,
            dirs,
            links,
            told,
            fetching,
            done,
        })
    }

    /// Takes the next entry of the list.
    async fn add(&mut self, info: FileInfo) -> Result<(), Failure> {
        if let Some(closed) = &self.closed {
            if info.path.0.starts_with(closed) {
                return Ok(());
            }
            self.closed = None;
        }
        match info.kind {
            FileKind::Dir => match self.dir_of(&info, true) {
                Ok(_) => {
                    self.done.dirs += 1;
                    self.dirs.push(info);
                }
                Err(error) => {
                    self.closed = Some([&info.path.0[..], b"/"].concat());
                    self.fail(info.path, error)?;
                }
            },
            FileKind::Link => self.links.push(info),
            FileKind::Special => {
                let why = "it is a pipe, socket or device, which is not fetched";
                self.fail(info.path, Failure::new(Code::Usage, why))?;
            }
            FileKind::File => match self.landing(&info) {
                Ok(None) => self.done.unchanged += 1,
                Ok(Some(landing)) => self.fetch(info, landing).await?,
                Err(error) => self.fail(info.path, error)?,
            },
        }
        Ok(())
    }

    /// Everything that is left; what was fetched.
    async fn finish(mut self, top: &FileInfo) -> Result<FetchedDir, Failure> {
        self.told.expect_no_more();
        while let Some(landed) = self.fetching.join_next().await {
            self.landed(landed)?;
        }
        for link in std::mem::take(&mut self.links) {
            match self.link(&link) {
                Ok(true) => self.done.files += 1,
                Ok(false) => self.done.unchanged += 1,
                Err(error) => self.fail(link.path, error)?,
            }
        }
        // The list has a directory before what is in it.
        for dir in std::mem::take(&mut self.dirs).iter().rev() {
            let path = self.shown(&self.names(dir)?);
            if let Err(error) = self.dir_of(dir, true).and_then(|fd| dress(&fd, dir, &path)) {
                self.fail(dir.path.clone(), error)?;
            }
        }
        match self.own {
            Some(own) => {
                if rustix::fs::fstat(&self.root).is_ok_and(|now| now.st_mode & 0o7777 != own.bits())
                {
                    let set = rustix::fs::fchmod(&self.root, own);
                    set.map_err(|err| refused("cannot write", &self.out, err))?;
                }
            }
            // The root of the tree is nobody's directory, and has no attributes to speak of.
            None if self.from.is_empty() => {}
            None => dress(&self.root, top, &self.out)?,
        }
        let root = self.root.clone();
        let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(&*root)).await;
        if let Ok(Err(err)) = synced {
            return Err(refused("cannot write into", &self.out, err));
        }
        self.done.failed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.done)
    }

    /// Notes what could not be fetched; the error is given back when everything else would fail
    /// too.
    fn fail(&mut self, path: PathText, error: Failure) -> Result<(), Failure> {
        match error.code {
            Code::NoSpace | Code::NoDaemon | Code::Version | Code::Interrupted => Err(error),
            _ => {
                self.done.failed.push(GetFailed { path, error });
                Ok(())
            }
        }
    }

    /// The names from the copied directory down to this entry.
    fn names<'i>(&self, info: &'i FileInfo) -> Result<Vec<&'i OsStr>, Failure> {
        let inside = info.path.0.strip_prefix(&self.from[..]).unwrap_or(&info.path.0);
        let names: Vec<&[u8]> = inside.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        let safe = |name: &&[u8]| *name != b"." && *name != b".." && !name.contains(&0);
        if names.is_empty() || !names.iter().all(safe) {
            return Err(Failure::new(Code::Failed, "its name cannot be a file's name here"));
        }
        Ok(names.into_iter().map(OsStr::from_bytes).collect())
    }

    /// What an entry is called in sentences.
    fn shown(&self, names: &[&OsStr]) -> PathBuf {
        names.iter().fold(self.out.clone(), |path, name| path.join(name))
    }

    /// Opens the directory that an entry is, or is in, making what is missing.
    fn dir_of(&mut self, info: &FileInfo, itself: bool) -> Result<Arc<OwnedFd>, Failure> {
        let names = self.names(info)?;
        let names = if itself { &names[..] } else { &names[..names.len() - 1] };
        let same = self.open.iter().zip(names).take_while(|(open, name)| open.name == **name);
        let same = same.count();
        self.open.truncate(same);
        for (at, name) in names.iter().enumerate().skip(same) {
            let parent = self.open.last().map_or(&self.root, |open| &open.fd);
            self.unlock(parent);
            let made = open_dir(parent, name).map_err(|err| match err {
                Errno::NOTDIR | Errno::LOOP => {
                    let path = shown_path(self.shown(&names[..=at]));
                    Failure::new(Code::Conflict, format!("{path} exists and is not a directory"))
                        .hint("links are not followed; move it away or take another directory")
                }
                err => refused("cannot write into", &self.shown(&names[..=at]), err),
            })?;
            self.open.push(Open { name: (*name).to_owned(), fd: Arc::new(made) });
        }
        Ok(self.open.last().map_or(&self.root, |open| &open.fd).clone())
    }

    /// Lets its owner write into a directory that is read-only, as one that was fetched before may
    /// be; at the end it gets its own permissions. Where that cannot be, making a file says why.
    fn unlock(&self, dir: &Arc<OwnedFd>) {
        // The root of the tree gives no permissions back.
        if self.from.is_empty() && Arc::ptr_eq(dir, &self.root) {
            return;
        }
        if let Ok(stat) = rustix::fs::fstat(dir)
            && stat.st_mode & 0o300 != 0o300
        {
            rustix::fs::fchmod(dir, Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o300)).ok();
        }
    }

    /// The file that an entry is to become; none: it is there already.
    fn landing(&mut self, info: &FileInfo) -> Result<Option<Landing>, Failure> {
        let dir = self.dir_of(info, false)?;
        let names = self.names(info)?;
        let name = names[names.len() - 1];
        if let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            && is_same(&stat, info)
        {
            return Ok(None);
        }
        self.unlock(&dir);
        Landing::within(dir, name.to_owned(), &self.shown(&names), self.overwrite).map(Some)
    }

    /// Begins to fetch a file, when there are not too many already.
    async fn fetch(&mut self, info: FileInfo, landing: Landing) -> Result<(), Failure> {
        if self.fetching.len() >= AT_ONCE
            && let Some(landed) = self.fetching.join_next().await
        {
            self.landed(landed)?;
        }
        self.told.expect(info.size);
        let (client, one) = (self.client.clone(), self.told.one());
        self.fetching.spawn(async move {
            let fetched = client.land(&info, landing, &one).await;
            (info, fetched)
        });
        Ok(())
    }

    fn landed(&mut self, landed: Result<Landed, tokio::task::JoinError>) -> Result<(), Failure> {
        let (info, fetched) = landed.map_err(broken)?;
        match fetched {
            Ok(remote_bytes) => {
                self.done.files += 1;
                self.done.bytes = self.done.bytes.saturating_add(info.size);
                self.done.remote_bytes = self.done.remote_bytes.saturating_add(remote_bytes);
                Ok(())
            }
            Err(error) => self.fail(info.path, error),
        }
    }

    /// Makes a link; false: it is there already.
    fn link(&mut self, info: &FileInfo) -> Result<bool, Failure> {
        let dir = self.dir_of(info, false)?;
        let names = self.names(info)?;
        let (name, path) = (names[names.len() - 1], self.shown(&names));
        let Some(target) = &info.target else {
            return Err(Failure::new(Code::Version, "the daemon does not say where it points to"));
        };
        let target = OsStr::from_bytes(&target.0);
        if let Ok(there) = rustix::fs::readlinkat(&dir, name, Vec::new())
            && there.as_bytes() == target.as_bytes()
        {
            return Ok(false);
        }
        let fail = |err| match err {
            Errno::EXIST => exists(&path),
            err => refused("cannot write", &path, err),
        };
        self.unlock(&dir);
        if self.overwrite {
            match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(err) => return Err(fail(err)),
            }
        }
        rustix::fs::symlinkat(target, &dir, name).map_err(fail)?;
        if let Some(mtime_ns) = info.mtime_ns {
            let times = modified_at(mtime_ns);
            rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        }
        Ok(true)
    }
}

/// Gives a directory its attributes; `path` is what it is called in sentences.
fn dress(dir: &OwnedFd, info: &FileInfo, path: &Path) -> Result<(), Failure> {
    let fail = |err| refused("cannot write", path, err);
    if let Some(mode) = info.mode {
        let mode = Mode::from_raw_mode(mode & 0o1777);
        rustix::fs::fchmod(dir, mode).map_err(fail)?;
    }
    if let Some(mtime_ns) = info.mtime_ns.filter(|mtime_ns| *mtime_ns != 0) {
        rustix::fs::futimens(dir, &modified_at(mtime_ns)).map_err(fail)?;
    }
    Ok(())
}

impl Client {
    /// Fetches a listed file; bytes that came from other nodes.
    async fn land(
        &self,
        info: &FileInfo,
        landing: Landing,
        one: &Arc<One>,
    ) -> Result<u64, Failure> {
        let Some(hash) = info.hash else {
            return Err(Failure::new(Code::Version, "the daemon does not say its hash"));
        };
        let (target, from) = (Target::Hash(hash), self.from.clone());
        let get = Get { target, range: None, seekable: true, from };
        let fd = landing.descriptor()?;
        let mut exchange = self.open(Request::Get(get), vec![fd]).await?;
        let fetched: crate::wire::control::Fetched = exchange.reply(Some(&one.watch())).await?;
        one.reach(info.size);
        let (mode, mtime_ns) = (info.mode.unwrap_or(0o644), info.mtime_ns.unwrap_or(0));
        landing.finish(Attributes::Exactly { mode, mtime_ns }).await?;
        Ok(fetched.remote_bytes)
    }
}

/// Opens a directory by its name in another one, and makes it if there is nothing.
fn open_dir(parent: &Arc<OwnedFd>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    match rustix::fs::mkdirat(parent.as_fd(), name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(err) => return Err(err),
    }
    rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty())
}

/// Whether a file here is one of the tree, as far as its length and attributes tell.
fn is_same(stat: &Stat, info: &FileInfo) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && info.mode.is_some_and(|mode| (mode ^ stat.st_mode) & 0o777 == 0)
        && u64::try_from(stat.st_size) == Ok(info.size)
        && info.mtime_ns.is_some_and(|mtime_ns| super::source::mtime_ns(stat) == Some(mtime_ns))
}
