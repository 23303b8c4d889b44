//! The real file system, but for places of files that the disk cannot read any more, as a disk
//! with bad sectors has them, and for syncs that a test holds up. What is written elsewhere is
//! good.

use p2pfs::sys::os::OsFs;
use p2pfs::sys::{DirEntry, File, Fs, Lock, OpenMode, Space};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

/// Below which directory syncs wait, and how many do.
type Gate = Arc<(Mutex<(Option<PathBuf>, usize)>, Condvar)>;

type Places = Arc<Mutex<Vec<(PathBuf, Range<u64>)>>>;

/// A file system with bad places.
#[derive(Default)]
pub(crate) struct BadFs {
    bad: Places,
    gate: Gate,
}

struct BadFile {
    file: Arc<dyn File>,
    path: PathBuf,
    bad: Places,
    gate: Gate,
}

impl BadFs {
    /// From now on this part of a file gives EIO.
    pub(crate) fn spoil(&self, path: &Path, range: Range<u64>) {
        self.bad.lock().unwrap().push((path.to_owned(), range));
    }

    /// From now on syncs of files in this directory wait; none: they go on.
    pub(crate) fn hold_syncs(&self, dir: Option<PathBuf>) {
        self.gate.0.lock().unwrap().0 = dir;
        self.gate.1.notify_all();
    }

    /// How many syncs wait.
    pub(crate) fn held_syncs(&self) -> usize {
        self.gate.0.lock().unwrap().1
    }
}

impl Fs for BadFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = OsFs.open(path, mode)?;
        let (bad, gate) = (self.bad.clone(), self.gate.clone());
        Ok(Arc::new(BadFile { file, path: path.to_owned(), bad, gate }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsFs.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsFs.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        OsFs.space(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        OsFs.mode(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        OsFs.lock(path)
    }
}

impl File for BadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + buf.len() as u64;
        let spoilt = |(path, range): &(PathBuf, Range<u64>)| {
            *path == self.path && range.start < end && offset < range.end
        };
        if self.bad.lock().unwrap().iter().any(spoilt) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        self.file.write_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut gate = self.gate.0.lock().unwrap();
        gate.1 += 1;
        let is_shut = |dir: &Option<PathBuf>| dir.as_deref() == self.path.parent();
        gate = self.gate.1.wait_while(gate, |(dir, _)| dir.is_some() && is_shut(dir)).unwrap();
        gate.1 -= 1;
        drop(gate);
        self.file.sync_data()
    }

    fn write_out(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.write_out(offset, len)
    }

    fn let_go(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.let_go(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
