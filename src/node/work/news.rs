//! What programs were told and is not so any more: the others have changed it. Owns how records
//! become such news, and that a content which nobody edits is the others' from then on.

use super::door::Work;
use super::{NO_DOOR, State, WorkError};
use crate::core::catalogue::{Change, Checked, Node as TreeNode, Target, View as _};
use crate::core::hlc;
use crate::core::tree::Tree;
use crate::core::work::{Number, What};
use crate::id::{InodeId, RecordId};
use crate::node::api::Changed;
use crate::node::lock;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::broadcast;

/// News that are told at once.
const BATCH: usize = 256;

/// Something that is not as programs were told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// An inode: its attributes, and its content if it is a file.
    Inode(u64),
    /// A name in a directory.
    Name(u64, Vec<u8>),
}

/// Something that was changed through a door of this node.
#[derive(Debug, Clone)]
pub(super) struct Told {
    by: u64,
    stale: Stale,
}

/// A stream of such news.
pub struct News {
    work: Work,
    records: broadcast::Receiver<Changed>,
    others: broadcast::Receiver<Told>,
}

impl Work {
    /// What changes from now on by others than the programs that use this door.
    pub fn news(&self) -> News {
        let records = self.shared.changes.subscribe();
        News { work: self.clone(), records, others: self.shared.work.stale.subscribe() }
    }

    /// Tells all doors, this one among them.
    pub(super) fn tell_all(&self, stale: impl IntoIterator<Item = Stale>) {
        Self { shared: self.shared.clone(), door: NO_DOOR }.tell_others(stale);
    }

    /// Tells the other doors what was changed through this one, which knows: it may not even be
    /// told, because its system waits for the answer to the change.
    pub(super) fn tell_others(&self, stale: impl IntoIterator<Item = Stale>) {
        let listeners = &self.desk().stale;
        if listeners.receiver_count() > usize::from(self.door != NO_DOOR) {
            for stale in stale {
                // The last listener may just have gone.
                listeners.send(Told { by: self.door, stale }).ok();
            }
        }
    }
}

impl News {
    /// The next news; none when the node has ended. Who is too slow misses some: then everything
    /// of which the content is remembered is news, and what programs were told of names and of the
    /// attributes of others is right again after a while.
    pub async fn next(&mut self) -> Option<Vec<Stale>> {
        loop {
            tokio::select! {
                biased;
                other = self.others.recv() => match other {
                    Ok(told) => {
                        let stale = self.with_more(told);
                        if !stale.is_empty() {
                            return Some(stale);
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => return Some(self.missed()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                record = self.records.recv() => match record {
                    Ok(Changed::Record(id)) => match self.work.stale_by(&id) {
                        Ok(stale) if stale.is_empty() => {}
                        Ok(stale) => return Some(stale),
                        Err(err) => tracing::debug!(%err, "news of a record cannot be told"),
                    },
                    Ok(Changed::Member(_)) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return Some(self.missed()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl News {
    /// What was told by others, and what was told since: a program that writes says the same often.
    fn with_more(&mut self, first: Told) -> Vec<Stale> {
        let mut all = BTreeSet::new();
        let mut next = Ok(first);
        loop {
            match next {
                Ok(told) if told.by != self.work.door => _ = all.insert(told.stale),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(_)) => all.extend(self.missed()),
                Err(_) => break,
            }
            if all.len() >= BATCH {
                break;
            }
            next = self.others.try_recv();
        }
        all.into_iter().collect()
    }

    /// What may be news after some was missed: what that was is in the tree already.
    fn missed(&self) -> Vec<Stale> {
        self.work.remembered().unwrap_or_else(|err| {
            tracing::warn!(%err, "programs may see former content for a while");
            Vec::new()
        })
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
                state.stale(tree, (id, &change), made_ns, &mut out)?;
            }
            Ok(out)
        })
    }
}

impl Work {
    /// Every file of which the content is remembered, and is the others' now unless it is edited.
    fn remembered(&self) -> Result<Vec<Stale>, WorkError> {
        let state = &mut *lock(&self.shared.work.state);
        let bodies: Vec<_> = state.bodies.values().cloned().collect();
        self.shared.tree(|tree| {
            let mut out = Vec::with_capacity(bodies.len());
            for body in &bodies {
                state.work.find_names(tree, &body.id)?;
                state.follow(tree, &body.id)?;
                out.push(Stale::Inode(state.number(tree, body.id)?));
            }
            Ok(out)
        })
    }
}

impl State {
    /// A content that nobody edits becomes the newest one.
    fn follow(&mut self, tree: &Tree<'_>, id: &InodeId) -> Result<(), WorkError> {
        if let Some(body) = self.bodies.get(id).map(Arc::clone)
            && let Some(now) = self.work.inode(tree, id)?
            && let What::File(Some(version)) = now.what
        {
            body.lock().rebase(&version);
        }
        Ok(())
    }

    fn stale(
        &mut self,
        tree: &Tree<'_>,
        (id, change): (&RecordId, &Change),
        made_ns: i64,
        out: &mut Vec<Stale>,
    ) -> Result<(), WorkError> {
        match change {
            Change::Entry { parent, name, target } => {
                let mut kept = match target {
                    Target::Kept(inode) => tree.keeps_name(id, (parent, name), inode)?,
                    _ => false,
                };
                if let Target::Linked(id) | Target::Kept(id) | Target::Moved(id) = target
                    && self.work.find_names(tree, id)?
                {
                    kept = false;
                    out.push(Stale::Inode(self.number(tree, *id)?));
                }
                // The system would take the name away from programs that have it open.
                if !kept {
                    self.stale_name(tree, *parent, name.as_bytes(), made_ns, out)?;
                }
            }
            Change::Inode { inode, node, .. } => {
                if let TreeNode::Dir { place, previous } = node
                    && !place.as_ref().map_or(Ok(false), |at| tree.keeps_place(id, inode, at))?
                {
                    for at in [place, previous].into_iter().flatten() {
                        self.stale_name(tree, at.parent, at.name.as_bytes(), made_ns, out)?;
                    }
                }
                self.follow(tree, inode)?;
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

    pub(super) fn number(&mut self, tree: &Tree<'_>, id: InodeId) -> Result<u64, WorkError> {
        Ok(self.numbers.of(tree, &self.work, Number::Inode(id))?)
    }
}
