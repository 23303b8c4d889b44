//! Daemons with mounts, which go with them. Owns mounting and unmounting; a test that cannot run
//! on a machine says so.

use crate::daemon::{Daemon, Swarm, until};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user without rights.
const NOBODY: u32 = 65534;

/// A swarm of which every node has a mount.
pub(crate) struct Mounted {
    swarm: Swarm,
    points: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

/// So many nodes, each with a mount; none where that cannot be, which is noted.
pub(crate) fn mounted(test: &str, nodes: usize) -> Option<Mounted> {
    mounted_with(test, nodes, &[])
}

/// The same, each node started with these flags.
pub(crate) fn mounted_with(test: &str, nodes: usize, flags: &[&str]) -> Option<Mounted> {
    can_mount(test).then(|| {
        let swarm = Swarm::with(nodes, flags);
        let dir = tempfile::tempdir().unwrap();
        let mut points = Vec::new();
        for node in 0..nodes {
            let point = dir.path().join(format!("mount-{node}"));
            std::fs::create_dir(&point).unwrap();
            mount(&swarm[node], &point, &[]);
            points.push(point);
        }
        Mounted { swarm, points, _dir: dir }
    })
}

/// A node of a user without rights, and a directory of that user to mount on: nobody's, when the
/// tests run as root. None where that cannot be, which is noted.
pub(crate) fn unprivileged(test: &str) -> Option<Mounted> {
    let mode = std::fs::metadata("/dev/fuse").map_or(0, |stat| stat.permissions().mode());
    if !can_mount(test) || !programs(test, &["fusermount3"]) {
        return None;
    }
    if mode & 0o006 != 0o006 {
        if rustix::process::geteuid().is_root() && programs(test, &["unshare", "mknod"]) {
            run_with_open_device(test);
        } else {
            skipped(test, "/dev/fuse is closed to other users");
        }
        return None;
    }
    let (mut swarm, dir) = (Swarm::empty(), tempfile::tempdir().unwrap());
    let (mut node, point) = (swarm.draft(), dir.path().join("mount"));
    std::fs::create_dir(&point).unwrap();
    if rustix::process::geteuid().is_root() {
        let program = dir.path().join("p2pfs");
        std::fs::copy(&node.program, &program).unwrap();
        for path in [dir.path(), &point, node.work.parent().unwrap(), &node.work] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        (node.program, node.user) = (program, Some(NOBODY));
    }
    node.start();
    swarm.add(node);
    mount(&swarm[0], &point, &[]);
    Some(Mounted { swarm, points: vec![point], _dir: dir })
}

/// Runs a test of `ends` where only its own processes see a device that is open to all, as most
/// machines have it.
fn run_with_open_device(test: &str) {
    const LINE: &str = "mknod -m 666 \"$1/fuse\" c 10 229; mount --bind \"$1/fuse\" /dev/fuse
                        exec \"$2\" --exact \"$3\" --nocapture";
    let dir = tempfile::tempdir().unwrap();
    let (place, program) = (dir.path().to_str().unwrap(), std::env::current_exe().unwrap());
    let line = ["-m", "sh", "-euc", LINE, "sh", place, program.to_str().unwrap()];
    let said = run(dir.path(), "unshare", &[&line[..], &[&format!("ends::{test}")]].concat());
    assert!(said.contains("1 passed"), "{said}");
}

/// A program that a node's user runs.
pub(crate) fn program_of(node: &Daemon, dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(dir);
    if let Some(user) = node.user {
        command.uid(user).gid(user);
    }
    command
}

/// Mounts, which must succeed.
pub(crate) fn mount(node: &Daemon, point: &Path, flags: &[&str]) {
    let said = node.run(&[&["mount", point.to_str().unwrap()], flags].concat());
    assert_eq!(said.code, 0, "{}", said.err);
}

/// Whether this machine lets us mount.
pub(crate) fn can_mount(test: &str) -> bool {
    let why = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else if !rustix::process::geteuid().is_root() && !has("fusermount3") {
        "fusermount3 is not installed"
    } else {
        return true;
    };
    skipped(test, why);
    false
}

/// Whether these programs are here; if not, that is noted.
pub(crate) fn programs(test: &str, names: &[&str]) -> bool {
    let missing = names.iter().find(|name| !has(name));
    if let Some(name) = missing {
        skipped(test, &format!("{name} is not installed"));
    }
    missing.is_none()
}

fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// Says that a test cannot run here; whoever wants to know names a file for it.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: {why}").ok();
    if let Some(list) = std::env::var_os("P2PFS_TEST_SKIPS") {
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "mount: {test}: {why}").unwrap();
    }
}

impl Mounted {
    /// Where a node's mount is.
    pub(crate) fn at(&self, node: usize) -> &Path {
        &self.points[node]
    }

    /// Waits until the mount of a node that was started again answers.
    pub(crate) fn until_back(&self, node: usize) {
        let point = self.at(node);
        let device = |dir: &Path| std::fs::metadata(dir).ok().map(|stat| stat.dev());
        until("the mount to be back", || {
            // A dead mount opens nothing, and where none is just now there is an empty directory:
            // so it is what was opened that is asked, not the path once more.
            let opened = std::fs::File::open(point).and_then(|dir| dir.metadata());
            opened.is_ok_and(|stat| device(point.parent().unwrap()) != Some(stat.dev()))
        });
    }

    /// A new directory in a mount.
    pub(crate) fn dir(&self, node: usize, name: &str) -> PathBuf {
        let dir = self.points[node].join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }
}

impl Deref for Mounted {
    type Target = Swarm;

    fn deref(&self) -> &Swarm {
        &self.swarm
    }
}

impl DerefMut for Mounted {
    fn deref_mut(&mut self) -> &mut Swarm {
        &mut self.swarm
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.points.iter().for_each(|point| detach(point));
    }
}

/// Unmounts, whoever uses it; nothing there is as good.
pub(crate) fn detach(point: &Path) {
    let root = rustix::process::geteuid().is_root();
    let (program, flags) = if root { ("umount", "-l") } else { ("fusermount3", "-uz") };
    Command::new(program).arg(flags).arg(point).output().unwrap();
}

/// Runs a program of the machine that must succeed; what it prints.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8_lossy(&out).into_owned()
}

/// Runs a line of shell that must succeed; what it prints.
pub(crate) fn shell(dir: &Path, line: &str) -> String {
    run(dir, "sh", &["-euc", line])
}
