//! The figures of a mount: three real daemons on loopback, R = 3, two of them with a mount, and the
//! native file system of the same disk in the same run. `cargo bench --bench mount` prints them; it
//! needs what mounting needs; where `fio` is installed its figures are added. Sizes:
//! `P2PFS_BENCH_MIB` (1024), runs: `P2PFS_BENCH_RUNS` (5).

#[path = "harness/files.rs"]
mod files;
mod harness;

use files::{Rows, copy_and_sync, random_file};
use harness::{Swarm, number, timed};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Small files, and the bytes of each.
const SMALL: usize = 2000;
const SMALL_LEN: usize = 4096;
/// Changes of which it is measured when the other node has them.
const CHANGES: usize = 200;
/// What `fio` does, each for so many seconds on a file of so many MiB: name, pattern, block size.
const FIO: [(&str, &str, &str); 4] = [
    ("blocks of 1 MiB read in order", "read", "1m"),
    ("blocks of 4 KiB read at random", "randread", "4k"),
    ("blocks of 1 MiB written in order", "write", "1m"),
    ("blocks of 4 KiB written at random", "randwrite", "4k"),
];
const FIO_SECONDS: u32 = 5;
const FIO_MIB: u32 = 256;
/// What is waited for happens in so long, or the bench ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// Daemons of which the first two have a mount.
struct Mounted {
    swarm: Swarm,
    points: [PathBuf; 2],
}

impl Mounted {
    fn new() -> Self {
        let swarm = Swarm::start("mount", 3);
        let points = [0, 1].map(|node| {
            let point = swarm.dir.join(format!("m{node}"));
            fs::create_dir(&point).expect("a directory");
            swarm.at(node, &["mount", point.to_str().expect("a text")]);
            point
        });
        Self { swarm, points }
    }

    /// Waits until as many nodes hold a file as there are.
    fn held_by_all(&self, path: &str) {
        until(|| {
            let (known, stat) = self.swarm.try_at(0, &["stat", path, "--json"]);
            known && stat.contains("\"copies\":3")
        });
    }

    /// Waits until nothing is sent any more; what was sent until then.
    fn sent_when_quiet(&self) -> f64 {
        let mut before = -1.0;
        loop {
            let now = self.swarm.sent(0);
            if now - before < 10_000.0 {
                return now;
            }
            before = now;
            sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for (node, point) in self.points.iter().enumerate() {
            self.swarm.try_at(node, &["umount", "--force", point.to_str().expect("a text")]);
        }
    }
}

fn until(mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "it did not happen in {PATIENCE:?}");
        sleep(Duration::from_millis(1));
    }
}

/// Reads a file to its end, which must have this length.
fn read(path: &Path, len: usize) -> f64 {
    let mut buf = vec![0; 1 << 20];
    timed(|| {
        let mut file = File::open(path).expect("the file is there");
        let mut done = 0;
        loop {
            match file.read(&mut buf).expect("read") {
                0 => break,
                n => done += n,
            }
        }
        assert_eq!(done, len, "{}", path.display());
    })
}

fn large(rows: &mut Rows, mounted: &Mounted, mib: usize, runs: usize) {
    let dir = &mounted.swarm.dir;
    let (file, plain, out) = (dir.join("file"), dir.join("plain"), dir.join("out"));
    let len = mib << 20;
    for run in 0..runs {
        let (name, synced) = (format!("large{run}"), format!("synced{run}"));
        let here = |name: &str| mounted.points[0].join(name);
        random_file(&file, len);
        let native = copy_and_sync(&file, &plain);
        rows.add(&format!("cp + fsync of {mib} MiB, s"), native);
        let took = timed(|| {
            fs::copy(&file, here(&name)).expect("copied");
            mounted.held_by_all(&format!("/{name}"));
        });
        rows.add("written to the mount, all three have it, × cp + fsync", native / took);
        random_file(&file, len);
        let took = timed(|| {
            copy_and_sync(&file, &here(&synced));
            mounted.held_by_all(&format!("/{synced}"));
        });
        rows.add("  the same, synced by the program first", native / took);
        random_file(&file, len);
        let path = file.to_str().expect("a text");
        let put = ["put", path, "--as", "/put", "--wait", "all"];
        let took = timed(|| drop(mounted.swarm.at(0, &put)));
        rows.add("  put in the same run", native / took);

        let out_text = out.to_str().expect("a text");
        let path = format!("/{name}");
        let get = timed(|| drop(mounted.swarm.at(1, &["get", &path, "-o", out_text])));
        let cold = read(&mounted.points[1].join(&name), len);
        rows.add("read for the first time at another node, × get there", get / cold);
        let again = read(&mounted.points[1].join(&name), len);
        read(&plain, len);
        rows.add("read again, × the native file system", read(&plain, len) / again);
        change(rows, mounted, &here(&name), len);
        for path in [&plain, &out, &here(&name), &here(&synced)] {
            fs::remove_file(path).expect("removed");
        }
    }
}

/// Four bytes of a large file.
fn change(rows: &mut Rows, mounted: &Mounted, path: &Path, len: usize) {
    let there = mounted.points[1].join(path.file_name().expect("a name"));
    let at = (len / 2 + 77) as u64;
    let before = mounted.sent_when_quiet();
    let mut old = [0; 4];
    let reader = File::open(&there).expect("the file is there");
    reader.read_exact_at(&mut old, at).expect("read");
    let new = old.map(|byte| !byte);
    let took = timed(|| {
        let file = File::options().write(true).open(path).expect("opened");
        file.write_all_at(&new, at).expect("written");
        drop(file);
        until(|| {
            let mut now = [0; 4];
            File::open(&there).expect("opened").read_exact_at(&mut now, at).expect("read");
            now == new
        });
    });
    rows.add("4 bytes changed in it, closed, read at the other node, s", took);
    let sent = (mounted.sent_when_quiet() - before) / 2.0 / 1024.0;
    rows.add("  sent to each of two replicas, KiB", sent);
}

fn small(rows: &mut Rows, mounted: &Mounted, runs: usize) {
    let native = mounted.swarm.dir.join("native");
    for run in 0..runs {
        let dirs = [native.clone(), mounted.points[0].join(format!("small{run}"))];
        let mut took = [[0.0; 3]; 2];
        for (which, dir) in dirs.iter().enumerate() {
            fs::create_dir(dir).expect("a directory");
            let name = |file: usize| dir.join(format!("{file:04}"));
            took[which] = [
                timed(|| {
                    for file in 0..SMALL {
                        let text = format!("{run} {file}\n").repeat(SMALL_LEN / 4);
                        fs::write(name(file), &text.as_bytes()[..SMALL_LEN]).expect("written");
                    }
                }),
                timed(|| {
                    assert!((0..SMALL).all(|file| fs::metadata(name(file)).is_ok()));
                }),
                timed(|| {
                    let entries = fs::read_dir(dir).expect("listed");
                    let sizes = entries.map(|entry| entry.and_then(|e| e.metadata()));
                    assert_eq!(sizes.filter(Result::is_ok).count(), SMALL);
                }),
            ];
        }
        let [native_took, ours] = took;
        rows.add(&format!("{SMALL} files of 4 KiB made, files/s"), SMALL as f64 / ours[0]);
        rows.add("  made, × the native file system", native_took[0] / ours[0]);
        rows.add("stat, calls/s", SMALL as f64 / ours[1]);
        rows.add("  stat, × the native file system", native_took[1] / ours[1]);
        rows.add("listed with their attributes, ms", ours[2] * 1e3);
        let last = mounted.points[1].join(format!("small{run}/{:04}", SMALL - 1));
        let spread = timed(|| until(|| fs::metadata(&last).is_ok_and(|meta| meta.len() > 0)));
        rows.add("  the last is at the other node after, s", spread);
        fs::remove_dir_all(&native).expect("removed");
    }
}

/// From `close` to new bytes at the other node.
fn news(rows: &mut Rows, mounted: &Mounted) {
    let [here, there] = [0, 1].map(|node| mounted.points[node].join("news"));
    let mut all: Vec<f64> = (0..CHANGES)
        .map(|change| {
            let text = format!("{change:09}");
            fs::write(&here, &text).expect("written");
            timed(|| until(|| fs::read(&there).is_ok_and(|now| now == text.as_bytes()))) * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    rows.add("closed, readable at the other node: median of 200, ms", all[CHANGES / 2]);
    rows.add("  the 198th of 200, ms", all[CHANGES * 99 / 100 - 1]);
}

/// What `fio` measures in a directory: operations in a second; none: it is not installed.
fn fio(dir: &Path, pattern: &str, block: &str) -> Option<f64> {
    let output = Command::new("fio")
        .args(["--name=job", "--ioengine=psync", "--time_based", "--output-format=json"])
        .args([format!("--runtime={FIO_SECONDS}"), format!("--size={FIO_MIB}m")])
        .args([format!("--rw={pattern}"), format!("--bs={block}")])
        .arg(format!("--directory={}", dir.display()))
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let direction = if pattern.ends_with("read") { "read" } else { "write" };
    said["jobs"][0][direction]["iops"].as_f64()
}

fn fio_jobs(rows: &mut Rows, mounted: &Mounted) {
    let native = mounted.swarm.dir.join("fio");
    let ours = mounted.points[0].join("fio");
    [&native, &ours].into_iter().for_each(|dir| fs::create_dir(dir).expect("a directory"));
    for (what, pattern, block) in FIO {
        let Some(native) = fio(&native, pattern, block) else { return };
        let ours = fio(&ours, pattern, block).expect("fio is installed");
        rows.add(&format!("fio: {what}, operations/s"), ours);
        rows.add(&format!("  {pattern}, × the native file system"), ours / native);
    }
    [native, ours].into_iter().for_each(|dir| fs::remove_dir_all(dir).expect("removed"));
}

fn main() -> std::io::Result<()> {
    let (mib, runs) = (number("P2PFS_BENCH_MIB", 1024), number("P2PFS_BENCH_RUNS", 5));
    let mut rows = Rows::default();
    let mounted = Mounted::new();
    news(&mut rows, &mounted);
    small(&mut rows, &mounted, runs);
    large(&mut rows, &mounted, mib, runs);
    fio_jobs(&mut rows, &mounted);
    rows.add("largest daemon, VmHWM, MiB", mounted.swarm.memory("VmHWM"));
    rows.print(&mut std::io::stdout())
}
