//! Data that is gone: one of four nodes loses its directory, another one never comes back, and
//! there are three copies again without a command. How long that takes is printed beside a `cp` of
//! as many bytes.

use crate::daemon::{Daemon, Swarm};
use crate::machine::{alone, form, run};
use std::fs::File;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// How long making the copies again may take, for each MiB that is to be made and at the least.
const PER_MIB: Duration = Duration::from_millis(200);
const LEAST: Duration = Duration::from_secs(30);

/// How many live nodes hold all chunks of a file.
fn whole_copies(node: &Daemon, target: &str) -> usize {
    let stat = node.list(&["stat", target]).remove(0);
    let whole = |holder: &&serde_json::Value| {
        holder["state"] == "alive" && holder["chunks"] == stat["chunks"]
    };
    stat["holders"].as_array().unwrap().iter().filter(whole).count()
}

/// How long `cp` and a sync of so many bytes take beside these nodes' data.
fn copied(node: &Daemon, bytes: u64) -> Duration {
    let (from, to) = (node.work.join("from"), node.work.join("to"));
    let noise = format!("if=/dev/urandom of={} bs=1M count={}", from.display(), bytes / MIB);
    run("dd", &[&noise.split(' ').collect::<Vec<_>>()[..], &["status=none"]].concat());
    let begun = Instant::now();
    run("cp", &[from.to_str().unwrap(), to.to_str().unwrap()]);
    File::open(&to).unwrap().sync_all().unwrap();
    let took = begun.elapsed();
    [from, to].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    took
}

#[test]
fn copies_are_made_again_when_one_node_is_wiped_and_another_one_stays_away() {
    let _turn = alone();
    let mut swarm = Swarm::with(4, &["--repair-delay", "1s"]);
    let len = form(100, 1024) * MIB;
    let source = swarm[0].work.join("source");
    let noise = [&format!("of={}", source.display()), &format!("count={}", len / MIB)];
    run("dd", &["if=/dev/urandom", "bs=1M", noise[0], noise[1], "status=none"]);
    let said = swarm[0].run(&["put", "source", "--as", "/f", "--wait", "all"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let hash = said.out.trim().to_owned();
    std::fs::remove_file(source).unwrap();

    let here = |node: &Daemon| node.status()["bytes_here"].as_u64().unwrap();
    let lost = here(&swarm[1]) + here(&swarm[2]);
    assert!(here(&swarm[1]) > 0, "the one that is wiped holds something");
    // One loses everything, its key too, and is there again at once; one never comes back.
    swarm[1].kill();
    std::fs::remove_dir_all(&swarm[1].data).unwrap();
    let begun = Instant::now();
    swarm[2].kill();
    swarm[1].start();
    let bar = LEAST.max(PER_MIB * u32::try_from(lost / MIB).unwrap());
    let is_whole = || whole_copies(&swarm[0], &hash) == 3 && whole_copies(&swarm[1], &hash) == 3;
    while !is_whole() {
        assert!(begun.elapsed() < bar, "{}", swarm[0].run(&["status"]).out);
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = begun.elapsed();
    let under = |node: usize| swarm[node].status()["under_replicated"].as_u64().unwrap();
    while [0, 1, 3].into_iter().any(|node| under(node) > 0) {
        assert!(begun.elapsed() < bar, "counted: {}", swarm[0].run(&["status"]).out);
        std::thread::sleep(Duration::from_millis(100));
    }
    let counted = begun.elapsed();
    let reference = copied(&swarm[0], lost);
    let rate = |time: Duration| lost as f64 / MIB as f64 / time.as_secs_f64();
    println!(
        "{} MiB in copies made again in {took:.1?}, {:.0} MiB/s, known everywhere after \
         {counted:.1?}; cp of as much: {reference:.1?}, {:.0} MiB/s",
        lost / MIB,
        rate(took),
        rate(reference),
    );
    // From the wiped node alone.
    swarm[0].kill();
    swarm[3].kill();
    let got = swarm[1].run(&["get", &hash, "-o", "out"]);
    assert_eq!(got.code, 0, "{}", got.err);
    let mut out = blake3::Hasher::new();
    out.update_reader(File::open(swarm[1].work.join("out")).unwrap()).unwrap();
    assert_eq!(hash, out.finalize().to_string());
}
