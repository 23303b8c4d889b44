//! `status`: is everything well? For people, for monitoring (`--check`) and as JSON; and what the
//! node does by itself (`--workers`).

use super::count;
use crate::cli::args::StatusArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown};
use crate::wire::control::{Code, NodeState, Status, WorkerInfo, WorkerState};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &StatusArgs,
) -> Result<(), CommandError> {
    if args.workers {
        return workers(ui, client).await;
    }
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
    if let (Some(bytes), Some(ms)) = (status.history_bytes.filter(|b| *b > 0), status.history_ms) {
        let bytes = text::size(bytes);
        lines.push(format!(
            "  History up to {bytes} in former versions and removed files, counted {} ago",
            text::span(ms)
        ));
    }
    if status.cached_bytes > 0 {
        lines.push(format!("  Cached  {}, freed when needed", text::size(status.cached_bytes)));
    }
    if status.condemned_bytes > 0 {
        let bytes = text::size(status.condemned_bytes);
        lines.push(format!("  Freed   {bytes} soon: nobody needs it any more"));
    }
    for mount in &status.mounts {
        lines.push(format!("  Mount   {}", super::mount::line(mount)));
    }
    if status.repaired > 0 {
        let copies = if status.repaired == 1 { "copy" } else { "copies" };
        lines.push(format!("  Repair  {} {copies} made since the start", status.repaired));
    }
    if let Some(scrub) = status.scrub.as_ref().and_then(super::scrub::summary) {
        lines.push(format!("  Scrub   {scrub}"));
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

async fn workers(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    let mut workers = client.workers().await?;
    let mut table = Table::new(
        ui,
        &[
            ("WORKER", Align::Left),
            ("STATE", Align::Left),
            ("PROGRESS", Align::Left),
            ("RATE", Align::Right),
            ("ERRORS", Align::Right),
            ("NEXT", Align::Right),
        ],
    );
    let mut errors = Vec::new();
    while let Some(worker) = workers.next().await? {
        if ui.json {
            ui.object(&worker)?;
            continue;
        }
        if let (Some(error), Some(ago)) = (&worker.last_error, worker.last_error_ms) {
            errors.push(format!("{}, {} ago: {}", worker.name, text::span(ago), shown(error)));
        }
        table.row(worker_row(&worker))?;
    }
    if !ui.json {
        table.finish()?;
        errors.iter().for_each(|error| ui.say(format_args!("last error of {error}")));
    }
    Ok(())
}

fn worker_row(worker: &WorkerInfo) -> Vec<String> {
    let dash = || "-".to_owned();
    let state = match worker.state {
        WorkerState::Busy => "busy",
        WorkerState::Throttled => "throttled",
        WorkerState::Idle => "idle",
        WorkerState::Waiting => "waiting",
    };
    let rate = match (worker.rate, &worker.rate_unit) {
        (Some(rate), Some(unit)) if rate > 0 => format!("{}/s", amount(rate, unit)),
        _ => dash(),
    };
    vec![
        worker.name.clone(),
        state.into(),
        Some(progress(worker)).filter(|words| !words.is_empty()).unwrap_or_else(dash),
        rate,
        worker.errors.to_string(),
        worker.next_ms.map_or_else(dash, text::span),
    ]
}

/// How far a worker is: `12 of 30 chunks`, `1.2 GiB of 3.0 GiB`, or what it is at.
fn progress(worker: &WorkerInfo) -> String {
    let words = match (worker.done, worker.total, worker.unit.as_deref()) {
        (Some(done), Some(total), Some("bytes")) => {
            format!("{} of {}", text::size(done), text::size(total))
        }
        (Some(done), Some(total), Some(unit)) => format!("{done} of {}", amount(total, unit)),
        _ => String::new(),
    };
    let parts = [words, worker.doing.clone()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn amount(number: u64, unit: &str) -> String {
    match unit {
        "bytes" => text::size(number),
        unit if number == 1 => format!("1 {}", unit.strip_suffix('s').unwrap_or(unit)),
        unit => format!("{number} {unit}"),
    }
}
