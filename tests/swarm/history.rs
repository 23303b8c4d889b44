//! Former versions, conflicts and news of the tree, as a person sees them.

use crate::daemon::{Daemon, Swarm, noise, until};
use serde_json::Value;

fn ok(node: &Daemon, args: &[&str]) -> String {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    said.err
}

/// Version, length and what happened.
fn history(node: &Daemon, path: &str) -> Vec<(Option<u64>, u64, String)> {
    let line = |one: Value| {
        let what = one["what"].as_str().unwrap().to_owned();
        (one["version"].as_u64(), one["size"].as_u64().unwrap(), what)
    };
    node.list(&["history", path]).into_iter().map(line).collect()
}

fn cat(node: &Daemon, file: &str) -> Vec<u8> {
    let said = node.command(&["cat", file]).output().unwrap();
    assert!(said.status.success(), "{file}: {}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

fn knows(node: &Daemon, path: &str, steps: usize) {
    until("the history to be known", || {
        let said = node.run(&["history", path, "--json"]);
        said.out.lines().count() == steps
    });
}

#[test]
fn every_version_is_to_be_had_on_every_node_and_comes_back_when_wanted() {
    let swarm = Swarm::of(3);
    // The second version shares chunks with the first, the third has its own.
    let one = noise(1, 3 << 20);
    let two = [&one[..2 << 20], b"the end"].concat();
    swarm[0].put("/d/f", &one, &["--wait", "all"]);
    swarm[1].put("/d/f", &two, &["--wait", "all"]);
    let three = swarm[2].put("/d/f", b"small", &["--wait", "all"]);
    for node in [0, 1, 2] {
        knows(&swarm[node], "/d/f", 3);
        assert!(cat(&swarm[node], "/d/f@1") == one && cat(&swarm[node], "/d/f@2") == two);
        assert_eq!(cat(&swarm[node], &format!("/d/f@{}", &three[..9])), b"small");
    }
    let stat = swarm[1].list(&["stat", "/d/f@1"]).remove(0);
    assert!(stat["former"] == true && stat["path"] == "/d/f" && stat["copies"] == 3, "{stat}");
    ok(&swarm[1], &["get", "/d/f@2"]);
    assert!(std::fs::read(swarm[1].work.join("f")).unwrap() == two, "its stored name");

    assert!(ok(&swarm[1], &["restore", "/d/f@1"]).contains("restored 1 file"));
    assert!(ok(&swarm[1], &["restore", "/d/f@4"]).contains("nothing to restore"));
    for node in [0, 1, 2] {
        until("the old version to be the newest", || swarm[node].get("/d/f") == one);
        knows(&swarm[node], "/d/f", 4);
        assert!(cat(&swarm[node], "/d/f@3") == b"small");
    }
    // Removed, and another one of its versions given back under a claim of its own.
    ok(&swarm[0], &["rm", "/d/f"]);
    assert_eq!(history(&swarm[0], "/d/f")[0], (None, 0, "removed".into()));
    ok(&swarm[0], &["restore", "/d/f@2"]);
    until("it to be there", || swarm[2].run(&["ls", "/d", "--json"]).out.contains("/d/f"));
    for node in [0, 1, 2] {
        assert!(cat(&swarm[node], "/d/f") == two);
    }
    let what: Vec<String> =
        history(&swarm[0], "/d/f").into_iter().map(|(_, _, what)| what).collect();
    assert_eq!(what, ["created", "removed", "edited", "edited", "edited", "created"]);
}

#[test]
fn a_restored_version_outlives_the_history_that_it_came_from() {
    let swarm = Swarm::with(2, &["--gc-grace", "2s", "--history", "8s"]);
    let (old, new) = (noise(1, 4 << 20), noise(2, 4 << 20));
    swarm[0].put("/f", &old, &["--wait", "2"]);
    swarm[0].put("/f", &new, &["--wait", "2"]);
    ok(&swarm[1], &["restore", "/f@1"]);
    assert!(cat(&swarm[1], "/f@2") == new);
    // What was between is let go after the history time, what was given back is not.
    until("the version between to go", || {
        [0, 1].iter().all(|node| {
            let all = history(&swarm[*node], "/f");
            all.len() == 1 && swarm[*node].status()["bytes_here"].as_u64() < Some(6 << 20)
        })
    });
    for node in [0, 1] {
        assert!(swarm[node].get("/f") == old);
    }
    assert_eq!(swarm[0].run(&["get", "/f@2", "-o", "gone"]).code, 3);
}

#[test]
fn links_have_versions_and_a_name_with_an_at_is_a_name_first() {
    let swarm = Swarm::of(1);
    let dir = swarm[0].work.join("d");
    std::fs::create_dir(&dir).unwrap();
    for target in ["one", "another"] {
        std::fs::remove_file(dir.join("l")).ok();
        std::os::unix::fs::symlink(target, dir.join("l")).unwrap();
        ok(&swarm[0], &["put", "-r", "d"]);
    }
    let stat = swarm[0].list(&["stat", "/d/l@1"]).remove(0);
    assert!(stat["target"] == "one" && stat["former"] == true, "{stat}");
    ok(&swarm[0], &["restore", "/d/l@1"]);
    assert_eq!(swarm[0].list(&["stat", "/d/l"])[0]["target"], "one");

    swarm[0].put("/f", b"first", &[]);
    swarm[0].put("/f", b"second", &[]);
    assert_eq!(cat(&swarm[0], "/f@1"), b"first");
    assert_eq!(cat(&swarm[0], "/f@2999-01-01"), b"second");
    swarm[0].put("/f@1", b"really called so", &[]);
    assert_eq!(cat(&swarm[0], "/f@1"), b"really called so");
    assert_eq!(cat(&swarm[0], "/f@1@1"), b"really called so");
    swarm[0].put("/ann@example.org", b"mail", &[]);
    assert_eq!(cat(&swarm[0], "/ann@example.org"), b"mail");
    ok(&swarm[0], &["rm", "/f@1"]);
    ok(&swarm[0], &["restore", "/f@1"]);
    assert_eq!(cat(&swarm[0], "/f@1"), b"really called so");
}
