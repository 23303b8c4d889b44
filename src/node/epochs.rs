//! Who can read: opens the epochs that are sealed to this node, and seals them to others. Founding
//! a swarm and granting are here too, because both come with secrets. What grants and epoch records
//! say is `core::access`'s and `core::catalogue`'s.
//!
//! In an open swarm each epoch is also sealed to a key that everybody knows (`everybody`): its
//! statement says that everybody may read, so nobody has to be there to let a new node read.

use super::publish::{Publication, PublishError};
use super::{Shared, files::FileError};
use crate::core::access::{Grant, OpenStatement, Roles};
use crate::core::catalogue::{
    self, BOXES_MAX, EpochRecord, Header, Kind, Recipient, Record, SecretBox, TooLarge, View as _,
    sealed_secrets, sign,
};
use crate::crypto::{ContentSecret, OwnerKey, SwarmKey, seal_to_node, seal_to_owner};
use crate::id::{EpochId, NodeId};
use crate::wire::codec::{Decode, Encode};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What an epoch's secret is sealed for.
const EPOCH_CONTEXT: &[u8] = b"p2pfs epoch secret v1";
/// Makes the key that everybody knows from the swarm's public key.
const EVERYBODY: &str = "p2pfs 2026-11 open swarm reader v1";

/// The key to which an open swarm seals its epochs: it follows from the swarm's public key.
fn everybody(swarm: &[u8; 32]) -> OwnerKey {
    OwnerKey::from_seed(&blake3::derive_key(EVERYBODY, swarm))
}

impl Shared {
    /// Opens every epoch that is sealed to this node, its owner or everybody, and applies what
    /// waited for it.
    pub(super) async fn learn_epochs(self: &Arc<Self>) {
        let Some(standing) = self.standing() else { return };
        let owners = [self.owner.clone(), everybody(&standing.swarm)];
        let mut recipients = vec![Recipient::Node(self.me.0)];
        recipients.extend(owners.iter().map(|owner| Recipient::Owner(owner.public())));
        let found = self.read_records(|view| sealed_secrets(view, &recipients));
        for secret in found.unwrap_or_default() {
            let opened = match secret.recipient {
                Recipient::Node(_) => self.key.open(EPOCH_CONTEXT, &secret.sealed).ok(),
                Recipient::Owner(public) => {
                    let owner = owners.iter().find(|owner| owner.public() == public);
                    owner.and_then(|owner| owner.open(EPOCH_CONTEXT, &secret.sealed).ok())
                }
            };
            let Some(Ok(bytes)) = opened.map(|bytes| <[u8; 32]>::try_from(&bytes[..])) else {
                continue;
            };
            let content = ContentSecret(bytes);
            if content.epoch() == secret.epoch {
                self.catalogue.add(secret.made, content);
            }
        }
        while self.catch_up_once().await {}
    }

    /// The records of a swarm that was just founded: its first epoch, and that it is open if so.
    pub(super) async fn found(
        self: &Arc<Self>,
        swarm: &SwarmKey,
        open: bool,
    ) -> Result<(), PublishError> {
        let content = ContentSecret(self.sys.rng.bytes());
        let mut readers = vec![Recipient::Node(self.me.0), Recipient::Owner(self.owner.public())];
        let mut records = Vec::new();
        if open {
            readers.push(Recipient::Owner(everybody(&swarm.public()).public()));
            let body = OpenStatement::issue(swarm, self.sys.clock.wall_ms()).to_bytes();
            records.push(self.plain_record(Kind::OpenStatement, &body)?);
        }
        records.extend(self.epoch_records(swarm, &content, self.tick(), &readers)?);
        self.publish(Publication { records, needed: 1, ..Publication::default() }).await.map(drop)
    }

    /// Makes a grant known, and seals all epochs to its node and owner.
    pub(super) async fn publish_grant(
        self: &Arc<Self>,
        swarm: &SwarmKey,
        grant: &Grant,
    ) -> Result<(), PublishError> {
        let mut records = vec![self.plain_record(Kind::Grant, &grant.to_bytes())?];
        if grant.terms.roles.contains(Roles::READ) {
            for (content, made) in self.catalogue.secrets() {
                records.extend(self.epoch_records(swarm, &content, made, &readers_of(grant))?);
            }
        }
        let needed = 2.min(self.view().others().count() + 1);
        self.publish(Publication { records, needed, ..Publication::default() }).await.map(drop)
    }

    /// Seals every epoch that this node knows to the readers who lack it, if it may: those that let
    /// themselves in with a copy of the swarm key have nobody else to do it.
    pub(super) async fn seal_to_all(self: &Arc<Self>) -> Result<(), PublishError> {
        let Ok(Some(swarm)) = self.swarm_key() else { return Ok(()) };
        let mut records = Vec::new();
        for (content, made, readers) in self.who_lacks().unwrap_or_default() {
            records.extend(self.epoch_records(&swarm, &content, made, &readers)?);
        }
        if records.is_empty() {
            return Ok(());
        }
        tracing::info!(records = records.len(), "sealing the content secret to new readers");
        self.publish(Publication { records, needed: 1, ..Publication::default() }).await.map(drop)
    }

    /// Whether there is something for [`Shared::seal_to_all`] to do.
    pub(super) fn somebody_cannot_read(&self) -> Result<bool, FileError> {
        Ok(self.swarm_key()?.is_some() && !self.who_lacks().unwrap_or_default().is_empty())
    }

    /// The epochs that this node knows, each with the readers to whom it is not sealed.
    fn who_lacks(&self) -> io::Result<Vec<(ContentSecret, u64, Vec<Recipient>)>> {
        let secrets = self.catalogue.secrets();
        let Some(standing) = self.standing().filter(|_| !secrets.is_empty()) else {
            return Ok(Vec::new());
        };
        let now = self.sys.clock.wall_ms();
        let (readers, boxes) = self.read_records(|view| {
            let mut readers = BTreeSet::new();
            for id in catalogue::grants(view)? {
                let record = view.record(&id)?.and_then(|bytes| Record::parse(bytes).ok());
                let grant = record.and_then(|record| Grant::from_bytes(record.body()).ok());
                let reads = |grant: &Grant| {
                    let roles = grant.verify(&standing.swarm, &grant.terms.node, now);
                    roles.is_ok_and(|roles| roles.contains(Roles::READ))
                };
                readers.extend(grant.filter(reads).iter().flat_map(readers_of));
            }
            if !catalogue::open_statements(view)?.is_empty() {
                readers.insert(Recipient::Owner(everybody(&standing.swarm).public()));
            }
            // A key that nothing can be sealed to cannot read anyway.
            readers.retain(|to| seal(to, &[0; 32], &[]).is_some());
            Ok((readers, catalogue::boxes(view)?))
        })?;
        let lacking = secrets.into_iter().map(|(content, made)| {
            let epoch = content.epoch();
            let lacks = |to: &&Recipient| !boxes.contains(&(epoch, **to));
            let readers = readers.iter().filter(lacks).copied().collect();
            (content, made, readers)
        });
        Ok(lacking.filter(|(_, _, readers): &(_, _, Vec<_>)| !readers.is_empty()).collect())
    }

    /// An epoch's secret for these readers.
    fn epoch_records(
        &self,
        swarm: &SwarmKey,
        content: &ContentSecret,
        made: u64,
        readers: &[Recipient],
    ) -> Result<Vec<Vec<u8>>, TooLarge> {
        let boxes: Vec<SecretBox> = readers
            .iter()
            .filter_map(|to| {
                let sealed = seal(to, &self.sys.rng.bytes(), &content.0)?;
                Some(SecretBox { recipient: *to, sealed })
            })
            .collect();
        let record = |boxes: &[SecretBox]| {
            let epoch = EpochRecord { epoch: content.epoch(), made, boxes: boxes.to_vec() };
            epoch.sign(&self.key, swarm, self.tick())
        };
        boxes.chunks(BOXES_MAX).map(record).collect()
    }

    fn plain_record(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>, TooLarge> {
        sign(&self.key, Header::plain(kind, self.tick(), self.me, EpochId::NONE), body)
    }

    /// What says that the swarm is open, if it is.
    pub(super) fn open_statement(&self, swarm: &[u8; 32]) -> Option<OpenStatement> {
        let statements = self.read_records(|view| {
            let ids = catalogue::open_statements(view)?;
            ids.iter().map(|id| view.record(id)).collect::<io::Result<Vec<_>>>()
        });
        statements.ok()?.into_iter().flatten().find_map(|bytes| {
            let record = Record::parse(bytes).ok()?;
            let statement = OpenStatement::from_bytes(record.body()).ok()?;
            statement.verify(swarm).is_ok().then_some(statement)
        })
    }
}

fn readers_of(grant: &Grant) -> [Recipient; 2] {
    [Recipient::Node(grant.terms.node.0), Recipient::Owner(grant.terms.owner)]
}

fn seal(to: &Recipient, seed: &[u8; 32], plain: &[u8]) -> Option<Vec<u8>> {
    match to {
        Recipient::Node(id) => seal_to_node(&NodeId(*id), seed, EPOCH_CONTEXT, plain).ok(),
        Recipient::Owner(owner) => seal_to_owner(owner, seed, EPOCH_CONTEXT, plain).ok(),
    }
}
