//! `ls`: the files of the swarm, streamed, names last because they may be anything.

use super::count;
use crate::cli::args::LsArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::sys::Clock;
use crate::sys::os::OsClock;
use crate::text::{self, shown_bytes};
use crate::wire::control::{FileInfo, FileKind};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &LsArgs,
) -> Result<(), CommandError> {
    let mut files = client.list(target::path(&args.path)?, args.recursive).await?;
    if ui.json {
        while let Some(file) = files.next().await? {
            ui.object(&file)?;
        }
        return Ok(());
    }
    let mut table = Table::new(ui, columns(args.long));
    let now = OsClock::new().wall_ms();
    let (mut number, mut bytes, mut below) = (0, 0_u64, 0);
    while let Some(file) = files.next().await? {
        if file.kind != FileKind::Dir {
            number += 1;
            bytes = bytes.saturating_add(file.size);
            below += u64::from(file.copies.is_some_and(|copies| copies < file.replicas));
        }
        table.row(if args.long { long(&file) } else { short(&file, now) })?;
    }
    if !table.finish()? {
        ui.say("no files here; store one:  p2pfs put FILE");
        return Ok(());
    }
    let missing = match below {
        0 => String::new(),
        below => format!(", {} below the wanted copies (p2pfs status)", count(below, "file")),
    };
    ui.flush()?;
    ui.remark(format_args!("{}, {}{missing}", count(number, "file"), text::size(bytes)));
    Ok(())
}

fn columns(long: bool) -> &'static [(&'static str, Align)] {
    use Align::{Left, Right};
    if long {
        &[
            ("HASH", Left),
            ("SIZE", Right),
            ("COPIES", Left),
            ("MODIFIED (UTC)", Left),
            ("BY", Left),
            ("NAME", Left),
        ]
    } else {
        &[("HASH", Left), ("SIZE", Right), ("COPIES", Left), ("AGE", Right), ("NAME", Left)]
    }
}

fn short(file: &FileInfo, now: u64) -> Vec<String> {
    let hash = file.hash.map_or_else(|| "-".into(), |hash| hash.short());
    let age = text::span(now.saturating_sub(file.time_ms));
    vec![hash, size(file), copies(file), age, name(file)]
}

fn long(file: &FileInfo) -> Vec<String> {
    let hash = file.hash.map_or_else(|| "-".into(), |hash| hash.to_string());
    let time = text::utc(file.time_ms);
    vec![hash, size(file), copies(file), time, file.by.clone(), name(file)]
}

fn size(file: &FileInfo) -> String {
    if file.kind == FileKind::Dir { "-".into() } else { text::size(file.size) }
}

/// `3/3`, `1/3 !` when there are too few, `?/3` when it is not known.
pub(super) fn copies(file: &FileInfo) -> String {
    match file.copies {
        _ if file.kind == FileKind::Dir => "-".into(),
        Some(copies) if copies < file.replicas => format!("{copies}/{} !", file.replicas),
        Some(copies) => format!("{copies}/{}", file.replicas),
        None => format!("?/{}", file.replicas),
    }
}

fn name(file: &FileInfo) -> String {
    let slash = if file.kind == FileKind::Dir && file.path.0 != b"/" { "/" } else { "" };
    shown_bytes(&file.path.0) + slash
}
