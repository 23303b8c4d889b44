//! The local network by multicast DNS: a service `_p2pfs._tcp.local.` with the port, and the tag of
//! the swarm as its text `s`. Owns the bound on what strangers on the network can make this node
//! remember: the library's memory grows with what it hears, so it is ended when that was much.

use super::BoxFuture;
use super::lan::{Announcement, Heard, Lan, LanNews};
use mdns_sd::{IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Interval;

const SERVICE: &str = "_p2pfs._tcp.local.";
/// The version of the text, under `v`, and the key of the tag.
const VERSION: &str = "1";
const TAG: &str = "s";
/// Most that is heard at one time: a hostile machine can say more, a network has fewer nodes.
const HEARD_MAX: usize = 1024;
/// Most records that the library may remember, how often they are counted, and what it calls their
/// numbers.
const RECORDS_MAX: i64 = 4096;
const COUNTED_EVERY: Duration = Duration::from_secs(1);
const RECORDS: &str = "cached-";

/// The local network of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsLan;

impl Lan for OsLan {
    fn join(&self, own: &Announcement) -> io::Result<Box<dyn LanNews>> {
        let daemon = ServiceDaemon::new().map_err(io::Error::other)?;
        // From here on dropping it ends its thread.
        let mut joined = Joined {
            daemon,
            events: None,
            fullname: String::new(),
            heard: 0,
            counting: tokio::time::interval(COUNTED_EVERY),
        };
        joined.announce(own).map_err(io::Error::other)?;
        Ok(Box::new(joined))
    }
}

struct Joined {
    daemon: ServiceDaemon,
    events: Option<Receiver<ServiceEvent>>,
    fullname: String,
    heard: usize,
    /// When the records of the library are counted.
    counting: Interval,
}

impl Joined {
    fn announce(&mut self, own: &Announcement) -> mdns_sd::Result<()> {
        // Nodes of one machine that use nothing else are left alone.
        self.daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let host = format!("p2pfs-{}.local.", own.instance);
        let text = [("v", VERSION), (TAG, own.tag.as_str())];
        let (ips, port) = (own.ips.as_slice(), own.port);
        let mut service = ServiceInfo::new(SERVICE, &own.instance, &host, ips, port, &text[..])?;
        if ips.is_empty() {
            service = service.enable_addr_auto();
        }
        self.fullname = service.get_fullname().to_owned();
        self.daemon.register(service)?;
        self.events = Some(self.daemon.browse(SERVICE)?);
        Ok(())
    }
}

impl LanNews for Joined {
    fn next(&mut self) -> BoxFuture<'_, Option<Heard>> {
        Box::pin(async move {
            let events = self.events.as_ref()?;
            while self.heard < HEARD_MAX {
                let event = tokio::select! {
                    biased;
                    event = events.recv_async() => event.ok()?,
                    _ = self.counting.tick() => {
                        if records(&self.daemon).await? > RECORDS_MAX {
                            return None;
                        }
                        continue;
                    }
                };
                self.heard += 1;
                if let ServiceEvent::ServiceResolved(service) = event
                    && service.fullname != self.fullname
                    && let Some(heard) = heard(&service)
                {
                    return Some(heard);
                }
            }
            None
        })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // Others hear that the node has gone; if not, they forget it after a while.
        drop(self.daemon.unregister(&self.fullname));
        drop(self.daemon.shutdown());
    }
}

/// How many records the library remembers; it also takes those that nobody has asked for.
async fn records(daemon: &ServiceDaemon) -> Option<i64> {
    let numbers = daemon.get_metrics().ok()?.recv_async().await.ok()?;
    Some(numbers.iter().filter(|(name, _)| name.starts_with(RECORDS)).map(|(_, count)| count).sum())
}

/// What a service says, if it is one of ours and can be dialled.
fn heard(service: &ResolvedService) -> Option<Heard> {
    if service.get_property_val_str("v") != Some(VERSION) {
        return None;
    }
    let tag = service.get_property_val_str(TAG)?.to_owned();
    let instance = service.fullname.strip_suffix(SERVICE)?.trim_end_matches('.').to_owned();
    let mut ips: Vec<IpAddr> =
        service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    ips.retain(|ip| can_be_dialled(*ip));
    // What comes in any order is dialled in one.
    ips.sort_unstable();
    ips.truncate(Heard::ADDRS_MAX);
    let addrs: Vec<SocketAddr> =
        ips.into_iter().map(|ip| SocketAddr::new(ip, service.port)).collect();
    (!addrs.is_empty() && service.port != 0).then_some(Heard { instance, tag, addrs })
}

/// Whether an address means the same node here as there. Link-local IPv6 addresses do not without
/// an interface, and nobody else's loopback is anywhere.
fn can_be_dialled(ip: IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}
