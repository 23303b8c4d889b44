//! Receives one call with its descriptors from a connection. Everything that arrives is hostile
//! until it has been parsed: its length, the number of descriptors, its version, its form.

use crate::wire::control::{Call, Code, Failure, ITEMS_MAX, LINE_MAX, Request, VERSION};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use serde::Deserialize;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors that a call may bring: the files of a request for many.
const FDS_MAX: usize = ITEMS_MAX;
/// Bytes received at once: a usual call fits.
const PIECE: usize = 4096;

/// Why there is no call.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The client closed before its call was complete.
    Gone,
    /// The client is told this.
    Bad(Failure),
}

fn bad(why: impl std::fmt::Display) -> Refusal {
    Refusal::Bad(Failure::new(Code::Usage, format!("bad request: {why}")))
}

/// Receives the line and parses it.
pub(super) async fn receive(stream: &UnixStream) -> Result<(Request, Vec<OwnedFd>), Refusal> {
    let mut line = Vec::new();
    let mut fds = Vec::new();
    let end = loop {
        let searched = line.len();
        let piece = stream.async_io(Interest::READABLE, || receive_piece(stream));
        let (bytes, more_fds, complete) = piece.await.map_err(|_| Refusal::Gone)?;
        if bytes.is_empty() {
            return Err(Refusal::Gone);
        }
        fds.extend(more_fds);
        if !complete || fds.len() > FDS_MAX {
            return Err(bad(format_args!("more than {FDS_MAX} descriptors came with it")));
        }
        line.extend(bytes);
        if let Some(place) = line[searched..].iter().position(|&byte| byte == b'\n') {
            break searched + place;
        }
        if line.len() >= LINE_MAX {
            return Err(bad(format_args!("its line is longer than {LINE_MAX} bytes")));
        }
    };
    parse(&line[..end]).map(|request| (request, fds))
}

/// One `recvmsg`: the bytes, the descriptors, and whether all descriptors fitted.
fn receive_piece(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>, bool)> {
    let mut bytes = vec![0; PIECE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(stream, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, fds, !got.flags.contains(ReturnFlags::CTRUNC)))
}

/// The version is looked at before anything else, for another version may mean anything.
fn parse(line: &[u8]) -> Result<Request, Refusal> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    let head: Head = serde_json::from_slice(line).map_err(bad)?;
    if head.v != VERSION {
        let message = format!(
            "this p2pfs speaks version {} of the control language, the running daemon {VERSION}",
            head.v
        );
        return Err(Refusal::Bad(Failure::new(Code::Version, message)));
    }
    let call: Call = serde_json::from_slice(line).map_err(bad)?;
    Ok(call.request)
}
