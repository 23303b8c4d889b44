//! How news spreads: records over the tree of eager links with announcements on the others
//! (PlumTree), suspicions over all links. What comes up within a few milliseconds leaves together.
//!
//! Invariant: whatever enters the table as news goes to every other link, in full or announced.
//! Queues hold names; the newest state is looked up when they are sent.

use super::config::{ASKS_MAX, MEMBERS_MAX, OUTBOX_MAX};
use super::{Change, Member, MemberState, Membership, Timer, Turn};
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{
    ASK_IDS, GossipMessage, MemberFlags, MemberRecord, NEWS_HAVE, NEWS_RECORDS, NEWS_RUMOURS,
    Rumour, Stamp,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Items in one flush above which news is collected for longer: when hundreds of members come or go
/// at once, votes and records of one member then leave together instead of one by one.
const BUSY_ITEMS: usize = 256;
const BUSY_FACTOR: u32 = 5;
/// Links that an announced record is asked from in turn.
const ASK_SOURCES: usize = 3;

/// What waits for the next flush on a link.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    records: Vec<NodeId>,
    /// Announced, or sent in full when they are few.
    urgent: Vec<NodeId>,
    have: Vec<NodeId>,
    rumours: Vec<NodeId>,
}

impl Outbox {
    const fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.urgent.is_empty()
            && self.have.is_empty()
            && self.rumours.is_empty()
    }
}

fn push(queue: &mut Vec<NodeId>, id: NodeId) {
    if queue.len() < OUTBOX_MAX {
        queue.push(id);
    }
}

/// A record that was announced and has not come.
#[derive(Debug)]
pub(super) struct Ask {
    stamp: Stamp,
    sources: Vec<NodeId>,
    due: Time,
}

/// Who is told about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// Nobody: it is news to this node only.
    Nobody,
    /// All links, as an announcement: most know it.
    Announce,
    /// Eager links in full, the others as an announcement.
    Tree,
    /// The same, and all links in full while such news is rare.
    Urgent,
}

/// Urgent records that leave in one flush up to which lazy links get them in full as well. One
/// costs half a kilobyte per link; a thousand nodes that start at once are left to the tree.
const URGENT_MAX: usize = 2;

impl Membership {
    /// Takes a record that may be newer than what is known, and says whether it was.
    pub(super) fn learn(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Arc<MemberRecord>,
        from: NodeId,
        tell: Tell,
    ) -> bool {
        let id = record.id;
        if id == self.me {
            if record.stamp > self.own.record.stamp {
                self.outbid(turn, record.stamp);
            }
            return false;
        }
        let known = self.table.get(&id).cloned();
        if known.as_ref().is_some_and(|known| known.record.stamp >= record.stamp)
            || !self.vouch.vouch(record)
            || (known.is_none() && !self.make_room(turn))
        {
            return false;
        }
        let left = record.flags.has(MemberFlags::LEFT);
        let state = if left { MemberState::Left } else { MemberState::Alive };
        self.doubts.remove(&id);
        self.asks.remove(&id);
        let member = Member { record: record.clone(), since: turn.now, state };
        self.table.put(member, Duration::ZERO);
        let moved = |old: &MemberRecord| old.addrs != record.addrs || old.reach != record.reach;
        let what = match known.as_ref().map(|known| known.state) {
            _ if left => Change::Left,
            None => Change::Joined,
            Some(MemberState::Alive) => Change::Updated,
            Some(_) => Change::Alive,
        };
        turn.changed(id, what);
        let urgent = what != Change::Updated || known.is_some_and(|known| moved(&known.record));
        let tell = if tell == Tell::Tree && urgent { Tell::Urgent } else { tell };
        self.spread_record(turn, id, Some(from), tell);
        true
    }

    /// Room for one more member: those who are gone the longest go first.
    fn make_room(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.table.len() >= MEMBERS_MAX {
            let Some(oldest) = self.table.longest_gone(turn.now) else { return false };
            self.forget(turn, oldest);
        }
        true
    }

    pub(super) fn spread_record(
        &mut self,
        turn: &Turn<'_>,
        id: NodeId,
        except: Option<NodeId>,
        tell: Tell,
    ) {
        for (peer, link) in &mut self.links {
            if Some(*peer) != except && *peer != id {
                let queue = match (tell, link.eager) {
                    (Tell::Nobody, _) => return,
                    (Tell::Tree | Tell::Urgent, true) => &mut link.out.records,
                    (Tell::Urgent, false) => &mut link.out.urgent,
                    (Tell::Tree, false) | (Tell::Announce, _) => &mut link.out.have,
                };
                push(queue, id);
            }
        }
        self.flush_soon(turn);
    }

    pub(super) fn spread_rumour(&mut self, turn: &Turn<'_>, id: NodeId, except: Option<NodeId>) {
        for (peer, link) in &mut self.links {
            if Some(*peer) != except {
                push(&mut link.out.rumours, id);
            }
        }
        self.flush_soon(turn);
    }

    fn flush_soon(&mut self, turn: &Turn<'_>) {
        if !self.flushing {
            self.flushing = true;
            let factor = if self.busy { BUSY_FACTOR } else { 1 };
            self.arm(turn.now + self.config.flush * factor, Timer::Flush);
        }
    }

    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        self.flushing = false;
        let mut items = 0;
        let full: Vec<NodeId> =
            self.links.iter().filter(|(_, link)| !link.out.is_empty()).map(|(id, _)| *id).collect();
        for peer in full {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            let Outbox { mut records, urgent, mut have, rumours } = std::mem::take(&mut link.out);
            if records.len() + urgent.len() <= URGENT_MAX { &mut records } else { &mut have }
                .extend(urgent);
            let records = sorted(records);
            have.retain(|id| records.binary_search(id).is_err());
            let record = |id: &NodeId| self.table.get(id).map(|member| member.record.clone());
            let records: Vec<_> = records.iter().filter_map(record).collect();
            let stamp = |id: NodeId| record(&id).map(|record| (id, record.stamp));
            let have: Vec<_> = sorted(have).into_iter().filter_map(stamp).collect();
            let rumours: Vec<_> =
                sorted(rumours).iter().filter_map(|id| self.rumour_about(id)).collect();
            items += records.len() + have.len() + rumours.len();
            send_news(turn, peer, &records, &have, &rumours);
        }
        self.busy = items > BUSY_ITEMS;
        self.buried.clear();
    }

    pub(super) fn news(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        records: Vec<Arc<MemberRecord>>,
        have: Vec<(NodeId, Stamp)>,
        rumours: Vec<Rumour>,
    ) {
        let mut new = false;
        for record in &records {
            new |= self.learn(turn, record, from, Tell::Tree);
        }
        if !records.is_empty() && !new {
            // All of it came over another link before: this one is not a branch of the tree.
            if let Some(link) = self.links.get_mut(&from).filter(|link| link.eager) {
                link.eager = false;
                turn.send(from, GossipMessage::Prune);
            }
        }
        for (id, stamp) in have {
            self.announced(turn, from, id, stamp);
        }
        for rumour in rumours {
            self.rumour(turn, from, rumour);
        }
    }

    fn announced(&mut self, turn: &Turn<'_>, from: NodeId, id: NodeId, stamp: Stamp) {
        let known = self.table.get(&id).is_some_and(|member| member.record.stamp >= stamp);
        if known || id == self.me {
            return;
        }
        let due = turn.now + self.config.ask;
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.stamp = ask.stamp.max(stamp);
            if ask.sources.len() < ASK_SOURCES && !ask.sources.contains(&from) {
                ask.sources.push(from);
            }
        } else if self.asks.len() < ASKS_MAX {
            self.asks.insert(id, Ask { stamp, sources: vec![from], due });
            self.arm(due, Timer::Ask);
        }
    }

    /// Asks for what was announced and has not come, and makes that link a branch of the tree.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>) {
        let mut to: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let mut next = None::<Time>;
        // A round trip and some: the answer to the first question may be under way.
        let again = turn.now + self.config.ask * 3;
        let links = &self.links;
        self.asks.retain(|id, ask| {
            if ask.due <= turn.now {
                ask.sources.retain(|peer| links.contains_key(peer));
                if ask.sources.is_empty() {
                    return false;
                }
                to.entry(ask.sources.remove(0)).or_default().push(*id);
                ask.due = again;
            }
            next = Some(next.map_or(ask.due, |next| next.min(ask.due)));
            true
        });
        for (peer, ids) in to {
            if let Some(link) = self.links.get_mut(&peer) {
                link.eager = true;
            }
            for ids in ids.chunks(ASK_IDS) {
                turn.send(peer, GossipMessage::Ask { ids: ids.to_vec() });
            }
        }
        if let Some(next) = next {
            self.arm(next, Timer::Ask);
        }
    }

    pub(super) fn asked(&mut self, turn: &mut Turn<'_>, from: NodeId, ids: Vec<NodeId>) {
        if let Some(link) = self.links.get_mut(&from) {
            link.eager = true;
        }
        let record = |id: &NodeId| self.table.get(id).map(|member| member.record.clone());
        let records: Vec<_> = ids.iter().filter_map(record).collect();
        send_news(turn, from, &records, &[], &[]);
    }

    pub(super) fn pruned(&mut self, from: NodeId) {
        if let Some(link) = self.links.get_mut(&from) {
            link.eager = false;
        }
    }
}

fn sorted(mut ids: Vec<NodeId>) -> Vec<NodeId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Sends all of it in as few messages as the limits allow.
fn send_news(
    turn: &mut Turn<'_>,
    to: NodeId,
    records: &[Arc<MemberRecord>],
    have: &[(NodeId, Stamp)],
    rumours: &[Rumour],
) {
    let mut records = records.chunks(NEWS_RECORDS);
    let mut have = have.chunks(NEWS_HAVE);
    let mut rumours = rumours.chunks(NEWS_RUMOURS);
    loop {
        let message = match (records.next(), have.next(), rumours.next()) {
            (None, None, None) => break,
            (records, have, rumours) => GossipMessage::News {
                records: records.unwrap_or_default().to_vec(),
                have: have.unwrap_or_default().to_vec(),
                rumours: rumours.unwrap_or_default().to_vec(),
            },
        };
        turn.send(to, message);
    }
}
