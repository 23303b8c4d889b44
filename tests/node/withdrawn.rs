//! What a put leaves with others when it fails.

use crate::fixture::{Place, addr, until_met};
use crate::member::Member;
use bytes::Bytes;
use p2pfs::crypto::{chunk_id, claim_of};
use p2pfs::sys::os::OsNet;
use p2pfs::transport::{Message, PeerAddr};
use p2pfs::wire::codec::Encode;
use p2pfs::wire::hello::Lane;
use p2pfs::wire::message::{Adopt, Adopted, ClaimTerms, Have, Store, Withdraw, kind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_claim_is_taken_from_nobody_any_more() {
    let place = Place::new();
    let node = place.start("one", "user", &[]).await;
    until_met(&node, 0).await;
    let peer = PeerAddr { id: node.identity().id, addrs: vec![addr(&node)] };
    let link = Member::new(&place.path("user"), 1).transport(Arc::new(OsNet)).await;
    let ask = async |kind: u16, head: Vec<u8>, body: Bytes| {
        let question = Message { kind, head: head.into(), body };
        link.request(&peer, Lane::Bulk, question, Duration::from_secs(10)).await.unwrap().head
    };

    let secret = [7; 16];
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let claim = |secret| ClaimTerms {
        id: claim_of(secret),
        replicas: 3,
        renewed_ms: now,
        committed: false,
    };
    let (withdrawn, other) = (claim(&secret), claim(&[8; 16]));
    let sealed = Bytes::from_static(b"of a put that fails");
    let cid = chunk_id(&sealed);
    let store = |claims| Store { cid, claims, hint: None }.to_bytes();
    let needed = || node.status().unwrap().chunks_here;

    ask(kind::STORE, store(vec![withdrawn]), sealed.clone()).await;
    assert_eq!(needed(), 1);
    ask(kind::WITHDRAW, Withdraw { secret }.to_bytes(), Bytes::new()).await;
    assert_eq!(needed(), 0);

    // A copy of it comes late, or from a node that has not heard of it.
    ask(kind::STORE, store(vec![withdrawn]), sealed.clone()).await;
    let have = Have { claim: withdrawn, cids: vec![cid] }.to_bytes();
    ask(kind::HAVE, have, Bytes::new()).await;
    let adopted = Adopted { cid, claims: vec![withdrawn] };
    ask(kind::ADOPT, Adopt { chunks: vec![adopted] }.to_bytes(), Bytes::new()).await;
    assert_eq!(needed(), 0);

    // What somebody else claims as well stays.
    ask(kind::STORE, store(vec![withdrawn, other]), sealed).await;
    assert_eq!(needed(), 1);
    node.stop().await;
}
