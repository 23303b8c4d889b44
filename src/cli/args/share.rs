//! The arguments of the commands about files that are served from where they lie. Nothing here does
//! anything.

use crate::config;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// Arguments of `share`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The files are hashed once and served from where they lie; nothing is copied. Whoever is in the swarm
finds them with `p2pfs ls --shares` and fetches them by name or hash, while this node runs. A file
that changes is noticed within seconds, and is never served wrong meanwhile. The hash of a shared
file is the only thing on standard output; of a directory there is none.

Examples:
  p2pfs share ~/films
  p2pfs share film.mkv --name holiday.mkv
  p2pfs share ~/papers --replicas 3")]
pub struct ShareArgs {
    /// The file, or the directory with everything in it
    ///
    /// Links, pipes, sockets, devices and this node's own directories are not shared, and what a
    /// file .p2pfsignore in a directory says of it, in the form of .gitignore.
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub path: PathBuf,
    /// What others call it [default: its name here]
    #[arg(long, value_name = "NAME")]
    pub name: Option<OsString>,
    /// Store that many copies of each file beside it, 1 to 8, so that it can be had without this
    /// node [default: none]
    ///
    /// The copies are found by hash. They stay when the file changes or is shared no more, until
    /// `p2pfs rm --purge HASH`.
    #[arg(long, value_name = "N", value_parser = config::replicas)]
    pub replicas: Option<u8>,
}

/// Arguments of `unshare`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
What others have fetched stays with them.

Examples:
  p2pfs unshare ~/films
  p2pfs unshare holiday.mkv")]
pub struct UnshareArgs {
    /// What was shared: its path here, what others call it, or its hash
    #[arg(value_name = "PATH|NAME|HASH", value_hint = clap::ValueHint::AnyPath)]
    pub what: PathBuf,
}
