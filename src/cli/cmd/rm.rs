//! `rm` and `restore`: what goes, and until when it can come back.

use super::{count, directories};
use crate::cli::args::{RestoreArgs, RmArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::sys::Clock;
use crate::sys::os::OsClock;
use crate::text::{self, shown_bytes};
use crate::wire::control::{Code, Failure, FileKind, PathText, Removed, Restored, Rm, Target};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &RmArgs,
) -> Result<(), CommandError> {
    let targets = args.targets.iter().map(|text| target::parse(text));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    if args.purge && !args.yes && !ui.confirm("Purged content cannot be restored. Go on?")? {
        return Err(Failure::new(Code::Usage, "purged content cannot be restored")
            .hint("if that is what you want, add --yes")
            .hint("without --purge it can be restored for a while:  p2pfs restore NAME")
            .into());
    }
    for target in targets {
        let rm = Rm { target: target.clone(), recursive: args.recursive, purge: args.purge };
        let removed = client.rm(rm).await;
        let removed = removed.map_err(|failure| target::explain(&target, failure))?;
        if ui.json {
            ui.object(&removed)?;
        } else {
            ui.say(sentence(&target, args, &removed));
        }
    }
    Ok(())
}

fn sentence(target: &Target, args: &RmArgs, removed: &Removed) -> String {
    let size = match removed.bytes {
        0 => String::new(),
        bytes => format!(", {}", text::size(bytes)),
    };
    let what = match (removed.files, removed.dirs) {
        (0, 0) => return "there was nothing left to purge".to_owned(),
        (0, dirs) => directories(dirs),
        (files, 0) => format!("{}{size}", count(files, "file")),
        (files, dirs) => format!("{} and {}{size}", count(files, "file"), directories(dirs)),
    };
    let grace = text::span(removed.grace_ms);
    if removed.purged {
        let room = format!("purged {what}; the room is free again after {grace}");
        match removed.kept {
            0 => room,
            all if all == removed.files => {
                format!("purged {what}; the content stays, because it has another name or owner")
            }
            some => format!("{room}, but for {some} of them, which have another name or owner"),
        }
    } else {
        let kept = text::span(removed.restorable_ms);
        let named = removed.path.as_ref().map(|path| shown_bytes(&path.0));
        let name = named.clone().unwrap_or_else(|| "NAME".to_owned());
        // Who gave a hash is told which name it was.
        let what = match (target, named) {
            (Target::Path(_), _) | (_, None) => what,
            (_, Some(named)) => format!("{named}: {what}"),
        };
        let all = if args.recursive { "-r " } else { "" };
        format!("removed {what}; for {kept} it comes back with:  p2pfs restore {all}{name}")
    }
}

pub(in crate::cli) async fn restore(
    ui: &Ui,
    client: &Client,
    args: &RestoreArgs,
) -> Result<(), CommandError> {
    let path = target::path(&args.path)?;
    let restored = client.restore(path, args.recursive).await?;
    if ui.json {
        return ui.object(&restored);
    }
    let Restored { files, dirs } = restored;
    ui.say(match (files, dirs) {
        (0, 0) => "there is nothing to restore".to_owned(),
        (files, 0) => format!("restored {}", count(files, "file")),
        (0, dirs) => format!("restored {}", directories(dirs)),
        (files, dirs) => format!("restored {} and {}", count(files, "file"), directories(dirs)),
    });
    Ok(())
}

/// `ls --removed`.
pub(super) async fn list(ui: &Ui, client: &Client, path: PathText) -> Result<(), CommandError> {
    let mut removed = client.removed(path).await?;
    if ui.json {
        while let Some(one) = removed.next().await? {
            ui.object(&one)?;
        }
        return Ok(());
    }
    let now = OsClock::new().wall_ms();
    let columns = &[
        ("HASH", Align::Left),
        ("SIZE", Align::Right),
        ("REMOVED", Align::Right),
        ("KEPT FOR", Align::Right),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(ui, columns);
    while let Some(one) = removed.next().await? {
        let is_dir = one.kind == FileKind::Dir;
        table.row(vec![
            one.hash.map_or_else(|| "-".into(), |hash| hash.short()),
            if is_dir { "-".into() } else { text::size(one.size) },
            super::ago(now.saturating_sub(one.removed_ms)),
            // Whole days are not cut short by the moment that has passed.
            text::span(one.until_ms.saturating_sub(now).saturating_add(60_000)),
            shown_bytes(&one.path.0) + if is_dir { "/" } else { "" },
        ])?;
    }
    if !table.finish()? {
        ui.say("nothing that could be restored was removed here");
    }
    Ok(())
}
