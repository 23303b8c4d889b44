//! A command's descriptor as source or sink: regular files by positioned reads and writes, which
//! touch neither their offset nor their flags; pipes and terminals in order, waking up regularly so
//! that a cancelled command never leaves a thread behind.

use super::os::sync_file_range;
use super::stream::{Sink, Source, SourceChanged};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Stat, fstat};
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
    /// State at the start and the read position, when the descriptor is a regular file.
    file: Option<(Stat, u64)>,
}

impl DescriptorSource {
    /// Reads from `fd`, a regular file from its first byte on; anything else from where it is.
    /// Setting `cancelled` ends a read that waits.
    pub fn new(fd: OwnedFd, cancelled: Arc<AtomicBool>) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(Self { fd, cancelled, file: regular.then_some((stat, 0)) })
    }

    /// Length of a regular file in bytes.
    pub fn len(&self) -> Option<u64> {
        self.file.as_ref().and_then(|(stat, _)| u64::try_from(stat.st_size).ok())
    }

    /// Whether it is a regular file without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some((_, at)) = &mut self.file {
            let n = rustix::io::pread(&self.fd, buf, *at)?;
            *at += n as u64;
            return Ok(n);
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
        let Some((_, at)) = &mut self.file else { return false };
        *at = 0;
        true
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        let Some((before, read)) = &self.file else { return Ok(()) };
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
