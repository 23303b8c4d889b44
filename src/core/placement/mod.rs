//! Where a chunk belongs: capacity-weighted rendezvous hashing over (node, first 20 bits of the
//! cid), the same on every machine that has the same member table. Owns the candidates, the home
//! and the choice among candidates; who is alive, full or fast is told by the caller.
//!
//! Invariant: the candidates are a function of the members' ids, capacities and zones alone. Life,
//! load and latency choose *among* the eight and never change them, so a node that is away for a
//! minute moves nothing. A member that is gone for good is left out of the table by the caller.

mod balance;
mod score;

pub use balance::{
    Balance, Choice, millionths, over_full, per_mille, read_order, shedding, used_up, write_order,
};

use crate::id::NodeId;
use std::collections::BTreeSet;

/// How many nodes may hold a chunk.
pub const CANDIDATES: usize = 8;

/// Prefixes that are kept computed: 1.3 MiB.
const CACHED: usize = 1 << 16;

/// Up to this many nodes a race is as fast as looking it up.
const UNCACHED_NODES: usize = 32;

/// No node counts for more than 2^(12/4) = 8 times the median, so that R copies can spread.
const CLIP_STEPS: u8 = 12;

/// One member, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub id: NodeId,
    /// Bytes that it allots to the swarm (never free space: that moves). 0: it stores nothing.
    pub capacity: u64,
    /// Its zone; the zone of its machine when it was given none.
    pub zone: Vec<u8>,
    /// Whether it is believed alive.
    pub alive: bool,
    /// Whether it is over-full ([`over_full`]).
    pub full: bool,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    seed: u64,
    quantised: u8,
    stores: bool,
    zone: u16,
    alive: bool,
    full: bool,
}

/// Up to [`CANDIDATES`] nodes in score order, as numbers of one [`Placement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    nodes: [u16; CANDIDATES],
    len: u8,
}

impl std::ops::Deref for Candidates {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.nodes[..usize::from(self.len)]
    }
}

/// A snapshot of the member table, ready to be asked.
#[derive(Debug, Clone)]
pub struct Placement {
    ids: Vec<NodeId>,
    nodes: Vec<Node>,
    zones: usize,
    /// Direct-mapped by the low bits of the prefix; empty until it is worth having.
    cache: Vec<Option<(u32, Candidates)>>,
}

impl Placement {
    /// Takes a snapshot. The order of `members` does not matter; of two with one id the first
    /// counts, and more than 65,535 are not looked at.
    pub fn new(members: impl IntoIterator<Item = Candidate>) -> Self {
        let mut members: Vec<_> = members.into_iter().take(usize::from(u16::MAX)).collect();
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);

        let zones: BTreeSet<_> = members.iter().map(|member| member.zone.as_slice()).collect();
        let zones: Vec<_> = zones.into_iter().collect();
        let mut steps: Vec<_> = members
            .iter()
            .filter(|member| member.capacity > 0)
            .map(|member| score::quantise(member.capacity))
            .collect();
        steps.sort_unstable();
        let clip = steps.get(steps.len() / 2).map_or(u8::MAX, |mid| mid.saturating_add(CLIP_STEPS));

        let node = |member: &Candidate| Node {
            seed: score::seed_of(&member.id),
            quantised: score::quantise(member.capacity).min(clip),
            stores: member.capacity > 0,
            zone: zones.partition_point(|zone| *zone < member.zone.as_slice()) as u16,
            alive: member.alive,
            full: member.full,
        };
        let nodes = members.iter().map(node).collect();
        let ids = members.iter().map(|member| member.id).collect();
        Self { ids, nodes, zones: zones.len(), cache: Vec::new() }
    }

    /// How many members the snapshot has.
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the snapshot has no members.
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The member with this number.
    ///
    /// # Panics
    ///
    /// When the number is not from this snapshot.
    pub fn id(&self, node: u16) -> NodeId {
        self.ids[usize::from(node)]
    }

    /// The number of a member.
    pub fn number(&self, id: &NodeId) -> Option<u16> {
        self.ids.binary_search(id).ok().map(|index| index as u16)
    }

    /// What is believed of a member now. Moves no candidates.
    pub fn set_state(&mut self, node: u16, alive: bool, full: bool) {
        let node = &mut self.nodes[usize::from(node)];
        node.alive = alive;
        node.full = full;
    }

    /// The nodes that may hold chunks with this prefix ([`crate::id::ChunkId::prefix`]), best
    /// first, alive or not. When the members have several zones, so have the candidates.
    pub fn candidates(&mut self, prefix: u32) -> Candidates {
        if self.nodes.len() <= UNCACHED_NODES {
            return self.race(prefix);
        }
        if self.cache.is_empty() {
            self.cache.resize(CACHED, None);
        }
        let slot = prefix as usize % CACHED;
        if let Some((cached, found)) = self.cache[slot]
            && cached == prefix
        {
            return found;
        }
        let found = self.race(prefix);
        self.cache[slot] = Some((prefix, found));
        found
    }

    /// The nodes that should hold chunks with this prefix: the first `copies` candidates that are
    /// alive and not over-full, the last of them exchanged when all are in one zone and another has
    /// room. Over-full ones only where there are no others; fewer than `copies` when fewer live.
    pub fn home(&mut self, prefix: u32, copies: usize) -> Vec<u16> {
        let candidates = self.candidates(prefix);
        let choices: Vec<_> = candidates.iter().map(|node| self.choice(*node)).collect();
        let mut order = write_order(Balance::Auto, &choices, copies);
        order.truncate(copies);
        order.into_iter().map(|rank| candidates[rank]).collect()
    }

    /// What the snapshot knows of a node for [`write_order`] and [`read_order`]; the caller adds
    /// what it has measured.
    pub fn choice(&self, node: u16) -> Choice {
        let node = &self.nodes[usize::from(node)];
        Choice {
            alive: node.alive,
            full: node.full,
            zone: node.zone,
            used: 0,
            response_us: 0,
            queued: 0,
        }
    }

    /// Whether these nodes are in one zone although the swarm has several.
    pub fn lacks_zone(&self, nodes: &[u16]) -> bool {
        let mut zones = nodes.iter().map(|node| self.nodes[usize::from(*node)].zone);
        let first = zones.next();
        self.zones > 1 && nodes.len() > 1 && zones.all(|zone| Some(zone) == first)
    }

    /// Gives the memory of the cache back.
    pub fn shrink(&mut self) {
        self.cache = Vec::new();
    }

    fn race(&self, prefix: u32) -> Candidates {
        let mut best = [(u128::MAX, 0u16); CANDIDATES];
        let mut len = 0;
        for (number, node) in (0u16..).zip(&self.nodes) {
            if !node.stores {
                continue;
            }
            let time = score::race_time(node.seed, node.quantised, prefix);
            if len == CANDIDATES && time >= best[CANDIDATES - 1].0 {
                continue;
            }
            // Of two equal times the lower id comes first: the nodes are in the order of ids.
            let place = best[..len].partition_point(|(other, _)| *other <= time);
            len = (len + 1).min(CANDIDATES);
            best.copy_within(place..len - 1, place + 1);
            best[place] = (time, number);
        }
        let mut found = Candidates { nodes: best.map(|(_, node)| node), len: len as u8 };
        if len == CANDIDATES && self.lacks_zone(&found) {
            let zone = self.nodes[usize::from(found[0])].zone;
            if let Some(other) = self.winner_outside(zone, prefix) {
                found.nodes[CANDIDATES - 1] = other;
            }
        }
        found
    }

    /// The best node of another zone: rarely needed, so a race of its own.
    fn winner_outside(&self, zone: u16, prefix: u32) -> Option<u16> {
        (0u16..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.stores && node.zone != zone)
            .min_by_key(|(_, node)| score::race_time(node.seed, node.quantised, prefix))
            .map(|(number, _)| number)
    }
}
