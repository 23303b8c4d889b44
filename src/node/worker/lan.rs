//! Finding the own swarm on the local network, without an address from anybody: announces this
//! node there, and dials the nodes of its swarm that it hears of. Owns which of these rumours are
//! followed, and how often; who is really there, the connection proves. One that leads nowhere is
//! nobody's trouble and soon forgotten.

use super::board::Report;
use super::shape::{Next, Worked, Worker};
use crate::id::{NodeId, to_hex};
use crate::node::Shared;
use crate::sys::{Announcement, Heard, LanNews, Time};
use crate::transport::DialError;
use crate::wire::hello::Lane;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Addresses of nodes of the own swarm that are remembered, in the order in which they came.
const KNOWN_MAX: usize = 64;
/// Other swarms that are spoken of.
const OTHERS_MAX: usize = 16;
/// How often an address is dialled at which no live member is known, and how many failures in a row
/// it outlives.
const DIAL_EVERY: Duration = Duration::from_secs(60);
const FAILURES_MAX: u32 = 5;
/// Addresses that are dialled side by side.
const DIALS_MAX: usize = 4;
/// How long a node that has heard of others of its swarm waits until one of them can tell what is
/// in it. Then it takes itself for the first.
const FOUND_AFTER: Duration = Duration::from_secs(30);
/// How long nothing is heard after too much was said, or after the network could not be used.
const PAUSE: Duration = Duration::from_secs(600);

/// The worker.
pub(in crate::node) struct Lan {
    shared: Arc<Shared>,
    news: Option<Box<dyn LanNews>>,
    /// What came while it waited; none: there is no more.
    heard: Vec<Option<Heard>>,
    /// Where nodes of the own swarm say that they are.
    known: BTreeMap<SocketAddr, Known>,
    dials: JoinSet<Answer>,
    /// What came of some of them while it waited.
    answers: Vec<Answer>,
    /// When it was heard that there are others, by a node that knows nothing of its swarm.
    unfounded: Option<Time>,
    /// Tags of other swarms that were spoken of.
    others: Vec<String>,
    /// The node is not announced before that.
    pause: Option<Time>,
}

type Answer = (SocketAddr, Result<NodeId, DialError>);

/// What came of an address.
#[derive(Debug, Default)]
struct Known {
    tried: Option<Time>,
    /// Who answered there last.
    who: Option<NodeId>,
    failures: u32,
}

impl Lan {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            news: None,
            heard: Vec::new(),
            known: BTreeMap::new(),
            dials: JoinSet::new(),
            answers: Vec::new(),
            unfounded: None,
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
        self.unfounded = (!self.known.is_empty()).then(|| self.shared.sys.clock.now());
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
                    heard.addrs.into_iter().for_each(|addr| self.note(addr));
                }
                Some(heard) => self.speak_of(&heard),
            }
        }
    }

    /// Remembers an address, in place of one that led nowhere if there are many.
    fn note(&mut self, addr: SocketAddr) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&addr) {
            let failed = self.known.iter().filter(|(_, known)| known.failures > 0);
            let worst = failed.max_by_key(|(_, known)| known.failures).map(|(addr, _)| *addr);
            let Some(worst) = worst else { return };
            self.known.remove(&worst);
        }
        self.known.entry(addr).or_default();
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

    /// Dials those at which no live member is known; when to look again.
    fn dial(&mut self, now: Time) -> Time {
        let view = self.shared.view();
        let lives = |id: &NodeId| *id == self.shared.me || view.lives(id);
        for (addr, known) in &mut self.known {
            let said = view.members.iter().find(|(_, member)| member.record.addrs.contains(addr));
            let who = said.map(|(id, _)| *id).or(known.who);
            let is_due = known.tried.is_none_or(|tried| now.since(tried) >= DIAL_EVERY);
            if is_due && !who.as_ref().is_some_and(lives) && self.dials.len() < DIALS_MAX {
                known.tried = Some(now);
                let (shared, addr) = (self.shared.clone(), *addr);
                self.dials.spawn(async move {
                    (addr, shared.transport().dial(addr, None, Lane::Control).await)
                });
            }
        }
        now + DIAL_EVERY
    }

    fn dialled(&mut self, addr: SocketAddr, result: Result<NodeId, DialError>) {
        let Some(known) = self.known.get_mut(&addr) else { return };
        match result {
            Ok(who) => (known.who, known.failures) = (Some(who), 0),
            // It is this node, by an address of its own that it did not know.
            Err(DialError::Myself { .. }) => known.who = Some(self.shared.me),
            Err(err) => {
                tracing::debug!(%addr, %err, "a rumour led nowhere");
                known.failures += 1;
                if known.failures >= FAILURES_MAX {
                    self.known.remove(&addr);
                }
            }
        }
    }

    /// What was heard at the start may have been nobody who knows anything: of those who are here
    /// the first one begins then.
    async fn found_late(&mut self, now: Time) {
        if self.unfounded.is_some_and(|heard| now.since(heard) >= FOUND_AFTER) {
            self.unfounded = None;
            let view = self.shared.view();
            if view.others().all(|member| self.shared.me < member.record.id || !member.lives())
                && let Err(err) = self.shared.found_if_nobody_did().await
            {
                tracing::warn!(%err, "the swarm has no first records yet");
            }
        }
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
        for (addr, result) in std::mem::take(&mut self.answers) {
            self.dialled(addr, result);
        }
        let next = self.dial(now);
        self.found_late(now).await;
        let next = self.unfounded.map_or(next, |heard| next.min(heard + FOUND_AFTER));
        Ok(match self.news {
            Some(_) => Next::Idle(next),
            None => self.pause.map_or(Next::Wait, Next::Idle),
        })
    }

    async fn wait(&mut self) {
        let Some(news) = &mut self.news else { return std::future::pending().await };
        tokio::select! {
            biased;
            heard = news.next() => self.heard.push(heard),
            Some(Ok(answer)) = self.dials.join_next() => self.answers.push(answer),
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
