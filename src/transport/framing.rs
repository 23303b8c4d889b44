//! Frames to and from a byte stream, with deadlines. It owns how long a slow peer is borne; it
//! knows nothing of connections.
//!
//! Invariant: between frames a peer may be silent; inside a frame it must deliver.

use super::error::Ended;
use crate::wire::codec::Encode;
use crate::wire::frame::{FrameError, HEADER_LEN, Header, Limits, Parsed, Role};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A frame's header, and each step of its content, must be complete after this time.
const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a step: with the deadline, at least 4 KiB/s.
pub(super) const STEP: usize = 40 << 10;
/// Longest time for which the other side may take not a single byte.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// Why no frame could be read or written.
#[derive(Debug)]
pub(super) enum Broken {
    /// The stream ended between two frames.
    Eof,
    /// The stream failed, or ended inside a frame.
    Io(io::Error),
    /// The peer delivered, or took, too slowly.
    Slow,
    /// The bytes are not an allowed frame.
    Frame(FrameError),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Eof => f.write_str("it closed the connection"),
            Self::Io(err) => err.fmt(f),
            Self::Slow => f.write_str("it was too slow"),
            Self::Frame(err) => err.fmt(f),
        }
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Self::Lost(match broken {
            Broken::Eof | Broken::Io(_) => "the connection broke",
            Broken::Slow => "the peer was too slow",
            Broken::Frame(_) => "the peer sent what is not a frame",
        })
    }
}

/// Waits, for ever if need be, for the next frame and reads its header.
pub(super) async fn read_header<R>(from: &mut R, limits: &Limits) -> Result<Header, Broken>
where
    R: AsyncRead + Unpin,
{
    let mut bytes = [0; HEADER_LEN];
    let mut have = from.read(&mut bytes).await.map_err(Broken::Io)?;
    if have == 0 {
        return Err(Broken::Eof);
    }
    let rest = async {
        loop {
            match Header::parse(&bytes[..have], limits).map_err(Broken::Frame)? {
                Parsed::Header(header) => return Ok(header),
                Parsed::Incomplete => {}
            }
            match from.read(&mut bytes[have..]).await.map_err(Broken::Io)? {
                0 => return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
                more => have += more,
            }
        }
    };
    timeout(STEP_DEADLINE, rest).await.unwrap_or(Err(Broken::Slow))
}

/// Fills `buf`, at 4 KiB/s or faster.
pub(super) async fn fill<R>(from: &mut R, buf: &mut [u8]) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
{
    for step in buf.chunks_mut(STEP) {
        match timeout(STEP_DEADLINE, from.read_exact(step)).await {
            Ok(done) => done.map_err(Broken::Io)?,
            Err(_) => return Err(Broken::Slow),
        };
    }
    Ok(())
}

/// Runs one write or flush; it may take long only while it makes progress.
pub(super) async fn unstalled<T>(write: impl Future<Output = io::Result<T>>) -> Result<T, Broken> {
    timeout(WRITE_STALL, write).await.map_or(Err(Broken::Slow), |done| done.map_err(Broken::Io))
}

/// Writes one small frame of the transport's own and sends it off.
pub(super) async fn send<W>(to: &mut W, kind: u16, head: &[u8]) -> Result<(), Broken>
where
    W: AsyncWrite + Unpin,
{
    let header =
        Header { kind, request: 0, role: Role::Notify, head_len: head.len() as u32, body_len: 0 };
    let mut bytes = Vec::with_capacity(HEADER_LEN + head.len());
    header.encode(&mut bytes);
    bytes.extend_from_slice(head);
    to.write_all(&bytes).await.map_err(Broken::Io)?;
    to.flush().await.map_err(Broken::Io)
}

/// Writes one small frame that carries a value.
pub(super) async fn send_value<W>(to: &mut W, kind: u16, value: &impl Encode) -> Result<(), Broken>
where
    W: AsyncWrite + Unpin,
{
    send(to, kind, &value.to_bytes()).await
}
