//! The real file system, but for places of files that the disk cannot read any more, as a disk
//! with bad sectors has them, and for calls that wait or fail as long as a test wants. What is
//! written elsewhere is good.

use p2pfs::sys::os::OsFs;
use p2pfs::sys::{DirEntry, File, Fs, Lock, OpenMode, Space};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The name of threads of which the system keeps what they ask about room waiting.
pub(crate) const HELD: &str = "held";
/// Nothing waits longer.
const PATIENCE: Duration = Duration::from_secs(60);

type Places = Arc<Mutex<Vec<(PathBuf, Range<u64>)>>>;

/// What the file system is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Bytes of a file.
    Read,
    /// The room on a disk, by a thread of the name [`HELD`].
    Space,
    /// To remove a file.
    Remove,
    /// To make what was written to a file durable.
    Sync,
}

/// What becomes of such calls below a directory.
struct Rule {
    call: Call,
    below: PathBuf,
    /// They wait here; none: they fail.
    gate: Option<Arc<Gate>>,
}

type Rules = Arc<Mutex<Vec<Rule>>>;

#[derive(Default)]
struct Gate {
    /// Who waits, and whether it is open.
    state: Mutex<(usize, bool)>,
    opened: Condvar,
}

/// A file system with bad places.
#[derive(Default)]
pub(crate) struct BadFs {
    bad: Places,
    rules: Rules,
}

/// Calls wait until this is dropped.
pub(crate) struct Hold(Arc<Gate>);

impl Hold {
    /// Whether a call waits.
    pub(crate) fn is_reached(&self) -> bool {
        self.0.state.lock().unwrap().0 > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().1 = true;
        self.0.opened.notify_all();
    }
}

fn ask(rules: &Rules, call: Call, path: &Path) -> io::Result<()> {
    let gates: Vec<_> = {
        let rules = rules.lock().unwrap();
        let rules = rules.iter().filter(|rule| rule.call == call && path.starts_with(&rule.below));
        rules.map(|rule| rule.gate.clone()).collect()
    };
    for gate in gates {
        let Some(gate) = gate else { return Err(io::Error::from_raw_os_error(5)) };
        let mut state = gate.state.lock().unwrap();
        state.0 += 1;
        let waited = gate.opened.wait_timeout_while(state, PATIENCE, |(_, open)| !*open).unwrap();
        state = waited.0;
        state.0 -= 1;
    }
    Ok(())
}

struct BadFile {
    file: Arc<dyn File>,
    path: PathBuf,
    bad: Places,
    rules: Rules,
}

impl BadFs {
    /// From now on this part of a file gives EIO.
    pub(crate) fn spoil(&self, path: &Path, range: Range<u64>) {
        self.bad.lock().unwrap().push((path.to_owned(), range));
    }

    /// From now on these calls below a directory wait.
    pub(crate) fn hold(&self, call: Call, below: &Path) -> Hold {
        let gate = Arc::<Gate>::default();
        let (below, kept) = (below.to_owned(), Some(gate.clone()));
        self.rules.lock().unwrap().push(Rule { call, below, gate: kept });
        Hold(gate)
    }

    /// From now on these calls below a directory, or of a file, fail.
    pub(crate) fn refuse(&self, call: Call, below: &Path) {
        self.rules.lock().unwrap().push(Rule { call, below: below.to_owned(), gate: None });
    }

    /// Nothing waits or fails any more, but for places that cannot be read.
    pub(crate) fn allow_all(&self) {
        self.rules.lock().unwrap().clear();
    }
}

impl Fs for BadFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = OsFs.open(path, mode)?;
        let (bad, rules) = (self.bad.clone(), self.rules.clone());
        Ok(Arc::new(BadFile { file, path: path.to_owned(), bad, rules }))
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
        ask(&self.rules, Call::Remove, path)?;
        OsFs.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        if std::thread::current().name() == Some(HELD) {
            ask(&self.rules, Call::Space, path)?;
        }
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
        ask(&self.rules, Call::Read, &self.path)?;
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
        ask(&self.rules, Call::Sync, &self.path)?;
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
