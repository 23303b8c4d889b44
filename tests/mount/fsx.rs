//! The file system exerciser (`cargo install --locked fsx`): operations by a seed on one file,
//! each read of which it compares with what it knows, also through memory maps. They come in
//! rounds. After each the file is closed, and read at another node; in the middle a third node is
//! killed and stays away. `P2PFS_MOUNT=full` makes it 100,000 operations for each of five seeds.

use crate::daemon::{names, until};
use crate::mounted::{Mounted, mounted, programs};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Operations of a round.
const ROUND: u64 = 5000;
/// Every kind of operation, some more often. The file has up to four chunks.
const CONFIG: &str = "
flen = 3500000
[opsize]
max = 200000
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 4
fsync = 1
fdatasync = 1
posix_fallocate = 1
punch_hole = 3
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
";

/// Seeds, and rounds of each.
fn form() -> (u64, u64) {
    let full = std::env::var("P2PFS_MOUNT").is_ok_and(|what| what == "full");
    if full { (5, 20) } else { (1, 2) }
}

/// Begins a round on a file, which it empties first.
fn begin(file: &Path, config: &Path, seed: u64) -> Child {
    let mut command = Command::new("fsx");
    command.args(["-S", &seed.to_string(), "-N", &ROUND.to_string()]);
    command.arg("-P").arg(config.parent().unwrap()).arg("-f").arg(config).arg(file);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a file is known to the swarm, and is the same at the first two nodes.
fn same(swarm: &Mounted, name: &str, what: &str) {
    let [here, there] = [0, 1].map(|node| swarm.at(node).join(name));
    let hash = |path: &Path| {
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(path, "user.p2pfs.hash", &mut value[..]).unwrap_or(0);
        String::from_utf8(value[..len].to_vec()).unwrap()
    };
    let bytes = fs::read(&here).unwrap();
    let wanted = blake3::hash(&bytes).to_string();
    let known = || hash(&here) == wanted && hash(&there) == wanted;
    until(&format!("one version at both nodes after {what}"), known);
    assert!(fs::read(&there).unwrap() == bytes, "other bytes are read there after {what}");
    assert!(fs::read(&here).unwrap() == bytes, "other bytes are read here after {what}");
    assert_eq!(names(swarm.at(1)), [name], "after {what}");
}

/// All rounds of a seed.
fn play(seed: u64, rounds: u64) {
    let Some(mut swarm) = mounted("fsx", 3) else { return };
    let outside = tempfile::tempdir().unwrap();
    let config = outside.path().join("fsx.toml");
    fs::write(&config, CONFIG).unwrap();
    let name = format!("fsx-{seed}");
    // Each round has a seed of its own: what fsx skips to go on with one it does not always skip.
    for round in 1..=rounds {
        let begun = Instant::now();
        let file = swarm.at(0).join(&name);
        let mut running = begin(&file, &config, seed * 1000 + round);
        if round == rounds / 2 {
            let works = || fs::metadata(&file).is_ok_and(|stat| stat.len() > 0);
            until("operations to be made", || works() || running.try_wait().unwrap().is_some());
            swarm[2].kill();
        }
        let done = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "seed {seed}, round {round}: {said}");
        let took = begun.elapsed();
        same(&swarm, &name, &format!("round {round} of seed {seed}"));
        let operations = round * ROUND;
        println!("fsx: seed {seed}, {operations} operations, the last {ROUND} in {took:.1?}");
    }
}

#[test]
fn fsx_finds_nothing() {
    if !programs("fsx_finds_nothing", &["fsx"]) {
        return;
    }
    let (seeds, rounds) = form();
    // Most of the time is waiting for disks.
    std::thread::scope(|scope| {
        for seed in 1..=seeds {
            scope.spawn(move || play(seed, rounds));
        }
    });
}
