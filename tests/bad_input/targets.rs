//! What is asked for: forms of a hash, what nobody knows, what nobody reachable holds.

use crate::daemon::{Swarm, noise, until};
use crate::refused;

#[test]
fn row_05_a_hash_in_any_usual_form_is_accepted() {
    let swarm = Swarm::of(1);
    let hash = swarm[0].put("/f", b"content", &[]);
    let line = format!("{hash}  some file.txt");
    for form in [hash.to_uppercase(), format!(" {hash}\n"), line, hash.clone()] {
        assert_eq!(swarm[0].get(&form), b"content", "{form:?}");
    }
}

#[test]
fn row_06_a_prefix_is_accepted_while_it_is_unique() {
    let swarm = Swarm::of(1);
    // Both hashes begin with ca89fb24.
    let first = swarm[0].put("/one", b"41092", &[]);
    assert_eq!(swarm[0].get("ca89fb24"), b"41092");
    assert_eq!(swarm[0].get("CA89FB24"), b"41092");
    let second = swarm[0].put("/two", b"52490", &[]);
    assert_eq!(first[..8], second[..8]);
    let said = swarm[0].run(&["get", "ca89fb24", "-o", "out"]);
    refused(&said, 3, "ca89fb24 is ambiguous: ");
    assert!(said.err.contains("/one") && said.err.contains("/two"), "{}", said.err);
    assert_eq!(swarm[0].get(&second[..12]), b"52490");
    let said = swarm[0].run(&["get", "0123456789", "-o", "out"]);
    refused(&said, 3, "no file in this swarm has a hash that begins with 0123456789");
    assert!(swarm[0].names().is_empty());
}

#[test]
fn row_07_what_nobody_knows_says_how_many_were_asked() {
    let mut swarm = Swarm::of(3);
    let hash = "0".repeat(64);
    let ask = |swarm: &Swarm, what: &str| swarm[0].run(&["get", what, "-o", "out"]);
    refused(&ask(&swarm, &hash), 3, "is not found in this swarm (asked 2 of 2 peers)");
    refused(&ask(&swarm, "/no/such/path"), 3, "/no/such/path is not found in this swarm");
    let said = swarm[0].run(&["ls", "/no/such/path"]);
    refused(&said, 3, "/no/such/path is not found in this swarm");
    assert!(!said.err.contains("alone"), "{}", said.err);
    swarm[2].kill();
    until("the death to be known", || swarm[0].alive() == 1);
    let sentence = "(asked 1 of 2 peers; 1 not reachable)";
    refused(&ask(&swarm, &hash), 3, sentence);
    for args in [&["stat", &hash][..], &["cat", &hash], &["cat", "/nothing"]] {
        refused(&swarm[0].run(args), 3, "is not found in this swarm");
    }
    assert!(swarm[0].names().is_empty());
}

#[test]
fn row_08_a_file_whose_holders_are_away_names_them() {
    let mut swarm = Swarm::of(1);
    let mut holder = swarm.draft();
    holder.flags.extend(["--name".into(), "attic".into()]);
    holder.start();
    swarm.add(holder);
    swarm.met();
    // Each is at one of the two nodes; one that is not here is wanted.
    let hash = (0..64).find_map(|seed| {
        let hash = swarm[1].put("/f", &noise(seed, 200_000), &["--replicas", "1"]);
        let stat = swarm[0].list(&["stat", &hash]).remove(0);
        (!stat["holders"].to_string().contains("\"here\":true")).then_some(hash)
    });
    let hash = hash.expect("64 files in a row at one of two nodes");
    swarm[1].kill();
    for known_dead in [false, true] {
        if known_dead {
            until("the death to be known", || swarm[0].alive() == 0);
        }
        let said = swarm[0].run(&["get", &hash, "-o", "out"]);
        refused(&said, 10, "may be only on attic, not reachable");
        let said = swarm[0].run(&["get", &hash, "-o", "-"]);
        assert!(said.code == 10 && said.out.is_empty(), "{}", said.err);
    }
    assert!(swarm[0].names().is_empty());
}

#[test]
fn links_that_were_cut_that_ended_and_that_lead_elsewhere_are_not_followed() {
    let swarm = Swarm::of(1);
    swarm[0].put("/f", b"linked", &[]);
    let link = |args: &[&str]| {
        let said = swarm[0].run(&[&["link", "/f"], args].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.trim().to_owned()
    };
    let word = link(&[]);
    let last = if word.ends_with('a') { "b" } else { "a" };
    let mistyped = format!("{}{last}", &word[..word.len() - 1]);
    for wrong in [&word[..word.len() - 5], &mistyped, "p2pfs1"] {
        let said = swarm[0].run(&["get", wrong, "-o", "out"]);
        refused(&said, 2, "not a whole link: it was cut or changed");
    }
    let short = link(&["--ttl", "1s"]);
    until("it to end", || swarm[0].run(&["stat", &short]).code != 0);
    refused(&swarm[0].run(&["get", &short, "-o", "out"]), 3, "the link has ended on 20");
    let mut other = swarm.draft();
    other.config = other.data.with_file_name("config-of-another");
    other.flags.clear();
    other.start();
    refused(&other.run(&["get", &word, "-o", "out"]), 11, "the link is for another swarm (");
    assert!(swarm[0].names().is_empty() && other.names().is_empty());
    for ttl in ["0", "soon"] {
        assert_eq!(swarm[0].run(&["link", "/f", "--ttl", ttl]).code, 2);
    }
    refused(&swarm[0].run(&["link", "/nothing"]), 3, "/nothing is not found");
    refused(&swarm[0].run(&["link", "/"]), 2, "/ is a directory");
}
