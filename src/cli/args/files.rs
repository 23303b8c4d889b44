//! The arguments of the commands about files: what goes in and out, what is there and what was, and
//! mounts. Nothing here does anything.

use crate::cli::complete;
use crate::config;
use crate::text;
use crate::wire::control::{FileTag, RESULTS, RESULTS_MAX, Range, Wait};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `put`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The hash is the BLAKE3 hash of the content, what b3sum prints. It is the only thing on standard
output; with -r there is none.

Examples:
  p2pfs put file.txt
  p2pfs put q3.pdf --as /reports/q3.pdf --wait all --timeout 10min
  p2pfs put scan.pdf --as /2026/ --tag tax --tag receipt
  p2pfs put -r ~/photos --as /photos --exclude '*.tmp'
  tar c photos | p2pfs put - --as /photos.tar")]
pub struct PutArgs {
    /// The file, or with -r the directory; `-` for standard input
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Store a directory with everything in it
    ///
    /// What is there already under the same name, with the same length and modification time, is
    /// not read again. Nothing is removed. What cannot be read is named, and the exit code is 4.
    /// Pipes, sockets, devices and this node's own directories are passed over, and what a file
    /// .p2pfsignore in a directory says of it, in the form of .gitignore.
    #[arg(short, long)]
    pub recursive: bool,
    /// Pass over what this pattern fits, in the form of .gitignore; may be repeated
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    pub exclude: Vec<String>,
    /// Read every file, also those whose length and modification time are known
    #[arg(long, requires = "recursive")]
    pub checksum: bool,
    /// Its name in the swarm [default: its name here]
    ///
    /// A name that ends with `/` is a directory for it.
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<OsString>,
    /// A tag by which p2pfs search finds it; may be repeated; with -r for every file
    ///
    /// Letters, digits, `-`, `_` and `.`, at most 32 bytes. They replace those of a file that is
    /// there, which keeps its tags when none is given.
    #[arg(long = "tag", value_name = "TAG", value_parser = FileTag::new)]
    #[arg(conflicts_with = "unlisted")]
    pub tags: Vec<FileTag>,
    /// Give it no name: who knows the hash can get it
    #[arg(long, conflicts_with_all = ["name", "recursive"])]
    pub unlisted: bool,
    /// Number of copies, 1 to 8 [default: the swarm's]
    #[arg(long, value_name = "N", value_parser = config::replicas)]
    pub replicas: Option<u8>,
    /// Store it as it is, also where compression would pay
    #[arg(long)]
    pub no_compress: bool,
    /// Wait until N copies are on disk, or all
    #[arg(long, value_name = "N|all", value_parser = parse_wait)]
    pub wait: Option<Wait>,
    /// Longest wait, e.g. 30s; exit code 5 when it was not enough
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = text::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Arguments of `get`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The file appears whole or not at all, and every byte of it has been checked.

Examples:
  p2pfs get 3f9a1c77b0 -o out
  p2pfs get /reports/q3.pdf
  p2pfs get /photos.tar -o - | tar x
  p2pfs get -r /photos -o photos
  p2pfs request /film.mkv --from calm-heron
  p2pfs get otter:/films/a.mkv")]
pub struct GetArgs {
    /// A hash, the first 8 or more digits of one, a name (begins with `/`), or PEER:/PATH for what
    /// a node shares
    ///
    /// Where several names have the content of a hash, the newest is its stored name.
    #[arg(value_name = "FILE", add = ArgValueCompleter::new(complete::files))]
    pub target: OsString,
    /// Where to: a file, a directory, or `-` for standard output [default: its stored name, here]
    #[arg(short, long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub output: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(short, long)]
    pub force: bool,
    /// Ask this peer alone: its name, or the first 8 or more digits of its id
    ///
    /// What this node has itself is not fetched. Nobody else is asked for the rest, however slow
    /// the peer is; exit code 10 when it does not have all of it, or is away.
    #[arg(long, value_name = "PEER", add = ArgValueCompleter::new(complete::peers))]
    pub from: Option<String>,
    /// Fetch a directory with everything in it
    ///
    /// The output becomes a copy of it. Of a directory that is there its permissions stay, and what
    /// is in it and not in the swarm; a file with the same length, modification time and
    /// permissions is not fetched again. Nothing is written outside of it, and no link that lies
    /// there is followed.
    #[arg(short, long)]
    pub recursive: bool,
}

/// Arguments of `cat`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs cat /log.txt
  p2pfs cat /log.txt --range 1MiB..2MiB
  p2pfs cat /log.txt --range -4KiB")]
pub struct CatArgs {
    /// A hash, the first 8 or more digits of one, or a name (begins with `/`)
    #[arg(value_name = "FILE", add = ArgValueCompleter::new(complete::files))]
    pub target: OsString,
    /// Which bytes: `A..B` (B not included), `A..`, `..B`, or `-SIZE` for the last ones
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true, value_parser = parse_range)]
    pub range: Option<Range>,
}

/// Arguments of `ls`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs ls
  p2pfs ls -R /reports
  p2pfs ls --shares
  p2pfs ls --json | jq -r .hash")]
pub struct LsArgs {
    /// The directory
    #[arg(value_name = "PATH", default_value = "/", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
    /// Show permissions, whole hashes, times in UTC, and by whom
    #[arg(short, long)]
    pub long: bool,
    /// List the directories below too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// List instead what was removed here or below, and can be restored
    #[arg(long, conflicts_with_all = ["long", "recursive"])]
    pub removed: bool,
    /// List instead what nodes serve from where it lies; PATH is then PEER:/PATH
    #[arg(long, conflicts_with = "removed")]
    pub shares: bool,
}

/// Arguments of `search`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
All of it has to fit; upper and lower case are alike. What is called so comes first, then what
begins so, then what has a word that begins so, then the rest. Quote a pattern.

Examples:
  p2pfs search rep 2026
  p2pfs search '*.mkv' --min 1GiB
  p2pfs search --tag tax --newer 30d --owner calm-heron")]
pub struct SearchArgs {
    /// Words that are in the name, begin a tag, or are in the owner's name
    ///
    /// A word with `*` or `?` in it is a pattern for a whole name.
    #[arg(value_name = "WORD")]
    pub words: Vec<String>,
    /// Only these: `file`, `dir`, `link`, or how a name ends, e.g. pdf; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub kind: Vec<String>,
    /// Only files of at least this size, e.g. 10MiB
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    pub min: Option<u64>,
    /// Only files of at most this size
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    pub max: Option<u64>,
    /// Only what was stored within this time, e.g. 7d
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    pub newer: Option<Duration>,
    /// Only what was stored longer ago than this
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    pub older: Option<Duration>,
    /// Only what this node has stored: its name, or the first 8 or more digits of its id
    #[arg(long, value_name = "PEER", add = ArgValueCompleter::new(complete::peers))]
    pub owner: Option<String>,
    /// Only what has this tag, see p2pfs help put; may be repeated
    #[arg(long = "tag", value_name = "TAG", value_parser = FileTag::new)]
    pub tags: Vec<FileTag>,
    /// Most results, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = RESULTS, value_parser = parse_limit)]
    pub limit: usize,
}

/// Arguments of `mkdir`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs mkdir /reports
  p2pfs mkdir -p /reports/2026/q3")]
pub struct MkdirArgs {
    /// Their names
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::names))]
    pub paths: Vec<OsString>,
    /// Make the directories on the way too; one that is there is fine
    #[arg(short, long)]
    pub parents: bool,
}

/// Arguments of `mv`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
No content moves. A file that had the next name before can be restored under another one.

Examples:
  p2pfs mv /draft.pdf /final.pdf
  p2pfs mv /a.jpg /b.jpg /photos")]
pub struct MvArgs {
    /// Names now, and at the end the next name, or the directory that they go into
    #[arg(value_name = "NAME", num_args = 2.., required = true)]
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub names: Vec<OsString>,
}

/// Arguments of `write`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Only chunks that change are stored and sent. The hash of the whole file is printed, and a new
version of it is known to the others then.

Examples:
  printf 1234 | p2pfs write /disk.img --offset 1MiB
  p2pfs write /notes.txt < notes.txt")]
pub struct WriteArgs {
    /// Its name (begins with `/`); it is made when there is none
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
    /// Where the first byte goes, e.g. 4096 or 1MiB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = text::parse_size)]
    pub offset: u64,
}

/// Arguments of `mount`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The command returns when programs can use it; the daemon serves it, and mounts it again when it is
restarted. What a program has synced is on this machine's disk. The others know of it when the file
was closed, or nothing was written to it for a second, and every 30 seconds in between. Locks hold
between programs that use the same mount, not between machines, nor between two mounts of a node.

Without root it needs fusermount3 (package fuse3).

Examples:
  p2pfs mount ~/swarm
  p2pfs mount --read-only --path /photos /mnt/photos
  p2pfs umount ~/swarm")]
pub struct MountArgs {
    /// An empty directory
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub dir: PathBuf,
    /// The directory of the swarm that is seen there
    #[arg(long, value_name = "NAME", default_value = "/")]
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
    /// Let nothing be changed through it
    #[arg(long)]
    pub read_only: bool,
    /// Let other users of this machine use it, as far as permissions allow
    #[arg(long)]
    pub allow_other: bool,
}

/// Arguments of `umount`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
It waits until the others have what was changed. When programs use it, they are named and it stays.

Examples:
  p2pfs umount ~/swarm
  p2pfs umount --force ~/swarm")]
pub struct UmountArgs {
    /// The directory
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub dir: PathBuf,
    /// End it although programs use it: they keep what they have open
    #[arg(short, long)]
    pub force: bool,
}

/// Arguments of `rm`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
What is removed can be restored for the history time of the daemon, 30 days by default. Then, or at
once with --purge, its content is let go on all nodes, and its room is free again after a grace.

Examples:
  p2pfs rm /reports/q3.pdf
  p2pfs rm -r /reports
  p2pfs rm --purge --yes /film.mkv")]
pub struct RmArgs {
    /// Names (begin with `/`), or hashes, or the first 8 or more digits of them
    #[arg(value_name = "FILE", required = true, add = ArgValueCompleter::new(complete::files))]
    pub targets: Vec<OsString>,
    /// Remove directories with everything in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Let the content go at once: it cannot be restored; also of what was removed before
    ///
    /// An admin may, and who put all that is kept of the file. What another name leads to, or
    /// somebody else has put, stays.
    #[arg(long)]
    pub purge: bool,
    /// Do not ask whether content may be purged
    #[arg(long, requires = "purge")]
    pub yes: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
What can be restored:  p2pfs ls --removed  and  p2pfs history NAME

An old version becomes the newest one; what it replaces stays in the history. What was in a removed
directory comes back into the one that has its name now.

Examples:
  p2pfs restore /reports/q3.pdf
  p2pfs restore -r /reports
  p2pfs restore /reports/q3.pdf@2026-11-20")]
pub struct RestoreArgs {
    /// What was removed, or NAME@VERSION, see p2pfs help history
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
    /// Restore what was removed from the directory and those below too
    #[arg(short, long)]
    pub recursive: bool,
}

/// Arguments of `history`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
NAME@VERSION means a version wherever a file is named, as in get, cat, stat and restore. VERSION is
its number, or the first 8 or more digits of its hash, or a time: what stood there then. Times are
2026-11-20 (the end of that day), 2026-11-20T14:00 (UTC), or 30min, 2h, 3d, 1w ago. A file that is
really called so comes first.

What was replaced is kept for the history time of the daemon, 30 days by default: everything for an
hour, after that one version an hour, after a day one version a day. Numbers change when a version
goes, hashes never.

Examples:
  p2pfs history /reports/q3.pdf
  p2pfs get /reports/q3.pdf@2 -o old.pdf
  p2pfs cat /notes.txt@2d
  p2pfs restore /reports/q3.pdf@2026-11-20")]
pub struct HistoryArgs {
    /// Its name, also one that was removed
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
}

/// Arguments of `conflicts`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
When a file is changed on two nodes that do not hear of each other, nothing is lost: the later
version has the name, the other is beside it as a conflict copy, on all nodes alike. What is dropped
with --keep stays in the history of the name.

Examples:
  p2pfs conflicts
  p2pfs conflicts /notes.txt --keep 3f9a1c77b0
  p2pfs conflicts /notes.txt --keep-both")]
pub struct ConflictsArgs {
    /// The directory, or the name that is in conflict
    #[arg(value_name = "PATH", default_value = "/", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
    /// Keep only this one: its name, or its version as in p2pfs history
    #[arg(long, value_name = "NAME|VERSION", conflicts_with = "keep_both")]
    pub keep: Option<OsString>,
    /// Keep all: the conflict copies become files of their own
    #[arg(long)]
    pub keep_both: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
One line for each change from now on, whichever node made it, until Ctrl-C or until the daemon
stops. Who reads too slowly is told how many changes were missed, at least.

Examples:
  p2pfs watch
  p2pfs watch /reports --json | jq -r .path")]
pub struct WatchArgs {
    /// The directory, with everything below it, or a file
    #[arg(value_name = "PATH", default_value = "/", add = ArgValueCompleter::new(complete::names))]
    pub path: OsString,
}

/// Arguments of `stat`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  p2pfs stat /reports/q3.pdf
  p2pfs stat /reports/q3.pdf --chunks
  p2pfs stat 3f9a1c77b0 --json")]
pub struct StatArgs {
    /// A hash, the first 8 or more digits of one, or a name (begins with `/`)
    #[arg(value_name = "FILE", add = ArgValueCompleter::new(complete::files))]
    pub target: OsString,
    /// List its chunks instead, and who holds each
    #[arg(long)]
    pub chunks: bool,
}

/// Arguments of `link`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
A link is one word for mails and chats; get, cat and stat take it in place of a hash. It names the
file by its hash, the swarm, and up to three nodes that have it, so that a member finds it also
before it has met them. It is no secret and gives no right: only members of the swarm can follow it,
and each of them could read the file without it. For the same reason --ttl is a courtesy.

Examples:
  p2pfs link /reports/q3.pdf
  p2pfs link 3f9a1c77b0 --ttl 7d
  p2pfs get p2pfs1aeb... -o q3.pdf")]
pub struct LinkArgs {
    /// A hash, the first 8 or more digits of one, or a name (begins with `/`)
    #[arg(value_name = "FILE", add = ArgValueCompleter::new(complete::files))]
    pub target: OsString,
    /// How long it is followed, e.g. 7d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    pub ttl: Option<Duration>,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    match text::parse_duration(text)? {
        ttl if ttl.as_secs() == 0 => Err(format!("`{text}` is too short: a second at least")),
        ttl => Ok(ttl),
    }
}

fn parse_wait(text: &str) -> Result<Wait, config::ParseError> {
    match text {
        "all" => Ok(Wait::All),
        text => config::replicas(text).map(Wait::Copies).map_err(|_| {
            config::ParseError(format!("`{}` is not a number from 1 to 8, nor `all`", text))
        }),
    }
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=RESULTS_MAX).contains(number));
    number.ok_or_else(|| format!("`{}` is not a number from 1 to {RESULTS_MAX}", text::shown(text)))
}

fn parse_range(text: &str) -> Result<Range, String> {
    if let Some(last) = text.strip_prefix('-') {
        return text::parse_size(last).map(Range::Last);
    }
    let Some((start, end)) = text.split_once("..") else {
        return Err("a range is A..B, A.., ..B or -SIZE, e.g. 0..4KiB".into());
    };
    let size = |text: &str| Some(text).filter(|text| !text.is_empty()).map(text::parse_size);
    let start = size(start).transpose()?.unwrap_or(0);
    let end = size(end).transpose()?;
    match end {
        Some(end) if end < start => Err(format!("it ends at {end}, before it begins at {start}")),
        end => Ok(Range::Span { start, end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("-4KiB"), Ok(Range::Last(4096)));
        assert_eq!(parse_range("1K..2K"), Ok(Range::Span { start: 1024, end: Some(2048) }));
        assert_eq!(parse_range("5.."), Ok(Range::Span { start: 5, end: None }));
        assert_eq!(parse_range("..5"), Ok(Range::Span { start: 0, end: Some(5) }));
        assert!(parse_range("5").is_err() && parse_range("9..5").is_err());
    }
}
