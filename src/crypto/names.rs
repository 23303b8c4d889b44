//! Sealing of the rows in which a node keeps names at hand: they are rewritten in place, and
//! thousands are opened for one question. Owns how the key and the place of a row make its cipher,
//! which is that of `xts`; what a row says is its table's.
//!
//! A row is a function of what it says, its place and the epoch's key, so that tables are alike
//! wherever they are made. Who reads the disk twice learns whether a row has changed, and where.

use super::xts::{BLOCK, Xts};
use crate::id::InodeId;
use zeroize::Zeroizing;

/// What seals rows under one epoch's key.
pub struct NameKey(Xts);

impl NameKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let mut whole = Zeroizing::new([0; 64]);
        blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut whole[..]);
        Self(Xts::new(&whole))
    }

    /// Seals the row of an inode; zeros are added up to a whole block.
    pub fn seal(&self, inode: &InodeId, row: &mut Vec<u8>) {
        row.resize(row.len().next_multiple_of(BLOCK), 0);
        self.0.seal(inode.0, row);
    }

    /// Opens the row of an inode; what is no whole block stays as it is.
    pub fn open(&self, inode: &InodeId, row: &mut [u8]) {
        self.0.open(inode.0, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{ContentSecret, EpochKeys};

    #[test]
    fn a_row_opens_at_its_place_and_under_its_epoch_only() {
        let key = |number| EpochKeys::new(&ContentSecret([number; 32])).names();
        let (here, there) = (InodeId([1; 16]), InodeId([2; 16]));
        let plain = b"a name of some length".to_vec();
        let mut sealed = plain.clone();
        key(1).seal(&here, &mut sealed);
        assert!(sealed.len() == 32 && !sealed.windows(4).any(|part| part == b"name"));
        let opened = |number, inode| {
            let mut row = sealed.clone();
            key(number).open(inode, &mut row);
            row
        };
        assert_eq!(&opened(1, &here)[..plain.len()], plain);
        assert_ne!(&opened(1, &there)[..plain.len()], plain);
        assert_ne!(&opened(2, &here)[..plain.len()], plain);
    }
}
