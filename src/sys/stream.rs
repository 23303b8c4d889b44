//! Where the bytes of a put come from and those of a get go to: the caller's descriptor in
//! production, memory in the simulation. Both are called from jobs that may block.

use std::io;

/// The file is not what it was when the put began; nothing of it may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file changed while it was read")]
pub struct SourceChanged;

/// Bytes in order.
pub trait Source: Send {
    /// Fills `buf` as far as there are bytes; less than asked only at the end. An error of kind
    /// `Interrupted` means that the put was cancelled.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// Begins again with the first byte; false, and nothing has happened, where that cannot be.
    fn rewind(&mut self) -> bool;

    /// Called after the last byte: whether the bytes read are one state of the file.
    fn finish(&mut self) -> Result<(), SourceChanged>;
}

/// Takes bytes.
pub trait Sink: Send + Sync {
    /// Writes `bytes` at `offset` of the output. A sink that is not [`Sink::seekable`] is called
    /// with rising offsets that leave no gap.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Sets the length of the output once all is written, so that holes at its end exist too.
    fn finish(&self, len: u64) -> io::Result<()>;

    /// Whether writes may come in any order and all-zero stretches may be left out.
    fn seekable(&self) -> bool;
}
