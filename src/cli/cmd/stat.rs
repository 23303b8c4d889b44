//! `stat`: everything about one file, directory or link.

use super::count;
use crate::cli::args::StatArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown, shown_bytes};
use crate::wire::control::{FileKind, FileStat, FileTag, PeerState, Target};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &StatArgs,
) -> Result<(), CommandError> {
    let target = target::parse(&args.target)?;
    if args.chunks {
        return chunks(ui, client, target).await;
    }
    let stat = client.stat(target.clone()).await;
    let stat = stat.map_err(|failure| target::explain(&target, failure))?;
    if ui.json {
        return ui.object(&stat);
    }
    for (name, value) in lines(&stat) {
        ui.data(format_args!("{name:<9} {value}"))?;
    }
    Ok(())
}

async fn chunks(ui: &Ui, client: &Client, target: Target) -> Result<(), CommandError> {
    let mut chunks = client.chunks(target.clone()).await?;
    let columns = &[
        ("CHUNK", Align::Right),
        ("OFFSET", Align::Right),
        ("SIZE", Align::Right),
        ("ID", Align::Left),
        ("COPIES", Align::Right),
        ("HOLDERS", Align::Left),
    ];
    let mut table = Table::new(ui, columns);
    while let Some(chunk) = chunks.next().await.map_err(|err| target::explain(&target, err))? {
        if ui.json {
            ui.object(&chunk)?;
            continue;
        }
        let stored = chunk.id.is_some();
        table.row(vec![
            chunk.index.to_string(),
            chunk.offset.to_string(),
            text::size(chunk.len),
            chunk.id.map_or_else(|| "(all zero)".into(), |id| id.short()),
            if stored { chunk.holders.len().to_string() } else { "-".into() },
            chunk.holders.join(", "),
        ])?;
    }
    if !ui.json && !table.finish()? {
        ui.say("it is empty and has no chunks");
    }
    Ok(())
}

fn lines(stat: &FileStat) -> Vec<(&'static str, String)> {
    let info = &stat.info;
    let path = shown_bytes(&info.path.0);
    let name = match (stat.listed, stat.former) {
        (false, _) => "(unlisted)".into(),
        (true, false) => path,
        (true, true) => format!("(a former version of {path})"),
    };
    let mut lines = vec![("Name", name)];
    match (info.kind, &info.target) {
        (FileKind::Dir, _) => lines.push(("Kind", "directory".to_owned())),
        (FileKind::Link, Some(to)) => {
            lines.push(("Kind", format!("link to {}", shown_bytes(&to.0))));
        }
        (FileKind::Special, _) => lines.push(("Kind", "pipe, socket or device".to_owned())),
        _ => {}
    }
    if let Some(hash) = info.hash {
        lines.push(("Hash", hash.to_string()));
        let zero = match stat.zero_chunks {
            0 => String::new(),
            zero => format!(", {zero} of them all zero"),
        };
        let chunks = count(stat.chunks, "chunk");
        let size = text::size(info.size);
        let bytes = match info.size {
            0..1024 => String::new(),
            bytes => format!(" ({bytes} B)"),
        };
        lines.push(("Size", format!("{size}{bytes} in {chunks}{zero}")));
        if info.replicas == 0 {
            lines.push(("Shared", format!("in place by {}, nothing is stored", shown(&info.by))));
        } else {
            lines.push(("Stored", format!("{} per copy", text::size(stat.stored_bytes))));
            let copies = info.copies.map_or_else(|| "?".into(), |copies| copies.to_string());
            lines.push(("Copies", format!("{copies} of {}", info.replicas)));
        }
    }
    if info.time_ms > 0 {
        lines.push(("Made", format!("{} UTC by {}", text::utc(info.time_ms), shown(&info.by))));
    }
    if let Some(mtime) = info
        .mtime_ns
        .filter(|nanos| *nanos > 0)
        .and_then(|nanos| u64::try_from(nanos / 1_000_000).ok())
    {
        lines.push(("Modified", format!("{} UTC", text::utc(mtime))));
    }
    if let Some(mode) = info.mode {
        lines.push(("Mode", format!("{:04o}", mode & 0o7777)));
    }
    if !info.tags.is_empty() {
        let tags: Vec<&str> = info.tags.iter().map(FileTag::as_str).collect();
        lines.push(("Tags", tags.join(", ")));
    }
    for holder in &stat.holders {
        let here = if holder.here { ", this node" } else { "" };
        let state = match holder.state {
            PeerState::Alive => String::new(),
            state => format!(", {}", super::peers::state(state)),
        };
        let chunks = count(holder.chunks, "chunk");
        lines.push(("Holder", format!("{} ({chunks}{here}{state})", shown(&holder.name))));
    }
    lines
}
