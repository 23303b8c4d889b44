//! A file system in memory that forgets what was not synced. Owns the model of a disk for every
//! simulation: unsynced bytes and names survive a crash by chance, unsynced writes tear at sector
//! borders, operations fail when told to, a failed sync loses what it should have kept. It knows
//! nothing of the store. Invariant: the same seed and the same operations give the same disk.

use p2pfs::sys::{DirEntry, File, Fs, Lock, OpenMode, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// The unit in which space is used.
const PAGE: u64 = 4096;

/// What becomes of unsynced changes in a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Survive {
    /// None of them is there.
    None,
    /// All of them are there.
    All,
    /// Each by chance; writes may be torn.
    Some,
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// EIO: a write is done in part, a sync keeps nothing and later syncs do not make up for it.
    Io,
    /// ENOSPC: a write is done in part.
    NoSpace,
    /// The power goes: the operation is as unsynced as those before it, nothing works after it.
    Crash,
}

/// The file system; clones are the same one.
#[derive(Clone)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

struct Disk {
    random: u64,
    /// Counts the starts of the machine: what was opened before a crash stays dead.
    boot: u64,
    dead: bool,
    steps: u64,
    faults: BTreeMap<u64, Fault>,
    syncs_lie: bool,
    capacity: u64,
    names: BTreeMap<PathBuf, Node>,
    unsynced_names: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    locks: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Folder,
    File(u64),
}

/// A change of names that is not durable: what each name was before and is after.
struct NameChange {
    folder: PathBuf,
    names: Vec<(PathBuf, Option<Node>, Option<Node>)>,
}

#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    reserved: u64,
    open: usize,
    /// Since the last sync, oldest first.
    changes: Vec<Change>,
}

/// A change of bytes: what lay at `offset` before (up to the old end), and the lengths.
struct Change {
    offset: usize,
    before: Vec<u8>,
    len_before: usize,
    written: usize,
    len_after: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unsynced,
    /// Synced, kept only because an older one is lost.
    Synced,
    /// A sync failed on it: clean in memory, perhaps not on the disk, and no sync will help.
    Lost,
}

impl SimFs {
    /// An empty file system with a root.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            random: seed,
            boot: 0,
            dead: false,
            steps: 0,
            faults: BTreeMap::new(),
            syncs_lie: false,
            capacity: 1 << 40,
            names: BTreeMap::from([(PathBuf::from("/"), Node::Folder)]),
            unsynced_names: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
            locks: BTreeSet::new(),
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// From now on `sync_data` says yes and does nothing, as on a disk that lies.
    pub(crate) fn without_sync(self) -> Self {
        self.disk().syncs_lie = true;
        self
    }

    /// How large the disk is.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.disk().capacity = bytes;
    }

    /// How much of it is used.
    pub(crate) fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Operations so far that change or sync something.
    pub(crate) fn steps(&self) -> u64 {
        self.disk().steps
    }

    /// Makes the operation number `step` (counted as [`SimFs::steps`] does, the next one is
    /// `steps() + 1`) fail.
    pub(crate) fn fail_at(&self, step: u64, fault: Fault) {
        self.disk().faults.insert(step, fault);
    }

    /// Nothing fails any more that has not failed yet.
    pub(crate) fn forget_faults(&self) {
        self.disk().faults.clear();
    }

    /// Whether the power is gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.disk().dead
    }

    /// Cuts the power, if it is still there, and starts the machine again.
    pub(crate) fn crash(&self, survive: Survive) {
        self.disk().crash(survive);
    }

    /// Ends the process that used it: what is open dies, what was not synced is still there.
    pub(crate) fn kill(&self) {
        let mut disk = self.disk();
        disk.inodes.values_mut().for_each(|inode| inode.open = 0);
        disk.restart();
        disk.purge();
    }

    /// Changes the durable bytes of a file behind everybody's back: rot.
    pub(crate) fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let id = disk.file(path).expect("the file to damage is there");
        change(&mut disk.inodes.get_mut(&id).unwrap().bytes);
    }
}

impl Disk {
    fn random(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(id) => Some(&self.inodes[id]),
            Node::Folder => None,
        });
        files.map(|inode| inode.used(inode.bytes.len())).sum()
    }

    /// Forgets files that have no name, could not get one back, and are not open.
    fn purge(&mut self) {
        let mut named: BTreeSet<u64> = BTreeSet::new();
        let nodes = self.names.values().copied().map(Some);
        let undone = self.unsynced_names.iter().flat_map(|change| &change.names);
        for node in nodes.chain(undone.flat_map(|(_, before, after)| [*before, *after])) {
            if let Some(Node::File(id)) = node {
                named.insert(id);
            }
        }
        self.inodes.retain(|id, inode| inode.open > 0 || named.contains(id));
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn alive(&self, boot: u64) -> io::Result<()> {
        if self.dead || self.boot != boot { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    /// Counts an operation; its fault, if it has one.
    fn step(&mut self, boot: u64) -> io::Result<Option<Fault>> {
        self.alive(boot)?;
        self.steps += 1;
        let fault = self.faults.remove(&self.steps);
        if fault == Some(Fault::Crash) {
            self.dead = true;
        }
        Ok(fault)
    }

    /// Counts an operation on names; it fails before anything is done, or after it in a crash.
    fn change_names(&mut self, boot: u64, names: Vec<(PathBuf, Option<Node>)>) -> io::Result<()> {
        let fault = self.step(boot)?;
        match fault {
            Some(Fault::Io) => return Err(eio()),
            Some(Fault::NoSpace) => return Err(io::ErrorKind::StorageFull.into()),
            _ => {}
        }
        let folder = names[0].0.parent().unwrap_or(Path::new("/")).to_owned();
        let names = names
            .into_iter()
            .map(|(path, after)| {
                let before = self.set_name(&path, after);
                (path, before, after)
            })
            .collect();
        self.unsynced_names.push(NameChange { folder, names });
        if fault.is_some() { Err(eio()) } else { Ok(()) }
    }

    fn set_name(&mut self, path: &Path, node: Option<Node>) -> Option<Node> {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        }
    }

    fn crash(&mut self, survive: Survive) {
        let changes = std::mem::take(&mut self.unsynced_names);
        for change in changes.iter().rev() {
            for (path, before, _) in change.names.iter().rev() {
                self.set_name(path, *before);
            }
        }
        for change in changes {
            if self.survives(survive) {
                for (path, _, after) in change.names {
                    self.set_name(&path, after);
                }
            }
        }
        // A name survives only below folders that do.
        let names = self.names.clone();
        self.names.retain(|path, _| {
            path.ancestors().skip(1).all(|above| names.get(above) == Some(&Node::Folder))
        });
        let mut inodes = std::mem::take(&mut self.inodes);
        for inode in inodes.values_mut() {
            inode.open = 0;
            inode.crash(|| self.survives(survive));
        }
        self.inodes = inodes;
        self.purge();
        self.restart();
    }

    fn restart(&mut self) {
        self.locks.clear();
        self.boot += 1;
        self.dead = false;
        self.faults.clear();
    }

    fn survives(&mut self, survive: Survive) -> bool {
        match survive {
            Survive::None => false,
            Survive::All => true,
            Survive::Some => self.random() & 1 == 1,
        }
    }
}

impl Inode {
    fn used(&self, len: usize) -> u64 {
        (len as u64).max(self.reserved).next_multiple_of(PAGE)
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let (len_before, end) = (self.bytes.len(), offset + data.len());
        let before = self.bytes[offset.min(len_before)..end.min(len_before)].to_vec();
        self.bytes.resize(len_before.max(end), 0);
        self.bytes[offset..end].copy_from_slice(data);
        let (written, len_after) = (data.len(), self.bytes.len());
        let state = State::Unsynced;
        self.changes.push(Change { offset, before, len_before, written, len_after, state });
    }

    fn set_len(&mut self, len: usize) {
        let len_before = self.bytes.len();
        let offset = len.min(len_before);
        let before = self.bytes[offset..].to_vec();
        self.bytes.resize(len, 0);
        let state = State::Unsynced;
        let change = Change { offset, before, len_before, written: 0, len_after: len, state };
        self.changes.push(change);
    }

    fn sync(&mut self) {
        for change in &mut self.changes {
            if change.state == State::Unsynced {
                change.state = State::Synced;
            }
        }
        if self.changes.iter().all(|change| change.state == State::Synced) {
            self.changes.clear();
        }
    }

    /// Goes back to what is durable and redoes what survives of the rest.
    fn crash(&mut self, mut survives: impl FnMut() -> bool) {
        let mut redo = Vec::new();
        while let Some(change) = self.changes.pop() {
            let end = change.offset + change.written;
            let after = self.bytes[change.offset..end].to_vec();
            self.bytes.resize(change.len_before, 0);
            self.bytes[change.offset..change.offset + change.before.len()]
                .copy_from_slice(&change.before);
            redo.push((change, after));
        }
        while let Some((change, after)) = redo.pop() {
            let sure = change.state == State::Synced;
            if change.written == 0 {
                if sure || survives() {
                    self.bytes.resize(change.len_after, 0);
                }
                continue;
            }
            let mut at = change.offset;
            let end = at + after.len();
            while at < end {
                let next = (at + 1).next_multiple_of(SECTOR).min(end);
                if sure || survives() {
                    self.bytes.resize(self.bytes.len().max(next), 0);
                    self.bytes[at..next]
                        .copy_from_slice(&after[at - change.offset..next - change.offset]);
                }
                at = next;
            }
        }
        self.reserved = 0;
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        let boot = disk.boot;
        disk.alive(boot)?;
        let id = match (disk.file(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(id), _) => id,
            (Err(err), OpenMode::Create | OpenMode::CreateNew)
                if err.kind() == io::ErrorKind::NotFound =>
            {
                let parent = path.parent().unwrap_or(Path::new("/"));
                if disk.names.get(parent) != Some(&Node::Folder) {
                    return Err(err);
                }
                let id = disk.next_inode;
                disk.next_inode += 1;
                disk.inodes.insert(id, Inode::default());
                disk.change_names(boot, vec![(path.to_owned(), Some(Node::File(id)))])?;
                id
            }
            (Err(err), _) => return Err(err),
        };
        disk.inodes.get_mut(&id).expect("a name has an inode").open += 1;
        drop(disk);
        Ok(Arc::new(SimFile { fs: self.clone(), id, boot, writable: mode != OpenMode::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let boot = disk.boot;
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|above| disk.names.get(*above) != Some(&Node::Folder))
            .map(Path::to_owned)
            .collect();
        for folder in missing.into_iter().rev() {
            disk.change_names(boot, vec![(folder, Some(Node::Folder))])?;
        }
        disk.alive(boot)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let disk = self.disk();
        disk.alive(disk.boot)?;
        if disk.names.get(path) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = disk.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(here
            .map(|(name, node)| DirEntry {
                name: name.file_name().map(OsString::from).unwrap_or_default(),
                len: match node {
                    Node::Folder => 0,
                    Node::File(id) => disk.inodes[id].bytes.len() as u64,
                },
                is_dir: *node == Node::Folder,
            })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let boot = disk.boot;
        let id = disk.file(from)?;
        disk.change_names(
            boot,
            vec![(to.to_owned(), Some(Node::File(id))), (from.to_owned(), None)],
        )
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.disk().file(path).map(|_| 0o600)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let boot = disk.boot;
        disk.file(path)?;
        disk.change_names(boot, vec![(path.to_owned(), None)])
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let boot = disk.boot;
        match disk.step(boot)? {
            None => {}
            Some(_) => return Err(eio()),
        }
        disk.unsynced_names.retain(|change| change.folder != path);
        disk.purge();
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let disk = self.disk();
        disk.alive(disk.boot)?;
        Ok(Space { total: disk.capacity, available: disk.capacity.saturating_sub(disk.used()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.disk();
        disk.alive(disk.boot)?;
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { fs: self.clone(), path: path.to_owned(), boot: disk.boot }))
    }
}

struct SimLock {
    fs: SimFs,
    path: PathBuf,
    boot: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if disk.boot == self.boot {
            disk.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    fs: SimFs,
    id: u64,
    boot: u64,
    writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if disk.boot == self.boot
            && let Some(inode) = disk.inodes.get_mut(&self.id)
        {
            inode.open -= 1;
        }
    }
}

impl SimFile {
    /// Runs an operation that changes the file; `more` is the length that it needs.
    fn change(
        &self,
        more: impl FnOnce(&Inode) -> u64,
        work: impl FnOnce(&mut Inode, bool),
    ) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let fault = disk.step(self.boot)?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (used, capacity) = (disk.used(), disk.capacity);
        let inode = disk.inodes.get_mut(&self.id).expect("an open file has an inode");
        let grows = more(inode).saturating_sub(inode.used(inode.bytes.len()));
        let full = fault == Some(Fault::NoSpace) || (grows > 0 && used + grows > capacity);
        work(inode, full || fault == Some(Fault::Io));
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fault.is_some() { Err(eio()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.fs.disk();
        disk.alive(self.boot)?;
        let bytes = &disk.inodes[&self.id].bytes;
        let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let data = bufs.concat();
        let offset = usize::try_from(offset).expect("simulated files are small");
        let end = offset + data.len();
        self.change(
            |inode| inode.used(inode.bytes.len().max(end)),
            |inode, failed| {
                let done = if failed { data.len() / 2 } else { data.len() };
                inode.write(offset, &data[..done]);
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.fs.disk();
        let fault = disk.step(self.boot)?;
        let lies = disk.syncs_lie;
        let inode = disk.inodes.get_mut(&self.id).expect("an open file has an inode");
        match fault {
            None if lies => Ok(()),
            None => {
                inode.sync();
                Ok(())
            }
            Some(Fault::Crash) => Err(eio()),
            Some(_) => {
                for change in &mut inode.changes {
                    if change.state == State::Unsynced {
                        change.state = State::Lost;
                    }
                }
                Err(eio())
            }
        }
    }

    fn let_go(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_out(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.fs.disk().alive(self.boot)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = (offset + len).next_multiple_of(PAGE);
        self.change(
            |inode| inode.used(inode.bytes.len()).max(end),
            |inode, failed| {
                if !failed {
                    inode.reserved = inode.reserved.max(end);
                }
            },
        )
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("simulated files are small");
        self.change(
            |_| 0,
            |inode, failed| {
                let len = inode.bytes.len().saturating_sub(offset).min(len as usize);
                if !failed && len > 0 {
                    inode.write(offset, &vec![0; len]);
                }
            },
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let new = usize::try_from(len).expect("simulated files are small");
        self.change(
            |_| len.next_multiple_of(PAGE),
            |inode, failed| {
                if !failed {
                    inode.set_len(new);
                    inode.reserved = inode.reserved.min(len);
                }
            },
        )
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.fs.disk();
        disk.alive(self.boot)?;
        Ok(disk.inodes[&self.id].bytes.len() as u64)
    }
}
