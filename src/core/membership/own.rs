//! What this node says about itself: its record, when a new one is made, and the goodbye.
//!
//! Invariant: the own record in the table is always the newest that exists, so that what others
//! say about this node (suspicions, records of an earlier life with a faster clock) is outbid.

use super::spread::Tell;
use super::{Effect, Member, MemberState, Membership, Timer, Turn};
use crate::core::placement::used_up;
use crate::crypto::NodeKey;
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{GossipMessage, MemberFlags, MemberRecord, Reach, Stamp};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Shortest time between own records, so that two nodes with one key do not shout each other down.
const ANNOUNCE_GAP: Duration = Duration::from_millis(100);

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its key, which signs its records.
    pub key: NodeKey,
    /// Wall clock in milliseconds at its start.
    pub epoch: u64,
    /// What it says about itself.
    pub state: SelfState,
    /// Good peers of its last life, as last given by `Effect::SavePeers`.
    pub saved: Vec<(NodeId, Vec<SocketAddr>)>,
}

/// What a node says about itself. Texts and lists over their limits are cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelfState {
    /// Where it listens, best first.
    pub addrs: Vec<SocketAddr>,
    /// Whether it can be dialled.
    pub reach: Reach,
    /// Bytes offered to the swarm.
    pub capacity: u64,
    /// How much of that is used, in 64ths.
    pub used: u8,
    /// Failure zone.
    pub zone: String,
    /// Keyed hash of the machine's id.
    pub machine: [u8; 8],
    /// The program's version.
    pub version: String,
    /// What the owner calls it.
    pub name: String,
    /// Roles.
    pub flags: MemberFlags,
    /// Chunks below their number of copies.
    pub counted: u64,
    /// Why it is a member.
    pub grant: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Own {
    key: NodeKey,
    pub(super) record: Arc<MemberRecord>,
    state: SelfState,
    /// A stamp that somebody ascribed to this node: the next record must be later.
    outbid: Stamp,
    announced: Option<Time>,
    /// When the current `used` and `counted` were announced.
    used_at: Time,
    counted_at: Time,
    urgent: bool,
}

impl Own {
    pub(super) fn new(me: Identity) -> Self {
        let stamp = Stamp { epoch: me.epoch, seq: 0 };
        let record = Arc::new(signed(&me.key, &me.state, stamp));
        Self {
            key: me.key,
            record,
            state: me.state,
            outbid: Stamp::default(),
            announced: None,
            used_at: Time::ZERO,
            counted_at: Time::ZERO,
            urgent: false,
        }
    }
}

fn signed(key: &NodeKey, state: &SelfState, stamp: Stamp) -> MemberRecord {
    let mut addrs = state.addrs.clone();
    addrs.truncate(MemberRecord::ADDRS);
    let mut reach = state.reach.clone();
    if let Reach::Relay(via) = &mut reach {
        via.truncate(MemberRecord::RELAYS);
        if via.is_empty() {
            reach = Reach::Nat;
        }
    }
    let mut record = MemberRecord {
        id: key.id(),
        stamp,
        addrs,
        reach,
        capacity: state.capacity,
        used: state.used.min(64),
        zone: cut(&state.zone, MemberRecord::ZONE),
        machine: state.machine,
        version: cut(&state.version, MemberRecord::VERSION),
        name: cut(&state.name, MemberRecord::NAME),
        flags: state.flags,
        counted: state.counted,
        // A grant is all or nothing: half of one convinces nobody.
        grant: if state.grant.len() > MemberRecord::GRANT { vec![] } else { state.grant.clone() },
        signature: [0; 64],
    };
    record.sign(key);
    record
}

fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

impl Membership {
    pub(super) fn set_self(&mut self, turn: &mut Turn<'_>, state: SelfState) {
        let slow = SelfState {
            used: self.own.state.used,
            counted: self.own.state.counted,
            ..state.clone()
        };
        // That there is no space left must be known before the next put.
        let out_of_space = used_up(state.used) != used_up(self.own.record.used);
        self.own.urgent |= slow != self.own.state || out_of_space;
        self.own.state = state;
        self.announce_if_due(turn);
    }

    /// Somebody holds this node for dead at `stamp`, or has a record of it that it did not make.
    pub(super) fn outbid(&mut self, turn: &mut Turn<'_>, stamp: Stamp) {
        if stamp >= self.own.record.stamp {
            self.own.outbid = self.own.outbid.max(stamp);
            self.own.urgent = true;
            self.announce_if_due(turn);
        }
    }

    pub(super) fn announce_if_due(&mut self, turn: &mut Turn<'_>) {
        let own = &self.own;
        let mut due = None::<Time>;
        let mut want = |at: Time| due = Some(due.map_or(at, |due: Time| due.min(at)));
        if own.urgent {
            want(turn.now);
        }
        // Above `crowd` members each one speaks less often, so that all together say no more.
        let crowd = (self.table.len() / self.config.crowd.max(1)).max(1) as u32;
        if own.state.used.min(64) != own.record.used {
            want(own.used_at + self.config.used * crowd);
        }
        if own.state.counted != own.record.counted {
            want(own.counted_at + self.config.counted * crowd);
        }
        let Some(due) = due else { return };
        let due = own.announced.map_or(due, |last| due.max(last + ANNOUNCE_GAP));
        if due > turn.now {
            self.arm(due, Timer::Announce);
        } else {
            self.announce(turn);
        }
    }

    fn announce(&mut self, turn: &mut Turn<'_>) {
        let own = &mut self.own;
        let before = own.record.clone();
        let stamp = before.stamp.max(own.outbid).next();
        own.record = Arc::new(signed(&own.key, &own.state, stamp));
        own.announced = Some(turn.now);
        let tell = if own.urgent { Tell::Urgent } else { Tell::Tree };
        own.urgent = false;
        if own.record.used != before.used {
            own.used_at = turn.now;
        }
        if own.record.counted != before.counted {
            own.counted_at = turn.now;
        }
        let record = own.record.clone();
        let member = Member { record, since: turn.now, state: MemberState::Alive };
        self.table.put(member, Duration::ZERO);
        self.spread_record(turn, self.me, None, tell);
        self.flush(turn);
    }

    /// Says goodbye on all links. The shell closes them when it has sent that.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>) {
        self.own.state.flags = self.own.state.flags.with(MemberFlags::LEFT);
        self.announce(turn);
        // Those on lazy links get it in full as well: there will be nobody left to ask.
        for peer in self.links.keys() {
            let records = vec![self.own.record.clone()];
            let message = GossipMessage::News { records, have: vec![], rumours: vec![] };
            turn.effects.push(Effect::Send { to: *peer, message });
        }
        self.leaving = true;
    }
}
