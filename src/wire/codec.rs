//! Bytes from values and back. The decoder is total (any bytes give a value or an error, never a
//! panic), canonical (it accepts only what the encoder writes) and bounded (a list or text longer
//! than its limit is refused before anything is allocated for it).
//!
//! Layout: integers little-endian and fixed; `bool` is 0 or 1; an option is 0, or 1 and the value;
//! a list or text is its count as `u32` and its items. Enum codes are written by hand where the
//! enum is defined, and are never reused.

use crate::id::{
    ChunkId, ChunkValue, ClaimId, EpochId, FileHash, InodeId, LookupId, NodeId, RecordId, SwarmId,
    Tag,
};

/// Why bytes are not a value. The bytes came from outside: drop them and whoever sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the value does.
    #[error("the bytes end too early")]
    Short,
    /// Bytes are left over after the value.
    #[error("bytes are left over")]
    Trailing,
    /// A count or length is above its limit.
    #[error("a length of {len} is over the limit of {max}")]
    TooLong {
        /// The announced length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A code or value that is not defined, or not the canonical form; the text says which.
    #[error("not a valid {0}")]
    Invalid(&'static str),
}

/// A value that can be written as bytes.
pub trait Encode {
    /// Appends the value to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// The value as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

/// A value that can be read from bytes.
pub trait Decode: Sized {
    /// Reads the value from the front of `from`.
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Reads the value from exactly these bytes.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Takes values from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.rest.len() {
            return Err(Malformed::Short);
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    /// Takes a fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// Takes a count that must not be over `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        let len = u32::decode(self)? as usize;
        if len > max { Err(Malformed::TooLong { len, max }) } else { Ok(len) }
    }

    /// Takes a byte string of at most `max` bytes.
    pub fn blob(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.count(max)?;
        self.take(len)
    }

    /// Takes a UTF-8 text of at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<String, Malformed> {
        let bytes = self.blob(max)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Invalid("text"))
    }

    /// Takes a list of at most `max` items.
    pub fn list<T: Decode>(&mut self, max: usize) -> Result<Vec<T>, Malformed> {
        let len = self.count(max)?;
        // An item has at least one byte, so a count above what is left cannot be honest.
        if len > self.rest.len() {
            return Err(Malformed::Short);
        }
        let mut out = Vec::with_capacity(len.min(1024));
        for _ in 0..len {
            out.push(T::decode(self)?);
        }
        Ok(out)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Succeeds when nothing is left.
    pub const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// Appends a byte string with its length.
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a list with its count.
pub fn put_list<T: Encode>(out: &mut Vec<u8>, items: &[T]) {
    put_count(out, items.len());
    for item in items {
        item.encode(out);
    }
}

fn put_count(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("every list is bounded far below 2^32");
    len.encode(out);
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Encode for $int {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl Decode for $int {
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self::from_le_bytes)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128, i64);

macro_rules! fixed {
    ($($id:ident),*) => {$(
        impl Encode for $id {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
        }

        impl Decode for $id {
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self)
            }
        }
    )*};
}

fixed!(
    ChunkId, ChunkValue, ClaimId, EpochId, FileHash, InodeId, LookupId, NodeId, RecordId, SwarmId,
    Tag
);

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array()
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Decode for bool {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::decode(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Invalid("bool")),
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if bool::decode(from)? { T::decode(from).map(Some) } else { Ok(None) }
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::decode(from)?, B::decode(from)?))
    }
}

impl Encode for std::net::SocketAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self.ip() {
            std::net::IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            std::net::IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        self.port().encode(out);
    }
}

impl Decode for std::net::SocketAddr {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let ip: std::net::IpAddr = match u8::decode(from)? {
            4 => from.array::<4>()?.into(),
            6 => from.array::<16>()?.into(),
            _ => return Err(Malformed::Invalid("address family")),
        };
        Ok(Self::new(ip, u16::decode(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_over_its_limit_is_refused_before_it_is_believed() {
        let bytes = u32::MAX.to_bytes();
        let refused = Malformed::TooLong { len: u32::MAX as usize, max: 10 };
        assert_eq!(Reader::new(&bytes).list::<u8>(10), Err(refused));
        assert_eq!(Reader::new(&9u32.to_bytes()).list::<u64>(10), Err(Malformed::Short));
    }

    #[test]
    fn only_the_canonical_form_is_accepted() {
        assert_eq!(bool::from_bytes(&[2]), Err(Malformed::Invalid("bool")));
        assert_eq!(u16::from_bytes(&[1, 2, 3]), Err(Malformed::Trailing));
        assert_eq!(Option::<u8>::from_bytes(&[1]), Err(Malformed::Short));
    }

    #[test]
    fn addresses_round_trip() {
        for text in ["10.1.2.3:4000", "[2001:db8::1]:65535"] {
            let addr: std::net::SocketAddr = text.parse().unwrap();
            assert_eq!(std::net::SocketAddr::from_bytes(&addr.to_bytes()), Ok(addr));
        }
    }
}
