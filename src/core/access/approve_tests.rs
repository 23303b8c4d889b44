//! Approvals with an honest course, and with somebody in the middle who relays, replays, swaps and
//! guesses.

use super::*;
use crate::core::access::{FOREVER, Roles, Terms};
use crate::crypto::{NodeKey, SwarmKey};

const WALL: u64 = 1_800_000_000_000;
const RANDOM: [u8; 5] = [1, 2, 3, 4, 5];

fn node(seed: u8) -> NodeId {
    NodeKey::from_seed(&[seed; 32]).id()
}

fn request(seed: u8) -> JoinRequest {
    JoinRequest { node: node(seed), owner: [seed; 32], label: format!("node {seed}") }
}

fn joiner() -> Joiner {
    Joiner::new(Time::ZERO, request(1), RANDOM)
}

fn code() -> PairingCode {
    PairingCode::from_random(RANDOM)
}

fn issue(request: &JoinRequest) -> Grant {
    let terms = Terms {
        node: request.node,
        owner: request.owner,
        roles: Roles::MEMBER,
        label: request.label.clone(),
        not_before: WALL,
        not_after: FOREVER,
        serial: [8; 16],
    };
    Grant::issue(&SwarmKey::from_seed(&[77; 32]), terms)
}

fn never(_: &JoinRequest) -> Grant {
    panic!("no grant may be made here")
}

/// An approval by the right code with the request as the middle shows it to the admin.
fn approval(shown: JoinRequest) -> (Approval, Offer) {
    let (approval, mut offers) = Approval::start(&code(), node(9), [shown], &[50; 32]);
    (approval, offers.remove(0).1)
}

#[test]
fn the_one_with_the_code_gets_its_grant_and_the_others_nothing() {
    let mut right = joiner();
    let mut wrong = Joiner::new(Time::ZERO, request(2), [9; 5]);
    let mut room = WaitingRoom::default();
    for waiting in [&right, &wrong] {
        let request = waiting.request().clone();
        room.admit(Time::ZERO, &request.node.clone(), request).unwrap();
    }
    let requests: Vec<_> = room.requests(Time::ZERO).cloned().collect();
    let (mut approval, offers) = Approval::start(&code(), node(9), requests, &[50; 32]);
    assert_eq!(offers.len(), 2);
    let mut granted = None;
    for (to, offer) in offers {
        let target = if to == node(1) { &mut right } else { &mut wrong };
        let reply = target.offer(Time::ZERO, &offer, &[60; 32]).unwrap();
        match approval.reply(&to, &reply, issue) {
            Ok(verdict) => granted = Some((to, verdict)),
            Err(refused) => assert!(
                matches!(refused, ApproveError::Mismatch | ApproveError::NoRun) && to == node(2)
            ),
        }
    }
    let (to, verdict) = granted.unwrap();
    assert_eq!((to, approval.open_runs()), (node(1), 0));
    let grant = right.verdict(Time::ZERO, WALL, &verdict).unwrap();
    assert_eq!(grant, issue(&request(1)));
    assert_eq!(wrong.verdict(Time::ZERO, WALL, &verdict), Err(ApproveError::NoRun));
}

#[test]
fn a_middle_cannot_put_its_own_node_or_owner_into_the_request() {
    let swapped = [
        JoinRequest { node: node(66), ..request(1) },
        JoinRequest { owner: [66; 32], ..request(1) },
        JoinRequest { label: "trusted".into(), ..request(1) },
    ];
    for shown in swapped {
        let to = shown.node;
        let (mut approval, offer) = approval(shown);
        let reply = joiner().offer(Time::ZERO, &offer, &[60; 32]).unwrap();
        assert_eq!(approval.reply(&to, &reply, never), Err(ApproveError::Mismatch));
    }
}

#[test]
fn a_middle_cannot_pose_as_the_admin_or_bring_its_own_swarm() {
    let mut joiner = joiner();
    let (mut approval, offer) = approval(request(1));
    let posed = Offer { admin: node(66), ..offer };
    let reply = joiner.offer(Time::ZERO, &posed, &[60; 32]).unwrap();
    assert_eq!(approval.reply(&node(1), &reply, never), Err(ApproveError::Mismatch));

    let (mut approval, offer) = self::approval(JoinRequest { ..request(1) });
    let mut joiner = Joiner::new(Time::ZERO, request(1), RANDOM);
    let reply = joiner.offer(Time::ZERO, &offer, &[60; 32]).unwrap();
    let mut verdict = approval.reply(&node(1), &reply, issue).unwrap();
    // A grant from a swarm of the middle's, sealed as well as it can.
    let theirs = Grant::issue(&SwarmKey::from_seed(&[66; 32]), issue(&request(1)).terms);
    let code = PairingCode::from_random([6; 5]);
    let (pairing, _) = PairingAdmin::start(&code, &node(9), &node(1), &[66; 32]);
    let (confirmation, sealed) = pairing.finish(&reply.message).unwrap().seal(&theirs.to_bytes());
    verdict.confirmation = confirmation;
    verdict.sealed = sealed;
    assert_eq!(joiner.verdict(Time::ZERO, WALL, &verdict), Err(ApproveError::Mismatch));
    assert_eq!(joiner.verdict(Time::ZERO, WALL, &verdict), Err(ApproveError::NoRun));
}

#[test]
fn messages_of_one_run_are_worth_nothing_in_another() {
    let mut joiner = joiner();
    let (mut first, offer) = approval(request(1));
    let reply = joiner.offer(Time::ZERO, &offer, &[60; 32]).unwrap();
    assert_eq!(joiner.offer(Time::ZERO, &offer, &[61; 32]), Err(ApproveError::NoRun));
    let verdict = first.reply(&node(1), &reply, issue).unwrap();
    assert_eq!(first.reply(&node(1), &reply, never), Err(ApproveError::NoRun));

    let (mut second, mut offers) = Approval::start(&code(), node(9), [request(1)], &[51; 32]);
    let offer = offers.remove(0).1;
    let replayed = Reply { run: offer.run, ..reply };
    assert_eq!(second.reply(&node(1), &replayed, never), Err(ApproveError::Mismatch));
    joiner.offer(Time::ZERO, &offer, &[62; 32]).unwrap();
    let replayed = Verdict { run: offer.run, ..verdict.clone() };
    assert_eq!(joiner.verdict(Time::ZERO, WALL, &replayed), Err(ApproveError::Mismatch));
    // The first run is untouched by all this.
    assert!(joiner.verdict(Time::ZERO, WALL, &verdict).is_ok());
}

#[test]
fn each_guess_burns_a_run_and_five_void_the_code() {
    let mut joiner = joiner();
    for guess in 0..MAX_RUNS {
        assert!(!joiner.is_due(Time::ZERO));
        let code = PairingCode::from_random([guess + 100; 5]);
        let (mut approval, mut offers) =
            Approval::start(&code, node(66), [request(1)], &[guess; 32]);
        let reply = joiner.offer(Time::ZERO, &offers.remove(0).1, &[60 + guess; 32]).unwrap();
        assert_eq!(approval.reply(&node(1), &reply, never), Err(ApproveError::Mismatch));
    }
    let (_, offer) = approval(request(1));
    assert_eq!(joiner.offer(Time::ZERO, &offer, &[70; 32]), Err(ApproveError::CodeVoid));
    // The runs that were answered might still be honest ones, for a while.
    assert!(!joiner.is_due(Time::ZERO + RUN_LIMIT));
    let later = Time::ZERO + RUN_LIMIT * 2;
    assert!(joiner.is_due(later));
    joiner.renew(later, [4; 5]);
    assert_eq!(*joiner.code(), PairingCode::from_random([4; 5]));
    assert!(!joiner.is_due(later) && joiner.offer(later, &offer, &[71; 32]).is_ok());
}

#[test]
fn a_broken_offer_burns_a_run_too() {
    let mut joiner = joiner();
    let (_, offer) = approval(request(1));
    for run in 0..MAX_RUNS {
        let broken = Offer { run: [run; 16], message: [0x41; 33], ..offer.clone() };
        drop(joiner.offer(Time::ZERO, &broken, &[60; 32]));
    }
    assert_eq!(joiner.offer(Time::ZERO, &offer, &[70; 32]), Err(ApproveError::CodeVoid));
}

#[test]
fn a_code_and_a_run_end_with_their_time() {
    let mut joiner = joiner();
    let (mut approval, offer) = approval(request(1));
    let before = Time::ZERO + (CODE_LIFETIME - Duration::from_secs(1));
    assert!(!joiner.is_due(before));
    let reply = joiner.offer(before, &offer, &[60; 32]).unwrap();
    let verdict = approval.reply(&node(1), &reply, issue).unwrap();
    let old = Time::ZERO + CODE_LIFETIME;
    assert!(!joiner.is_due(old), "an honest run may be under way");
    let (_, late) = self::approval(request(1));
    assert_eq!(joiner.offer(old, &late, &[61; 32]), Err(ApproveError::CodeVoid));
    let too_late = before + RUN_LIMIT + Duration::from_secs(1);
    assert!(joiner.is_due(too_late));
    assert_eq!(joiner.verdict(too_late, WALL, &verdict), Err(ApproveError::NoRun));
}

#[test]
fn the_waiting_room_is_bounded_and_forgets() {
    let mut room = WaitingRoom::default();
    for seed in 0..MAX_WAITING as u8 {
        room.admit(Time::ZERO, &node(seed), request(seed)).unwrap();
    }
    assert_eq!(room.admit(Time::ZERO, &node(99), request(99)), Err(ApproveError::Full));
    assert_eq!(room.admit(Time::ZERO, &node(99), request(98)), Err(ApproveError::Impostor));
    let later = Time::ZERO + WAIT_LIMIT / 2;
    room.admit(later, &node(3), request(3)).unwrap();
    let end = Time::ZERO + WAIT_LIMIT;
    assert_eq!(room.requests(end).map(|request| request.node).collect::<Vec<_>>(), [node(3)]);
    room.admit(end, &node(99), request(99)).unwrap();
    room.remove(&node(3));
    assert_eq!(room.requests(end).count(), 1);
}
