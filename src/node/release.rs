//! Letting content go, and keeping what somebody still needs of it. Owns the records that end
//! claims, and the new claim for a file that has a name although its claim was released: somebody
//! changed or restored it while somebody else, who had not heard of that, let it go.
//!
//! Invariant: nothing is let go that a version needs which is known here, and nothing by a clock
//! that the other members do not believe.

use super::again::Holders;
use super::get::OpenFile;
use super::publish::Publication;
use super::records::FoundRecord;
use super::replicate::Promise;
use super::{GetError, PublishError, Shared};
use crate::core::catalogue::{
    FileRecord, FileVersion, Node as TreeNode, RELEASED_MAX, Record, Release, Scope, View as _,
    id_of,
};
use crate::core::hlc;
use crate::core::tree::{NewFile, TreeError, Version};
use crate::crypto::EpochKeys;
use crate::id::{ChunkId, ClaimId, InodeId, NodeId};
use crate::store::Claim;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Why something was not let go or not kept; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReleaseError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Get(#[from] GetError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There are too many chunks to compare; they go with the whole file.
    #[error("the file is too large to let single versions of it go")]
    TooLarge,
    /// Some chunks are not on enough nodes just now.
    #[error("not all of its chunks can be claimed")]
    Unclaimed,
}

impl ReleaseError {
    /// Whether a version that cannot be read because of this will not be readable later.
    fn is_for_good(&self) -> bool {
        match self {
            Self::Get(GetError::Unavailable(missing)) => missing.silent.is_empty(),
            Self::Get(GetError::NotFound { .. } | GetError::Corrupt(_)) | Self::TooLarge => true,
            Self::Get(_) | Self::Publish(_) | Self::Tree(_) | Self::Io(_) | Self::Unclaimed => {
                false
            }
        }
    }
}

impl Shared {
    /// Whether it is this node's turn to do what any member may do for a claim: its place in an
    /// order that all members agree on, 0 first.
    pub(super) fn turn(&self, claim: &ClaimId) -> usize {
        let score = |id: &NodeId| *blake3::hash(&[&claim.0[..], &id.0].concat()).as_bytes();
        let mine = score(&self.me);
        self.view().others().filter(|member| score(&member.record.id) < mine).count()
    }

    /// Lets everything go that these claims are for; `judged_ms` is the wall clock by which that
    /// was found right.
    pub(super) async fn release(
        self: &Arc<Self>,
        claims: &[ClaimId],
        judged_ms: u64,
    ) -> Result<(), ReleaseError> {
        let releases: Vec<Release> =
            claims.iter().map(|claim| Release { claim: *claim, scope: Scope::All }).collect();
        self.publish_releases(releases, judged_ms).await
    }

    /// Lets superseded versions of a file go, but for the chunks that other versions need.
    pub(super) async fn release_versions(
        self: &Arc<Self>,
        claim: ClaimId,
        ended: &[Version],
        kept: &[Version],
        judged_ms: u64,
    ) -> Result<(), ReleaseError> {
        let mut cids = BTreeSet::new();
        for version in ended {
            match self.cids_of(version).await {
                Ok(of) => cids.extend(of),
                // It ends all the same, and its chunks go with the file.
                Err(err) if err.is_for_good() => {
                    tracing::debug!(record = %version.record, %err, "its chunks are kept");
                }
                Err(err) => return Err(err),
            }
        }
        for version in kept {
            for cid in self.cids_of(version).await? {
                cids.remove(&cid);
            }
        }
        let made = ended.iter().map(|version| hlc::ms_of(version.clock));
        // What was claimed later than the newest of them was made is for a version after it.
        let until_ms = made.max().unwrap_or(0).min(hlc::ms_of(self.tick()));
        let mut versions: Vec<_> = ended.iter().map(|version| version.record).collect();
        versions.sort_unstable();
        versions.dedup();
        let cids: Vec<ChunkId> = cids.into_iter().collect();
        let release = |versions, chunks: &[ChunkId]| Release {
            claim,
            scope: Scope::Versions { until_ms, versions, chunks: chunks.to_vec() },
        };
        let mut releases: Vec<Release> =
            cids.chunks(RELEASED_MAX).map(|chunks| release(Vec::new(), chunks)).collect();
        // That the versions have ended is said last: until then somebody else begins again.
        match releases.last_mut().map(|last| &mut last.scope) {
            Some(Scope::Versions { versions: ended, .. }) => *ended = versions,
            _ => releases.push(release(versions, &[])),
        }
        self.publish_releases(releases, judged_ms).await
    }

    /// Lets chunks go that were claimed until then and that no version of the claim has.
    pub(super) async fn release_chunks(
        self: &Arc<Self>,
        claim: ClaimId,
        mut chunks: Vec<ChunkId>,
        until_ms: u64,
    ) -> Result<(), ReleaseError> {
        chunks.sort_unstable();
        let release = |chunks: &[ChunkId]| {
            let (versions, chunks) = (Vec::new(), chunks.to_vec());
            Release { claim, scope: Scope::Versions { until_ms, versions, chunks } }
        };
        let releases = chunks.chunks(RELEASED_MAX).map(release).collect();
        self.publish_releases(releases, until_ms).await
    }

    async fn publish_releases(
        self: &Arc<Self>,
        releases: Vec<Release>,
        judged_ms: u64,
    ) -> Result<(), ReleaseError> {
        // A clock that is ahead takes everything for old. It may have been set right since: the
        // others judge the time by which this was found due, and refuse it.
        let judged = hlc::at_ms(judged_ms);
        let sign = |release: &Release| release.sign(&self.key, self.tick().max(judged));
        let records: Vec<Vec<u8>> =
            releases.iter().map(sign).collect::<Result<_, _>>().map_err(PublishError::from)?;
        let needed = 1 + self.view().others().take(1).count();
        self.publish(Publication { records, needed, ..Publication::default() }).await?;
        Ok(())
    }

    /// Every chunk of a version of a file.
    async fn cids_of(self: &Arc<Self>, version: &Version) -> Result<Vec<ChunkId>, ReleaseError> {
        let TreeNode::File(file) = &version.node else { return Ok(Vec::new()) };
        if file.size == 0 {
            return Ok(Vec::new());
        }
        let (opened, _) = self.open_version(file).await?;
        let (cids, _) = self.all_cids(&opened).await.ok_or(ReleaseError::TooLarge)?;
        Ok(cids)
    }

    /// Opens a version by the file record that was written with it, released or not.
    pub(super) async fn open_version(
        self: &Arc<Self>,
        version: &FileVersion,
    ) -> Result<(OpenFile, Arc<EpochKeys>), ReleaseError> {
        let record = self.record_of(version)?;
        let Some(record) = record else {
            return Err(GetError::NotFound { asked: 0, unreachable: 0 }.into());
        };
        let keys = record.keys.clone();
        let file = self.open_file(version.hash, &mut vec![record]).await?;
        Ok((file, keys))
    }

    /// The file record that was written with a version, released or not.
    pub(super) fn record_of(&self, version: &FileVersion) -> io::Result<Option<FoundRecord>> {
        let Some(id) = version.record else { return Ok(None) };
        let keyring = self.catalogue.keyring();
        self.read_records(|view| {
            let Some(bytes) = view.record(&id)? else { return Ok(None) };
            let header = Record::parse(bytes).map_err(io::Error::other)?.header;
            let file = crate::core::catalogue::file_record(view, &id)?;
            // Nobody can claim chunks of a file that its author serves in place.
            let file = file.filter(|file| !file.is_shared());
            let keys = keyring.get(&header.epoch).cloned().map(Arc::new);
            let author = header.author;
            Ok(file.zip(keys).map(|(record, keys)| FoundRecord { author, record, keys }))
        })
    }

    /// Gives a file that has a name although its claim `released` was released a claim of its own:
    /// its winning version, which comes first, and its conflict copies. False, and nothing has
    /// changed, when the file was removed or changed meanwhile.
    pub(super) async fn reissue(
        self: &Arc<Self>,
        released: &ClaimId,
        inode: InodeId,
        versions: &[Version],
    ) -> Result<bool, ReleaseError> {
        let now = hlc::ms_of(self.tick());
        let mut claim = Claim { id: ClaimId(self.sys.rng.bytes()), replicas: 1, renewed_ms: now };
        let mut records = Vec::new();
        let mut winner = None;
        for version in versions {
            let TreeNode::File(file) = &version.node else { continue };
            let (opened, keys) = self.open_version(file).await?;
            claim.replicas = opened.record.replicas;
            self.claim_all(&opened, claim, Holders::Last).await.ok_or(ReleaseError::Unclaimed)?;
            let record = FileRecord { claim: claim.id, ..opened.record };
            let signed = record.sign(&self.key, self.tick(), keys.epoch());
            let signed = signed.map_err(PublishError::from)?;
            let version = NewFile {
                version: FileVersion {
                    claim: claim.id,
                    record: Some(id_of(&signed)),
                    ..file.clone()
                },
                attributes: version.attributes.clone(),
            };
            winner.get_or_insert(version);
            records.push(signed);
        }
        let Some(winner) = winner else { return Ok(false) };
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let keys = self.keys().map_err(|_| ReleaseError::Unclaimed)?;
        // Seconds have passed: what is planned is judged by what is known now.
        let kept: Result<_, ReleaseError> = self.sign_plan(&keys, |planner| {
            planner.keep(released, (inode, versions), winner).map_err(ReleaseError::from)
        });
        match kept {
            Ok((_, kept)) => records.extend(kept),
            Err(ReleaseError::Tree(TreeError::NotFound)) => return Ok(false),
            Err(err) => return Err(err),
        }
        let needed = Promise::now(&self.view(), claim.replicas).nodes;
        let (commits, planned) = (vec![claim.id], Some(planning));
        self.publish(Publication { records, commits, needed, planned, attempts: Vec::new() })
            .await?;
        Ok(true)
    }
}
