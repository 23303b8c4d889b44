//! Answers a shell that completes a command line. Candidates for hashes, names and peers come from
//! the daemon when one runs; none is ever started, and the person never waits longer than
//! [`BUDGET`].

use super::args::Cli;
use crate::client::Client;
use crate::config::{Layer, Places, Source};
use crate::text::shown;
use crate::wire::control::WordKind;
use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::engine::CompletionCandidate;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// Longest time for the daemon's answer: a person notices more.
const BUDGET: Duration = Duration::from_millis(100);
/// Most candidates: a person reads no more.
const CANDIDATES_MAX: usize = 200;

/// Answers when the process was started by a shell's completion, and ends it then.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).complete();
}

/// Hashes and names of files.
pub(super) fn files(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(WordKind::File, current)
}

/// Names of files and directories.
pub(super) fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    match current.as_encoded_bytes().first() {
        None => candidates(WordKind::File, OsStr::new("/")),
        Some(b'/') => candidates(WordKind::File, current),
        // Without a slash it would be looked for among the hashes.
        Some(_) => Vec::new(),
    }
}

/// Peers.
pub(super) fn peers(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(WordKind::Peer, current)
}

/// Nodes that wait for approval.
pub(super) fn waiting(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(WordKind::Waiting, current)
}

fn candidates(kind: WordKind, current: &OsStr) -> Vec<CompletionCandidate> {
    let places = Places::resolve(&given(std::env::args_os()));
    let (Some(prefix), Ok(places)) = (current.to_str(), places) else {
        return Vec::new();
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let asked = async {
        let mut items = Client::new(places.socket).complete(kind, prefix).await?;
        while let Some(item) = items.next().await? {
            // A word that had to be escaped would be another word.
            if found.len() < CANDIDATES_MAX && shown(&item.word) == item.word {
                let help = shown(&item.help).into_owned();
                found.push(CompletionCandidate::new(item.word).help(Some(help.into())));
            }
        }
        Ok::<(), crate::wire::control::Failure>(())
    };
    // Without a daemon, or when it is late, there is what has arrived.
    runtime.block_on(async { tokio::time::timeout(BUDGET, asked).await }).ok();
    found
}

/// Directories and socket as the command line under completion, or a variable, names them. The
/// completion engine does not parse what stands before the word.
fn given(words: impl Iterator<Item = OsString>) -> Layer {
    let mut layer = Layer::new();
    let words: Vec<OsString> = words.collect();
    for key in ["config-dir", "data-dir", "socket"] {
        let variable = format!("P2PFS_{}", key.to_uppercase().replace('-', "_"));
        if let Some(value) = std::env::var_os(&variable) {
            layer.set(key, vec![value], Source::Variable(variable));
        }
        let flag = format!("--{key}");
        let joined = format!("{flag}=");
        for (place, word) in words.iter().enumerate() {
            let value = match word.to_str() {
                Some(word) if word == flag => words.get(place + 1).cloned(),
                Some(word) => word.strip_prefix(&joined).map(OsString::from),
                None => None,
            };
            if let Some(value) = value {
                layer.set(key, vec![value], Source::Flag(flag.clone()));
            }
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_under_completion_names_the_daemon() {
        let words = ["p2pfs", "--", "p2pfs", "--data-dir", "/a", "get", "--socket=/b", "3f"];
        let places = Places::resolve(&given(words.iter().map(OsString::from))).unwrap();
        assert_eq!(places.data_dir.to_str(), Some("/a"));
        assert_eq!(places.socket.to_str(), Some("/b"));
    }
}
