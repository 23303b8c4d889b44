//! The sentences about files that are served from where they lie.

use super::name_of;
use crate::node::{ShareError, Sharer, SharerState};
use crate::text::{reason, shown, shown_path, utc};
use crate::wire::control::{Code, Failure, Target};

/// What is wrong with sharing, or sharing no more, what `target` names.
pub(super) fn share(err: &ShareError, target: Option<&Target>) -> Failure {
    let what = target.map_or_else(|| "that".to_owned(), name_of);
    match err {
        ShareError::NotSeen => {
            Failure::new(Code::Denied, format!("the daemon does not see {what} as you do"))
                .hint("it reads shared files itself: may its user read there?")
                .hint("a copy for everybody:  p2pfs put FILE")
        }
        ShareError::Unreadable(err) => {
            let why = reason(err);
            Failure::new(Code::Denied, format!("the daemon cannot read {what}: {why}"))
                .hint("it reads shared files itself: may its user read there?")
        }
        ShareError::WrongKind => Failure::new(
            Code::Usage,
            format!("{what} is a pipe, socket or device, which cannot be shared"),
        )
        .hint("a file or a directory can:  p2pfs share PATH"),
        ShareError::Own => {
            Failure::new(Code::Usage, format!("{what} is in a directory of this node itself"))
                .hint("share a file or directory outside of it:  p2pfs share PATH")
        }
        ShareError::BadName => Failure::new(Code::Usage, "that cannot be the name of a share")
            .hint("a name has at most 255 bytes and no slash:  p2pfs share PATH --name NAME"),
        ShareError::NameTaken(path) => {
            let path = shown_path(path);
            let sentence = format!("{path} is shared under that name already");
            Failure::new(Code::Conflict, sentence)
                .hint(format!("under another one:  p2pfs share {what} --name NAME"))
        }
        ShareError::TooMany => {
            Failure::new(Code::Usage, "no more paths can be shared on this node")
                .hint("share the directory that they are in, or end others:  p2pfs unshare PATH")
        }
        ShareError::NotShared => {
            Failure::new(Code::NotFound, format!("{what} is not shared by this node"))
                .hint("what is shared:  p2pfs ls --shares")
        }
        ShareError::InPlace => {
            let sentence = format!("{what} is served in place; it is not stored in the swarm");
            Failure::new(Code::Usage, sentence).hint("its sharer can end that:  p2pfs unshare PATH")
        }
    }
}

/// What is wrong with those who serve in place what `target` names.
pub(super) fn in_place(sharers: &[Sharer], target: Option<&Target>) -> Failure {
    let what = target.map_or_else(|| "the file".to_owned(), name_of);
    let names = |sharers: &[&Sharer]| {
        let names: Vec<_> = sharers.iter().map(|one| shown(&one.name).into_owned()).collect();
        names.join(", ")
    };
    let changed: Vec<&Sharer> =
        sharers.iter().filter(|one| one.state == SharerState::Changed).collect();
    if !changed.is_empty() {
        let sentence = format!("{what} has changed, or is shared no more, at {}", names(&changed));
        return Failure::new(Code::Conflict, sentence)
            .hint("what it is now is known in a moment:  p2pfs ls --shares");
    }
    let said: Vec<String> = sharers.iter().map(state).collect();
    let sentence = match sharers {
        [only] => format!("{what} is shared by {} only, {}", shown(&only.name), said[0]),
        all => {
            let each =
                all.iter().zip(&said).map(|(one, said)| format!("{} ({said})", shown(&one.name)));
            format!("{what} is shared by {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    let failure =
        Failure::new(Code::Unreachable, sentence).hint("try again when it is back:  p2pfs peers");
    match sharers.first() {
        Some(first) => failure.hint(format!(
            "who wants it kept:  p2pfs share PATH --replicas 3  (on {})",
            shown(&first.name)
        )),
        None => failure,
    }
}

fn state(sharer: &Sharer) -> String {
    match sharer.state {
        SharerState::Away(Some(since)) => format!("offline since {} UTC", utc(since)),
        SharerState::Away(None) => "offline".to_owned(),
        SharerState::Changed => "changed there".to_owned(),
        SharerState::Silent => "which does not answer or cannot read it".to_owned(),
    }
}
