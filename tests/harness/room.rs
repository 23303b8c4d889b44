//! How much room the data of a node takes on its disk.

use crate::daemon::Daemon;

/// Length of the segments of a node in bytes, without what is only reserved.
pub(crate) fn stored(node: &Daemon) -> u64 {
    let files = std::fs::read_dir(node.data.join("segments")).unwrap();
    // One that goes meanwhile takes no room.
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}
