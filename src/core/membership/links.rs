//! The overlay: links that come up, are pinged, fall silent, and are too many or too few.
//!
//! A ping is sent on every link once a beat by both sides and carries the answer to the last one,
//! so a link costs one message per beat and direction and both sides know the round trip.
//!
//! Invariant: a link that ends without a word from its peer (silence, FIN, RST) always leads to a
//! dial of that member, or to a vote against it, never to a silent shrug.

use super::config::LINKS_HARD;
use super::spread::{Outbox, Tell};
use super::suspect::Blame;
use super::sync::Comparison;
use super::{Down, Effect, HEALTH_WORST, MemberState, Membership, RECOVERY_BEATS, Timer, Turn};
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{DROP_RECORDS, GossipMessage, MemberRecord};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Age below which a link is not ended for being one too many: tables are still being compared.
const TRIM_AGE: Duration = Duration::from_secs(10);
/// The same when there are more links than a node may have.
const CROWDED_AGE: Duration = Duration::from_secs(2);
/// The slowest a link's own record can make the time-out, as a multiple of the configured one.
const PATIENCE: u32 = 3;
/// From a new link to the next saving of good peers: by then it has said where it is.
const SAVE_SOON: Duration = Duration::from_secs(1);
/// Time after which a node that never compared tables counts as joined.
const SETTLE: Duration = Duration::from_secs(5);

/// What is known of one link.
#[derive(Debug)]
pub(super) struct Link {
    addr: SocketAddr,
    dialled: bool,
    since: Time,
    heard: Time,
    /// Longest pause between messages, slowly forgotten.
    gap: Duration,
    rtt: Option<Duration>,
    /// The last ping that came, for the answer: its stamp and when.
    theirs: Option<(u32, Time)>,
    /// Links that the peer has, as it last said.
    degree: u8,
    /// Whether anything was heard: until then it may be a port with nobody behind it.
    proven: bool,
    /// Whether a silence timer is armed.
    watched: bool,
    /// Whether it is a branch of the tree over which records spread.
    pub(super) eager: bool,
    pub(super) out: Outbox,
    pub(super) comparison: Option<Comparison>,
}

/// A link as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Where.
    pub addr: SocketAddr,
    /// Whether this node dialled.
    pub dialled: bool,
    /// Since when.
    pub since: Time,
    /// Smoothed round trip; none before the first answered ping.
    pub rtt: Option<Duration>,
}

impl Link {
    pub(super) fn info(&self, peer: NodeId) -> LinkInfo {
        LinkInfo { peer, addr: self.addr, dialled: self.dialled, since: self.since, rtt: self.rtt }
    }

    /// This node did not run for `late`: what it did not hear meanwhile does not count.
    pub(super) fn forgive(&mut self, late: Duration, now: Time) {
        self.heard = (self.heard + late).min(now);
    }

    pub(super) fn quiet_for(&self, now: Time) -> Duration {
        now.since(self.heard)
    }
}

impl Membership {
    pub(super) fn link_up(
        &mut self,
        turn: &mut Turn<'_>,
        peer: NodeId,
        dialled: bool,
        addr: SocketAddr,
    ) {
        if dialled {
            self.boot_answered(addr, peer);
        }
        if peer == self.me {
            turn.effects.push(Effect::Close { peer });
            return;
        }
        let link = Link {
            addr,
            dialled,
            since: turn.now,
            heard: turn.now,
            gap: Duration::ZERO,
            rtt: None,
            theirs: None,
            degree: 0,
            proven: false,
            watched: false,
            eager: true,
            out: Outbox::default(),
            comparison: None,
        };
        self.links.insert(peer, link);
        let hello = GossipMessage::Hello {
            record: self.own.record.clone(),
            root: self.table.root(),
            count: self.table.len() as u32,
        };
        turn.send(peer, hello);
        if let Some(rumour) = self.rumour_about(&peer) {
            let rumours = vec![rumour];
            turn.send(peer, GossipMessage::News { records: vec![], have: vec![], rumours });
        }
    }

    pub(super) fn link_down(&mut self, turn: &mut Turn<'_>, peer: NodeId, how: Down) {
        if self.links.remove(&peer).is_none() {
            return;
        }
        match how {
            Down::Refused => {}
            Down::Closed => self.prove(turn, peer, Blame::Closed),
            Down::Lost => self.prove(turn, peer, Blame::Silent),
        }
    }

    /// Notes a sign of life. False when it came over a link that is not there any more.
    pub(super) fn heard(&mut self, turn: &mut Turn<'_>, from: NodeId) -> bool {
        let Some(link) = self.links.get_mut(&from) else { return false };
        let quiet = link.quiet_for(turn.now);
        link.gap = quiet.max(link.gap - link.gap / 64);
        link.heard = turn.now;
        if !link.proven {
            link.proven = true;
            self.dials.remove(&from);
            self.good.retain(|peer| *peer != from);
            self.good.push_front(from);
            self.good.truncate(super::SAVED_MAX);
            self.save_by(turn.now + SAVE_SOON);
        }
        true
    }

    pub(super) fn hello(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        record: Arc<MemberRecord>,
        root: u128,
        count: u32,
    ) {
        if record.id != from {
            return;
        }
        self.learn(turn, &record, from, Tell::Tree);
        // A member that is held for dead and has not heard so will answer with a newer record.
        if let Some(rumour) = self.rumour_about(&from) {
            let rumours = vec![rumour];
            turn.send(from, GossipMessage::News { records: vec![], have: vec![], rumours });
        }
        if self.links.len() > LINKS_HARD {
            self.end_link(turn, from);
            return;
        }
        let dialled = self.links.get(&from).is_some_and(|link| link.dialled);
        // One side compares: the one that dialled, the other answers its hello.
        if !dialled {
            self.digest(turn, from, root);
        } else if root == self.table.root() && count as usize == self.table.len() {
            self.settled = true;
        }
    }

    pub(super) fn pinged(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        stamp: u32,
        echo: u32,
        held: u32,
        degree: u8,
    ) {
        let Some(link) = self.links.get_mut(&from) else { return };
        link.theirs = Some((stamp, turn.now));
        link.degree = degree;
        if echo == 0 {
            return;
        }
        let trip = clock(turn.now).wrapping_sub(echo).wrapping_sub(held);
        // A trip longer than the silence limit is a wrapped clock or a lie.
        let trip = Duration::from_micros(u64::from(trip));
        if trip <= self.config.silence * PATIENCE {
            link.rtt = Some(link.rtt.map_or(trip, |rtt| (rtt * 7 + trip) / 8));
        }
    }

    /// Once a period: a ping on every link, a look at each, and more or fewer of them.
    pub(super) fn beat(&mut self, turn: &mut Turn<'_>) {
        let next = self.config.beat * 9 / 10;
        let spread = self.config.beat / 5 / 1024 * self.random.below(1024) as u32;
        self.arm(turn.now + next + spread, Timer::Beat);
        let links = self.links.len().min(255) as u8;
        let mut late = Vec::new();
        for (peer, link) in &mut self.links {
            let (echo, held) = match link.theirs {
                Some((stamp, at)) => (stamp, clock(turn.now).wrapping_sub(clock(at))),
                None => (0, 0),
            };
            turn.send(*peer, GossipMessage::Ping { stamp: clock(turn.now), echo, held, links });
            if !link.watched && link.quiet_for(turn.now) > self.config.beat * 3 / 2 {
                link.watched = true;
                late.push(*peer);
            }
        }
        for peer in late {
            self.arm(turn.now, Timer::Silent(peer));
        }
        if self.recovery > 0 {
            self.recovery -= 1;
        } else if self.health > 0 {
            self.health -= 1;
            self.recovery = RECOVERY_BEATS;
        }
        self.settled |= self.links.values().any(|link| turn.now.since(link.since) > SETTLE);
        self.trim(turn);
        self.fill(turn);
    }

    /// Ends a link that has been silent for longer than its past and own health explain.
    pub(super) fn check_silence(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        let (base, worse) = (self.config.silence, self.health.min(HEALTH_WORST) + 1);
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.watched = false;
        if link.quiet_for(turn.now) <= self.config.beat * 3 / 2 {
            return;
        }
        let limit = (link.gap * 2).clamp(base, base * PATIENCE) * worse;
        let until = link.heard + limit;
        if until > turn.now {
            link.watched = true;
            self.arm(until, Timer::Silent(peer));
            return;
        }
        self.links.remove(&peer);
        turn.effects.push(Effect::Close { peer });
        self.note_silence(turn.now);
        self.prove(turn, peer, Blame::Silent);
    }

    /// Links over which something came within the last two beats.
    pub(super) fn fresh_links(&self, now: Time) -> impl Iterator<Item = NodeId> {
        let limit = self.config.beat * 5 / 2;
        let fresh = move |link: &Link| link.proven && link.quiet_for(now) <= limit;
        self.links.iter().filter(move |(_, link)| fresh(link)).map(|(peer, _)| *peer)
    }

    fn trim(&mut self, turn: &mut Turn<'_>) {
        let crowded = self.links.len() > self.config.links_max;
        if self.links.len() <= self.config.links_trim || !crowded && self.random.below(4) != 0 {
            return;
        }
        let enough = self.config.links;
        let spare = |link: &Link| {
            let age = turn.now.since(link.since);
            let old = age > if crowded { CROWDED_AGE } else { TRIM_AGE };
            // The peer must keep enough links, or it would dial the next one at once.
            old && link.comparison.is_none() && (crowded || usize::from(link.degree) > enough)
        };
        let mut spares: Vec<NodeId> =
            self.links.iter().filter(|(_, link)| spare(link)).map(|(peer, _)| *peer).collect();
        let surplus = if crowded { self.links.len() - self.config.links_max } else { 1 };
        for _ in 0..surplus.min(spares.len()) {
            let peer = spares.swap_remove(self.random.below(spares.len()));
            self.end_link(turn, peer);
        }
    }

    /// Ends a link on purpose and names others in its place.
    fn end_link(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        let mut records: Vec<Arc<MemberRecord>> = Vec::new();
        for _ in 0..DROP_RECORDS {
            let member = self.table.pick(&mut self.random);
            let id = member.record.id;
            let useful = member.state == MemberState::Alive && id != peer && id != self.me;
            if useful && !records.iter().any(|record| record.id == id) {
                records.push(member.record.clone());
            }
        }
        self.links.remove(&peer);
        turn.send(peer, GossipMessage::Drop { records });
        turn.effects.push(Effect::Close { peer });
    }

    pub(super) fn dropped(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        records: Vec<Arc<MemberRecord>>,
    ) {
        self.links.remove(&from);
        turn.effects.push(Effect::Close { peer: from });
        for record in &records {
            self.learn(turn, record, from, Tell::Nobody);
        }
        self.fill(turn);
    }
}

/// The clock of pings: microseconds, wrapping after 71 minutes; never 0, which means "none".
fn clock(now: Time) -> u32 {
    (now.0 as u32).max(1)
}
