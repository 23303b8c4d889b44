//! The sentences about bytes that go in and out: puts, gets, and the room that they need.

use super::shares::in_place;
use super::{disk, name_of, not_found, not_ready};
use crate::id::to_hex;
use crate::node::{GetError, LinkFault, NotFrom, PublishError, PutError, Unavailable, WriteError};
use crate::text::{reason, shown, utc};
use crate::wire::control::{Code, Failure, Target};
use std::io;

pub(super) fn put(err: &PutError) -> Failure {
    match err {
        PutError::Read(err) if err.kind() == io::ErrorKind::Interrupted => {
            Failure::new(Code::Interrupted, "the put was cancelled; nothing was stored")
        }
        PutError::Read(err) => {
            Failure::new(Code::Failed, format!("cannot read the file: {}", reason(err)))
                .hint("nothing was stored; put it again when it can be read")
        }
        PutError::Changed(_) => Failure::new(
            Code::Conflict,
            "the file changed while it was being read; nothing was stored",
        )
        .hint("put it again when nothing writes to it"),
        PutError::TooLarge(_) => Failure::new(Code::Usage, "a file can have at most 8 TiB")
            .hint("cut it into several files:  split --bytes 1T FILE"),
        PutError::NoSpace(err) => space(err),
        PutError::TooFewCopies { copies, needed } => Failure::new(
            Code::Unreachable,
            format!("only {copies} of {needed} copies could be made; the file is not listed"),
        )
        .hint("who answers:  p2pfs peers")
        .hint("repeat the put: what is stored already is not sent again"),
        PutError::Publish(err) => publish(err),
        PutError::NotReady(err) => not_ready(*err),
    }
}

pub(super) fn space(err: &WriteError) -> Failure {
    match err {
        WriteError::NoCapacity => {
            Failure::new(Code::NoSpace, "the capacity that the nodes offer is used up")
                .hint("offer more:  p2pfs daemon --capacity SIZE, or let another node join")
        }
        WriteError::DiskFull => Failure::new(Code::NoSpace, "the disk of this node is full")
            .hint("what takes the room:  p2pfs status"),
        WriteError::ReadOnly(why) => {
            Failure::new(Code::Failed, format!("this node takes nothing new: {}", shown(why)))
                .hint("check the disk, then start the daemon again")
        }
    }
}

pub(super) fn publish(err: &PublishError) -> Failure {
    match err {
        PublishError::Write(err) => space(err),
        PublishError::TooFew { kept: 0, .. } => {
            Failure::new(Code::Unreachable, "not stored: no other node answers")
                .hint("who is there:  p2pfs peers")
        }
        PublishError::TooFew { kept, needed } => Failure::new(
            Code::Unreachable,
            format!("stored, but only {kept} of {needed} nodes know of it so far"),
        )
        .hint("the others learn of it when they answer again:  p2pfs peers"),
        PublishError::ClockAhead => Failure::new(
            Code::Failed,
            "the other nodes refuse it: this machine's clock is more than a minute ahead of theirs",
        )
        .hint("set the clock of this machine right, then try it again"),
        PublishError::NoGrant => Failure::new(
            Code::Failed,
            "at the time that this machine's clock shows, the swarm had not let this node in",
        )
        .hint("set the clock of this machine right, then try it again"),
        PublishError::TooLarge => {
            Failure::new(Code::Usage, "the change is too large for one record")
        }
    }
}

pub(super) fn get(err: &GetError, target: Option<&Target>) -> Failure {
    match err {
        GetError::NotFound { asked, unreachable } => not_found(target, *asked, *unreachable),
        GetError::Unavailable(err) => unavailable(err, target),
        GetError::NotFrom(err) => not_from(err, target),
        GetError::Corrupt(err) => Failure::new(
            Code::Corrupt,
            format!("the content does not match its hash and no other source is left: {err}"),
        )
        .hint(DAMAGED),
        GetError::Write(err) => write(err),
        GetError::Store(err) => disk(err),
        GetError::NotReady(err) => not_ready(*err),
    }
}

fn not_from(err: &NotFrom, target: Option<&Target>) -> Failure {
    let what = target.map_or_else(|| "the file".to_owned(), name_of);
    let (code, sentence) = match err {
        NotFrom::Away { name, since_ms, left } => {
            let (name, since) = (shown(name), utc(*since_ms));
            let sentence = match left {
                true => format!("{name} left at {since} UTC; nothing was fetched"),
                false => format!("{name} is offline since {since} UTC; nothing was fetched"),
            };
            (Code::Unreachable, sentence)
        }
        NotFrom::Lacks { name, has: Some(has), chunks } => (
            Code::Unreachable,
            format!("{} has {has} of the {chunks} chunks of {what}", shown(name)),
        ),
        NotFrom::Lacks { name, has: None, .. } => {
            (Code::Unreachable, format!("{} does not have {what}", shown(name)))
        }
        NotFrom::Silent { name } => {
            (Code::Unreachable, format!("{} does not answer any more", shown(name)))
        }
        NotFrom::Wrong { name } => {
            (Code::Corrupt, format!("{} sent a damaged chunk of {what}", shown(name)))
        }
    };
    let failure =
        Failure::new(code, sentence).hint(format!("from whoever has it:  p2pfs get {what}"));
    match err {
        NotFrom::Away { .. } | NotFrom::Silent { .. } => failure.hint("who answers:  p2pfs peers"),
        NotFrom::Lacks { .. } | NotFrom::Wrong { .. } => {
            failure.hint(format!("who has what of it:  p2pfs stat {what}"))
        }
    }
}

pub(super) fn link(err: &LinkFault) -> Failure {
    match err {
        LinkFault::Elsewhere(swarm) => {
            let swarm = to_hex(&swarm[..5]);
            Failure::new(Code::Conflict, format!("the link is for another swarm ({swarm})"))
                .hint("this node's swarm:  p2pfs status")
                .hint("at a node of that swarm:  p2pfs --data-dir DIR get LINK")
        }
        LinkFault::Ended(at_ms) => {
            Failure::new(Code::NotFound, format!("the link has ended on {}", utc(*at_ms)))
                .hint("who made it can make another one:  p2pfs link FILE")
        }
    }
}

fn unavailable(err: &Unavailable, target: Option<&Target>) -> Failure {
    if !err.sharers.is_empty() {
        return in_place(&err.sharers, target);
    }
    let what = target.map_or_else(|| "the file".to_owned(), name_of);
    let names: Vec<String> = err.silent.iter().map(|name| shown(name).into_owned()).collect();
    if !err.wrong.is_empty() && names.is_empty() {
        let wrong: Vec<String> = err.wrong.iter().map(|name| shown(name).into_owned()).collect();
        return Failure::new(
            Code::Corrupt,
            format!("{what}: only damaged copies of a chunk were offered, by {}", wrong.join(", ")),
        )
        .hint(DAMAGED);
    }
    if names.is_empty() {
        let sentence = match err.asked {
            0 => format!("{what}: a chunk of it is not here, and no other node answers"),
            1 => format!("{what}: a chunk of it is neither here nor on the node that answered"),
            asked => format!("{what}: a chunk of it is on none of the {asked} nodes that answered"),
        };
        return Failure::new(Code::Unreachable, sentence).hint("who answers:  p2pfs peers");
    }
    Failure::new(
        Code::Unreachable,
        format!("{what}: a chunk may be only on {}, not reachable", names.join(", ")),
    )
    .hint("try again when they are back:  p2pfs peers")
}

const DAMAGED: &str =
    "start the nodes that are away: one of them may have a good copy:  p2pfs peers";

fn write(err: &io::Error) -> Failure {
    match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::new(Code::NoSpace, "no space left where the file is written")
                .hint("another place for it:  p2pfs get FILE -o PATH")
        }
        io::ErrorKind::Interrupted => Failure::new(Code::Interrupted, "the get was cancelled"),
        _ => Failure::new(Code::Failed, format!("cannot write the file: {}", reason(err)))
            .hint("another place for it:  p2pfs get FILE -o PATH"),
    }
}
