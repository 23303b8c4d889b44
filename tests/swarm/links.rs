//! Links: a file as one word, followed by nodes that know those who have it and by one that does
//! not.

use crate::daemon::{Swarm, until};

/// A link to a file, and the object that tells of it.
fn link(swarm: &Swarm, args: &[&str]) -> (String, serde_json::Value) {
    let linked = swarm[0].list(&[&["link"], args].concat()).remove(0);
    (linked["link"].as_str().unwrap().to_owned(), linked)
}

#[test]
fn a_link_leads_to_a_file_also_from_a_node_that_has_met_nobody() {
    let mut swarm = Swarm::of(2);
    let bytes = b"somebody sent you this".repeat(10_000);
    let hash = swarm[0].put("/f", &bytes, &["--wait", "2"]);
    let (word, linked) = link(&swarm, &["/f", "--ttl", "1h"]);
    assert!(word.starts_with("p2pfs1") && word.len() < 200, "{word}");
    assert_eq!(
        (linked["hash"].as_str(), linked["holders"].as_array().unwrap().len()),
        (Some(&*hash), 2)
    );
    assert!(linked["expires_ms"].as_u64().is_some());
    assert_eq!(swarm[1].get(&word), bytes);
    assert_eq!(swarm[1].run(&["cat", &word.to_uppercase(), "--range", "0..8"]).out, "somebody");
    assert_eq!(swarm[1].list(&["stat", &word])[0]["hash"], hash);
    let said = swarm[0].run(&["link", &hash[..10]]);
    assert!(said.code == 0 && said.out.trim().parse::<p2pfs::wire::link::Link>().is_ok());
    assert!(said.err.contains("members of this swarm can get it; asked first: "), "{}", said.err);
    // It may be of this swarm, for it has the key, but nobody has told it where the others are.
    let mut alone = swarm.draft();
    alone.flags.clear();
    alone.start();
    let number = swarm.add(alone);
    assert_eq!(swarm[number].alive(), 0);
    until("it to be found", || {
        swarm[number].run(&["get", &word, "-o", "out", "--force"]).code == 0
    });
    assert_eq!(std::fs::read(swarm[number].work.join("out")).unwrap(), bytes);
    assert!(swarm[number].alive() > 0);
}

#[test]
fn a_file_without_a_name_and_one_without_chunks_have_links() {
    let swarm = Swarm::of(2);
    for bytes in [&b"short"[..], b""] {
        let hash = swarm[0].put("/g", bytes, &[]);
        let (word, _) = link(&swarm, &[&hash]);
        assert_eq!(swarm[0].run(&["rm", "/g"]).code, 0);
        assert_eq!(swarm[1].get(&word), bytes);
    }
}
