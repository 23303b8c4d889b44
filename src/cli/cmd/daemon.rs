//! `daemon`: puts the settings together, starts the node, opens the socket, and ends in order. With
//! `running` the only command that knows the node and the doors.

mod running;

use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::cli::unable;
use crate::config::{Layer, Places, Settings};
use crate::gateway::control::{BindError, ControlSocket, Service, ask};
use crate::sys::Clock;
use crate::sys::os::{OsClock, keep_memory_small};
use crate::text::{self, reason, shown, shown_path};
use crate::wire::control::{Code, Failure, Request, Status};
use running::Running;
use rustix::fs::Access;
use rustix::process::{Resource, Rlimit};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Threads that run tasks. Bulk work has threads of its own behind `sys::Spawn`.
const WORKERS: usize = 2;
/// The key of the swarm, inside the configuration directory.
const SWARM_KEY: &str = "swarm.key";
/// Open files that are asked for: connections, segments and passed descriptors with room to spare.
const OPEN_FILES: u64 = 65_536;

pub(in crate::cli) fn run(ui: &Ui, given: Layer) -> Result<(), CommandError> {
    let settings = Settings::resolve(given)?;
    keep_memory_small();
    log(ui)?;
    prepare(&settings.places)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|err| unable(&err))?;
    runtime.block_on(serve(ui, &settings))
}

async fn serve(ui: &Ui, settings: &Settings) -> Result<(), CommandError> {
    let clock = OsClock::new();
    let begun = clock.now();
    // From here on a signal is an orderly end.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|err| unable(&err))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|err| unable(&err))?;
    let mut stopped = async move || {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let swarm_key = settings.places.config_dir.join(SWARM_KEY);
    let had_key = swarm_key.exists();
    let Running { service, ended } = tokio::select! {
        biased;
        () = stopped() => return Ok(()),
        running = running::start(settings) => running?,
    };
    let socket = match ControlSocket::bind(&settings.places.socket) {
        Ok(socket) => socket,
        Err(err) => {
            // The node has not been seen by anybody yet; how it ends changes nothing.
            ask(&*service, Request::Stop).await.ok();
            return Err(refusal(&err).into());
        }
    };
    let millis = u64::try_from(clock.now().since(begun).as_millis()).unwrap_or(u64::MAX);
    let made = !had_key && swarm_key.exists();
    announce(ui, settings, &*service, made, millis).await?;
    let end = {
        let service = service.clone();
        async move {
            tokio::select! {
                biased;
                end = ended => end,
                () = stopped() => {
                    tracing::info!("stopping");
                    tokio::select! {
                        biased;
                        // The second signal means: at once. What was acknowledged is on disk.
                        () = stopped() => {}
                        stopping = ask(&*service, Request::Stop) => if let Err(err) = stopping {
                            tracing::warn!("the node did not end in order: {err}");
                        },
                    }
                    Ok(())
                }
            }
        }
    };
    let (said, outcome) = tokio::sync::oneshot::channel();
    let end = async move {
        // Whoever waits for the outcome is below, and waits.
        said.send(end.await).ok();
    };
    socket.serve(service, end).await;
    outcome.await.unwrap_or(Ok(())).map_err(CommandError::from)
}

/// Says that the daemon is there: a few lines to a person, one line to a log.
async fn announce(
    ui: &Ui,
    settings: &Settings,
    service: &dyn Service,
    made: bool,
    millis: u64,
) -> Result<(), CommandError> {
    let status = ask(service, Request::Status).await?;
    let status: Status = serde_json::from_value(status).map_err(|err| {
        Failure::new(Code::Failed, format!("the status is not understood: {err}"))
    })?;
    if ui.json {
        ui.object(&status)?;
        return ui.flush();
    }
    if io::stderr().is_terminal() {
        for line in banner(settings, &status, made, millis) {
            ui.say(line);
        }
        return Ok(());
    }
    if made {
        tracing::info!("made a new swarm; its keys are in {}", config_dir(settings));
    }
    let me = &status.identity;
    tracing::info!(
        "ready in {millis} ms: node {} ({}), listening on {}, data in {}",
        shown(&me.name),
        me.id.short(),
        shown(&me.listen.join(", ")),
        shown_path(&settings.places.data_dir),
    );
    if let Some(code) = &status.code {
        let code = shown(code);
        tracing::info!("waiting for approval {code}: on a member run  p2pfs approve {code}");
    }
    Ok(())
}

fn config_dir(settings: &Settings) -> String {
    shown_path(&settings.places.config_dir)
}

fn banner(settings: &Settings, status: &Status, made: bool, millis: u64) -> Vec<String> {
    let me = &status.identity;
    let port = settings.listen.first().map_or(4000, std::net::SocketAddr::port);
    let listen = me.listen.first().and_then(|addr| addr.rsplit_once(':')?.1.parse().ok());
    let port = listen.unwrap_or(port);
    let mut lines = vec![
        format!("p2pfs {}: node {} ({})", shown(&me.version), shown(&me.name), me.id.short()),
        format!("  Listening  {}", shown(&me.listen.join(", "))),
        format!(
            "  Data       {}, {} offered",
            shown_path(&settings.places.data_dir),
            text::size(status.capacity)
        ),
        format!("  Socket     {}", shown_path(&settings.places.socket)),
    ];
    if made {
        lines.push(format!("  New swarm  its keys are in {}", config_dir(settings)));
        lines.push(
            "             who has them decides who joins: keep a copy in a safe place".into(),
        );
        lines.push("  Try        p2pfs put FILE".into());
        lines.push(format!("  Next node  p2pfs daemon --bootstrap HOST:{port}"));
    } else if let Some(swarm) = &me.swarm {
        lines.push(format!("  Swarm      {}", swarm.short()));
    } else {
        let code = status.code.as_deref().map(shown).unwrap_or_default();
        lines.push(format!(
            "  Waiting    for approval {code}; on a member run:  p2pfs approve {code}"
        ));
    }
    lines.push(format!("ready in {millis} ms (Ctrl-C stops)"));
    lines
}

/// Log lines go to standard error; `P2PFS_LOG` decides which, otherwise `-q` and `-v`.
fn log(ui: &Ui) -> Result<(), CommandError> {
    let usual = match (ui.quiet, ui.verbose) {
        (true, _) => "error",
        (false, 0) => "warn,p2pfs=info",
        (false, 1) => "warn,p2pfs=debug",
        (false, _) => "info,p2pfs=trace",
    };
    let wanted = std::env::var("P2PFS_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(usual)).map_err(|err| {
        let message = format!("P2PFS_LOG is not understood: {err}");
        Failure::new(Code::Usage, message).hint("P2PFS_LOG=debug p2pfs daemon")
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(ui.has_colour())
        .with_target(ui.verbose > 0)
        .with_env_filter(filter)
        .finish();
    // An embedding program may have set its own already, which then counts.
    tracing::subscriber::set_global_default(subscriber).ok();
    Ok(())
}

/// Makes the directories, for nobody else to look into.
fn prepare(places: &Places) -> Result<(), Failure> {
    for dir in [&places.data_dir, &places.config_dir] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|err| unusable(dir, &err))?;
    }
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&places.data_dir, private)
        .and_then(|()| Ok(rustix::fs::access(&places.data_dir, Access::WRITE_OK)?))
        .map_err(|err| unusable(&places.data_dir, &err))
}

fn unusable(dir: &Path, err: &io::Error) -> Failure {
    let dir = shown_path(dir);
    let failure = match err.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Denied, format!("permission denied: {dir}"))
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Failure::new(Code::Denied, format!("{dir} is on a read-only file system"))
        }
        io::ErrorKind::StorageFull => {
            Failure::new(Code::NoSpace, format!("no space left for {dir}"))
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Failure::new(Code::Conflict, format!("{dir} is not a directory"))
        }
        _ => {
            let why = reason(err);
            Failure::new(Code::Failed, format!("the directory {dir} cannot be used: {why}"))
        }
    };
    failure.hint("name another one with  --data-dir DIR  or  --config-dir DIR")
}

fn refusal(err: &BindError) -> Failure {
    let (code, hint) = match err {
        BindError::TooLong { .. } => (Code::Usage, "name a shorter one with  --socket PATH"),
        BindError::InUse(_) => (Code::Conflict, "p2pfs status  shows the daemon that runs"),
        BindError::NotASocket(_) => (Code::Conflict, "name another one with  --socket PATH"),
        BindError::System { why, .. } if why.kind() == io::ErrorKind::PermissionDenied => {
            (Code::Denied, "name another one with  --socket PATH")
        }
        BindError::System { .. } => (Code::Failed, "name another one with  --socket PATH"),
    };
    Failure::new(code, err.to_string()).hint(hint)
}

/// Many connections and segments are open at once, or the directories of a deep tree; the usual
/// soft limit of 1,024 is for programs that use `select`. Where it cannot be raised the command
/// works with what it has.
pub(super) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(err) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::debug!("the limit of open files stays: {err}");
        }
    }
}
