//! Files from one named peer: nobody else is asked, and what it cannot give is said.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use rustix::process::Signal;
use serde_json::Value;

/// One sentence and a hint, nothing on standard output, and no file.
fn refused(node: &Daemon, said: &Said, code: i32, sentence: &str) {
    assert!(said.code == code && said.out.is_empty(), "{}: {}", said.code, said.err);
    assert!(said.err.starts_with("error: ") && said.err.contains(sentence), "{}", said.err);
    assert!(said.err.contains("\n hint: "), "{}", said.err);
    assert!(node.names().is_empty(), "{:?}", node.names());
}

/// Three nodes: `heron` has all of a file, the others a part each.
fn swarm(bytes: &[u8]) -> (Swarm, String) {
    let mut swarm = Swarm::empty();
    for name in ["otter", "fox", "heron"] {
        swarm.join(&["--name", name, "--replicas", "1"]);
    }
    swarm.met();
    let hash = swarm[1].put("/film", bytes, &[]);
    let pinned = || swarm[2].run(&["pin", "/film"]);
    until("heron has all of it", || pinned().err.contains("all here"));
    until("otter knows it", || swarm[0].run(&["stat", "/film"]).code == 0);
    (swarm, hash)
}

#[test]
fn one_peer_alone_gives_a_file() {
    let bytes = noise(1, 20 << 20);
    let (swarm, hash) = swarm(&bytes);
    // The other one could not answer if it were asked.
    swarm[1].signal(Signal::STOP);
    let said = swarm[0].run(&["request", "/film", "--from", "heron", "-o", "out"]);
    assert!(said.code == 0 && said.err.contains("from heron ("), "{}", said.err);
    assert!(std::fs::read(swarm[0].work.join("out")).unwrap() == bytes);
    // Everything is here now, so nothing is asked for.
    let said = swarm[0].run(&["get", &hash, "--from", "heron", "-o", "again", "--json"]);
    swarm[1].signal(Signal::CONT);
    let fetched: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&fetched["remote_bytes"], &fetched["from"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn a_directory_comes_from_one_peer_too() {
    let (swarm, _) = swarm(&noise(2, 6 << 20));
    let said = swarm[0].run(&["mkdir", "/d"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(swarm[0].run(&["mv", "/film", "/d"]).code, 0);
    swarm[1].signal(Signal::STOP);
    let said = swarm[0].run(&["get", "-r", "/d", "--from", "heron", "-o", "d"]);
    swarm[1].signal(Signal::CONT);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(std::fs::read(swarm[0].work.join("d/film")).unwrap() == noise(2, 6 << 20));
}

#[test]
fn what_a_peer_lacks_is_counted() {
    let (swarm, _) = swarm(&noise(3, 20 << 20));
    let held = |name: &str| {
        let stat = swarm[0].list(&["stat", "/film"]).remove(0);
        let holders = stat["holders"].as_array().unwrap().clone();
        let found = holders.into_iter().find(|holder| holder["name"] == name);
        found.map_or(0, |holder| holder["chunks"].as_u64().unwrap())
    };
    let fox = held("fox");
    assert!(fox < 20, "one of three nodes has a third");
    let said = swarm[0].run(&["get", "/film", "--from", "fox", "-o", "out"]);
    let none = "fox does not have /film".to_owned();
    let some = format!("fox has {fox} of the 20 chunks of /film");
    // The list of chunks is one more chunk, which may be at another node.
    let sentence = if said.err.contains(&none) { none } else { some };
    refused(&swarm[0], &said, 10, &sentence);
    assert!(said.err.contains("p2pfs get /film"), "{}", said.err);
}

#[test]
fn a_peer_that_is_away_or_unknown_is_not_asked() {
    let (mut swarm, _) = swarm(&noise(4, 3 << 20));
    let ask =
        |swarm: &Swarm, peer: &str| swarm[0].run(&["get", "/film", "--from", peer, "-o", "out"]);
    refused(&swarm[0], &ask(&swarm, "nobody"), 3, "no peer is called that");
    refused(&swarm[0], &ask(&swarm, "otter"), 2, "that is this node itself");
    let twin = swarm.join(&["--name", "heron"]);
    until("both are known", || swarm[0].alive() == 3);
    refused(&swarm[0], &ask(&swarm, "heron"), 3, "several peers are called that: heron ");
    assert_eq!(swarm[twin].run(&["stop"]).code, 0);
    let ids = swarm[0].list(&["peers"]);
    let id = |state: &str| {
        let one = ids.iter().find(|peer| peer["name"] == "heron" && peer["state"] == state);
        one.map(|peer| peer["id"].as_str().unwrap().to_owned())
    };
    if let Some(id) = id("left") {
        refused(&swarm[0], &ask(&swarm, &id), 10, "nothing was fetched");
    }
    // It hangs, and is taken for dead after a while.
    swarm[1].signal(Signal::STOP);
    let said = ask(&swarm, "fox");
    let silent = "fox does not answer any more";
    let offline = "fox is offline since 20";
    let sentence = if said.err.contains(silent) { silent } else { offline };
    refused(&swarm[0], &said, 10, sentence);
    until("the death to be known", || {
        swarm[0].list(&["peers"]).iter().any(|p| p["name"] == "fox" && p["state"] == "dead")
    });
    refused(&swarm[0], &ask(&swarm, "fox"), 10, "UTC; nothing was fetched");
    swarm[1].signal(Signal::CONT);
}
