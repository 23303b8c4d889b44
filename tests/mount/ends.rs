//! How mounts come and go: commands that say what is wrong, programs that use one, daemons that
//! are killed and started again, and edits that were synced before.

use crate::daemon::{Daemon, Swarm, names, noise, until};
use crate::mounted::{can_mount, detach, mount, mounted, program_of, skipped, unprivileged};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_mount_that_is_in_use_stays_and_says_by_whom() {
    let test = "a_mount_that_is_in_use_stays_and_says_by_whom";
    let Some(swarm) = mounted(test, 1) else { return };
    let point = swarm.at(0).to_str().unwrap();
    fs::write(swarm.at(0).join("f"), "kept").unwrap();
    let mut shell = Command::new("sleep");
    let mut user = shell.arg("600").current_dir(swarm.at(0)).stdout(Stdio::null()).spawn().unwrap();
    let said = swarm[0].run(&["umount", point]);
    assert_eq!(said.code, 11, "{}", said.err);
    let named = format!("sleep (pid {})", user.id());
    assert!(said.err.contains(&named) && said.err.contains("--force"), "{}", said.err);
    assert_eq!(fs::read(swarm.at(0).join("f")).unwrap(), b"kept");
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(swarm[0].status()["mounts"].as_array().unwrap().len(), 1);
    let said = swarm[0].run(&["umount", point]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(names(swarm.at(0)).is_empty());
    assert!(swarm[0].status()["mounts"].as_array().unwrap().is_empty());
    assert_eq!(swarm[0].get("/f"), b"kept", "what was changed is known before it goes");
    assert_eq!(swarm[0].run(&["umount", point]).code, 3);
}

#[test]
fn an_unmount_does_not_wait_for_a_program_that_never_stops_to_write() {
    let test = "an_unmount_does_not_wait_for_a_program_that_never_stops_to_write";
    let Some(swarm) = mounted(test, 1) else { return };
    let dir = tempfile::tempdir().unwrap();
    // Who was in the directory before it was mounted on does not use the mount.
    let mut sleep = Command::new("sleep");
    let mut beside = sleep.arg("600").current_dir(dir.path()).spawn().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    fs::write(dir.path().join("f"), "closed").unwrap();
    let busy = File::create(swarm.at(0).join("busy")).unwrap();
    let (begun, ends) = (Instant::now(), AtomicBool::new(false));
    let write = || {
        // Faster than versions of it are made.
        let mut piece = noise(5, 1 << 20);
        for number in (0_u64..).take_while(|_| !ends.load(Ordering::Relaxed)) {
            piece[..8].copy_from_slice(&number.to_le_bytes());
            busy.write_all_at(&piece, (number % 8) << 20).unwrap();
        }
    };
    let [in_use, unused] = std::thread::scope(|scope| {
        scope.spawn(write);
        let umount = |point: &Path| swarm[0].run(&["umount", point.to_str().unwrap()]);
        let said = [swarm.at(0), dir.path()].map(umount);
        ends.store(true, Ordering::Relaxed);
        said
    });
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    assert_eq!(in_use.code, 11, "{}", in_use.err);
    assert!(in_use.err.contains(&format!("(pid {})", std::process::id())), "{}", in_use.err);
    // What was written through the other one is known when it goes.
    assert_eq!(unused.code, 0, "{}", unused.err);
    assert_eq!(swarm[0].get("/f"), b"closed");
    beside.kill().unwrap();
    beside.wait().unwrap();
}

#[test]
fn what_cannot_be_mounted_is_said_in_a_sentence() {
    let swarm = Swarm::of(1);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/f"), "").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let data = swarm[0].data.to_str().unwrap().to_owned();
    for (args, code, words) in [
        (vec![at("none")], 3, "there is no directory"),
        (vec![at("full")], 11, "is not empty"),
        (vec![at("full/f")], 11, "is not a directory"),
        (vec![at("empty"), "--path".into(), "/none".into()], 3, "is not found"),
        (vec![data], 11, "own data"),
    ] {
        let said = swarm[0].run(&[vec!["mount".to_owned()], args].concat());
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.contains(words), "{}", said.err);
    }
}

#[test]
fn a_restarted_daemon_has_its_mounts_and_what_was_synced() {
    let test = "a_restarted_daemon_has_its_mounts_and_what_was_synced";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let point = swarm.at(0).to_owned();
    fs::create_dir(point.join("d")).unwrap();
    fs::write(point.join("d/closed"), "closed").unwrap();
    until("the file to be known", || swarm[0].run(&["stat", "/d/closed"]).code == 0);
    // Synced, still open and in a new directory when the daemon is killed.
    fs::create_dir(point.join("e")).unwrap();
    let mut open = File::create(point.join("e/synced")).unwrap();
    open.write_all(&[7; 3_000_000]).unwrap();
    open.sync_all().unwrap();
    let mut edited = File::options().append(true).open(point.join("d/closed")).unwrap();
    edited.write_all(b" and edited").unwrap();
    edited.sync_all().unwrap();
    // So that the system remembers it.
    assert!(point.metadata().unwrap().is_dir());
    swarm[0].kill();
    let dead = fs::read_dir(&point).unwrap_err();
    assert_eq!(dead.kind(), std::io::ErrorKind::NotConnected);
    drop((open, edited));
    swarm[0].start();
    let begun = Instant::now();
    until("the mount to be back", || fs::read(point.join("d/closed")).is_ok());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(fs::read(point.join("d/closed")).unwrap(), b"closed and edited");
    assert_eq!(fs::read(point.join("e/synced")).unwrap(), [7; 3_000_000]);
    until("a version to be made", || swarm[0].run(&["stat", "/e/synced"]).code == 0);
    assert_eq!(swarm[0].get("/e/synced"), [7; 3_000_000]);
    until("the drafts to go", || names(&swarm[0].data.join("drafts")).is_empty());
}

#[test]
fn what_was_not_synced_is_old_or_new_and_does_not_come_later() {
    let test = "what_was_not_synced_is_old_or_new_and_does_not_come_later";
    let Some(mut swarm) = mounted(test, 1) else { return };
    let point = swarm.at(0).to_owned();
    let synced = |name: &str| {
        let file = File::create(point.join(name)).unwrap();
        file.write_all_at(&[7; 200_000], 0).unwrap();
        file.sync_all().unwrap();
        file
    };
    let cut = synced("cut");
    cut.set_len(10).unwrap();
    let longer = synced("longer");
    longer.set_len(3 << 20).unwrap();
    longer.sync_all().unwrap();
    // In a chunk of which nothing was synced, and behind the end.
    longer.write_all_at(&[9; 1000], 2 << 20).unwrap();
    longer.write_all_at(&[9; 1000], 3 << 20).unwrap();
    swarm[0].kill();
    drop((cut, longer));
    swarm[0].start();
    until("the mount to be back", || fs::read(point.join("longer")).is_ok());
    let now = fs::read(point.join("cut")).unwrap();
    assert!(now == [7; 10] || now == [7; 200_000], "{} bytes of it", now.len());
    let file = File::options().read(true).write(true).open(point.join("longer")).unwrap();
    let mut wanted = fs::read(point.join("longer")).unwrap();
    assert!(wanted.len() == 3 << 20 && wanted[..200_000] == [7; 200_000]);
    file.write_all_at(&[8; 10], (2 << 20) + 5000).unwrap();
    file.set_len(4 << 20).unwrap();
    wanted[(2 << 20) + 5000..][..10].fill(8);
    wanted.resize(4 << 20, 0);
    assert!(fs::read(point.join("longer")).unwrap() == wanted, "what was lost is there again");
    drop(file);
    until("the drafts to go", || names(&swarm[0].data.join("drafts")).is_empty());
    assert!(swarm[0].get("/longer") == wanted);
}

#[test]
fn a_dead_mount_is_detached_when_it_is_mounted_again() {
    let test = "a_dead_mount_is_detached_when_it_is_mounted_again";
    if !can_mount(test) {
        return;
    }
    let mut swarm = Swarm::of(1);
    let dir = tempfile::tempdir().unwrap();
    mount(&swarm[0], dir.path(), &[]);
    swarm[0].kill();
    fs::remove_file(swarm[0].data.join("mounts")).unwrap();
    assert!(fs::read_dir(dir.path()).is_err());
    swarm[0].start();
    mount(&swarm[0], dir.path(), &[]);
    fs::write(dir.path().join("f"), "works").unwrap();
    assert_eq!(swarm[0].run(&["stop"]).code, 0);
    assert!(names(dir.path()).is_empty(), "an end in order leaves an empty directory");
    swarm[0].kill();
    swarm[0].start();
    until("the mount to be back", || {
        fs::read(dir.path().join("f")).is_ok_and(|bytes| bytes == b"works")
    });
    detach(dir.path());
    until("the list to know that it was ended", || {
        swarm[0].status()["mounts"].as_array().unwrap().is_empty()
    });
}

#[test]
fn a_mount_below_a_linked_directory_comes_again_after_a_crash() {
    let test = "a_mount_below_a_linked_directory_comes_again_after_a_crash";
    if !can_mount(test) {
        return;
    }
    let mut swarm = Swarm::of(1);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("real/mount")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let point = dir.path().join("link/mount");
    mount(&swarm[0], &point, &[]);
    fs::write(point.join("f"), "there").unwrap();
    until("the file to be known", || swarm[0].run(&["stat", "/f"]).code == 0);
    swarm[0].kill();
    swarm[0].start();
    until("the mount to be back", || fs::read(point.join("f")).is_ok());
    let said = swarm[0].run(&["umount", point.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(names(&point).is_empty());
}

#[test]
fn a_user_without_rights_mounts_and_unmounts() {
    let test = "a_user_without_rights_mounts_and_unmounts";
    let Some(mut swarm) = unprivileged(test) else { return };
    let point = swarm.at(0).to_owned();
    let shell = |node: &Daemon, line: &str| {
        let output = program_of(node, &point, &["sh", "-euc", line]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let work = "echo one > f; mkdir d; mv f d/g; ln d/g d/h; cat d/h; chmod 700 d/g
                cp /bin/sh d/sh; d/sh -c 'echo ran'; stat -c %U d/g | grep -qx \"$(id -un)\"";
    assert_eq!(shell(&swarm[0], work), (true, "one\nran\n".to_owned()));
    if swarm[0].user.is_some() {
        let refused = fs::read_dir(&point).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "it is that user's alone");
    }
    // A daemon that comes back finds a dead mount there, and detaches it.
    until("the files to be known", || swarm[0].run(&["stat", "/d/sh"]).code == 0);
    swarm[0].kill();
    assert!(!shell(&swarm[0], "cat d/g").0);
    swarm[0].start();
    let file = point.join("d/g");
    let there = ["cat", file.to_str().unwrap()];
    until("the mount to be back", || {
        let output = program_of(&swarm[0], &swarm[0].work, &there).output().unwrap();
        output.stdout == b"one\n"
    });
    let place = point.to_str().unwrap();
    let mut user = program_of(&swarm[0], &point, &["sleep", "600"]).spawn().unwrap();
    let said = swarm[0].run(&["umount", place]);
    assert_eq!(said.code, 11, "{}", said.err);
    assert!(said.err.contains(&format!("sleep (pid {})", user.id())), "{}", said.err);
    let said = swarm[0].run(&["umount", "--force", place]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(names(&point).is_empty());
    user.kill().unwrap();
    user.wait().unwrap();
    mount(&swarm[0], &point, &[]);
    let said = swarm[0].run(&["umount", place]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(swarm[0].get("/d/g"), b"one\n");
    if swarm[0].user.is_some() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let said = swarm[0].run(&["mount", closed.path().to_str().unwrap()]);
        assert_eq!((said.code, said.err.contains("no write access")), (7, true), "{}", said.err);
    }
}

#[test]
fn a_file_that_is_handed_to_another_user_is_closed_without_an_error() {
    let test = "a_file_that_is_handed_to_another_user_is_closed_without_an_error";
    if !rustix::process::geteuid().is_root() {
        return skipped(test, "only root starts programs of other users");
    }
    let Some(swarm) = mounted(test, 1) else { return };
    let path = swarm.at(0).join("f");
    let file = File::create(&path).unwrap();
    // Written to when it ends, which says whether it could close what it had written.
    let mut echo = Command::new("/bin/echo");
    let echo = echo.arg("handed over").stdout(file).stderr(Stdio::piped()).uid(65534).gid(65534);
    let said = echo.spawn().unwrap().wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(fs::read(&path).unwrap(), b"handed over\n");
    // What it was not handed it cannot reach.
    let mut cat = Command::new("/bin/cat");
    let cat = cat.arg(&path).stderr(Stdio::null()).stdout(Stdio::null()).uid(65534).gid(65534);
    assert!(!cat.status().unwrap().success());
}

#[test]
fn what_was_changed_is_at_the_others_when_an_unmount_returns() {
    let test = "what_was_changed_is_at_the_others_when_an_unmount_returns";
    let Some(swarm) = mounted(test, 3) else { return };
    let bytes = noise(11, (20 << 20) + 3);
    fs::write(swarm.at(0).join("synced"), &bytes[..1000]).unwrap();
    until("the file to be known", || swarm[0].run(&["stat", "/synced"]).code == 0);
    fs::create_dir(swarm.at(0).join("d")).unwrap();
    fs::write(swarm.at(0).join("d/dirty"), &bytes).unwrap();
    fs::rename(swarm.at(0).join("synced"), swarm.at(0).join("d/renamed")).unwrap();
    let said = swarm[0].run(&["umount", swarm.at(0).to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    // From here on the node says nothing any more.
    swarm[0].signal(Signal::STOP);
    let there = |node: usize, name: &str| swarm.at(node).join(name).exists();
    until("one of them to know of it", || there(1, "d/dirty") || there(2, "d/dirty"));
    for node in [1, 2] {
        until("the others to tell each other", || {
            there(node, "d/dirty") && there(node, "d/renamed") && !there(node, "synced")
        });
        assert!(fs::read(swarm.at(node).join("d/dirty")).unwrap() == bytes);
        assert!(fs::read(swarm.at(node).join("d/renamed")).unwrap() == bytes[..1000]);
    }
    swarm[0].signal(Signal::CONT);
}

#[test]
fn mounts_go_with_a_node_that_leaves_an_empty_swarm_for_another() {
    let test = "mounts_go_with_a_node_that_leaves_an_empty_swarm_for_another";
    if !can_mount(test) {
        return;
    }
    let (host, mut own) = (Swarm::of(1), Swarm::of(1));
    let dir = tempfile::tempdir().unwrap();
    mount(&own[0], dir.path(), &[]);
    host[0].put("/theirs", b"theirs", &[]);
    own[0].kill();
    // Started with another swarm's settings, it meets that one and leaves its own.
    own[0].config.clone_from(&host[0].config);
    own[0].flags = vec!["--bootstrap".into(), host[0].address()];
    own[0].start();
    let theirs = || fs::read(dir.path().join("theirs")).is_ok_and(|bytes| bytes == b"theirs");
    until("the mount to show the other swarm", theirs);
    fs::write(dir.path().join("mine"), "mine").unwrap();
    until("what is written there to be known", || host[0].run(&["stat", "/mine"]).code == 0);
    assert_eq!(host[0].get("/mine"), b"mine");
    let said = own[0].run(&["umount", dir.path().to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_swarm_with_only_a_directory_is_not_left() {
    let test = "a_swarm_with_only_a_directory_is_not_left";
    if !can_mount(test) {
        return;
    }
    let (host, mut own) = (Swarm::of(1), Swarm::of(1));
    let dir = tempfile::tempdir().unwrap();
    mount(&own[0], dir.path(), &[]);
    fs::create_dir(dir.path().join("d")).unwrap();
    assert_eq!(own[0].run(&["stop"]).code, 0);
    own[0].kill();
    own[0].flags = vec!["--bootstrap".into(), host[0].address()];
    let said = own[0].starter().output().unwrap();
    assert_eq!(said.status.code(), Some(11), "{}", String::from_utf8_lossy(&said.stderr));
    own[0].flags.clear();
    own[0].start();
    until("the mount to be back", || names(dir.path()) == ["d"]);
    detach(dir.path());
}
