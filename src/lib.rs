//! p2pfs: peer-to-peer file storage in one executable.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod config;
pub mod crypto;
#[cfg(feature = "daemon")]
pub mod gateway;
pub mod id;
#[cfg(feature = "daemon")]
pub mod paths;
pub mod sys;
pub mod text;
pub mod wire;

#[cfg(feature = "daemon")]
pub use client::Client;
