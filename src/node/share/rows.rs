//! What this node knows of one file that it serves in place: a *row file* beside the store, named
//! by the share and the path in it. Owns its format. It is a cache: when it is missing, damaged or
//! of another version, the file is hashed again.
//!
//! Format (integers little-endian), sealed as a whole with the node's own sector key, because rows
//! hold keys:
//!
//! ```text
//! "p2pfsrow", version u8 (1), length of the head u32, head,
//! row 101 …            one per chunk
//! row 101 …            one per page, of a file that has pages
//! claim 16, hash 32, BLAKE3 of all before 32, zeros up to a whole sector
//! head = share 16, epoch 32, what it is called (length u32 <= 4096, bytes), device u64, inode u64,
//!        length u64, mtime ns i64, ctime ns i64, mode u32
//! ```

use crate::chunk::{MAX_FILE_LEN, PAGE_ROWS, Row, chunk_count, page_count};
use crate::core::catalogue::SHARED_PATH_MAX;
use crate::crypto::{SECTOR, SectorKey};
use crate::id::{ClaimId, EpochId, FileHash};
use crate::sys::{File, Fs, OpenMode, Stamp, StampKind};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob};
use std::io;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"p2pfsrow";
const VERSION: u8 = 1;
/// What stands before the head.
const FRONT: usize = MAGIC.len() + 1 + 4;
/// Longest head in bytes.
const HEAD_MAX: usize = 256 + SHARED_PATH_MAX;
/// What stands behind the rows.
const TAIL: usize = 80;
/// Bytes that are written or read at a time.
const PIECE: usize = 16 * SECTOR;

/// Names a share on its node.
pub(in crate::node) type ShareId = [u8; 16];

/// What is known of a file besides its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Head {
    /// The share that it is in.
    pub(in crate::node) share: ShareId,
    /// Whose keys seal it.
    pub(in crate::node) epoch: EpochId,
    /// What it is called: the share's name, and where in the share it is.
    pub(in crate::node) path: Vec<u8>,
    /// What stood there when it was hashed.
    pub(in crate::node) stamp: Stamp,
}

impl Encode for Head {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.share);
        self.epoch.encode(out);
        put_blob(out, &self.path);
        let Stamp { dev, ino, len, mtime_ns, ctime_ns, mode, kind: _ } = self.stamp;
        [dev, ino, len].iter().for_each(|number| number.encode(out));
        [mtime_ns, ctime_ns].iter().for_each(|number| number.encode(out));
        mode.encode(out);
    }
}

impl Decode for Head {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let share = from.array()?;
        let (epoch, path) = (EpochId::decode(from)?, from.blob(SHARED_PATH_MAX)?.to_vec());
        let stamp = Stamp {
            dev: u64::decode(from)?,
            ino: u64::decode(from)?,
            len: u64::decode(from)?,
            mtime_ns: i64::decode(from)?,
            ctime_ns: i64::decode(from)?,
            mode: u32::decode(from)?,
            kind: StampKind::File,
        };
        Ok(Self { share, epoch, path, stamp })
    }
}

/// Writes a row file.
pub(super) struct RowWriter {
    file: Arc<dyn File>,
    key: SectorKey,
    sum: blake3::Hasher,
    waiting: Vec<u8>,
    /// Sectors that are written.
    at: u64,
}

impl RowWriter {
    /// Begins a file at `path`, over whatever is there.
    pub(super) fn new(fs: &dyn Fs, path: &Path, key: SectorKey, head: &Head) -> io::Result<Self> {
        let file = fs.open(path, OpenMode::Create)?;
        file.set_len(0)?;
        let (sum, waiting) = (blake3::Hasher::new(), Vec::new());
        let mut writer = Self { file, key, sum, waiting, at: 0 };
        let head = head.to_bytes();
        let mut front = [&MAGIC[..], &[VERSION]].concat();
        put_blob(&mut front, &head);
        writer.push(&front)?;
        Ok(writer)
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        let whole = self.waiting.len() / SECTOR * SECTOR;
        let rest = self.waiting.split_off(whole);
        let mut sectors = std::mem::replace(&mut self.waiting, rest);
        self.key.seal(self.at, &mut sectors);
        self.file.write_at(&[&sectors], self.at * SECTOR as u64)?;
        self.at += (whole / SECTOR) as u64;
        Ok(())
    }

    /// Ends the file: what this node's file record names, and the hash.
    pub(super) fn finish(mut self, claim: &ClaimId, hash: &FileHash) -> io::Result<()> {
        self.push(&claim.0)?;
        self.push(&hash.0)?;
        let sum = self.sum.finalize();
        self.waiting.extend_from_slice(sum.as_bytes());
        self.waiting.resize(self.waiting.len().next_multiple_of(SECTOR), 0);
        self.write_out()
    }
}

/// A row file that is there. Whether it is whole is only known after [`RowFile::is_whole`]; what
/// is served by it is proved in any case.
pub(in crate::node) struct RowFile {
    file: Arc<dyn File>,
    key: SectorKey,
    pub(in crate::node) head: Head,
    /// Where the rows begin.
    rows_at: u64,
}

impl RowFile {
    /// Opens a row file; none: it is not one of this version.
    pub(super) fn open(fs: &dyn Fs, path: &Path, key: SectorKey) -> io::Result<Option<Self>> {
        let file = fs.open(path, OpenMode::Read)?;
        let first = read(&*file, &key, 0, FRONT + HEAD_MAX)?;
        let mut reader = Reader::new(&first);
        let fits = matches!(reader.array(), Ok(magic) if magic == *MAGIC)
            && matches!(u8::decode(&mut reader), Ok(VERSION));
        let head = reader.blob(HEAD_MAX).ok().filter(|_| fits);
        let Some(bytes) = head else { return Ok(None) };
        let Ok(head) = Head::from_bytes(bytes) else { return Ok(None) };
        if head.stamp.len > MAX_FILE_LEN {
            return Ok(None);
        }
        let rows_at = (FRONT + bytes.len()) as u64;
        Ok(Some(Self { file, key, head, rows_at }))
    }

    /// Whether nothing of it was damaged. Reads all of it.
    pub(super) fn is_whole(&self) -> io::Result<bool> {
        let end = self.tail_at() + (TAIL - 32) as u64;
        let mut sum = blake3::Hasher::new();
        let mut at = 0;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let piece = read(&*self.file, &self.key, at, len)?;
            if piece.len() < len {
                return Ok(false);
            }
            sum.update(&piece);
            at += len as u64;
        }
        Ok(read(&*self.file, &self.key, end, 32)? == sum.finalize().as_bytes())
    }

    fn tail_at(&self) -> u64 {
        let len = self.head.stamp.len;
        self.rows_at + (chunk_count(len) + page_count(len)) * Row::LEN as u64
    }

    /// What this node's file record names, and the hash.
    pub(super) fn ends(&self) -> io::Result<(ClaimId, FileHash)> {
        let bytes = read(&*self.file, &self.key, self.tail_at(), TAIL - 32)?;
        let ends = bytes
            .split_first_chunk()
            .and_then(|(claim, rest)| Some((ClaimId(*claim), FileHash(*rest.first_chunk()?))));
        ends.ok_or_else(short)
    }

    /// The row of a chunk.
    pub(super) fn row(&self, index: u64) -> io::Result<Row> {
        self.some(index, 1)?.pop().ok_or_else(short)
    }

    /// The rows of a page.
    pub(super) fn page(&self, page: u32) -> io::Result<Vec<Row>> {
        let first = u64::from(page) * PAGE_ROWS as u64;
        let left = chunk_count(self.head.stamp.len).saturating_sub(first);
        self.some(first, left.min(PAGE_ROWS as u64))
    }

    /// The rows of the manifest.
    pub(super) fn manifest_rows(&self) -> io::Result<Vec<Row>> {
        let chunks = chunk_count(self.head.stamp.len);
        match page_count(self.head.stamp.len) {
            0 => self.some(0, chunks),
            pages => self.some(chunks, pages),
        }
    }

    fn some(&self, first: u64, count: u64) -> io::Result<Vec<Row>> {
        let at = self.rows_at + first * Row::LEN as u64;
        let len = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(Row::LEN);
        let bytes = read(&*self.file, &self.key, at, len)?;
        if bytes.len() < len {
            return Err(short());
        }
        let rows = bytes.chunks_exact(Row::LEN).map(Row::from_bytes).collect::<Result<_, _>>();
        rows.map_err(|err: Malformed| io::Error::new(io::ErrorKind::InvalidData, err))
    }
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a row file is too short")
}

/// Opened bytes from `at` on; fewer at the end.
fn read(file: &dyn File, key: &SectorKey, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let first = at / SECTOR as u64;
    let skip = (at % SECTOR as u64) as usize;
    let mut sectors = vec![0; (skip + len).next_multiple_of(SECTOR)];
    let got = file.read_at(&mut sectors, first * SECTOR as u64)?;
    sectors.truncate(got / SECTOR * SECTOR);
    key.open(first, &mut sectors);
    sectors.truncate(skip + len);
    Ok(sectors.split_off(skip.min(sectors.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK_LEN;
    use crate::crypto::NodeKey;
    use crate::id::{ChunkId, ChunkValue};
    use crate::sys::os::OsFs;

    fn head(len: u64) -> Head {
        let kind = StampKind::File;
        let (mtime_ns, ctime_ns) = (-3, 4);
        let stamp = Stamp { dev: 1, ino: 2, len, mtime_ns, ctime_ns, mode: 0o640, kind };
        Head { share: [2; 16], epoch: EpochId([3; 32]), path: b"/a/b".to_vec(), stamp }
    }

    fn key() -> SectorKey {
        SectorKey::new(&NodeKey::from_seed(&[7; 32]), b"shares/x")
    }

    fn row(n: u64) -> Row {
        let hash = *blake3::hash(&n.to_le_bytes()).as_bytes();
        let key = crate::chunk::ChunkKey(hash);
        Row { value: ChunkValue(hash), key, cid: ChunkId(hash), encoded: 77 }
    }

    fn write(path: &Path, len: u64) {
        let mut writer = RowWriter::new(&OsFs, path, key(), &head(len)).unwrap();
        let rows = chunk_count(len) + page_count(len);
        (0..rows).for_each(|n| writer.push(&row(n).to_bytes()).unwrap());
        writer.finish(&ClaimId([1; 16]), &FileHash([9; 32])).unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_at_any_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        for len in [0, 5, 3 * CHUNK_LEN as u64 + 1, 2500 * CHUNK_LEN as u64] {
            write(&path, len);
            let rows = RowFile::open(&OsFs, &path, key()).unwrap().unwrap();
            assert_eq!(rows.head, head(len));
            assert!(rows.is_whole().unwrap());
            assert_eq!(rows.ends().unwrap(), (ClaimId([1; 16]), FileHash([9; 32])));
            let chunks = chunk_count(len);
            for index in (0..chunks).step_by(7) {
                assert_eq!(rows.row(index).unwrap(), row(index));
            }
            let manifest = rows.manifest_rows().unwrap();
            match page_count(len) {
                0 => assert_eq!(manifest.len() as u64, chunks),
                pages => {
                    assert_eq!(manifest.len() as u64, pages);
                    assert_eq!(manifest[0], row(chunks));
                    assert_eq!(rows.page(2).unwrap().len(), 2500 - 2048);
                    assert_eq!(rows.page(2).unwrap()[0], row(2048));
                }
            }
        }
    }

    #[test]
    fn a_damaged_one_is_not_whole_and_tells_nothing_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        write(&path, 100 * CHUNK_LEN as u64);
        let good = std::fs::read(&path).unwrap();
        assert!(!good.windows(4).any(|bytes| bytes == b"/a/b" || bytes == b"p2pf"));
        for at in [0, 20, 200, 5_000, 10_000] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let rows = RowFile::open(&OsFs, &path, key()).unwrap();
            assert!(rows.is_none_or(|rows| !rows.is_whole().unwrap()), "{at}");
        }
        std::fs::write(&path, &good[..SECTOR]).unwrap();
        let rows = RowFile::open(&OsFs, &path, key()).unwrap();
        assert!(rows.is_none_or(|rows| !rows.is_whole().unwrap()));
    }
}
