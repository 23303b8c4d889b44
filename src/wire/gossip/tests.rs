//! Golden bytes, limits and hostile input of the membership messages. Set `P2PFS_BLESS=1` to write
//! the golden files anew after a deliberate change of version.

use super::*;
use crate::crypto::NodeKey;
use proptest::prelude::*;
use std::path::Path;

fn record() -> MemberRecord {
    let key = NodeKey::from_seed(&[7; 32]);
    let mut record = MemberRecord {
        id: key.id(),
        stamp: Stamp { epoch: 1_790_000_000_000, seq: 3 },
        addrs: vec!["10.1.2.3:4000".parse().unwrap(), "[2001:db8::1]:4001".parse().unwrap()],
        reach: Reach::Relay(vec![NodeId([9; 32])]),
        capacity: 1 << 40,
        used: 17,
        zone: "cellar".into(),
        machine: [1, 2, 3, 4, 5, 6, 7, 8],
        version: "0.1.0".into(),
        name: "quiet heron".into(),
        flags: MemberFlags::STORE.with(MemberFlags::DRAINING),
        counted: 42,
        grant: vec![0xaa; 5],
        signature: [0; 64],
    };
    record.sign(&key);
    record
}

fn largest_record() -> MemberRecord {
    let v6 = "[2001:db8::1]:4001".parse().unwrap();
    MemberRecord {
        addrs: vec![v6; MemberRecord::ADDRS],
        reach: Reach::Relay(vec![NodeId([9; 32]); MemberRecord::RELAYS]),
        zone: "z".repeat(MemberRecord::ZONE),
        version: "v".repeat(MemberRecord::VERSION),
        name: "n".repeat(MemberRecord::NAME),
        grant: vec![1; MemberRecord::GRANT],
        ..record()
    }
}

fn messages() -> Vec<(&'static str, GossipMessage)> {
    let record = Arc::new(record());
    let (id, stamp) = (record.id, record.stamp);
    let entry = |gone| Entry { record: record.clone(), gone };
    let rumour = Rumour { id, stamp, dead: true, voters: vec![[5; 8], [6; 8]] };
    let sums = Box::new(std::array::from_fn(|i| i as u64 * 3));
    vec![
        ("hello", GossipMessage::Hello { record: record.clone(), root: 1 << 100, count: 12 }),
        ("ping", GossipMessage::Ping { stamp: 1, echo: 2, held: 3, links: 8 }),
        (
            "news",
            GossipMessage::News {
                records: vec![record.clone()],
                have: vec![(id, stamp)],
                rumours: vec![rumour],
            },
        ),
        ("ask", GossipMessage::Ask { ids: vec![id] }),
        ("prune", GossipMessage::Prune),
        ("digest", GossipMessage::Digest { root: 7, count: 1 }),
        ("sums", GossipMessage::Sums { count: 9, sums }),
        (
            "pull",
            GossipMessage::Pull {
                buckets: vec![1, 255],
                have: vec![Summary { id, stamp, dead: false }],
            },
        ),
        (
            "table",
            GossipMessage::Table {
                entries: vec![entry(None), entry(Some(60))],
                want: vec![id],
                last: true,
            },
        ),
        ("probe", GossipMessage::Probe { id }),
        ("drop", GossipMessage::Drop { records: vec![record.clone()] }),
    ]
}

#[test]
fn bytes_of_version_1_still_decode() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gossip");
    for (name, message) in messages() {
        let file = folder.join(format!("{name}.v1.bin"));
        if std::env::var_os("P2PFS_BLESS").is_some() {
            std::fs::write(&file, message.to_bytes()).unwrap();
        }
        let golden = std::fs::read(&file).unwrap();
        assert_eq!(message.to_bytes(), golden, "{name} is written differently now");
        assert_eq!(GossipMessage::from_bytes(&golden), Ok(message), "{name}");
    }
}

#[test]
fn a_record_is_believed_only_as_it_was_signed() {
    let record = record();
    assert!(record.is_signed());
    let decoded = MemberRecord::from_bytes(&record.to_bytes()).unwrap();
    assert_eq!(decoded, record);
    assert!(!MemberRecord { used: 18, ..record.clone() }.is_signed());
    assert!(!MemberRecord { stamp: record.stamp.next(), ..record.clone() }.is_signed());
    assert!(!MemberRecord { id: NodeId([3; 32]), ..record }.is_signed());
}

#[test]
fn every_message_at_its_limits_fits_a_frame() {
    let largest = Arc::new(largest_record());
    assert!(largest.to_bytes().len() <= RECORD_MAX);
    let (id, stamp) = (largest.id, largest.stamp);
    let rumour = Rumour { id, stamp, dead: true, voters: vec![[5; 8]; VOTERS] };
    let entry = Entry { record: largest.clone(), gone: Some(1) };
    let full = [
        GossipMessage::News {
            records: vec![largest; NEWS_RECORDS],
            have: vec![(id, stamp); NEWS_HAVE],
            rumours: vec![rumour; NEWS_RUMOURS],
        },
        GossipMessage::Ask { ids: vec![id; ASK_IDS] },
        GossipMessage::Pull {
            buckets: (0..=255).collect(),
            have: vec![Summary { id, stamp, dead: true }; PULL_HAVE],
        },
        GossipMessage::Table {
            entries: vec![entry; TABLE_ENTRIES],
            want: vec![id; ASK_IDS],
            last: true,
        },
    ];
    for message in full {
        assert!(message.to_bytes().len() <= MESSAGE_MAX, "code {}", message.code());
    }
}

#[test]
fn one_item_more_than_the_limit_is_refused() {
    let ids = vec![NodeId([1; 32]); ASK_IDS + 1];
    let bytes = GossipMessage::Ask { ids }.to_bytes();
    let refused = Malformed::TooLong { len: ASK_IDS + 1, max: ASK_IDS };
    assert_eq!(GossipMessage::from_bytes(&bytes), Err(refused));
    let long = MemberRecord { name: "n".repeat(65), ..record() };
    assert!(MemberRecord::from_bytes(&long.to_bytes()).is_err());
    let unordered = GossipMessage::Pull { buckets: vec![2, 1], have: vec![] };
    assert!(GossipMessage::from_bytes(&unordered.to_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(message) = GossipMessage::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_damaged_message_never_decodes_to_other_bytes(
        which in 0usize..11, at in any::<prop::sample::Index>(), to in any::<u8>()
    ) {
        let mut bytes = messages()[which].1.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(message) = GossipMessage::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }
}
