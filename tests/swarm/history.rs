//! Former versions, conflicts and news of the tree, as a person sees them.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

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

/// Two nodes that have changed one file while neither heard of the other; now they have met.
fn in_conflict() -> Swarm {
    let mut swarm = Swarm::of(2);
    swarm[0].put("/d/f", b"as it was", &["--wait", "2"]);
    knows(&swarm[1], "/d/f", 1);
    swarm[1].kill();
    until("the other one to be missed", || swarm[0].alive() == 0);
    swarm[0].put("/d/f", b"by the first", &[]);
    swarm[0].kill();
    swarm[1].flags.clear();
    swarm[1].start();
    swarm[1].put("/d/f", b"by the second one", &[]);
    let address = swarm[1].address();
    swarm[0].flags = vec!["--bootstrap".into(), address];
    swarm[0].start();
    swarm.met();
    for node in [0, 1] {
        until("the conflict to be known", || swarm[node].list(&["conflicts"]).len() == 1);
    }
    swarm
}

fn names(node: &Daemon) -> Vec<String> {
    let name = |one: Value| one["path"].as_str().unwrap().to_owned();
    node.list(&["ls", "/d"]).into_iter().map(name).collect()
}

#[test]
fn a_conflict_is_shown_alike_everywhere_and_ended_by_keeping_one() {
    let swarm = in_conflict();
    let lists = [0, 1].map(|node| {
        let conflict = swarm[node].list(&["conflicts"]).remove(0);
        assert_eq!(conflict["path"], "/d/f");
        let versions = conflict["versions"].as_array().unwrap().iter();
        let shown =
            versions.map(|one| (one["path"].clone(), one["size"].clone(), one["by"].clone()));
        shown.collect::<Vec<_>>()
    });
    assert!(lists[0] == lists[1] && lists[0].len() == 2 && lists[0][0].1 == 17, "{lists:?}");
    let copy = lists[0][1].0.as_str().unwrap();
    assert!(swarm[0].run(&["conflicts", "/d"]).out.contains(copy));
    assert_eq!(swarm[0].list(&["conflicts", copy])[0]["path"], "/d/f");
    let refused = swarm[0].run(&["mv", copy, "/d/g"]);
    assert!(refused.code == 11 && refused.err.contains("--keep-both"), "{}", refused.err);

    let said = ok(&swarm[0], &["conflicts", "/d/f", "--keep", copy]);
    assert!(said.contains("/d/f is the only one now"), "{said}");
    for node in [0, 1] {
        until("the conflict to end", || names(&swarm[node]) == ["/d/f"]);
        assert_eq!(swarm[node].get("/d/f"), b"by the first");
        assert!(swarm[node].list(&["conflicts"]).is_empty());
        let all = history(&swarm[node], "/d/f");
        assert_eq!(all.len(), 4, "{all:?}");
        assert_eq!(cat(&swarm[node], "/d/f@3"), b"by the second one");
    }
}

#[test]
fn both_sides_of_a_conflict_become_files_of_their_own() {
    let swarm = in_conflict();
    let both = names(&swarm[1]);
    let said = ok(&swarm[1], &["conflicts", "/d/f", "--keep-both"]);
    assert!(said.contains("is a file of its own now"), "{said}");
    for node in [0, 1] {
        until("the conflict to end", || swarm[node].list(&["conflicts"]).is_empty());
        assert_eq!(names(&swarm[node]), both);
    }
    ok(&swarm[0], &["mv", &both[1], "/d/mine"]);
    ok(&swarm[0], &["rm", "--purge", "--yes", "/d/f"]);
    until("the other one to be left", || names(&swarm[1]) == ["/d/mine"]);
    for node in [0, 1] {
        assert_eq!(cat(&swarm[node], "/d/mine"), b"by the first");
    }
}

/// A `watch` that runs, and what it has said.
struct Watching {
    child: Child,
    lines: Receiver<Value>,
}

impl Watching {
    fn of(node: &Daemon, path: &str) -> Self {
        let mut command = node.command(&["watch", path, "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines
                .map(|line| serde_json::from_str(&line).unwrap())
                .try_for_each(|one| send.send(one))
        });
        Self { child, lines }
    }

    /// The next news, as the kind and the path.
    fn next(&self) -> (String, String) {
        let one = self.lines.recv_timeout(Duration::from_secs(60)).unwrap();
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("event"), text("path"))
    }

    /// Waits until it is heard of what `node` puts there: what comes later is not missed.
    fn begun(&self, node: &Daemon, path: &str) {
        for number in 0..600 {
            node.put(path, format!("{number}").as_bytes(), &[]);
            if self.lines.recv_timeout(Duration::from_millis(100)).is_ok() {
                while self.lines.recv_timeout(Duration::from_millis(500)).is_ok() {}
                return;
            }
        }
        panic!("nothing is heard");
    }

    fn ends(mut self, code: i32) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{said}");
        said
    }
}

#[test]
fn what_happens_on_any_node_is_told_as_it_happens() {
    let swarm = Swarm::of(2);
    swarm[0].put("/d/start", b"there", &["--wait", "2"]);
    until("it to be known", || names(&swarm[1]) == ["/d/start"]);
    let (all, below) = (Watching::of(&swarm[1], "/"), Watching::of(&swarm[1], "/d"));
    all.begun(&swarm[1], "/d/begin");
    below.begun(&swarm[1], "/d/begin");
    while all.lines.recv_timeout(Duration::from_millis(500)).is_ok() {}

    swarm[0].put("/d/f", b"one", &[]);
    swarm[1].put("/d/f", b"another", &[]);
    swarm[0].put("/elsewhere", b"other", &[]);
    ok(&swarm[0], &["mv", "/d/f", "/d/g"]);
    ok(&swarm[1], &["mkdir", "/d/sub"]);
    ok(&swarm[1], &["rm", "/d/g"]);
    ok(&swarm[1], &["restore", "/d/g"]);
    let told = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(event, path)| ((*event).to_owned(), (*path).to_owned())).collect()
    };
    let expected = told(&[
        ("created", "/d/f"),
        ("changed", "/d/f"),
        ("created", "/elsewhere"),
        ("moved", "/d/g"),
        ("created", "/d/sub"),
        ("removed", "/d/g"),
        ("created", "/d/g"),
    ]);
    let heard: Vec<_> = expected.iter().map(|_| all.next()).collect();
    assert_eq!(heard, expected);
    let expected: Vec<_> =
        expected.into_iter().filter(|(_, path)| path.starts_with("/d/")).collect();
    let heard: Vec<_> = expected.iter().map(|_| below.next()).collect();
    assert_eq!(heard, expected);

    kill_process(Pid::from_child(&all.child), Signal::INT).unwrap();
    assert_eq!(all.ends(130), "");
    ok(&swarm[1], &["stop"]);
    assert_eq!(below.ends(0), "");
}

#[test]
fn a_reader_who_is_too_slow_is_told_so_and_stops_nobody() {
    let swarm = Swarm::of(1);
    let watching = Watching::of(&swarm[0], "/");
    watching.begun(&swarm[0], "/begin");
    kill_process(Pid::from_child(&watching.child), Signal::STOP).unwrap();
    // Each link is a record of two changes, and long enough to fill every buffer on the way.
    let dir = swarm[0].work.join("many");
    std::fs::create_dir(&dir).unwrap();
    let target = "t".repeat(4000);
    for number in 0..3000 {
        std::os::unix::fs::symlink(&target, dir.join(format!("{number}"))).unwrap();
    }
    for _ in 0..6 {
        ok(&swarm[0], &["put", "-r", "many"]);
        ok(&swarm[0], &["rm", "-r", "/many"]);
    }
    kill_process(Pid::from_child(&watching.child), Signal::CONT).unwrap();
    let missed = until_missed(&watching);
    assert!(missed > 0, "{missed}");
    // It goes on.
    swarm[0].put("/end", b"end", &[]);
    while watching.next().1 != "/end" {}
    let took = Instant::now();
    ok(&swarm[0], &["stop"]);
    assert!(took.elapsed() < Duration::from_secs(2), "a watch holds nobody up");
    watching.ends(0);
}

fn until_missed(watching: &Watching) -> u64 {
    loop {
        let one = watching.lines.recv_timeout(Duration::from_secs(60)).unwrap();
        if one["event"] == "missed" {
            return one["count"].as_u64().unwrap();
        }
    }
}

#[test]
fn directories_of_one_name_are_shown_kept_and_removed() {
    let mut swarm = Swarm::of(2);
    swarm[0].put("/seed", b"seed", &["--wait", "2"]);
    knows(&swarm[1], "/seed", 1);
    swarm[1].kill();
    until("the other one to be missed", || swarm[0].alive() == 0);
    let make = |node: &Daemon, file: &str| {
        // Whom it has just lost it may still wait for.
        until("a directory to be made", || node.run(&["mkdir", "-p", "/cc/dd"]).code == 0);
        node.put(&format!("/cc/dd/{file}"), b"in it", &[]);
        node.put("/cc/new", file.as_bytes(), &[]);
        ok(node, &["mkdir", "/one"]);
    };
    make(&swarm[0], "a");
    swarm[0].kill();
    swarm[1].flags.clear();
    swarm[1].start();
    make(&swarm[1], "b");
    let address = swarm[1].address();
    swarm[0].flags = vec!["--bootstrap".into(), address];
    swarm[0].start();
    swarm.met();
    let node = &swarm[0];
    until("the conflicts to be known", || node.list(&["conflicts"]).len() == 3);
    for dir in ["/cc/dd", "/one"] {
        assert_eq!(node.list(&["conflicts", dir])[0]["path"], dir);
        let refused = node.run(&["conflicts", dir, "--keep", dir]);
        assert_eq!(refused.code, 11, "{}", refused.err);
        assert!(refused.err.contains("--keep-both"), "{}", refused.err);
    }
    ok(node, &["conflicts", "/one", "--keep-both"]);
    assert!(node.list(&["conflicts", "/one"]).is_empty());
    // All goes, and what was in two directories of one name comes back in one.
    let said = ok(node, &["rm", "-r", "/cc"]);
    assert!(said.starts_with("removed 4 files and 3 directories"), "{said}");
    let said = ok(node, &["restore", "-r", "/cc"]);
    assert!(said.starts_with("restored 3 files and 2 directories"), "{said}");
    let names: Vec<Value> =
        node.list(&["ls", "-R", "/cc"]).iter().map(|one| one["path"].clone()).collect();
    assert_eq!(names, ["/cc/dd", "/cc/dd/a", "/cc/dd/b", "/cc/new"]);
    assert_eq!(
        node.list(&["history", "/cc/new"]).iter().filter(|one| one["hash"].is_string()).count(),
        2
    );
}

#[test]
fn a_write_to_what_is_no_file_says_what_it_is() {
    let swarm = Swarm::of(1);
    let node = &swarm[0];
    node.put("/f", b"one", &[]);
    node.put("/f", b"two", &[]);
    std::fs::create_dir(node.work.join("t")).unwrap();
    std::os::unix::fs::symlink("/f", node.work.join("t/link")).unwrap();
    ok(node, &["put", "-r", "t"]);
    let bytes = node.work.join("bytes");
    std::fs::write(&bytes, b"bytes").unwrap();
    let write = |name: &str| {
        let mut command = node.command(&["write", name]);
        Said::from(command.stdin(std::fs::File::open(&bytes).unwrap()).output().unwrap())
    };
    for (name, code, says) in
        [("/t/link", 11, "/t/link is a link"), ("/f@1", 2, "/f@1 is a former version")]
    {
        let said = write(name);
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains(says), "{}", said.err);
    }
    assert_eq!(cat(node, "/f@1"), b"one");
    assert_eq!(write("/f@none").code, 0);
}

#[test]
fn a_watch_and_a_conflict_of_nothing_are_refused() {
    let swarm = Swarm::of(1);
    swarm[0].put("/f", b"content", &[]);
    for (args, code, says) in [
        (&["watch", "/none"][..], 3, "/none is not found"),
        (&["watch", "/f/g"], 11, "not a directory"),
        (&["conflicts", "/none"], 3, "/none is not found"),
        (&["conflicts", "/none", "--keep", "x"], 3, "/none is not found"),
        (&["conflicts", "/f", "--keep", "x"], 3, "/f is not in conflict with anything"),
        (&["conflicts", "/f", "--keep-both"], 3, "/f is not in conflict with anything"),
        (&["conflicts", "/f", "--keep", "x", "--keep-both"], 2, "cannot be used with"),
        (&["conflicts", "--keep-both"], 2, "which conflict is meant?"),
    ] {
        let said = swarm[0].run(args);
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let said = swarm[0].run(&["conflicts"]);
    assert!(said.code == 0 && said.out.is_empty(), "{}", said.out);
}

#[test]
fn status_says_what_only_history_keeps() {
    let swarm = Swarm::with(2, &["--gc-grace", "1s"]);
    let bytes = |node: usize| swarm[node].status()["history_bytes"].clone();
    until("nothing to be counted", || bytes(0) == 0);
    let text = |status: &str| status.contains("  History up to ");
    assert!(!text(&swarm[0].run(&["status"]).out));
    swarm[0].put("/f", &noise(1, 100_000), &[]);
    swarm[0].put("/f", &noise(2, 200_000), &[]);
    swarm[0].put("/gone", &noise(3, 4_000), &[]);
    assert_eq!(swarm[0].run(&["rm", "/gone"]).code, 0);
    // The first version, and all of what was removed.
    (0..2).for_each(|node| until("both to be counted", || bytes(node) == 104_000));
    assert!(text(&swarm[0].run(&["status"]).out));
    // What is seen again is no history: now the second version is.
    assert_eq!(swarm[0].run(&["restore", "/gone"]).code, 0);
    swarm[0].put("/f", &noise(1, 100_000), &[]);
    until("what is seen again to count no more", || bytes(1) == 200_000);
    assert_eq!(swarm[1].run(&["rm", "--purge", "--yes", "/f"]).code, 0);
    until("what was purged to count no more", || bytes(1) == 0);
}
