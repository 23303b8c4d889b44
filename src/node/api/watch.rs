//! News of the tree as they come, of one path and what is below it. Owns which of them are told and
//! what is said to a reader who was too slow; what is news, the tree says.
//!
//! Invariant: a reader who does not read costs a bounded queue, and stops nobody.

use super::{Changed, Outcome};
use crate::core::catalogue::known;
use crate::core::hlc;
use crate::core::tree::{Entry, NewsDeed, Tree, TreeNews};
use crate::id::RecordId;
use crate::node::Shared;
use crate::node::records::Snapshot;
use crate::wire::control::{Event, PathText, Watched};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Records that are remembered so that none is told of twice: one that waited is announced when it
/// comes and when it is applied.
const TOLD_MAX: usize = 1024;

/// A stream of what happens at a path and below it. One that is read too slowly is told how much
/// it has missed.
pub struct Watch {
    shared: Arc<Shared>,
    news: broadcast::Receiver<Changed>,
    path: Vec<u8>,
    /// What the last record changed and was not read yet.
    queue: VecDeque<Watched>,
    told: VecDeque<RecordId>,
}

impl Shared {
    /// What happens at a path from now on.
    pub(super) async fn watch(self: &Arc<Self>, path: &PathText) -> Outcome<Watch> {
        self.wait_for_keys().await?;
        // Nothing that happens after the look at the path is missed.
        let news = self.changes.subscribe();
        self.with_tree(|tree| tree.resolve(&path.0))?;
        let path = path.0.strip_suffix(b"/").unwrap_or(&path.0).to_vec();
        let (queue, told) = (VecDeque::new(), VecDeque::new());
        Ok(Watch { shared: self.clone(), news, path, queue, told })
    }

    /// What a record changed, with what is said of it; none: the record is not applied yet.
    fn news_of(&self, id: &RecordId) -> io::Result<Option<Vec<Watched>>> {
        let keyring = self.catalogue.keyring();
        self.read_records(|view| {
            if known(view, id)?.is_none() {
                return Ok(None);
            }
            let news = Tree::new(view, &keyring).news(id)?;
            Ok(Some(news.into_iter().map(|one| self.watched(view, one)).collect()))
        })
    }

    fn watched(&self, view: &Snapshot<'_>, news: TreeNews) -> Watched {
        let TreeNews { path, deed, clock, author } = news;
        let (time_ms, by) = (hlc::ms_of(clock), self.view().name(&author));
        let at = PathText(path);
        let file = |entry: &Entry| self.file_info(view, at.clone(), entry);
        match &deed {
            NewsDeed::Created(entry) => Watched::Created { file: file(entry) },
            NewsDeed::Changed(entry) => Watched::Changed { file: file(entry) },
            NewsDeed::Conflict(entry) => Watched::Conflict { file: file(entry) },
            NewsDeed::Moved(entry, from) => {
                let from = from.clone().map(PathText);
                Watched::Moved { from, file: file(entry), moved_ms: time_ms, moved_by: by }
            }
            NewsDeed::Removed => Watched::Removed { path: at, time_ms, by },
        }
    }

    /// What a record changed, as events, last first.
    pub(super) fn record_events(&self, id: &RecordId) -> Vec<Event> {
        let news = self.news_of(id).unwrap_or_default().unwrap_or_default();
        let mut events: Vec<Event> = news.into_iter().flat_map(events_of).collect();
        events.reverse();
        events
    }
}

fn events_of(news: Watched) -> Vec<Event> {
    match news {
        Watched::Created { file } | Watched::Changed { file } | Watched::Conflict { file } => {
            vec![Event::Changed { file }]
        }
        Watched::Moved { from, file, .. } => {
            let gone = from.map(|path| Event::Removed { path });
            gone.into_iter().chain([Event::Changed { file }]).collect()
        }
        Watched::Removed { path, .. } => vec![Event::Removed { path }],
        Watched::Missed { .. } => Vec::new(),
    }
}

impl Watch {
    /// What happens next; none when the node has ended.
    pub async fn next(&mut self) -> Option<Watched> {
        let mut fatal = self.shared.fatal.subscribe();
        loop {
            if let Some(next) = self.queue.pop_front() {
                return Some(next);
            }
            let news = tokio::select! {
                biased;
                news = self.news.recv() => news,
                _ = fatal.wait_for(Option::is_some) => return None,
            };
            match news {
                Ok(Changed::Record(id)) => self.look_at(id).await,
                Ok(Changed::Member(_)) => {}
                Err(RecvError::Lagged(count)) => return Some(Watched::Missed { count }),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn look_at(&mut self, id: RecordId) {
        if self.told.contains(&id) {
            return;
        }
        let shared = self.shared.clone();
        let news = self.shared.job(move || shared.news_of(&id)).await.flatten();
        let news = match news {
            Ok(Some(news)) => news,
            Ok(None) => return,
            Err(err) => return tracing::warn!(%err, "news of the tree cannot be read"),
        };
        if !news.is_empty() {
            self.told.truncate(TOLD_MAX - 1);
            self.told.push_front(id);
        }
        let path = &self.path;
        self.queue.extend(news.into_iter().filter(|one| is_below(path, one)));
    }
}

/// Whether something happened at a path or below it.
fn is_below(path: &[u8], news: &Watched) -> bool {
    let below = |at: &PathText| {
        at.0.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    match news {
        Watched::Created { file } | Watched::Changed { file } => below(&file.path),
        // The copy of a file stands beside it.
        Watched::Conflict { file } => {
            below(&file.path) || file.path.0.strip_prefix(path).is_some_and(is_copy)
        }
        Watched::Moved { from, file, .. } => below(&file.path) || from.as_ref().is_some_and(below),
        Watched::Removed { path, .. } => below(path),
        Watched::Missed { .. } => true,
    }
}

fn is_copy(rest: &[u8]) -> bool {
    rest.starts_with(b".conflict-")
}
