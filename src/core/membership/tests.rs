//! One node driven by hand: what it believes, what it refuses, what it bounds. Whole swarms are
//! simulated in `tests/sim.rs`.

use super::*;
use crate::crypto::NodeKey;
use crate::wire::gossip::{Entry, MemberFlags, Rumour, Stamp};
use std::sync::Arc;

struct Signed;

impl Vouch for Signed {
    fn vouch(&self, record: &MemberRecord) -> bool {
        record.is_signed()
    }
}

struct All;

impl Vouch for All {
    fn vouch(&self, _: &MemberRecord) -> bool {
        true
    }
}

fn addr(index: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 4000))
}

fn key(index: u32) -> NodeKey {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&index.to_le_bytes());
    NodeKey::from_seed(&seed)
}

fn identity(index: u32) -> Identity {
    let state =
        SelfState { addrs: vec![addr(index)], flags: MemberFlags::STORE, ..SelfState::default() };
    Identity { key: key(index), epoch: 100, state, saved: vec![] }
}

fn record(index: u32, seq: u32) -> Arc<MemberRecord> {
    let own = Own::new(identity(index)).record;
    let stamp = Stamp { epoch: 100, seq };
    let mut record = MemberRecord { stamp, ..(*own).clone() };
    record.sign(&key(index));
    Arc::new(record)
}

struct Node {
    core: Membership,
    now: Time,
}

impl Node {
    fn new(vouch: Box<dyn Vouch + Send>) -> Self {
        let core = Membership::new(identity(0), Config::default(), 1, vouch);
        let mut node = Self { core, now: Time(1_000_000) };
        node.give(Input::Tick);
        node
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        effects
    }

    fn hear(&mut self, from: u32, message: GossipMessage) -> Vec<Effect> {
        self.give(Input::Gossip { from: key(from).id(), message })
    }

    /// Lets time pass, waking as asked, with a ping from each of `peers` every half second.
    fn pass(&mut self, span: Duration, peers: &[u32]) -> Vec<Effect> {
        let (end, mut effects) = (self.now + span, Vec::new());
        while self.now < end {
            self.now = self.now + Duration::from_millis(20);
            effects.extend(self.give(Input::Tick));
            if self.now.0 % 500_000 < 20_000 {
                let ping = GossipMessage::Ping { stamp: 1, echo: 0, held: 0, links: 8 };
                peers.iter().for_each(|peer| effects.extend(self.hear(*peer, ping.clone())));
            }
        }
        effects
    }

    fn meet(&mut self, peer: u32) -> Vec<Effect> {
        let up = Input::LinkUp { peer: key(peer).id(), dialled: false, addr: addr(peer) };
        let mut effects = self.give(up);
        let hello = GossipMessage::Hello { record: record(peer, 0), root: 0, count: 1 };
        effects.extend(self.hear(peer, hello));
        effects
    }

    fn state(&self, peer: u32) -> Option<MemberState> {
        self.core.get(&key(peer).id()).map(|member| member.state)
    }
}

fn news(records: Vec<Arc<MemberRecord>>, rumours: Vec<Rumour>) -> GossipMessage {
    GossipMessage::News { records, have: vec![], rumours }
}

fn rumour(peer: u32, seq: u32, voters: &[u8]) -> Rumour {
    let voters = voters.iter().map(|voter| [*voter; 8]).collect();
    Rumour { id: key(peer).id(), stamp: Stamp { epoch: 100, seq }, dead: false, voters }
}

fn sent_news(effects: &[Effect], to: u32) -> Vec<Arc<MemberRecord>> {
    let news = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to: peer, message: GossipMessage::News { records, .. } }
            if *peer == key(to).id() =>
        {
            Some(records.clone())
        }
        _ => None,
    });
    news.flatten().collect()
}

#[test]
fn a_record_without_its_owners_signature_is_neither_kept_nor_passed_on() {
    let mut node = Node::new(Box::new(Signed));
    node.meet(1);
    node.meet(2);
    let forged = Arc::new(MemberRecord { capacity: 9, ..(*record(1, 7)).clone() });
    node.hear(2, news(vec![forged], vec![]));
    assert_eq!(node.core.get(&key(1).id()).unwrap().record.stamp.seq, 0);
    let effects = node.pass(Duration::from_millis(100), &[]);
    assert!(sent_news(&effects, 1).iter().all(|record| record.capacity != 9));
    node.hear(2, news(vec![record(1, 7)], vec![]));
    assert_eq!(node.core.get(&key(1).id()).unwrap().record.stamp.seq, 7);
}

#[test]
fn a_suspect_that_hears_of_it_outbids_the_rumour() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let before = node.core.own().stamp;
    let effects = node.hear(1, news(vec![], vec![rumour(0, before.seq, &[7, 8, 9])]));
    let after = node.core.own();
    assert!(after.stamp > before && after.is_signed());
    assert_eq!(sent_news(&effects, 1), std::slice::from_ref(after));
    // A record of an earlier life with a faster clock is outbid as well.
    let mut old = (**after).clone();
    old.stamp.epoch += 1000;
    let outbid = old.stamp;
    node.pass(Duration::from_millis(200), &[]);
    node.hear(1, news(vec![Arc::new(old)], vec![]));
    assert!(node.core.own().stamp > outbid);
}

#[test]
fn three_votes_are_a_death_and_two_are_not_yet() {
    let mut node = Node::new(Box::new(All));
    let peers: Vec<u32> = (1..=6).collect();
    peers.iter().for_each(|peer| drop(node.meet(*peer)));
    node.hear(1, news(vec![record(9, 0)], vec![]));
    node.hear(1, news(vec![], vec![rumour(9, 0, &[7, 8])]));
    assert_eq!(node.state(9), Some(MemberState::Suspect));
    // It answers no dial, but this node's own vote is taken only after the dial has failed.
    node.pass(Duration::from_secs(1), &peers);
    assert_eq!(node.state(9), Some(MemberState::Suspect));
    node.hear(2, news(vec![], vec![rumour(9, 0, &[6])]));
    node.pass(Duration::from_millis(100), &peers);
    assert_eq!(node.state(9), Some(MemberState::Dead));
    // Only the owner brings it back, with a newer record.
    node.hear(2, news(vec![record(9, 0)], vec![]));
    assert_eq!(node.state(9), Some(MemberState::Dead));
    node.hear(2, news(vec![record(9, 1)], vec![]));
    assert_eq!(node.state(9), Some(MemberState::Alive));
}

#[test]
fn a_link_without_an_answered_ping_is_no_sign_of_life() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let peer = key(1).id();
    node.give(Input::LinkDown { peer, how: Down::Closed });
    node.give(Input::LinkUp { peer, dialled: true, addr: addr(1) });
    node.pass(Duration::from_millis(2500), &[]);
    assert_eq!(node.state(1), Some(MemberState::Dead));
}

#[test]
fn a_node_that_was_stopped_does_not_blame_others() {
    let mut node = Node::new(Box::new(All));
    let peers: Vec<u32> = (1..=4).collect();
    peers.iter().for_each(|peer| drop(node.meet(*peer)));
    node.pass(Duration::from_secs(3), &peers);
    node.now = node.now + Duration::from_secs(60);
    let effects = node.pass(Duration::from_secs(1), &[]);
    assert_eq!(node.core.links().count(), 4, "{effects:?}");
    node.pass(Duration::from_secs(3), &peers);
    assert!(peers.iter().all(|peer| node.state(*peer) == Some(MemberState::Alive)));
}

#[test]
fn a_death_heard_of_in_a_table_is_a_suspicion_first() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    node.meet(2);
    let entry = |gone| Entry { record: record(2, 0), gone };
    let page = |entry| GossipMessage::Table { entries: vec![entry], want: vec![], last: false };
    node.hear(1, page(entry(Some(60))));
    assert_eq!(node.state(2), Some(MemberState::Suspect));
    node.hear(2, news(vec![record(2, 1)], vec![]));
    assert_eq!(node.state(2), Some(MemberState::Alive));
}

#[test]
fn the_table_is_bounded_and_the_longest_gone_make_room() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let base = record(1, 0);
    let stranger = |index: u32, gone| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&index.to_le_bytes());
        Entry { record: Arc::new(MemberRecord { id: NodeId(id), ..(*base).clone() }), gone }
    };
    let page = |entries| GossipMessage::Table { entries, want: vec![], last: false };
    for index in 0..MEMBERS_MAX as u32 + 100 {
        node.hear(1, page(vec![stranger(index, (index < 50).then(|| 1000 - index))]));
    }
    assert_eq!(node.core.table.len(), MEMBERS_MAX);
    assert_eq!(node.core.count(MemberState::Dead), 0);
}

#[test]
fn what_changes_often_is_announced_seldom_and_the_rest_at_once() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let mut state = identity(0).state;
    let seq = |node: &Node| node.core.own().stamp.seq;
    state.used = 1;
    state.counted = 1;
    node.pass(Duration::from_secs(70), &[1]);
    node.give(Input::SetSelf(state.clone()));
    assert_eq!(seq(&node), 1);
    state.counted = 2;
    node.give(Input::SetSelf(state.clone()));
    assert_eq!(seq(&node), 1);
    node.pass(Duration::from_millis(2050), &[1]);
    assert_eq!((seq(&node), node.core.own().counted), (2, 2));
    state.used = 2;
    node.give(Input::SetSelf(state.clone()));
    node.pass(Duration::from_secs(50), &[1]);
    assert_eq!(seq(&node), 2);
    state.addrs = vec![addr(77)];
    node.give(Input::SetSelf(state));
    assert_eq!((seq(&node), node.core.own().used), (3, 2));
}

#[test]
fn that_the_space_is_used_up_is_announced_at_once() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let mut state = SelfState { used: 57, ..identity(0).state };
    node.give(Input::SetSelf(state.clone()));
    node.pass(Duration::from_secs(70), &[1]);
    for (used, said) in [(57, 57), (58, 57), (60, 60), (64, 60), (58, 58)] {
        state.used = used;
        node.give(Input::SetSelf(state.clone()));
        node.pass(Duration::from_secs(1), &[1]);
        assert_eq!(node.core.own().used, said, "{used}");
    }
}

#[test]
fn after_a_goodbye_nothing_is_done() {
    let mut node = Node::new(Box::new(All));
    node.meet(1);
    let effects = node.give(Input::Leave);
    let said = sent_news(&effects, 1);
    assert!(said.iter().any(|record| record.flags.has(MemberFlags::LEFT)));
    assert_eq!(node.pass(Duration::from_secs(5), &[]), []);
}

#[test]
fn a_new_neighbour_is_remembered_within_a_second_however_long_ago_the_others_were() {
    let mut node = Node::new(Box::new(All));
    let saved = |effects: &[Effect]| -> Vec<usize> {
        let peers = effects.iter().filter_map(|effect| match effect {
            Effect::SavePeers(peers) => Some(peers.len()),
            _ => None,
        });
        peers.collect()
    };
    node.meet(1);
    assert_eq!(saved(&node.pass(Duration::from_millis(1100), &[1])), [1]);
    assert_eq!(saved(&node.pass(Duration::from_secs(10), &[1])), [0; 0]);
    node.meet(2);
    assert_eq!(saved(&node.pass(Duration::from_millis(1100), &[1, 2])), [2]);
    // And still only once a minute when nothing changes.
    assert_eq!(saved(&node.pass(Duration::from_secs(121), &[1, 2])), [2, 2]);
}
