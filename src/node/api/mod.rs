//! What a person or a program may ask of a node, with typed replies: *the* API. The Unix socket
//! (and later the web page and the mount) translate to it and nothing else; a simulation enters
//! here too. `files`, `put`, `many`, `commit`, `arrange` and `remove` have what is about files,
//! `history`, `conflicts` and `watch` what is about former, concurrent and new versions of them,
//! `pins` what is about full copies here, `shares` what is about files that are served in place,
//! `limits` how fast bytes go, `state` what is about the node and its peers.

mod arrange;
mod commit;
mod conflicts;
mod files;
mod from;
mod history;
mod limits;
mod links;
mod many;
mod pins;
mod purge;
mod put;
mod remove;
mod restore;
mod search;
mod shares;
mod state;
mod survey;
mod watch;

pub use arrange::NotMoved;
pub use limits::LimitError;
pub use links::LinkFault;
pub use many::ManyStored;
pub use watch::Watch;

use super::{
    ApprovalError, FileError, GetError, Node, NotReady, OnProgress, PublishError, PutError,
    ShareError, Shared,
};
use crate::core::search::BadQuery;
use crate::core::tree::{TreeError, VersionError};
use crate::id::{FileHash, NodeId, RecordId};
use crate::sys::{Sink, Source};
use crate::transport::DialError;
use crate::wire::control::{
    Approved, Candidate, ChunkInfo, ConflictInfo, ConnectionInfo, Event, Fetched, FileInfo,
    FileStat, FoundInfo, Get, HistoryInfo, Identity, Limit, Limits, Linked, Moved, PathText,
    PeerInfo, PinInfo, Put, PutMany, Removed, RemovedInfo, Resolved, Restored, Rm, ScrubInfo,
    Search, Searched, Setting, Share, ShareDone, ShareInfo, Status, Stored, Target, Unshared,
    WordKind, WorkerInfo,
};
use std::io;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Why a request was not done. Each says in its own documentation what state it leaves.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A put failed.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A get failed.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A path does not lead where it should.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A change could not be written down.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A file came without its bytes; nothing was changed.
    #[error("a file came without its bytes")]
    NoSource,
    /// Nobody knows the file; nothing was changed.
    #[error("not found")]
    NotFound {
        /// Live members that were asked.
        asked: usize,
        /// Members that could not be asked.
        unreachable: usize,
    },
    /// The beginning of a hash that several files have.
    #[error("several files begin like that")]
    Ambiguous {
        /// Some of them: hash and, where there is one, path.
        found: Vec<(FileHash, Option<PathText>)>,
    },
    /// What was meant with `NAME@VERSION` cannot be had; nothing was changed.
    #[error("no such version: {why}")]
    NoVersion {
        /// The name.
        path: PathText,
        /// What stands behind it.
        version: String,
        /// Why.
        why: VersionError,
    },
    /// A file without a name has nothing that could be removed but its content.
    #[error("it has no name; its content can only be purged")]
    Unlisted,
    /// A directory is not empty, or had something in it when it was removed, and nothing was said
    /// of that; nothing was purged.
    #[error("not empty")]
    NotEmptyToPurge,
    /// Something came into a directory while all that was in it was removed.
    #[error("something came into it meanwhile")]
    FilledAgain,
    /// Only who put it, or an admin, may let its content go.
    #[error("only who put it, or an admin, may purge it")]
    NotYours,
    /// There is no other node that could take what is here.
    #[error("no other node could take what is on this one")]
    NobodyElse,
    /// A node that is being emptied keeps no copies.
    #[error("this node is being emptied")]
    Draining,
    /// Nothing is pinned there.
    #[error("not pinned")]
    NotPinned,
    /// The list of pins is full.
    #[error("too many pins")]
    TooManyPins,
    /// A search says too little or too much.
    #[error(transparent)]
    Query(#[from] BadQuery),
    /// Nothing is shared, or shared no more.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Nobody was approved or denied.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// No peer is called that.
    #[error("no peer is called that")]
    UnknownPeer,
    /// A link is not followed.
    #[error(transparent)]
    Link(#[from] LinkFault),
    /// Several peers are called that.
    #[error("several peers are called that")]
    AmbiguousPeer {
        /// Their names and ids.
        found: Vec<(String, NodeId)>,
    },
    /// This node is called that.
    #[error("that is this node")]
    ThisNode,
    /// Limits were not set.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The peer could not be dialled.
    #[error(transparent)]
    Dial(Box<DialError>),
    /// A host name has no address.
    #[error("cannot resolve {0}")]
    Resolve(String),
    /// The node cannot do it yet.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// A state file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The own disk failed.
    #[error("this node's disk failed: {0}")]
    Disk(#[from] io::Error),
}

impl From<DialError> for Error {
    fn from(err: DialError) -> Self {
        Self::Dial(Box::new(err))
    }
}

/// What requests come to.
pub type Outcome<T> = Result<T, Error>;

/// News inside the node, to be told to whoever listens.
#[derive(Debug, Clone)]
pub(super) enum Changed {
    /// A member's life changed.
    Member(NodeId),
    /// A record was taken into the catalogue.
    Record(RecordId),
}

impl Node {
    /// Stores the bytes of `source`.
    pub async fn put(
        &self,
        put: Put,
        source: Box<dyn Source>,
        progress: OnProgress,
    ) -> Outcome<Stored> {
        self.shared.put(put, source, progress).await
    }

    /// Stores many files, directories and links in one step; `sources` are the bytes of the files,
    /// in order.
    pub async fn put_many(
        &self,
        many: PutMany,
        sources: Vec<Box<dyn Source>>,
        progress: OnProgress,
    ) -> Outcome<ManyStored> {
        self.shared.put_many(many, sources, progress).await
    }

    /// Writes a file, or a range of it, into `sink`.
    pub async fn get(
        &self,
        get: Get,
        sink: Arc<dyn Sink>,
        progress: OnProgress,
    ) -> Outcome<Fetched> {
        self.shared.get(get, sink, progress).await
    }

    /// Calls `visit` for each file below a directory, sorted by path, until it returns false.
    pub fn ls(
        &self,
        path: &PathText,
        recursive: bool,
        visit: &mut dyn FnMut(FileInfo) -> bool,
    ) -> Outcome<()> {
        self.shared.ls(path, recursive, visit)
    }

    /// What has names, tags, sizes or owners that fit, the best first.
    pub async fn search(&self, search: Search) -> Outcome<(Vec<FoundInfo>, Searched)> {
        self.shared.search(search).await
    }

    /// Makes a directory; with `parents` those on the way too, and one that is there is fine.
    pub async fn mkdir(&self, path: &PathText, parents: bool) -> Outcome<()> {
        self.shared.mkdir(path, parents).await
    }

    /// Gives a file, link or directory another name or, where `to` is a directory, its own in that.
    pub async fn mv(&self, from: &PathText, to: &PathText) -> Result<Moved, NotMoved> {
        self.shared.mv(from, to).await
    }

    /// Removes a name, or a directory.
    pub async fn rm(&self, rm: Rm) -> Outcome<Removed> {
        self.shared.rm(rm).await
    }

    /// What happened to a name, newest first.
    pub async fn history(&self, path: &PathText) -> Outcome<Vec<HistoryInfo>> {
        self.shared.history(path).await
    }

    /// Calls `visit` for everything that is in conflict at a path or below, until it returns false.
    pub fn conflicts(
        &self,
        path: &PathText,
        visit: &mut dyn FnMut(ConflictInfo) -> bool,
    ) -> Outcome<()> {
        self.shared.conflicts(path, visit)
    }

    /// Ends a conflict: keeps what is called so, or without a call all, each under its own name.
    pub async fn resolve(&self, path: &PathText, keep: Option<&PathText>) -> Outcome<Resolved> {
        self.shared.end_conflict(path, keep).await
    }

    /// Gives back what was removed, or makes an old version the newest.
    pub async fn restore(&self, path: &PathText, recursive: bool) -> Outcome<Restored> {
        self.shared.restore(path, recursive).await
    }

    /// Calls `visit` for everything that was removed below a directory and can be restored, until
    /// it returns false.
    pub fn removed(
        &self,
        path: &PathText,
        visit: &mut dyn FnMut(RemovedInfo) -> bool,
    ) -> Outcome<()> {
        self.shared.list_removed(path, visit)
    }

    /// Everything about one file.
    pub async fn stat(&self, target: &Target) -> Outcome<FileStat> {
        self.shared.stat(target).await
    }

    /// Some chunks of a file from this one on, with who holds them; none: there are no more.
    pub async fn chunks(&self, target: &Target, from: u64) -> Outcome<Vec<ChunkInfo>> {
        self.shared.chunks(target, from).await
    }

    /// A link to a file that is followed for so long, or for ever.
    pub async fn link(&self, target: &Target, ttl_ms: Option<u64>) -> Outcome<Linked> {
        self.shared.link(target, ttl_ms).await
    }

    /// Is everything well?
    pub fn status(&self) -> Outcome<Status> {
        self.shared.status()
    }

    /// Every other node that is known, sorted by name.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.shared.peers()
    }

    /// Every open connection.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.connections()
    }

    /// What the node's workers are doing, sorted by name.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared.workers()
    }

    /// How far the reading of everything that is stored here is.
    pub fn scrub(&self) -> Outcome<ScrubInfo> {
        Ok(self.shared.scrub_info().ok_or(NotReady::Waiting)?)
    }

    /// Has everything that is stored here read now; returns when that is done and what was damaged
    /// is repaired, as far as that is possible. `progress` gets bytes that were read, and of how
    /// many.
    pub async fn scrub_now(&self, progress: impl Fn(u64, u64) + Send) -> Outcome<ScrubInfo> {
        Ok(self.shared.scrub_now(progress).await?)
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.shared.identity()
    }

    /// Dials an address or a peer now, and says who answered.
    pub async fn connect(&self, peer: &str) -> Outcome<PeerInfo> {
        self.shared.connect(peer).await
    }

    /// Lets the waiting node in whose daemon shows `code`.
    pub async fn approve(&self, code: &str) -> Outcome<Approved> {
        Ok(Approved { node: self.shared.approve(code).await? })
    }

    /// Turns a waiting node away.
    pub async fn deny(&self, who: &str) -> Outcome<Approved> {
        Ok(Approved { node: self.shared.deny(who).await? })
    }

    /// Sets limits of how fast bytes go to other nodes and come from them, as far as it names some;
    /// all of them, and how fast it goes now.
    pub fn limit(&self, limit: &Limit) -> Outcome<Limits> {
        self.shared.limit(limit)
    }

    /// Begins to empty this node, or stops that.
    pub async fn drain(&self, on: bool) -> Outcome<Status> {
        self.shared.drain(on).await
    }

    /// Keeps a full copy here of what is at a path, now and later; with `wait` returns when it is
    /// here, or all was tried. `progress` gets the bytes that are here.
    pub async fn pin(
        &self,
        path: &PathText,
        wait: bool,
        progress: impl Fn(u64) + Send,
    ) -> Outcome<PinInfo> {
        self.shared.pin(path, wait, progress).await
    }

    /// Keeps no full copy any more of what is at a path; what it was.
    pub async fn unpin(&self, path: &PathText) -> Outcome<PinInfo> {
        self.shared.unpin(path).await
    }

    /// Everything that is pinned here, sorted by path.
    pub fn pins(&self) -> Vec<PinInfo> {
        self.shared.pinned()
    }

    /// Serves a file or directory from where it lies; `seen` is the device and inode that whoever
    /// asks sees there. `progress` gets the bytes that were looked at, and of how many.
    pub async fn share(
        &self,
        share: Share,
        seen: Option<(u64, u64)>,
        progress: OnProgress,
    ) -> Outcome<ShareDone> {
        self.shared.share(share, seen, progress).await
    }

    /// Serves it no more: by its path, which may be given whole as well, by what it is called, or
    /// by its hash.
    pub async fn unshare(&self, what: &PathText, path: Option<&PathText>) -> Outcome<Unshared> {
        self.shared.unshare(what, path).await
    }

    /// Calls `visit` for each file that is served from where it lies, by everybody or, with a peer,
    /// by that one at a path and below; sorted by sharer and path, until it returns false.
    pub fn list_shares(
        &self,
        of: Option<(&str, &PathText)>,
        visit: &mut dyn FnMut(ShareInfo) -> bool,
    ) -> Outcome<()> {
        self.shared.list_shares(of, visit)
    }

    /// The settings in force.
    pub fn settings(&self) -> Vec<Setting> {
        self.shared.config.settings.clone()
    }

    /// At most 200 candidates for shell completion.
    pub fn complete(&self, kind: WordKind, prefix: &str) -> Vec<Candidate> {
        self.shared.complete(kind, prefix)
    }

    /// What happens in the tree at a path and below it, from now on.
    pub async fn watch(&self, path: &PathText) -> Outcome<Watch> {
        self.shared.watch(path).await
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Events {
            shared: self.shared.clone(),
            news: self.shared.changes.subscribe(),
            queue: Vec::new(),
        }
    }
}

/// A stream of events. One that is read too slowly loses the oldest.
pub struct Events {
    shared: Arc<Shared>,
    news: broadcast::Receiver<Changed>,
    /// Events of the last news, last first.
    queue: Vec<Event>,
}

impl Events {
    /// The next event; none when the node has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop() {
                return Some(event);
            }
            match self.news.recv().await {
                Ok(Changed::Member(id)) => self.queue.extend(self.shared.peer_event(&id)),
                Ok(Changed::Record(id)) => self.queue = self.shared.record_events(&id),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
