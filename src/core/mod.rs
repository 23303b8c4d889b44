//! The brain: every decision, sans-IO and deterministic. No sockets, files, clocks, threads or
//! random source of its own; what happened comes in as a value with the time, what shall be done
//! goes out as a value.

pub mod membership;
