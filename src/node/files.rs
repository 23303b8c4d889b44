//! The small files of a node: its key, its standing in a swarm, the peers it remembers, and in the
//! configuration directory the swarm key and the owner key. Owns their formats and how they are
//! written: whole, 0600, durable before they count. Everything larger is the store's.
//!
//! Formats: a key file is the 32 bytes of its seed. `standing` is a version byte 1, the swarm's
//! public key and the node's grant. `peers` is a version byte 1 and a list of (id, addresses).
//! `draining` is empty, and there while the node is being emptied. `pins` is a version byte 1 and a
//! list of paths.

use super::Shared;
use crate::crypto::{NodeKey, OwnerKey, SwarmKey};
use crate::id::NodeId;
use crate::sys::{Fs, OpenMode, Rng};
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_blob, put_list};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why a small file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A secret that others can read.
    #[error("{} can be read by others (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file of the wrong length.
    #[error("{} is damaged (expected 32 bytes, got {len})", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// A file that is not in its format.
    #[error("{} is damaged: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Malformed,
    },
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Longest small file; a standing or 64 peers are far below.
const FILE_MAX: u64 = 64 * 1024;
/// Peers remembered across restarts.
const PEERS_MAX: usize = 64;

/// The whole of a small file, or none when there is none.
pub(super) fn read(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let io = |source| FileError::Io { path: path.into(), source };
    let file = match fs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(io(err)),
    };
    let len = file.len().map_err(io)?;
    if len > FILE_MAX {
        return Err(FileError::Damaged { path: path.into(), len });
    }
    let mut bytes = vec![0; usize::try_from(len).expect("at most FILE_MAX")];
    let got = file.read_at(&mut bytes, 0).map_err(io)?;
    bytes.truncate(got);
    Ok(Some(bytes))
}

/// Replaces a small file; durable when it returns.
pub(super) fn write(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let io = |source| FileError::Io { path: path.into(), source };
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    let file = fs.open(&temp, OpenMode::Create).map_err(io)?;
    file.set_len(0).map_err(io)?;
    file.write_at(&[bytes], 0).map_err(io)?;
    file.sync_data().map_err(io)?;
    fs.rename(&temp, path).map_err(io)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io)
}

/// A secret of 32 bytes that must exist nowhere else.
fn read_seed(fs: &dyn Fs, path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, FileError> {
    let Some(bytes) = read(fs, path)?.map(Zeroizing::new) else { return Ok(None) };
    let mode = fs.mode(path).map_err(|source| FileError::Io { path: path.into(), source })?;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    let seed = <[u8; 32]>::try_from(&bytes[..]);
    seed.map(|seed| Some(Zeroizing::new(seed)))
        .map_err(|_| FileError::Damaged { path: path.into(), len: bytes.len() as u64 })
}

fn read_or_make(fs: &dyn Fs, rng: &dyn Rng, path: &Path) -> Result<Zeroizing<[u8; 32]>, FileError> {
    if let Some(seed) = read_seed(fs, path)? {
        return Ok(seed);
    }
    let seed = Zeroizing::new(rng.bytes());
    write(fs, path, &seed[..])?;
    Ok(seed)
}

/// The node key; made at the first start.
pub(super) fn node_key(fs: &dyn Fs, rng: &dyn Rng, dir: &Path) -> Result<NodeKey, FileError> {
    Ok(NodeKey::from_seed(&*read_or_make(fs, rng, &dir.join("node.key"))?))
}

/// The owner key; made by the first daemon of a configuration directory.
pub(super) fn owner_key(fs: &dyn Fs, rng: &dyn Rng, dir: &Path) -> Result<OwnerKey, FileError> {
    Ok(OwnerKey::from_seed(&*read_or_make(fs, rng, &dir.join("owner.key"))?))
}

/// The swarm key, if this user has it.
pub(super) fn swarm_key(fs: &dyn Fs, dir: &Path) -> Result<Option<SwarmKey>, FileError> {
    Ok(read_seed(fs, &dir.join("swarm.key"))?.map(|seed| SwarmKey::from_seed(&seed)))
}

/// The swarm key; made when there is none. The caller has the directory's lock.
pub(super) fn make_swarm_key(
    fs: &dyn Fs,
    rng: &dyn Rng,
    dir: &Path,
) -> Result<SwarmKey, FileError> {
    Ok(SwarmKey::from_seed(&*read_or_make(fs, rng, &dir.join("swarm.key"))?))
}

/// A node's place in a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// The swarm's public key.
    pub swarm: [u8; 32],
    /// The node's grant, encoded (`core::access`).
    pub grant: Vec<u8>,
}

impl Encode for Standing {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        self.swarm.encode(out);
        put_blob(out, &self.grant);
    }
}

impl Decode for Standing {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => Ok(Self { swarm: from.array()?, grant: from.blob(512)?.to_vec() }),
            _ => Err(Malformed::Invalid("version")),
        }
    }
}

fn read_as<T: Decode>(fs: &dyn Fs, path: &Path) -> Result<Option<T>, FileError> {
    let malformed = |why| FileError::Malformed { path: path.into(), why };
    read(fs, path)?.map(|bytes| T::from_bytes(&bytes).map_err(malformed)).transpose()
}

/// The standing of the node in this data directory.
pub(super) fn standing(fs: &dyn Fs, dir: &Path) -> Result<Option<Standing>, FileError> {
    read_as(fs, &dir.join("standing"))
}

/// Keeps the standing.
pub(super) fn save_standing(fs: &dyn Fs, dir: &Path, standing: &Standing) -> Result<(), FileError> {
    write(fs, &dir.join("standing"), &standing.to_bytes())
}

/// Gives the standing up, to join another swarm.
pub(super) fn drop_standing(fs: &dyn Fs, dir: &Path) -> Result<(), FileError> {
    let path = dir.join("standing");
    match fs.remove_file(&path).and_then(|()| fs.sync_dir(dir)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { path, source: err })
        }
        _ => Ok(()),
    }
}

/// Whether the node in this data directory is being emptied.
pub(super) fn draining(fs: &dyn Fs, dir: &Path) -> Result<bool, FileError> {
    Ok(read(fs, &dir.join("draining"))?.is_some())
}

/// Keeps whether it is.
pub(super) fn save_draining(fs: &dyn Fs, dir: &Path, draining: bool) -> Result<(), FileError> {
    let path = dir.join("draining");
    if draining {
        return write(fs, &path, &[]);
    }
    match fs.remove_file(&path).and_then(|()| fs.sync_dir(dir)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(FileError::Io { path, source: err })
        }
        _ => Ok(()),
    }
}

/// Paths that may be pinned.
pub(super) const PINS_MAX: usize = 256;
/// Bytes of all of them together.
pub(super) const PINNED_MAX: usize = 48 * 1024;

struct PinnedPath(Vec<u8>);

impl Encode for PinnedPath {
    fn encode(&self, out: &mut Vec<u8>) {
        put_blob(out, &self.0);
    }
}

impl Decode for PinnedPath {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.blob(PINNED_MAX).map(|path| Self(path.to_vec()))
    }
}

struct PinnedPaths(Vec<PinnedPath>);

impl Encode for PinnedPaths {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_list(out, &self.0);
    }
}

impl Decode for PinnedPaths {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => from.list(PINS_MAX).map(Self),
            _ => Err(Malformed::Invalid("version")),
        }
    }
}

/// The pinned paths.
pub(super) fn pins(fs: &dyn Fs, dir: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    let paths = read_as::<PinnedPaths>(fs, &dir.join("pins"))?;
    Ok(paths.map_or_else(Vec::new, |paths| paths.0.into_iter().map(|path| path.0).collect()))
}

/// Keeps the pinned paths.
pub(super) fn save_pins(fs: &dyn Fs, dir: &Path, paths: Vec<Vec<u8>>) -> Result<(), FileError> {
    let paths = PinnedPaths(paths.into_iter().map(PinnedPath).collect());
    write(fs, &dir.join("pins"), &paths.to_bytes())
}

/// A peer worth remembering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownPeer {
    /// Who.
    pub id: NodeId,
    /// Where, at most 4.
    pub addrs: Vec<SocketAddr>,
}

impl Encode for KnownPeer {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        put_list(out, &self.addrs);
    }
}

impl Decode for KnownPeer {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { id: NodeId::decode(from)?, addrs: from.list(4)? })
    }
}

struct KnownPeers(Vec<KnownPeer>);

impl Encode for KnownPeers {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_list(out, &self.0);
    }
}

impl Decode for KnownPeers {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            1 => from.list(PEERS_MAX).map(Self),
            _ => Err(Malformed::Invalid("version")),
        }
    }
}

/// The peers remembered from the last run. They are only hints: a damaged file counts as none.
pub(super) fn peers(fs: &dyn Fs, dir: &Path) -> Vec<KnownPeer> {
    match read_as::<KnownPeers>(fs, &dir.join("peers")) {
        Ok(peers) => peers.map_or_else(Vec::new, |peers| peers.0),
        Err(err) => {
            tracing::warn!(%err, "the remembered peers are not used");
            Vec::new()
        }
    }
}

/// Remembers peers, beside the caller.
pub(super) fn save_peers(shared: &Arc<Shared>, peers: Vec<(NodeId, Vec<SocketAddr>)>) {
    let known = peers.into_iter().take(PEERS_MAX);
    let known =
        known.map(|(id, addrs)| KnownPeer { id, addrs: addrs.into_iter().take(4).collect() });
    let bytes = KnownPeers(known.collect()).to_bytes();
    let shared = shared.clone();
    shared.clone().sys.spawn.run(Box::new(move || {
        let path = shared.config.data_dir.join("peers");
        if let Err(err) = write(&*shared.sys.fs, &path, &bytes) {
            tracing::warn!(%err, "peers are not remembered");
        }
    }));
}
