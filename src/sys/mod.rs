//! The seams to the machine: the only way to a socket, a file, the time, random bytes or a thread.
//! Production uses the implementations in `os`; the simulation swaps each of them (turmoil's
//! network, a file system that forgets unsynced bytes, virtual time, a seeded source) and every
//! decision above runs unchanged. `tests/tidy.rs` refuses the standard library's own doors
//! elsewhere.
//!
//! This folder holds traits and thin adapters; it decides nothing.

mod clock;
mod fs;
#[cfg(feature = "daemon")]
mod lan;
#[cfg(feature = "daemon")]
mod lan_os;
#[cfg(feature = "daemon")]
mod net;
#[cfg(feature = "daemon")]
pub mod os;
mod rng;
mod spawn;
mod stream;
#[cfg(feature = "daemon")]
mod stream_os;
mod table;

pub use clock::{Clock, Time};
pub use fs::{DirEntry, File, Fs, Lock, OpenMode, Space, Stamp, StampKind};
#[cfg(feature = "daemon")]
pub use lan::{Announcement, Heard, Lan, LanNews};
#[cfg(feature = "daemon")]
pub use lan_os::OsLan;
#[cfg(feature = "daemon")]
pub use net::{BoxFuture, ByteStream, Listener, Net};
pub use rng::Rng;
pub use spawn::{Spawn, Step, Work};
pub use stream::{Sink, Source, SourceChanged};
#[cfg(feature = "daemon")]
pub use stream_os::{DescriptorSink, DescriptorSource};
pub use table::{Table, TableRead, TableWrite};
