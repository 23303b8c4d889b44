//! The screens that the README shows, run by the real executable on a terminal, against real
//! daemons: each file of `tests/screens` is played from top to bottom on machines that are
//! directories here, and what comes out has to be what stands there, but for times, sizes and
//! numbers of chunks. `P2PFS_UPDATE=1 cargo test --test screens` rewrites them.
//!
//! A block of the kind `console` holds commands (`$ ` or `laptop$ `, a machine's name before it)
//! and what they say. Lines like `<!-- file notes.txt 4000 -->` outside the blocks are orders to
//! the player; `orders` has them all.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

#[path = "screens/page.rs"]
mod page;
#[path = "screens/player.rs"]
mod player;
#[path = "screens/terminal.rs"]
mod terminal;

use page::Page;
use player::Player;
use snapbox::IntoData;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn play(name: &str) {
    let path = root().join("tests/screens").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut page = Page::parse(&text);
    let mut player = Player::new();
    page.play(&mut player);
    let played = page.to_string();
    drop(player);
    if std::env::var_os("P2PFS_UPDATE").is_some() && page::lasting(&played) != page::lasting(&text)
    {
        std::fs::write(&path, &played).unwrap();
        return;
    }
    let fix = "P2PFS_UPDATE=1 cargo test --test screens";
    let (played, text) = (page::lasting(&played), page::lasting(&text));
    assert!(played == text || !text.is_empty(), "{name} is empty; fill it with: {fix}");
    snapbox::Assert::new().eq(played, text.raw());
}

#[test]
fn one_node_alone() {
    play("alone.md");
}

#[test]
fn three_machines_of_one_person() {
    play("swarm.md");
}

#[test]
fn a_laptop_is_backed_up() {
    play("backup.md");
}

#[test]
fn what_was_in_it_before() {
    play("history.md");
}

#[test]
fn a_machine_is_let_in() {
    play("approve.md");
}

#[test]
fn the_demo() {
    play("demo.md");
}

#[test]
fn what_goes_wrong_is_said() {
    play("errors.md");
}

#[test]
fn the_readme_shows_nothing_else() {
    let entries = std::fs::read_dir(root().join("tests/screens")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let read = |path: PathBuf| Page::parse(&std::fs::read_to_string(path).unwrap());
    let pages: Vec<Page> = paths.map(read).collect();
    let path = root().join("README.md");
    if std::env::var_os("P2PFS_UPDATE").is_some() {
        let mut readme = read(path.clone());
        readme.follow(&pages);
        std::fs::write(&path, readme.to_string()).unwrap();
    }
    let played: Vec<String> = pages.iter().flat_map(Page::consoles).collect();
    let shown = read(path).consoles();
    assert!(shown.len() > 8, "the README shows the commands by example");
    for block in shown {
        assert!(
            played.contains(&block),
            "no file of tests/screens has this block; it may be old (twice, for it follows \
             them: P2PFS_UPDATE=1 cargo test --test screens):\n{block}"
        );
    }
}
