//! The committed manual pages and completions are what the program generates today.
//! `P2PFS_UPDATE=1 cargo test --test docs` rewrites them.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn check(what: &str, committed: &str) {
    let made = tempfile::tempdir().unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join(committed);
    // Neither a home directory nor a variable of the person may change what is generated.
    let status = Command::new(env!("CARGO_BIN_EXE_p2pfs"))
        .args(["generate", what])
        .arg(made.path())
        .arg("--quiet")
        .env_clear()
        .status()
        .unwrap();
    assert!(status.success());
    let made = files(made.path());
    assert!(made.len() > 4);
    if std::env::var_os("P2PFS_UPDATE").is_some() {
        std::fs::remove_dir_all(&committed).ok();
        std::fs::create_dir_all(&committed).unwrap();
        for (name, text) in &made {
            std::fs::write(committed.join(name), text).unwrap();
        }
    }
    let found = files(&committed);
    let again = "stale: P2PFS_UPDATE=1 cargo test --test docs";
    assert!(made.keys().eq(found.keys()), "{what}: {again}");
    for (name, text) in &made {
        assert!(found[name] == *text, "{what}/{name} is {again}");
    }
}

#[test]
fn manual_pages_are_up_to_date() {
    check("man", "man");
}

#[test]
fn completions_are_up_to_date() {
    check("completions", "completions");
}
