//! What this node says of itself in its member record: keeps it up to date and tells the
//! membership when it has changed. How often it is gossiped is decided there. While it is looking
//! it also notices that nothing is going on, and gives memory back.

use super::repair::Tally;
use super::shape::{Next, Worked, Worker};
use crate::chunk::CHUNK_LEN;
use crate::core::membership::SelfState;
use crate::core::placement::over_full;
use crate::id::NodeId;
use crate::node::door::Standing;
use crate::node::event::Event;
use crate::node::view::{Member, load};
use crate::node::{Shared, lock};
use crate::store::MAX_PAYLOAD;
use crate::sys::Time;
use crate::wire::gossip::{MemberFlags, Reach};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the own use of the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without a chunk in memory for so long, caches shrink.
const IDLE: Duration = Duration::from_secs(60);
/// With less left of its capacity a node has no space: the next chunk, with its claims and the
/// head of a segment, may be refused.
const LEAST_LEFT: u64 = 2 * CHUNK_LEN as u64;
/// Addresses in a member record.
const ADDRS: usize = 4;

/// The worker.
pub(in crate::node) struct Describe {
    repaired: watch::Receiver<Tally>,
    draining: watch::Receiver<bool>,
    said: Option<SelfState>,
    idle: Idle,
    shared: Arc<Shared>,
}

impl Describe {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let idle = Idle { uses: 0, since: shared.sys.clock.now(), trimmed: false };
        let (repaired, draining) = (shared.repair_tally.subscribe(), shared.draining.subscribe());
        Self { repaired, draining, said: None, idle, shared }
    }
}

impl Worker for Describe {
    const NAME: &'static str = "describe";

    async fn work(&mut self) -> Worked {
        self.shared.work.rest(self.shared.sys.clock.now());
        self.idle.look(&self.shared);
        if let Some(standing) = self.shared.standing() {
            let state = self.shared.self_state(&standing);
            if self.said.as_ref() != Some(&state) {
                self.said = Some(state.clone());
                self.shared.event(Event::SetSelf(Box::new(state))).await;
            }
        }
        Ok(Next::Idle(self.shared.sys.clock.now() + LOOK_EVERY))
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            // The sender lives in `shared`.
            _ = self.repaired.changed() => {}
            _ = self.draining.changed() => {}
            () = self.shared.observed_anew.notified() => {}
        }
    }
}

/// Since when no chunk was in memory.
struct Idle {
    uses: u64,
    since: Time,
    trimmed: bool,
}

impl Idle {
    fn look(&mut self, shared: &Shared) {
        let (now, uses) = (shared.sys.clock.now(), shared.memory.uses() + shared.fetched.uses());
        if uses != self.uses {
            *self = Self { uses, since: now, trimmed: false };
        } else if !self.trimmed && now.since(self.since) >= IDLE {
            self.trimmed = true;
            shared.trim();
        }
    }
}

impl Shared {
    /// Gives back what is only kept to be faster next time.
    fn trim(&self) {
        self.memory.trim();
        self.fetched.trim();
        self.sealers.trim();
        self.openers.trim();
        lock(&self.catalogue.opened).trim();
        self.view().trim();
        *lock(&self.pointers) = Default::default();
    }

    /// What this node says of itself now.
    pub(in crate::node) fn self_state(&self, standing: &Standing) -> SelfState {
        let usage = self.store.usage();
        let mut flags = MemberFlags::STORE;
        if usage.read_only.is_some() {
            flags = flags.with(MemberFlags::READ_ONLY);
        }
        if *self.draining.borrow() {
            flags = flags.with(MemberFlags::DRAINING);
        }
        // On a disk that others have filled the capacity does not count.
        let left = usage.capacity.saturating_sub(usage.stored_bytes);
        let no_space = left < LEAST_LEFT || self.is_disk_full();
        if no_space || self.is_full(usage.stored_bytes, usage.capacity) {
            flags = flags.with(MemberFlags::FULL);
        }
        let used = if no_space { usage.capacity } else { usage.stored_bytes };
        let sixty_fourths = u128::from(used) * 64 / u128::from(usage.capacity.max(1));
        SelfState {
            addrs: self.own_addrs(),
            reach: Reach::Public,
            capacity: usage.capacity,
            used: u8::try_from(sixty_fourths).unwrap_or(64).min(64),
            zone: self.config.zone.clone(),
            machine: self.config.machine,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.config.name.clone().unwrap_or_default(),
            flags,
            counted: self.repair_tally.borrow().below,
            grant: standing.grant.clone(),
        }
    }

    /// Whether a chunk would leave less than what has to stay free, even without cached copies. A
    /// disk that does not say is not full.
    pub(in crate::node) fn is_disk_full(&self) -> bool {
        let space = self.sys.fs.space(&self.config.data_dir);
        let wanted = self.config.free_floor.saturating_add(MAX_PAYLOAD as u64);
        let cached = self.store.usage().cached_bytes;
        space.is_ok_and(|space| space.available.saturating_add(cached) < wanted)
    }

    /// Whether this node is over-full, compared with the others (bounded load).
    fn is_full(&self, used: u64, capacity: u64) -> bool {
        let view = self.view();
        let was = view.members.get(&self.me).is_some_and(Member::is_over_full);
        let (others_used, others) = load(view.others());
        let (all_used, all) = (others_used.saturating_add(used), others.saturating_add(capacity));
        over_full(was, used, capacity, all_used, all)
    }

    /// Where this node can be dialled: the addresses that it listens on, and for those that stand
    /// for all addresses the ones that peers have seen it at.
    pub(in crate::node) fn own_addrs(&self) -> Vec<SocketAddr> {
        let listening = self.transport().local_addrs();
        let mut addrs: Vec<SocketAddr> =
            listening.iter().copied().filter(|addr| !addr.ip().is_unspecified()).collect();
        let wild = listening.iter().find(|addr| addr.ip().is_unspecified());
        if let Some(wild) = wild {
            let seen = lock(&self.observed).best();
            addrs.extend(seen.into_iter().map(|ip| SocketAddr::new(ip, wild.port())));
        }
        addrs.dedup();
        addrs.truncate(ADDRS);
        addrs
    }

    /// A peer that is linked has said at which address it sees this node.
    pub(in crate::node) fn seen_at(&self, peer: NodeId, observed: SocketAddr) {
        lock(&self.observed).note(peer, observed.ip());
        self.observed_anew.notify_one();
    }

    /// A link has ended: what that peer saw may be true no longer.
    pub(in crate::node) fn not_seen_by(&self, peer: &NodeId) {
        lock(&self.observed).forget(peer);
    }
}

/// Where linked peers see this node. Each has one vote, so that no single one can make others dial
/// an address of its choice first.
#[derive(Debug, Default)]
pub(in crate::node) struct Observed {
    by: BTreeMap<NodeId, IpAddr>,
}

impl Observed {
    fn note(&mut self, peer: NodeId, ip: IpAddr) {
        let ip = ip.to_canonical();
        if !ip.is_unspecified() && !ip.is_multicast() {
            self.by.insert(peer, ip);
        }
    }

    /// The last voter's word stays: an address that may be old is better than none.
    fn forget(&mut self, peer: &NodeId) {
        if self.by.len() > 1 {
            self.by.remove(peer);
        }
    }

    /// Those that most peers see first; loopback only where there is nothing else.
    fn best(&self) -> Vec<IpAddr> {
        let mut votes: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.by.values().for_each(|ip| *votes.entry(*ip).or_default() += 1);
        if votes.keys().any(|ip| !ip.is_loopback()) {
            votes.retain(|ip, _| !ip.is_loopback());
        }
        let mut best: Vec<(IpAddr, usize)> = votes.into_iter().collect();
        best.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        best.into_iter().map(|(ip, _)| ip).take(ADDRS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_votes_come_first_and_loopback_is_the_last_resort() {
        let mut seen = Observed::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let peer = |n| NodeId([n; 32]);
        seen.note(peer(1), ip("::ffff:127.0.0.1"));
        assert_eq!(seen.best(), [ip("127.0.0.1")]);
        seen.note(peer(2), ip("10.0.0.9"));
        seen.note(peer(3), ip("192.168.1.5"));
        seen.note(peer(4), ip("192.168.1.5"));
        seen.note(peer(5), ip("0.0.0.0"));
        assert_eq!(seen.best(), [ip("192.168.1.5"), ip("10.0.0.9")]);
        // The address changes: links break, and new ones see another.
        [3, 4].iter().for_each(|n| seen.forget(&peer(*n)));
        seen.note(peer(3), ip("192.168.7.7"));
        seen.forget(&peer(2));
        assert_eq!(seen.best(), [ip("192.168.7.7")]);
        (1..9).for_each(|n| seen.forget(&peer(n)));
        assert_eq!(seen.best().len(), 1);
    }
}
