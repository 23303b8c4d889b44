//! Reconciliation: whatever two members have, both have the same after an exchange; messages pass
//! through their codec, and a lost one only means to begin again.

#![allow(clippy::print_stdout, reason = "figures for who asks for them")]

use crate::maptables::MapTables;
use crate::speed::new_file_record;
use crate::world::{Replica, Rules, START_MS, epoch};
use p2pfs::core::catalogue::sync::{Exchange, answer, is_equal};
use p2pfs::core::catalogue::{
    Applied, Checked, Content, Context, FileRecord, Keyring, REPLICAS_MAX, Source, apply, summary,
};
use p2pfs::core::hlc::at_ms;
use p2pfs::crypto::NodeKey;
use p2pfs::id::{ChunkId, ClaimId, EpochId, LookupId};
use p2pfs::wire::codec::{Decode, Encode};
use p2pfs::wire::sync::{Answer, Ask};
use proptest::prelude::*;

/// What an exchange cost.
#[derive(Debug, Default)]
struct Cost {
    rounds: usize,
    bytes: usize,
    largest: usize,
}

/// Carries messages between an asker and an answerer; `lost` says after how many the line is cut.
fn exchange(asker: &mut Replica, answerer: &mut Replica, lost: Option<usize>) -> Cost {
    let mut cost = Cost::default();
    let mut exchange = Exchange::new();
    while let Some(ask) = exchange.next(&asker.store).unwrap() {
        let sent = ask.to_bytes();
        let ask = Ask::from_bytes(&sent).unwrap();
        if let Ask::Push(records) = &ask {
            for record in records {
                answerer.apply_from(record, Source::Disk);
            }
        }
        let back = answer(&answerer.store, &ask).unwrap().to_bytes();
        cost.rounds += 1;
        cost.bytes += sent.len() + back.len();
        cost.largest = cost.largest.max(sent.len()).max(back.len());
        if lost == Some(cost.rounds) {
            return cost;
        }
        let answer = Answer::from_bytes(&back).unwrap();
        for record in exchange.take(&asker.store, answer).unwrap() {
            asker.apply_from(&record, Source::Disk);
        }
    }
    cost
}

/// A member without keys, as a store-only one is.
fn blank(number: u8) -> Replica {
    let mut replica = Replica::new(number, 0);
    replica.store = MapTables::default();
    replica.keyring = Keyring::default();
    replica
}

/// A file record by the writer of all records here.
fn file(clock: u64, number: u64) -> Vec<u8> {
    let mut lookup = [0; 32];
    lookup[..8].copy_from_slice(&number.to_le_bytes());
    let content = Content::Stored { manifest: ChunkId([1; 32]), sealed_len: 1 };
    let (claim, lookup) = (ClaimId([1; 16]), LookupId(lookup));
    let record = FileRecord { claim, lookup, content, replicas: REPLICAS_MAX, flags: 0 };
    record.sign(&NodeKey::from_seed(&[10; 32]), clock, EpochId::NONE).unwrap()
}

fn assert_equal(a: &Replica, b: &Replica) {
    assert_eq!(summary(&a.store).unwrap(), summary(&b.store).unwrap());
    assert!(is_equal(&a.store, &summary(&b.store).unwrap()).unwrap());
    assert!(a.store.tables == b.store.tables);
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_sides_end_equal(
        records in proptest::collection::vec((0u64..1 << 36, 0u8..8, any::<u64>()), 0..200),
        lost in proptest::option::of(1usize..12),
    ) {
        let (mut a, mut b) = (blank(1), blank(2));
        let grant = Replica::new(10, 0).grant();
        a.apply(&grant);
        for (ms, side, number) in &records {
            let record = file(at_ms(START_MS - ms) + number % 7, *number);
            if *side != 0 {
                a.apply_from(&record, Source::Disk);
            }
            if *side != 1 {
                b.apply_from(&record, Source::Disk);
            }
        }
        b.apply(&grant);
        while b.catch_up(1000) {}
        if lost.is_some() {
            exchange(&mut a, &mut b, lost);
        }
        let cost = exchange(&mut b, &mut a, None);
        prop_assert!(cost.largest <= 64 * 1024);
        while a.catch_up(1000) {}
        assert_equal(&a, &b);
        prop_assert_eq!(exchange(&mut a, &mut b, None).rounds, 1);
    }
}

#[test]
fn a_joiner_gets_everything_in_bounded_messages_and_an_equal_set_costs_one() {
    let mut a = Replica::new(10, 1);
    for number in 0..3_000 {
        let clock = at_ms(START_MS - 5_000) + number;
        assert_eq!(a.apply(&file(clock, number)), Applied::New);
    }
    a.put("/f", 1).unwrap();
    let mut joiner = blank(2);
    let cost = exchange(&mut joiner, &mut a, None);
    // Its grant came in the same exchange, perhaps behind what it permits.
    while joiner.catch_up(500) {}
    assert!(cost.largest <= 64 * 1024, "{cost:?}");
    let (made, keys) = epoch(1);
    joiner.keyring.add(made, keys);
    while joiner.catch_up(500) {}
    assert_equal(&a, &joiner);
    assert_eq!(joiner.lines(), ["/f 1"]);
    let again = exchange(&mut joiner, &mut a, None);
    assert_eq!((again.rounds, again.bytes), (1, 50));
}

#[test]
fn few_differences_among_many_records_cost_little() {
    let (mut a, mut b) = (Replica::new(10, 1), blank(2));
    b.apply(&a.grant());
    for number in 0..4_000u64 {
        let record = file(at_ms(START_MS - 997 * number), number);
        if number % 800 != 1 {
            a.apply(&record);
        }
        if number % 800 != 2 {
            b.apply(&record);
        }
    }
    let before = a.store.records.len();
    let cost = exchange(&mut a, &mut b, None);
    assert_equal(&a, &b);
    assert_eq!(a.store.records.len() - before, 5);
    let moved = 10 * (file(1, 1).len() + 40);
    assert!(cost.bytes < moved + 40_000 && cost.rounds <= 14, "{cost:?}");
}

/// After a partition only what differs is sent: 10 of 100,000 entries, each with a record of its
/// own, made within a month.
#[test]
fn ten_differences_among_a_hundred_thousand_entries_cost_a_few_kilobytes() {
    const ENTRIES: u64 = 100_000;
    const STEP_MS: u64 = 30 * 86_400_000 / ENTRIES;
    let author = Replica::new(10, 1);
    let made = |number: u64, ago: u64| new_file_record(&author, number, START_MS - ago * STEP_MS);
    let mut same = Replica::new(10, 1);
    for number in 0..ENTRIES {
        take(&mut same, made(number, number + 20));
    }
    // Made while the two could not talk, and at any time within the month.
    for (what, apart, most) in [("new", 1, 6_000), ("old", 9_973, 32_000)] {
        let (mut a, mut b) = (Replica::new(10, 1), Replica::new(10, 1));
        (a.store, b.store) = (same.store.clone(), same.store.clone());
        let mut records = 0;
        for number in 0..10 {
            let record = made(ENTRIES + number, number * apart);
            records += record.len();
            take(if number < 5 { &mut a } else { &mut b }, record);
        }
        let Cost { bytes, rounds, .. } = exchange(&mut a, &mut b, None);
        assert_equal(&a, &b);
        println!("10 {what} ones: {bytes} bytes in {rounds} rounds, {records} are the records");
        assert!(bytes < records + most && rounds <= 14, "{bytes} bytes, {rounds} rounds");
    }
}

/// Applies a record that was checked, as from the own disk.
fn take(into: &mut Replica, bytes: Vec<u8>) {
    let rules = Rules::of_swarm();
    let context = Context { keyring: &into.keyring, authority: &rules };
    let checked = Checked::new(bytes.clone()).unwrap();
    let applied = apply(&mut into.store, context, Source::Disk, &checked).unwrap();
    assert_eq!(applied, Applied::New);
    into.store.records.insert(checked.record().id, bytes);
}

#[test]
fn an_answer_that_was_not_asked_for_ends_the_exchange() {
    let a = Replica::new(10, 1);
    let mut exchange = Exchange::new();
    assert!(matches!(exchange.next(&a.store).unwrap(), Some(Ask::Set(_))));
    assert!(exchange.take(&a.store, Answer::Pushed).is_err());
    let mut exchange = Exchange::new();
    exchange.next(&a.store).unwrap();
    let mut theirs = summary(&a.store).unwrap();
    theirs.count += 1;
    exchange.take(&a.store, Answer::Set(theirs)).unwrap();
    assert!(matches!(exchange.next(&a.store).unwrap(), Some(Ask::Items(_))));
    let items = vec![(5, p2pfs::id::RecordId([5; 32]))];
    exchange.take(&a.store, Answer::Items { items, more: false }).unwrap();
    assert!(matches!(exchange.next(&a.store).unwrap(), Some(Ask::Fetch(_))));
    assert!(exchange.take(&a.store, Answer::Fetched(vec![file(1, 1)])).is_err());
}
