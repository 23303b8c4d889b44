//! How a mount begins: the device is opened and attached to a directory, by mount(2) with root's
//! rights, otherwise by the helper `fusermount3`. The library that serves the device could do so,
//! too, but when its session ends it would unmount whatever is mounted there then, be it another
//! mount. What is attached here is detached by `system::detach` and by nothing else.

use super::system;
use crate::text::shown_path;
use crate::wire::control::Mount;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DEVICE: &str = "/dev/fuse";
/// What the system lists as the source of a mount.
const NAME: &str = "p2pfs";
/// How the helper is told the number of the descriptor to answer through.
const ANSWER: &str = "_FUSE_COMMFD";

/// A mount that has just begun; given up, it is detached again.
pub(super) struct Attached(Option<PathBuf>);

impl Attached {
    /// It stays.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(point) = &self.0
            && let Err(err) = system::detach(point, true)
        {
            tracing::warn!(%err, "{} is not unmounted", shown_path(point));
        }
    }
}

/// Attaches a device to a directory.
pub(super) fn attach(point: &Path, mount: &Mount) -> io::Result<(Attached, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open(DEVICE, flags, Mode::empty())?;
    let device = match with_rights(point, mount, &device) {
        Err(Errno::PERM) => helped(point, mount)?,
        done => done.map(|()| device)?,
    };
    Ok((Attached(Some(point.to_owned())), device))
}

fn with_rights(point: &Path, mount: &Mount, device: &OwnedFd) -> rustix::io::Result<()> {
    let root = rustix::fs::stat(point)?;
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let mut options = format!(
        "fd={},rootmode={:o},user_id={user},group_id={group},default_permissions",
        device.as_raw_fd(),
        root.st_mode
    );
    if mount.allow_other {
        options += ",allow_other";
    }
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, mount.read_only);
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(NAME, point, "fuse", flags, options.as_c_str())
}

/// Has the helper do it that may; it answers with its own device.
fn helped(point: &Path, mount: &Mount) -> io::Result<OwnedFd> {
    let (ours, its) = UnixStream::pair()?;
    let access = if mount.read_only { "ro" } else { "rw" };
    let mut options = format!("fsname={NAME},subtype={NAME},default_permissions,noatime,{access}");
    if mount.allow_other {
        options += ",allow_other";
    }
    let mut command = Command::new("fusermount3");
    command.args(["-o", &options, "--"]).arg(point).env(ANSWER, "0");
    // The helper's end is its input, so that no other program inherits it.
    let input = Stdio::from(OwnedFd::from(its));
    let helper = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    drop(command);
    let device = received(&ours);
    let output = helper.wait_with_output()?;
    if let Some(device) = device? {
        return Ok(device);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(match said.contains("user_allow_other") {
        true => io::Error::new(io::ErrorKind::PermissionDenied, said),
        false => io::Error::other(said),
    })
}

/// The descriptor that comes through a socket; none: it ends without one.
fn received(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let into = &mut [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    }))
}
