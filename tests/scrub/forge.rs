//! What an enemy with access to a node's disk writes there: records that the store itself might
//! have written, made from the specification in `store::format`.

use crate::segments::Stored;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The whole record of a replica.
pub(crate) fn record(stored: &Stored) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(stored.head + stored.len).unwrap()];
    File::open(&stored.file).unwrap().read_exact_at(&mut bytes, stored.at).unwrap();
    bytes
}

/// Writes over a part of a record.
pub(crate) fn write(stored: &Stored, from: u64, bytes: &[u8]) {
    assert!(from + bytes.len() as u64 <= stored.head + stored.len);
    let file = File::options().write(true).open(&stored.file).unwrap();
    file.write_all_at(bytes, stored.at + from).unwrap();
}

/// The record of `other` as the store would have written it in the place of `stored`: its check
/// holds there. Both must be as long.
pub(crate) fn forged(stored: &Stored, other: &Stored, data: &Path) -> Vec<u8> {
    assert_eq!((stored.head, stored.len), (other.head, other.len));
    let marker = std::fs::read_to_string(data.join("store.format")).unwrap();
    let salt = marker.lines().find_map(|line| line.strip_prefix("salt ")).unwrap();
    let salt: Vec<u8> = (0..salt.len() / 2)
        .map(|at| u8::from_str_radix(&salt[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let key = blake3::derive_key("p2pfs 2026-11 store record check v1", &salt);
    let name = stored.file.file_name().unwrap().to_str().unwrap();
    let number: u64 = name[..8].parse().unwrap();
    let mut record = record(other);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&number.to_le_bytes()).update(&stored.at.to_le_bytes());
    hasher.update(&record[..12]).update(&record[20..usize::try_from(stored.head).unwrap()]);
    record[12..20].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    record
}
