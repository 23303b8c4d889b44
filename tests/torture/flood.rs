//! A member that floods another one: chunks, questions as long as they may be, gossip and records
//! that are none, answers that it asks for and never reads, and connections that it never opens
//! fully. The other's memory stays within its limit, and it goes on serving who behaves.

use crate::daemon::{Daemon, Swarm, noise};
use crate::machine::{alone, form};
use crate::member::Member;
use bytes::Bytes;
use p2pfs::crypto::{chunk_id, claim_of};
use p2pfs::id::{ChunkId, ClaimId};
use p2pfs::sys::os::{OsNet, OsRng};
use p2pfs::sys::{BoxFuture, ByteStream, Listener, Net, Rng};
use p2pfs::transport::{Message, PeerAddr, Transport};
use p2pfs::wire::codec::Encode;
use p2pfs::wire::hello::Lane;
use p2pfs::wire::message::{
    ADOPTED_MAX, Adopt, Adopted, Below, CIDS_MAX, CLAIMS_MAX, ClaimTerms, Commit, Compare, Fetch,
    Find, Have, Holds, PUSH_MAX, Pointers, Push, Renew, Store, WHO_MAX, WhoHolds, Withdraw, kind,
};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a daemon promises, in KiB.
const LIMIT: u64 = 64 << 10;
/// Requests of one kind under way at a time.
const AT_ONCE: usize = 24;
const CHUNK: usize = 1 << 20;
/// A connection that is to get stuck takes so many bytes and then none.
const TAKES: usize = 256 << 10;
/// Longest wait of the one who behaves.
const SERVED: Duration = Duration::from_secs(10);

/// A network whose streams stop taking bytes after a while.
struct Stuck;

struct StuckStream(Box<dyn ByteStream>, usize);

impl AsyncRead for StuckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1 >= TAKES {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        self.1 += buf.filled().len() - before;
        polled
    }
}

impl AsyncWrite for StuckStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Net for Stuck {
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let stream = OsNet.dial(addr).await?;
            Ok(Box::new(StuckStream(stream, 0)) as Box<dyn ByteStream>)
        })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        OsNet.listen(addr)
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        OsNet.resolve(host, port)
    }
}

/// One member, whom somebody with the swarm's key has let in, and whom it floods.
#[derive(Clone)]
struct Mallory {
    member: Member,
    victim: PeerAddr,
    sent: Arc<AtomicU64>,
}

impl Mallory {
    fn new(node: &Daemon, name: u8) -> Self {
        let member = Member::new(&node.config, name);
        let id = node.status()["id"].as_str().unwrap().parse().unwrap();
        let victim = PeerAddr { id, addrs: vec![node.address().parse().unwrap()] };
        Self { member, victim, sent: Arc::default() }
    }

    /// Asks again and again, many times at once.
    fn ask(&self, via: &Transport, lane: Lane, question: fn() -> Message) {
        for _ in 0..AT_ONCE {
            let (me, via) = (self.clone(), via.clone());
            tokio::spawn(async move {
                loop {
                    let deadline = Duration::from_secs(5);
                    drop(via.request(&me.victim, lane, question(), deadline).await);
                    me.sent.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    /// Tells again and again what nobody needs.
    fn tell(&self, via: &Transport, question: fn() -> Message) {
        let (me, via) = (self.clone(), via.clone());
        tokio::spawn(async move {
            loop {
                // A link that is gone is dialled again by whoever asks.
                via.notify(me.victim.id, question()).ok();
                me.sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
    }
}

fn control(kind: u16, head: Vec<u8>) -> Message {
    Message { kind, head: head.into(), body: Bytes::new() }
}

fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    OsRng.fill(&mut out);
    out
}

fn cids(count: usize) -> Vec<ChunkId> {
    (0..count).map(|_| ChunkId(random())).collect()
}

fn claim() -> ClaimTerms {
    ClaimTerms { id: ClaimId(random()), replicas: 8, renewed_ms: 1, committed: true }
}

/// One of a few puts.
fn secret() -> [u8; 16] {
    let [number] = random();
    [number; 16]
}

/// The claim of one that may have been withdrawn.
fn withdrawn() -> ClaimTerms {
    ClaimTerms { id: claim_of(&secret()), committed: false, ..claim() }
}

fn chunk() -> Message {
    let mut body = vec![0; CHUNK];
    OsRng.fill(&mut body);
    let store = Store { cid: chunk_id(&body), claims: vec![claim()], hint: None };
    Message { kind: kind::STORE, head: store.to_bytes().into(), body: body.into() }
}

/// Every question of a member, as long as it may be.
const QUESTIONS: [fn() -> Message; 14] = [
    || control(kind::HAVE, Have { claim: claim(), cids: cids(CIDS_MAX) }.to_bytes()),
    || control(kind::HOLDS, Holds { cids: cids(CIDS_MAX) }.to_bytes()),
    || {
        let mut chunks: Vec<_> = (0..CIDS_MAX).map(|_| (ChunkId(random()), random())).collect();
        chunks.sort_unstable();
        control(kind::COMPARE, Compare { chunks }.to_bytes())
    },
    || {
        let adopted = |cid| Adopted { cid, claims: (0..16).map(|_| claim()).collect() };
        let chunks = cids(ADOPTED_MAX / 16).into_iter().map(adopted).collect();
        control(kind::ADOPT, Adopt { chunks }.to_bytes())
    },
    || control(kind::RENEW, Renew { claim: withdrawn().id, renewed_ms: 1 }.to_bytes()),
    || control(kind::WITHDRAW, Withdraw { secret: secret() }.to_bytes()),
    || {
        let claims = (0..CLAIMS_MAX).map(|_| withdrawn()).collect();
        let chunks = vec![Adopted { cid: ChunkId(random()), claims }];
        control(kind::ADOPT, Adopt { chunks }.to_bytes())
    },
    || control(kind::POINTERS, Pointers { cids: cids(CIDS_MAX) }.to_bytes()),
    || control(kind::BELOW, Below { cids: cids(CIDS_MAX) }.to_bytes()),
    who_holds,
    || {
        let claims = (0..CIDS_MAX).map(|_| ClaimId(random())).collect();
        control(kind::COMMIT, Commit { claims }.to_bytes())
    },
    || control(kind::PUSH, Push { records: vec![vec![1; 1000]; PUSH_MAX / 1010] }.to_bytes()),
    || control(kind::FIND, Find::Prefix(random()).to_bytes()),
    || control(kind::PING, Vec::new()),
];

/// A question that is answered at length.
fn who_holds() -> Message {
    control(kind::WHO_HOLDS, WhoHolds { cids: cids(WHO_MAX) }.to_bytes())
}

/// What it puts there and asks for without taking it.
fn fetched() -> Message {
    let body = noise(77, CHUNK);
    control(kind::FETCH, Fetch { cid: chunk_id(&body) }.to_bytes())
}

async fn flood(mallory: Mallory) {
    let well = mallory.member.transport(Arc::new(OsNet)).await;
    let body = noise(77, CHUNK);
    let store = Store { cid: chunk_id(&body), claims: vec![claim()], hint: None };
    let store = Message { kind: kind::STORE, head: store.to_bytes().into(), body: body.into() };
    let kept = well.request(&mallory.victim, Lane::Bulk, store, SERVED).await;
    assert!(kept.is_ok(), "it is a member, and served: {kept:?}");
    mallory.ask(&well, Lane::Bulk, chunk);
    for question in QUESTIONS {
        mallory.ask(&well, Lane::Control, question);
    }
    mallory.tell(&well, || control(kind::GOSSIP, vec![3; 60_000]));
    mallory.tell(&well, || control(kind::PUSH_ON, vec![3; 60_000]));
    for _ in 0..4 {
        let stuck = mallory.member.transport(Arc::new(Stuck)).await;
        mallory.ask(&stuck, Lane::Bulk, fetched);
        mallory.ask(&stuck, Lane::Control, who_holds);
    }
    // Never more than begun; the other end throws them out now and then.
    let mut open = Vec::new();
    loop {
        for _ in 0..50 {
            if let Ok(stream) = tokio::net::TcpStream::connect(mallory.victim.addrs[0]).await {
                open.push(stream);
            }
        }
        let too_many = open.len().saturating_sub(300);
        drop(open.drain(..too_many));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A process's most memory so far, in KiB.
fn peak(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn members_that_flood_do_not_make_another_ones_memory_pass_its_limit() {
    let _turn = alone();
    let mut swarm = Swarm::empty();
    for _ in 0..2 {
        let mut node = swarm.draft();
        // What it does not want to keep it refuses.
        node.flags.extend(["--capacity".into(), "400MB".into()]);
        node.start();
        swarm.add(node);
    }
    swarm.met();
    let pid = swarm[0].status()["pid"].as_u64().unwrap();
    let before = peak(pid);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mallories = [1, 2].map(|name| Mallory::new(&swarm[0], name));
    let floods = mallories.clone().map(|mallory| runtime.spawn(flood(mallory)));
    let (begun, mut slowest, mut number) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < form(Duration::from_secs(10), Duration::from_secs(90)) {
        number += 1;
        let asked = Instant::now();
        let bytes = noise(number, 200_000);
        // The disk may be full by now: then it says so.
        std::fs::write(swarm[0].work.join("f"), &bytes).unwrap();
        let said = swarm[0].run(&["put", "f", "--as", &format!("/{number}")]);
        assert!([0, 8].contains(&said.code), "{}", said.err);
        if said.code == 0 {
            assert!(swarm[1].get(&format!("/{number}")) == bytes);
        }
        slowest = slowest.max(asked.elapsed());
        assert!(floods.iter().all(|flood| !flood.is_finished()), "the flood has ended");
    }
    let sent: u64 = mallories.iter().map(|mallory| mallory.sent.load(Ordering::Relaxed)).sum();
    runtime.shutdown_background();
    let most = peak(pid);
    println!(
        "{sent} questions of two that flood: memory {} MiB before, {} MiB at most; slowest of \
         {number} puts and gets {slowest:.1?}",
        before >> 10,
        most >> 10,
    );
    assert!(sent > 1000, "only {sent} questions");
    assert!(most < LIMIT, "{most} KiB");
    assert!(slowest < SERVED, "{slowest:?}");
}
