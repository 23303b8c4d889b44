//! The greeting on a fresh stream, both sides of it: who are you, may you come in, and a clear word
//! when not. The decisions are the handler's; this file carries them out in the order that
//! `wire::hello` specifies.

use super::Shared;
use super::connection::Greeted;
use super::error::DialError;
use super::framing::{Broken, fill, read_header, send, send_value};
use super::handler::{Admission, LinkEvent};
use super::secure::Proved;
use crate::id::NodeId;
use crate::sys::ByteStream;
use crate::wire::codec::Decode;
use crate::wire::frame::{FrameError, Limits, Role, kind};
use crate::wire::hello::{Hello, HelloError, Lane, Refuse, RefuseCode, Speaker, Versions};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;

/// Our software and release, as told to every peer.
const SOFTWARE: &str = concat!("p2pfs ", env!("CARGO_PKG_VERSION"));

impl Shared {
    /// The dialling side.
    pub(super) async fn greet(
        &self,
        (mut stream, peer): Proved,
        addr: SocketAddr,
        lane: Lane,
        slot: OwnedSemaphorePermit,
    ) -> Result<Greeted, DialError> {
        let broken = |broken: Broken| DialError::Handshake { addr, reason: broken.to_string() };
        let mine = self.hello(peer, lane, addr);
        send_value(&mut stream, kind::HELLO, &mine).await.map_err(broken)?;
        let (got, bytes) = receive(&mut stream).await.map_err(broken)?;
        let hello = match got {
            kind::HELLO => Hello::read(&bytes).map_err(|err| dial_error(err, addr, peer))?,
            kind::REFUSE => return Err(refused(&bytes, addr, peer)),
            _ => return Err(odd(addr, "it did not greet")),
        };
        if hello.lane != lane {
            return Err(odd(addr, "it speaks of another lane"));
        }
        let stranger = match self.handler.admit(peer, &hello, addr) {
            Admission::Member => false,
            Admission::Stranger => true,
            Admission::Refuse { code, text } => {
                let refuse = self.refuse(peer, lane, code, text);
                turn_away(stream, &refuse).await;
                return Err(DialError::Unwelcome { addr, peer, refuse });
            }
        };
        send(&mut stream, kind::READY, &[]).await.map_err(broken)?;
        Ok(Greeted { stream, peer, addr, dialled: true, stranger, hello, slot })
    }

    /// The listening side; the error says, for the log, why nothing came of it.
    pub(super) async fn welcome(
        &self,
        (mut stream, peer): Proved,
        addr: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> Result<Greeted, String> {
        let (got, bytes) = receive(&mut stream).await.map_err(|err| err.to_string())?;
        if got != kind::HELLO {
            return Err("it did not greet".into());
        }
        let hello = match Hello::read(&bytes) {
            Ok(hello) => hello,
            Err(HelloError::Version(speaker)) => {
                let text = format!("protocol {} is needed", Versions::OURS);
                let refuse = self.refuse(peer, Lane::Control, RefuseCode::Version, text);
                turn_away(stream, &refuse).await;
                let why = speaker.versions.to_string();
                self.handler.link(LinkEvent::Mismatch { peer, addr, speaker });
                return Err(format!("it speaks protocol {why}"));
            }
            Err(err) => return Err(err.to_string()),
        };
        let stranger = match self.judge(peer, &hello, addr) {
            Ok(stranger) => stranger,
            Err(refuse) => {
                turn_away(stream, &refuse).await;
                return Err(refuse.text);
            }
        };
        let mine = self.hello(peer, hello.lane, addr);
        send_value(&mut stream, kind::HELLO, &mine).await.map_err(|err| err.to_string())?;
        match receive(&mut stream).await.map_err(|err| err.to_string())? {
            (kind::READY, _) => {
                Ok(Greeted { stream, peer, addr, dialled: false, stranger, hello, slot })
            }
            (kind::REFUSE, bytes) => Err(refused(&bytes, addr, peer).to_string()),
            _ => Err("it did not complete the greeting".into()),
        }
    }

    /// Whether a peer that dialled is let in, and as a stranger.
    fn judge(&self, peer: NodeId, hello: &Hello, addr: SocketAddr) -> Result<bool, Refuse> {
        let refuse = |code, text: &str| Err(self.refuse(peer, hello.lane, code, text.into()));
        if peer == self.me {
            return refuse(RefuseCode::Myself, "this is the node that you are yourself");
        }
        match self.handler.admit(peer, hello, addr) {
            Admission::Member => Ok(false),
            Admission::Stranger if hello.lane == Lane::Bulk => {
                refuse(RefuseCode::NotAMember, "only members may send chunks")
            }
            Admission::Stranger if self.pool.strangers() >= self.limits.strangers => {
                refuse(RefuseCode::Busy, "too many nodes wait for approval")
            }
            Admission::Stranger => Ok(true),
            Admission::Refuse { code, text } => Err(self.refuse(peer, hello.lane, code, text)),
        }
    }

    /// What we say to a peer that we see at `addr`.
    fn hello(&self, to: NodeId, lane: Lane, addr: SocketAddr) -> Hello {
        let mut intro = self.handler.introduce(to, lane);
        if intro.port == 0 {
            intro.port = self.listening.first().map_or(0, SocketAddr::port);
        }
        let speaker = Speaker {
            versions: Versions::OURS,
            software: SOFTWARE.into(),
            name: self.handler.name(),
        };
        Hello { speaker, instance: self.instance, lane, observed: Some(addr), intro }
    }

    /// A refusal with everything that the other side may want to show.
    pub(super) fn refuse(&self, to: NodeId, lane: Lane, code: RefuseCode, text: String) -> Refuse {
        let swarm = match code {
            RefuseCode::OtherSwarm => self.handler.introduce(to, lane).swarm,
            _ => None,
        };
        Refuse { code, versions: Versions::OURS, software: SOFTWARE.into(), swarm, text }
    }
}

/// Reads one frame of the greeting.
async fn receive(stream: &mut Box<dyn ByteStream>) -> Result<(u16, Vec<u8>), Broken> {
    let header = read_header(stream, &Limits::GREETING).await?;
    if header.role != Role::Notify {
        return Err(Broken::Frame(FrameError::Request));
    }
    let mut bytes = vec![0; header.content_len()];
    fill(stream, &mut bytes).await?;
    Ok((header.kind, bytes))
}

/// Says no and closes; whether it arrives is the other side's concern.
async fn turn_away(mut stream: Box<dyn ByteStream>, refuse: &Refuse) {
    if send_value(&mut stream, kind::REFUSE, refuse).await.is_ok() {
        let _gone = stream.shutdown().await;
    }
}

fn odd(addr: SocketAddr, reason: &str) -> DialError {
    DialError::Handshake { addr, reason: reason.into() }
}

fn dial_error(err: HelloError, addr: SocketAddr, peer: NodeId) -> DialError {
    match err {
        HelloError::Version(speaker) => DialError::Version { addr, peer, speaker },
        HelloError::Malformed(_) => DialError::Handshake { addr, reason: err.to_string() },
    }
}

fn refused(bytes: &[u8], addr: SocketAddr, peer: NodeId) -> DialError {
    match Refuse::from_bytes(bytes) {
        Err(err) => DialError::Handshake { addr, reason: err.to_string() },
        Ok(refuse) if refuse.code == RefuseCode::Myself => DialError::Myself { addr },
        Ok(refuse) if refuse.code == RefuseCode::Version => {
            let Refuse { versions, software, .. } = refuse;
            let speaker = Speaker { versions, software, name: String::new() };
            DialError::Version { addr, peer, speaker }
        }
        Ok(refuse) => DialError::Refused { addr, peer, refuse },
    }
}

impl Shared {
    /// Puts a greeted connection to work.
    pub(super) fn open(self: &Arc<Self>, greeted: Greeted) -> Arc<super::connection::Connection> {
        let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (lane, stranger) = (greeted.hello.lane, greeted.stranger);
        let meter = self.traffic.meter(greeted.peer, lane, stranger);
        let (conn, stream) = super::connection::Connection::new(number, greeted, meter);
        self.pool.add(self, &conn);
        conn.start(self, stream);
        conn
    }
}
