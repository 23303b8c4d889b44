//! A node that holds much is there again at once, after an orderly end and after `kill -9`.

use crate::daemon::{Swarm, noise};
use crate::machine::{alone, form, is_full};
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// What is put in one go.
const PIECE: usize = 32 * MIB;
/// Pieces of a file.
const PIECES: u64 = 16;
/// How long a start may take.
const READY: Duration = Duration::from_secs(2);

#[test]
fn a_start_takes_less_than_two_seconds_however_much_is_stored() {
    let _turn = alone();
    let mut swarm = Swarm::of(1);
    let files = form(1, 20);
    for number in 0..files {
        let mut put = swarm[0].command(&["put", "-", "-q", "--as", &format!("/{number}")]);
        let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = put.stdin.take().unwrap();
        for piece in 0..form(4, PIECES) {
            stdin.write_all(&noise(number * PIECES + piece, PIECE)).unwrap();
        }
        drop(stdin);
        assert!(put.wait().unwrap().success());
    }
    let stored = swarm[0].status()["bytes_here"].as_u64().unwrap() / MIB as u64;
    assert!(stored >= 10 << 10 || !is_full(), "{stored} MiB");
    let mut took = Vec::new();
    for how in ["stop", "kill"] {
        swarm[0].put(&format!("/{how}"), how.as_bytes(), &[]);
        if how == "stop" {
            assert_eq!(swarm[0].run(&["stop"]).code, 0);
        }
        swarm[0].kill();
        let begun = Instant::now();
        swarm[0].start();
        took.push(begun.elapsed());
        assert!(swarm[0].get(&format!("/{how}")) == how.as_bytes());
        let range = ["cat", "/0", "--range", "1MiB..2MiB"];
        let got = swarm[0].command(&range).output().unwrap().stdout;
        assert!(got == noise(0, PIECE)[MIB..2 * MIB]);
    }
    println!(
        "ready with {stored} MiB stored: {:.1?} after stop, {:.1?} after kill -9",
        took[0], took[1]
    );
    assert!(took.iter().all(|took| *took < READY), "{took:?}");
}
