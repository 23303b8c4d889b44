//! What a bad disk does to the records of a node's segment files. The daemon may be running
//! meanwhile.

use crate::segments::Stored;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Flips a bit of one byte of a record; `from`: which, counted from the record's beginning. It is
/// changed on the disk, and whoever reads it next reads the disk.
pub(crate) fn flip(stored: &Stored, from: u64) {
    let file = File::options().read(true).write(true).open(&stored.file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, stored.at + from).unwrap();
    file.write_all_at(&[byte[0] ^ 4], stored.at + from).unwrap();
    file.sync_data().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}
