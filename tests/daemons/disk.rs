//! The disk as a node sees it: a simulated one whose memory is not counted as the node's.

use crate::checks::memory::Books;
use crate::simfs::SimFs;
use p2pfs::sys::{DirEntry, File, Fs, Lock, OpenMode, Space};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A disk.
pub(crate) struct Aside(pub(crate) SimFs);

struct AsideFile(Arc<dyn File>);

impl Fs for Aside {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let _aside = Books::aside();
        Ok(Arc::new(AsideFile(self.0.open(path, mode)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.0.mode(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let _aside = Books::aside();
        self.0.lock(path)
    }
}

impl File for AsideFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.write_at(bufs, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write_out(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.write_out(offset, len)
    }

    fn let_go(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.let_go(offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _aside = Books::aside();
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}
