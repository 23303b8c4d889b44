//! Real daemons of the built executable, on loopback, in a directory that goes with them. Owns
//! starting, killing and asking them; what is right is the test's business. Invariant: no daemon
//! outlives its `Swarm`, no port is fixed, and nothing is waited for by the clock alone.

use super::said::Said;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::{Index, IndexMut};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nodes of one user: one configuration directory, a data and a working directory for each node.
pub(crate) struct Swarm {
    // Dropped in this order: the daemons end, and say why, before their directory goes.
    nodes: Vec<Daemon>,
    dir: tempfile::TempDir,
}

impl Swarm {
    /// A directory for nodes that a test starts itself.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), nodes: Vec::new() }
    }

    /// A first node, and `count - 1` that were let in; all see each other.
    pub(crate) fn of(count: usize) -> Self {
        Self::with(count, &[])
    }

    /// The same, each started with these flags.
    pub(crate) fn with(count: usize, flags: &[&str]) -> Self {
        let mut swarm = Self::empty();
        for _ in 0..count {
            swarm.join(flags);
        }
        swarm.met();
        swarm
    }

    /// Starts one more node with these flags; its number.
    pub(crate) fn join(&mut self, flags: &[&str]) -> usize {
        let mut node = self.draft();
        node.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        node.start();
        self.add(node)
    }

    /// Takes one more node in; its number.
    pub(crate) fn add(&mut self, node: Daemon) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A node that is not started yet; its bootstrap is the first one, when there is one.
    pub(crate) fn draft(&self) -> Daemon {
        let number = self.nodes.len();
        let work = self.dir.path().join(format!("work-{number}"));
        std::fs::create_dir(&work).unwrap();
        let mut flags = Vec::new();
        if let Some(first) = self.nodes.first() {
            flags = vec!["--bootstrap".to_owned(), first.address()];
        }
        Daemon {
            program: env!("CARGO_BIN_EXE_p2pfs").into(),
            data: self.dir.path().join(format!("data-{number}")),
            config: self.dir.path().join("config"),
            work,
            user: None,
            prefix: Vec::new(),
            listen: "127.0.0.1:0".into(),
            flags,
            child: None,
            hello: Value::Null,
        }
    }

    /// Waits until every running node sees every other running one alive.
    pub(crate) fn met(&self) {
        let running: Vec<&Daemon> = self.nodes.iter().filter(|node| node.child.is_some()).collect();
        for node in &running {
            until("the nodes to see each other", || node.alive() + 1 == running.len());
        }
    }
}

impl Index<usize> for Swarm {
    type Output = Daemon;

    fn index(&self, number: usize) -> &Daemon {
        &self.nodes[number]
    }
}

impl IndexMut<usize> for Swarm {
    fn index_mut(&mut self, number: usize) -> &mut Daemon {
        &mut self.nodes[number]
    }
}

/// One node and how it is asked.
pub(crate) struct Daemon {
    /// The executable; another place for a user who may not enter the build's directory.
    pub(crate) program: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The configuration directory.
    pub(crate) config: PathBuf,
    /// Where its commands run.
    pub(crate) work: PathBuf,
    /// Who runs the daemon and its commands; none: who runs the test.
    pub(crate) user: Option<u32>,
    /// What runs the daemon instead of this process itself, with its arguments; it must not fork.
    pub(crate) prefix: Vec<String>,
    /// Where the daemon listens.
    pub(crate) listen: String,
    /// What it is started with.
    pub(crate) flags: Vec<String>,
    child: Option<Child>,
    /// The status with which it said that it is ready.
    hello: Value,
}

impl Daemon {
    /// The executable with nothing of the person's own settings.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        self.within(&[], args)
    }

    fn within<S: AsRef<OsStr>>(&self, prefix: &[String], args: &[S]) -> Command {
        let mut words = prefix.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command
            .args(words)
            .args(args)
            .current_dir(&self.work)
            .env_clear()
            .env("P2PFS_DATA_DIR", &self.data)
            .env("P2PFS_CONFIG_DIR", &self.config);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// The command that starts the daemon, so that a test can see it fail.
    pub(crate) fn starter(&self) -> Command {
        let args = ["daemon", "--listen", &self.listen, "--json"];
        let mut command = self.within(&self.prefix, &args);
        command.args(&self.flags).env("P2PFS_LOG", "warn,p2pfs=debug");
        command
    }

    /// Starts the daemon, for the first time or again, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let ended = self.attempt();
        assert!(ended.is_none(), "the daemon did not start: {ended:?}");
    }

    /// Starts the daemon and waits until it answers, or has ended: then it says how.
    pub(crate) fn attempt(&mut self) -> Option<ExitStatus> {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut child = self.starter().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        // Its status, as soon as the socket is open; nothing if it ends before.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match serde_json::from_str(&line) {
            Ok(hello) => {
                (self.child, self.hello) = (Some(child), hello);
                None
            }
            Err(_) => Some(child.wait().unwrap()),
        }
    }

    /// Kills the daemon without a chance to do anything; not running is as good.
    pub(crate) fn kill(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.hello["listen"][0].as_str().unwrap().to_owned()
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// Runs a command that must succeed, and returns the objects that it prints with `--json`.
    pub(crate) fn list(&self, args: &[&str]) -> Vec<Value> {
        let said = self.run(&[args, &["--json"]].concat());
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Its status.
    pub(crate) fn status(&self) -> Value {
        self.list(&["status"]).remove(0)
    }

    /// How many other nodes it sees alive.
    pub(crate) fn alive(&self) -> usize {
        self.list(&["peers"]).iter().filter(|peer| peer["state"] == "alive").count()
    }

    /// Stores bytes under a path; the hash must be theirs.
    pub(crate) fn put(&self, path: &str, bytes: &[u8], flags: &[&str]) -> String {
        std::fs::write(self.work.join("source"), bytes).unwrap();
        let said = self.run(&[&["put", "source", "--as", path], flags].concat());
        assert_eq!(said.code, 0, "put {path}: {}", said.err);
        let hash = blake3::hash(bytes).to_string();
        assert_eq!(said.out, format!("{hash}\n"));
        std::fs::remove_file(self.work.join("source")).unwrap();
        hash
    }

    /// Fetches a file that must be there.
    pub(crate) fn get(&self, target: &str) -> Vec<u8> {
        let output = self.command(&["get", target, "-o", "-"]).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "get {target}: {err}");
        output.stdout
    }

    /// Everything in its working directory.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.work)
    }

    /// Everything that the daemon has said since its first start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.work.with_extension("log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        if std::thread::panicking() {
            writeln!(std::io::stderr(), "{}:\n{last}", self.log_path().display()).ok();
        } else {
            assert!(!log.contains("panicked at"), "a part of the daemon broke down:\n{last}");
        }
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits for something that must happen within a minute.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute in vain for {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Bytes that no compressor makes shorter, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
