//! The choice among the candidates of a chunk when it is written or read, the rule by which a node
//! calls itself over-full, and which chunks such a one gives up. Pure functions of what the caller
//! has measured; they never choose a node that is not a candidate, so a reader finds what any
//! writer chose.

use crate::id::ChunkId;

/// By what a writer and a reader choose among the candidates (`--balance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Writes go home, reads to the fastest holder.
    #[default]
    Auto,
    /// Writes and reads go to the nodes that are least full.
    LeastStored,
    /// Writes and reads go to the nodes that answer fastest.
    LeastLatency,
}

impl Balance {
    /// The name on the command line and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::LeastStored => "least-stored",
            Self::LeastLatency => "least-latency",
        }
    }

    /// The policy with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::LeastStored, Self::LeastLatency].into_iter().find(|b| b.name() == name)
    }
}

/// What is known of one candidate at the moment of the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Whether it is believed alive.
    pub alive: bool,
    /// Whether it is over-full.
    pub full: bool,
    /// Its zone, as a number of one snapshot.
    pub zone: u16,
    /// Its used space in millionths of its capacity.
    pub used: u32,
    /// Smoothed response time in microseconds; 0 when never measured, which counts as fastest so
    /// that it gets measured.
    pub response_us: u32,
    /// Requests that wait for it here.
    pub queued: u32,
}

impl Choice {
    const fn expected_us(&self) -> u64 {
        self.response_us as u64 * (1 + self.queued as u64)
    }
}

/// The order in which to try candidates for a write, as places in `choices`, which are in score
/// order. The dead are left out, over-full ones come last, and among the first `copies` are two
/// zones where two zones have room.
pub fn write_order(balance: Balance, choices: &[Choice], copies: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..choices.len()).filter(|at| choices[*at].alive).collect();
    order.sort_by_key(|at| {
        let choice = &choices[*at];
        let rank = match balance {
            Balance::Auto => 0,
            Balance::LeastStored => u64::from(choice.used),
            Balance::LeastLatency => choice.expected_us(),
        };
        (choice.full, rank)
    });
    if copies > 1 && order.len() > copies {
        let zone = choices[order[0]].zone;
        let outside = |at: &usize| choices[*at].zone != zone;
        if !order[..copies].iter().any(outside)
            && let Some(found) = order.iter().position(|at| outside(at) && !choices[*at].full)
        {
            order[copies - 1..=found].rotate_right(1);
        }
    }
    order
}

/// The order in which to ask holders for a read, as places in `holders`. The dead are left out.
pub fn read_order(balance: Balance, holders: &[Choice]) -> Vec<usize> {
    let mut order: Vec<_> = (0..holders.len()).filter(|at| holders[*at].alive).collect();
    order.sort_by_key(|at| {
        let holder = &holders[*at];
        match balance {
            Balance::Auto | Balance::LeastLatency => (0, holder.expected_us()),
            Balance::LeastStored => (holder.used, holder.expected_us()),
        }
    });
    order
}

/// Whether a node that was over-full or not (`was`) is over-full now: bounded load. It begins above
/// 105 % of the swarm's mean utilisation (but at least 2 points above it) or above 92 % of the
/// node's own capacity, and ends 2 points lower, so that it does not flutter. Sizes in bytes.
pub fn over_full(was: bool, used: u64, capacity: u64, swarm_used: u64, swarm: u64) -> bool {
    let mean = per_mille(swarm_used, swarm);
    let begin = (mean * 105 / 100).max(mean + 20).min(920);
    let limit = if was { begin - 20 } else { begin };
    per_mille(used, capacity) > limit
}

/// The part of its chunks that a node gives up in a day at the most, in 2^-32: whatever others say
/// of themselves, it is not emptied.
const DAILY_MAX: u32 = 1 << 31;

/// Which of a chunk's over-full candidates are to give it, if they hold it, to somebody with less
/// than their share. Each gives up a part of its chunks as large as what it has above the mean,
/// drawn by lot anew each `day`: however often that is asked before loads have changed, no more
/// moves. One lot decides for all of them, so that few chunks are given up by two. `used`, of each
/// in score order, and `mean`: shares of capacity in one unit.
pub fn shedding(cid: &ChunkId, day: u64, used: &[u64], mean: u64) -> Vec<bool> {
    let mut hasher = blake3::Hasher::new_derive_key("p2pfs 2026-11 relief of full nodes v1");
    hasher.update(&cid.0).update(&day.to_le_bytes());
    let mut lot = [0; 4];
    hasher.finalize_xof().fill(&mut lot);
    let mut lot = u32::from_le_bytes(lot);
    let mut decide = |used: u64| {
        let above = u128::from(used.saturating_sub(mean));
        let part = u32::try_from((above << 32) / u128::from(used.max(1))).unwrap_or(u32::MAX);
        let part = part.min(DAILY_MAX);
        let sheds = lot < part;
        // The next one's part begins where this one's ends.
        lot = lot.wrapping_sub(part);
        sheds
    };
    used.iter().map(|used| decide(*used)).collect()
}

/// Whether a node that has used so many 64ths of its capacity has, when it is over-full, no space
/// left for others' chunks, whatever the others have: from 59, which is where the last 8 % begin.
pub fn used_up(used: u8) -> bool {
    used >= 59
}

/// A share in millionths, at most 1,000,000.
pub fn millionths(part: u64, whole: u64) -> u32 {
    let share = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    u32::try_from(share).unwrap_or(u32::MAX).min(1_000_000)
}

/// A share in thousandths, at most 1,000.
pub fn per_mille(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 1000 / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const IDLE: Choice =
        Choice { alive: true, full: false, zone: 0, used: 0, response_us: 0, queued: 0 };

    #[test]
    fn writes_follow_the_policy() {
        let choices = [
            Choice { used: 30, response_us: 900, ..IDLE },
            Choice { used: 10, response_us: 200, queued: 9, ..IDLE },
            Choice { used: 20, response_us: 500, ..IDLE },
            Choice { alive: false, ..IDLE },
            Choice { full: true, ..IDLE },
        ];
        assert_eq!(write_order(Balance::Auto, &choices, 3), [0, 1, 2, 4]);
        assert_eq!(write_order(Balance::LeastStored, &choices, 3), [1, 2, 0, 4]);
        assert_eq!(write_order(Balance::LeastLatency, &choices, 3), [2, 0, 1, 4]);
    }

    #[test]
    fn reads_follow_the_policy() {
        let holders = [
            Choice { used: 5, response_us: 900, ..IDLE },
            Choice { used: 9, response_us: 200, ..IDLE },
            Choice { alive: false, ..IDLE },
        ];
        assert_eq!(read_order(Balance::Auto, &holders), [1, 0]);
        assert_eq!(read_order(Balance::LeastLatency, &holders), [1, 0]);
        assert_eq!(read_order(Balance::LeastStored, &holders), [0, 1]);
    }

    #[test]
    fn a_second_zone_is_brought_in_once_and_only_where_it_has_room() {
        let other = Choice { zone: 1, ..IDLE };
        let choices = [IDLE, IDLE, IDLE, IDLE, other, other];
        assert_eq!(write_order(Balance::Auto, &choices, 3), [0, 1, 4, 2, 3, 5]);
        assert_eq!(write_order(Balance::Auto, &choices, 1), [0, 1, 2, 3, 4, 5]);
        let mixed = [IDLE, other, IDLE, IDLE];
        assert_eq!(write_order(Balance::Auto, &mixed, 3), [0, 1, 2, 3]);
        let full = [IDLE, IDLE, IDLE, Choice { full: true, ..other }];
        assert_eq!(write_order(Balance::Auto, &full, 2), [0, 1, 2, 3]);
    }

    #[test]
    fn full_nodes_shed_what_they_have_above_the_mean_and_never_more() {
        let cid = |n: u32| ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let cids: Vec<ChunkId> = (0..4000).map(cid).collect();
        let shed = |day, used: &[u64], mean, holder: usize| {
            let sheds = |cid: &&ChunkId| shedding(cid, day, used, mean)[holder];
            cids.iter().filter(sheds).copied().collect::<BTreeSet<_>>()
        };
        let all = [900; 3];
        let [a, b, c] = [0, 1, 2].map(|holder| shed(1, &all, 675, holder));
        for some in [&a, &b, &c] {
            assert!((900..1100).contains(&some.len()), "a quarter: {}", some.len());
        }
        assert!(a.is_disjoint(&b) && a.is_disjoint(&c) && b.is_disjoint(&c));
        assert!(shed(1, &all, 800, 0).is_subset(&a));
        assert_ne!(shed(2, &all, 675, 0), a);
        assert!(shed(1, &[900], 900, 0).is_empty() && shed(1, &[900, 0], 950, 1).is_empty());
        // Of four holders that each have to give up a third, one chunk in three has two.
        let third: usize = (0..4).map(|holder| shed(1, &[900; 4], 600, holder).len()).sum();
        assert!((5000..5700).contains(&third), "{third}");
    }

    #[test]
    fn over_full_begins_and_ends_at_different_loads() {
        let at = |was, used| over_full(was, used, 1000, 500, 1000);
        assert!(!at(false, 525) && at(false, 526));
        assert!(at(true, 506) && !at(true, 505));
        assert!(over_full(false, 921, 1000, 950, 1000), "the last 8 % are kept free");
        assert!(!over_full(false, 30, 1000, 10, 1000) && over_full(false, 31, 1000, 10, 1000));
        assert!(!over_full(false, 0, 0, 0, 0));
        assert!(over_full(false, u64::MAX, 1, u64::MAX, u64::MAX));
    }

    #[test]
    fn policies_have_names() {
        for balance in [Balance::Auto, Balance::LeastStored, Balance::LeastLatency] {
            assert_eq!(Balance::from_name(balance.name()), Some(balance));
        }
        assert_eq!(Balance::from_name("best"), None);
    }
}
