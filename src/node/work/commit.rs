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
use crate::core::tree::TreeError;
use crate::core::work::{Edition, Planned};
use crate::crypto::EpochKeys;
use crate::id::{ChunkId, ClaimId, InodeId, RecordId};
use crate::node::get::OpenFile;
use crate::node::publish::Publication;
use crate::node::replicate::Promise;
use crate::node::worker::board::Report;
use crate::node::worker::shape::{Next, Worked, Worker};
use crate::node::{PutError, Shared, lock};
use crate::sys::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
/// How long, and for how many rounds, a synced directory waits for the end of conflict copies.
const ENDED: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;
/// Bytes of records of what conflict copies have become that are pushed again. More of them reach
/// others when these look for what they lack.
const LATE_MAX: usize = 4 << 20;
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
    /// Pushes what is late, beside the rounds: a peer that says nothing holds up no other change.
    pushing: JoinSet<()>,
    /// Nothing before this, after a failure.
    pause: Option<Time>,
}

impl Commit {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, restored: false, files: 0, pushing: JoinSet::new(), pause: None }
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
            self.shared.work.restored.send_replace(true);
        }
        self.shared.seal_ahead();
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
        let written = self.shared.write_down_work(bodies, asked).await;
        let mut round = Round { number: asked, ..Round::default() };
        match written {
            Ok(missing) => round.missing = missing.map(Arc::new),
            Err(err) => round.failed = Some(Arc::new(err)),
        }
        self.shared.count_refused();
        let why = round.failed.as_ref().or(round.missing.as_ref());
        // A file that there is no room for has pauses of its own, and holds up no other one.
        let has_late = self.shared.has_late();
        if has_late && (self.pushing.is_empty() || self.pushing.try_join_next().is_some()) {
            self.pushing.spawn(self.shared.clone().publish_late());
        }
        let pauses = why.is_some_and(|err| !err.is_no_room()) || has_late;
        self.pause = pauses.then(|| self.shared.sys.clock.now() + PAUSE);
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
        let waiting = state.unsaved().count();
        let doing = match waiting {
            0 => String::new(),
            1 => "1 file is edited".to_owned(),
            more => format!("{more} files are edited"),
        };
        Report { doing, moved: self.files, moved_unit: "files", ..Report::default() }
    }
}

/// Files of which versions are being stored.
struct Storing {
    waiting: VecDeque<Arc<Body>>,
    ids: BTreeSet<InodeId>,
    running: JoinSet<Result<Made, WorkError>>,
}

impl Storing {
    fn new(bodies: Vec<Arc<Body>>) -> Self {
        let (waiting, ids) = (VecDeque::new(), BTreeSet::new());
        let mut storing = Self { waiting, ids, running: JoinSet::new() };
        storing.add(bodies);
        storing
    }

    /// More of them, but none twice.
    fn add(&mut self, bodies: Vec<Arc<Body>>) {
        for body in bodies {
            if self.ids.len() < FILES && self.ids.insert(body.id) {
                self.waiting.push_back(body);
            }
        }
    }

    /// Begins as many as go side by side; whether any are under way.
    fn fill(&mut self, shared: &Arc<Shared>, keys: &Arc<EpochKeys>) -> bool {
        while self.running.len() < AT_ONCE
            && let Some(body) = self.waiting.pop_front()
        {
            let (shared, keys) = (shared.clone(), keys.clone());
            self.running.spawn(async move {
                let made = shared.edition(body.clone(), keys).await;
                if let Err(err) = &made {
                    body.lock().failed(err.is_no_room(), shared.sys.clock.now());
                }
                made
            });
        }
        !self.running.is_empty()
    }
}

/// What the changes of the working tree come to.
struct Records {
    planned: Planned,
    trees: Vec<Vec<u8>>,
    /// Why some of them have to wait, if so.
    left_out: Option<WorkError>,
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

    /// Makes everything known to the others that was changed until now, as far as that is possible
    /// in this time; what is not is durable here. What is changed meanwhile is not waited for:
    /// some programs never stop.
    pub(super) async fn flush(self: &Arc<Self>, patience: Duration) -> Result<(), WorkError> {
        let begun = self.sys.clock.now();
        // What was changed may be in a round that is under way, and that may fail.
        let mut first = lock(&self.work.state).work.pending() > 0;
        let edited: Vec<_> = {
            let state = lock(&self.work.state);
            state.unsaved().map(|body| (body.clone(), body.lock().edits())).collect()
        };
        let saved = || {
            let state = lock(&self.work.state);
            let mut saved = state.first.is_none_or(|first| first > begun);
            for (body, edits) in &edited {
                // It may have been removed since.
                let there = state.bodies.get(&body.id).is_some_and(|now| Arc::ptr_eq(now, body));
                if !there || state.work.is_orphan(&body.id) {
                    continue;
                }
                let mut content = body.lock();
                let written = content.has_written(*edits);
                content.urgent |= !written;
                saved &= written;
            }
            saved
        };
        let mut failed = None;
        let done = tokio::time::timeout(patience, async {
            let mut fails = false;
            // A change that was not written down counts as a new one.
            while !saved() || fails || std::mem::take(&mut first) {
                let err = self.round(false).await.unwrap_or_else(Some);
                fails = err.is_some();
                if fails {
                    failed = err;
                    tokio::time::sleep(PAUSE.min(patience / 4)).await;
                }
            }
        });
        if done.await.is_ok() {
            return Ok(());
        }
        self.sync_all().await?;
        Err(failed.unwrap_or(WorkError::TimedOut))
    }

    fn due(&self, now: Time, asked: bool) -> Due {
        let state = lock(&self.work.state);
        let gathered = state.first.map(|first| (state.last + GATHER).min(first + GATHER_MAX));
        let (mut ready, mut next) = (Vec::new(), None::<Time>);
        for body in state.unsaved() {
            let content = body.lock();
            let at = match content.writers {
                _ if content.urgent => now,
                0 => gathered.unwrap_or(now),
                _ => (content.last + QUIET).min(content.since + CONTINUOUS),
            };
            let least = content.not_before();
            let at = least.map_or(at, |least| at.max(least));
            if at <= now || asked && content.writers == 0 && least.is_none() {
                ready.push((!content.urgent, content.tried, content.since, body.clone()));
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        // Those that failed wait for the others.
        ready.sort_by_key(|(calm, tried, since, _)| (*calm, *tried, *since));
        if ready.len() > FILES {
            ready.truncate(FILES);
            next = Some(now);
        }
        let ready: Vec<_> = ready.into_iter().map(|(.., body)| body).collect();
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
    /// so. What is ready meanwhile does not wait for a large file.
    async fn write_down_work(
        self: &Arc<Self>,
        bodies: Vec<Arc<Body>>,
        round: u64,
    ) -> Result<Option<WorkError>, WorkError> {
        let keys = self.keys()?;
        lock(&self.work.state).first = None;
        let (mut made, mut failed) = (Vec::with_capacity(bodies.len()), None);
        let mut storing = Storing::new(bodies);
        let mut written = Ok(None);
        while storing.fill(self, &keys) {
            match tokio::time::timeout(GATHER_MAX, storing.running.join_next()).await {
                Ok(None) => {}
                Ok(Some(Ok(Ok(one)))) => made.push(one),
                Ok(Some(Ok(Err(err)))) => failed = Some(err),
                Ok(Some(Err(_))) => failed = Some(WorkError::TimedOut),
                Err(_) => {
                    let now = self.sys.clock.now();
                    if *self.work.rounds.asked.borrow() == round
                        && let Due::Now(more) = self.due(now, false)
                    {
                        storing.add(more);
                    }
                    lock(&self.work.state).first = None;
                    written = self.publish_work(&keys, std::mem::take(&mut made)).await;
                    if !matches!(written, Ok(None)) {
                        break;
                    }
                }
            }
        }
        if matches!(written, Ok(None)) {
            written = self.publish_work(&keys, made).await;
        }
        if failed.is_some() || !matches!(written, Ok(None)) {
            let now = self.sys.clock.now();
            lock(&self.work.state).first.get_or_insert(now);
        }
        Ok(written?.or(failed))
    }

    /// Makes names and attributes durable, and known to the others, without waiting for the
    /// contents of files.
    pub(super) async fn write_down_names(self: &Arc<Self>) -> Result<(), WorkError> {
        let keys = self.keys()?;
        match self.publish_work(&keys, Vec::new()).await? {
            Some(err) => Err(err),
            None => Ok(()),
        }
    }

    async fn publish_work(
        self: &Arc<Self>,
        keys: &Arc<EpochKeys>,
        mut made: Vec<Made>,
    ) -> Result<Option<WorkError>, WorkError> {
        let _writing = self.work.writing.lock().await;
        // Two plans must see each other, so plan and record are one step.
        let planning = self.catalogue.planning.clone().lock_owned().await;
        let mut lost = self.without_lost(&mut made)?;
        let clock = self.tick();
        let (mut files, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for one in &made {
            // Of a draft that a crash leaves it tells whether the version has all of it.
            let record = one.record.sign(&self.key, one.snapshot.clock, keys.epoch());
            let record = record.map_err(crate::node::PublishError::from)?;
            let version = FileVersion {
                hash: one.hash,
                size: one.snapshot.size,
                claim: one.claim.id,
                record: Some(id_of(&record)),
            };
            versions.insert(one.body.id, version);
            files.insert(one.body.id, record);
        }
        let ends = !self.has_late();
        let Records { planned, trees, left_out } = self.plan_work(keys, &made, &versions, ends)?;
        made.retain(|one| planned.has(&one.body.id));
        lost = lost.or(left_out);
        let ids: Vec<RecordId> = trees.iter().map(|bytes| id_of(bytes)).collect();
        let mut records: Vec<Vec<u8>> =
            made.iter().filter_map(|one| files.remove(&one.body.id)).collect();
        records.extend(trees);
        if !ids.is_empty() {
            let commits = made.iter().map(|one| one.claim.id).collect();
            let attempts = made.iter_mut().filter_map(|one| one.attempt.take()).collect();
            let needed = Promise::now(&self.view(), self.config.replicas).nodes;
            self.note_written(&ids);
            let planning = Some(planning);
            let again = if self.names_copies(&planned) { records.clone() } else { Vec::new() };
            let publication = Publication { records, commits, needed, planned: planning, attempts };
            if let Err(err) = self.publish(publication).await {
                // What is on this disk will reach the others.
                if !self.read_records(|view| Ok(known(view, &ids[0])?.is_some()))? {
                    let (err, now) = (WorkError::from(err), self.sys.clock.now());
                    made.iter().for_each(|one| one.body.lock().failed(err.is_no_room(), now));
                    return Err(err);
                }
                tracing::debug!(%err, "changes of the mount are here and not at enough others yet");
                let mut late = lock(&self.work.late);
                let mut bytes: usize = late.iter().map(Vec::len).sum();
                late.extend(again.into_iter().take_while(|record| {
                    bytes += record.len();
                    bytes <= LATE_MAX
                }));
            }
        }
        self.settle_work(planned, made, versions, &ids, clock);
        Ok(lost)
    }

    /// Lets chunks go that were kept for a version and are no part of it: what is claimed after
    /// that was published is for another one. If that fails, they go with the file.
    fn release_later(self: &Arc<Self>, claim: ClaimId, chunks: Vec<ChunkId>, clock: u64) {
        if chunks.is_empty() {
            return;
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let until_ms = hlc::ms_of(clock).saturating_sub(1);
            if let Err(err) = shared.release_chunks(claim, chunks, until_ms).await {
                tracing::debug!(%err, "what no version needs is kept with its file");
            }
        });
    }

    /// Has enough others keep what conflict copies have become, where they did not before. At
    /// most one is under way.
    async fn publish_late(self: Arc<Self>) {
        let late = lock(&self.work.late).clone();
        let (count, needed) = (late.len(), Promise::now(&self.view(), self.config.replicas).nodes);
        match self.publish_again(late, needed).await {
            Ok(()) => drop(lock(&self.work.late).drain(..count)),
            Err(err) => tracing::debug!(%err, "conflict copies have to wait for their end"),
        }
        self.work.pushed.notify_one();
    }

    /// Whether others have yet to keep something of that: no copy ends before.
    fn has_late(&self) -> bool {
        !lock(&self.work.late).is_empty()
    }

    /// Whether what is being written down has something that a conflict copy has become.
    fn names_copies(&self, planned: &Planned) -> bool {
        lock(&self.work.state).work.has_copies_in(planned)
    }

    fn has_copies(&self) -> bool {
        lock(&self.work.state).work.has_copies()
    }

    /// Waits until conflict copies have ended that got other names, so that they are not there
    /// again after a crash. Not for ever, and nothing is lost when they are.
    pub(super) async fn end_copies(self: &Arc<Self>) {
        let ended = tokio::time::timeout(ENDED, async {
            // What they have become is one round's, their end the next one's.
            for _ in 0..ROUNDS {
                if !self.has_copies() || self.round(false).await.is_err() {
                    break;
                }
                if self.has_late() {
                    self.work.pushed.notified().await;
                }
            }
        });
        ended.await.ok();
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

    /// The changes as records.
    fn plan_work(
        &self,
        keys: &EpochKeys,
        made: &[Made],
        versions: &BTreeMap<InodeId, FileVersion>,
        ends: bool,
    ) -> Result<Records, WorkError> {
        let edition = |one: &Made| {
            let version = versions.get(&one.body.id)?.clone();
            // A program may have said another time since, which is the inode's already.
            let is_told = one.body.lock().modified_ns.is_none();
            let modified_ns = one.snapshot.modified_ns.filter(|_| !is_told);
            Some((one.body.id, Edition { version, modified_ns }))
        };
        let state = &mut *lock(&self.work.state);
        let editions: BTreeMap<InodeId, Edition> = made.iter().filter_map(edition).collect();
        let mut left_out = None;
        let (planned, trees) = self.sign_plan(keys, |planner| {
            let mut planned = state.work.plan(planner.tree(), &editions, ends)?;
            for mut group in std::mem::take(&mut planned.groups) {
                match planner.changes(std::mem::take(&mut group.changes)) {
                    Ok(_) => {}
                    Err(TreeError::Io(err)) => return Err(TreeError::Io(err).into()),
                    // Another change of this plan is to the same name, say.
                    Err(err) => {
                        planned.leave_out(&group);
                        left_out = Some(err.into());
                    }
                }
            }
            Ok::<_, WorkError>(planned)
        })?;
        Ok(Records { planned, trees, left_out })
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
    ) {
        let now = self.sys.clock.now();
        let fs = &*self.sys.fs;
        let state = &mut *lock(&self.work.state);
        let mut bodies = Vec::with_capacity(made.len());
        let mut settling = Vec::with_capacity(made.len());
        for one in made {
            let Some(version) = versions.remove(&one.body.id) else { continue };
            let file = Arc::new(OpenFile::made(one.record, one.manifest));
            match one.body.lock().made(fs, &one.snapshot, version, file, now) {
                Ok(removed) => state.removed |= removed,
                // Whoever finds it sees that a version was made of it.
                Err(err) => tracing::warn!(%err, "a draft is not removed"),
            }
            settling.push((one.claim, one.tally));
            bodies.push(one.body);
            self.release_later(one.claim.id, one.unneeded, clock);
        }
        self.note_copies_later(settling);
        let State { work, bodies: known, .. } = state;
        work.settle(planned, ids, clock.max(hlc::at_ms(1)), &|id| State::need(known, id));
        // Only now: what lost its name meanwhile has to be seen as named before.
        for body in bodies {
            let unused = body.lock().users == 0;
            if unused {
                state.idle(&body, fs);
            }
        }
        if state.work.ends_copies() {
            state.changed(now);
        }
        self.work.pending.send_replace(state.work.pending());
        state.drop_gone(fs);
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
