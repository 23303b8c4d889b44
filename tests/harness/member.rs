//! A member of a swarm that is no node: somebody with the swarm's key has let it in, and what it
//! asks of a node is what a test has it ask. It answers nothing.

use p2pfs::core::access::{FOREVER, Grant, Roles, Terms};
use p2pfs::crypto::{NodeKey, SwarmKey};
use p2pfs::id::NodeId;
use p2pfs::sys::os::OsRng;
use p2pfs::sys::{BoxFuture, Net};
use p2pfs::transport::{
    Admission, Buffers, Handler, Limits, LinkEvent, Message, Options, Security, Transport,
};
use p2pfs::wire::codec::Encode;
use p2pfs::wire::frame::Refusal;
use p2pfs::wire::hello::{Hello, Introduction, Lane};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Answers nothing.
struct Mute(Introduction);

impl Handler for Mute {
    fn name(&self) -> String {
        "mallory".into()
    }

    fn introduce(&self, _: NodeId, _: Lane) -> Introduction {
        self.0.clone()
    }

    fn admit(&self, _: NodeId, _: &Hello, _: SocketAddr) -> Admission {
        Admission::Member
    }

    fn stranger_kinds(&self) -> &[u16] {
        &[]
    }

    fn serve(
        &self,
        _: NodeId,
        _: Lane,
        _: Message,
    ) -> BoxFuture<'static, Result<Message, Refusal>> {
        Box::pin(std::future::pending())
    }

    fn notify(&self, _: NodeId, _: Message) {}

    fn link(&self, _: LinkEvent) {}
}

/// Who it is.
#[derive(Clone)]
pub(crate) struct Member {
    key: NodeKey,
    intro: Introduction,
}

impl Member {
    /// One of the swarm whose key is in this configuration directory; another for each name.
    pub(crate) fn new(config: &Path, name: u8) -> Self {
        let seed = std::fs::read(config.join("swarm.key")).unwrap();
        let swarm = SwarmKey::from_seed(&seed.try_into().unwrap());
        let key = NodeKey::from_seed(&[name; 32]);
        let terms = Terms {
            node: key.id(),
            owner: [7; 32],
            roles: Roles::MEMBER,
            label: "mallory".into(),
            not_before: 0,
            not_after: FOREVER,
            serial: [name; 16],
        };
        let grant = Grant::issue(&swarm, terms).to_bytes();
        let intro = Introduction { swarm: Some(swarm.swarm()), grant, ..Introduction::default() };
        Self { key, intro }
    }

    /// Its way to others, over this network.
    pub(crate) async fn transport(&self, net: Arc<dyn Net>) -> Transport {
        let options = Options {
            key: self.key.clone(),
            net,
            rng: Arc::new(OsRng),
            limits: Limits::default(),
            listen: Vec::new(),
            handler: Arc::new(Mute(self.intro.clone())),
            security: Security::tls(),
            requests: Buffers::new(32 << 20),
            responses: Buffers::new(32 << 20),
        };
        Transport::start(options).await.unwrap()
    }
}
