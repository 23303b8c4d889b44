//! Arranging names: directories that are made, and what gets another name. No content moves.

use super::Outcome;
use crate::core::catalogue::Attributes;
use crate::core::tree::{Planner, TreeError};
use crate::node::Shared;
use crate::wire::control::PathText;
use std::sync::Arc;

impl Shared {
    pub(super) async fn mkdir(self: &Arc<Self>, path: &PathText, parents: bool) -> Outcome<()> {
        let keys = self.wait_for_keys().await?;
        let made = self.whole(|| self.whether_to_make(path, parents)).await?;
        if !made {
            return Ok(());
        }
        let now_ns = i64::try_from(self.sys.clock.wall_ms() * 1_000_000).unwrap_or(i64::MAX);
        let attributes = Attributes { mode: 0o755, mtime_ns: now_ns, ..Attributes::default() };
        self.publish_plans(&keys, &[path], |planner, path| {
            planner.mkdir(&path.0, attributes.clone())
        })
        .await
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

    pub(super) async fn rename(self: &Arc<Self>, from: &PathText, to: &PathText) -> Outcome<()> {
        let keys = self.wait_for_keys().await?;
        let rename = |planner: &mut Planner<'_, '_>, to: &&PathText| planner.rename(&from.0, &to.0);
        self.publish_plans(&keys, &[to], rename).await
    }

    /// What something is called after it was moved there: in a directory it keeps its own name.
    pub(super) async fn next_name(
        self: &Arc<Self>,
        from: &PathText,
        to: &PathText,
    ) -> Outcome<PathText> {
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
