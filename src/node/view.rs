//! A snapshot of the membership, with the placement that follows from it. The membership loop makes
//! a new one whenever something changed; everybody else holds an `Arc` of one for as long as one
//! decision takes, and never waits for a lock.

use crate::core::access::two_words;
use crate::core::placement::{
    Balance, Candidate, Choice, Placement, millionths, per_mille, used_up, write_order,
};
use crate::id::{ChunkId, NodeId};
use crate::sys::Time;
use crate::transport::PeerAddr;
use crate::wire::approve::JoinRequest;
use crate::wire::control::{PeerState, WaitingInfo};
use crate::wire::gossip::{MemberFlags, MemberRecord};
use crate::wire::message::WaitingNode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A member that has been dead for so long is not waited for any more.
const GONE_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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
        let out_of_space = self.record.flags.has(MemberFlags::FULL) && used_up(self.record.used);
        self.lives() && !out_of_space && !shut.iter().any(|flag| self.record.flags.has(*flag))
    }

    /// Whether it has more than its share.
    pub(super) fn is_over_full(&self) -> bool {
        self.record.flags.has(MemberFlags::FULL)
    }

    /// Whether it is being emptied.
    pub(super) fn drains(&self) -> bool {
        self.record.flags.has(MemberFlags::DRAINING)
    }

    /// How full it says it is, in millionths.
    pub(super) fn used(&self) -> u32 {
        millionths(u64::from(self.record.used), 64)
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

/// What members have used and what they offer, in bytes. No member counts for more than eight times
/// the median, as in placement: what one says of itself must not make all others look full.
pub(super) fn load<'a>(members: impl Iterator<Item = &'a Member>) -> (u64, u64) {
    let said = members.map(|member| (member.record.capacity, u64::from(member.record.used)));
    let mut said: Vec<(u64, u64)> = said.collect();
    said.sort_unstable();
    let most = said.get(said.len() / 2).map_or(0, |(median, _)| median.saturating_mul(8));
    said.into_iter().fold((0, 0), |(used, all), (capacity, step)| {
        let capacity = capacity.min(most);
        (u64::saturating_add(used, capacity / 64 * step), u64::saturating_add(all, capacity))
    })
}

/// Everybody, as known at one moment.
pub(super) struct View {
    /// This node.
    pub(super) me: NodeId,
    /// All members, dead ones too.
    pub(super) members: BTreeMap<NodeId, Member>,
    candidates: Vec<Candidate>,
    /// Shared by all snapshots with the same candidates, because it remembers what it computed.
    placement: Arc<Mutex<Placement>>,
    /// Grows whenever a chunk may have got another home.
    pub(super) placed: u64,
}

/// What is known of a peer's speed: smoothed response time in microseconds, requests under way.
pub(super) type Speed<'a> = &'a dyn Fn(&NodeId) -> (u32, u32);

/// What is known of how full a member is, in millionths.
pub(super) type Used<'a> = &'a dyn Fn(&Member) -> u32;

impl View {
    /// Nobody is known yet.
    pub(super) fn empty(me: NodeId) -> Self {
        let placement = Arc::new(Mutex::new(Placement::new([])));
        Self { me, members: BTreeMap::new(), candidates: Vec::new(), placement, placed: 0 }
    }

    /// The snapshot that follows this one. A member that left may be back soon: its places are kept
    /// for `grace`.
    pub(super) fn next(
        &self,
        members: BTreeMap<NodeId, Member>,
        now: Time,
        grace: Duration,
    ) -> Self {
        let gone = |m: &Member| match m.state {
            PeerState::Left => now.since(m.since) > grace,
            PeerState::Dead => now.since(m.since) > GONE_AFTER,
            PeerState::Alive | PeerState::Suspect => false,
        };
        let candidate = |m: &Member| Candidate {
            id: m.record.id,
            capacity: m.record.capacity,
            zone: zone_of(&m.record),
            alive: m.lives(),
            full: !m.has_room(),
        };
        let candidates: Vec<Candidate> =
            members.values().filter(|m| !gone(m)).map(candidate).collect();
        let same = candidates == self.candidates;
        let placement = match same {
            true => self.placement.clone(),
            false => Arc::new(Mutex::new(Placement::new(candidates.iter().cloned()))),
        };
        let placed = self.placed + u64::from(!same);
        Self { me: self.me, members, candidates, placement, placed }
    }

    fn placement(&self) -> MutexGuard<'_, Placement> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The candidates of a chunk in score order, dead ones too.
    pub(super) fn candidates(&self, cid: &ChunkId) -> Vec<NodeId> {
        let mut placement = self.placement();
        let found = placement.candidates(cid.prefix());
        found.iter().map(|node| placement.id(*node)).collect()
    }

    /// The nodes that should hold a chunk: `replicas` candidates that live and have room, in the
    /// order of `balance`.
    pub(super) fn home(
        &self,
        cid: &ChunkId,
        replicas: u8,
        balance: Balance,
        speed: Speed<'_>,
        used: Used<'_>,
    ) -> Vec<NodeId> {
        let mut placement = self.placement();
        let found = placement.candidates(cid.prefix());
        let ids: Vec<NodeId> = found.iter().map(|node| placement.id(*node)).collect();
        let choices: Vec<_> = found
            .iter()
            .zip(&ids)
            .map(|(node, id)| {
                let (response_us, queued) = speed(id);
                let used = self.members.get(id).map_or(0, used);
                Choice { used, response_us, queued, ..placement.choice(*node) }
            })
            .collect();
        let order = write_order(balance, &choices, usize::from(replicas));
        order.into_iter().take(usize::from(replicas)).map(|rank| ids[rank]).collect()
    }

    /// The home nodes of a chunk that are away and may be back soon.
    pub(super) fn away(&self, cid: &ChunkId, replicas: u8) -> Vec<NodeId> {
        let home = self.candidates(cid).into_iter().take(usize::from(replicas));
        home.filter(|id| !self.lives(id)).collect()
    }

    /// Whether no member is away that may have changed something meanwhile and come back.
    pub(super) fn is_complete(&self, now: Time) -> bool {
        self.members.values().all(|m| m.lives() || now.since(m.since) > GONE_AFTER)
    }

    /// Gives the memory of what placement remembers back.
    pub(super) fn trim(&self) {
        self.placement().shrink();
    }

    /// Live members other than this node.
    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.record.id != self.me && m.lives())
    }

    /// What the live members have used of what they offer together, in thousandths.
    pub(super) fn mean_used(&self) -> u64 {
        let (used, all) = load(self.members.values().filter(|m| m.lives()));
        per_mille(used, all)
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

    /// The zone of a candidate, as a number of this view.
    pub(super) fn zone(&self, id: &NodeId) -> u16 {
        let placement = self.placement();
        placement.number(id).map_or(0, |node| placement.choice(node).zone)
    }

    /// In how many zones these nodes are.
    pub(super) fn zones<'a>(&self, ids: impl IntoIterator<Item = &'a NodeId>) -> usize {
        let zone = |id| self.members.get(id).map(|m: &Member| zone_of(&m.record));
        ids.into_iter().filter_map(zone).collect::<BTreeSet<_>>().len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::NodeKey;
    use crate::wire::gossip::{Reach, Stamp};

    fn member(seed: u8, state: PeerState, used: u8) -> Member {
        let record = MemberRecord {
            id: NodeKey::from_seed(&[seed; 32]).id(),
            stamp: Stamp { epoch: 1, seq: 0 },
            addrs: Vec::new(),
            reach: Reach::Public,
            capacity: 1 << 30,
            used,
            zone: String::new(),
            machine: [seed; 8],
            version: String::new(),
            name: String::new(),
            flags: MemberFlags::STORE,
            counted: u64::from(used),
            grant: Vec::new(),
            signature: [0; 64],
        };
        Member { record: Arc::new(record), state, since: Time(1_000_000) }
    }

    fn members(last: Member) -> BTreeMap<NodeId, Member> {
        let alive = [1, 2, 3].map(|seed| member(seed, PeerState::Alive, 0));
        alive.into_iter().chain([last]).map(|m| (m.record.id, m)).collect()
    }

    #[test]
    fn homes_move_only_when_a_candidate_changes() {
        let (now, grace) = (Time(2_000_000), Duration::from_secs(600));
        let cid = ChunkId([7; 32]);
        let first = View::empty(NodeId([0; 32]));
        let first = first.next(members(member(4, PeerState::Alive, 0)), now, grace);
        let fuller = first.next(members(member(4, PeerState::Alive, 9)), now, grace);
        assert_eq!(fuller.placed, first.placed);
        let left = fuller.next(members(member(4, PeerState::Left, 9)), now, grace);
        assert_eq!(left.placed, first.placed + 1);
        assert_eq!(left.candidates(&cid), first.candidates(&cid), "it may be back soon");
        let later = left.next(members(member(4, PeerState::Left, 9)), now + grace, grace);
        let gone = later.next(members(member(4, PeerState::Left, 9)), now + grace * 2, grace);
        assert_eq!(gone.candidates(&cid).len(), 3);
    }

    #[test]
    fn who_is_away_is_waited_for_a_week() {
        let view = View::empty(NodeId([0; 32]));
        for (state, after, complete) in [
            (PeerState::Alive, 0, true),
            (PeerState::Suspect, 0, true),
            (PeerState::Dead, 6, false),
            (PeerState::Left, 6, false),
            (PeerState::Dead, 8, true),
        ] {
            let last = member(4, state, 0);
            let now = last.since + Duration::from_secs(after * 24 * 60 * 60);
            let view = view.next(members(last), now, Duration::ZERO);
            assert_eq!(view.is_complete(now), complete, "{state:?} after {after} days");
        }
    }

    #[test]
    fn writes_follow_the_policy() {
        let view = View::empty(NodeId([0; 32]));
        let view = view.next(members(member(4, PeerState::Alive, 9)), Time(1), Duration::ZERO);
        let cid = ChunkId([7; 32]);
        let full = member(4, PeerState::Alive, 9).record.id;
        let all = view.candidates(&cid);
        let unknown = |_: &NodeId| (0, 0);
        assert_eq!(view.home(&cid, 3, Balance::Auto, &unknown, &Member::used), all[..3]);
        assert!(!view.home(&cid, 3, Balance::LeastStored, &unknown, &Member::used).contains(&full));
        let slow = all[0];
        let speed = move |id: &NodeId| (if *id == slow { 9_000 } else { 100 }, 0);
        assert!(!view.home(&cid, 3, Balance::LeastLatency, &speed, &Member::used).contains(&slow));
    }
}
