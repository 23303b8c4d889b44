//! Who gets in, and how a node finds the others again.

use crate::daemon::{Daemon, Swarm, until};
use p2pfs::Client;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A node of another user.
fn stranger(swarm: &Swarm, name: &str) -> Daemon {
    let mut node = swarm.draft();
    node.config = node.data.with_file_name(format!("config-of-{name}"));
    node.flags.extend(["--name".into(), name.into()]);
    node.start();
    node
}

#[test]
fn a_stranger_waits_until_an_admin_types_its_code() {
    let mut swarm = Swarm::of(2);
    let hash = swarm[0].put("/f", b"for members", &[]);
    let stranger = stranger(&swarm, "anna");
    let status = stranger.status();
    assert_eq!(status["state"], "waiting");
    let code = status["code"].as_str().unwrap().to_owned();
    assert_eq!(code.chars().filter(char::is_ascii_alphanumeric).count(), 8, "{code}");
    until("the member to know who waits", || {
        swarm[0].status()["waiting"].to_string().contains("\"anna\"")
    });
    let said = stranger.run(&["status"]);
    assert!(said.out.contains(&format!("waiting for approval {code}")), "{}", said.out);
    for args in [&["get", &hash, "-o", "out"][..], &["ls"], &["put", "/etc/hostname"]] {
        let said = stranger.run(args);
        assert!(said.code == 7 && said.out.is_empty(), "{args:?}: {}", said.err);
        assert!(said.err.contains("error: this node waits for approval\n hint: "), "{}", said.err);
    }
    assert!(stranger.names().is_empty() && stranger.alive() == 0 && swarm[0].alive() == 1);

    // A code of another shape, and one of the right shape that nobody shows.
    assert_eq!(swarm[1].run(&["approve", "nonsense!"]).code, 2);
    let wrong = "22222222";
    let said = swarm[1].run(&["approve", wrong]);
    assert!(said.code == 3 && said.err.contains("has another code"), "{}", said.err);
    // Whoever waits cannot let himself in.
    assert_ne!(stranger.run(&["approve", &code]).code, 0);
    assert_eq!(stranger.status()["state"], "waiting");

    let number = swarm.add(stranger);
    let said = swarm[1].run(&["approve", &code]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("anna"), "{}", said.err);
    swarm.met();
    assert_eq!(swarm[number].status()["state"], "member");
    until("the catalogue", || swarm[number].run(&["ls"]).out.contains("/f"));
    assert_eq!(swarm[number].get(&hash), b"for members");
    let own = swarm[number].put("/own", b"from the new member", &[]);
    assert_eq!(swarm[0].get(&own), b"from the new member");
    // It stays a member when it is started again.
    swarm[number].kill();
    swarm[number].start();
    swarm.met();
    assert_eq!(swarm[number].get(&hash), b"for members");
}

#[test]
fn a_stranger_that_is_denied_stays_outside() {
    let swarm = Swarm::of(1);
    let stranger = stranger(&swarm, "eve");
    until("the member to know who waits", || {
        swarm[0].status()["waiting"].to_string().contains("\"eve\"")
    });
    let id = stranger.status()["id"].as_str().unwrap().to_owned();
    let code = stranger.status()["code"].as_str().unwrap().to_owned();
    assert_eq!(swarm[0].run(&["deny", "0123456789"]).code, 3);
    let said = swarm[0].run(&["deny", &id[..10]]);
    assert!(said.code == 0 && said.err.contains("eve"), "{}", said.err);
    assert_eq!(swarm[0].status()["waiting"], serde_json::json!([]));
    let said = swarm[0].run(&["approve", &code]);
    assert!(said.code == 3, "it was let in after all: {}", said.err);
    assert!(stranger.alive() == 0 && swarm[0].alive() == 0);
    assert_eq!(stranger.status()["state"], "waiting");
}

/// Waits until a node has written down where another one listens.
fn remembered(node: &Daemon, other: &Daemon) {
    let port: u16 = other.address().rsplit(':').next().unwrap().parse().unwrap();
    let written = [&[127, 0, 0, 1][..], &port.to_le_bytes()].concat();
    until("the other's address to be remembered", || {
        let peers = std::fs::read(node.data.join("peers")).unwrap_or_default();
        peers.windows(written.len()).any(|window| window == written)
    });
}

#[test]
fn every_node_finds_the_others_again_at_another_port_and_without_a_bootstrap() {
    let mut swarm = Swarm::of(3);
    let hash = swarm[0].put("/f", b"here before and after", &["--wait", "all"]);
    remembered(&swarm[0], &swarm[1]);
    let old = swarm[0].address();
    swarm[0].kill();
    // Port 0 gave it one port and gives it another one now; as the first it has no bootstrap.
    swarm[0].start();
    swarm.met();
    let new = swarm[0].address();
    assert_ne!(old, new);
    let id = swarm[0].status()["id"].clone();
    for node in [1, 2] {
        until("its new address to be known", || {
            let peers = swarm[node].list(&["peers"]);
            let first = peers.iter().find(|peer| peer["id"] == id);
            first.is_some_and(|peer| peer["addresses"][0] == *new && peer["state"] == "alive")
        });
    }
    // One whose bootstrap is a dead address, then one that is not told of any.
    remembered(&swarm[1], &swarm[0]);
    swarm[1].kill();
    swarm[1].start();
    swarm.met();
    remembered(&swarm[2], &swarm[0]);
    swarm[2].kill();
    swarm[2].flags.clear();
    swarm[2].start();
    swarm.met();
    for node in [0, 1, 2] {
        assert_eq!(swarm[node].get(&hash), b"here before and after");
    }
}

/// Asks a daemon until it knows the node `name` to be alive at `address`.
async fn knows(socket: PathBuf, name: String, address: String) {
    let client = Client::connect(socket).await.unwrap();
    loop {
        let mut peers = client.peers().await.unwrap();
        while let Some(peer) = peers.next().await.unwrap() {
            if peer.name == name && peer.addresses.first() == Some(&address) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a node again, which gives it another port; how long it takes from when it says that it is
/// ready until all others know its new address.
fn known_after(swarm: &mut Swarm, number: usize, nodes: usize) -> Duration {
    let old = swarm[number].address();
    swarm[number].kill();
    swarm[number].start();
    let (ready, new) = (Instant::now(), swarm[number].address());
    assert_ne!(old, new);
    let name = swarm[number].status()["name"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut asking = JoinSet::new();
        for other in (0..nodes).filter(|other| *other != number) {
            let socket = swarm[other].data.join("p2pfs.sock");
            asking.spawn(knows(socket, name.clone(), new.clone()));
        }
        let all = tokio::time::timeout(Duration::from_secs(60), asking.join_all()).await;
        assert!(all.is_ok(), "not all know it after a minute");
    });
    ready.elapsed()
}

#[test]
fn a_node_at_another_port_is_known_to_ten_within_a_second() {
    const NODES: usize = 10;
    let mut swarm = Swarm::of(NODES);
    // The first has no bootstrap, and that of the others is where the first one was.
    let mut took = [0, 4, 9, 5, 7].map(|number| {
        remembered(&swarm[number], &swarm[1]);
        known_after(&mut swarm, number, NODES)
    });
    println!("known after {took:?}");
    took.sort_unstable();
    // The two slowest are the machine's, which runs other tests beside this one.
    assert!(took[2] <= Duration::from_secs(1), "{took:?}");
}

#[test]
fn connect_dials_a_node_that_knows_nobody() {
    let mut swarm = Swarm::of(1);
    let mut node = swarm.draft();
    // It has the swarm key, but was not told where anybody is.
    node.flags.clear();
    node.start();
    swarm.add(node);
    assert_eq!(swarm[1].alive(), 0);
    let said = swarm[1].run(&["connect", &swarm[0].address()]);
    assert_eq!(said.code, 0, "{}", said.err);
    swarm.met();
    let said = swarm[1].run(&["connect", "no-such-peer"]);
    assert!(said.code == 3 && said.err.contains("no peer is called that"), "{}", said.err);
}
