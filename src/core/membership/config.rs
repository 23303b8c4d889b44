//! Every period of the protocol, so that tests and the simulator can change them, and every bound
//! on what a peer can make this node keep. The periods are chosen for the bars of DESIGN 5: a
//! silent crash is known to all in `silence + dial + confirm + spread` ≈ 7 s.

use std::time::Duration;

/// Most members in the table (DESIGN 4: a member table of at most 6 MiB).
pub const MEMBERS_MAX: usize = 16_384;
/// Most good peers remembered for the next start.
pub const SAVED_MAX: usize = 64;
/// Most bootstrap addresses kept (a host name may stand for several).
pub const BOOTS_MAX: usize = 64;
/// Most dials at a time: filling links, proving suspects and answering probes.
pub(super) const DIALS_MAX: usize = 64;
/// Most entries in each queue of a link; what does not fit is found by the next comparison.
pub(super) const OUTBOX_MAX: usize = MEMBERS_MAX;
/// Most announced records that are waited for.
pub(super) const ASKS_MAX: usize = 4096;
/// Links beyond which a newcomer gets other addresses at once instead of the table.
pub(super) const LINKS_HARD: usize = 256;
/// Most pages sent for one pull: 16 × 48 entries, above what an honest pull asks for.
pub(super) const PULL_PAGES: usize = 16;
/// Members that an honest pull asks for at a time.
pub(super) const PULL_MEMBERS: usize = 512;

/// The periods and sizes of the protocol.
#[derive(Debug, Clone)]
pub struct Config {
    /// Links that a node wants.
    pub links: usize,
    /// Links above which it ends one now and then, if the other side has enough as well.
    pub links_trim: usize,
    /// Links that it keeps in any case at most.
    pub links_max: usize,
    /// Between pings on a link.
    pub beat: Duration,
    /// Silence after which a link is lost; scaled by the link's own record and by own health.
    pub silence: Duration,
    /// How long a dial may take until a ping is answered.
    pub dial: Duration,
    /// From the first try of a dial to the second.
    pub dial_again: Duration,
    /// The same when another member asked for the dial: it has waited long enough already.
    pub dial_asked: Duration,
    /// The same when the member's machine closed the connection: it runs, so it would answer soon.
    pub dial_closed: Duration,
    /// Shortest time from the first suspicion to death, for the suspect to answer.
    pub confirm: Duration,
    /// The same for a death that is only heard of from another part of the swarm.
    pub claim: Duration,
    /// After this a suspicion that could not be confirmed counts as death.
    pub suspect_max: Duration,
    /// From an own vote to asking others to dial the suspect.
    pub second: Duration,
    /// How long news is collected before it is sent.
    pub flush: Duration,
    /// How long an announced record is waited for on other links.
    pub ask: Duration,
    /// Between comparisons of the table with a neighbour.
    pub compare: Duration,
    /// Between dials of dead members.
    pub redial: Duration,
    /// Longest pause between dials of a bootstrap address.
    pub boot_max: Duration,
    /// Shortest time between announcements of `used`, in a swarm of up to `crowd` members.
    pub used: Duration,
    /// The same for `counted`.
    pub counted: Duration,
    /// Members up to which `used` and `counted` are announced at full rate; above, the rate of a
    /// node falls in proportion, so that the traffic per node stays what it is.
    pub crowd: usize,
    /// Between savings of good peers.
    pub save: Duration,
    /// Gone members are forgotten after this.
    pub forget: Duration,
    /// A timer that comes this late means that this node was not running.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            links: 8,
            links_trim: 10,
            links_max: 32,
            beat: Duration::from_secs(1),
            silence: Duration::from_millis(3500),
            dial: Duration::from_millis(2500),
            dial_again: Duration::from_millis(600),
            dial_asked: Duration::from_millis(1500),
            dial_closed: Duration::from_millis(1000),
            confirm: Duration::from_millis(800),
            claim: Duration::from_secs(3),
            suspect_max: Duration::from_secs(20),
            second: Duration::from_millis(300),
            flush: Duration::from_millis(20),
            ask: Duration::from_millis(150),
            compare: Duration::from_secs(60),
            redial: Duration::from_secs(30),
            boot_max: Duration::from_secs(60),
            used: Duration::from_secs(60),
            counted: Duration::from_secs(2),
            crowd: 256,
            save: Duration::from_secs(60),
            forget: Duration::from_secs(30 * 24 * 3600),
            stall: Duration::from_millis(500),
        }
    }
}
