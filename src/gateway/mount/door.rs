//! The door through which the system asks for files (FUSE): each request becomes a call of the
//! working tree, each error a number; extended attributes have `xattrs`. What may have to wait for
//! other nodes runs as a task, so that it keeps no other request waiting; every request is answered
//! within [`DEADLINE`].

use super::attr::{attr, errno, kind, nanos};
use super::dirs::Listing;
use crate::node::{
    Changes, Made, Node, OpenedFile, ROOT_NUMBER, Renaming, Share, Special, Stat, TreeError, Work,
    WorkError,
};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The longest time that a program waits for an answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the system may believe what it was told; news come earlier.
const TTL: Duration = Duration::from_secs(30);
/// Longest write of one request.
const WRITE_MAX: u32 = 1 << 20;
/// The unit in which room is counted.
const BLOCK: u64 = 4096;
/// Longest name in bytes.
const NAME_MAX: u32 = 255;

/// The door of one mount.
pub(super) struct Door {
    pub(super) node: Arc<Node>,
    pub(super) work: Work,
    runtime: Handle,
    seen: Seen,
    read_only: bool,
    files: Arc<Files>,
    dirs: Mutex<BTreeMap<u64, Arc<Mutex<Listing>>>>,
    ended: watch::Sender<bool>,
}

/// How this mount shows what there is.
#[derive(Clone, Copy)]
struct Seen {
    /// The number of the directory that is seen as the root.
    root: u64,
    /// Who owns what no record gives to anybody.
    mine: (u32, u32),
}

impl Seen {
    fn attr(&self, stat: &Stat) -> FileAttr {
        attr(stat, outside(self.root, stat.number), self.mine)
    }

    fn entry(&self, stat: Result<Stat, Errno>, reply: ReplyEntry) {
        match stat {
            Ok(stat) => reply.entry(&TTL, &self.attr(&stat), Generation(0)),
            Err(err) => reply.error(err),
        }
    }
}

/// What programs have open.
#[derive(Default)]
struct Files {
    open: Mutex<BTreeMap<u64, Arc<OpenedFile>>>,
    handles: AtomicU64,
}

impl Files {
    fn handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn keep(&self, file: OpenedFile) -> FileHandle {
        let handle = self.handle();
        lock(&self.open).insert(handle, Arc::new(file));
        FileHandle(handle)
    }
}

/// The number of an inode as the system knows it.
pub(super) const fn outside(root: u64, number: u64) -> u64 {
    if number == root { ROOT_NUMBER } else { number }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// A door to the directory `root`; `ended` is set when the system has closed it.
    pub(super) fn new(
        node: Arc<Node>,
        work: Work,
        root: u64,
        read_only: bool,
        ended: watch::Sender<bool>,
    ) -> Self {
        let mine = work.user();
        let (files, dirs) = Default::default();
        let (runtime, seen) = (Handle::current(), Seen { root, mine });
        Self { node, work, runtime, seen, read_only, files, dirs, ended }
    }

    pub(super) const fn inside(&self, number: INodeNo) -> u64 {
        if number.0 == ROOT_NUMBER { self.seen.root } else { number.0 }
    }

    /// Who owns what a program makes, where that is not whoever runs the node.
    fn owner(&self, req: &Request) -> Option<(u32, u32)> {
        Some((req.uid(), req.gid())).filter(|owner| *owner != self.seen.mine)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<OpenedFile>, Errno> {
        lock(&self.files.open).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    /// Makes a change, as soon as there is room for it: until then other requests are served.
    pub(super) fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Work) -> Result<T, WorkError> + Send + 'static,
        tell: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        self.change_of(Share::All, change, tell);
    }

    fn change_of<T: Send + 'static>(
        &self,
        share: Share,
        change: impl FnOnce(&Work) -> Result<T, WorkError> + Send + 'static,
        tell: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        if self.read_only {
            return tell(Err(Errno::EROFS));
        }
        if self.work.has_room(share) {
            return tell(change(&self.work).map_err(|err| errno(&err)));
        }
        let work = self.work.clone();
        let changed = async move {
            work.room(share).await;
            change(&work)
        };
        self.later(changed, tell);
    }

    /// Makes a change of which an entry is told.
    fn change_entry(
        &self,
        change: impl FnOnce(&Work) -> Result<Stat, WorkError> + Send + 'static,
        reply: ReplyEntry,
    ) {
        let seen = self.seen;
        self.change(change, move |stat| seen.entry(stat, reply));
    }

    /// Does something that may have to wait, and tells what came of it.
    pub(super) fn later<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WorkError>> + Send + 'static,
        tell: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        self.runtime.spawn(async move {
            let done = tokio::time::timeout(DEADLINE, work).await;
            tell(match done {
                Ok(done) => done.map_err(|err| {
                    tracing::debug!(%err, "a request of a mount failed");
                    errno(&err)
                }),
                Err(_) => Err(Errno::ETIMEDOUT),
            });
        });
    }
}

/// Answers whether and where bytes were written that the system believes to be at `offset`.
fn tell_written(
    at: Result<u64, Errno>,
    offset: u64,
    file: &OpenedFile,
    len: u32,
    reply: ReplyWrite,
) {
    match at {
        Ok(at) => {
            reply.written(len);
            if at != offset {
                file.forget();
            }
        }
        Err(err) => reply.error(err),
    }
}

/// Answers whether something could be done.
pub(super) fn tell_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(err) => reply.error(err),
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            // Without it every write asks for the capabilities of the file first.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        for flag in wanted {
            // An older system does without.
            config.add_capabilities(flag).ok();
        }
        config.set_max_write(WRITE_MAX).ok();
        config.set_max_background(64).ok();
        Ok(())
    }

    fn destroy(&mut self) {
        lock(&self.files.open).clear();
        self.ended.send_replace(true);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.work.lookup(self.inside(parent), name.as_bytes());
        self.seen.entry(found.map_err(|err| errno(&err)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.work.stat(self.inside(ino)) {
            Ok(stat) => reply.attr(&TTL, &self.seen.attr(&stat)),
            Err(WorkError::Tree(TreeError::NotFound)) => reply.error(Errno::ESTALE),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.read_only {
            return reply.error(Errno::EROFS);
        }
        let number = self.inside(ino);
        let owned = uid.is_some() || gid.is_some();
        let changes = Changes {
            mode: mode.map(|mode| mode & 0o7777),
            lends_nothing: owned || size.is_some() && req.uid() != 0,
            user: uid,
            group: gid,
            size,
            modified_ns: mtime.map(nanos),
            accessed_ns: atime.map(nanos),
        };
        let share = if changes.has_attributes() { Share::All } else { Share::Removals };
        let (work, seen) = (self.work.clone(), self.seen);
        let set = async move {
            work.room(share).await;
            work.set(number, &changes).await
        };
        let tell = move |stat: Result<Stat, Errno>| match stat {
            Ok(stat) => reply.attr(&TTL, &seen.attr(&stat)),
            Err(err) => reply.error(err),
        };
        self.later(set, tell);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.work.read_link(self.inside(ino)) {
            Ok(target) => reply.data(&target),
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Made::File,
            libc::S_IFIFO => Made::Special(Special::Pipe),
            libc::S_IFSOCK => Made::Special(Special::Socket),
            libc::S_IFCHR => Made::Special(Special::Char(rdev)),
            libc::S_IFBLK => Made::Special(Special::Block(rdev)),
            _ => return reply.error(Errno::EINVAL),
        };
        self.make(req, parent, name, (made, mode), reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        self.make(req, parent, name, (Made::Dir, mode), reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = Made::Link(target.as_os_str().as_bytes().to_vec());
        self.make(req, parent, name, (made, 0o777), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (number, dir) = (self.inside(ino), self.inside(newparent));
        let name = newname.as_bytes().to_vec();
        self.change_entry(move |work| work.link(number, dir, &name), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, false, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, true, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = match flags {
            RenameFlags::RENAME_NOREPLACE => Renaming::Keep,
            RenameFlags::RENAME_EXCHANGE => Renaming::Exchange,
            flags if flags.is_empty() => Renaming::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let from = (self.inside(parent), name.as_bytes().to_vec());
        let to = (self.inside(newparent), newname.as_bytes().to_vec());
        let rename = move |work: &Work| work.rename((from.0, &from.1), (to.0, &to.1), how);
        self.change(rename, |done| tell_empty(done, reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (dir, owner, name) = (self.inside(parent), self.owner(req), name.as_bytes().to_vec());
        let create = move |work: &Work| work.create(dir, &name, mode, owner);
        let (seen, files) = (self.seen, self.files.clone());
        self.change(create, move |made| match made {
            Ok((stat, file)) => {
                let (handle, flags) = (files.keep(file), FopenFlags::FOPEN_KEEP_CACHE);
                reply.created(&TTL, &seen.attr(&stat), Generation(0), handle, flags);
            }
            // Somebody else has made it just now: the system looks again, and opens it if the
            // program may do that.
            Err(Errno::EEXIST) if flags & libc::O_EXCL == 0 => reply.error(Errno::ESTALE),
            Err(err) => reply.error(err),
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if writes && self.read_only {
            return reply.error(Errno::EROFS);
        }
        match self.work.open(self.inside(ino), writes) {
            Ok(file) => {
                let keep = FopenFlags::FOPEN_KEEP_CACHE;
                let flags = if file.is_same() { keep } else { FopenFlags::empty() };
                reply.opened(self.files.keep(file), flags);
            }
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.file(fh) {
            Ok(file) => file,
            Err(err) => return reply.error(err),
        };
        let read = async move { file.read(offset, size as usize).await };
        self.later(read, move |bytes| match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(err) => reply.error(err),
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = match self.file(fh) {
            Ok(file) => file,
            Err(err) => return reply.error(err),
        };
        if flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            && let Ok(stat) = self.work.stat(self.inside(ino))
            && stat.lends()
        {
            let changes = Changes { lends_nothing: true, ..Changes::default() };
            if let Err(err) = self.runtime.block_on(self.work.set(stat.number, &changes)) {
                return reply.error(errno(&err));
            }
        }
        let mapped = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        if file.is_refused() && !mapped {
            return reply.error(Errno::ENOSPC);
        }
        // The system appends where it believes that the end is, which others may have moved.
        let appends = open.0 & libc::O_APPEND != 0 && !mapped;
        let (at, len) = ((!appends).then_some(offset), data.len() as u32);
        match file.write_now(at, data) {
            Ok(Some(at)) => tell_written(Ok(at), offset, &file, len, reply),
            Ok(None) => {
                let (data, writer) = (data.to_vec(), file.clone());
                let write = async move { writer.write(at, &data).await };
                self.later(write, move |at| tell_written(at, offset, &file, len, reply));
            }
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        match self.file(fh) {
            Ok(file) if file.may_be_refused() => {
                let close = async move { file.close().await };
                self.later(close, move |done| tell_empty(done, reply));
            }
            _ => reply.ok(),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let file = lock(&self.files.open).remove(&fh.0);
        drop(file);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.file(fh) {
            Ok(file) => {
                let sync = async move { file.sync().await };
                self.later(sync, move |done| tell_empty(done, reply));
            }
            Err(err) => reply.error(err),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let (work, number) = (self.work.clone(), self.inside(ino));
        let sync = async move { work.sync_dir(number).await };
        self.later(sync, move |done| tell_empty(done, reply));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.files.handle();
        lock(&self.dirs).insert(handle, Arc::default());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let add = |place: u64, name: &[u8], stat: &Stat| {
            let number = INodeNo(outside(self.seen.root, stat.number));
            reply.add(number, place + 1, kind(stat.kind), OsStr::from_bytes(name))
        };
        match self.read_dir(ino, fh, offset, add) {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(err),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let add = |place: u64, name: &[u8], stat: &Stat| {
            let attr = self.seen.attr(stat);
            let name = OsStr::from_bytes(name);
            reply.add(attr.ino, place + 1, name, &TTL, &attr, Generation(0))
        };
        match self.read_dir(ino, fh, offset, add) {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(err),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.dirs).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.work.space() {
            Ok(space) => {
                let (total, free) = (space.total / BLOCK, space.free / BLOCK);
                let left = u64::from(u32::MAX);
                let (files, unit) = (space.files + left, BLOCK as u32);
                reply.statfs(total, free, free, files, left, unit, NAME_MAX, unit);
            }
            Err(err) => reply.error(errno(&err)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.set_xattr(ino, name, value, flags, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.xattr(ino, name, size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.xattrs(ino, size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_xattr(ino, name, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let file = match self.file(fh) {
            Ok(file) => file,
            Err(err) => return reply.error(err),
        };
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let zero = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => false,
            libc::FALLOC_FL_PUNCH_HOLE if keep => true,
            libc::FALLOC_FL_ZERO_RANGE => true,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let end = offset.saturating_add(length);
        let work = async move {
            if !zero {
                // What is inside takes no more than it may take already.
                file.room_for(length.min(end.saturating_sub(file.size())))?;
            }
            if !keep && end > file.size() {
                file.resize(end).await?;
            }
            if zero { file.punch(offset, length).await } else { Ok(()) }
        };
        self.later(work, move |done| tell_empty(done, reply));
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let found = self.file(fh).and_then(|file| {
            let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            file.seek(at, data).ok_or(Errno::ENXIO)
        });
        match found.map(i64::try_from) {
            Ok(Ok(offset)) => reply.offset(offset),
            Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
            Err(err) => reply.error(err),
        }
    }
}

impl Door {
    /// Makes something, with permission bits.
    fn make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (made, mode): (Made, u32),
        reply: ReplyEntry,
    ) {
        let (dir, owner, name) = (self.inside(parent), self.owner(req), name.as_bytes().to_vec());
        self.change_entry(move |work| work.make(dir, &name, made, mode, owner), reply);
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, dir: bool, reply: ReplyEmpty) {
        let (parent, name) = (self.inside(parent), name.as_bytes().to_vec());
        let remove = move |work: &Work| work.remove(parent, &name, dir);
        self.change_of(Share::Removals, remove, |done| tell_empty(done, reply));
    }

    /// Gives entries of a directory to `add`, until that has enough.
    fn read_dir(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut add: impl FnMut(u64, &[u8], &Stat) -> bool,
    ) -> Result<(), Errno> {
        let listing = lock(&self.dirs).get(&fh.0).cloned().ok_or(Errno::EBADF)?;
        let mut listing = lock(&listing);
        let dir = self.inside(ino);
        listing.asked(offset);
        let mut place = offset;
        loop {
            let next = match listing.at(&self.work, dir, place) {
                // A directory that is gone is empty.
                Err(WorkError::Tree(TreeError::NotFound)) => None,
                next => next.map_err(|err| errno(&err))?,
            };
            let Some((at, (name, stat))) = next else { return Ok(()) };
            if add(at, &name, &stat) {
                return Ok(());
            }
            place = at + 1;
        }
    }
}
