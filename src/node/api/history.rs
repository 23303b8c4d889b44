//! Former versions: what stood at a name, what `NAME@VERSION` means, and giving an old version
//! back. Owns the claim under which its content is kept then; which versions there are, and how
//! they are called, is the tree's.

use super::{Error, Outcome};
use crate::core::catalogue::{FileRecord, FileVersion, Node as TreeNode, id_of};
use crate::core::hlc;
use crate::core::tree::{
    Deed as TreeDeed, History, Made, NewFile, Planner, Step, Tree, TreeError, Version,
    VersionError, Which, split_version,
};
use crate::crypto::EpochKeys;
use crate::id::{ClaimId, RecordId};
use crate::node::publish::Publication;
use crate::node::records::stopping;
use crate::node::release::ReleaseError;
use crate::node::replicate::Promise;
use crate::node::{PublishError, Shared, joined};
use crate::store::Claim;
use crate::wire::control::{Deed, FileKind, HistoryInfo, PathText};
use std::sync::Arc;

/// How often an old version is claimed for the file that is at its path, when that changes all the
/// time.
const CLAIMED_AGAIN: usize = 3;

/// A former version that is meant.
pub(super) struct Former {
    /// The name, without the version.
    pub path: PathText,
    /// The version.
    pub made: Made,
}

/// Content that is kept under the claim under which it is to be named.
pub(super) struct Kept {
    /// The version as it is named.
    pub version: FileVersion,
    /// The file record that says so, if it is new.
    pub record: Option<Vec<u8>>,
    replicas: u8,
}

impl Shared {
    /// What happened to a name, newest first.
    pub(super) async fn history(self: &Arc<Self>, path: &PathText) -> Outcome<Vec<HistoryInfo>> {
        self.wait_for_keys().await?;
        let history = self.whole(|| Ok(self.with_tree(|tree| tree.history(&path.0))?)).await;
        let history = history.map_err(|err| of_directory(err, path))?;
        Ok(history.steps.iter().map(|step| self.history_info(step)).collect())
    }

    fn history_info(&self, step: &Step) -> HistoryInfo {
        let (what, other) = match &step.deed {
            TreeDeed::Created => (Deed::Created, &None),
            TreeDeed::Edited => (Deed::Edited, &None),
            TreeDeed::Conflict => (Deed::Conflict, &None),
            TreeDeed::MovedFrom(other) => (Deed::MovedFrom, other),
            TreeDeed::MovedTo(other) => (Deed::MovedTo, other),
            TreeDeed::Removed => (Deed::Removed, &None),
            TreeDeed::Restored => (Deed::Restored, &None),
        };
        let mut info = HistoryInfo {
            version: step.made.as_ref().map(|made| made.number),
            what,
            time_ms: hlc::ms_of(step.clock),
            by: self.view().name(&step.author),
            kind: None,
            hash: None,
            size: 0,
            target: None,
            other: other.clone().map(PathText),
            current: step.made.as_ref().is_some_and(|made| made.current),
        };
        match step.made.as_ref().map(|made| &made.version.node) {
            Some(TreeNode::File(file)) => {
                (info.kind, info.hash) = (Some(FileKind::File), Some(file.hash));
                info.size = file.size;
            }
            Some(TreeNode::Link(target)) => {
                (info.kind, info.size) = (Some(FileKind::Link), target.len() as u64);
                info.target = Some(PathText(target.clone()));
            }
            Some(TreeNode::Special(_) | TreeNode::Shared(_)) => info.kind = Some(FileKind::Special),
            Some(TreeNode::Dir { .. }) | None => {}
        }
        info
    }

    /// What a path means as `NAME@VERSION`, when nothing has that very name; none: it has no `@`,
    /// or nothing is known of the name before it.
    pub(super) fn former(&self, tree: &Tree<'_>, path: &PathText) -> Outcome<Option<Former>> {
        let Some((name, version)) = split_version(&path.0) else { return Ok(None) };
        let path = PathText(name.to_vec());
        let history = match tree.history(name) {
            Ok(history) => history,
            Err(TreeError::NotFound | TreeError::BadPath) => return Ok(None),
            Err(err) => return Err(of_directory(err.into(), &path)),
        };
        match self.version_of(&history, version) {
            Ok(made) => Ok(Some(Former { path, made })),
            Err(why) => Err(Error::NoVersion { path, version: version.to_owned(), why }),
        }
    }

    fn version_of(&self, history: &History, version: &str) -> Result<Made, VersionError> {
        let which = Which::parse(version, self.sys.clock.wall_ms());
        history.find(&which.ok_or(VersionError::Unreadable)?).cloned()
    }

    /// Makes an old version the newest one of its name; whether that changed anything. Dropping
    /// the future stops nothing: chunks would stay claimed for a version that nobody sees.
    pub(super) async fn restore_version(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        former: Former,
    ) -> Outcome<bool> {
        let Former { path, made: Made { version, .. } } = former;
        let now = self.with_tree(|tree| tree.resolve(&path.0)).ok().map(|entry| entry.version);
        let same = |now: &Version| {
            now.attributes == version.attributes && same_content(&now.node, &version.node)
        };
        if now.as_ref().is_some_and(same) {
            return Ok(false);
        }
        match version.node.clone() {
            TreeNode::Dir { .. } => return Err(TreeError::IsADirectory.into()),
            TreeNode::Special(_) | TreeNode::Shared(_) => {
                return Err(TreeError::IsSpecial.into());
            }
            TreeNode::Link(target) => {
                self.publish_plans(keys, &[path], |planner, path| {
                    planner.link(&path.0, target.clone(), version.attributes.clone())
                })
                .await?;
            }
            TreeNode::File(file) => {
                let (shared, keys) = (self.clone(), keys.clone());
                let work = async move { shared.restore_file(&keys, &path, &version, &file).await };
                let restored = joined(tokio::spawn(work).await);
                restored.unwrap_or_else(|| Err(PublishError::from(stopping()).into()))?;
            }
        }
        Ok(true)
    }

    async fn restore_file(
        self: &Arc<Self>,
        keys: &EpochKeys,
        path: &PathText,
        version: &Version,
        file: &FileVersion,
    ) -> Outcome<()> {
        let own = ClaimId(self.sys.rng.bytes());
        let claim = || Ok::<_, Error>(self.file_there(path)?.map_or(own, |there| there.claim));
        for _ in 0..CLAIMED_AGAIN {
            let wanted = claim()?;
            let kept = self.keep_version(file, wanted).await?;
            let planning = self.catalogue.planning.clone().lock_owned().await;
            // Meanwhile somebody may have removed the file, or put another one.
            if claim()? != wanted {
                continue;
            }
            let attributes = version.attributes.clone();
            let new = NewFile { version: kept.version.clone(), attributes };
            let plan = |planner: &mut Planner<'_, '_>| -> Outcome<()> {
                planner.put(&path.0, new.clone()).map(drop).map_err(Error::from)
            };
            let ((), named) = self.sign_plan(keys, plan)?;
            let records: Vec<Vec<u8>> = kept.record.into_iter().chain(named).collect();
            let needed = Promise::now(&self.view(), kept.replicas).nodes;
            let (commits, planned, attempts) = (vec![wanted], Some(planning), Vec::new());
            self.publish_names(Publication { records, commits, needed, planned, attempts }).await?;
            return Ok(());
        }
        Err(ReleaseError::Unclaimed.into())
    }

    /// Has the holders of a version keep its chunks for a claim from now on, also where they were
    /// about to let them go.
    pub(super) async fn keep_version(
        self: &Arc<Self>,
        file: &FileVersion,
        under: ClaimId,
    ) -> Result<Kept, ReleaseError> {
        let (opened, keys) = self.open_version(file).await?;
        let renewed_ms = hlc::ms_of(self.tick());
        let replicas = opened.record.replicas;
        let claim = Claim { id: under, replicas, renewed_ms };
        if !self.claim_parts(&opened, claim).await {
            return Err(ReleaseError::Unclaimed);
        }
        if file.claim == under {
            return Ok(Kept { version: file.clone(), record: None, replicas });
        }
        let record = FileRecord { claim: under, ..opened.record };
        let signed = record.sign(&self.key, self.tick(), keys.epoch());
        let signed = signed.map_err(PublishError::from)?;
        let record: Option<RecordId> = Some(id_of(&signed));
        let version = FileVersion { claim: under, record, ..file.clone() };
        Ok(Kept { version, record: Some(signed), replicas })
    }
}

fn same_content(one: &TreeNode, two: &TreeNode) -> bool {
    match (one, two) {
        (TreeNode::File(one), TreeNode::File(two)) => one.hash == two.hash,
        _ => one == two,
    }
}

/// A directory is named as what has no versions.
fn of_directory(err: Error, path: &PathText) -> Error {
    match err {
        Error::Tree(TreeError::IsADirectory) => Error::NoVersion {
            path: path.clone(),
            version: String::new(),
            why: VersionError::Directory,
        },
        err => err,
    }
}
