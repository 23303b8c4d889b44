//! Nodes of one swarm on one network that nobody has told about each other, and what they say to
//! others there.

use crate::daemon::{Daemon, Swarm, until};
use crate::machine::{able, alone};
use crate::net::Net;

/// A node that knows nobody; it listens on all addresses of its machine.
fn stranger(net: &Net, swarm: &Swarm, number: usize, flags: &[&str]) -> Daemon {
    let mut node = swarm.draft();
    net.settle(number, &mut node);
    node.listen = "[::]:4000".into();
    node.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    node
}

#[test]
fn nodes_of_one_swarm_find_each_other_without_an_address() {
    let _turn = alone();
    if !able("nodes_of_one_swarm_find_each_other_without_an_address", &["ip", "nft"]) {
        return;
    }
    let net = Net::of(4);
    let mut swarm = Swarm::empty();
    let mut first = stranger(&net, &swarm, 0, &[]);
    // It listens on one address only, and says that one.
    net.settle(0, &mut first);
    first.start();
    swarm.add(first);
    let hash = swarm[0].put("/file", b"somewhere on this network", &[]);

    // Its user's swarm key is all that the second one has.
    net.count_rumours(1);
    let mut second = stranger(&net, &swarm, 1, &[]);
    second.start();
    swarm.add(second);
    swarm.met();
    assert_eq!(swarm[1].get(&hash), b"somewhere on this network");
    assert!(net.rumours(1) > 0, "or the counter counts nothing");

    // Whoever wants to be silent is: it finds nobody and says nothing.
    net.count_rumours(2);
    let mut silent = stranger(&net, &swarm, 2, &["--no-lan-discovery"]);
    silent.start();
    swarm.add(silent);

    // Another swarm is left alone; its owner is told how to join this one.
    let mut other = stranger(&net, &swarm, 3, &[]);
    other.config = other.work.join("config");
    other.start();
    swarm.add(other);
    until("the other swarm's owner to be told", || {
        swarm[3].log().contains("p2pfs daemon --bootstrap 10.77.0.")
    });
    assert_eq!((swarm[3].alive(), swarm[2].alive()), (0, 0));
    assert_eq!((swarm[0].alive(), swarm[1].alive()), (1, 1));
    assert_eq!(net.rumours(2), 0);

    // Both forget where the other was, and find each other again.
    for node in [0, 1] {
        swarm[node].kill();
        // A node that was killed so early may have remembered nobody yet.
        std::fs::remove_file(swarm[node].data.join("peers")).ok();
    }
    swarm[1].start();
    swarm[0].start();
    until("the two to meet again", || swarm[0].alive() == 1 && swarm[1].alive() == 1);
}
