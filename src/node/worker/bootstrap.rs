//! Finding the way in: resolves the bootstrap names again and again, hands their addresses to the
//! membership, and, while the node waits for approval, dials them itself so that it can be asked
//! in. Owns what is said when an address leads nowhere; it never gives up.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::core::catalogue;
use crate::core::tree::Tree;
use crate::id::InodeId;
use crate::node::door::Standing;
use crate::node::event::Event;
use crate::node::{Fatal, Shared, files, lock, start};
use crate::transport::DialError;
use crate::wire::hello::{Lane, RefuseCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often a node that waits looks for a swarm key and dials again.
const WAITING_EVERY: Duration = Duration::from_secs(1);
/// How often names are resolved again once the node is a member.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Addresses remembered as those of bootstrap names.
const HOSTS_MAX: usize = 256;

/// The worker.
pub(in crate::node) struct Bootstrap {
    shared: Arc<Shared>,
}

impl Bootstrap {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Worker for Bootstrap {
    const NAME: &'static str = "bootstrap";

    async fn work(&mut self) -> Worked {
        let shared = &self.shared;
        let waiting = shared.standing().is_none();
        if waiting && shared.find_swarm_key() {
            return Ok(Next::More);
        }
        for (host, port) in &shared.config.bootstrap {
            try_one(shared, host, *port, waiting).await;
        }
        if waiting && shared.enter_open() {
            return Ok(Next::More);
        }
        let pause = if waiting { WAITING_EVERY } else { RESOLVE_EVERY };
        Ok(Next::Idle(shared.sys.clock.now() + pause))
    }

    async fn wait(&mut self) {
        if self.shared.standing().is_some() {
            return std::future::pending().await;
        }
        // The sender lives in `shared`.
        drop(self.shared.standing.subscribe().wait_for(Option::is_some).await);
    }

    fn report(&self) -> Report {
        let doing = match (self.shared.standing().is_some(), self.shared.config.bootstrap.len()) {
            (false, _) => "waiting to be let in".into(),
            (true, 0) => "no address was given".into(),
            (true, 1) => "1 address".into(),
            (true, more) => format!("{more} addresses"),
        };
        Report { doing, ..Report::default() }
    }
}

async fn try_one(shared: &Arc<Shared>, host: &str, port: u16, waiting: bool) {
    let found = shared.sys.net.resolve(host, port).await;
    let addrs = match found {
        Ok(addrs) if !addrs.is_empty() => addrs,
        Ok(_) => return shared.trouble(host, Some(format!("cannot resolve {host}; retrying"))),
        Err(err) => {
            tracing::debug!(%host, %err, "resolving failed");
            shared.worker_failed(Bootstrap::NAME, &err);
            return shared.trouble(host, Some(format!("cannot resolve {host}; retrying")));
        }
    };
    // What is wrong with the name is noted under the name, with an address under the address.
    shared.trouble(host, None);
    shared.note_hosts(&addrs);
    for addr in addrs {
        if shared.is_own(addr) {
            let what = format!("{addr} is this node itself; ignored");
            shared.trouble(&addr.to_string(), Some(what));
        } else if !waiting {
            shared.event(Event::Bootstrap(addr)).await;
        } else if !shared.is_connected(addr) {
            match shared.transport().dial(addr, None, Lane::Control).await {
                Ok(_) => shared.trouble(&addr.to_string(), None),
                Err(err) => dial_failed(shared, addr, &err),
            }
        }
    }
}

/// Says what is wrong with an address, when it is more than that nobody is there.
pub(in crate::node) fn dial_failed(shared: &Shared, addr: SocketAddr, err: &DialError) {
    let what = match err {
        DialError::Refused { refuse, .. } if refuse.code == RefuseCode::OtherSwarm => {
            shared.met_other_swarm(addr);
            Some(err.to_string())
        }
        DialError::Unwelcome { refuse, .. } if refuse.code == RefuseCode::OtherSwarm => {
            shared.met_other_swarm(addr);
            Some(err.to_string())
        }
        DialError::NotP2pfs { .. } | DialError::Version { .. } | DialError::Refused { .. } => {
            Some(err.to_string())
        }
        DialError::Myself { .. } => Some(format!("{addr} is this node itself; ignored")),
        DialError::Unreachable { .. }
        | DialError::TimedOut { .. }
        | DialError::Handshake { .. }
            if shared.view().others().next().is_none() =>
        {
            Some(format!("{err}; retrying"))
        }
        _ => None,
    };
    shared.trouble(&addr.to_string(), what);
}

impl Shared {
    /// A waiting node of a user whose swarm key has turned up lets itself in.
    fn find_swarm_key(&self) -> bool {
        let key = match files::swarm_key(&*self.sys.fs, &self.config.config_dir) {
            Ok(Some(key)) => key,
            Ok(None) => return false,
            Err(err) => {
                tracing::warn!(%err, "the swarm key cannot be used");
                return false;
            }
        };
        // A key of another swarm than the host's opens no door there.
        let wanted = *lock(&self.host_swarm);
        if Some(key.swarm()) == self.config.avoid || wanted.is_some_and(|id| id != key.swarm()) {
            return false;
        }
        let file = start::grant_oneself(&self.config, &key, self.me, self.owner.public());
        self.enter(Standing { swarm: file.swarm, grant: file.grant });
        true
    }

    /// A waiting node whose host belongs to an open swarm goes in.
    fn enter_open(&self) -> bool {
        let Some(standing) = self.open_door() else { return false };
        tracing::warn!(
            "this swarm is open: everybody who reaches it can read, change and store everything"
        );
        self.enter(standing);
        true
    }

    /// Remembers what the bootstrap names stand for. A name that stands for ever new addresses is
    /// dialled all the same.
    fn note_hosts(&self, addrs: &[SocketAddr]) {
        let mut hosts = lock(&self.hosts);
        let room = HOSTS_MAX.saturating_sub(hosts.len());
        hosts.extend(addrs.iter().take(room));
    }

    /// Whether the address is one that this node listens on.
    fn is_own(&self, addr: SocketAddr) -> bool {
        self.transport().local_addrs().contains(&addr)
    }

    fn is_connected(&self, addr: SocketAddr) -> bool {
        self.transport().connections().iter().any(|connection| connection.addr == addr)
    }

    /// The bootstrap peer belongs to another swarm: a node with data must not mix them.
    fn met_other_swarm(&self, addr: SocketAddr) {
        let given = lock(&self.hosts).contains(&addr);
        if !given || self.standing().is_none() || self.view().others().next().is_some() {
            return;
        }
        let empty = self.is_alone_with_nothing();
        self.fatal.send_replace(Some(Fatal::OtherSwarm { addr, empty }));
    }

    /// Whether nobody else is a member of the swarm, and nothing was made in it that would be
    /// missed: no file, no directory, nothing in a mount that is not written down yet.
    pub(in crate::node) fn is_alone_with_nothing(&self) -> bool {
        let keyring = self.catalogue.keyring();
        // Members that were not met yet since the start are known by their grants.
        let alone = self.read_records(|view| {
            let others =
                catalogue::grants(view)?.len() > catalogue::grants_of(view, &self.me)?.len();
            let made = Tree::new(view, &keyring).is_used(&InodeId::ROOT)?;
            Ok(!others && !made && catalogue::tally(view)?.files == 0)
        });
        alone.unwrap_or(false)
            && self.view().members.len() <= 1
            && self.store.usage().replicas == 0
            && !self.has_unwritten_work()
    }
}
