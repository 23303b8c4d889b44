//! Where the demo plays: a temporary directory and the daemons in it. Dropping it kills them and
//! removes everything.

use crate::client::Client;
use crate::sys::Rng;
use crate::sys::os::OsRng;
use crate::text::shown;
use crate::wire::control::{Code, Failure};
use crate::{id, paths};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The nodes.
pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

pub(super) struct Stage {
    executable: PathBuf,
    root: PathBuf,
    daemons: RefCell<BTreeMap<&'static str, Child>>,
}

impl Stage {
    pub(super) fn new(executable: PathBuf) -> Result<Self, Failure> {
        let mut random = [0; 6];
        OsRng.fill(&mut random);
        let root = std::env::temp_dir().join(format!("p2pfs-demo-{}", id::to_hex(&random)));
        std::fs::DirBuilder::new().mode(0o700).create(&root).map_err(|_| {
            let root = root.to_string_lossy();
            Failure::new(Code::Failed, format!("cannot make the directory {}", shown(&root)))
                .hint("TMPDIR=DIR p2pfs demo")
        })?;
        Ok(Self { executable, root, daemons: RefCell::default() })
    }

    /// A path on the stage.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn client(&self, name: &str) -> Client {
        Client::new(paths::socket_in(&self.path(name)))
    }

    /// The directory of all that.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn start(
        &mut self,
        name: &'static str,
        flags: &[String],
        replicas: u8,
    ) -> Result<(), Failure> {
        let failed = |_| Failure::new(Code::Failed, format!("node {name} cannot be started"));
        let log = File::create(self.log(name)).map_err(failed)?;
        let mut command = Command::new(&self.executable);
        // What the person has set for their own daemon is not meant for these.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("P2PFS_") {
                command.env_remove(variable);
            }
        }
        let daemon = command
            .args(["daemon", "--data-dir"])
            .arg(self.path(name))
            .arg("--config-dir")
            .arg(self.path("config"))
            .args(flags)
            .env("P2PFS_REPLICAS", replicas.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo alone, which then ends its daemons.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        self.daemons.get_mut().insert(name, daemon);
        Ok(())
    }

    pub(super) fn pid(&self, name: &str) -> u32 {
        self.daemons.borrow().get(name).map_or(0, Child::id)
    }

    /// Kills a daemon as `kill -9` does.
    pub(super) fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let Some(mut daemon) = self.daemons.get_mut().remove(name) else { return Ok(()) };
        daemon
            .kill()
            .and_then(|()| daemon.wait())
            .map(|_| ())
            .map_err(|_| Failure::new(Code::Failed, format!("node {name} cannot be killed")))
    }

    /// Fails when a daemon has ended by itself, with the last thing that it said.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (name, daemon) in self.daemons.borrow_mut().iter_mut() {
            if matches!(daemon.try_wait(), Ok(Some(_))) {
                let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
                let lines = || log.lines().filter(|line| !line.trim().is_empty());
                let last = lines().find(|line| line.starts_with("error:")).or(lines().next_back());
                let last = shown(last.unwrap_or("it said nothing")).into_owned();
                return Err(Failure::new(Code::Failed, format!("node {name} ended: {last}")));
            }
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in self.daemons.get_mut().values_mut() {
            // One that has ended already cannot be killed, and is waited for all the same.
            daemon.kill().ok();
            daemon.wait().ok();
        }
        // What cannot be removed is in the directory for temporary files.
        std::fs::remove_dir_all(&self.root).ok();
    }
}

/// Whether two files have the same bytes.
pub(super) fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
