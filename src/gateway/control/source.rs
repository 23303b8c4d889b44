//! What a client gives that is not a regular file: its end counts when the client says so. Owns the
//! question; reading is `sys::stream_os`'s.

use super::{Gone, Outbox};
use crate::sys::{DescriptorSource, Source, SourceChanged};
use std::io;
use tokio::runtime::Handle;

/// A pipe of which the client confirms the end.
pub(super) struct Confirmed {
    source: DescriptorSource,
    client: Outbox,
    runtime: Handle,
    ended: bool,
}

impl Confirmed {
    /// To be called where tasks run; it is read where threads may wait.
    pub(super) fn new(source: DescriptorSource, client: Outbox) -> Self {
        Self { source, client, runtime: Handle::current(), ended: false }
    }
}

impl Source for Confirmed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let n = self.source.read(buf)?;
        if n < buf.len() {
            let confirmed = self.runtime.block_on(self.client.ended());
            confirmed.map_err(|Gone| io::Error::from(io::ErrorKind::Interrupted))?;
            self.ended = true;
        }
        Ok(n)
    }

    fn rewind(&mut self) -> bool {
        self.source.rewind()
    }

    fn finish(&mut self) -> Result<(), SourceChanged> {
        self.source.finish()
    }
}
