//! What applications rely on, each by the name under which other file systems were tried: the
//! results are in the research of the project. Every point runs in a directory of its own, and is
//! looked at again when the changes are known to the swarm.

use crate::daemon::until;
use crate::mounted::{Mounted, mounted, shell};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, SeekFrom, Timespec,
    Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

type Point = fn(&Path);

const POINTS: &[(&str, Point)] = &[
    ("append", append),
    ("pwrite_middle", pwrite_middle),
    ("rename_over_open", rename_over_open),
    ("unlink_open", unlink_open),
    ("write_after_rename", write_after_rename),
    ("mmap_shared_write", mmap_shared_write),
    ("truncate_grow", truncate_grow),
    ("sparse_blocks", sparse_blocks),
    ("hardlink", hardlink),
    ("symlink", symbolic_link),
    ("xattr", xattr),
    ("chmod_exec", chmod_exec),
    ("chown", chown),
    ("utime_ns", utime_ns),
    ("flock_excl", flock_excl),
    ("fcntl_lock", fcntl_lock),
    ("stable_inode", stable_inode),
    ("rename_dir_nonempty_target", rename_dir_nonempty_target),
    ("rename_dir_then_write", rename_dir_then_write),
    ("excl_create", excl_create),
    ("name_255_utf8", name_255_utf8),
    ("name_nonutf8", name_nonutf8),
    ("fifo_socket", fifo_socket),
    ("fallocate", fallocate),
    ("punch_hole", punch_hole),
    ("o_direct", o_direct),
    ("copy_file_range", copy_file_range),
    ("seek_hole", seek_hole),
    ("exchange", exchange),
    ("truncate_and_write", truncate_and_write),
    ("vim_like_save", vim_like_save),
    ("rm_rf_tree", rm_rf_tree),
    ("readdir_while_delete", readdir_while_delete),
    ("tar_roundtrip", tar_roundtrip),
];

#[test]
fn applications_get_what_they_expect() {
    let Some(swarm) = mounted("applications_get_what_they_expect", 1) else { return };
    let top = swarm.dir(0, "probe");
    for (name, point) in POINTS {
        let dir = top.join(name);
        fs::create_dir(&dir).unwrap();
        println!("{name}");
        point(&dir);
    }
    settled(&swarm);
    fs::remove_dir_all(&top).unwrap();
    assert_eq!(fs::read_dir(swarm.at(0)).unwrap().count(), 0, "cleanup leaves nothing");
}

#[test]
fn the_room_of_the_swarm_is_that_of_the_disk() {
    let Some(swarm) = mounted("the_room_of_the_swarm_is_that_of_the_disk", 1) else { return };
    let stat = rustix::fs::statvfs(swarm.at(0)).unwrap();
    assert_eq!((stat.f_bsize, stat.f_frsize, stat.f_namemax), (4096, 4096, 255));
    let capacity = swarm[0].status()["capacity"].as_u64().unwrap();
    let total = stat.f_blocks * stat.f_frsize;
    assert!(total > capacity / 2 && total <= capacity, "{total} of {capacity}");
    assert!(stat.f_bavail > 0 && stat.f_bavail <= stat.f_blocks);
}

/// Waits until everything is known to the swarm.
fn settled(swarm: &Mounted) {
    until("the changes to be written down", || {
        let workers = swarm[0].list(&["status", "--workers"]);
        let commit = workers.iter().find(|worker| worker["name"] == "commit").unwrap();
        commit["state"] == "waiting" && commit["doing"] == ""
    });
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    crate::daemon::names(dir)
}

fn raw<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

fn edit(dir: &Path, name: &str) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(name))
        .unwrap()
}

fn append(dir: &Path) {
    write(dir, "f", b"a");
    let mut file = File::options().append(true).open(dir.join("f")).unwrap();
    file.write_all(b"b").unwrap();
    assert_eq!(read(dir, "f"), b"ab");
}

fn pwrite_middle(dir: &Path) {
    write(dir, "f", &[b'0'; 10_000]);
    edit(dir, "f").write_all_at(b"X", 5_000).unwrap();
    let bytes = read(dir, "f");
    assert_eq!((bytes.len(), bytes[4_999], bytes[5_000], bytes[5_001]), (10_000, 48, b'X', 48));
}

fn rename_over_open(dir: &Path) {
    write(dir, "a", b"old");
    write(dir, "b", b"new");
    let mut open = File::open(dir.join("a")).unwrap();
    fs::rename(dir.join("b"), dir.join("a")).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes, read(dir, "a")), (b"old".to_vec(), b"new".to_vec()));
}

fn unlink_open(dir: &Path) {
    write(dir, "a", b"old");
    let file = edit(dir, "a");
    fs::remove_file(dir.join("a")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all_at(b"more", 3).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"oldmore");
    assert!(names(dir).is_empty());
}

fn write_after_rename(dir: &Path) {
    let mut file = File::create(dir.join("a")).unwrap();
    file.write_all(b"1").unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    file.write_all(b"2").unwrap();
    drop(file);
    assert_eq!((names(dir), read(dir, "b")), (vec!["b".into()], b"12".to_vec()));
}

#[allow(unsafe_code, reason = "memory that is a file cannot be had otherwise")]
fn mmap_shared_write(dir: &Path) {
    const LEN: usize = (2 << 20) + 4096;
    let file = edit(dir, "f");
    file.set_len(LEN as u64).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: the system chooses where, and nothing else knows of the place.
    let start =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), LEN, access, kind, &file, 0) }.unwrap();
    // SAFETY: so many bytes are mapped there until the end of this function.
    let memory = unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>(), LEN) };
    assert_eq!(&memory[..5], b"head\0");
    memory[1..3].copy_from_slice(b"XX");
    memory[LEN - 3..].copy_from_slice(b"end");
    // SAFETY: it is mapped, see above; the slice is not used afterwards.
    unsafe {
        rustix::mm::msync(start, LEN, MsyncFlags::SYNC).unwrap();
        rustix::mm::munmap(start, LEN).unwrap();
    }
    drop(file);
    let bytes = read(dir, "f");
    assert_eq!((bytes.len(), &bytes[..5], &bytes[LEN - 4..]), (LEN, &b"hXXd\0"[..], &b"\0end"[..]));
    let hash = blake3::hash(&bytes).to_string();
    until("the version to have what was written", || {
        get_xattr(&dir.join("f"), "user.p2pfs.hash").is_ok_and(|now| now == hash.as_bytes())
    });
}

fn truncate_grow(dir: &Path) {
    write(dir, "f", b"abc");
    let file = edit(dir, "f");
    for len in [5_000, 2, (3 << 20) + 5, 1 << 20, (1 << 20) - 1, 7 << 20] {
        file.set_len(len).unwrap();
        let bytes = read(dir, "f");
        assert_eq!((bytes.len() as u64, &bytes[..2]), (len, &b"ab"[..]));
        assert!(bytes.iter().skip(3).all(|byte| *byte == 0), "{len}");
    }
}

fn sparse_blocks(dir: &Path) {
    let file = File::create(dir.join("f")).unwrap();
    file.write_all_at(b"x", 50 << 20).unwrap();
    let stat = file.metadata().unwrap();
    assert_eq!(stat.len(), (50 << 20) + 1);
    assert!(stat.blocks() * 512 < 8 << 20, "{} blocks", stat.blocks());
}

fn hardlink(dir: &Path) {
    let links = || fs::metadata(dir).unwrap().nlink();
    assert_eq!(links(), 2);
    fs::create_dir(dir.join("d")).unwrap();
    assert_eq!(links(), 3, "of a directory the directories in it count");
    write(dir, "a", b"1");
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    let of = |name: &str| fs::metadata(dir.join(name)).unwrap();
    assert_eq!((of("a").ino(), of("a").nlink()), (of("b").ino(), 2));
    write(dir, "b", b"22");
    assert_eq!(read(dir, "a"), b"22");
    fs::remove_file(dir.join("a")).unwrap();
    assert_eq!((of("b").nlink(), read(dir, "b")), (1, b"22".to_vec()));
    for number in 1..1000 {
        fs::hard_link(dir.join("b"), dir.join(number.to_string())).unwrap();
    }
    assert_eq!(raw(fs::hard_link(dir.join("b"), dir.join("one more"))), Errno::MLINK);
}

fn symbolic_link(dir: &Path) {
    symlink("x/y", dir.join("l")).unwrap();
    assert_eq!(fs::read_link(dir.join("l")).unwrap(), Path::new("x/y"));
    assert_eq!(fs::symlink_metadata(dir.join("l")).unwrap().len(), 3);
}

fn get_xattr(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 256];
    let len = rustix::fs::getxattr(path, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

fn xattr(dir: &Path) {
    write(dir, "f", b"content");
    let path = dir.join("f");
    for (name, value) in [("user.b", b"2"), ("user.a", b"1")] {
        rustix::fs::setxattr(&path, name, value, XattrFlags::CREATE).unwrap();
    }
    let again = rustix::fs::setxattr(&path, "user.a", b"3", XattrFlags::CREATE);
    assert_eq!(again, Err(Errno::EXIST));
    assert_eq!(get_xattr(&path, "user.a").unwrap(), b"1");
    assert_eq!(get_xattr(&path, "user.none"), Err(Errno::NODATA));
    rustix::fs::removexattr(&path, "user.a").unwrap();
    let mut list = vec![0; 256];
    let len = rustix::fs::listxattr(&path, &mut list).unwrap();
    assert_eq!(&list[..len], b"user.b\0", "what the node answers itself is not listed");
    until("the version to be made", || get_xattr(&path, "user.p2pfs.hash").is_ok());
    let hash = blake3::hash(b"content").to_string();
    assert_eq!(get_xattr(&path, "user.p2pfs.hash").unwrap(), hash.as_bytes());
    assert_eq!(get_xattr(&path, "user.p2pfs.copies").unwrap(), b"1");
    assert!(!get_xattr(&path, "user.p2pfs.peers").unwrap().is_empty());
    let own = rustix::fs::setxattr(&path, "user.p2pfs.hash", b"3", XattrFlags::empty());
    assert_eq!(own, Err(Errno::PERM));
    let unknown = rustix::fs::setxattr(&path, "strange.a", b"3", XattrFlags::empty());
    assert_eq!(unknown, Err(Errno::OPNOTSUPP));
}

fn chmod_exec(dir: &Path) {
    write(dir, "s", b"#!/bin/sh\necho hi\n");
    fs::set_permissions(dir.join("s"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(shell(dir, "./s"), "hi\n");
}

fn chown(dir: &Path) {
    write(dir, "f", b"");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.join("f"), Some(1000), Some(1001)).unwrap();
        let stat = fs::metadata(dir.join("f")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1000, 1001));
    }
}

fn utime_ns(dir: &Path) {
    write(dir, "f", b"");
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(1_234_567_890, 123_456_789),
        last_modification: time(987_654_321, 987_654_321),
    };
    rustix::fs::utimensat(CWD, dir.join("f"), &times, AtFlags::empty()).unwrap();
    let keep = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(987_654_321, 987_654_321),
    };
    rustix::fs::utimensat(CWD, dir.join("f"), &keep, AtFlags::empty()).unwrap();
    let stat = fs::metadata(dir.join("f")).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (987_654_321, 987_654_321));
    assert_eq!((stat.atime(), stat.atime_nsec()), (1_234_567_890, 123_456_789));
}

fn flock_excl(dir: &Path) {
    write(dir, "f", b"");
    let (one, two) = (edit(dir, "f"), edit(dir, "f"));
    rustix::fs::flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(Errno::WOULDBLOCK));
    drop(one);
    rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn fcntl_lock(dir: &Path) {
    write(dir, "f", b"");
    let other = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "probe::another_process_locks"]);
        let done = command.env(LOCK, dir.join("f")).output().unwrap();
        assert!(done.status.success());
        fs::read_to_string(dir.join("f.said")).unwrap()
    };
    let file = edit(dir, "f");
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(other(), "refused");
    rustix::fs::fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(other(), "locked");
}

/// Tells the other process what to lock; it writes beside that what came of it.
const LOCK: &str = "P2PFS_TEST_LOCK";

/// Locks of this kind are between processes: `fcntl_lock` runs this one as another one.
#[test]
#[ignore = "it is the other process of `fcntl_lock`"]
fn another_process_locks() {
    let Some(path) = std::env::var_os(LOCK) else { return };
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let said = match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => "locked",
        Err(Errno::AGAIN | Errno::ACCESS) => "refused",
        Err(err) => panic!("{err}"),
    };
    fs::write(Path::new(&path).with_extension("said"), said).unwrap();
}

fn stable_inode(dir: &Path) {
    let ino = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    write(dir, "f", b"1");
    let first = ino("f");
    until("the version to be made", || get_xattr(&dir.join("f"), "user.p2pfs.hash").is_ok());
    write(dir, "f", b"22");
    assert_eq!(ino("f"), first);
    fs::rename(dir.join("f"), dir.join("g")).unwrap();
    assert_eq!(ino("g"), first);
}

fn rename_dir_nonempty_target(dir: &Path) {
    fs::create_dir(dir.join("a")).unwrap();
    fs::create_dir(dir.join("b")).unwrap();
    write(dir, "b/x", b"");
    assert_eq!(raw(fs::rename(dir.join("a"), dir.join("b"))), Errno::NOTEMPTY);
    fs::remove_file(dir.join("b/x")).unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    assert_eq!(raw(fs::rename(dir.join("b"), dir.join("b/c"))), Errno::INVAL);
    assert_eq!(names(dir), ["b"]);
}

fn rename_dir_then_write(dir: &Path) {
    fs::create_dir(dir.join("a")).unwrap();
    let mut file = File::create(dir.join("a/f")).unwrap();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    file.write_all(b"1").unwrap();
    drop(file);
    assert_eq!(read(dir, "b/f"), b"1");
}

fn excl_create(dir: &Path) {
    File::create_new(dir.join("f")).unwrap();
    assert_eq!(File::create_new(dir.join("f")).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

fn name_255_utf8(dir: &Path) {
    let name = "é".repeat(127) + "x";
    write(dir, &name, b"");
    assert_eq!(names(dir), [name]);
    assert_eq!(raw(File::create(dir.join("a".repeat(256)))), Errno::NAMETOOLONG);
}

fn name_nonutf8(dir: &Path) {
    let name = OsStr::from_bytes(b"\xff\xfe");
    File::create(dir.join(name)).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().next().unwrap().unwrap().file_name(), name);
}

fn fifo_socket(dir: &Path) {
    shell(dir, "mkfifo p; (echo hi > p) & cat < p | grep -q hi; wait");
    assert!(fs::metadata(dir.join("p")).unwrap().file_type().is_fifo());
    let listener = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    assert!(fs::metadata(dir.join("s")).unwrap().file_type().is_socket());
    std::os::unix::net::UnixStream::connect(dir.join("s")).unwrap();
    drop(listener);
}

fn fallocate(dir: &Path) {
    let file = edit(dir, "f");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 100_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    file.write_all_at(b"later", 99_990).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 200_000).unwrap();
    // What is there stays, whatever is asked for.
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 50_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 100_000, 3 << 20).unwrap();
    file.write_all_at(b"more", (2 << 20) - 2).unwrap();
    let bytes = read(dir, "f");
    assert_eq!(bytes.len(), 100_000 + (3 << 20));
    let written = |at: usize| match at {
        99_990..99_995 => b"later"[at - 99_990],
        0x1f_fffe..0x20_0002 => b"more"[at - 0x1f_fffe],
        _ => 0,
    };
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == written(at)));
    let collapse = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(collapse, Err(Errno::OPNOTSUPP));
}

fn punch_hole(dir: &Path) {
    write(dir, "f", &[b'z'; 300_000]);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let file = edit(dir, "f");
    rustix::fs::fallocate(&file, flags, 4096, 8192).unwrap();
    // Behind the end there is nothing to punch, and the file does not get longer.
    rustix::fs::fallocate(&file, flags, 299_000, 100_000).unwrap();
    let zero = |at: usize| (4096..12_288).contains(&at) || at >= 299_000;
    let holes = || {
        let bytes = read(dir, "f");
        bytes.len() == 300_000
            && bytes.iter().enumerate().all(|(at, byte)| (*byte == 0) == zero(at))
    };
    assert!(holes());
    // Also of what was stored, whole chunks among it.
    write(dir, "g", &[b'z'; 4 << 20]);
    until("the version to be made", || get_xattr(&dir.join("g"), "user.p2pfs.hash").is_ok());
    let stored = edit(dir, "g");
    rustix::fs::fallocate(&stored, flags, 1000, 3 << 20).unwrap();
    let bytes = read(dir, "g");
    let zero = |at: usize| (1000..1000 + (3 << 20)).contains(&at);
    assert_eq!(bytes.len(), 4 << 20);
    assert!(bytes.iter().enumerate().all(|(at, byte)| (*byte == 0) == zero(at)));
    assert!(holes());
}

fn o_direct(dir: &Path) {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT;
    let path = CString::new(dir.join("f").as_os_str().as_bytes()).unwrap();
    let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)).unwrap();
    let file = File::from(fd);
    file.write_all_at(&[b'd'; 8192], 0).unwrap();
    let mut bytes = [0; 8192];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [b'd'; 8192]);
}

fn copy_file_range(dir: &Path) {
    write(dir, "a", &[b'q'; 100_000]);
    fs::copy(dir.join("a"), dir.join("b")).unwrap();
    assert_eq!(read(dir, "b"), [b'q'; 100_000]);
}

fn seek_hole(dir: &Path) {
    let file = edit(dir, "f");
    file.write_all_at(&[b'x'; 4096], 10 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(10 << 20));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)), Ok(0));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(10 << 20)), Ok((10 << 20) + 4096));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(11 << 20)), Err(Errno::NXIO));
}

fn exchange(dir: &Path) {
    write(dir, "a", b"1");
    write(dir, "b", b"2");
    let both = |flags| rustix::fs::renameat_with(CWD, dir.join("a"), CWD, dir.join("b"), flags);
    both(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((read(dir, "a"), read(dir, "b")), (b"2".to_vec(), b"1".to_vec()));
    assert_eq!(both(RenameFlags::NOREPLACE), Err(Errno::EXIST));
}

/// A file is changed while its version is made, at every moment of that.
fn truncate_and_write(dir: &Path) {
    for pause in 0..40 {
        let name = format!("f{pause}");
        write(dir, &name, &[1; 2000]);
        std::thread::sleep(std::time::Duration::from_millis(pause));
        write(dir, &name, b"changed");
    }
    until("the versions to be made", || {
        (0..40).all(|n| get_xattr(&dir.join(format!("f{n}")), "user.p2pfs.hash").is_ok())
    });
    let hash = blake3::hash(b"changed").to_string();
    for number in 0..40 {
        let path = dir.join(format!("f{number}"));
        assert_eq!(fs::read(&path).unwrap(), b"changed", "{number}");
        assert_eq!(get_xattr(&path, "user.p2pfs.hash").unwrap(), hash.as_bytes(), "{number}");
    }
}

fn vim_like_save(dir: &Path) {
    write(dir, "f", b"one");
    for text in [&b"two"[..], b"three"] {
        fs::rename(dir.join("f"), dir.join("f~")).unwrap();
        write(dir, "f", text);
        fs::remove_file(dir.join("f~")).unwrap();
        assert_eq!((names(dir), read(dir, "f")), (vec!["f".into()], text.to_vec()));
    }
}

fn rm_rf_tree(dir: &Path) {
    for outer in 0..10 {
        let inner = dir.join(format!("t/{outer}/x"));
        fs::create_dir_all(&inner).unwrap();
        (0..10).for_each(|file| write(&inner, &file.to_string(), b"x"));
    }
    fs::remove_dir_all(dir.join("t")).unwrap();
    assert!(names(dir).is_empty());
}

fn readdir_while_delete(dir: &Path) {
    (0..500).for_each(|file| write(dir, &format!("f{file}"), b""));
    let mut removed = 0;
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        removed += 1;
    }
    assert_eq!((removed, names(dir).len()), (500, 0));
}

fn tar_roundtrip(dir: &Path) {
    shell(
        dir,
        "mkdir s s/d; echo one > s/a; echo two > s/d/b; ln -s nowhere s/l; chmod 600 s/a
         touch -d '2001-02-03 04:05:06.789' s/a s/d; tar cf t.tar s; mkdir o; tar xf t.tar -C o
         diff -r --no-dereference s o/s
         test \"$(stat -c '%a %Y' s/a s/d)\" = \"$(stat -c '%a %Y' o/s/a o/s/d)\"",
    );
}
