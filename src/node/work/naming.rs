//! The names of files that were synced and of which no version exists yet: nothing but this node
//! says them, and after a crash they lead where a sync has promised. A draft's head says the names
//! that its file had when it was synced. When others of these files have got or lost names since
//! their heads were written, all names as of one moment are written into one list first, so that
//! what a crash leaves is how names were at some moment and never a mixture of two.
//!
//! The list is the file `names` of the data directory, sealed by sectors (`crypto::sectors`) under
//! the name `names`: two slots of 8 MiB (`slot`), `p2pfs names 1\n`, the number counts lists. A
//! head tells the number of the list that it follows: one with a greater number is newer than it,
//! and a file that is not in that had no name any more.
//!
//! ```text
//! body = clock u64, files        clock: the reading of the hybrid logical clock at that moment
//! file = inode 16, names         names: see draft
//! ```
//!
//! Invariant: a list has every draft there is, also one of which the head is just being written.

use super::body::Body;
use super::draft::{Draft, Found, Named, Place, Saying};
use super::sealed::SealedFile;
use super::slot::{Slot, Slots};
use super::{State, WorkError, named};
use crate::crypto::SectorKey;
use crate::id::InodeId;
use crate::node::{Shared, lock};
use crate::sys::OpenMode;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_list};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard};

const FILE: &str = "names";
const SLOTS: Slots = Slots { magic: b"p2pfs names 1\n", len: 8 << 20 };
/// Files that a list has: no more new names wait to be known.
const FILES_MAX: usize = 16_384;
const NAMES_MAX: usize = 64;
/// No file: nothing but the list is written.
const NOBODY: InodeId = InodeId([0; 16]);

/// What a list says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    clock: u64,
    files: BTreeMap<InodeId, Vec<Named>>,
}

/// The newest list.
#[derive(Default)]
pub(super) struct Naming {
    file: Option<SealedFile>,
    number: u64,
    /// The slot that it is in.
    place: u64,
}

/// Files that have got or lost names since that was said, each with when, and the list that has to
/// say it, if one has to: otherwise the head does that is written next.
pub(super) struct Renamed {
    ids: BTreeMap<InodeId, u64>,
    names: Option<Names>,
}

impl Renamed {
    /// The number of the list that is the newest when this is said.
    pub(super) fn list(&self, naming: &Naming) -> u64 {
        naming.number + u64::from(self.names.is_some())
    }
}

impl Naming {
    /// Opens the list, if that was not done yet.
    pub(super) fn ready(&mut self, place: Place<'_>) -> io::Result<()> {
        if self.file.is_none() { self.open(place).map(drop) } else { Ok(()) }
    }

    /// Opens the list; what it says.
    fn open(&mut self, place: Place<'_>) -> io::Result<Names> {
        let key = SectorKey::new(place.key, FILE.as_bytes());
        let file = place.fs.open(&place.dir.join(FILE), OpenMode::Create)?;
        let file = self.file.insert(SealedFile::new(file, key));
        for slot in SLOTS.read_what_can_be(file) {
            if let Ok(names) = Names::from_bytes(&slot.body) {
                (self.number, self.place) = (slot.number, slot.place);
                return Ok(names);
            }
        }
        // The file may be new.
        place.fs.sync_dir(place.dir)?;
        Ok(Names::default())
    }

    /// Writes the next list; durable when it returns. Whether all of it has room.
    fn write(&mut self, names: &Names) -> io::Result<bool> {
        let body = names.to_bytes();
        if body.len() > SLOTS.body_max() || names.files.len() > FILES_MAX {
            return Ok(false);
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // Also when this fails: then it may be on the disk all the same, and no draft follows it.
        self.number += 1;
        let slot = Slot { place: 1 - self.place, number: self.number, body };
        SLOTS.write(file, &slot)?;
        file.sync()?;
        self.place = slot.place;
        Ok(true)
    }
}

impl Shared {
    /// Gives drafts that were found the names that the list says, where that is newer: each with
    /// the clock as of which it has them.
    pub(super) fn name_found(&self, found: &mut [Found]) -> io::Result<()> {
        let naming = &mut *lock(&self.work.naming);
        let mut names = naming.open(self.drafts())?;
        // A newer list that cannot be read does not count, and none has its number again.
        let followed = found.iter().map(|found| found.head.list).max().unwrap_or_default();
        for found in found.iter_mut().filter(|found| found.head.list < naming.number) {
            let said = names.files.remove(&found.head.id).unwrap_or_default();
            (found.new_names, found.named_at) = (said, names.clock);
        }
        naming.number = naming.number.max(followed);
        found.sort_by_key(|found| found.named_at);
        Ok(())
    }

    /// Notes that an inode got or lost a name: what its draft says of names is not so any more.
    pub(super) fn note_renamed(&self, state: &State, id: &InodeId) {
        let has_draft = |body: &Arc<Body>| body.lock().reader().is_some();
        if !state.work.is_known(id) && state.bodies.get(id).is_some_and(has_draft) {
            lock(&self.work.renamed).insert(*id, self.tick());
        }
    }

    /// What has to be said of names before the head of one of the files, which is about to be
    /// written.
    pub(super) fn renamed(&self, state: &State, speaks: InodeId) -> Renamed {
        let ids = {
            let mut renamed = lock(&self.work.renamed);
            // Records say the names of what has a version.
            renamed.retain(|id, _| !state.work.is_known(id));
            renamed.clone()
        };
        let names = ids.keys().any(|id| *id != speaks).then(|| self.all_names(state));
        Renamed { ids, names }
    }

    /// The names of all drafts that nothing else says.
    fn all_names(&self, state: &State) -> Names {
        let State { work, bodies, .. } = state;
        let has_draft = |body: &Body| body.lock().reader().is_some();
        let new = bodies.values().filter(|body| !work.is_known(&body.id) && has_draft(body));
        let files = new.map(|body| (body.id, named(work.new_names(&body.id)))).collect();
        Names { clock: self.tick(), files }
    }

    /// What was said of names is durable. Until then whoever syncs says it as well.
    fn names_said(&self, said: &Renamed) {
        lock(&self.work.renamed).retain(|id, when| said.ids.get(id) != Some(when));
    }

    /// Makes names durable if that is needed, then a draft. Whether all could be listed.
    pub(super) fn say(
        &self,
        mut naming: MutexGuard<'_, Naming>,
        renamed: &Renamed,
        draft: &Draft,
        saying: &Saying,
    ) -> io::Result<bool> {
        if !saying.head.can_be_said() || !self.write_names(&mut naming, renamed)? {
            return Ok(false);
        }
        // Others need not wait for bytes.
        drop(naming);
        draft.sync(&*self.sys.fs, saying)?;
        self.names_said(renamed);
        Ok(true)
    }

    fn write_names(&self, naming: &mut Naming, renamed: &Renamed) -> io::Result<bool> {
        let Some(names) = &renamed.names else { return Ok(true) };
        let all = naming.write(names)?;
        if all {
            self.names_said(renamed);
        }
        Ok(all)
    }

    /// Makes names durable that drafts have got or lost since their heads were written.
    pub(super) async fn sync_names(self: &Arc<Self>) -> Result<(), WorkError> {
        let shared = self.clone();
        let said = self.job(move || {
            let naming = &mut *lock(&shared.work.naming);
            naming.ready(shared.drafts())?;
            let renamed = shared.renamed(&lock(&shared.work.state), NOBODY);
            shared.write_names(naming, &renamed)
        });
        if said.await?? {
            return Ok(());
        }
        // Too much to be listed: it is written down instead.
        self.round(true).await?.map_or(Ok(()), Err)
    }
}

impl Encode for Names {
    fn encode(&self, out: &mut Vec<u8>) {
        self.clock.encode(out);
        let count = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        count.encode(out);
        for (id, names) in &self.files {
            id.encode(out);
            put_list(out, names);
        }
    }
}

/// A file in a list.
struct File(InodeId, Vec<Named>);

impl Decode for File {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(InodeId::decode(from)?, from.list(NAMES_MAX)?))
    }
}

impl Decode for Names {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let clock = u64::decode(from)?;
        let files: Vec<File> = from.list(FILES_MAX)?;
        Ok(Self { clock, files: files.into_iter().map(|File(id, names)| (id, names)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::catalogue::Name;
    use crate::crypto::NodeKey;
    use crate::id::{RecordId, to_hex};
    use crate::node::work::draft::Seen;
    use crate::sys::os::OsFs;

    fn names(clock: u64) -> Names {
        let (name, seen) = (Name::new(b"name").unwrap(), Some(Seen(vec![RecordId([2; 32])])));
        let named = Named { parent: InodeId::ROOT, name, seen };
        Names { clock, files: BTreeMap::from([(InodeId([1; 16]), vec![named])]) }
    }

    #[test]
    fn a_table_keeps_its_bytes_and_the_newest_whole_one_counts() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let mut naming = Naming::default();
        assert_eq!(naming.open(place).unwrap(), Names::default());
        assert!(naming.write(&names(3)).unwrap());
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        let slot = &bytes[SLOTS.len as usize..];
        let text: String = slot.chunks(32).map(|line| to_hex(line) + "\n").collect();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/drafts/names-v1.hex");
        if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(golden).unwrap(), text);
        assert!(naming.write(&names(4)).unwrap());
        let mut again = Naming::default();
        assert_eq!((again.open(place).unwrap(), again.number), (names(4), 2));
        // The power went while the newer one was written.
        naming.file.unwrap().write(&[0xff; 64], crate::node::work::slot::HEAD as u64).unwrap();
        let mut again = Naming::default();
        assert_eq!((again.open(place).unwrap(), again.number), (names(3), 1));
        // The next one takes its place.
        assert!(again.write(&names(5)).unwrap());
        let mut again = Naming::default();
        assert_eq!((again.open(place).unwrap(), again.number), (names(5), 2));
    }

    #[test]
    fn what_has_no_room_in_a_table_is_not_written() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let mut naming = Naming::default();
        naming.ready(place).unwrap();
        let many = (0..=FILES_MAX as u128).map(|n| (InodeId(n.to_le_bytes()), Vec::new()));
        let many = Names { clock: 1, files: many.collect() };
        assert!(!naming.write(&many).unwrap());
        assert_eq!(naming.number, 0);
    }
}
