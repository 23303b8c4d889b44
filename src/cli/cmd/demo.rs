//! `demo`: a swarm of three real daemons on this machine, shown step by step as the commands that
//! a person would type. Everything lives in one temporary directory.
//!
//! Invariant: however it ends, short of being killed itself, no daemon and no file is left.

mod stage;

use super::{ls, status};
use crate::cli::args::DemoArgs;
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::cli::{interrupted, unable};
use crate::client::{Client, check_source};
use crate::id::FileHash;
use crate::sys::os::OsClock;
use crate::sys::{Clock, Time};
use crate::text::{self, shown_path};
use crate::wire::control::{Code, Failure, PeerState, Put, Target, Wait};
use serde::Serialize;
use stage::Stage;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Copies that the demo's swarm keeps: with two of three nodes left, repair can be seen.
const REPLICAS: u8 = 2;
/// Longest wait for any step.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// How far to the right the answers stand.
const MARGIN: &str = "    ";
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A step as `--json` prints it.
#[derive(Serialize)]
struct Step<'a> {
    step: &'a str,
    ms: u64,
}

/// Prints the steps and takes their times.
struct Show<'a> {
    ui: &'a Ui,
    clock: OsClock,
    begun: Time,
}

impl Show<'_> {
    /// Says what comes next.
    fn title(&mut self, words: &str) -> Result<(), CommandError> {
        self.begun = self.clock.now();
        self.line(words)
    }

    /// Shows a command that a person would type now.
    fn command(&mut self, command: &str) -> Result<(), CommandError> {
        self.begun = self.clock.now();
        self.line(&format!("  $ {command}"))
    }

    /// Shows what a command says.
    fn words(&self, words: &str) -> Result<(), CommandError> {
        self.line(&format!("{MARGIN}{words}"))
    }

    fn line(&self, line: &str) -> Result<(), CommandError> {
        if !self.is_seen() {
            return Ok(());
        }
        self.ui.data(line)?;
        self.ui.flush()
    }

    fn is_seen(&self) -> bool {
        !self.ui.json && !self.ui.quiet
    }

    /// Says what a step has come to, and how long it took.
    fn done(&self, step: &str, words: &str) -> Result<(), CommandError> {
        let ms = self.clock.now().since(self.begun).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        if self.ui.json {
            self.ui.object(&Step { step, ms })?;
            return self.ui.flush();
        }
        self.words(&format!("{words} ({})", text::took(ms)))
    }
}

pub(in crate::cli) async fn run(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
    // A closed terminal ends the demo like Ctrl-C: its daemons must not outlive it.
    let mut hangup = signal(SignalKind::hangup()).map_err(|err| unable(&err))?;
    tokio::select! {
        biased;
        _ = hangup.recv() => Err(interrupted()),
        played = play(ui, args) => played,
    }
}

async fn play(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
    let executable = std::env::current_exe()
        .map_err(|_| Failure::new(Code::Failed, "this executable's own path is not known"))?;
    let file = args.file.clone().unwrap_or_else(|| executable.clone());
    // The commands that are shown run in another directory.
    let file = std::path::absolute(&file).unwrap_or(file);
    check_source(&file)?;
    let mut stage = Stage::new(executable)?;
    let clock = OsClock::new();
    let mut show = Show { ui, clock, begun: clock.now() };
    if let Err(err) = scenes(&mut show, &mut stage, &file).await {
        // A daemon that has ended by itself is the reason for what followed.
        stage.check()?;
        return Err(err);
    }
    drop(stage);
    show.line("The daemons have ended and their directory is gone: nothing was left behind.")
}

async fn scenes(show: &mut Show<'_>, stage: &mut Stage, file: &Path) -> Result<(), CommandError> {
    start(show, stage).await?;
    let hash = put(show, stage, file).await?;
    list(show, stage, hash).await?;
    kill(show, stage)?;
    get(show, stage, hash, file).await?;
    repaired(show, stage, hash).await
}

async fn start(show: &mut Show<'_>, stage: &mut Stage) -> Result<(), CommandError> {
    show.title("Three nodes on this machine become a swarm that keeps 2 copies of everything")?;
    let begun = show.begun;
    show.command(&format!("cd {}", shown_path(stage.root())))?;
    show.command(&format!("export P2PFS_CONFIG_DIR=$PWD/config P2PFS_REPLICAS={REPLICAS}"))?;
    let mut first: Option<String> = None;
    for name in stage::NAMES {
        let flags = ["--name", name, "--listen", "127.0.0.1:0"].map(str::to_owned);
        let to = first.iter().flat_map(|first| ["--bootstrap".to_owned(), first.clone()]);
        let flags: Vec<String> = flags.into_iter().chain(to).collect();
        show.command(&format!("p2pfs daemon --data-dir {name} {} &", flags.join(" ")))?;
        stage.start(name, &flags, REPLICAS)?;
        until(stage, &format!("node {name} did not start"), async || {
            Ok(stage.client(name).id().await.is_ok())
        })
        .await?;
        if first.is_none() {
            first = stage.client(name).id().await?.listen.into_iter().next();
        }
    }
    until(stage, "the three nodes did not find each other", async || {
        for name in stage::NAMES {
            if stage.client(name).status().await?.peers_alive < 2 {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    show.begun = begun;
    show.done("start", "each of them knows the two others")
}

async fn put(show: &mut Show<'_>, stage: &Stage, file: &Path) -> Result<FileHash, CommandError> {
    show.title("A file goes in through node a")?;
    show.command(&format!("p2pfs --data-dir a put {} --wait all", shown_path(file)))?;
    let path = crate::cli::target::path(file.file_name().unwrap_or_default())?;
    let put = Put { path: Some(path), wait: Some(Wait::All), ..Put::default() };
    let stored = stage.client("a").put_path(file, put).await?;
    show.words(&stored.hash.to_string())?;
    let bytes = text::size(stored.size);
    show.done("put", &format!("{bytes}, {} of {} copies", stored.copies, stored.replicas))?;
    Ok(stored.hash)
}

async fn list(show: &mut Show<'_>, stage: &Stage, hash: FileHash) -> Result<(), CommandError> {
    show.title("Every node lists it")?;
    show.command("p2pfs --data-dir c ls")?;
    until(stage, "the name did not reach node c", async || {
        Ok(stage.client("c").stat(Target::Hash(hash)).await.is_ok())
    })
    .await?;
    if show.is_seen() {
        ls::table(show.ui, &stage.client("c"), MARGIN).await?;
    }
    show.done("ls", "the same on every node")
}

fn kill(show: &mut Show<'_>, stage: &mut Stage) -> Result<(), CommandError> {
    show.title("Node a dies")?;
    let pid = stage.pid("a");
    show.command(&format!("kill -9 {pid}"))?;
    stage.kill("a")?;
    show.done("kill", "dead")
}

async fn get(
    show: &mut Show<'_>,
    stage: &Stage,
    hash: FileHash,
    file: &Path,
) -> Result<(), CommandError> {
    show.title("The file comes back from the others, and is the same")?;
    show.command(&format!("p2pfs --data-dir b get {} -o out", hash.short()))?;
    let out = stage.path("out");
    let saved = stage.client("b").get_path(Target::Hash(hash), &out, false).await?;
    show.done("get", &format!("{}, every byte checked", text::size(saved.fetched.bytes)))?;

    show.command(&format!("cmp {} out", shown_path(file)))?;
    let (file, out): (PathBuf, PathBuf) = (file.to_owned(), out);
    let same = tokio::task::spawn_blocking(move || stage::same(&file, &out)).await;
    match same {
        Ok(Ok(true)) => show.done("cmp", "identical"),
        Ok(Ok(false)) => Err(Failure::new(Code::Corrupt, "what came back is not the file").into()),
        Ok(Err(_)) | Err(_) => {
            Err(Failure::new(Code::Failed, "the two files cannot be compared").into())
        }
    }
}

async fn repaired(show: &mut Show<'_>, stage: &Stage, hash: FileHash) -> Result<(), CommandError> {
    show.title("The copies that node a had are made again; nobody types a command for that")?;
    show.command("p2pfs --data-dir b status")?;
    let client = stage.client("b");
    until(stage, "the missing copies were not made", async || {
        let status = client.status().await?;
        let death_is_known = (status.peers_alive, status.peers_dead) == (1, 1);
        Ok(death_is_known && status.under_replicated == 0 && whole(&client, hash).await?)
    })
    .await?;
    for line in status::lines(&client.status().await?) {
        show.words(&line)?;
    }
    show.done("repair", "everything has 2 copies again, on b and c")
}

/// Whether the living nodes hold as many copies as there should be.
async fn whole(client: &Client, hash: FileHash) -> Result<bool, Failure> {
    let stat = client.stat(Target::Hash(hash)).await?;
    let alive = stat.holders.iter().filter(|holder| holder.state == PeerState::Alive);
    let held: u64 = alive.map(|holder| holder.chunks).sum();
    Ok(held >= u64::from(REPLICAS) * (stat.chunks - stat.zero_chunks))
}

/// Looks until it is so; a daemon that ended on the way is an error at once.
async fn until(
    stage: &Stage,
    otherwise: &str,
    so: impl AsyncFn() -> Result<bool, Failure>,
) -> Result<(), CommandError> {
    let wait = async {
        loop {
            stage.check()?;
            if so().await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(STEP_DEADLINE, wait).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(Code::Failed, otherwise).into()),
    }
}
