//! `peers`, `connect`, `approve`, `deny`: the other nodes.

use crate::cli::args::{ApproveArgs, ConnectArgs, DenyArgs, PeersArgs};
use crate::cli::error::CommandError;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::config::host_port;
use crate::text::{self, shown};
use crate::wire::control::{Code, ConnectionInfo, Failure, PeerInfo, PeerState};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &PeersArgs,
) -> Result<(), CommandError> {
    if args.connections {
        return connections(ui, client).await;
    }
    let mut peers = client.peers().await?;
    let mut table = Table::new(
        ui,
        &[
            ("NAME", Align::Left),
            ("ID", Align::Left),
            ("ADDRESS", Align::Left),
            ("STATE", Align::Left),
            ("RTT", Align::Right),
            ("USED", Align::Right),
            ("OFFERED", Align::Right),
            ("SEEN", Align::Right),
            ("ZONE", Align::Left),
            ("VERSION", Align::Left),
        ],
    );
    while let Some(peer) = peers.next().await? {
        if ui.json { ui.object(&peer)? } else { table.row(row(&peer))? }
    }
    if !ui.json && !table.finish()? {
        ui.say("no peers yet; on another machine:  p2pfs daemon --bootstrap HOST:4000");
    }
    Ok(())
}

fn row(peer: &PeerInfo) -> Vec<String> {
    let full = match peer {
        PeerInfo { read_only: true, .. } => " (read-only)",
        PeerInfo { draining: true, .. } => " (draining)",
        PeerInfo { full: true, .. } => " (full)",
        PeerInfo { .. } => "",
    };
    vec![
        peer.name.clone(),
        peer.id.short(),
        peer.addresses.first().cloned().unwrap_or_else(|| "-".into()),
        format!("{}{full}", state(peer.state)),
        peer.rtt_us.map_or_else(|| "-".into(), text::rtt),
        percent(peer.used, peer.capacity),
        text::size(peer.capacity),
        super::ago(peer.seen_ms),
        if peer.zone.is_empty() { "-".into() } else { peer.zone.clone() },
        peer.version.clone(),
    ]
}

/// Peers tell how full they are in steps of 1/64, which is no number of bytes.
fn percent(used: u64, capacity: u64) -> String {
    let percent = u128::from(used) * 100 / u128::from(capacity.max(1));
    format!("{percent} %")
}

/// The word for a peer's life.
pub(super) const fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Dead => "dead",
        PeerState::Left => "left",
    }
}

async fn connections(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    let mut connections = client.connections().await?;
    let mut table = Table::new(
        ui,
        &[
            ("PEER", Align::Left),
            ("ADDRESS", Align::Left),
            ("LANE", Align::Left),
            ("DIALLED", Align::Left),
            ("AGE", Align::Right),
            ("IDLE", Align::Right),
            ("SENT", Align::Right),
            ("RECEIVED", Align::Right),
            ("REQUESTS", Align::Right),
        ],
    );
    while let Some(connection) = connections.next().await? {
        if ui.json { ui.object(&connection)? } else { table.row(connection_row(&connection))? }
    }
    if !ui.json && !table.finish()? {
        ui.say("no open connections");
    }
    Ok(())
}

fn connection_row(connection: &ConnectionInfo) -> Vec<String> {
    vec![
        connection.peer.clone(),
        connection.address.clone(),
        connection.lane.clone(),
        if connection.dialled { "here".into() } else { "there".into() },
        text::span(connection.age_s.max(1).saturating_mul(1_000)),
        text::span(connection.idle_ms),
        text::size(connection.sent),
        text::size(connection.received),
        connection.in_flight.to_string(),
    ]
}

pub(in crate::cli) async fn connect(
    ui: &Ui,
    client: &Client,
    args: &ConnectArgs,
) -> Result<(), CommandError> {
    // A name and an id have no colon: this is meant as an address.
    if args.peer.contains(':') {
        host_port(&args.peer).map_err(|err| {
            Failure::new(Code::Usage, err.0).hint("by address:  p2pfs connect HOST:4000")
        })?;
    }
    let peer = client.dial(args.peer.clone()).await?;
    if ui.json {
        return ui.object(&peer);
    }
    let rtt = peer.rtt_us.map(|rtt| format!(", {}", text::rtt(rtt))).unwrap_or_default();
    let address = peer.addresses.first().map_or(&*args.peer, |address| address);
    ui.say(format_args!("connected to {} at {}{rtt}", shown(&peer.name), shown(address)));
    Ok(())
}

pub(in crate::cli) async fn approve(
    ui: &Ui,
    client: &Client,
    args: &ApproveArgs,
) -> Result<(), CommandError> {
    let approved = client.approve(args.code.trim()).await?;
    if ui.json {
        return ui.object(&approved);
    }
    let node = &approved.node;
    ui.say(format_args!("{} ({}) is a member now", shown(&node.name), node.id.short()));
    Ok(())
}

pub(in crate::cli) async fn deny(
    ui: &Ui,
    client: &Client,
    args: &DenyArgs,
) -> Result<(), CommandError> {
    let denied = client.deny(args.peer.trim()).await?;
    if ui.json {
        return ui.object(&denied);
    }
    let node = &denied.node;
    ui.say(format_args!("{} ({}) was turned away", shown(&node.name), node.id.short()));
    Ok(())
}
