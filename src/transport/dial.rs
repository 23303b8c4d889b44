//! Ways to a peer: which addresses are tried and when, one dial for all who wait for it, and the
//! call back that reaches a peer which can only dial out.

use super::Shared;
use super::connection::Connection;
use super::error::DialError;
use super::handler::PeerAddr;
use super::pool::slot;
use super::secure::Unproved;
use crate::id::NodeId;
use crate::wire::frame::kind;
use crate::wire::hello::Lane;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longest wait for a free slot and for TCP; the handshake has its own limit.
const CONNECT_DEADLINE: Duration =
    Duration::from_secs(if cfg!(p2pfs_planted = "no-connect-timeout") { 1 << 30 } else { 5 });
/// Head start of an address before the next is tried beside it (RFC 8305, section 5: 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses tried for one dial.
const ADDRS_TRIED: usize = 8;
/// Head start of dialling before the peer is asked to call back.
const CALL_BACK_AFTER: Duration = Duration::from_millis(500);
/// How long a call back is waited for once dialling has failed.
const CALL_BACK_WAIT: Duration = Duration::from_secs(3);

/// What became of a dial; none yet: it is under way.
type Outcome = Option<Result<(), DialError>>;

/// Dials under way, so that everybody who wants the same connection waits for the same dial.
#[derive(Default)]
pub(super) struct Dials(Mutex<BTreeMap<(NodeId, Lane), watch::Receiver<Outcome>>>);

impl Dials {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), watch::Receiver<Outcome>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The connection to a peer, dialled if there is none.
    pub(super) async fn connection(
        self: &Arc<Self>,
        to: &PeerAddr,
        lane: Lane,
    ) -> Result<Arc<Connection>, DialError> {
        if to.id == self.me {
            return Err(DialError::NoAddress);
        }
        if let Some(conn) = self.pool.get(to.id, lane) {
            return Ok(conn);
        }
        let mut dial = self.join_dial(to, lane);
        let outcome = tokio::select! {
            biased;
            conn = self.pool.wait(to.id, lane) => return Ok(conn),
            outcome = dial.wait_for(Option::is_some) => outcome.ok().and_then(|done| done.clone()),
        };
        match outcome {
            Some(Err(err)) => Err(err),
            // It was made, and perhaps is gone again already.
            Some(Ok(())) => self.pool.get(to.id, lane).ok_or(DialError::NoAddress),
            None => Err(DialError::ShuttingDown),
        }
    }

    /// A new connection to a peer, whatever there is.
    pub(super) async fn renew(
        self: &Arc<Self>,
        to: &PeerAddr,
        lane: Lane,
    ) -> Result<(), DialError> {
        let mut dial = self.join_dial(to, lane);
        let outcome = dial.wait_for(Option::is_some).await.ok().and_then(|done| done.clone());
        outcome.unwrap_or(Err(DialError::ShuttingDown))
    }

    fn join_dial(self: &Arc<Self>, to: &PeerAddr, lane: Lane) -> watch::Receiver<Outcome> {
        let key = (to.id, lane);
        let mut dials = self.dials.lock();
        if let Some(dial) = dials.get(&key) {
            return dial.clone();
        }
        let (done, dial) = watch::channel(None);
        dials.insert(key, dial.clone());
        drop(dials);
        let (shared, to) = (Arc::clone(self), to.clone());
        tokio::spawn(async move {
            let outcome = shared.reach(&to, lane).await;
            shared.dials.lock().remove(&key);
            done.send_replace(Some(outcome));
        });
        dial
    }

    /// Dials, and asks the peer to call back when that takes long and there is a way to ask.
    async fn reach(self: &Arc<Self>, to: &PeerAddr, lane: Lane) -> Result<(), DialError> {
        let mut closing = self.closing.subscribe();
        let dial = async {
            let ask = async {
                sleep(if to.addrs.is_empty() { Duration::ZERO } else { CALL_BACK_AFTER }).await;
                self.ask_back(to.id, lane);
                std::future::pending::<()>().await;
            };
            let err = tokio::select! {
                biased;
                done = self.dial_any(to, lane) => match done {
                    Ok(()) => return Ok(()),
                    Err(err) => err,
                },
                () = ask => return Ok(()),
            };
            if !self.ask_back(to.id, lane) {
                return Err(err);
            }
            let back = timeout(CALL_BACK_WAIT, self.pool.wait(to.id, lane)).await;
            back.map(drop).map_err(|_| err)
        };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(DialError::ShuttingDown),
            done = dial => done,
        }
    }

    /// Asks the peer to dial us for a bulk connection; false when there is no way to ask.
    fn ask_back(&self, peer: NodeId, lane: Lane) -> bool {
        let control = self.pool.get(peer, Lane::Control);
        match control {
            Some(control) if lane == Lane::Bulk && !control.stranger => {
                control.tell(kind::CALL_BACK);
                true
            }
            _ => false,
        }
    }

    /// The peer at the other end of `control` cannot reach us: dial it.
    pub(super) fn call_back(self: &Arc<Self>, control: &Connection) {
        if self.pool.get(control.peer, Lane::Bulk).is_none() {
            let to = PeerAddr { id: control.peer, addrs: control.reach() };
            self.join_dial(&to, Lane::Bulk);
        }
    }

    /// Tries the addresses one after the other, each with a head start before the next.
    async fn dial_any(self: &Arc<Self>, to: &PeerAddr, lane: Lane) -> Result<(), DialError> {
        let mut left = to.addrs.iter().take(ADDRS_TRIED);
        let mut tried = JoinSet::new();
        let mut worst = DialError::NoAddress;
        loop {
            let more = left.next();
            if let Some(addr) = more {
                let (shared, addr, id) = (Arc::clone(self), *addr, to.id);
                tried.spawn(async move { shared.dial(addr, Some(id), lane).await });
            }
            let done = tokio::select! {
                biased;
                done = tried.join_next() => done,
                () = sleep(STAGGER), if left.len() > 0 => continue,
            };
            match done {
                Some(Ok(Ok(_))) => return Ok(()),
                Some(Ok(Err(err))) if !worst.somebody_answered() => worst = err,
                Some(_) => {}
                None => return Err(worst),
            }
        }
    }

    /// Dials one address and greets whoever answers.
    pub(super) async fn dial(
        self: &Arc<Self>,
        addr: SocketAddr,
        expect: Option<NodeId>,
        lane: Lane,
    ) -> Result<Arc<Connection>, DialError> {
        let slot = timeout(CONNECT_DEADLINE, slot(self)).await.map_err(|_| DialError::Busy)?;
        let late = |_| DialError::TimedOut { addr };
        let stream = timeout(CONNECT_DEADLINE, self.net.dial(addr)).await.map_err(late)?;
        let stream = stream.map_err(|err| DialError::Unreachable { addr, reason: said(&err) })?;
        let handshake = async {
            let proved = self.secure.dial(stream, expect).await;
            let proved = proved.map_err(|err| unproved(err, addr, expect))?;
            if proved.1 == self.me {
                return Err(DialError::Myself { addr });
            }
            self.greet(proved, addr, lane, slot).await
        };
        let greeted = timeout(self.limits.handshake, handshake).await.map_err(late)??;
        if *self.closing.borrow() {
            return Err(DialError::ShuttingDown);
        }
        Ok(self.open(greeted))
    }
}

/// The system's reason without its number, which tells a person nothing.
fn said(err: &std::io::Error) -> String {
    let text = err.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn unproved(err: Unproved, addr: SocketAddr, expect: Option<NodeId>) -> DialError {
    match (err, expect) {
        (Unproved::NotTls(said), _) => DialError::NotP2pfs { addr, said },
        (Unproved::Wrong(found), Some(expected)) => DialError::WrongNode { addr, expected, found },
        (err, _) => DialError::Handshake { addr, reason: err.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_the_reason_and_not_its_number() {
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(said(&refused), "connection refused");
    }
}
