//! What a million entries cost: a real daemon with 1,000 directories of 1,000 small files, and the
//! same with a tenth of them beside it, so that growth shows. `cargo bench --bench million` prints
//! a table with the bars; nothing here fails because a machine is slow. `P2PFS_BENCH_ENTRIES`
//! (1000000) says how many; at most 1,000 directories are made, with 1,000 files in each.
//!
//! Every file has a line of about 30 bytes, each another one. Times are those of whole commands,
//! medians of `RUNS`; the reference is the system's own file system in the same run.

mod harness;
#[path = "harness/said.rs"]
mod said;
#[path = "harness/signal.rs"]
mod signal;

use harness::{Swarm, number, timed};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Files in a directory.
const FILES: usize = 1_000;
/// How often a short command is run.
const RUNS: usize = 20;
/// `put -r` passes over nothing that was modified so short a time before it was put.
const TICK: Duration = Duration::from_secs(3);
/// How long a node that joins may take to have all records.
const JOIN_MAX: Duration = Duration::from_secs(3_600);
/// How long the node that joined is watched while it gets its copies.
const WATCHED: Duration = Duration::from_secs(20);
/// What a daemon may take, in MiB.
const MEMORY_MAX: f64 = 64.0;

/// One line of the table: a value for each number of entries.
struct Row {
    label: String,
    /// What it may be at most.
    bar: Option<f64>,
    /// Whether it may grow as the number of entries does, and no faster.
    grows: bool,
    values: Vec<f64>,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, label: &str, value: f64) -> &mut Row {
        say(&format!("{label:<62} {value:>10.3}"));
        let at = self.0.iter().position(|row| row.label == label).unwrap_or_else(|| {
            let (label, values) = (label.to_owned(), Vec::new());
            self.0.push(Row { label, bar: None, grows: false, values });
            self.0.len() - 1
        });
        self.0[at].values.push(value);
        &mut self.0[at]
    }

    fn print(&self, out: &mut impl Write, counts: &[usize]) -> std::io::Result<()> {
        write!(out, "{:<62}", "entries")?;
        for count in counts {
            write!(out, " {count:>10}")?;
        }
        writeln!(out, " {:>7} {:>8}", "ratio", "bar")?;
        let more = counts[counts.len() - 1] as f64 / counts[0] as f64;
        for row in &self.0 {
            write!(out, "{:<62}", row.label)?;
            row.values.iter().try_for_each(|value| write!(out, " {value:>10.3}"))?;
            let last = row.values.last().copied().unwrap_or(0.0);
            let ratio = last / row.values[0];
            write!(out, " {ratio:>7.2}")?;
            match row.bar {
                Some(bar) => writeln!(out, " {:>8}", verdict(&format!("≤ {bar}"), last <= bar))?,
                None if row.grows => {
                    let linear = format!("≤ {:.0} ×", more * 1.2);
                    writeln!(out, " {:>8}", verdict(&linear, ratio <= more * 1.2))?;
                }
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

fn verdict(bar: &str, met: bool) -> String {
    format!("{bar} {}", if met { "met" } else { "MISSED" })
}

/// The daemon under measurement, and what it is given.
struct Stage<'a> {
    rows: &'a mut Rows,
    swarm: Swarm,
    source: PathBuf,
    count: usize,
}

impl Stage<'_> {
    /// Runs a command so many times; the median in milliseconds.
    fn median(&mut self, label: &str, runs: usize, args: impl Fn(usize) -> Vec<String>) -> f64 {
        let mut all: Vec<f64> = (0..runs)
            .map(|run| {
                let args = args(run);
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                timed(|| drop(self.swarm.at(0, &args))) * 1e3
            })
            .collect();
        all.sort_by(f64::total_cmp);
        let median = all[all.len() / 2];
        self.rows.add(label, median);
        median
    }

    /// Notes the most memory that a daemon took since the last time, and what it takes now.
    fn memory(&mut self, node: usize, what: &str) {
        let (most, now) =
            (self.swarm.memory_of(node, "VmHWM"), self.swarm.memory_of(node, "VmRSS"));
        let label = format!("  VmHWM of the daemon meanwhile, MiB ({what})");
        self.rows.add(&label, most).bar = Some(MEMORY_MAX);
        self.rows.add(&format!("  VmRSS then, MiB ({what})"), now);
        let path = format!("/proc/{}/clear_refs", self.swarm.daemons[node].id());
        // Where it may not be set back, the highest of all is shown each time.
        fs::write(path, "5").ok();
    }

    fn put_all(&mut self, what: &str) {
        let source = self.source.to_str().expect("a text").to_owned();
        let args = ["put", "-r", &source, "--as", "/big", "--quiet"];
        let took = timed(|| drop(self.swarm.at(0, &args)));
        self.rows.add(&format!("put -r of all, {what}, s"), took).grows = true;
        self.rows.add(&format!("  files/s ({what})"), self.count as f64 / took);
        self.memory(0, &format!("put -r, {what}"));
    }

    fn short(&mut self) {
        self.median("a command that does nothing (--version), ms", RUNS, |_| text(&["--version"]));
        self.median("ls of a directory of 1,000, ms", RUNS, |_| text(&["ls", "/big/d000"]));
        self.rows.0.iter_mut().filter(|row| row.label.starts_with("ls of")).for_each(|row| {
            row.bar = Some(50.0);
        });
        self.median("ls -l of it, ms", RUNS, |_| text(&["ls", "-l", "/big/d000"]));
        self.median("ls of the directory of directories, ms", RUNS, |_| text(&["ls", "/big"]));
        let last = self.count / FILES - 1;
        self.median("stat of a file, ms", RUNS, |run| {
            text(&["stat", &format!("/big/d{last:03}/f{run:03}")])
        });
        self.median("cat of a file, ms", RUNS, |run| {
            text(&["cat", &format!("/big/d{last:03}/f{run:03}")])
        });
        let new = self.swarm.dir.join("new");
        let path = new.to_str().expect("a text").to_owned();
        self.median("put of a file, ms", RUNS, |run| {
            fs::write(&new, format!("a new file, number {run}\n")).expect("written");
            text(&["put", &path, "--as", &format!("/big/d000/new{run}")])
        });
        self.median("mv of a file, ms", RUNS, |run| {
            text(&["mv", &format!("/big/d000/new{run}"), &format!("/big/d000/old{run}")])
        });
        self.median("rm of a file, ms", RUNS, |run| text(&["rm", &format!("/big/d000/old{run}")]));
        let out = self.swarm.dir.join("out").to_str().expect("a text").to_owned();
        let get = ["get", "-r", "/big/d000", "-o", &out, "--quiet"];
        let took = timed(|| drop(self.swarm.at(0, &get)));
        self.rows.add("get -r of a directory of 1,000, ms", took * 1e3);
        fs::remove_dir_all(out).expect("removed");
        self.memory(0, "these commands");
    }

    /// Searches: the whole command, and what the daemon says of its own part.
    fn search(&mut self) {
        let last = format!("f{:03}", FILES - 1);
        for (what, args) in [
            ("a word", &["search", &*last][..]),
            ("two words and a size", &["search", "f", &last[1..], "--max", "1KiB"]),
            ("a pattern and an age", &["search", "*9", "--newer", "1d"]),
            ("a size", &["search", "--min", "1", "--limit", "10"]),
        ] {
            let (mut whole, mut own): (Vec<f64>, Vec<f64>) = (0..RUNS)
                .map(|_| {
                    let mut said = String::new();
                    let took = timed(|| said = self.swarm.said(0, args)) * 1e3;
                    (took, own_ms(&said))
                })
                .unzip();
            whole.sort_by(f64::total_cmp);
            own.sort_by(f64::total_cmp);
            let (median, worst) = (RUNS / 2, RUNS - 1);
            self.rows.add(&format!("search of {what}, ms"), whole[median]).grows = true;
            let label = format!("  by the daemon, ms (≤ 50 at 100,000; {what})");
            self.rows.add(&label, own[median]).grows = true;
            self.rows.add(&format!("  the slowest of {RUNS} ({what})"), own[worst]).grows = true;
        }
        self.memory(0, "searches");
    }

    fn mounted(&mut self) {
        let at = self.swarm.dir.join("mnt");
        fs::create_dir_all(&at).expect("a directory");
        let path = at.to_str().expect("a text").to_owned();
        if !self.swarm.try_at(0, &["mount", &path]).0 {
            say("nothing can be mounted here: the mount is left out");
            return;
        }
        let (dir, all) = (at.join("big/d001"), at.join("big"));
        let native = list(&self.source.join("d001"));
        self.rows.add("ls -l of a directory of 1,000: the source, ms", native);
        self.rows.add("  through the mount, first, ms", list(&dir));
        self.rows.add("  again, ms", list(&dir));
        self.rows.add("ls -l of the directory of directories, mount, ms", list(&all));
        self.memory(0, "listing the mount");
        let took = timed(|| assert!(quiet(Command::new("find").arg(&all).args(["-size", "+1M"]))));
        self.rows.add("find -size over everything, mount, s", took).grows = true;
        self.memory(0, "find in the mount");
        self.swarm.at(0, &["umount", &path]);
    }

    fn disk(&mut self) {
        let data = self.swarm.data(0);
        let mut all = 0.0;
        for part in ["segments", "tables"] {
            let bytes = allocated(&data.join(part)) as f64;
            let label = format!("bytes on the disk per entry: {part}");
            self.rows.add(&label, bytes / self.count as f64);
            all += bytes;
        }
        self.rows.add("data directory, MiB", all / f64::from(1 << 20)).grows = true;
    }

    fn restarts(&mut self) {
        for signal in ["stop", "-KILL"] {
            let listen = self.swarm.listen(0);
            let stopping = timed(|| {
                match signal {
                    "stop" => drop(self.swarm.at(0, &["stop"])),
                    _ => self.swarm.signal(0, signal),
                }
                self.swarm.daemons[0].wait().expect("it ends");
            });
            if signal == "stop" {
                self.rows.add("stop, s", stopping);
            }
            let begun = Instant::now();
            self.swarm.add(0, &listen);
            let ready = begun.elapsed().as_secs_f64();
            self.rows.add(&format!("start after {signal} until `id` answers, s"), ready);
            self.swarm.at(0, &["ls", "/big/d000"]);
            let listed = begun.elapsed().as_secs_f64();
            let label = format!("  until `ls` of a directory of 1,000 was answered ({signal}), s");
            self.rows.add(&label, listed);
            self.memory(0, &format!("start after {signal}"));
        }
    }

    fn joins(&mut self) {
        let begun = Instant::now();
        self.swarm.add(1, "127.0.0.1:0");
        let known = format!("\"files\":{}", self.count);
        let mut told = Instant::now();
        while !self.swarm.json(1, &["status"]).contains(&known) {
            assert!(begun.elapsed() < JOIN_MAX, "the node that joined does not get all records");
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                say(&self.swarm.json(1, &["status"]));
            }
            sleep(Duration::from_millis(100));
        }
        let took = begun.elapsed().as_secs_f64();
        self.rows.add("a node joins: until it has all records, s", took).grows = true;
        self.memory(1, "the node that joins");
        self.memory(0, "the other one");
        sleep(WATCHED);
        self.memory(1, "the joined one, while it gets copies");
        self.memory(0, "the one that has them");
    }
}

/// Says on the standard error how far it is.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// The time in the last parentheses of a summary, `(11 ms)` or `(0.12 s)`, in milliseconds.
fn own_ms(said: &str) -> f64 {
    let time = said.rsplit_once('(').and_then(|(_, time)| time.strip_suffix(')'));
    let (number, unit) = time.and_then(|time| time.split_once(' ')).expect("a time");
    number.parse::<f64>().expect("a number") * if unit == "ms" { 1.0 } else { 1e3 }
}

fn text(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How long the system's `ls -l` takes, in milliseconds.
fn list(dir: &Path) -> f64 {
    timed(|| assert!(quiet(Command::new("ls").arg("-l").arg(dir)), "ls of {}", dir.display())) * 1e3
}

/// Bytes that the files below a directory take on the disk.
fn allocated(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => allocated(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Makes directories of small files.
fn make(dir: &Path, count: usize) {
    for number in 0..count / FILES {
        let inside = dir.join(format!("d{number:03}"));
        fs::create_dir_all(&inside).expect("a directory");
        for file in 0..FILES {
            let line = format!("file {file} of directory {number}\n");
            fs::write(inside.join(format!("f{file:03}")), line).expect("a file");
        }
    }
}

fn stage(rows: &mut Rows, count: usize) {
    let swarm = Swarm::start(&format!("million-{count}"), 1);
    let source = swarm.dir.join("source");
    let took = timed(|| make(&source, count));
    rows.add("making the files to put, not synced, s", took).grows = true;
    sleep(TICK);
    let mut stage = Stage { rows, swarm, source, count };
    stage.memory(0, "an empty node");
    stage.put_all("new");
    stage.short();
    stage.search();
    stage.put_all("unchanged");
    stage.mounted();
    stage.disk();
    stage.restarts();
    stage.joins();
}

fn main() -> std::io::Result<()> {
    let whole = number("P2PFS_BENCH_ENTRIES", 1_000_000).clamp(2 * FILES, 1_000 * FILES);
    let counts = [(whole / 10).max(2 * FILES), whole].map(|count| count / FILES * FILES);
    let mut rows = Rows::default();
    for count in counts {
        stage(&mut rows, count);
    }
    rows.print(&mut std::io::stdout(), &counts)
}
