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
        "running: {} ({}), up {}, pid {}, p2pfs {}",
        shown(&me.name),
        me.id.short(),
        text::span(status.uptime_s.saturating_mul(1_000)),
        status.pid,
        shown(&me.version)
    )];
    if status.state == NodeState::Waiting {
        let code = status.code.as_deref().map(shown).unwrap_or_default();
        lines.push(format!("waiting for approval {code}"));
        lines.push(format!("  on a member run:  p2pfs approve {code}"));
        lines.extend(status.problems.iter().map(|problem| format!("  ! {}", shown(problem))));
        return lines;
    }
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
    let swarm = me.swarm.map(|swarm| format!(" of swarm {}", swarm.short())).unwrap_or_default();
    lines.push(format!("  Peers    {}{swarm}", peers.join(", ")));
    lines.push(format!("  Listen   {}", shown(&me.listen.join(", "))));
    lines.push(format!(
        "  Files    {}, {}, {} wanted",
        count(status.files, "file"),
        text::size(status.files_bytes),
        super::copies(status.replicas)
    ));
    lines.push(format!(
        "  Here     {} in {} of {} offered, {} free on the disk",
        text::size(status.bytes_here),
        count(status.chunks_here, "chunk"),
        text::size(status.capacity),
        text::size(status.free_bytes)
    ));
    if status.cached_bytes > 0 {
        lines.push(format!("  Cached   {}, freed when needed", text::size(status.cached_bytes)));
    }
    if status.repaired > 0 {
        lines.push(format!("  Repaired {}", count(status.repaired, "chunk")));
    }
    lines.extend(attention(status));
    lines
}

/// What is not well, and what would help.
fn attention(status: &Status) -> Vec<String> {
    let mut points = Vec::new();
    if let Some(why) = &status.read_only {
        points.push(format!("nothing new is taken: {}", shown(why)));
    }
    if status.under_replicated > 0 {
        points.push(format!(
            "{} below {}, {} to copy",
            count(status.under_replicated, "chunk"),
            super::copies(status.replicas),
            text::size(status.repair_bytes)
        ));
    }
    if status.nodes_missing > 0 {
        points.push(format!(
            "{} with room needed for that:  p2pfs daemon --bootstrap HOST:4000",
            match status.nodes_missing {
                1 => "another node is".into(),
                missing => format!("{missing} further nodes are"),
            }
        ));
    }
    points.extend(status.problems.iter().map(|problem| shown(problem).into_owned()));
    points.extend(status.waiting.iter().map(|node| {
        format!(
            "{} ({}) at {} waits for approval:  p2pfs approve CODE  (its daemon shows the code) \
             or  p2pfs deny {}",
            shown(&node.name),
            node.id.short(),
            shown(&node.address),
            node.id.short()
        )
    }));
    if points.is_empty() {
        return vec!["  All is well".into()];
    }
    let head = std::iter::once("Needs attention".to_owned());
    head.chain(points.into_iter().map(|point| format!("  ! {point}"))).collect()
}
