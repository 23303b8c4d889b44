//! Membership: who is in the swarm, who is alive, and to whom this node is linked.
//!
//! Each node keeps the whole table, one signed record per member, and about eight long-lived
//! links to random members. Four mechanisms, each in its file:
//!
//! * `spread`: news goes over the links at once. Records by PlumTree (Leitão, Pereira, Rodrigues,
//!   "Epidemic Broadcast Trees", 2007): in full over the links of a tree that forms by itself,
//!   as announcements over the others. Suspicions are as small as announcements and go over all.
//! * `links`, `dial`: the overlay after HyParView (the same authors, 2007): symmetric links,
//!   replaced at random when they break. As every node knows all members, a random member of the
//!   table takes the place of HyParView's walks and shuffles; its passive view is the list of good
//!   peers that outlives the process.
//! * `suspect`: failure detection by the linked neighbours, after SWIM (Das, Gupta, Motivala, 2002)
//!   and Lifeguard (Dadgar, Phillips, Currey, 2017). A neighbour that hears nothing on a link dials
//!   the member; when that fails too it votes. Three votes (with fewer members, all) are a death,
//!   unless the suspect, who is told, answers with a newer record. A node that notices that it
//!   was not running itself, or that hears nobody, does not vote.
//! * `sync`: joiners and long-parted neighbours compare tables by sums and exchange what differs.
//!
//! Sans-IO: [`Membership::handle`] takes what happened and the time, and appends what shall be
//! done. It never reads a clock and draws chance from its seed, so a seed fixes a history.
//!
//! Invariants: only the owner of a key makes a newer record of it, so a rumour never outlives a
//! living member's answer; a record that [`Vouch`] did not accept is never stored nor passed on.

mod config;
mod dial;
mod links;
mod own;
mod random;
mod spread;
mod suspect;
mod sync;
mod table;
#[cfg(test)]
mod tests;

pub use config::{BOOTS_MAX, Config, MEMBERS_MAX, SAVED_MAX};
pub use links::LinkInfo;
pub use own::{Identity, SelfState};
pub use table::{Member, MemberState};

use crate::id::NodeId;
use crate::sys::Time;
use crate::wire::gossip::{GossipMessage, MemberRecord, Voter};
use dial::{Boot, Dial};
use links::Link;
use own::Own;
use random::Random;
use spread::Ask;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use suspect::{Blame, Doubt};
use table::Table;

/// Decides whether a record is believed: its signature, its grant, no revocation. Called once for
/// each new stamp of a member, never for what is known already.
pub trait Vouch {
    /// Whether the record may enter the table.
    fn vouch(&self, record: &MemberRecord) -> bool;
}

/// Why a link is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The other side or its machine closed it (FIN or RST).
    Closed,
    /// It timed out.
    Lost,
    /// The peer is well but does not want it (no grant, other version).
    Refused,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A control connection passed its handshake. One link per peer: the shell keeps a second
    /// connection to itself. For a link that is up already: it was replaced by a new connection.
    LinkUp {
        /// Who proved to be there.
        peer: NodeId,
        /// Whether this node dialled.
        dialled: bool,
        /// The other end; for a dialled link the address given in [`Effect::Dial`].
        addr: SocketAddr,
    },
    /// A link ended, other than by [`Effect::Close`].
    LinkDown {
        /// Whose.
        peer: NodeId,
        /// Why.
        how: Down,
    },
    /// A message came over a link.
    Gossip {
        /// From whom.
        from: NodeId,
        /// The message.
        message: GossipMessage,
    },
    /// A dial came to nothing: refused, timed out, or somebody else answered.
    DialFailed {
        /// The address given in [`Effect::Dial`].
        addr: SocketAddr,
        /// The peer given in [`Effect::Dial`].
        expect: Option<NodeId>,
    },
    /// An address to join through, tried for ever. Repeat it with new results of name look-ups.
    Bootstrap {
        /// Where.
        addr: SocketAddr,
    },
    /// Dial now, once.
    Connect {
        /// Where.
        addr: SocketAddr,
    },
    /// What this node says about itself.
    SetSelf(SelfState),
    /// A member is let in no more: it is dropped from the table. `Vouch` must refuse it from now
    /// on.
    Forget {
        /// Whom.
        id: NodeId,
    },
    /// Say goodbye. The last input that has an effect.
    Leave,
    /// The time asked for by [`Effect::WakeAt`] has come.
    Tick,
}

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a message over the link to `to`; dropped when that link is gone.
    Send {
        /// To whom.
        to: NodeId,
        /// The message.
        message: GossipMessage,
    },
    /// Open a control connection. Answered by `LinkUp` or `DialFailed`.
    Dial {
        /// Where.
        addr: SocketAddr,
        /// Who must answer; anyone when none.
        expect: Option<NodeId>,
    },
    /// This link is not wanted any more: end it after what was sent. No `LinkDown` follows.
    Close {
        /// Whose.
        peer: NodeId,
    },
    /// A member changed.
    Changed(MemberChange),
    /// Remember these peers for the next start; replaces what was saved before.
    SavePeers(Vec<(NodeId, Vec<SocketAddr>)>),
    /// Call with [`Input::Tick`] at this time; replaces an earlier request.
    WakeAt(Time),
}

/// A change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberChange {
    /// Whose line.
    pub id: NodeId,
    /// What became of it.
    pub what: Change,
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It is new and alive.
    Joined,
    /// Its record is new; it is alive as before.
    Updated,
    /// It is suspected.
    Suspect,
    /// It is alive again; its record is new.
    Alive,
    /// It is dead.
    Dead,
    /// It left in order.
    Left,
    /// It is not in the table any more.
    Forgotten,
}

/// The time of this call and where its effects go.
struct Turn<'a> {
    now: Time,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn send(&mut self, to: NodeId, message: GossipMessage) {
        self.effects.push(Effect::Send { to, message });
    }

    fn changed(&mut self, id: NodeId, what: Change) {
        self.effects.push(Effect::Changed(MemberChange { id, what }));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Ping all links and look after them.
    Beat,
    /// Send what was collected.
    Flush,
    /// Make a new own record.
    Announce,
    /// Dial bootstrap addresses and saved peers.
    Boot,
    /// Ask for announced records that did not come.
    Ask,
    /// Compare tables with a neighbour.
    Compare,
    /// Dial a dead member; forget the long gone.
    Redial,
    /// Save good peers.
    Save,
    /// A link may have been silent for too long.
    Silent(NodeId),
    /// A dial may need a second try.
    DialAgain(NodeId),
    /// A dial has had its time.
    Dial(NodeId),
    /// A suspicion may be ripe.
    Doubt(NodeId),
    /// A lost member may be judged now.
    Again(NodeId),
    /// Others may have to look at a suspect as well.
    Second(NodeId),
}

/// The membership of one node.
pub struct Membership {
    config: Config,
    me: NodeId,
    own: Own,
    vouch: Box<dyn Vouch + Send>,
    random: Random,
    table: Table,
    links: BTreeMap<NodeId, Link>,
    dials: BTreeMap<NodeId, Dial>,
    boots: Vec<Boot>,
    /// Good peers, the latest first; at most [`SAVED_MAX`].
    good: VecDeque<NodeId>,
    doubts: BTreeMap<NodeId, Doubt>,
    /// Votes on members that died since the last flush: they may not have been sent yet.
    buried: BTreeMap<NodeId, Vec<Voter>>,
    asks: BTreeMap<NodeId, Ask>,
    /// When links fell silent lately.
    silences: VecDeque<Time>,
    /// How unwell this node is: 0 (well) to 4. Own time-outs grow with it.
    health: u32,
    /// Beats until `health` improves.
    recovery: u32,
    /// Where the circle of dead members was left.
    redialled: NodeId,
    /// Whether the first table came: until then, what a table brings is news to nobody else.
    settled: bool,
    leaving: bool,
    /// Whether a flush is armed.
    flushing: bool,
    /// Whether the last flush was large: then the next one collects for longer.
    busy: bool,
    /// When good peers are saved next.
    saving: Option<Time>,
    timers: BTreeSet<(Time, Timer)>,
    /// Next wake asked for, and whether the first call has been.
    woken: Option<Time>,
}

/// Beats without trouble after which own health improves by a step.
const RECOVERY_BEATS: u32 = 10;
const HEALTH_WORST: u32 = 4;

impl Membership {
    /// The membership of a node that is alone so far. `seed` should differ at each start.
    pub fn new(me: Identity, config: Config, seed: u64, vouch: Box<dyn Vouch + Send>) -> Self {
        let id = me.key.id();
        let boots = dial::boots_of(&me.saved);
        Self {
            config,
            me: id,
            own: Own::new(me),
            vouch,
            random: Random::new(seed),
            table: Table::new(),
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            boots,
            good: VecDeque::new(),
            doubts: BTreeMap::new(),
            buried: BTreeMap::new(),
            asks: BTreeMap::new(),
            silences: VecDeque::new(),
            health: 0,
            recovery: 0,
            redialled: id,
            settled: false,
            leaving: false,
            flushing: false,
            busy: false,
            saving: None,
            timers: BTreeSet::new(),
            woken: None,
        }
    }

    /// Takes what happened at `now` and appends what shall be done. `now` never goes back.
    pub fn handle(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if self.leaving {
            return;
        }
        let turn = &mut Turn { now, effects };
        if self.woken.is_none() {
            self.start(turn);
        }
        self.notice_stall(now);
        match input {
            Input::LinkUp { peer, dialled, addr } => self.link_up(turn, peer, dialled, addr),
            Input::LinkDown { peer, how } => self.link_down(turn, peer, how),
            Input::Gossip { from, message } => self.gossip(turn, from, message),
            Input::DialFailed { addr, expect } => self.dial_failed(turn, addr, expect),
            Input::Bootstrap { addr } => self.add_boot(turn, addr),
            Input::Connect { addr } => turn.effects.push(Effect::Dial { addr, expect: None }),
            Input::SetSelf(state) => self.set_self(turn, state),
            Input::Forget { id } => self.forget(turn, id),
            Input::Leave => return self.leave(turn),
            Input::Tick => {}
        }
        self.run_timers(turn);
        self.ask_to_be_woken(turn);
    }

    /// Every member ever heard of and not forgotten, this node included, in the order of ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.table.iter()
    }

    /// One member.
    pub fn get(&self, id: &NodeId) -> Option<&Member> {
        self.table.get(id)
    }

    /// How many members are in a state.
    pub const fn count(&self, state: MemberState) -> usize {
        self.table.count(state)
    }

    /// A number that changes whenever the table or a state in it changes.
    pub const fn version(&self) -> u64 {
        self.table.version()
    }

    /// The sum over the table: equal at two nodes when their tables are.
    pub const fn root(&self) -> u128 {
        self.table.root()
    }

    /// The links that are up, in the order of ids.
    pub fn links(&self) -> impl Iterator<Item = LinkInfo> {
        self.links.iter().map(|(peer, link)| link.info(*peer))
    }

    /// This node's own record, as last announced.
    pub const fn own(&self) -> &std::sync::Arc<MemberRecord> {
        &self.own.record
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        let member =
            Member { record: self.own.record.clone(), since: turn.now, state: MemberState::Alive };
        self.table.put(member, Duration::ZERO);
        let beat = self.config.beat / 1024 * self.random.below(1024) as u32;
        self.arm(turn.now + beat, Timer::Beat);
        let compare = self.random.jitter(self.config.compare);
        self.arm(turn.now + compare, Timer::Compare);
        let redial = self.random.jitter(self.config.redial);
        self.arm(turn.now + redial, Timer::Redial);
        for boot in &mut self.boots {
            boot.begin(turn.now);
        }
        self.arm(turn.now, Timer::Boot);
    }

    fn arm(&mut self, at: Time, timer: Timer) {
        self.timers.insert((at, timer));
    }

    /// A process that was stopped or starved sees its timers late. What it did not hear in that
    /// time says nothing about others, so every deadline moves by the delay.
    fn notice_stall(&mut self, now: Time) {
        let Some((due, _)) = self.timers.first() else { return };
        let late = now.since(*due);
        if late < self.config.stall {
            return;
        }
        self.health = (self.health + 1).min(HEALTH_WORST);
        self.recovery = RECOVERY_BEATS;
        for link in self.links.values_mut() {
            link.forgive(late, now);
        }
        for (id, dial) in &mut self.dials {
            dial.until = dial.until + late;
            self.timers.insert((dial.until, Timer::Dial(*id)));
        }
    }

    fn run_timers(&mut self, turn: &mut Turn<'_>) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > turn.now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Beat => self.beat(turn),
                Timer::Flush => self.flush(turn),
                Timer::Announce => self.announce_if_due(turn),
                Timer::Boot => self.boot(turn),
                Timer::Ask => self.ask(turn),
                Timer::Compare => self.compare(turn),
                Timer::Redial => self.redial(turn),
                Timer::Save => self.save(turn),
                Timer::Silent(id) => self.check_silence(turn, id),
                Timer::DialAgain(id) => self.dial(turn, id),
                Timer::Dial(id) => self.check_dial(turn, id),
                Timer::Doubt(id) => self.check_doubt(turn, id),
                Timer::Again(id) => self.prove(turn, id, Blame::Silent),
                Timer::Second(id) => self.ask_others(turn, id),
            }
        }
    }

    fn ask_to_be_woken(&mut self, turn: &mut Turn<'_>) {
        let first = self.timers.first().map(|(at, _)| *at);
        if first.is_some() && first != self.woken {
            self.woken = first;
            turn.effects.extend(first.map(Effect::WakeAt));
        }
    }

    fn gossip(&mut self, turn: &mut Turn<'_>, from: NodeId, message: GossipMessage) {
        if !self.heard(turn, from) {
            return;
        }
        match message {
            GossipMessage::Hello { record, root, count } => {
                self.hello(turn, from, record, root, count);
            }
            GossipMessage::Ping { stamp, echo, held, links } => {
                self.pinged(turn, from, stamp, echo, held, links);
            }
            GossipMessage::News { records, have, rumours } => {
                self.news(turn, from, records, have, rumours);
            }
            GossipMessage::Ask { ids } => self.asked(turn, from, ids),
            GossipMessage::Prune => self.pruned(from),
            GossipMessage::Digest { root, .. } => self.digest(turn, from, root),
            GossipMessage::Sums { count, sums } => self.sums(turn, from, count, &sums),
            GossipMessage::Pull { buckets, have } => self.pull(turn, from, &buckets, have),
            GossipMessage::Table { entries, want, last } => {
                self.page(turn, from, entries, want, last);
            }
            GossipMessage::Probe { id } => self.probe_asked(turn, id),
            GossipMessage::Drop { records } => self.dropped(turn, from, records),
        }
    }

    fn forget(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        if id == self.me || self.table.get(&id).is_none() {
            return;
        }
        self.table.remove(&id);
        self.doubts.remove(&id);
        self.dials.remove(&id);
        self.good.retain(|peer| *peer != id);
        if self.links.remove(&id).is_some() {
            turn.effects.push(Effect::Close { peer: id });
        }
        turn.changed(id, Change::Forgotten);
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me)
            .field("members", &self.table.len())
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}
