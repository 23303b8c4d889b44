//! The locks of the store, in one place, so that `--cfg p2pfs_shuttle` can put ones in their place
//! that try out schedules (`tests/store/schedules.rs`). Owns nothing. Invariant: the store waits
//! for another thread only through these.

#[cfg(not(p2pfs_shuttle))]
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc};

#[cfg(p2pfs_shuttle)]
pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc};

pub(super) use std::sync::PoisonError;
