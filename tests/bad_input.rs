//! What people and machines get wrong, each with what must come of it: a sentence and a hint, the
//! right exit code, nothing lost, no file left half way. The tests are named after the rows of the
//! table that the design was made with; those not listed here run against real daemons below.
//!
//! | row | what | where |
//! |---|---|---|
//! | 1 | no daemon | `cli::offline::without_a_daemon_each_command_says_so_and_starts_none` |
//! | 2, 3, 4 | wrong hashes | `cli::offline::a_wrong_hash_says_what_is_wrong` |
//! | 15, 16, 19 | no file, a directory, no regular file | `cli::offline::a_wrong_source_…` |
//! | 21 | a sparse file | `swarm::content::holes_cost_neither_space_nor_memory` |
//! | 25, 26, 44 | ports, numbers of copies | `cli::offline::a_wrong_command_line_…` |
//! | 38, 39 | a broken file of settings | `cli::offline::a_broken_file_of_settings_names_the_line` |
//! | 50 | Ctrl-C | `swarm::content::row_50_…`, `cli::files::ctrl_c_…` |
//!
//! Rows 31 and 32 (invites, revoked nodes), 43 (passphrases), 47 (the web page) and 48 (mounts) are
//! about commands that do not exist yet.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

#[path = "harness/daemon.rs"]
mod daemon;
#[path = "bad_input/network.rs"]
mod network;
#[path = "bad_input/outputs.rs"]
mod outputs;
#[path = "harness/said.rs"]
mod said;
#[path = "bad_input/sources.rs"]
mod sources;
#[path = "bad_input/start.rs"]
mod start;
#[path = "bad_input/targets.rs"]
mod targets;
#[path = "bad_input/versions.rs"]
mod versions;

use daemon::{Daemon, Swarm};
use said::Said;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// One sentence that contains `sentence`, then at least one hint, and nothing else.
fn refused(said: &Said, code: i32, sentence: &str) {
    let mut lines = said.err.lines();
    let first = lines.next().unwrap_or_default();
    assert!(said.code == code, "exit {}, not {code}: {}", said.code, said.err);
    assert!(first.starts_with("error: ") && first.contains(sentence), "{sentence}: {}", said.err);
    let hints: Vec<&str> = lines.collect();
    let only_hints = hints.iter().all(|line| line.starts_with(" hint: "));
    assert!(!hints.is_empty() && only_hints, "{}", said.err);
    for rough in ["os error", "Os {", "Error(", "panicked", "\x1b"] {
        assert!(!said.err.contains(rough), "{rough}: {}", said.err);
    }
}

/// Runs a daemon that must not start.
fn not_started(node: &Daemon, code: i32, sentence: &str) {
    let said: Said = node.starter().env_remove("P2PFS_LOG").output().unwrap().into();
    // With `--json` the last line is the error for programs.
    let error: serde_json::Value = serde_json::from_str(said.err.lines().last().unwrap()).unwrap();
    let error = &error["error"];
    let message = error["message"].as_str().unwrap();
    assert!(error["exit"] == code && said.code == code, "{}", said.err);
    assert!(message.contains(sentence) && !message.contains("os error"), "{message}");
    assert!(!error["hints"].as_array().unwrap().is_empty(), "{message}");
    assert_eq!(said.out, "");
}

/// A user without rights: nobody, when the tests run as root.
fn unprivileged(swarm: &Swarm) -> Daemon {
    let mut node = swarm.draft();
    if !rustix::process::geteuid().is_root() {
        return node;
    }
    let home = node.work.parent().unwrap().to_owned();
    let program = home.join("p2pfs");
    // The directory of the build may be closed to others.
    if std::fs::hard_link(&node.program, &program).is_err() {
        std::fs::copy(&node.program, &program).unwrap();
    }
    for path in [&home, &node.work] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    (node.program, node.user) = (program, Some(65534));
    node
}

/// A command that runs with a file system of its own mounted at `dir`, with these options of
/// `tmpfs`, and afterwards prints the names there; none where mounting is not allowed, which is
/// noted.
fn mounted(command: &Command, dir: &Path, options: &str) -> Option<Command> {
    let script = "dir=$2; mount -t tmpfs -o \"$1\" tmpfs \"$dir\" && shift 2 || exit; \
                  \"$@\"; code=$?; ls -A \"$dir\"; exit $code";
    let within = |command: &[&OsStr]| {
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "sh", "-c", script, "sh", options]).arg(dir).args(command);
        outer
    };
    let trial = within(&["true".as_ref()]).output();
    if !trial.is_ok_and(|trial| trial.status.success()) {
        skipped("a mount of its own: this user may not make one");
        return None;
    }
    let args: Vec<&OsStr> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let mut outer = within(&args);
    outer.current_dir(command.get_current_dir().unwrap()).env_clear();
    outer.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    outer.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    Some(outer)
}

/// Says that a test cannot run here; whoever wants to know names a file for it.
fn skipped(why: &str) {
    writeln!(std::io::stderr(), "skipped: {why}").ok();
    if let Some(list) = std::env::var_os("P2PFS_TEST_SKIPS") {
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "bad_input: {why}").unwrap();
    }
}
