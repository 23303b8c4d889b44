//! What the benches share: real daemons on loopback in a temporary directory, commands to them, and
//! how much time and memory both took. What is measured and how it is shown is each bench's own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const P2PFS: &str = env!("CARGO_BIN_EXE_p2pfs");
/// How long a daemon may take to start.
const START_MAX: Duration = Duration::from_secs(120);

/// A temporary directory with some daemons in it; all of it goes when this is dropped.
pub(crate) struct Swarm {
    pub(crate) dir: PathBuf,
    pub(crate) daemons: Vec<Child>,
    flags: Vec<Vec<String>>,
}

/// The flags of each node of a swarm.
pub(crate) struct Nodes(Vec<Vec<String>>);

impl From<usize> for Nodes {
    fn from(nodes: usize) -> Self {
        Self(vec![Vec::new(); nodes])
    }
}

impl From<Vec<Vec<String>>> for Nodes {
    fn from(flags: Vec<Vec<String>>) -> Self {
        Self(flags)
    }
}

impl Swarm {
    /// Starts so many nodes, or one with each of these flags.
    pub(crate) fn start(name: &str, nodes: impl Into<Nodes>) -> Self {
        let Nodes(flags) = nodes.into();
        let dir = std::env::temp_dir().join(format!("p2pfs-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        let nodes = flags.len();
        let mut swarm = Self { dir, daemons: Vec::new(), flags };
        for node in 0..nodes {
            swarm.add(node, "127.0.0.1:0");
        }
        swarm.wait("peers", nodes - 1);
        swarm
    }

    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.dir.join(format!("n{node}"))
    }

    pub(crate) fn add(&mut self, node: usize, listen: &str) {
        let mut command = Command::new(P2PFS);
        command.args(["daemon", "--listen", listen, "--data-dir"]).arg(self.data(node));
        if node > 0 {
            command.args(["--bootstrap", &self.listen(0)]);
        }
        command.args(self.flags.get(node).into_iter().flatten());
        command.env("P2PFS_CONFIG_DIR", self.dir.join("config"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        let child = command.spawn().expect("the daemon starts");
        if node < self.daemons.len() {
            self.daemons[node] = child;
        } else {
            self.daemons.push(child);
        }
        let ready = Instant::now();
        while !self.try_at(node, &["id"]).0 {
            assert!(ready.elapsed() < START_MAX, "daemon {node} does not answer");
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn listen(&self, node: usize) -> String {
        let id = self.json(node, &["id"]);
        let list = id.split("\"listen\":[\"").nth(1).expect("`listen` in id --json");
        list.split('"').next().expect("an address").to_owned()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, node: usize, args: &[&str]) -> Output {
        let mut command = Command::new(P2PFS);
        command.arg("--data-dir").arg(self.data(node)).args(args);
        command.env("P2PFS_CONFIG_DIR", self.dir.join("config")).stdin(Stdio::null());
        command.output().expect("the command runs")
    }

    pub(crate) fn try_at(&self, node: usize, args: &[&str]) -> (bool, String) {
        let out = self.run(node, args);
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    pub(crate) fn at(&self, node: usize, args: &[&str]) -> String {
        let (ok, out) = self.try_at(node, args);
        assert!(ok, "p2pfs {args:?} at node {node} failed");
        out
    }

    pub(crate) fn json(&self, node: usize, args: &[&str]) -> String {
        self.at(node, &[args, &["--json"]].concat())
    }

    /// Waits until node 0 sees that many living peers; how long it took.
    pub(crate) fn wait(&self, what: &str, count: usize) -> Duration {
        let since = Instant::now();
        while self.json(0, &[what]).matches("\"state\":\"alive\"").count() < count {
            assert!(since.elapsed() < Duration::from_secs(60), "not {count} alive after 60 s");
            sleep(Duration::from_millis(10));
        }
        since.elapsed()
    }

    /// A line of a daemon's `/proc/PID/status`, in MiB.
    pub(crate) fn memory_of(&self, node: usize, line: &str) -> f64 {
        let path = format!("/proc/{}/status", self.daemons[node].id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let found = status.lines().find(|l| l.starts_with(line)).unwrap_or_default();
        let kib = found.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for child in &mut self.daemons {
            // It may have been stopped by a signal; killing it works all the same.
            child.kill().ok();
            child.wait().ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// How long some work took, in seconds.
pub(crate) fn timed(work: impl FnOnce()) -> f64 {
    let since = Instant::now();
    work();
    since.elapsed().as_secs_f64()
}

/// A number from the environment.
pub(crate) fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
