//! `put`: stores a file or a stream and prints its hash, the only thing on standard output; or a
//! directory, about which everything is said on standard error.

use crate::cli::args::PutArgs;
use crate::cli::error::CommandError;
use crate::cli::target;
use crate::cli::ui::Ui;
use crate::client::{Client, PutDir};
use crate::text::{self, shown_bytes, shown_path};
use crate::wire::control::{Code, Failure, PathText, Put, PutFailed, Stored, StoredMany};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Smaller files are stored before there is a rate to speak of.
const RATE_FROM: u64 = 1 << 20;

pub(in crate::cli) async fn run(
    ui: &Ui,
    client: &Client,
    args: &PutArgs,
    own: Vec<PathBuf>,
) -> Result<(), CommandError> {
    if args.recursive {
        return directory(ui, client, args, own).await;
    }
    let stream = args.path.as_os_str() == "-";
    let own = args.path.file_name().filter(|_| !stream);
    let path = match (&args.name, own) {
        (Some(name), own) => Some(target::listed(name, own)?),
        (None, Some(own)) if !args.unlisted => Some(target::path(own)?),
        (None, _) => None,
    };
    let put = Put {
        path,
        replicas: args.replicas,
        compress: !args.no_compress,
        wait: args.wait,
        timeout_ms: timeout_ms(args),
        tags: args.tags.clone(),
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
    let copies = Copies::from(&stored);
    if ui.json {
        ui.object(&stored)?;
    } else {
        ui.say(summary(&name, &stored));
        if stored.wait_met
            && let Some(rest) = copies.rest()
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
    Err(copies.too_few().into())
}

/// `put -r`; the node's own directories are passed over.
async fn directory(
    ui: &Ui,
    client: &Client,
    args: &PutArgs,
    own: Vec<PathBuf>,
) -> Result<(), CommandError> {
    let name = shown_path(&args.path);
    let path = place(args)?;
    ui.meter().label(format!("put {name}"));
    let began = std::time::Instant::now();
    let options = PutDir {
        path: Some(path.clone()),
        exclude: args.exclude.clone(),
        own,
        replicas: args.replicas,
        no_compress: args.no_compress,
        wait: args.wait,
        timeout_ms: timeout_ms(args),
        checksum: args.checksum,
        tags: args.tags.clone(),
    };
    let mut stored = client.put_dir(&args.path, options).await?;
    stored.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    ui.meter().clear();
    let copies = Copies::from(&stored);
    if ui.json {
        ui.object(&stored)?;
    } else {
        for over in &stored.passed_over {
            ui.say(format_args!("passed over {}: {}", shown_bytes(&over.path.0), over.why));
        }
        for failed in &stored.failed {
            let path = shown_bytes(&failed.path.0);
            ui.fault(format_args!("not stored: {path}: {}", failed.error.message));
        }
        ui.say(summary_of_many(&name, &path, &stored));
        if stored.wait_met
            && stored.copies.is_some()
            && let Some(rest) = copies.rest()
        {
            ui.say(rest);
        }
    }
    ui.flush()?;
    match stored.failed.len() {
        0 if stored.wait_met => Ok(()),
        0 => Err(copies.too_few().into()),
        _ => Err(partial(&stored.failed).into()),
    }
}

/// Where a directory is listed: under its own name, unless another one is given.
fn place(args: &PutArgs) -> Result<PathText, CommandError> {
    // Of `.` and `..` only the system knows the name.
    let whole = match args.path.file_name() {
        Some(_) => args.path.clone(),
        None => std::fs::canonicalize(&args.path).unwrap_or_default(),
    };
    match (&args.name, whole.file_name()) {
        (Some(name), _) if name == "/" => Ok("/".into()),
        (Some(name), own) => target::listed(name, own),
        (None, Some(own)) => target::path(own),
        (None, None) => {
            let name = shown_path(&args.path);
            Err(Failure::new(Code::Usage, format!("{name} has no name of its own"))
                .hint(format!("give it one:  p2pfs put -r {name} --as NAME"))
                .into())
        }
    }
}

fn partial(failed: &[PutFailed]) -> Failure {
    let message = match failed.len() {
        1 => "1 item was not stored".to_owned(),
        failed => format!("{failed} items were not stored"),
    };
    let in_the_way = failed.iter().any(|one| one.error.code == Code::Conflict);
    Failure::new(Code::Partial, message).hint(match in_the_way {
        true => "all else is; what is in the way of these:  p2pfs ls -R",
        false => "all else is; the same command stores these when they can be read",
    })
}

fn timeout_ms(args: &PutArgs) -> Option<u64> {
    args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// `stored photos as /photos: 12 files, 5 GiB, 90 unchanged, 3 of 3 copies on 3 machines (9 s)`
fn summary_of_many(name: &str, path: &PathText, stored: &StoredMany) -> String {
    let place = shown_bytes(&path.0);
    let took = text::took(stored.took_ms);
    let (files, size) = (super::count(stored.files, "file"), text::size(stored.bytes));
    match (stored.files, stored.unchanged) {
        (0, 0) if stored.failed.is_empty() => {
            format!("stored {name} as {place}: {} ({took})", super::directories(stored.dirs))
        }
        (0, 0) => format!("nothing was stored of {name} ({took})"),
        (0, same) if !stored.failed.is_empty() => {
            format!("nothing was stored of {name}: {same} unchanged in {place} ({took})")
        }
        (0, same) => format!("nothing is new in {name}: {same} unchanged in {place} ({took})"),
        (_, same) => {
            let same = if same > 0 { format!(", {same} unchanged") } else { String::new() };
            let copies = Copies::from(stored).sentence();
            format!("stored {name} as {place}: {files}, {size}{same}, {copies} ({took})")
        }
    }
}

/// The truth about a put that was interrupted: while it waits for copies the file is stored, and of
/// a directory some files are.
pub(in crate::cli) fn ended(args: &PutArgs, err: CommandError) -> CommandError {
    let (message, hint) = match &err {
        CommandError::Failed(failure) if failure.code != Code::Interrupted => return err,
        CommandError::BrokenPipe | CommandError::Answered(_) => return err,
        CommandError::Failed(_) if args.recursive => (
            "interrupted; what was stored so far stays, each file whole",
            "the same command goes on where this one ended",
        ),
        CommandError::Failed(_) if args.wait.is_some() => (
            "interrupted; the file may be stored already",
            "p2pfs ls  shows it then; put again, what is stored is not sent again",
        ),
        CommandError::Failed(_) => return err,
    };
    Failure::new(Code::Interrupted, message).hint(hint).into()
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
        Copies::from(stored).sentence(),
        text::took(stored.took_ms),
    )
}

/// How many copies there are of what was stored.
struct Copies {
    copies: u8,
    replicas: u8,
    machines: u8,
    nodes_with_room: u32,
}

impl From<&Stored> for Copies {
    fn from(stored: &Stored) -> Self {
        let Stored { copies, replicas, machines, nodes_with_room, .. } = *stored;
        Self { copies, replicas, machines, nodes_with_room }
    }
}

impl From<&StoredMany> for Copies {
    fn from(stored: &StoredMany) -> Self {
        let StoredMany { copies, replicas, machines, nodes_with_room, .. } = *stored;
        Self { copies: copies.unwrap_or(replicas), replicas, machines, nodes_with_room }
    }
}

impl Copies {
    /// `1 of 3 copies, all on this machine`
    fn sentence(&self) -> String {
        let place = match self.machines {
            0 | 1 => ", all on this machine".into(),
            machines => format!(" on {machines} machines"),
        };
        format!("{} of {}{place}", self.copies, super::copies(self.replicas))
    }

    /// What becomes of the copies that are missing.
    fn rest(&self) -> Option<String> {
        let (these, are) = match self.replicas.saturating_sub(self.copies) {
            0 => return None,
            1 => ("the other copy", "is"),
            _ => ("the other copies", "are"),
        };
        Some(if self.nodes_with_room < u32::from(self.replicas) {
            format!("{these} {are} made when nodes join:  p2pfs daemon --bootstrap HOST:4000")
        } else {
            format!("{these} {are} being made now:  p2pfs status")
        })
    }

    /// The copies that were waited for are not there.
    fn too_few(&self) -> Failure {
        let Self { copies, replicas, .. } = self;
        let message = format!("stored, but only {copies} of {replicas} copies are on disk yet");
        self.rest().into_iter().fold(Failure::new(Code::Degraded, message), Failure::hint)
    }
}
