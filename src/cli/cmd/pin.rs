//! `pin` and `unpin`: what this node keeps a full copy of.

use super::count;
use crate::cli::args::{PinArgs, UnpinArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{Align, Table, Ui};
use crate::client::Client;
use crate::text::{self, shown, shown_bytes};
use crate::wire::control::{Code, Failure, PinInfo};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &PinArgs,
) -> Result<(), CommandError> {
    if args.paths.is_empty() {
        return list(ui, client).await;
    }
    let mut complete = true;
    for name in &args.paths {
        let path = target::path(name)?;
        let meter = ui.meter();
        meter.label(shown_bytes(&path.0));
        let pinned = client.pin(path, !args.no_wait).await;
        meter.clear();
        let pinned = pinned?;
        complete &= pinned.missing == 0;
        if ui.json {
            ui.object(&pinned)?;
        } else if args.no_wait {
            ui.say(format_args!(
                "{} is being fetched; how far:  p2pfs pin",
                shown_bytes(&pinned.path.0)
            ));
        } else {
            ui.say(format_args!("{}: {}", shown_bytes(&pinned.path.0), state(&pinned)));
        }
    }
    if complete { Ok(()) } else { Err(CommandError::Answered(Code::Degraded)) }
}

/// Who stops waiting stops nothing else.
pub(in crate::cli) fn ended(args: &PinArgs, err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure)
            if failure.code == Code::Interrupted && !args.paths.is_empty() =>
        {
            Failure::new(Code::Interrupted, "interrupted; the node goes on fetching")
                .hint("how far it is:  p2pfs pin")
                .hint("to end it:  p2pfs unpin PATH")
                .into()
        }
        err => err,
    }
}

pub(in crate::cli) async fn unpin(
    ui: &Ui,
    client: &Client,
    args: &UnpinArgs,
) -> Result<(), CommandError> {
    for name in &args.paths {
        let pinned = client.unpin(target::path(name)?).await?;
        if ui.json {
            ui.object(&pinned)?;
        } else {
            let path = shown_bytes(&pinned.path.0);
            ui.say(format_args!("{path} is not pinned any more; what need not be here goes"));
        }
    }
    Ok(())
}

/// What is known of a copy.
fn state(pinned: &PinInfo) -> String {
    let files = format!("{}, {}", count(pinned.files, "file"), text::size(pinned.bytes));
    match (pinned.known, pinned.missing) {
        (false, _) => "not looked at yet".into(),
        (true, 0) => format!("{files}, all here"),
        (true, missing) => {
            let why = pinned.why.as_deref().unwrap_or_default();
            if pinned.files == 0 {
                return shown(why).into_owned();
            }
            format!("{files}, {missing} of them not all here: {}", shown(why))
        }
    }
}

async fn list(ui: &Ui, client: &Client) -> Result<(), CommandError> {
    let mut pins = client.pins().await?;
    if ui.json {
        while let Some(pinned) = pins.next().await? {
            ui.object(&pinned)?;
        }
        return Ok(());
    }
    let mut table = Table::new(ui, &[("STATE", Align::Left), ("PATH", Align::Left)]);
    while let Some(pinned) = pins.next().await? {
        table.row(vec![state(&pinned), shown_bytes(&pinned.path.0)])?;
    }
    if !table.finish()? {
        ui.say("nothing is pinned here; to keep a full copy of something:  p2pfs pin PATH");
    }
    Ok(())
}
