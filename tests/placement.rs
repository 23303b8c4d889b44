//! Placement against the figures of the research it is built on: balance, movement, zones, and the
//! golden candidates that every machine must compute.

use p2pfs::core::placement::{
    Balance, CANDIDATES, Candidate, Choice, Placement, millionths, over_full, write_order,
};
use p2pfs::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

const COPIES: usize = 3;

fn member(number: u32, capacity: u64, zone: &str) -> Candidate {
    let id = NodeId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    Candidate { id, capacity, zone: zone.into(), alive: true, full: false }
}

/// Capacities of 1, 2, 4, 8 and 16 units in turn, all in one zone.
fn members(count: u32) -> Vec<Candidate> {
    (0..count).map(|number| member(number, 1 << (30 + number % 5), "")).collect()
}

/// Prefixes spread over the whole range.
fn prefixes(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|i| i.wrapping_mul(0x9e37_79b1) >> 12)
}

/// Copies per capacity of each member, relative to the mean of all.
fn loads(members: &[Candidate], placement: &mut Placement, count: u32) -> Vec<f64> {
    let mut held = BTreeMap::<NodeId, u64>::new();
    for prefix in prefixes(count) {
        for node in placement.home(prefix, COPIES) {
            *held.entry(placement.id(node)).or_default() += 1;
        }
    }
    let total: u64 = members.iter().map(|member| member.capacity).sum();
    let mean = held.values().sum::<u64>() as f64 / total as f64;
    let load = |member: &Candidate| {
        held.get(&member.id).copied().unwrap_or(0) as f64 / member.capacity as f64 / mean
    };
    members.iter().map(load).collect()
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

#[test]
fn copies_are_shared_out_by_capacity() {
    // Research: max/mean 1.268 at 10 nodes (a large one cannot be filled with distinct copies),
    // 1.051 at 100. Chance adds to both here.
    for (count, chunks, bound) in [(10, 60_000, 1.35), (100, 200_000, 1.12)] {
        let members = members(count);
        let loads = loads(&members, &mut Placement::new(members.clone()), chunks);
        assert!(max(&loads) < bound, "{count} nodes: {}", max(&loads));
        let least = loads.iter().copied().fold(f64::MAX, f64::min);
        assert!(least > 0.75, "{count} nodes: {least}");
    }
}

#[test]
fn a_thousand_nodes_get_their_share_class_by_class() {
    let members = members(1000);
    let loads = loads(&members, &mut Placement::new(members.clone()), 30_000);
    for class in 0..5 {
        let of_class: Vec<_> = loads.iter().skip(class).step_by(5).collect();
        let mean = of_class.iter().copied().sum::<f64>() / of_class.len() as f64;
        // 200 nodes of the smallest class hold about 2,900 copies: chance is 2 %.
        assert!((mean - 1.0).abs() < 0.06, "class {class}: {mean}");
    }
}

#[test]
fn over_full_nodes_bound_the_load() {
    // Research: bounded load 1.05 in score order gives max/mean 1.041 at 100 nodes.
    let members: Vec<_> = (0..100).map(|n| member(n, 1000 << (n % 5), "")).collect();
    let total: u64 = members.iter().map(|member| member.capacity).sum();
    let mut placement = Placement::new(members);
    let nodes: Vec<_> = (0..100).map(|node| placement.id(node)).collect();
    let capacity_of = |id: &NodeId| {
        (0..100).map(|n| member(n, 1000 << (n % 5), "")).find(|m| m.id == *id).unwrap().capacity
    };
    let capacities: Vec<_> = nodes.iter().map(capacity_of).collect();
    let (mut used, mut full) = (vec![0u64; 100], vec![false; 100]);
    let (mut ranks, mut chunks) = (0, 0);
    for (prefix, round) in prefixes(total as u32 / 5).zip(1u32..) {
        let candidates = placement.candidates(prefix);
        for node in placement.home(prefix, COPIES) {
            used[usize::from(node)] += 1;
            ranks += candidates.iter().position(|other| *other == node).unwrap();
        }
        chunks += 1;
        if round % 1000 == 0 {
            let swarm_used = used.iter().sum();
            for node in 0..100u16 {
                let at = usize::from(node);
                full[at] = over_full(full[at], used[at], capacities[at], swarm_used, total);
                placement.set_state(node, true, full[at]);
            }
        }
    }
    let mean = used.iter().sum::<u64>() as f64 / total as f64;
    let loads: Vec<_> =
        used.iter().zip(&capacities).map(|(used, cap)| *used as f64 / *cap as f64 / mean).collect();
    assert!(max(&loads) < 1.08, "{}", max(&loads));
    let mean_rank = ranks as f64 / f64::from(chunks * 3);
    assert!(mean_rank < 1.15, "{mean_rank}");
}

/// The share of copies whose node is another one.
fn moved(old: &mut Placement, new: &mut Placement, chunks: u32) -> f64 {
    let mut moved = 0;
    for prefix in prefixes(chunks) {
        let before: BTreeSet<_> = old.home(prefix, COPIES).iter().map(|n| old.id(*n)).collect();
        let after: BTreeSet<_> = new.home(prefix, COPIES).iter().map(|n| new.id(*n)).collect();
        moved += after.difference(&before).count();
    }
    moved as f64 / f64::from(chunks * COPIES as u32)
}

#[test]
fn joins_and_leaves_move_little_more_than_they_must() {
    let members = members(100);
    let mut before = Placement::new(members.clone());
    let total: u64 = members.iter().map(|member| member.capacity).sum();

    let joiner = member(1000, 8 << 30, "");
    let ideal = joiner.capacity as f64 / (total + joiner.capacity) as f64;
    let mut joined = members.clone();
    joined.push(joiner);
    let join = moved(&mut before, &mut Placement::new(joined), 100_000);
    assert!(join > ideal * 0.85 && join < ideal * 1.15, "{join} against {ideal}");

    // Everything the leaver held must move, and nothing else may.
    let leaver = before.number(&members[53].id).unwrap();
    let held = prefixes(100_000).filter(|p| before.home(*p, COPIES).contains(&leaver)).count();
    let mut left = members.clone();
    left.remove(53);
    let leave = moved(&mut before, &mut Placement::new(left), 100_000);
    assert_eq!((leave * 300_000.0).round() as usize, held);

    // One node doubles its capacity.
    let mut grown = members.clone();
    grown[52].capacity *= 2;
    let gain = members[52].capacity as f64 / (total + members[52].capacity) as f64;
    let grow = moved(&mut before, &mut Placement::new(grown), 100_000);
    assert!(grow < gain * 1.2, "{grow} against {gain}");
}

#[test]
fn capacity_counts_in_steps_and_up_to_eight_times_the_median() {
    let mut members: Vec<_> = (0..40).map(|n| member(n, 100 << 30, "")).collect();
    let mut before = Placement::new(members.clone());
    members[7].capacity += 3 << 30;
    assert_eq!(moved(&mut before, &mut Placement::new(members.clone()), 5000), 0.0);
    members[7].capacity = 800 << 30;
    let mut eight = Placement::new(members.clone());
    members[7].capacity = 80_000 << 30;
    assert_eq!(moved(&mut eight, &mut Placement::new(members), 5000), 0.0);
}

#[test]
fn a_node_that_dies_moves_no_candidates_and_its_home_goes_to_the_next() {
    let mut placement = Placement::new(members(50));
    for prefix in prefixes(500) {
        let before = placement.candidates(prefix);
        let home = placement.home(prefix, COPIES);
        assert_eq!(home[..], before[..COPIES]);
        placement.set_state(before[1], false, false);
        placement.set_state(before[2], true, true);
        assert_eq!(placement.candidates(prefix), before);
        assert_eq!(placement.home(prefix, COPIES)[..], [before[0], before[3], before[4]]);
        placement.set_state(before[1], true, false);
        placement.set_state(before[2], true, false);
    }
}

#[test]
fn homes_have_two_zones_where_there_are_two() {
    // One node in twenty is in the other zone.
    let members: Vec<_> =
        (0..60).map(|n| member(n, 1 << 30, if n % 20 == 0 { "far" } else { "near" })).collect();
    let mut placement = Placement::new(members);
    for prefix in prefixes(2000) {
        let candidates = placement.candidates(prefix);
        assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), CANDIDATES);
        assert!(!placement.lacks_zone(&candidates));
        for copies in [COPIES, 2] {
            let home = placement.home(prefix, copies);
            assert!(home.len() == copies && !placement.lacks_zone(&home));
        }
        assert_eq!(placement.home(prefix, 1), candidates[..1]);
    }
}

#[test]
fn small_swarms_use_all_they_have() {
    assert!(Placement::new([]).home(5, COPIES).is_empty());
    let mut one = Placement::new([member(1, 1, "a")]);
    assert_eq!(one.home(5, COPIES), [0]);
    let mut members = vec![member(1, 9, "a"), member(2, 9, "b"), member(3, 0, "c")];
    members.push(members[0].clone());
    let mut placement = Placement::new(members);
    assert_eq!(placement.len(), 3);
    assert_eq!(placement.candidates(7).len(), 2, "a member without capacity holds nothing");
}

#[test]
fn the_cache_changes_nothing() {
    let mut cached = Placement::new(members(40));
    let lists: Vec<_> = (0..3000).map(|prefix| cached.candidates(prefix * 349)).collect();
    for (list, prefix) in lists.iter().zip(0..) {
        assert_eq!(cached.candidates(prefix * 349), *list);
    }
    cached.shrink();
    assert_eq!(cached.candidates(349), lists[1]);
}

#[test]
fn every_machine_computes_the_golden_candidates() {
    let members: Vec<_> = (0..40)
        .map(|n| member(n, 1000_u64.pow(2 + n % 3) * u64::from(n + 1), &format!("z{}", n % 7)))
        .collect();
    let names: BTreeMap<_, _> = members.iter().zip(0u32..).map(|(m, n)| (m.id, n)).collect();
    let mut placement = Placement::new(members);
    let mut found = String::new();
    for prefix in [0, 1, 2, 0x12345, 0x80000, 0xfffff] {
        let list: Vec<_> = placement
            .candidates(prefix)
            .iter()
            .map(|node| names[&placement.id(*node)].to_string())
            .collect();
        found += &format!("{prefix:05x}: {}\n", list.join(" "));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/content/placement-v1.txt");
    if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() && !std::fs::exists(path).unwrap() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(path).unwrap());
}

/// Fills ten unequal nodes with so many chunks, three copies each, where they are least full, as
/// `writers` in turn see it: of what they stored themselves they hear at once how full its node is
/// now, of all else what each node said to them last. The fullest node's use, by the mean.
fn least_stored(chunks: u32, writers: usize) -> f64 {
    const SIZE: u64 = 4096;
    // In no node more than a third: one of three copies.
    let parts = [1, 1, 1, 1, 2, 2, 2, 3, 3, 4];
    let capacity = |n: usize| parts[n] << 33;
    let members = (0..parts.len()).map(|n| member(n as u32, capacity(n), &format!("z{n}")));
    let mut placement = Placement::new(members);
    let offered: Vec<u64> = {
        let number = |n: usize| placement.number(&member(n as u32, 1, "").id).expect("a member");
        let mut offered = vec![0; parts.len()];
        (0..parts.len()).for_each(|n| offered[usize::from(number(n))] = capacity(n));
        offered
    };
    let mut used = vec![0; parts.len()];
    let mut heard = vec![used.clone(); writers];
    for (n, prefix) in (0..chunks).zip(prefixes(chunks)) {
        let heard = &mut heard[n as usize % writers];
        let found = placement.candidates(prefix);
        let choice = |node: &u16| {
            let at = usize::from(*node);
            Choice { used: millionths(heard[at], offered[at]), ..placement.choice(*node) }
        };
        let choices: Vec<Choice> = found.iter().map(choice).collect();
        for rank in write_order(Balance::LeastStored, &choices, COPIES).into_iter().take(COPIES) {
            let at = usize::from(found[rank]);
            used[at] += SIZE;
            heard[at] = used[at];
        }
    }
    let share = |at: usize| used[at] as f64 / offered[at] as f64;
    let most = (0..parts.len()).map(share).fold(0.0, f64::max);
    let (all, room): (u64, u64) = (used.iter().sum(), offered.iter().sum());
    most / (all as f64 / room as f64)
}

#[test]
fn a_million_chunks_are_stored_evenly_where_that_is_wanted() {
    let exact = least_stored(1_000_000, 1);
    assert!(exact <= 1.005, "{exact}");
    let of_four = least_stored(1_000_000, 4);
    assert!(of_four <= 1.02, "{of_four}");
}
