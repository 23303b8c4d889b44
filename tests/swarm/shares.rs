//! Files that are served from where they lie, by real daemons and by commands: shared, listed, got
//! by name and hash, from others when their sharer dies, and refused with a reason.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use serde_json::Value;
use std::fs;

fn done(node: &Daemon, args: &[&str]) -> Said {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said
}

fn refused(said: &Said, code: i32, sentence: &str) {
    assert_eq!(said.code, code, "{}", said.err);
    let (first, hints) = said.err.split_once('\n').unwrap_or_default();
    assert!(first.starts_with("error: ") && first.contains(sentence), "{sentence}: {}", said.err);
    assert!(hints.starts_with(" hint: "), "{}", said.err);
}

fn listed(node: &Daemon, args: &[&str]) -> Vec<Value> {
    node.list(&[&["ls", "--shares"], args].concat())
}

fn name(node: &Daemon) -> String {
    node.status()["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_directory_is_shared_got_and_kept_by_who_has_it() {
    let mut swarm = Swarm::of(3);
    let (film, note) = (noise(1, 5_300_000), b"a note".to_vec());
    let dir = swarm[2].work.join("films");
    fs::create_dir_all(dir.join("old")).unwrap();
    fs::write(dir.join("a.mkv"), &film).unwrap();
    fs::write(dir.join("old/note"), &note).unwrap();
    let before = swarm[2].status()["bytes_here"].clone();
    let said = done(&swarm[2], &["share", "films"]);
    assert!(said.out.is_empty(), "{}", said.out);
    let owner = name(&swarm[2]);
    let as_what = format!("sharing films as {owner}:/films: 2 files, 5.1 MiB, nothing copied");
    assert!(said.err.contains(&as_what), "{}", said.err);
    assert!(said.err.contains("not protected: no other node keeps a copy"), "{}", said.err);
    assert_eq!(swarm[2].status()["bytes_here"], before);
    for node in 0..3 {
        until("all list it", || listed(&swarm[node], &[]).len() == 2);
    }
    let of = |path: &str| format!("{owner}:{path}");
    assert_eq!(listed(&swarm[1], &[&of("/films/old")]).len(), 1);
    let table = done(&swarm[1], &["ls", "--shares"]).out;
    assert!(table.contains("there") && table.contains(&of("/films/a.mkv")), "{table}");
    assert!(done(&swarm[2], &["ls", "--shares"]).out.contains("here"));
    assert_eq!(swarm[1].get(&of("/films/a.mkv")), film);
    let hash = listed(&swarm[1], &[])[0]["hash"].as_str().unwrap().to_owned();
    assert_eq!(swarm[0].get(&hash[..12]), film);
    assert!(swarm[1].run(&["stat", &hash]).out.contains("in place by"));
    // Killed: those who have it give it to others.
    swarm[2].kill();
    until("the death is known", || listed(&swarm[1], &[])[0]["state"] == "offline");
    assert_eq!(swarm[1].get(&of("/films/a.mkv")), film);
    let said = swarm[1].run(&["get", &of("/films/old/note"), "-o", "out"]);
    refused(&said, 10, &format!("is shared by {owner} only, offline since"));
    assert!(!swarm[1].work.join("out").exists());
    let row = listed(&swarm[1], &[]).remove(0);
    assert!(row["state"] == "offline" && row["since_ms"].is_u64(), "{row}");
    // Back: nothing has to be shared again.
    swarm[2].start();
    until("it is back", || {
        let said = swarm[1].run(&["get", &of("/films/old/note"), "-o", "n"]);
        said.code == 0
    });
    assert_eq!(fs::read(swarm[1].work.join("n")).unwrap(), note);
    // What changed without a word is refused, and then known.
    let said = done(&swarm[2], &["share", dir.join("a.mkv").to_str().unwrap(), "--name", "one"]);
    assert_eq!(said.out.trim(), hash);
    let newer = noise(2, 5_300_000);
    fs::write(dir.join("a.mkv"), &newer).unwrap();
    let said = swarm[0].run(&["cat", &of("/films/a.mkv")]);
    assert!(said.code == 0 || said.code == 11 || said.code == 10, "{}", said.err);
    until("the change is known", || {
        let row = listed(&swarm[0], &[&of("/one")]);
        row.len() == 1 && row[0]["hash"] == blake3::hash(&newer).to_hex().as_str()
    });
    assert_eq!(swarm[0].get(&of("/one")), newer);
    done(&swarm[2], &["unshare", "one"]);
    done(&swarm[2], &["unshare", "films"]);
    until("it is shared no more", || listed(&swarm[0], &[]).is_empty());
    refused(&swarm[0].run(&["get", &of("/one"), "-o", "x"]), 3, "is not found in this swarm");
}

#[test]
fn what_is_wrong_is_said_with_a_hint() {
    let swarm = Swarm::of(2);
    let node = &swarm[0];
    fs::create_dir(node.work.join("d")).unwrap();
    fs::write(node.work.join("d/f"), b"f").unwrap();
    fs::write(node.work.join("f"), b"f").unwrap();
    refused(&node.run(&["share", "nothing"]), 3, "no such file or directory: nothing");
    refused(&node.run(&["share", "/dev/null"]), 2, "/dev/null is a pipe, socket or device");
    refused(&node.run(&["share", "/"]), 2, "cannot be the name of a share");
    refused(&node.run(&["share", "f", "--name", "a/b"]), 2, "cannot be the name of a share");
    refused(&node.run(&["unshare", "f"]), 3, "f is not shared by this node");
    done(node, &["share", "f"]);
    refused(&node.run(&["share", "d/f"]), 11, "is shared under that name already");
    let owner = name(node);
    until("it is known", || swarm[1].list(&["ls", "--shares"]).len() == 1);
    let get = |what: &str| swarm[1].run(&["get", what, "-o", "out"]);
    refused(&get("nobody:/f"), 3, "no peer is called that");
    refused(&get(&format!("{owner}:/g")), 3, &format!("{owner}:/g is not found in this swarm"));
    refused(&get(":/f"), 2, "the name of a node is missing");
    refused(&swarm[1].run(&["ls", "--shares", "/f"]), 2, "named by its node and its path");
    refused(&swarm[1].run(&["rm", &format!("{owner}:/f")]), 2, "is served in place");
    let said = swarm[1].run(&["get", "-r", &format!("{owner}:/f")]);
    refused(&said, 2, "fetched one file at a time");
    assert!(swarm[1].names().is_empty());
}
