//! A shared file as the source of a put. Owns nothing but the position.

use crate::sys::{File, Fs, Source, SourceChanged, Stamp};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Reads a file of this machine from its first byte to its last.
pub(super) struct FileSource {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    stamp: Stamp,
    file: Arc<dyn File>,
    at: u64,
}

impl FileSource {
    pub(super) fn open(fs: &Arc<dyn Fs>, path: PathBuf) -> io::Result<Self> {
        let (file, stamp) = (fs.open_as_it_is(&path)?, fs.stamp(&path)?);
        Ok(Self { fs: fs.clone(), path, stamp, file, at: 0 })
    }

    /// Its length when it was opened.
    pub(super) const fn len(&self) -> u64 {
        self.stamp.len
    }
}

impl Source for FileSource {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    fn rewind(&mut self) -> bool {
        self.at = 0;
        true
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        let same = self.fs.stamp(&self.path).is_ok_and(|now| now == self.stamp);
        if same && self.at == self.stamp.len { Ok(()) } else { Err(SourceChanged) }
    }
}
