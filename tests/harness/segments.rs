//! Where chunks lie in a node's segment files, read from the specification in `store::format` and
//! not by the store's own code, and the changes that bad disks and enemies make there. The daemon
//! may be running meanwhile.

// Each test binary that shares this uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A stored replica.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    file: PathBuf,
    /// Where its record begins.
    at: u64,
    /// Bytes before the payload.
    pub(crate) head: u64,
    /// Bytes of the payload: the sealed chunk.
    pub(crate) len: u64,
}

/// The good replicas of the node with this data directory, each once: where its bytes were written
/// last.
pub(crate) fn replicas(data: &Path) -> Vec<Stored> {
    let mut found = BTreeMap::new();
    let segments = std::fs::read_dir(data.join("segments")).unwrap();
    let mut files: Vec<PathBuf> = segments.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let mut at = 88;
        // Behind damage the next record is looked for.
        while let Some(skip) = bytes[at..].windows(4).position(|four| four == b"p2fr") {
            at += skip;
            match record(&bytes[at..]) {
                Some((head, len, replica)) => {
                    if let Some(cid) = replica {
                        let (at, head, len) = (at as u64, head as u64, len as u64);
                        found.insert(cid, Stored { file: file.clone(), at, head, len });
                    }
                    at += head + len;
                }
                None => at += 4,
            }
        }
    }
    found.into_values().collect()
}

/// Bytes before the payload and of it, and the chunk if the record is a good replica of one.
fn record(bytes: &[u8]) -> Option<(usize, usize, Option<[u8; 32]>)> {
    let head: &[u8; 20] = bytes.first_chunk()?;
    let body = usize::from(u16::from_le_bytes([head[6], head[7]]));
    let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let payload = bytes.get(20 + body..20 + body + len)?;
    if head[4] != 1 {
        return Some((20 + body, len, None));
    }
    let cid: [u8; 32] = *bytes[20..].first_chunk()?;
    (blake3::hash(payload) == cid).then_some((20 + body, len, Some(cid)))
}

impl Stored {
    /// Its file, and where its record begins there.
    pub(crate) fn place(&self) -> (&Path, u64) {
        (&self.file, self.at)
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.file).unwrap()
    }

    fn read(&self, from: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.open().read_exact_at(&mut bytes, self.at + from).unwrap();
        bytes
    }

    /// Its whole record.
    pub(crate) fn record(&self) -> Vec<u8> {
        self.read(0, self.head + self.len)
    }

    /// Writes over a part of its record.
    pub(crate) fn write(&self, from: u64, bytes: &[u8]) {
        assert!(from + bytes.len() as u64 <= self.head + self.len);
        self.open().write_all_at(bytes, self.at + from).unwrap();
    }

    /// Flips a bit of one byte of its record.
    pub(crate) fn flip(&self, from: u64) {
        let byte = self.read(from, 1)[0];
        self.write(from, &[byte ^ 4]);
    }

    /// The record of another chunk as the store would have written it in this place: its check
    /// holds here. Both must be as long.
    pub(crate) fn forged(&self, other: &Self, data: &Path) -> Vec<u8> {
        assert_eq!((self.head, self.len), (other.head, other.len));
        let marker = std::fs::read_to_string(data.join("store.format")).unwrap();
        let salt = marker.lines().find_map(|line| line.strip_prefix("salt ")).unwrap();
        let salt: Vec<u8> = (0..salt.len() / 2)
            .map(|at| u8::from_str_radix(&salt[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        let key = blake3::derive_key("p2pfs 2026-11 store record check v1", &salt);
        let name = self.file.file_name().unwrap().to_str().unwrap();
        let number: u64 = name[..8].parse().unwrap();
        let mut record = other.record();
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&number.to_le_bytes()).update(&self.at.to_le_bytes());
        hasher.update(&record[..12]).update(&record[20..usize::try_from(self.head).unwrap()]);
        record[12..20].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        record
    }
}
