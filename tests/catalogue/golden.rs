//! Golden files: bytes that this version writes, and must read for ever. A difference here is a
//! change of a format that lives in stores and between nodes, and needs a new version number.

use crate::world::{epoch, epoch_record, grant_body, swarm};
use p2pfs::core::catalogue::{
    Attributes, Change, Content, Draft, FileRecord, FileVersion, Header, Kind, Name, Node, Place,
    Record, Release, SHARED, Scope, SharedFile, Special, Target, decode_changes, encode_changes,
    seal_tree, sign,
};
use p2pfs::crypto::NodeKey;
use p2pfs::id::{ChunkId, ClaimId, EpochId, FileHash, InodeId, LookupId, RecordId, Tag, to_hex};
use p2pfs::wire::codec::{Decode, Encode};
use p2pfs::wire::sync::{Answer, Ask, Range, RangeSum, Summary};
use proptest::prelude::*;
use std::path::PathBuf;

/// Compares with the file of this name: hex, 64 digits a line. `P2PFS_NEW_GOLDEN=1` makes it anew.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/catalogue").join(name);
    let mut text: String = bytes.chunks(32).map(|line| to_hex(line) + "\n").collect();
    if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    text.retain(|c| c != '\r');
    assert_eq!(kept, text, "{name}");
}

fn changes() -> Vec<Change> {
    let place = |name: &[u8]| Place { parent: InodeId::ROOT, name: Name::new(name).unwrap() };
    let (dir, file, link) = (InodeId([1; 16]), InodeId([2; 16]), InodeId([3; 16]));
    let attributes = Attributes {
        mode: 0o640,
        mtime_ns: -1,
        changed_ns: Some(-2),
        accessed_ns: None,
        owner: Some((1000, 100)),
        xattrs: vec![(b"user.a/b".to_vec(), b"value".to_vec())],
    };
    let version = FileVersion {
        hash: FileHash([4; 32]),
        size: 5,
        claim: ClaimId([6; 16]),
        record: Some(RecordId([7; 32])),
    };
    let inode = |inode, node| Change::Inode { inode, node, attributes: attributes.clone() };
    let entry =
        |name: &[u8], target| Change::Entry { parent: dir, name: Name::new(name).unwrap(), target };
    vec![
        inode(dir, Node::Dir { place: Some(place(b"new")), previous: Some(place(b"old")) }),
        inode(file, Node::File(version)),
        inode(link, Node::Link(b"../target".to_vec())),
        inode(InodeId([8; 16]), Node::Dir { place: None, previous: None }),
        inode(InodeId([9; 16]), Node::Special(Special::Pipe)),
        inode(InodeId([10; 16]), Node::Special(Special::Block(0x0801))),
        entry(b"linked", Target::Linked(file)),
        entry(b"kept", Target::Kept(link)),
        entry(b"moved", Target::Moved(file)),
        entry(b"removed \xff", Target::Removed),
    ]
}

#[test]
fn records_keep_their_bytes() {
    let key = NodeKey::from_seed(&[10; 32]);
    let clock = 0x0102_0304_0506_0708;
    let keys = epoch(1).1;
    let parents = vec![RecordId([1; 32]), RecordId([2; 32])];
    let draft = Draft { changes: changes(), parents, also: vec![Tag([9; 16])] };
    let tree = seal_tree(&key, &keys, clock, &[5; 24], &draft).unwrap();
    golden("tree.hex", &tree);
    let record = Record::parse(tree).unwrap();
    assert!(record.is_signed());
    assert_eq!(record.open(&keys), Some(changes()));

    let (claim, lookup) = (ClaimId([6; 16]), LookupId([3; 32]));
    let stored = Content::Stored { manifest: ChunkId([2; 32]), sealed_len: 77 };
    let mut file = FileRecord { claim, lookup, content: stored, replicas: 3, flags: 0 };
    golden("file-stored.hex", &file.sign(&key, clock, keys.epoch()).unwrap());
    file.content = Content::Inline(vec![1, 2, 3]);
    golden("file-inline.hex", &file.sign(&key, clock, keys.epoch()).unwrap());
    assert_eq!(FileRecord::from_bytes(&file.to_bytes()), Ok(file.clone()));
    (file.replicas, file.flags) = (0, SHARED);
    golden("file-shared.hex", &file.sign(&key, clock, keys.epoch()).unwrap());
    assert_eq!(FileRecord::from_bytes(&file.to_bytes()), Ok(file.clone()));
    for (replicas, flags) in [(0, 0), (3, SHARED), (9, 0)] {
        let other = FileRecord { replicas, flags, ..file.clone() };
        assert!(FileRecord::from_bytes(&other.to_bytes()).is_err(), "{replicas} {flags}");
    }

    let (versions, chunks) = (vec![RecordId([4; 32])], vec![ChunkId([5; 32]), ChunkId([6; 32])]);
    let some = Scope::Versions { until_ms: 0x0102_0304_0506, versions, chunks };
    for (name, scope) in [("release-all.hex", Scope::All), ("release-versions.hex", some)] {
        let release = Release { claim, scope };
        golden(name, &release.sign(&key, clock).unwrap());
        assert_eq!(Release::from_bytes(&release.to_bytes()), Ok(release));
    }

    let header = Header::plain(Kind::Grant, clock, key.id(), EpochId::NONE);
    golden("grant.hex", &sign(&key, header, &grant_body(&key.id(), true, 1, 2)).unwrap());
    golden("epoch.hex", &epoch_record(2, &key).sign(&key, &swarm(), clock).unwrap());
}

#[test]
fn a_shared_file_keeps_its_bytes() {
    let version = FileVersion {
        hash: FileHash([4; 32]),
        size: 5,
        claim: ClaimId([6; 16]),
        record: Some(RecordId([7; 32])),
    };
    let shared = |path: &[u8]| Change::Inode {
        inode: InodeId([2; 16]),
        node: Node::Shared(SharedFile { version: version.clone(), path: path.to_vec() }),
        attributes: Attributes { mode: 0o644, mtime_ns: 9, ..Attributes::default() },
    };
    let bytes = encode_changes(&[shared(b"/films/a.mkv")]);
    golden("tree-shared.hex", &bytes);
    assert_eq!(decode_changes(&bytes), Ok(vec![shared(b"/films/a.mkv")]));
    for path in [&b""[..], b"/", b"films", b"/a//b", b"/a/", b"/../b", b"/a\0"] {
        let path = path.to_vec();
        assert!(decode_changes(&encode_changes(&[shared(&path)])).is_err(), "{path:?}");
    }
}

#[test]
fn messages_of_reconciliation_keep_their_bytes() {
    let summary = Summary { count: 3, fingerprint: [4; 16] };
    let (first, last) = ((1, RecordId([1; 32])), (2, RecordId([2; 32])));
    let range = Range { level: 8, prefix: 0x0abc_def0 };
    let asks = [
        Ask::Set(summary),
        Ask::Sums(vec![Range::ALL, range]),
        Ask::Items(vec![(first, last)]),
        Ask::Fetch(vec![first.1, last.1]),
        Ask::Push(vec![vec![1, 2, 3]]),
    ];
    let answers = [
        Answer::Set(summary),
        Answer::Sums(vec![RangeSum { range, summary }]),
        Answer::Items { items: vec![first, last], more: true },
        Answer::Fetched(vec![vec![4], vec![5, 6]]),
        Answer::Pushed,
    ];
    let mut all = Vec::new();
    for ask in asks {
        let bytes = ask.to_bytes();
        assert_eq!(Ask::from_bytes(&bytes), Ok(ask));
        all.extend(bytes);
    }
    golden("sync-ask.hex", &all);
    all.clear();
    for answer in answers {
        let bytes = answer.to_bytes();
        assert_eq!(Answer::from_bytes(&bytes), Ok(answer));
        all.extend(bytes);
    }
    golden("sync-answer.hex", &all);
}

proptest! {
    #[test]
    fn decoders_take_any_bytes_and_accept_only_what_they_would_write(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut body = encode_changes(&changes());
        let at = at.index(body.len());
        body[at] = value;
        for bytes in [&bytes, &body] {
            if let Ok(changes) = decode_changes(bytes) {
                prop_assert_eq!(&encode_changes(&changes), bytes);
            }
            if let Ok(ask) = Ask::from_bytes(bytes) {
                prop_assert_eq!(&ask.to_bytes(), bytes);
            }
            if let Ok(answer) = Answer::from_bytes(bytes) {
                prop_assert_eq!(&answer.to_bytes(), bytes);
            }
            if let Ok(release) = Release::from_bytes(bytes) {
                prop_assert_eq!(&release.to_bytes(), bytes);
            }
            if let Ok(file) = FileRecord::from_bytes(bytes) {
                prop_assert_eq!(&file.to_bytes(), bytes);
            }
            let _ = Record::parse(bytes.clone());
        }
    }
}
