//! What the simulator watches: when each node learned of a change, and deaths that were none.
//! Judges only; it changes nothing in the world.

use crate::net::{SECOND, World};
use p2pfs::core::membership::{Change, MemberChange, MemberState};
use p2pfs::id::NodeId;
use std::collections::HashMap;

#[derive(Default)]
pub struct Checks {
    pub ids: HashMap<NodeId, usize>,
    /// Deaths of nodes that ran and could be reached by who declared them.
    pub false_deaths: usize,
    pub false_suspicions: usize,
    watched: Option<(NodeId, Change)>,
    /// When each node learned of the watched change.
    seen: HashMap<usize, u64>,
    since: u64,
}

impl Checks {
    pub fn changed(&mut self, now: u64, observer: usize, change: MemberChange, well: bool) {
        if well {
            self.false_deaths += usize::from(change.what == Change::Dead);
            self.false_suspicions += usize::from(change.what == Change::Suspect);
        }
        if self.watched == Some((change.id, change.what)) {
            self.seen.entry(observer).or_insert(now);
        }
    }

    pub fn watch(&mut self, now: u64, id: NodeId, what: Change) {
        self.watched = Some((id, what));
        self.since = now;
        self.seen.clear();
    }

    /// Counts the time of the watched change from `since` on.
    pub fn count_from(&mut self, since: u64) {
        self.since = since;
    }

    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// Seconds until the first, half, 99 % and all of who learned of it did.
    pub fn spread(&self) -> Spread {
        let mut times: Vec<u64> =
            self.seen.values().map(|at| at.saturating_sub(self.since)).collect();
        times.sort_unstable();
        let share = |per_mille: usize| {
            let at = (times.len() * per_mille).div_ceil(1000).clamp(1, times.len().max(1)) - 1;
            times.get(at).map_or(f64::INFINITY, |micros| *micros as f64 / SECOND as f64)
        };
        Spread { first: share(0), half: share(500), most: share(990), all: share(1000) }
    }
}

pub struct Spread {
    pub first: f64,
    pub half: f64,
    pub most: f64,
    pub all: f64,
}

/// Nodes whose process runs.
pub fn running(world: &World) -> impl Iterator<Item = usize> {
    (0..world.nodes.len()).filter(|node| world.nodes[*node].core.is_some())
}

/// Whether every running node holds exactly the running ones for alive.
pub fn all_agree(world: &World) -> bool {
    let alive = running(world).count();
    running(world).all(|node| {
        let core = world.nodes[node].core();
        core.count(MemberState::Alive) == alive && core.count(MemberState::Suspect) == 0
    })
}

/// Share of pairs across a cut of which one still holds the other for alive.
pub fn wrong_across(world: &World) -> f64 {
    let (mut wrong, mut pairs) = (0usize, 0usize);
    for node in running(world) {
        for other in running(world).filter(|other| world.blocked(node as u32, *other as u32)) {
            let member = world.nodes[node].core().get(&world.nodes[other].id);
            pairs += 1;
            wrong += usize::from(member.is_some_and(|m| m.state == MemberState::Alive));
        }
    }
    wrong as f64 / pairs.max(1) as f64
}

/// Whether all tables are the same, record by record.
pub fn same_tables(world: &World) -> bool {
    let mut roots = running(world).map(|node| world.nodes[node].core().root());
    let first = roots.next();
    roots.all(|root| Some(root) == first)
}

/// Whether the links of the running nodes connect all of them.
pub fn connected(world: &World) -> bool {
    let Some(start) = running(world).next() else { return true };
    let mut reached = vec![false; world.nodes.len()];
    let mut open = vec![start];
    reached[start] = true;
    while let Some(node) = open.pop() {
        for link in world.nodes[node].core().links() {
            let peer = world.checks.ids[&link.peer];
            if !std::mem::replace(&mut reached[peer], true) {
                open.push(peer);
            }
        }
    }
    running(world).all(|node| reached[node])
}

/// Smallest, mean and largest number of links.
pub fn degrees(world: &World) -> (usize, f64, usize) {
    let counts: Vec<usize> =
        running(world).map(|node| world.nodes[node].core().links().count()).collect();
    let sum: usize = counts.iter().sum();
    let least = counts.iter().min().copied().unwrap_or(0);
    let most = counts.iter().max().copied().unwrap_or(0);
    (least, sum as f64 / counts.len().max(1) as f64, most)
}
