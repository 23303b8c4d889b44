//! Hashing a file that is to be served in place: chunk by chunk, sealed as a put would seal it,
//! only that the sealed bytes are thrown away and the rows kept.

use super::list::Spec;
use super::rows::{Head, RowWriter};
use super::{RowKey, Shared};
use crate::chunk::{self, Builder, CHUNK_LEN, Page, Place, Row, TooLarge};
use crate::crypto::{ChunkBuf, EpochKeys, seal_page};
use crate::id::{ClaimId, EpochId, FileHash};
use crate::node::memory::{SMALL, Slot, User};
use crate::node::{NotReady, lock};
use crate::sys::{File, Stamp, StampKind};
use crate::wire::codec::Encode;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// File systems count time in ticks; what is older than this cannot change without a later time.
const FRESH: Duration = Duration::from_millis(25);
/// Chunks of one file that are sealed at once.
const AT_ONCE: usize = 3;

/// Why a file has no rows.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum IndexError {
    /// It cannot be read, or its rows cannot be written.
    #[error("{}", crate::text::reason(.0))]
    Io(#[from] io::Error),
    /// It changed while it was read. It is looked at again.
    #[error("it changed while it was read")]
    Changed,
    /// It is longer than a file can be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// This node has no keys.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// A row on its way, with the bytes of its chunk.
type Sealing = oneshot::Receiver<Result<(Row, usize), IndexError>>;

impl Shared {
    /// Makes the row file of a shared file anew; `counted` gets the bytes that are done. Whoever
    /// calls it holds the share's lock.
    pub(super) async fn index(
        self: &Arc<Self>,
        spec: &Spec,
        called: &[u8],
        counted: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<RowKey, IndexError> {
        let key = self.row_key(&spec.id, called);
        let keys = self.keys()?;
        let path = spec.place_of(called).ok_or(IndexError::Changed)?;
        lock(&self.shared_here.doubted).remove(&key);
        let (shared, at) = (self.clone(), path.clone());
        if self
            .job(move || Ok::<_, io::Error>(shared.is_fresh(&shared.sys.fs.stamp(&at)?)))
            .await??
        {
            tokio::time::sleep(FRESH).await;
        }
        let (shared, share, name) = (self.clone(), spec.id, called.to_vec());
        let (at, epoch) = (path.clone(), keys.epoch());
        let begun = self.job(move || {
            let fs = &*shared.sys.fs;
            let file = fs.open_as_it_is(&at)?;
            let stamp = fs.stamp(&at)?;
            if stamp.kind != StampKind::File || shared.is_fresh(&stamp) {
                return Err(IndexError::Changed);
            }
            let head = Head { share, epoch, path: name, stamp };
            fs.create_dir_all(&shared.rows_dir(key.0[0]))?;
            let new = shared.row_path(key).with_extension("new");
            let writer = RowWriter::new(fs, &new, shared.row_sectors(key), &head)?;
            Ok((file, stamp, writer))
        });
        let (file, stamp, mut writer) = begun.await??;
        let (hash, roots) = self.rows_of(&keys, &file, stamp.len, &mut writer, counted).await?;
        self.shared_here.hashed.fetch_add(1, Ordering::Relaxed);
        let shared = self.clone();
        let ended = self.job(move || {
            roots.iter().try_for_each(|row| writer.push(&row.to_bytes()))?;
            writer.finish(&shared.claim_of_rows(key, epoch, &hash), &hash)?;
            let fs = &*shared.sys.fs;
            if !same_content(&fs.stamp(&path)?, &stamp) {
                return Err(IndexError::Changed);
            }
            let place = shared.row_path(key);
            Ok(fs.rename(&place.with_extension("new"), &place)?)
        });
        ended.await?.map(|()| key)
    }

    /// Whether a file has just been changed, so that another change may not show in its times.
    fn is_fresh(&self, stamp: &Stamp) -> bool {
        let now_ns = i128::from(self.sys.clock.wall_ms()) * 1_000_000;
        (now_ns - i128::from(stamp.ctime_ns)).unsigned_abs() < FRESH.as_nanos()
    }

    /// The claim of what was hashed: that of before, if only its times are other ones.
    fn claim_of_rows(&self, key: RowKey, epoch: EpochId, hash: &FileHash) -> ClaimId {
        let before = self.open_rows(key).ok().flatten().filter(|rows| rows.head.epoch == epoch);
        match before.and_then(|rows| rows.ends().ok()) {
            Some((claim, of)) if of == *hash => claim,
            _ => key.claim(self.sys.clock.wall_ms(), self.sys.rng.bytes()),
        }
    }

    /// Writes the row of each chunk; the hash, and the rows of the pages where there are any.
    async fn rows_of(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        file: &Arc<dyn File>,
        length: u64,
        writer: &mut RowWriter,
        counted: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(FileHash, Vec<Row>), IndexError> {
        let chunks = chunk::chunk_count(length);
        let mut builder = Builder::default();
        let page = |page: Page| Ok::<_, TooLarge>(seal_page(keys, &page).row);
        let mut sealing: VecDeque<Sealing> = VecDeque::with_capacity(AT_ONCE);
        let (mut begun, mut done) = (0, 0);
        while done < chunks {
            // Who waits for memory must hold none: others may be waiting for it.
            if begun < chunks && sealing.len() < AT_ONCE {
                let slot = match (chunks, sealing.is_empty()) {
                    (1, _) if length < SMALL as u64 => Some(self.memory.take_small().await),
                    (_, true) => Some(self.memory.take(User::Work).await),
                    (_, false) => self.memory.try_take(User::Work),
                };
                if let Some(slot) = slot {
                    sealing.push_back(self.begin_row(keys, file, length, begun, slot));
                    begun += 1;
                    continue;
                }
            }
            let Some(first) = sealing.pop_front() else { continue };
            let (row, len) = first.await.map_err(|_| interrupted())??;
            writer.push(&row.to_bytes())?;
            builder.push(row, len, page)?;
            counted(len as u64);
            done += 1;
        }
        let (manifest, hash) = builder.finish(page)?;
        let roots = if manifest.is_paged() { manifest.rows } else { Vec::new() };
        Ok((hash, roots))
    }

    /// Reads a chunk and seals it beside the tasks.
    fn begin_row(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        file: &Arc<dyn File>,
        length: u64,
        index: u64,
        mut slot: Slot,
    ) -> Sealing {
        let (done, row) = oneshot::channel();
        let (shared, keys, file) = (self.clone(), keys.clone(), file.clone());
        self.sys.spawn.run(Box::new(move || {
            let wanted = chunk::chunk_len(length, index);
            let mut chunk = ChunkBuf::recycle(slot.buffer(), wanted);
            let read = file.read_at(&mut chunk.space()[..wanted], index * CHUNK_LEN as u64);
            let row = match read {
                Ok(len) if len == wanted => {
                    chunk.set_len(len);
                    let place = Place::of(index, chunk::chunk_count(length));
                    let sealed = shared.sealers.seal(&keys, place, false, chunk);
                    slot.put_back(sealed.bytes);
                    Ok((sealed.row, len))
                }
                Ok(_) => Err(IndexError::Changed),
                Err(err) => Err(err.into()),
            };
            drop(slot);
            // Nobody may wait any more, because another chunk could not be read.
            drop(done.send(row));
        }));
        row
    }
}

/// Whether nothing tells that a file has other bytes than before.
pub(super) fn same_content(now: &Stamp, before: &Stamp) -> bool {
    // Other permission bits change the time of the last change as well: then the bytes are read.
    now == before
}

fn interrupted() -> io::Error {
    io::ErrorKind::Interrupted.into()
}
