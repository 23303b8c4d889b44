//! The open port: accepts, proves, greets, and sheds what only takes up room. It owns the waiting
//! room of connections whose other side has not been let in yet.
//!
//! Invariant: the room never blocks the door. When it is full, or one address takes too much of it,
//! somebody in it is thrown out at random to make room for the new one. At random, because whoever
//! floods the port then mostly throws out himself, while an honest peer needs only a few
//! milliseconds; "oldest first" would throw out exactly the honest one under a fast flood.

use super::connection::Greeted;
use super::pool::slot;
use super::{Limits, Shared};
use crate::sys::{ByteStream, Listener, Rng};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{sleep, timeout};

/// First and longest pause after the system could not accept, for want of descriptors or memory.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Room {
    guests: Mutex<Guests>,
}

#[derive(Default)]
struct Guests {
    last: u64,
    waiting: BTreeMap<u64, Guest>,
}

struct Guest {
    origin: Option<IpAddr>,
    /// Dropped, it ends the handshake.
    _stay: oneshot::Sender<()>,
}

/// A place in the waiting room; it is free again when this is dropped.
struct Ticket {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.room.guests().waiting.remove(&self.number);
    }
}

impl Room {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one more in, throwing others out if need be. The receiver ends when it is thrown out.
    fn enter(&self, from: IpAddr, limits: &Limits, rng: &dyn Rng) -> (u64, oneshot::Receiver<()>) {
        let (stay, thrown_out) = oneshot::channel();
        let origin = origin(from);
        let mut guests = self.guests();
        if origin.is_some() {
            guests.shed(limits.unproved_per_address, rng, |guest| guest.origin == origin);
        }
        guests.shed(limits.unproved, rng, |_| true);
        guests.last += 1;
        let number = guests.last;
        guests.waiting.insert(number, Guest { origin, _stay: stay });
        (number, thrown_out)
    }
}

impl Guests {
    /// Makes room for one more of those that `counts` chooses.
    fn shed(&mut self, max: usize, rng: &dyn Rng, counts: impl Fn(&Guest) -> bool) {
        let mut chosen: Vec<u64> =
            self.waiting.iter().filter(|(_, guest)| counts(guest)).map(|(n, _)| *n).collect();
        while !chosen.is_empty() && chosen.len() >= max.max(1) {
            let unlucky = (rng.u64() % chosen.len() as u64) as usize;
            self.waiting.remove(&chosen.swap_remove(unlucky));
        }
    }
}

/// What one attacker holds at once: an IPv4 address, or an IPv6 network of 64 bits. Loopback is
/// where whole swarms live on one machine, and who is there can harm it in easier ways.
fn origin(addr: IpAddr) -> Option<IpAddr> {
    match addr.to_canonical() {
        addr if addr.is_loopback() => None,
        IpAddr::V6(addr) => Some(IpAddr::V6((addr.to_bits() >> 64 << 64).into())),
        addr => Some(addr),
    }
}

/// Accepts until the transport closes.
pub(super) async fn accept_all(shared: Arc<Shared>, listener: Box<dyn Listener>) {
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        biased;
        _ = closing.wait_for(|closing| *closing) => {}
        () = accept_loop(&shared, &*listener) => {}
    }
}

async fn accept_loop(shared: &Arc<Shared>, listener: &dyn Listener) {
    let mut pause = PAUSE_MIN;
    loop {
        // Before accepting, so that what cannot be served waits in the system's queue.
        let slot = slot(shared).await;
        match listener.accept().await {
            Ok((stream, from)) => {
                pause = PAUSE_MIN;
                receive(shared, stream, from, slot);
            }
            // The one who dialled is gone again: nothing is wrong here.
            Err(err) if is_passing(&err) => {}
            Err(err) => {
                tracing::warn!(%err, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn is_passing(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(err.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Starts the handshake with one that dialled.
fn receive(
    shared: &Arc<Shared>,
    stream: Box<dyn ByteStream>,
    from: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    let (number, thrown_out) = shared.room.enter(from.ip(), &shared.limits, &*shared.rng);
    let ticket = Ticket { shared: Arc::clone(shared), number };
    tokio::spawn(async move {
        let shared = Arc::clone(&ticket.shared);
        let handshake = timeout(shared.limits.handshake, prove(&shared, stream, from, slot));
        let done = tokio::select! {
            biased;
            _ = thrown_out => Err("others wanted its place".into()),
            done = handshake => done.unwrap_or_else(|_| Err("it was too slow".into())),
        };
        drop(ticket);
        match done {
            Ok(greeted) if !*shared.closing.borrow() => drop(shared.open(greeted)),
            Ok(_) => {}
            Err(why) => tracing::debug!(%from, %why, "a connection came to nothing"),
        }
    });
}

async fn prove(
    shared: &Shared,
    stream: Box<dyn ByteStream>,
    from: SocketAddr,
    slot: OwnedSemaphorePermit,
) -> Result<Greeted, String> {
    let proved = shared.secure.accept(stream).await.map_err(|err| err.to_string())?;
    shared.welcome(proved, from, slot).await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zero;

    impl Rng for Zero {
        fn fill(&self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    #[test]
    fn the_room_is_bounded_in_all_and_for_each_origin() {
        let room = Room::default();
        let limits = Limits::default();
        let mut stays = Vec::new();
        for n in 0..300u32 {
            let near = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16]);
            stays.push(room.enter(near, &limits, &Zero).1);
        }
        assert_eq!(room.guests().waiting.len(), limits.unproved_per_address);
        for n in 0..300u32 {
            stays.push(room.enter(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), &limits, &Zero).1);
        }
        assert_eq!(room.guests().waiting.len(), limits.unproved);
        for _ in 0..300 {
            stays.push(room.enter(IpAddr::from([127, 0, 0, 1]), &limits, &Zero).1);
        }
        assert_eq!(room.guests().waiting.len(), limits.unproved);
        let open = stays.iter_mut().filter_map(|stay| stay.try_recv().err());
        let open = open.filter(|err| *err == oneshot::error::TryRecvError::Empty).count();
        assert_eq!(open, limits.unproved);
    }
}
