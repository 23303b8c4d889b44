//! Attributes and errors as the system wants them. Translates and decides nothing.

use crate::node::{GetError, Kind, PublishError, PutError, Stat, TreeError, WorkError, WriteError};
use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The unit in which the system counts what a file takes.
const BLOCK: u64 = 512;

/// What kind of file something is.
pub(super) const fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Link => FileType::Symlink,
        Kind::Pipe => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char(_) => FileType::CharDevice,
        Kind::Block(_) => FileType::BlockDevice,
    }
}

/// What programs see; `mine` owns what nobody else does.
pub(super) fn attr(stat: &Stat, number: u64, mine: (u32, u32)) -> FileAttr {
    let (uid, gid) = stat.owner.unwrap_or(mine);
    let rdev = match stat.kind {
        Kind::Char(device) | Kind::Block(device) => device,
        _ => 0,
    };
    FileAttr {
        ino: INodeNo(number),
        size: stat.size,
        blocks: stat.used.div_ceil(BLOCK),
        atime: time(stat.accessed_ns),
        mtime: time(stat.modified_ns),
        ctime: time(stat.changed_ns),
        crtime: UNIX_EPOCH,
        kind: kind(stat.kind),
        perm: (stat.mode & 0o7777) as u16,
        nlink: stat.links,
        uid,
        gid,
        rdev,
        blksize: 4096,
        flags: 0,
    }
}

fn time(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
    time.unwrap_or(UNIX_EPOCH)
}

/// A time that a program says; none: now.
pub(super) fn nanos(time: TimeOrNow) -> Option<i64> {
    let TimeOrNow::SpecificTime(time) = time else { return None };
    let limited = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    Some(match time.duration_since(UNIX_EPOCH) {
        Ok(span) => limited(span),
        Err(before) => -limited(before.duration()),
    })
}

/// What a program is told of an error.
pub(super) fn errno(err: &WorkError) -> Errno {
    match err {
        WorkError::Tree(err) => of_tree(err),
        WorkError::Get(
            GetError::NotFound { .. } | GetError::Unavailable(_) | GetError::NotFrom(_),
        ) => Errno::EHOSTUNREACH,
        WorkError::Get(GetError::NotReady(_)) | WorkError::NotReady(_) => Errno::EAGAIN,
        WorkError::Get(GetError::Write(err) | GetError::Store(err)) | WorkError::Disk(err) => {
            of_io(err)
        }
        WorkError::Get(GetError::Corrupt(_)) => Errno::EIO,
        WorkError::Put(PutError::NoSpace(_)) | WorkError::NoSpace => Errno::ENOSPC,
        WorkError::Put(PutError::TooFewCopies { .. }) => Errno::EHOSTUNREACH,
        WorkError::Put(_) => Errno::EIO,
        WorkError::Publish(PublishError::Write(WriteError::NoCapacity | WriteError::DiskFull)) => {
            Errno::ENOSPC
        }
        WorkError::Publish(PublishError::NoGrant) => Errno::EACCES,
        WorkError::Publish(PublishError::TooLarge) | WorkError::TooLarge => Errno::EFBIG,
        WorkError::Publish(PublishError::TooFew { .. }) => Errno::EHOSTUNREACH,
        WorkError::Publish(_) => Errno::EIO,
        WorkError::NameTooLong => Errno::ENAMETOOLONG,
        WorkError::NoAttribute => Errno::ENODATA,
        WorkError::WrongKind => Errno::EINVAL,
        WorkError::TimedOut => Errno::ETIMEDOUT,
        WorkError::Unlisted => Errno::EIO,
    }
}

fn of_tree(err: &TreeError) -> Errno {
    match err {
        TreeError::NotFound
        | TreeError::NoDirectory
        | TreeError::NoConflict
        | TreeError::NoSuchCopy => Errno::ENOENT,
        TreeError::Exists => Errno::EEXIST,
        TreeError::NotEmpty => Errno::ENOTEMPTY,
        TreeError::NotADirectory(_) => Errno::ENOTDIR,
        TreeError::IsADirectory => Errno::EISDIR,
        TreeError::TooManyLinks => Errno::EMLINK,
        TreeError::InsideItself | TreeError::BadPath => Errno::EINVAL,
        TreeError::IsALink => Errno::ELOOP,
        TreeError::IsSpecial => Errno::ENXIO,
        TreeError::ConflictCopy | TreeError::ConflictOfDirs | TreeError::FormerVersion => {
            Errno::EPERM
        }
        TreeError::NoKeys => Errno::EAGAIN,
        TreeError::Io(err) => of_io(err),
    }
}

fn of_io(err: &io::Error) -> Errno {
    match (err.raw_os_error(), err.kind()) {
        // Not the program has too many files open, but this node.
        (Some(libc::EMFILE | libc::ENFILE), _) => Errno::ENFILE,
        (_, io::ErrorKind::QuotaExceeded) => Errno::EDQUOT,
        (_, io::ErrorKind::StorageFull) => Errno::ENOSPC,
        (_, io::ErrorKind::FileTooLarge) => Errno::EFBIG,
        (_, io::ErrorKind::TimedOut) => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_lacks_is_said_by_its_own_number() {
        for (code, wanted) in [
            (libc::ENOSPC, Errno::ENOSPC),
            (libc::EDQUOT, Errno::EDQUOT),
            (libc::EMFILE, Errno::ENFILE),
            (libc::ENFILE, Errno::ENFILE),
            (libc::EFBIG, Errno::EFBIG),
            (libc::EACCES, Errno::EIO),
        ] {
            let err = WorkError::Disk(io::Error::from_raw_os_error(code));
            assert_eq!(errno(&err).code(), wanted.code());
        }
        let err = WorkError::Tree(TreeError::TooManyLinks);
        assert_eq!(errno(&err).code(), libc::EMLINK);
    }
}
