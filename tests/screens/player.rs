//! Plays the machines: each is a home directory here, with a daemon when one was started. What a
//! real run has by chance (keys, names, ports, directories) is shown as what a person may have.

use super::terminal::Terminal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for what a page waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// The machines: name, name of the node, and the address that stands for the real one. It is as
/// long as `127.0.0.1` with a port that the system chose, so that tables stay straight.
const MACHINES: [(&str, &str, &str); 3] = [
    ("desk", "brave-otter", "10.0.10.20:4000"),
    ("laptop", "calm-heron", "10.0.10.31:4000"),
    ("attic", "dry-fox", "10.0.10.47:4000"),
];

pub(crate) struct Player {
    /// For the executable and what commands put into the directory for temporary files.
    dir: TempDir,
    homes: BTreeMap<&'static str, TempDir>,
    daemons: BTreeMap<String, Terminal>,
    /// What is written in the place of what.
    masks: Vec<(String, String)>,
    /// Where a machine's daemon really listens.
    addresses: BTreeMap<String, String>,
}

/// Files, directories and links, the same in each run.
fn plant(dir: &Path) {
    std::fs::create_dir_all(dir.join("letters/to the bank")).unwrap();
    std::fs::create_dir(dir.join("empty")).unwrap();
    for number in 1..=40 {
        let name = format!("letters/letter {number}.txt");
        std::fs::write(dir.join(name), format!("Dear number {number},\n").repeat(number)).unwrap();
    }
    let mut scan = vec![0; 2_500_000];
    blake3::Hasher::new().update(b"scan").finalize_xof().fill(&mut scan);
    std::fs::write(dir.join("letters/to the bank/scan.pdf"), scan).unwrap();
    std::fs::write(dir.join("list.txt"), "Buy bread\n").unwrap();
    std::os::unix::fs::symlink("letters/letter 40.txt", dir.join("last letter")).unwrap();
}

/// The id that is shown for a machine, or a swarm.
fn id_of(what: &str) -> String {
    blake3::hash(what.as_bytes()).to_hex().to_string()
}

impl Player {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_p2pfs"), bin.join("p2pfs")).unwrap();
        let mask = |dir: &TempDir, shown: &str| (dir.path().display().to_string(), shown.into());
        let mut masks = vec![mask(&dir, "/tmp")];
        let mut homes = BTreeMap::new();
        for (machine, ..) in MACHINES {
            // As long as what is shown, where directories for temporary files are in /tmp.
            let home = tempfile::Builder::new().prefix("").rand_bytes(4).tempdir().unwrap();
            masks.push(mask(&home, "/home/ann"));
            homes.insert(machine, home);
        }
        Self { dir, homes, daemons: BTreeMap::new(), masks, addresses: BTreeMap::new() }
    }

    fn home(&self, machine: &str) -> &Path {
        self.homes[machine].path()
    }

    /// A command on a machine, with nothing of the person's own settings.
    fn command(&self, machine: &str, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let path = self.dir.path().join("bin").display().to_string() + ":/usr/bin:/bin";
        // Another machine is another directory, which a variable with its name knows.
        let scp = r#"scp() { shift; eval "cp -rp \"$1\" \"\$${2%%:*}/${2#*:}\""; }; "#;
        command
            .args(["-c", &format!("{scp}{line}")])
            .current_dir(self.home(machine))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home(machine))
            .env("TMPDIR", self.dir.path())
            .env("TERM", "xterm")
            .env("NO_COLOR", "1");
        if line.contains("p2pfs daemon") {
            let (_, name, _) = MACHINES.iter().find(|(known, ..)| *known == machine).unwrap();
            command.env("P2PFS_LISTEN", "127.0.0.1:0").env("P2PFS_NAME", name);
        }
        if line.starts_with("scp") {
            command.envs(self.homes.iter().map(|(machine, home)| (machine, home.path())));
        }
        command
    }

    /// Does what a line like `<!-- file notes.txt 4000 -->` says:
    ///
    /// * `file NAME BYTES`: makes a file on the desk, the same in each run;
    /// * `lines NAME NUMBER`: makes a text file there;
    /// * `mkdir MACHINE DIR`: makes a directory;
    /// * `tree MACHINE DIR`: makes one with files of all kinds in it;
    /// * `same MACHINE OTHER DIR`: `diff -r` finds the directory the same on both;
    /// * `until MACHINE TEXT`: waits until `status --json` or `ls -R --json` there has the text;
    /// * `kill MACHINE`: ends its daemon without warning.
    pub(crate) fn obey(&mut self, order: &str) {
        let words: Vec<&str> = order.splitn(3, ' ').collect();
        match words[..] {
            ["tree", machine, dir] => plant(&self.home(machine).join(dir)),
            ["same", machine, rest] => {
                let (other, dir) = rest.split_once(' ').unwrap();
                let [one, two] = [machine, other].map(|machine| self.home(machine).join(dir));
                let args = ["-r", "--no-dereference"];
                let diff = Command::new("diff").args(args).args([one, two]).output().unwrap();
                assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
            }
            ["file", name, bytes] => {
                let mut content = vec![0; bytes.parse().unwrap()];
                blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut content);
                std::fs::write(self.home("desk").join(name), content).unwrap();
            }
            ["lines", name, number] => {
                let lines = 1..=number.parse::<u32>().unwrap();
                let text: String = lines.map(|n| format!("This is line {n}.\n")).collect();
                std::fs::write(self.home("desk").join(name), text).unwrap();
            }
            ["mkdir", machine, dir] => {
                std::fs::create_dir_all(self.home(machine).join(dir)).unwrap();
            }
            ["until", machine, text] => self.until(machine, text),
            ["kill", machine] => self.daemons.get_mut(machine).unwrap().kill(),
            _ => panic!("`{order}` is not an order"),
        }
    }

    fn until(&self, machine: &str, text: &str) {
        let begun = Instant::now();
        loop {
            let mut said = self.ask(machine, "status");
            said += &self.ask(machine, "ls -R");
            if said.contains(text) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "`{text}` did not come: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a command says as JSON.
    fn ask(&self, machine: &str, command: &str) -> String {
        let line = format!("p2pfs {command} --json");
        let output = self.command(machine, &line).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types a line and returns what a person sees.
    pub(crate) fn type_in(&mut self, machine: &str, line: &str) -> String {
        let line = self.real(line);
        if !line.starts_with("p2pfs daemon") {
            return self.mask(&Terminal::run(&mut self.command(machine, &line)).finish());
        }
        // In the place of the shell, so that to kill it is to kill the daemon.
        let mut daemon = Terminal::run(&mut self.command(machine, &format!("exec {line}")));
        let said = daemon.until("ready in");
        self.daemons.insert(machine.to_owned(), daemon);
        self.learn(machine);
        self.mask(&said)
    }

    /// Learns what a new daemon is called and where it listens.
    fn learn(&mut self, machine: &str) {
        let id: serde_json::Value = serde_json::from_str(&self.ask(machine, "id")).unwrap();
        let (.., address) = MACHINES.iter().find(|(known, ..)| *known == machine).unwrap();
        let listen = id["listen"][0].as_str().unwrap().to_owned();
        let port = listen.rsplit_once(':').unwrap().1.to_owned();
        let mut mask = |real: &str, shown: &str| self.masks.push((real.into(), shown.into()));
        mask(&format!("Listening  {listen}"), "Listening  [::]:4000");
        mask(&format!("Listen  {listen}"), "Listen  [::]:4000");
        mask(&listen, address);
        mask(&format!("HOST:{port}"), "HOST:4000");
        let mut mask_id = |real: &str, what: &str| {
            mask(real, &id_of(what));
            mask(&real[..10], &id_of(what)[..10]);
            // As in the names of conflict copies.
            mask(&real[..8], &id_of(what)[..8]);
        };
        mask_id(id["id"].as_str().unwrap(), machine);
        if let Some(swarm) = id["swarm"].as_str() {
            mask_id(swarm, "swarm");
        }
        let status: serde_json::Value = serde_json::from_str(&self.ask(machine, "status")).unwrap();
        if let Some(code) = status["code"].as_str() {
            self.masks.push((code.to_owned(), "WBE1-P598".into()));
        }
        self.addresses.insert(machine.to_owned(), listen);
    }

    /// A line of a page as it works here: machines by their addresses, the code that is waiting.
    fn real(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (machine, address) in &self.addresses {
            line = line.replace(&format!("{machine}:4000"), address);
        }
        if line.starts_with("p2pfs approve ") {
            let mut codes = self.daemons.keys().filter_map(|machine| {
                let status: serde_json::Value =
                    serde_json::from_str(&self.ask(machine, "status")).ok()?;
                status["code"].as_str().map(str::to_owned)
            });
            line = codes.next_back().map_or(line, |code| format!("p2pfs approve {code}"));
        }
        line
    }

    fn mask(&self, said: &str) -> String {
        let masks = self.masks.iter();
        masks.fold(said.to_owned(), |said, (real, shown)| said.replace(real, shown))
    }
}
