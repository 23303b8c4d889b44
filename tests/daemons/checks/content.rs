//! I2: bytes that are returned hash to what was asked for, always; a range is that part of the
//! file.

use super::acknowledged::{Ledger, hash_of};
use p2pfs::id::FileHash;
use p2pfs::wire::control::{Range, Target};

/// What is wrong with the answer to a get, if anything.
pub(crate) fn check(
    ledger: &Ledger,
    target: &Target,
    range: Option<Range>,
    (hash, bytes): (&FileHash, &[u8]),
) -> Result<(), String> {
    match target {
        Target::Hash(wanted) if wanted != hash => {
            return Err(format!("asked for {wanted}, got {hash}"));
        }
        Target::Path(path) => {
            let path = String::from_utf8_lossy(&path.0);
            if !ledger.was_tried(&path, hash) {
                return Err(format!("{path} shows {hash}, which nobody put there"));
            }
        }
        _ => {}
    }
    let Some(range) = range else {
        let found = hash_of(bytes);
        return if found == *hash { Ok(()) } else { Err(format!("{hash} came as {found}")) };
    };
    // A part does not hash to anything: it is compared with what was put.
    let Some(file) = ledger.file(hash) else { return Ok(()) };
    let len = file.content.len() as u64;
    let (from, to) = match range {
        Range::Last(last) => (len.saturating_sub(last), len),
        Range::Span { start, end } => (start.min(len), end.unwrap_or(len).min(len)),
    };
    let part = &file.content[from as usize..to.max(from) as usize];
    if part == bytes { Ok(()) } else { Err(format!("bytes {from} to {to} of {hash} are others")) }
}
