//! The membership loop: the next event goes to `core::membership`, and what that decides is done.
//! It is the only owner of the membership's state; everybody else sees the `View` that it publishes
//! after each change. It never waits for the network or the disk itself.

use super::Shared;
use super::event::Event;
use super::files;
use super::view::Member;
use crate::core::membership::{Change, Down, Effect, Input, MemberChange, MemberState, Membership};
use crate::id::NodeId;
use crate::sys::Time;
use crate::transport::{Ended, LinkEvent, Message as Frame};
use crate::wire::codec::Encode;
use crate::wire::control::PeerState;
use crate::wire::gossip::GossipMessage;
use crate::wire::hello::Lane;
use crate::wire::message::kind;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How soon after a new view the next one may be made, so that a storm of joins does not spend
/// its time on placements that nobody uses.
const VIEW_EVERY: Duration = Duration::from_millis(20);

/// The loop's state.
pub(super) struct Loop {
    shared: Arc<Shared>,
    membership: Membership,
    effects: Vec<Effect>,
    wake: Time,
    published: u64,
    publish_after: Time,
}

impl Loop {
    /// A loop that has not run yet.
    pub(super) fn new(shared: Arc<Shared>, membership: Membership) -> Self {
        let wake = Time::ZERO;
        let (effects, publish_after) = (Vec::new(), Time::ZERO);
        Self { shared, membership, effects, wake, published: u64::MAX, publish_after }
    }

    /// Runs until the sender of events is gone.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        self.handle(Input::Tick);
        let shared = self.shared.clone();
        loop {
            let now = shared.sys.clock.now();
            let wake = if self.stale() { self.wake.min(self.publish_after) } else { self.wake };
            tokio::select! {
                biased;
                // First: a peer's gossip counts only once its link is known.
                news = shared.link_news.next() => self.links(news, &mut events),
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                () = tokio::time::sleep(wake.since(now)) => self.handle(Input::Tick),
            }
        }
    }

    /// What a peer said before its link ended came first: its goodbye tells why it did.
    fn links(&mut self, news: BTreeMap<NodeId, LinkEvent>, events: &mut mpsc::Receiver<Event>) {
        let is_down = |event: &LinkEvent| matches!(event, LinkEvent::Down { .. });
        let (downs, others): (Vec<_>, Vec<_>) = news.into_values().partition(is_down);
        others.into_iter().for_each(|event| self.link(event));
        if !downs.is_empty() {
            // As many as wait now: what comes meanwhile is for the next turn.
            for _ in 0..events.len() {
                let Ok(event) = events.try_recv() else { break };
                self.event(event);
            }
        }
        downs.into_iter().for_each(|event| self.link(event));
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, dialled, addr, .. } => {
                self.shared.chooser().alive(peer);
                self.shared.transport().keep(peer, true);
                self.handle(Input::LinkUp { peer, dialled, addr });
            }
            LinkEvent::Down { peer, how } => {
                self.shared.transport().keep(peer, false);
                let how = match how {
                    Ended::Closed | Ended::Lost(_) => Down::Closed,
                    Ended::Silent => Down::Lost,
                    Ended::Refused(_) => Down::Refused,
                };
                self.handle(Input::LinkDown { peer, how });
            }
            // Somebody of another version is nobody that could be linked.
            LinkEvent::Mismatch { .. } => {}
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Gossip(from, message, permit) => {
                if matches!(message, GossipMessage::Ping { .. }) {
                    // What it let hang is forgiven: it runs again.
                    self.shared.chooser().alive(from);
                }
                self.handle(Input::Gossip { from, message });
                drop(permit);
            }
            Event::DialFailed(addr, expect) => self.handle(Input::DialFailed { addr, expect }),
            Event::Bootstrap(addr) => self.handle(Input::Bootstrap { addr }),
            Event::SetSelf(state) => self.handle(Input::SetSelf(*state)),
            Event::Leave(told) => {
                self.handle(Input::Leave);
                // No more is asked for, and the last time asked for will soon be past.
                self.wake = Time(u64::MAX);
                // The other side may have given up waiting; leaving goes on all the same.
                told.send(()).ok();
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.shared.sys.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        self.membership.handle(now, input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        if self.stale() && now >= self.publish_after {
            self.publish(now);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, message.to_bytes().into()),
            Effect::Dial { addr, expect } => self.dial(addr, expect),
            Effect::Close { peer } => {
                self.shared.transport().keep(peer, false);
                self.shared.transport().unlink(peer);
            }
            Effect::Changed(change) => self.changed(&change),
            Effect::SavePeers(peers) => files::save_peers(&self.shared, peers),
            Effect::WakeAt(at) => self.wake = at,
        }
    }

    fn send(&self, to: NodeId, head: Bytes) {
        let frame = Frame { kind: kind::GOSSIP, head, body: Bytes::new() };
        if let Err(err) = self.shared.transport().notify(to, frame) {
            tracing::trace!(%to, %err, "gossip was not sent");
        }
    }

    fn dial(&self, addr: SocketAddr, expect: Option<NodeId>) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            match shared.transport().dial(addr, expect, Lane::Control).await {
                Ok(_) => shared.trouble(&addr.to_string(), None),
                Err(err) => {
                    shared.dial_failed(addr, &err);
                    shared.event(Event::DialFailed(addr, expect)).await;
                }
            }
        });
    }

    fn changed(&self, change: &MemberChange) {
        tracing::debug!(peer = %change.id, what = ?change.what, "membership");
        if matches!(change.what, Change::Dead | Change::Left | Change::Forgotten) {
            // What waits for an answer from it need not wait for its own deadline.
            self.shared.transport().close(change.id);
        }
        self.shared.member_changed(change);
    }

    fn stale(&self) -> bool {
        self.published != self.membership.version()
    }

    fn publish(&mut self, now: Time) {
        let mut members = BTreeMap::new();
        for member in self.membership.members() {
            let state = match member.state {
                MemberState::Alive => PeerState::Alive,
                MemberState::Suspect => PeerState::Suspect,
                MemberState::Dead => PeerState::Dead,
                MemberState::Left => PeerState::Left,
            };
            let member = Member { record: member.record.clone(), state, since: member.since };
            members.insert(member.record.id, member);
        }
        self.shared.chooser().retain(|id| members.contains_key(id));
        self.shared.transport().forget_totals(|id| members.contains_key(id));
        let view = self.shared.view().next(members, now, self.shared.config.repair_delay);
        self.shared.views.send_replace(Arc::new(view));
        self.published = self.membership.version();
        self.publish_after = now + VIEW_EVERY;
    }
}
