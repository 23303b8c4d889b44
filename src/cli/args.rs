//! The command line as types. The doc comments are the help texts and the manual pages; nothing
//! here does anything. Every flag of the daemon has a variable and a key of the same name in
//! `config.toml`. The arguments of commands about files are in `files`, of those about files that
//! are served in place in `share`.

mod files;
mod share;

pub use files::{
    CatArgs, ConflictsArgs, GetArgs, HistoryArgs, LinkArgs, LsArgs, MkdirArgs, MountArgs, MvArgs,
    PutArgs, RestoreArgs, RmArgs, SearchArgs, StatArgs, UmountArgs, WatchArgs, WriteArgs,
};
pub use share::{ShareArgs, UnshareArgs};

use super::complete;
use crate::config;
use crate::text;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Keep files on several machines: encrypted, replicated, repaired without being told
///
/// `p2pfs daemon` runs a node; every other command talks to the node of this machine. Nodes form a
/// swarm that keeps several encrypted copies of every file on different nodes.
#[derive(Debug, Clone, Parser)]
#[command(name = "p2pfs", version, propagate_version = true, max_term_width = 100)]
#[command(after_long_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub globals: Globals,
}

const AFTER: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 partial, 5 degraded (fewer copies than asked
for), 6 no daemon, 7 denied, 8 no space, 9 corrupt, 10 unreachable, 11 conflict (exists, port in
use), 12 version mismatch, 130 interrupted.

Examples:
  p2pfs demo                           see all of it in a few seconds
  p2pfs daemon                         a first node, alone
  p2pfs daemon --bootstrap host:4000   a further node
  p2pfs put file.txt                   prints the file's hash
  p2pfs get HASH -o out
  p2pfs ls";

/// Flags that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the node keeps its key and its data
    ///
    /// Default: the platform's data directory. The daemon's socket `p2pfs.sock` is there too.
    #[arg(long, global = true, env = "P2PFS_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where `config.toml` and the swarm key are
    ///
    /// Default: the platform's configuration directory.
    #[arg(
        long,
        global = true,
        env = "P2PFS_CONFIG_DIR",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub config_dir: Option<PathBuf>,
    /// The daemon's socket, when it is not in the data directory
    #[arg(long, global = true, env = "P2PFS_SOCKET", hide_env_values = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON: one object, or one per line for lists; an error is the last line of stderr
    #[arg(long, global = true, env = "P2PFS_JSON", hide_env_values = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// Say nothing but errors, and show no progress
    #[arg(short, long, global = true, env = "P2PFS_QUIET", hide_env_values = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Say more; twice: even more
    #[arg(short, long, global = true, env = "P2PFS_VERBOSE", hide_env_values = true)]
    #[arg(action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a node
    Daemon(DaemonArgs),
    /// Store a file in the swarm and print its hash
    Put(PutArgs),
    /// Fetch a file by hash or name, from whoever has it or from one peer
    #[command(visible_alias = "request")]
    Get(GetArgs),
    /// Write a file, or a range of it, to standard output
    Cat(CatArgs),
    /// List files
    Ls(LsArgs),
    /// Find files by words in their names, by tags, sizes, ages or owners
    Search(SearchArgs),
    /// Serve a file or directory from where it lies, without a copy
    #[command(visible_alias = "register")]
    Share(ShareArgs),
    /// Serve it no more
    Unshare(UnshareArgs),
    /// Make directories
    Mkdir(MkdirArgs),
    /// Give files or directories another name
    Mv(MvArgs),
    /// Write standard input into a file, from an offset on
    Write(WriteArgs),
    /// Let the swarm's files be seen in a directory of this machine
    Mount(MountArgs),
    /// End a mount
    Umount(UmountArgs),
    /// Remove files or directories; they can be restored for a while
    Rm(RmArgs),
    /// Give back what was removed, or an old version
    Restore(RestoreArgs),
    /// Show the versions of a file
    History(HistoryArgs),
    /// Show what was changed at several places at once, and decide what is kept
    Conflicts(ConflictsArgs),
    /// Show what happens in the tree, as it happens
    Watch(WatchArgs),
    /// Show everything about one file
    Stat(StatArgs),
    /// Print a link to a file: one word that a member can get it by
    Link(LinkArgs),
    /// Show whether everything is well
    Status(StatusArgs),
    /// List the other nodes
    Peers(PeersArgs),
    /// Show or set how fast bytes go to other nodes and come from them
    Limit(LimitArgs),
    /// Empty this node before it goes
    Drain(DrainArgs),
    /// Keep a full copy of files or directories on this node, or list what is kept so
    Pin(PinArgs),
    /// Keep no full copy of them any more
    Unpin(UnpinArgs),
    /// Show how far the reading of everything stored here is, or read it now
    Scrub(ScrubArgs),
    /// Print this node's id
    #[command(after_long_help = "\
Examples:
  p2pfs id")]
    Id,
    /// Dial a peer now
    Connect(ConnectArgs),
    /// Let a waiting node into the swarm
    Approve(ApproveArgs),
    /// Turn a waiting node away
    Deny(DenyArgs),
    /// Show every setting with its source
    #[command(after_long_help = "\
Examples:
  p2pfs config
  P2PFS_CAPACITY=500GB p2pfs config")]
    Config,
    /// Stop the daemon in order
    #[command(after_long_help = "\
Examples:
  p2pfs stop
  p2pfs --data-dir /srv/p2pfs stop")]
    Stop,
    /// Show a swarm of three nodes at work, then remove every trace of it
    Demo(DemoArgs),
    /// Write the manual pages or the shell completions into a directory
    Generate(GenerateArgs),
}

/// Flags of `daemon`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Each option can also stand in config.toml under its name, e.g.  capacity = \"500GB\".
A flag beats its variable, a variable beats config.toml:  p2pfs config  shows what counts.
P2PFS_LOG sets what is logged, e.g. P2PFS_LOG=debug.

Examples:
  p2pfs daemon
  p2pfs daemon --bootstrap host:4000 --bootstrap [2001:db8::1]:4000
  p2pfs daemon --data-dir /srv/p2pfs --capacity 500GB --listen 0.0.0.0:4100")]
pub struct DaemonArgs {
    /// Address and port to listen on; may be repeated (default: `[::]:4000`)
    ///
    /// `:4001` means all addresses; port 0 lets the system choose.
    #[arg(long, env = "P2PFS_LISTEN", hide_env_values = true, value_name = "ADDR:PORT")]
    #[arg(value_delimiter = ',', value_parser = config::listen_addr)]
    pub listen: Vec<std::net::SocketAddr>,
    /// A node to get to know the swarm from; may be repeated
    ///
    /// A host name or an address, an IPv6 address in brackets. It is tried until it answers.
    #[arg(long, env = "P2PFS_BOOTSTRAP", hide_env_values = true, value_name = "HOST:PORT")]
    #[arg(value_delimiter = ',', value_parser = config::host_port)]
    pub bootstrap: Vec<config::HostPort>,
    /// Name of this node [default: two words from its key]
    #[arg(long, env = "P2PFS_NAME", hide_env_values = true, value_parser = config::label)]
    pub name: Option<String>,
    /// Zone of this node [default: its machine]
    ///
    /// Copies are spread over at least two zones: give nodes that can fail together the same one.
    #[arg(long, env = "P2PFS_ZONE", hide_env_values = true, value_parser = config::label)]
    pub zone: Option<String>,
    /// How much this node may store, e.g. 500GB [default: 80 % of the free space]
    ///
    /// K, M, G, T and KiB, MiB … are powers of 1024; KB, MB … are powers of 1000.
    #[arg(long, env = "P2PFS_CAPACITY", hide_env_values = true, value_name = "SIZE")]
    #[arg(value_parser = text::parse_size)]
    pub capacity: Option<u64>,
    /// Number of copies of what is put at this node, 1 to 8 [default: 3]
    #[arg(long, env = "P2PFS_REPLICAS", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = config::replicas)]
    pub replicas: Option<u8>,
    /// Which holders are preferred: auto, least-stored or least-latency [default: auto]
    #[arg(long, env = "P2PFS_BALANCE", hide_env_values = true, value_name = "POLICY")]
    #[arg(value_parser = config::balance)]
    pub balance: Option<config::Balance>,
    /// How long a node may be away before its data is copied again [default: 10min]
    #[arg(long, env = "P2PFS_REPAIR_DELAY", hide_env_values = true, value_name = "TIME")]
    #[arg(value_parser = text::parse_duration)]
    pub repair_delay: Option<Duration>,
    /// How many bytes a second making missing copies may take [default: 100MiB]
    ///
    /// 0: no limit. A chunk of which one copy is left does not wait for this.
    #[arg(long, env = "P2PFS_REPAIR_RATE", hide_env_values = true, value_name = "SIZE")]
    #[arg(value_parser = text::parse_size)]
    pub repair_rate: Option<u64>,
    /// How many bytes a second may go to other nodes, e.g. 5MiB/s [default: none]
    ///
    /// 64 KiB/s at least. What nodes say to keep in touch goes first. Changed without a restart by
    /// `p2pfs limit`.
    #[arg(long, env = "P2PFS_LIMIT_UP", hide_env_values = true, value_name = "RATE")]
    #[arg(value_parser = text::parse_rate)]
    pub limit_up: Option<u64>,
    /// How many bytes a second may come from other nodes, e.g. 20MiB/s [default: none]
    #[arg(long, env = "P2PFS_LIMIT_DOWN", hide_env_values = true, value_name = "RATE")]
    #[arg(value_parser = text::parse_rate)]
    pub limit_down: Option<u64>,
    /// How long what was removed or replaced can be restored [default: 30d]
    #[arg(long, env = "P2PFS_HISTORY", hide_env_values = true, value_name = "TIME")]
    #[arg(value_parser = text::parse_duration)]
    pub history: Option<Duration>,
    /// How long a chunk stays on the disk that nothing needs any more [default: 1h]
    #[arg(long, env = "P2PFS_GC_GRACE", hide_env_values = true, value_name = "TIME")]
    #[arg(value_parser = text::parse_duration)]
    pub gc_grace: Option<Duration>,
    /// Let everybody into the swarm that this node makes
    ///
    /// Everybody who reaches a node can then read, write and store. Counts only when the swarm is
    /// made.
    #[arg(long, env = "P2PFS_OPEN", hide_env_values = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub open: bool,
    /// Neither announce this node on the local network nor look for its swarm there
    ///
    /// Otherwise the nodes of a swarm find each other on one network without --bootstrap, by
    /// multicast DNS. A node that listens on loopback only does neither.
    #[arg(long, env = "P2PFS_NO_LAN_DISCOVERY", hide_env_values = true)]
    #[arg(action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub no_lan_discovery: bool,
}

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs status
  p2pfs status --workers
  p2pfs status --check -q || mail -s \"p2pfs needs attention\" me")]
pub struct StatusArgs {
    /// For monitoring: exit 0 when all is well, 5 when not, 6 when no daemon answers
    #[arg(long)]
    pub check: bool,
    /// Show what the node does by itself instead: repair and the like
    #[arg(long, conflicts_with = "check")]
    pub workers: bool,
}

/// Arguments of `peers`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs peers
  p2pfs peers --connections
  p2pfs peers --json")]
pub struct PeersArgs {
    /// List the open connections instead
    #[arg(long)]
    pub connections: bool,
}

/// Arguments of `limit`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Without --up and --down it shows the limits and how fast it goes now. A limit counts at once, also
for what is under way, until the daemon ends; for good it is set with  p2pfs daemon --limit-up RATE
or in config.toml. RATE is 64KiB/s at least, e.g. 500KB/s or 5MiB/s; none: no limit.

Examples:
  p2pfs limit
  p2pfs limit --up 5MiB/s --down none
  p2pfs limit --up 1MiB/s --peer calm-heron")]
pub struct LimitArgs {
    /// How many bytes a second may go to other nodes
    #[arg(long, value_name = "RATE", value_parser = text::parse_rate)]
    pub up: Option<u64>,
    /// How many bytes a second may come from other nodes
    #[arg(long, value_name = "RATE", value_parser = text::parse_rate)]
    pub down: Option<u64>,
    /// Only to and from this peer: its name, or the first 8 or more digits of its id
    ///
    /// It counts beside the limit for all.
    #[arg(long, value_name = "PEER", add = ArgValueCompleter::new(complete::peers))]
    pub peer: Option<String>,
}

/// Arguments of `drain`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Other nodes get copies of everything that is here, and this one gives up its own when they have
shown that they have it. It takes nothing new meanwhile, also after a restart. Ctrl-C stops only the
waiting.

Examples:
  p2pfs drain && p2pfs stop
  p2pfs drain --cancel")]
pub struct DrainArgs {
    /// Take new data again, and keep what is still here
    #[arg(long)]
    pub cancel: bool,
    /// Do not wait until the node is empty
    #[arg(long, conflicts_with = "cancel")]
    pub no_wait: bool,
}

/// Arguments of `pin`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
A pinned directory stays pinned: what is put into it later is fetched as well, and what is removed
from it goes. Without PATH it lists what is pinned here. What is pinned can be read while no other
node answers.

Exit codes: 5 when something of it cannot be had now; the node goes on trying.

Examples:
  p2pfs pin /photos
  p2pfs pin /videos --no-wait
  p2pfs pin")]
pub struct PinArgs {
    /// Files or directories; none: list what is pinned
    #[arg(value_name = "PATH", add = ArgValueCompleter::new(complete::names))]
    pub paths: Vec<OsString>,
    /// Do not wait until everything is here
    ///
    /// Ctrl-C ends the waiting as well; the node goes on.
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `unpin`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs unpin /photos")]
pub struct UnpinArgs {
    /// What was pinned
    #[arg(required = true, value_name = "PATH", add = ArgValueCompleter::new(complete::names))]
    pub paths: Vec<OsString>,
}

/// Arguments of `scrub`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The node reads everything that it stores within 30 days, and fetches from other nodes what the disk
has damaged. That needs no command.

Exit codes of --now: 0 when everything is good, 5 when something is still to be repaired, 9 when
something was damaged that no other node has.

Examples:
  p2pfs scrub
  p2pfs scrub --now
  p2pfs scrub --now --json")]
pub struct ScrubArgs {
    /// Read everything now, and wait until what is damaged is repaired
    ///
    /// Ctrl-C ends the waiting; the node goes on.
    #[arg(long)]
    pub now: bool,
}

/// Arguments of `connect`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs connect host:4000
  p2pfs connect calm-heron")]
pub struct ConnectArgs {
    /// `host:port`, or a peer's name or the first 8 or more digits of its id
    #[arg(value_name = "PEER", add = ArgValueCompleter::new(complete::peers))]
    pub peer: String,
}

/// Arguments of `approve`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The waiting daemon shows the code, and so does  p2pfs status  beside it.

Examples:
  p2pfs approve 6213-MW76")]
pub struct ApproveArgs {
    /// The code that the waiting node shows
    #[arg(value_name = "CODE")]
    pub code: String,
}

/// Arguments of `deny`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs deny e68a3f2029")]
pub struct DenyArgs {
    /// The first 8 or more digits of the waiting node's id, or its host:port
    #[arg(value_name = "PEER", add = ArgValueCompleter::new(complete::waiting))]
    pub peer: String,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs demo
  p2pfs demo film.mkv")]
pub struct DemoArgs {
    /// The file to show it with [default: this executable]
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Arguments of `generate`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs generate completions ~/.local/share/bash-completion/completions
  p2pfs generate man /usr/local/share/man/man1")]
pub struct GenerateArgs {
    /// What to write
    #[command(subcommand)]
    pub what: Generate,
}

/// What `generate` writes.
#[derive(Debug, Clone, Subcommand)]
pub enum Generate {
    /// One manual page per command
    Man {
        /// Where to; made when missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Completions for bash, zsh, fish, elvish and powershell
    ///
    /// They ask the p2pfs on the PATH for candidates, which asks the daemon for hashes, names and
    /// peers when one runs.
    Completions {
        /// Where to; made when missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_daemon_is_a_key() {
        let command = Cli::command();
        let daemon = command.find_subcommand("daemon").unwrap();
        for arg in daemon.get_arguments().chain(command.get_arguments()) {
            let name = arg.get_long().unwrap_or_default();
            if !["help", "version", "json", "quiet", "verbose"].contains(&name) {
                assert!(config::KEYS.contains(&name), "{name}");
                let variable = format!("P2PFS_{}", name.to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*variable));
            }
        }
    }
}
