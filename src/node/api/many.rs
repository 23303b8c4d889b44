//! Storing many files, directories and links at once: what is the same already is not read, the
//! bytes of the others are stored side by side, and all are written down in one step.

use super::commit::{Other, Prepared};
use super::files::millis;
use super::{Error, Outcome};
use crate::core::catalogue::{Attributes, Node as TreeNode, is_released};
use crate::core::hlc;
use crate::core::tree::{Tree, TreeError, Version};
use crate::crypto::EpochKeys;
use crate::node::records::{Snapshot, stopping};
use crate::node::replicate::Promise;
use crate::node::{OnProgress, PublishError, Shared, joined};
use crate::sys::Source;
use crate::wire::control::{PathText, Put, PutItem, PutMany, PutWhat, StoredMany};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// Files that are stored side by side: enough that each sync is for many.
const AT_ONCE: usize = 32;
/// A file that was modified within this time before it was put may have been modified again since,
/// without its modification time telling: file systems count in ticks of their own.
const TICK_MS: u64 = 2_000;

/// What came of a [`PutMany`].
#[derive(Debug)]
pub struct ManyStored {
    /// What was stored; its list of failures is empty.
    pub stored: StoredMany,
    /// What was not, and why.
    pub failed: Vec<(PathText, Error)>,
}

/// What is to be done about the items.
struct Sorted {
    files: VecDeque<(Put, Box<dyn Source>)>,
    others: Vec<Other>,
    stored: StoredMany,
}

impl Shared {
    pub(super) async fn put_many(
        self: &Arc<Self>,
        many: PutMany,
        sources: Vec<Box<dyn Source>>,
        progress: OnProgress,
    ) -> Outcome<ManyStored> {
        let began = self.sys.clock.now();
        let keys = self.wait_for_keys().await?;
        let same = self.whole(|| self.which_are_same(&many)).await?;
        let Sorted { files, others, mut stored } = self.sort(&many, sources, &same)?;
        let mut failed = Vec::new();
        let summed = Summed::new(stored.unchanged_bytes, &progress);
        let files = self.prepare_all(files, &keys, &summed, &mut failed).await?;
        let needed = Promise::now(&self.view(), self.copies_wanted(many.replicas)).nodes;
        let (files, others) = self.write_down(&keys, files, others, needed).await?;
        for other in others {
            match (other.failed, other.target) {
                (Some(err), _) => failed.push((other.path, err)),
                (None, Some(_)) => stored.files += 1,
                (None, None) => stored.dirs += 1,
            }
        }
        let written = self.sys.clock.now();
        let mut settling = Vec::with_capacity(files.len());
        for mut file in files {
            if let (Some(err), Some(path)) = (file.failed.take(), &file.put.path) {
                failed.push((path.clone(), err));
                continue;
            }
            let waited = millis(self.sys.clock.now().since(written));
            file.put.timeout_ms = many.timeout_ms.map(|most| most.saturating_sub(waited));
            let one = self.finished(&file, &progress, began, &mut settling).await?;
            if file.known {
                stored.unchanged += 1;
                stored.unchanged_bytes = stored.unchanged_bytes.saturating_add(one.size);
            } else {
                stored.add_file(&one);
            }
        }
        self.note_copies_later(settling);
        stored.took_ms = millis(self.sys.clock.now().since(began));
        Ok(ManyStored { stored, failed })
    }

    /// Which items are there already, as far as that can be told without reading them.
    fn which_are_same(&self, many: &PutMany) -> Outcome<Vec<bool>> {
        let keyring = self.catalogue.keyring();
        Ok(self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            many.items.iter().map(|item| is_same(view, &tree, item, many)).collect()
        })?)
    }

    /// Says of each item what is to be done about it.
    fn sort(
        &self,
        many: &PutMany,
        sources: Vec<Box<dyn Source>>,
        same: &[bool],
    ) -> Outcome<Sorted> {
        let (files, others, mut stored) = (VecDeque::new(), Vec::new(), StoredMany::nothing());
        stored.replicas = self.copies_wanted(many.replicas);
        stored.nodes_with_room = u32::try_from(self.view().with_room()).unwrap_or(u32::MAX);
        let mut sorted = Sorted { files, others, stored };
        let mut sources = sources.into_iter();
        for (item, same) in many.items.iter().zip(same) {
            let source = match item.what {
                PutWhat::File { .. } => sources.next(),
                PutWhat::Dir | PutWhat::Link { .. } => None,
            };
            match &item.what {
                PutWhat::File { len } if *same => {
                    sorted.stored.unchanged += 1;
                    sorted.stored.unchanged_bytes += len;
                }
                PutWhat::File { len } => {
                    let source = source.ok_or(Error::NoSource)?;
                    sorted.files.push_back((put_of(many, item, *len), source));
                }
                PutWhat::Link { .. } if *same => sorted.stored.unchanged += 1,
                PutWhat::Dir | PutWhat::Link { .. } => sorted.others.push(other(item)),
            }
        }
        Ok(sorted)
    }

    /// Stores the bytes of files, some at a time; those that cannot be stored are noted.
    async fn prepare_all(
        self: &Arc<Self>,
        mut files: VecDeque<(Put, Box<dyn Source>)>,
        keys: &Arc<EpochKeys>,
        summed: &Summed,
        failed: &mut Vec<(PathText, Error)>,
    ) -> Outcome<Vec<Prepared>> {
        let mut storing = JoinSet::new();
        let mut prepared = Vec::with_capacity(files.len());
        loop {
            while storing.len() < AT_ONCE
                && let Some((put, source)) = files.pop_front()
            {
                let (shared, keys, progress) = (self.clone(), keys.clone(), summed.of_one());
                storing.spawn(async move {
                    let path = put.path.clone().unwrap_or_else(|| "/".into());
                    let done = shared.prepare(put, &keys, source, progress).await;
                    done.map_err(|err| (path, err))
                });
            }
            let Some(done) = storing.join_next().await else { return Ok(prepared) };
            match joined(done) {
                Some(Ok(file)) => prepared.push(file),
                Some(Err(why)) => failed.push(why),
                None => return Err(PublishError::from(stopping()).into()),
            }
        }
    }
}

/// Tells of all files together how far they are.
struct Summed {
    done: Arc<AtomicU64>,
    progress: OnProgress,
}

impl Summed {
    fn new(done: u64, progress: &OnProgress) -> Self {
        Self { done: Arc::new(AtomicU64::new(done)), progress: progress.clone() }
    }

    fn of_one(&self) -> OnProgress {
        let (all, progress) = (self.done.clone(), self.progress.clone());
        let before = AtomicU64::new(0);
        Arc::new(move |done, _| {
            let step = done.saturating_sub(before.fetch_max(done, Ordering::Relaxed));
            progress(all.fetch_add(step, Ordering::Relaxed) + step, None);
        })
    }
}

/// Whether an item is there already. Of a file the length and the modification time tell, unless it
/// was modified when it was put.
fn is_same(
    view: &Snapshot<'_>,
    tree: &Tree<'_>,
    item: &PutItem,
    many: &PutMany,
) -> io::Result<bool> {
    let entry = match tree.resolve(&item.path.0) {
        Ok(entry) => entry,
        Err(TreeError::Io(err)) => return Err(err),
        Err(_) => return Ok(false),
    };
    let Version { node, attributes, clock, .. } = &entry.version;
    // What a mount notes besides, a put does not know.
    let mut noted = Attributes { changed_ns: None, accessed_ns: None, ..attributes.clone() };
    let mut wanted = attributes_of(item);
    match (&item.what, many.tags.is_empty()) {
        (PutWhat::File { .. }, false) => wanted.set_tags(many.tags.clone()),
        _ => noted.set_tags(Vec::new()),
    }
    if noted != wanted {
        return Ok(false);
    }
    Ok(match (node, &item.what) {
        (TreeNode::File(file), PutWhat::File { len }) => {
            let put_ms = i128::from(hlc::ms_of(*clock));
            let modified_ms = i128::from(item.mtime_ns) / 1_000_000;
            let is_old = modified_ms + i128::from(TICK_MS) < put_ms;
            file.size == *len && is_old && !many.checksum && !is_released(view, &file.claim)?
        }
        (TreeNode::Link(there), PutWhat::Link { target }) => *there == target.0,
        _ => false,
    })
}

fn attributes_of(item: &PutItem) -> Attributes {
    let (mode, mtime_ns) = (item.mode & 0o7777, item.mtime_ns);
    Attributes { mode, mtime_ns, ..Attributes::default() }
}

fn other(item: &PutItem) -> Other {
    let target = match &item.what {
        PutWhat::Link { target } => Some(target.0.clone()),
        PutWhat::File { .. } | PutWhat::Dir => None,
    };
    Other { path: item.path.clone(), attributes: attributes_of(item), target, failed: None }
}

fn put_of(many: &PutMany, item: &PutItem, len: u64) -> Put {
    Put {
        path: Some(item.path.clone()),
        replicas: many.replicas,
        compress: many.compress,
        wait: many.wait,
        timeout_ms: many.timeout_ms,
        len: Some(len),
        mode: Some(item.mode),
        mtime_ns: Some(item.mtime_ns),
        tags: many.tags.clone(),
    }
}
