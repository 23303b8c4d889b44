//! Removing: names go everywhere and come back when wanted, purged content leaves every disk, and
//! nothing goes that somebody still needs.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::room::stored;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const MIB: usize = 1 << 20;

/// Three nodes that free and forget within seconds.
fn swarm(flags: &[&str]) -> Swarm {
    swarm_of(3, flags)
}

fn swarm_of(nodes: usize, flags: &[&str]) -> Swarm {
    Swarm::with(nodes, &[&["--gc-grace", "2s"], flags].concat())
}

fn paths(node: &Daemon, args: &[&str]) -> Vec<String> {
    let path = |one: &Value| one["path"].as_str().unwrap().to_owned();
    node.list(args).iter().map(path).collect()
}

fn listed(node: &Daemon) -> Vec<String> {
    paths(node, &["ls", "-R"])
}

fn removed(node: &Daemon) -> Vec<String> {
    paths(node, &["ls", "--removed"])
}

fn ok(node: &Daemon, args: &[&str]) {
    let said = node.run(args);
    assert_eq!(said.code, 0, "{args:?}: {}", said.err);
}

#[test]
fn what_was_removed_is_gone_everywhere_and_comes_back_when_wanted() {
    let swarm = swarm(&[]);
    let (one, two) = (noise(1, 3 * MIB), noise(2, 70_000));
    swarm[0].put("/d/one", &one, &["--wait", "all"]);
    let hash = swarm[1].put("/d/e/two", &two, &["--wait", "all"]);
    swarm[2].put("/three", b"three", &[]);
    let all = ["/d", "/d/e", "/d/e/two", "/d/one", "/three"];
    until("all names to be known", || listed(&swarm[0]) == all);

    assert_eq!(swarm[0].run(&["rm", "/d"]).code, 11, "a directory goes only when that is said");
    ok(&swarm[0], &["rm", "-r", "/d"]);
    for node in [0, 1, 2] {
        until("the names to go", || listed(&swarm[node]) == ["/three"]);
    }
    assert!(swarm[2].get(&hash) == two, "who knows the hash can still read it");
    until("the removal to be known", || removed(&swarm[2]) == all[..4]);
    ok(&swarm[2], &["restore", "/d/e/two"]);
    assert!(swarm[2].get("/d/e/two") == two);
    ok(&swarm[2], &["restore", "-r", "/d"]);
    until("everything to be back", || listed(&swarm[1]) == all);
    assert!(swarm[1].get("/d/one") == one && removed(&swarm[1]).is_empty());
    assert_eq!(swarm[1].run(&["restore", "/d/one"]).code, 11);
    assert_eq!(swarm[1].run(&["restore", "/never"]).code, 3);
}

#[test]
fn what_was_in_a_removed_directory_comes_back_when_its_name_is_in_use_again() {
    let swarm = swarm_of(1, &[]);
    let node = &swarm[0];
    ok(node, &["mkdir", "/d"]);
    node.put("/d/f", b"one", &[]);
    ok(node, &["rm", "-r", "/d"]);
    node.put("/d/g", b"two", &[]);
    assert_eq!(removed(node), ["/d/f"]);
    assert_eq!(paths(node, &["ls", "--removed", "/d"]), ["/d/f"]);
    assert_eq!(node.list(&["history", "/d/f"]).len(), 2);
    ok(node, &["restore", "/d/f"]);
    assert!(node.get("/d/f") == b"one" && removed(node).is_empty());
    ok(node, &["rm", "-r", "/d"]);
    ok(node, &["mkdir", "/d"]);
    let said = node.run(&["restore", "-r", "/d"]);
    assert!(said.code == 0 && said.err.starts_with("restored 2 files"), "{}", said.err);
    assert_eq!(listed(node), ["/d", "/d/f", "/d/g"]);
    ok(node, &["rm", "-r", "/d"]);
    node.put("/d", b"a file", &[]);
    let said = node.run(&["restore", "/d/f"]);
    assert!(said.code == 11 && said.err.contains("not a directory"), "{}", said.err);
}

#[test]
fn a_large_directory_goes_and_comes_back_as_a_whole_and_memory_holds_a_part_of_it() {
    let swarm = swarm_of(1, &[]);
    let node = &swarm[0];
    for dir in 0..90 {
        for file in 0..7 {
            let path = node.work.join(format!("t/{}/{dir}/{file}", dir % 9));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{dir} {file}")).unwrap();
        }
    }
    ok(node, &["put", "-r", "t"]);
    let all = listed(node);
    assert_eq!(all.len(), 1 + 9 + 90 + 630);
    let said = node.run(&["rm", "-r", "/t"]);
    assert!(said.err.starts_with("removed 630 files and 100 directories"), "{}", said.err);
    assert!(listed(node).is_empty());
    assert_eq!(removed(node), all);
    let said = node.run(&["restore", "-r", "/t"]);
    assert!(said.err.starts_with("restored 630 files and 100 directories"), "{}", said.err);
    assert_eq!(listed(node), all);
    let said = node.run(&["rm", "-r", "--purge", "--yes", "/t"]);
    assert!(said.err.starts_with("purged 630 files and 100 directories"), "{}", said.err);
    // What had no content can still come back.
    assert_eq!(removed(node).len(), 100);
}

#[test]
fn of_one_content_under_several_names_none_is_removed_by_its_hash() {
    let swarm = swarm_of(1, &[]);
    let node = &swarm[0];
    let hash = node.put("/one", b"content", &[]);
    node.put("/two", b"content", &[]);
    let said = node.run(&["rm", &hash]);
    assert_eq!(said.code, 3, "{}", said.err);
    for says in ["is ambiguous", "/one", "/two"] {
        assert!(said.err.contains(says), "{}", said.err);
    }
    ok(node, &["rm", "/one"]);
    let said = node.run(&["rm", &hash[..12]]);
    assert!(said.err.starts_with("removed /two: 1 file, 7 B; "), "{}", said.err);
    assert!(said.err.contains("p2pfs restore /two"), "{}", said.err);
    assert!(listed(node).is_empty());
}

#[test]
fn a_purge_gives_the_space_back_on_every_node_and_takes_nothing_else() {
    let swarm = swarm(&[]);
    let (shared, big) = (noise(3, 2 * MIB), noise(4, 24 * MIB));
    let listed = swarm[0].put("/shared", &shared, &["--wait", "all"]);
    let unlisted = {
        let file = swarm[1].work.join("same");
        std::fs::write(&file, &shared).unwrap();
        let args = ["put", "--unlisted", "--wait", "all", file.to_str().unwrap()];
        swarm[1].run(&args).out.trim().to_owned()
    };
    assert_eq!(listed, unlisted);
    swarm[0].put("/big", &big, &["--wait", "all"]);
    let full: Vec<u64> = [0, 1, 2].map(|node| stored(&swarm[node])).to_vec();
    assert_eq!(swarm[1].run(&["rm", "--purge", "/big"]).code, 2, "it is asked first");
    ok(&swarm[1], &["rm", "--purge", "--yes", "/big", "/shared"]);
    assert_eq!(swarm[1].run(&["restore", "/big"]).code, 3);
    for (node, full) in full.iter().enumerate() {
        until("the space to come back", || stored(&swarm[node]) + (20 * MIB as u64) < *full);
    }
    assert!(swarm[2].get(&unlisted) == shared, "the one who put it without a name still has it");
    let again = swarm[2].put("/big", &big, &["--wait", "all"]);
    assert!(swarm[0].get(&again) == big);
    ok(&swarm[1], &["rm", "--purge", "--yes", &unlisted]);
    until("it to be gone", || swarm[0].run(&["get", &unlisted, "-f", "-o", "gone"]).code == 3);
}

#[test]
fn what_was_put_again_goes_when_it_is_purged_once() {
    let swarm = swarm(&[]);
    let file = swarm[0].work.join("same");
    std::fs::write(&file, noise(6, 8 * MIB)).unwrap();
    let file = file.to_str().unwrap();
    let put = |more: &[&str]| {
        let said = swarm[0].run(&[&["put", "--wait", "all", file], more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.trim().to_owned()
    };
    swarm[0].put("/other", &noise(7, MIB), &["--wait", "all"]);
    let hash = put(&["--unlisted"]);
    assert_eq!(put(&["--unlisted"]), hash);
    // Its content is here: nothing is sent, and it takes the place of another file.
    assert_eq!(put(&["--as", "/other"]), hash);
    ok(&swarm[0], &["rm", "--purge", "--yes", "/other", &hash]);
    for node in 0..3 {
        until("all to go", || {
            let status = swarm[node].status();
            (status["chunks_here"].as_u64(), status["bytes_here"].as_u64()) == (Some(0), Some(0))
        });
    }
}

#[test]
fn what_was_removed_before_is_purged_with_what_was_in_it_only_when_that_is_said() {
    let swarm = swarm(&[]);
    swarm[0].put("/d/one", &noise(5, 70_000), &[]);
    ok(&swarm[0], &["rm", "-r", "/d"]);
    let purge = |args: &[&str]| swarm[0].run(&[&["rm", "--purge", "--yes"], args].concat());
    let refused = purge(&["/d"]);
    assert_eq!(refused.code, 11, "{}", refused.err);
    assert!(refused.err.contains("/d is not empty"), "{}", refused.err);
    assert!(refused.err.contains("p2pfs rm -r --purge /d"), "{}", refused.err);
    assert_eq!(removed(&swarm[0]), ["/d", "/d/one"]);
    let said = purge(&["-r", "/d"]);
    assert!(said.code == 0 && said.err.starts_with("purged 1 file, 68.4 KiB;"), "{}", said.err);
    let again = purge(&["-r", "/d"]);
    assert!(again.code == 0 && again.err.contains("nothing left"), "{}", again.err);
    assert_eq!(purge(&["/d/one"]).code, 3);
}

#[test]
fn what_is_gone_lacks_no_copies_in_a_swarm_that_is_too_small_for_all_of_them() {
    let swarm = swarm_of(2, &[]);
    swarm[0].put("/kept", &noise(6, 70_000), &["--wait", "2"]);
    swarm[0].put("/gone", &noise(7, 3 * MIB), &["--wait", "2"]);
    let below = |node: &Daemon| node.status()["under_replicated"].as_u64().unwrap();
    let both =
        |count: u64| until("the count", || [0, 1].iter().all(|n| below(&swarm[*n]) == count));
    both(5);
    ok(&swarm[1], &["rm", "--purge", "--yes", "/gone"]);
    both(1);
}

#[test]
fn a_put_that_is_interrupted_leaves_nothing_behind() {
    let swarm = swarm(&[]);
    swarm[0].put("/kept", b"kept", &[]);
    let mut put = swarm[0].command(&["put", "-", "--as", "/kept"]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    put.stdin.as_mut().unwrap().write_all(&noise(8, 12 * MIB)).unwrap();
    let here = |node: usize| swarm[node].status()["chunks_here"].as_u64().unwrap();
    let held = || [0, 1, 2].map(here);
    until("some of it to be everywhere", || held().iter().all(|chunks| *chunks >= 8));
    // As at a terminal, the end of the pipe comes before the command's; later puts come through.
    kill_process(Pid::from_child(&put), Signal::STOP).unwrap();
    drop(put.stdin.take());
    swarm[0].put("/other", b"other", &["--wait", "all"]);
    put.kill().unwrap();
    put.wait().unwrap();
    until("all of it to be gone", || held() == [2; 3]);
    for node in [0, 1, 2] {
        until("its room to be free again", || stored(&swarm[node]) < MIB as u64);
    }
    assert!(swarm[2].get("/kept") == b"kept");
}

#[test]
fn what_was_replaced_goes_after_the_history_time_but_for_what_is_still_in_use() {
    let swarm = swarm(&["--history", "1s"]);
    let mut bytes = noise(5, 12 * MIB);
    swarm[0].put("/f", &bytes, &["--wait", "all"]);
    let mut hash = String::new();
    for version in [1, 2] {
        bytes[..10 * MIB].copy_from_slice(&noise(5 + version, 10 * MIB));
        hash = swarm[version as usize].put("/f", &bytes, &["--wait", "all"]);
    }
    until("what only the old versions had to go", || {
        [0, 1, 2].iter().all(|node| stored(&swarm[*node]) < 15 * MIB as u64)
    });
    for node in [0, 1, 2] {
        assert!(swarm[node].get(&hash) == bytes && swarm[node].get("/f") == bytes);
    }
    ok(&swarm[0], &["rm", "/f"]);
    until("the content to go too", || {
        [0, 1, 2].iter().all(|node| stored(&swarm[*node]) < 4 * MIB as u64)
    });
    assert_eq!(swarm[0].run(&["restore", "/f"]).code, 3);
}

#[test]
fn a_node_that_was_away_brings_nothing_back_and_loses_nothing_of_its_own() {
    let mut swarm = swarm(&[]);
    let (old, gone, new) = (noise(7, 5 * MIB), noise(8, 4 * MIB), noise(9, 6 * MIB));
    swarm[0].put("/kept", &old, &["--wait", "all"]);
    swarm[0].put("/gone", &gone, &["--wait", "all"]);
    until("the names to be known", || listed(&swarm[2]) == ["/gone", "/kept"]);

    // While the others are away this one changes a file that they let go later.
    swarm[0].kill();
    swarm[1].kill();
    until("the others to be missed", || swarm[2].alive() == 0);
    swarm[2].put("/kept", &new, &[]);
    swarm[2].kill();
    for number in [0, 1] {
        let address = swarm[0].address();
        let node = &mut swarm[number];
        if number == 1 {
            node.flags = ["--gc-grace", "2s", "--bootstrap", &address].map(String::from).to_vec();
        } else {
            node.flags = ["--gc-grace", "2s"].map(String::from).to_vec();
        }
        node.start();
    }
    swarm.met();
    ok(&swarm[0], &["rm", "--purge", "--yes", "/gone", "/kept"]);
    until("the space to come back", || stored(&swarm[1]) < 2 * MIB as u64);

    let address = swarm[0].address();
    let flags = ["--gc-grace", "2s", "--bootstrap", &address];
    swarm[2].flags = flags.map(String::from).to_vec();
    swarm[2].start();
    swarm.met();
    for node in [0, 1, 2] {
        until("what was changed meanwhile to be there", || listed(&swarm[node]) == ["/kept"]);
    }
    // Longer than the grace, so that what nobody claims has gone.
    until("what was let go to go", || stored(&swarm[2]) < 9 * MIB as u64);
    until("the others to have it too", || {
        let stat: Value = swarm[0].list(&["stat", "/kept"]).remove(0);
        stat["info"]["copies"] == 3 || stat["copies"] == 3
    });
    for node in [0, 1, 2] {
        assert!(swarm[node].get("/kept") == new);
    }
}

#[test]
fn an_unknown_name_and_a_half_typed_command_remove_nothing() {
    let swarm = swarm(&[]);
    swarm[0].put("/a", b"a", &[]);
    for (args, code, says) in [
        (&["rm", "/b"][..], 3, "/b is not found"),
        (&["rm", "/"], 2, "is a directory"),
        (&["rm", "-r", "/"], 2, "is a directory"),
        (&["rm", "a"], 2, "is not a hash"),
        (&["rm"], 2, "FILE"),
        (&["rm", "--yes", "/a"], 2, "--purge"),
        (&["rm", "/a/b"], 11, "not a directory"),
    ] {
        let said = swarm[0].run(args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    assert_eq!(listed(&swarm[0]), ["/a"]);
    assert!(Path::new(&swarm[0].data).exists());
}
