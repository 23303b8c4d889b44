//! A daemon dies while a program edits files in its mount: killed at random moments, killed at each
//! system call of one fsync and of the version that follows it, and without power on ext4 and xfs.
//! What was synced is there when it runs again, through the mount at once, and at another node when
//! a version was made; nothing hangs, and nothing is a conflict.

use crate::daemon::{Daemon, Swarm, names, until};
use crate::disk::Disk;
use crate::machine::{Dice, able, alone, form};
use crate::program::{MARK, Program};
use crate::trace::{KILL, Seen, Tracer, at_each_call};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The daemon dies so many milliseconds after the edits have begun, and at most so many later.
const LEAST: u64 = 100;
const WITHIN: u64 = 700;
/// How long a restarted daemon may take to mount.
const BACK: Duration = Duration::from_secs(10);
/// As for other power failures.
const DISK: u64 = 4 << 30;
/// The node with the mount; the other one lives on.
const MOUNTED: usize = 1;

/// Two nodes, a mount of the second one, and a program in it.
struct Scene {
    // Dropped in this order: the mount goes before its directory.
    swarm: Swarm,
    point: Point,
    program: Program,
}

/// A mount, which goes with it.
struct Point(tempfile::TempDir);

impl Drop for Point {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(self.0.path()).output().ok();
    }
}

fn able_to_mount(test: &str, programs: &[&str]) -> bool {
    able(test, &[programs, &["mount", "umount"]].concat())
}

impl Scene {
    fn new(dice: Dice, disk: Option<&Disk>) -> Self {
        let mut swarm = Swarm::of(1);
        let mut node = swarm.draft();
        if let Some(disk) = disk {
            node.data = disk.path().join("data");
        }
        node.start();
        swarm.add(node);
        swarm.met();
        let point = Point(tempfile::tempdir().unwrap());
        let mount = ["mount", point.0.path().to_str().unwrap()];
        until("the node to mount", || swarm[MOUNTED].run(&mount).code == 0);
        std::fs::write(point.0.path().join(MARK), MARK).unwrap();
        let mark = format!("/{MARK}");
        until("the mark to be known", || swarm[0].run(&["stat", &mark]).code == 0);
        let program = Program::new(point.0.path(), dice);
        Self { swarm, point, program }
    }

    fn node(&mut self) -> &mut Daemon {
        &mut self.swarm[MOUNTED]
    }

    fn dir(&self) -> &Path {
        self.point.0.path()
    }

    /// Lets the program work until `end` has ended the daemon.
    fn work(&mut self, end: impl FnOnce(&Daemon, &AtomicBool)) {
        let stop = AtomicBool::new(false);
        let (node, program) = (&self.swarm[MOUNTED], &mut self.program);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| program.run(&stop));
            end(node, &stop);
            until("the program to see that the mount is dead", || worker.is_finished());
        });
        self.node().kill();
    }

    /// Starts the daemon again, and looks.
    fn look(&mut self, when: &str) {
        self.node().start();
        let begun = Instant::now();
        let mark = self.dir().join(MARK);
        until("the mount to be back", || std::fs::read(&mark).is_ok_and(|text| text == b"mark"));
        assert!(begun.elapsed() < BACK, "the mount is back after {:?}", begun.elapsed());
        let seen = self.program.check(when);
        self.settled(&seen, when);
    }

    /// Waits until the other node has everything, which is what is seen through the mount.
    fn settled(&mut self, seen: &BTreeMap<String, Vec<u8>>, when: &str) {
        let drafts = self.node().data.join("drafts");
        until("the drafts to go", || !drafts.exists() || names(&drafts).is_empty());
        let known = || {
            let list = self.swarm[0].list(&["ls", "-R"]);
            let files = list.iter().filter(|entry| entry["hash"].is_string());
            let known: Vec<_> = files
                .map(|entry| (entry["path"].clone(), entry["hash"].clone()))
                .filter(|(path, _)| *path != format!("/{MARK}"))
                .collect();
            known
        };
        let wanted: Vec<_> = seen
            .iter()
            .map(|(name, bytes)| {
                (format!("/{name}").into(), blake3::hash(bytes).to_string().into())
            })
            .collect::<Vec<(serde_json::Value, serde_json::Value)>>();
        let begun = Instant::now();
        while known() != wanted {
            let late = begun.elapsed() > Duration::from_secs(30);
            assert!(!late, "after {when}, at the other node: {:#?}, not {wanted:#?}", known());
            std::thread::sleep(Duration::from_millis(30));
        }
        for (name, bytes) in seen {
            assert!(self.swarm[0].get(&format!("/{name}")) == *bytes, "{name} after {when}");
        }
    }
}

#[test]
fn what_was_synced_in_a_mount_outlives_kills() {
    let _turn = alone();
    if !able_to_mount("kills of a daemon with a mount", &[]) {
        return;
    }
    let (mut dice, kills) = (Dice::from_outside(), form(6, 200));
    let mut scene = Scene::new(Dice::new(dice.below(u64::MAX)), None);
    for number in 1..=kills {
        let moment = Duration::from_millis(LEAST + dice.below(WITHIN));
        scene.work(|node, stop| {
            std::thread::sleep(moment);
            stop.store(true, Ordering::SeqCst);
            node.signal(Signal::KILL);
        });
        scene.look(&format!("kill {number}"));
    }
    println!("0 of {} syncs in a mount lost in {kills} kills", scene.program.syncs);
    assert!(3 * scene.program.syncs > kills, "too few to say anything");
}

#[test]
fn killed_at_any_call_of_a_sync_in_a_mount() {
    let _turn = alone();
    if !able_to_mount("kill at each call of a sync in a mount", &["strace"]) {
        return;
    }
    let mut scene = Scene::new(Dice::from_outside(), None);
    let mut lives = 0;
    at_each_call("sync in a mount and version", KILL, |fault| {
        lives += 1;
        for _ in 0..3 {
            scene.program.write_some();
        }
        let tracer = Tracer::attach_all(scene.node(), fault);
        if scene.program.sync_edited() {
            scene.program.close();
            let node = &scene.swarm[MOUNTED];
            let drafts = node.data.join("drafts");
            let done = || names(&drafts).is_empty() || node.run(&["id"]).code != 0;
            until("a version, or the end", done);
        }
        scene.program.close();
        scene.node().kill();
        tracer.ended();
        let seen = Seen::of(scene.node());
        scene.look(fault);
        seen
    });
    println!("0 of {} syncs in a mount lost in {lives} lives", scene.program.syncs);
}

fn keeps(kind: &str) {
    let _turn = alone();
    let tools = ["mount", "umount", &format!("mkfs.{kind}")];
    if !able(&format!("power failures of a daemon with a mount on {kind}"), &tools) {
        return;
    }
    let (mut dice, count) = (Dice::from_outside(), form(2, 50));
    let disk = Disk::new(kind, DISK);
    let mut scene = Scene::new(Dice::new(dice.below(u64::MAX)), Some(&disk));
    for number in 1..=count {
        let moment = Duration::from_millis(LEAST + dice.below(WITHIN));
        scene.work(|node, stop| {
            std::thread::sleep(moment);
            stop.store(true, Ordering::SeqCst);
            disk.cut();
            node.signal(Signal::KILL);
        });
        disk.again();
        scene.look(&format!("power failure {number} on {kind}"));
    }
    println!(
        "0 of {} syncs in a mount lost in {count} power failures on {kind}",
        scene.program.syncs
    );
}

#[test]
fn ext4_keeps_what_was_synced_in_a_mount_when_the_power_fails() {
    keeps("ext4");
}

#[test]
fn xfs_keeps_what_was_synced_in_a_mount_when_the_power_fails() {
    keeps("xfs");
}
