//! Does what releases say, and says what is due: has the store end the claims that were released,
//! releases what was removed or superseded longer ago than the history time, oldest first, thins
//! what is younger, and gives files that still have a name their claim back. What ends and what is
//! due is decided by the catalogue and the tree; this is when.
//!
//! Nothing is thinned while a member is away: it may be changing what the others thin, and what it
//! brings should find the chunks that it has in common with the version before.
//!
//! Any member may release what is due. They agree on an order for each claim, and each waits a turn
//! longer than the one before it.

use super::board::Report;
use super::count::Count;
use super::looks::Looks;
use super::shape::{Next, Worked, Worker};
use crate::core::catalogue::{Release, Scope, owed, released, settle_owed};
use crate::core::hlc;
use crate::core::tree::{Due, Ended, THINNED_AFTER_MS, Tree};
use crate::id::{ClaimId, InodeId, RecordId};
use crate::node::Shared;
use crate::node::release::ReleaseError;
use crate::node::view::{Member, View};
use crate::store::Op;
use crate::sys::Time;
use crate::wire::gossip::MemberFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Rows that are looked at in one go; that many releases fit into one submission to the store.
const PAGE: usize = 256;
/// How long a member leaves what is due to the one before it.
const TURN: Duration = Duration::from_secs(600);
/// Members that take turns.
const TURNS_MAX: u32 = 8;
/// What is kept even when there is no room: an hour in which one can have second thoughts.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3600);
/// Files that are remembered because they could not be let go.
const LEFT_MAX: usize = 256;
/// Files of which something is let go early in one look, when there is no room.
const EARLY_MAX: usize = 64;
/// Between two looks for what is due, at least and at most.
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(15 * 60);
/// Until the next look when one has found more than it could take.
const LOOK_ON_AFTER: Duration = Duration::from_secs(5);

/// The worker.
pub(in crate::node) struct Releases {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    views: watch::Receiver<Arc<View>>,
    /// When it looks for what is due again.
    due: Time,
    /// The wall clock of the look that runs.
    now_ms: u64,
    /// Looks at what the history time is over for.
    over: Looks,
    /// Looks at what is thinned, for each age at which versions are.
    thinned: [Looks; THINNED_AFTER_MS.len()],
    /// Files in front of that which could not be let go.
    left: BTreeSet<InodeId>,
    /// Claims that were released although their file has a name, and how often they were found.
    wrong: BTreeMap<ClaimId, usize>,
    /// Whether there was too little room when that was looked at last.
    lacked: bool,
    /// What history keeps.
    count: Count,
    /// Releases done here since the start.
    settled: u64,
}

impl Releases {
    pub(in crate::node) fn new(shared: Arc<Shared>) -> Self {
        let (changes, due) = (shared.records_changed.subscribe(), shared.sys.clock.now());
        let (left, wrong, views) = (BTreeSet::new(), BTreeMap::new(), shared.views());
        let (over, thinned, lacked) = (Looks::default(), Default::default(), false);
        let (now_ms, settled, count) = (0, 0, Count::default());
        Self {
            shared,
            changes,
            views,
            due,
            now_ms,
            over,
            thinned,
            left,
            wrong,
            lacked,
            count,
            settled,
        }
    }
}

impl Worker for Releases {
    const NAME: &'static str = "release";

    async fn work(&mut self) -> Worked {
        self.changes.borrow_and_update();
        self.settle().await?;
        let now = self.shared.sys.clock.now();
        if now >= self.due {
            self.put_right().await;
            let grace = self.shared.config.gc_grace;
            let every = (grace / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
            self.due = now + if self.wrong.is_empty() { every } else { self.soon() };
            self.look_for_due().await;
            if self.over.is_behind() || self.thinned.iter().any(Looks::is_behind) {
                self.due = self.due.min(self.shared.sys.clock.now() + LOOK_ON_AFTER);
            }
        }
        let every = (self.shared.config.gc_grace / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        self.count.work(&self.shared, every).await;
        Ok(Next::Idle(self.due.min(self.count.due)))
    }

    async fn wait(&mut self) {
        loop {
            tokio::select! {
                biased;
                // The senders live in `shared`.
                _ = self.changes.changed() => return,
                _ = self.views.changed() => {
                    let before = std::mem::replace(&mut self.lacked, self.shared.lacks_room());
                    if self.lacked && !before {
                        // Before puts are refused, not a quarter of an hour later.
                        self.due = self.shared.sys.clock.now();
                        return;
                    }
                }
            }
        }
    }

    fn report(&self) -> Report {
        Report { moved: self.settled, moved_unit: "releases", ..Report::default() }
    }
}

impl Releases {
    /// Has the store do what releases say.
    async fn settle(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut after = None;
        loop {
            let page = shared.read_records(|view| owed(view, after.as_ref(), PAGE))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            // One that rotted stays owed until its bytes are back.
            let known = page.into_iter().filter_map(|(id, release)| Some((id, release?)));
            let (ids, releases): (Vec<RecordId>, Vec<Release>) = known.unzip();
            if ids.is_empty() {
                continue;
            }
            let ended = releases.iter().filter(|release| release.scope == Scope::All);
            let ended: Vec<ClaimId> = ended.map(|release| release.claim).collect();
            let ops = releases.into_iter().map(op).collect();
            shared.write(ops).await.map_err(io::Error::other)?;
            self.settled += ids.len() as u64;
            shared.change_tables(move |tables| settle_owed(tables, &ids)).await?;
            self.look_at(ended).await;
        }
    }

    /// Notes which of the claims that ended just now are those of files with a name.
    async fn look_at(&mut self, ended: Vec<ClaimId>) {
        if ended.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let found = self.shared.job(move || shared.named_among(&ended)).await;
        for claim in found.flatten().unwrap_or_else(unseen) {
            if self.wrong.is_empty() {
                self.due = self.shared.sys.clock.now() + self.soon();
            }
            if self.wrong.len() < PAGE {
                self.wrong.entry(claim).or_insert(1);
            }
        }
    }

    /// How soon is looked again at a file that has no claim: all turns come before its content
    /// goes.
    fn soon(&self) -> Duration {
        (self.shared.config.gc_grace / 16).clamp(LOOK_EVERY_MIN / 4, LOOK_EVERY_MAX)
    }

    /// Gives files that have a name although their claim was released another one.
    async fn put_right(&mut self) {
        let shared = self.shared.clone();
        let found = self.shared.job(move || shared.named_but_released()).await;
        let found = found.flatten().unwrap_or_else(unseen);
        let before = std::mem::take(&mut self.wrong);
        // The removal, or a newer version, may be on its way and come behind the release.
        let told = self.shared.has_reconciled_lately();
        for claim in found {
            let looks = before.get(&claim).copied().unwrap_or(0);
            self.wrong.insert(claim, looks + 1);
            // From the second look on; the others in the order of their turns, one look later each.
            if told
                && self.shared.turn(&claim) < looks
                && let Err(err) = self.reissue(&claim).await
            {
                tracing::warn!(%err, "a file whose content was let go is not kept yet");
            }
        }
    }

    async fn reissue(&self, claim: &ClaimId) -> Result<(), ReleaseError> {
        let keyring = self.shared.catalogue.keyring();
        let named =
            self.shared.read_records(|view| Tree::new(view, &keyring).named_under(claim))?;
        for (inode, versions) in named {
            if self.shared.reissue(claim, inode, &versions).await? {
                tracing::info!("a file whose content had been let go is kept after all");
            }
        }
        Ok(())
    }

    /// Releases what is due.
    async fn look_for_due(&mut self) {
        if self.shared.keys().is_err() {
            return;
        }
        self.now_ms = self.shared.sys.clock.wall_ms();
        let history = self.shared.config.history;
        let horizon = before(self.now_ms, history);
        if let Err(err) = self.release_until(horizon, true).await {
            return tracing::debug!(%err, "what is due is not released yet");
        }
        if let Err(err) = self.thin().await {
            tracing::debug!(%err, "versions are not thinned yet");
        }
        let kept = history.min(KEPT_AT_LEAST);
        if self.shared.lacks_room() && kept < history {
            let early = before(self.now_ms, kept);
            if let Err(err) = self.release_until(early, false).await {
                tracing::debug!(%err, "nothing could be released early");
            }
        }
    }

    /// Releases the versions that need not be kept until the history time is over.
    async fn thin(&mut self) -> Result<(), ReleaseError> {
        let complete = self.shared.view().is_complete(self.shared.sys.clock.now());
        if !complete || !self.shared.has_reconciled_lately() {
            return Ok(());
        }
        let now = hlc::at_ms(self.now_ms);
        let mut done = BTreeSet::new();
        for (number, after_ms) in THINNED_AFTER_MS.into_iter().enumerate() {
            let horizon = before(self.now_ms, Duration::from_millis(after_ms));
            // Whoever's turn it was has thinned what was due long before.
            let settled = before(hlc::ms_of(horizon), TURN * TURNS_MAX);
            let mut look = self.thinned[number].begin();
            loop {
                let page = self.ended_until(look.after.as_ref(), horizon)?;
                let Some(last) = page.last().copied() else { break };
                for ended in page {
                    if done.insert(ended.inode) {
                        self.try_release(&ended.inode, What::Thinned { now }).await?;
                    }
                    self.thinned[number].looked_at(&look, ended, ended.ended <= settled);
                }
                look.after = Some(last);
                if done.len() >= PAGE * PAGE {
                    // Memory stays bounded; the next look goes on there.
                    self.thinned[number].leave_off(look);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn ended_until(&self, after: Option<&Ended>, horizon: u64) -> io::Result<Vec<Ended>> {
        let keyring = self.shared.catalogue.keyring();
        self.shared.read_records(|view| Tree::new(view, &keyring).ended_until(after, horizon, PAGE))
    }

    /// Releases what ended before the horizon; all of it, or some that ended first.
    async fn release_until(&mut self, horizon: u64, all: bool) -> Result<(), ReleaseError> {
        let mut look = match all {
            true => self.over.begin(),
            false => self.over.aside(),
        };
        let mut done = if all { self.left.clone() } else { BTreeSet::new() };
        for inode in &done {
            self.try_release(inode, What::Ended { horizon }).await?;
        }
        let mut early = 0;
        // What ended long before was released by whoever's turn it was.
        let settled = before(hlc::ms_of(horizon), TURN * TURNS_MAX);
        loop {
            let page = self.ended_until(look.after.as_ref(), horizon)?;
            let Some(last) = page.last().copied() else { return Ok(()) };
            for ended in &page {
                if done.insert(ended.inode)
                    && self.try_release(&ended.inode, What::Ended { horizon }).await?
                    && !all
                {
                    early += 1;
                }
                if early == EARLY_MAX {
                    return Ok(());
                }
            }
            look.after = Some(last);
            if all {
                let settled = last.ended <= settled && self.left.len() < LEFT_MAX;
                self.over.looked_at(&look, last, settled);
            }
            if done.len() >= PAGE * PAGE {
                // Memory stays bounded; the next look goes on there.
                if all {
                    self.over.leave_off(look);
                }
                return Ok(());
            }
        }
    }

    /// Releases what is due of one inode; whether anything was. One that cannot be read is left for
    /// the next look and stops no other; only that nothing can be published stops all.
    async fn try_release(&mut self, inode: &InodeId, what: What) -> Result<bool, ReleaseError> {
        let released = match self.release_due(inode, what).await {
            Err(err @ ReleaseError::Publish(_)) => return Err(err),
            Err(err) => {
                tracing::debug!(%inode, %err, "what is due of a file is not let go yet");
                if self.left.len() < LEFT_MAX {
                    self.left.insert(*inode);
                }
                return Ok(false);
            }
            Ok(released) => released,
        };
        if released {
            tracing::debug!(%inode, "let go what is not kept any longer");
        }
        self.left.remove(inode);
        Ok(released)
    }

    /// Releases what is due of one inode, when it is this node's turn; whether anything was.
    async fn release_due(&self, inode: &InodeId, what: What) -> Result<bool, ReleaseError> {
        let mut any = false;
        loop {
            let due = self.shared.read_due(inode, what)?;
            let claim = match &due {
                None => return Ok(any),
                Some(Due::Claims(claims)) => claims.first().copied(),
                Some(Due::Versions { claim, .. }) => Some(*claim),
            };
            let turn = claim.map_or(0, |claim| self.shared.turn(&claim) as u32);
            let mine = what.earlier(TURN * turn.min(TURNS_MAX));
            if turn > 0 && self.shared.read_due(inode, mine)?.is_none() {
                return Ok(any);
            }
            match due {
                Some(Due::Claims(claims)) => self.shared.release(&claims, self.now_ms).await?,
                Some(Due::Versions { claim, ended, kept }) => {
                    match self.shared.release_versions(claim, &ended, &kept, self.now_ms).await {
                        // They go with the file.
                        Err(ReleaseError::TooLarge) => return Ok(any),
                        done => done?,
                    }
                }
                None => return Ok(any),
            }
            any = true;
        }
    }
}

/// By what rule something of an inode is due.
#[derive(Debug, Clone, Copy)]
enum What {
    /// It ended before this clock reading.
    Ended { horizon: u64 },
    /// It is thinned at this one.
    Thinned { now: u64 },
}

impl What {
    /// What was due by the same rule so long before.
    fn earlier(self, span: Duration) -> Self {
        match self {
            Self::Ended { horizon } => Self::Ended { horizon: before(hlc::ms_of(horizon), span) },
            Self::Thinned { now } => Self::Thinned { now: before(hlc::ms_of(now), span) },
        }
    }
}

impl Shared {
    /// What of an inode need not be kept any longer.
    fn read_due(&self, inode: &InodeId, what: What) -> io::Result<Option<Due>> {
        let keyring = self.catalogue.keyring();
        self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            match what {
                What::Ended { horizon } => tree.due(inode, horizon),
                What::Thinned { now } => tree.due_thinned(inode, now),
            }
        })
    }

    /// Claims that were released although their file has a name, at most [`PAGE`].
    fn named_but_released(&self) -> io::Result<Vec<ClaimId>> {
        let mut out = Vec::new();
        let mut after = None;
        while out.len() < PAGE {
            let claims = self.read_records(|view| released(view, after.as_ref(), PAGE))?;
            let Some(last) = claims.last() else { break };
            after = Some(*last);
            out.extend(self.named_among(&claims)?);
        }
        out.truncate(PAGE);
        Ok(out)
    }

    /// Which of the claims are those of files that have a name.
    fn named_among(&self, claims: &[ClaimId]) -> io::Result<Vec<ClaimId>> {
        let keyring = self.catalogue.keyring();
        self.read_records(|view| {
            let tree = Tree::new(view, &keyring);
            let mut out = Vec::new();
            for claim in claims {
                if !tree.named_under(claim)?.is_empty() {
                    out.push(*claim);
                }
            }
            Ok(out)
        })
    }

    /// Whether fewer members have space than a file wants copies, of those that are there to
    /// take any: who has more than its share, or is being emptied, is no reason to forget.
    fn lacks_room(&self) -> bool {
        let view = self.view();
        let shut = [MemberFlags::READ_ONLY, MemberFlags::DRAINING];
        let takes = |m: &&Member| !shut.iter().any(|flag| m.record.flags.has(*flag));
        let live = view.members.values().filter(|m| m.lives()).filter(takes).count();
        view.with_room() < live.min(usize::from(self.config.replicas))
    }
}

/// What cannot be looked at is looked at later.
fn unseen(err: io::Error) -> Vec<ClaimId> {
    tracing::warn!(%err, "released claims cannot be looked at");
    Vec::new()
}

/// The clock reading of so long before a wall clock reading.
fn before(now_ms: u64, span: Duration) -> u64 {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    hlc::at_ms(now_ms.saturating_sub(ms))
}

fn op(release: Release) -> Op {
    let Release { claim, scope } = release;
    match scope {
        Scope::All => Op::Release { claim },
        Scope::Versions { until_ms, chunks, .. } => {
            Op::ReleaseRows { claim, cids: chunks, renewed_ms: until_ms }
        }
    }
}
