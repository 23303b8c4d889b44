//! I5: what the tables say is in the segments, and what they name has the bytes of that name. After
//! the last life of a machine its store is opened once more, and compared with what the disk shows
//! to a reader who does not know the tables.

use crate::machine::{InlineSpawn, SeededRng};
use crate::segments;
use crate::simfs::SimFs;
use p2pfs::id::{ChunkId, RecordId};
use p2pfs::store::{Follow, FollowTables, Options, Store, Verdict};
use p2pfs::sys::{Clock, Time};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

struct NoFollow;

impl Follow for NoFollow {
    fn version(&self) -> u32 {
        p2pfs::core::catalogue::TABLES_VERSION
    }

    fn apply(&self, _: RecordId, _: &[u8], _: &mut dyn FollowTables) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self, _: &mut dyn FollowTables) -> io::Result<bool> {
        Ok(false)
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// What is wrong on the disk of a machine that is off, if anything; bytes on it may have been
/// changed.
pub(crate) fn check(disk: &SimFs, segment_len: u64, rotted: bool) -> Result<(), String> {
    let node = segments::owner(disk).ok_or("I5: there is no marker")?;
    let options = Options {
        dir: PathBuf::from("/p2pfs/data"),
        node,
        capacity: 1 << 40,
        cached_max: 0,
        free_floor: 0,
        segment_len,
        fs: Arc::new(disk.clone()),
        clock: Arc::new(Still),
        rng: Arc::new(SeededRng::new(0)),
        spawn: Arc::new(InlineSpawn::default()),
    };
    let (store, _) =
        Store::open(options, Arc::new(NoFollow)).map_err(|err| format!("I5: {err}"))?;
    let mut held = BTreeSet::new();
    let listed = store.replicas(ChunkId([0; 32]), &mut |replica| {
        if !replica.damaged {
            held.insert(replica.cid);
        }
        true
    });
    listed.map_err(|err| format!("I5: {err}"))?;
    for cid in &held {
        match store.verify(*cid) {
            Ok(Verdict::Good) => {}
            // Nobody has looked at it since.
            Ok(Verdict::Damaged) if rotted => {}
            found => return Err(format!("I5: {} is {found:?}", cid.short())),
        }
    }
    let there: BTreeSet<ChunkId> = segments::read(disk).replicas.into_keys().collect();
    match there.symmetric_difference(&held).next() {
        // Those that nobody has noticed, or whose name is what rotted.
        Some(_) if rotted => Ok(()),
        Some(cid) if held.contains(cid) => {
            Err(format!("I5: {} is in the tables and not in the segments", cid.short()))
        }
        Some(cid) => Err(format!("I5: {} is in the segments and not in the tables", cid.short())),
        None => Ok(()),
    }
}
