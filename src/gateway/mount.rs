//! Mounts: directories of this machine in which the swarm's files are seen. Owns which there are,
//! how they come and go, and that a restarted daemon has them again; what a program sees in one is
//! `door`'s to translate.
//!
//! Those that are to be mounted again are in a list (`table`). A mount that somebody ends by other
//! means leaves it.

mod attach;
mod attr;
mod dirs;
mod door;
mod system;
mod table;
mod xattrs;

use crate::node::{News, Node, Stale, WorkError};
use crate::text::{reason, shown, shown_path};
use crate::wire::control::{Code, Failure, Mount, MountInfo, PathText, Umount};
use attach::{Attached, attach};
use door::Door;
use fuser::{BackgroundSession, INodeNo, Notifier, Session, SessionACL};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use table::{Mounted, Table, Taken};
use tokio::sync::watch;

/// Threads that take requests of one mount.
const THREADS: usize = 4;
/// How long an unmount waits for the others to have what was changed.
const FLUSH: Duration = Duration::from_secs(60);
/// The same when the daemon ends.
const FLUSH_AT_END: Duration = Duration::from_secs(10);
/// How long a mount waits for what was synced before.
const RESTORED: Duration = Duration::from_secs(30);
/// How long a directory that is asked about has to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a mount is tried that was there when the daemon ended, and the pause between.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_secs(1);
/// The mounts of a daemon.
pub struct Mounts {
    node: Arc<RwLock<Arc<Node>>>,
    table: Arc<Table>,
}

impl Mounts {
    /// None yet.
    pub fn new(node: Arc<RwLock<Arc<Node>>>) -> Arc<Self> {
        Arc::new(Self { node, table: Arc::default() })
    }

    fn node(&self) -> Arc<Node> {
        self.node.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that there are.
    pub fn list(&self) -> Vec<MountInfo> {
        let (edited, edited_bytes) = self.node().work().unsaved();
        let open = self.table.open().into_iter();
        open.map(|mount| MountInfo { mount, edited, edited_bytes }).collect()
    }

    /// Mounts.
    ///
    /// # Errors
    /// Why that cannot be, with what would help; then nothing is mounted.
    pub async fn mount(self: &Arc<Self>, mount: Mount) -> Result<MountInfo, Failure> {
        let taken = self.check(&mount, true).await?;
        self.mount_at(mount.clone(), taken, false).await?;
        self.save().await;
        let (edited, edited_bytes) = self.node().work().unsaved();
        Ok(MountInfo { mount, edited, edited_bytes })
    }

    /// The directory that can be mounted on, by nobody else meanwhile.
    async fn check(&self, mount: &Mount, empty: bool) -> Result<Taken, Failure> {
        let given = place_of(&mount.point);
        let (at, data) = (given.clone(), self.node().data_dir().to_owned());
        let point = beside(&given, move || system::directory(&at, &data)).await?;
        let taken = self.table.take(point.clone())?;
        if empty {
            beside(&given, move || system::is_empty(&point)).await?;
        }
        Ok(taken)
    }

    /// Mounts; `again` what is only wanted as long as nobody has given it up.
    async fn mount_at(
        self: &Arc<Self>,
        mount: Mount,
        taken: Taken,
        again: bool,
    ) -> Result<(), Failure> {
        let node = self.node();
        let work = node.work().another_door();
        let root = work.dir_at(&mount.path).map_err(|err| not_there(&err, &mount.path))?;
        let (ended, is_ended) = watch::channel(false);
        // Programs must not see what was there before it was synced.
        if tokio::time::timeout(RESTORED, work.restored()).await.is_err() {
            let why = "what was synced before cannot be restored yet";
            return Err(Failure::new(Code::Failed, why).hint("p2pfs status"));
        }
        let door = Door::new(node, work.clone(), root, mount.read_only, ended);
        let point = taken.point.clone();
        let (wanted, at) = (mount.clone(), point.clone());
        let news = work.news();
        let (attached, session, notifier) = beside(&point, move || {
            served(door, &at, &wanted).map_err(|err| not_mounted(&at, &err))
        })
        .await?;
        tokio::spawn(tell(news, notifier, root, is_ended.clone()));
        let (ended, _session) = (is_ended.clone(), Box::new(session));
        self.table.add(Mounted { mount, point, ended, _session }, &taken, again)?;
        attached.keep();
        drop(taken);
        tokio::spawn(self.clone().attend(is_ended));
        Ok(())
    }

    /// Takes a mount off the list that somebody has ended.
    async fn attend(self: Arc<Self>, mut ended: watch::Receiver<bool>) {
        // The sender is in the session, which ends with it.
        ended.wait_for(|ended| *ended).await.ok();
        let gone = self.table.ended();
        if !gone.is_empty() {
            self.save().await;
        }
        for mounted in gone {
            // The system may have ended what is served, and not the mount.
            if let Ok(taken) = self.table.take(mounted.point.clone()) {
                let clean = move || system::clean(&taken.point);
                beside(&mounted.point, clean).await.ok();
            }
        }
    }

    /// Unmounts, when the others have what was changed.
    ///
    /// # Errors
    /// When programs use it, which are named; or when it is not mounted.
    pub async fn umount(self: &Arc<Self>, umount: &Umount) -> Result<MountInfo, Failure> {
        let given = place_of(&umount.point);
        let at = given.clone();
        let resolve = move || Ok(std::fs::canonicalize(&at).unwrap_or(at));
        let point = beside(&given, resolve).await?;
        let name = shown_path(&point);
        let Some((mount, mut ended)) = self.table.at(&point) else {
            if let Some(mount) = self.table.give_up(&[&given, &point]) {
                self.save().await;
                return Ok(MountInfo { mount, edited: 0, edited_bytes: 0 });
            }
            let at = given.clone();
            if beside(&given, move || system::clean(&at)).await? {
                let mount = Mount {
                    point: umount.point.clone(),
                    path: "/".into(),
                    read_only: false,
                    allow_other: false,
                };
                return Ok(MountInfo { mount, edited: 0, edited_bytes: 0 });
            }
            return Err(Failure::new(
                Code::NotFound,
                format!("{name} is not a mount of this node"),
            )
            .hint("which there are:  p2pfs status"));
        };
        if !umount.force {
            // Nobody waits to be told that it is in use, where that can be seen.
            let users = users_of(&point).await;
            if !users.is_empty() {
                return Err(in_use(&point, &users));
            }
        }
        let work = self.node().work();
        if let Err(err) = work.flush(FLUSH).await {
            tracing::warn!(%err, "not everything that was changed is known to the others yet");
        }
        let (at, force) = (point.clone(), umount.force);
        let done = tokio::task::spawn_blocking(move || system::detach(&at, force)).await;
        if let Err(err) = done.unwrap_or_else(|err| Err(io::Error::other(err))) {
            return Err(not_unmounted(point, err).await);
        }
        if !umount.force {
            // The system tells the session.
            tokio::time::timeout(PAUSE * 5, ended.wait_for(|ended| *ended)).await.ok();
        }
        // Whoever still uses it is served until the last one has ended.
        self.table.remove(&point);
        self.save().await;
        let (edited, edited_bytes) = work.unsaved();
        Ok(MountInfo { mount, edited, edited_bytes })
    }

    /// Mounts again what was mounted when the daemon ended.
    pub fn restore(self: &Arc<Self>) {
        for mount in self.table.restore(self.node().data_dir()) {
            tokio::spawn(self.clone().again(mount));
        }
    }

    /// Mounts something again as soon as that is possible.
    async fn again(self: Arc<Self>, mount: Mount) {
        let name = String::from_utf8_lossy(&mount.point.0).into_owned();
        for _ in 0..TRIES {
            if !self.table.waits(&mount) {
                return;
            }
            let done = match self.check(&mount, false).await {
                // The node may just be on its way into its swarm.
                Ok(taken) => self.mount_at(mount.clone(), taken, true).await,
                // Each try of what does not answer would keep a thread for ever.
                Err(err) if matches!(err.code, Code::Conflict | Code::Unreachable) => {
                    return tracing::warn!("not mounted again at {}: {err}", shown(&name));
                }
                Err(err) => Err(err),
            };
            match done {
                Ok(()) => return tracing::info!("mounted again at {}", shown(&name)),
                Err(err) => tracing::debug!("not mounted again at {} yet: {err}", shown(&name)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::warn!("not mounted again at {}", shown(&name));
    }

    /// Ends all mounts, because the daemon does; they come again with it.
    pub async fn end(&self) {
        self.table.end().await;
        let work = self.node().work();
        if let Err(err) = work.flush(FLUSH_AT_END).await {
            tracing::warn!(%err, "not everything that was changed is known to the others yet");
        }
        detach_all(self.table.drain()).await;
        // What programs have closed after the others were told, say.
        let synced = tokio::time::timeout(FLUSH_AT_END, work.sync_all()).await;
        if let Some(err) = synced.map_or(Some(WorkError::TimedOut), Result::err) {
            tracing::warn!(%err, "not everything that was changed is on this disk");
        }
    }

    /// Ends all mounts, because the node is to leave its swarm; which are to come again in the
    /// next one.
    pub async fn leave(&self) -> Vec<Mount> {
        let open = self.table.leave();
        let mounts = open.iter().map(|mounted| mounted.mount.clone()).collect();
        detach_all(open).await;
        mounts
    }

    /// Mounts again what was mounted when the node left its former swarm.
    pub fn arrive(self: &Arc<Self>, mounts: Vec<Mount>) {
        self.table.arrived();
        for mount in mounts {
            tokio::spawn(self.clone().again(mount));
        }
    }

    /// Writes the list.
    async fn save(&self) {
        self.table.save(self.node().data_dir()).await;
    }
}

/// Detaches mounts, whoever uses them.
async fn detach_all(open: Vec<Mounted>) {
    let detached = tokio::task::spawn_blocking(move || {
        for mounted in open {
            if let Err(err) = system::detach(&mounted.point, true) {
                tracing::warn!(%err, "{} is not unmounted", shown_path(&mounted.point));
            }
        }
    });
    detached.await.ok();
}

/// Tells the system what it must not believe any longer.
async fn tell(mut news: News, notifier: Notifier, root: u64, mut ended: watch::Receiver<bool>) {
    loop {
        let stale = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            stale = news.next() => stale,
        };
        let Some(stale) = stale else { return };
        let notifier = notifier.clone();
        // The system may wait for programs that wait for us.
        let told = tokio::task::spawn_blocking(move || {
            for one in stale {
                let number = |number| INodeNo(door::outside(root, number));
                // What it does not know it need not forget.
                match one {
                    Stale::Inode(inode) => notifier.inval_inode(number(inode), 0, 0).ok(),
                    Stale::Name(dir, name) => {
                        notifier.inval_entry(number(dir), OsStr::from_bytes(&name)).ok()
                    }
                };
            }
        });
        told.await.ok();
    }
}

/// Mounts, and answers what the system asks.
fn served(
    door: Door,
    point: &Path,
    mount: &Mount,
) -> io::Result<(Attached, BackgroundSession, Notifier)> {
    let (attached, device) = attach(point, mount)?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    // Whom a mount is for the system checks when it is entered, and it lets nobody else open
    // anything. Who was handed an open file may use it, whoever that is.
    let session = Session::from_fd(door, device, SessionACL::All, config)?;
    let notifier = session.notifier();
    Ok((attached, session.spawn()?, notifier))
}

fn not_there(err: &WorkError, path: &PathText) -> Failure {
    crate::gateway::control::work_failure(err, path)
}

fn not_mounted(point: &Path, err: &io::Error) -> Failure {
    let name = shown_path(point);
    let text = err.to_string();
    // What the helper says has its name and a line's end around it.
    let helper = text.trim().strip_prefix("fusermount3: ");
    let why = helper.map_or_else(|| reason(err), |said| shown(said).into_owned());
    let denied = || Failure::new(Code::Denied, format!("{name} may not be mounted: {why}"));
    match err.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Code::Failed, format!("{name} cannot be mounted: {why}"))
                .hint("this needs fusermount3 (package fuse3) and /dev/fuse:  modprobe fuse")
        }
        io::ErrorKind::PermissionDenied if helper.is_some() => {
            denied().hint("--allow-other needs the line  user_allow_other  in /etc/fuse.conf")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, "this user may not open /dev/fuse")
                .hint("let everybody, as most systems do:  sudo chmod 666 /dev/fuse")
        }
        _ if why.contains("no write access") => {
            denied().hint("without root, mount on a directory that is yours")
        }
        _ => Failure::new(Code::Failed, format!("{name} cannot be mounted: {why}")),
    }
}

async fn not_unmounted(point: PathBuf, err: io::Error) -> Failure {
    let name = shown_path(&point);
    if err.kind() != io::ErrorKind::ResourceBusy {
        let why = reason(&err);
        return Failure::new(Code::Failed, format!("{name} cannot be unmounted: {why}"));
    }
    // It is in use, whether or not it can be seen by whom.
    in_use(&point, &users_of(&point).await)
}

async fn users_of(point: &Path) -> Vec<(u32, String)> {
    let at = point.to_owned();
    beside(point, move || Ok(system::users_of(&at))).await.unwrap_or_default()
}

fn in_use(point: &Path, users: &[(u32, String)]) -> Failure {
    let name = shown_path(point);
    let users: Vec<String> =
        users.iter().map(|(pid, program)| format!("{} (pid {pid})", shown(program))).collect();
    let by = match users.is_empty() {
        true => String::new(),
        false => format!(" by {}", users.join(", ")),
    };
    Failure::new(Code::Conflict, format!("{name} is in use{by}"))
        .hint("end those programs, or leave them what they have open:  p2pfs umount --force")
}

fn place_of(point: &PathText) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&point.0))
}

/// Asks the system about a directory, which may be on a server that is gone: then nothing there
/// ever answers.
async fn beside<T: Send + 'static>(
    point: &Path,
    ask: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    answered(point, ANSWER, ask).await
}

async fn answered<T: Send + 'static>(
    point: &Path,
    within: Duration,
    ask: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let asked = tokio::time::timeout(within, tokio::task::spawn_blocking(ask)).await;
    let name = shown_path(point);
    match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(err)) => Err(Failure::new(Code::Failed, format!("{name} cannot be used: {err}"))),
        Err(_) => Err(Failure::new(Code::Unreachable, format!("{name} does not answer"))
            .hint("is it on a server, or a disk, that is gone?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_that_does_not_answer_keeps_nobody_waiting() {
        let (release, gone) = std::sync::mpsc::channel::<()>();
        let ask = move || Ok(gone.recv().is_ok());
        let failure = answered(Path::new("/far"), Duration::from_millis(20), ask).await;
        let failure = failure.unwrap_err();
        assert_eq!((failure.code, &*failure.message), (Code::Unreachable, "/far does not answer"));
        release.send(()).unwrap();
        assert_eq!(answered(Path::new("/near"), ANSWER, || Ok(5)).await.unwrap(), 5);
    }

    #[test]
    fn why_it_is_not_mounted_is_said_in_one_line() {
        use io::ErrorKind::{Other, PermissionDenied};
        for (kind, text, words) in [
            (
                PermissionDenied,
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set\n",
                "/m may not be mounted: option allow_other only allowed if 'user_allow_other' \
                 is set",
            ),
            (
                PermissionDenied,
                "Permission denied (os error 13)",
                "this user may not open /dev/fuse",
            ),
            (
                Other,
                "fusermount3: user has no write access to mountpoint /m\n",
                "/m may not be mounted: user has no write access to mountpoint /m",
            ),
        ] {
            let failure = not_mounted(Path::new("/m"), &io::Error::new(kind, text));
            assert_eq!((failure.code, &*failure.message), (Code::Denied, words));
            assert_eq!(failure.hints.len(), 1);
        }
    }
}
