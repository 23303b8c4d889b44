//! What a daemon finds when it starts: a port in use, another daemon, a directory that is not
//! writable, newer, damaged or open to others.

use crate::daemon::{Daemon, Swarm, noise};
use crate::said::Said;
use crate::{mounted, not_started, unprivileged};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};

#[test]
fn row_33_a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let swarm = Swarm::empty();
    let mut node = swarm.draft();
    node.flags.extend(["--listen".into(), format!("127.0.0.1:{port}")]);
    not_started(&node, 11, &format!("port {port} is in use"));
    drop(taken);
    node.start();
    assert_eq!(node.run(&["id"]).code, 0);
}

#[test]
fn row_34_a_second_daemon_in_the_same_directory() {
    let swarm = Swarm::of(1);
    let hash = swarm[0].put("/f", b"content", &[]);
    let pid = swarm[0].status()["pid"].clone();
    not_started(&swarm[0], 11, &format!("a daemon is already running as pid {pid} in "));
    assert_eq!(swarm[0].get(&hash), b"content");
}

#[test]
fn row_35_the_socket_of_a_killed_daemon_is_replaced() {
    let mut swarm = Swarm::of(1);
    let hash = swarm[0].put("/f", b"content", &[]);
    swarm[0].kill();
    assert!(swarm[0].data.join("p2pfs.sock").exists());
    let said = swarm[0].run(&["get", &hash, "-o", "out"]);
    crate::refused(&said, 6, "no daemon answers at ");
    assert!(swarm[0].names().is_empty());
    swarm[0].start();
    assert_eq!(swarm[0].get(&hash), b"content");
}

#[test]
fn row_36_a_directory_that_is_not_writable() {
    let swarm = Swarm::empty();
    let mut node = unprivileged(&swarm);
    let closed = node.data.with_file_name("closed");
    std::fs::create_dir(&closed).unwrap();
    node.data = closed.join("data");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    not_started(&node, 7, "permission denied: ");
    // Somebody else's, or a file.
    node.data = "/no-such-directory-of-p2pfs/data".into();
    not_started(&node, 7, "permission denied: /no-such-directory-of-p2pfs/data");
    std::fs::write(node.work.join("file"), b"").unwrap();
    node.data = node.work.join("file");
    not_started(&node, 11, "file is not a directory");
    std::fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn row_36_a_directory_on_a_read_only_file_system() {
    let swarm = Swarm::empty();
    let mut node = swarm.draft();
    let dir = node.work.join("mounted");
    std::fs::create_dir(&dir).unwrap();
    node.data = dir.join("data");
    let Some(mut command) = mounted(&node.starter(), &dir, "ro") else { return };
    let said: Said = command.output().unwrap().into();
    assert!(said.code == 7 && said.out.is_empty(), "{}", said.err);
    assert!(said.err.contains("data is on a read-only file system"), "{}", said.err);
    assert!(!said.err.contains("os error"), "{}", said.err);
}

/// A node with a file, killed.
fn stopped() -> (Swarm, String) {
    let mut swarm = Swarm::of(1);
    let hash = swarm[0].put("/f", &noise(1, 100_000), &[]);
    swarm[0].kill();
    (swarm, hash)
}

fn replace(node: &Daemon, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = node.data.join(file);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, change(bytes)).unwrap();
}

#[test]
fn row_37_a_directory_of_a_newer_version_is_left_alone() {
    let (mut swarm, hash) = stopped();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    replace(&swarm[0], "store.format", |bytes| {
        text(bytes).replacen("store 1", "store 2", 1).into()
    });
    let before = std::fs::read(swarm[0].data.join("segments/00000001.seg")).unwrap();
    not_started(&swarm[0], 12, "the data directory has format 2, this program knows 1");
    assert!(std::fs::read(swarm[0].data.join("segments/00000001.seg")).unwrap() == before);
    replace(&swarm[0], "store.format", |bytes| {
        text(bytes).replacen("store 2", "store 1", 1).into()
    });
    swarm[0].start();
    assert!(swarm[0].get(&hash) == noise(1, 100_000));
}

#[test]
fn row_37_a_directory_that_lost_its_marker_is_not_taken_for_an_empty_one() {
    let (mut swarm, hash) = stopped();
    let marker = swarm[0].data.join("store.format");
    let bytes = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    not_started(&swarm[0], 1, "the data directory has lost its marker file");
    std::fs::write(&marker, b"something else").unwrap();
    not_started(&swarm[0], 1, "marker");
    std::fs::write(&marker, bytes).unwrap();
    swarm[0].start();
    assert!(swarm[0].get(&hash) == noise(1, 100_000));
}

#[test]
fn row_40_a_damaged_table_file_is_made_anew_from_the_segments() {
    let (mut swarm, hash) = stopped();
    let table = swarm[0].data.join("tables/index.redb");
    let whole = std::fs::metadata(&table).unwrap().len();
    let open = || std::fs::File::options().write(true).open(&table).unwrap();
    let checks = |swarm: &mut Swarm, rebuilt: bool, what: &str| {
        let before = swarm[0].log().matches("tables rebuilt").count();
        swarm[0].start();
        assert!(swarm[0].get(&hash) == noise(1, 100_000) && swarm[0].list(&["ls"]).len() == 1);
        let said = swarm[0].log().matches("tables rebuilt").count() - before;
        assert!(said == 1 || !rebuilt, "{what}: {}", swarm[0].log());
        swarm[0].kill();
    };
    open().set_len(whole / 3).unwrap();
    checks(&mut swarm, true, "truncated");
    open().set_len(0).unwrap();
    checks(&mut swarm, true, "empty");
    open().write_all_at(&noise(2, 4096), 0).unwrap();
    checks(&mut swarm, true, "another beginning");
    std::fs::remove_file(&table).unwrap();
    checks(&mut swarm, true, "missing");
    assert!(swarm[0].log().contains("took="), "{}", swarm[0].log());
    // A bit anywhere may not matter; it may never lose a file.
    for seed in 3..8_u64 {
        let at = seed * whole / 9 + 77;
        open().write_all_at(&[noise(seed, 1)[0]; 64], at).unwrap();
        checks(&mut swarm, false, "flipped");
    }
}

#[test]
fn row_41_a_key_that_others_can_read_is_refused() {
    let (mut swarm, hash) = stopped();
    let keys = [swarm[0].data.join("node.key"), swarm[0].config.join("swarm.key")];
    for path in keys {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        not_started(&swarm[0], 1, &format!("{name} can be read by others (mode 0644)"));
        let said: Said = swarm[0].starter().output().unwrap().into();
        assert!(said.err.contains(&format!("chmod 600 {}", path.display())), "{}", said.err);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    swarm[0].start();
    assert!(swarm[0].get(&hash) == noise(1, 100_000));
}

#[test]
fn row_42_a_key_that_is_damaged_is_refused_and_not_replaced() {
    let (mut swarm, hash) = stopped();
    for path in ["node.key", "../config/swarm.key", "../config/owner.key"] {
        let path = swarm[0].data.join(path);
        let bytes = std::fs::read(&path).unwrap();
        for len in [0, 10, 31] {
            std::fs::write(&path, &bytes[..len]).unwrap();
            not_started(&swarm[0], 1, &format!("is damaged (expected 32 bytes, got {len})"));
            assert_eq!(std::fs::read(&path).unwrap().len(), len);
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    swarm[0].start();
    assert!(swarm[0].get(&hash) == noise(1, 100_000));
}

#[test]
fn row_45_a_size_in_any_usual_form_is_accepted() {
    let swarm = Swarm::empty();
    for (text, bytes) in [("10 GB", 10_000_000_000_u64), ("10g", 10 << 30), ("1 TiB", 1 << 40)] {
        let mut node = swarm.draft();
        node.flags.extend(["--capacity".into(), text.into()]);
        node.start();
        assert_eq!(node.status()["capacity"], bytes, "{text}");
        node.kill();
        std::fs::remove_dir(&node.work).unwrap();
    }
}
