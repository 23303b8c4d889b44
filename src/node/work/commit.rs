//! The worker that makes changes known: it stores versions of files that nobody writes to any
//! more, and writes them down together with names and attributes. Owns when that happens (DESIGN
//! 8): at the last close, after a second of quiet, or every 30 seconds of continuous writing.
//!
//! Changes are gathered for a moment, so that a file that is written under one name and renamed is
//! known under the other one only. While one round runs the next one gathers.

use super::body::Body;
use super::edition::Made;
use super::{State, WRITTEN_MAX, WorkError};
use crate::core::catalogue::{FileVersion, id_of, is_released, known};
use crate::core::hlc;
use crate::core::work::{Edition, Need, Planned};
use crate::id::{InodeId, RecordId};
use crate::node::get::OpenFile;
use crate::node::publish::Publication;
use crate::node::replicate::Promise;
use crate::node::worker::board::Report;
use crate::node::worker::shape::{Next, Worked, Worker};
use crate::node::{PutError, Shared, lock};
use crate::sys::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long changes are gathered after the last one, and after the first one.
const GATHER: Duration = Duration::from_millis(20);
const GATHER_MAX: Duration = Duration::from_millis(200);
/// A file that is open for writing gets a version after so long without a change …
const QUIET: Duration = Duration::from_secs(1);
/// … or since the first one.
const CONTINUOUS: Duration = Duration::from_secs(30);
/// Files of one round, and those of them that are stored side by side.
const FILES: usize = 256;
const AT_ONCE: usize = 16;
/// The pause after a round that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Rounds that somebody waits for.
pub(super) struct Rounds {
    asked: watch::Sender<u64>,
    done: watch::Sender<Round>,
}

/// What a round came to.
#[derive(Clone, Default)]
struct Round {
    number: u64,
    /// Why nothing was written down.
    failed: Option<Arc<WorkError>>,
    /// Why some file has no version yet.
    missing: Option<Arc<WorkError>>,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { asked: watch::Sender::new(0), done: watch::Sender::default() }
    }
}

/// The worker.
pub(in crate::node) struct Commit {
    shared: Arc<Shared>,
    restored: bool,
    files: u64,
    /// Nothing before this, after a failure.
    pause: Option<Time>,
}

impl Commit {
    pub(in crate::node) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, restored: false, files: 0, pause: None }
    }
}

impl Worker for Commit {
    const NAME: &'static str = "commit";

    async fn work(&mut self) -> Worked {
        let now = self.shared.sys.clock.now();
        if !self.restored {
            if self.shared.keys().is_err() {
                return Ok(Next::Idle(now + PAUSE));
            }
            self.shared.restore_drafts().await?;
            self.restored = true;
        }
        let asked = *self.shared.work.rounds.asked.borrow();
        let is_asked = asked > self.shared.work.rounds.done.borrow().number;
        if let Some(pause) = self.pause.filter(|pause| *pause > now && !is_asked) {
            return Ok(Next::Idle(pause));
        }
        let bodies = match self.shared.due(now, is_asked) {
            Due::Now(bodies) => bodies,
            Due::At(at) => return Ok(Next::Idle(at)),
            Due::Never => return Ok(Next::Wait),
        };
        self.files += bodies.len() as u64;
        let written = self.shared.write_down_work(bodies).await;
        let mut round = Round { number: asked, ..Round::default() };
        match written {
            Ok(missing) => round.missing = missing.map(Arc::new),
            Err(err) => round.failed = Some(Arc::new(err)),
        }
        let why = round.failed.as_ref().or(round.missing.as_ref());
        self.pause = why.map(|_| self.shared.sys.clock.now() + PAUSE);
        if let Some(err) = why {
            self.shared.worker_failed(Self::NAME, err);
        }
        self.shared.work.rounds.done.send_replace(round);
        Ok(Next::More)
    }

    async fn wait(&mut self) {
        self.shared.work.changed.notified().await;
    }

    fn report(&self) -> Report {
        let state = lock(&self.shared.work.state);
        let waiting = state.bodies.values().filter(|body| body.lock().is_edited()).count();
        let doing = match waiting {
            0 => String::new(),
            1 => "1 file is edited".to_owned(),
            more => format!("{more} files are edited"),
        };
        Report { doing, moved: self.files, moved_unit: "files", ..Report::default() }
    }
}

/// When there is something to do.
enum Due {
    Now(Vec<Arc<Body>>),
    At(Time),
    Never,
}

impl Shared {
    /// Has everything written down that can be now; with `all` also of files that are still being
    /// written. Why some file has no version yet, if so.
    pub(super) async fn round(self: &Arc<Self>, all: bool) -> Result<Option<WorkError>, WorkError> {
        if all {
            let state = lock(&self.work.state);
            state.bodies.values().for_each(|body| body.lock().urgent = true);
        }
        let rounds = &self.work.rounds;
        let mut done = rounds.done.subscribe();
        let mut number = 0;
        rounds.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        self.work.changed.notify_one();
        let done = done.wait_for(|round| round.number >= number).await;
        let round = done.map_err(|_| WorkError::TimedOut)?.clone();
        match round.failed {
            Some(err) => Err(again(&err)),
            None => Ok(round.missing.map(|err| again(&err))),
        }
    }

    /// Makes everything known to the others, as far as that is possible in this time; what is not
    /// is durable here.
    pub(super) async fn flush(self: &Arc<Self>, patience: Duration) -> Result<(), WorkError> {
        let saved = || {
            let state = lock(&self.work.state);
            state.first.is_none() && !state.bodies.values().any(|body| body.lock().is_edited())
        };
        let done = tokio::time::timeout(patience, async {
            while !saved() {
                if let Some(err) = self.round(true).await? {
                    return Err(err);
                }
            }
            Ok(())
        });
        let done = done.await.unwrap_or(Err(WorkError::TimedOut));
        if done.is_err() {
            let bodies: Vec<_> = lock(&self.work.state).bodies.values().cloned().collect();
            for body in bodies {
                self.sync_body_alone(&body).await?;
            }
        }
        done
    }

    fn due(&self, now: Time, asked: bool) -> Due {
        let state = lock(&self.work.state);
        let gathered = state.first.map(|first| (state.last + GATHER).min(first + GATHER_MAX));
        let (mut ready, mut next) = (Vec::new(), None::<Time>);
        for body in state.bodies.values() {
            let content = body.lock();
            if !content.is_edited() || state.work.is_orphan(&body.id) {
                continue;
            }
            let at = match content.writers {
                _ if content.urgent => now,
                0 => gathered.unwrap_or(now),
                _ => (content.last + QUIET).min(content.since + CONTINUOUS),
            };
            if (at <= now || asked && content.writers == 0) && ready.len() < FILES {
                ready.push(body.clone());
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        match gathered {
            Some(at) if at > now && !asked => {
                let at = next.map_or(at, |next| next.min(at));
                if ready.is_empty() { Due::At(at) } else { Due::Now(ready) }
            }
            None if ready.is_empty() && !asked => next.map_or(Due::Never, Due::At),
            _ => Due::Now(ready),
        }
    }

    /// Stores these contents, and writes down all that can be. Why one of them was not stored, if
    /// so.
    async fn write_down_work(
        self: &Arc<Self>,
        bodies: Vec<Arc<Body>>,
    ) -> Result<Option<WorkError>, WorkError> {
        let keys = self.keys()?;
        lock(&self.work.state).first = None;
        let (mut made, mut failed) = (Vec::with_capacity(bodies.len()), None);
        let mut storing = JoinSet::new();
        let mut bodies = bodies.into_iter();
        loop {
            while storing.len() < AT_ONCE
                && let Some(body) = bodies.next()
            {
                let (shared, keys) = (self.clone(), keys.clone());
                storing.spawn(async move { shared.edition(body, keys).await });
            }
            match storing.join_next().await {
                None => break,
                Some(Ok(Ok(one))) => made.push(one),
                Some(Ok(Err(err))) => failed = Some(err),
                Some(Err(_)) => failed = Some(WorkError::TimedOut),
            }
        }
        let written = self.publish_work(&keys, made).await;
        if failed.is_some() || !matches!(written, Ok(None)) {
            let now = self.sys.clock.now();
            lock(&self.work.state).first.get_or_insert(now);
        }
        Ok(written?.or(failed))
    }

    async fn publish_work(
        self: &Arc<Self>,
        keys: &Arc<crate::crypto::EpochKeys>,
        mut made: Vec<Made>,
    ) -> Result<Option<WorkError>, WorkError> {
        // Two plans must see each other, so plan and record are one step.
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let lost = self.without_lost(&mut made)?;
        let clock = self.tick();
        let (mut records, mut versions) = (Vec::new(), BTreeMap::new());
        for one in &made {
            let record = one.record.sign(&self.key, self.tick(), keys.epoch());
            let record = record.map_err(crate::node::PublishError::from)?;
            let version = FileVersion {
                hash: one.hash,
                size: one.snapshot.size,
                claim: one.claim.id,
                record: Some(id_of(&record)),
            };
            versions.insert(one.body.id, version);
            records.push(record);
        }
        let (planned, trees) = self.plan_work(keys, &made, &versions)?;
        let ids: Vec<RecordId> = trees.iter().map(|bytes| id_of(bytes)).collect();
        records.extend(trees);
        if !ids.is_empty() {
            let commits = made.iter().map(|one| one.claim.id).collect();
            let attempts = made.iter_mut().filter_map(|one| one.attempt.take()).collect();
            let needed = Promise::now(&self.view(), self.config.replicas).nodes;
            self.note_written(&ids);
            let planned = Some(planning);
            let publication = Publication { records, commits, needed, planned, attempts };
            if let Err(err) = self.publish(publication).await {
                // What is on this disk will reach the others.
                if !self.read_records(|view| Ok(known(view, &ids[0])?.is_some()))? {
                    return Err(err.into());
                }
                tracing::debug!(%err, "changes of the mount are here and not at enough others yet");
            }
        }
        self.settle_work(planned, made, versions, &ids, clock)?;
        Ok(lost)
    }

    /// Drops versions of files that are not wanted any more, or whose claim was released while
    /// they were stored.
    fn without_lost(&self, made: &mut Vec<Made>) -> Result<Option<WorkError>, WorkError> {
        let mut lost = None;
        let released = self.read_records(|view| {
            made.iter().map(|one| is_released(view, &one.claim.id)).collect::<Result<Vec<_>, _>>()
        })?;
        let state = lock(&self.work.state);
        let mut at = 0;
        made.retain(|one| {
            at += 1;
            if released[at - 1] {
                lost = Some(PutError::TooFewCopies { copies: 0, needed: 1 }.into());
            }
            !released[at - 1] && !state.work.is_orphan(&one.body.id)
        });
        Ok(lost)
    }

    fn plan_work(
        &self,
        keys: &crate::crypto::EpochKeys,
        made: &[Made],
        versions: &BTreeMap<InodeId, FileVersion>,
    ) -> Result<(Planned, Vec<Vec<u8>>), WorkError> {
        let edition = |one: &Made| {
            let version = versions.get(&one.body.id)?.clone();
            let modified_ns = one.snapshot.modified_ns;
            Some((one.body.id, Edition { version, modified_ns }))
        };
        let editions: BTreeMap<InodeId, Edition> = made.iter().filter_map(edition).collect();
        let state = &mut *lock(&self.work.state);
        self.sign_plan(keys, |planner| {
            let mut planned = state.work.plan(planner.tree(), &editions)?;
            for group in std::mem::take(&mut planned.groups) {
                planner.changes(group.changes)?;
            }
            Ok(planned)
        })
    }

    fn note_written(&self, ids: &[RecordId]) {
        let written = &mut lock(&self.work.state).written;
        written.extend(ids);
        let over = written.len().saturating_sub(WRITTEN_MAX);
        written.drain(..over);
    }

    fn settle_work(
        self: &Arc<Self>,
        planned: Planned,
        made: Vec<Made>,
        mut versions: BTreeMap<InodeId, FileVersion>,
        ids: &[RecordId],
        clock: u64,
    ) -> Result<(), WorkError> {
        let now = self.sys.clock.now();
        let fs = &*self.sys.fs;
        let state = &mut *lock(&self.work.state);
        let mut settling = Vec::with_capacity(made.len());
        for one in made {
            let Some(version) = versions.remove(&one.body.id) else { continue };
            let file = Arc::new(OpenFile::made(one.record, one.manifest));
            one.body.lock().made(fs, &one.snapshot, version, file, now)?;
            let unused = one.body.lock().users == 0;
            if unused {
                state.idle(&one.body);
            }
            settling.push((one.claim, one.tally));
        }
        self.note_copies_later(settling);
        let State { work, bodies, .. } = state;
        let need = |id: &InodeId| {
            let Some(body) = bodies.get(id) else { return Need::None };
            let content = body.lock();
            match (content.is_touched(), content.users) {
                (true, _) => Need::Edited,
                (false, 0) => Need::None,
                (false, _) => Need::Used,
            }
        };
        work.settle(planned, ids, clock.max(hlc::at_ms(1)), &need);
        self.work.pending.send_replace(work.pending());
        Ok(())
    }
}

/// The same error for somebody else who waited for the same round.
fn again(err: &WorkError) -> WorkError {
    match err {
        WorkError::Put(PutError::NoSpace(_)) | WorkError::NoSpace => WorkError::NoSpace,
        WorkError::Put(PutError::TooFewCopies { copies, needed }) => {
            PutError::TooFewCopies { copies: *copies, needed: *needed }.into()
        }
        WorkError::NotReady(err) => WorkError::NotReady(*err),
        err => WorkError::Disk(std::io::Error::other(err.to_string())),
    }
}
