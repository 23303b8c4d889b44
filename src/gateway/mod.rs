//! The doors: each translates one outside language into requests to the node and decides nothing.

pub mod control;
pub mod mount;
