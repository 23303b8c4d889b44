//! `get` and `cat`: a file, or a range of it, to a file here or to standard output.

use crate::cli::args::{CatArgs, GetArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{TerminalText, Ui};
use crate::client::{Client, Saved, is_broken_pipe};
use crate::text::{self, shown, shown_path};
use crate::wire::control::{Code, Failure, Fetched, PathText, Range};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// What `get --json` prints.
#[derive(Serialize)]
struct Written<'a> {
    path: PathText,
    #[serde(flatten)]
    fetched: &'a Fetched,
}

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &GetArgs,
) -> Result<(), CommandError> {
    let target = target::parse(&args.target)?;
    let name = shown_path(&args.target);
    ui.meter().label(format!("get {name}"));
    let output = args.output.as_deref().unwrap_or(Path::new("."));
    if output.as_os_str() == "-" {
        return print(ui, client, &args.target, None).await;
    }
    let saved = client.get_path(target.clone(), output, args.force).await;
    let saved = saved.map_err(|failure| target::explain(&target, failure))?;
    ui.meter().clear();
    if ui.json {
        let path = PathText(saved.path.into_os_string().into_vec());
        return ui.object(&Written { path, fetched: &saved.fetched });
    }
    ui.say(summary(&saved));
    Ok(())
}

pub(in crate::cli) async fn cat(
    ui: &Ui,
    client: &Client,
    args: &CatArgs,
) -> Result<(), CommandError> {
    // Made for pipes, at whose end another program may own the terminal.
    ui.meter().hush();
    print(ui, client, &args.target, args.range).await
}

/// `out: 1.2 MiB, every byte checked, from calm-heron, dry-fox (0.02 s)`
fn summary(saved: &Saved) -> String {
    let from = match &saved.fetched.from[..] {
        [] => "here".into(),
        nodes => shown(&nodes.join(", ")).into_owned(),
    };
    let path = saved.path.strip_prefix(".").unwrap_or(&saved.path);
    format!(
        "{}: {}, every byte checked, from {from} ({})",
        shown_path(path),
        text::size(saved.fetched.bytes),
        text::took(saved.fetched.took_ms),
    )
}

/// Writes to standard output. A terminal gets text only; anything else gets the bytes straight from
/// the daemon.
async fn print(
    ui: &Ui,
    client: &Client,
    name: &OsStr,
    range: Option<Range>,
) -> Result<(), CommandError> {
    let target = target::parse(name)?;
    let explain = |failure: Failure| target::explain(&target, failure);
    if ui.data_is_seen {
        ui.meter().hush();
        let mut text = TerminalText::default();
        let shown = client.get(target.clone(), range, &mut text).await;
        return match shown {
            Ok(_) => Ok(()),
            Err(_) if text.is_binary() => Err(binary(name).into()),
            Err(failure) => Err(explain(failure).into()),
        };
    }
    let stdout = std::io::stdout();
    let fd = stdout.as_fd().try_clone_to_owned()?;
    match client.get_fd(target.clone(), range, fd).await {
        Ok(_) => Ok(()),
        Err(_) if is_broken_pipe(&stdout) => Err(CommandError::BrokenPipe),
        Err(failure) => Err(explain(failure).into()),
    }
}

fn binary(name: &OsStr) -> Failure {
    let name = shown_path(name);
    Failure::new(Code::Failed, format!("{name} is binary and is not written to a terminal"))
        .hint(format!("write it to a file:  p2pfs get {name} -o FILE"))
}
