//! What this node says of itself in its member record: keeps it up to date and tells the
//! membership when it has changed. How often it is gossiped is decided there.

use crate::core::membership::SelfState;
use crate::core::placement::over_full;
use crate::node::door::Standing;
use crate::node::event::Event;
use crate::node::{Shared, lock};
use crate::wire::gossip::{MemberFlags, Reach};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often the own use of the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without work after which buffers are given back: about a minute.
const IDLE_LOOKS: u32 = 60;
/// Addresses in a member record.
const ADDRS: usize = 4;

/// Runs for as long as the node does.
pub(in crate::node) async fn run(shared: Arc<Shared>) {
    let mut repaired = shared.repair_tally.subscribe();
    let mut said = None;
    let (mut idle, mut uses) = (0, 0);
    loop {
        let uses_now = shared.memory.uses();
        idle = if uses == uses_now { idle + 1 } else { 0 };
        uses = uses_now;
        if idle == IDLE_LOOKS {
            shared.memory.trim();
            shared.view().trim();
        }
        if let Some(standing) = shared.standing() {
            let state = shared.self_state(&standing);
            if said.as_ref() != Some(&state) {
                said = Some(state.clone());
                shared.event(Event::SetSelf(Box::new(state))).await;
            }
        }
        tokio::select! {
            biased;
            changed = repaired.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl Shared {
    /// What this node says of itself now.
    pub(in crate::node) fn self_state(&self, standing: &Standing) -> SelfState {
        let usage = self.store.usage();
        let mut flags = MemberFlags::STORE;
        if usage.read_only.is_some() {
            flags = flags.with(MemberFlags::READ_ONLY);
        }
        if self.is_full(usage.stored_bytes, usage.capacity) {
            flags = flags.with(MemberFlags::FULL);
        }
        let sixty_fourths = u128::from(usage.stored_bytes) * 64 / u128::from(usage.capacity.max(1));
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

    /// Whether this node is over-full, compared with the others (bounded load).
    fn is_full(&self, used: u64, capacity: u64) -> bool {
        let view = self.view();
        let was = view.members.get(&self.me).is_some_and(|m| m.record.flags.has(MemberFlags::FULL));
        let (mut all_used, mut all) = (used, capacity);
        for member in view.others() {
            let (step, record) = (u64::from(member.record.used), &member.record);
            all = all.saturating_add(record.capacity);
            all_used = all_used.saturating_add(record.capacity / 64 * step);
        }
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
            let seen = lock(&self.observed).clone();
            addrs.extend(seen.into_iter().map(|ip| SocketAddr::new(ip, wild.port())));
        }
        addrs.dedup();
        addrs.truncate(ADDRS);
        addrs
    }

    /// A peer has said at which address it sees this node; the latest come first.
    pub(in crate::node) fn seen_at(&self, observed: SocketAddr) {
        let ip = observed.ip().to_canonical();
        let mut seen = lock(&self.observed);
        if ip.is_loopback() && !seen.is_empty() {
            return;
        }
        seen.retain(|other| *other != ip && !other.is_loopback());
        seen.insert(0, ip);
        seen.truncate(ADDRS);
    }
}
