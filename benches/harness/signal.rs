//! Signals to daemons, for the benches that stop and kill some.

use crate::harness::Swarm;
use std::process::Command;

impl Swarm {
    pub(crate) fn signal(&self, node: usize, name: &str) {
        let pid = self.daemons[node].id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }
}
