//! Whole programs in a mount that three daemons share: what they make is the same at the others.

use crate::daemon::until;
use crate::mounted::{Mounted, mounted, programs, run, shell};
use std::fs;
use std::path::Path;

/// Waits until a directory is the same in two mounts.
fn same(swarm: &Mounted, one: usize, two: usize, name: &str) {
    let (here, there) = (swarm.at(one).join(name), swarm.at(two).join(name));
    let diff = || {
        let mut command = std::process::Command::new("diff");
        command.args(["-r", "--no-dereference"]).arg(&here).arg(&there);
        command.output().unwrap()
    };
    until("both mounts to be the same", || diff().status.success());
}

fn git(dir: &Path, args: &[&str]) -> String {
    let author = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"];
    let safe = ["-c", "safe.directory=*"];
    run(dir, "git", &[&author[..], &safe, args].concat())
}

#[test]
fn git_works_in_a_mount() {
    let test = "git_works_in_a_mount";
    let Some(swarm) = mounted(test, 3).filter(|_| programs(test, &["git"])) else { return };
    let origin = tempfile::tempdir().unwrap();
    git(origin.path(), &["init", "-q"]);
    for number in 0..60 {
        let dir = origin.path().join(format!("dir {}", number % 5));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{number}.txt")), format!("{number}\n").repeat(200)).unwrap();
    }
    git(origin.path(), &["add", "."]);
    git(origin.path(), &["commit", "-qm", "one"]);
    let from = origin.path().to_str().unwrap();
    git(swarm.at(0), &["clone", "-q", "--no-local", from, "work"]);
    let work = swarm.at(0).join("work");
    assert_eq!(git(&work, &["status", "--porcelain"]), "");
    fs::write(work.join("dir 1/1.txt"), "changed\n").unwrap();
    fs::write(work.join("new"), "new\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "two"]);
    git(&work, &["gc", "-q"]);
    git(&work, &["fsck", "--strict"]);
    assert_eq!(git(&work, &["status", "--porcelain"]), "");
    same(&swarm, 0, 1, "work");
    let there = swarm.at(1).join("work");
    assert_eq!(git(&there, &["log", "--format=%s"]), "two\none\n");
    git(&there, &["fsck", "--strict"]);
}

#[test]
fn cargo_builds_in_a_mount() {
    let test = "cargo_builds_in_a_mount";
    let Some(swarm) = mounted(test, 1).filter(|_| programs(test, &["cargo"])) else { return };
    let dir = swarm.dir(0, "hello");
    fs::create_dir(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/main.rs"), "fn main() { println!(\"{}\", hello::two()); }\n").unwrap();
    fs::write(dir.join("src/lib.rs"), "pub fn two() -> u32 { 2 }\n").unwrap();
    let build = "unset CARGO_TARGET_DIR; cargo build -q --offline && target/debug/hello";
    assert_eq!(shell(&dir, build), "2\n");
    fs::write(dir.join("src/lib.rs"), "pub fn two() -> u32 { 22 }\n").unwrap();
    assert_eq!(shell(&dir, build), "22\n");
}

#[test]
fn databases_live_in_a_mount() {
    let test = "databases_live_in_a_mount";
    let Some(swarm) = mounted(test, 2).filter(|_| programs(test, &["sqlite3"])) else { return };
    for mode in ["delete", "wal"] {
        let dir = swarm.dir(0, mode);
        let make = format!(
            "sqlite3 db 'pragma journal_mode={mode}; create table t(a, b);' > /dev/null
             for i in $(seq 30); do
               sqlite3 db \"insert into t values($i, hex(randomblob(500)))\"
             done
             sqlite3 db 'pragma integrity_check; select count(*), sum(a) from t'"
        );
        assert_eq!(shell(&dir, &make), "ok\n30|465\n", "{mode}");
        let there = swarm.at(1).join(mode).join("db");
        until("the database to be at the other node", || {
            fs::read(&there).is_ok_and(|bytes| bytes == fs::read(dir.join("db")).unwrap())
        });
        let copy = tempfile::tempdir().unwrap();
        fs::copy(&there, copy.path().join("db")).unwrap();
        let check = "sqlite3 db 'pragma integrity_check; select count(*) from t'";
        assert_eq!(shell(copy.path(), check), "ok\n30\n", "{mode}");
    }
}

#[test]
fn rsync_goes_in_and_out() {
    let test = "rsync_goes_in_and_out";
    let Some(swarm) = mounted(test, 2).filter(|_| programs(test, &["rsync"])) else { return };
    let home = tempfile::tempdir().unwrap();
    shell(
        home.path(),
        "mkdir -p in/a/b in/empty; for i in $(seq 50); do echo $i > in/a/b/$i; done
         head -c 3000000 /dev/urandom > in/big; ln -s big in/link; ln in/big in/hard
         chmod 640 in/a/b/1; touch -d '2003-04-05 06:07:08' in/big in/empty",
    );
    let mount = swarm.at(0).to_str().unwrap();
    shell(home.path(), &format!("rsync -aH in/ {mount}/copy"));
    let again = format!("rsync -aHi in/ {mount}/copy");
    assert_eq!(shell(home.path(), &again), "", "the second time nothing is to be done");
    same(&swarm, 0, 1, "copy");
    let other = swarm.at(1).to_str().unwrap();
    until("the other node to have all of it", || {
        let copy = format!("rm -rf out; rsync -aH {other}/copy/ out; rsync -aHic in/ out");
        let differs = shell(home.path(), &copy);
        print!("{differs}");
        differs.is_empty()
    });
    shell(home.path(), "test \"$(stat -c %h out/big)\" = 2; diff -r --no-dereference in out");
}
