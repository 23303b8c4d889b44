//! Arranging names: directories that are made, and what gets another name. No content moves.

use super::{Error, Outcome};
use crate::core::catalogue::Attributes;
use crate::core::tree::{Planner, TreeError};
use crate::node::Shared;
use crate::wire::control::{Moved, PathText};
use std::sync::Arc;

/// Why something did not get another name. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotMoved {
    /// The path that is in the way, or that leads nowhere.
    pub about: PathText,
    /// Why.
    #[source]
    pub why: Error,
}

impl Shared {
    pub(super) async fn mkdir(self: &Arc<Self>, path: &PathText, parents: bool) -> Outcome<()> {
        let keys = self.wait_for_keys().await?;
        let made = self.whole(|| self.whether_to_make(path, parents)).await?;
        if !made {
            return Ok(());
        }
        let mtime_ns = self.now_ns();
        let attributes = Attributes { mode: 0o755, mtime_ns, ..Attributes::default() };
        self.publish_plans(&keys, &[path], |planner, path| {
            planner.mkdir(&path.0, attributes.clone())
        })
        .await
        .map(drop)
    }

    fn whether_to_make(&self, path: &PathText, parents: bool) -> Outcome<bool> {
        Ok(self.with_tree(|tree| match tree.resolve(&path.0) {
            Ok(entry) if parents && entry.is_dir() => Ok(false),
            Ok(_) => Err(TreeError::Exists),
            Err(TreeError::NotFound) if parents => Ok(true),
            Err(TreeError::NotFound) => {
                let end = path.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                match tree.resolve(&path.0[..end.max(1)]) {
                    Ok(_) => Ok(true),
                    Err(TreeError::NotFound) => Err(TreeError::NoDirectory),
                    Err(err) => Err(err),
                }
            }
            Err(err) => Err(err),
        })?)
    }

    /// Gives what is at `from` the name `to`, or its own name in the directory `to`.
    pub(super) async fn mv(
        self: &Arc<Self>,
        from: &PathText,
        to: &PathText,
    ) -> Result<Moved, NotMoved> {
        let path = self.next_name(from, to).await;
        let path = path.map_err(|why| NotMoved { about: to.clone(), why })?;
        match self.rename(from, &path).await {
            Ok(()) => Ok(Moved { path }),
            // What is there, or is not, is the next name's matter, all else that of the first.
            Err(
                why @ Error::Tree(
                    TreeError::Exists | TreeError::IsADirectory | TreeError::NoDirectory,
                ),
            ) => Err(NotMoved { about: path, why }),
            Err(why) => Err(NotMoved { about: from.clone(), why }),
        }
    }

    async fn rename(self: &Arc<Self>, from: &PathText, to: &PathText) -> Outcome<()> {
        let keys = self.wait_for_keys().await?;
        let rename = |planner: &mut Planner<'_, '_>, to: &&PathText| planner.rename(&from.0, &to.0);
        self.publish_plans(&keys, &[to], rename).await.map(drop)
    }

    /// What something is called after it was moved there: in a directory it keeps its own name.
    async fn next_name(self: &Arc<Self>, from: &PathText, to: &PathText) -> Outcome<PathText> {
        self.wait_for_keys().await?;
        self.whole(|| self.name_there(from, to)).await
    }

    fn name_there(&self, from: &PathText, to: &PathText) -> Outcome<PathText> {
        let there = self.with_tree(|tree| match tree.resolve(&to.0) {
            Ok(entry) => Ok(entry.is_dir()),
            Err(TreeError::NotFound) => Ok(false),
            Err(err) => Err(err),
        })?;
        let own = from.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if !there || own.is_empty() {
            return Ok(to.clone());
        }
        let dir = to.0.strip_suffix(b"/").unwrap_or(&to.0);
        Ok(PathText([dir, b"/", own].concat()))
    }
}
