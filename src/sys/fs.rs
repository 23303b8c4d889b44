//! Files as the store sees them: positioned reads and writes, explicit durability, directory
//! syncs. Nothing is durable before `sync_data` (bytes) or `sync_dir` (names) has returned, and the
//! simulated file system takes that literally.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; created, mode 0600, when missing.
    Create,
    /// For reading and writing; created, mode 0600; an existing one is an error.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: OsString,
    /// Length in bytes (0 for a directory).
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What stands under a name, a link itself and not what it points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The file system.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// Length in bytes.
    pub len: u64,
    /// When its content was changed last, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything of it was changed last.
    pub ctime_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// Whether it is a regular file, a directory, or neither.
    pub kind: StampKind,
}

/// What a name stands for, as far as bytes can be read from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StampKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link, pipe, socket or device.
    Other,
}

/// Bytes of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What an unprivileged writer may still use.
    pub available: u64,
}

/// Holds a lock as long as it lives.
pub trait Lock: Send + Sync {}

/// The directory tree.
pub trait Fs: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Creates a directory and what is missing above it, mode 0700.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Renames over whatever is at `to`. Durable only after [`Fs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable only after [`Fs::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Space of the file system that `path` is on.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The permission bits of a file.
    fn mode(&self, path: &Path) -> io::Result<u32>;

    /// What stands under a name; a link is not followed.
    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens somebody's file for reading; a link is not followed, and a pipe not waited for.
    fn open_as_it_is(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes an exclusive lock on `path` (created when missing) without waiting;
    /// `WouldBlock` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// An open file. All methods may be called from several threads at once.
pub trait File: Send + Sync {
    /// Reads at `offset`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes the whole of `bufs`, one after the other, from `offset` on.
    fn write_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Asks for early write-out of a range, without waiting and without any promise.
    fn write_out(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Says that a range will not be read soon: its clean pages may leave the cache. No promise.
    fn let_go(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reserves space for a range without changing the length.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the room of a range back, which reads as zeros then; the length stays. A file system
    /// that cannot do that stores the zeros.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Sets the length; what lies behind is dropped, reserved space too.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
