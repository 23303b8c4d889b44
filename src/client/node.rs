//! What a client asks of the node itself: its state, its peers, its workers, its mounts and pins.
//! Each method is one request.

use super::{Client, Items};
use crate::wire::control::{
    Approved, Candidate, ConnectionInfo, Event, Failure, Identity, Limit, Limits, Mount, MountInfo,
    PathText, PeerInfo, PinInfo, Request, ScrubInfo, Setting, Status, Umount, WordKind, WorkerInfo,
};

impl Client {
    /// Whether everything is well.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ask(Request::Status).await
    }

    /// The other nodes that are known, sorted by name.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn peers(&self) -> Result<Items<PeerInfo>, Failure> {
        self.items(Request::Peers).await
    }

    /// The open connections to other nodes.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn connections(&self) -> Result<Items<ConnectionInfo>, Failure> {
        self.items(Request::Connections).await
    }

    /// What the node's workers are doing, sorted by name.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn workers(&self) -> Result<Items<WorkerInfo>, Failure> {
        self.items(Request::Workers).await
    }

    /// How far the node's reading of everything that it stores is.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn scrub(&self) -> Result<ScrubInfo, Failure> {
        self.ask(Request::Scrub).await
    }

    /// Has the node read everything that it stores now; returns when all of it was read and what
    /// is damaged was repaired, as far as that is possible. It goes on when the future is dropped.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn scrub_now(&self) -> Result<ScrubInfo, Failure> {
        self.ask(Request::ScrubNow).await
    }

    /// Who the node is.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn id(&self) -> Result<Identity, Failure> {
        self.ask(Request::Id).await
    }

    /// Makes the node dial `host:port`, or a peer by name or id prefix, now.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn dial(&self, peer: impl Into<String>) -> Result<PeerInfo, Failure> {
        self.ask(Request::Connect { peer: peer.into() }).await
    }

    /// Lets the waiting node in whose daemon shows `code`.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn approve(&self, code: impl Into<String>) -> Result<Approved, Failure> {
        self.ask(Request::Approve { code: code.into() }).await
    }

    /// Turns a waiting node away.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn deny(&self, peer: impl Into<String>) -> Result<Approved, Failure> {
        self.ask(Request::Deny { peer: peer.into() }).await
    }

    /// Sets limits of how fast bytes go between nodes, as far as `limit` names some; all of them,
    /// and how fast it goes now.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn limit(&self, limit: Limit) -> Result<Limits, Failure> {
        self.ask(Request::Limit(limit)).await
    }

    /// Has the node emptied, or stops that. It is empty when its status says that no chunk is
    /// there.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn drain(&self, on: bool) -> Result<Status, Failure> {
        self.ask(Request::Drain { on }).await
    }

    /// Keeps a full copy on the node of what is at a path, now and later; with `wait` returns when
    /// it is there, or all was tried.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pin(&self, path: PathText, wait: bool) -> Result<PinInfo, Failure> {
        self.ask(Request::Pin { path, wait }).await
    }

    /// Keeps no full copy of it any more.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn unpin(&self, path: PathText) -> Result<PinInfo, Failure> {
        self.ask(Request::Unpin { path }).await
    }

    /// What is pinned on the node, sorted by path.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pins(&self) -> Result<Items<PinInfo>, Failure> {
        self.items(Request::Pins).await
    }

    /// The settings in force, with their sources.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn settings(&self) -> Result<Items<Setting>, Failure> {
        self.items(Request::Config).await
    }

    /// Ends the daemon in order; returns when everything is on disk.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.ask::<serde::de::IgnoredAny>(Request::Stop).await.map(|_| ())
    }

    /// What happens from now on, until the stream is dropped.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn events(&self) -> Result<Items<Event>, Failure> {
        self.items(Request::Events).await
    }

    /// Candidates for a word that begins with `prefix`.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn complete(
        &self,
        kind: WordKind,
        prefix: impl Into<String>,
    ) -> Result<Items<Candidate>, Failure> {
        self.items(Request::Complete { kind, prefix: prefix.into() }).await
    }

    /// Lets the swarm's files be seen in a directory of this machine; returns when programs can use
    /// it.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mount(&self, mount: Mount) -> Result<MountInfo, Failure> {
        self.ask(Request::Mount(mount)).await
    }

    /// Ends a mount, when the others have what was changed.
    ///
    /// # Errors
    /// [`Code::Conflict`](crate::wire::control::Code) when programs use it; otherwise what the
    /// daemon says.
    pub async fn umount(&self, umount: Umount) -> Result<MountInfo, Failure> {
        self.ask(Request::Umount(umount)).await
    }

    /// The mounts of the daemon.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn mounts(&self) -> Result<Items<MountInfo>, Failure> {
        self.items(Request::Mounts).await
    }
}
