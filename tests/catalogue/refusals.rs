//! What a member refuses, what waits, and what it answers about files, grants and epochs.

use crate::world::{Replica, START_MS, epoch_record, grant_body, new_file, swarm};
use p2pfs::chunk::MAX_FILE_LEN;
use p2pfs::core::catalogue::{
    Applied, Change, Content, Draft, FileRecord, Header, Kind, Name, Node, Recipient, Record,
    Refusal, Source, Target, WAITING_MAX, epochs, files_by_claim, files_by_lookup, grants_of,
    id_of, is_committed, newest_clock, seal_tree, sealed_secrets, sign,
};
use p2pfs::core::hlc::at_ms;
use p2pfs::crypto::{NodeKey, SwarmKey};
use p2pfs::id::{ClaimId, EpochId, InodeId, LookupId};

fn file(inline: u8) -> FileRecord {
    let content = Content::Inline(vec![inline; 100]);
    let (claim, lookup) = (ClaimId([3; 16]), LookupId([4; 32]));
    FileRecord { claim, lookup, content, replicas: 3, flags: 0 }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let mut a = Replica::new(10, 1);
    let record = file(1).sign(&a.key, at_ms(START_MS), EpochId::NONE).unwrap();
    for at in 0..record.len() {
        let mut bad = record.clone();
        bad[at] ^= 1;
        assert!(matches!(a.apply(&bad), Applied::Refused(_)), "byte {at}");
    }
    assert_eq!(a.apply(&record), Applied::New);
    assert_eq!(a.apply(&record), Applied::Known);
    for len in 0..record.len() {
        assert!(Record::parse(record[..len].to_vec()).is_err());
    }
}

#[test]
fn a_clock_over_a_minute_ahead_is_refused_unless_it_was_accepted_before() {
    let mut a = Replica::new(10, 1);
    let at = |ms| file(1).sign(&a.key, at_ms(ms), EpochId::NONE).unwrap();
    let (fine, early) = (at(a.now_ms + 60_000), at(a.now_ms + 60_001));
    assert_eq!(a.apply(&early), Applied::Refused(Refusal::Ahead));
    assert_eq!(a.apply(&fine), Applied::New);
    assert_eq!(newest_clock(&a.store).unwrap(), at_ms(a.now_ms + 60_000));
    assert_eq!(a.apply_from(&early, Source::Disk), Applied::New);
}

#[test]
fn who_has_no_grant_waits_for_it_and_a_grant_of_another_swarm_is_none() {
    let mut a = Replica::new(10, 1);
    let mut stranger = Replica::new(20, 1);
    let record = stranger.put("/f", 1).unwrap();
    assert_eq!(a.apply(&record), Applied::Waiting);
    assert_eq!(a.apply(&record), Applied::Known);
    assert!(a.lines().is_empty() && !a.catch_up(10));
    let mut forged = grant_body(&stranger.key.id(), true, 0, u64::MAX);
    let at = forged.len() - 64;
    let signature = SwarmKey::from_seed(&[2; 32]).sign("test grant", &forged[..at]);
    forged[at..].copy_from_slice(&signature);
    let header = Header::plain(Kind::Grant, at_ms(2), a.key.id(), EpochId::NONE);
    let forged = sign(&a.key, header.clone(), &forged).unwrap();
    assert_eq!(a.apply(&forged), Applied::Refused(Refusal::Body));
    // A grant to store only, and one that ended, let nobody write.
    for (writes, until) in [(false, u64::MAX), (true, START_MS - 400_000)] {
        let body = grant_body(&stranger.key.id(), writes, 0, until);
        assert_eq!(a.apply(&sign(&a.key, header.clone(), &body).unwrap()), Applied::New);
        assert!(!a.catch_up(10) && a.lines().is_empty());
    }
    assert_eq!(a.apply(&stranger.grant()), Applied::New);
    assert!(!a.catch_up(10));
    assert_eq!(a.lines(), ["/f 1"]);
    assert_eq!(grants_of(&a.store, &stranger.key.id()).unwrap().len(), 3);
}

#[test]
fn records_without_grant_do_not_fill_the_tables() {
    let mut a = Replica::new(10, 1);
    let stranger = NodeKey::from_seed(&[20; 32]);
    let record = |n| file(1).sign(&stranger, at_ms(START_MS) - n, EpochId::NONE).unwrap();
    for number in 0..WAITING_MAX {
        assert_eq!(a.apply(&record(number)), Applied::Waiting);
    }
    assert_eq!(a.apply(&record(WAITING_MAX)), Applied::Refused(Refusal::Author));
    let header = Header::plain(Kind::OpenStatement, 1, a.key.id(), EpochId::NONE);
    assert_eq!(a.apply(&sign(&a.key, header, b"open").unwrap()), Applied::New);
    while a.catch_up(100) {}
    assert_eq!(a.apply(&record(WAITING_MAX)), Applied::New);
}

#[test]
fn a_body_that_is_not_what_the_header_says_changes_nothing() {
    let mut a = Replica::new(10, 1);
    a.put("/f", 1).unwrap();
    let keys = a.keyring.newest().unwrap().clone();
    let entry = |name: &[u8]| Change::Entry {
        parent: InodeId::ROOT,
        name: Name::new(name).unwrap(),
        target: Target::Linked(InodeId([9; 16])),
    };
    let file = new_file(5);
    let inode = Change::Inode {
        inode: InodeId([9; 16]),
        node: Node::File(file.version),
        attributes: file.attributes,
    };
    let draft = Draft { changes: vec![inode, entry(b"g")], ..Draft::default() };
    let good = seal_tree(&a.key, &keys, at_ms(START_MS), &[5; 24], &draft).unwrap();
    let parsed = Record::parse(good.clone()).unwrap();
    let mut header = parsed.header.clone();
    header.tags[1] = entry(b"h").tag(&keys);
    let bad = sign(&a.key, header, parsed.body()).unwrap();
    assert_eq!(a.apply(&bad), Applied::New);
    assert_eq!(a.lines(), ["/f 1"]);
    assert_eq!(a.apply(&good), Applied::New);
    assert_eq!(a.lines(), ["/f 1", "/g 5"]);
}

#[test]
fn a_version_longer_than_any_file_is_none() {
    let mut a = Replica::new(10, 1);
    let (key, keys) = (a.key.clone(), a.keyring.newest().unwrap().clone());
    let seal = |size, clock| {
        let mut file = new_file(5);
        file.version.size = size;
        let inode = InodeId([9; 16]);
        let changes = vec![
            Change::Inode { inode, node: Node::File(file.version), attributes: file.attributes },
            Change::Entry {
                parent: InodeId::ROOT,
                name: Name::new(b"f").unwrap(),
                target: Target::Linked(inode),
            },
        ];
        let draft = Draft { changes, ..Draft::default() };
        seal_tree(&key, &keys, clock, &[5; 24], &draft).unwrap()
    };
    for size in [MAX_FILE_LEN + 1, 1 << 62, u64::MAX] {
        a.apply(&seal(size, at_ms(START_MS)));
        assert!(a.lines().is_empty(), "{size}");
    }
    assert_eq!(a.apply(&seal(MAX_FILE_LEN, at_ms(START_MS) + 1)), Applied::New);
    assert_eq!(a.lines(), [format!("/f {MAX_FILE_LEN}")]);
}

#[test]
fn file_records_are_found_one_per_author_newest_first() {
    let mut a = Replica::new(10, 1);
    let other = Replica::new(11, 1);
    a.apply(&other.grant());
    let clock = at_ms(START_MS);
    let (key, other_key) = (a.key.clone(), other.key.clone());
    for (key, later, inline) in [(&other_key, 3, 3), (&key, 1, 1), (&key, 2, 2)] {
        a.apply(&file(inline).sign(key, clock + later, EpochId::NONE).unwrap());
    }
    let found = files_by_lookup(&a.store, &LookupId([4; 32])).unwrap();
    let seen: Vec<_> = found.iter().map(|one| (one.author, one.file.content.clone())).collect();
    let inline = |byte| Content::Inline(vec![byte; 100]);
    assert_eq!(seen, [(other.key.id(), inline(3)), (a.key.id(), inline(2))]);
    assert!(is_committed(&a.store, &ClaimId([3; 16])).unwrap());
    assert!(!is_committed(&a.store, &ClaimId([4; 16])).unwrap());
    assert_eq!(files_by_claim(&a.store, &ClaimId([3; 16]), 10).unwrap().len(), 3);
}

#[test]
fn a_secret_is_found_by_whom_it_is_sealed_to() {
    let mut a = Replica::new(10, 0);
    let (first, second) = (epoch_record(1, &a.key), epoch_record(2, &a.key));
    let mut more = second.clone();
    more.boxes[0].recipient = Recipient::Owner([8; 32]);
    for (record, clock) in [(&first, 1), (&second, 2), (&more, 3)] {
        let bytes = record.sign(&a.key, &swarm(), clock).unwrap();
        assert_eq!(a.apply(&bytes), Applied::New);
        assert!(a.has(&bytes) && id_of(&bytes) != id_of(b""));
    }
    let forged = first.sign(&a.key, &SwarmKey::from_seed(&[2; 32]), 9).unwrap();
    assert_eq!(a.apply(&forged), Applied::Refused(Refusal::Body));
    assert_eq!(epochs(&a.store).unwrap().len(), 2);
    let mine = sealed_secrets(&a.store, &[Recipient::Node(a.key.id().0)]).unwrap();
    assert_eq!(mine.len(), 2);
    let owners = sealed_secrets(&a.store, &[Recipient::Owner([8; 32])]).unwrap();
    assert_eq!((owners.len(), owners[0].epoch), (1, second.epoch));
}
