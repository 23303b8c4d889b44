//! System calls of a daemon that end otherwise than it asked: `strace` kills it at the n-th call of
//! a kind, or makes the call fail or do nothing. Calls are counted for each thread by itself, and
//! what changes a daemon's disk is the matter of two threads, the first one, which starts, and the
//! store's writer; so each is traced alone. The drafts of a mount are any thread's.

use crate::daemon::{Daemon, until};
use crate::machine::{form, path_of};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The calls that change a disk or make it durable.
pub(crate) const CALLS: &str =
    "pwritev,pwrite64,fdatasync,fsync,rename,unlink,ftruncate,fallocate,mkdir";
/// What the writer's thread is called.
const WRITER: &str = "p2pfs-store";
/// A fault: the process is killed, and may not end in that way otherwise.
pub(crate) const KILL: &str = "signal=KILL";
/// In the short form every so-manieth call is met.
const STRIDE: usize = 6;

/// What the tracer saw.
pub(crate) struct Seen(String);

impl Seen {
    /// What it wrote about a life of a daemon that has ended.
    pub(crate) fn of(node: &Daemon) -> Self {
        let mut text = String::new();
        until("the tracer to have written all", || {
            text = std::fs::read_to_string(log(node)).unwrap_or_default();
            text.lines().last().is_some_and(|line| line.ends_with("+++"))
        });
        std::fs::remove_file(log(node)).unwrap();
        Self(text)
    }

    /// Whether a fault of this kind was met.
    fn met(&self, what: &str) -> bool {
        match what {
            KILL => self.0.contains("killed by SIGKILL"),
            _ => self.0.contains("(INJECTED)"),
        }
    }

    /// How often a call was made, by the thread that made most of them.
    fn count(&self, call: &str) -> usize {
        let mut threads: BTreeMap<&str, usize> = BTreeMap::new();
        let call = format!("{call}(");
        for line in self.0.lines() {
            // Where several threads are traced each line begins with the number of one.
            if let Some(at) = line.find(&call) {
                *threads.entry(&line[..at]).or_default() += 1;
            }
        }
        threads.into_values().max().unwrap_or(0)
    }
}

fn log(node: &Daemon) -> PathBuf {
    node.work.with_extension("trace")
}

fn words(node: &Daemon, fault: &str) -> Vec<String> {
    let mut words = vec!["-q".to_owned(), "-o".into(), log(node).display().to_string()];
    words.extend(["-e".into(), format!("trace={CALLS}")]);
    if !fault.is_empty() {
        words.extend(["-e".into(), format!("inject={fault}")]);
    }
    words
}

/// Has the daemon's first thread, or with `all` each of them, meet a fault from its start on; ""
/// is none, and the calls are seen all the same.
pub(crate) fn from_the_start(node: &mut Daemon, fault: &str, all: bool) {
    // The tracer is the daemon's grandchild: the process that was started is the daemon.
    node.prefix = vec![path_of("strace").unwrap(), "-D".into()];
    if all {
        node.prefix.push("-f".into());
    }
    node.prefix.extend(words(node, fault));
}

/// A tracer that was attached to a daemon.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Has the writer of a running daemon meet a fault from now on.
    pub(crate) fn attach(node: &Daemon, fault: &str) -> Self {
        let pid = node.status()["pid"].as_u64().unwrap();
        let writer = thread(pid, WRITER);
        Self::begin(node, &["-p", &writer.to_string()], fault, (pid, writer))
    }

    /// Has each thread of a running daemon meet a fault from now on.
    pub(crate) fn attach_all(node: &Daemon, fault: &str) -> Self {
        let pid = node.status()["pid"].as_u64().unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let ids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
        let last = ids.map(|id| id.parse().unwrap()).max().unwrap();
        Self::begin(node, &["-f", "-p", &pid.to_string()], fault, (pid, last))
    }

    fn begin(node: &Daemon, whom: &[&str], fault: &str, (pid, thread): (u64, u64)) -> Self {
        let mut command = Command::new(path_of("strace").unwrap());
        command.args(whom).args(words(node, fault));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{pid}/task/{thread}/status");
        until("the tracer to be there", || {
            // A writer that was busy may have met its fault already, and be gone.
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        });
        Self(child)
    }

    /// Waits until it has ended, which it does after the daemon.
    pub(crate) fn ended(mut self) {
        self.0.wait().unwrap();
    }
}

/// The id of a process's thread of this name.
fn thread(pid: u64, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let is_it = |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.find(is_it).expect("the writer has a thread of its own");
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// Lives a life again and again, each time with a fault (`what`, as `strace` calls it, with a plus
/// sign: at all calls from then on) at another call, until it ends without having met one; in the
/// short form some of these lives.
pub(crate) fn at_each_call(title: &str, what: &str, mut life: impl FnMut(&str) -> Seen) {
    let begun = Instant::now();
    let (kind, on) = what.strip_suffix('+').map_or((what, ""), |kind| (kind, "+"));
    let plain = life("");
    let mut met = Vec::new();
    for (number, call) in CALLS.split(',').enumerate() {
        let last = plain.count(call);
        // Short runs meet others than the first ones everywhere.
        let first = form(1 + number % STRIDE.min(last.max(1)), 1);
        let mut lives = 0;
        // A life that follows one which was cut short makes a few calls more.
        for n in (first..last * form(1, 2) + 1).step_by(form(STRIDE, 1)) {
            if !life(&format!("{call}:{kind}:when={n}{on}")).met(kind) {
                assert!(n > last / 2, "{call} was made {last} times, and then not {n} times");
                break;
            }
            lives += 1;
        }
        if lives > 0 {
            met.push(format!("{call} {lives}"));
        }
    }
    println!("{title}, {what} at {}: {:.1?}", met.join(", "), begun.elapsed());
    assert!(!met.is_empty(), "{title}: no call was met");
}
