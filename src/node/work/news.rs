//! What programs were told and is not so any more: the others have changed it. Owns how records
//! become such news, and that a content which nobody edits is the others' from then on.

use super::door::Work;
use super::{State, WorkError};
use crate::core::catalogue::{Change, Checked, Node as TreeNode, View as _};
use crate::core::hlc;
use crate::core::tree::Tree;
use crate::core::work::{Number, What};
use crate::id::{InodeId, RecordId};
use crate::node::api::Changed;
use crate::node::lock;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Something that is not as programs were told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// An inode: its attributes, and its content if it is a file.
    Inode(u64),
    /// A name in a directory.
    Name(u64, Vec<u8>),
}

/// A stream of such news.
pub struct News {
    work: Work,
    records: broadcast::Receiver<Changed>,
    others: broadcast::Receiver<Stale>,
}

impl Work {
    /// What changes from now on by others than the programs that use the mounts of this node.
    pub fn news(&self) -> News {
        let records = self.shared.changes.subscribe();
        News { work: self.clone(), records, others: self.shared.work.stale.subscribe() }
    }
}

impl News {
    /// The next news; none when the node has ended. Who is too slow misses some: what programs
    /// were told is right again after a while.
    pub async fn next(&mut self) -> Option<Vec<Stale>> {
        loop {
            tokio::select! {
                biased;
                other = self.others.recv() => match other {
                    Ok(stale) => return Some(vec![stale]),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                record = self.records.recv() => match record {
                    Ok(Changed::Record(id)) => match self.work.stale_by(&id) {
                        Ok(stale) if stale.is_empty() => {}
                        Ok(stale) => return Some(stale),
                        Err(err) => tracing::debug!(%err, "news of a record cannot be told"),
                    },
                    Ok(Changed::Member(_)) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl Work {
    /// What a record makes stale.
    fn stale_by(&self, id: &RecordId) -> Result<Vec<Stale>, WorkError> {
        let shared = &self.shared;
        let state = &mut *lock(&shared.work.state);
        if state.written.contains(id) {
            return Ok(Vec::new());
        }
        let keyring = shared.catalogue.keyring();
        let (changes, made_ms) = shared.read_records(|view| {
            let checked = view.record(id)?.and_then(|bytes| Checked::new(bytes).ok());
            let Some(checked) = checked else { return Ok((Vec::new(), 0)) };
            let header = &checked.record().header;
            let opened = keyring.get(&header.epoch).and_then(|keys| checked.record().open(keys));
            Ok((opened.unwrap_or_default(), hlc::ms_of(header.clock)))
        })?;
        let made_ns = i64::try_from(made_ms).unwrap_or(0).saturating_mul(1_000_000);
        shared.tree(|tree| {
            let mut out = Vec::new();
            for change in changes {
                state.stale(tree, &change, made_ns, &mut out)?;
            }
            Ok(out)
        })
    }
}

impl State {
    fn stale(
        &mut self,
        tree: &Tree<'_>,
        change: &Change,
        made_ns: i64,
        out: &mut Vec<Stale>,
    ) -> Result<(), WorkError> {
        match change {
            Change::Entry { parent, name, .. } => {
                self.stale_name(tree, *parent, name.as_bytes(), made_ns, out)?;
            }
            Change::Inode { inode, node, .. } => {
                if let TreeNode::Dir { place, previous } = node {
                    for at in [place, previous].into_iter().flatten() {
                        self.stale_name(tree, at.parent, at.name.as_bytes(), made_ns, out)?;
                    }
                }
                if let Some(body) = self.bodies.get(inode).map(Arc::clone)
                    && let Some(now) = self.work.inode(tree, inode)?
                    && let What::File(Some(version)) = now.what
                {
                    body.lock().rebase(&version);
                }
                out.push(Stale::Inode(self.number(tree, *inode)?));
            }
        }
        Ok(())
    }

    fn stale_name(
        &mut self,
        tree: &Tree<'_>,
        parent: InodeId,
        name: &[u8],
        made_ns: i64,
        out: &mut Vec<Stale>,
    ) -> Result<(), WorkError> {
        self.recent.heard(parent, made_ns);
        let number = self.number(tree, parent)?;
        out.push(Stale::Name(number, name.to_vec()));
        out.push(Stale::Inode(number));
        Ok(())
    }

    fn number(&mut self, tree: &Tree<'_>, id: InodeId) -> Result<u64, WorkError> {
        Ok(self.numbers.of(tree, &self.work, Number::Inode(id))?)
    }
}
