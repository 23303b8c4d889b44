//! What is below its copies, who makes the missing ones, and when. Pure: it judges one chunk at a
//! time from its candidates and what is known of its holders; the worker in the shell asks, copies
//! and counts.
//!
//! Rules (DESIGN 6): a chunk is healthy on any R of its candidates; the first alive holder in score
//! order is responsible for it and nobody else copies or counts it; a copy that only a dead node's
//! return would make superfluous waits for the repair delay, unless one copy is left or the node
//! to be filled joined after the death; copies that are all in one zone are too few; a copy on a
//! holder with more than its share moves to one with less.

use crate::id::NodeId;
use crate::sys::Time;
use std::time::Duration;

/// A candidate of a chunk, in score order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub id: NodeId,
    /// Whether it is a live member.
    pub alive: bool,
    /// Whether it takes new data: neither out of space nor draining or read-only.
    pub room: bool,
    /// Whether it has more than its share: it gets copies only where nobody else can take them.
    pub over_full: bool,
    /// Whether it is over-full and this chunk is one that it is to give to others.
    pub sheds: bool,
    /// Whether it is known to hold the chunk.
    pub holds: bool,
    /// When it came into its present state: joined, returned or died.
    pub since: Time,
    /// Its zone, as a number of one view.
    pub zone: u16,
}

impl Holder {
    /// Whether it could take a copy without having more than its share then.
    pub const fn takes(&self) -> bool {
        self.alive && self.room && !self.over_full && !self.holds
    }
}

/// What is to be done about one chunk by this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// The first of the live holders: it counts and repairs the chunk.
    pub first: Option<NodeId>,
    /// Live copies.
    pub copies: u8,
    /// Copies missing.
    pub missing: u8,
    /// Who gets a copy now.
    pub fill: Vec<NodeId>,
    /// When the next copy falls due, if some wait for the delay.
    pub due: Option<Time>,
    /// Missing copies for which no live member with room is left.
    pub homeless: u8,
}

/// Judges one chunk that `me` holds, perhaps in place of the home `hint` that was down: that one
/// gets it when it is back, whoever is responsible. `others` are live holders outside the
/// candidates, which count as copies only while too few candidates hold it and never decide who is
/// responsible unless no candidate holds it.
pub fn judge(
    me: NodeId,
    candidates: &[Holder],
    others: &[NodeId],
    hint: Option<NodeId>,
    replicas: u8,
    delay: Duration,
    now: Time,
) -> Verdict {
    let holding = |c: &&Holder| c.alive && c.holds;
    let first = candidates.iter().find(holding).map(|c| c.id).or(others.first().copied());
    let on_candidates = candidates.iter().filter(holding).count();
    let wanted = usize::from(replicas);
    let copies = on_candidates + others.len();
    // Copies beside the candidates are safe but misplaced: they are replaced, not counted on.
    let missing = wanted.saturating_sub(on_candidates);
    let mut verdict = Verdict {
        first,
        copies: clamp(copies.min(wanted.max(on_candidates))),
        missing: clamp(wanted.saturating_sub(copies)),
        ..Verdict::default()
    };
    let mut takers: Vec<&Holder> =
        candidates.iter().filter(|c| c.alive && c.room && !c.holds).collect();
    takers.sort_by_key(|c| c.over_full);
    let handed_over = !cfg!(p2pfs_planted = "hint-never-handed-over");
    if let Some(back) = takers.iter().position(|c| handed_over && Some(c.id) == hint) {
        verdict.fill.push(takers.remove(back).id);
    }
    let handed_back = verdict.fill.len();
    let missing = missing.saturating_sub(handed_back);
    if first != Some(me) {
        return verdict;
    }
    if missing == 0 {
        if verdict.fill.is_empty() && wanted > 1 {
            verdict.fill.extend(outside(candidates));
        }
        if verdict.fill.is_empty() {
            verdict.fill.extend(relief(candidates, wanted));
        }
        return verdict;
    }
    let mut waiting = dead_homes(candidates, wanted);
    for taker in takers.iter().take(missing) {
        // A taker beyond the home places holds a dead node's place: it waits for the delay.
        let displaced = if is_home(candidates, taker.id, wanted) { None } else { waiting.pop() };
        match displaced {
            Some(died) if copies > 1 && taker.since < died && now < died + delay => {
                let due = died + delay;
                verdict.due = Some(verdict.due.map_or(due, |other| other.min(due)));
            }
            _ => verdict.fill.push(taker.id),
        }
    }
    let taken = clamp(handed_back + takers.len());
    verdict.homeless = verdict.missing.saturating_sub(taken);
    verdict
}

/// Whether the candidate would be home if everybody lived.
fn is_home(candidates: &[Holder], id: NodeId, wanted: usize) -> bool {
    homes(candidates, wanted).any(|c| c.id == id)
}

/// Who could take a copy into a second zone, when all copies are in one: a machine that dies with
/// several nodes on it would take them all along.
fn outside(candidates: &[Holder]) -> Option<NodeId> {
    let mut zones = candidates.iter().filter(|c| c.alive && c.holds).map(|c| c.zone);
    let zone = zones.next()?;
    if zones.any(|other| other != zone) {
        return None;
    }
    let takes = |c: &&Holder| c.alive && c.room && !c.over_full && c.zone != zone;
    candidates.iter().find(takes).map(|c| c.id)
}

/// Who could take the copies of holders that are to give the chunk up.
fn relief(candidates: &[Holder], wanted: usize) -> impl Iterator<Item = NodeId> {
    let holding: Vec<&Holder> = candidates.iter().filter(|c| c.alive && c.holds).collect();
    // The only one in a second zone cannot give the chunk up.
    let is_bound = |c: &Holder| {
        let mut others = holding.iter().filter(|other| other.id != c.id).map(|other| other.zone);
        let zone = others.next();
        zone.is_some_and(|zone| zone != c.zone && others.all(|other| other == zone))
    };
    let staying = holding.iter().filter(|c| !c.sheds || is_bound(c)).count();
    let takers = candidates.iter().filter(|c| c.takes()).map(|c| c.id);
    takers.take(wanted.saturating_sub(staying))
}

/// Who holds the chunk so well that `me` need not: the first `replicas` live candidates that hold
/// it, those with more than their share last; the last of them exchanged when all are in one zone
/// and another copy is not. None when there are fewer, or `me` is one of them.
pub fn keepers(me: NodeId, candidates: &[Holder], replicas: u8) -> Option<Vec<NodeId>> {
    let mut holding: Vec<&Holder> = candidates.iter().filter(|c| c.alive && c.holds).collect();
    holding.sort_by_key(|c| (c.over_full, c.sheds));
    let wanted = usize::from(replicas);
    let (best, rest) = holding.split_at(wanted.min(holding.len()));
    let mut keepers: Vec<NodeId> = best.iter().map(|c| c.id).collect();
    if let [first, .., last] = best
        && best.iter().all(|c| c.zone == first.zone)
        && let Some(other) = rest.iter().find(|c| c.zone != first.zone)
    {
        keepers.retain(|id| *id != last.id);
        keepers.push(other.id);
    }
    (keepers.len() == wanted && wanted > 0 && !keepers.contains(&me)).then_some(keepers)
}

/// The nodes that would be home if everybody lived.
fn homes(candidates: &[Holder], wanted: usize) -> impl Iterator<Item = &Holder> {
    candidates.iter().filter(|c| c.room && !c.over_full || !c.alive).take(wanted)
}

/// When the dead among the home places died, latest first.
fn dead_homes(candidates: &[Holder], wanted: usize) -> Vec<Time> {
    let homes = homes(candidates, wanted);
    let mut died: Vec<Time> = homes.filter(|c| !c.alive).map(|c| c.since).collect();
    died.sort_unstable_by(|a, b| b.cmp(a));
    died
}

fn clamp(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(600);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn holder(n: u8, alive: bool, holds: bool, since_s: u64) -> Holder {
        let since = Time(since_s * 1_000_000);
        let id = node(n);
        Holder { id, alive, room: true, over_full: false, sheds: false, holds, since, zone: 0 }
    }

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    #[test]
    fn a_healthy_chunk_needs_nothing() {
        let all = [1, 2, 3, 4].map(|n| holder(n, true, n < 4, 0));
        let verdict = judge(node(1), &all, &[], None, 3, DELAY, at(9));
        assert_eq!(verdict, Verdict { first: Some(node(1)), copies: 3, ..Verdict::default() });
        assert_eq!(judge(node(2), &all, &[], None, 3, DELAY, at(9)).first, Some(node(1)));
    }

    #[test]
    fn with_too_few_nodes_the_missing_copy_is_homeless() {
        let dead = [holder(1, false, true, 5), holder(2, true, true, 0), holder(3, true, true, 0)];
        let verdict = judge(node(2), &dead, &[], None, 3, DELAY, at(9));
        assert_eq!((verdict.copies, verdict.missing, verdict.homeless), (2, 1, 1));
        assert!(verdict.fill.is_empty() && verdict.due.is_none());
    }

    #[test]
    fn a_node_that_joins_after_the_death_is_filled_at_once() {
        let mut all = vec![holder(1, false, true, 5)];
        all.extend([2, 3].map(|n| holder(n, true, true, 0)));
        all.push(holder(4, true, false, 7));
        let verdict = judge(node(2), &all, &[], None, 3, DELAY, at(9));
        assert_eq!(verdict.fill, [node(4)]);
    }

    #[test]
    fn an_old_member_waits_for_the_delay_unless_one_copy_is_left() {
        let all = [
            holder(1, false, true, 5),
            holder(2, true, true, 0),
            holder(3, true, true, 0),
            holder(4, true, false, 0),
        ];
        let early = judge(node(2), &all, &[], None, 3, DELAY, at(9));
        assert_eq!((early.fill.len(), early.due, early.homeless), (0, Some(at(605)), 0));
        assert_eq!(judge(node(2), &all, &[], None, 3, DELAY, at(605)).fill, [node(4)]);
        let mut last = all;
        last[2].alive = false;
        last[2].since = at(6);
        assert_eq!(judge(node(2), &last, &[], None, 3, DELAY, at(9)).fill, [node(4)]);
    }

    #[test]
    fn a_joiner_that_is_home_is_filled_at_once() {
        let all = [1, 2, 3, 4].map(|n| holder(n, true, n != 1, u64::from(n == 1) * 8));
        let mut two = all;
        two[3].holds = false;
        assert_eq!(judge(node(2), &two, &[], None, 3, DELAY, at(9)).fill, [node(1)]);
    }

    #[test]
    fn a_home_that_is_back_gets_what_was_kept_for_it() {
        let mut all = [1, 2, 3, 4].map(|n| holder(n, true, n != 1, 0));
        let kept_for = Some(node(1));
        let verdict = judge(node(4), &all, &[], kept_for, 3, DELAY, at(9));
        assert_eq!(verdict.first, Some(node(2)));
        assert_eq!(verdict.fill, [node(1)]);
        assert!(judge(node(4), &all, &[], None, 3, DELAY, at(9)).fill.is_empty());
        all[0].alive = false;
        assert!(judge(node(4), &all, &[], kept_for, 3, DELAY, at(9)).fill.is_empty());
    }

    #[test]
    fn who_has_more_than_his_share_takes_what_nobody_else_can() {
        let mut all = [1, 2, 3, 4].map(|n| holder(n, true, n < 3, 0));
        all[2].over_full = true;
        assert_eq!(judge(node(1), &all, &[], None, 3, DELAY, at(9)).fill, [node(4)]);
        let verdict = judge(node(1), &all[..3], &[], None, 3, DELAY, at(9));
        assert_eq!((verdict.fill, verdict.homeless), (vec![node(3)], 0));
    }

    #[test]
    fn a_chunk_that_an_over_full_holder_is_to_give_up_goes_to_one_with_less() {
        let mut all = [1, 2, 3, 4, 5].map(|n| holder(n, true, n < 4, 0));
        all[..3].iter_mut().for_each(|c| c.over_full = true);
        let fill = |all: &[Holder]| judge(node(1), all, &[], None, 3, DELAY, at(9)).fill;
        assert!(fill(&all).is_empty(), "it has others to give up");
        all[1].sheds = true;
        assert_eq!(fill(&all), [node(4)]);
        assert!(judge(node(2), &all, &[], None, 3, DELAY, at(9)).fill.is_empty(), "one does it");
        all[3].over_full = true;
        assert_eq!(fill(&all), [node(5)]);
        all[4].room = false;
        assert!(fill(&all).is_empty());
        // The only copy in another zone stays.
        all[4].room = true;
        all[1].zone = 7;
        assert!(fill(&all).is_empty());
        all[1].zone = 0;
        // Once somebody has taken it, who was to give it up does, and nobody else.
        (all[3].over_full, all[3].holds) = (false, true);
        assert!(fill(&all).is_empty());
        assert_eq!(keepers(node(2), &all, 3), Some([4, 1, 3].map(node).to_vec()));
        assert_eq!(keepers(node(3), &all, 3), None);
    }

    #[test]
    fn a_copy_is_superfluous_when_better_ones_are_there() {
        let mut all = [1, 2, 3, 4].map(|n| holder(n, true, true, 0));
        let first = Some([1, 2, 3].map(node).to_vec());
        assert_eq!(keepers(node(4), &all, 3), first);
        assert_eq!(keepers(node(7), &all, 3), first, "no candidate at all");
        assert_eq!(keepers(node(3), &all, 3), None);
        all[0].over_full = true;
        assert_eq!(keepers(node(1), &all, 3), Some([2, 3, 4].map(node).to_vec()));
        assert_eq!(keepers(node(4), &all, 3), None);
        all[1].holds = false;
        assert_eq!(keepers(node(1), &all, 3), None);
        all[1].holds = true;
        all[2].alive = false;
        assert_eq!(keepers(node(1), &all, 3), None);
    }

    #[test]
    fn when_all_copies_are_in_one_zone_a_second_zone_gets_one_and_keeps_it() {
        let mut all = [1, 2, 3, 4].map(|n| holder(n, true, n < 4, 0));
        all[3].zone = 1;
        let verdict = judge(node(1), &all, &[], None, 3, DELAY, at(9));
        assert_eq!((verdict.fill, verdict.missing), (vec![node(4)], 0));
        assert!(judge(node(2), &all, &[], None, 3, DELAY, at(9)).fill.is_empty());
        assert!(judge(node(1), &all[..3], &[], None, 1, DELAY, at(9)).fill.is_empty());
        all[3].holds = true;
        assert!(judge(node(1), &all, &[], None, 3, DELAY, at(9)).fill.is_empty());
        let kept = [1, 2, 4].map(node).to_vec();
        assert_eq!(keepers(node(3), &all, 3), Some(kept));
        assert_eq!((keepers(node(1), &all, 3), keepers(node(4), &all, 3)), (None, None));
        all[0].zone = 1;
        assert_eq!(keepers(node(4), &all, 3), Some([1, 2, 3].map(node).to_vec()));
    }

    #[test]
    fn copies_beside_the_candidates_are_replaced() {
        let all = [holder(1, true, false, 0), holder(2, true, false, 0)];
        let verdict = judge(node(7), &all, &[node(7)], None, 2, DELAY, at(9));
        assert_eq!(verdict.first, Some(node(7)));
        assert_eq!((verdict.missing, verdict.fill), (1, vec![node(1), node(2)]));
    }
}
