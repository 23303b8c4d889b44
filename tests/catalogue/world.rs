//! A swarm of replicas in memory: each has its own tables, clock and key, and makes records through
//! the planner as a node would.

use crate::maptables::MapTables;
use p2pfs::core::catalogue::{
    Applied, Attributes, Authority, CaughtUp, Checked, Context, Draft, EpochRecord, FileVersion,
    GrantFacts, Header, Keyring, Kind, Recipient, Refusal, SecretBox, Source, View, apply,
    catch_up, seal_tree, sign, vet,
};
use p2pfs::core::hlc::{Hlc, at_ms};
use p2pfs::core::tree::{Entry, NewFile, Planner, Share, ShareWalk, Tree, TreeError, Walk};
use p2pfs::crypto::{ContentSecret, EpochKeys, NodeKey, SwarmKey, verify};
use p2pfs::id::{ClaimId, EpochId, FileHash, InodeId, NodeId, RecordId};

/// The wall clock at which every world begins.
pub(crate) const START_MS: u64 = 1_795_252_864_000;

pub(crate) fn swarm() -> SwarmKey {
    SwarmKey::from_seed(&[1; 32])
}

/// The keys of the first, second … epoch.
pub(crate) fn epoch(number: u8) -> (u64, EpochKeys) {
    (at_ms(u64::from(number)), EpochKeys::new(&ContentSecret([number; 32])))
}

/// Grants of the test: node, write bit, from, until, the swarm's signature.
pub(crate) struct Rules(pub(crate) [u8; 32]);

impl Rules {
    pub(crate) fn of_swarm() -> Self {
        Self(swarm().public())
    }
}

pub(crate) fn grant_body(node: &NodeId, write: bool, from_ms: u64, until_ms: u64) -> Vec<u8> {
    let mut body = node.0.to_vec();
    body.push(u8::from(write));
    body.extend_from_slice(&from_ms.to_le_bytes());
    body.extend_from_slice(&until_ms.to_le_bytes());
    let signature = swarm().sign("test grant", &body);
    body.extend_from_slice(&signature);
    body
}

impl Authority for Rules {
    fn grant(&self, body: &[u8]) -> Option<GrantFacts> {
        let (said, signature) = body.split_last_chunk::<64>()?;
        let number = |at: usize| Some(u64::from_le_bytes(said.get(at..at + 8)?.try_into().ok()?));
        let node = NodeId(said.get(..32)?.try_into().ok()?);
        let facts = GrantFacts {
            node,
            may_write: said.get(32)? == &1,
            from_ms: number(33)?,
            until_ms: number(41)?,
        };
        verify(&self.0, "test grant", said, signature).then_some(facts)
    }

    fn open_statement(&self, body: &[u8]) -> Option<bool> {
        (body == b"open").then_some(true)
    }

    fn swarm_public(&self) -> &[u8; 32] {
        &self.0
    }
}

/// One member.
pub(crate) struct Replica {
    pub(crate) store: MapTables,
    pub(crate) keyring: Keyring,
    pub(crate) key: NodeKey,
    pub(crate) now_ms: u64,
    clock: Hlc,
    drawn: u64,
}

impl Replica {
    /// A member with the keys of the epochs `1..=epochs`, and a grant that lets it write.
    pub(crate) fn new(number: u8, epochs: u8) -> Self {
        let mut keyring = Keyring::default();
        for (made, keys) in (1..=epochs).map(epoch) {
            keyring.add(made, keys);
        }
        let key = NodeKey::from_seed(&[number; 32]);
        let (store, clock) = (MapTables::default(), Hlc::default());
        let mut replica = Self { store, keyring, key, now_ms: START_MS, clock, drawn: 0 };
        let grant = replica.grant();
        assert_eq!(replica.apply(&grant), Applied::New);
        replica
    }

    /// The record that lets this member write.
    pub(crate) fn grant(&self) -> Vec<u8> {
        let header = Header::plain(Kind::Grant, at_ms(1), self.key.id(), EpochId::NONE);
        sign(&self.key, header, &grant_body(&self.key.id(), true, 0, u64::MAX)).unwrap()
    }

    /// Applies a record that came from a peer, and keeps it as a store would.
    pub(crate) fn apply(&mut self, bytes: &[u8]) -> Applied {
        self.apply_from(bytes, Source::Peer { now_ms: self.now_ms })
    }

    pub(crate) fn apply_from(&mut self, bytes: &[u8], source: Source) -> Applied {
        let checked = match Checked::new(bytes.to_vec()) {
            Ok(checked) => checked,
            Err(refusal) => return Applied::Refused(refusal),
        };
        let rules = Rules::of_swarm();
        let context = Context { keyring: &self.keyring, authority: &rules };
        let vetted = vet(&self.store, &rules, self.now_ms, &checked).unwrap();
        let applied = apply(&mut self.store, context, source, &checked).unwrap();
        // What was asked before is what happened; only how many may wait is known to `apply` alone.
        match (vetted, applied) {
            (Applied::New, Applied::New | Applied::Sealed)
            | (Applied::Waiting, Applied::Known | Applied::Refused(Refusal::Author)) => {}
            _ => assert!(vetted == applied || source == Source::Disk, "{vetted:?} {applied:?}"),
        }
        if !matches!(applied, Applied::Refused(_) | Applied::Known) {
            self.store.records.insert(checked.record().id, bytes.to_vec());
            let _ = self.clock.observe(checked.record().header.clock, self.now_ms);
        }
        applied
    }

    pub(crate) fn catch_up(&mut self, limit: usize) -> bool {
        self.catch_up_some(limit).more
    }

    fn catch_up_some(&mut self, limit: usize) -> CaughtUp {
        let rules = Rules::of_swarm();
        let context = Context { keyring: &self.keyring, authority: &rules };
        catch_up(&mut self.store, context, limit).unwrap()
    }

    /// What had waited and is applied now.
    pub(crate) fn applied_later(&mut self) -> Vec<RecordId> {
        let mut applied = Vec::new();
        loop {
            let done = self.catch_up_some(100);
            applied.extend(done.applied);
            if !done.more {
                return applied;
            }
        }
    }

    pub(crate) fn learn(&mut self, number: u8) {
        let (made, keys) = epoch(number);
        self.keyring.add(made, keys);
        while self.catch_up(3) {}
    }

    pub(crate) fn tree(&self) -> Tree<'_> {
        Tree::new(&self.store, &self.keyring)
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.now_ms += 1;
        self.clock.tick(self.now_ms)
    }

    /// A number that no other replica draws.
    pub(crate) fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let seed = [&self.key.id().0[..], &self.drawn.to_le_bytes()].concat();
        blake3::hash(&seed).into()
    }

    pub(crate) fn inode(&mut self) -> InodeId {
        InodeId(self.draw()[..16].try_into().unwrap())
    }

    /// Seals, signs and applies a draft; the record's bytes.
    pub(crate) fn commit(&mut self, draft: &Draft) -> Vec<u8> {
        let nonce: [u8; 24] = self.draw()[..24].try_into().unwrap();
        let clock = self.tick();
        let keys = self.keyring.newest().unwrap();
        let bytes = seal_tree(&self.key, keys, clock, &nonce, draft).unwrap();
        assert_eq!(self.apply(&bytes), Applied::New);
        bytes
    }

    /// What a wish comes to.
    pub(crate) fn plan<T>(
        &mut self,
        wish: impl FnOnce(&mut Planner<'_, '_>) -> Result<T, TreeError>,
    ) -> Result<Vec<Draft>, TreeError> {
        let inodes: Vec<InodeId> = (0..512).map(|_| self.inode()).collect();
        let mut inodes = inodes.into_iter();
        let mut new_inode = || inodes.next().unwrap();
        let tree = self.tree();
        let mut planner = tree.planner(&mut new_inode)?;
        wish(&mut planner)?;
        Ok(planner.finish())
    }

    fn wish<T>(
        &mut self,
        wish: impl FnOnce(&mut Planner<'_, '_>) -> Result<T, TreeError>,
    ) -> Result<Vec<u8>, TreeError> {
        let drafts = self.plan(wish)?;
        assert_eq!(drafts.len(), 1, "one wish is one record");
        Ok(self.commit(&drafts[0]))
    }

    pub(crate) fn put(&mut self, path: &str, content: u64) -> Result<Vec<u8>, TreeError> {
        self.put_file(path, new_file(content))
    }

    pub(crate) fn put_file(&mut self, path: &str, file: NewFile) -> Result<Vec<u8>, TreeError> {
        self.wish(|planner| planner.put(path.as_bytes(), file))
    }

    pub(crate) fn mkdir(&mut self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.wish(|planner| planner.mkdir(path.as_bytes(), Attributes::default()))
    }

    pub(crate) fn remove(&mut self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.wish(|planner| planner.remove(path.as_bytes()))
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<Vec<u8>, TreeError> {
        self.wish(|planner| planner.rename(from.as_bytes(), to.as_bytes()))
    }

    /// Everything that this replica has and the other has not.
    pub(crate) fn send_all(&self, to: &mut Self) {
        for bytes in self.store.records.values() {
            to.now_ms = to.now_ms.max(self.now_ms);
            assert!(!matches!(to.apply(bytes), Applied::Refused(_)));
        }
        while to.catch_up(100) {}
    }

    /// The visible tree, one line per entry, and what is shared.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut visit = |path: &[u8], entry: &Entry| {
            use p2pfs::core::catalogue::Node;
            let what = match &entry.version.node {
                Node::File(file) => format!(" {}", file.size),
                Node::Dir { .. } => "/".to_owned(),
                Node::Link(target) => format!(" -> {}", target.escape_ascii()),
                Node::Special(special) => format!("{special:?}"),
                Node::Shared(_) => panic!("what is shared has no name in the tree"),
            };
            out.push(format!("{}{what}", path.escape_ascii()));
            // One at a time: a walk that is interrupted goes on where it was.
            false
        };
        let mut walk = Walk::new(InodeId::ROOT, b"/", true);
        while self.tree().walk(&mut walk, &mut visit).unwrap() {}
        let mut shares = |share: Share| {
            let path = share.file.path.escape_ascii().to_string();
            out.push(format!("{}:{path} {}", share.sharer.short(), share.file.version.size));
            true
        };
        self.tree().walk_shares(&mut ShareWalk::new(None), &mut shares).unwrap();
        out
    }

    pub(crate) fn has(&self, bytes: &[u8]) -> bool {
        self.store.record(&p2pfs::core::catalogue::id_of(bytes)).unwrap().is_some()
    }
}

/// A file whose length tells it from others.
pub(crate) fn new_file(content: u64) -> NewFile {
    let version = FileVersion {
        hash: hash_of(content),
        size: content,
        claim: ClaimId([7; 16]),
        record: None,
    };
    NewFile { version, attributes: Attributes { mode: 0o644, ..Attributes::default() } }
}

pub(crate) fn hash_of(content: u64) -> FileHash {
    FileHash(blake3::hash(&content.to_le_bytes()).into())
}

/// The record of an epoch with one box.
pub(crate) fn epoch_record(number: u8, key: &NodeKey) -> EpochRecord {
    let (made, keys) = epoch(number);
    let recipient = Recipient::Node(key.id().0);
    let boxes = vec![SecretBox { recipient, sealed: vec![number; 80] }];
    EpochRecord { epoch: keys.epoch(), made, boxes }
}

/// Two members that know the same.
pub(crate) fn pair() -> (Replica, Replica) {
    let (mut a, mut b) = (Replica::new(10, 1), Replica::new(11, 1));
    meet(&mut a, &mut b);
    (a, b)
}

/// They tell each other all that they know.
pub(crate) fn meet(a: &mut Replica, b: &mut Replica) {
    a.send_all(b);
    b.send_all(a);
    assert_eq!(a.lines(), b.lines());
    assert!(a.store.tables == b.store.tables, "the same set, other tables");
}
