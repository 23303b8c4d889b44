//! Publishing: how records that this node made reach this disk and the other nodes. Owns the order
//! of the two, whom to ask, and what becomes of a clock that the others do not believe; keeping
//! what others publish is `records`'.
//!
//! Invariant: what the others refuse because of this machine's clock is kept nowhere, unless it
//! was set while the record was on its way.

use super::attempt::Attempt;
use super::records::{record_op, stopping};
use super::serve::refusal;
use super::{AskError, Shared, joined};
use crate::core::catalogue::{Applied, Checked, TooLarge};
use crate::core::{catalogue, hlc, limits};
use crate::id::{ClaimId, NodeId};
use crate::store::{Op, WriteError};
use crate::transport::Message as Frame;
use crate::wire::codec::Encode;
use crate::wire::message::{Push, kind};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

/// A wall clock that runs away from the monotonic one by more than this, in milliseconds, was set
/// since the others agreed with it: half of what they tolerate.
const CLOCK_SLACK_MS: i64 = hlc::MAX_AHEAD_MS as i64 / 2;
/// Other members that are asked whether they agree with this machine's clock.
const CLOCKS_ASKED: usize = 3;
/// How long their answers are waited for.
const CLOCK_ASKED: Duration = Duration::from_secs(1);

/// Why records were not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// They could not be kept here.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// They are here, but not on as many nodes as promised; or, when that is 0 nodes, nowhere.
    #[error("the file's records are on {kept} of {needed} nodes")]
    TooFew {
        /// Nodes that have them.
        kept: usize,
        /// Nodes that should.
        needed: usize,
    },
    /// The others refuse the records: this machine's clock is more than a minute ahead of theirs.
    /// Nobody else has them, and neither has this node unless it was set just now.
    #[error("this machine's clock is ahead of the other nodes' by more than a minute")]
    ClockAhead,
    /// At the time that this machine's clock shows this node had no grant. Nothing was kept.
    #[error("this node has no grant at the time that its clock shows")]
    NoGrant,
    /// A record would be longer than a record can be.
    #[error("the change is too large for one record")]
    TooLarge,
}

impl From<TooLarge> for PublishError {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

/// Records of this node's own making that are to be kept.
#[derive(Default)]
pub(super) struct Publication {
    pub records: Vec<Vec<u8>>,
    /// The claims that file records among them name.
    pub commits: Vec<ClaimId>,
    /// On how many nodes they have to be.
    pub needed: usize,
    /// Given back as soon as the next plan would see them.
    pub planned: Option<OwnedMutexGuard<()>>,
    /// The puts that they are of, which are withdrawn when nobody can have got them.
    pub attempts: Vec<Attempt>,
}

impl Shared {
    /// Keeps records: here and at enough others when it returns, at all others soon. Dropping the
    /// future stops nothing: what is on the disk here has to reach the others.
    pub(super) async fn publish(self: &Arc<Self>, own: Publication) -> Result<usize, PublishError> {
        let shared = self.clone();
        let work = tokio::spawn(async move {
            let Publication { records, commits, needed, planned, attempts } = own;
            let made = shared.check_time(&records)?;
            let pushes = Push::batches(records.clone());
            let mut sent = false;
            let told = shared.agree_on_time(&pushes, needed, made, &mut sent).await;
            sent |= told.as_ref().is_ok_and(|told| !told.is_empty());
            let kept = match &told {
                Ok(_) => shared.keep_own(&records, commits).await,
                Err(_) => Ok(()),
            };
            // A disk without room has not taken them; one that failed may have.
            let refused = matches!(kept, Err(WriteError::NoCapacity | WriteError::DiskFull));
            let known = sent || told.is_ok() && !refused;
            attempts.into_iter().filter(|_| known).for_each(Attempt::succeed);
            let mut told = told?;
            kept?;
            drop(planned);
            shared.spread(&pushes, needed, made, &mut told).await
        });
        joined(work.await).unwrap_or_else(|| Err(stopping().into()))
    }

    /// Has enough other nodes keep records that are here already.
    pub(super) async fn publish_again(
        self: &Arc<Self>,
        records: Vec<Vec<u8>>,
        needed: usize,
    ) -> Result<(), PublishError> {
        let pushes = Push::batches(records);
        self.spread(&pushes, needed, 0, &mut BTreeSet::new()).await.map(drop)
    }

    async fn keep_own(
        self: &Arc<Self>,
        records: &[Vec<u8>],
        commits: Vec<ClaimId>,
    ) -> Result<(), WriteError> {
        let mut ops: Vec<Op> = records.iter().map(|bytes| record_op(bytes.clone())).collect();
        ops.extend(commits.into_iter().map(|claim| Op::Commit { claim }));
        self.write(ops).await?;
        self.learn(records).await;
        Ok(())
    }

    /// Refuses what nobody would count, because its author had no grant yet, or none any more, at
    /// the time that it says. The latest clock among them.
    fn check_time(&self, records: &[Vec<u8>]) -> Result<u64, PublishError> {
        let (now_ms, mut made) = (self.sys.clock.wall_ms(), 0);
        let counts = self.read_records(|view| {
            for record in records {
                let Ok(checked) = Checked::kept(record.clone()) else { continue };
                made = checked.record().header.clock.max(made);
                let vetted = self.catalogue.vet(view, now_ms, &checked).transpose()?;
                if vetted == Some(Applied::Waiting) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        match counts {
            Ok(false) => Err(PublishError::NoGrant),
            // Reading the tables fails again where it matters.
            Ok(true) | Err(_) => Ok(made),
        }
    }

    /// When nobody has agreed with this machine's clock since it was set last, some others get the
    /// records first, and if they refuse them for their clock nothing is kept here either: it would
    /// be here alone for as long as the clock was ahead. Who has the records now; `sent`: whether
    /// others may have them too, who have not said so.
    async fn agree_on_time(
        self: &Arc<Self>,
        pushes: &[Push],
        needed: usize,
        made: u64,
        sent: &mut bool,
    ) -> Result<BTreeSet<NodeId>, PublishError> {
        if !self.doubts(made) {
            return Ok(BTreeSet::new());
        }
        let mut asking = JoinSet::new();
        for id in self.nearest().into_iter().take(CLOCKS_ASKED) {
            let (shared, pushes) = (self.clone(), pushes.to_vec());
            asking.spawn(async move { (id, shared.ask_pushes(id, &pushes).await) });
        }
        let (mut told, mut ahead, mut unsure) = (BTreeSet::new(), 0, asking.len());
        let answers = async {
            while let Some(answer) = asking.join_next().await {
                match answer {
                    Ok((id, Ok(()))) => _ = told.insert(id),
                    Ok((_, Err(err))) => {
                        ahead += usize::from(err.refused_with(refusal::AHEAD));
                        unsure -= usize::from(err.is_no());
                    }
                    Err(_) => {}
                }
            }
        };
        // Whoever is silent is not waited for: it has no say.
        tokio::time::timeout(CLOCK_ASKED, answers).await.ok();
        asking.detach_all();
        *sent = unsure > 0;
        self.judge_clock(made, told.len(), ahead)?;
        if told.is_empty() && needed > 1 {
            *sent = true;
            let ahead;
            (told, ahead) = self.push_to_some(pushes, needed - 1, &told).await;
            self.judge_clock(made, told.len(), ahead)?;
            if told.is_empty() {
                return Err(PublishError::TooFew { kept: 0, needed });
            }
        }
        Ok(told)
    }

    async fn spread(
        self: &Arc<Self>,
        pushes: &[Push],
        needed: usize,
        made: u64,
        told: &mut BTreeSet<NodeId>,
    ) -> Result<usize, PublishError> {
        let wanted = needed.saturating_sub(1 + told.len());
        let (more, ahead) = match wanted {
            0 => (BTreeSet::new(), 0),
            _ => self.push_to_some(pushes, wanted, told).await,
        };
        told.extend(more);
        self.pass_on(pushes, told);
        self.judge_clock(made, told.len(), ahead)?;
        match 1 + told.len() {
            kept if kept < needed => Err(PublishError::TooFew { kept, needed }),
            kept => Ok(kept),
        }
    }

    /// The next reading of the clock that orders records.
    pub(super) fn tick(&self) -> u64 {
        let now = self.sys.clock.wall_ms();
        self.catalogue.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(now)
    }

    /// By how much a wall clock leads the monotonic one that is at `ms` milliseconds now. It
    /// changes when somebody sets the clock.
    fn lead_of(&self, ms: u64) -> i64 {
        ms as i64 - (self.sys.clock.now().0 / 1000) as i64
    }

    /// Whether a clock reading is later than anything that others agreed to.
    fn doubts(&self, made: u64) -> bool {
        let agreed = *self.catalogue.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        let lead = self.lead_of(hlc::ms_of(made));
        agreed.is_none_or(|agreed| lead > agreed.saturating_add(CLOCK_SLACK_MS))
    }

    /// Notes what the others think of the clock reading `made`: how many took records made by it
    /// now, and how many refused them because of it. It is wrong when not most of them agree.
    fn judge_clock(&self, made: u64, took: usize, ahead: usize) -> Result<(), PublishError> {
        if took == 0 && ahead == 0 {
            return Ok(());
        }
        let lead = self.lead_of(hlc::ms_of(made));
        let mut agreed = self.catalogue.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if took > ahead {
            *agreed = Some(agreed.map_or(lead, |agreed| agreed.max(lead)));
            return Ok(());
        }
        *agreed = None;
        drop(agreed);
        let newest = self.read_records(|view| catalogue::newest_clock(view)).unwrap_or(0);
        let mut clock = self.catalogue.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.go_back(newest, self.sys.clock.wall_ms());
        Err(PublishError::ClockAhead)
    }

    /// The other members, the fastest on other machines first.
    fn nearest(&self) -> Vec<NodeId> {
        let view = self.view();
        let mine = view.members.get(&self.me).map(|m| m.record.machine);
        let others: Vec<NodeId> = view.others().map(|m| m.record.id).collect();
        let mut others = self.chooser().order(&others);
        others.sort_by_key(|id| view.members.get(id).map(|m| m.record.machine) == mine);
        others
    }

    /// Has `wanted` other nodes but some keep the records, the fastest on other machines first;
    /// those who do, and how many do not because of this machine's clock.
    async fn push_to_some(
        self: &Arc<Self>,
        pushes: &[Push],
        wanted: usize,
        but: &BTreeSet<NodeId>,
    ) -> (BTreeSet<NodeId>, usize) {
        let mut queue = self.nearest().into_iter().filter(|id| !but.contains(id));
        let mut asking: JoinSet<(NodeId, Result<(), AskError>)> = JoinSet::new();
        let mut silent = BTreeSet::new();
        let (mut kept, mut ahead) = (BTreeSet::new(), 0);
        let start = |asking: &mut JoinSet<_>, silent: &mut BTreeSet<_>, id| {
            let (shared, pushes) = (self.clone(), pushes.to_vec());
            silent.insert(id);
            asking.spawn(async move { (id, shared.ask_pushes(id, &pushes).await) });
        };
        queue.by_ref().take(wanted).for_each(|id| start(&mut asking, &mut silent, id));
        while kept.len() < wanted && !asking.is_empty() {
            tokio::select! {
                biased;
                Some(answer) = asking.join_next() => {
                    let Ok((id, done)) = answer else { continue };
                    silent.remove(&id);
                    if let Err(err) = done {
                        tracing::debug!(peer = %id.short(), %err, "records were not taken");
                        ahead += usize::from(err.refused_with(refusal::AHEAD));
                        let next = queue.next().into_iter();
                        next.for_each(|id| start(&mut asking, &mut silent, id));
                    } else {
                        kept.insert(id);
                    }
                }
                () = tokio::time::sleep(limits::HEDGE_MIN) => {
                    silent.iter().for_each(|id| self.chooser().overdue(*id));
                    let next = queue.next().into_iter();
                    next.for_each(|id| start(&mut asking, &mut silent, id));
                }
            }
        }
        // Those who are asked already may go on: they only get the records sooner.
        asking.detach_all();
        (kept, ahead)
    }

    async fn ask_pushes(&self, to: NodeId, pushes: &[Push]) -> Result<(), AskError> {
        for push in pushes {
            self.ask_push(to, push).await?;
        }
        Ok(())
    }

    /// Sends records over all links but those to `not_to`.
    pub(super) fn pass_on(&self, pushes: &[Push], not_to: &BTreeSet<NodeId>) {
        for to in self.links().into_iter().filter(|to| !not_to.contains(to)) {
            for push in pushes {
                let head = push.to_bytes().into();
                let frame = Frame { kind: kind::PUSH_ON, head, body: Bytes::new() };
                // A link that is gone, or slow, gets the records when it reconciles.
                self.transport().notify(to, frame).ok();
            }
        }
    }
}
