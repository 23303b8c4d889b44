//! p2pfs: peer-to-peer file storage in one executable.
//!
//! # Bird's eye
//!
//! Every machine runs one daemon, a *node*. Nodes find each other by gossip and form a *swarm*. A
//! file that is put at any of them is cut into *chunks*, each chunk is sealed, and R copies of it
//! are kept on R different nodes. A file is named by the BLAKE3 hash of its content, exactly what
//! `b3sum` prints, and by a path in a tree that all nodes share. When a node dies the others notice
//! and make the missing copies again.
//!
//! ```text
//!  put file.txt ─ cli ─ client ─╮                            ╭─ transport ─ peers
//!                               ├ gateway ─ node::api ─ node ┤
//!  library user ─ client ───────╯           loop │ ▲ effects ╰─ store ──── disk
//!                                          event ▼ │
//!                                             core            (no I/O, no clock)
//!                                   wire · crypto · chunk · id · sys
//! ```
//!
//! # As a library
//!
//! [`Node::start`] runs a node inside a program; [`Client`] speaks to a daemon, or to such a node
//! through a [`ControlSocket`]. Two nodes in one program, and a file that goes from one to the
//! other:
//!
//! ```
//! use p2pfs::wire::control::{Put, Target, Wait};
//! use p2pfs::{Client, Config, ControlSocket, Node};
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let mut config = Config::new(dir.path().join("one"), dir.path().join("config"));
//! config.listen = vec!["127.0.0.1:0".parse()?];
//! config.replicas = 2;
//! // No bootstrap and no key in the configuration directory: this one makes a swarm.
//! let one = Arc::new(Node::start(config.clone()).await?);
//!
//! // The second one finds the swarm's key beside its settings and lets itself in.
//! let address: std::net::SocketAddr = one.identity().listen[0].parse()?;
//! config.bootstrap = vec![(address.ip().to_string(), address.port())];
//! config.data_dir = dir.path().join("two");
//! let two = Arc::new(Node::start(config).await?);
//!
//! // What `p2pfs` on the command line does with a daemon works with these nodes, too.
//! let (at_one, at_two) = (dir.path().join("1.sock"), dir.path().join("2.sock"));
//! tokio::spawn(ControlSocket::bind(&at_one)?.serve_node(one));
//! tokio::spawn(ControlSocket::bind(&at_two)?.serve_node(two));
//! let (one, two) = (Client::connect(at_one).await?, Client::connect(at_two).await?);
//!
//! // Returns when both have it on disk.
//! let put = Put { path: Some("/notes.txt".into()), wait: Some(Wait::All), ..Put::default() };
//! let stored = one.put(&b"Hello from one."[..], put).await?;
//! assert_eq!(stored.copies, 2);
//!
//! let mut bytes = Vec::new();
//! two.get(Target::Hash(stored.hash), None, &mut bytes).await?;
//! assert_eq!(bytes, b"Hello from one.");
//!
//! one.stop().await?;
//! two.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Made to be used, and changed only with a new minor version: [`Client`], [`Config`], [`Node`],
//! [`ControlSocket`] and the types of [`wire::control`]. Everything else is public so that tests
//! and tools can reach it, and moves when the house is rebuilt.
//!
//! # The rooms, from the street to the cellar
//!
//! Imports go down only; `tests/tidy.rs` holds the table, and `cargo check --lib
//! --no-default-features` builds the two lowest bands without tokio.
//!
//! | band | rooms | what they do |
//! |---|---|---|
//! | people | `cli` [`client`] [`config`] [`paths`] | words, flags, screens, settings |
//! | doors | [`gateway`] | translate between a socket, or a mount, and the node; decide nothing |
//! | shell | [`node`] | tasks, wiring, doing what the brain decided |
//! | brain | [`core`] | every decision, without I/O: membership, placement, repair, catalogue, tree |
//! | hands | [`transport`] [`store`] | bytes on the network, bytes on the disk |
//! | letters | [`wire`] [`crypto`] [`chunk`] [`id`] [`sys`] | formats, keys, content, names, seams |
//!
//! # The way of a put
//!
//! `cli::cmd::put` opens the file and passes its descriptor over the Unix socket ([`client`],
//! [`wire::control`]). [`gateway`] hands it to `node::api`. There the file is read chunk by
//! chunk; each chunk is hashed ([`chunk`]), compressed if that pays, sealed ([`crypto`]) and
//! brought to its homes, which [`core::placement`] computes from the member table: written to the
//! own [`store`], sent to the others through [`transport`]. A node answers when the chunk is on its
//! disk. When every chunk is on enough disks the manifest follows, then a file record and a tree
//! record, which [`core::catalogue`] signs and every member keeps. Then `put` prints the hash.
//!
//! `put -r` walks through a directory in [`client`] and sends its files by the batch, descriptors
//! and all. `node::api::many` stores those of a batch side by side, and what they come to is
//! planned by [`core::tree`] as few records, which are published in one step.
//!
//! # The way of a get
//!
//! From the hash follows the look-up id, from that the file record in the own catalogue, from that
//! the manifest, which is *proved* against the hash before a byte is fetched. Each chunk is read
//! here or fetched from the holder that answers fastest; if it is late the next one is asked as
//! well; each chunk is checked against its name, opened, and checked again against the hash. The
//! bytes are written into the descriptor that the command passed; the command makes the file
//! visible when all of it is there.
//!
//! # The way of a write through a mount
//!
//! The system asks [`gateway`]'s door (FUSE), which asks the working tree (`node::work`). Names and
//! attributes change in memory, over the replicated tree (`core::work`); bytes go into a draft,
//! chunk by chunk. What a program syncs is durable there. When the file is closed, or nothing was
//! written to it for a second, the changed chunks are sealed and delivered as in a put, the file
//! hash follows from the values of all chunks, and one record names the version together with what
//! else was changed. The others push it on, and tell their systems to forget what they knew.
//!
//! # Where is the DHT?
//!
//! Nowhere. Every node has the whole member table and placement is computed from it, so the holders
//! of any chunk are one hop away. The table for a thousand nodes is a quarter of a megabyte.
//!
//! # Invariants
//!
//! * What was acknowledged is on the disks of `min(2, R)` nodes, as far as that many live.
//! * Bytes that do not hash to what was asked for are never returned.
//! * No record that names chunks is visible before the chunks are on enough disks.
//! * Every table is a cache of the segments and can be deleted.
//! * Anything a peer sends is hostile until verified; nothing it sends allocates more than its
//!   frame.
//! * Every queue has a bound; `core::limits` adds the bounds up to 64 MiB.
//! * Absent on purpose: a clock, a socket, a file or a random source in `core`; JSON between nodes;
//!   a plaintext protocol; a list of peers in a configuration file.
//!
//! # Words
//!
//! *node*: a running daemon · *peer*: another node, seen from here · *member*: a node let into the
//! swarm · *file* · *chunk*: at most 1 MiB of a file · *manifest*: a file's list of chunks ·
//! *replica*: one stored copy of a chunk · *holder*: a node that has one · *candidates*, *home*:
//! the nodes that may hold it, and those that should · *catalogue*: the replicated metadata ·
//! *record*: one signed entry of it · *inode*, *entry*, *version*: the tree of names · *claim*: why
//! a holder keeps a chunk · *share*: a file served from where it lies, by its *sharer* · *grant*:
//! who may be a member · *epoch*: a generation of the content secret · *segment*: a file of the
//! store.
pub mod id;
pub mod sys;
pub mod text;

pub mod chunk;
pub mod crypto;
pub mod wire;

#[cfg(feature = "daemon")]
pub mod store;
#[cfg(feature = "daemon")]
pub mod transport;

pub mod core;

#[cfg(feature = "daemon")]
pub mod node;

#[cfg(feature = "daemon")]
pub mod gateway;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod paths;

#[cfg(feature = "daemon")]
pub use client::Client;
#[cfg(feature = "daemon")]
pub use gateway::control::ControlSocket;
#[cfg(feature = "daemon")]
pub use node::{Config, Node};
