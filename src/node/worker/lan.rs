//! Finding the own swarm on the local network, without an address from anybody: announces this
//! node there, and has the membership dial the nodes of its swarm that it hears of. Owns which of
//! these rumours are followed, and how often; who is really there, the connection proves.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::id::{NodeId, to_hex};
use crate::node::Shared;
use crate::node::event::Event;
use crate::sys::{Announcement, Heard, LanNews, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Addresses of nodes of the own swarm that are remembered, in the order in which they came.
const KNOWN_MAX: usize = 64;
/// Other swarms that are spoken of.
const OTHERS_MAX: usize = 16;
/// How often an address is dialled at which no live member is known.
const DIAL_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is heard after too much was said, or after the network could not be used.
const PAUSE: Duration = Duration::from_secs(600);

/// The worker.
pub(in crate::node) struct Lan {
    shared: Arc<Shared>,
    news: Option<Box<dyn LanNews>>,
    /// What came while it waited; none: there is no more.
    heard: Vec<Option<Heard>>,
    /// Where nodes of the own swarm say that they are, and when that was tried last.
    known: BTreeMap<SocketAddr, Option<Time>>,
    /// Tags of other swarms that were spoken of.
    others: Vec<String>,
    /// The node is not announced before that.
    pause: Option<Time>,
}

impl Lan {
    pub(in crate::node) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            news: None,
            heard: Vec::new(),
            known: BTreeMap::new(),
            others: Vec::new(),
            pause: None,
        }
    }

    /// Listens for nodes of the own swarm; whether there are any.
    pub(in crate::node) async fn finds_own_swarm(&mut self, within: Duration) -> bool {
        let found = async {
            self.join();
            while self.news.is_some() && self.known.is_empty() {
                self.wait().await;
                self.take();
            }
        };
        drop(tokio::time::timeout(within, found).await);
        !self.known.is_empty()
    }

    /// Announces the node, if there is a network that others can reach it over.
    fn join(&mut self) {
        let Some(own) = self.shared.announcement() else { return };
        let Some(lan) = self.shared.config.lan.clone() else { return };
        match lan.join(&own) {
            Ok(news) => self.news = Some(news),
            Err(err) => {
                tracing::debug!(%err, "this node is not announced on the local network");
                self.pause = Some(self.shared.sys.clock.now() + PAUSE);
            }
        }
    }

    /// Takes up what was heard.
    fn take(&mut self) {
        let tag = self.shared.lan_tag();
        for heard in std::mem::take(&mut self.heard) {
            match heard {
                None => {
                    tracing::debug!("too much is said on the local network");
                    self.news = None;
                    self.pause = Some(self.shared.sys.clock.now() + PAUSE);
                }
                Some(heard) if Some(&heard.tag) == tag.as_ref() => {
                    for addr in heard.addrs {
                        if self.known.len() < KNOWN_MAX {
                            self.known.entry(addr).or_default();
                        }
                    }
                }
                Some(heard) => self.speak_of(&heard),
            }
        }
    }

    /// A person who has just begun may have meant to join that swarm.
    fn speak_of(&mut self, heard: &Heard) {
        let is_new = self.others.len() < OTHERS_MAX && !self.others.contains(&heard.tag);
        if let Some(addr) = heard.addrs.first()
            && is_new
            && self.shared.is_alone_with_nothing()
        {
            self.others.push(heard.tag.clone());
            let ask = format!("p2pfs daemon --bootstrap {addr}");
            tracing::info!("another swarm is on this network; to ask to be let in:  {ask}");
        }
    }

    /// Has those dialled at which no live member is known; when to look again.
    async fn dial(&mut self, now: Time) -> Time {
        let view = self.shared.view();
        let lives = |id: &NodeId| *id == self.shared.me || view.lives(id);
        for (addr, tried) in &mut self.known {
            let at = view.members.iter().find(|(_, member)| member.record.addrs.contains(addr));
            let is_due = tried.is_none_or(|tried| now.since(tried) >= DIAL_EVERY);
            if is_due && !at.is_some_and(|(id, _)| lives(id)) {
                *tried = Some(now);
                self.shared.event(Event::Connect(*addr)).await;
            }
        }
        now + DIAL_EVERY
    }
}

impl Worker for Lan {
    const NAME: &'static str = "lan";

    async fn work(&mut self) -> Worked {
        let now = self.shared.sys.clock.now();
        if self.news.is_none() && self.pause.is_none_or(|pause| pause <= now) {
            self.pause = None;
            self.join();
        }
        self.take();
        let next = self.dial(now).await;
        Ok(match self.news {
            Some(_) => Next::Idle(next),
            None => self.pause.map_or(Next::Wait, Next::Idle),
        })
    }

    async fn wait(&mut self) {
        match &mut self.news {
            Some(news) => self.heard.push(news.next().await),
            None => std::future::pending().await,
        }
    }

    fn report(&self) -> Report {
        let doing = match (&self.news, self.known.len()) {
            (None, _) => "not announced".to_owned(),
            (Some(_), 0) => "announced".to_owned(),
            (Some(_), 1) => "announced; 1 address of the swarm is known".to_owned(),
            (Some(_), more) => format!("announced; {more} addresses of the swarm are known"),
        };
        Report { doing, ..Report::default() }
    }
}

impl Shared {
    /// What the nodes of this swarm know each other by on a local network.
    fn lan_tag(&self) -> Option<String> {
        let swarm = self.standing()?.swarm;
        Some(to_hex(&blake3::derive_key("p2pfs 2026-11 lan tag v1", &swarm)[..8]))
    }

    /// What this node says of itself; nothing, when only its own machine can reach it.
    fn announcement(&self) -> Option<Announcement> {
        let tag = self.lan_tag()?;
        let listening = self.transport().local_addrs();
        let all = listening.iter().find(|addr| addr.ip().is_unspecified());
        let first = listening.iter().find(|addr| !addr.ip().is_loopback());
        let port = all.or(first)?.port();
        let one = |addr: &&SocketAddr| addr.port() == port && !addr.ip().is_loopback();
        let ips = match all {
            Some(_) => Vec::new(),
            None => listening.iter().filter(one).map(SocketAddr::ip).collect(),
        };
        let instance = to_hex(&self.sys.rng.bytes::<8>());
        Some(Announcement { instance, tag, ips, port })
    }
}
