//! Comparing tables: on every new link and once a minute with a random neighbour. Equal roots end
//! it after one message. Otherwise 256 sums narrow it down, and the side that started pulls the
//! parts that differ, some at a time, so that a joiner's whole table comes in bounded pages.
//!
//! Invariant: a comparison never makes a living member dead by itself: a death that only the other
//! side knows becomes a suspicion that the member can answer.

use super::config::{PULL_MEMBERS, PULL_PAGES};
use super::spread::Tell;
use super::{Change, Member, MemberState, Membership, Timer, Turn};
use crate::id::NodeId;
use crate::wire::gossip::{
    ASK_IDS, BUCKETS, Entry, GossipMessage, PULL_HAVE, Summary, TABLE_ENTRIES,
};
use std::time::Duration;

/// The parts that a comparison has still to pull.
#[derive(Debug)]
pub(super) struct Comparison {
    left: Vec<u8>,
    /// Members in the other table, to guess how much a part brings.
    count: usize,
}

impl Membership {
    pub(super) fn compare(&mut self, turn: &mut Turn<'_>) {
        let pause = self.random.jitter(self.config.compare);
        self.arm(turn.now + pause, Timer::Compare);
        self.mix(turn);
        if self.links.is_empty() {
            return;
        }
        let index = self.random.below(self.links.len());
        if let Some(peer) = self.links.keys().nth(index) {
            let (root, count) = (self.table.root(), self.table.len() as u32);
            turn.send(*peer, GossipMessage::Digest { root, count });
        }
    }

    pub(super) fn digest(&mut self, turn: &mut Turn<'_>, from: NodeId, root: u128) {
        if root != self.table.root() {
            let sums = Box::new(*self.table.sums());
            turn.send(from, GossipMessage::Sums { count: self.table.len() as u32, sums });
        }
    }

    pub(super) fn sums(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        count: u32,
        sums: &[u64; BUCKETS],
    ) {
        let mine = self.table.sums();
        let left =
            (0..=u8::MAX).rev().filter(|at| mine[usize::from(*at)] != sums[usize::from(*at)]);
        let comparison = Comparison { left: left.collect(), count: count as usize };
        if let Some(link) = self.links.get_mut(&from) {
            link.comparison = Some(comparison);
            self.pull_next(turn, from);
        }
    }

    /// Asks for the next parts, as many as fit the limits of a message and of the answer.
    fn pull_next(&mut self, turn: &mut Turn<'_>, from: NodeId) {
        let Some(link) = self.links.get_mut(&from) else { return };
        let Some(comparison) = &mut link.comparison else { return };
        let theirs = comparison.count / BUCKETS + 1;
        let (mut buckets, mut have, mut expected) = (Vec::new(), Vec::new(), 0);
        while let Some(bucket) = comparison.left.last().copied() {
            let summary = |member: &Member| Summary {
                id: member.record.id,
                stamp: member.record.stamp,
                dead: member.state == MemberState::Dead,
            };
            let mine: Vec<Summary> = self.table.bucket(bucket).map(summary).collect();
            expected += theirs.max(mine.len());
            let full = expected > PULL_MEMBERS || have.len() + mine.len() > PULL_HAVE;
            if full && !buckets.is_empty() {
                break;
            }
            comparison.left.pop();
            buckets.push(bucket);
            have.extend(mine.into_iter().take(PULL_HAVE));
        }
        if buckets.is_empty() {
            link.comparison = None;
            self.settled = true;
            self.fill(turn);
        } else {
            turn.send(from, GossipMessage::Pull { buckets, have });
        }
    }

    pub(super) fn pull(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        buckets: &[u8],
        mut have: Vec<Summary>,
    ) {
        have.sort_unstable_by_key(|summary| summary.id);
        let mut entries = Vec::new();
        for bucket in buckets {
            for member in self.table.bucket(*bucket) {
                let id = member.record.id;
                let theirs = have.binary_search_by_key(&id, |summary| summary.id);
                let theirs = theirs.ok().map(|at| have[at]);
                let dead = member.state == MemberState::Dead;
                let newer = theirs.is_none_or(|theirs| {
                    theirs.stamp < member.record.stamp
                        || theirs.stamp == member.record.stamp && dead && !theirs.dead
                });
                if newer && entries.len() < PULL_PAGES * TABLE_ENTRIES {
                    entries.push(self.entry(turn, member));
                }
            }
        }
        let mut want = Vec::new();
        for theirs in have {
            let known = self.table.get(&theirs.id).map(|member| member.record.stamp);
            if known < Some(theirs.stamp) && want.len() < ASK_IDS {
                want.push(theirs.id);
            } else if known == Some(theirs.stamp) && theirs.dead {
                self.claimed(turn, from, theirs.id, theirs.stamp);
            }
        }
        self.send_pages(turn, from, entries, want, true);
    }

    fn entry(&self, turn: &Turn<'_>, member: &Member) -> Entry {
        let gone = self.table.gone_for(&member.record.id, turn.now);
        let seconds = |gone: Duration| u32::try_from(gone.as_secs()).unwrap_or(u32::MAX);
        Entry { record: member.record.clone(), gone: gone.map(seconds) }
    }

    fn send_pages(
        &self,
        turn: &mut Turn<'_>,
        to: NodeId,
        mut entries: Vec<Entry>,
        want: Vec<NodeId>,
        last: bool,
    ) {
        while entries.len() > TABLE_ENTRIES {
            let rest = entries.split_off(TABLE_ENTRIES);
            turn.send(to, GossipMessage::Table { entries, want: vec![], last: false });
            entries = rest;
        }
        turn.send(to, GossipMessage::Table { entries, want, last });
    }

    pub(super) fn page(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        entries: Vec<Entry>,
        want: Vec<NodeId>,
        last: bool,
    ) {
        for entry in entries {
            self.take(turn, from, entry);
        }
        let wanted = want.iter().filter_map(|id| self.table.get(id));
        let wanted: Vec<Entry> = wanted.map(|member| self.entry(turn, member)).collect();
        if !wanted.is_empty() {
            self.send_pages(turn, from, wanted, vec![], false);
        }
        if last {
            self.pull_next(turn, from);
        }
    }

    fn take(&mut self, turn: &mut Turn<'_>, from: NodeId, entry: Entry) {
        let Entry { record, gone } = entry;
        let (id, stamp) = (record.id, record.stamp);
        let gone = gone.map(|seconds| Duration::from_secs(seconds.into()));
        if gone.is_some_and(|gone| gone > self.config.forget) {
            return;
        }
        let unknown = self.table.get(&id).is_none();
        // An announcement would make others take a member that is gone for a living one.
        let quiet = gone.is_some() || !self.settled;
        let new =
            self.learn(turn, &record, from, if quiet { Tell::Nobody } else { Tell::Announce });
        let Some(gone) = gone else { return };
        match self.table.state(&id) {
            Some(MemberState::Alive) if unknown && new => {
                // Never seen alive here, so there is nothing to take back.
                let member = Member { record, since: turn.now, state: MemberState::Dead };
                self.table.put(member, gone);
                turn.changed(id, Change::Dead);
            }
            Some(MemberState::Alive | MemberState::Suspect) => {
                self.claimed(turn, from, id, stamp);
            }
            Some(MemberState::Left) if new => {
                let member = Member { record, since: turn.now, state: MemberState::Left };
                self.table.put(member, gone);
            }
            _ => {}
        }
    }
}
