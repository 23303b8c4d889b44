//! Searching: from what a person typed to a question of the brain, and from what fits to what is
//! said of it. Owns nothing of the rule; names of members are known here.

use super::files::millis;
use super::{Error, Outcome};
use crate::core::catalogue::{AUTHOR, Node as TreeNode};
use crate::core::hlc;
use crate::core::search::{Owner, Query};
use crate::core::tree::Hit;
use crate::id::NodeId;
use crate::node::Shared;
use crate::node::view::View;
use crate::wire::control::{FileKind, FoundInfo, PathText, RESULTS, RESULTS_MAX, Search, Searched};
use std::sync::Arc;

impl Shared {
    /// What fits, the best first.
    pub(super) async fn search(
        self: &Arc<Self>,
        search: Search,
    ) -> Outcome<(Vec<FoundInfo>, Searched)> {
        // Without keys every name is sealed: an empty list would be a lie.
        self.wait_for_keys().await?;
        let shared = self.clone();
        // It reads a table from front to back: not where others wait.
        self.job(move || shared.searched(&search)).await?
    }

    fn searched(&self, search: &Search) -> Outcome<(Vec<FoundInfo>, Searched)> {
        let began = self.sys.clock.now();
        let view = self.view();
        let members = view.members.values();
        let members: Vec<(Owner, String)> =
            members.map(|member| (owner(&member.record.id), member.name())).collect();
        let meant = search.owner.as_ref().map(|text| match &view.find(text)[..] {
            [] => Err(Error::UnknownPeer),
            found => Ok(found.iter().map(owner).collect()),
        });
        let now_ms = self.sys.clock.wall_ms();
        let query = Query::parse(search, now_ms, &members, meant.transpose()?)?;
        let limit = search.limit.unwrap_or(RESULTS).min(RESULTS_MAX);
        let hits = self.with_tree(|tree| Ok(tree.search(&query, limit)?))?;
        let found = hits.found.into_iter().map(|hit| info(&view, hit)).collect();
        let took_ms = millis(self.sys.clock.now().since(began));
        Ok((found, Searched { looked: hits.looked, fit: hits.fit, took_ms }))
    }
}

/// By what a node is known to a search.
fn owner(id: &NodeId) -> Owner {
    const { assert!(AUTHOR == size_of::<Owner>()) };
    *id.0.first_chunk().expect("an id is longer")
}

fn info(view: &View, hit: Hit) -> FoundInfo {
    let version = hit.version;
    let (kind, hash, size) = match &version.node {
        TreeNode::File(file) => (FileKind::File, Some(file.hash), file.size),
        TreeNode::Dir { .. } => (FileKind::Dir, None, 0),
        TreeNode::Link(target) => (FileKind::Link, None, target.len() as u64),
        TreeNode::Special(_) => (FileKind::Special, None, 0),
        TreeNode::Shared(file) => (FileKind::File, Some(file.version.hash), file.version.size),
    };
    FoundInfo {
        path: PathText(hit.path),
        shared: matches!(version.node, TreeNode::Shared(_)),
        kind,
        hash,
        size,
        time_ms: hlc::ms_of(version.clock),
        owner: view.name(&version.author),
        tags: version.attributes.tags(),
        rank: hit.rank.cost,
    }
}
