//! Which mounts a daemon has: those that are open, those that wait to be mounted again, and the
//! directories on which somebody is just mounting. Owns the list in the data directory, which has
//! the first two; how a mount comes and goes is `mount`'s.
//!
//! The list is the file `mounts`: one JSON object per line, the arguments of each
//! (`wire::control::Mount`).

use crate::text::shown_path;
use crate::wire::control::{Code, Failure, Mount};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Mounts of one node.
const MOUNTS_MAX: usize = 16;
/// The list, in the data directory.
const LIST: &str = "mounts";

/// A mount that is open.
pub(super) struct Mounted {
    pub(super) mount: Mount,
    pub(super) point: PathBuf,
    /// Set when the system has ended it.
    pub(super) ended: watch::Receiver<bool>,
    /// What answers the system; it ends with the mount's last user.
    pub(super) _session: Box<dyn Send>,
}

/// The mounts.
#[derive(Default)]
pub(super) struct Table {
    all: Mutex<All>,
    /// Held while the list is written, so that the last one writes what there is then.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct All {
    open: Vec<Mounted>,
    waiting: Vec<Mount>,
    taken: Vec<PathBuf>,
    /// Counts when the node begins to leave its swarm, and again when it is to go on in another:
    /// odd in between, when nothing is mounted.
    moves: u64,
    /// Whether the daemon ends: the list stays as it is.
    ending: bool,
}

/// A directory on which nobody else mounts meanwhile.
pub(super) struct Taken {
    table: Arc<Table>,
    /// How often the node had moved then.
    moves: u64,
    pub(super) point: PathBuf,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.table.lock().taken.retain(|taken| *taken != self.point);
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a directory to mount on.
    pub(super) fn take(self: &Arc<Self>, point: PathBuf) -> Result<Taken, Failure> {
        let mut all = self.lock();
        let name = shown_path(&point);
        if all.moves % 2 == 1 {
            return Err(moved());
        }
        let mut open = all.open.iter().filter(|mounted| !*mounted.ended.borrow());
        if open.any(|mounted| mounted.point == point) {
            return Err(Failure::new(Code::Conflict, format!("{name} is a mount already"))
                .hint(format!("p2pfs umount {name}")));
        }
        if all.taken.contains(&point) {
            let why = format!("{name} is just being mounted by another command");
            return Err(Failure::new(Code::Conflict, why));
        }
        if all.open.len() + all.taken.len() >= MOUNTS_MAX {
            return Err(Failure::new(Code::Conflict, "this node has too many mounts"));
        }
        all.taken.push(point.clone());
        Ok(Taken { table: self.clone(), moves: all.moves, point })
    }

    /// Adds a mount, which does not wait any longer. Not when the daemon has ended or the node has
    /// left its swarm since the directory was `taken`, and not one that comes `again` and that
    /// somebody has given up.
    pub(super) fn add(&self, mounted: Mounted, taken: &Taken, again: bool) -> Result<(), Failure> {
        let mut all = self.lock();
        if all.moves != taken.moves {
            return Err(moved());
        }
        if all.ending {
            return Err(Failure::new(Code::Failed, "the daemon ends"));
        }
        if again && !all.waiting.contains(&mounted.mount) {
            return Err(Failure::new(Code::Failed, "somebody has unmounted it meanwhile"));
        }
        let point = mounted.mount.point.clone();
        all.waiting.retain(|waiting| waiting.point != point);
        all.open.push(mounted);
        Ok(())
    }

    /// Those that are open.
    pub(super) fn open(&self) -> Vec<Mount> {
        let all = self.lock();
        let open = all.open.iter().filter(|mounted| !*mounted.ended.borrow());
        open.map(|mounted| mounted.mount.clone()).collect()
    }

    /// The one at a directory, and what tells when it has ended.
    pub(super) fn at(&self, point: &Path) -> Option<(Mount, watch::Receiver<bool>)> {
        let all = self.lock();
        let found = all.open.iter().find(|mounted| mounted.point == point);
        found.map(|mounted| (mounted.mount.clone(), mounted.ended.clone()))
    }

    /// Whether a mount still waits.
    pub(super) fn waits(&self, mount: &Mount) -> bool {
        let all = self.lock();
        !all.ending && all.waiting.contains(mount)
    }

    /// Takes a mount that waits at a directory, which has these paths, off the list.
    pub(super) fn give_up(&self, points: &[&Path]) -> Option<Mount> {
        let waiting = &mut self.lock().waiting;
        let is_there =
            |mount: &Mount| points.contains(&Path::new(OsStr::from_bytes(&mount.point.0)));
        let at = waiting.iter().position(is_there)?;
        Some(waiting.remove(at))
    }

    /// Takes those out that have ended.
    pub(super) fn ended(&self) -> Vec<Mounted> {
        let mut all = self.lock();
        let (gone, left) = all.open.drain(..).partition(|mounted| *mounted.ended.borrow());
        all.open = left;
        gone
    }

    /// Forgets the one at a directory, which nobody can reach any more.
    pub(super) fn remove(&self, point: &Path) {
        self.lock().open.retain(|mounted| mounted.point != point);
    }

    /// Takes all of them out, because the node leaves its swarm: they wait for [`Self::arrived`].
    pub(super) fn leave(&self) -> Vec<Mounted> {
        let all = &mut *self.lock();
        all.moves += 1;
        let open = std::mem::take(&mut all.open);
        // One that the system has ended does not come again.
        let kept = open.iter().filter(|mounted| !*mounted.ended.borrow());
        all.waiting.extend(kept.map(|mounted| mounted.mount.clone()));
        open
    }

    /// The node is another one, on which can be mounted.
    pub(super) fn arrived(&self) {
        self.lock().moves += 1;
    }

    /// The list stays as it is from now on.
    pub(super) async fn end(&self) {
        let _saving = self.saving.lock().await;
        self.lock().ending = true;
    }

    /// Takes all of them out.
    pub(super) fn drain(&self) -> Vec<Mounted> {
        std::mem::take(&mut self.lock().open)
    }

    /// Reads the list: what is in it waits to be mounted.
    pub(super) fn restore(&self, dir: &Path) -> Vec<Mount> {
        let text = std::fs::read_to_string(dir.join(LIST)).unwrap_or_default();
        let mut waiting = Vec::new();
        for line in text.lines().take(MOUNTS_MAX) {
            match serde_json::from_str::<Mount>(line) {
                Ok(mount) => waiting.push(mount),
                Err(err) => tracing::warn!(%err, "the list of mounts is damaged"),
            }
        }
        self.lock().waiting.clone_from(&waiting);
        waiting
    }

    /// Writes the list.
    pub(super) async fn save(&self, dir: &Path) {
        let _saving = self.saving.lock().await;
        let Some(text) = self.text() else { return };
        let path = dir.join(LIST);
        let saved = tokio::task::spawn_blocking(move || replace(&path, &text));
        if let Err(err) = saved.await.unwrap_or_else(|err| Err(io::Error::other(err))) {
            tracing::warn!(%err, "a restarted daemon will not know of its mounts");
        }
    }

    /// The list; none: it stays as it is.
    fn text(&self) -> Option<String> {
        let all = self.lock();
        let open = all.open.iter().filter(|mounted| !*mounted.ended.borrow());
        let mounts = open.map(|mounted| &mounted.mount).chain(&all.waiting).take(MOUNTS_MAX);
        let line = |mount| serde_json::to_string(mount).expect("paths are text or hex") + "\n";
        (!all.ending).then(|| mounts.map(line).collect())
    }
}

/// Why nothing is mounted while the node goes from one swarm to another.
fn moved() -> Failure {
    Failure::new(Code::Failed, "the node is just going to another swarm").hint("p2pfs status")
}

/// Replaces a file; afterwards it is the old or the new one, whenever the power fails.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str) -> Mount {
        Mount { point: point.into(), path: "/".into(), read_only: false, allow_other: false }
    }

    fn mounted(point: &str) -> Mounted {
        let (point, ended) = (PathBuf::from(point), watch::channel(false).1);
        Mounted { mount: mount(point.to_str().unwrap()), point, ended, _session: Box::new(()) }
    }

    #[test]
    fn nothing_is_mounted_of_a_swarm_that_the_node_leaves() {
        let table = Arc::new(Table::default());
        let [one, two] = ["/one", "/two"].map(|point| table.take(point.into()).unwrap());
        table.add(mounted("/one"), &one, false).unwrap();
        assert_eq!(table.leave().len(), 1);
        assert!(table.waits(&mount("/one")), "it comes again");
        // Begun before, which shows what was there then.
        assert!(table.add(mounted("/two"), &two, false).is_err());
        assert!(table.take("/three".into()).is_err());
        table.arrived();
        assert!(table.add(mounted("/two"), &two, false).is_err());
        drop((one, two));
        let one = table.take("/one".into()).unwrap();
        table.add(mounted("/one"), &one, true).unwrap();
        assert_eq!(table.open(), [mount("/one")]);
    }

    #[tokio::test]
    async fn what_waits_stays_in_the_list_until_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let table = Arc::new(Table::default());
        assert!(table.restore(dir.path()).is_empty(), "there is none yet");
        table.lock().waiting = vec![mount("/one"), mount("/two")];
        // As many at once as there are commands: none fails, and all of them write the same.
        tokio::join!(table.save(dir.path()), table.save(dir.path()), table.save(dir.path()));
        let again = Arc::new(Table::default());
        assert_eq!(again.restore(dir.path()), [mount("/one"), mount("/two")]);
        assert!(again.waits(&mount("/two")) && !again.waits(&mount("/three")));
        assert_eq!(again.give_up(&[Path::new("/link"), Path::new("/one")]), Some(mount("/one")));
        again.save(dir.path()).await;
        assert_eq!(table.restore(dir.path()), [mount("/two")]);
        again.end().await;
        assert_eq!(again.give_up(&[Path::new("/two")]), Some(mount("/two")));
        again.save(dir.path()).await;
        assert_eq!(table.restore(dir.path()), [mount("/two")], "it has ended");
        assert!(!dir.path().join("mounts.new").exists());
    }

    #[test]
    fn what_is_given_up_while_it_is_mounted_again_does_not_come() {
        let table = Arc::new(Table::default());
        let add = |point: &str, again| {
            let taken = table.take(point.into()).unwrap();
            table.add(mounted(point), &taken, again)
        };
        table.lock().waiting = vec![mount("/one"), mount("/two"), mount("/three")];
        assert_eq!(table.give_up(&[Path::new("/one")]), Some(mount("/one")));
        assert!(add("/one", true).is_err());
        add("/two", true).unwrap();
        assert!(!table.waits(&mount("/two")), "it came");
        // A command mounts what it wants, also where something waits.
        add("/three", false).unwrap();
        add("/four", false).unwrap();
        assert_eq!(table.open(), ["/two", "/three", "/four"].map(mount));
        assert!(table.lock().waiting.is_empty());
    }

    #[test]
    fn two_cannot_mount_on_one_directory() {
        let table = Arc::new(Table::default());
        let first = table.take("/one".into()).unwrap();
        let refused = table.take("/one".into()).err().unwrap();
        assert_eq!(refused.code, Code::Conflict);
        drop(first);
        let all: Vec<_> =
            (0..MOUNTS_MAX).map(|n| table.take(format!("/{n}").into()).unwrap()).collect();
        assert!(table.take("/one".into()).is_err(), "these are too many");
        drop(all);
        assert!(table.take("/one".into()).is_ok());
    }
}
