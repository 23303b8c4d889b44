//! The catalogue and the tree from outside: the same set of records gives the same tables in any
//! order, the rules of concurrent changes, reconciliation, and the formats' golden files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "catalogue/conflicts.rs"]
mod conflicts;
#[path = "catalogue/copies.rs"]
mod copies;
#[path = "catalogue/exchange.rs"]
mod exchange;
#[path = "catalogue/golden.rs"]
mod golden;
#[path = "catalogue/history.rs"]
mod history;
#[path = "catalogue/many.rs"]
mod many;
#[path = "harness/maptables.rs"]
mod maptables;
#[path = "catalogue/names.rs"]
mod names;
#[path = "catalogue/news.rs"]
mod news;
#[path = "catalogue/order.rs"]
mod order;
#[path = "catalogue/past.rs"]
mod past;
#[path = "catalogue/refusals.rs"]
mod refusals;
#[path = "catalogue/releases.rs"]
mod releases;
#[path = "catalogue/resolve.rs"]
mod resolve;
#[path = "catalogue/search.rs"]
mod search;
#[path = "catalogue/shares.rs"]
mod shares;
#[path = "catalogue/speed.rs"]
mod speed;
#[path = "catalogue/world.rs"]
mod world;
