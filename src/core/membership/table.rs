//! The member table: one record and state per member, found by id and picked at random without
//! walking, with the sums that two tables are compared by. It decides nothing.
//!
//! The sums are wrapping additions of a number taken from each record's signature. That is enough
//! against faults: two different tables have equal sums with probability 2^-64 per part. It is not
//! meant against forgers: who compares is a proven member, and whoever wants to hide a difference
//! could as well stay silent; the next comparison is with another neighbour.
//!
//! Memory matters (16,384 members in a daemon, 10^8 entries in the simulator): an entry is 24
//! bytes and about 20 in the index; records are shared.
//!
//! Invariant: `index`, `gone`, `counts`, `sums` and `root` are functions of `slots`.

use super::random::Random;
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{BUCKETS, MemberRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is thought of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Nothing speaks against it.
    Alive,
    /// Somebody cannot reach it; it has not answered yet.
    Suspect,
    /// Confirmed: it cannot be reached.
    Dead,
    /// It said goodbye.
    Left,
}

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its newest record.
    pub record: Arc<MemberRecord>,
    /// Since when the state is what it is, in this node's time.
    pub since: Time,
    /// What is thought of it.
    pub state: MemberState,
}

/// How long a member has been gone.
#[derive(Debug, Clone, Copy)]
struct Gone {
    /// When this node heard of it.
    heard: Time,
    /// How long ago it had happened then.
    before: Duration,
    dead: bool,
}

#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Member>,
    /// One list per part of the table, sorted: the first 8 bytes of the id and the place in
    /// `slots`. A look-up is a binary search in one 256th of the table; measured twice as fast as
    /// one B-tree, whose nodes are spread over memory.
    index: Box<[Vec<(u64, u32)>; BUCKETS]>,
    gone: BTreeMap<NodeId, Gone>,
    sums: Box<[u64; BUCKETS]>,
    root: u128,
    counts: [usize; 4],
    version: u64,
}

fn prefix(id: &NodeId) -> u64 {
    let (first, _) = id.0.split_first_chunk().expect("an id has 32 bytes");
    u64::from_be_bytes(*first)
}

fn place(slot: usize) -> u32 {
    u32::try_from(slot).expect("the table is bounded far below 2^32")
}

fn mark(member: &Member) -> u128 {
    let mark = member.record.mark();
    // Another number for a death, so that tables that disagree about it differ.
    if member.state == MemberState::Dead { mark.wrapping_mul(3) } else { mark }
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            index: Box::new([const { Vec::new() }; BUCKETS]),
            gone: BTreeMap::new(),
            sums: Box::new([0; BUCKETS]),
            root: 0,
            counts: [0; 4],
            version: 0,
        }
    }

    fn find(&self, id: &NodeId) -> Option<usize> {
        let first = prefix(id);
        let part = &self.index[usize::from(id.0[0])];
        // Equal beginnings do no harm: all of them are looked at.
        let from = part.partition_point(|(other, _)| *other < first);
        let mut equal = part[from..].iter().take_while(|(other, _)| *other == first);
        equal.find_map(|(_, slot)| {
            let slot = *slot as usize;
            (self.slots[slot].record.id == *id).then_some(slot)
        })
    }

    fn index_insert(&mut self, id: &NodeId, slot: usize) {
        let part = &mut self.index[usize::from(id.0[0])];
        if part.len() == part.capacity() {
            // Not the double: slack is memory that every node pays.
            part.reserve_exact(part.len() / 4 + 4);
        }
        let item = (prefix(id), place(slot));
        part.insert(part.partition_point(|other| *other < item), item);
    }

    fn index_remove(&mut self, id: &NodeId, slot: usize) {
        let item = (prefix(id), place(slot));
        let part = &mut self.index[usize::from(id.0[0])];
        if let Ok(at) = part.binary_search(&item) {
            part.remove(at);
        }
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Member> {
        self.find(id).map(|slot| &self.slots[slot])
    }

    pub(super) fn state(&self, id: &NodeId) -> Option<MemberState> {
        self.get(id).map(|member| member.state)
    }

    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) const fn count(&self, state: MemberState) -> usize {
        self.counts[state as usize]
    }

    pub(super) const fn root(&self) -> u128 {
        self.root
    }

    pub(super) const fn sums(&self) -> &[u64; BUCKETS] {
        &self.sums
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// All members, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.index.iter().flatten().map(|(_, slot)| &self.slots[*slot as usize])
    }

    /// The members of one part, in the order of their ids.
    pub(super) fn bucket(&self, bucket: u8) -> impl Iterator<Item = &Member> {
        let part = &self.index[usize::from(bucket)];
        part.iter().map(|(_, slot)| &self.slots[*slot as usize])
    }

    /// A member picked at random; the table is never empty, it has its own node.
    pub(super) fn pick(&self, random: &mut Random) -> &Member {
        &self.slots[random.below(self.slots.len())]
    }

    /// Adds a member, or replaces its record and state. `before`: how long it has been gone
    /// already.
    pub(super) fn put(&mut self, member: Member, before: Duration) {
        let slot = match self.find(&member.record.id) {
            Some(slot) => {
                self.uncount(slot);
                self.slots[slot] = member;
                slot
            }
            None => {
                let slot = self.slots.len();
                if slot == self.slots.capacity() {
                    // An eighth, not the double: slack is memory that every node pays.
                    self.slots.reserve_exact(slot / 8 + 8);
                }
                self.index_insert(&member.record.id, slot);
                self.slots.push(member);
                slot
            }
        };
        self.recount(slot, before);
    }

    pub(super) fn set_state(&mut self, id: &NodeId, state: MemberState, now: Time) {
        if let Some(slot) = self.find(id) {
            self.uncount(slot);
            self.slots[slot].state = state;
            self.slots[slot].since = now;
            self.recount(slot, Duration::ZERO);
        }
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        let Some(slot) = self.find(id) else { return };
        self.uncount(slot);
        self.gone.remove(id);
        self.index_remove(id, slot);
        let last = self.slots.len() - 1;
        if slot != last {
            let moved = self.slots[last].record.id;
            self.index_remove(&moved, last);
            self.index_insert(&moved, slot);
        }
        self.slots.swap_remove(slot);
        self.version += 1;
    }

    fn uncount(&mut self, slot: usize) {
        let member = &self.slots[slot];
        let mark = mark(member);
        self.root = self.root.wrapping_sub(mark);
        let sum = &mut self.sums[usize::from(member.record.id.0[0])];
        *sum = sum.wrapping_sub(mark as u64);
        self.counts[member.state as usize] -= 1;
    }

    fn recount(&mut self, slot: usize, before: Duration) {
        let member = &self.slots[slot];
        let id = member.record.id;
        let mark = mark(member);
        self.root = self.root.wrapping_add(mark);
        let sum = &mut self.sums[usize::from(id.0[0])];
        *sum = sum.wrapping_add(mark as u64);
        self.counts[member.state as usize] += 1;
        match member.state {
            MemberState::Alive | MemberState::Suspect => {
                self.gone.remove(&id);
            }
            MemberState::Dead | MemberState::Left => {
                let dead = member.state == MemberState::Dead;
                self.gone.insert(id, Gone { heard: member.since, before, dead });
            }
        }
        self.version += 1;
    }

    /// How long a member has been gone, if it is.
    pub(super) fn gone_for(&self, id: &NodeId, now: Time) -> Option<Duration> {
        self.gone.get(id).map(|gone| now.since(gone.heard) + gone.before)
    }

    /// The dead member that follows `id`, around the circle of ids.
    pub(super) fn dead_after(&self, id: &NodeId) -> Option<NodeId> {
        let later = self.gone.range((std::ops::Bound::Excluded(*id), std::ops::Bound::Unbounded));
        later.chain(self.gone.iter()).find(|(_, gone)| gone.dead).map(|(id, _)| *id)
    }

    /// Members that have been gone for longer than `limit`.
    pub(super) fn gone_longer(&self, limit: Duration, now: Time) -> Vec<NodeId> {
        let over = |gone: &Gone| now.since(gone.heard) + gone.before > limit;
        self.gone.iter().filter(|(_, gone)| over(gone)).map(|(id, _)| *id).collect()
    }

    /// The member that has been gone the longest: the first to make room.
    pub(super) fn longest_gone(&self, now: Time) -> Option<NodeId> {
        let age = |gone: &Gone| now.since(gone.heard) + gone.before;
        self.gone.iter().max_by_key(|(_, gone)| age(gone)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::gossip::{MemberFlags, Reach, Stamp};

    fn member(id: [u8; 32], seq: u32, state: MemberState) -> Member {
        let mut signature = [0; 64];
        signature[..32]
            .copy_from_slice(blake3::hash(&[&id[..], &seq.to_le_bytes()].concat()).as_bytes());
        let record = MemberRecord {
            id: NodeId(id),
            stamp: Stamp { epoch: 1, seq },
            addrs: vec![],
            reach: Reach::Public,
            capacity: 0,
            used: 0,
            zone: String::new(),
            machine: [0; 8],
            version: String::new(),
            name: String::new(),
            flags: MemberFlags::default(),
            counted: 0,
            grant: vec![],
            signature,
        };
        Member { record: Arc::new(record), since: Time::ZERO, state }
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Member>() <= 24);
        assert!(size_of::<(u64, u32)>() <= 16);
    }

    #[test]
    fn ids_with_equal_beginnings_are_told_apart() {
        let mut other = [7; 32];
        other[31] = 8;
        let mut table = Table::new();
        for id in [[7; 32], other] {
            table.put(member(id, 0, MemberState::Alive), Duration::ZERO);
        }
        assert_eq!(table.len(), 2);
        table.remove(&NodeId([7; 32]));
        assert!(table.get(&NodeId([7; 32])).is_none());
        assert_eq!(table.get(&NodeId(other)).map(|m| m.record.id), Some(NodeId(other)));
    }

    #[test]
    fn sums_depend_on_what_is_in_the_table_and_not_on_its_history() {
        let mut random = Random::new(1);
        let mut table = Table::new();
        for step in 0..2000u32 {
            let mut id = [0; 32];
            id[0] = random.below(40) as u8;
            id[7] = random.below(3) as u8;
            if random.below(4) == 0 {
                table.remove(&NodeId(id));
            } else {
                let state = [MemberState::Alive, MemberState::Dead][random.below(2)];
                table.put(member(id, step, state), Duration::ZERO);
            }
        }
        let mut again = Table::new();
        let members: Vec<_> = table.iter().cloned().collect();
        for member in members.iter().rev() {
            again.put(member.clone(), Duration::ZERO);
        }
        assert!(members.is_sorted_by_key(|m| m.record.id));
        assert_eq!(
            (again.root, &again.sums, again.counts),
            (table.root, &table.sums, table.counts)
        );
        assert_eq!(again.gone.len(), again.count(MemberState::Dead));
        let first = members[0].record.id;
        let before = again.root;
        let state = if members[0].state == MemberState::Dead {
            MemberState::Alive
        } else {
            MemberState::Dead
        };
        again.set_state(&first, state, Time::ZERO);
        assert_ne!(again.root, before);
    }
}
