//! The sentences: what each error of the node means for a person, which code it has, and what to
//! type next. Strings that came from peers are escaped here.

mod peers;
mod shares;
mod transfer;

use crate::id::FileHash;
use crate::node::{
    BadQuery, Error, NotReady, PutError, TooLarge, TreeError, VersionError, WorkError, WriteError,
};
use crate::text::{reason, shown, shown_bytes};
use crate::wire::control::{Code, Failure, PathText, Target};
use peers::{ambiguous_peer, approval, dial, limit, this_node, unknown_peer};
use std::io;
use transfer::{get, link, publish, put, space};

/// What `err` means for whoever asked for `target`.
pub(super) fn failure(err: &Error, target: Option<&Target>) -> Failure {
    match err {
        Error::Put(err) => put(err),
        Error::Get(err) => get(err, target),
        Error::Tree(err) => tree(err, target),
        Error::Publish(err) => publish(err),
        Error::NoSource => Failure::new(Code::Usage, "a file came without its descriptor"),
        Error::NotFound { asked, unreachable } => not_found(target, *asked, *unreachable),
        Error::Ambiguous { found } => ambiguous(found, target),
        Error::NoVersion { path, version, why } => no_version(&path.0, version, why),
        Error::Unlisted => Failure::new(Code::Conflict, "it has no name that could be removed")
            .hint("its content goes for good with:  p2pfs rm --purge HASH"),
        Error::NotEmptyToPurge => {
            let what = target.map_or_else(|| "it".to_owned(), name_of);
            Failure::new(Code::Conflict, format!("{what} is not empty"))
                .hint(format!("all that is or was in it, for good:  p2pfs rm -r --purge {what}"))
        }
        Error::FilledAgain => {
            let what = target.map_or_else(|| "it".to_owned(), name_of);
            let sentence = format!("something new came into {what} while it was removed");
            Failure::new(Code::Conflict, sentence)
                .hint(format!("all else is removed; that goes too with:  p2pfs rm -r {what}"))
        }
        Error::NotYours => Failure::new(
            Code::Denied,
            "only an admin, or who put all that is kept of it, may purge it",
        )
        .hint("without --purge its content goes after the history time"),
        Error::Draining => {
            Failure::new(Code::Conflict, "this node is being emptied; it keeps no copies")
                .hint("to stop that:  p2pfs drain --cancel")
        }
        Error::NotPinned => {
            let what = target.map_or_else(|| "that".to_owned(), name_of);
            Failure::new(Code::NotFound, format!("{what} is not pinned on this node"))
                .hint("what is pinned:  p2pfs pin")
        }
        Error::TooManyPins => Failure::new(Code::Usage, "no more paths can be pinned on this node")
            .hint("pin the directory that they are in, or end other pins:  p2pfs unpin PATH"),
        Error::NobodyElse => {
            Failure::new(Code::Conflict, "no other node could take what is on this one")
                .hint("let another one join:  p2pfs daemon --bootstrap HOST:4000")
        }
        Error::Query(err) => query(*err),
        Error::Share(err) => shares::share(err, target),
        Error::Approval(err) => approval(err),
        Error::AmbiguousPeer { found } => ambiguous_peer(found),
        Error::ThisNode => this_node(),
        Error::UnknownPeer => unknown_peer(),
        Error::Limit(err) => limit(err),
        Error::Link(err) => link(err),
        Error::Dial(err) => dial(err),
        Error::Resolve(host) => {
            Failure::new(Code::Unreachable, format!("the host name {} is not known", shown(host)))
                .hint("is it right? An address works too:  p2pfs connect 192.0.2.1:4000")
        }
        Error::NotReady(err) => not_ready(*err),
        Error::File(err) => Failure::new(Code::Failed, err.to_string()),
        Error::Disk(err) => disk(err),
    }
}

/// What an error of the working tree means for whoever named `path`.
pub(in crate::gateway) fn of_work(err: &WorkError, path: &PathText) -> Failure {
    let target = Target::Path(path.clone());
    match err {
        WorkError::Tree(err) => tree(err, Some(&target)),
        WorkError::Get(err) => get(err, Some(&target)),
        WorkError::Put(err) => put(err),
        WorkError::Publish(err) => publish(err),
        WorkError::NotReady(err) => not_ready(*err),
        WorkError::NoSpace => space(&WriteError::NoCapacity),
        WorkError::TooLarge => put(&PutError::TooLarge(TooLarge)),
        WorkError::Disk(err) => disk(err),
        WorkError::NameTooLong => tree(&TreeError::BadPath, Some(&target)),
        WorkError::WrongKind => tree(&TreeError::IsSpecial, Some(&target)),
        WorkError::NoAttribute | WorkError::Unlisted | WorkError::TimedOut => {
            Failure::new(Code::Unreachable, format!("{}: {err}", name_of(&target)))
                .hint("who answers:  p2pfs peers")
        }
    }
}

fn name_of(target: &Target) -> String {
    match target {
        Target::Hash(hash) => hash.to_string(),
        Target::Prefix(digits) => digits.clone(),
        Target::Path(path) => shown_bytes(&path.0),
        Target::Share { peer, path } => format!("{}:{}", shown(peer), shown_bytes(&path.0)),
        Target::Link(link) => link.hash.to_string(),
    }
}

fn not_found(target: Option<&Target>, asked: usize, unreachable: usize) -> Failure {
    let what = target.map_or_else(|| "that".to_owned(), name_of);
    let members = asked + unreachable;
    let detail = match (members, unreachable) {
        (0, _) => "this node is alone".to_owned(),
        (_, 0) => format!("asked {asked} of {members} peers"),
        _ => format!("asked {asked} of {members} peers; {unreachable} not reachable"),
    };
    let sentence = match target {
        Some(Target::Prefix(_)) => {
            format!("no file in this swarm has a hash that begins with {what} ({detail})")
        }
        _ => format!("{what} is not found in this swarm ({detail})"),
    };
    absent(sentence)
}

fn ambiguous(found: &[(FileHash, Option<PathText>)], target: Option<&Target>) -> Failure {
    let name = |(hash, path): &(FileHash, Option<PathText>)| {
        let path = path.as_ref().map_or_else(String::new, |path| shown_bytes(&path.0));
        format!("{} {path}", &hash.to_string()[..16]).trim_end().to_owned()
    };
    let list: Vec<String> = found.iter().map(name).collect();
    let what = target.map_or_else(|| "it".to_owned(), name_of);
    Failure::new(Code::NotFound, format!("{what} is ambiguous: {}", list.join(" · ")))
        .hint("give more digits of the hash, or the path")
}

fn no_version(path: &[u8], version: &str, why: &VersionError) -> Failure {
    let (name, version) = (shown_bytes(path), shown(version));
    let failure = match why {
        VersionError::Unreadable => Failure::new(
            Code::Usage,
            format!("`{version}` is neither a version of {name} nor a time"),
        )
        .hint(format!("as it was then:  {name}@2026-11-20T14:00  or  {name}@2h")),
        VersionError::Absent => {
            Failure::new(Code::NotFound, format!("no version {version} of {name} is kept"))
        }
        VersionError::Ambiguous => Failure::new(
            Code::NotFound,
            format!("several versions of {name} have a hash that begins with {version}"),
        ),
        VersionError::Nothing => Failure::new(
            Code::NotFound,
            format!("nothing that is kept stood at {name} at that time ({version})"),
        ),
        VersionError::Directory => {
            return Failure::new(
                Code::Usage,
                format!("{name} is a directory; only files and links have versions"),
            )
            .hint(format!("what is in it:  p2pfs ls {name}"))
            .hint(format!("what was removed from it:  p2pfs ls --removed {name}"));
        }
    };
    failure.hint(format!("its versions:  p2pfs history {name}"))
}

fn absent(sentence: String) -> Failure {
    Failure::new(Code::NotFound, sentence).hint("list all files:  p2pfs ls")
}

fn tree(err: &TreeError, target: Option<&Target>) -> Failure {
    let what = target.map_or_else(|| "the path".to_owned(), name_of);
    match err {
        TreeError::BadPath => {
            Failure::new(Code::Usage, format!("{what} is not a path in the swarm"))
                .hint("paths begin with / and have names of at most 255 bytes, 4096 in all")
        }
        // Looked for in the tree of this node only: nobody was asked.
        TreeError::NotFound => absent(format!("{what} is not found in this swarm")),
        TreeError::NotADirectory(at) => {
            let at = shown_bytes(at);
            let sentence = match at == what {
                true => format!("{what} is there already and is not a directory"),
                false => format!("{at} in {what} is a file, not a directory"),
            };
            Failure::new(Code::Conflict, sentence).hint("what is where:  p2pfs ls -R")
        }
        TreeError::IsADirectory => Failure::new(Code::Usage, format!("{what} is a directory"))
            .hint(format!("what is in it:  p2pfs ls {what}")),
        TreeError::TooManyLinks => {
            Failure::new(Code::Conflict, format!("{what} has too many names"))
        }
        TreeError::IsALink => Failure::new(Code::Conflict, format!("{what} is a link"))
            .hint(format!("what it points to:  p2pfs stat {what}")),
        TreeError::IsSpecial => {
            Failure::new(Code::Usage, format!("{what} is a pipe, socket or device"))
                .hint(format!("what it is:  p2pfs stat {what}"))
        }
        TreeError::NoDirectory => {
            let above = what.rsplit_once('/').map_or("", |(above, _)| above);
            Failure::new(Code::NotFound, format!("there is no directory for {what}"))
                .hint(format!("make it first:  p2pfs mkdir -p {above}"))
        }
        TreeError::Exists => Failure::new(Code::Conflict, format!("{what} exists already"))
            .hint(format!("what it is:  p2pfs stat {what}")),
        TreeError::NotEmpty => Failure::new(Code::Conflict, format!("{what} is not empty"))
            .hint(format!("with everything in it:  p2pfs rm -r {what}")),
        TreeError::InsideItself => {
            Failure::new(Code::Usage, "a directory cannot be moved into itself")
        }
        TreeError::ConflictCopy => {
            Failure::new(Code::Conflict, format!("{what} is a conflict copy"))
                .hint(format!("a file of its own:  p2pfs conflicts {what} --keep-both"))
        }
        TreeError::NoConflict => {
            Failure::new(Code::NotFound, format!("{what} is not in conflict with anything"))
                .hint("what is:  p2pfs conflicts")
        }
        TreeError::ConflictOfDirs => Failure::new(
            Code::Conflict,
            format!("a directory is in conflict at {what}; none of them can be kept alone"),
        )
        .hint(format!("all of them, under names of their own:  p2pfs conflicts {what} --keep-both"))
        .hint("what is not wanted can be removed then:  p2pfs rm -r NAME"),
        TreeError::FormerVersion => {
            Failure::new(Code::Usage, format!("{what} is a former version, which stays as it is"))
                .hint(format!("to make it the newest:  p2pfs restore {what}"))
        }
        TreeError::NoSuchCopy => Failure::new(
            Code::NotFound,
            format!("nothing that is called so is in conflict at {what}"),
        )
        .hint(format!("what is:  p2pfs conflicts {what}")),
        TreeError::NoKeys => not_ready(NotReady::NoEpoch),
        TreeError::Io(err) => disk(err),
    }
}

fn not_ready(err: NotReady) -> Failure {
    match err {
        NotReady::Waiting => Failure::new(Code::Denied, "this node waits for approval")
            .hint("its code:  p2pfs status")
            .hint("then on a member:  p2pfs approve CODE"),
        NotReady::NoEpoch => {
            Failure::new(Code::Unreachable, "this node has not read its swarm's catalogue yet")
                .hint("does it reach its swarm?  p2pfs status")
        }
    }
}

fn query(err: BadQuery) -> Failure {
    match err {
        BadQuery::Empty => Failure::new(Code::Usage, "it is not said what to look for")
            .hint("by name:  p2pfs search report 2026")
            .hint("by something else:  p2pfs search --tag tax --newer 7d"),
        BadQuery::TooLong => {
            Failure::new(Code::Usage, "a search has at most 16 words of at most 255 bytes each")
                .hint("a few words are enough:  p2pfs search report 2026")
        }
    }
}

fn disk(err: &io::Error) -> Failure {
    Failure::new(Code::Failed, format!("this node's disk failed: {}", reason(err)))
        .hint("p2pfs status")
}
