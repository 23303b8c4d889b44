//! Dials: to have enough links, to prove a suspect alive, to find dead members that came back, and
//! to join at all (bootstrap addresses, peers of the last life).
//!
//! Invariant: a dial counts as a sign of life only when a message came over its link; until then
//! its deadline runs. Every dial that is blamed on a member ends in life or in a vote.

use super::config::{BOOTS_MAX, DIALS_MAX, SAVED_MAX};
use super::suspect::Blame;
use super::{Effect, MemberState, Membership, Timer, Turn};
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{Reach, Stamp};
use std::net::SocketAddr;
use std::time::Duration;

/// Tries to find a random member that is no link yet; enough in all but tiny tables, where the
/// next beat tries again.
const PICKS: usize = 32;
/// Saved peers dialled at once at a start; the next ones follow a second later.
const SAVED_AT_ONCE: usize = 4;
/// Well below the second after which TCP repeats a lost SYN.
const FIRST_RETRY: Duration = Duration::from_millis(300);

/// A dial of a known member.
#[derive(Debug)]
pub(super) struct Dial {
    /// The record it goes by: a newer one acquits the member.
    pub(super) stamp: Stamp,
    /// Addresses that have not failed.
    open: usize,
    pub(super) until: Time,
    /// What it means when it fails.
    blame: Blame,
}

/// An address to join through.
#[derive(Debug)]
pub(super) struct Boot {
    addr: SocketAddr,
    expect: Option<NodeId>,
    /// Who answered there last.
    answered: Option<NodeId>,
    /// Saved peers are dialled only while this node has no link.
    saved: bool,
    tries: u32,
    next: Time,
}

impl Boot {
    /// Counts from the start of this node.
    pub(super) fn begin(&mut self, start: Time) {
        self.next = start + self.next.since(Time::ZERO);
    }
}

pub(super) fn boots_of(saved: &[(NodeId, Vec<SocketAddr>)]) -> Vec<Boot> {
    let mut boots = Vec::new();
    for (index, (id, addrs)) in saved.iter().take(SAVED_MAX).enumerate() {
        let next = Time::ZERO + Duration::from_secs((index / SAVED_AT_ONCE) as u64);
        boots.extend(addrs.iter().map(|addr| Boot {
            addr: *addr,
            expect: Some(*id),
            answered: None,
            saved: true,
            tries: 0,
            next,
        }));
    }
    boots.truncate(SAVED_MAX * 2);
    boots
}

impl Membership {
    pub(super) fn add_boot(&mut self, turn: &Turn<'_>, addr: SocketAddr) {
        let given = self.boots.iter().filter(|boot| !boot.saved);
        if given.clone().count() < BOOTS_MAX && !given.clone().any(|boot| boot.addr == addr) {
            let boot =
                Boot { addr, expect: None, answered: None, saved: false, tries: 0, next: turn.now };
            self.boots.push(boot);
            self.arm(turn.now, Timer::Boot);
        }
    }

    /// Dials the addresses to join through that lead to nobody in the swarm yet, for ever.
    pub(super) fn boot(&mut self, turn: &mut Turn<'_>) {
        let alone = self.links.is_empty();
        let mut next = turn.now + self.config.boot_max;
        for boot in &mut self.boots {
            if boot.next <= turn.now {
                let joined = boot.answered.is_some_and(|id| {
                    self.links.contains_key(&id)
                        || !alone && self.table.state(&id) == Some(MemberState::Alive)
                        || id == self.me
                });
                let wanted = if boot.saved { alone } else { !joined };
                let pause = (FIRST_RETRY * (1 << boot.tries.min(12))).min(self.config.boot_max);
                boot.next = turn.now + self.random.jitter(pause);
                if wanted {
                    boot.tries = boot.tries.saturating_add(1);
                    turn.effects.push(Effect::Dial { addr: boot.addr, expect: boot.expect });
                }
            }
            next = next.min(boot.next);
        }
        if !self.boots.is_empty() {
            self.arm(next, Timer::Boot);
        }
    }

    pub(super) fn boot_answered(&mut self, addr: SocketAddr, peer: NodeId) {
        for boot in self.boots.iter_mut().filter(|boot| boot.addr == addr) {
            boot.answered = Some(peer);
            boot.tries = 0;
        }
    }

    /// Dials a member, unless that is under way or it is linked.
    pub(super) fn prove(&mut self, turn: &mut Turn<'_>, id: NodeId, blame: Blame) {
        if self.links.contains_key(&id) || id == self.me {
            return;
        }
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.blame = dial.blame.max(blame);
            return;
        }
        let Some(member) = self.table.get(&id) else { return };
        let answerable = member.state != MemberState::Left && self.dials.len() < DIALS_MAX;
        if !answerable {
            return;
        }
        let dialable = member.record.reach == Reach::Public && !member.record.addrs.is_empty();
        // Who cannot be dialled gets some time to dial in.
        let limit = match blame {
            Blame::Closed => self.config.dial_closed,
            Blame::Asked => self.config.dial_asked,
            _ => self.config.dial,
        };
        let until = turn.now + limit * (1 + self.health);
        let dial = Dial { stamp: member.record.stamp, open: 0, until, blame };
        self.dials.insert(id, dial);
        self.arm(until, Timer::Dial(id));
        if dialable {
            self.dial(turn, id);
            self.arm(turn.now + self.config.dial_again, Timer::DialAgain(id));
        }
    }

    /// Dials all addresses of a member. Done twice, as a lost SYN alone would cost a second and two
    /// of them the whole time; the shell keeps the first connection that comes up.
    pub(super) fn dial(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let Some(member) = self.table.get(&id).filter(|_| !self.links.contains_key(&id)) else {
            return;
        };
        let Some(dial) = self.dials.get_mut(&id) else { return };
        for addr in &member.record.addrs {
            dial.open += 1;
            turn.effects.push(Effect::Dial { addr: *addr, expect: Some(id) });
        }
    }

    pub(super) fn dial_failed(
        &mut self,
        turn: &mut Turn<'_>,
        _addr: SocketAddr,
        expect: Option<NodeId>,
    ) {
        let Some(id) = expect else { return };
        let Some(dial) = self.dials.get_mut(&id) else { return };
        dial.open = dial.open.saturating_sub(1);
        if dial.open == 0 {
            self.dial_over(turn, id);
        }
    }

    pub(super) fn check_dial(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        if self.dials.get(&id).is_some_and(|dial| dial.until <= turn.now) {
            self.dial_over(turn, id);
        }
    }

    fn dial_over(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let Some(dial) = self.dials.remove(&id) else { return };
        let newest = self.table.get(&id).map(|member| member.record.stamp);
        if dial.blame != Blame::Nobody && newest == Some(dial.stamp) {
            self.vote(turn, id, dial.blame);
        }
    }

    /// Dials random members until there are as many links as wanted.
    pub(super) fn fill(&mut self, turn: &mut Turn<'_>) {
        let filling = self.dials.values().filter(|dial| dial.blame == Blame::Filling).count();
        let missing = self.config.links.saturating_sub(self.links.len() + filling);
        if missing == 0 || self.table.len() < 2 {
            return;
        }
        let mut found = Vec::new();
        for _ in 0..PICKS {
            let member = self.table.pick(&mut self.random);
            let id = member.record.id;
            let fit = member.state == MemberState::Alive
                && member.record.reach == Reach::Public
                && !member.record.addrs.is_empty()
                && id != self.me
                && !self.links.contains_key(&id)
                && !self.dials.contains_key(&id)
                && !found.contains(&id);
            if fit {
                found.push(id);
                if found.len() == missing {
                    break;
                }
            }
        }
        for id in found {
            self.prove(turn, id, Blame::Filling);
        }
    }

    /// Dials a random member once in a while. It keeps the overlay mixed, in place of HyParView's
    /// shuffles, and finds members that died together with all their neighbours.
    pub(super) fn mix(&mut self, turn: &mut Turn<'_>) {
        let member = self.table.pick(&mut self.random);
        if member.state == MemberState::Alive && member.record.reach == Reach::Public {
            let id = member.record.id;
            self.prove(turn, id, Blame::Mixing);
        }
    }

    /// Dials the next dead member: that is how the parts of a swarm find each other again.
    pub(super) fn redial(&mut self, turn: &mut Turn<'_>) {
        let pause = self.random.jitter(self.config.redial);
        self.arm(turn.now + pause, Timer::Redial);
        for id in self.table.gone_longer(self.config.forget, turn.now) {
            self.forget(turn, id);
        }
        if let Some(id) = self.table.dead_after(&self.redialled) {
            self.redialled = id;
            self.prove(turn, id, Blame::Nobody);
        }
    }

    /// Has good peers saved at that time, unless they are anyway before it.
    pub(super) fn save_by(&mut self, at: Time) {
        if self.saving.is_none_or(|due| due > at) {
            self.timers.retain(|(_, timer)| *timer != Timer::Save);
            self.saving = Some(at);
            self.arm(at, Timer::Save);
        }
    }

    /// Names the good peers for the next start, filled up with random living members.
    pub(super) fn save(&mut self, turn: &mut Turn<'_>) {
        self.saving = None;
        self.save_by(turn.now + self.config.save);
        let mut ids: Vec<NodeId> = self.good.iter().copied().collect();
        for _ in 0..SAVED_MAX {
            let id = self.table.pick(&mut self.random).record.id;
            if ids.len() < SAVED_MAX && !ids.contains(&id) {
                ids.push(id);
            }
        }
        let peers: Vec<_> = ids
            .iter()
            .filter(|id| **id != self.me && self.table.state(id) == Some(MemberState::Alive))
            .filter_map(|id| self.table.get(id))
            .filter(|member| !member.record.addrs.is_empty())
            .map(|member| (member.record.id, member.record.addrs.clone()))
            .collect();
        if !peers.is_empty() {
            turn.effects.push(Effect::SavePeers(peers));
        }
    }
}
