//! `demo`: a swarm of three real daemons on this machine, shown step by step as the commands that
//! a person would type. Everything lives in one temporary directory.
//!
//! Invariant: however it ends, short of being killed itself, no daemon and no file is left.

mod stage;

use super::{ls, status};
use crate::cli::args::{DemoArgs, LsArgs};
use crate::cli::error::CommandError;
use crate::cli::ui::Ui;
use crate::client::Client;
use crate::id::FileHash;
use crate::sys::os::OsClock;
use crate::sys::{Clock, Time};
use crate::text::{self, shown};
use crate::wire::control::{Code, Failure, PeerState, Put, Target, Wait};
use serde::Serialize;
use stage::Stage;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Copies that the demo's swarm keeps: with two of three nodes left, repair can be seen.
const REPLICAS: u8 = 2;
/// Longest wait for any step.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
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
    fn command(&mut self, command: &str) -> Result<(), CommandError> {
        self.begun = self.clock.now();
        if self.ui.json {
            return Ok(());
        }
        self.ui.data(format_args!("$ {command}"))?;
        self.ui.flush()
    }

    fn words(&self, words: &str) -> Result<(), CommandError> {
        if self.ui.json { Ok(()) } else { self.ui.data(format_args!("  {words}")) }
    }

    fn done(&self, step: &str, words: &str) -> Result<(), CommandError> {
        let ms = self.clock.now().since(self.begun).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        if self.ui.json {
            self.ui.object(&Step { step, ms })?;
        } else {
            self.ui.data(format_args!("  {words} ({})\n", text::took(ms)))?;
        }
        self.ui.flush()
    }
}

pub(in crate::cli) async fn run(ui: &Ui, args: &DemoArgs) -> Result<(), CommandError> {
    let executable = std::env::current_exe()
        .map_err(|_| Failure::new(Code::Failed, "this executable's own path is not known"))?;
    let file = args.file.clone().unwrap_or_else(|| executable.clone());
    // The commands that are shown run in another directory.
    let file = std::path::absolute(&file).unwrap_or(file);
    let mut stage = Stage::new(executable)?;
    let clock = OsClock::new();
    let mut show = Show { ui, clock, begun: clock.now() };
    start(&mut show, &mut stage).await?;
    let hash = put(&mut show, &stage, &file).await?;
    kill(&mut show, &mut stage)?;
    get(&mut show, &stage, hash, &file).await?;
    repaired(&mut show, &stage, hash).await?;
    if !ui.json {
        ui.data("All of it is gone now: no daemon runs, nothing was left behind.")?;
    }
    Ok(())
}

async fn start(show: &mut Show<'_>, stage: &mut Stage) -> Result<(), CommandError> {
    let begun = show.clock.now();
    show.command(&format!("cd {}", shown(&stage.path("").to_string_lossy())))?;
    show.command("export P2PFS_CONFIG_DIR=$PWD/config")?;
    let ports = stage::free_ports()?;
    for (name, port) in stage::NAMES.into_iter().zip(ports) {
        let mut flags = vec![
            "--name".to_owned(),
            name.to_owned(),
            "--listen".into(),
            format!("127.0.0.1:{port}"),
            "--repair-delay".into(),
            "1s".into(),
        ];
        if name == stage::NAMES[0] {
            flags.extend(["--replicas".into(), REPLICAS.to_string()]);
        } else {
            flags.extend(["--bootstrap".into(), format!("127.0.0.1:{}", ports[0])]);
        }
        show.command(&format!("p2pfs daemon --data-dir {name} {} &", flags.join(" ")))?;
        stage.start(name, &flags)?;
        until(stage, &format!("node {name} did not start"), async || {
            Ok(stage.client(name).id().await.is_ok())
        })
        .await?;
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
    show.done("start", "three nodes, each knows the others")
}

async fn put(show: &mut Show<'_>, stage: &Stage, file: &Path) -> Result<FileHash, CommandError> {
    let shown_file = file.to_string_lossy();
    show.command(&format!("p2pfs --data-dir a put {} --wait all", shown(&shown_file)))?;
    let path = crate::cli::target::path(file.file_name().unwrap_or_default())?;
    let put = Put { path: Some(path), wait: Some(Wait::All), ..Put::default() };
    let stored = stage.client("a").put_path(file, put).await?;
    show.words(&stored.hash.to_string())?;
    let bytes = text::size(stored.size);
    show.done("put", &format!("{bytes}, {} of {} copies", stored.copies, stored.replicas))?;

    show.command("p2pfs --data-dir c ls")?;
    until(stage, "the name did not reach node c", async || {
        Ok(stage.client("c").stat(Target::Hash(stored.hash)).await.is_ok())
    })
    .await?;
    if !show.ui.json {
        let list = LsArgs { path: "/".into(), long: false, recursive: false };
        ls::run(show.ui, &stage.client("c"), &list).await?;
    }
    show.done("ls", "the same on every node")?;
    Ok(stored.hash)
}

fn kill(show: &mut Show<'_>, stage: &mut Stage) -> Result<(), CommandError> {
    let pid = stage.pid("a");
    show.command(&format!("kill -9 {pid}"))?;
    stage.kill("a")?;
    show.done("kill", "node a is dead")
}

async fn get(
    show: &mut Show<'_>,
    stage: &Stage,
    hash: FileHash,
    file: &Path,
) -> Result<(), CommandError> {
    show.command(&format!("p2pfs --data-dir b get {hash} -o out"))?;
    let out = stage.path("out");
    let saved = stage.client("b").get_path(Target::Hash(hash), &out, false).await?;
    show.done("get", &format!("{}, every byte checked", text::size(saved.fetched.bytes)))?;

    show.command(&format!("cmp {} out", shown(&file.to_string_lossy())))?;
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
    show.command("p2pfs --data-dir b status")?;
    let client = stage.client("b");
    until(stage, "the missing copies were not made", async || {
        let status = client.status().await?;
        let death_is_known = status.peers_alive == 1;
        Ok(death_is_known && status.under_replicated == 0 && whole(&client, hash).await?)
    })
    .await?;
    if !show.ui.json {
        for line in status::lines(&client.status().await?) {
            show.words(&line)?;
        }
    }
    show.done("repair", "every chunk has two living copies again; nobody typed a command for it")
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
