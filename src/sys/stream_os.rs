//! A command's descriptor as source or sink: regular files by positioned reads and writes, which
//! touch neither their offset nor their flags; pipes and terminals in order, waking up regularly so
//! that a cancelled command never leaves a thread behind.

use super::os::sync_file_range;
use super::stream::{Sink, Source, SourceChanged};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, SeekFrom, Stat, fstat, seek, tell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a read or write that waits looks whether it was cancelled.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Written pieces from this length on are sent to the disk at once.
const EARLY: u64 = 256 * 1024;

/// Reads from a descriptor.
pub struct DescriptorSource {
    fd: OwnedFd,
    cancelled: Arc<AtomicBool>,
    /// When the descriptor is a regular file.
    file: Option<Regular>,
}

/// A regular file that is read.
struct Regular {
    /// Its state at the start.
    stat: Stat,
    /// The read position.
    at: u64,
    /// Until where the bytes from the read position on are all in a hole, or all not.
    stretch: Stretch,
}

/// A stretch of a file. The kernel would have to make pages of zeros to read a hole, which takes
/// longer than anything else that is done with them.
#[derive(Clone, Copy)]
enum Stretch {
    Data { end: u64 },
    Hole { end: u64 },
}

impl Regular {
    fn new(stat: Stat) -> Self {
        let full = i128::from(stat.st_blocks) * 512 >= i128::from(stat.st_size);
        let end = if full { u64::MAX } else { 0 };
        Self { stat, at: 0, stretch: Stretch::Data { end } }
    }

    fn len(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    fn read(&mut self, fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
        let (Stretch::Data { end } | Stretch::Hole { end }) = self.stretch;
        if self.at >= end && self.at < self.len() {
            self.stretch = stretch(fd, self.at, self.len());
        }
        let left = |end: u64| usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let n = match self.stretch {
            Stretch::Hole { end } if self.at < end => {
                let n = buf.len().min(left(end));
                buf[..n].fill(0);
                n
            }
            Stretch::Data { end } if self.at < end => {
                let n = buf.len().min(left(end));
                rustix::io::pread(fd, &mut buf[..n], self.at)?
            }
            _ => rustix::io::pread(fd, buf, self.at)?,
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// The stretch of a file of `len` bytes that begins at `at`. The descriptor's offset, which is the
/// caller's, is put back.
fn stretch(fd: &OwnedFd, at: u64, len: u64) -> Stretch {
    let before = tell(fd).unwrap_or(0);
    let found = match seek(fd, SeekFrom::Data(at)) {
        Ok(data) if data > at => Stretch::Hole { end: data.min(len) },
        Ok(_) => Stretch::Data { end: seek(fd, SeekFrom::Hole(at)).unwrap_or(u64::MAX) },
        Err(rustix::io::Errno::NXIO) => Stretch::Hole { end: len },
        // A file system that cannot tell is read as it is.
        Err(_) => Stretch::Data { end: u64::MAX },
    };
    seek(fd, SeekFrom::Start(before)).ok();
    found
}

impl DescriptorSource {
    /// Reads from `fd`, a regular file from its first byte on; anything else from where it is.
    /// Setting `cancelled` ends a read that waits.
    pub fn new(fd: OwnedFd, cancelled: Arc<AtomicBool>) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(Self { fd, cancelled, file: regular.then(|| Regular::new(stat)) })
    }

    /// Length of a regular file in bytes.
    pub fn len(&self) -> Option<u64> {
        self.file.as_ref().map(Regular::len)
    }

    /// Whether it is a regular file without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.file {
            return file.read(&self.fd, buf);
        }
        wait(&self.fd, PollFlags::IN, &self.cancelled)?;
        Ok(rustix::io::read(&self.fd, buf)?)
    }
}

impl Source for DescriptorSource {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_some(&mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) if retry(&err, &self.cancelled) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    fn rewind(&mut self) -> bool {
        let Some(file) = &mut self.file else { return false };
        *file = Regular::new(file.stat);
        true
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        let Some(Regular { stat: before, at: read, .. }) = &self.file else { return Ok(()) };
        let now = fstat(&self.fd).map_err(|_| SourceChanged)?;
        let same = now.st_size == before.st_size
            && now.st_mtime == before.st_mtime
            && now.st_mtime_nsec == before.st_mtime_nsec
            && u64::try_from(now.st_size) == Ok(*read);
        if same { Ok(()) } else { Err(SourceChanged) }
    }
}

/// Writes to a descriptor.
pub struct DescriptorSink {
    fd: OwnedFd,
    cancelled: Arc<AtomicBool>,
    seekable: bool,
}

impl DescriptorSink {
    /// Writes to `fd`: at offsets when `seekable` (a regular file), in order otherwise.
    pub fn new(fd: OwnedFd, seekable: bool, cancelled: Arc<AtomicBool>) -> io::Result<Self> {
        let regular = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::RegularFile;
        Ok(Self { fd, cancelled, seekable: seekable && regular })
    }
}

impl Sink for DescriptorSink {
    fn write(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        let (start, len) = (offset, bytes.len() as u64);
        while !bytes.is_empty() {
            let done = if self.seekable {
                rustix::io::pwrite(&self.fd, bytes, offset).map_err(io::Error::from)
            } else {
                wait(&self.fd, PollFlags::OUT, &self.cancelled)
                    // A pipe that is ready takes at least this much without waiting again.
                    .and_then(|()| {
                        Ok(rustix::io::write(&self.fd, &bytes[..bytes.len().min(4096)])?)
                    })
            };
            match done {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    bytes = &bytes[n..];
                }
                Err(err) if retry(&err, &self.cancelled) => {}
                Err(err) => return Err(err),
            }
        }
        if self.seekable && len >= EARLY {
            // So that the command's fsync finds little left to do. Where it does not work the bytes
            // are written out later, which is as good.
            sync_file_range(&self.fd, start, len).ok();
        }
        Ok(())
    }

    fn finish(&self, len: u64) -> io::Result<()> {
        if self.seekable { Ok(rustix::fs::ftruncate(&self.fd, len)?) } else { Ok(()) }
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
}

/// A signal or a non-blocking descriptor is no reason to end; a cancelled command is.
fn retry(err: &io::Error, cancelled: &AtomicBool) -> bool {
    let passing = matches!(err.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
    passing && !cancelled.load(Ordering::Relaxed)
}

fn wait(fd: &impl AsFd, what: PollFlags, cancelled: &AtomicBool) -> io::Result<()> {
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match poll(&mut [PollFd::new(fd, what)], Some(&LOOK_EVERY)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn source(file: &File) -> DescriptorSource {
        let fd = file.try_clone().unwrap().into();
        DescriptorSource::new(fd, Arc::default()).unwrap()
    }

    #[test]
    fn holes_are_read_as_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        file.write_all_at(&[2; 5000], 3 << 20).unwrap();
        file.set_len((5 << 20) + 7).unwrap();
        let mut expected = vec![0; (5 << 20) + 7];
        expected[..10_000].fill(1);
        expected[3 << 20..(3 << 20) + 5000].fill(2);
        let mut source = source(&file);
        for piece in [1000, 4096, 1 << 20, 6 << 20] {
            let mut found = Vec::new();
            let mut buf = vec![9; piece];
            loop {
                let n = source.read(&mut buf).unwrap();
                found.extend_from_slice(&buf[..n]);
                if n < piece {
                    break;
                }
            }
            assert!(found == expected, "pieces of {piece}");
            assert_eq!(source.finish(), Ok(()));
            assert!(source.rewind());
        }
        assert_eq!(tell(&file), Ok(10_000), "the caller's offset");
    }

    #[test]
    fn a_file_that_shrank_into_a_hole_is_not_kept() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut source = source(&file);
        file.set_len(1000).unwrap();
        assert!(source.read(&mut vec![0; 1 << 20]).is_ok());
        assert_eq!(source.finish(), Err(SourceChanged));
    }
}
