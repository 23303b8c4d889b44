//! A swarm without room: programs are told so, what was synced stays, and is known to the others
//! once there is room again.

use crate::daemon::{Daemon, noise, until};
use crate::mounted::{Mounted, mounted_with};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The least that leaves room for a few files.
const FLAGS: [&str; 4] = ["--capacity", "80MB", "--gc-grace", "1s"];

fn fill(swarm: &Mounted) -> u64 {
    for number in 0.. {
        let bytes = noise(1000 + number, 4 << 20);
        fs::write(swarm[0].work.join("filler"), bytes).unwrap();
        let said = swarm[0].run(&["put", "filler", "--as", &format!("/filler-{number}")]);
        if said.code != 0 {
            assert_eq!(said.code, 8, "{}", said.err);
            return number;
        }
    }
    unreachable!("a swarm is never full");
}

fn is_full(done: &io::Result<()>) -> bool {
    done.as_ref().is_err_and(|err| err.raw_os_error() == Some(Errno::NOSPC.raw_os_error()))
}

fn edit(path: &Path) -> File {
    File::options().write(true).create(true).truncate(false).open(path).unwrap()
}

fn free(point: &Path) -> u64 {
    rustix::fs::statvfs(point).unwrap().f_bavail
}

/// What a shell says of a command that fails: `cp` and `sh` look at what `close` says.
fn fails(point: &Path, line: &str) -> String {
    let said = std::process::Command::new("sh").args(["-c", line]).current_dir(point).output();
    let said = said.unwrap();
    assert!(!said.status.success(), "{line} did not fail");
    String::from_utf8_lossy(&said.stderr).into_owned()
}

fn knows(node: &Daemon, bytes: &[u8]) -> bool {
    let hash = blake3::hash(bytes).to_string();
    node.list(&["ls"]).iter().any(|entry| entry["hash"] == *hash)
}

#[test]
fn a_program_is_told_that_the_swarm_is_full_and_what_it_synced_goes_out_later() {
    let test = "a_program_is_told_that_the_swarm_is_full_and_what_it_synced_goes_out_later";
    let Some(mut swarm) = mounted_with(test, 2, &FLAGS) else { return };
    let path = swarm.at(0).join("f");
    let small = swarm.at(0).join("small");
    fs::write(&small, "small").unwrap();
    assert!(free(swarm.at(0)) > 0);
    let fillers = fill(&swarm);
    // A draft takes it, and it is durable there, but nobody has room for a version.
    let bytes = noise(1, 5 << 20);
    let file = edit(&path);
    file.write_all_at(&bytes, 0).unwrap();
    file.sync_all().unwrap();
    until("the version to be refused", || is_full(&file.write_all_at(&bytes[..9], 0)));
    file.sync_all().unwrap();
    assert_eq!(free(swarm.at(0)), 0);
    let status = swarm[0].status();
    assert_eq!(status["files_refused"], 1);
    let sentence = "1 file that was changed in a mount waits for room in the swarm (5.0 MiB)";
    assert!(status["problems"].to_string().contains(sentence), "{}", status["problems"]);
    // Whoever closes a file from now on hears of it at once.
    fs::write(swarm[0].work.join("more"), noise(2, 1 << 20)).unwrap();
    let copy = format!("cp {} g", swarm[0].work.join("more").display());
    assert!(fails(swarm.at(0), &copy).contains("No space left"));
    assert!(fails(swarm.at(0), "head -c 50000000 /dev/urandom > h").contains("No space left"));
    // What needs no room is done: what makes room above all.
    fs::rename(&small, swarm.at(0).join("renamed")).unwrap();
    edit(&swarm.at(0).join("h")).set_len(0).unwrap();
    fs::remove_file(swarm.at(0).join("g")).unwrap();
    fs::remove_file(swarm.at(0).join("h")).unwrap();
    // What was synced is there after a crash, and waits again.
    drop(file);
    swarm[0].signal(Signal::KILL);
    swarm[0].kill();
    swarm[0].start();
    swarm.until_back(0);
    let mut seen = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut seen).unwrap();
    assert!(seen == bytes);
    until("the version to be refused again", || swarm[0].status()["files_refused"] == 1);
    assert!(!knows(&swarm[1], &bytes));
    for number in 0..fillers {
        let said = swarm[0].run(&["rm", "--purge", "--yes", &format!("/filler-{number}")]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    until("the others to have it", || knows(&swarm[1], &bytes));
    until("all to be well", || swarm[0].status()["files_refused"] == 0);
    until("room to be shown", || free(swarm.at(0)) > 0);
    let mut file = edit(&path);
    file.write_all(b"again").unwrap();
    drop(file);
    until("the next version", || {
        fs::read(swarm.at(1).join("f")).is_ok_and(|f| f[..5] == *b"again")
    });
}
