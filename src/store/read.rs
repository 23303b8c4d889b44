//! Reading single records of segment files at places that the tables name. Owns the check that what
//! lies there is what the tables say; it decides nothing about damage.

use super::ReadError;
use super::files::Files;
use super::format::{Checker, Class, Entry, Found, get_record};
use super::rows::Place;
use crate::id::{ChunkId, RecordId};
use crate::sys::File;
use bytes::{Bytes, BytesMut};
use std::io;

/// Reads records of one data directory.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    /// Its files.
    pub(super) files: &'a Files,
    /// Tests what is read.
    pub(super) check: &'a Checker,
    /// Whether the disk itself is asked, and not the page cache.
    pub(super) fresh: bool,
}

/// Pages of the cache are as long as this or shorter; it drops whole ones only.
const PAGE: u64 = 64 << 10;

/// Fills a buffer; a file that ends before is an error.
pub(super) fn read_full(file: &dyn File, out: &mut [u8], at: u64) -> io::Result<()> {
    if file.read_at(out, at)? == out.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Reader<'_> {
    /// Reads a chunk at its place and checks that it is this chunk, by its record's head.
    pub(super) fn chunk(
        &self,
        class: Class,
        place: Place,
        cid: ChunkId,
        buf: &mut dyn FnMut(usize) -> BytesMut,
    ) -> Result<Bytes, ReadError> {
        let (found, payload) = self.place(class, place, buf)?;
        match found.entry {
            Entry::Replica { cid: there, .. } | Entry::Cached { cid: there } if there == cid => {
                Ok(payload)
            }
            _ => Err(ReadError::Damaged),
        }
    }

    /// Reads a catalogue record at its place and verifies it.
    pub(super) fn record(&self, place: Place, id: RecordId) -> Result<Vec<u8>, ReadError> {
        let mut buf = |len| BytesMut::zeroed(len);
        let (found, payload) = self.place(Class::Segment, place, &mut buf)?;
        if found.entry == (Entry::Record { id }) && blake3::hash(&payload) == id.0 {
            Ok(payload.to_vec())
        } else {
            Err(ReadError::Damaged)
        }
    }

    fn place(
        &self,
        class: Class,
        place: Place,
        buf: &mut dyn FnMut(usize) -> BytesMut,
    ) -> Result<(Found, Bytes), ReadError> {
        let file = match self.files.reader(class, place.number) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(ReadError::Damaged),
            Err(err) => return Err(err.into()),
        };
        let (head, payload) = (usize::from(place.head), place.payload as usize);
        let mut bytes = buf(head + payload);
        // A buffer that was used before is not zeroed again.
        bytes.resize(head + payload, 0);
        let at = u64::from(place.offset);
        let (from, to) = (at / PAGE * PAGE, (at + bytes.len() as u64).next_multiple_of(PAGE));
        if self.fresh {
            file.let_go(from, to - from)?;
        }
        let read = file.read_at(&mut bytes, at)?;
        if self.fresh {
            file.let_go(from, to - from)?;
        } else if self.files.reads_once(class, place) {
            file.let_go(at, bytes.len() as u64)?;
        }
        if read < bytes.len() {
            return Err(ReadError::Damaged);
        }
        let found = get_record(&bytes, place.number, at, self.check)
            .filter(|found| found.head == head && found.payload == payload)
            .ok_or(ReadError::Damaged)?;
        Ok((found, bytes.freeze().slice(head..)))
    }
}
