//! Opens the file that a `put` stores, and says in a sentence why it cannot be stored.

use super::landing::refused;
use crate::text::shown_path;
use crate::wire::control::{Code, Failure, Put};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Opens a regular file for reading and fills in what is known about it.
pub(super) fn open(path: &Path, put: Put) -> Result<(OwnedFd, Put), Failure> {
    let name = shown_path(path);
    let fail = |err: rustix::io::Errno| match err {
        rustix::io::Errno::NOENT => {
            Failure::new(Code::NotFound, format!("no such file: {name}")).hint("what is here:  ls")
        }
        err => refused("cannot read", path, err),
    };
    // Looked at before it is opened: opening a pipe waits, and opening a device may do anything.
    regular(path, rustix::fs::stat(path).map_err(fail)?.st_mode)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?;
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    regular(path, stat.st_mode)?;
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    let known = Put {
        // Files of /proc have bytes and say that they have none.
        len: (len > 0).then_some(len),
        mode: Some(stat.st_mode & 0o7777),
        mtime_ns: mtime_ns(&stat),
        ..put
    };
    Ok((fd, known))
}

/// When a file was modified: nanoseconds since 1970, where that can be said.
pub(super) fn mtime_ns(stat: &Stat) -> Option<i64> {
    let nanos = stat.st_mtime.checked_mul(1_000_000_000)?;
    nanos.checked_add(i64::try_from(stat.st_mtime_nsec).ok()?)
}

fn regular(path: &Path, mode: u32) -> Result<(), Failure> {
    let name = shown_path(path);
    let what = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => {
            return Err(Failure::new(Code::Usage, format!("{name} is a directory"))
                .hint(format!("with everything in it:  p2pfs put -r {name}")));
        }
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink | FileType::Unknown => "something else",
    };
    Err(Failure::new(Code::Usage, format!("{name} is not a regular file but {what}"))
        .hint(format!("to store what comes out of it:  p2pfs put - < {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_source_has_its_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for (path, code, sentence) in [
            (dir.path().join("none"), Code::NotFound, "no such file"),
            (dir.path().to_owned(), Code::Usage, "is a directory"),
            (fifo, Code::Usage, "is not a regular file but a pipe"),
            ("/dev/null".into(), Code::Usage, "is not a regular file but a device"),
        ] {
            let failure = open(&path, Put::default()).unwrap_err();
            assert_eq!(failure.code, code);
            assert!(failure.message.contains(sentence), "{failure}");
        }
    }

    #[test]
    fn a_file_is_described() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let (_, put) = open(file.path(), Put::default()).unwrap();
        assert_eq!((put.len, put.mode), (Some(3), Some(0o600)));
        assert!(put.mtime_ns.unwrap() > 1_600_000_000_000_000_000);
    }
}
