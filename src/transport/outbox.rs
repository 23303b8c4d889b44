//! What waits to be written on one connection. Its bound follows from its parts: at most 64
//! requests and 64 answers, because no more are ever under way; one frame of each of the
//! transport's own kinds; and one-way messages, of which the oldest make room for new ones.

use crate::transport::handler::Message;
use crate::wire::codec::Encode;
use crate::wire::frame::{FIRST_MESSAGE, HEADER_LEN, Header, Refusal, Role};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Most one-way messages that wait.
const NOTIFIES_MAX: usize = 256;
/// Most bytes of them: a few seconds of gossip; what is older is told again by reconciliation.
const NOTIFY_BYTES_MAX: usize = 1 << 20;
/// Small frames are written together up to about this many bytes: one TLS record.
const GATHER: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    notifies: usize,
    notify_bytes: usize,
}

struct Frame {
    role: Role,
    request: u32,
    message: Message,
}

impl Frame {
    fn is_message(&self) -> bool {
        self.role == Role::Notify && self.message.kind >= FIRST_MESSAGE
    }
}

impl Outbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request or the answer to one.
    pub(super) fn push(&self, role: Role, request: u32, message: Message) {
        self.queue().frames.push_back(Frame { role, request, message });
        self.filled.notify_one();
    }

    /// Queues the refusal of a request.
    pub(super) fn push_refusal(&self, kind: u16, request: u32, refusal: &Refusal) {
        let message = Message { kind, head: refusal.to_bytes().into(), body: Bytes::new() };
        self.push(Role::Error, request, message);
    }

    /// Queues a frame of the transport's own, unless one of its kind waits already.
    pub(super) fn push_own(&self, kind: u16, head: Bytes) {
        let mut queue = self.queue();
        let waits = |frame: &Frame| frame.role == Role::Notify && frame.message.kind == kind;
        if !queue.frames.iter().any(waits) {
            let message = Message { kind, head, body: Bytes::new() };
            queue.frames.push_back(Frame { role: Role::Notify, request: 0, message });
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Queues a one-way message; the oldest ones are dropped when too many wait.
    pub(super) fn push_notify(&self, message: Message) {
        let mut queue = self.queue();
        queue.notifies += 1;
        queue.notify_bytes += message.head.len();
        queue.frames.push_back(Frame { role: Role::Notify, request: 0, message });
        while queue.notifies > NOTIFIES_MAX || queue.notify_bytes > NOTIFY_BYTES_MAX {
            let Some(oldest) = queue.frames.iter().position(Frame::is_message) else { break };
            queue.take(oldest);
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes a request back that is not written yet; true when it was still here.
    pub(super) fn take_back(&self, request: u32) -> bool {
        let mut queue = self.queue();
        let asked = |frame: &Frame| frame.role == Role::Request && frame.request == request;
        let found = queue.frames.iter().position(asked);
        found.map(|at| queue.take(at)).is_some()
    }

    /// Moves frames into `out`, encoded, until it is large enough or one has a body, which is
    /// returned and comes after `out`. None: nothing waits.
    pub(super) fn gather(&self, out: &mut Vec<u8>) -> Option<Bytes> {
        out.clear();
        let mut queue = self.queue();
        while out.len() < GATHER {
            let Some(frame) = queue.take(0) else { break };
            let Message { kind, head, body } = frame.message;
            let (head_len, body_len) = (head.len() as u32, body.len() as u32);
            out.reserve(HEADER_LEN + head.len());
            Header { kind, request: frame.request, role: frame.role, head_len, body_len }
                .encode(out);
            out.extend_from_slice(&head);
            if !body.is_empty() {
                return Some(body);
            }
        }
        (!out.is_empty()).then(Bytes::new)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue().frames.is_empty()
    }

    /// Waits until [`Outbox::wake`] or a push; one that came before counts.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Makes the writer look again although nothing was pushed.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }
}

impl Queue {
    fn take(&mut self, at: usize) -> Option<Frame> {
        let frame = self.frames.remove(at)?;
        if frame.is_message() {
            self.notifies -= 1;
            self.notify_bytes -= frame.message.head.len();
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Limits, Parsed, kind};

    fn message(kind: u16, len: usize) -> Message {
        Message { kind, head: vec![7; len].into(), body: Bytes::new() }
    }

    fn kinds(outbox: &Outbox) -> Vec<u16> {
        let mut out = Vec::new();
        let mut seen = Vec::new();
        while outbox.gather(&mut out).is_some() {
            let mut rest = &out[..];
            while !rest.is_empty() {
                let Ok(Parsed::Header(header)) = Header::parse(rest, &Limits::CONTROL) else {
                    panic!("not a frame");
                };
                seen.push(header.kind);
                rest = &rest[HEADER_LEN + header.content_len()..];
            }
        }
        seen
    }

    #[test]
    fn the_oldest_one_way_message_makes_room_and_nothing_else_does() {
        let outbox = Outbox::default();
        outbox.push(Role::Request, 1, message(100, 0));
        for nth in 0..=NOTIFIES_MAX as u16 {
            outbox.push_notify(message(1000 + nth, 10));
        }
        let seen = kinds(&outbox);
        assert_eq!(seen[..2], [100, 1001]);
        assert_eq!(seen.len(), 1 + NOTIFIES_MAX);
        for nth in 0..20 {
            outbox.push_notify(message(1000 + nth, 64 << 10));
        }
        assert_eq!(kinds(&outbox), (1004..1020).collect::<Vec<_>>());
    }

    #[test]
    fn own_frames_do_not_pile_up_and_requests_can_be_taken_back() {
        let outbox = Outbox::default();
        outbox.push_own(kind::PONG, Bytes::new());
        outbox.push(Role::Request, 5, message(100, 0));
        outbox.push_own(kind::PONG, Bytes::new());
        assert!(outbox.take_back(5));
        assert!(!outbox.take_back(5));
        assert_eq!(kinds(&outbox), [kind::PONG]);
        assert!(outbox.is_empty());
    }
}
