//! The file that a `get` makes: nameless while it is written, then it appears under its name at
//! once, whole and on disk, or not at all. On file systems without nameless files a hidden one
//! takes that part and is removed when anything goes wrong. Of many files at once nobody waits for
//! the disk: whoever makes them does that when all are there.

use crate::sys::Rng;
use crate::sys::os::OsRng;
use crate::text::{reason, shown_path};
use crate::wire::control::{Code, Failure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is at the path that a person named for the output.
pub(super) enum Place {
    /// A directory: the file goes into it.
    Directory,
    /// A device, pipe or socket: it is written as it is.
    Stream(OwnedFd),
    /// A file, or nothing yet.
    File,
}

/// Looks what is at `path`.
pub(super) fn look(path: &Path) -> Result<Place, Failure> {
    let kind = match rustix::fs::stat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        // A missing directory or a forbidden one is noticed when the file is made.
        Err(_) => return Ok(Place::File),
    };
    match kind {
        FileType::Directory => Ok(Place::Directory),
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
            rustix::fs::open(path, flags, Mode::empty())
                .map(Place::Stream)
                .map_err(|err| refused("cannot write", path, err))
        }
        _ => Ok(Place::File),
    }
}

/// A file that has no name yet.
pub(super) struct Landing {
    path: PathBuf,
    dir: Arc<OwnedFd>,
    name: OsString,
    file: Arc<File>,
    overwrite: bool,
    /// The hidden name, while there is one.
    hidden: Option<OsString>,
}

/// What a file gets besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    /// One of many: these, and its bytes are on disk when the caller has synced.
    Exactly {
        /// Permission bits.
        mode: u32,
        /// Modification time in nanoseconds since 1970.
        mtime_ns: i64,
    },
    /// The permission bits that were recorded, as far as the user's mask allows them.
    Allowed(Option<u32>),
}

impl Landing {
    /// Makes the nameless file in the directory of `path`.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self, Failure> {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            let message = format!("`{}` does not name a file", shown_path(path));
            return Err(Failure::new(Code::Usage, message).hint("p2pfs get FILE -o PATH"));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent, flags, Mode::empty()).map_err(|err| match err {
            Errno::NOENT => {
                let message = format!("directory {} does not exist", shown_path(parent));
                Failure::new(Code::NotFound, message)
                    .hint(format!("mkdir -p {}", shown_path(parent)))
            }
            err => refused("cannot write into", parent, err),
        })?;
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            let message = format!("directory {} does not exist", shown_path(path));
            return Err(Failure::new(Code::NotFound, message)
                .hint(format!("mkdir -p {}", shown_path(path))));
        }
        Self::within(Arc::new(dir), name, path, overwrite)
    }

    /// Makes the nameless file in an open directory; `path` is what it is called in sentences.
    pub(super) fn within(
        dir: Arc<OwnedFd>,
        name: OsString,
        path: &Path,
        overwrite: bool,
    ) -> Result<Self, Failure> {
        let taken = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if taken && !overwrite {
            return Err(exists(path));
        }
        let (file, hidden) = nameless(&dir).map_err(|err| refused("cannot write", path, err))?;
        let path = path.to_owned();
        Ok(Self { path, dir, name, file: Arc::new(file.into()), overwrite, hidden })
    }

    /// A descriptor of the file for the daemon.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, Failure> {
        self.file.try_clone().map(OwnedFd::from).map_err(|err| {
            Failure::new(
                Code::Failed,
                format!("cannot write {}: {}", shown_path(&self.path), reason(&err)),
            )
        })
    }

    /// Puts the bytes on disk, unless that is the caller's matter, and gives the file its name.
    pub(super) async fn finish(mut self, attributes: Attributes) -> Result<(), Failure> {
        let failed = |err: io::Error| match err.raw_os_error() {
            Some(code) => refused("cannot write", &self.path, Errno::from_raw_os_error(code)),
            None => Failure::new(Code::Failed, format!("cannot write {}", shown_path(&self.path))),
        };
        match attributes {
            Attributes::Allowed(mode) => {
                self.allow(mode).map_err(failed)?;
                let file = self.file.clone();
                let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
                synced.unwrap_or_else(|err| Err(io::Error::other(err))).map_err(failed)?;
            }
            Attributes::Exactly { mode, mtime_ns } => {
                let mode = std::fs::Permissions::from_mode(mode & 0o777);
                self.file.set_permissions(mode).map_err(failed)?;
                let times = modified_at(mtime_ns);
                rustix::fs::futimens(&*self.file, &times).map_err(|err| failed(err.into()))?;
            }
        }
        self.appear().map_err(|err| match err {
            Errno::EXIST => exists(&self.path),
            err => refused("cannot write", &self.path, err),
        })
    }

    /// Sets the permission bits that were recorded, as far as the user's mask allows them.
    fn allow(&self, mode: Option<u32>) -> io::Result<()> {
        let Some(mode) = mode else { return Ok(()) };
        let made = self.file.metadata()?.permissions().mode() & 0o666;
        let allowed = made | (made & 0o444) >> 2;
        self.file.set_permissions(std::fs::Permissions::from_mode(mode & allowed))
    }

    /// The one step that changes what is seen under the name.
    fn appear(&mut self) -> rustix::io::Result<()> {
        if self.hidden.is_none() {
            if !self.overwrite {
                return self.link(&self.name);
            }
            let hidden = hidden_name();
            self.link(&hidden)?;
            self.hidden = Some(hidden);
        }
        let hidden = self.hidden.as_ref().expect("set just above, or since the file was made");
        if self.overwrite {
            rustix::fs::renameat(&self.dir, hidden, &self.dir, &self.name)?;
            self.hidden = None;
        } else {
            // A second name, not a rename: that would replace what came there meanwhile. Dropping
            // this removes the hidden one.
            rustix::fs::linkat(&self.dir, hidden, &self.dir, &self.name, AtFlags::empty())?;
        }
        Ok(())
    }

    fn link(&self, name: &OsStr) -> rustix::io::Result<()> {
        let this = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        match rustix::fs::linkat(rustix::fs::CWD, this, &self.dir, name, flags) {
            // Without /proc only some kernels and users may name a nameless file.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                rustix::fs::linkat(&*self.file, "", &self.dir, name, AtFlags::EMPTY_PATH)
            }
            other => other,
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Nothing more can be done about a hidden file that cannot be removed.
            rustix::fs::unlinkat(&self.dir, hidden, AtFlags::empty()).ok();
        }
    }
}

fn nameless(dir: &OwnedFd) -> rustix::io::Result<(OwnedFd, Option<OsString>)> {
    let mode = Mode::from_raw_mode(0o666);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok((file, None)),
        // The first where the file system has none, the others where the kernel or a network
        // file system does not know the flag.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
            let name = hidden_name();
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(dir, &name, flags, mode)?;
            Ok((file, Some(name)))
        }
        Err(err) => Err(err),
    }
}

/// Times of a file that was modified then, in nanoseconds since 1970.
pub(super) fn modified_at(mtime_ns: i64) -> Timestamps {
    let modified = Timespec {
        tv_sec: mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
    };
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: modified,
    }
}

fn hidden_name() -> OsString {
    let mut random = [0; 8];
    OsRng.fill(&mut random);
    format!(".p2pfs-{}", crate::id::to_hex(&random)).into()
}

/// The failure for a path at which there is something.
pub(super) fn exists(path: &Path) -> Failure {
    Failure::new(Code::Conflict, format!("{} already exists", shown_path(path)))
        .hint("--force overwrites it, -o PATH takes another name")
}

/// The failure for a path that the system refuses.
pub(super) fn refused(what: &str, path: &Path, err: Errno) -> Failure {
    let path = shown_path(path);
    let elsewhere = "another place for it:  p2pfs get FILE -o PATH";
    match err {
        Errno::ACCESS | Errno::PERM => {
            Failure::new(Code::Denied, format!("permission denied: {path}"))
                .hint(format!("who may:  ls -ld {path}"))
        }
        Errno::ROFS => Failure::new(Code::Denied, format!("{path} is on a read-only file system"))
            .hint(elsewhere),
        Errno::NOSPC | Errno::DQUOT => {
            Failure::new(Code::NoSpace, format!("no space left for {path}")).hint(elsewhere)
        }
        Errno::NAMETOOLONG => Failure::new(Code::Usage, format!("the name is too long: {path}"))
            .hint("a name has at most 255 bytes, a path at most 4095"),
        err => Failure::new(Code::Failed, format!("{what} {path}: {}", reason(&err.into())))
            .hint(format!("what is there:  ls -ld {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<OsString> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    async fn land(path: &Path, overwrite: bool, hidden: bool) -> Result<(), Failure> {
        let mut landing = Landing::open(path, overwrite)?;
        if hidden {
            let name = hidden_name();
            landing.link(&name).unwrap();
            landing.hidden = Some(name);
        }
        File::from(landing.descriptor()?).write_all(b"new").unwrap();
        landing.finish(Attributes::Allowed(Some(0o7755))).await
    }

    #[tokio::test]
    async fn a_file_appears_whole_or_not_at_all() {
        for hidden in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            drop(Landing::open(&path, false).unwrap());
            assert!(names(dir.path()).is_empty());
            land(&path, false, hidden).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7100, 0o100, "executable, and no set-uid bit");
            std::fs::write(&path, b"old").unwrap();
            assert_eq!(land(&path, false, hidden).await.unwrap_err().code, Code::Conflict);
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            land(&path, true, hidden).await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert_eq!(names(dir.path()), ["out"]);
        }
    }

    #[tokio::test]
    async fn what_came_there_meanwhile_is_not_replaced() {
        for hidden in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            let mut landing = Landing::open(&path, false).unwrap();
            if hidden {
                let name = hidden_name();
                landing.link(&name).unwrap();
                landing.hidden = Some(name);
            }
            std::fs::write(&path, b"other").unwrap();
            assert_eq!(
                landing.finish(Attributes::Allowed(None)).await.unwrap_err().code,
                Code::Conflict
            );
            assert_eq!(std::fs::read(&path).unwrap(), b"other");
            assert_eq!(names(dir.path()), ["out"]);
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let failure = Landing::open(Path::new("/nowhere/at/all"), false).err().unwrap();
        assert_eq!(failure.message, "directory /nowhere/at does not exist");
        assert_eq!(failure.code, Code::NotFound);
    }
}
