//! What is put: what may not be read, what changes meanwhile, names of every kind.

use crate::daemon::{Daemon, Swarm, noise, until};
use crate::said::Said;
use crate::{refused, unprivileged};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

#[test]
fn row_17_a_file_that_one_may_not_read() {
    let mut swarm = Swarm::empty();
    let mut node = unprivileged(&swarm);
    node.start();
    let number = swarm.add(node);
    let path = swarm[number].work.join("secret");
    std::fs::write(&path, b"x").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    refused(&swarm[number].run(&["put", "secret"]), 7, "permission denied: secret");
    assert!(swarm[number].list(&["ls"]).is_empty());
}

#[test]
fn a_directory_of_which_not_all_may_be_read() {
    let mut swarm = Swarm::empty();
    let mut node = unprivileged(&swarm);
    node.start();
    let number = swarm.add(node);
    let node = &swarm[number];
    let dir = node.work.join("d");
    std::fs::create_dir_all(dir.join("locked")).unwrap();
    std::fs::write(dir.join("secret"), b"x").unwrap();
    std::fs::write(dir.join("fine"), b"fine").unwrap();
    let mode = |name, bits| {
        std::fs::set_permissions(dir.join(name), Permissions::from_mode(bits)).unwrap();
    };
    mode("secret", 0o000);
    mode("locked", 0o000);
    let said = node.run(&["put", "-r", "d"]);
    mode("locked", 0o700);
    assert_eq!(said.code, 4, "{}", said.err);
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines[0], "not stored: /d/locked: it cannot be read: permission denied");
    assert_eq!(lines[1], "not stored: /d/secret: it cannot be read: permission denied");
    assert!(lines[2].starts_with("stored d as /d: 1 file, 4 B, "), "{}", said.err);
    assert!(lines.contains(&"error: 2 items were not stored"), "{}", said.err);
    assert_eq!(node.get("/d/fine"), b"fine");
}

#[test]
fn row_18_an_empty_file_is_a_file() {
    let swarm = Swarm::of(1);
    let hash = swarm[0].put("/empty", b"", &[]);
    assert_eq!(hash, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    assert_eq!(swarm[0].run(&["get", "/empty"]).code, 0);
    assert_eq!(std::fs::read(swarm[0].work.join("empty")).unwrap(), b"");
    assert_eq!(swarm[0].list(&["stat", "/empty"])[0]["size"], 0);
}

/// Whether a process has an open descriptor of a file.
fn has_open(pid: u32, path: &Path) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    fds.filter_map(|fd| fd.ok()?.path().read_link().ok()).any(|link| link == path)
}

/// How many ends of the daemon's socket there are: the listening one, and one per connection.
fn socket_ends(node: &Daemon) -> usize {
    let all = std::fs::read_to_string("/proc/net/unix").unwrap();
    let socket = node.data.join("p2pfs.sock");
    all.lines().filter(|line| line.ends_with(socket.to_str().unwrap())).count()
}

/// Puts a file that is changed after its length was told and before a byte of it was read.
fn put_while(node: &Daemon, change: impl FnOnce(&Path)) -> Said {
    let source = node.work.join("source");
    std::fs::write(&source, noise(1, 5 << 20)).unwrap();
    node.signal(Signal::STOP);
    let mut put = node.command(&["put", "source"]);
    let child = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It opens the file before it dials, and lets go of it when the descriptor has been passed on.
    until("the file to be handed over", || socket_ends(node) > 1 && !has_open(child.id(), &source));
    change(&source);
    node.signal(Signal::CONT);
    let said = child.wait_with_output().unwrap().into();
    std::fs::remove_file(&source).unwrap();
    said
}

#[test]
fn row_20_a_file_that_changes_while_it_is_read() {
    let swarm = Swarm::of(1);
    let append = |path: &Path| {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let truncate = |path: &Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(3 << 20).unwrap();
    };
    for said in [put_while(&swarm[0], append), put_while(&swarm[0], truncate)] {
        refused(&said, 11, "the file changed while it was being read; nothing was stored");
        assert_eq!(said.out, "");
    }
    assert!(swarm[0].list(&["ls"]).is_empty());
    let said = put_while(&swarm[0], |_| {});
    assert_eq!(said.out, format!("{}\n", blake3::hash(&noise(1, 5 << 20))));
}

/// Stores a file under this name, removes it, and gets it back under the same name.
fn there_and_back(node: &Daemon, name: &[u8]) {
    let path = node.work.join(OsStr::from_bytes(name));
    std::fs::write(&path, b"content").unwrap();
    let said = node.run(&[OsStr::new("put"), OsStr::new("--"), OsStr::from_bytes(name)]);
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = p2pfs::text::shown_bytes(name);
    assert!(said.err.starts_with(&format!("stored {shown} as /{shown}: ")), "{}", said.err);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.run(&["get", said.out.trim()]).code, 0);
    let target = [b"/", name].concat();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    std::fs::remove_file(&path).unwrap();
    let said = node.run(&[OsStr::new("get"), OsStr::from_bytes(&target)]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with(&format!("{shown}: ")), "{}", said.err);
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
}

#[test]
fn row_22_a_name_that_is_not_text_is_kept_byte_for_byte() {
    let swarm = Swarm::of(2);
    there_and_back(&swarm[0], b"caf\xe9 \xff\xfe.txt");
    let listed = swarm[1].run(&["ls"]).out;
    assert!(listed.contains("/caf\\xe9 \\xff\\xfe.txt\n"), "{listed}");
    let file = swarm[1].list(&["ls"]).remove(0);
    assert_eq!(file["path"]["hex"], "2f636166e920fffe2e747874");
}

#[test]
fn row_23_a_name_with_control_characters_is_shown_escaped() {
    let swarm = Swarm::of(2);
    there_and_back(&swarm[0], "a\nb\x1b[31m\u{202e}\r".as_bytes());
    for args in [&["ls"][..], &["ls", "-l"], &["stat", "/a\nb\x1b[31m\u{202e}\r"], &["status"]] {
        let said = swarm[1].run(args);
        let text = said.out + &said.err;
        let wild = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(wild) && !text.contains("a\nb"), "{text:?}");
    }
    assert!(swarm[1].run(&["ls"]).out.contains("/a\\u{a}b\\u{1b}[31m\\u{202e}\\u{d}\n"));
    let said = swarm[1].run(&["get", "/no\x1b[2Jsuch\n", "-o", "out"]);
    refused(&said, 3, "/no\\u{1b}[2Jsuch\\u{a} is not found");
}

#[test]
fn row_24_the_longest_names_work_and_longer_ones_are_refused() {
    let swarm = Swarm::of(1);
    there_and_back(&swarm[0], &[b'n'; 255]);
    let long = format!("/{}", "p".repeat(255)).repeat(16);
    assert_eq!(long.len(), 4096);
    let hash = swarm[0].put(&long, b"deep", &[]);
    assert_eq!(swarm[0].get(&long), b"deep");
    assert!(swarm[0].run(&["ls", "-R"]).out.contains(&long));
    std::fs::write(swarm[0].work.join("f"), b"x").unwrap();
    let name = "n".repeat(256);
    refused(&swarm[0].run(&["put", "f", "--as", &name]), 2, "256 bytes, 255 are possible");
    let longer = format!("{}/x/{}", &long[..4096 - 256], "p".repeat(254));
    assert_eq!(longer.len(), 4097);
    refused(&swarm[0].run(&["put", "f", "--as", &longer]), 2, "4096");
    refused(&swarm[0].run(&["get", &longer, "-o", "out"]), 2, "4096");
    assert_eq!(swarm[0].get(&hash), b"deep");
}
