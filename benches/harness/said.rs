//! What a command says to a person, for the benches that measure by it.

use crate::harness::Swarm;

impl Swarm {
    /// What a command that must succeed says on standard error.
    pub(crate) fn said(&self, node: usize, args: &[&str]) -> String {
        let out = self.run(node, args);
        assert!(out.status.success(), "p2pfs {args:?} at node {node} failed");
        String::from_utf8_lossy(&out.stderr).trim().to_owned()
    }
}
