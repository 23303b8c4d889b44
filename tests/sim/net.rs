//! The world of the simulator: virtual time, machines, and TCP connections between them. Owns the
//! event queue and the model of the network; it knows nothing of what the nodes ought to do
//! (`checks` does).
//!
//! The model. Each pair of machines has a latency of 1 to 50 ms, with up to 1 ms of jitter. A
//! connection is ordered; a lost packet delays it and all behind it by the retransmission time-out
//! (200 ms, doubling; no fast retransmit, so loss is dearer than in reality). A line carries
//! 100 Mbit/s per connection. Setting up takes two round trips (TCP and TLS); a lost SYN costs 1 s,
//! doubling; the shell gives up after 5 s. A killed process sends FIN on all its connections and
//! its machine refuses new ones; a machine without power says nothing. Data across a cut waits and
//! is retransmitted after it heals; a cut in one direction stops both, as acknowledgements are
//! missing. A slow machine stops for up to 2.5 s at a time, with its input queueing up.
//!
//! Invariant: everything is a function of the seed; nothing walks a map in random order.

use crate::checks::Checks;
use p2pfs::core::membership::{
    Config, Down, Effect, Identity, Input, Membership, SelfState, Vouch,
};
use p2pfs::crypto::NodeKey;
use p2pfs::id::NodeId;
use p2pfs::sys::Time;
use p2pfs::wire::codec::{Decode, Encode};
use p2pfs::wire::gossip::{GossipMessage, MESSAGE_MAX, MemberFlags, MemberRecord, Reach};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

pub const MS: u64 = 1000;
pub const SECOND: u64 = 1000 * MS;
/// Bytes around a message: IP 20, TCP 32, TLS record 22 (less with a shorter frame header).
const OVERHEAD: u64 = 67;
/// Bytes that each side sends to set up a connection (TCP and TLS handshake).
const SETUP_BYTES: u64 = 1500;
const PACKET: usize = 1400;
const DIAL_LIMIT: u64 = 5 * SECOND;

/// The world's chance: SplitMix64.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn happens(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64) < share * (1u64 << 53) as f64
    }
}

/// Believes every record that names its flags as stored: as cheap as a check can be.
struct Believe;

impl Vouch for Believe {
    fn vouch(&self, record: &MemberRecord) -> bool {
        record.flags.has(MemberFlags::STORE)
    }
}

enum Item {
    Message(GossipMessage),
    Fin,
}

/// One end of a connection.
struct End {
    conn: u64,
    /// When the last item sent so far arrives at the other end.
    next: u64,
    held: VecDeque<Item>,
}

pub struct Node {
    pub id: NodeId,
    key: NodeKey,
    pub addr: SocketAddr,
    pub epoch: u64,
    pub core: Option<Membership>,
    powered: bool,
    slow: bool,
    free_at: u64,
    wake: u64,
    ends: BTreeMap<u32, End>,
    pub saved: Vec<(NodeId, Vec<SocketAddr>)>,
    pub sent: u64,
    pub side: u8,
}

impl Node {
    pub fn core(&self) -> &Membership {
        self.core.as_ref().expect("the node runs")
    }
}

enum What {
    Deliver { from: u32, conn: u64, item: Item },
    Reset { from: u32, conn: u64 },
    Connected { to: u32, addr: SocketAddr, expect: Option<NodeId>, epoch: u64 },
    Accepted { from: u32, conn: u64 },
    DialFailed { addr: SocketAddr, expect: Option<NodeId>, epoch: u64 },
    Wake,
}

struct Event {
    at: u64,
    order: u64,
    node: u32,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct World {
    pub now: u64,
    pub nodes: Vec<Node>,
    pub checks: Checks,
    pub chance: Chance,
    /// Hash of all events so far: two runs of one seed have the same.
    pub history: u64,
    pub events: u64,
    pub loss: f64,
    seed: u64,
    order: u64,
    conns: u64,
    queue: BinaryHeap<Reverse<Event>>,
    places: HashMap<SocketAddr, u32>,
    cut: BTreeSet<(u32, u32)>,
    scratch: Vec<u8>,
    effects: Vec<Effect>,
    /// Whether every message goes through its bytes and back.
    encode: bool,
}

impl World {
    pub fn new(seed: u64, loss: f64) -> Self {
        Self {
            now: 0,
            nodes: Vec::new(),
            checks: Checks::default(),
            chance: Chance::new(seed),
            history: seed,
            events: 0,
            loss,
            seed,
            order: 0,
            conns: 0,
            queue: BinaryHeap::new(),
            places: HashMap::new(),
            cut: BTreeSet::new(),
            scratch: Vec::new(),
            effects: Vec::new(),
            encode: false,
        }
    }

    /// Sends every message through its encoder and decoder, as between real nodes.
    pub fn encode_all(&mut self) {
        self.encode = true;
    }

    /// Adds a machine; its process is not running yet.
    pub fn add(&mut self) -> usize {
        let index = self.nodes.len();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
        seed[8..16].copy_from_slice(&self.seed.to_le_bytes());
        let key = NodeKey::from_seed(&seed);
        let addr = address(index as u32, 0);
        self.places.insert(addr, index as u32);
        self.checks.ids.insert(key.id(), index);
        self.nodes.push(Node {
            id: key.id(),
            key,
            addr,
            epoch: 0,
            core: None,
            powered: true,
            slow: false,
            free_at: 0,
            wake: u64::MAX,
            ends: BTreeMap::new(),
            saved: Vec::new(),
            sent: 0,
            side: 0,
        });
        index
    }

    /// Starts the process of a machine, with the peers saved in its last life.
    pub fn start(&mut self, node: usize, boots: &[SocketAddr]) {
        let state = self.self_state(node);
        let seed = self.chance.next();
        let this = &mut self.nodes[node];
        this.powered = true;
        this.epoch = 1_790_000_000_000 + self.now / MS + 1;
        let identity =
            Identity { key: this.key.clone(), epoch: this.epoch, state, saved: this.saved.clone() };
        this.core = Some(Membership::new(identity, Config::default(), seed, Box::new(Believe)));
        this.wake = u64::MAX;
        self.input(node, Input::Tick);
        for addr in boots {
            self.input(node, Input::Bootstrap { addr: *addr });
        }
    }

    fn self_state(&self, node: usize) -> SelfState {
        SelfState {
            addrs: vec![self.nodes[node].addr],
            reach: Reach::Public,
            capacity: 1 << 40,
            used: 0,
            zone: "rack-1".into(),
            machine: [node as u8; 8],
            version: "0.1.0".into(),
            name: "simulated node".into(),
            flags: MemberFlags::STORE,
            counted: 0,
            // As long as a grant may well be: a signature, two keys and a time.
            grant: vec![7; 140],
        }
    }

    /// Kills the process; its machine closes what was open.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].core = None;
        let peers: Vec<u32> = self.nodes[node].ends.keys().copied().collect();
        for peer in peers {
            self.close(node as u32, peer);
        }
    }

    /// Cuts the power.
    pub fn power_off(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.core = None;
        this.powered = false;
        this.ends.clear();
    }

    pub fn slow_down(&mut self, node: usize) {
        self.nodes[node].slow = true;
    }

    pub fn speed_up(&mut self, node: usize) {
        self.nodes[node].slow = false;
    }

    /// Moves a node to another address, with new connections.
    pub fn move_to(&mut self, node: usize, generation: u8) {
        let addr = address(node as u32, generation);
        self.places.remove(&self.nodes[node].addr);
        self.places.insert(addr, node as u32);
        self.nodes[node].addr = addr;
        let state = self.self_state(node);
        self.input(node, Input::SetSelf(state));
    }

    /// Nobody of one side reaches anybody of the other.
    pub fn cut_sides(&mut self, side: impl Fn(usize) -> u8) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.side = side(index);
        }
    }

    pub fn cut_pair(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b) as u32, a.max(b) as u32));
    }

    /// Ends all cuts; what waited is retransmitted within the time the senders have backed off to.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.nodes.iter_mut().for_each(|node| node.side = 0);
        for from in 0..self.nodes.len() {
            let waiting = self.nodes[from].ends.iter().filter(|(_, end)| !end.held.is_empty());
            let waiting: Vec<u32> = waiting.map(|(to, _)| *to).collect();
            for to in waiting {
                let backoff = 200 * MS + self.chance.below(10 * SECOND);
                let end = self.nodes[from].ends.get_mut(&to).expect("just listed");
                end.next = end.next.max(self.now + backoff);
                for item in std::mem::take(&mut end.held) {
                    self.transmit(from as u32, to, item, 0);
                }
            }
        }
    }

    pub fn blocked(&self, a: u32, b: u32) -> bool {
        self.nodes[a as usize].side != self.nodes[b as usize].side
            || !self.cut.is_empty() && self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Runs until `until` or until `done` holds (looked at every 20 ms), and says when.
    pub fn run_until(&mut self, until: u64, mut done: impl FnMut(&Self) -> bool) -> Option<u64> {
        while self.now < until {
            if done(self) {
                return Some(self.now);
            }
            self.run_to((self.now + 20 * MS).min(until));
        }
        done(self).then_some(self.now)
    }

    pub fn run_for(&mut self, span: u64) {
        self.run_to(self.now + span);
    }

    fn run_to(&mut self, until: u64) {
        while self.queue.peek().is_some_and(|Reverse(event)| event.at <= until) {
            let Some(Reverse(event)) = self.queue.pop() else { break };
            self.now = event.at;
            self.step(event);
        }
        self.now = until;
    }

    fn step(&mut self, event: Event) {
        let Event { node, what, .. } = event;
        let this = &mut self.nodes[node as usize];
        if this.slow && this.core.is_some() {
            if self.now >= this.free_at && self.chance.below(40) == 0 {
                this.free_at = self.now + 200 * MS + self.chance.below(2300 * MS);
            }
            if self.now < this.free_at {
                let (at, wake) = (this.free_at, this.wake);
                if matches!(what, What::Wake) && wake == event.at {
                    this.wake = at;
                }
                return self.schedule(at, node, what);
            }
        }
        self.events += 1;
        let kind = match &what {
            What::Deliver { .. } => 1u64,
            What::Reset { .. } => 2,
            What::Connected { .. } => 3,
            What::Accepted { .. } => 4,
            What::DialFailed { .. } => 5,
            What::Wake => 6,
        };
        let mixed = self.history ^ self.now ^ (u64::from(node) << 40) ^ (kind << 60);
        self.history = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        self.happen(node, event.at, what);
    }

    fn happen(&mut self, node: u32, at: u64, what: What) {
        let this = &mut self.nodes[node as usize];
        let running = this.core.is_some();
        match what {
            What::Wake => {
                if running && this.wake == at {
                    this.wake = u64::MAX;
                    self.input(node as usize, Input::Tick);
                }
            }
            What::Deliver { from, conn, item } => self.deliver(node, from, conn, item),
            What::Reset { from, conn } => {
                if this.ends.get(&from).is_some_and(|end| end.conn == conn) {
                    this.ends.remove(&from);
                    let peer = self.nodes[from as usize].id;
                    self.input(node as usize, Input::LinkDown { peer, how: Down::Closed });
                }
            }
            What::Connected { to, addr, expect, epoch } => {
                if running && this.epoch == epoch {
                    self.connected(node, to, addr, expect);
                }
            }
            What::Accepted { from, conn } => {
                let known = this.ends.get(&from).is_some_and(|end| end.conn == conn);
                if running && known {
                    let peer = self.nodes[from as usize].id;
                    let addr = self.nodes[from as usize].addr;
                    self.input(node as usize, Input::LinkUp { peer, dialled: false, addr });
                }
            }
            What::DialFailed { addr, expect, epoch } => {
                if running && this.epoch == epoch {
                    self.input(node as usize, Input::DialFailed { addr, expect });
                }
            }
        }
    }

    fn deliver(&mut self, node: u32, from: u32, conn: u64, item: Item) {
        let this = &mut self.nodes[node as usize];
        if !this.powered {
            return;
        }
        let known = this.ends.get(&from).is_some_and(|end| end.conn == conn);
        let peer = self.nodes[from as usize].id;
        match (known, item) {
            (true, Item::Message(message)) => {
                self.input(node as usize, Input::Gossip { from: peer, message });
            }
            (true, Item::Fin) => {
                self.nodes[node as usize].ends.remove(&from);
                self.input(node as usize, Input::LinkDown { peer, how: Down::Closed });
            }
            // Nobody has this connection any more: the machine answers with RST.
            (false, Item::Message(_)) => {
                let at = self.now + self.latency(node, from);
                self.schedule(at, from, What::Reset { from: node, conn });
            }
            (false, Item::Fin) => {}
        }
    }

    /// Gives an input to a node and carries out its effects.
    pub fn input(&mut self, node: usize, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        let this = &mut self.nodes[node];
        if let Some(core) = &mut this.core {
            core.handle(Time(self.now), input, &mut effects);
        }
        for effect in effects.drain(..) {
            self.perform(node as u32, effect);
        }
        self.effects = effects;
    }

    /// Gives inputs to a node and drops the effects: for starting a world in a given state.
    pub fn prime(&mut self, node: usize, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        let this = &mut self.nodes[node];
        this.core.as_mut().expect("runs").handle(Time(self.now), input, &mut effects);
        for effect in effects.drain(..) {
            if let Effect::WakeAt(_) = effect {
                self.perform(node as u32, effect);
            }
        }
        self.effects = effects;
    }

    fn perform(&mut self, node: u32, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let to = self.checks.ids[&to] as u32;
                self.send(node, to, message);
            }
            Effect::Dial { addr, expect } => self.dial(node, addr, expect),
            Effect::Close { peer } => {
                let to = self.checks.ids[&peer] as u32;
                self.close(node, to);
            }
            Effect::Changed(change) => {
                let target = self.checks.ids[&change.id] as u32;
                let (observer, victim) = (&self.nodes[node as usize], &self.nodes[target as usize]);
                let epoch = observer.core().get(&change.id).map(|m| m.record.stamp.epoch);
                let well = victim.core.is_some()
                    && Some(victim.epoch) == epoch
                    && !self.blocked(node, target);
                self.checks.changed(self.now, node as usize, change, well);
            }
            Effect::SavePeers(peers) => self.nodes[node as usize].saved = peers,
            Effect::WakeAt(at) => {
                let at = at.0.max(self.now);
                self.nodes[node as usize].wake = at;
                self.schedule(at, node, What::Wake);
            }
        }
    }

    fn send(&mut self, from: u32, to: u32, message: GossipMessage) {
        if !self.nodes[from as usize].ends.contains_key(&to) {
            return;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        message.encode(&mut bytes);
        assert!(bytes.len() <= MESSAGE_MAX);
        let len = bytes.len();
        let message = if self.encode {
            GossipMessage::from_bytes(&bytes).expect("what is sent can be read")
        } else {
            message
        };
        self.scratch = bytes;
        self.nodes[from as usize].sent += len as u64 + OVERHEAD;
        self.transmit(from, to, Item::Message(message), len);
    }

    fn transmit(&mut self, from: u32, to: u32, item: Item, len: usize) {
        let blocked = self.blocked(from, to);
        let latency = self.latency(from, to);
        let packets = 1 + len / PACKET;
        let mut delay = latency + len as u64 * 8 / 100;
        // Any packet of the message, then its retransmissions.
        let mut lost = 1.0 - (1.0 - self.loss).powi(packets as i32);
        let mut timeout = 200 * MS;
        while self.chance.happens(lost) {
            delay += timeout;
            timeout *= 2;
            lost = self.loss;
        }
        let Some(end) = self.nodes[from as usize].ends.get_mut(&to) else { return };
        if blocked || !end.held.is_empty() {
            end.held.push_back(item);
            return;
        }
        end.next = end.next.max(self.now + delay);
        let (at, conn) = (end.next, end.conn);
        self.schedule(at, to, What::Deliver { from, conn, item });
    }

    fn close(&mut self, from: u32, to: u32) {
        self.transmit(from, to, Item::Fin, 0);
        self.nodes[from as usize].ends.remove(&to);
    }

    fn dial(&mut self, from: u32, addr: SocketAddr, expect: Option<NodeId>) {
        let epoch = self.nodes[from as usize].epoch;
        self.nodes[from as usize].sent += SETUP_BYTES;
        let to = self.places.get(&addr).copied();
        let reachable = |to: &u32| self.nodes[*to as usize].powered && !self.blocked(from, *to);
        let Some(to) = to.filter(reachable) else {
            let at = self.now + DIAL_LIMIT;
            return self.schedule(at, from, What::DialFailed { addr, expect, epoch });
        };
        let trip = 2 * self.latency(from, to);
        let mut delay = 0;
        let mut timeout = SECOND;
        while self.chance.happens(2.0 * self.loss) {
            delay += timeout;
            timeout *= 2;
        }
        let mut timeout = 200 * MS;
        while self.chance.happens(2.0 * self.loss) {
            delay += timeout;
            timeout *= 2;
        }
        let refused = self.nodes[to as usize].core.is_none();
        let (at, what) = if delay + 2 * trip > DIAL_LIMIT {
            (DIAL_LIMIT, What::DialFailed { addr, expect, epoch })
        } else if refused {
            (delay + trip, What::DialFailed { addr, expect, epoch })
        } else {
            (delay + 2 * trip, What::Connected { to, addr, expect, epoch })
        };
        self.schedule(self.now + at, from, what);
    }

    fn connected(&mut self, from: u32, to: u32, addr: SocketAddr, expect: Option<NodeId>) {
        let id = self.nodes[to as usize].id;
        let lost = self.blocked(from, to) || self.nodes[to as usize].core.is_none();
        if lost || expect.is_some_and(|expect| expect != id) {
            return self.input(from as usize, Input::DialFailed { addr, expect });
        }
        if from == to {
            return self.input(from as usize, Input::LinkUp { peer: id, dialled: true, addr });
        }
        let conn = |a: u32, b: u32| self.nodes[a as usize].ends.get(&b).map(|end| end.conn);
        if conn(from, to).is_some() && conn(from, to) == conn(to, from) {
            return;
        }
        self.nodes[to as usize].sent += SETUP_BYTES;
        let accept = self.latency(from, to);
        self.link(from, to, addr, accept);
    }

    fn link(&mut self, from: u32, to: u32, addr: SocketAddr, accept: u64) {
        self.conns += 1;
        let conn = self.conns;
        let next = self.now + accept;
        self.nodes[from as usize].ends.insert(to, End { conn, next, held: VecDeque::new() });
        self.nodes[to as usize].ends.insert(from, End { conn, next, held: VecDeque::new() });
        self.schedule(next, to, What::Accepted { from, conn });
        let peer = self.nodes[to as usize].id;
        self.input(from as usize, Input::LinkUp { peer, dialled: true, addr });
    }

    /// A connection that is simply there: for starting a world in a given state.
    pub fn link_now(&mut self, from: usize, to: usize) {
        let addr = self.nodes[to].addr;
        if from != to && !self.nodes[from].ends.contains_key(&(to as u32)) {
            self.link(from as u32, to as u32, addr, MS);
        }
    }

    fn schedule(&mut self, at: u64, node: u32, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Event { at, order: self.order, node, what }));
    }

    /// 1 to 50 ms, fixed for a pair, and up to 1 ms of jitter.
    fn latency(&mut self, a: u32, b: u32) -> u64 {
        let pair = (u64::from(a.min(b)) << 32 | u64::from(a.max(b))) ^ self.seed.rotate_left(17);
        MS + Chance::new(pair).below(49 * MS) + self.chance.below(MS)
    }
}

fn address(node: u32, generation: u8) -> SocketAddr {
    let [_, a, b, c] = node.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10 + generation, a, b, c), 4000))
}
