//! People: words, flags, screens. Owns the way from the command line to a command and from its end
//! to an exit code; what is done is done by the daemon, which the commands reach through
//! `client`. Not a stable interface of the library.

pub mod args;
mod cmd;
mod complete;
mod error;
mod target;
mod ui;

pub use complete::answer as complete;

use crate::client::{Client, Update};
use crate::config::{self, Layer, Places, Source};
use crate::text::{reason, shown, shown_path};
use crate::wire::control::{Code, Failure};
use args::{Cli, Command};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use error::CommandError;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use ui::Ui;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(err) => return unparsed(&err),
    };
    let ui = Ui::new(&cli.globals);
    let done = run(&cli, &matches, &ui);
    // What was printed before an error is handed out too.
    let flushed = ui.flush();
    match done.and(flushed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => err.report(&ui),
    }
}

/// Help, version, or a command line that clap does not understand.
fn unparsed(err: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    let variable = variable(err).map(|name| format!("the value is that of the variable {name}"));
    if err.use_stderr() && json {
        let failure = Failure::new(Code::Usage, sentence(err));
        let failure = variable.into_iter().fold(failure, Failure::hint).hint("p2pfs --help");
        // A closed standard error has no reader to miss this.
        writeln!(std::io::stderr().lock(), "{}", error::json(&failure)).ok();
    } else {
        // The same for help that nobody reads to its end.
        err.print().ok();
        if let Some(hint) = variable {
            writeln!(std::io::stderr().lock(), " hint: {hint}").ok();
        }
    }
    ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(Code::Usage.exit()))
}

/// The variable that a wrong value came from; clap names the flag, which nobody may have typed.
fn variable(err: &clap::Error) -> Option<String> {
    let ContextValue::String(arg) = err.get(ContextKind::InvalidArg)? else { return None };
    let flag = arg.split(' ').next().filter(|word| word.starts_with("--"))?;
    let typed = |arg: std::ffi::OsString| arg.to_string_lossy().starts_with(flag);
    let name = format!("P2PFS_{}", flag[2..].to_uppercase().replace('-', "_"));
    let blamed = !std::env::args_os().any(typed) && std::env::var_os(&name).is_some();
    blamed.then_some(name)
}

/// What clap says, as one line: the paragraph before its usage and tips.
fn sentence(err: &clap::Error) -> String {
    let text = err.render().to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").map(str::to_owned).unwrap_or(line)
}

/// One line per command.
fn run(cli: &Cli, matches: &ArgMatches, ui: &Ui) -> Result<(), CommandError> {
    let given = given(matches);
    match &cli.command {
        Command::Daemon(_) => cmd::daemon::run(ui, given),
        Command::Generate(args) => cmd::generate::run(ui, args),
        Command::Demo(args) => wait(cmd::demo::run(ui, args)),
        Command::Config => wait(cmd::config::run(ui, given)),
        Command::Put(args) => wait(cmd::put::run(ui, &client(ui, &given)?, args, own(&given)?))
            .map_err(|err| cmd::put::ended(args, err)),
        Command::Get(args) => wait(cmd::get::run(ui, &client(ui, &given)?, args))
            .map_err(|err| cmd::get::ended(args, err)),
        Command::Cat(args) => wait(cmd::get::cat(ui, &client(ui, &given)?, args)),
        Command::Ls(args) => wait(cmd::ls::run(ui, &client(ui, &given)?, args)),
        Command::Search(args) => wait(cmd::search::run(ui, &client(ui, &given)?, args)),
        Command::Share(args) => {
            wait(cmd::share::run(ui, &client(ui, &given)?, args)).map_err(cmd::share::ended)
        }
        Command::Unshare(args) => wait(cmd::share::unshare(ui, &client(ui, &given)?, args)),
        Command::Mkdir(args) => wait(cmd::arrange::mkdir(ui, &client(ui, &given)?, args)),
        Command::Mv(args) => wait(cmd::arrange::mv(ui, &client(ui, &given)?, args)),
        Command::Write(args) => wait(cmd::mount::write(ui, &client(ui, &given)?, args)),
        Command::Mount(args) => wait(cmd::mount::mount(ui, &client(ui, &given)?, args)),
        Command::Umount(args) => wait(cmd::mount::umount(ui, &client(ui, &given)?, args)),
        Command::Rm(args) => wait(cmd::rm::run(ui, &client(ui, &given)?, args)),
        Command::Restore(args) => wait(cmd::rm::restore(ui, &client(ui, &given)?, args)),
        Command::History(args) => wait(cmd::history::run(ui, &client(ui, &given)?, args)),
        Command::Conflicts(args) => wait(cmd::conflicts::run(ui, &client(ui, &given)?, args)),
        Command::Watch(args) => {
            wait(cmd::watch::run(ui, &client(ui, &given)?, args)).map_err(cmd::watch::ended)
        }
        Command::Stat(args) => wait(cmd::stat::run(ui, &client(ui, &given)?, args)),
        Command::Link(args) => wait(cmd::link::run(ui, &client(ui, &given)?, args)),
        Command::Status(args) => wait(cmd::status::run(ui, &client(ui, &given)?, args)),
        Command::Peers(args) => wait(cmd::peers::run(ui, &client(ui, &given)?, args)),
        Command::Limit(args) => wait(cmd::limit::run(ui, &client(ui, &given)?, args)),
        Command::Drain(args) => wait(cmd::node::drain(ui, &client(ui, &given)?, args)),
        Command::Pin(args) => wait(cmd::pin::run(ui, &client(ui, &given)?, args))
            .map_err(|err| cmd::pin::ended(args, err)),
        Command::Unpin(args) => wait(cmd::pin::unpin(ui, &client(ui, &given)?, args)),
        Command::Scrub(args) => wait(cmd::scrub::run(ui, &client(ui, &given)?, args))
            .map_err(|err| cmd::scrub::ended(args, err)),
        Command::Id => wait(cmd::node::id(ui, &client(ui, &given)?)),
        Command::Connect(args) => wait(cmd::peers::connect(ui, &client(ui, &given)?, args)),
        Command::Approve(args) => wait(cmd::peers::approve(ui, &client(ui, &given)?, args)),
        Command::Deny(args) => wait(cmd::peers::deny(ui, &client(ui, &given)?, args)),
        Command::Stop => wait(cmd::node::stop(ui, &client(ui, &given)?)),
    }
}

/// What flags and variables say, in the form in which `config` puts the layers together.
fn given(matches: &ArgMatches) -> Layer {
    let mut layer = Layer::new();
    // A global flag is known to the command that it was given to or before.
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    for key in config::KEYS {
        let id = key.replace('-', "_");
        if !matches.try_contains_id(&id).is_ok_and(|given| given) {
            continue;
        }
        let source = match matches.value_source(&id) {
            Some(ValueSource::CommandLine) => Source::Flag(format!("--{key}")),
            Some(ValueSource::EnvVariable) => {
                Source::Variable(format!("P2PFS_{}", id.to_uppercase()))
            }
            _ => continue,
        };
        let values = matches.get_raw(&id).into_iter().flatten().map(Into::into).collect();
        layer.set(key, values, source);
    }
    layer
}

/// The daemon that is meant, with its news shown as progress and notes.
fn client(ui: &Ui, given: &Layer) -> Result<Client, CommandError> {
    let socket = Places::resolve(given)?.socket;
    ui.explain(format_args!("asking the daemon at {}", shown_path(&socket)));
    let meter = ui.meter();
    let notes = !ui.quiet && !ui.json;
    Ok(Client::new(socket).watched(move |update| match update {
        Update::Progress(progress) => meter.update(progress),
        Update::Note(text) if notes => meter.note(&shown(text)),
        Update::Note(_) => {}
    }))
}

/// Where the node keeps its keys and its data.
fn own(given: &Layer) -> Result<Vec<PathBuf>, CommandError> {
    let Places { config_dir, data_dir, .. } = Places::resolve(given)?;
    Ok(vec![config_dir, data_dir])
}

/// Runs a command up to its end or to a signal that stops it. A dropped command leaves nothing
/// behind.
fn wait(command: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| unable(&err))?;
    let done = runtime.block_on(async {
        tokio::select! {
            biased;
            done = command => done,
            stopped = stopped() => stopped,
        }
    });
    // A write to a slow disk that nobody waits for any more.
    runtime.shutdown_background();
    done
}

/// Returns at Ctrl-C or when the process is asked to end.
async fn stopped() -> Result<(), CommandError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|err| unable(&err))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|err| unable(&err))?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err(interrupted())
}

fn interrupted() -> CommandError {
    Failure::new(Code::Interrupted, "interrupted; nothing was left behind").into()
}

/// The system lacks what every command needs: descriptors or memory.
fn unable(err: &std::io::Error) -> Failure {
    let why = reason(err);
    Failure::new(Code::Failed, format!("the system has no room for this command: {why}"))
}
