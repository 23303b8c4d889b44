//! The real machine behind the seams: the operating system's files, clocks, random source, threads
//! and TCP. Nothing here decides anything; errors are passed up as the system gave them.

use super::fs::{DirEntry, File, Fs, Lock, OpenMode, Space, Stamp, StampKind};
use super::net::{BoxFuture, ByteStream, Listener, Net};
use super::spawn::{Spawn, Step, Work};
use super::{Clock, Rng, Time};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The operating system's file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsFs;

/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

struct OsFile(std::fs::File);

struct OsLock {
    _file: std::fs::File,
}

impl Lock for OsLock {}

impl Fs for OsFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::CLOEXEC
            | match mode {
                OpenMode::Read => OFlags::RDONLY,
                OpenMode::Write => OFlags::RDWR,
                OpenMode::Create => OFlags::RDWR | OFlags::CREATE,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Arc::new(OsFile(file.into())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // It went away between the listing and now: then it is not there.
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                Err(err) => return Err(err),
            };
            entries.push(DirEntry {
                name: entry.file_name(),
                len: if meta.is_dir() { 0 } else { meta.len() },
                is_dir: meta.is_dir(),
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        use std::os::unix::fs::PermissionsExt;
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        let stat = rustix::fs::lstat(path)?;
        let nanos =
            |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Ok(Stamp {
            dev: stat.st_dev,
            ino: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec as i64),
            mode: stat.st_mode & 0o7777,
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => StampKind::File,
                FileType::Directory => StampKind::Dir,
                _ => StampKind::Other,
            },
        })
    }

    fn open_as_it_is(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Arc::new(OsFile(file.into())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file: std::fs::File = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }
}

impl OsFile {
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS.len() as u64);
            self.write_at(&[&ZEROS[..step as usize]], at)?;
            at += step;
        }
        Ok(())
    }
}

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            // More slices than the system takes in one call are simply written in several.
            let now = rest.len().min(256);
            match rustix::io::pwritev(&self.0, &rest[..now], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write_out(&self, offset: u64, len: u64) -> io::Result<()> {
        sync_file_range(&self.0, offset, len)
    }

    fn let_go(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = std::num::NonZeroU64::new(len);
        Ok(rustix::fs::fadvise(&self.0, offset, len, rustix::fs::Advice::DontNeed)?)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, len) {
            // A file system without the call still stores the bytes, only less quickly.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = len.min(self.len()?.saturating_sub(offset));
        if len == 0 {
            return Ok(());
        }
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, how, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.write_zeros(offset, len),
            other => other.map_err(Into::into),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Starts writing a range out so that a later `fdatasync` finds little left to do. The call is not
/// in rustix; it neither takes nor returns memory, so calling it is sound for any open descriptor.
#[allow(unsafe_code)]
pub(super) fn sync_file_range(file: &impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(too_far)?;
    let len = i64::try_from(len).map_err(too_far)?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let done = unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Allocations from here on are pages of their own and go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 256 << 10;
/// Heaps that threads share: what one has given back another one takes.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Has the allocator keep little that nobody uses. By itself glibc raises the length from which
/// allocations are pages of their own to that of the longest freed so far, and has eight heaps per
/// core: then the buffers of full chunks leave holes in each of them, and a node that is asked a
/// lot has a quarter more memory than it uses.
#[allow(unsafe_code)]
pub fn keep_memory_small() {
    // SAFETY: it sets numbers of the allocator, under the allocator's lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct OsClock {
    origin: Instant,
}

impl OsClock {
    /// A clock whose monotonic origin is now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for OsClock {
    fn now(&self) -> Time {
        // One second above zero, so that "a little earlier than the start" is still a time.
        Time(1_000_000) + self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The operating system's random source.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsRng;

impl Rng for OsRng {
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the system's random source works or nothing here is safe");
    }
}

/// The operating system's threads.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsSpawn;

impl Spawn for OsSpawn {
    fn start(&self, name: &str, mut work: Box<dyn Work>) -> Arc<dyn Fn() + Send + Sync> {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                loop {
                    match work.step() {
                        Step::More => {}
                        Step::Idle => work.wait(),
                        Step::Done => return,
                    }
                }
            })
            .expect("a thread can be started, or the node cannot work at all");
        Arc::new(|| {})
    }

    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        // The handle is not kept: whoever needs the result waits for a channel inside the job.
        drop(tokio::runtime::Handle::current().spawn_blocking(job));
    }
}

/// The operating system's TCP.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsNet;

struct OsListener(tokio::net::TcpListener);

impl Listener for OsListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, addr) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            Ok((Box::new(stream) as Box<dyn ByteStream>, plain))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Net for OsNet {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let domain = socket2::Domain::for_address(addr);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            if addr.is_ipv6() {
                socket.set_only_v6(!addr.ip().is_unspecified())?;
            }
            // A restarted daemon takes its port again although old connections linger.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&addr.into())?;
            socket.listen(1024)?;
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            Ok(Box::new(OsListener(listener)) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// The user and the group who run this process.
pub fn user() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// Where the system keeps a number that is the same for everything on one machine.
const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A number of this machine that tells nobody its machine id.
pub fn machine() -> [u8; 8] {
    let id = MACHINE_ID.iter().find_map(|path| std::fs::read_to_string(path).ok());
    let mut out = [0; 8];
    let hash = blake3::derive_key("p2pfs 2026-11 machine v1", id.unwrap_or_default().as_bytes());
    out.copy_from_slice(&hash[..8]);
    out
}
