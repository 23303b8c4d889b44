//! p2pfs as a library: two nodes in one process, over real TCP on loopback, and a real file from
//! one to the other, through the types that `lib.rs` promises to keep.

// The lint's exception for tests does not reach what several tests share.
#![allow(clippy::unwrap_used)]

use p2pfs::wire::control::{Code, PeerState, Put, Range, Target, Wait};
use p2pfs::{Client, Config, ControlSocket, Node};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for anything here.
const DEADLINE: Duration = Duration::from_secs(60);

/// Settings of a node in `dir`, which finds `first` if there is one.
fn config(dir: &Path, name: &str, first: Option<&Node>) -> Config {
    let mut config = Config::new(dir.join(name), dir.join("config"));
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.name = Some(name.to_owned());
    config.replicas = 2;
    let address: Option<SocketAddr> = first.map(|node| node.identity().listen[0].parse().unwrap());
    config.bootstrap = address.iter().map(|at| (at.ip().to_string(), at.port())).collect();
    config
}

/// A client of a node, through a socket of its own.
fn client(dir: &Path, name: &str, node: &Arc<Node>) -> Client {
    let path = dir.join(format!("{name}.sock"));
    tokio::spawn(ControlSocket::bind(&path).unwrap().serve_node(node.clone()));
    Client::new(path)
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "it did not happen: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_from_one_node_to_another_in_one_process() {
    let dir = TempDir::new().unwrap();
    let one = Arc::new(Node::start(config(dir.path(), "one", None)).await.unwrap());
    let two = Arc::new(Node::start(config(dir.path(), "two", Some(&one))).await.unwrap());
    let sees = |node: &Node| node.peers().iter().any(|peer| peer.state == PeerState::Alive);
    until("they know each other", async || sees(&one) && sees(&two)).await;
    let (at_one, at_two) = (client(dir.path(), "1", &one), client(dir.path(), "2", &two));

    // This test's own executable: a real file of several chunks.
    let file = std::env::current_exe().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let put = Put { path: Some("/bin/test".into()), wait: Some(Wait::All), ..Put::default() };
    let stored = at_one.put_path(&file, put).await.unwrap();
    assert_eq!(stored.hash.0, *blake3::hash(&bytes).as_bytes());
    assert_eq!((stored.copies, stored.holders), (2, vec!["one".to_owned(), "two".to_owned()]));

    let out = dir.path().join("out");
    let saved = at_two.get_path(Target::Hash(stored.hash), &out, false).await.unwrap();
    assert_eq!(saved.fetched.size, bytes.len() as u64);
    assert!(std::fs::read(&out).unwrap() == bytes, "another file came back");
    let again = at_two.get_path(Target::Hash(stored.hash), &out, false).await.unwrap_err();
    assert_eq!(again.code, Code::Conflict);

    let mut middle = Vec::new();
    let range = Range::Span { start: 1_000_000, end: Some(1_100_000) };
    at_two.get(Target::Path("/bin/test".into()), Some(range), &mut middle).await.unwrap();
    assert!(middle == bytes[1_000_000..1_100_000], "another range came back");

    let listed = at_two.list("/".into(), true).await.unwrap().all().await.unwrap();
    let paths: Vec<_> = listed.iter().map(|file| file.path.clone()).collect();
    assert_eq!(paths, ["/bin".into(), "/bin/test".into()]);
    let status = at_two.status().await.unwrap();
    assert_eq!((status.peers_alive, status.files, status.under_replicated), (1, 1, 0));

    at_one.stop().await.unwrap();
    assert_eq!(at_one.id().await.unwrap_err().code, Code::NoDaemon);
    until("two knows that one has left", async || {
        two.peers().iter().all(|peer| peer.state == PeerState::Left)
    })
    .await;
    // It has a copy of everything itself.
    let alone = dir.path().join("alone");
    at_two.get_path(Target::Path("/bin/test".into()), &alone, false).await.unwrap();
    assert!(std::fs::read(&alone).unwrap() == bytes, "another file came back");
    at_two.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_has_one_node_at_a_time() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(config(dir.path(), "one", None)).await.unwrap();
    let Err(second) = Node::start(config(dir.path(), "one", None)).await else {
        panic!("two nodes in one directory");
    };
    assert!(second.to_string().contains("already running"), "{second}");
    let id = node.identity().id;
    node.stop().await;
    drop(node);
    let again = Node::start(config(dir.path(), "one", None)).await.unwrap();
    assert_eq!(again.identity().id, id);
    again.stop().await;
}
