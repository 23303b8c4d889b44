//! What a node says about itself, its peers and how well everything is. Everything here is answered
//! from memory and the own tables, and never waits for the network, except where a person asks for
//! a connection.

use super::{Error, Outcome};
use crate::core::catalogue;
use crate::id::NodeId;
use crate::node::view::Member;
use crate::node::work::Refused;
use crate::node::{Shared, files};
use crate::text;
use crate::transport::Totals;
use crate::wire::control::{
    Candidate, ConnectionInfo, Event, Identity, NodeState, PeerInfo, PeerState, Status,
    WaitingInfo, WordKind,
};
use crate::wire::gossip::MemberFlags;
use crate::wire::hello::Lane;
use std::sync::Arc;

/// Candidates for one completion.
const CANDIDATES_MAX: usize = 200;
/// What is said about damaged chunks and records.
const DAMAGED: &str = "damaged on this disk and fetched again from other nodes";

impl Shared {
    pub(super) fn identity(&self) -> Identity {
        Identity {
            id: self.me,
            name: self.own_name(),
            swarm: self.standing().map(|standing| standing.swarm_id()),
            listen: self.transport().local_addrs().iter().map(ToString::to_string).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn own_name(&self) -> String {
        self.config.name.clone().unwrap_or_else(|| self.view().name(&self.me))
    }

    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        let view = self.view();
        let others = view.members.values().filter(|member| member.record.id != self.me);
        let totals = self.transport().totals();
        let totals = |id: &NodeId| totals.get(id).copied().unwrap_or_default();
        let mut peers: Vec<PeerInfo> =
            others.map(|member| self.peer(member, totals(&member.record.id))).collect();
        peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        peers
    }

    fn peer(&self, member: &Member, totals: Totals) -> PeerInfo {
        let record = &member.record;
        let chooser = self.chooser();
        let rtt = chooser.smoothed(&record.id);
        PeerInfo {
            name: member.name(),
            id: record.id,
            addresses: record.addrs.iter().map(ToString::to_string).collect(),
            state: member.state,
            rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            capacity: record.capacity,
            used: record.capacity / 64 * u64::from(record.used),
            zone: record.zone.clone(),
            seen_ms: match member.state {
                PeerState::Alive => 0,
                _ => millis(self.sys.clock.now().since(member.since)),
            },
            version: record.version.clone(),
            strikes: chooser.strikes(&record.id),
            full: !member.has_room() && member.lives(),
            read_only: record.flags.has(MemberFlags::READ_ONLY),
            draining: member.drains(),
            sent: totals.sent,
            received: totals.received,
        }
    }

    pub(super) fn peer_event(&self, id: &NodeId) -> Option<Event> {
        let view = self.view();
        let member = view.members.get(id).filter(|member| member.record.id != self.me)?;
        Some(Event::Peer { peer: self.peer(member, self.totals(id)) })
    }

    fn totals(&self, id: &NodeId) -> Totals {
        self.transport().totals().get(id).copied().unwrap_or_default()
    }

    pub(super) fn connections(&self) -> Vec<ConnectionInfo> {
        let view = self.view();
        let waiting = self.waiting_infos();
        // A node that waits is in no table yet: it goes by the name that `status` shows.
        let name = |id: &NodeId| {
            let asker = waiting.iter().find(|node| node.id == *id);
            asker.map_or_else(|| view.name(id), |node| node.name.clone())
        };
        let stats = self.transport().connections();
        let mut out: Vec<ConnectionInfo> = stats
            .into_iter()
            .map(|stat| ConnectionInfo {
                peer: name(&stat.peer),
                id: stat.peer,
                address: stat.addr.to_string(),
                lane: match stat.lane {
                    Lane::Control => "control".to_owned(),
                    Lane::Bulk => "bulk".to_owned(),
                },
                dialled: stat.dialled,
                age_s: stat.age.as_secs(),
                idle_ms: millis(stat.idle),
                sent: stat.sent,
                received: stat.received,
                in_flight: stat.in_flight,
            })
            .collect();
        out.sort_by(|a, b| (&a.peer, &a.lane).cmp(&(&b.peer, &b.lane)));
        out
    }

    pub(super) fn status(&self) -> Outcome<Status> {
        let view = self.view();
        let usage = self.store.usage();
        let repair = *self.repair_tally.borrow();
        let tally = match self.read_records(|view| catalogue::tally(view)) {
            // Why the disk failed is what is to be said, and not only that it did.
            Err(_) if usage.read_only.is_some() => Default::default(),
            tally => tally?,
        };
        let count = |state| {
            let others = view.members.values().filter(|m| m.record.id != self.me);
            u32::try_from(others.filter(|m| m.state == state).count()).unwrap_or(u32::MAX)
        };
        let counted = view.others().map(|member| member.record.counted);
        let elsewhere = counted.fold(0, u64::saturating_add);
        let space = self.sys.fs.space(&self.config.data_dir)?;
        let member = self.standing().is_some();
        let counted = *self.counted.borrow();
        let total = self.transport().total();
        let mut status = Status {
            identity: self.identity(),
            state: if member { NodeState::Member } else { NodeState::Waiting },
            code: self.code(),
            pid: std::process::id(),
            uptime_s: self.sys.clock.now().since(self.began).as_secs(),
            peers_alive: count(PeerState::Alive),
            peers_suspect: count(PeerState::Suspect),
            peers_dead: count(PeerState::Dead),
            waiting: self.waiting_infos(),
            files: tally.files,
            files_bytes: tally.bytes,
            history_bytes: counted.map(|counted| counted.bytes),
            history_ms: counted.map(|counted| millis(self.sys.clock.now().since(counted.at))),
            replicas: self.config.replicas,
            chunks_here: usage.claimed(),
            bytes_here: usage.replica_bytes,
            condemned_bytes: usage.condemned_bytes,
            cached_bytes: usage.cached_bytes,
            capacity: usage.capacity,
            free_bytes: space.available,
            under_replicated: repair.below.saturating_add(self.late()).saturating_add(elsewhere),
            repair_bytes: repair.bytes,
            need_nodes: repair.homeless,
            nodes_missing: u32::from(repair.nodes_missing),
            lost: repair.lost,
            repaired: repair.repaired,
            scrub: self.scrub_info(),
            problems: Vec::new(),
            read_only: usage.read_only.clone(),
            draining: *self.draining.borrow(),
            files_refused: 0,
            mounts: Vec::new(),
            sent_bytes: total.sent,
            received_bytes: total.received,
        };
        let refused = self.waiting_for_room();
        status.files_refused = refused.files;
        status.problems = self.problems(&status, usage.damaged);
        status.problems.extend(waiting_for_room(refused));
        Ok(status)
    }

    fn waiting_infos(&self) -> Vec<WaitingInfo> {
        let nodes = self.waiting_here().nodes;
        nodes.into_iter().map(|node| node.info()).collect()
    }

    /// What is not well, most urgent first, each once and with what would help. The only place
    /// where such sentences are made: screens print them as they are.
    fn problems(&self, status: &Status, damaged: u64) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(why) = &status.read_only {
            out.push(format!("this node takes nothing new: {why}"));
        }
        if status.draining {
            out.push(match status.chunks_here {
                0 => "this node is empty and takes nothing new; it can go:  p2pfs stop".to_owned(),
                left => format!("this node is being emptied: {} left", chunks(left, "is", "are")),
            });
        }
        if self.is_disk_full() {
            let (free, floor) = (text::size(status.free_bytes), text::size(self.config.free_floor));
            out.push(format!(
                "the disk is full: {free} are free, and {floor} have to stay free; nothing new is \
                 stored here"
            ));
        }
        if let Some(code) = &status.code {
            out.push(format!(
                "waiting for approval {code}; on a member run:  p2pfs approve {code}"
            ));
        }
        out.extend(lacking(status, self.view().with_room()));
        let fetched = damaged.saturating_sub(status.lost);
        if fetched > 0 {
            out.push(format!("{} {DAMAGED}", chunks(fetched, "is", "are")));
        }
        match self.damaged.count() {
            0 => {}
            1 => out.push(format!("1 record is {DAMAGED}")),
            many => out.push(format!("{many} records are {DAMAGED}")),
        }
        if status.lost > 0 {
            let lost = chunks(status.lost, "is", "are");
            out.push(format!(
                "{lost} damaged on this disk and on no other node that answers; a file that needs \
                 such a chunk cannot be read until a node that has it is back"
            ));
        }
        for member in self.view().members.values() {
            let silent = text::span(millis(self.sys.clock.now().since(member.since)));
            let name = text::shown(&member.name()).into_owned();
            match member.state {
                PeerState::Suspect => out.push(format!("{name} does not answer")),
                PeerState::Dead => out.push(format!("{name} has been dead for {silent}")),
                PeerState::Alive | PeerState::Left => {}
            }
        }
        out.extend(self.current_troubles());
        out
    }

    /// Begins to empty this node, or stops that; it is remembered.
    pub(super) async fn drain(self: &Arc<Self>, on: bool) -> Outcome<Status> {
        self.ready()?;
        let view = self.view();
        if on && !view.others().any(|member| member.has_space()) {
            return Err(Error::NobodyElse);
        }
        let shared = self.clone();
        let save = move || files::save_draining(&*shared.sys.fs, &shared.config.data_dir, on);
        self.job(save).await??;
        self.draining.send_if_modified(|now| std::mem::replace(now, on) != on);
        self.status()
    }

    pub(super) async fn connect(self: &Arc<Self>, peer: &str) -> Outcome<PeerInfo> {
        let view = self.view();
        let found = view.find(peer);
        let (addrs, expect) = match found.as_slice() {
            [id] => (view.addr(id).map(|addr| addr.addrs).unwrap_or_default(), Some(*id)),
            _ => (self.resolve(peer).await?, None),
        };
        let mut last = Error::UnknownPeer;
        for addr in addrs {
            match self.transport().dial(addr, expect, Lane::Control).await {
                Ok(id) => return self.met(id).await,
                Err(err) => last = err.into(),
            }
        }
        Err(last)
    }

    async fn resolve(&self, peer: &str) -> Outcome<Vec<std::net::SocketAddr>> {
        let (host, port) = peer.rsplit_once(':').ok_or(Error::UnknownPeer)?;
        let port = port.parse().map_err(|_| Error::UnknownPeer)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = self.sys.net.resolve(host, port).await;
        found.map_err(|_| Error::Resolve(host.to_owned()))
    }

    /// Waits until a node that answered is in the table.
    async fn met(self: &Arc<Self>, id: NodeId) -> Outcome<PeerInfo> {
        let mut views = self.views();
        let known = views.wait_for(|view| view.members.contains_key(&id));
        match tokio::time::timeout(crate::core::limits::ASK, known).await {
            Ok(Ok(view)) => {
                let member = view.members.get(&id).ok_or(Error::UnknownPeer)?;
                Ok(self.peer(member, self.totals(&id)))
            }
            _ => Err(Error::UnknownPeer),
        }
    }

    pub(super) fn complete(&self, kind: WordKind, prefix: &str) -> Vec<Candidate> {
        match kind {
            WordKind::File => self.complete_files(prefix, CANDIDATES_MAX),
            WordKind::Peer => {
                let fits = |peer: &PeerInfo| peer.name.starts_with(prefix);
                let peers = self.peers().into_iter().filter(fits).take(CANDIDATES_MAX);
                peers
                    .map(|peer| Candidate { help: peer.addresses.join(" "), word: peer.name })
                    .collect()
            }
            WordKind::Waiting => {
                let fits = |node: &WaitingInfo| node.name.starts_with(prefix);
                let waiting = self.waiting_infos().into_iter().filter(fits).take(CANDIDATES_MAX);
                waiting.map(|node| Candidate { word: node.name, help: node.address }).collect()
            }
        }
    }
}

/// What is said about chunks that lack copies: that they are being copied, or that it takes more
/// nodes, as long as fewer have room than there should be copies or one has found no place.
fn lacking(status: &Status, with_room: usize) -> Option<String> {
    if status.under_replicated == 0 {
        return None;
    }
    let below = chunks(status.under_replicated, "has", "have");
    let fewer = format!("{below} fewer copies than wanted");
    let with_room = u32::try_from(with_room).unwrap_or(u32::MAX);
    let short = u32::from(status.replicas).saturating_sub(with_room).max(status.nodes_missing);
    Some(match short {
        0 => format!("{fewer}; the missing ones are being made"),
        1 => format!("{fewer}: another node with room is needed"),
        more => format!("{fewer}: {more} more nodes with room are needed"),
    })
}

/// What is said about files of which no version could be stored.
fn waiting_for_room(refused: Refused) -> Option<String> {
    let what = match refused.files {
        0 => return None,
        1 => "1 file that was changed in a mount waits".to_owned(),
        more => format!("{more} files that were changed in a mount wait"),
    };
    Some(format!(
        "{what} for room in the swarm ({}): what was synced is on this node's disk, and is stored \
         when a node has room",
        text::size(refused.bytes)
    ))
}

/// `1 chunk is`, `2 chunks are`.
fn chunks(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 chunk {one}") } else { format!("{count} chunks {many}") }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
