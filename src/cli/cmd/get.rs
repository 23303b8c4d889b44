//! `get` and `cat`: a file, or a range of it, to a file here or to standard output.

use crate::cli::args::{CatArgs, GetArgs};
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::{TerminalText, Ui};
use crate::client::{Client, FetchedDir, Saved, is_broken_pipe};
use crate::text::{self, shown, shown_bytes, shown_path};
use crate::wire::control::{Code, Failure, Fetched, PathText, Range, Target};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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
    let (client, label) = match &args.from {
        Some(peer) => {
            let label = format!("get {name} from {}", shown(peer));
            (client.clone().only_from(peer.clone()), label)
        }
        None => (client.clone(), format!("get {name}")),
    };
    let client = &client;
    ui.meter().label(label);
    if args.recursive {
        return directory(ui, client, args, target).await;
    }
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

/// `get -r`.
async fn directory(
    ui: &Ui,
    client: &Client,
    args: &GetArgs,
    target: Target,
) -> Result<(), CommandError> {
    // Of a deep directory all that lead to the innermost one are open.
    super::daemon::raise_open_files();
    let Target::Path(path) = target else {
        let sentence = match target {
            Target::Share { .. } => "what is shared is fetched one file at a time",
            _ => "a directory has a name and no hash",
        };
        return Err(Failure::new(Code::Usage, sentence)
            .hint("p2pfs get -r /NAME -o DIR")
            .hint("files that are shared:  p2pfs ls --shares")
            .into());
    };
    if args.output.as_deref().is_some_and(|out| out.as_os_str() == "-") {
        return Err(Failure::new(Code::Usage, "a directory cannot go to standard output")
            .hint("p2pfs get -r /NAME -o DIR")
            .into());
    }
    let own = path.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let out = match &args.output {
        Some(out) => out.clone(),
        None if own.is_empty() => ".".into(),
        None => PathBuf::from(OsString::from_vec(own.to_vec())),
    };
    let began = std::time::Instant::now();
    let mut fetched = client.get_dir(path, &out, args.force).await?;
    fetched.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    ui.meter().clear();
    if ui.json {
        ui.object(&fetched)?;
    } else {
        for failed in &fetched.failed {
            let path = shown_bytes(&failed.path.0);
            ui.fault(format_args!("not fetched: {path}: {}", failed.error.message));
        }
        ui.say(summary_of_many(&out, &fetched));
    }
    ui.flush()?;
    let message = match fetched.failed.len() {
        0 => return Ok(()),
        1 => "1 item was not fetched".to_owned(),
        many => format!("{many} items were not fetched"),
    };
    let hints = fetched.failed.iter().flat_map(|failed| failed.error.hints.first());
    let failure = Failure::new(Code::Partial, message);
    Err(hints.take(1).fold(failure, |failure, hint| failure.hint(hint)).into())
}

/// `photos: 12 files, 5.0 GiB, 90 unchanged, every byte checked (9 s)`
fn summary_of_many(out: &Path, fetched: &FetchedDir) -> String {
    let (out, took) = (shown_path(out), text::took(fetched.took_ms));
    let (files, size) = (super::count(fetched.files, "file"), text::size(fetched.bytes));
    match (fetched.files, fetched.unchanged) {
        (0, 0) if fetched.failed.is_empty() => {
            format!("{out}: {} ({took})", super::directories(fetched.dirs + 1))
        }
        (0, 0) => format!("{out}: nothing was fetched ({took})"),
        (0, same) if !fetched.failed.is_empty() => {
            format!("{out}: nothing was fetched, {same} unchanged ({took})")
        }
        (0, same) => format!("{out}: nothing is new, {same} unchanged ({took})"),
        (_, 0) => format!("{out}: {files}, {size}, every byte checked ({took})"),
        (_, same) => {
            format!("{out}: {files}, {size}, every byte checked, {same} unchanged ({took})")
        }
    }
}

/// The truth about a directory of which the fetching was interrupted.
pub(in crate::cli) fn ended(args: &GetArgs, err: CommandError) -> CommandError {
    match err {
        CommandError::Failed(failure) if failure.code == Code::Interrupted && args.recursive => {
            Failure::new(Code::Interrupted, "interrupted; what was fetched stays, each file whole")
                .hint("the same command fetches what is missing")
                .into()
        }
        err => err,
    }
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
