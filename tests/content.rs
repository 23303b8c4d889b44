//! Content from the outside: the file hash of every length, sealing and opening over all options,
//! proofs that fail when anything was changed, and the golden files of all formats.

#![allow(clippy::unwrap_used, reason = "the steps that tests share may panic like tests")]

use bytes::BytesMut;
use p2pfs::chunk::{
    self, Builder, CHUNK_LEN, Disproved, Manifest, PAGE_ROWS, Page, Place, Row, TooLarge,
    TreeHasher, chunk_count, chunk_len, zero_value_of,
};
use p2pfs::core::access::{Grant, OpenStatement, Roles, Terms, two_words};
use p2pfs::crypto::{
    ChunkBuf, ContentSecret, EpochKeys, MAX_SEALED, OpenError, Opener, Sealed, Sealer, SwarmKey,
    chunk_id, open_page, seal_page, seal_to_owner,
};
use p2pfs::id::{ChunkValue, FileHash, NodeId};
use p2pfs::wire::approve::{JoinRequest, Offer, Reply, Verdict};
use p2pfs::wire::codec::{Decode, Encode, Malformed};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MIB: usize = CHUNK_LEN;

fn keys(seed: u8) -> EpochKeys {
    EpochKeys::new(&ContentSecret([seed; 32]))
}

/// Bytes that do not compress and differ by `seed`.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let line = format!("{seed} the quick brown fox jumps over the lazy dog\n");
    line.bytes().cycle().take(len).collect()
}

/// A file as the writer makes it: its manifest, its hash and what is stored.
struct Stored {
    manifest: Manifest,
    hash: FileHash,
    chunks: Vec<Sealed>,
}

fn store(keys: &EpochKeys, plain: &[u8], compress: bool) -> Stored {
    let mut sealer = Sealer::default();
    let mut builder = Builder::default();
    let seal = |page: Page| Ok::<Row, TooLarge>(seal_page(keys, &page).row);
    let mut chunks = Vec::new();
    let count = chunk_count(plain.len() as u64);
    for (piece, index) in plain.chunks(CHUNK_LEN).zip(0..) {
        let place = Place::of(index, count);
        let sealed = sealer.seal(keys, place, compress, ChunkBuf::copy_of(piece));
        builder.push(sealed.row.clone(), piece.len(), seal).unwrap();
        chunks.push(sealed);
    }
    let (manifest, hash) = builder.finish(seal).unwrap();
    Stored { manifest, hash, chunks }
}

fn load(stored: &Stored) -> Vec<u8> {
    let length = stored.manifest.length;
    let mut opener = Opener::default();
    let mut plain = Vec::new();
    for (row, index) in stored.manifest.rows.iter().zip(0..) {
        let sealed = &stored.chunks[index as usize].bytes;
        if row.is_zero() {
            assert!(sealed.is_empty());
            chunk::verify_zero(&row.value, length, index).unwrap();
            plain.resize(plain.len() + chunk_len(length, index), 0);
        } else {
            assert!(sealed.len() <= MAX_SEALED && chunk_id(sealed) == row.cid);
            let sealed = BytesMut::from(&sealed[..]);
            plain.extend_from_slice(&opener.open(row, length, index, sealed).unwrap());
        }
    }
    plain
}

fn check_file(plain: &[u8], compress: bool) {
    let stored = store(&keys(1), plain, compress);
    assert_eq!(stored.hash.0, *blake3::hash(plain).as_bytes(), "length {}", plain.len());
    stored.manifest.prove(&stored.hash).unwrap();
    let bytes = stored.manifest.to_bytes();
    assert_eq!(Manifest::from_bytes(&bytes).as_ref(), Ok(&stored.manifest));
    let sealed = keys(1).seal_manifest(&stored.hash, &stored.manifest);
    assert_eq!(keys(1).open_manifest(&stored.hash, &sealed), Ok(stored.manifest.clone()));
    assert!(load(&stored) == plain, "length {}", plain.len());
}

#[test]
fn awkward_lengths_have_the_hash_that_b3sum_prints() {
    let lengths = [0, 1, 2, 63, 64, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 5];
    for (len, seed) in lengths.into_iter().zip(0..) {
        check_file(&noise(seed, len), seed % 2 == 0);
    }
}

#[test]
fn a_file_of_many_chunks_has_the_hash_that_b3sum_prints() {
    let mut plain = noise(5, 33 * MIB + 7);
    plain[3 * MIB..6 * MIB].fill(0);
    plain[20 * MIB..22 * MIB].copy_from_slice(&text(1, 2 * MIB));
    check_file(&plain, true);
}

#[test]
fn merging_follows_the_tree_for_every_number_of_chunks() {
    let plain = noise(6, 20 * MIB);
    let values: Vec<_> = plain
        .chunks(MIB)
        .zip(0..)
        .map(|(piece, index)| chunk::value_of(Place::At(index), piece))
        .collect();
    assert_eq!(TreeHasher::default().root(), None);
    assert_eq!(TreeHasher::default().subtree(), None);
    for count in 1..=values.len() {
        let tree: TreeHasher = values[..count].iter().copied().collect();
        let root = tree.root().map(|hash| hash.0);
        let whole = *blake3::hash(&plain[..count * MIB]).as_bytes();
        assert_eq!(root, (count > 1).then_some(whole), "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_length_and_content_comes_back(
        len in 0..3 * MIB + 9,
        near in 0..3usize,
        seed: u64,
        compress: bool,
        kind in 0..3,
    ) {
        // Half of the lengths lie close to a multiple of a chunk.
        let len = if seed % 2 == 0 { (len / MIB * MIB + near).saturating_sub(1) } else { len };
        let plain = match kind {
            0 => noise(seed, len),
            1 => text(seed, len),
            _ => vec![0; len],
        };
        check_file(&plain, compress);
    }

    #[test]
    fn decoders_are_total_and_canonical(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        manifest: bool,
        rows in 0..4usize,
    ) {
        // Half of the cases get a sensible head, so that the rows are reached.
        if manifest && bytes.len() >= 11 {
            bytes[..3].copy_from_slice(&[1, 1, 1]);
            bytes[3..11].copy_from_slice(&((rows * MIB) as u64).to_le_bytes());
            for row in bytes[11..].chunks_mut(Row::LEN) {
                if let Some(tail) = row.get_mut(96..101) {
                    tail.copy_from_slice(&[9, 9, 0, 0, 0]);
                }
            }
        }
        if let Ok(found) = Manifest::from_bytes(&bytes) {
            prop_assert_eq!(found.to_bytes(), &bytes[..]);
        }
        if let Ok(found) = Page::from_bytes(&bytes) {
            prop_assert_eq!(found.to_bytes(), &bytes[..]);
        }
        if let Ok(found) = Grant::from_bytes(&bytes) {
            prop_assert_eq!(found.to_bytes(), &bytes[..]);
        }
    }
}

#[test]
fn a_large_sparse_file_has_pages_that_prove_its_hash() {
    let length = (PAGE_ROWS * MIB + MIB + 5) as u64;
    let keys = keys(1);
    let marked = noise(8, MIB);
    let mut sealer = Sealer::default();
    let mut builder = Builder::default();
    let mut pages = Vec::new();
    let mut seal = |page: Page| {
        let sealed = seal_page(&keys, &page);
        pages.push(sealed.clone());
        Ok::<Row, TooLarge>(sealed.row)
    };
    let mut reference = blake3::Hasher::new();
    let zeros = vec![0; MIB];
    for index in 0..chunk_count(length) {
        let len = chunk_len(length, index);
        let plain = if index == 700 { &marked[..] } else { &zeros[..len] };
        reference.update(plain);
        let row = if index == 700 {
            sealer.seal(&keys, Place::At(index), true, ChunkBuf::copy_of(plain)).row
        } else {
            Row::zero(zero_value_of(Place::At(index), len))
        };
        builder.push(row, len, &mut seal).unwrap();
    }
    let (root, hash) = builder.finish(&mut seal).unwrap();
    assert_eq!(hash.0, *reference.finalize().as_bytes());
    assert!(root.is_paged() && root.rows.len() == 2 && pages.len() == 2);
    root.prove(&hash).unwrap();
    let sealed = keys.seal_manifest(&hash, &root);
    assert_eq!(keys.open_manifest(&hash, &sealed).as_ref(), Ok(&root));

    let open = |page: u64, sealed: &[u8], length| {
        open_page(&root.rows[page as usize], length, page, BytesMut::from(sealed))
    };
    let first = open(0, &pages[0].bytes, length).unwrap();
    let second = open(1, &pages[1].bytes, length).unwrap();
    assert_eq!((first.rows.len(), second.rows.len()), (PAGE_ROWS, 2));
    assert!(!first.rows[700].is_zero() && first.rows[701].is_zero());
    // The wrong page, a page of another number, a length that demands another number of rows.
    assert_eq!(open(1, &pages[0].bytes, length), Err(OpenError::Length));
    let wrong = Disproved::RowCount.into();
    assert_eq!(open_page(&root.rows[0], length, 1, pages[0].bytes[..].into()), Err(wrong));
    assert_eq!(open(1, &pages[1].bytes, length - 5), Err(wrong));
    let mut changed = second;
    changed.rows.swap(0, 1);
    assert_eq!(changed.prove(&root.rows[1], length, 1), Err(Disproved::Merge));
}

#[test]
fn a_file_over_eight_tib_is_refused_and_not_a_byte_before() {
    let row = Row::zero(ChunkValue([1; 32]));
    let mut builder = Builder::default();
    let seal = |page: Page| Ok::<Row, TooLarge>(Row { encoded: 7, ..page.rows[0].clone() });
    for _ in 0..chunk::MAX_PAGES * PAGE_ROWS {
        builder.push(row.clone(), CHUNK_LEN, seal).unwrap();
    }
    assert_eq!(builder.length(), chunk::MAX_FILE_LEN);
    assert_eq!(builder.push(row, 1, seal), Err(TooLarge));
}

#[test]
fn a_changed_manifest_proves_nothing() {
    let stored = store(&keys(1), &noise(3, 5 * MIB + 100), false);
    let prove = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = stored.manifest.clone();
        change(&mut manifest);
        manifest.prove(&stored.hash)
    };
    assert_eq!(prove(&|_| ()), Ok(()));
    assert_eq!(prove(&|m| m.rows[2].value.0[31] ^= 1), Err(Disproved::Merge));
    assert_eq!(prove(&|m| m.rows.swap(0, 1)), Err(Disproved::Merge));
    assert_eq!(prove(&|m| m.rows.truncate(5)), Err(Disproved::RowCount));
    assert_eq!(prove(&|m| m.length -= 101), Err(Disproved::RowCount));
    assert_eq!(prove(&|m| m.rows[5].encoded = 1000), Err(Disproved::RowLength));
    let other = FileHash(*blake3::hash(b"other").as_bytes());
    assert_eq!(stored.manifest.prove(&other), Err(Disproved::Merge));
    // A wrong length that keeps the number of rows is found by the last chunk.
    let last = BytesMut::from(&stored.chunks[5].bytes[..]);
    let row = &stored.manifest.rows[5];
    let short = Opener::default().open(row, stored.manifest.length - 1, 5, last);
    assert!(short.is_err());
}

#[test]
fn changed_or_misplaced_sealed_bytes_do_not_open() {
    let stored = store(&keys(1), &noise(4, 2 * MIB + 3000), false);
    let length = stored.manifest.length;
    let row = &stored.manifest.rows[2];
    let sealed = &stored.chunks[2].bytes;
    let open = |row: &Row, index, bytes: &[u8]| {
        Opener::default().open(row, length, index, BytesMut::from(bytes)).map(|plain| plain.len())
    };
    assert_eq!(open(row, 2, sealed), Ok(3000));
    for at in [0, 1, 2999, 3001, sealed.len() - 1] {
        let mut changed = sealed.to_vec();
        changed[at] ^= 0x10;
        assert!(matches!(open(row, 2, &changed), Err(OpenError::Seal(_))), "byte {at}");
    }
    assert_eq!(open(row, 2, &sealed[1..]), Err(OpenError::Length));
    assert!(matches!(open(row, 1, sealed), Err(OpenError::Encoding(_))));
    let honest = Row { value: stored.manifest.rows[0].value, ..row.clone() };
    assert_eq!(open(&honest, 2, sealed), Err(Disproved::ChunkValue.into()));
    assert_eq!(open(&Row::zero(row.value), 2, sealed), Err(OpenError::Length));
}

#[test]
fn a_manifest_opens_for_its_hash_and_epoch_only() {
    let stored = store(&keys(1), b"one row", true);
    let sealed = keys(1).seal_manifest(&stored.hash, &stored.manifest);
    assert!(keys(2).open_manifest(&stored.hash, &sealed).is_err());
    let other = FileHash([9; 32]);
    assert!(keys(1).open_manifest(&other, &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(keys(1).open_manifest(&stored.hash, &changed).is_err(), "byte {at}");
        assert!(keys(1).open_manifest(&stored.hash, &sealed[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Every seal made over all options: a key (nonce 0) or a (key, nonce) never sees two messages,
    /// and no two swarms share a cid.
    #[test]
    fn no_key_and_nonce_are_used_for_two_messages(seeds in prop::collection::vec(0..6u64, 4)) {
        let mut messages = BTreeMap::new();
        let mut cids = BTreeMap::<_, u8>::new();
        let mut manifests = BTreeMap::new();
        for (secret, seed) in [1, 2].into_iter().flat_map(|s| seeds.iter().map(move |x| (s, *x))) {
            for plain in [noise(seed, 3000 + seed as usize), text(seed, 70_000), text(seed, 3000)] {
                for compress in [true, false] {
                    for place in [Place::Whole, Place::At(0), Place::At(seed)] {
                        let chunk = ChunkBuf::copy_of(&plain);
                        let sealed = Sealer::default().seal(&keys(secret), place, compress, chunk);
                        // Equal ciphertext under one key and nonce is an equal message.
                        let seen = messages.insert(sealed.row.key.0, sealed.bytes.clone());
                        prop_assert!(seen.is_none_or(|seen| seen == sealed.bytes));
                        let owner = cids.insert(sealed.row.cid, secret);
                        prop_assert!(owner.is_none_or(|owner| owner == secret));
                    }
                    let stored = store(&keys(secret), &plain, compress);
                    let sealed = keys(secret).seal_manifest(&stored.hash, &stored.manifest);
                    let pair = (secret, stored.hash, sealed[..24].to_vec());
                    let seen = manifests.insert(pair, stored.manifest.clone());
                    prop_assert!(seen.is_none_or(|seen| seen == stored.manifest));
                }
            }
        }
        // Compressed and raw really were different messages.
        let keys: BTreeSet<_> = messages.keys().collect();
        prop_assert!(keys.len() >= 2 * 5);
    }
}

#[test]
fn sealing_is_convergent_within_a_swarm() {
    let plain = noise(1, 5000);
    let seal = |secret, place| {
        Sealer::default().seal(&keys(secret), place, true, ChunkBuf::copy_of(&plain)).row.cid
    };
    assert_eq!(seal(1, Place::Whole), seal(1, Place::At(77)));
    assert_ne!(seal(1, Place::Whole), seal(2, Place::Whole));
}

#[test]
fn lengths_tell_little_and_full_chunks_nothing() {
    let sealed_len = |plain: &[u8], compress| {
        let chunk = ChunkBuf::copy_of(plain);
        Sealer::default().seal(&keys(1), Place::Whole, compress, chunk).bytes.len()
    };
    assert_eq!(sealed_len(&noise(1, MIB), true), MIB + 17);
    let lengths: BTreeSet<_> =
        (50_000..51_000).map(|len| sealed_len(&noise(1, len), true)).collect();
    assert!(lengths.len() <= 2, "{lengths:?}");
    assert!(sealed_len(&text(1, MIB), true) < MIB / 50);
    assert_eq!(sealed_len(&text(1, MIB), false), MIB + 17);
}

/// Compares with a golden file of hex, 32 bytes per line. Formats live for years: when this fails,
/// the format needs a new version, not the file new bytes.
fn golden(name: &str, bytes: &[u8]) {
    assert_eq!(read_golden(name, bytes), bytes, "{name}");
}

fn read_golden(name: &str, when_new: &[u8]) -> Vec<u8> {
    let path = format!("{}/tests/golden/content/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("P2PFS_NEW_GOLDEN").is_some() && !std::fs::exists(&path).unwrap() {
        let lines: Vec<_> = when_new.chunks(32).map(p2pfs::id::to_hex).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let lines = std::fs::read_to_string(&path).unwrap();
    let digits: Vec<u8> = lines.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte =
        |pair: &[u8]| p2pfs::id::from_hex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0];
    digits.chunks(2).map(byte).collect()
}

fn sample_row(seed: u8, encoded: u32) -> Row {
    Row {
        value: ChunkValue([seed; 32]),
        key: chunk::ChunkKey([seed + 1; 32]),
        cid: p2pfs::id::ChunkId([seed + 2; 32]),
        encoded,
    }
}

#[test]
fn formats_of_manifests_and_seals_are_the_golden_ones() {
    let rows = vec![
        sample_row(0x10, MIB as u32 + 1),
        Row::zero(ChunkValue([7; 32])),
        sample_row(0x20, 600),
    ];
    let manifest = Manifest { length: 2 * MIB as u64 + 500, rows };
    golden("manifest-v1", &manifest.to_bytes());
    let length = (PAGE_ROWS * MIB) as u64 + 1;
    let root = Manifest { length, rows: vec![sample_row(1, 103_430), sample_row(4, 107)] };
    golden("root-v1", &root.to_bytes());
    golden("page-v1", &Page { rows: vec![sample_row(0x30, 2)] }.to_bytes());

    let raw = store(&keys(1), b"The content of the golden chunk.", true);
    golden(
        "sealed-raw-v1",
        &[raw.manifest.rows[0].to_bytes(), raw.chunks[0].bytes.to_vec()].concat(),
    );
    golden("sealed-manifest-v1", &keys(1).seal_manifest(&raw.hash, &raw.manifest));
    golden("sealed-box-v1", &seal_to_owner(&[9; 32], &[1; 32], b"context", b"plain").unwrap());
    golden("lookup-v1", &keys(1).lookup(&raw.hash).0);
}

/// What another version of the compressor wrote must open; what this one writes may differ.
#[test]
fn the_golden_compressed_chunk_opens() {
    let plain = text(9, 5000);
    let new = store(&keys(1), &plain, true);
    let new = [new.manifest.rows[0].to_bytes(), new.chunks[0].bytes.to_vec()].concat();
    let bytes = read_golden("sealed-zstd-v1", &new);
    let (row, sealed) = bytes.split_at(Row::LEN);
    let row = Row::from_bytes(row).unwrap();
    assert!(row.encoded < 500);
    let opened = Opener::default().open(&row, 5000, 0, BytesMut::from(sealed)).unwrap();
    assert!(opened == plain);
}

#[test]
fn formats_of_access_are_the_golden_ones() {
    let key = SwarmKey::from_seed(&[5; 32]);
    let terms = Terms {
        node: NodeId([1; 32]),
        owner: [2; 32],
        roles: Roles::MEMBER,
        label: "desk".into(),
        not_before: 1_800_000_000_000,
        not_after: u64::MAX,
        serial: [3; 16],
    };
    golden("grant-v1", &Grant::issue(&key, terms).to_bytes());
    golden("open-statement-v1", &OpenStatement::issue(&key, 1_800_000_000_000).to_bytes());
    let request = JoinRequest { node: NodeId([1; 32]), owner: [2; 32], label: "desk".into() };
    golden("join-request-v1", &request.to_bytes());
    golden(
        "offer-v1",
        &Offer { run: [1; 16], admin: NodeId([2; 32]), message: [3; 33] }.to_bytes(),
    );
    golden("reply-v1", &Reply { run: [1; 16], message: [2; 33], confirmation: [3; 32] }.to_bytes());
    let verdict = Verdict { run: [1; 16], confirmation: [2; 32], sealed: vec![3; 40] };
    golden("verdict-v1", &verdict.to_bytes());
    assert_eq!(two_words(&NodeId([0; 32])), "classic-rhino");
}

#[test]
fn versions_and_forms_of_tomorrow_are_refused_by_name() {
    let manifest = Manifest { length: 0, rows: Vec::new() }.to_bytes();
    let changed = |at: usize, to: u8| {
        let mut bytes = manifest.clone();
        bytes[at] = to;
        Manifest::from_bytes(&bytes)
    };
    assert_eq!(changed(0, 2), Err(Malformed::Invalid("manifest version")));
    assert_eq!(changed(1, 2), Err(Malformed::Invalid("manifest kind")));
    assert_eq!(changed(2, 2), Err(Malformed::Invalid("manifest layout")));
    assert_eq!(changed(10, 0xff), Err(Malformed::Invalid("file length")));
    assert_eq!(changed(3, 1), Err(Malformed::Short));
    let root = Manifest {
        length: (PAGE_ROWS * MIB) as u64 + 1,
        rows: vec![Row::zero(ChunkValue([1; 32])); 2],
    };
    assert_eq!(Manifest::from_bytes(&root.to_bytes()), Err(Malformed::Invalid("manifest row")));
}
