//! Finding files by name, tag, size and owner, on any node.

use crate::daemon::{Daemon, Swarm, noise, until};
use serde_json::Value;

fn paths(node: &Daemon, args: &[&str]) -> Vec<String> {
    let found = node.list(&[&["search"], args].concat());
    found.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
}

/// One sentence and a hint, and nothing on standard output.
fn refused(node: &Daemon, args: &[&str], code: i32, sentence: &str) {
    let said = node.run(args);
    assert!(said.code == code && said.out.is_empty(), "{}: {}", said.code, said.err);
    assert!(said.err.starts_with("error: ") && said.err.contains(sentence), "{}", said.err);
    assert!(said.err.contains("\n hint: "), "{}", said.err);
}

#[test]
fn files_are_found_by_all_that_is_known_of_them() {
    let mut swarm = Swarm::empty();
    swarm.join(&["--name", "otter"]);
    swarm.join(&["--name", "heron"]);
    swarm.met();
    swarm[0].put("/docs/Report_2026.pdf", &noise(1, 5_000), &["--tag", "tax", "--tag", "sent"]);
    swarm[0].put("/docs/rep", b"short", &[]);
    swarm[1].put("/film.mkv", &noise(2, 300_000), &["--tag", "tax"]);
    for number in [0, 1] {
        until("all of it is known", || swarm[number].run(&["stat", "/film.mkv"]).code == 0);
        until("all of it is known", || swarm[number].run(&["stat", "/docs/rep"]).code == 0);
        let node = &swarm[number];
        assert_eq!(paths(node, &["REP"]), ["/docs/rep", "/docs/Report_2026.pdf"]);
        assert_eq!(paths(node, &["rep", "2026"]), ["/docs/Report_2026.pdf"]);
        assert_eq!(paths(node, &["*.mkv"]), ["/film.mkv"]);
        assert_eq!(paths(node, &["--tag", "tax", "--min", "10K"]), ["/film.mkv"]);
        assert_eq!(paths(node, &["--tag", "tax", "--tag", "sent"]), ["/docs/Report_2026.pdf"]);
        assert_eq!(paths(node, &["--type", "dir,pdf", "--newer", "1h"]).len(), 1 + 1);
        assert_eq!(paths(node, &["--owner", "heron"]), ["/film.mkv"]);
        assert_eq!(paths(node, &["rep", "--limit", "1"]), ["/docs/rep"]);
        refused(node, &["search", "rep", "--older", "1h"], 3, "nothing fits `rep`");
    }
    let one = swarm[1].list(&["search", "--type", "pdf"]).remove(0);
    assert_eq!((&one["owner"], &one["kind"]), (&Value::from("otter"), &Value::from("file")));
    assert_eq!(one["tags"], serde_json::json!(["sent", "tax"]));
    assert_eq!((&one["size"], &one["v"]), (&Value::from(5_000), &Value::from(1)));
    assert_eq!(swarm[1].list(&["stat", "/film.mkv"])[0]["tags"], serde_json::json!(["tax"]));
    let said = swarm[0].run(&["search", "rep"]);
    assert!(said.out.starts_with("HASH") && said.err.contains("2 of 4 names fit ("), "{said:?}");
}

#[test]
fn what_is_found_follows_names_versions_and_restarts() {
    let mut swarm = Swarm::of(1);
    swarm[0].put("/old/scan.pdf", b"one", &["--tag", "tax"]);
    // A put that says nothing of tags leaves them, also when nothing else is new.
    swarm[0].put("/old/scan.pdf", b"another", &[]);
    assert_eq!(paths(&swarm[0], &["--tag", "tax"]), ["/old/scan.pdf"]);
    swarm[0].put("/old/scan.pdf", b"another", &["--tag", "done"]);
    assert!(swarm[0].run(&["search", "--tag", "tax"]).code == 3);
    assert_eq!(swarm[0].run(&["mv", "/old", "/new"]).code, 0);
    for restart in [false, true] {
        if restart {
            swarm[0].kill();
            swarm[0].start();
        }
        assert_eq!(paths(&swarm[0], &["--tag", "done"]), ["/new/scan.pdf"]);
        assert_eq!(paths(&swarm[0], &["new"]), ["/new"]);
        refused(&swarm[0], &["search", "old"], 3, "nothing fits `old`");
    }
    assert_eq!(swarm[0].run(&["rm", "/new/scan.pdf"]).code, 0);
    refused(&swarm[0], &["search", "scan"], 3, "nothing fits `scan`");
}

#[test]
fn directories_are_put_with_tags_and_stay_unchanged() {
    let swarm = Swarm::of(1);
    let dir = swarm[0].work.join("d");
    std::fs::create_dir(&dir).unwrap();
    for name in ["a", "b"] {
        std::fs::write(dir.join(name), name).unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        std::fs::File::open(dir.join(name)).unwrap().set_modified(old).unwrap();
    }
    let put = |flags: &[&str]| {
        let said = swarm[0].run(&[&["put", "-r", "d", "--json"], flags].concat());
        let stored: Value = serde_json::from_str(&said.out).unwrap();
        (stored["files"].as_u64().unwrap(), stored["unchanged"].as_u64().unwrap())
    };
    assert_eq!(put(&["--tag", "x"]), (2, 0));
    assert_eq!(put(&[]), (0, 2), "without tags they stay");
    assert_eq!(put(&["--tag", "x"]), (0, 2));
    assert_eq!(put(&["--tag", "y"]).1, 0);
    assert_eq!(paths(&swarm[0], &["--tag", "y"]), ["/d/a", "/d/b"]);
}

#[test]
fn a_search_that_cannot_be_asked_says_so() {
    let swarm = Swarm::of(1);
    refused(&swarm[0], &["search"], 2, "it is not said what to look for");
    refused(&swarm[0], &["search", " "], 2, "it is not said what to look for");
    refused(&swarm[0], &["search", &"x".repeat(300)], 2, "at most 16 words of at most 255 bytes");
    refused(&swarm[0], &["search", "x", "--owner", "nobody"], 3, "no peer is called that");
    refused(&swarm[0], &["search", "no \u{1b}[31m"], 3, "nothing fits `no \\u{1b}[31m`");
    std::fs::write(swarm[0].work.join("f"), "f").unwrap();
    let many: Vec<String> = (0..17).map(|number| format!("--tag=t{number}")).collect();
    let many: Vec<&str> = ["put", "f"].into_iter().chain(many.iter().map(|t| &**t)).collect();
    refused(&swarm[0], &many, 2, "17 tags are too many");
    assert!(swarm[0].list(&["ls"]).is_empty());
}
