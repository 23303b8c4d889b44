//! What is asked about pins: to keep a full copy of what is at a path, to let it go, and how far
//! the copies are. What keeps them is `node::worker::pin`.

use super::{Error, Outcome};
use crate::node::Shared;
use crate::node::files::{self, FileError};
use crate::node::pins::Pinned;
use crate::wire::control::{PathText, PinInfo};
use std::sync::Arc;

impl Shared {
    /// Keeps a full copy of what is at a path from now on; with `wait` returns when it is here, or
    /// when all was tried. `progress` gets the bytes that are here.
    pub(super) async fn pin(
        self: &Arc<Self>,
        path: &PathText,
        wait: bool,
        progress: impl Fn(u64) + Send,
    ) -> Outcome<PinInfo> {
        self.wait_for_keys().await?;
        if *self.draining.borrow() {
            return Err(Error::Draining);
        }
        self.whole(|| Ok(self.with_tree(|tree| tree.resolve(&path.0).map(drop))?)).await?;
        let mut told = self.pins.told.subscribe();
        let path = plain(path);
        let asked = self.change_pins(&path, true).await?;
        loop {
            told.borrow_and_update();
            let Some(pinned) = self.pins.list().remove(&path.0) else {
                return Err(Error::NotPinned);
            };
            // Of what was pinned before, what is known of it since the start.
            let known = pinned.through >= asked.unwrap_or(1);
            if known || !wait {
                return Ok(info(path, pinned));
            }
            progress(pinned.done);
            // The sender is in `self`.
            told.changed().await.ok();
        }
    }

    /// Keeps no copy of what is at a path any more, unless it should be here anyway.
    pub(super) async fn unpin(self: &Arc<Self>, path: &PathText) -> Outcome<PinInfo> {
        let path = plain(path);
        let pinned = self.pins.list().remove(&path.0).ok_or(Error::NotPinned)?;
        self.change_pins(&path, false).await?.ok_or(Error::NotPinned)?;
        Ok(info(path, pinned))
    }

    pub(super) fn pinned(&self) -> Vec<PinInfo> {
        self.pins.list().into_iter().map(|(path, pinned)| info(PathText(path), pinned)).collect()
    }

    async fn change_pins(self: &Arc<Self>, path: &PathText, pin: bool) -> Outcome<Option<u64>> {
        let (shared, path) = (self.clone(), path.clone());
        let changed = self.job(move || {
            let save = |paths: Vec<Vec<u8>>| {
                let bytes: usize = paths.iter().map(Vec::len).sum();
                if paths.len() > files::PINS_MAX || bytes > files::PINNED_MAX {
                    return Err(Error::TooManyPins);
                }
                let save = files::save_pins(&*shared.sys.fs, &shared.config.data_dir, paths);
                save.map_err(|err: FileError| Error::from(err))
            };
            shared.pins.change(&path.0, pin, save)
        });
        changed.await?
    }
}

/// The path without a slash at its end.
fn plain(path: &PathText) -> PathText {
    let end = path.0.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    PathText(path.0[..end].to_vec())
}

fn info(path: PathText, pinned: Pinned) -> PinInfo {
    let Pinned { files, bytes, missing, why, through, .. } = pinned;
    PinInfo { path, files, bytes, missing, why, known: through > 0 }
}
