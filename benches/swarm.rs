//! The figures of the README: real daemons on loopback, real files, and the reference beside each
//! in the same run. `cargo bench --bench swarm` prints them; nothing here fails because a machine
//! is slow. Sizes: `P2PFS_BENCH_MIB` (1024), runs: `P2PFS_BENCH_RUNS` (5).

#[path = "harness/files.rs"]
mod files;
mod harness;
#[path = "harness/signal.rs"]
mod signal;

use files::{Rows, copy_and_sync, random_file};
use harness::{Swarm, number, timed};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

impl Swarm {
    /// CPU seconds of all daemons so far.
    fn cpu(&self) -> f64 {
        let ticks = |child: &Child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            let rest = stat.rsplit(") ").next().unwrap_or_default().to_owned();
            let field = |at: usize| rest.split(' ').nth(at).and_then(|f| f.parse::<f64>().ok());
            (field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)) / 100.0
        };
        self.daemons.iter().map(ticks).sum()
    }
}

fn text_file(path: &Path, bytes: usize) {
    let mut file = fs::File::create(path).expect("a file");
    let mut written = 0;
    for line in 0.. {
        let text = format!("{line} the quick brown fox jumps over the lazy dog {}\n", line * 7919);
        file.write_all(text.as_bytes()).expect("written");
        written += text.len();
        if written > bytes {
            break;
        }
    }
    file.sync_all().expect("synced");
}

fn large(rows: &mut Rows, mib: usize, runs: usize) {
    let three = Swarm::start("three", 3);
    let one = Swarm::start("one", 1);
    let (file, copy, out) = (three.dir.join("f"), three.dir.join("copy"), three.dir.join("out"));
    let (path, out_text) = (file.to_str().expect("a text"), out.to_str().expect("a text"));
    for run in 0..runs {
        random_file(&file, mib << 20);
        let reference = copy_and_sync(&file, &copy);
        fs::remove_file(&copy).expect("removed");
        let (cpu, sent) = (three.cpu(), three.sent(0));
        let mut hash = String::new();
        let put = timed(|| hash = three.at(0, &["put", path, "--wait", "all"]));
        let moved = (three.sent(0) - sent) / (mib << 20) as f64;
        rows.add(&format!("cp + fsync of {mib} MiB, s"), reference);
        rows.add("put, R = 3, all three durable, × cp + fsync", reference / put);
        rows.add(
            "  CPU of the three daemons, s per GiB",
            (three.cpu() - cpu) * 1024.0 / mib as f64,
        );
        rows.add("  bytes sent ÷ file bytes (two remote copies)", moved);
        let get = timed(|| drop(three.at(1, &["get", &hash, "-o", out_text])));
        rows.add("get from another node, verified, synced, × cp + fsync", reference / get);
        fs::remove_file(&out).expect("removed");
        let sent = three.sent(0);
        rows.add("the same file put again, s", timed(|| drop(three.at(0, &["put", path]))));
        rows.add("  bytes sent ÷ file bytes", (three.sent(0) - sent) / (mib << 20) as f64);
        let single = timed(|| drop(one.at(0, &["put", path, "--as", &format!("/r{run}")])));
        rows.add("put, 1 node, × cp + fsync", reference / single);
    }
    text_file(&file, 64 << 20);
    let sent = three.sent(0);
    three.at(0, &["put", path, "--as", "/text", "--wait", "all"]);
    rows.add(
        "text: bytes sent ÷ file bytes (two remote copies)",
        (three.sent(0) - sent) / (64 << 20) as f64,
    );
    rows.add("largest daemon, VmHWM, MiB", three.memory("VmHWM"));
}

fn small(rows: &mut Rows, runs: usize) {
    let mut swarm = Swarm::start("small", 3);
    let (file, out) = (swarm.dir.join("s"), swarm.dir.join("o"));
    let (path, out_text) =
        (file.to_str().expect("a text").to_owned(), out.to_str().expect("a text").to_owned());
    for bytes in [1 << 10, 64 << 10] {
        for run in 0..runs * 10 {
            random_file(&file, bytes);
            let name = format!("/{bytes}.{run}");
            let kib = bytes >> 10;
            let put = timed(|| drop(swarm.at(0, &["put", &path, "--as", &name])));
            rows.add(&format!("put of {kib} KiB at R = 3, command included, ms"), put * 1e3);
            let get = timed(|| drop(swarm.at(1, &["get", &name, "-o", &out_text, "--force"])));
            rows.add(&format!("get of {kib} KiB, command included, ms"), get * 1e3);
        }
    }
    for _ in 0..runs * 4 {
        rows.add(
            "a command that does nothing (--version), ms",
            timed(|| drop(swarm.at(0, &["--version"]))) * 1e3,
        );
        rows.add("ls, ms", timed(|| drop(swarm.at(0, &["ls"]))) * 1e3);
    }
    rows.add("idle daemon, RSS, MiB", swarm.memory("VmRSS"));
    hung_peer(rows, &swarm, &path);
    restarted_peer(rows, &mut swarm);
}

/// The slowest put or get while a peer is stopped in mid-work.
fn hung_peer(rows: &mut Rows, swarm: &Swarm, path: &str) {
    swarm.signal(2, "-STOP");
    let mut slowest: f64 = 0.0;
    for run in 0..20 {
        random_file(Path::new(path), 64 << 10);
        let name = format!("/hung.{run}");
        slowest = slowest.max(timed(|| drop(swarm.at(0, &["put", path, "--as", &name]))));
        slowest = slowest.max(timed(|| drop(swarm.at(1, &["cat", &name]))));
    }
    swarm.signal(2, "-CONT");
    rows.add("one of three peers stopped: slowest put or get, s", slowest);
}

fn restarted_peer(rows: &mut Rows, swarm: &mut Swarm) {
    for _ in 0..3 {
        let listen = swarm.listen(2);
        swarm.signal(2, "-KILL");
        swarm.daemons[2].wait().expect("it ends");
        let since = Instant::now();
        while swarm.json(0, &["peers"]).matches("\"state\":\"alive\"").count() > 1
            && since.elapsed() < Duration::from_secs(20)
        {
            sleep(Duration::from_millis(20));
        }
        rows.add("a killed peer is noticed, s", since.elapsed().as_secs_f64());
        let ready = timed(|| swarm.add(2, &listen));
        rows.add("daemon start until it answers, s", ready);
        rows.add("  until it is alive at the others, s", swarm.wait("peers", 2).as_secs_f64());
    }
}

fn main() -> std::io::Result<()> {
    let (mib, runs) = (number("P2PFS_BENCH_MIB", 1024), number("P2PFS_BENCH_RUNS", 5));
    let mut rows = Rows::default();
    small(&mut rows, runs);
    large(&mut rows, mib, runs);
    rows.print(&mut std::io::stdout())
}
