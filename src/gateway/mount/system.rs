//! The system's side of mounts: what is mounted where, who uses it, and how it goes. Owns the
//! reading of `/proc`; everything here may wait for a disk and is called beside the tasks.

use crate::text::{reason, shown_path};
use crate::wire::control::{Code, Failure};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that are named when a mount is in use.
const USERS_MAX: usize = 8;
/// Descriptors of one program that are looked at.
const DESCRIPTORS_MAX: usize = 4096;

/// Detaches a mount of ours at a place if its daemon is gone; whether there was one.
pub(super) fn clean(point: &Path) -> Result<bool, Failure> {
    // What the system remembers of the directory it tells of a dead mount, too; not what is in it.
    let dead = matches!(std::fs::read_dir(point), Err(err) if is_dead(&err));
    if !dead {
        return Ok(false);
    }
    let (name, at) = (shown_path(point), resolved(point));
    if !is_ours(&at) {
        let why = format!("{name} is a mount of another program, and that is gone");
        return Err(Failure::new(Code::Conflict, why).hint(format!("umount --lazy {name}")));
    }
    detach(&at, true).map(|()| true).map_err(|err| {
        let why = reason(&err);
        Failure::new(Code::Failed, format!("a dead mount at {name} cannot be detached: {why}"))
    })
}

/// The directory at a place, on which one can mount: not one with the node's data in it. A dead
/// mount of ours goes.
pub(super) fn directory(given: &Path, data: &Path) -> Result<PathBuf, Failure> {
    if clean(given)? {
        tracing::info!("a dead mount at {} was detached", shown_path(given));
    }
    let point = std::fs::canonicalize(given).map_err(|err| unusable(given, &err))?;
    let name = shown_path(&point);
    if !point.is_dir() {
        return Err(Failure::new(Code::Conflict, format!("{name} is not a directory")));
    }
    let data = std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    if data.starts_with(&point) || point.starts_with(&data) {
        let why = format!("{name} has the node's own data in it, or is in it");
        return Err(Failure::new(Code::Conflict, why));
    }
    Ok(point)
}

/// Makes sure that a mount hides nothing.
pub(super) fn is_empty(point: &Path) -> Result<(), Failure> {
    let mut entries = std::fs::read_dir(point).map_err(|err| unusable(point, &err))?;
    if entries.next().is_none() {
        return Ok(());
    }
    let why = format!("{} is not empty", shown_path(point));
    Err(Failure::new(Code::Conflict, why)
        .hint("what is in it could not be seen: mount on an empty directory"))
}

fn unusable(point: &Path, err: &io::Error) -> Failure {
    let name = shown_path(point);
    match err.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Code::NotFound, format!("there is no directory {name}"))
                .hint(format!("mkdir {name}"))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, format!("the daemon may not use {name}"))
        }
        _ => Failure::new(Code::Failed, format!("{name} cannot be used: {}", reason(err))),
    }
}

/// The place as the system lists it, without links on the way; the system need not be able to look
/// into a dead mount for that.
fn resolved(point: &Path) -> PathBuf {
    let beside = || Some(std::fs::canonicalize(point.parent()?).ok()?.join(point.file_name()?));
    std::fs::canonicalize(point).ok().or_else(beside).unwrap_or_else(|| point.to_owned())
}

fn is_dead(err: &io::Error) -> bool {
    let code = err.raw_os_error();
    [Errno::NOTCONN, Errno::CONNABORTED].iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// Whether a mount of this program is at a place.
fn is_ours(point: &Path) -> bool {
    let Ok(text) = std::fs::read("/proc/self/mountinfo") else { return false };
    let mut all = text.split(|byte| *byte == b'\n').filter_map(mount_of);
    let last = all.rfind(|(at, ..)| at == point);
    last.is_some_and(|(_, kind, source)| {
        kind.starts_with(b"fuse") && (kind.ends_with(b".p2pfs") || source == b"p2pfs")
    })
}

/// Place, kind and source of a mount, from a line of `mountinfo` (proc(5)).
fn mount_of(line: &[u8]) -> Option<(PathBuf, Vec<u8>, Vec<u8>)> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let end = words.iter().position(|word| *word == b"-")?;
    let point = PathBuf::from(OsString::from_vec(unescaped(words.get(4)?)));
    Some((point, words.get(end + 1)?.to_vec(), unescaped(words.get(end + 2)?)))
}

/// What the system has written as `\040` and the like.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *byte == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// Unmounts; `lazily` although it is in use, which then ends with its last user.
pub(super) fn detach(point: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => helped(point, lazily),
        done => Ok(done?),
    }
}

/// Has the helper do it that may.
fn helped(point: &Path, lazily: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(point);
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    Err(io::Error::other(said))
}

/// Programs that use something of the mount at a place: process id and name. What was opened there
/// before it was mounted does not count.
pub(super) fn users_of(point: &Path) -> Vec<(u32, String)> {
    let mut out = Vec::new();
    let Ok(device) = device_of(point) else { return out };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { continue };
        if out.len() < USERS_MAX && uses(&entry.path(), point, device) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            out.push((pid, name.trim_end().to_owned()));
        }
    }
    out
}

fn device_of(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.dev())
}

fn uses(process: &Path, point: &Path, device: u64) -> bool {
    let leads = |link: PathBuf| {
        std::fs::read_link(&link).is_ok_and(|to| to.starts_with(point))
            && device_of(&link).is_ok_and(|at| at == device)
    };
    if ["cwd", "root", "exe"].into_iter().any(|link| leads(process.join(link))) {
        return true;
    }
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    if open.take(DESCRIPTORS_MAX).any(|entry| leads(entry.path())) {
        return true;
    }
    let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines().any(|line| {
        line.find('/').is_some_and(|at| Path::new(line[at..].trim_end()).starts_with(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = b"36 25 0:32 / /mnt/a\\040b rw,noatime shared:9 - fuse.p2pfs p2pfs rw,user_id=0";
        let (point, kind, source) = mount_of(line).unwrap();
        assert_eq!(point, Path::new("/mnt/a b"));
        assert_eq!((&kind[..], &source[..]), (&b"fuse.p2pfs"[..], &b"p2pfs"[..]));
        assert_eq!(unescaped(b"\\134\\04"), b"\\\\04");
    }
}
