//! Drafts: where the changed chunks of an edited file lie until a version of it is made. One sparse
//! file of the data directory for each, `drafts/<inode>`, 0600; owns its format. What a program has
//! synced survives a crash: the head says what the draft is a draft of, and is read back at the
//! start. A draft without a head was never synced and is removed.
//!
//! Format: the whole file is sealed by sectors (`crypto::sectors`) under the name `draft` and the
//! inode. In it two slots of 512 KiB for heads, then the file's bytes, each at its own offset plus
//! 1 MiB, as far as their chunks are in the draft. A slot (`slot`) begins with `p2pfs draft 1\n`,
//! its number is the reading of the hybrid logical clock (`core::hlc`) when that was so; its body
//! (`wire::codec`):
//!
//! ```text
//! body     = inode 16, length u64, base length u64, base, seen, attributes, names, list u64,
//!            chunks, holes, modified
//! base     = 0 | 1, hash 32, size u64, claim 16, record   the version that it was made from
//! seen     = count (0..=64), record id 32 …               attributes, record: see core::catalogue
//! names    = count (0..=64), parent 16, name, heads …     see `naming`, as is list
//! heads    = 0 | 1, count (0..=8), record id 32 …         what was seen of the name; 0: nothing
//! chunks   = count (0..=16384), first u64, number u64 …   those that are in the draft
//! holes    = the same, of those that are zero whatever is in the draft or the base
//! modified = 0 | 1, ns i64
//! ```
//!
//! Invariants: a head is written after the bytes that it speaks of are durable; bytes that the head
//! speaks of are dropped after another one was written that does not. Bytes that are made zero are
//! written like others: who finds the draft after a crash before they were synced may find either.

use super::sealed::SealedFile;
use super::slot::{Slot, Slots};
use crate::core::catalogue::{Attributes, FileVersion, NAME_MAX, Name};
use crate::crypto::{NodeKey, SectorKey};
use crate::id::{InodeId, RecordId, from_hex};
use crate::sys::{DirEntry, Fs, OpenMode};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_list};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The directory.
const DIR: &str = "drafts";
const SLOTS: Slots = Slots { magic: b"p2pfs draft 1\n", len: 512 << 10 };
/// Where the bytes of the file begin.
const BYTES: u64 = 2 * SLOTS.len;
/// Most runs of chunks that a head lists, holes included.
const RUNS_MAX: usize = 16_384;
const LIST_MAX: usize = 64;
/// Most records that a name lists. What is not listed counts as not seen.
pub(super) const SEEN_MAX: usize = 8;

/// What a draft is a draft of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub id: InodeId,
    pub size: u64,
    /// How much of the base still counts.
    pub base_len: u64,
    pub base: Option<FileVersion>,
    /// The records that were seen of the inode.
    pub seen: Vec<RecordId>,
    pub attributes: Attributes,
    pub names: Vec<Named>,
    /// The list of names that this follows.
    pub list: u64,
    /// Runs of chunks that lie in the draft: the first of each, and how many.
    pub runs: Vec<(u64, u64)>,
    /// The same of chunks of the base that are holes now.
    pub holes: Vec<(u64, u64)>,
    pub modified_ns: Option<i64>,
}

impl Head {
    /// Whether it is short enough to be written.
    pub(super) const fn can_be_said(&self) -> bool {
        self.runs.len() + self.holes.len() <= RUNS_MAX
    }
}

/// A name of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub parent: InodeId,
    pub name: Name,
    /// What was seen of the name; none: nothing of it may be superseded.
    pub seen: Option<Seen>,
}

/// The records of others that were seen of a name, and all of this node besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen(pub Vec<RecordId>);

/// Where drafts are, and what seals them.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub fs: &'a dyn Fs,
    pub dir: &'a Path,
    pub key: &'a NodeKey,
}

impl Place<'_> {
    fn key_of(&self, id: &InodeId) -> SectorKey {
        SectorKey::new(self.key, &[&b"draft"[..], &id.0].concat())
    }
}

/// An open draft; clones are the same one.
#[derive(Clone)]
pub(super) struct Draft {
    file: Arc<SealedFile>,
    path: PathBuf,
    /// Held while a head is being written.
    said: Arc<Mutex<Said>>,
    marks: Arc<Marks>,
}

/// What is asked of a draft by who must not wait for a disk.
#[derive(Default)]
struct Marks {
    /// A head is written or was, be it with success or not.
    may_be_said: AtomicBool,
    is_said: AtomicBool,
    removed: AtomicBool,
}

/// What the newest head says.
#[derive(Default)]
struct Said {
    /// When that was so; 0: there is none.
    clock: u64,
    /// Of how many edits of this life it speaks.
    edits: u64,
    body: Vec<u8>,
    /// The slot that it is in.
    slot: u64,
    /// Whether the name of the draft is durable.
    named: bool,
}

/// What is to be said of a draft.
pub(super) struct Saying {
    pub head: Head,
    /// When it is so: later than every version that was begun before, earlier than all others.
    pub clock: u64,
    /// How many edits there were.
    pub edits: u64,
}

/// A draft that was found, what it is a draft of, and when that was said.
pub(super) struct Found {
    pub draft: Draft,
    pub head: Head,
    pub clock: u64,
    /// The names that it has, if nothing else says them, and the clock as of which that is so.
    pub new_names: Vec<Named>,
    pub named_at: u64,
}

impl Draft {
    /// Makes a draft; one that is there is of no use to anybody.
    pub(super) fn create(place: Place<'_>, id: &InodeId) -> io::Result<Self> {
        let dir = place.dir.join(DIR);
        place.fs.create_dir_all(&dir)?;
        let path = dir.join(id.to_string());
        let file = place.fs.open(&path, OpenMode::Create)?;
        file.set_len(0)?;
        let file = Arc::new(SealedFile::new(file, place.key_of(id)));
        Ok(Self { file, path, said: Arc::default(), marks: Arc::default() })
    }

    /// All drafts that were synced; others are removed, and so is what cannot be read.
    pub(super) fn all(place: Place<'_>) -> io::Result<Vec<Found>> {
        let (fs, dir) = (place.fs, place.dir.join(DIR));
        let entries = match fs.read_dir(&dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(err),
        };
        let mut out = Vec::new();
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            let path = dir.join(&entry.name);
            let Some(id) = id_of(&entry) else { continue };
            let file =
                Arc::new(SealedFile::new(fs.open(&path, OpenMode::Write)?, place.key_of(&id)));
            match newest(&file)?.filter(|(_, head)| head.id == id) {
                Some((said, head)) => {
                    let clock = said.clock;
                    let said = Arc::new(Mutex::new(said));
                    let (new_names, named_at) = (head.names.clone(), clock);
                    let marks = Arc::new(Marks::default());
                    marks.may_be_said.store(true, Ordering::Release);
                    marks.is_said.store(true, Ordering::Release);
                    let draft = Self { file, path, said, marks };
                    out.push(Found { draft, head, clock, new_names, named_at });
                }
                None => fs.remove_file(&path)?,
            }
        }
        Ok(out)
    }

    /// Reads bytes of the file; what was never written is zero.
    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read(buf, BYTES + at)
    }

    /// Writes bytes of the file.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write(bytes, BYTES + at)
    }

    /// Has bytes of the file written to the disk soon.
    pub(super) fn write_out(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.write_out(BYTES + at, len)
    }

    /// Has the system forget bytes of the file that are on the disk.
    pub(super) fn let_go(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.let_go(BYTES + at, len)
    }

    /// Makes bytes of the file zero, and gives their room back.
    pub(super) fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.punch(BYTES + at, len)
    }

    /// Drops what is behind a length of the file.
    pub(super) fn cut(&self, len: u64) -> io::Result<()> {
        self.file.cut(BYTES + len)
    }

    /// Whether a head says anything of it that will be there after a crash.
    pub(super) fn is_said(&self) -> bool {
        self.marks.is_said.load(Ordering::Acquire)
    }

    /// Whether a head may say anything of it after a crash: also one that is just being written.
    pub(super) fn may_be_said(&self) -> bool {
        self.marks.may_be_said.load(Ordering::Acquire)
    }

    /// Makes the bytes durable, and says what they are: what they were before it is called.
    pub(super) fn sync(&self, fs: &dyn Fs, saying: &Saying) -> io::Result<()> {
        self.file.sync()?;
        let Saying { head, clock, edits } = saying;
        let body = head.to_bytes();
        let mut said = crate::node::lock(&self.said);
        // Who was faster may have said more.
        if *clock < said.clock || body == said.body && *edits == said.edits {
            return Ok(());
        }
        self.marks.may_be_said.store(true, Ordering::Release);
        let slot = Slot { place: 1 - said.slot, number: *clock, body };
        SLOTS.write(&self.file, &slot)?;
        self.file.sync()?;
        if !said.named {
            // The directory itself may be as new as the draft.
            self.path.ancestors().skip(1).take(2).try_for_each(|dir| fs.sync_dir(dir))?;
        }
        let Slot { place, body, .. } = slot;
        *said = Said { clock: *clock, edits: *edits, body, slot: place, named: true };
        self.marks.is_said.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether nobody would find it after a crash.
    pub(super) fn is_removed(&self) -> bool {
        self.marks.removed.load(Ordering::Acquire)
    }

    /// Removes it; whoever has it open still reads it.
    pub(super) fn remove(&self, fs: &dyn Fs) -> io::Result<()> {
        self.marks.removed.store(true, Ordering::Release);
        match fs.remove_file(&self.path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// Whether there are drafts, synced or not; what cannot be read may have some.
pub(super) fn has_any(place: Place<'_>) -> bool {
    match place.fs.read_dir(&place.dir.join(DIR)) {
        Ok(entries) => entries.into_iter().any(|entry| id_of(&entry).is_some()),
        Err(err) => err.kind() != io::ErrorKind::NotFound,
    }
}

/// The inode of which a file in the directory is a draft.
fn id_of(entry: &DirEntry) -> Option<InodeId> {
    entry.name.to_str().and_then(|name| from_hex(name).ok()).map(InodeId)
}

/// Makes it durable that drafts were removed.
pub(super) fn sync_removals(place: Place<'_>) -> io::Result<()> {
    place.fs.sync_dir(&place.dir.join(DIR))
}

/// The newest head that is whole.
fn newest(file: &SealedFile) -> io::Result<Option<(Said, Head)>> {
    let mut heads = SLOTS.read(file)?.into_iter().filter_map(|slot| {
        let head = Head::from_bytes(&slot.body).ok()?;
        let Slot { place, number, body } = slot;
        Some((Said { clock: number, edits: 0, body, slot: place, named: true }, head))
    });
    Ok(heads.next())
}

impl Encode for Named {
    fn encode(&self, out: &mut Vec<u8>) {
        self.parent.encode(out);
        self.name.encode(out);
        self.seen.encode(out);
    }
}

impl Encode for Seen {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.0);
    }
}

impl Decode for Seen {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(from.list(SEEN_MAX)?))
    }
}

impl Decode for Named {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (parent, name) = (InodeId::decode(from)?, Name::decode(from)?);
        Ok(Self { parent, name, seen: Option::decode(from)? })
    }
}

impl Encode for Head {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.size.encode(out);
        self.base_len.encode(out);
        self.base.encode(out);
        put_list(out, &self.seen);
        self.attributes.encode(out);
        put_list(out, &self.names);
        self.list.encode(out);
        put_list(out, &self.runs);
        put_list(out, &self.holes);
        self.modified_ns.encode(out);
    }
}

impl Decode for Head {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, size, base_len) = (InodeId::decode(from)?, u64::decode(from)?, u64::decode(from)?);
        let base = Option::decode(from)?;
        let seen = from.list(LIST_MAX)?;
        let attributes = Attributes::decode(from)?;
        let names = from.list(LIST_MAX)?;
        let list = u64::decode(from)?;
        let (runs, holes) = (from.list(RUNS_MAX)?, from.list(RUNS_MAX)?);
        let modified_ns = Option::decode(from)?;
        let head = Self {
            id,
            size,
            base_len,
            base,
            seen,
            attributes,
            names,
            list,
            runs,
            holes,
            modified_ns,
        };
        Ok(head)
    }
}

const NAMED_MAX: usize = NAME_MAX + 64 + SEEN_MAX * 32;
const _: () = assert!(LIST_MAX * NAMED_MAX + RUNS_MAX * 16 + (64 << 10) < SLOTS.body_max());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClaimId, FileHash, to_hex};
    use crate::sys::os::OsFs;

    fn head() -> Head {
        Head {
            id: InodeId([1; 16]),
            size: 3 << 20,
            base_len: 1 << 20,
            base: Some(FileVersion {
                hash: FileHash([2; 32]),
                size: 5,
                claim: ClaimId([3; 16]),
                record: None,
            }),
            seen: vec![RecordId([4; 32])],
            attributes: Attributes { mode: 0o640, mtime_ns: 7, ..Attributes::default() },
            names: vec![Named {
                parent: InodeId::ROOT,
                name: Name::new(b"name").unwrap(),
                seen: Some(Seen(vec![RecordId([6; 32])])),
            }],
            list: 3,
            runs: vec![(1, 2)],
            holes: vec![(0, 1)],
            modified_ns: Some(-9),
        }
    }

    fn saying(clock: u64, head: Head) -> Saying {
        Saying { head, clock, edits: clock }
    }

    fn place<'a>(dir: &'a tempfile::TempDir, key: &'a NodeKey) -> Place<'a> {
        Place { fs: &OsFs, dir: dir.path(), key }
    }

    #[test]
    fn a_draft_keeps_its_bytes() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let draft = Draft::create(place(&dir, &key), &head().id).unwrap();
        draft.sync(&OsFs, &saying(1, head())).unwrap();
        let path = dir.path().join(DIR).join(head().id.to_string());
        let bytes = std::fs::read(path).unwrap();
        let slot = &bytes[SLOTS.len as usize..];
        let text: String = slot.chunks(32).map(|line| to_hex(line) + "\n").collect();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/drafts/head-v1.hex");
        if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(golden).unwrap(), text);
    }

    #[test]
    fn the_newest_whole_head_counts_and_what_was_never_synced_goes() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let draft = Draft::create(place(&dir, &key), &head().id).unwrap();
        draft.write(&[7; 100], 1 << 20).unwrap();
        assert!(Draft::all(place(&dir, &key)).unwrap().is_empty(), "it has no head");
        let draft = Draft::create(place(&dir, &key), &head().id).unwrap();
        draft.write(&[7; 100], 1 << 20).unwrap();
        draft.sync(&OsFs, &saying(5, head())).unwrap();
        let later = Head { size: 4 << 20, ..head() };
        draft.sync(&OsFs, &saying(7, later.clone())).unwrap();
        let found = |wanted: &Head| {
            let mut all = Draft::all(place(&dir, &key)).unwrap();
            let found = all.pop().unwrap();
            assert_eq!(&found.head, wanted);
            let mut bytes = [0; 101];
            found.draft.read(&mut bytes, 1 << 20).unwrap();
            assert_eq!((bytes[0], bytes[99], bytes[100]), (7, 7, 0));
        };
        found(&later);
        // The power went while the newer one was written.
        draft.file.write(&[0xff; 64], crate::node::work::slot::HEAD as u64).unwrap();
        found(&head());
        // The next one takes its place.
        let mut all = Draft::all(place(&dir, &key)).unwrap();
        all.pop().unwrap().draft.sync(&OsFs, &saying(9, later.clone())).unwrap();
        found(&later);
    }
}
