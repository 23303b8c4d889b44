//! I7: when everything has been well for a while, all nodes know each other, show the same tree,
//! and every chunk has its copies.

use super::acknowledged::Ledger;
use crate::life::Listing;
use p2pfs::wire::control::{NodeState, Status};

/// What a machine says of itself and lists, if it answers.
pub(crate) type State = Option<(Box<Status>, Listing)>;

/// What is still missing, if anything. A disk that rotted may have lost what only it had: whether
/// that was promised to anybody is judged by who reads it.
pub(crate) fn check(ledger: &Ledger, states: &[(usize, State)]) -> Result<(), String> {
    let all = || states.iter().flat_map(|(_, state)| state).map(|(status, _)| status);
    let lost: u64 = all().map(|status| status.lost).sum();
    if lost > 0 && !ledger.rotted {
        return Err(format!("{lost} chunks are lost"));
    }
    // With fewer machines than copies, a copy on each is all that can be; what one counts as
    // lacking a machine the others know.
    let too_few = all().any(|status| usize::from(status.replicas) > states.len());
    let homeless: u64 = all().map(|status| status.need_nodes).sum();
    let below = lost + if too_few { homeless } else { 0 };
    let mut trees: Vec<(usize, &Listing)> = Vec::new();
    for (at, state) in states {
        let Some((status, tree)) = state else { return Err(format!("n{at} does not answer")) };
        let others = states.len() - 1;
        let wrong = |what: &str| Err(format!("n{at}: {what} {:?}", status.problems));
        match status {
            status if status.state != NodeState::Member => return wrong("is no member"),
            status if status.peers_alive as usize != others => {
                return wrong(&format!("sees {} peers", status.peers_alive));
            }
            status if status.under_replicated > below => {
                return wrong(&format!(
                    "{} chunks below their copies, {homeless} without a home",
                    status.under_replicated
                ));
            }
            _ => {}
        }
        if let Some(problem) =
            status.problems.iter().find(|what| !is_expected(what, lost > 0 || too_few))
        {
            return wrong(&format!("says {problem:?}"));
        }
        trees.push((*at, tree));
    }
    let (first, tree) = trees[0];
    match trees.iter().find(|(_, other)| *other != tree) {
        Some((at, other)) => Err(format!("n{first} lists {tree:?}, n{at} {other:?}")),
        None => Ok(()),
    }
}

/// Whether a problem is as it should be: a machine that was replaced is remembered under its old
/// name, and what is lost or lacks a machine is said.
fn is_expected(problem: &str, too_few: bool) -> bool {
    let of_loss = ["on no other node", "fewer copies than wanted"];
    // Those that have gone for good may be where a machine looks for others at its start.
    let of_gone = ["has been dead", "did not answer in time; retrying"];
    of_gone.iter().any(|of| problem.contains(of))
        || too_few && of_loss.iter().any(|of| problem.contains(of))
}

/// What is missing in the common tree, if anything.
pub(crate) fn check_tree(ledger: &Ledger, tree: &Listing) -> Result<(), String> {
    for path in ledger.paths() {
        match tree.iter().find(|(listed, _)| listed == path) {
            Some((_, Some(hash))) if ledger.was_tried(path, hash) => {}
            Some((_, hash)) => return Err(format!("{path} shows {hash:?}")),
            None => return Err(format!("{path} is not listed although it was acknowledged")),
        }
    }
    Ok(())
}
