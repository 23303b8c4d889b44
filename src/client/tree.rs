//! What a client asks of the tree: lists, names, histories, changes. Each method is one request.

use super::{Client, Items};
use crate::wire::control::{
    ChunkInfo, ConflictInfo, Failure, FileInfo, FileStat, FoundInfo, HistoryInfo, Linked, Moved,
    PathText, Removed, RemovedInfo, Request, Resolved, Restored, Rm, Search, Searched, Target,
    Watched, Write, WrittenInfo,
};
use std::os::fd::OwnedFd;

impl Client {
    /// The files below a directory, sorted by path; with `recursive` also those in directories
    /// below.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn list(&self, path: PathText, recursive: bool) -> Result<Items<FileInfo>, Failure> {
        self.items(Request::Ls { path, recursive }).await
    }

    /// What has names, tags, sizes or owners that fit, the best first.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn search(&self, search: Search) -> Result<(Vec<FoundInfo>, Searched), Failure> {
        let mut exchange = self.open(Request::Search(search), Vec::new()).await?;
        exchange.items_and_reply(self.watch.as_ref()).await
    }

    /// A link to a file, which is followed for so many milliseconds, or for ever.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn link(&self, target: Target, ttl_ms: Option<u64>) -> Result<Linked, Failure> {
        self.ask(Request::Link { target, ttl_ms }).await
    }

    /// Makes a directory; with `parents` those on the way too, and one that is there is fine.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mkdir(&self, path: PathText, parents: bool) -> Result<(), Failure> {
        self.ask::<serde::de::IgnoredAny>(Request::Mkdir { path, parents }).await.map(|_| ())
    }

    /// Gives a file, link or directory another name; in a directory of that name it keeps its own.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mv(&self, from: PathText, to: PathText) -> Result<Moved, Failure> {
        self.ask(Request::Mv { from, to }).await
    }

    /// Removes a name, or a directory.
    ///
    /// # Errors
    /// What the daemon says. When a directory fails half-way, a part of what is in it is removed.
    pub async fn rm(&self, rm: Rm) -> Result<Removed, Failure> {
        self.ask(Request::Rm(rm)).await
    }

    /// Gives back what was removed, or an old version; with `recursive` also what was removed below
    /// it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn restore(&self, path: PathText, recursive: bool) -> Result<Restored, Failure> {
        self.ask(Request::Restore { path, recursive }).await
    }

    /// What was removed below a directory and can be given back.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn removed(&self, path: PathText) -> Result<Items<RemovedInfo>, Failure> {
        self.items(Request::ListRemoved { path }).await
    }

    /// What happened to a name, newest first.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn history(&self, path: PathText) -> Result<Items<HistoryInfo>, Failure> {
        self.items(Request::History { path }).await
    }

    /// What is in conflict at a path or below.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn conflicts(&self, path: PathText) -> Result<Items<ConflictInfo>, Failure> {
        self.items(Request::Conflicts { path }).await
    }

    /// Ends a conflict: keeps what is called so, its name or a version, or without a call all,
    /// each under a name of its own.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn resolve(
        &self,
        path: PathText,
        keep: Option<PathText>,
    ) -> Result<Resolved, Failure> {
        self.ask(Request::Resolve { path, keep }).await
    }

    /// What happens in the tree at a path and below it, from now on; it ends when the daemon
    /// stops.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn watch(&self, path: PathText) -> Result<Items<Watched>, Failure> {
        self.items(Request::Watch { path }).await
    }

    /// Everything about one file.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn stat(&self, target: Target) -> Result<FileStat, Failure> {
        self.ask(Request::Stat { target }).await
    }

    /// Every chunk of a file, with who holds it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn chunks(&self, target: Target) -> Result<Items<ChunkInfo>, Failure> {
        self.items(Request::Chunks { target }).await
    }

    /// Writes what can be read from a descriptor, to its end, into a file.
    ///
    /// # Errors
    /// What the daemon says. A part of it may have been written then.
    pub async fn write_fd(
        &self,
        fd: impl Into<OwnedFd>,
        write: Write,
    ) -> Result<WrittenInfo, Failure> {
        self.open(Request::Write(write), vec![fd.into()]).await?.reply(self.watch.as_ref()).await
    }
}
