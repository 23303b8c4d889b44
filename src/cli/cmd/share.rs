//! `share`, `unshare` and `ls --shares`: files that are served from where they lie.

use super::count;
use crate::cli::args::{LsArgs, ShareArgs, UnshareArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown, shown_bytes, shown_path};
use crate::wire::control::{Code, Failure, PathText, ShareDone, ShareInfo, ShareState, Target};
use std::os::unix::ffi::OsStrExt;

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &ShareArgs,
) -> Result<(), CommandError> {
    let name = args.name.as_ref().map(|name| PathText(name.as_bytes().to_vec()));
    ui.meter().label(format!("indexing {}", shown_path(&args.path)));
    let shared = client.share(&args.path, name, args.replicas).await;
    ui.meter().clear();
    let shared = shared?;
    if ui.json {
        ui.object(&shared)?;
    } else {
        if let Some(hash) = &shared.hash {
            ui.data(hash)?;
        }
        ui.flush()?;
        for file in &shared.why {
            let path = shown_bytes(&file.path.0);
            ui.fault(format_args!("not shared: {path}: {}", shown(&file.why)));
        }
        say(ui, args, &shared);
    }
    ui.flush()?;
    let message = match shared.failed {
        0 => return Ok(()),
        1 => "1 file is not shared as it should be".to_owned(),
        many => format!("{many} files are not shared as they should be"),
    };
    let failure = Failure::new(Code::Partial, message);
    Err(failure
        .hint("the node tries again by itself; what it says:  p2pfs status --workers")
        .into())
}

/// `sharing ~/films as otter:/films: 31 files, 48.0 GiB, nothing copied (81 s)`
fn say(ui: &Ui, args: &ShareArgs, shared: &ShareDone) {
    let path = shown_path(&args.path);
    let called = format!("{}:{}", shown(&shared.owner), shown_bytes(&shared.path.0));
    let (files, size) = (count(shared.files, "file"), text::size(shared.bytes));
    let took = text::took(shared.took_ms);
    let copied = match shared.replicas {
        None => "nothing copied".to_owned(),
        Some(copies) => format!("with {} stored beside it", super::copies(copies)),
    };
    ui.say(format_args!("sharing {path} as {called}: {files}, {size}, {copied} ({took})"));
    if shared.passed_over > 0 {
        ui.say(format_args!("{} passed over", count(shared.passed_over, "item")));
    }
    if shared.replicas.is_none() {
        ui.say(format_args!(
            "not protected: no other node keeps a copy; to keep three:  p2pfs share {path} \
             --replicas 3"
        ));
    }
}

/// Who stops waiting stops nothing else.
pub(in crate::cli) fn ended(err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure) if failure.code == Code::Interrupted => {
            Failure::new(Code::Interrupted, "interrupted; the node goes on indexing")
                .hint("what is shared so far:  p2pfs ls --shares")
                .hint("to end it:  p2pfs unshare PATH")
                .into()
        }
        err => err,
    }
}

pub(in crate::cli) async fn unshare(
    ui: &Ui,
    client: &Client,
    args: &UnshareArgs,
) -> Result<(), CommandError> {
    let unshared = client.unshare(&args.what).await?;
    if ui.json {
        return ui.object(&unshared);
    }
    let (path, files) = (shown_bytes(&unshared.path.0), count(unshared.files, "file"));
    ui.say(format_args!("{path} is shared no more: {files}"));
    Ok(())
}

/// `ls --shares`.
pub(in crate::cli) async fn list(
    ui: &Ui,
    client: &Client,
    args: &LsArgs,
) -> Result<(), CommandError> {
    let of = match args.path.as_bytes() {
        b"/" => None,
        _ => match target::parse(&args.path)? {
            Target::Share { peer, path } => Some((peer, path)),
            _ => {
                let failure =
                    Failure::new(Code::Usage, "a share is named by its node and its path");
                return Err(failure.hint("p2pfs ls --shares PEER:/PATH").into());
            }
        },
    };
    let mut shares = client.shares(of).await?;
    if ui.json {
        while let Some(share) = shares.next().await? {
            ui.object(&share)?;
        }
        return Ok(());
    }
    let columns = [
        ("HASH", Align::Left),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(ui, &columns);
    while let Some(share) = shares.next().await? {
        let name = format!("{}:{}", shown(&share.owner), shown_bytes(&share.path.0));
        let hash = if args.long { share.hash.to_string() } else { share.hash.short() };
        table.row(vec![hash, text::size(share.size), state(&share), name])?;
    }
    if !table.finish()? {
        ui.say("nothing is shared; to share something:  p2pfs share PATH");
    }
    Ok(())
}

fn state(share: &ShareInfo) -> String {
    match (share.state, share.since_ms) {
        (ShareState::Here, _) => "here".into(),
        (ShareState::There, _) => "there".into(),
        (ShareState::Away, _) => "away".into(),
        (ShareState::Offline, None) => "offline".into(),
        (ShareState::Offline, Some(since)) => format!("offline since {}", text::utc(since)),
    }
}
