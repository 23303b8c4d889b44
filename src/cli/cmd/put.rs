//! `put`: stores a file or a stream and prints its hash, the only thing on standard output.

use crate::cli::args::PutArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::text::{self, shown_bytes, shown_path};
use crate::wire::control::{Code, Failure, Put, Stored};
use std::os::fd::AsFd;

/// Smaller files are stored before there is a rate to speak of.
const RATE_FROM: u64 = 1 << 20;

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &PutArgs,
) -> Result<(), CommandError> {
    let stream = args.path.as_os_str() == "-";
    let own = args.path.file_name().filter(|_| !stream);
    let path = match (&args.name, own) {
        (Some(name), own) => Some(target::listed(name, own)?),
        (None, Some(own)) if !args.unlisted => Some(target::path(own)?),
        (None, _) => None,
    };
    let timeout_ms = args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let put = Put {
        path,
        replicas: args.replicas,
        compress: !args.no_compress,
        wait: args.wait,
        timeout_ms,
        ..Put::default()
    };
    let name = match stream {
        true => "standard input".into(),
        false => shown_path(&args.path),
    };
    ui.meter().label(format!("put {name}"));
    let stored = if stream {
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(|err| {
            Failure::new(Code::Failed, format!("standard input cannot be read: {err}"))
        })?;
        client.put_fd(input, put).await?
    } else {
        client.put_path(&args.path, put).await?
    };
    ui.meter().clear();
    if ui.json {
        ui.object(&stored)?;
    } else {
        ui.say(summary(&name, &stored));
        if stored.wait_met
            && let Some(rest) = rest(&stored)
        {
            ui.say(rest);
        }
        ui.data(stored.hash)?;
    }
    if stored.wait_met {
        return Ok(());
    }
    // The hash is on standard output although the exit code is not 0: the file is stored.
    ui.flush()?;
    let message =
        format!("stored, but only {} of {} copies are on disk yet", stored.copies, stored.replicas);
    let failure = Failure::new(Code::Degraded, message);
    Err(rest(&stored).into_iter().fold(failure, Failure::hint).into())
}

/// The truth about a put that was interrupted: while it waits for copies the file is stored.
pub(in crate::cli) fn ended(args: &PutArgs, err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure)
            if failure.code == Code::Interrupted && args.wait.is_some() =>
        {
            Failure::new(Code::Interrupted, "interrupted; the file may be stored already")
                .hint("p2pfs ls  shows it then; put again, what is stored is not sent again")
                .into()
        }
        err => err,
    }
}

/// `stored file.txt as /file.txt: 1.2 MiB, 3 of 3 copies on 3 machines (0.31 s, 3.9 MiB/s)`
fn summary(name: &str, stored: &Stored) -> String {
    let known = stored.new_bytes == 0 && stored.size > 0;
    let verb = if known { "already stored:" } else { "stored" };
    let place = match &stored.path {
        Some(path) => format!("as {}", shown_bytes(&path.0)),
        None => "without a name".into(),
    };
    let rate = u128::from(stored.size) * 1_000 / u128::from(stored.took_ms.max(1));
    let rate = text::size(u64::try_from(rate).unwrap_or(u64::MAX));
    let telling = !known && stored.size >= RATE_FROM;
    let speed = if telling { format!(", {rate}/s") } else { String::new() };
    format!(
        "{verb} {name} {place}: {}, {} ({}{speed})",
        text::size(stored.size),
        copies(stored),
        text::took(stored.took_ms),
    )
}

/// `1 of 3 copies, all on this machine`
fn copies(stored: &Stored) -> String {
    let place = match stored.machines {
        0 | 1 => ", all on this machine".into(),
        machines => format!(" on {machines} machines"),
    };
    format!("{} of {}{place}", stored.copies, super::copies(stored.replicas))
}

/// What becomes of the copies that are missing.
fn rest(stored: &Stored) -> Option<String> {
    let (these, are) = match stored.replicas.saturating_sub(stored.copies) {
        0 => return None,
        1 => ("the other copy", "is"),
        _ => ("the other copies", "are"),
    };
    Some(if stored.nodes_with_room < u32::from(stored.replicas) {
        format!("{these} {are} made when nodes join:  p2pfs daemon --bootstrap HOST:4000")
    } else {
        format!("{these} {are} being made now:  p2pfs status")
    })
}
