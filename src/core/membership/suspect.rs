//! Failure detection: who votes against a member, and when a suspicion is a death.
//!
//! A member that lost a link and could not dial the peer votes. A vote makes the peer suspect
//! everywhere; the suspect hears of it too, over any link that it still has or from whoever reaches
//! it by a dial, and answers with a newer record, which ends the suspicion. Three voters, or all
//! where fewer are alive, make a death after `confirm`. If too few neighbours are left to vote, the
//! voters ask others to dial. A suspicion that nobody could confirm nor refute is a death after
//! `suspect_max`; one without any vote is forgotten.
//!
//! Invariant: nothing here makes a record; a doubt is about one stamp and ends with the next.

use super::{Change, HEALTH_WORST, MemberState, Membership, Timer, Turn};
use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{GossipMessage, Rumour, Stamp, VOTERS, Voter};
use std::time::Duration;

/// Members that a voter asks to dial the suspect as well.
const PROXIES: usize = 4;
/// Swarms up to this size are small: a node without links may believe that it is not the one cut
/// off, because nobody else could tell it.
const SMALL: usize = 16;
/// How long silences count for the question whether this node is the one cut off.
const SILENCE_MEMORY: Duration = Duration::from_secs(10);
const SILENCES_MAX: usize = 64;

/// What it means when a dial fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Blame {
    /// Nothing: the member is held for dead already.
    Nobody,
    /// It was dialled to see whether it is there.
    Mixing,
    /// It was dialled for a new link.
    Filling,
    /// Another member asked.
    Asked,
    /// Its link fell silent.
    Silent,
    /// Its link was closed.
    Closed,
}

/// A suspicion.
#[derive(Debug)]
pub(super) struct Doubt {
    voters: Vec<Voter>,
    since: Time,
    /// Whether somebody holds it for dead already, elsewhere.
    claimed: bool,
    /// Whether this node voted.
    mine: bool,
}

fn voter(id: &NodeId) -> Voter {
    let (first, _) = id.0.split_first_chunk().expect("an id has 32 bytes");
    *first
}

impl Membership {
    pub(super) fn note_silence(&mut self, now: Time) {
        self.silences.push_front(now);
        self.silences.truncate(SILENCES_MAX);
    }

    /// Whether this node may judge others: it ran without a stop and most of its links speak.
    fn trusts_itself(&self, now: Time) -> bool {
        if self.health > HEALTH_WORST / 2 {
            return false;
        }
        if self.table.count(MemberState::Alive) <= SMALL {
            return true;
        }
        let lost = self.silences.iter().filter(|at| now.since(**at) < SILENCE_MEMORY).count();
        let fresh = self.fresh_links(now).count();
        fresh > 0 && (lost < 4 || lost <= 3 * fresh)
    }

    /// This node lost a member and could not dial it.
    pub(super) fn vote(&mut self, turn: &mut Turn<'_>, id: NodeId, blame: Blame) {
        let Some(member) = self.table.get(&id) else { return };
        if !matches!(member.state, MemberState::Alive | MemberState::Suspect) {
            return;
        }
        if !self.trusts_itself(turn.now) {
            // Look again when it may be otherwise, but only at those that were links.
            if blame >= Blame::Silent {
                self.arm(turn.now + self.config.dial, Timer::Again(id));
            }
            return;
        }
        let me = voter(&self.me);
        let doubt = self.doubt(turn, id);
        if doubt.mine {
            return;
        }
        doubt.mine = true;
        if doubt.voters.len() < VOTERS {
            doubt.voters.push(me);
            self.spread_rumour(turn, id, None);
        }
        self.arm(turn.now + self.config.second, Timer::Second(id));
        self.check_doubt(turn, id);
    }

    /// The doubt about a member, made if there is none.
    fn doubt(&mut self, turn: &mut Turn<'_>, id: NodeId) -> &mut Doubt {
        if self.table.state(&id) == Some(MemberState::Alive) {
            self.table.set_state(&id, MemberState::Suspect, turn.now);
            turn.changed(id, Change::Suspect);
            self.fewer_alive(turn);
        }
        self.doubts.entry(id).or_insert_with(|| Doubt {
            voters: Vec::new(),
            since: turn.now,
            claimed: false,
            mine: false,
        })
    }

    /// With few members left, each one less may complete the votes on others.
    fn fewer_alive(&mut self, turn: &Turn<'_>) {
        if self.table.count(MemberState::Alive) < VOTERS {
            let ids: Vec<NodeId> = self.doubts.keys().copied().collect();
            for id in ids {
                self.arm(turn.now, Timer::Doubt(id));
            }
        }
    }

    /// What this node would tell others about a member, if there is anything to tell.
    pub(super) fn rumour_about(&self, id: &NodeId) -> Option<Rumour> {
        let member = self.table.get(id)?;
        let stamp = member.record.stamp;
        match (member.state, self.doubts.get(id)) {
            (MemberState::Suspect, Some(doubt)) => {
                let voters = doubt.voters.clone();
                Some(Rumour { id: *id, stamp, dead: doubt.claimed, voters })
            }
            (MemberState::Dead, _) => {
                let voters = self.buried.get(id).cloned().unwrap_or_default();
                Some(Rumour { id: *id, stamp, dead: true, voters })
            }
            _ => None,
        }
    }

    pub(super) fn rumour(&mut self, turn: &mut Turn<'_>, from: NodeId, rumour: Rumour) {
        let Rumour { id, stamp, dead, voters } = rumour;
        if id == self.me {
            self.outbid(turn, stamp);
            return;
        }
        let Some(member) = self.table.get(&id) else { return };
        if member.record.stamp > stamp {
            // Overtaken: the sender lacks the answer.
            let records = vec![member.record.clone()];
            turn.send(from, GossipMessage::News { records, have: vec![], rumours: vec![] });
            return;
        }
        let open = matches!(member.state, MemberState::Alive | MemberState::Suspect);
        if member.record.stamp < stamp || !open {
            return;
        }
        let doubt = self.doubt(turn, id);
        let mut news = dead && !doubt.claimed;
        doubt.claimed |= dead;
        for voter in voters {
            if doubt.voters.len() < VOTERS && !doubt.voters.contains(&voter) {
                doubt.voters.push(voter);
                news = true;
            }
        }
        if news && self.table.count(MemberState::Alive) <= SMALL / 2 {
            // Few are left to vote: each one looks for itself at once.
            self.prove(turn, id, Blame::Asked);
        }
        if news {
            self.spread_rumour(turn, id, Some(from));
            self.check_doubt(turn, id);
        }
    }

    /// A table of another part of the swarm has a member as dead that is alive here.
    pub(super) fn claimed(&mut self, turn: &mut Turn<'_>, from: NodeId, id: NodeId, stamp: Stamp) {
        self.rumour(turn, from, Rumour { id, stamp, dead: true, voters: vec![] });
    }

    /// How many votes are a death now.
    fn needed(&self) -> usize {
        self.table.count(MemberState::Alive).clamp(1, VOTERS)
    }

    pub(super) fn check_doubt(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let needed = self.needed();
        let Some(doubt) = self.doubts.get(&id) else { return };
        let wait = if doubt.voters.len() >= needed {
            self.config.confirm
        } else if doubt.claimed {
            self.config.claim
        } else {
            self.config.suspect_max
        };
        let due = doubt.since + wait;
        if due > turn.now {
            self.arm(due, Timer::Doubt(id));
            return;
        }
        let confirmed = doubt.claimed || !doubt.voters.is_empty();
        let votes = self.doubts.remove(&id).map(|doubt| doubt.voters);
        if self.flushing {
            self.buried.insert(id, votes.unwrap_or_default());
        }
        let (state, what) = if confirmed {
            (MemberState::Dead, Change::Dead)
        } else {
            (MemberState::Alive, Change::Alive)
        };
        self.table.set_state(&id, state, turn.now);
        turn.changed(id, what);
        if confirmed {
            self.fewer_alive(turn);
        }
    }

    /// Too few neighbours were left to confirm: others look as well.
    pub(super) fn ask_others(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let needed = self.needed();
        if self.doubts.get(&id).is_none_or(|doubt| doubt.voters.len() >= needed) {
            return;
        }
        let mut others: Vec<NodeId> =
            self.fresh_links(turn.now).filter(|peer| *peer != id).collect();
        for _ in 0..PROXIES.min(others.len()) {
            let proxy = others.swap_remove(self.random.below(others.len()));
            turn.send(proxy, GossipMessage::Probe { id });
        }
        self.arm(turn.now + self.config.dial * 2, Timer::Second(id));
    }

    pub(super) fn probe_asked(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        if self.links.contains_key(&id) {
            // It is well as seen from here; it shall say so itself.
            if let Some(rumour) = self.rumour_about(&id) {
                let rumours = vec![rumour];
                turn.send(id, GossipMessage::News { records: vec![], have: vec![], rumours });
            }
            return;
        }
        if self.doubts.get(&id).is_none_or(|doubt| !doubt.mine) {
            self.prove(turn, id, Blame::Asked);
        }
    }
}
