//! `status`: is everything well? For people, for monitoring (`--check`) and as JSON.

use super::count;
use crate::cli::args::StatusArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::{self, shown};
use crate::wire::control::{Code, NodeState, Status};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &StatusArgs,
) -> Result<(), CommandError> {
    let status = client.status().await?;
    if ui.json {
        ui.object(&status)?;
    } else if !(args.check && ui.quiet) {
        for line in lines(&status) {
            ui.data(line)?;
        }
    }
    let well = status.state == NodeState::Member
        && status.problems.is_empty()
        && status.under_replicated == 0;
    if args.check && !well {
        return Err(CommandError::Answered(Code::Degraded));
    }
    Ok(())
}

/// The screen, line by line.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let me = &status.identity;
    let mut lines = vec![format!(
        "{} ({}) is running: up {}, pid {}, p2pfs {}",
        shown(&me.name),
        me.id.short(),
        text::span(status.uptime_s.max(1).saturating_mul(1_000)),
        status.pid,
        shown(&me.version)
    )];
    lines.push(format!("  Listen  {}", shown(&me.listen.join(", "))));
    if status.state == NodeState::Member {
        lines.extend(member(status));
    }
    lines.extend(attention(status));
    lines
}

/// What a member has to say.
fn member(status: &Status) -> Vec<String> {
    let peers = [
        (status.peers_alive, "alive"),
        (status.peers_suspect, "suspect"),
        (status.peers_dead, "dead"),
    ];
    let peers: Vec<String> = peers
        .iter()
        .filter(|(number, state)| *number > 0 || *state == "alive")
        .map(|(number, state)| format!("{number} {state}"))
        .collect();
    let swarm = status.identity.swarm;
    let swarm = swarm.map_or_else(String::new, |swarm| format!(", swarm {}", swarm.short()));
    let mut lines = vec![
        format!("  Peers   {}{swarm}", peers.join(", ")),
        format!(
            "  Files   {}, {}, {} wanted",
            count(status.files, "file"),
            text::size(status.files_bytes),
            super::copies(status.replicas)
        ),
        format!(
            "  Here    {}, {} of {} offered, {} free on the disk",
            count(status.chunks_here, "chunk"),
            text::size(status.bytes_here),
            text::size(status.capacity),
            text::size(status.free_bytes)
        ),
    ];
    if status.cached_bytes > 0 {
        lines.push(format!("  Cached  {}, freed when needed", text::size(status.cached_bytes)));
    }
    if status.repaired > 0 {
        let copies = if status.repaired == 1 { "copy" } else { "copies" };
        lines.push(format!("  Repair  {} {copies} made since the start", status.repaired));
    }
    lines
}

/// What is not well, in the daemon's words, and who waits to be let in.
fn attention(status: &Status) -> Vec<String> {
    let mut points: Vec<String> =
        status.problems.iter().map(|problem| format!("  ! {}", shown(problem))).collect();
    for node in &status.waiting {
        let (name, id, address) = (shown(&node.name), node.id.short(), shown(&node.address));
        points.push(format!("  ! {name} ({id}) at {address} waits for approval"));
        points.push(format!("    p2pfs approve CODE  (it shows the code)  or  p2pfs deny {id}"));
    }
    if points.is_empty() {
        return vec!["All is well".into()];
    }
    points.insert(0, "Needs attention".into());
    points
}
