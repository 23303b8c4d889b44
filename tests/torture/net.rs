//! A network of its own for each node: network namespaces on a bridge that stands in one more, and
//! what that bridge lets through. Owns the namespaces; they go with it, and with them all links.

use crate::daemon::Daemon;
use crate::machine::{path_of, run};
use std::io::Write;
use std::process::{Command, Stdio};

/// A bridge and its nodes.
pub(crate) struct Net {
    name: String,
    nodes: usize,
}

impl Net {
    /// Makes one for so many nodes.
    pub(crate) fn of(nodes: usize) -> Self {
        let net = Self { name: format!("p2pfs{}", std::process::id()), nodes };
        let hub = net.hub();
        run("ip", &["netns", "add", &hub]);
        let within = |args: &[&str]| run("ip", &[&["-n", &hub], args].concat());
        within(&["link", "add", "bridge", "type", "bridge"]);
        within(&["link", "set", "bridge", "up"]);
        for node in 0..nodes {
            let (space, port) = (net.space(node), port(node));
            run("ip", &["netns", "add", &space]);
            let there = ["peer", "name", "eth", "netns", &space];
            within(&[&["link", "add", &port, "type", "veth"], &there[..]].concat());
            within(&["link", "set", &port, "master", "bridge", "up"]);
            let at = format!("{}/24", address(node));
            run("ip", &["-n", &space, "address", "add", &at, "dev", "eth"]);
            run("ip", &["-n", &space, "link", "set", "eth", "up"]);
            run("ip", &["-n", &space, "link", "set", "lo", "up"]);
        }
        net
    }

    /// Has a node that is not running live there.
    pub(crate) fn settle(&self, number: usize, node: &mut Daemon) {
        let ip = path_of("ip").unwrap();
        node.prefix = [&ip, "netns", "exec", &self.space(number)].map(Into::into).to_vec();
        node.listen = format!("{}:4000", address(number));
    }

    /// From now on frames from the first to the second of each pair are lost, and no others.
    pub(crate) fn lose(&self, pairs: &[(usize, usize)]) {
        let mut rules = String::from("table bridge cut\ndelete table bridge cut\n");
        rules += "table bridge cut { chain lost { type filter hook forward priority 0;\n";
        for (from, to) in pairs {
            rules += &format!("iifname \"{}\" oifname \"{}\" drop\n", port(*from), port(*to));
        }
        rules += "}\n}\n";
        self.nft(&self.hub(), &["-f", "-"], &rules);
    }

    /// Counts from now on what a node says and hears by multicast DNS.
    pub(crate) fn count_rumours(&self, node: usize) {
        let rules = "table inet rumours {\n\
            chain said { type filter hook output priority 0;\n udp dport 5353 counter\n }\n}\n";
        self.nft(&self.space(node), &["-f", "-"], rules);
    }

    /// How many packets those were.
    pub(crate) fn rumours(&self, node: usize) -> u64 {
        let list = self.nft(&self.space(node), &["list", "table", "inet", "rumours"], "");
        let count = list.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.unwrap().parse().unwrap()
    }

    fn nft(&self, space: &str, args: &[&str], rules: &str) -> String {
        let mut nft = Command::new(path_of("ip").unwrap());
        nft.args(["netns", "exec", space, &path_of("nft").unwrap()]).args(args);
        let mut nft = nft.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let said = nft.wait_with_output().unwrap();
        assert!(said.status.success());
        String::from_utf8(said.stdout).unwrap()
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }
}

fn port(node: usize) -> String {
    format!("port{node}")
}

/// A node's address; nobody outside sees it.
fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

impl Drop for Net {
    fn drop(&mut self) {
        let spaces = (0..self.nodes).map(|node| self.space(node)).chain([self.hub()]);
        for space in spaces {
            let ip = path_of("ip").unwrap_or_default();
            Command::new(ip).args(["netns", "delete", &space]).status().ok();
        }
    }
}
