//! Mounts: directories of this machine in which the swarm's files are seen. Owns which there are,
//! how they come and go, and that a restarted daemon has them again; what a program sees in one is
//! `door`'s to translate.
//!
//! Those that are to be mounted again are in a list (`table`). A mount that somebody ends by other
//! means leaves it.

mod attr;
mod dirs;
mod door;
mod system;
mod table;

use crate::node::{News, Node, Stale, WorkError};
use crate::text::{reason, shown, shown_path};
use crate::wire::control::{Code, Failure, Mount, MountInfo, PathText, Umount};
use door::Door;
use fuser::{INodeNo, Notifier, Session, SessionACL};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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
        let taken = self.check(&mount, true)?;
        self.mount_at(mount.clone(), taken).await?;
        self.save().await;
        let (edited, edited_bytes) = self.node().work().unsaved();
        Ok(MountInfo { mount, edited, edited_bytes })
    }

    /// The directory that can be mounted on, by nobody else meanwhile.
    fn check(&self, mount: &Mount, empty: bool) -> Result<Taken, Failure> {
        let given = Path::new(OsStr::from_bytes(&mount.point.0));
        if system::clean(given)? {
            tracing::info!("a dead mount at {} was detached", shown_path(given));
        }
        let point = std::fs::canonicalize(given).map_err(|err| unusable(given, &err))?;
        let name = shown_path(&point);
        if !point.is_dir() {
            return Err(Failure::new(Code::Conflict, format!("{name} is not a directory")));
        }
        let data = self.node().data_dir().to_owned();
        let data = std::fs::canonicalize(&data).unwrap_or(data);
        if data.starts_with(&point) || point.starts_with(&data) {
            let why = format!("{name} has the node's own data in it, or is in it");
            return Err(Failure::new(Code::Conflict, why));
        }
        let taken = self.table.take(point.clone())?;
        let mut entries = std::fs::read_dir(&point).map_err(|err| unusable(&point, &err))?;
        if empty && entries.next().is_some() {
            return Err(Failure::new(Code::Conflict, format!("{name} is not empty"))
                .hint("what is in it could not be seen: mount on an empty directory"));
        }
        Ok(taken)
    }

    async fn mount_at(self: &Arc<Self>, mount: Mount, taken: Taken) -> Result<(), Failure> {
        let node = self.node();
        let work = node.work().another_door();
        let root = work.dir_at(&mount.path).map_err(|err| not_there(&err, &mount.path))?;
        let (ended, is_ended) = watch::channel(false);
        let door = Door::new(node, work.clone(), root, mount.read_only, ended);
        let point = taken.point.clone();
        let (options, at) = (options(&mount), point.clone());
        let news = work.news();
        let session = tokio::task::spawn_blocking(move || {
            let session = Session::new(door, &at, &options)?;
            let notifier = session.notifier();
            Ok((session.spawn()?, notifier))
        });
        let session = session.await.unwrap_or_else(|err| Err(io::Error::other(err)));
        let (session, notifier) = session.map_err(|err| not_mounted(&point, &err))?;
        tokio::spawn(tell(news, notifier, root, is_ended.clone()));
        let mounted = Mounted { mount, point, ended: is_ended.clone(), _session: session };
        if !self.table.add(mounted) {
            return Err(Failure::new(Code::Failed, "the daemon ends"));
        }
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
        // Its threads may still be ending.
        tokio::task::spawn_blocking(move || drop(gone)).await.ok();
    }

    /// Unmounts, when the others have what was changed.
    ///
    /// # Errors
    /// When programs use it, which are named; or when it is not mounted.
    pub async fn umount(self: &Arc<Self>, umount: &Umount) -> Result<MountInfo, Failure> {
        let given = Path::new(OsStr::from_bytes(&umount.point.0));
        let point = std::fs::canonicalize(given).unwrap_or_else(|_| given.to_owned());
        let name = shown_path(&point);
        let Some((mount, mut ended)) = self.table.at(&point) else {
            if let Some(mount) = self.table.give_up(&point) {
                self.save().await;
                return Ok(MountInfo { mount, edited: 0, edited_bytes: 0 });
            }
            if system::clean(given)? {
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
        let work = self.node().work();
        if let Err(err) = work.flush(FLUSH).await {
            tracing::warn!(%err, "not everything that was changed is known to the others yet");
        }
        let (at, force) = (point.clone(), umount.force);
        let done = tokio::task::spawn_blocking(move || system::detach(&at, force)).await;
        done.unwrap_or_else(|err| Err(io::Error::other(err))).map_err(|err| busy(&point, &err))?;
        if !umount.force {
            // The system tells the session.
            tokio::time::timeout(PAUSE * 5, ended.wait_for(|ended| *ended)).await.ok();
        }
        let gone = self.table.remove(&point);
        self.save().await;
        // Its threads may still be ending: nobody waits for that.
        tokio::task::spawn_blocking(move || drop(gone));
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
            let done = match self.check(&mount, false) {
                Ok(taken) => self.mount_at(mount.clone(), taken).await,
                Err(err) => Err(err),
            };
            match done {
                Ok(()) => return tracing::info!("mounted again at {}", shown(&name)),
                Err(err) if err.code == Code::Conflict => {
                    return tracing::warn!("not mounted again at {}: {err}", shown(&name));
                }
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
        let open = self.table.drain();
        let ended = tokio::task::spawn_blocking(move || {
            for mounted in open {
                if let Err(err) = system::detach(&mounted.point, true) {
                    tracing::warn!(%err, "{} is not unmounted", shown_path(&mounted.point));
                }
            }
        });
        ended.await.ok();
    }

    /// Writes the list.
    async fn save(&self) {
        self.table.save(self.node().data_dir()).await;
    }
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

fn options(mount: &Mount) -> fuser::Config {
    use fuser::MountOption::{DefaultPermissions, FSName, NoAtime, RO, RW, Subtype};
    let mut config = fuser::Config::default();
    let access = if mount.read_only { RO } else { RW };
    let name = "p2pfs".to_owned();
    config.mount_options =
        vec![FSName(name.clone()), Subtype(name), DefaultPermissions, NoAtime, access];
    config.acl = if mount.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    config
}

fn not_there(err: &WorkError, path: &PathText) -> Failure {
    crate::gateway::control::work_failure(err, path)
}

fn unusable(point: &Path, err: &io::Error) -> Failure {
    let name = shown_path(point);
    match err.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Code::NotFound, format!("there is no directory {name}"))
                .hint(format!("mkdir {name}"))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, format!("the daemon may not use {name}"))
        }
        _ => Failure::new(Code::Failed, format!("{name} cannot be used: {}", reason(err))),
    }
}

fn not_mounted(point: &Path, err: &io::Error) -> Failure {
    let name = shown_path(point);
    let why = shown(&reason(err)).into_owned();
    let failure = Failure::new(Code::Failed, format!("{name} cannot be mounted: {why}"));
    match err.kind() {
        io::ErrorKind::NotFound => {
            failure.hint("this needs fusermount3 (package fuse3) and /dev/fuse:  modprobe fuse")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, format!("{name} may not be mounted: {why}"))
                .hint("--allow-other needs the line  user_allow_other  in /etc/fuse.conf")
        }
        _ => failure,
    }
}

fn busy(point: &Path, err: &io::Error) -> Failure {
    let name = shown_path(point);
    if err.kind() != io::ErrorKind::ResourceBusy {
        let why = reason(err);
        return Failure::new(Code::Failed, format!("{name} cannot be unmounted: {why}"));
    }
    let users: Vec<String> = system::users_of(point)
        .iter()
        .map(|(pid, program)| format!("{} (pid {pid})", shown(program)))
        .collect();
    let by = match users.is_empty() {
        true => String::new(),
        false => format!(" by {}", users.join(", ")),
    };
    Failure::new(Code::Conflict, format!("{name} is in use{by}"))
        .hint("end those programs, or leave them what they have open:  p2pfs umount --force")
}
