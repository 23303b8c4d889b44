//! `conflicts`: what was changed at several places at once, and which of it is wanted.

use super::count;
use crate::cli::args::ConflictsArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown_bytes};
use crate::wire::control::{Code, Failure, FileInfo, FileKind, PathText};
use std::os::unix::ffi::OsStrExt;

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &ConflictsArgs,
) -> Result<(), CommandError> {
    let path = target::path(&args.path)?;
    match (&args.keep, args.keep_both) {
        (None, false) => list(ui, client, path).await,
        _ if path.0 == b"/" => Err(Failure::new(Code::Usage, "which conflict is meant?")
            .hint("which there are:  p2pfs conflicts")
            .hint("one of them:  p2pfs conflicts NAME --keep-both")
            .into()),
        (keep, _) => {
            let keep = keep.as_ref().map(|keep| PathText(keep.as_bytes().to_vec()));
            resolve(ui, client, path, keep).await
        }
    }
}

async fn list(ui: &Ui, client: &Client, path: PathText) -> Result<(), CommandError> {
    let mut conflicts = client.conflicts(path).await?;
    let columns = &[
        ("HASH", Align::Left),
        ("SIZE", Align::Right),
        ("WHEN (UTC)", Align::Left),
        ("BY", Align::Left),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(ui, columns);
    let mut found = 0;
    while let Some(conflict) = conflicts.next().await? {
        found += 1;
        if ui.json {
            ui.object(&conflict)?;
            continue;
        }
        for version in &conflict.versions {
            table.row(row(version))?;
        }
    }
    if ui.json {
        return Ok(());
    }
    table.finish()?;
    ui.flush()?;
    match found {
        0 => ui.say("nothing is in conflict"),
        _ => ui.remark(format_args!(
            "{}; keep one with:  p2pfs conflicts NAME --keep HASH  \
             or all with:  p2pfs conflicts NAME --keep-both",
            count(found, "conflict")
        )),
    }
    Ok(())
}

fn row(version: &FileInfo) -> Vec<String> {
    let slash = if version.kind == FileKind::Dir { "/" } else { "" };
    vec![
        version.hash.map_or_else(|| "-".into(), |hash| hash.short()),
        if slash.is_empty() { text::size(version.size) } else { "-".into() },
        text::utc(version.time_ms),
        version.by.clone(),
        shown_bytes(&version.path.0) + slash,
    ]
}

async fn resolve(
    ui: &Ui,
    client: &Client,
    path: PathText,
    keep: Option<PathText>,
) -> Result<(), CommandError> {
    let resolved = client.resolve(path, keep).await?;
    if ui.json {
        return ui.object(&resolved);
    }
    let name = shown_bytes(&resolved.path.0);
    match resolved.dropped {
        0 => {
            for kept in &resolved.kept[1..] {
                ui.say(format_args!("{} is a file of its own now", shown_bytes(&kept.0)));
            }
        }
        dropped => ui.say(format_args!(
            "{name} is the only one now; {} in its history:  p2pfs history {name}",
            if dropped == 1 { "the other is".to_owned() } else { format!("{dropped} others are") }
        )),
    }
    Ok(())
}
