//! How evenly `--balance least-stored` fills unequal nodes: ten real daemons that offer 1 to 4
//! parts each, many small files that two of them put at once, and what each holds afterwards for
//! what it offers. `cargo bench --bench balance` prints it; files: `P2PFS_BENCH_FILES` (20000).

mod harness;

use harness::{Swarm, number, timed};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// What the nodes offer, in parts; none offers more than the third that one of three copies is.
const PARTS: [usize; 10] = [1, 1, 1, 1, 2, 2, 2, 3, 3, 4];
/// Bytes of a part in MiB.
const PART_MIB: usize = 512;
/// Files in one directory.
const IN_DIR: usize = 500;

/// Files of 4 to 16 KiB of bytes that no compressor makes shorter.
fn small_files(dir: &Path, count: usize, seed: u64) {
    let mut bytes = vec![0; 16 << 10];
    for n in 0..count {
        let dir = dir.join(format!("{}", n / IN_DIR));
        fs::create_dir_all(&dir).expect("a directory");
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&(n as u64).to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        let len = (4 << 10) + usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % (12 << 10);
        fs::write(dir.join(format!("f{n}")), &bytes[..len]).expect("written");
    }
}

fn field(json: &str, name: &str) -> f64 {
    let rest = json.split(&format!("\"{name}\":")).nth(1).expect("the field is there");
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    rest[..end].parse().expect("a number")
}

fn main() -> std::io::Result<()> {
    let files = number("P2PFS_BENCH_FILES", 20_000);
    let flags = |parts: &usize| -> Vec<String> {
        let capacity = format!("{}MiB", parts * PART_MIB);
        ["--capacity", &capacity, "--balance", "least-stored"].map(str::to_owned).into()
    };
    let swarm = Swarm::start("balance", PARTS.iter().map(flags).collect::<Vec<_>>());
    let dirs = [0, 1].map(|half| swarm.dir.join(format!("files-{half}")));
    for (half, dir) in dirs.iter().enumerate() {
        small_files(dir, files / 2, half as u64);
    }
    let took = timed(|| {
        std::thread::scope(|scope| {
            for (node, dir) in dirs.iter().enumerate() {
                let (swarm, dir) = (&swarm, dir.to_str().expect("a text"));
                scope.spawn(move || swarm.at(node, &["put", "-r", dir]));
            }
        });
    });
    // Copies that were late are made afterwards.
    let below = |node| field(&swarm.json(node, &["status"]), "under_replicated");
    while (0..PARTS.len()).any(|node| below(node) > 0.0) {
        sleep(Duration::from_millis(500));
    }
    let mut out = std::io::stdout().lock();
    let (mut shares, mut held, mut offered) = (Vec::new(), 0.0, 0.0);
    for (node, parts) in PARTS.iter().enumerate() {
        let here = field(&swarm.json(node, &["status"]), "bytes_here");
        let capacity = ((parts * PART_MIB) << 20) as f64;
        shares.push(here / capacity);
        (held, offered) = (held + here, offered + capacity);
        let (mib, percent) = (here / f64::from(1 << 20), here / capacity * 100.0);
        writeln!(
            out,
            "node {node}: {parts} × {PART_MIB} MiB, {mib:>6.1} MiB here, {percent:.3} %"
        )?;
    }
    let mean = held / offered;
    let most = shares.iter().copied().fold(0.0, f64::max);
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    let memory = (0..PARTS.len()).map(|node| swarm.memory_of(node, "VmHWM")).fold(0.0, f64::max);
    writeln!(out, "{files} files in {took:.1} s, at most {memory:.0} MiB of memory of a daemon")?;
    writeln!(out, "fullest ÷ mean {:.4}, emptiest ÷ mean {:.4}", most / mean, least / mean)
}
