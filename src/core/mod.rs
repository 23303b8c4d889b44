//! The brain: decisions as pure functions of their inputs. No clock, file, socket, thread or random
//! source; who calls passes them in, and the simulation passes its own.

pub mod access;
pub mod placement;
