//! The same code over turmoil's network and clock.

use crate::fixture::{ECHO_BODY, Recorder, SINK, Setup, TestNode, chunk};
use crate::hostile::{frame, opening};
use crate::turmoil_net::TurmoilNet;
use p2pfs::crypto::NodeKey;
use p2pfs::id::NodeId;
use p2pfs::sys::Rng;
use p2pfs::transport::{Ended, LinkEvent, PeerAddr, RequestError, Security};
use p2pfs::wire::frame::{Header, Role, kind};
use p2pfs::wire::hello::{Lane, Versions};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Counts up: enough for decisions that only have to differ.
struct Counter(AtomicU64);

impl Rng for Counter {
    fn fill(&self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0.fetch_add(1, Ordering::Relaxed) as u8;
        }
    }
}

async fn node(seed: u8, security: Security, listens: bool) -> TestNode {
    let any: SocketAddr = "0.0.0.0:4000".parse().unwrap();
    let setup = Setup {
        net: Arc::new(TurmoilNet),
        rng: Arc::new(Counter(AtomicU64::new(u64::from(seed)))),
        security,
        listen: if listens { vec![any] } else { Vec::new() },
        ..Setup::real(seed)
    };
    setup.start().await
}

fn id(seed: u8) -> NodeId {
    NodeKey::from_seed(&[seed; 32]).id()
}

fn at(host: &str, seed: u8) -> PeerAddr {
    PeerAddr { id: id(seed), addrs: vec![SocketAddr::new(turmoil::lookup(host), 4000)] }
}

fn sim() -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(300))
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(5))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(4096)
        .rng_seed(7)
        .build()
}

/// A host that runs a node until the simulation ends.
fn serve(sim: &mut turmoil::Sim<'static>, security: Security) {
    sim.host("bob", move || async move {
        let _bob = node(2, security, true).await;
        std::future::pending().await
    });
}

#[test]
fn the_same_code_runs_over_the_simulated_network() {
    for security in [Security::tls(), Security::named_for_simulation()] {
        let mut sim = sim();
        serve(&mut sim, security);
        sim.client("ann", async move {
            let ann = node(1, security, true).await;
            let bob = at("bob", 2);
            ann.echo(&bob).await?;
            let sent = chunk(ECHO_BODY, 3, 300_000);
            assert!(ann.ask(&bob, Lane::Bulk, sent.clone()).await? == sent);
            // Both are closed when nobody has used them for a minute.
            tokio::time::sleep(Duration::from_secs(70)).await;
            assert!(ann.transport.connections().is_empty());
            ann.echo(&bob).await?;
            ann.transport.keep(bob.id, true);
            tokio::time::sleep(Duration::from_secs(55)).await;
            ann.echo(&bob).await?;
            Ok(())
        });
        sim.run().unwrap();
    }
}

#[test]
fn a_peer_that_falls_silent_is_dropped_and_found_again() {
    let mut sim = sim();
    let security = Security::named_for_simulation();
    serve(&mut sim, security);
    sim.client("ann", async move {
        let ann = node(1, security, true).await;
        let bob = at("bob", 2);
        ann.echo(&bob).await?;
        turmoil::hold("ann", "bob");
        let begun = Instant::now();
        let short = Duration::from_secs(1);
        let message = crate::fixture::message(crate::fixture::ECHO, b"?");
        let asked = ann.transport.request(&bob, Lane::Control, message, short).await;
        assert_eq!(asked, Err(RequestError::TimedOut));
        let events = ann.handler.until(|events| Recorder::downs(events) == 1);
        let events = tokio::time::timeout(Duration::from_secs(40), events).await;
        let Ok(events) = events else { panic!("still up after {:?}", begun.elapsed()) };
        let silent = Ended::Silent;
        assert_eq!(events.last(), Some(&LinkEvent::Down { peer: bob.id, how: silent }));
        turmoil::release("ann", "bob");
        ann.echo(&bob).await?;
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_node_that_can_only_dial_out_calls_back_for_chunks() {
    let mut sim = sim();
    let security = Security::named_for_simulation();
    serve(&mut sim, security);
    sim.host("carol", move || async move {
        let carol = node(3, security, false).await;
        carol.echo(&at("bob", 2)).await?;
        carol.echo(&at("ann", 1)).await?;
        std::future::pending().await
    });
    sim.client("ann", async move {
        let ann = node(1, security, true).await;
        ann.handler.until(|events| Recorder::ups(events) == 1).await;
        let carol = PeerAddr { id: id(3), addrs: Vec::new() };
        ann.ask(&carol, Lane::Bulk, chunk(SINK, 1, 100_000)).await?;
        let stats = ann.transport.connections();
        assert!(stats.iter().all(|conn| !conn.dialled && conn.peer == carol.id), "{stats:#?}");
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_frame_that_never_ends_is_not_waited_for() {
    let mut header = Vec::new();
    let role = Role::Request;
    Header { kind: 16, request: 1, role, head_len: 60_000, body_len: 0 }.encode(&mut header);
    for sent in [header[..3].to_vec(), header] {
        let mut sim = sim();
        serve(&mut sim, Security::named_for_simulation());
        sim.client("eve", async move {
            let addr = SocketAddr::new(turmoil::lookup("bob"), 4000);
            let mut eve = turmoil::net::TcpStream::connect(addr).await?;
            eve.write_all(&opening(Versions::OURS)).await?;
            eve.write_all(&frame(kind::READY, Role::Notify, 0, &[])).await?;
            // Between frames silence is fine.
            tokio::time::sleep(Duration::from_secs(30)).await;
            let begun = Instant::now();
            eve.write_all(&sent).await?;
            // One byte a second keeps nobody busy either.
            let drip = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if sent.len() > 3 && eve.write_all(&[0]).await.is_err() {
                        return;
                    }
                    let mut rest = [0; 512];
                    let read = eve.read(&mut rest);
                    let read = tokio::time::timeout(Duration::from_millis(1), read).await;
                    if matches!(read, Ok(Ok(0) | Err(_))) {
                        return;
                    }
                }
            };
            drip.await;
            assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
            Ok(())
        });
        sim.run().unwrap();
    }
}
