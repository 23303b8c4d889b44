//! `watch`: what happens in the tree, as it happens.

use crate::cli::args::WatchArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::{self, shown, shown_bytes};
use crate::wire::control::{Code, FileInfo, FileKind, Watched};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &WatchArgs,
) -> Result<(), CommandError> {
    let mut news = client.watch(target::path(&args.path)?).await?;
    ui.explain("watching; Ctrl-C ends it");
    while let Some(one) = news.next().await? {
        if ui.json {
            ui.object(&one)?;
        } else if let Watched::Missed { count } = one {
            ui.fault(missed(count));
        } else {
            ui.data(line(&one))?;
        }
        // Somebody waits for each line.
        ui.flush()?;
    }
    ui.say("the daemon has stopped");
    Ok(())
}

/// Ctrl-C is how a watch ends: there is nothing to say about it.
pub(in crate::cli) fn ended(err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure) if failure.code == Code::Interrupted => {
            CommandError::Answered(Code::Interrupted)
        }
        err => err,
    }
}

fn missed(count: u64) -> String {
    // Each record that was not looked at has one, and may have many.
    let changes = super::count(count, "change");
    format!(
        "missed {changes} or more: they came faster than they were read; \
         what is there:  p2pfs ls -R"
    )
}

/// `2026-11-22 10:15 created /notes.txt, 6.9 KiB by calm-heron`
fn line(news: &Watched) -> String {
    let (what, file) = match news {
        Watched::Created { file } => ("created ", file),
        Watched::Changed { file } => ("changed ", file),
        Watched::Conflict { file } => ("conflict", file),
        Watched::Moved { from, file, moved_ms, moved_by } => {
            let from =
                from.as_ref().map_or_else(|| "elsewhere".into(), |from| shown_bytes(&from.0));
            let (when, by) = (text::utc(*moved_ms), shown(moved_by));
            return format!("{when} moved    {} from {from} by {by}", name(file));
        }
        Watched::Removed { path, time_ms, by } => {
            let (when, by) = (text::utc(*time_ms), shown(by));
            return format!("{when} removed  {} by {by}", shown_bytes(&path.0));
        }
        Watched::Missed { count } => return missed(*count),
    };
    let size = match file.kind {
        FileKind::File => format!(", {}", text::size(file.size)),
        FileKind::Dir | FileKind::Link | FileKind::Special => String::new(),
    };
    let (when, by) = (text::utc(file.time_ms), shown(&file.by));
    format!("{when} {what} {}{size} by {by}", name(file))
}

fn name(file: &FileInfo) -> String {
    let name = shown_bytes(&file.path.0);
    match (&file.target, file.kind) {
        (Some(target), _) => format!("{name} -> {}", shown_bytes(&target.0)),
        (None, FileKind::Dir) if file.path.0 != b"/" => name + "/",
        _ => name,
    }
}
