//! What a node is started with. Every period and bound that a test or the simulation may want to
//! change is a field here; where a value comes from (flag, variable, file) is `crate::config`'s.

use crate::core::placement::Balance;
use crate::core::{limits, membership};
use crate::id::SwarmId;
use crate::sys::os::{OsClock, OsFs, OsNet, OsRng, OsSpawn, user};
use crate::sys::{Clock, Fs, Lan, Net, OsLan, Rng, Spawn};
use crate::transport::Security;
use crate::wire::control::Setting;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The machine behind its seams.
#[derive(Clone)]
pub struct System {
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Network.
    pub net: Arc<dyn Net>,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub rng: Arc<dyn Rng>,
    /// Threads.
    pub spawn: Arc<dyn Spawn>,
    /// The user and the group who run the node: what they make in a mount records no owner.
    pub user: (u32, u32),
    /// How connections prove who is at their ends.
    pub security: Security,
}

impl Default for System {
    /// The operating system, and TLS.
    fn default() -> Self {
        Self {
            fs: Arc::new(OsFs),
            net: Arc::new(OsNet),
            clock: Arc::new(OsClock::new()),
            rng: Arc::new(OsRng),
            spawn: Arc::new(OsSpawn),
            user: user(),
            security: Security::tls(),
        }
    }
}

/// Settings of a node. Take [`Config::new`] and change what should be different:
///
/// ```
/// let mut config = p2pfs::Config::new("/srv/p2pfs", "/etc/p2pfs");
/// config.listen = vec!["0.0.0.0:4100".parse().expect("an address with a port")];
/// config.bootstrap = vec![("host.example".into(), 4000)];
/// config.capacity = Some(500_000_000_000);
/// config.machine = p2pfs::sys::os::machine();
/// ```
#[derive(Clone)]
pub struct Config {
    /// Node key, segments, tables, lock.
    pub data_dir: PathBuf,
    /// Swarm key and owner key.
    pub config_dir: PathBuf,
    /// Where to listen; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// `host:port` of members to join through; tried for ever.
    pub bootstrap: Vec<(String, u16)>,
    /// The local network, on which the node announces itself and looks for its swarm; none: it does
    /// neither. A node that listens on loopback only does not either.
    pub lan: Option<Arc<dyn Lan>>,
    /// What the owner calls the node; none: two words from its key.
    pub name: Option<String>,
    /// Failure zone, at most 16 bytes; empty: the machine's.
    pub zone: String,
    /// The same for all nodes of one machine, which copies are spread over; `sys::os::machine`
    /// gives it. When all nodes of a swarm have the same, they count as one machine.
    pub machine: [u8; 8],
    /// By what writers and readers choose among the candidates of a chunk.
    pub balance: Balance,
    /// Bytes that the node offers; none: 80 % of the free space, leaving at least 1 GiB.
    pub capacity: Option<u64>,
    /// Copies of a file when its put says nothing else, 1 to 8.
    pub replicas: u8,
    /// Whether a swarm that is made now lets everybody in.
    pub open: bool,
    /// How long a dead node's copies are waited for.
    pub repair_delay: Duration,
    /// Bytes per second that copies of chunks with more than one copy left may take; none: no
    /// limit.
    pub repair_rate: Option<u64>,
    /// Bytes per second that may go to others; none: no limit.
    pub limit_up: Option<u64>,
    /// Bytes per second that may come from others; none: no limit.
    pub limit_down: Option<u64>,
    /// How long a chunk stays that nobody claims any more, in uptime of this node.
    pub gc_grace: Duration,
    /// How long what was removed or replaced can be restored.
    pub history: Duration,
    /// After how long, without renewal, the claims of an unfinished put end.
    pub lapse_after: Duration,
    /// Everything that is stored is read again within this time.
    pub scrub_within: Duration,
    /// Share of the capacity for evictable cached copies, in percent.
    pub cache_percent: u8,
    /// Length of a segment in bytes; shorter where the capacity is small.
    pub segment_len: u64,
    /// Bytes of the file system that stay free.
    pub free_floor: u64,
    /// A swarm that this node has just left and shall not enter again by itself.
    pub avoid: Option<SwarmId>,
    /// The shortest rest between two looks at what is shared in place.
    pub share_scan: Duration,
    /// Between reconciliations with a random neighbour.
    pub reconcile_every: Duration,
    /// Periods of the membership.
    pub membership: membership::Config,
    /// What `p2pfs config` shows.
    pub settings: Vec<Setting>,
    /// The machine.
    pub system: System,
}

impl Config {
    /// The defaults, for a node that keeps its state in these two directories. Both are made when
    /// missing. Nodes with the same configuration directory belong to one person: the first of them
    /// that starts without `bootstrap` makes a swarm, the others let themselves in.
    pub fn new(data_dir: impl Into<PathBuf>, config_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            config_dir: config_dir.into(),
            listen: vec![SocketAddr::from(([0u16; 8], 4000))],
            bootstrap: Vec::new(),
            lan: Some(Arc::new(OsLan)),
            name: None,
            zone: String::new(),
            machine: [0; 8],
            balance: Balance::Auto,
            capacity: None,
            replicas: limits::REPLICAS,
            open: false,
            repair_delay: Duration::from_secs(600),
            repair_rate: Some(limits::REPAIR_RATE),
            limit_up: None,
            limit_down: None,
            gc_grace: Duration::from_secs(60 * 60),
            history: Duration::from_secs(30 * 24 * 60 * 60),
            lapse_after: Duration::from_secs(24 * 60 * 60),
            scrub_within: Duration::from_secs(30 * 24 * 60 * 60),
            cache_percent: 5,
            segment_len: crate::store::Options::SEGMENT_LEN,
            free_floor: crate::store::Options::FREE_FLOOR,
            avoid: None,
            share_scan: Duration::from_secs(10),
            reconcile_every: Duration::from_secs(30),
            membership: membership::Config::default(),
            settings: Vec::new(),
            system: System::default(),
        }
    }
}
