//! Makes the socket file and says who may use it. The file is 0600 from its first moment; a stale
//! one is replaced, a living one never.

use crate::text::reason;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Longest path of a socket in bytes: `sun_path` less its closing zero.
const PATH_MAX: usize = 107;
/// Connections that the system keeps waiting.
const BACKLOG: i32 = 128;

/// Why there is no socket. Nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit into a socket address.
    #[error("the socket path has {len} bytes, {PATH_MAX} are possible: {}", .path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Somebody answers there.
    #[error("another daemon already answers at {}", .0.display())]
    InUse(PathBuf),
    /// There is something that is not a socket.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen at {}: {}", .path.display(), reason(.why))]
    System {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
}

/// The daemon's end of the socket; removed when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that a successor's socket is never removed.
    identity: (u64, u64),
}

impl ControlSocket {
    /// Makes the socket at `path`, with the directory (0700) when that is missing. Must be called
    /// inside a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        use std::os::unix::ffi::OsStrExt;
        let len = path.as_os_str().as_bytes().len();
        if len > PATH_MAX {
            return Err(BindError::TooLong { path: path.to_owned(), len });
        }
        clear(path)?;
        listen(path).map_err(|why| BindError::System { path: path.to_owned(), why })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
        {
            // A socket that cannot be removed is stale for the next daemon, which replaces it.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes what a daemon that died has left.
fn clear(path: &Path) -> Result<(), BindError> {
    let system = |why| BindError::System { path: path.to_owned(), why };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if StdUnixStream::connect(path).is_ok() => Err(BindError::InUse(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(system),
        Err(err) if err.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(dir) => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(system)
            }
            None => Ok(()),
        },
        Err(err) => Err(system(err)),
    }
}

fn listen(path: &Path) -> io::Result<ControlSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The mode of the file is the mode of the socket at `bind`: there is no moment at which the
    // file exists with more rights.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let meta = std::fs::symlink_metadata(path)?;
    let listener = UnixListener::from_std(socket.into())?;
    Ok(ControlSocket { listener, path: path.to_owned(), identity: (meta.dev(), meta.ino()) })
}

/// Whether whoever is at the other end may speak: the daemon's own user, or root.
pub(super) fn allowed(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}
