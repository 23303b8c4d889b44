//! Two slots of a sealed file, of which the newer one counts: what is said is replaced as a whole,
//! whenever the power fails. Owns the format of a slot:
//!
//! ```text
//! slot = magic 14, number u64 (the greater one is newer), length of the body u32,
//!        BLAKE3 of number and body 32, body
//! ```

use super::sealed::SealedFile;
use std::io;

const MAGIC: usize = 14;
/// Bytes of a slot before its body.
pub(super) const HEAD: usize = MAGIC + 8 + 4 + 32;

/// The slots of one kind of file, at its beginning; more may follow each in its place.
pub(super) struct Slots {
    pub magic: &'static [u8; MAGIC],
    /// Bytes of a slot.
    pub len: u64,
}

/// What a slot says.
pub(super) struct Slot {
    /// Which of the two it is.
    pub place: u64,
    pub number: u64,
    pub body: Vec<u8>,
}

impl Slot {
    /// Its bytes.
    pub(super) const fn len(&self) -> u64 {
        Slots::len_of(self.body.as_slice())
    }
}

impl Slots {
    /// Most bytes that can be said.
    pub(super) const fn body_max(&self) -> usize {
        self.len as usize - HEAD
    }

    /// Bytes of a slot with a body.
    pub(super) const fn len_of(body: &[u8]) -> u64 {
        (HEAD + body.len()) as u64
    }

    /// Replaces what a slot says; durable when the file was synced.
    pub(super) fn write(&self, file: &SealedFile, slot: &Slot) -> io::Result<()> {
        self.write_at(file, slot, 0)
    }

    /// The same of one that is so far behind the beginning of the place.
    pub(super) fn write_at(&self, file: &SealedFile, slot: &Slot, at: u64) -> io::Result<()> {
        let Slot { place, number, body } = slot;
        if at + Self::len_of(body) > self.len {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(sum(*number, body).as_bytes());
        bytes.extend_from_slice(body);
        file.write(&bytes, place * self.len + at)
    }

    /// The slots that are whole, the newer one first.
    pub(super) fn read(&self, file: &SealedFile) -> io::Result<Vec<Slot>> {
        let slots = [self.slot(file, 0, 0)?, self.slot(file, 1, 0)?];
        Ok(newer_first(slots))
    }

    /// The same where one that cannot be read is as good as none.
    pub(super) fn read_what_can_be(&self, file: &SealedFile) -> Vec<Slot> {
        newer_first([0, 1].map(|place| self.read_at(file, place, 0)))
    }

    /// What is so far behind the beginning of a place, if it is a whole slot and can be read.
    pub(super) fn read_at(&self, file: &SealedFile, place: u64, at: u64) -> Option<Slot> {
        let slot = self.slot(file, place, at);
        slot.inspect_err(|err| tracing::warn!(%err, "a slot cannot be read")).ok().flatten()
    }

    /// A slot, if it is whole.
    fn slot(&self, file: &SealedFile, place: u64, at: u64) -> io::Result<Option<Slot>> {
        if at + HEAD as u64 > self.len {
            return Ok(None);
        }
        let (mut head, from) = ([0; HEAD], place * self.len + at);
        file.read(&mut head, from)?;
        let whole = self.head(&head).filter(|(_, len, _)| (HEAD + len) as u64 + at <= self.len);
        let Some((number, len, said)) = whole else { return Ok(None) };
        let mut body = vec![0; len];
        file.read(&mut body, from + HEAD as u64)?;
        let is_whole = sum(number, &body).as_bytes() == &said;
        Ok(is_whole.then_some(Slot { place, number, body }))
    }

    fn head(&self, head: &[u8]) -> Option<(u64, usize, [u8; 32])> {
        let rest = head.strip_prefix(self.magic)?;
        let (number, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = u32::from_le_bytes(*len) as usize;
        let said = rest.first_chunk()?;
        (len <= self.body_max()).then(|| (u64::from_le_bytes(*number), len, *said))
    }
}

fn newer_first(slots: [Option<Slot>; 2]) -> Vec<Slot> {
    let mut slots: Vec<Slot> = slots.into_iter().flatten().collect();
    slots.sort_by_key(|slot| std::cmp::Reverse(slot.number));
    slots
}

fn sum(number: u64, body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(&number.to_le_bytes()).update(body).finalize()
}
