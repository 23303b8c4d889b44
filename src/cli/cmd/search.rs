//! `search`: what has names, tags, sizes or owners that fit, the best first.

use crate::cli::args::SearchArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::sys::Clock;
use crate::sys::os::OsClock;
use crate::text::{self, shown_bytes};
use crate::wire::control::{Code, Failure, FileKind, FoundInfo, Search, Searched};
use std::time::Duration;

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &SearchArgs,
) -> Result<(), CommandError> {
    let (found, searched) = client.search(question(args)).await?;
    if searched.fit == 0 {
        return Err(nothing(args).into());
    }
    let now = OsClock::new().wall_ms();
    let columns = [
        ("HASH", Align::Left),
        ("SIZE", Align::Right),
        ("AGE", Align::Right),
        ("OWNER", Align::Left),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(ui, &columns);
    for one in &found {
        if ui.json { ui.object(one)? } else { table.row(row(one, now))? }
    }
    table.finish()?;
    ui.flush()?;
    ui.say(summary(found.len() as u64, &searched));
    Ok(())
}

fn question(args: &SearchArgs) -> Search {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let kind = |text: &String| match text.as_str() {
        "file" => Ok(FileKind::File),
        "dir" => Ok(FileKind::Dir),
        "link" => Ok(FileKind::Link),
        ending => Err(ending.trim_start_matches('.').to_owned()),
    };
    let types: Vec<_> = args.kind.iter().map(kind).collect();
    Search {
        words: args.words.clone(),
        kinds: types.iter().filter_map(|one| one.as_ref().ok().copied()).collect(),
        endings: types.iter().filter_map(|one| one.as_ref().err().cloned()).collect(),
        min: args.min,
        max: args.max,
        newer_ms: args.newer.map(millis),
        older_ms: args.older.map(millis),
        owner: args.owner.clone(),
        tags: args.tags.clone(),
        limit: Some(args.limit),
    }
}

fn row(one: &FoundInfo, now: u64) -> Vec<String> {
    let hash = one.hash.map_or_else(|| "-".into(), |hash| hash.short());
    let size = if one.kind == FileKind::Dir { "-".into() } else { text::size(one.size) };
    let age = super::ago(now.saturating_sub(one.time_ms));
    let slash = if one.kind == FileKind::Dir { "/" } else { "" };
    let of = if one.shared { format!("{}:", one.owner) } else { String::new() };
    vec![hash, size, age, one.owner.clone(), of + &shown_bytes(&one.path.0) + slash]
}

/// `2 of 100213 names fit (11 ms)`
fn summary(shown: u64, searched: &Searched) -> String {
    let Searched { looked, fit, took_ms } = searched;
    let took = text::took(*took_ms);
    let best = if *fit > shown { format!(", the best {shown} are shown") } else { String::new() };
    let names = if *looked == 1 { "name" } else { "names" };
    let verb = if *fit == 1 { "fits" } else { "fit" };
    format!("{fit} of {looked} {names} {verb}{best} ({took})")
}

fn nothing(args: &SearchArgs) -> Failure {
    let message = match args.words.join(" ") {
        words if words.trim().is_empty() => "nothing fits".to_owned(),
        words => format!("nothing fits `{words}`"),
    };
    Failure::new(Code::NotFound, message).hint("all files:  p2pfs ls -R")
}
