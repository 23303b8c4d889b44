//! A snapshot of the membership, with the placement that follows from it. The membership loop makes
//! a new one whenever something changed; everybody else holds an `Arc` of one for as long as one
//! decision takes, and never waits for a lock.

use crate::core::access::two_words;
use crate::core::placement::{Candidate, Placement};
use crate::id::{ChunkId, NodeId};
use crate::sys::Time;
use crate::transport::PeerAddr;
use crate::wire::approve::JoinRequest;
use crate::wire::control::{PeerState, WaitingInfo};
use crate::wire::gossip::{MemberFlags, MemberRecord};
use crate::wire::message::WaitingNode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// From so many 64ths of its capacity on a node is full, whatever the others have.
const USED_UP: u8 = 59;

/// A member as the shell sees it, this node included.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// What it says of itself.
    pub(super) record: Arc<MemberRecord>,
    /// Its life.
    pub(super) state: PeerState,
    /// When it came into that state.
    pub(super) since: Time,
}

impl Member {
    /// Whether it answers (a suspect one still counts: it may only be slow).
    pub(super) fn lives(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::Suspect)
    }

    /// Whether it takes new data.
    pub(super) fn has_room(&self) -> bool {
        let busy = [MemberFlags::FULL, MemberFlags::READ_ONLY, MemberFlags::DRAINING];
        self.lives() && !busy.iter().any(|flag| self.record.flags.has(*flag))
    }

    /// Whether it takes new data where nobody else can: it may have more than its share, but
    /// it has space.
    pub(super) fn has_space(&self) -> bool {
        let shut = [MemberFlags::READ_ONLY, MemberFlags::DRAINING];
        let out_of_space = self.record.flags.has(MemberFlags::FULL) && self.record.used >= USED_UP;
        self.lives() && !out_of_space && !shut.iter().any(|flag| self.record.flags.has(*flag))
    }

    /// Its `--name`, or two words from its key.
    pub(super) fn name(&self) -> String {
        if self.record.name.is_empty() {
            two_words(&self.record.id)
        } else {
            self.record.name.clone()
        }
    }
}

/// Everybody, as known at one moment.
pub(super) struct View {
    /// This node.
    pub(super) me: NodeId,
    /// All members, dead ones too.
    pub(super) members: BTreeMap<NodeId, Member>,
    placement: Mutex<Placement>,
}

impl View {
    /// Makes the snapshot and its placement.
    pub(super) fn new(me: NodeId, members: BTreeMap<NodeId, Member>) -> Self {
        let candidates =
            members.values().filter(|m| m.state != PeerState::Left).map(|m| Candidate {
                id: m.record.id,
                capacity: m.record.capacity,
                zone: zone_of(&m.record),
                alive: m.lives(),
                full: !m.has_room(),
            });
        let placement = Mutex::new(Placement::new(candidates));
        Self { me, members, placement }
    }

    /// The candidates of a chunk in score order, dead ones too.
    pub(super) fn candidates(&self, cid: &ChunkId) -> Vec<NodeId> {
        let mut placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
        let found = placement.candidates(cid.prefix());
        found.iter().map(|node| placement.id(*node)).collect()
    }

    /// The nodes that should hold a chunk: the first `replicas` candidates that live and have room.
    pub(super) fn home(&self, cid: &ChunkId, replicas: u8) -> Vec<NodeId> {
        let mut placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
        let home = placement.home(cid.prefix(), usize::from(replicas));
        home.into_iter().map(|node| placement.id(node)).collect()
    }

    /// Live members other than this node.
    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.record.id != self.me && m.lives())
    }

    /// Live members with room, this node included.
    pub(super) fn with_room(&self) -> usize {
        self.members.values().filter(|m| m.has_space()).count()
    }

    /// Whether the node is a live member.
    pub(super) fn lives(&self, id: &NodeId) -> bool {
        self.members.get(id).is_some_and(Member::lives)
    }

    /// Where to reach a member.
    pub(super) fn addr(&self, id: &NodeId) -> Option<PeerAddr> {
        let member = self.members.get(id)?;
        Some(PeerAddr { id: *id, addrs: member.record.addrs.clone() })
    }

    /// A member's name; of an unknown node the words from its key.
    pub(super) fn name(&self, id: &NodeId) -> String {
        self.members.get(id).map_or_else(|| two_words(id), Member::name)
    }

    /// On how many machines these nodes are.
    pub(super) fn machines<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> usize {
        let machine = |id| self.members.get(id).map(|m: &Member| m.record.machine);
        ids.into_iter().filter_map(machine).collect::<BTreeSet<_>>().len()
    }

    /// On how many machines live members with room are.
    pub(super) fn machines_with_room(&self) -> usize {
        let ids: Vec<_> = self.members.values().filter(|m| m.has_space()).collect();
        self.machines(ids.iter().map(|m| &m.record.id))
    }

    /// Members that a person may mean by `text`: a name, or an id prefix of at least 8 digits.
    pub(super) fn find(&self, text: &str) -> Vec<NodeId> {
        let lower = text.to_ascii_lowercase();
        let by_id = |m: &&Member| lower.len() >= 8 && m.record.id.to_string().starts_with(&lower);
        let named = |m: &&Member| m.name() == text || by_id(m);
        self.members.values().filter(named).map(|m| m.record.id).collect()
    }
}

/// A node without a zone is in the zone of its machine (DESIGN 6).
fn zone_of(record: &MemberRecord) -> Vec<u8> {
    if record.zone.is_empty() { record.machine.to_vec() } else { record.zone.as_bytes().to_vec() }
}

impl WaitingNode {
    /// What it calls itself, or two words from its key.
    pub(super) fn name(&self) -> String {
        let JoinRequest { node, label, .. } = &self.request;
        if label.is_empty() { two_words(node) } else { label.clone() }
    }

    /// As it is shown.
    pub(super) fn info(&self) -> WaitingInfo {
        WaitingInfo { name: self.name(), id: self.request.node, address: self.addr.to_string() }
    }
}
