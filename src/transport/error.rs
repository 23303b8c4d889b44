//! What can go wrong between two nodes, as types that callers can act on and people can read.
//! Strings that came from the other side are escaped where they are shown.

use crate::id::NodeId;
use crate::wire::frame::Refusal;
use crate::wire::hello::{Refuse, Speaker, Versions};
use std::net::SocketAddr;

/// Why a transport did not start. Nothing is listening.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another program, or another daemon, listens there.
    #[error("{0} is already in use")]
    AddressInUse(SocketAddr),
    /// The system refused for another reason.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node key does not work with the TLS library.
    #[error("the node key cannot be used: {0}")]
    Key(String),
}

/// Why no connection to a peer was made. None is open and none is being made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No address to dial, and the peer did not call back.
    #[error("no address is known to reach it at")]
    NoAddress,
    /// The network did not get us there.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Something answered, but it is not p2pfs.
    #[error("{addr} is not p2pfs: got \"{said}\"")]
    NotP2pfs {
        /// Where.
        addr: SocketAddr,
        /// The first bytes that it said, escaped.
        said: String,
    },
    /// It broke off, or answered the greeting with nonsense.
    #[error("{addr} did not complete the handshake: {reason}")]
    Handshake {
        /// Where.
        addr: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// Another node than the expected one answered.
    #[error("the node at {addr} is {}, not {}", .found.short(), .expected.short())]
    WrongNode {
        /// Where.
        addr: SocketAddr,
        /// Who was wanted.
        expected: NodeId,
        /// Who answered and proved it.
        found: NodeId,
    },
    /// The address is our own.
    #[error("{addr} is this node itself")]
    Myself {
        /// Where.
        addr: SocketAddr,
    },
    /// There is no protocol version that both sides speak.
    #[error("{} runs protocol {}, we need {}", display_name(.speaker, .addr), .speaker.versions,
        Versions::OURS)]
    Version {
        /// Where.
        addr: SocketAddr,
        /// Who answered.
        peer: NodeId,
        /// What it says about itself; a name may be missing.
        speaker: Speaker,
    },
    /// It does not want us.
    #[error("{addr} refuses: {refuse}")]
    Refused {
        /// Where.
        addr: SocketAddr,
        /// Who answered.
        peer: NodeId,
        /// Its reason.
        refuse: Refuse,
    },
    /// We do not want it.
    #[error("the node at {addr} is not welcome here: {refuse}")]
    Unwelcome {
        /// Where.
        addr: SocketAddr,
        /// Who answered.
        peer: NodeId,
        /// Our reason.
        refuse: Refuse,
    },
    /// It did not answer in time.
    #[error("{addr} did not answer in time")]
    TimedOut {
        /// Where.
        addr: SocketAddr,
    },
    /// All connections are in use.
    #[error("too many connections are open")]
    Busy,
    /// The transport has been shut down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl DialError {
    /// Whether somebody was there: of several failures, the one that tells most is reported.
    pub(super) const fn somebody_answered(&self) -> bool {
        !matches!(
            self,
            Self::NoAddress | Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy
        )
    }
}

fn display_name(speaker: &Speaker, addr: &SocketAddr) -> String {
    if speaker.name.is_empty() { addr.to_string() } else { speaker.name.escape_debug().to_string() }
}

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was never sent: there is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended first. The peer may have done what was asked.
    #[error("the connection to the peer was lost")]
    Lost,
    /// The time was up first. The peer may still do what was asked.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The message is above the limits of the lane, or of a reserved kind; it was not sent.
    #[error("the message does not fit its lane")]
    DoesNotFit,
}

/// There is no control connection to the peer; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection to the peer")]
pub struct NotLinked;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// In order: both sides said so and everything was answered.
    Closed,
    /// Nothing came for too long although something was due.
    Silent,
    /// It broke or carried nonsense; the text says which.
    Lost(&'static str),
    /// The peer turned us away in the middle.
    Refused(Refuse),
}
