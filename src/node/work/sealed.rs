//! A sealed file: bytes at any place of a file of which nobody who reads the disk learns anything.
//! Owns the way from bytes to whole sectors; the cipher is `crypto::sectors`'.
//!
//! Invariant: one changes it at a time, which the caller sees to; who reads meanwhile gets old or
//! new bytes.

use crate::crypto::{SECTOR, SectorKey};
use crate::sys::File;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

const LEN: u64 = SECTOR as u64;
/// Bytes that are written at a time: systems take few large writes at several times the rate of
/// many small ones.
const PIECE: u64 = 256 * LEN;

thread_local! {
    /// Sectors on their way, one piece of them at most.
    static SECTORS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file.
pub(super) struct SealedFile {
    file: Arc<dyn File>,
    key: SectorKey,
}

impl SealedFile {
    pub(super) const fn new(file: Arc<dyn File>, key: SectorKey) -> Self {
        Self { file, key }
    }

    /// Reads bytes; what was never written is zero.
    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let mut buf = buf;
        for (whole, part) in pieces(at, buf.len()) {
            let (here, rest) = std::mem::take(&mut buf).split_at_mut(part.len());
            if is_whole(&whole, &part) {
                self.open(here, whole.start)?;
            } else {
                with_sectors(&whole, |sectors| {
                    self.open(sectors, whole.start)?;
                    here.copy_from_slice(&sectors[part]);
                    Ok(())
                })?;
            }
            buf = rest;
        }
        Ok(())
    }

    /// Writes bytes.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut bytes = bytes;
        for (whole, part) in pieces(at, bytes.len()) {
            let (here, rest) = bytes.split_at(part.len());
            with_sectors(&whole, |sectors| {
                if !is_whole(&whole, &part) {
                    self.open(sectors, whole.start)?;
                }
                sectors[part].copy_from_slice(here);
                self.key.seal(whole.start / LEN, sectors);
                self.file.write_at(&[sectors], whole.start)
            })?;
            bytes = rest;
        }
        Ok(())
    }

    /// Drops what is behind `len` bytes.
    pub(super) fn cut(&self, len: u64) -> io::Result<()> {
        let end = len.next_multiple_of(LEN);
        if end > len && self.file.len()? > end - LEN {
            self.write(&vec![0; (end - len) as usize], len)?;
        }
        self.file.set_len(end)
    }

    /// Makes bytes zero, and gives back the room of those sectors that are nothing else.
    pub(super) fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        let end = at.saturating_add(len).min(self.file.len()?);
        let (first, last) = (at.next_multiple_of(LEN), end / LEN * LEN);
        if first >= last {
            // Both ends may be in one sector, or in two beside each other.
            return self.write(&vec![0; end.saturating_sub(at) as usize], at);
        }
        self.write(&vec![0; (first - at) as usize], at)?;
        self.write(&vec![0; (end - last) as usize], last)?;
        self.file.punch(first, last - first)
    }

    /// Has bytes written to the disk soon.
    pub(super) fn write_out(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.write_out(at, len)
    }

    /// Has the system forget bytes that are on the disk.
    pub(super) fn let_go(&self, at: u64, len: u64) -> io::Result<()> {
        self.file.let_go(at, len)
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Reads whole sectors.
    fn open(&self, sectors: &mut [u8], at: u64) -> io::Result<()> {
        let len = self.file.read_at(sectors, at)?;
        sectors[len..].fill(0);
        self.key.open(at / LEN, sectors);
        Ok(())
    }
}

/// Lends memory for whole sectors, which is not asked of the system again each time.
fn with_sectors(
    whole: &Range<u64>,
    work: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let len = (whole.end - whole.start) as usize;
    SECTORS.with_borrow_mut(|sectors| {
        if sectors.len() < len {
            sectors.resize(len, 0);
        }
        work(&mut sectors[..len])
    })
}

fn is_whole(whole: &Range<u64>, part: &Range<usize>) -> bool {
    part.len() as u64 == whole.end - whole.start
}

/// The sectors that bytes lie in, some at a time, and where they lie in those.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (Range<u64>, Range<usize>)> {
    let end = at + len as u64;
    let mut next = at;
    std::iter::from_fn(move || {
        let from = next;
        let start = from / LEN * LEN;
        next = end.min(start + PIECE);
        let part = (from - start) as usize..(next.max(from) - start) as usize;
        (from < end).then(|| (start..next.next_multiple_of(LEN), part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::NodeKey;
    use crate::sys::os::OsFs;
    use crate::sys::{Fs, OpenMode};
    use proptest::prelude::*;

    const MAX: usize = 300_000;

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize, u8),
        Cut(usize),
        Punch(usize, usize),
        Read(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..MAX, 0..90_000_usize, 1..=255_u8)
                .prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
            1 => (0..MAX).prop_map(Step::Cut),
            1 => (0..MAX, 0..90_000_usize).prop_map(|(at, len)| Step::Punch(at, len)),
            2 => (0..MAX, 0..90_000_usize).prop_map(|(at, len)| Step::Read(at, len)),
        ];
        proptest::collection::vec(step, 1..20)
    }

    fn text(len: usize, byte: u8) -> Vec<u8> {
        (0..len).map(|at| byte.wrapping_add((at / 5000) as u8)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn it_reads_as_it_was_written(steps in steps()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            let file = OsFs.open(&path, OpenMode::Create).unwrap();
            let key = SectorKey::new(&NodeKey::from_seed(&[1; 32]), b"f");
            let sealed = SealedFile::new(file, key);
            // As long as anything can be read.
            let mut model = vec![0; MAX + 90_000];
            for step in steps {
                match step {
                    Step::Write(at, len, byte) => {
                        let bytes = text(len, byte);
                        sealed.write(&bytes, at as u64).unwrap();
                        model[at..at + len].copy_from_slice(&bytes);
                    }
                    Step::Cut(len) => {
                        sealed.cut(len as u64).unwrap();
                        model[len..].fill(0);
                    }
                    Step::Punch(at, len) => {
                        sealed.punch(at as u64, len as u64).unwrap();
                        model[at..at + len].fill(0);
                    }
                    Step::Read(at, len) => {
                        let mut bytes = vec![9; len];
                        sealed.read(&mut bytes, at as u64).unwrap();
                        prop_assert!(bytes == model[at..at + len]);
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_of_it_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OsFs.open(&path, OpenMode::Create).unwrap();
        let key = SectorKey::new(&NodeKey::from_seed(&[1; 32]), b"f");
        let sealed = SealedFile::new(file, key);
        sealed.write(&b"a sentence that is easily found ".repeat(1000), 123).unwrap();
        let raw = std::fs::read(&path).unwrap();
        assert!(raw.len() > 32_000 && !raw.windows(8).any(|bytes| bytes == b"sentence"));
        // What nobody wrote takes no room.
        assert!(std::fs::metadata(&path).unwrap().len() <= 36_864);
    }
}
