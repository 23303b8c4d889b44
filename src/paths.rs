//! Where things live when nobody says otherwise. The only reader of the home directory; it creates
//! nothing.

use directories::ProjectDirs;
use std::path::{Path, PathBuf};

/// Name of the daemon's socket inside the data directory.
pub const SOCKET: &str = "p2pfs.sock";
/// Name of the settings file inside the configuration directory.
pub const CONFIG_FILE: &str = "config.toml";

/// The platform's data directory for p2pfs; none when no home directory is known.
pub fn data_dir() -> Option<PathBuf> {
    project().map(|dirs| dirs.data_dir().to_owned())
}

/// The platform's configuration directory for p2pfs; none when no home directory is known.
pub fn config_dir() -> Option<PathBuf> {
    project().map(|dirs| dirs.config_dir().to_owned())
}

/// The socket of the daemon that works in `data_dir`.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

fn project() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "p2pfs")
}
