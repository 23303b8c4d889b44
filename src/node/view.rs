//! A snapshot of the membership, with the placement that follows from it. The membership loop makes
//! a new one whenever something changed; everybody else holds an `Arc` of one for as long as one
//! decision takes, and never waits for a lock.

use crate::core::access::two_words;
use crate::core::placement::{Candidate, Placement};
use crate::id::{ChunkId, NodeId};
use crate::sys::Time;
use crate::transport::PeerAddr;
use crate::wire::control::{PeerState, WaitingInfo};
use crate::wire::gossip::{MemberRecord, flags};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A member as the shell sees it, this node included.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it says of itself.
    pub record: Arc<MemberRecord>,
    /// Its life.
    pub state: PeerState,
    /// When it came into that state.
    pub since: Time,
}

impl Member {
    /// Whether it answers (a suspect one still counts: it may only be slow).
    pub fn lives(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::Suspect)
    }

    /// Whether it takes new data.
    pub fn has_room(&self) -> bool {
        self.lives() && self.record.flags & (flags::FULL | flags::READ_ONLY | flags::DRAINING) == 0
    }

    /// Its `--name`, or two words from its key.
    pub fn name(&self) -> String {
        if self.record.name.is_empty() { two_words(&self.record.id) } else { self.record.name.clone() }
    }
}

/// Everybody, as known at one moment.
pub struct View {
    /// This node.
    pub me: NodeId,
    /// All members, dead ones too.
    pub members: BTreeMap<NodeId, Member>,
    placement: Placement,
}

impl View {
    /// Makes the snapshot and its placement.
    pub fn new(me: NodeId, members: BTreeMap<NodeId, Member>) -> Self {
        let candidates = members.values().filter(|m| m.state != PeerState::Left).map(|m| Candidate {
            id: m.record.id,
            capacity: m.record.capacity,
            zone: zone_of(&m.record),
            alive: m.lives(),
            full: !m.has_room(),
        });
        let placement = Placement::new(candidates.collect());
        Self { me, members, placement }
    }

    /// The candidates of a chunk in score order, dead ones too.
    pub fn candidates(&self, cid: &ChunkId) -> Vec<NodeId> {
        self.placement.candidates(cid.prefix())
    }

    /// The nodes that should hold a chunk: the first `replicas` candidates that live and have room.
    pub fn home(&self, cid: &ChunkId, replicas: u8) -> Vec<NodeId> {
        self.placement.home(cid.prefix(), replicas)
    }

    /// Live members other than this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.record.id != self.me && m.lives())
    }

    /// Live members with room, this node included.
    pub fn with_room(&self) -> usize {
        self.members.values().filter(|m| m.has_room()).count()
    }

    /// Whether the node is a live member.
    pub fn lives(&self, id: &NodeId) -> bool {
        self.members.get(id).is_some_and(Member::lives)
    }

    /// Where to reach a member.
    pub fn addr(&self, id: &NodeId) -> Option<PeerAddr> {
        let member = self.members.get(id)?;
        Some(PeerAddr { id: *id, addrs: member.record.addrs.clone() })
    }

    /// A member's name; of an unknown node the words from its key.
    pub fn name(&self, id: &NodeId) -> String {
        self.members.get(id).map_or_else(|| two_words(id), Member::name)
    }

    /// On how many machines these nodes are.
    pub fn machines<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> usize {
        let machine = |id| self.members.get(id).map(|m: &Member| m.record.machine);
        ids.into_iter().filter_map(machine).collect::<BTreeSet<_>>().len()
    }

    /// On how many machines live members with room are.
    pub fn machines_with_room(&self) -> usize {
        let ids: Vec<_> = self.members.values().filter(|m| m.has_room()).collect();
        self.machines(ids.iter().map(|m| &m.record.id))
    }

    /// Members that a person may mean by `text`: a name, or an id prefix of at least 8 digits.
    pub fn find(&self, text: &str) -> Vec<NodeId> {
        let lower = text.to_ascii_lowercase();
        let by_id = |m: &&Member| lower.len() >= 8 && m.record.id.to_string().starts_with(&lower);
        let named = |m: &&Member| m.name() == text || by_id(m);
        self.members.values().filter(named).map(|m| m.record.id).collect()
    }

    /// A waiting node as it is shown.
    pub fn waiting(id: NodeId, name: &str, address: String) -> WaitingInfo {
        let name = if name.is_empty() { two_words(&id) } else { name.to_owned() };
        WaitingInfo { name, id, address }
    }
}

/// A node without a zone is in the zone of its machine (DESIGN 6).
fn zone_of(record: &MemberRecord) -> Vec<u8> {
    if record.zone.is_empty() {
        record.machine.to_vec()
    } else {
        record.zone.as_bytes().to_vec()
    }
}
