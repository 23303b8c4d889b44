//! `ls`: the files of the swarm, streamed, names last because they may be anything.

use super::{count, directories};
use crate::cli::args::LsArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::{Client, Items};
use crate::sys::Clock;
use crate::sys::os::OsClock;
use crate::text::{self, shown_bytes};
use crate::wire::control::{FileInfo, FileKind};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &LsArgs,
) -> Result<(), CommandError> {
    if args.removed {
        return super::rm::list(ui, client, target::path(&args.path)?).await;
    }
    if args.shares {
        return super::share::list(ui, client, args).await;
    }
    let mut files = client.list(target::path(&args.path)?, args.recursive).await?;
    if ui.json {
        while let Some(file) = files.next().await? {
            ui.object(&file)?;
        }
        return Ok(());
    }
    let mut totals = Totals::default();
    let table = Table::new(ui, columns(args.long));
    if !rows(table, &mut files, args.long, &mut totals).await? {
        ui.say("no files here; store one:  p2pfs put FILE");
        return Ok(());
    }
    let missing = match totals.below {
        0 => String::new(),
        1 => ", 1 file has fewer copies than wanted:  p2pfs status".into(),
        below => format!(", {below} files have fewer copies than wanted:  p2pfs status"),
    };
    ui.flush()?;
    ui.remark(match totals.files {
        0 => directories(totals.dirs),
        files => format!("{}, {}{missing}", count(files, "file"), text::size(totals.bytes)),
    });
    Ok(())
}

/// The table of everything, for a screen that says the rest itself.
pub(super) async fn table(
    ui: &Ui,
    client: &Client,
    margin: &'static str,
) -> Result<(), CommandError> {
    let mut files = client.list("/".into(), true).await?;
    let table = Table::new(ui, columns(false)).indented(margin);
    rows(table, &mut files, false, &mut Totals::default()).await?;
    Ok(())
}

#[derive(Default)]
struct Totals {
    files: u64,
    dirs: u64,
    bytes: u64,
    below: u64,
}

/// Prints the rows; true when there was any.
async fn rows(
    mut table: Table<'_>,
    files: &mut Items<FileInfo>,
    whole: bool,
    totals: &mut Totals,
) -> Result<bool, CommandError> {
    let now = OsClock::new().wall_ms();
    while let Some(file) = files.next().await? {
        if file.kind == FileKind::Dir {
            totals.dirs += 1;
        } else {
            totals.files += 1;
            totals.bytes = totals.bytes.saturating_add(file.size);
            totals.below += u64::from(file.copies.is_some_and(|copies| copies < file.replicas));
        }
        table.row(if whole { long(&file) } else { short(&file, now) })?;
    }
    table.finish()
}

fn columns(long: bool) -> &'static [(&'static str, Align)] {
    use Align::{Left, Right};
    if long {
        &[
            ("MODE", Left),
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
    let age = super::ago(now.saturating_sub(file.time_ms));
    vec![hash, size(file), copies(file), age, name(file)]
}

fn long(file: &FileInfo) -> Vec<String> {
    let hash = file.hash.map_or_else(|| "-".into(), |hash| hash.to_string());
    let modified = file.mtime_ns.filter(|nanos| *nanos > 0);
    let modified = modified.and_then(|nanos| u64::try_from(nanos / 1_000_000).ok());
    let time = text::utc(modified.unwrap_or(file.time_ms));
    vec![mode(file), hash, size(file), copies(file), time, file.by.clone(), name(file)]
}

/// `-rw-r--r--`
fn mode(file: &FileInfo) -> String {
    let kind = match file.kind {
        FileKind::File => '-',
        FileKind::Dir => 'd',
        FileKind::Link => 'l',
        FileKind::Special => 's',
    };
    let bits = file.mode.unwrap_or(0);
    let bit = |at: u32| if bits & (1 << at) == 0 { '-' } else { ['x', 'w', 'r'][at as usize % 3] };
    std::iter::once(kind).chain((0..9).rev().map(bit)).collect()
}

fn size(file: &FileInfo) -> String {
    if file.kind == FileKind::Dir { "-".into() } else { text::size(file.size) }
}

/// `3/3`, `1/3 !` when there are too few, `?/3` when it is not known.
pub(super) fn copies(file: &FileInfo) -> String {
    match file.copies {
        _ if file.kind != FileKind::File => "-".into(),
        Some(copies) if copies < file.replicas => format!("{copies}/{} !", file.replicas),
        Some(copies) => format!("{copies}/{}", file.replicas),
        None => format!("?/{}", file.replicas),
    }
}

fn name(file: &FileInfo) -> String {
    let name = shown_bytes(&file.path.0);
    match (file.kind, &file.target) {
        (FileKind::Dir, _) if file.path.0 != b"/" => name + "/",
        (FileKind::Link, Some(target)) => format!("{name} -> {}", shown_bytes(&target.0)),
        _ => name,
    }
}
