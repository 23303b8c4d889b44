//! The names of files that were synced and of which no version exists yet: nothing but this node
//! says them, and after a crash they lead where a sync has promised. A draft's head says the names
//! that its file had when it was synced. When others of these files have got or lost names since
//! their heads were written, that is written into a list first, as of one moment, so that what a
//! crash leaves is how names were at some moment and never a mixture of two.
//!
//! The list is the file `names` of the data directory, sealed by sectors (`crypto::sectors`) under
//! the name `names`: two areas of 8 MiB, `p2pfs names 2\n`. An area begins with a slot (`slot`)
//! that has all names; behind it, each at the beginning of a sector, follow slots that have only
//! what was not said yet when they were written. So a sync costs as much as was renamed, and now
//! and then, when what follows has become long, everything is written anew into the other area. The
//! area of which the first slot has the greater number counts, up to the first slot that is not
//! whole or has no greater number than the one before it. The numbers count all slots.
//!
//! A head tells the number that was the newest when it was written. What greater ones say of its
//! file is newer; where none of them speaks of that, it has the names that its head says, unless
//! one of them has all names: then it had none any more.
//!
//! ```text
//! body = clock u64, files        clock: the reading of the hybrid logical clock at that moment
//! file = inode 16, names         names: see draft
//! ```
//!
//! Invariant: the heads and slots up to any one say the names of all drafts at its moment: of every
//! draft that was renamed since, also one of which the head is just being written, a slot speaks
//! that is written before another head counts.

use super::body::Body;
use super::draft::{Draft, Found, Named, Place, Saying};
use super::sealed::SealedFile;
use super::slot::{Slot, Slots};
use super::{State, WorkError, named};
use crate::crypto::{SECTOR, SectorKey};
use crate::id::InodeId;
use crate::node::{Shared, lock};
use crate::sys::OpenMode;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_list};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard};

const FILE: &str = "names";
const SLOTS: Slots = Slots { magic: b"p2pfs names 2\n", len: 8 << 20 };
/// What follows a slot with all names may be at least so long until all are written anew.
const ANEW: u64 = 1 << 20;
/// Files that a list has: no more new names wait to be known.
const FILES_MAX: usize = 16_384;
const NAMES_MAX: usize = 64;
/// No file: nothing but the list is written. Noted as renamed it stands for more files than are
/// noted.
const NOBODY: InodeId = InodeId([0; 16]);

/// What a slot says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    clock: u64,
    files: BTreeMap<InodeId, Vec<Named>>,
}

/// What all slots say together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// The number of the slot with all names, and that of the newest one.
    all: u64,
    newest: u64,
    /// The moment of the newest one.
    clock: u64,
    /// The names of files, each with the number of the slot that says them.
    files: BTreeMap<InodeId, (u64, Vec<Named>)>,
}

/// The newest list.
#[derive(Default)]
pub(super) struct Naming {
    file: Option<SealedFile>,
    number: u64,
    /// The area that it is in.
    area: u64,
    /// Where in that the next slot goes, and where the first one ended; none: all names have to be
    /// written.
    end: Option<(u64, u64)>,
}

/// A file that has got or lost names since that was said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    when: u64,
    /// Whether it lost its last name: no record will ever speak of it.
    gone: bool,
}

/// All such files, and the slot that has to say it, if one has to: otherwise the head does that is
/// written next.
pub(super) struct Renamed {
    files: BTreeMap<InodeId, Noted>,
    next: Option<Next>,
}

/// A slot that is to be written.
struct Next {
    all: bool,
    files: usize,
    body: Vec<u8>,
}

impl Next {
    fn new(all: bool, names: &Names) -> Self {
        Self { all, files: names.files.len(), body: names.to_bytes() }
    }
}

impl Renamed {
    /// The number of the list that is the newest when this is said.
    pub(super) fn list(&self, naming: &Naming) -> u64 {
        naming.number + u64::from(self.next.is_some())
    }
}

impl Said {
    /// Takes a slot up.
    fn hear(&mut self, number: u64, all: bool, names: Names) {
        if all {
            self.all = number;
        }
        (self.newest, self.clock) = (number, names.clock);
        let files = names.files.into_iter().map(|(id, names)| (id, (number, names)));
        self.files.extend(files);
    }

    /// The names that a file has, if they are not those of its head, which follows this number.
    fn since(&mut self, id: &InodeId, followed: u64) -> Option<Vec<Named>> {
        match self.files.remove(id) {
            Some((number, names)) if number > followed => Some(names),
            _ => (self.all > followed).then(Vec::new),
        }
    }
}

impl Naming {
    /// Opens the list, if that was not done yet.
    pub(super) fn ready(&mut self, place: Place<'_>) -> io::Result<()> {
        if self.file.is_none() { self.open(place).map(drop) } else { Ok(()) }
    }

    /// Opens the list; what it says. All names are written first after that.
    fn open(&mut self, place: Place<'_>) -> io::Result<Said> {
        let key = SectorKey::new(place.key, FILE.as_bytes());
        let file = place.fs.open(&place.dir.join(FILE), OpenMode::Create)?;
        let file = self.file.insert(SealedFile::new(file, key));
        for slot in SLOTS.read_what_can_be(file) {
            let Ok(names) = Names::from_bytes(&slot.body) else { continue };
            let mut said = Said::default();
            let mut at = slot.len().next_multiple_of(SECTOR as u64);
            said.hear(slot.number, true, names);
            while let Some(next) = SLOTS.read_at(file, slot.place, at)
                && next.number > said.newest
                && let Ok(names) = Names::from_bytes(&next.body)
            {
                at += next.len().next_multiple_of(SECTOR as u64);
                said.hear(next.number, false, names);
            }
            (self.number, self.area) = (said.newest, slot.place);
            return Ok(said);
        }
        // The file may be new.
        place.fs.sync_dir(place.dir)?;
        Ok(Said::default())
    }

    /// Whether a slot with only these bytes can be written.
    fn takes(&self, body: &[u8]) -> bool {
        let next = self.end.map(|(end, _)| end + Slots::len_of(body));
        self.end.zip(next).is_some_and(|((end, first), next)| {
            next <= SLOTS.len && end.saturating_sub(first) <= first.max(ANEW)
        })
    }

    /// Writes the next slot; durable when it returns. Whether all of it has room.
    fn write(&mut self, next: &Next) -> io::Result<bool> {
        let Next { all, files, body } = next;
        if body.len() > SLOTS.body_max() || *files > FILES_MAX {
            return Ok(false);
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // Also when this fails: then it may be on the disk all the same, and no draft follows it.
        self.number += 1;
        // And then nothing may follow what was there before: all names are written next.
        let end = self.end.take().filter(|_| !all);
        let (area, at) = end.map_or((1 - self.area, 0), |(end, _)| (self.area, end));
        SLOTS.write_at(file, &Slot { place: area, number: self.number, body: body.clone() }, at)?;
        file.sync()?;
        let next = (at + Slots::len_of(body)).next_multiple_of(SECTOR as u64);
        (self.area, self.end) = (area, Some((next, end.map_or(next, |(_, first)| first))));
        Ok(true)
    }
}

impl Shared {
    /// Gives drafts that were found the names that the list says, where that is newer: each with
    /// the clock as of which it has them.
    pub(super) fn name_found(&self, found: &mut [Found]) -> io::Result<()> {
        let naming = &mut *lock(&self.work.naming);
        let mut said = naming.open(self.drafts())?;
        // A newer slot that cannot be read does not count, and none has its number again.
        let followed = found.iter().map(|found| found.head.list).max().unwrap_or_default();
        let newest = said.newest;
        for found in found.iter_mut().filter(|found| found.head.list < newest) {
            if let Some(names) = said.since(&found.head.id, found.head.list) {
                found.new_names = names;
            }
            found.named_at = said.clock;
        }
        naming.number = naming.number.max(followed);
        found.sort_by_key(|found| found.named_at);
        Ok(())
    }

    /// Notes that an inode got or lost a name: what its draft says of names is not so any more.
    pub(super) fn note_renamed(&self, state: &State, id: &InodeId) {
        let has_draft = |body: &Arc<Body>| body.lock().reader().is_some();
        if state.work.is_known(id) || !state.bodies.get(id).is_some_and(has_draft) {
            return;
        }
        let (when, gone) = (self.tick(), state.work.is_orphan(id));
        let mut renamed = lock(&self.work.renamed);
        if renamed.len() < FILES_MAX || renamed.contains_key(id) {
            renamed.insert(*id, Noted { when, gone });
        } else {
            renamed.insert(NOBODY, Noted { when, gone: true });
        }
    }

    /// What has to be said of names before the head of one of the files, which is about to be
    /// written.
    pub(super) fn renamed(&self, naming: &Naming, state: &State, speaks: InodeId) -> Renamed {
        let files = {
            let mut renamed = lock(&self.work.renamed);
            // Records say the names of what has a version.
            renamed.retain(|id, noted| noted.gone || !state.work.is_known(id));
            renamed.clone()
        };
        let next = files.keys().any(|id| *id != speaks).then(|| {
            if !files.contains_key(&NOBODY) {
                let names = |id: &InodeId| (*id, named(state.work.new_names(id)));
                let names = Names { clock: self.tick(), files: files.keys().map(names).collect() };
                let next = Next::new(false, &names);
                if naming.takes(&next.body) {
                    return next;
                }
            }
            Next::new(true, &self.all_names(state))
        });
        Renamed { files, next }
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
        lock(&self.work.renamed).retain(|id, noted| said.files.get(id) != Some(noted));
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
        let Some(next) = &renamed.next else { return Ok(true) };
        let all = naming.write(next)?;
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
            let renamed = shared.renamed(naming, &lock(&shared.work.state), NOBODY);
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
    use crate::node::work::slot::HEAD;
    use crate::sys::os::OsFs;

    fn names(clock: u64) -> Names {
        let (name, seen) = (Name::new(b"name").unwrap(), Some(Seen(vec![RecordId([2; 32])])));
        let named = Named { parent: InodeId::ROOT, name, seen };
        Names { clock, files: BTreeMap::from([(InodeId([1; 16]), vec![named])]) }
    }

    fn write(naming: &mut Naming, all: bool, clock: u64) -> Option<u64> {
        let names = names(clock);
        let (before, next) = (naming.area, Next::new(all, &names));
        assert!(naming.write(&next).unwrap());
        (before == naming.area).then_some(naming.number)
    }

    fn opened(place: Place<'_>) -> (Naming, Said) {
        let mut naming = Naming::default();
        let said = naming.open(place).unwrap();
        (naming, said)
    }

    fn said(all: u64, newest: u64, clock: u64) -> Said {
        let files = names(clock).files.into_iter().map(|(id, names)| (id, (newest, names)));
        Said { all, newest, clock, files: files.collect() }
    }

    #[test]
    fn a_list_keeps_its_bytes_and_counts_up_to_what_is_not_whole() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let (mut naming, none) = opened(place);
        assert_eq!((none, naming.takes(b"")), (Said::default(), false));
        assert_eq!(write(&mut naming, true, 3), None);
        assert_eq!(write(&mut naming, false, 4), Some(2));
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        let area = &bytes[SLOTS.len as usize..];
        let text: String = area.chunks(32).map(|line| to_hex(line) + "\n").collect();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/drafts/names-v2.hex");
        if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(golden).unwrap(), text);
        assert_eq!(opened(place).1, said(1, 2, 4));
        // The power went while the next one was written.
        assert_eq!(write(&mut naming, false, 5), Some(3));
        let third = SLOTS.len + 2 * SECTOR as u64;
        naming.file.as_ref().unwrap().write(&[0xff; 64], third + HEAD as u64).unwrap();
        let (mut again, found) = opened(place);
        assert_eq!(found, said(1, 2, 4));
        // All are written anew after that, and what was in their way does not follow them.
        assert_eq!(write(&mut again, true, 6), None);
        assert_eq!(opened(place).1, said(3, 3, 6));
        assert_eq!(write(&mut again, true, 7), None);
        assert_eq!(opened(place).1, said(4, 4, 7));
        assert_eq!(write(&mut again, false, 8), Some(5));
        assert_eq!(opened(place).1, said(4, 5, 8));
        // The same when it goes in the other area.
        assert_eq!(write(&mut again, true, 9), None);
        again.file.as_ref().unwrap().write(&[0xff; 64], HEAD as u64).unwrap();
        assert_eq!(opened(place).1, said(4, 5, 8));
    }

    #[test]
    fn a_slot_with_some_names_says_nothing_of_other_files() {
        let mut heard = Said::default();
        heard.hear(4, true, names(7));
        heard.hear(
            5,
            false,
            Names { clock: 8, files: BTreeMap::from([(InodeId([2; 16]), vec![])]) },
        );
        let one = names(7).files.remove(&InodeId([1; 16]));
        for (id, followed, wanted) in
            [(1, 3, one), (2, 4, Some(vec![])), (2, 5, None), (3, 3, Some(vec![])), (3, 4, None)]
        {
            let id = InodeId([id; 16]);
            let (files, clock) = (heard.files.clone(), heard.clock);
            let mut all = Said { all: heard.all, newest: heard.newest, clock, files };
            assert_eq!(all.since(&id, followed), wanted, "{id} after {followed}");
        }
    }

    #[test]
    fn what_was_renamed_is_appended_and_all_is_written_anew_now_and_then() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let (mut naming, _) = opened(place);
        write(&mut naming, true, 1);
        let mut anew = 0;
        for clock in 2..1000 {
            let all = !naming.takes(&names(clock).to_bytes());
            anew += usize::from(all);
            assert_eq!(write(&mut naming, all, clock).is_none(), all);
        }
        assert_eq!(anew, 3);
        assert_eq!((opened(place).1.newest, opened(place).1.clock), (999, 999));
        assert!(!naming.takes(&vec![0; SLOTS.body_max()]), "it would not fit behind the others");
    }

    #[test]
    fn what_has_no_room_in_a_list_is_not_written() {
        let (dir, key) = (tempfile::tempdir().unwrap(), NodeKey::from_seed(&[5; 32]));
        let place = Place { fs: &OsFs, dir: dir.path(), key: &key };
        let (mut naming, _) = opened(place);
        let many = (0..=FILES_MAX as u128).map(|n| (InodeId(n.to_le_bytes()), Vec::new()));
        let many = Names { clock: 1, files: many.collect() };
        assert!(!naming.write(&Next::new(true, &many)).unwrap());
        assert_eq!(naming.number, 0);
    }
}
