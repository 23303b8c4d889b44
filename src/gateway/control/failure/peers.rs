//! The sentences about other nodes: who cannot be dialled, let in or turned away.

use super::{not_ready, publish};
use crate::id::NodeId;
use crate::node::{ApprovalError, DialError, LimitError};
use crate::text::shown;
use crate::wire::control::{Code, Failure};

pub(super) fn approval(err: &ApprovalError) -> Failure {
    match err {
        ApprovalError::NotAdmin => {
            Failure::new(Code::Denied, "this node cannot approve: it does not have the swarm key")
                .hint("approve at a machine of the user who made the swarm")
        }
        ApprovalError::Code(err) => Failure::new(Code::Usage, err.to_string())
            .hint("the waiting daemon shows the code:  p2pfs status"),
        ApprovalError::NoMatch { waiting: 0 } => {
            Failure::new(Code::NotFound, "no node waits for approval")
                .hint("is the other daemon running with --bootstrap to a member of this swarm?")
        }
        ApprovalError::NoMatch { waiting } => Failure::new(
            Code::NotFound,
            match waiting {
                1 => "the waiting node has another code".into(),
                more => format!("none of the {more} waiting nodes has this code"),
            },
        )
        .hint("a code changes after 10 minutes or 5 tries: look again at the waiting daemon"),
        ApprovalError::Unknown => Failure::new(Code::NotFound, "no waiting node is called that")
            .hint("who waits:  p2pfs status"),
        ApprovalError::File(err) => Failure::new(Code::Failed, err.to_string()),
        ApprovalError::Publish(err) => publish(err),
        ApprovalError::NotReady(err) => not_ready(*err),
    }
}

pub(super) fn ambiguous_peer(found: &[(String, NodeId)]) -> Failure {
    let one = |(name, id): &(String, NodeId)| format!("{} {}", shown(name), &id.to_string()[..16]);
    let list: Vec<String> = found.iter().map(one).collect();
    Failure::new(Code::NotFound, format!("several peers are called that: {}", list.join(" · ")))
        .hint("give the first digits of the id instead, 8 or more")
}

pub(super) fn limit(err: &LimitError) -> Failure {
    match err {
        LimitError::TooSlow => Failure::new(Code::Usage, "64 KiB a second is the least limit")
            .hint("no limit:  p2pfs limit --up none --down none"),
        LimitError::TooMany(err) => Failure::new(Code::Usage, err.to_string())
            .hint("whose:  p2pfs limit")
            .hint("without one of them:  p2pfs limit --up none --down none --peer PEER"),
    }
}

pub(super) fn this_node() -> Failure {
    Failure::new(Code::Usage, "that is this node itself").hint("the others:  p2pfs peers")
}

pub(super) fn unknown_peer() -> Failure {
    Failure::new(Code::NotFound, "no peer is called that")
        .hint("who is there:  p2pfs peers")
        .hint("by address:  p2pfs connect HOST:4000")
}

pub(super) fn dial(err: &DialError) -> Failure {
    let code = match err {
        DialError::Version { .. } => Code::Version,
        DialError::Refused { .. } | DialError::Unwelcome { .. } => Code::Denied,
        DialError::Myself { .. } => Code::Usage,
        _ => Code::Unreachable,
    };
    let hint = match err {
        DialError::Unreachable { .. } | DialError::TimedOut { .. } => {
            "is the daemon running there, and does a firewall let its port through?"
        }
        DialError::NotP2pfs { .. } | DialError::Handshake { .. } => {
            "is that its daemon's port? On its machine:  p2pfs status"
        }
        DialError::Version { .. } => "update the older one; this one is:  p2pfs --version",
        DialError::Myself { .. } => "give another node's address:  p2pfs connect HOST:4000",
        _ => "who is who:  p2pfs peers",
    };
    Failure::new(code, shown(&err.to_string()).into_owned()).hint(hint)
}
