//! `scrub`: is everything that the node stores still what it was? Shows how far the reading of it
//! is, or has all of it read now.

use super::count;
use crate::cli::args::ScrubArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text;
use crate::wire::control::{Code, Failure, ScrubFound, ScrubInfo};

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &ScrubArgs,
) -> Result<(), CommandError> {
    if !args.now {
        let info = client.scrub().await?;
        if ui.json {
            return ui.object(&info);
        }
        return lines(&info).into_iter().try_for_each(|line| ui.data(line));
    }
    let meter = ui.meter();
    meter.label("scrub".into());
    let info = client.scrub_now().await;
    meter.clear();
    let info = info?;
    if ui.json {
        ui.object(&info)?;
    } else {
        ui.data(format_args!("checked {}", found(&info.found)))?;
    }
    match rest(&info.found) {
        (0, 0) => Ok(()),
        (0, _) => Err(CommandError::Answered(Code::Degraded)),
        (_, _) => Err(CommandError::Answered(Code::Corrupt)),
    }
}

/// Who stops waiting stops nothing else.
pub(in crate::cli) fn ended(args: &ScrubArgs, err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure) if failure.code == Code::Interrupted && args.now => {
            Failure::new(Code::Interrupted, "interrupted; the node goes on reading")
                .hint("how far it is:  p2pfs scrub")
                .into()
        }
        err => err,
    }
}

/// How many damaged ones are lost, and how many are still to be repaired.
fn rest(found: &ScrubFound) -> (u64, u64) {
    let settled = found.repaired + found.unneeded + found.lost;
    (found.lost, found.damaged.saturating_sub(settled))
}

/// `1499 chunks, 210 records, 153.0 MiB: 3 damaged, 3 repaired, 0 lost`
fn found(found: &ScrubFound) -> String {
    let mut line = format!(
        "{}, {}, {}: {} damaged, {} repaired, {} lost",
        count(found.chunks, "chunk"),
        count(found.records, "record"),
        text::size(found.bytes),
        found.damaged,
        found.repaired,
        found.lost,
    );
    if found.unneeded > 0 {
        line.push_str(&format!(", {} not needed any more", found.unneeded));
    }
    match rest(found) {
        (_, 0) => line,
        (_, open) => line + &format!(", {open} still to be repaired:  p2pfs status"),
    }
}

/// The screen, line by line.
fn lines(info: &ScrubInfo) -> Vec<String> {
    let within = text::span(info.within_s.saturating_mul(1_000));
    let mut lines = vec![format!("Everything stored here is read again within {within}")];
    if info.running {
        let percent = u128::from(info.done) * 100 / u128::from(info.total.max(1));
        let at_once = if info.at_once { ", as fast as possible" } else { "" };
        lines.push(format!("  Now   {percent} %{at_once}: {}", found(&info.found)));
    }
    match (&info.last, info.last_ms) {
        (Some(last), Some(ended)) => {
            lines.push(format!("  Last  ended {} ago: {}", text::span(ended), found(last)));
        }
        _ => lines.push("  Last  never yet".into()),
    }
    if let Some(next) = info.next_ms {
        lines.push(format!("  Next  in {}", text::span(next)));
    }
    lines
}

/// One line for `status`; none as long as there is nothing to say.
pub(super) fn summary(info: &ScrubInfo) -> Option<String> {
    let damaged = match info.found.damaged {
        0 => String::new(),
        some => format!(", {some} damaged, {} repaired", info.found.repaired),
    };
    match info.last_ms {
        Some(ended) => Some(format!("all was read {} ago{damaged}", text::span(ended))),
        None if !damaged.is_empty() => {
            let read = text::size(info.done);
            Some(format!("{read} of {} read{damaged}", text::size(info.total)))
        }
        None => None,
    }
}
