//! A file system of its own for a test, in a file, and pulling its plug. Owns the mount and the
//! file; both go with it. The plug is what file systems have for their own tests: `ioctl` with
//! `EXT4_IOC_SHUTDOWN` (XFS has the same number) stops everything at once, and what was neither
//! synced nor written back is gone when the file system is mounted again.

use crate::machine::run;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// Not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

/// A mounted file system.
pub(crate) struct Disk {
    image: PathBuf,
    place: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    /// Makes one of this kind, `ext4` or `xfs`, and size.
    pub(crate) fn new(kind: &str, bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&place).unwrap();
        File::create(&image).unwrap().set_len(bytes).unwrap();
        run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        let disk = Self { image, place, _dir: dir };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    fn mount(&self) {
        let (image, place) = (self.image.to_str().unwrap(), self.place.to_str().unwrap());
        // Shared, so that it goes from the mounts of others, too, when it goes from here.
        run("mount", &["--make-shared", "-o", "loop", image, place]);
    }

    /// Cuts the power.
    #[allow(unsafe_code)]
    pub(crate) fn cut(&self) {
        let root = File::open(&self.place).unwrap();
        let how = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the call reads the four bytes behind the pointer.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Mounts it again, when nobody uses it any more.
    pub(crate) fn again(&self) {
        run("umount", &[self.place.to_str().unwrap()]);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With `-l` it goes although a process that has not quite ended may still use it.
        Command::new("umount").arg("-l").arg(&self.place).status().ok();
    }
}
