//! Frames: how messages lie on a connection between two nodes. This file is their specification,
//! version 1; it owns layout and limits, and neither reads sockets nor knows what a message means.
//!
//! ```text
//! offset  size  field
//!      0     4  length     bytes that follow this field: 11 + head + body
//!      4     2  kind       what the message is
//!      6     4  request    number of the request; 0 in a notify, never 0 otherwise
//!     10     1  role       1 request, 2 response, 3 notify, 4 error
//!     11     4  head length
//!     15     …  head       an encoded control message
//!      …     …  body       raw bytes: what is left of the length
//! ```
//!
//! Integers are little-endian. Kinds 1 to 15 belong to the transport ([`kind`]); kinds with the bit
//! [`BODY_KINDS`] may carry a body, and only on a bulk connection; all others have an empty one.
//! The head of an error is a [`Refusal`]. Each side numbers its own requests; a response or error
//! repeats the number and may overtake others.
//!
//! Invariant: [`Header::parse`] has accepted a frame's lengths before a byte of memory is allocated
//! for it, and it refuses a hopeless frame as soon as the bytes show it.

use super::codec::{Decode, Encode, Malformed, Reader, put_blob};

/// Bytes of a header.
pub const HEADER_LEN: usize = 15;
/// What the length field counts besides head and body.
const AFTER_LENGTH: usize = HEADER_LEN - 4;
/// Longest head: the limit for control messages (DESIGN 4).
pub const HEAD_MAX: usize = 64 << 10;
/// Longest body: a 1 MiB chunk and 4 KiB for its codec byte, padding and authentication tag.
pub const BODY_MAX: usize = (1 << 20) + (4 << 10);
/// The bit of a kind that says that its frames may carry a body.
pub const BODY_KINDS: u16 = 0x8000;
/// The first kind that is not the transport's own.
pub const FIRST_MESSAGE: u16 = 16;
/// Longest text of a [`Refusal`] in bytes.
pub const REFUSAL_TEXT_MAX: usize = 200;

/// Kinds of the transport's own frames; each is a notify. Numbers are never reused.
pub mod kind {
    /// The first frame each way: [`Hello`](crate::wire::hello::Hello).
    pub const HELLO: u16 = 1;
    /// The sender will not talk: [`Refuse`](crate::wire::hello::Refuse). It closes afterwards.
    pub const REFUSE: u16 = 2;
    /// The dialling side has accepted the other's hello; empty. Messages follow.
    pub const READY: u16 = 3;
    /// The sender starts no more requests here; empty. After both said so and everything is
    /// answered, the connection closes.
    pub const BYE: u16 = 4;
    /// Is anybody there? Empty; answered at once by [`PONG`].
    pub const PING: u16 = 5;
    /// The answer to [`PING`]; empty. Unasked: the sender takes what comes, slowly on purpose.
    pub const PONG: u16 = 6;
    /// The sender cannot reach the other side: please dial a bulk connection; empty.
    pub const CALL_BACK: u16 = 7;
}

/// What a frame is to the exchange it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Wants exactly one response or error.
    Request,
    /// Answers a request.
    Response,
    /// Wants no answer.
    Notify,
    /// Answers a request with a [`Refusal`].
    Error,
}

impl Role {
    const fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Notify => 3,
            Self::Error => 4,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Request),
            2 => Some(Self::Response),
            3 => Some(Self::Notify),
            4 => Some(Self::Error),
            _ => None,
        }
    }
}

/// How long the parts of a frame may be on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest head in bytes.
    pub head: usize,
    /// Longest body in bytes, for kinds that may carry one.
    pub body: usize,
}

impl Limits {
    /// Before the other side has proved who it is, and for its hello: a full hello fits.
    pub const GREETING: Self = Self { head: 4 << 10, body: 0 };
    /// For a stranger that asks to be let in: a grant or a key exchange fits.
    pub const STRANGER: Self = Self { head: 4 << 10, body: 0 };
    /// For a member on a control connection.
    pub const CONTROL: Self = Self { head: HEAD_MAX, body: 0 };
    /// For a member on a bulk connection.
    pub const BULK: Self = Self { head: HEAD_MAX, body: BODY_MAX };

    const fn body_of(&self, kind: u16) -> usize {
        if kind & BODY_KINDS == 0 { 0 } else { self.body }
    }

    /// Whether a message of this size may be sent.
    pub const fn fits(&self, kind: u16, head: usize, body: usize) -> bool {
        head <= self.head && body <= self.body_of(kind)
    }
}

/// Why bytes are not a frame. Nothing was allocated; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is above everything that is allowed here, or below a header.
    #[error("a frame of {0} bytes is not allowed here")]
    Length(u32),
    /// The head is longer than is allowed here, or than the frame.
    #[error("a head of {0} bytes is not allowed here")]
    Head(u32),
    /// The body is longer than is allowed for this kind here.
    #[error("a body of {len} bytes is not allowed for kind {kind}")]
    Body {
        /// The frame's kind.
        kind: u16,
        /// The announced length.
        len: u32,
    },
    /// The role has no meaning.
    #[error("role {0} is not defined")]
    Role(u8),
    /// A notify with a request number, or another frame without one.
    #[error("a request number that does not go with the frame's role")]
    Request,
}

/// What the first bytes of a frame say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing is wrong so far, but the header needs more bytes.
    Incomplete,
    /// The whole header.
    Header(Header),
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub kind: u16,
    /// Number of the request; 0 exactly in a notify.
    pub request: u32,
    /// What the frame is to its exchange.
    pub role: Role,
    /// Bytes of the head.
    pub head_len: u32,
    /// Bytes of the body.
    pub body_len: u32,
}

impl Header {
    /// Appends the header. The lengths must be within [`HEAD_MAX`] and [`BODY_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        (AFTER_LENGTH as u32 + self.head_len + self.body_len).encode(out);
        self.kind.encode(out);
        self.request.encode(out);
        self.role.code().encode(out);
        self.head_len.encode(out);
    }

    /// Reads a header from the first bytes of a frame, however many there are.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, FrameError> {
        let mut reader = Reader::new(bytes);
        let Ok(length) = u32::decode(&mut reader) else { return Ok(Parsed::Incomplete) };
        #[cfg(p2pfs_planted = "unlimited-frame")]
        let limits = &Limits { head: 1 << 40, body: 1 << 40 };
        let longest = AFTER_LENGTH + limits.head + limits.body;
        if (length as usize) < AFTER_LENGTH || length as usize > longest {
            return Err(FrameError::Length(length));
        }
        let Ok(kind) = u16::decode(&mut reader) else { return Ok(Parsed::Incomplete) };
        let Ok(request) = u32::decode(&mut reader) else { return Ok(Parsed::Incomplete) };
        let Ok(code) = u8::decode(&mut reader) else { return Ok(Parsed::Incomplete) };
        let role = Role::of(code).ok_or(FrameError::Role(code))?;
        if (role == Role::Notify) != (request == 0) {
            return Err(FrameError::Request);
        }
        let Ok(head_len) = u32::decode(&mut reader) else { return Ok(Parsed::Incomplete) };
        let content = length - AFTER_LENGTH as u32;
        if head_len as usize > limits.head || head_len > content {
            return Err(FrameError::Head(head_len));
        }
        let body_len = content - head_len;
        if body_len as usize > limits.body_of(kind) {
            return Err(FrameError::Body { kind, len: body_len });
        }
        Ok(Parsed::Header(Self { kind, request, role, head_len, body_len }))
    }

    /// Bytes that follow the header.
    pub const fn content_len(&self) -> usize {
        self.head_len as usize + self.body_len as usize
    }
}

/// The head of an error: why a request was not done. Codes 1 to 15 belong to the transport, the
/// others to whoever serves the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused ({code}): {}", .text.escape_debug())]
pub struct Refusal {
    /// What went wrong, for programs.
    pub code: u16,
    /// What went wrong, for people; at most [`REFUSAL_TEXT_MAX`] bytes, the rest is cut off.
    pub text: String,
}

impl Refusal {
    /// The sender of the request may not ask this: it is not a member.
    pub const NOT_A_MEMBER: u16 = 1;
    /// The answer does not fit a frame of this connection.
    pub const TOO_LARGE: u16 = 2;
}

impl Encode for Refusal {
    fn encode(&self, out: &mut Vec<u8>) {
        self.code.encode(out);
        put_blob(out, cut(&self.text, REFUSAL_TEXT_MAX).as_bytes());
    }
}

impl Decode for Refusal {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { code: u16::decode(from)?, text: from.text(REFUSAL_TEXT_MAX)? })
    }
}

/// The longest front of `text` that has at most `max` bytes and ends between two characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{from_hex, to_hex};
    use proptest::prelude::*;

    const CHUNK: Header =
        Header { kind: 0x8001, request: 7, role: Role::Request, head_len: 3, body_len: 5 };

    fn bytes(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(&mut out);
        out
    }

    #[test]
    fn frames_are_what_they_always_were() {
        let golden = include_str!("../../tests/golden/wire/frame-v1.hex");
        let ping =
            Header { kind: kind::PING, request: 0, role: Role::Notify, head_len: 0, body_len: 0 };
        let mut error = Vec::new();
        let refusal = Refusal { code: 17, text: "no room".into() };
        let head = refusal.to_bytes();
        let role = Role::Error;
        Header { kind: 16, request: 9, role, head_len: head.len() as u32, body_len: 0 }
            .encode(&mut error);
        error.extend_from_slice(&head);
        let lines = [to_hex(&bytes(&CHUNK)), to_hex(&bytes(&ping)), to_hex(&error)];
        assert_eq!(golden.lines().collect::<Vec<_>>(), lines);
        let first: [u8; HEADER_LEN] = from_hex(&lines[0]).unwrap();
        assert_eq!(Header::parse(&first, &Limits::BULK), Ok(Parsed::Header(CHUNK)));
        assert_eq!(Refusal::from_bytes(&head), Ok(refusal));
    }

    #[test]
    fn a_frame_over_its_limit_is_refused_by_its_first_bytes() {
        for (limits, over) in [
            (Limits::GREETING, AFTER_LENGTH + (4 << 10) + 1),
            (Limits::CONTROL, AFTER_LENGTH + HEAD_MAX + 1),
            (Limits::BULK, AFTER_LENGTH + HEAD_MAX + BODY_MAX + 1),
            (Limits::BULK, u32::MAX as usize),
            (Limits::BULK, AFTER_LENGTH - 1),
            (Limits::BULK, 0),
        ] {
            let length = over as u32;
            let refused = Err(FrameError::Length(length));
            assert_eq!(Header::parse(&length.to_le_bytes(), &limits), refused);
        }
    }

    #[test]
    fn limits_hold_for_each_kind_and_part() {
        let max = Header { head_len: HEAD_MAX as u32, body_len: BODY_MAX as u32, ..CHUNK };
        assert_eq!(Header::parse(&bytes(&max), &Limits::BULK), Ok(Parsed::Header(max)));
        let over = Header { body_len: BODY_MAX as u32 + 1, ..CHUNK };
        let refused = FrameError::Body { kind: over.kind, len: over.body_len };
        assert_eq!(Header::parse(&bytes(&over), &Limits::BULK), Err(refused));
        let over = Header { head_len: HEAD_MAX as u32 + 1, ..CHUNK };
        let refused = FrameError::Head(over.head_len);
        assert_eq!(Header::parse(&bytes(&over), &Limits::BULK), Err(refused));
        let small = Header { kind: 16, body_len: 1, ..CHUNK };
        let refused = FrameError::Body { kind: 16, len: 1 };
        assert_eq!(Header::parse(&bytes(&small), &Limits::BULK), Err(refused));
        let numbered = Header { role: Role::Notify, ..CHUNK };
        assert_eq!(Header::parse(&bytes(&numbered), &Limits::BULK), Err(FrameError::Request));
        let mut odd = bytes(&CHUNK);
        odd[10] = 5;
        assert_eq!(Header::parse(&odd, &Limits::BULK), Err(FrameError::Role(5)));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_canonical_header_or_an_error(
            raw in proptest::collection::vec(any::<u8>(), 0..20),
            small in any::<bool>(),
        ) {
            let mut raw = raw;
            if small && raw.len() > 3 {
                raw[1..4].fill(0);
            }
            if let Ok(Parsed::Header(header)) = Header::parse(&raw, &Limits::BULK) {
                prop_assert_eq!(&bytes(&header)[..], &raw[..HEADER_LEN]);
            }
        }

        #[test]
        fn every_front_of_a_good_header_is_incomplete(cut in 0..HEADER_LEN) {
            let parsed = Header::parse(&bytes(&CHUNK)[..cut], &Limits::BULK);
            prop_assert_eq!(parsed, Ok(Parsed::Incomplete));
        }
    }
}
