//! Where chunks lie in a node's segment files, read from the specification in `store::format` and
//! not by the store's own code. The daemon may be running meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A stored replica.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) file: PathBuf,
    /// Where its record begins.
    pub(crate) at: u64,
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
